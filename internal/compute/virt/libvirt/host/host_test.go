package host_test

import (
	"encoding/xml"
	"io/fs"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute"
	"kilonova/internal/compute/virt/libvirt/host"
)

// Two sockets of two cores with two threads.
const capabilities = `<capabilities><host><uuid>x</uuid><cpu><arch>x86_64</arch></cpu><topology><cells num='2'>
<cell id='0'><memory unit='KiB'>4194304</memory><pages unit='KiB' size='4'>1000000</pages><pages unit='KiB' size='2048'>64</pages><pages unit='KiB' size='1048576'>0</pages>
<cpus num='4'><cpu id='0' socket_id='0' core_id='0' siblings='0,4'/><cpu id='1' socket_id='0' core_id='1' siblings='1,5'/><cpu id='4' socket_id='0' core_id='0' siblings='0,4'/><cpu id='5' socket_id='0' core_id='1' siblings='1,5'/></cpus></cell>
<cell id='1'><memory unit='KiB'>2097152</memory><pages unit='KiB' size='4'>500000</pages>
<cpus num='4'><cpu id='2' socket_id='1' core_id='0' siblings='2,6'/><cpu id='3' socket_id='1' core_id='1' siblings='3'/><cpu id='6' socket_id='1' core_id='0' siblings='2,6'/></cpus></cell>
</cells></topology></host></capabilities>`

func parsed(t *testing.T) *host.Capabilities {
	t.Helper()
	var c host.Capabilities
	if err := xml.Unmarshal([]byte(capabilities), &c); err != nil {
		t.Fatal(err)
	}
	return &c
}

func TestCells(t *testing.T) {
	reserved, err := host.ParseReservedPages("node:0,size:2MB,count:16; node:1,size:4,count:100")
	if err != nil {
		t.Fatal(err)
	}
	pages0 := []compute.HostPages{{SizeKB: 4, Total: 1000000}, {SizeKB: 2048, Total: 64, Reserved: 16}}
	pages1 := []compute.HostPages{{SizeKB: 4, Total: 500000, Reserved: 100}}
	threads0, threads1 := [][]int{{0, 4}, {1, 5}}, [][]int{{2, 6}, {3}}
	for _, c := range []struct {
		name              string
		dedicated, shared []int
		want              []compute.HostCell
	}{
		{"neither", nil, nil, []compute.HostCell{{ID: 0, CPUs: []int{0, 1, 4, 5}}, {ID: 1, Socket: 1, CPUs: []int{2, 3, 6}}}},
		{"dedicated only", []int{1, 5, 2}, nil, []compute.HostCell{{ID: 0, PCPUs: []int{1, 5}}, {ID: 1, Socket: 1, PCPUs: []int{2}}}},
		{"shared only", nil, []int{0}, []compute.HostCell{{ID: 0, CPUs: []int{0}}, {ID: 1, Socket: 1}}},
		{"both", []int{2, 3, 6}, []int{0, 4}, []compute.HostCell{{ID: 0, CPUs: []int{0, 4}}, {ID: 1, Socket: 1, PCPUs: []int{2, 3, 6}}}},
	} {
		c.want[0].MemoryMB, c.want[0].Pages, c.want[0].Siblings = 4096, pages0, threads0
		c.want[1].MemoryMB, c.want[1].Pages, c.want[1].Siblings = 2048, pages1, threads1
		if d := cmp.Diff(c.want, host.Cells(parsed(t), c.dedicated, c.shared, reserved)); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
	for _, bad := range []string{"node:0", "node:0,size:big,count:1", "node:0,size:0,count:1", "planet:0,size:1,count:1"} {
		if _, err := host.ParseReservedPages(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestDevices(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s + "\n")} }
	const dir = "bus/pci/devices/"
	sys := fstest.MapFS{
		dir + "0000:0a:00.0/vendor": file("0x8086"), dir + "0000:0a:00.0/device": file("0x10fb"), dir + "0000:0a:00.0/sriov_totalvfs": file("8"),
		dir + "0000:0a:00.0/numa_node": file("1"), dir + "0000:0a:00.0/net/eth1/address": file("aa:bb:cc:00:00:01"),
		dir + "0000:0a:00.0/virtfn0": {Data: []byte("../0000:0a:10.0"), Mode: fs.ModeSymlink},
		dir + "0000:0a:10.0/vendor":  file("0x8086"), dir + "0000:0a:10.0/device": file("0x10ed"), dir + "0000:0a:10.0/numa_node": file("1"),
		dir + "0000:3b:00.0/vendor": file("0x10de"), dir + "0000:3b:00.0/device": file("0x1eb8"), dir + "0000:3b:00.0/numa_node": file("-1"),
	}
	specs, err := compute.ParseDeviceSpecs(`[{"devname":"eth1","physical_network":"p","trusted":"Yes"},{"vendor_id":"8086","product_id":"10ed"},{"vendor_id":"10de","physical_network":null}]`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := host.Devices(sys, specs)
	if err != nil {
		t.Fatal(err)
	}
	want := []compute.HostDevice{
		{Address: "0000:0a:00.0", VendorID: "8086", ProductID: "10fb", Type: compute.PCIPhysical, Node: 1, Tags: map[string]string{"physical_network": "p", "trusted": "true"}, MAC: "aa:bb:cc:00:00:01"},
		{Address: "0000:0a:10.0", VendorID: "8086", ProductID: "10ed", Type: compute.PCIVirtual, Node: 1, Parent: "0000:0a:00.0", Tags: map[string]string{"physical_network": "p", "trusted": "true"}},
		{Address: "0000:3b:00.0", VendorID: "10de", ProductID: "1eb8", Type: compute.PCIWhole, Node: -1, Tags: map[string]string{"physical_network": compute.NoPhysicalNetwork}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, none := range []struct {
		sys   fs.FS
		specs []compute.DeviceSpec
	}{{sys, nil}, {fstest.MapFS{}, specs}} {
		if got, err := host.Devices(none.sys, none.specs); err != nil || got != nil {
			t.Errorf("%v %v", got, err)
		}
	}
}

func TestTraits(t *testing.T) {
	c := parsed(t)
	got := host.Traits(host.Has{Arch: "x86_64", Features: []string{"avx", "svm"}, Caps: c, Domain: &host.DomainCapabilities{}, UEFI: true, SecureBoot: true})
	for _, want := range []string{"HW_CPU_X86_AVX", "HW_CPU_X86_SVM", "HW_CPU_X86_AMD_SVM", "HW_CPU_HYPERTHREADING", "COMPUTE_FIRMWARE_UEFI", "COMPUTE_SECURITY_UEFI_SECURE_BOOT", "HW_ARCH_X86_64"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is missing", want)
		}
	}
	for _, no := range []string{"HW_CPU_X86_AVX2", "COMPUTE_SECURITY_TPM_2_0"} {
		if slices.Contains(got, no) {
			t.Errorf("%s is there", no)
		}
	}
	c.Host.Topology.Cells = c.Host.Topology.Cells[:0]
	if slices.Contains(host.Traits(host.Has{Caps: c, Domain: &host.DomainCapabilities{}}), "HW_CPU_HYPERTHREADING") {
		t.Error("a host without threads advertises them")
	}
}
