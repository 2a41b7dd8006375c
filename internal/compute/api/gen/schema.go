package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const dialect = "https://json-schema.org/draft/2020-12/schema"

// field is one fact about a place in a document.
type field struct {
	Path          string
	Type          any
	Required      bool
	Additional    any // false, true, or what the unknown keys hold
	Since, Until  version
	Format        string
	Pattern       string
	Enum          any
	Const         *any
	Minimum       *json.Number
	Maximum       *json.Number
	MinLength     *int
	MaxLength     *int
	MinItems      *int
	MaxItems      *int
	MinProperties *int
	MaxProperties *int
	UniqueItems   bool
	AnyOfRequired [][]string `json:"anyOf_required"`
}

func (f *field) at(minor int) bool {
	return (f.Since == "" || f.Since.minor() <= minor) && (f.Until == "" || minor <= f.Until.minor())
}

// node is a place in a document with what is said about it.
type node struct {
	self       *field
	properties map[string]*node
	patterns   map[string]*node
	anyKey     *node
	items      *node
	positional map[int]*node
	combined   map[string]map[int]*node // by oneOf, allOf, anyOf
}

// schemaAt makes the JSON Schema of fields at a minor.
func schemaAt(fields []field, minor int) (map[string]any, error) {
	root := &node{}
	for i := range fields {
		f := &fields[i]
		if !f.at(minor) {
			continue
		}
		steps, err := parsePath(f.Path)
		if err != nil {
			return nil, err
		}
		n := root
		for _, s := range steps {
			n = n.child(s)
		}
		if n.self != nil {
			return nil, fmt.Errorf("%s is described twice", f.Path)
		}
		n.self = f
	}
	doc, err := root.schema()
	if err != nil {
		return nil, err
	}
	if doc["type"] == nil {
		doc["type"] = "object"
	}
	doc["$schema"] = dialect
	return doc, nil
}

// step is one part of a path.
type step struct {
	kind  byte // 'p'roperty, '~'pattern, '*'any key, 'i'tem, 'n'th item, 'a'lternative of oneOf, allOf, anyOf
	name  string
	index int
}

// parsePath reads "server.networks<oneOf 1>[].tag", "meta.{~^[a-z]{1,9}$}", "policies[0]", "$".
func parsePath(path string) ([]step, error) {
	if path == "$" {
		return nil, nil
	}
	var steps []step
	for rest := path; rest != ""; {
		switch {
		case rest[0] == '.':
			rest = rest[1:]
		case strings.HasPrefix(rest, "[]"):
			steps, rest = append(steps, step{kind: 'i'}), rest[2:]
		case rest[0] == '[':
			inner, after, ok := strings.Cut(rest[1:], "]")
			n, err := strconv.Atoi(inner)
			if !ok || err != nil {
				return nil, fmt.Errorf("path %s: bad index", path)
			}
			steps, rest = append(steps, step{kind: 'n', index: n}), after
		case rest[0] == '<':
			inner, after, ok := strings.Cut(rest[1:], ">")
			word, num, _ := strings.Cut(inner, " ")
			n, err := strconv.Atoi(num)
			if !ok || err != nil || word != "oneOf" && word != "allOf" && word != "anyOf" {
				return nil, fmt.Errorf("path %s: bad alternative", path)
			}
			steps, rest = append(steps, step{kind: 'a', name: word, index: n}), after
		case rest[0] == '{':
			end := closing(rest)
			if end < 0 {
				return nil, fmt.Errorf("path %s: brace is not closed", path)
			}
			inner := rest[1:end]
			switch {
			case inner == "*":
				steps = append(steps, step{kind: '*'})
			case inner != "" && inner[0] == '~':
				steps = append(steps, step{kind: '~', name: inner[1:]})
			default:
				return nil, fmt.Errorf("path %s: bad key pattern", path)
			}
			rest = rest[end+1:]
		default:
			end := strings.IndexAny(rest, ".[<")
			if end < 0 {
				end = len(rest)
			}
			steps, rest = append(steps, step{kind: 'p', name: rest[:end]}), rest[end:]
		}
	}
	return steps, nil
}

