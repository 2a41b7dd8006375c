package api

import (
	"net/http"
	"strings"
	"testing"
)

// What clients look for in the texts of errors, with the status and the code that go with it.
func TestWordsOfErrors(t *testing.T) {
	c := start(t)
	const rp = "/resource_providers/" + hostA
	c.must(200, "POST", "/resource_providers", document{"name": "a", "uuid": hostA})
	c.must(200, "PUT", rp+"/inventories", document{"resource_provider_generation": 0, "inventories": document{"DISK_GB": document{"total": 10}, "VCPU": document{"total": 10},
		"MEMORY_MB": document{"total": 10}}})
	c.must(201, "PUT", "/resource_classes/CUSTOM_GOLD", nil)
	c.must(201, "POST", rp+"/inventories", document{"resource_class": "CUSTOM_GOLD", "total": 4})
	c.must(201, "PUT", "/traits/CUSTOM_FAST", nil)
	c.must(200, "PUT", rp+"/traits", document{"resource_provider_generation": 2, "traits": []string{"CUSTOM_FAST"}})
	consumer := func(resources document) document {
		return document{"allocations": document{hostA: document{"resources": resources}}, "project_id": "p", "user_id": "u", "consumer_generation": nil, "consumer_type": "INSTANCE"}
	}
	c.must(204, "PUT", "/allocations/"+hostB, consumer(document{"DISK_GB": 1, "VCPU": 1}))

	long := strings.Repeat("x", 256)
	const undefined, concurrent = "placement.undefined_code", "placement.concurrent_update"
	for _, e := range []struct {
		method, path string
		body         any
		status       int
		code, text   string
	}{
		// Schemas: the rule, its name and where it stands.
		{"PUT", rp + "/inventories/VCPU", document{"resource_provider_generation": 4, "total": 0}, 400, undefined, "JSON does not validate: 0 is less than the minimum of 1  Failed validating 'minimum' in schema['properties']['total']: "},
		{"POST", rp + "/inventories", document{"resource_class": "VCPU", "total": 1 << 31}, 400, undefined, "Failed validating 'maximum' in schema['properties']['total']"},
		{"POST", "/resource_providers", document{"uuid": hostB}, 400, undefined, "JSON does not validate: 'name' is a required property  Failed validating 'required' in schema: "},
		{"POST", "/resource_providers", document{"name": "b", "uuid": "x"}, 400, undefined, "'x' is not a 'uuid'  Failed validating 'format' in schema['properties']['uuid']"},
		{"POST", "/resource_providers", document{"name": long}, 400, undefined, "Failed validating 'maxLength'"},
		{"PUT", "/resource_classes/VCPU", nil, 400, undefined, "'VCPU' does not match '^CUSTOM_[A-Z0-9_]+$'  Failed validating 'pattern' in schema['properties']['name']"},
		{"PUT", "/allocations/" + hostB, document{"allocations": document{"x": document{}}, "project_id": "p", "user_id": "u", "consumer_generation": nil, "consumer_type": "I"}, 400,
			undefined, "JSON does not validate: 'x' does not match any of the regexes: '^[0-9a-fA-F-]{36}$'  Failed validating 'additionalProperties' in schema['properties']['allocations']"},
		{"POST", "/allocations", document{hostB: consumer(document{"DISK_GB": 0})}, 400, undefined, "On instance['" + hostB + "']['allocations']['" + hostA + "']['resources']['DISK_GB']:     0"},
		// Query strings.
		{"GET", "/resource_providers?colour=red", nil, 400, undefined, "Invalid query string parameters: Additional properties are not allowed ('colour' was unexpected)"},
		{"GET", "/resource_providers?uuid=x", nil, 400, undefined, "Invalid query string parameters: 'x' is not a 'uuid'"},
		{"GET", "/allocation_candidates?resources01@=VCPU:1", nil, 400, undefined, "'resources01@' does not match any of the regexes: "},
		{"GET", "/allocation_candidates?resources=VCPU:1&limit=0", nil, 400, undefined, "'0' does not match '^[1-9][0-9]*$'  Failed validating 'pattern'"},
		{"GET", "/allocation_candidates?resources=VCPU:1&limit=0&limit=1", nil, 400, undefined, "'0' does not match '^[1-9][0-9]*$'"},
		{"GET", "/allocation_candidates?resources=VCPU:1&group_policy=some", nil, 400, undefined, "'some' is not one of ['none', 'isolate']"},
		{"GET", "/usages?user_id=u", nil, 400, undefined, "'project_id' is a required property"},
		{"GET", "/usages?project_id=", nil, 400, undefined, "Failed validating 'minLength'"},
		{"GET", "/usages?project_id=" + long, nil, 400, undefined, "Failed validating 'maxLength'"},
		{"GET", "/usages?project_id=p&consumer_type=x", nil, 400, undefined, "Failed validating 'pattern'"},
		// What is in use, in the order in which classes came.
		{"DELETE", rp + "/inventories", nil, 409, "placement.inventory.inuse", "Inventory for 'VCPU, DISK_GB' on resource provider '" + hostA + "' in use"},
		{"DELETE", rp + "/inventories/VCPU", nil, 409, concurrent, "Unable to delete inventory of class VCPU: "},
		{"DELETE", "/resource_classes/CUSTOM_GOLD", nil, 409, undefined, "Class is in use in inventory"},
		{"DELETE", "/traits/CUSTOM_FAST", nil, 409, undefined, "The trait CUSTOM_FAST is in use by a resource provider."},
		{"DELETE", rp, nil, 409, "placement.resource_provider.inuse", "Unable to delete resource provider " + hostA + ": Resource provider has allocations."},
		// What is not there.
		{"DELETE", "/resource_providers/" + hostB, nil, 404, "placement.resource_provider.not_found", "No resource provider with uuid " + hostB + " found for delete"},
		{"PUT", "/allocations/" + hostA, consumer(document{"CUSTOM_COW": 1}), 400, undefined, "Unable to allocate inventory for consumer " + hostA + ": No such resource class CUSTOM_COW."},
		// Inventories that cannot be.
		{"PUT", rp + "/inventories/VCPU", document{"resource_provider_generation": 4, "total": 1, "reserved": 2}, 400, undefined, "Unable to update inventory for resource provider " + hostA},
		{"POST", rp + "/inventories", document{"resource_class": "PCPU", "total": 1, "reserved": 2}, 400, undefined, "Unable to create inventory for resource provider " + hostA},
	} {
		a := c.do(e.method, e.path, e.body)
		if a.status != e.status || text(dig(a.body, "errors", 0, "code")) != `"`+e.code+`"` {
			t.Errorf("%s %s: %d %s, want %d with %s", e.method, e.path, a.status, a.text, e.status, e.code)
		}
		if detail, _ := dig(a.body, "errors", 0, "detail").(string); !strings.Contains(detail, e.text) {
			t.Errorf("%s %s:\n got %s\nwant %s", e.method, e.path, detail, e.text)
		}
	}
}

