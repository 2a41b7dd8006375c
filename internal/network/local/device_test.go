package local_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/auth"
	"kilonova/internal/network"
	"kilonova/internal/network/local"
)

// TestPortsThatAreDevices: how ports of each type are bound on a flat network and on one that lies on no physical network.
func TestPortsThatAreDevices(t *testing.T) {
	s, _ := open(t)
	ours := auth.Internal("")
	networks := map[string]string{}
	for name, physical := range map[string]string{"flat": "phys", "vxlan": ""} {
		n := &network.Network{Name: name, ProjectID: "p1", AdminStateUp: true, ProviderType: name, ProviderPhysical: physical}
		if err := s.Do(t.Context(), func(c *local.Change) error { return c.CreateNetwork(n) }); err != nil {
			t.Fatal(err)
		}
		networks[name] = n.ID
	}
	tag := 7
	tagged := &network.Network{Name: "vlan", ProjectID: "p1", AdminStateUp: true, ProviderType: "vlan", ProviderPhysical: "phys", SegmentationID: &tag}
	if err := s.Do(t.Context(), func(c *local.Change) error { return c.CreateNetwork(tagged) }); err != nil {
		t.Fatal(err)
	}
	networks["vlan"] = tagged.ID
	device := network.DeviceBinding{Slot: "0000:0a:10.1", Vendor: "8086:10ed", PhysicalNetwork: "phys"}
	for _, c := range []struct{ kind, on, want string }{
		{"direct", "flat", "hw_veb"}, {"macvtap", "flat", "hw_veb"}, {"direct-physical", "flat", "hostdev_physical"}, {"direct", "vxlan", "binding_failed"},
		{"direct", "vlan", "hw_veb"},
		{"normal", "flat", "bridge"}, {"vdpa", "flat", "binding_failed"}, {"baremetal", "flat", "binding_failed"},
	} {
		var p *network.Port
		err := s.Do(t.Context(), func(ch *local.Change) (err error) {
			p, err = ch.CreatePort(&local.PortInput{Port: network.Port{ProjectID: "p1", NetworkID: networks[c.on], VNICType: c.kind, AdminStateUp: true, Profile: map[string]any{"trusted": "true"}}})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		d, mac := device, p.MAC
		if c.kind == "direct-physical" {
			d.MAC = "3c:fd:fe:00:00:01"
		}
		got, err := s.BindDevice(t.Context(), ours, p.ID, "srv", "compute:nova", "h1", d)
		if err != nil || got.VIFType != c.want {
			t.Errorf("%s on %s: %+v %v", c.kind, c.on, got, err)
			continue
		}
		vifs, err := s.VIFs(t.Context(), p.ID)
		if err != nil || len(vifs) != 1 || vifs[0].Type != c.want || network.IsDevice(c.kind) != (vifs[0].Bridge == "") || c.kind != "normal" && (vifs[0].VNICType != c.kind || !vifs[0].Trusted) {
			t.Errorf("%s on %s: %+v %v", c.kind, c.on, vifs, err)
		}
		if want := map[string]int{"vlan": 7}[c.on]; vifs[0].VLAN != want {
			t.Errorf("%s on %s: VLAN %d", c.kind, c.on, vifs[0].VLAN)
		}
		if c.want == "binding_failed" || c.kind == "normal" {
			continue
		}
		want := map[string]any{"trusted": "true", "pci_slot": "0000:0a:10.1", "pci_vendor_info": "8086:10ed", "physical_network": "phys"}
		if d.MAC != "" {
			want["device_mac_address"] = d.MAC
		}
		if diff := cmp.Diff(want, got.Profile); diff != "" || got.Status != "ACTIVE" || d.MAC != "" && got.MAC != d.MAC {
			t.Errorf("%s: %s %+v", c.kind, diff, got)
		}
		if st, err := s.Host(t.Context(), "h1"); err != nil || len(st.Ports) != 0 {
			t.Errorf("%s: the data plane is to wire %+v, %v", c.kind, st, err)
		}
		got, err = s.BindPort(t.Context(), ours, p.ID, "", "", "")
		if diff := cmp.Diff(map[string]any{"trusted": "true"}, got.Profile); err != nil || diff != "" || got.VIFType != "unbound" || got.Status != "DOWN" {
			t.Errorf("%s unbound: %s %+v %v", c.kind, diff, got, err)
		}
		if c.kind != "direct-physical" && got.MAC != mac || got.MAC == d.MAC {
			t.Errorf("%s: its MAC was %s and is %s", c.kind, mac, got.MAC)
		}
	}
}
