package libvirt

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kilonova/internal/compute"
	"kilonova/internal/compute/virt/libvirt/definition"
	"kilonova/internal/compute/virt/libvirt/host"
	"kilonova/internal/fault"
	"kilonova/internal/network"
)

// card makes a directory like /sys with a network card eth7 of two virtual functions; the second has the interface eth9.
func card(t *testing.T) string {
	t.Helper()
	sys := t.TempDir()
	dir := filepath.Join(sys, "bus/pci/devices")
	for _, p := range []string{"0000:0a:00.0/net/eth7", "0000:0a:10.0", "0000:0a:10.1/net/eth9"} {
		if err := os.MkdirAll(filepath.Join(dir, p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"0000:0a:00.0/virtfn0": "../0000:0a:10.0", "0000:0a:00.0/virtfn1": "../0000:0a:10.1", "0000:0a:10.0/physfn": "../0000:0a:00.0", "0000:0a:10.1/physfn": "../0000:0a:00.0"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	return sys
}

const (
	direct = "11111111-0000-4000-8000-000000000001"
	tap    = "11111111-0000-4000-8000-000000000002"
	whole  = "11111111-0000-4000-8000-000000000003"
)

func TestPortsThatAreDevices(t *testing.T) {
	d := offline(t)
	d.c.Sys = card(t)
	spec := small()
	spec.Claim = &compute.Claim{Devices: []string{"0000:3b:00.0"}, Ports: map[string]string{direct: "0000:0a:10.0", tap: "0000:0a:10.1", whole: "0000:0b:00.0"}, Unmanaged: []string{"0000:0b:00.0"}}
	spec.VIFs = []network.VIF{{PortID: direct, VNICType: "direct", MAC: "fa:16:3e:00:00:01", VLAN: 7}, {PortID: tap, VNICType: "macvtap", MAC: "fa:16:3e:00:00:02"},
		{PortID: whole, VNICType: "direct-physical", MAC: "fa:16:3e:00:00:03"}, {PortID: "p4", MAC: "fa:16:3e:00:00:04", Bridge: "kbr1", Tap: "tap1"}}
	x, err := d.build(spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := definition.Encode(x)
	if err != nil {
		t.Fatal(err)
	}
	flat := strings.Join(strings.Fields(text), " ")
	for _, want := range []string{
		`<interface type="hostdev" managed="yes"> <mac address="fa:16:3e:00:00:01"></mac> <source> <address type="pci" domain="0x0000" bus="0x0a" slot="0x10" function="0x0"></address> </source> <vlan> <tag id="7"></tag> </vlan> <alias name="ua-` + direct + `"></alias> </interface>`,
		`<interface type="direct"> <mac address="fa:16:3e:00:00:02"></mac> <source dev="eth9" mode="passthrough"></source> <model type="virtio"></model> <alias name="ua-` + tap + `"></alias> </interface>`,
		`<hostdev mode="subsystem" type="pci" managed="yes"> <source> <address domain="0x0000" bus="0x3b" slot="0x00" function="0x0"></address> </source> </hostdev>`,
		`<hostdev mode="subsystem" type="pci" managed="no"> <source> <address domain="0x0000" bus="0x0b" slot="0x00" function="0x0"></address> </source> <alias name="ua-` + whole + `"></alias> </hostdev>`,
		`<source bridge="kbr1"></source>`,
	} {
		if !strings.Contains(flat, want) {
			t.Errorf("the definition lacks %s:\n%s", want, text)
		}
	}
	for _, v := range spec.VIFs[:3] {
		alone, err := d.portXML(spec, v, &definition.Options{})
		if err != nil || interfaceRef(v).find(x) != alone {
			t.Errorf("%s is found as\n%s\nand plugged as\n%s %v", v.VNICType, interfaceRef(v).find(x), alone, err)
		}
	}
	spec.Claim.Ports = map[string]string{}
	if _, err := d.build(spec, nil); !errors.Is(err, fault.Conflict) {
		t.Errorf("a port without a device: %v", err)
	}
	spec.Claim.Ports = map[string]string{tap: "0000:0a:10.0"}
	if _, err := d.portXML(spec, spec.VIFs[1], &definition.Options{}); !errors.Is(err, fault.Conflict) {
		t.Errorf("macvtap over a function without an interface: %v", err)
	}
}

func TestFunctions(t *testing.T) {
	sys := os.DirFS(card(t))
	for address, want := range map[string]int{"0000:0a:10.0": 0, "0000:0a:10.1": 1} {
		if on, n, err := host.FunctionOf(sys, address); err != nil || on != "eth7" || n != want {
			t.Errorf("%s: function %d of %s, %v", address, n, on, err)
		}
	}
	if _, _, err := host.FunctionOf(sys, "0000:0a:00.0"); err == nil {
		t.Error("a card is taken for a function")
	}
}
