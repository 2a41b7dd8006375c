package libvirt_test

import (
	"strings"
	"testing"

	"kilonova/internal/compute"
	"kilonova/internal/compute/virt/libvirt/daemon"
	"kilonova/internal/compute/virt/libvirt/rpc"
	"kilonova/internal/network"
)

// TestDevicePortsAreDefined: libvirt takes the definition of a guest with PCI devices and with ports that are such, keeps all of it, and lets go of a port again.
func TestDevicePortsAreDefined(t *testing.T) {
	t.Parallel()
	h := startHost(t, daemon.Config{})
	d, c := h.open(t), h.client(t)
	s := spec(h.image(t))
	const direct, whole = "11111111-0000-4000-8000-000000000001", "11111111-0000-4000-8000-000000000003"
	s.Stopped = true
	s.VIFs = []network.VIF{{PortID: direct, VNICType: "direct", MAC: "fa:16:3e:00:00:01", VLAN: 7}, {PortID: whole, VNICType: "direct-physical", MAC: "fa:16:3e:00:00:03"}}
	s.Claim = &compute.Claim{Devices: []string{"0000:3b:00.0"}, Ports: map[string]string{direct: "0000:0a:10.0", whole: "0000:0b:00.0"}}
	if err := d.Spawn(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	look := func() string {
		t.Helper()
		text, err := c.XML(t.Context(), domainOf(t, c, s.ID), rpc.XMLInactive)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(text), " ")
	}
	text := look()
	for _, want := range []string{
		`<interface type='hostdev' managed='yes'> <mac address='fa:16:3e:00:00:01'/> <source> <address type='pci' domain='0x0000' bus='0x0a' slot='0x10' function='0x0'/> </source> <vlan> <tag id='7'/> </vlan> <alias name='ua-` + direct + `'/>`,
		`<hostdev mode='subsystem' type='pci' managed='yes'> <source> <address domain='0x0000' bus='0x3b' slot='0x00' function='0x0'/> </source>`,
		`<address domain='0x0000' bus='0x0b' slot='0x00' function='0x0'/> </source> <alias name='ua-` + whole + `'/>`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the definition lacks %s:\n%s", want, text)
		}
	}
	for _, v := range s.VIFs {
		for range 2 {
			if err := d.DetachInterface(t.Context(), s, v); err != nil {
				t.Errorf("detach %s: %v", v.VNICType, err)
			}
		}
	}
	if text := look(); strings.Contains(text, direct) || strings.Contains(text, whole) || !strings.Contains(text, "0x3b") {
		t.Errorf("after the ports were detached:\n%s", text)
	}
	for _, v := range s.VIFs {
		for range 2 {
			if err := d.AttachInterface(t.Context(), s, v); err != nil {
				t.Errorf("attach %s: %v", v.VNICType, err)
			}
		}
	}
	if now := look(); strings.Count(now, "ua-") != strings.Count(text, "ua-") {
		t.Errorf("before:\n%s\nafter the ports were attached again:\n%s", text, now)
	}
}
