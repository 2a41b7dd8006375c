package command_test

import (
	"errors"
	"testing"

	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/virt"
	"kilonova/internal/fault"
)

// What is added to one host's report is in no other's of its kind.
func TestReportsOfAKindAreApart(t *testing.T) {
	devices := make([]compute.HostDevice, 1, 8)
	devices[0].Address = "0000:81:00.0"
	r := command.HostReports{Start: "s", Kinds: []command.HostKind{{Info: virt.HostInfo{VCPUs: 4, PCI: devices}, Traits: []string{"A"}}},
		Hosts: []command.KindReport{{Host: "a", NodeID: "1", Kind: 1}, {Host: "b", NodeID: "2", Kind: 1, Hostname: "b.example"}, {Host: "c", NodeID: "3", Trouble: "why"}}}
	all, err := r.Each()
	if err != nil {
		t.Fatal(err)
	}
	if all[0].Info.Hostname != "a" || all[1].Info.Hostname != "b.example" || all[2].Info != nil || all[2].Trouble != "why" || all[2].Start != "s" || all[1].NodeID != "2" {
		t.Fatalf("%+v", all)
	}
	all[0].Info.PCI = append(all[0].Info.PCI, compute.HostDevice{Address: "first"})
	all[1].Info.PCI = append(all[1].Info.PCI, compute.HostDevice{Address: "second"})
	if got := all[0].Info.PCI[1].Address; got != "first" || all[1].Info.VCPUs != 4 {
		t.Fatalf("the first host's device is %q", got)
	}
	for _, kind := range []int{-1, 2} {
		r.Hosts[0].Kind = kind
		if _, err := r.Each(); !errors.Is(err, fault.Invalid) {
			t.Errorf("kind %d: %v", kind, err)
		}
	}
}
