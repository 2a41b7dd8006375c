package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"kilonova/internal/fault"
)

// CompileSchema makes a Schema from a JSON Schema document (draft 2020-12 unless $schema says otherwise) with the formats that OpenStack
// uses; see formats.go. Errors of Validate have the shape of compute's: "Invalid input for field/attribute X. Value: V. <rule>". The
// Schema is also a Pruner.
func CompileSchema(name string, doc []byte) (Schema, error) {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
	if err != nil {
		return nil, fmt.Errorf("schema %s: %w", name, err)
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(jsonschema.SchemeURLLoader{}) // nothing is fetched: schemas stand alone
	c.AssertFormat()
	for _, f := range formats() {
		c.RegisterFormat(f)
	}
	url := "mem:///" + name
	if err := c.AddResource(url, v); err != nil {
		return nil, fmt.Errorf("schema %s: %w", name, err)
	}
	s, err := c.Compile(url)
	if err != nil {
		return nil, fmt.Errorf("schema %s: %w", name, err)
	}
	return &schema{s: s, doc: v}, nil
}

type schema struct {
	s   *jsonschema.Schema
	doc any // what s was compiled from
}

// Validate implements Schema.
func (s *schema) Validate(doc any) error {
	err := s.s.Validate(doc)
	if err == nil {
		return nil
	}
	var v *jsonschema.ValidationError
	if !errors.As(err, &v) {
		return fault.Wrap(err, fault.Invalid, "The request could not be validated.")
	}
	w := worst(v)
	value, part := at(doc, w.InstanceLocation), s.part(w)
	found := &Violation{Rule: explain(w.ErrorKind, value, part.content), schema: part, instance: w.InstanceLocation, value: value}
	if path := w.ErrorKind.KeywordPath(); len(path) > 0 {
		found.Keyword = path[len(path)-1]
	}
	return fault.Wrap(found, fault.Invalid, "%s", found.sentence())
}

// Violation is the cause of the error that a Schema gives: which rule a value broke, and where. Services whose clients know another sentence
// than compute's make it from this.
type Violation struct {
	Rule    string // "0 is less than the minimum of 1"
	Keyword string // the rule's name in JSON Schema: "minimum"

	schema   part
	instance []string
	value    any
}

func (v *Violation) Error() string { return v.Rule }

// Place tells where the rule stands and what broke it, in the notation that clients of the API know:
// Failed validating 'minimum' in schema['properties']['total']: {'minimum': 1, 'type': 'integer'}  On instance['total']: 0.
func (v *Violation) Place() string {
	on := strings.Builder{}
	for _, key := range v.instance {
		on.WriteString(step(key))
	}
	return fmt.Sprintf("Failed validating %s in schema%s:     %s  On instance%s:     %s", quoted(v.Keyword), v.schema.path, literal(v.schema.content), on.String(), literal(v.value))
}

// step is one key of a path; the places of a list are numbers.
func step(key string) string {
	if _, err := strconv.Atoi(key); err == nil {
		return "[" + key + "]"
	}
	return "[" + quoted(key) + "]"
}

// sentence is the error in compute's words. Errors about the whole document name no field.
func (v *Violation) sentence() string {
	if len(v.instance) == 0 {
		return v.Rule
	}
	return fmt.Sprintf("Invalid input for field/attribute %s. Value: %s. %s", v.instance[len(v.instance)-1], plain(v.value), v.Rule)
}

// part is a piece of a schema: its path, as ['properties']['total'], and itself.
type part struct {
	path    string
	content any
}

// part finds the piece of the schema that an error is about.
func (s *schema) part(v *jsonschema.ValidationError) part {
	p := part{content: s.doc}
	_, pointer, _ := strings.Cut(v.SchemaURL, "#")
	for _, token := range strings.Split(pointer, "/")[1:] {
		if plain, err := url.PathUnescape(token); err == nil {
			token = plain
		}
		token = strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
		p.path += step(token)
		p.content = at(p.content, []string{token})
	}
	return p
}

// Prune implements Pruner: it drops what additionalProperties refuses, level by level. Alternatives (oneOf, anyOf) are left alone, and so are objects whose keys
// are the caller's own and must have a pattern: there a key that does not is a mistake.
func (s *schema) Prune(doc any) {
	for range maxDepth {
		var v *jsonschema.ValidationError
		if !errors.As(s.s.Validate(doc), &v) {
			return
		}
		dropped := false
		for _, leaf := range leaves(v, nil) {
			k, ok := leaf.ErrorKind.(*kind.AdditionalProperties)
			if !ok {
				continue
			}
			m, ok := at(doc, leaf.InstanceLocation).(map[string]any)
			if sub, _ := s.part(leaf).content.(map[string]any); !ok || sub["patternProperties"] != nil {
				continue
			}
			for _, p := range k.Properties {
				delete(m, p)
				dropped = true
			}
		}
		if !dropped {
			return
		}
	}
}

// leaves lists the errors that say something by themselves.
func leaves(v *jsonschema.ValidationError, out []*jsonschema.ValidationError) []*jsonschema.ValidationError {
	switch v.ErrorKind.(type) {
	case *kind.OneOf, *kind.AnyOf, *kind.Not:
		return append(out, v)
	}
	if len(v.Causes) == 0 {
		return append(out, v)
	}
	for _, c := range v.Causes {
		out = leaves(c, out)
	}
	return out
}

// worst picks the error to tell: the outermost place, then by name, then by the weight of the rule.
func worst(v *jsonschema.ValidationError) *jsonschema.ValidationError {
	return slices.MinFunc(leaves(v, nil), func(a, b *jsonschema.ValidationError) int {
		if d := len(a.InstanceLocation) - len(b.InstanceLocation); d != 0 {
			return d
		}
		if d := strings.Compare(strings.Join(a.InstanceLocation, "\x00"), strings.Join(b.InstanceLocation, "\x00")); d != 0 {
			return d
		}
		return weight(a.ErrorKind) - weight(b.ErrorKind)
	})
}

func weight(k jsonschema.ErrorKind) int {
	switch k.(type) {
	case *kind.Type:
		return 0
	case *kind.Required:
		return 1
	case *kind.AdditionalProperties:
		return 2
	case *kind.Enum, *kind.Const:
		return 3
	case *kind.Format:
		return 5
	}
	return 4
}

// at finds the value at a location.
func at(doc any, location []string) any {
	for _, key := range location {
		switch d := doc.(type) {
		case map[string]any:
			doc = d[key]
		case []any:
			i := 0
			if _, err := fmt.Sscanf(key, "%d", &i); err != nil || i >= len(d) {
				return nil
			}
			doc = d[i]
		default:
			return nil
		}
	}
	return doc
}

// explain is the rule that a value broke, in the words that clients of the API know; rules is the schema in which it stands.
func explain(k jsonschema.ErrorKind, value, rules any) string {
	switch k := k.(type) {
	case *kind.Required:
		return fmt.Sprintf("%s is a required property", quoted(k.Missing[0]))
	case *kind.AdditionalProperties:
		slices.Sort(k.Properties)
		names, verb := make([]string, len(k.Properties)), "was"
		for i, p := range k.Properties {
			names[i] = quoted(p)
		}
		if len(names) > 1 {
			verb = "were"
		}
		if patterns, _ := at(rules, []string{"patternProperties"}).(map[string]any); len(patterns) > 0 {
			return fmt.Sprintf("%s %s not match any of the regexes: %s", strings.Join(names, ", "), map[string]string{"was": "does", "were": "do"}[verb], quotedKeys(patterns))
		}
		return fmt.Sprintf("Additional properties are not allowed (%s %s unexpected)", strings.Join(names, ", "), verb)
	case *kind.Type:
		names := make([]string, len(k.Want))
		for i, w := range k.Want {
			names[i] = quoted(w)
		}
		return fmt.Sprintf("%s is not of type %s", literal(value), strings.Join(names, ", "))
	case *kind.Enum:
		return fmt.Sprintf("%s is not one of %s", literal(value), literal(k.Want))
	case *kind.Const:
		return fmt.Sprintf("%s was expected", literal(k.Want))
	case *kind.Pattern:
		return fmt.Sprintf("%s does not match %s", literal(value), quoted(k.Want))
	case *kind.Format:
		return explainFormat(k.Want, value)
	case *kind.MinLength, *kind.MinItems:
		return literal(value) + " is too short"
	case *kind.MaxLength, *kind.MaxItems:
		return literal(value) + " is too long"
	case *kind.Minimum:
		return fmt.Sprintf("%s is less than the minimum of %s", literal(value), k.Want.RatString())
	case *kind.Maximum:
		return fmt.Sprintf("%s is greater than the maximum of %s", literal(value), k.Want.RatString())
	case *kind.UniqueItems:
		return literal(value) + " has non-unique elements"
	case *kind.MinProperties:
		return literal(value) + " does not have enough properties"
	case *kind.MaxProperties:
		return literal(value) + " has too many properties"
	case *kind.OneOf:
		if len(k.Subschemas) > 0 {
			return literal(value) + " is valid under more than one of the given schemas"
		}
	case *kind.AnyOf:
	default:
		return literal(value) + " is not allowed here"
	}
	return literal(value) + " is not valid under any of the given schemas"
}

func explainFormat(format string, value any) string {
	switch format {
	case "name":
		return "An invalid 'name' value was provided. The name must be: printable characters. Can not start or end with whitespace."
	case "name_with_leading_trailing_spaces":
		return "An invalid 'name' value was provided. The name must be: printable characters with at least one non space character"
	case "az_name", "az_name_with_leading_trailing_spaces":
		return "An invalid availability zone name was provided. It must be printable characters without a colon."
	}
	return fmt.Sprintf("%s is not a %s", literal(value), quoted(format))
}

const longest = 400 // runes of a value in a message

// plain shows a value as the API's messages do: texts without quotes, everything else as a literal.
func plain(v any) string {
	if s, ok := v.(string); ok {
		return shorten(s)
	}
	return literal(v)
}

// literal shows a value in the notation that the API's messages have always used: None, True, 'text', [..], {..}.
func literal(v any) string {
	var b strings.Builder
	writeLiteral(&b, v)
	return shorten(b.String())
}

func writeLiteral(b *strings.Builder, v any) {
	switch v := v.(type) {
	case nil:
		b.WriteString("None")
	case bool:
		b.WriteString(map[bool]string{true: "True", false: "False"}[v])
	case string:
		b.WriteString(quoted(v))
	case json.Number:
		b.WriteString(v.String())
	case []any:
		b.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				b.WriteString(", ")
			}
			writeLiteral(b, e)
		}
		b.WriteByte(']')
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		b.WriteByte('{')
		for i, k := range keys {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(quoted(k) + ": ")
			writeLiteral(b, v[k])
		}
		b.WriteByte('}')
	default:
		fmt.Fprint(b, v)
	}
}

func quotedKeys(m map[string]any) string {
	keys := slices.Sorted(maps.Keys(m))
	for i, k := range keys {
		keys[i] = quoted(k)
	}
	return strings.Join(keys, ", ")
}

func quoted(s string) string {
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		return `"` + s + `"`
	}
	return "'" + strings.ReplaceAll(s, "'", `\'`) + "'"
}

func shorten(s string) string {
	if len(s) <= longest {
		return s
	}
	r := []rune(s)
	if len(r) <= longest {
		return s
	}
	return string(r[:longest]) + "…"
}
