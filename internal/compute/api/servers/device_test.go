package servers_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute"
	"kilonova/internal/id"
	"kilonova/internal/network"
)

// TestPortsThatAreDevices: requests with such ports carry what these ask of the host, and those that no host can answer are refused when a server is there already.
func TestPortsThatAreDevices(t *testing.T) {
	w := newWorld(t)
	on := network.Network{ID: id.UUID(), Name: "flat", ProviderPhysical: "phys", Subnets: []network.Subnet{{CIDR: "10.8.0.0/24"}}}
	w.net.nets = append(w.net.nets, on)
	port := func(kind, policy string, profile map[string]any) string {
		p := &network.Port{ID: id.UUID(), NetworkID: on.ID, VNICType: kind, NUMAPolicy: policy, Profile: profile, Status: "DOWN"}
		w.net.ports[p.ID] = p
		return p.ID
	}
	direct, plain := port("direct", "required", map[string]any{"trusted": "true"}), port("normal", "", nil)
	want := compute.NICRequest{NetworkID: on.ID, PortID: direct, VNICType: "direct",
		Device: &compute.PortDevice{PortID: direct, VNICType: "direct", PhysicalNetwork: "phys", Trusted: true, NUMAPolicy: "required"}}
	w.create("member", create(`"networks":[{"port":"`+direct+`"},{"port":"`+plain+`"}]`), 37)
	if d := cmp.Diff([]compute.NICRequest{want, {NetworkID: on.ID, PortID: plain}}, w.last().Input.(compute.CreateInput).NICs); d != "" {
		t.Error(d)
	}
	s := w.boot()
	path := "/servers/" + s.ID + "/os-interface"
	for _, kind := range []string{"vdpa", "remote-managed", "virtio-forwarder", "accelerator-direct"} {
		got := w.refused("member", "POST", path, `{"interfaceAttachment":{"port_id":"`+port(kind, "", nil)+`"}}`, 1, 400)
		if !strings.Contains(got, "Failed to claim PCI device for "+s.ID+" during interface attach") {
			t.Errorf("%s: %s", kind, got)
		}
	}
	w.call("member", "POST", path, `{"interfaceAttachment":{"port_id":"`+direct+`"}}`, 1, 200)
	if d := cmp.Diff(compute.NICInput{NICRequest: want}, w.last().Input); d != "" {
		t.Error(d)
	}
}