// A method that a path does not have is refused with those that it has.
func TestMethodsOfPaths(t *testing.T) {
	c := start(t)
	for _, e := range []struct{ method, path, allow string }{
		{"HEAD", "/resource_providers", "GET, POST"}, {"PATCH", "/resource_providers", "GET, POST"}, {"OPTIONS", "/", "GET"}, {"HEAD", "/", "GET"},
	} {
		a := c.do(e.method, e.path, nil)
		if a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != e.allow {
			t.Errorf("%s %s: %d, Allow %q, want %q", e.method, e.path, a.status, a.header.Get("Allow"), e.allow)
		}
	}
}

// Ratios are written as fractions everywhere.
func TestRatiosAreFractions(t *testing.T) {
	c := start(t)
	const rp = "/resource_providers/" + hostA
	c.must(200, "POST", "/resource_providers", document{"name": "a", "uuid": hostA})
	for ratio, want := range map[float64]string{1: "1.0", 16: "16.0", 1.5: "1.5", 3.4e38: "3.4e+38"} {
		gen := dig(c.must(200, "GET", rp, nil).body, "generation")
		body := document{"total": 4, "allocation_ratio": ratio}
		put := c.must(200, "PUT", rp+"/inventories", document{"resource_provider_generation": gen, "inventories": document{"VCPU": body}})
		for _, a := range []answer{put, c.must(200, "GET", rp+"/inventories", nil), c.must(200, "GET", rp+"/inventories/VCPU", nil)} {
			if !strings.Contains(a.text, `"allocation_ratio":`+want) {
				t.Errorf("%v: %s", ratio, a.text)
			}
		}
	}
}
