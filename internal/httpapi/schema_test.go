package httpapi_test

import (
	"errors"
	"strings"
	"testing"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

const serverSchema = `{"type":"object","required":["server"],"additionalProperties":false,"properties":{"server":{
 "type":"object","required":["name"],"additionalProperties":false,"properties":{
  "name":{"type":"string","format":"name","minLength":1,"maxLength":10},
  "count":{"type":["integer","string"],"pattern":"^[0-9]+$","minimum":1,"maximum":9},
  "disk":{"type":"string","enum":["AUTO","MANUAL"]},
  "net":{"oneOf":[{"type":"string","enum":["auto","none"]},{"type":"array","minItems":1,"maxItems":1,"uniqueItems":true,
    "items":{"type":"object","additionalProperties":false,"properties":{"uuid":{"type":"string","format":"uuid"}}}}]},
  "tags":{"type":"array","maxItems":2,"uniqueItems":true,"items":{"type":"string"}},
  "meta":{"type":"object","minProperties":1,"maxProperties":1},
  "free":{"type":"object","properties":{"inner":{"type":"object","additionalProperties":false}}},
  "labels":{"type":"object","patternProperties":{"^[a-z]+$":{"type":"string"}},"additionalProperties":false},
  "fixed":{"const":"x"},
  "zone":{"type":["string","null"],"format":"az_name"},
  "id":{"type":"string","format":"uuid"}}}}}`

func compile(t testing.TB, doc string) httpapi.Schema {
	t.Helper()
	s, err := httpapi.CompileSchema("test.json", []byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func decode(t testing.TB, body string) any {
	t.Helper()
	v, err := httpapi.DecodeJSON([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSchemaSentences(t *testing.T) {
	s := compile(t, serverSchema)
	in := func(field string) string { return `{"server":{"name":"n",` + field + `}}` }
	for body, want := range map[string]string{
		`{}`:                                  "'server' is a required property",
		`{"server":{"name":"n"},"y":1,"x":2}`: "Additional properties are not allowed ('x', 'y' were unexpected)",
		`{"server":{}}`:                       "Invalid input for field/attribute server. Value: {}. 'name' is a required property",
		`{"server":7}`:                        "Invalid input for field/attribute server. Value: 7. 7 is not of type 'object'",
		`{"server":{"name":null}}`:            "Invalid input for field/attribute name. Value: None. None is not of type 'string'",
		`{"server":{"name":""}}`:              "Invalid input for field/attribute name. Value: . '' is too short",
		`{"server":{"name":"aaaaaaaaaaa"}}`:   "Invalid input for field/attribute name. Value: aaaaaaaaaaa. 'aaaaaaaaaaa' is too long",
		`{"server":{"name":" a"}}`:            "Invalid input for field/attribute name. Value:  a. An invalid 'name' value was provided. The name must be: printable characters. Can not start or end with whitespace.",
		in(`"labels":{"b!":"x","a!":"y"}`):    "Invalid input for field/attribute labels. Value: {'a!': 'y', 'b!': 'x'}. 'a!', 'b!' do not match any of the regexes: '^[a-z]+$'",
		in(`"labels":{"a!":"y"}`):             "Invalid input for field/attribute labels. Value: {'a!': 'y'}. 'a!' does not match any of the regexes: '^[a-z]+$'",
		in(`"colour":true`):                   "Invalid input for field/attribute server. Value: {'colour': True, 'name': 'n'}. Additional properties are not allowed ('colour' was unexpected)",
		in(`"count":0`):                       "Invalid input for field/attribute count. Value: 0. 0 is less than the minimum of 1",
		in(`"count":10`):                      "Invalid input for field/attribute count. Value: 10. 10 is greater than the maximum of 9",
		in(`"count":"x"`):                     "Invalid input for field/attribute count. Value: x. 'x' does not match '^[0-9]+$'",
		in(`"count":true`):                    "Invalid input for field/attribute count. Value: True. True is not of type 'integer', 'string'",
		in(`"disk":"auto"`):                   "Invalid input for field/attribute disk. Value: auto. 'auto' is not one of ['AUTO', 'MANUAL']",
		in(`"net":"x"`):                       "Invalid input for field/attribute net. Value: x. 'x' is not valid under any of the given schemas",
		in(`"tags":["a","a"]`):                "Invalid input for field/attribute tags. Value: ['a', 'a']. ['a', 'a'] has non-unique elements",
		in(`"tags":["a","b","c"]`):            "Invalid input for field/attribute tags. Value: ['a', 'b', 'c']. ['a', 'b', 'c'] is too long",
		in(`"tags":["a",1]`):                  "Invalid input for field/attribute 1. Value: 1. 1 is not of type 'string'",
		in(`"meta":{}`):                       "Invalid input for field/attribute meta. Value: {}. {} does not have enough properties",
		in(`"meta":{"a":1,"b":2}`):            "Invalid input for field/attribute meta. Value: {'a': 1, 'b': 2}. {'a': 1, 'b': 2} has too many properties",
		in(`"fixed":"it's"`):                  `Invalid input for field/attribute fixed. Value: it's. 'x' was expected`,
		in(`"zone":"a:b"`):                    "Invalid input for field/attribute zone. Value: a:b. An invalid availability zone name was provided. It must be printable characters without a colon.",
		in(`"id":"x"`):                        "Invalid input for field/attribute id. Value: x. 'x' is not a 'uuid'",
	} {
		err := s.Validate(decode(t, body))
		if !errors.Is(err, fault.Invalid) || fault.PublicText(err) != want {
			t.Errorf("%s:\n got %s\nwant %s", body, fault.PublicText(err), want)
		}
	}
	for _, good := range []string{`{"server":{"name":"n"}}`, in(`"count":"3"`), in(`"net":"auto"`), in(`"net":[{"uuid":"5f3c6b5e0d5c4d6a9a560b9b1f6f2f10"}]`), in(`"zone":null`)} {
		if err := s.Validate(decode(t, good)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

func TestLongValuesAreCut(t *testing.T) {
	err := compile(t, serverSchema).Validate(decode(t, `{"server":{"name":"`+strings.Repeat("é", 5000)+`"}}`))
	if n := len([]rune(fault.PublicText(err))); n > 1000 {
		t.Fatalf("%d runes", n)
	}
}

func TestPrune(t *testing.T) {
	s := compile(t, serverSchema)
	doc := decode(t, `{"x":1,"server":{"name":"n","y":{"z":1},"free":{"kept":1,"inner":{"gone":1}}}}`)
	s.(httpapi.Pruner).Prune(doc)
	if err := s.Validate(doc); err != nil {
		t.Fatal(err)
	}
	server := doc.(map[string]any)["server"].(map[string]any)
	if server["name"] != "n" || server["y"] != nil || server["free"].(map[string]any)["kept"] == nil {
		t.Fatal(doc)
	}
	wrong := decode(t, `{"server":{"name":7,"y":1}}`)
	s.(httpapi.Pruner).Prune(wrong)
	if err := s.Validate(wrong); err == nil || !strings.Contains(err.Error(), "7 is not of type") {
		t.Fatal(err)
	}
}

// TestPruneKeepsOwnKeys: where the caller chooses the keys, one that breaks their pattern is refused, also below a legacy root.
func TestPruneKeepsOwnKeys(t *testing.T) {
	s := compile(t, `{"type":"object","properties":{"metadata":{"type":"object","patternProperties":{"^[a-z]{1,3}$":{"type":"string"}},"additionalProperties":false}},"additionalProperties":false}`)
	doc := decode(t, `{"x":1,"metadata":{"a":"b","much too long":"c"}}`)
	s.(httpapi.Pruner).Prune(doc)
	if err := s.Validate(doc); err == nil || !strings.Contains(err.Error(), "much too long") {
		t.Fatal(err)
	}
	if m := doc.(map[string]any); m["x"] != nil || len(m["metadata"].(map[string]any)) != 2 {
		t.Fatal(doc)
	}
}

func TestFormats(t *testing.T) {
	for format, c := range map[string]struct{ good, bad []string }{
		"uuid": {[]string{"5f3c6b5e-0d5c-4d6a-9a56-0b9b1f6f2f10", "5F3C6B5E0D5C4D6A9A560B9B1F6F2F10", "{5f3c6b5e-0d5c-4d6a-9a56-0b9b1f6f2f10}",
			"urn:uuid:5f3c6b5e-0d5c-4d6a-9a56-0b9b1f6f2f10"}, []string{"", "x", "5f3c6b5e-0d5c-4d6a-9a56-0b9b1f6f2f1"}},
		"date-time": {[]string{"2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123456", "2026-01-02 03:04:05+02:00", "2026-01-02", "20260102T030405Z",
			"2026-01-02T03:04:05+0200"}, []string{"", "yesterday", "2026-13-02"}},
		"ipv4":                                 {[]string{"192.0.2.1"}, []string{"192.0.2.256", "::1", "", "192.0.2.1/24"}},
		"ipv6":                                 {[]string{"2001:db8::1", "::", "80fe::"}, []string{"192.0.2.1", "x", "fe80::1%eth0"}},
		"cidr":                                 {[]string{"192.0.2.0/24", "2001:db8::/32"}, []string{"192.0.2.0", "192.0.2.0/33"}},
		"base64":                               {[]string{"aGk=", "aGk\n=", ""}, []string{"a", "!!!!", "aGk"}},
		"uri":                                  {[]string{"http://example.com/x"}, []string{"/x", "::"}},
		"fqdn":                                 {[]string{"a", "a.example.com", "a-b.c."}, []string{"-a", "a..b", "a_b", strings.Repeat("a", 64)}},
		"name":                                 {[]string{"a", "ä b", "日本", ""}, []string{" a", "a ", "a\tb", "a\u0000", "\u3000a"}},
		"az_name":                              {[]string{"nova"}, []string{"a:b", " a"}},
		"regex":                                {[]string{"^a.*$"}, []string{"(", "*"}},
		"name_with_leading_trailing_spaces":    {[]string{" a "}, []string{"  ", "\t"}},
		"az_name_with_leading_trailing_spaces": {[]string{" a "}, []string{" a: ", " "}},
	} {
		s := compile(t, `{"type":"string","format":"`+format+`"}`)
		for _, v := range c.good {
			if err := s.Validate(v); err != nil {
				t.Errorf("%s refuses %q: %v", format, v, err)
			}
		}
		for _, v := range c.bad {
			if s.Validate(v) == nil {
				t.Errorf("%s takes %q", format, v)
			}
		}
	}
}

func TestCompileSchemaErrors(t *testing.T) {
	for _, bad := range []string{"{", `{"type":"strange"}`, `{"$ref":"http://elsewhere/x.json"}`, `{"pattern":"("}`} {
		if _, err := httpapi.CompileSchema("bad.json", []byte(bad)); err == nil {
			t.Errorf("%s: accepted", bad)
		}
	}
}

func FuzzValidate(f *testing.F) {
	s := compile(f, serverSchema)
	f.Add([]byte(`{"server":{"name":"n","net":[{"uuid":"x"}],"tags":[null]}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		doc, err := httpapi.DecodeJSON(body)
		if err != nil {
			return
		}
		if err := s.Validate(doc); err != nil && !errors.Is(err, fault.Invalid) {
			t.Fatal(err)
		}
		s.(httpapi.Pruner).Prune(doc)
	})
}

// A Violation says which rule was broken and where it stands, for services that word their errors themselves.
func TestViolation(t *testing.T) {
	for doc, want := range map[string][3]string{
		`{"total":0}`:          {"0 is less than the minimum of 1", "minimum", "Failed validating 'minimum' in schema['properties']['total']:     {'minimum': 1, 'type': 'integer'}  On instance['total']:     0"},
		`{}`:                   {"'total' is a required property", "required", "  On instance:     {}"},
		`{"total":1,"l":[{}]}`: {"'x' is a required property", "required", "Failed validating 'required' in schema['properties']['l']['items']:     {'required': ['x']}  On instance['l'][0]:     {}"},
		`{"total":1,"e":3}`:    {"3 is not of type 'null'", "type", "in schema['properties']['e']['allOf'][0]:     {'type': 'null'}"},
		`{"total":1,"a/b":3}`:  {"3 is not of type 'null'", "type", "in schema['properties']['a/b']:"},
	} {
		s := compile(t, `{"type":"object","required":["total"],"properties":{"total":{"type":"integer","minimum":1},"l":{"items":{"required":["x"]}},
			"e":{"allOf":[{"type":"null"}]},"a/b":{"type":"null"}}}`)
		var v *httpapi.Violation
		if err := s.Validate(decode(t, doc)); !errors.As(err, &v) || v.Rule != want[0] || v.Keyword != want[1] || !strings.Contains(v.Place(), want[2]) {
			t.Errorf("%s: %v: %+v", doc, err, v)
		}
	}
}
