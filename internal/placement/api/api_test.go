package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/auth"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/placement"
	"kilonova/internal/placement/local"
	"kilonova/internal/policy"
)

// tokens: the token is a role and, after a colon, the project; "system" and "domain" are administrators of these.
type tokens struct{}

func (tokens) Authenticate(_ context.Context, token string) (*auth.Caller, error) {
	role, project, _ := strings.Cut(token, ":")
	implied := map[string][]string{"admin": {"admin", "manager", "member", "reader"}, "service": {"service"}, "member": {"member", "reader"}, "reader": {"reader"}}
	admin := implied["admin"]
	switch role {
	case "system":
		return &auth.Caller{UserID: "u", System: true, Roles: admin}, nil
	case "domain":
		return &auth.Caller{UserID: "u", DomainID: "default", Roles: admin}, nil
	}
	if implied[role] == nil {
		return nil, fault.New(fault.Unauthorized, "unknown token")
	}
	return &auth.Caller{UserID: "u", ProjectID: project, Roles: implied[role]}, nil
}

// cloud is a placement behind HTTP.
type cloud struct {
	t     testing.TB
	url   string
	token string
	minor int
}

func start(t testing.TB) *cloud {
	t.Helper()
	d, err := db.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "placement.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	svc, err := local.New(t.Context(), local.Config{DB: d})
	if err != nil {
		t.Fatal(err)
	}
	rules, err := policy.New(Rules(), nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(svc, Config{Auth: tokens{}, Policy: rules})
	if err != nil {
		t.Fatal(err)
	}
	h, err := s.Handler()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.StripPrefix("/placement", h))
	t.Cleanup(server.Close)
	return &cloud{t: t, url: server.URL + "/placement", token: "admin", minor: newest}
}

// at gives the same cloud asked at another version.
func (c *cloud) at(minor int) *cloud {
	o := *c
	o.minor = minor
	return &o
}

func (c *cloud) as(token string) *cloud {
	o := *c
	o.token = token
	return &o
}

type answer struct {
	status int
	header http.Header
	body   map[string]any
	text   string
}

func (c *cloud) do(method, path string, body any) answer {
	c.t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			c.t.Fatal(err)
		}
		r = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, r)
	if err != nil {
		c.t.Fatal(err)
	}
	if r != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("X-Auth-Token", c.token)
	}
	req.Header.Set("OpenStack-API-Version", fmt.Sprintf("placement 1.%d", c.minor))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	a := answer{status: resp.StatusCode, header: resp.Header, text: string(raw)}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &a.body); err != nil {
			c.t.Fatalf("%s %s: not JSON: %s", method, path, raw)
		}
	}
	return a
}

// must is do with the status that is due.
func (c *cloud) must(status int, method, path string, body any) answer {
	c.t.Helper()
	a := c.do(method, path, body)
	if a.status != status {
		c.t.Fatalf("%s %s at 1.%d: %d, want %d: %s", method, path, c.minor, a.status, status, a.text)
	}
	return a
}

// code is the error code of an answer.
func (a answer) code() string {
	list, _ := a.body["errors"].([]any)
	if len(list) == 0 {
		return ""
	}
	e, _ := list[0].(map[string]any)
	s, _ := e["code"].(string)
	return s
}

