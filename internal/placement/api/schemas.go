package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/placement"
)

func fields(s string) []string { return strings.Fields(s) }

// object is a JSON Schema of an object that takes only the given properties.
func object(required string, properties document) document {
	d := document{"type": "object", "properties": properties, "additionalProperties": false}
	if required != "" {
		d["required"] = fields(required)
	}
	return d
}

// dictionary is an object whose keys match a pattern.
func dictionary(pattern string, value document, atLeast int) document {
	return document{"type": "object", "patternProperties": document{pattern: value}, "additionalProperties": false, "minProperties": atLeast}
}

const (
	uuidKey  = "^[0-9a-fA-F-]{36}$"
	nameKey  = "^[A-Z0-9_]+$"
	customRC = "^CUSTOM_[A-Z0-9_]+$"
)

func integer(low int64) document {
	return document{"type": "integer", "minimum": low, "maximum": placement.MaxInt}
}

// schemaDocuments writes the schemas. A name ends in the version since which it holds, when there are several.
func schemaDocuments() map[string]document {
	text := func(low, high int) document { return document{"type": "string", "minLength": low, "maxLength": high} }
	uuid := document{"type": "string", "format": "uuid"}
	orNull := func(d document) document { return document{"anyOf": []document{d, {"type": "null"}}} }
	number := document{"type": "integer"}
	className := document{"type": "string", "pattern": customRC, "maxLength": 255}

	inventory := func() document {
		return document{"resource_provider_generation": number, "total": integer(1), "reserved": integer(0), "min_unit": integer(1), "max_unit": integer(1),
			"step_size": integer(1), "allocation_ratio": document{"type": "number", "maximum": 3.40282e+38}}
	}
	newInventory := inventory()
	newInventory["resource_class"] = document{"type": "string", "pattern": nameKey}
	inventories := func(generation document) document {
		return object("resource_provider_generation inventories", document{"resource_provider_generation": generation,
			"inventories": document{"type": "object", "patternProperties": document{nameKey: object("total", inventory())}}})
	}

	resources := dictionary(nameKey, document{"type": "integer", "minimum": 1}, 1)
	list := document{"type": "array", "minItems": 1, "items": object("resource_provider resources",
		document{"resource_provider": object("uuid", document{"uuid": uuid}), "resources": resources})}
	byProvider := func(atLeast int) document {
		return dictionary(uuidKey, object("resources", document{"generation": number, "resources": resources}), atLeast)
	}
	owner := func(properties document) document {
		properties["project_id"], properties["user_id"] = text(1, 255), text(1, 255)
		return properties
	}
	const owned = "allocations project_id user_id"
	generation := document{"type": []string{"integer", "null"}}
	mappings := document{"type": "object", "minProperties": 1, "patternProperties": document{"^(" + placement.SuffixPattern + ")?$": document{
		"type": "array", "minItems": 1, "items": uuid}}}
	consumerType := document{"type": "string", "pattern": nameKey, "minLength": 1, "maxLength": 255}

	allocation28 := object(owned+" consumer_generation", owner(document{"allocations": byProvider(0), "consumer_generation": generation}))
	allocation34 := object(owned+" consumer_generation", owner(document{"allocations": byProvider(0), "consumer_generation": generation, "mappings": mappings}))
	allocation38 := object(owned+" consumer_generation consumer_type", owner(document{"allocations": byProvider(0), "consumer_generation": generation,
		"mappings": mappings, "consumer_type": consumerType}))
	reshaper := func(allocation document) document {
		return object("inventories allocations", document{"inventories": dictionary(uuidKey, inventories(number), 1), "allocations": dictionary(uuidKey, allocation, 0)})
	}
	return map[string]document{
		"class":               object("name", document{"name": className}),
		"provider_new_1.0":    object("name", document{"name": text(1, 200), "uuid": uuid}),
		"provider_new_1.14":   object("name", document{"name": text(1, 200), "uuid": uuid, "parent_provider_uuid": orNull(uuid)}),
		"provider_1.0":        object("name", document{"name": text(1, 200)}),
		"provider_1.14":       object("name", document{"name": text(1, 200), "parent_provider_uuid": orNull(uuid)}),
		"inventory":           object("total resource_provider_generation", inventory()),
		"inventory_new":       object("total resource_class", newInventory),
		"inventories":         inventories(number),
		"query_providers_1.0": query("", "name uuid"), "query_providers_1.3": query("", "name uuid member_of"),
		"query_providers_1.4": query("", "name uuid member_of resources"), "query_providers_1.14": query("", "name uuid member_of resources in_tree"),
		"query_providers_1.18":  query("", "name uuid member_of resources in_tree required"),
		"query_candidates_1.10": query("resources", "resources"), "query_candidates_1.16": query("resources", "resources limit"),
		"query_candidates_1.17": query("resources", "resources limit required"), "query_candidates_1.21": query("resources", "resources limit required member_of"),
		"query_candidates_1.25": groups("limit group_policy", "resources required member_of", numbers),
		"query_candidates_1.31": groups("limit group_policy", "resources required member_of in_tree", numbers),
		"query_candidates_1.33": groups("limit group_policy", "resources required member_of in_tree", placement.SuffixPattern),
		"query_candidates_1.35": groups("limit group_policy root_required", "resources required member_of in_tree", placement.SuffixPattern),
		"query_candidates_1.36": groups("limit group_policy root_required same_subtree", "resources required member_of in_tree", placement.SuffixPattern),
		"query_traits":          query("", "name associated"),
		"query_usages_1.9":      query("project_id", "project_id user_id"),
		"query_usages_1.38":     query("project_id", "project_id user_id consumer_type"),
		"traits": object("traits resource_provider_generation", document{"resource_provider_generation": number,
			"traits": document{"type": "array", "items": text(1, 255)}}),
		"aggregates_1.1": {"type": "array", "items": uuid, "uniqueItems": true},
		"aggregates_1.19": object("aggregates resource_provider_generation", document{"resource_provider_generation": number,
			"aggregates": document{"type": "array", "items": uuid, "uniqueItems": true}}),
		"allocation_1.0":   object("allocations", document{"allocations": list}),
		"allocation_1.8":   object(owned, owner(document{"allocations": list})),
		"allocation_1.12":  object(owned, owner(document{"allocations": byProvider(1)})),
		"allocation_1.28":  allocation28,
		"allocation_1.34":  allocation34,
		"allocation_1.38":  allocation38,
		"allocations_1.13": dictionary(uuidKey, object(owned, owner(document{"allocations": byProvider(0)})), 1),
		"allocations_1.28": dictionary(uuidKey, allocation28, 1),
		"allocations_1.34": dictionary(uuidKey, allocation34, 1),
		"allocations_1.38": dictionary(uuidKey, allocation38, 1),
		"reshaper_1.30":    reshaper(allocation28),
		"reshaper_1.34":    reshaper(allocation34),
		"reshaper_1.38":    reshaper(allocation38),
	}
}

