package local

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/placement"
)

func reportOf(name string, vcpu int64, traits ...string) placement.HostReport {
	return placement.HostReport{UUID: id.UUID(), Name: name, Inventory: stock(vcpu, 4096), Traits: traits, Managed: traits}
}

// Hosts that register together are what they would be one by one: for this process, for another, and in the tables.
func TestRegisterIsEnsureAndReport(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	other := on(t, s.db)
	alone := addHost(t, s, "alone", stock(2, 2048))
	var hosts []placement.HostReport
	for i := range 2*atOnce + 50 {
		hosts = append(hosts, reportOf(fmt.Sprintf("host-%d", i), int64(4+i%3), "COMPUTE_NODE", "CUSTOM_KIND"))
	}
	hosts = append(hosts, placement.HostReport{UUID: alone, Name: "alone", Inventory: stock(8, 2048), Traits: []string{"COMPUTE_NODE"}})
	for round := range 2 { // the second finds nothing to do
		for i, err := range s.Register(ctx, hosts) {
			if err != nil {
				t.Fatalf("round %d, %s: %v", round, hosts[i].Name, err)
			}
		}
		if err := audit(ctx, s); err != nil {
			t.Fatal(err)
		}
		for _, at := range []*Service{s, other} {
			list, err := at.List(ctx, placement.Filter{})
			if err != nil || len(list) != len(hosts) {
				t.Fatalf("%d of %d providers: %v", len(list), len(hosts), err)
			}
			if err := audit(ctx, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	one := reportOf("single", 5, "COMPUTE_NODE", "CUSTOM_KIND")
	if _, err := s.EnsureProvider(ctx, one.UUID, one.Name); err != nil {
		t.Fatal(err)
	}
	if err := s.Report(ctx, one.UUID, one.Inventory, one.Traits, one.Managed); err != nil {
		t.Fatal(err)
	}
	want, err := s.Provider(ctx, one.UUID)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Provider(ctx, hosts[1].UUID)
	if err != nil {
		t.Fatal(err)
	}
	want.UUID, want.Root, want.Name, want.UpdatedAt = got.UUID, got.UUID, got.Name, got.UpdatedAt
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
	// Claims of one of them, and another one's coming back after it was deleted.
	if err := s.Claim(ctx, who(id.UUID(), 0), take(hosts[0].UUID, 4, 64)); err != nil {
		t.Fatal(err)
	}
	if err := s.Claim(ctx, who(id.UUID(), 0), take(hosts[0].UUID, 1, 64)); fault.KindOf(err) != fault.Conflict {
		t.Fatalf("more than there is: %v", err)
	}
	if err := s.DeleteProvider(ctx, hosts[5].UUID); err != nil {
		t.Fatal(err)
	}
	if _, err := other.List(ctx, placement.Filter{}); err != nil {
		t.Fatal(err)
	}
	for i, err := range s.Register(ctx, hosts) {
		if err != nil {
			t.Fatalf("%s: %v", hosts[i].Name, err)
		}
	}
	for _, at := range []*Service{s, other} {
		if list, err := at.List(ctx, placement.Filter{UUID: hosts[5].UUID}); err != nil || len(list) != 1 {
			t.Fatalf("%v %v", list, err)
		}
		if err := audit(ctx, at); err != nil {
			t.Fatal(err)
		}
	}
}

// What is wrong with one host concerns no other.
func TestRegisterJudgesEachHost(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	addHost(t, s, "taken", stock(2, 2048))
	unknown := reportOf("unknown trait", 4, "NO_SUCH_TRAIT")
	class := reportOf("unknown class", 4)
	class.Inventory["NO_SUCH_CLASS"] = placement.Inventory{Total: 1}
	hosts := []placement.HostReport{reportOf("a", 4, "COMPUTE_NODE"), reportOf("taken", 4), unknown, class, reportOf("b", 4, "COMPUTE_NODE")}
	errs := s.Register(ctx, hosts)
	for i, want := range []fault.Kind{0, fault.Conflict, fault.Invalid, fault.Invalid, 0} {
		if want == 0 && errs[i] != nil || want != 0 && fault.KindOf(errs[i]) != want {
			t.Errorf("%s: %v", hosts[i].Name, errs[i])
		}
	}
	for _, name := range []string{"a", "b"} {
		if list, err := s.List(ctx, placement.Filter{Name: name, Required: [][]string{{"COMPUTE_NODE"}}}); err != nil || len(list) != 1 {
			t.Errorf("%s: %v %v", name, list, err)
		}
	}
	if err := audit(ctx, s); err != nil {
		t.Fatal(err)
	}
}

// Rest costs no answer.
func TestCandidatesAfterARest(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	addHost(t, s, "a", stock(4, 4096))
	q := placement.Query{Groups: []placement.Group{{Resources: placement.Resources{"VCPU": 1, "MEMORY_MB": 64}}}}
	before, err := s.Candidates(ctx, q)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Rest(ctx); err != nil {
		t.Fatal(err)
	}
	after, err := s.Candidates(ctx, q)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, after); d != "" {
		t.Fatal(d)
	}
}
