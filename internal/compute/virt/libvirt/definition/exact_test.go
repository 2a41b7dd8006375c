package definition

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute"
)

func TestSettle(t *testing.T) {
	x := &Domain{}
	x.Settle(&compute.Claim{
		Cells: []compute.ClaimedCell{
			{Node: 1, CPUs: []int{0, 1}, MemoryMB: 256, PageKB: 2048, Large: true, Pins: map[int]int{0: 6}, Float: []int{2, 3}},
			{Node: 0, CPUs: []int{2}, MemoryMB: 128, PageKB: 4, Pins: map[int]int{2: 9}},
		},
		Emulator: []int{7},
		Devices:  []string{"0000:0a:1f.3"},
	}, &Options{Realtime: []int{2}, Locked: true})
	text, err := Encode(x)
	if err != nil {
		t.Fatal(err)
	}
	flat := strings.Join(strings.Fields(text), " ")
	for _, want := range []string{
		`<cell id="0" cpus="0,1" memory="256" unit="MiB"></cell> <cell id="1" cpus="2" memory="128" unit="MiB"></cell>`,
		`<vcpupin vcpu="0" cpuset="6"></vcpupin> <vcpupin vcpu="1" cpuset="2,3"></vcpupin> <vcpupin vcpu="2" cpuset="9"></vcpupin>`,
		`<emulatorpin cpuset="7"></emulatorpin>`,
		`<vcpusched vcpus="2" scheduler="fifo" priority="1"></vcpusched>`,
		`<memory mode="strict" nodeset="0,1"></memory> <memnode cellid="0" mode="strict" nodeset="1"></memnode> <memnode cellid="1" mode="strict" nodeset="0"></memnode>`,
		`<hugepages> <page size="2048" unit="KiB" nodeset="0"></page> </hugepages> <nosharepages></nosharepages> <locked></locked>`,
		`<hostdev mode="subsystem" type="pci" managed="yes"> <source> <address domain="0x0000" bus="0x0a" slot="0x1f" function="0x3"></address> </source> </hostdev>`,
	} {
		if !strings.Contains(flat, want) {
			t.Errorf("the definition lacks %s:\n%s", want, text)
		}
	}
	// Without CPUs of its own, the hypervisor's threads stay where the guest's are.
	x = &Domain{}
	x.Settle(&compute.Claim{Cells: []compute.ClaimedCell{{CPUs: []int{0}, Pins: map[int]int{0: 5}, Float: []int{1}}}}, &Options{})
	if x.CPUTune.Emulator.CPUSet != "1,5" || x.Backing != nil {
		t.Errorf("%+v", x.CPUTune)
	}
	// Devices alone place nothing.
	x = &Domain{}
	x.Settle(&compute.Claim{Devices: []string{"0000:00:02.0"}}, &Options{})
	if x.NUMATune != nil || x.CPU != nil || len(x.Devices.HostDevs) != 1 {
		t.Errorf("%+v", x)
	}
}

// A guest that is pinned to whole cores sees their threads.
func TestThreadsOfCores(t *testing.T) {
	pins := map[int]int{0: 2, 1: 6, 2: 3, 3: 7}
	for _, c := range []struct {
		name     string
		siblings [][]int
		asked    *Topology
		want     *Topology
	}{
		{"pairs", [][]int{{0, 1}, {2, 3}}, nil, &Topology{Sockets: 2, Cores: 1, Threads: 2}},
		{"what is asked for wins", [][]int{{0, 1}, {2, 3}}, &Topology{Sockets: 4, Cores: 1, Threads: 1}, nil},
		{"crossed", [][]int{{0, 2}, {1, 3}}, nil, nil},
		{"some", [][]int{{0, 1}}, nil, nil},
		{"uneven", [][]int{{0, 1, 2}, {3}}, nil, nil},
		{"none", nil, nil, nil},
	} {
		x := &Domain{}
		x.Settle(&compute.Claim{Cells: []compute.ClaimedCell{{CPUs: []int{0, 1, 2, 3}, Pins: pins, Siblings: c.siblings}}}, &Options{Topology: c.asked})
		if d := cmp.Diff(c.want, x.CPU.Topology); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}
