package api

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/placement"
)

func request(minor int, raw string) *httpapi.Request {
	return &httpapi.Request{Version: v(minor), HTTP: &http.Request{URL: &url.URL{RawQuery: raw}}}
}

func TestCandidateQuery(t *testing.T) {
	got, err := candidateQuery(request(39, "resources=VCPU:2,MEMORY_MB:512&required=HW_A,!HW_B&required=in:HW_C,HW_D&member_of=in:"+hostA+","+hostB+"&member_of=!"+agg+
		"&in_tree="+hostA+"&resources_N=VGPU:1&required_N=CUSTOM_X&required_M=HW_E&same_subtree=_N,_M&group_policy=isolate&root_required=HW_R,!HW_S&limit=7"))
	if err != nil {
		t.Fatal(err)
	}
	want := placement.Query{Limit: 7, GroupPolicy: "isolate", RootRequired: []string{"HW_R"}, RootForbidden: []string{"HW_S"}, SameSubtree: [][]string{{"_N", "_M"}},
		Groups: []placement.Group{
			{Resources: placement.Resources{"VCPU": 2, "MEMORY_MB": 512}, Required: [][]string{{"HW_A"}, {"HW_C", "HW_D"}}, Forbidden: []string{"HW_B"},
				MemberOf: [][]string{{hostA, hostB}}, NotMemberOf: []string{agg}, InTree: hostA},
			{Suffix: "_M", Required: [][]string{{"HW_E"}}},
			{Suffix: "_N", Resources: placement.Resources{"VGPU": 1}, Required: [][]string{{"CUSTOM_X"}}},
		}}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("query (-want +got):\n%s", d)
	}
	for _, raw := range []string{"", "resources=", "resources=VCPU", "resources=VCPU:x", "resources=VCPU:0", "resources=VCPU:1:2", "resources=VCPU:1&limit=0", "resources=VCPU:1&limit=01",
		"resources=VCPU:1&limit=x", "resources=VCPU:1&group_policy=some", "resources=VCPU:1&required=", "resources=VCPU:1&required=A,,B", "resources=VCPU:1&required=in:!A",
		"resources=VCPU:1&required=in:A,", "resources=VCPU:1&required=A,!A", "resources=VCPU:1&member_of=x", "resources=VCPU:1&member_of=" + hostA + "," + hostB,
		"resources=VCPU:1&in_tree=x", "resources=VCPU:1&nonsense=1", "resources1=VCPU:1&resources2=VCPU:1", "resources=VCPU:1&same_subtree=", "resources=VCPU:1&required7=A",
		"resources=VCPU:1&root_required=in:A,B"} {
		if q, err := candidateQuery(request(39, raw)); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q was taken as %+v (%v)", raw, q, err)
		}
	}
}

// Whatever a query string says, it is understood or refused as invalid.
func FuzzQueries(f *testing.F) {
	f.Add(uint8(39), "resources=VCPU:2&required=in:A,B&member_of=!in:"+hostA+"&same_subtree=1&limit=3")
	f.Add(uint8(24), "resources=VCPU:2&required=!A&member_of=in:"+hostA)
	f.Fuzz(func(t *testing.T, minor uint8, raw string) {
		r := request(int(minor)%(newest+1), raw)
		q, err := candidateQuery(r)
		if err != nil && fault.KindOf(err) != fault.Invalid {
			t.Fatalf("%q: %v", raw, err)
		}
		for _, g := range q.Groups {
			if err == nil && g.Suffix == "" && len(g.Resources) == 0 && len(q.Groups) == 1 {
				t.Fatalf("%q asks for nothing", raw)
			}
		}
		if _, err := providerFilter(r); err != nil && fault.KindOf(err) != fault.Invalid {
			t.Fatalf("%q: %v", raw, err)
		}
	})
}
