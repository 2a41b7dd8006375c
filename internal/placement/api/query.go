package api

import (
	"regexp"
	"strconv"
	"strings"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/id"
	"kilonova/internal/placement"
)

const badQuery = "Invalid query string parameters: "

func invalidQuery(format string, args ...any) *fault.Error {
	e := fault.New(fault.Invalid, format, args...)
	e.Text = badQuery + e.Text
	return e
}

// parseResources reads CLASS:n,CLASS:n.
func parseResources(s string) (placement.Resources, error) {
	const form = "Badly formed resources parameter. Expected resources query string parameter in form: ?resources=VCPU:2,MEMORY_MB:1024. Got: %s."
	if strings.TrimSpace(s) == "" {
		return nil, fault.New(fault.Invalid, form, "empty string")
	}
	out := placement.Resources{}
	for part := range strings.SplitSeq(s, ",") {
		class, amount, ok := strings.Cut(part, ":")
		if !ok || strings.Contains(amount, ":") {
			return nil, fault.New(fault.Invalid, form, part)
		}
		n, err := strconv.ParseInt(strings.TrimSpace(amount), 10, 64)
		if err != nil {
			return nil, fault.New(fault.Invalid, "Requested resource %s expected positive integer amount. Got: %s.", class, amount)
		}
		if n < 1 {
			return nil, fault.New(fault.Invalid, "Requested resource %s requires amount >= 1. Got: %d.", class, n)
		}
		out[class] = n
	}
	return out, nil
}

// parseTraits reads the values of one "required" key: T1,!T2 and, since 1.39, in:T1,T2. Before 1.39 only the last value counts.
func parseTraits(r *httpapi.Request, values []string) (required [][]string, forbidden []string, err error) {
	if !since(r, 39) && len(values) > 1 {
		values = values[len(values)-1:]
	}
	for _, value := range values {
		if list, ok := strings.CutPrefix(value, "in:"); ok {
			choice, err := anyTraits(r, value, list)
			if err != nil {
				return nil, nil, err
			}
			required = append(required, choice)
			continue
		}
		for t := range strings.SplitSeq(value, ",") {
			t = strings.TrimSpace(t)
			name := strings.TrimLeft(t, "!")
			switch {
			case name == "" && since(r, 22):
				return nil, nil, invalidQuery("Expected 'required' parameter value of the form: HW_CPU_X86_VMX,!CUSTOM_MAGIC. Got an empty trait in: %s", value)
			case name == "":
				return nil, nil, invalidQuery("Expected 'required' parameter value of the form: HW_CPU_X86_VMX,CUSTOM_MAGIC. Got an empty trait in: %s", value)
			case name == t:
				required = append(required, []string{t})
			case !since(r, 22):
				return nil, nil, invalidQuery("Expected 'required' parameter value of the form: HW_CPU_X86_VMX,CUSTOM_MAGIC. Got: %s", value)
			default:
				forbidden = append(forbidden, name)
			}
		}
	}
	return required, forbidden, nil
}

func anyTraits(r *httpapi.Request, value, list string) ([]string, error) {
	if !since(r, 39) {
		return nil, invalidQuery("The format 'in:HW_CPU_X86_VMX,CUSTOM_MAGIC' only supported since microversion 1.39. Got: %s", value)
	}
	var choice []string
	for t := range strings.SplitSeq(list, ",") {
		t = strings.TrimSpace(t)
		if t == "" {
			return nil, invalidQuery("Expected 'required' parameter value of the form: in:HW_CPU_X86_VMX,CUSTOM_MAGIC. Got an empty trait in: %s", value)
		}
		if t[0] == '!' {
			return nil, invalidQuery("The format 'in:HW_CPU_X86_VMX,CUSTOM_MAGIC' does not support forbidden traits. Got: %s", value)
		}
		choice = append(choice, t)
	}
	return choice, nil
}

// parseMemberOf reads the values of one "member_of" key: U, in:U,U and, since 1.32, !U and !in:U,U. Repeating is possible since 1.24.
func parseMemberOf(r *httpapi.Request, suffix string, values []string) (required [][]string, forbidden []string, err error) {
	if len(values) > 1 && !since(r, 24) {
		return nil, nil, fault.New(fault.Invalid, "Multiple member_of%s parameters are not supported", suffix)
	}
	for _, value := range values {
		not := strings.HasPrefix(value, "!")
		list, in := strings.CutPrefix(strings.TrimPrefix(value, "!"), "in:")
		if !in && strings.Contains(list, ",") {
			return nil, nil, fault.New(fault.Invalid, "Multiple values for 'member_of' must be prefixed with the 'in:' or '!in:' keyword using the valid "+
				"microversion. Got: %s", value)
		}
		uuids := strings.Split(list, ",")
		for _, u := range uuids {
			if !id.IsUUID(u) {
				return nil, nil, invalidQuery("Expected 'member_of' parameter to contain valid UUID(s). Got: %s", u)
			}
		}
		switch {
		case not && !since(r, 32):
			return nil, nil, fault.New(fault.Invalid, "Forbidden member_of%s parameters are not supported in the specified microversion", suffix)
		case not:
			forbidden = append(forbidden, uuids...)
		default:
			required = append(required, uuids)
		}
	}
	return required, forbidden, nil
}

// The keys of request groups: their suffixes are positive integers since 1.25 and free words since 1.33.
var (
	numbered = regexp.MustCompile(`^(resources|required|member_of|in_tree)([1-9][0-9]*)?$`)
	suffixed = regexp.MustCompile(`^(resources|required|member_of|in_tree)(` + placement.SuffixPattern + `)?$`)
)

// groupKey splits a key of a request group into what it sets and the suffix.
func groupKey(r *httpapi.Request, key string) (kind, suffix string, ok bool) {
	var m []string
	switch {
	case since(r, 33):
		m = suffixed.FindStringSubmatch(key)
	case since(r, 25):
		m = numbered.FindStringSubmatch(key)
	default:
		m = []string{key, key, ""}
	}
	if m == nil {
		return "", "", false
	}
	first := map[string]int{"resources": 10, "required": 17, "member_of": 21, "in_tree": 31}[m[1]]
	return m[1], m[2], first > 0 && since(r, first)
}
