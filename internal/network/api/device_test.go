package api_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/auth"
	"kilonova/internal/network"
)

// TestPortsThatAreDevices: what the API takes and shows of ports that are PCI devices.
func TestPortsThatAreDevices(t *testing.T) {
	c := start(t)
	p1, admin := c.as("p1:member"), c.as("p0:admin")
	net := id(admin.ok(201, "POST", "/v2.0/networks", `{"network": {"name": "n", "project_id": "p1", "provider:network_type": "flat", "provider:physical_network": "phys"}}`, "network"))
	body := func(more string) string { return fmt.Sprintf(`{"port": {"network_id": %q, %s}}`, net, more) }
	for _, kind := range []string{"normal", "direct", "macvtap", "direct-physical", "virtio-forwarder", "vdpa", "remote-managed", "accelerator-direct", "accelerator-direct-physical", "baremetal", "smart-nic"} {
		if got := p1.ok(201, "POST", "/v2.0/ports", body(`"binding:vnic_type": "`+kind+`"`), "port"); got["binding:vnic_type"] != kind || got["numa_affinity_policy"] != nil {
			t.Errorf("%s: %v", kind, got)
		}
	}
	p1.fails(400, "HTTPBadRequest", "POST", "/v2.0/ports", body(`"binding:vnic_type": "wireless"`))
	p1.fails(400, "HTTPBadRequest", "POST", "/v2.0/ports", body(`"numa_affinity_policy": "close"`))
	p1.fails(403, "PolicyNotAuthorized", "POST", "/v2.0/ports", body(`"binding:vnic_type": "direct", "binding:profile": {"trusted": "true"}`))
	port := id(admin.ok(201, "POST", "/v2.0/ports", body(`"project_id": "p1", "binding:vnic_type": "direct", "numa_affinity_policy": "required", "binding:profile": {"trusted": "true"}`), "port"))
	path := "/v2.0/ports/" + port
	if got := p1.ok(200, "PUT", path, `{"port": {"numa_affinity_policy": "socket"}}`, "port"); got["numa_affinity_policy"] != "socket" {
		t.Errorf("%v", got)
	}
	if got := p1.ok(200, "PUT", path, `{"port": {"numa_affinity_policy": null}}`, "port"); got["numa_affinity_policy"] != nil {
		t.Errorf("%v", got)
	}
	if got := admin.ok(200, "PUT", path, `{"port": {"binding:host_id": "h1"}}`, "port"); got["binding:vif_type"] != "binding_failed" {
		t.Errorf("a port on a host without a device: %v", got)
	}
	if _, err := c.svc.BindDevice(t.Context(), auth.Internal(""), port, "srv", "compute:nova", "h1", network.DeviceBinding{Slot: "0000:0a:10.1", Vendor: "8086:10ed", PhysicalNetwork: "phys"}); err != nil {
		t.Fatal(err)
	}
	got := admin.ok(200, "GET", path, "", "port")
	want := map[string]any{"binding:host_id": "h1", "binding:vif_type": "hw_veb", "binding:vnic_type": "direct", "status": "ACTIVE", "binding:vif_details": map[string]any{"port_filter": false, "connectivity": "l2"},
		"binding:profile": map[string]any{"trusted": "true", "pci_slot": "0000:0a:10.1", "pci_vendor_info": "8086:10ed", "physical_network": "phys"}}
	for k, v := range want {
		if d := cmp.Diff(v, got[k]); d != "" {
			t.Errorf("%s: %s", k, d)
		}
	}
}