func dig(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

const (
	hostA  = "11111111-1111-4111-8111-111111111111"
	hostB  = "22222222-2222-4222-8222-222222222222"
	server = "33333333-3333-4333-8333-333333333333"
	other  = "44444444-4444-4444-8444-444444444444"
	agg    = "55555555-5555-4555-8555-555555555555"
)

type o = map[string]any

func (c *cloud) host(uuid, name string, vcpu int) {
	c.t.Helper()
	c.must(200, "POST", "/resource_providers", o{"name": name, "uuid": uuid})
	c.must(200, "PUT", "/resource_providers/"+uuid+"/inventories", o{"resource_provider_generation": 0, "inventories": o{"VCPU": o{"total": vcpu}, "MEMORY_MB": o{"total": 4096}}})
}

func (c *cloud) take(consumer, host string, vcpu int, generation any) answer {
	c.t.Helper()
	return c.do("PUT", "/allocations/"+consumer, o{"allocations": o{host: o{"resources": o{"VCPU": vcpu}}}, "project_id": "p", "user_id": "u",
		"consumer_generation": generation, "consumer_type": "INSTANCE"})
}

func TestVersionsOfRoutes(t *testing.T) {
	c := start(t)
	c.host(hostA, "a", 8)
	for _, r := range []struct {
		method, path string
		body         any
		since        int
		before       int // status before
		status       int
	}{
		{"GET", "/resource_classes", nil, 2, 404, 200},
		{"GET", "/resource_classes/VCPU", nil, 2, 404, 200},
		{"POST", "/resource_classes", o{"name": "CUSTOM_A"}, 2, 404, 201},
		{"DELETE", "/resource_classes/CUSTOM_A", nil, 2, 404, 204},
		{"GET", "/resource_providers/" + hostA + "/aggregates", nil, 1, 404, 200},
		{"GET", "/resource_providers/" + hostA + "/traits", nil, 6, 404, 200},
		{"DELETE", "/resource_providers/" + hostA + "/traits", nil, 6, 404, 204},
		{"GET", "/traits", nil, 6, 404, 200},
		{"PUT", "/traits/CUSTOM_T", nil, 6, 404, 201},
		{"GET", "/traits/CUSTOM_T", nil, 6, 404, 204},
		{"DELETE", "/traits/CUSTOM_T", nil, 6, 404, 204},
		{"GET", "/usages?project_id=p", nil, 9, 404, 200},
		{"GET", "/allocation_candidates?resources=VCPU:1", nil, 10, 404, 200},
		{"POST", "/allocations", o{server: o{"allocations": o{}, "project_id": "p", "user_id": "u"}}, 13, 404, 204},
		{"POST", "/reshaper", o{"inventories": o{hostA: o{"resource_provider_generation": 99, "inventories": o{}}}, "allocations": o{}}, 30, 404, 403},
		{"DELETE", "/resource_providers/" + hostA + "/inventories", nil, 5, 405, 204},
		{"GET", "/allocation_candidates?resources=VCPU:1&limit=1", nil, 16, 400, 200},
		{"GET", "/allocation_candidates?resources=VCPU:1&required=HW_CPU_X86_AVX", nil, 17, 400, 200},
		{"GET", "/allocation_candidates?resources=VCPU:1&member_of=" + agg, nil, 21, 400, 200},
		{"GET", "/allocation_candidates?resources=VCPU:1&required=!HW_CPU_X86_AVX", nil, 22, 400, 200},
		{"GET", "/allocation_candidates?resources=VCPU:1&member_of=" + agg + "&member_of=" + agg, nil, 24, 400, 200},
		{"GET", "/allocation_candidates?resources1=VCPU:1", nil, 25, 400, 200},
		{"GET", "/allocation_candidates?resources=VCPU:1&group_policy=none", nil, 25, 400, 200},
		{"GET", "/allocation_candidates?resources=VCPU:1&in_tree=" + hostA, nil, 31, 400, 200},
		{"GET", "/allocation_candidates?resources=VCPU:1&member_of=!" + agg, nil, 32, 400, 200},
		{"GET", "/allocation_candidates?resources_A=VCPU:1", nil, 33, 400, 200},
		{"GET", "/allocation_candidates?resources=VCPU:1&root_required=HW_CPU_X86_AVX", nil, 35, 400, 200},
		{"GET", "/allocation_candidates?resources1=VCPU:1&same_subtree=1", nil, 36, 400, 200},
		{"GET", "/allocation_candidates?resources=VCPU:1&required=in:HW_CPU_X86_AVX,HW_CPU_X86_AVX2", nil, 39, 400, 200},
		{"GET", "/resource_providers?member_of=" + agg, nil, 3, 400, 200},
		{"GET", "/resource_providers?resources=VCPU:1", nil, 4, 400, 200},
		{"GET", "/resource_providers?in_tree=" + hostA, nil, 14, 400, 200},
		{"GET", "/resource_providers?required=HW_CPU_X86_AVX", nil, 18, 400, 200},
		{"GET", "/usages?project_id=p&consumer_type=all", nil, 38, 400, 200},
	} {
		if got := c.at(r.since-1).do(r.method, r.path, r.body); got.status != r.before {
			t.Errorf("%s %s at 1.%d: %d, want %d", r.method, r.path, r.since-1, got.status, r.before)
		}
		if got := c.at(r.since).do(r.method, r.path, r.body); got.status != r.status {
			t.Errorf("%s %s at 1.%d: %d, want %d: %s", r.method, r.path, r.since, got.status, r.status, got.text)
		}
	}
}

func TestDocumentsByVersion(t *testing.T) {
	c := start(t)
	c.host(hostA, "a", 8)
	c.at(28).must(204, "PUT", "/allocations/"+server, o{"allocations": o{hostA: o{"resources": o{"VCPU": 2}}}, "project_id": "p", "user_id": "u", "consumer_generation": nil})
	has := func(path string, minor int, want bool, where ...any) {
		t.Helper()
		if got := dig(c.at(minor).must(200, "GET", path, nil).body, where...) != nil; got != want {
			t.Errorf("%s at 1.%d has %v: %v", path, minor, where, got)
		}
	}
	since := func(path string, minor int, where ...any) {
		t.Helper()
		has(path, minor-1, false, where...)
		has(path, minor, true, where...)
	}
	rp := "/resource_providers/" + hostA
	since(rp, 1, "links", 3)
	since(rp, 6, "links", 4)
	since(rp, 11, "links", 5)
	since(rp, 14, "root_provider_uuid")
	since(rp+"/aggregates", 19, "resource_provider_generation")
	since(rp+"/allocations", 28, "allocations", server, "consumer_generation")
	since("/allocations/"+server, 12, "project_id")
	since("/allocations/"+server, 28, "consumer_generation")
	since("/allocations/"+server, 38, "consumer_type")
	since("/usages?project_id=p", 38, "usages", "unknown", "consumer_count")
	q := "/allocation_candidates?resources=VCPU:1"
	since(q, 12, "allocation_requests", 0, "allocations", hostA)
	has(q, 11, true, "allocation_requests", 0, "allocations", 0, "resource_provider", "uuid")
	since(q, 17, "provider_summaries", hostA, "traits")
	since(q, 27, "provider_summaries", hostA, "resources", "MEMORY_MB")
	since(q, 29, "provider_summaries", hostA, "root_provider_uuid")
	since(q, 34, "allocation_requests", 0, "mappings", "")
	for _, path := range []string{"/", rp, rp + "/inventories", rp + "/usages", "/resource_providers", "/traits", q, "/allocations/" + server} {
		if before, after := c.at(14).do("GET", path, nil), c.at(15).do("GET", path, nil); before.header.Get("Last-Modified") != "" ||
			after.header.Get("Last-Modified") == "" && after.status == 200 || after.header.Get("Cache-Control") != "no-cache" && after.status == 200 {
			t.Errorf("%s: caching headers %q before 1.15, %q since", path, before.header.Get("Last-Modified"), after.header.Get("Last-Modified"))
		}
	}
	a := c.at(19).must(201, "POST", "/resource_providers", o{"name": "old"})
	if a.text != "" || !strings.Contains(a.header.Get("Location"), "/placement/resource_providers/") {
		t.Errorf("creation at 1.19: %q, location %q", a.text, a.header.Get("Location"))
	}
	if self := dig(c.must(200, "POST", "/resource_providers", o{"name": "new"}).body, "links", 0, "href"); !strings.HasPrefix(fmt.Sprint(self), "/placement/resource_providers/") {
		t.Errorf("self link %v", self)
	}
}

func TestConflictsAndCodes(t *testing.T) {
	c := start(t)
	c.host(hostA, "a", 4)
	if a := c.take(server, hostA, 3, nil); a.status != 204 {
		t.Fatal(a.text)
	}
	inUse := o{"resource_provider_generation": 2, "inventories": o{"MEMORY_MB": o{"total": 4096}}}
	cases := []struct {
		name   string
		answer answer
		status int
		code   string
	}{
		{"capacity", c.take(other, hostA, 2, nil), 409, "placement.undefined_code"},
		{"consumer generation", c.take(server, hostA, 1, nil), 409, "placement.concurrent_update"},
		{"consumer generation of nobody", c.take(other, hostA, 1, 5), 409, "placement.concurrent_update"},
		{"provider generation", c.do("PUT", "/resource_providers/"+hostA+"/inventories", o{"resource_provider_generation": 0, "inventories": o{}}), 409, "placement.concurrent_update"},
		{"traits generation", c.do("PUT", "/resource_providers/"+hostA+"/traits", o{"resource_provider_generation": 0, "traits": []string{}}), 409, "placement.concurrent_update"},
		{"aggregates generation", c.do("PUT", "/resource_providers/"+hostA+"/aggregates", o{"resource_provider_generation": 0, "aggregates": []string{}}), 409, "placement.concurrent_update"},
		{"inventory in use", c.do("PUT", "/resource_providers/"+hostA+"/inventories", inUse), 409, "placement.inventory.inuse"},
		{"provider in use", c.do("DELETE", "/resource_providers/"+hostA, nil), 409, "placement.resource_provider.inuse"},
		{"duplicate name", c.do("POST", "/resource_providers", o{"name": "a"}), 409, "placement.duplicate_name"},
		{"unknown provider", c.do("GET", "/resource_providers/"+hostB, nil), 404, "placement.resource_provider.not_found"},
		{"unknown class", c.do("GET", "/allocation_candidates?resources=NONE:1", nil), 400, "placement.undefined_code"},
		{"unknown trait", c.do("GET", "/allocation_candidates?resources=VCPU:1&required=NONE", nil), 400, "placement.undefined_code"},
		{"root_required twice", c.do("GET", "/allocation_candidates?resources=VCPU:1&root_required=HW_CPU_X86_AVX&root_required=HW_CPU_X86_AVX2", nil), 400, "placement.query.duplicate_key"},
		{"root_required against itself", c.do("GET", "/allocation_candidates?resources=VCPU:1&root_required=HW_CPU_X86_AVX,!HW_CPU_X86_AVX", nil), 400, "placement.query.bad_value"},
		{"no resources", c.do("GET", "/allocation_candidates?required1=HW_CPU_X86_AVX&same_subtree=1", nil), 400, "placement.query.missing_value"},
		{"no such suffix", c.do("GET", "/allocation_candidates?resources1=VCPU:1&same_subtree=1,2", nil), 400, "placement.query.bad_value"},
		{"reserved above total", c.do("PUT", "/resource_providers/"+hostA+"/inventories/VCPU", o{"resource_provider_generation": 2, "total": 4, "reserved": 5}), 400, "placement.undefined_code"},
		{"malformed", c.do("PUT", "/resource_providers/"+hostA, "{"), 400, "placement.undefined_code"},
	}
	for _, k := range cases {
		if k.answer.status != k.status || k.answer.code() != k.code {
			t.Errorf("%s: %d %s, want %d %s: %s", k.name, k.answer.status, k.answer.code(), k.status, k.code, k.answer.text)
		}
	}
	if a := c.at(22).do("GET", "/resource_providers/"+hostB, nil); a.code() != "" {
		t.Errorf("a code before 1.23: %s", a.text)
	}
	// Reserved may equal the total since 1.26; a parent that is set may change since 1.37.
	full := func(generation int) o {
		return o{"resource_provider_generation": generation, "total": 4, "reserved": 4}
	}
	c.at(25).must(400, "PUT", "/resource_providers/"+hostA+"/inventories/VCPU", full(2))
	c.at(26).must(200, "PUT", "/resource_providers/"+hostA+"/inventories/VCPU", full(2))
	c.must(200, "POST", "/resource_providers", o{"name": "b", "uuid": hostB, "parent_provider_uuid": hostA})
	c.at(36).must(400, "PUT", "/resource_providers/"+hostB, o{"name": "b", "parent_provider_uuid": nil})
	c.at(37).must(200, "PUT", "/resource_providers/"+hostB, o{"name": "b", "parent_provider_uuid": nil})
}

func TestPolicy(t *testing.T) {
	c := start(t)
	c.host(hostA, "a", 4)
	reshape := o{"inventories": o{hostA: o{"resource_provider_generation": 1, "inventories": o{"VCPU": o{"total": 5}}}}, "allocations": o{}}
	cases := []struct {
		token, method, path string
		body                any
		status              int
	}{
		{"", "GET", "/", nil, 200}, {"", "GET", "/resource_providers", nil, 401}, {"nobody", "GET", "/resource_providers", nil, 401},
		{"member:p", "GET", "/resource_providers", nil, 403}, {"reader:p", "GET", "/traits", nil, 403}, {"service", "GET", "/resource_providers", nil, 200},
		{"admin", "POST", "/reshaper", reshape, 403}, {"service", "POST", "/reshaper", reshape, 204},
		{"reader:p", "GET", "/usages?project_id=p", nil, 200}, {"reader:p", "GET", "/usages?project_id=q", nil, 403}, {"service", "GET", "/usages?project_id=q", nil, 200},
		{"system", "GET", "/", nil, 200}, {"system", "GET", "/resource_providers", nil, 403}, {"domain", "GET", "/traits", nil, 403}, {"system", "GET", "/usages?project_id=p", nil, 403},
		{"member:p", "GET", "/allocation_candidates?resources=VCPU:1", nil, 403}, {"member:p", "PUT", "/allocations/" + server, o{}, 403},
	}
	for _, k := range cases {
		if a := c.as(k.token).do(k.method, k.path, k.body); a.status != k.status {
			t.Errorf("%q %s %s: %d, want %d: %s", k.token, k.method, k.path, a.status, k.status, a.text)
		}
	}
}

func TestBodiesOfAllocationsByVersion(t *testing.T) {
	c := start(t)
	c.host(hostA, "a", 100)
	list := []o{{"resource_provider": o{"uuid": hostA}, "resources": o{"VCPU": 1}}}
	dict := o{hostA: o{"resources": o{"VCPU": 1}}}
	own := func(in o) o { in["project_id"], in["user_id"] = "p", "u"; return in }
	cases := []struct {
		minor  int
		body   o
		status int
	}{
		{0, o{"allocations": list}, 204}, {0, o{"allocations": dict}, 400}, {0, own(o{"allocations": list}), 400},
		{7, o{"allocations": list}, 204}, {8, o{"allocations": list}, 400}, {8, own(o{"allocations": list}), 204}, {11, own(o{"allocations": list}), 204},
		{12, own(o{"allocations": list}), 400}, {12, own(o{"allocations": dict}), 204}, {27, own(o{"allocations": o{}}), 400},
		{28, own(o{"allocations": dict}), 400}, {33, own(o{"allocations": dict, "consumer_generation": nil, "mappings": o{"": []string{hostA}}}), 400},
		{34, own(o{"allocations": dict, "consumer_generation": nil, "mappings": o{"": []string{hostA}}}), 204},
		{38, own(o{"allocations": dict, "consumer_generation": nil}), 400}, {38, own(o{"allocations": dict, "consumer_generation": nil, "consumer_type": "small"}), 400},
		{38, own(o{"allocations": dict, "consumer_generation": nil, "consumer_type": "INSTANCE"}), 204},
		{28, own(o{"allocations": o{hostA: o{"resources": o{"VCPU": 0}}}, "consumer_generation": nil}), 400},
		{28, own(o{"allocations": o{hostA: o{"resources": o{}}}, "consumer_generation": nil}), 400},
	}
	for i, k := range cases {
		consumer := fmt.Sprintf("%08d-0000-4000-8000-000000000000", i)
		if a := c.at(k.minor).do("PUT", "/allocations/"+consumer, k.body); a.status != k.status {
			t.Errorf("1.%d %v: %d, want %d: %s", k.minor, k.body, a.status, k.status, a.text)
		}
	}
	c.at(27).must(404, "DELETE", "/allocations/"+other, nil)
	c.must(400, "PUT", "/allocations/no-uuid", own(o{"allocations": dict, "consumer_generation": nil, "consumer_type": "INSTANCE"}))
}

// BenchmarkCandidates is the whole way of GET /allocation_candidates over loopback HTTP.
func BenchmarkCandidates(b *testing.B) {
	for _, n := range []int{100, 1000, 5000} {
		c := start(b)
		for i := range n {
			uuid := fmt.Sprintf("%08d-0000-4000-8000-000000000000", i)
			c.host(uuid, "compute-"+uuid, 64)
			c.must(200, "PUT", "/resource_providers/"+uuid+"/traits", o{"resource_provider_generation": 1,
				"traits": []string{"COMPUTE_NODE", "COMPUTE_ACCELERATORS", "COMPUTE_TRUSTED_CERTS", "COMPUTE_VOLUME_ATTACH", "HW_CPU_X86_AVX", "HW_CPU_X86_AVX2"}})
		}
		for _, query := range []string{"", "&limit=10"} {
			b.Run(fmt.Sprintf("hosts=%d%s", n, query), func(b *testing.B) {
				for b.Loop() {
					req, err := http.NewRequestWithContext(b.Context(), "GET", c.url+"/allocation_candidates?resources=VCPU:1,MEMORY_MB:512"+query, nil)
					if err != nil {
						b.Fatal(err)
					}
					req.Header.Set("X-Auth-Token", "admin")
					req.Header.Set("OpenStack-API-Version", "placement 1.36")
					resp, err := http.DefaultClient.Do(req)
					if err != nil {
						b.Fatal(err)
					}
					if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
						b.Fatal(resp.Status, err)
					}
					_ = resp.Body.Close()
				}
			})
		}
	}
}

