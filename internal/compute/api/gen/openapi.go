package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// openAPI writes the OpenAPI 3.1 document of the live routes, each as it is in its newest version. Actions share one operation whose body
// is one of theirs. The range of microversions stands in x-openstack-min-version and x-openstack-max-version, that of actions in
// x-openstack-actions.
func openAPI(s *spec) ([]byte, error) {
	paths := map[string]any{}
	for i := range s.Routes {
		r := &s.Routes[i]
		if r.Gone || r.AliasOf != "" {
			continue
		}
		op, err := operation(r, s)
		if err != nil {
			return nil, err
		}
		path := strings.TrimSuffix("/v2.1"+r.Path, "/")
		item, _ := paths[path].(map[string]any)
		if item == nil {
			item = map[string]any{}
			paths[path] = item
		}
		method := strings.ToLower(r.Method)
		if have, ok := item[method].(map[string]any); ok {
			joinActions(have, op)
			continue
		}
		item[method] = op
	}
	return encode(map[string]any{
		"openapi": "3.1.0",
		"info": map[string]any{"title": "OpenStack Compute API of Kilonova", "version": string(s.Max),
			"description": "Every live route in its newest microversion. Send the version in OpenStack-API-Version: compute X.Y."},
		"paths":    paths,
		"security": []any{map[string]any{"token": []any{}}},
		"components": map[string]any{"securitySchemes": map[string]any{
			"token": map[string]any{"type": "apiKey", "in": "header", "name": "X-Auth-Token"}}},
	})
}

func operation(r *route, s *spec) (map[string]any, error) {
	newest := s.Max
	if r.Until != "" {
		newest = r.Until
	}
	op := map[string]any{"operationId": slug(r), "x-openstack-min-version": string(r.Since), "x-openstack-max-version": string(newest)}
	if r.Action != "" {
		op["operationId"] = strings.TrimSuffix(slug(r), "-"+r.Action)
	}
	if rule := coarse(r); rule != "" {
		op["x-openstack-policy"] = rule
	}
	if r.Action != "" {
		op["x-openstack-actions"] = map[string]any{r.Action: versioned(op)}
	}
	params := pathParameters(r.Path)
	query, err := queryParameters(r, newest.minor())
	if err != nil {
		return nil, err
	}
	if params = append(params, query...); len(params) > 0 {
		op["parameters"] = params
	}
	if r.Request != nil {
		body, err := bareSchema(r.Request, newest.minor())
		if err != nil {
			return nil, err
		}
		op["requestBody"] = map[string]any{"required": !mayBeNull(r.Request), "content": jsonContent(body)}
	}
	op["responses"], err = responses(r, newest.minor())
	return op, err
}

// versioned takes out of an operation what is of one action alone: its versions and its policy rule.
func versioned(op map[string]any) map[string]any {
	out := map[string]any{}
	for _, key := range []string{"x-openstack-min-version", "x-openstack-max-version", "x-openstack-policy"} {
		if v, ok := op[key]; ok {
			out[key] = v
			delete(op, key)
		}
	}
	return out
}

func bareSchema(fields []field, minor int) (map[string]any, error) {
	doc, err := schemaAt(fields, minor)
	delete(doc, "$schema")
	return doc, err
}

func jsonContent(schema any) map[string]any {
	return map[string]any{"application/json": map[string]any{"schema": schema}}
}

func pathParameters(path string) []any {
	var list []any
	for part := range strings.SplitSeq(path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			list = append(list, map[string]any{"name": strings.TrimSuffix(name, "}"), "in": "path", "required": true,
				"schema": map[string]any{"type": "string"}})
		}
	}
	return list
}

func queryParameters(r *route, minor int) ([]any, error) {
	doc, err := schemaAt(r.Query, minor)
	if err != nil {
		return nil, err
	}
	props, _ := doc["properties"].(map[string]any)
	var names []string
	for name := range props {
		names = append(names, name)
	}
	slices.Sort(names)
	var list []any
	for _, name := range names {
		schema := props[name]
		if m, ok := schema.(map[string]any); ok && m["maxItems"] == 1 && m["items"] != nil {
			schema = m["items"]
		}
		list = append(list, map[string]any{"name": name, "in": "query", "schema": schema})
	}
	return list, nil
}

func responses(r *route, minor int) (map[string]any, error) {
	out := map[string]any{}
	within := func(since, until version) bool { return (&field{Since: since, Until: until}).at(minor) }
	for _, c := range r.Success {
		if !within(c.Since, c.Until) {
			continue
		}
		about := c.Note
		if about == "" {
			about = "success"
		}
		answer := map[string]any{"description": about}
		if c.Code != 204 && r.Response != nil {
			doc, err := bareSchema(r.Response, minor)
			if err != nil {
				return nil, fmt.Errorf("response: %w", err)
			}
			if doc["type"] != "null" {
				answer["content"] = jsonContent(doc)
			}
		}
		out[strconv.Itoa(c.Code)] = answer
	}
	for _, e := range r.Errors {
		if !within(e.Since, e.Until) {
			continue
		}
		for _, code := range e.Codes {
			out[strconv.Itoa(code)] = map[string]any{"description": "error"}
		}
	}
	return out, nil
}

// joinActions adds another action to an operation.
func joinActions(have, op map[string]any) {
	for name, about := range op["x-openstack-actions"].(map[string]any) { //nolint:forcetypeassert // written above
		have["x-openstack-actions"].(map[string]any)[name] = about //nolint:forcetypeassert // written above
	}
	schema := func(op map[string]any) any {
		content := op["requestBody"].(map[string]any)["content"].(map[string]any) //nolint:forcetypeassert // actions have bodies
		return content["application/json"].(map[string]any)["schema"]             //nolint:forcetypeassert // written above
	}
	one, ok := schema(have).(map[string]any)
	if list, joined := one["oneOf"].([]any); ok && joined && len(one) == 1 {
		one["oneOf"] = append(list, schema(op))
	} else {
		have["requestBody"] = map[string]any{"required": true,
			"content": jsonContent(map[string]any{"oneOf": []any{schema(have), schema(op)}})}
	}
	all, more := have["responses"].(map[string]any), op["responses"].(map[string]any) //nolint:forcetypeassert // written above
	for code, answer := range more {
		all[code] = joinAnswers(all[code], answer)
	}
}

// joinAnswers is the answer of either of two actions.
func joinAnswers(one, other any) any {
	if one == nil {
		return other
	}
	a, b := one.(map[string]any), other.(map[string]any) //nolint:forcetypeassert // responses wrote them
	of := func(answer map[string]any) []any {
		content, ok := answer["content"].(map[string]any)
		if !ok {
			return nil
		}
		schema := content["application/json"].(map[string]any)["schema"].(map[string]any) //nolint:forcetypeassert // jsonContent wrote it
		if list, ok := schema["anyOf"].([]any); ok && len(schema) == 1 {
			return list
		}
		return []any{schema}
	}
	list := append(of(a), of(b)...)
	switch len(list) {
	case 0:
		return a
	case 1:
		return map[string]any{"description": a["description"], "content": jsonContent(list[0])}
	}
	return map[string]any{"description": a["description"], "content": jsonContent(map[string]any{"anyOf": list})}
}
