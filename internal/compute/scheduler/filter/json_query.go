package filter

import (
	"cmp"
	"encoding/json"
	"strconv"
	"strings"

	"kilonova/internal/compute/scheduler"
	"kilonova/internal/fault"
)

// jsonQuery evaluates the hint query: a JSON list [operator, argument, …] in which texts that begin with $ are host attributes and
// lists are expressions.
func jsonQuery(_ *scheduler.Config, r *scheduler.Request) (*scheduler.Check, error) {
	hint, ok := r.Hints["query"]
	if !ok {
		return nil, nil //nolint:nilnil // nothing to check
	}
	expression := hint
	if s, isText := hint.(string); isText {
		if err := json.Unmarshal([]byte(s), &expression); err != nil {
			return nil, fault.Wrap(err, fault.Invalid, "The hint query is not JSON.")
		}
	}
	parts := 0
	if err := checkExpression(expression, 0, &parts); err != nil {
		return nil, err
	}
	return &scheduler.Check{
		Pass: func(h *scheduler.HostState) bool {
			v, known := evaluate(h, expression)
			return known && truth(v)
		},
		Why: func(*scheduler.HostState) string { return "the hint query is not true for it" },
	}, nil
}

const mostParts = 1000 // of an expression: it is evaluated for every host

// checkExpression refuses unknown operators and what is too large before any host is looked at.
func checkExpression(e any, depth int, parts *int) error {
	if *parts++; *parts > mostParts || depth > 32 {
		return fault.New(fault.Invalid, "The hint query is too large.")
	}
	list, ok := e.([]any)
	if !ok {
		return nil
	}
	if len(list) == 0 {
		return nil
	}
	op, _ := list[0].(string)
	switch op {
	case "=", "<", ">", "in", "<=", ">=", "not", "or", "and":
	default:
		return fault.New(fault.Invalid, "The hint query has the operator %q; known are =, <, >, in, <=, >=, not, or, and.", text(list[0]))
	}
	for _, a := range list[1:] {
		if err := checkExpression(a, depth+1, parts); err != nil {
			return err
		}
	}
	return nil
}

// evaluate gives an expression's value; known is false when it needs an attribute that the host does not have.
func evaluate(h *scheduler.HostState, e any) (v any, known bool) {
	switch e := e.(type) {
	case string:
		if name, ok := strings.CutPrefix(e, "$"); ok {
			return attribute(h, strings.Split(name, "."))
		}
		return e, true
	case []any:
		if len(e) == 0 {
			return true, true
		}
		op, _ := e[0].(string)
		var args []any
		for _, a := range e[1:] {
			if v, known := evaluate(h, a); known {
				args = append(args, v)
			}
		}
		return operate(op, args), true
	}
	return e, true
}

func truth(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != ""
	case []bool:
		return len(v) > 0
	}
	return text(v) != "0"
}

// operate applies an operator: comparisons look at the first argument against all others.
func operate(op string, args []any) bool {
	switch op {
	case "and":
		for _, a := range args {
			if !truth(a) {
				return false
			}
		}
		return true
	case "or":
		for _, a := range args {
			if truth(a) {
				return true
			}
		}
		return false
	case "not": // one of the arguments is not true
		for _, a := range args {
			if !truth(a) {
				return true
			}
		}
		return false
	case "in":
		return len(args) > 1 && contains(args[1:], args[0])
	}
	if len(args) < 2 {
		return false
	}
	for _, b := range args[1:] {
		if !ordered(op, args[0], b) {
			return false
		}
	}
	return true
}

func contains(list []any, v any) bool {
	for _, e := range list {
		if inner, ok := e.([]any); ok && contains(inner, v) || text(e) == text(v) {
			return true
		}
	}
	return false
}

// ordered compares numbers as such and everything else as texts.
func ordered(op string, a, b any) bool {
	x, y := text(a), text(b)
	d := strings.Compare(x, y)
	if p, e1 := strconv.ParseFloat(x, 64); e1 == nil {
		if q, e2 := strconv.ParseFloat(y, 64); e2 == nil {
			d = cmp.Compare(p, q)
		}
	}
	switch op {
	case "=":
		return d == 0
	case "<":
		return d < 0
	case "<=":
		return d <= 0
	case ">":
		return d > 0
	}
	return d >= 0
}