// The answer of candidates is the same JSON whether it is copied or read, also beyond one piece.
func TestCandidateWriter(t *testing.T) {
	found := &placement.Candidates{Summaries: map[string]*placement.Provider{}}
	for i := range 2000 {
		uuid := fmt.Sprintf("%08d-0000-4000-8000-000000000000", i)
		found.Candidates = append(found.Candidates, placement.Candidate{Root: uuid, Allocations: placement.Allocations{uuid: {"VCPU": int64(i)}}, Mappings: map[string][]string{"": {uuid}}})
		found.Summaries[uuid] = &placement.Provider{UUID: uuid, Root: uuid, Traits: []string{"HW_A", "HW_B"}[:i%3], Inventory: map[string]placement.Inventory{"VCPU": {Total: 4, AllocationRatio: 1}}}
	}
	decode := func(r io.Reader) (doc struct {
		Requests []struct {
			Allocations map[string]struct{ Resources placement.Resources }
		} `json:"allocation_requests"`
		Summaries map[string]struct{ Traits []string } `json:"provider_summaries"`
	}) {
		t.Helper()
		if err := json.NewDecoder(r).Decode(&doc); err != nil {
			t.Fatal(err)
		}
		return doc
	}
	r := &httpapi.Request{Version: v(newest)}
	var copied bytes.Buffer
	if n, err := (&candidateWriter{r: r, found: found}).WriteTo(&copied); err != nil || n != int64(copied.Len()) || n < 3*piece {
		t.Fatalf("%d of %d bytes: %v", n, copied.Len(), err)
	}
	a, b := decode(&copied), decode(&candidateWriter{r: r, found: found})
	if d := cmp.Diff(a, b); d != "" {
		t.Fatal(d)
	}
	for i, q := range a.Requests {
		uuid := found.Candidates[i].Root
		if q.Allocations[uuid].Resources["VCPU"] != int64(i) || len(a.Summaries[uuid].Traits) != i%3 {
			t.Fatalf("candidate %d: %+v, traits %v", i, q, a.Summaries[uuid].Traits)
		}
	}
}

// Who made an aggregate finds it again by what he wrote, with or without dashes.
func TestAggregatesStayAsWritten(t *testing.T) {
	c := start(t)
	c.host(hostA, "a", 4)
	plain := strings.ReplaceAll(agg, "-", "")
	path := "/resource_providers/" + hostA + "/aggregates"
	wrote := c.do("PUT", path, o{"resource_provider_generation": 1, "aggregates": []string{plain}})
	read := c.do("GET", path, nil)
	for _, a := range []answer{wrote, read} {
		if d := cmp.Diff([]any{plain}, a.body["aggregates"]); a.status != 200 || d != "" {
			t.Errorf("%d %s %s", a.status, a.text, d)
		}
	}
	for member, want := range map[string]int{plain: 1, agg: 0} {
		found, _ := c.do("GET", "/resource_providers?member_of="+member, nil).body["resource_providers"].([]any)
		if len(found) != want {
			t.Errorf("member_of=%s: %v", member, found)
		}
	}
}