// numbers are the suffixes of request groups before 1.33.
const numbers = "[1-9][0-9]*"

// query is a schema of query parameters, each with its last value.
func query(required, names string) document {
	properties := document{}
	for _, name := range fields(names) {
		d := document{"type": "string"}
		switch name {
		case "uuid", "in_tree":
			d["format"] = "uuid"
		case "limit":
			d["pattern"] = "^[1-9][0-9]*$"
		case "group_policy":
			d["enum"] = []string{"none", "isolate"}
		case "project_id", "user_id":
			d["minLength"], d["maxLength"] = 1, 255
		case "consumer_type":
			d["minLength"], d["maxLength"], d["pattern"] = 1, 255, "^[A-Z0-9_]+$|^all$|^unknown$"
		}
		properties[name] = d
	}
	return object(required, properties)
}

// groups is query with keys of request groups besides.
func groups(names, kinds, suffix string) document {
	d, keys := query("", names), document{}
	for _, kind := range fields(kinds) {
		keys["^"+kind+"("+suffix+")?$"] = document{"type": "string"}
	}
	d["patternProperties"] = keys
	return d
}

func compileSchemas() (map[string]httpapi.Schema, error) {
	out := map[string]httpapi.Schema{}
	for name, doc := range schemaDocuments() {
		b, err := json.Marshal(doc)
		if err != nil {
			return nil, fmt.Errorf("placement schema %s: %w", name, err)
		}
		s, err := httpapi.CompileSchema("placement/"+name, b)
		if err != nil {
			return nil, err
		}
		out[name] = told{s, "JSON does not validate: "}
		if strings.HasPrefix(name, "query_") {
			out[name] = lastValues{told{s, badQuery}}
		}
	}
	return out, nil
}

// told words the errors of a schema as placement's clients know them.
type told struct {
	httpapi.Schema
	before string
}

// Validate implements httpapi.Schema.
func (t told) Validate(doc any) error {
	err := t.Schema.Validate(doc)
	var v *httpapi.Violation
	if !errors.As(err, &v) {
		return err
	}
	return fault.Wrap(err, fault.Invalid, "%s%s  %s", t.before, v.Rule, v.Place())
}

// lastValues judges the last value of each query parameter.
type lastValues struct{ httpapi.Schema }

// Validate implements httpapi.Schema.
func (l lastValues) Validate(doc any) error {
	out := map[string]any{}
	all, _ := doc.(map[string]any)
	for key, values := range all {
		if list, _ := values.([]any); len(list) > 0 {
			out[key] = list[len(list)-1]
		}
	}
	return l.Schema.Validate(out)
}

// schema gives the one schema of a name at every version.
func (a *api) schema(name string) func(httpapi.Version) httpapi.Schema {
	s := a.schemas[name]
	return func(httpapi.Version) httpapi.Schema { return s }
}

// newestOf gives, at each version, the newest schema of a family that is not newer.
func (a *api) newestOf(family string) func(httpapi.Version) httpapi.Schema {
	var at [newest + 1]httpapi.Schema
	for minor := range at {
		if s := a.schemas[fmt.Sprintf("%s_1.%d", family, minor)]; s != nil {
			at[minor] = s
		} else if minor > 0 {
			at[minor] = at[minor-1]
		}
	}
	return func(have httpapi.Version) httpapi.Schema { return at[have.Minor] }
}
