package conductor

import (
	"slices"
	"strings"
	"testing"

	"kilonova/internal/compute/virt"
	"kilonova/internal/fault"
	"kilonova/internal/placement"
)

// A small host that emulates can run the classic flavors; one with hardware CPUs gives a server no more of them than it has.
func TestCPUsOfOneServer(t *testing.T) {
	for virtType, want := range map[string]int64{"qemu": 8, "kvm": 2, "": 2} {
		got := inventoryOf(&virt.HostInfo{VCPUs: 2, MemoryMB: 4096, DiskGB: 10, Stats: map[string]string{"virt_type": virtType}})
		if got["VCPU"].MaxUnit != want || got["VCPU"].Total != 2 || got["MEMORY_MB"].MaxUnit != 4096 {
			t.Errorf("%q: %+v", virtType, got)
		}
	}
}

// What an operator's file may not add, and which of several entries counts.
func TestExtend(t *testing.T) {
	const node = "11111111-1111-4111-8111-11111111111a"
	entry := func(file, uuid, name string) virt.ProviderConfig {
		return virt.ProviderConfig{File: file, UUID: uuid, Name: name, Inventory: map[string]virt.ProviderInventory{"CUSTOM_A": {Total: 1}}, Traits: []string{"CUSTOM_" + file}}
	}
	every, byID, byName, other := entry("EVERY", virt.EveryNode, ""), entry("ID", strings.ToUpper(node), ""), entry("NAME", "", "n1"), entry("OTHER", "", "n2")
	for _, c := range []struct {
		name    string
		configs []virt.ProviderConfig
		node    bool
		have    string // a class that the host reports
		want    []string
		err     string
	}{
		{"none", nil, true, "VCPU", []string{"HW_A"}, ""},
		{"another's", []virt.ProviderConfig{other}, true, "VCPU", []string{"HW_A"}, ""},
		{"every node", []virt.ProviderConfig{every, other}, true, "VCPU", []string{"HW_A", "CUSTOM_EVERY"}, ""},
		{"no node", []virt.ProviderConfig{every}, false, "VCPU", []string{"HW_A"}, ""},
		{"by uuid", []virt.ProviderConfig{every, byID}, true, "VCPU", []string{"HW_A", "CUSTOM_ID"}, ""},
		{"by name", []virt.ProviderConfig{byName, every}, true, "VCPU", []string{"HW_A", "CUSTOM_NAME"}, ""},
		{"by both", []virt.ProviderConfig{byName, byID}, true, "VCPU", nil, "NAME and ID name the same provider, once as n1 and once as " + strings.ToUpper(node)},
		{"what the host has", []virt.ProviderConfig{byName}, true, "CUSTOM_A", nil, "NAME adds the inventory CUSTOM_A to n1"},
	} {
		inv := map[string]placement.Inventory{c.have: {Total: 7}}
		got, err := extend(c.configs, node, "n1", c.node, inv, []string{"HW_A"})
		if c.err != "" {
			if fault.KindOf(err) != fault.Invalid || !strings.Contains(fault.PublicText(err), c.err) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if added := len(got) > 1; err != nil || !slices.Equal(got, c.want) || inv["VCPU"].Total != 7 || (inv["CUSTOM_A"].Total == 1) != added {
			t.Errorf("%s: %v, %v, %v", c.name, got, inv, err)
		}
	}
	info := &virt.HostInfo{Hostname: "n1", Providers: []virt.ProviderConfig{every, byID, byName, other}}
	if got := absent(info, node, nil); !slices.Equal(got, []string{"n2"}) {
		t.Errorf("absent: %v", got)
	}
	if got := absent(info, node, []string{"u", "n2"}); len(got) != 0 {
		t.Errorf("absent, with children: %v", got)
	}
}