// closing finds the brace that closes the one at the start of s.
func closing(s string) int {
	depth := 0
	for i := range len(s) {
		switch s[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

func (n *node) child(s step) *node {
	switch s.kind {
	case 'p':
		return member(&n.properties, s.name)
	case '~':
		return member(&n.patterns, s.name)
	case 'n':
		return member(&n.positional, s.index)
	case 'a':
		if n.combined == nil {
			n.combined = map[string]map[int]*node{}
		}
		list := n.combined[s.name]
		c := member(&list, s.index)
		n.combined[s.name] = list
		return c
	case '*':
		if n.anyKey == nil {
			n.anyKey = &node{}
		}
		return n.anyKey
	}
	if n.items == nil {
		n.items = &node{}
	}
	return n.items
}

func member[K comparable](m *map[K]*node, k K) *node {
	if *m == nil {
		*m = map[K]*node{}
	}
	if (*m)[k] == nil {
		(*m)[k] = &node{}
	}
	return (*m)[k]
}

func (n *node) schema() (map[string]any, error) {
	doc := map[string]any{}
	if n.self != nil {
		if err := n.self.facts(doc); err != nil {
			return nil, err
		}
	}
	var required []string
	for name, c := range n.properties {
		if c.self != nil && c.self.Required {
			required = append(required, name)
		}
	}
	if required != nil {
		slices.Sort(required)
		doc["required"] = required
	}
	if err := n.children(doc); err != nil {
		return nil, err
	}
	return doc, nil
}

func (n *node) children(doc map[string]any) error {
	if err := putMap(doc, "properties", n.properties); err != nil {
		return err
	}
	if err := putMap(doc, "patternProperties", n.patterns); err != nil {
		return err
	}
	if err := putList(doc, "prefixItems", n.positional); err != nil {
		return err
	}
	for key, m := range n.combined {
		if err := putList(doc, key, m); err != nil {
			return err
		}
	}
	for key, c := range map[string]*node{"items": n.items, "additionalProperties": n.anyKey} {
		if c == nil {
			continue
		}
		s, err := c.schema()
		if err != nil {
			return err
		}
		doc[key] = s
	}
	return nil
}

func putMap(doc map[string]any, key string, m map[string]*node) error {
	if len(m) == 0 {
		return nil
	}
	out := map[string]any{}
	for name, c := range m {
		s, err := c.schema()
		if err != nil {
			return err
		}
		if key == "patternProperties" {
			if name, err = portable(name); err != nil {
				return err
			}
		}
		out[name] = s
	}
	doc[key] = out
	return nil
}

func putList(doc map[string]any, key string, m map[int]*node) error {
	if len(m) == 0 {
		return nil
	}
	var order []int
	for i := range m {
		order = append(order, i)
	}
	slices.Sort(order)
	var list []any
	for _, i := range order {
		s, err := m[i].schema()
		if err != nil {
			return err
		}
		list = append(list, s)
	}
	doc[key] = list
	return nil
}

// booleanLike are the spellings of booleans that the API takes.
var booleanLike = []any{true, "True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes",
	false, "False", "FALSE", "false", "0", "OFF", "Off", "off", "NO", "No", "no"}

// facts writes what the field itself says.
func (f *field) facts(doc map[string]any) error {
	if f.Type != nil {
		doc["type"] = f.Type
	}
	if f.Additional == false {
		doc["additionalProperties"] = false
	}
	if f.Format != "" {
		doc["format"] = f.Format
	}
	if f.Const != nil {
		doc["const"] = *f.Const
	}
	switch e := f.Enum.(type) {
	case nil:
	case string:
		if e != "boolean-like" {
			return fmt.Errorf("%s: unknown enum %q", f.Path, e)
		}
		doc["enum"] = booleanLike
	default:
		doc["enum"] = e
	}
	for key, n := range map[string]*int{"minLength": f.MinLength, "maxLength": f.MaxLength, "minItems": f.MinItems, "maxItems": f.MaxItems,
		"minProperties": f.MinProperties, "maxProperties": f.MaxProperties} {
		if n != nil {
			doc[key] = *n
		}
	}
	if f.UniqueItems {
		doc["uniqueItems"] = true
	}
	if f.AnyOfRequired != nil {
		var list []any
		for _, names := range f.AnyOfRequired {
			list = append(list, map[string]any{"required": names})
		}
		doc["anyOf"] = list
	}
	return f.numbers(doc)
}

// numbers writes bounds and pattern. Where a number may come as a string, the string must keep the bounds too: the pattern says so.
func (f *field) numbers(doc map[string]any) error {
	if f.Minimum != nil {
		doc["minimum"] = *f.Minimum
	}
	if f.Maximum != nil {
		doc["maximum"] = *f.Maximum
	}
	if f.Pattern == "" {
		return nil
	}
	p, err := portable(f.Pattern)
	if err != nil {
		return fmt.Errorf("%s: %w", f.Path, err)
	}
	if p == `^[0-9]+(\.[0-9]+)?$` && f.Maximum != nil && *f.Maximum == "3.40282e+38" {
		p = upToFloat32
	}
	if f.Minimum != nil && mayBe(f.Type, "integer") {
		if p, err = bounded(f.Pattern, f.Minimum, f.Maximum); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	doc["pattern"] = p
	return nil
}

func mayBe(t any, name string) bool {
	list, ok := t.([]any)
	return ok && slices.Contains(list, any(name))
}

const (
	// printable is a text of letters, marks, numbers, punctuation, symbols and blanks: no control characters, no line breaks.
	printable = `^[\p{L}\p{M}\p{N}\p{P}\p{S}\p{Zs}]*$`
	// upToFloat32 is a decimal whose whole part is at most 3.40282e+38, or one with a fraction.
	upToFloat32 = `^(0*([0-9]{1,38}|[12][0-9]{38}|3[0-3][0-9]{37}|340[01][0-9]{35}|3402[0-7][0-9]{34}|34028[01][0-9]{33}|3402820{33})|[0-9]+\.[0-9]+)$`
	// upTo31 is a decimal from 1 to 2147483647.
	upTo31 = `([1-9][0-9]{0,8}|1[0-9]{9}|20[0-9]{8}|21[0-3][0-9]{7}|214[0-6][0-9]{6}|2147[0-3][0-9]{5}|21474[0-7][0-9]{4}|` +
		`214748[0-2][0-9]{3}|2147483[0-5][0-9]{2}|21474836[0-3][0-9]|214748364[0-7])`
)

// portable gives a pattern in the syntax of RE2, which has no look-around.
func portable(p string) (string, error) {
	switch p {
	case "(long pattern)":
		return printable, nil
	case `^(?! )[a-zA-Z0-9. _-]+(?<! )$`:
		return `^[a-zA-Z0-9._-]([a-zA-Z0-9. _-]*[a-zA-Z0-9._-])?$`, nil
	}
	if strings.Contains(p, "(?") {
		return "", fmt.Errorf("pattern %s has no known form without look-around", p)
	}
	// Inside a class a dash after a range is a literal; written as such it means the same everywhere.
	return strings.NewReplacer("0-9-.", `0-9\-.`, "0-9-_", `0-9\-_`).Replace(p), nil
}

// bounded gives the pattern of a decimal string within bounds.
func bounded(pattern string, minimum, maximum *json.Number) (string, error) {
	if pattern != "^[0-9]*$" && pattern != "^[0-9]+$" && pattern != "^-?[0-9]+$" {
		return "", errors.New("unknown pattern of a number: " + pattern)
	}
	positive := "0*[1-9][0-9]*"
	if maximum != nil {
		if *maximum != "2147483647" {
			return "", errors.New("unknown maximum " + maximum.String())
		}
		positive = "0*" + upTo31
	}
	switch *minimum {
	case "1":
		return "^" + positive + "$", nil
	case "0":
		return "^(0+|" + positive + ")$", nil
	case "-1":
		return "^(-0*1|-?0+|" + positive + ")$", nil
	}
	return "", errors.New("unknown minimum " + minimum.String())
}
