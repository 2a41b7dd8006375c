package backend

import (
	"encoding/json"
	"strconv"
	"strings"

	"kilonova/internal/fault"
)

// Int is an integer that a body may also write as a string.
type Int int64

// UnmarshalJSON reads either form.
func (n *Int) UnmarshalJSON(b []byte) error {
	text := strings.Trim(strings.TrimSpace(string(b)), `"`)
	if text == "null" || text == "" {
		return nil
	}
	v, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return fault.New(fault.Invalid, "%q is not an integer.", text)
	}
	*n = Int(v)
	return nil
}

// Bool is a boolean that a body may also write as a string.
type Bool bool

// UnmarshalJSON reads either form.
func (v *Bool) UnmarshalJSON(b []byte) error {
	text := strings.Trim(strings.TrimSpace(string(b)), `"`)
	if text == "null" {
		return nil
	}
	t, ok := ParseBool(text)
	if !ok {
		return fault.New(fault.Invalid, "%q is not a boolean.", text)
	}
	*v = Bool(t)
	return nil
}

// ParseBool reads a boolean as the API spells it.
func ParseBool(s string) (value, ok bool) {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "1", "t", "true", "on", "y", "yes":
		return true, true
	case "0", "f", "false", "off", "n", "no":
		return false, true
	}
	return false, false
}

// Text is a string that a body may also write as a number.
type Text string

// UnmarshalJSON reads either form.
func (v *Text) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, (*string)(v))
	}
	if string(b) != "null" {
		*v = Text(b)
	}
	return nil
}

// Optional is a value that tells "not given" from null.
type Optional[T any] struct {
	Given bool
	Value *T // nil: null
}

// UnmarshalJSON notes that the key is there.
func (o *Optional[T]) UnmarshalJSON(b []byte) error {
	o.Given = true
	if string(b) == "null" {
		return nil
	}
	return json.Unmarshal(b, &o.Value)
}
