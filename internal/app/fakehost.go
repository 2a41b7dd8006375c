package app

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/config"
)

// fakeHost reads what hosts of the fake driver play.
func fakeHost(cfg *config.Config) (fake.Config, error) {
	c := &cfg.Compute
	out := fake.Config{VCPUs: c.FakeVCPUs, MemoryMB: c.FakeMemoryMB, DiskGB: c.FakeDiskGB, Hardware: fake.Hardware{Nodes: c.FakeNUMANodes, Threads: c.FakeThreads, Pages: map[int64]int64{}}}
	var err error
	if out.Dedicated, err = compute.ParseCPUs(c.DedicatedCPUs); err != nil {
		return out, fmt.Errorf("[compute] cpu_dedicated_set: %w", err)
	}
	if out.Shared, err = compute.ParseCPUs(c.SharedCPUs); err != nil {
		return out, fmt.Errorf("[compute] cpu_shared_set: %w", err)
	}
	if len(out.Dedicated) > 0 && out.Nodes == 0 {
		out.Nodes = 1 // pinning needs a topology
	}
	for _, p := range c.FakePages {
		size, number, _ := strings.Cut(p, ":")
		kb, e1 := strconv.ParseInt(size, 10, 64)
		n, e2 := strconv.ParseInt(number, 10, 64)
		if e1 != nil || e2 != nil || kb <= 4 || n < 0 {
			return out, fmt.Errorf("[compute] fake_huge_pages: %q is not KIBIBYTES:NUMBER", p)
		}
		out.Pages[kb] = n
	}
	types, err := compute.ParseMediatedTypes(cfg.Devices.MDEVTypes)
	if err != nil {
		return out, err
	}
	for _, t := range types {
		if len(t.Addresses) == 0 {
			t.Addresses = []string{"0000:84:00.0"}
		}
		for _, a := range t.Addresses {
			out.Mediated = append(out.Mediated, compute.HostMediated{Address: a, Type: t.Name, Class: t.Class, Total: cmp.Or(t.Max, 16)})
		}
	}
	text := strings.TrimSpace(c.FakeDevices)
	if text == "" {
		return out, nil
	}
	if strings.HasPrefix(text, "{") {
		text = "[" + text + "]"
	}
	var list []struct {
		compute.HostDevice
		Count int `json:"count"`
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return out, fmt.Errorf("[compute] fake_pci_devices: %w", err)
	}
	for _, d := range list {
		for range max(d.Count, 1) {
			d.VendorID, d.ProductID = strings.ToLower(d.VendorID), strings.ToLower(d.ProductID)
			out.Devices = append(out.Devices, d.HostDevice)
		}
	}
	return out, nil
}
