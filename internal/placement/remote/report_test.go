package remote_test

import (
	"slices"
	"testing"

	"kilonova/internal/placement"
)

// A ratio that a report leaves open stays as it is, one of a new class begins with the report's; managed names may stand for all that begin so.
func TestReportsThatLeaveThingsOpen(t *testing.T) {
	each(t, func(t *testing.T, s placement.Service) {
		uuid := host(t, s, "open")
		report := func(ratio float64, keep bool, traits, managed []string) placement.Provider {
			t.Helper()
			inv := stock()
			inv["VCPU"] = placement.Inventory{Total: 8, AllocationRatio: ratio, KeepRatio: keep}
			inv["DISK_GB"] = placement.Inventory{Total: 10, AllocationRatio: ratio, KeepRatio: keep}
			if err := s.Report(t.Context(), uuid, inv, traits, managed); err != nil {
				t.Fatal(err)
			}
			list, err := s.Providers(t.Context(), uuid)
			if err != nil || len(list) != 1 {
				t.Fatalf("%v, %v", list, err)
			}
			return list[0]
		}
		ratios := func(p placement.Provider) [2]float64 {
			return [2]float64{p.Inventory["VCPU"].AllocationRatio, p.Inventory["DISK_GB"].AllocationRatio}
		}
		if p := report(5, true, []string{"CUSTOM_A_1", "CUSTOM_A_2", "CUSTOM_B"}, nil); ratios(p) != [2]float64{2, 5} {
			t.Errorf("a class that was there, and a new one: %v", ratios(p))
		}
		if p := report(3, false, nil, nil); ratios(p) != [2]float64{3, 3} {
			t.Errorf("ratios that are set: %v", ratios(p))
		}
		before := report(7, true, []string{"CUSTOM_A_2"}, []string{"CUSTOM_A_*"})
		if ratios(before) != [2]float64{3, 3} || slices.Contains(before.Traits, "CUSTOM_A_1") || !slices.Contains(before.Traits, "CUSTOM_A_2") || !slices.Contains(before.Traits, "CUSTOM_B") {
			t.Errorf("left open: %v, traits %v", ratios(before), before.Traits)
		}
		if after := report(9, true, []string{"CUSTOM_A_2"}, []string{"CUSTOM_A_*"}); after.Generation != before.Generation {
			t.Errorf("a report without news grew the generation from %d to %d", before.Generation, after.Generation)
		}
	})
}
