package command_test

import (
	"encoding/json"
	"errors"
	"fmt"
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

// That the database was away is told with what failed for it, whatever the failure was made into.
func TestAFailureSaysThatTheDatabaseWasAway(t *testing.T) {
	away := fault.Wrap(fmt.Errorf("commit: %w", fault.ErrAway), fault.Unavailable, "The database cannot be reached.")
	for _, c := range []struct {
		name string
		err  error
		want bool
		kind fault.Kind
	}{
		{"as it is", away, true, fault.Unavailable},
		{"wrapped", fault.Wrap(away, fault.Internal, "The image could not be stored."), true, fault.Internal},
		{"another", fault.New(fault.Unavailable, "The host is busy."), false, fault.Unavailable},
	} {
		raw, err := json.Marshal(command.FailureOf(c.err))
		if err != nil {
			t.Fatal(err)
		}
		var f command.Failure
		if err := json.Unmarshal(raw, &f); err != nil {
			t.Fatal(err)
		}
		if err := f.Error(); fault.IsAway(err) != c.want || fault.KindOf(err) != c.kind || fault.PublicText(err) != fault.PublicText(c.err) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
