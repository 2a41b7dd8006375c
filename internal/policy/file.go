package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"
)

// ParseFile reads an operator's policy file, JSON or YAML: a mapping of rule names to checks. A check is a text in the rule language or
// the nested list form of old files, where the outer list is "or" and the inner ones "and": [["role:admin"], ["role:member", "rule:x"]].
// An empty list allows everybody.
func ParseFile(data []byte) (map[string]string, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return map[string]string{}, nil
	}
	var doc map[string]any
	if json.Unmarshal(data, &doc) != nil {
		doc = nil
		if err := yaml.Unmarshal(data, &doc); err != nil {
			return nil, fmt.Errorf("policy file: it is neither JSON nor YAML with rule names as keys: %w", err)
		}
	}
	out := make(map[string]string, len(doc))
	for name, v := range doc {
		s, err := fromValue(v)
		if err != nil {
			return nil, fmt.Errorf("policy file: rule %s: %w", name, err)
		}
		if _, err := parse(s); err != nil {
			return nil, fmt.Errorf("policy file: rule %s: %w", name, err)
		}
		out[name] = s
	}
	return out, nil
}

// fromValue turns the list form into the text form.
func fromValue(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case []any:
		return fromList(v)
	}
	return "", fmt.Errorf("a check is a text or a list, not %v", v)
}

func fromList(list []any) (string, error) {
	var alternatives []string
	for _, item := range list {
		switch item := item.(type) {
		case string:
			alternatives = append(alternatives, "("+item+")")
		case []any:
			if len(item) == 0 {
				continue // oslo.policy skips empty inner lists
			}
			var parts []string
			for _, p := range item {
				s, ok := p.(string)
				if !ok {
					return "", fmt.Errorf("the inner list holds %v, not a check", p)
				}
				parts = append(parts, "("+s+")")
			}
			alternatives = append(alternatives, "("+strings.Join(parts, " and ")+")")
		default:
			return "", fmt.Errorf("the list holds %v, neither a check nor a list", item)
		}
	}
	if len(alternatives) == 0 && len(list) > 0 {
		return "!", nil
	}
	return strings.Join(alternatives, " or "), nil
}
