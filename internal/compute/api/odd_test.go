package api_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"kilonova/internal/compute/api"
	"kilonova/internal/compute/api/apitest"
)

// oddValues are JSON texts that nobody sends on purpose.
func oddValues() []string {
	long := strings.Repeat("x", 70000)
	return []string{`null`, `true`, `-1`, `0`, `-0`, `3.5`, `1e30`, `1e400`, `2147483648`, `9223372036854775808`, `-9223372036854775809`, `""`, `" "`, `"\u0000"`, `"\ud800"`, `"💥é\u202e\ufeff"`,
		`"a\nb\r\t"`, `"../../etc/passwd"`, `"' OR 1=1 --"`, `"%s%n%00"`, `"` + long + `"`, `[]`, `{}`, `[[[[]]]]`, `{"a":{"b":[null]}}`, `["a","a"]`, `"00000000-0000-0000-0000-000000000000"`, `"-1"`, `"1e3"`, `"٣"`}
}

// places lists the pointers of a document to its values, the whole one first.
func places(v any, at []any) [][]any {
	out := [][]any{at}
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			out = append(out, places(x, append(append([]any{}, at...), k))...)
		}
	case []any:
		for i, x := range v {
			out = append(out, places(x, append(append([]any{}, at...), i))...)
		}
	}
	return out
}

// with gives the JSON of a document whose value at a pointer is another JSON text.
func with(v any, at []any, text string) string {
	if len(at) == 0 {
		return text
	}
	var parts []string
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			inner := jsonOf(x)
			if k == at[0] {
				inner = with(x, at[1:], text)
			}
			parts = append(parts, jsonOf(k)+":"+inner)
		}
		return "{" + strings.Join(parts, ",") + "}"
	case []any:
		for i, x := range v {
			inner := jsonOf(x)
			if i == at[0] {
				inner = with(x, at[1:], text)
			}
			parts = append(parts, inner)
		}
		return "[" + strings.Join(parts, ",") + "]"
	}
	return text
}

func jsonOf(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// sane tells what is wrong with an answer to an odd request, "" when nothing is.
func sane(code int, body []byte) string {
	switch {
	case code >= 500 && code != 501:
		return "an internal error"
	case code == 0:
		return "no answer"
	case len(body) > 0 && !json.Valid(body):
		return "no JSON"
	}
	return ""
}

// TestOddBodies puts odd values in every place of a good body of every route, and sends bodies that are none.
func TestOddBodies(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	c.prepare(t)
	count := map[int]int{}
	for _, key := range api.Keys() {
		method := strings.Fields(key)[0]
		if method == "GET" || method == "DELETE" {
			continue
		}
		borders := api.FactsOf(t, key).Borders
		a := asked{c, t, borders[len(borders)-1], "admin"}
		_, path, body, ok := a.request(key)
		if !ok {
			t.Fatal(key)
		}
		send := func(text string) {
			r := apitest.Call(c.h, "admin", method, "/v2.1"+path, text, a.minor)
			count[r.Code]++
			if bad := sane(r.Code, r.Body.Bytes()); bad != "" {
				t.Errorf("%s at 2.%d with %.200q: %s: %d %.300s\n%.600s", key, a.minor, text, bad, r.Code, r.Body, &c.log)
				c.log.Reset()
			}
		}
		for _, text := range []string{"", " ", "{", `{"a"`, "nul", "[1,", "\xff\xfe", `{"a":1}{`, `{"a":1,"a":2}`, strings.Repeat("[", 100000), strings.Repeat(`{"a":`, 500) + "1" + strings.Repeat("}", 500),
			`{"a":"` + strings.Repeat("y", 2<<20) + `"}`, "\ufeff{}"} {
			send(text)
		}
		if body == "" {
			continue
		}
		doc := decode(t, []byte(body))
		for _, at := range places(doc, nil) {
			for _, text := range oddValues() {
				send(with(doc, at, text))
			}
		}
	}
	t.Logf("answers by status: %v", count)
	if count[400] < 3000 {
		t.Errorf("only %v answers", count)
	}
}

// TestOddPathsAndQueries asks every reading route with odd ids, and with odd values of every parameter that it knows.
func TestOddPathsAndQueries(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	c.prepare(t)
	texts := []string{"", "0", "-1", "99999999999999999999", "1e9", "x", "é💥\u202e", "\x00", "\xff", "..", "a/b", "%", "' OR 1=1 --", strings.Repeat("z", 3000), "None", "2026-13-45T99:99:99Z", "(", "[", "*", "true", ",", "\n"}
	count := map[int]int{}
	for _, key := range api.Keys() {
		method, path, _ := strings.Cut(key, " ")
		path, _, _ = strings.Cut(path, " ")
		if method == "POST" || method == "PUT" {
			continue
		}
		borders := api.FactsOf(t, key).Borders
		for _, minor := range slices.Compact([]int{borders[0], borders[len(borders)-1]}) {
			send := func(path, query string) {
				r := apitest.Call(c.h, "admin", method, "/v2.1"+path+query, "", minor)
				count[r.Code]++
				if bad := sane(r.Code, r.Body.Bytes()); bad != "" {
					t.Errorf("%s at 2.%d (%.200q): %s: %d %.300s\n%.600s", key, minor, path+query, bad, r.Code, r.Body, &c.log)
					c.log.Reset()
				}
			}
			for _, text := range texts {
				whole := strings.NewReplacer("{server_id}", c.server, "{flavor_id}", c.flavor, "{image_id}", c.image, "{id}", url.PathEscape(text)).Replace(path)
				send(whole, "")
				send(pathVariable.ReplaceAllString(path, strings.ReplaceAll(url.PathEscape(text), "$", "")), "")
			}
			if method == "DELETE" {
				continue
			}
			known := asked{c, t, minor, "admin"}
			_, good, _, ok := known.request(key)
			if !ok {
				t.Fatal(key)
			}
			for _, name := range api.QueryNames(t, key, minor) {
				for _, text := range texts {
					send(good, "?"+url.Values{name: {text}}.Encode())
				}
				send(good, fmt.Sprintf("?%s=%%ff&%s", url.QueryEscape(name), url.QueryEscape(name)))
			}
			send(good, "?a;b=%zz&&==")
		}
	}
	t.Logf("answers by status: %v", count)
	if count[200] < 1000 || count[400] < 1000 {
		t.Errorf("only %v answers", count)
	}
}
