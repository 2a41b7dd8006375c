package api

import (
	"embed"
	"encoding/json"
	"fmt"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/image/local"
)

// schemaFiles are the documents of single things; those of their lists are made from them.
//
//go:embed schemas/*.json
var schemaFiles embed.FS

// loadSchemas builds every schema document by its path below /v2/schemas.
func loadSchemas() (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, s := range []struct{ file, path, plural, name, key string }{
		{"image", "image", "images", "images", "images"}, {"member", "member", "members", "members", "members"}, {"task", "task", "tasks", "tasks", "tasks"},
		{"namespace", "metadefs/namespace", "metadefs/namespaces", "namespaces", "namespaces"}, {"object", "metadefs/object", "metadefs/objects", "objects", "objects"},
		{"property", "metadefs/property", "metadefs/properties", "properties", "properties"}, {"tag", "metadefs/tag", "metadefs/tags", "tags", "tags"},
		{"resource_type", "metadefs/resource_type", "metadefs/resource_types", "resource_type_associations", "resource_type_associations"},
	} {
		text, err := schemaFiles.ReadFile("schemas/" + s.file + ".json")
		if err != nil {
			return nil, err
		}
		var one map[string]any
		if err := json.Unmarshal(text, &one); err != nil {
			return nil, fmt.Errorf("schema %s: %w", s.file, err)
		}
		if s.file == "image" {
			formats(one)
		}
		many := map[string]any{"name": s.name, "properties": map[string]any{s.key: map[string]any{"type": "array", "items": one},
			"first": map[string]any{"type": "string"}, "next": map[string]any{"type": "string"}, "schema": map[string]any{"type": "string"}},
			"links": []any{map[string]any{"rel": "first", "href": "{first}"}, map[string]any{"rel": "next", "href": "{next}"},
				map[string]any{"rel": "describedby", "href": "{schema}"}}}
		for path, doc := range map[string]any{s.path: one, s.plural: many} {
			if out[path], err = json.Marshal(doc); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// formats writes the formats that are accepted into the image schema.
func formats(schema map[string]any) {
	props, _ := schema["properties"].(map[string]any)
	for name, values := range map[string][]string{"disk_format": local.DiskFormats(), "container_format": local.ContainerFormats()} {
		if p, ok := props[name].(map[string]any); ok {
			enum := []any{nil}
			for _, v := range values {
				enum = append(enum, v)
			}
			p["enum"] = enum
		}
	}
}

func (a *api) schema(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.schemaAt(r.Path("name"))
}

func (a *api) metadefSchema(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.schemaAt("metadefs/" + r.Path("name"))
}

func (a *api) schemaAt(path string) (*httpapi.Reply, error) {
	doc, ok := a.schemas[path]
	if !ok {
		return nil, fault.New(fault.NotFound, "The resource could not be found.")
	}
	return httpapi.OK(doc), nil
}
