package placement

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestNames(t *testing.T) {
	for name, want := range map[string][2]bool{ // a name, a custom one
		"VCPU": {true, false}, "CUSTOM_GOLD": {true, true}, "CUSTOM_": {true, false}, "custom_gold": {false, false}, "A B": {false, false}, "": {false, false},
		"CUSTOM_" + strings.Repeat("A", 248): {true, true}, "CUSTOM_" + strings.Repeat("A", 249): {false, false},
	} {
		if got := [2]bool{IsName(name), IsCustom(name)}; got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
	for in, want := range map[string]string{"baremetal-gold.v2": "CUSTOM_BAREMETAL_GOLD_V2", "CUSTOM_X": "CUSTOM_X", "PMEM_NAMESPACE_6GB": "CUSTOM_PMEM_NAMESPACE_6GB"} {
		if got := CustomName(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
	for s, want := range map[string]bool{"1": true, "_NET-1": true, "": false, "a b": false, strings.Repeat("x", 64): true, strings.Repeat("x", 65): false} {
		if IsSuffix(s) != want {
			t.Errorf("suffix %q: %v", s, !want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		if n := CustomName(rapid.StringN(1, 300, 600).Draw(t, "text")); !IsCustom(n) {
			t.Fatalf("%q is no custom name", n)
		}
	})
}

func TestStandardNames(t *testing.T) {
	traits, classes := StandardTraits(), StandardClasses()
	if !slices.IsSorted(traits) || len(slices.Compact(slices.Clone(traits))) != len(traits) {
		t.Error("the traits are not in order, or one stands twice")
	}
	for _, n := range append(slices.Clone(traits), classes...) {
		if !IsName(n) || IsCustom(n) {
			t.Errorf("%s is no standard name", n)
		}
	}
	for _, n := range []string{SharesViaAggregate, "COMPUTE_STATUS_DISABLED", "COMPUTE_NODE", "OWNER_NOVA", "HW_CPU_HYPERTHREADING", "HW_CPU_X86_AMD_SEV"} {
		if !slices.Contains(traits, n) {
			t.Errorf("%s is missing", n)
		}
	}
	if len(traits) != 377 || len(classes) != 21 {
		t.Errorf("%d traits and %d classes", len(traits), len(classes))
	}
}

func TestReported(t *testing.T) {
	got := Reported([]string{"B", "A"}, []string{"A", "C_1", "C_2", "D", "E", "E_1"}, []string{"C_*", "D", "E"})
	if want := []string{"A", "B", "E_1"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := Reported(nil, []string{"A", "B*"}, []string{"B*"}); !slices.Equal(got, []string{"A"}) {
		t.Errorf("a managed prefix leaves %v", got)
	}
}

func TestInventory(t *testing.T) {
	i := Inventory{Total: 10, Reserved: 1, AllocationRatio: 1.5, MinUnit: 2, MaxUnit: 8, StepSize: 2}
	if c := i.Capacity(); c != 13 {
		t.Fatalf("capacity %d, want 13", c)
	}
	if c := (Inventory{Total: MaxInt, AllocationRatio: 3.4e38}).Capacity(); c != 1<<62 {
		t.Fatalf("the greatest capacity is %d", c)
	}
	for _, c := range []struct {
		n, used int64
		want    bool
	}{{2, 0, true}, {1, 0, false}, {3, 0, false}, {8, 0, true}, {10, 0, false}, {8, 5, true}, {8, 6, false}} {
		if i.Fits(c.n, c.used) != c.want {
			t.Errorf("%d beside %d: %v", c.n, c.used, !c.want)
		}
	}
	have := map[string]Inventory{"A": {Total: 9, AllocationRatio: 7}, "B": {Total: 9, AllocationRatio: 7}}
	got := Settled(map[string]Inventory{"A": {Total: 1, AllocationRatio: 2, KeepRatio: true}, "B": {Total: 1, AllocationRatio: 2}, "C": {Total: 1, AllocationRatio: 2, KeepRatio: true}}, have)
	for class, ratio := range map[string]float64{"A": 7, "B": 2, "C": 2} {
		if want := (Inventory{Total: 1, MinUnit: 1, MaxUnit: MaxInt, StepSize: 1, AllocationRatio: ratio}); got[class] != want {
			t.Errorf("%s settles as %+v, want %+v", class, got[class], want)
		}
	}
	if d := (Inventory{Total: 5}).WithDefaults(); d != (Inventory{Total: 5, MinUnit: 1, MaxUnit: MaxInt, StepSize: 1, AllocationRatio: 1}) {
		t.Errorf("defaults: %+v", d)
	}
}
