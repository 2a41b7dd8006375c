package conductor_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/auth"
	"kilonova/internal/compute"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/network"
	netlocal "kilonova/internal/network/local"
	"kilonova/internal/operation"
)

// nics is a host with a network card on the physical network phys: four virtual functions, and a second card that is given as a whole.
func nics() fake.Config {
	c := fake.Config{VCPUs: 16, MemoryMB: 16384, DiskGB: 1000}
	on := map[string]string{"physical_network": "phys"}
	for i := range 4 {
		c.Devices = append(c.Devices, compute.HostDevice{Address: fmt.Sprintf("0000:0a:10.%d", i), VendorID: "8086", ProductID: "10ed", Type: compute.PCIVirtual, Parent: "0000:0a:00.0", Tags: on})
	}
	c.Devices = append(c.Devices, compute.HostDevice{Address: "0000:0b:00.0", VendorID: "8086", ProductID: "10fb", Type: compute.PCIPhysical, Tags: on, MAC: "3c:fd:fe:00:00:01"})
	return c
}

// devicePort makes a port of a type on the network that lies on the physical network.
func (c *cloud) devicePort(kind string) network.Port {
	c.t.Helper()
	var out *network.Port
	c.must(c.nets.Do(c.ctx, func(ch *netlocal.Change) (err error) {
		if c.flat == "" {
			n := &network.Network{Name: "phys", ProjectID: "p", AdminStateUp: true, ProviderType: "flat", ProviderPhysical: "phys"}
			if err := ch.CreateNetwork(n); err != nil {
				return err
			}
			if _, err := ch.CreateSubnet(&netlocal.SubnetRequest{Subnet: network.Subnet{ProjectID: "p", NetworkID: n.ID, CIDR: "10.9.0.0/24", DHCP: true}}); err != nil {
				return err
			}
			c.flat = n.ID
		}
		out, err = ch.CreatePort(&netlocal.PortInput{Port: network.Port{ProjectID: "p", NetworkID: c.flat, VNICType: kind, AdminStateUp: true}})
		return err
	}))
	return *out
}

func with(ports ...network.Port) []compute.NICRequest {
	var out []compute.NICRequest
	for _, p := range ports {
		out = append(out, compute.NICRequest{PortID: p.ID, NetworkID: p.NetworkID, VNICType: p.VNICType, Device: &compute.PortDevice{PortID: p.ID, VNICType: p.VNICType, PhysicalNetwork: "phys"}})
	}
	return out
}

func (c *cloud) port(id string) *network.Port {
	c.t.Helper()
	p, err := c.nets.GetPort(c.ctx, auth.Internal(""), id)
	c.must(err)
	return p
}

// agree demands that the ports are the devices that the server holds on its host, and no others are held.
func (c *cloud) agree(what, server string, held int, ports ...network.Port) *compute.Server {
	c.t.Helper()
	s := c.get(server)
	if _, devices := c.exclusive(); devices != held {
		c.t.Fatalf("%s: %d devices are held, want %d", what, devices, held)
	}
	for _, p := range ports {
		now, claim := c.port(p.ID), s.Claim()
		if claim == nil || claim.Ports[p.ID] == "" || now.Profile["pci_slot"] != claim.Ports[p.ID] || now.HostID != s.Host || now.Status != "ACTIVE" || now.VIFType == "binding_failed" {
			c.t.Fatalf("%s: port %s is %s %s on %s with %v, the server on %s holds %+v", what, p.ID, now.VIFType, now.Status, now.HostID, now.Profile, s.Host, claim)
		}
	}
	c.healthy()
	return s
}

// TestPortsThatAreDevices: a port of the type direct is claimed, bound and told of its device, and follows its server wherever that goes.
func TestPortsThatAreDevices(t *testing.T) {
	c := newCloud(t, options{})
	kill := map[string]func(){"h1": c.host("h1", nics()), "h2": c.host("h2", nics())}
	direct, tap, whole := c.devicePort("direct"), c.devicePort("macvtap"), c.devicePort("direct-physical")
	s := c.record(nil)
	c.ends(c.create(s, compute.CreateInput{NICs: append(with(direct, tap, whole), compute.NICRequest{NetworkID: c.network})}), operation.Done)
	first := c.agree("created", s.ID, 3, direct, tap, whole)
	if d := cmp.Diff(map[string]any{"pci_slot": "0000:0b:00.0", "pci_vendor_info": "8086:10fb", "physical_network": "phys", "device_mac_address": "3c:fd:fe:00:00:01"}, c.port(whole.ID).Profile); d != "" {
		t.Error(d)
	}
	if p := c.port(whole.ID); p.MAC != "3c:fd:fe:00:00:01" || p.VIFType != "hostdev_physical" || c.port(direct.ID).VIFType != "hw_veb" {
		t.Errorf("%+v", p)
	}
	if v := first.VIFs[0]; v.VNICType != "direct" || v.PhysicalNetwork != "phys" || v.Bridge != "" || v.Type != "hw_veb" {
		t.Errorf("%+v", v)
	}
	flavor := first.Flavor
	flavor.FlavorID, flavor.RAMMB = "2", 1024
	c.ends(c.accept(compute.OpResize, s.ID, compute.ResizeInput{Flavor: flavor, Host: first.Host}), operation.Undone) // the one whole card of the host is taken
	c.agree("resize that found no card", s.ID, 3, direct, tap, whole)
	c.ends(c.accept(compute.OpResize, s.ID, compute.ResizeInput{Flavor: flavor}), operation.Done)
	c.agree("resized", s.ID, 6, direct, tap, whole)
	c.ends(c.accept(compute.OpRevertResize, s.ID, nil), operation.Done)
	if got := c.agree("reverted", s.ID, 3, direct, tap, whole); got.Host != first.Host || got.Claim().Ports[direct.ID] != first.Claim().Ports[direct.ID] {
		t.Errorf("reverted to %s %+v", got.Host, got.Claim())
	}
	c.ends(c.accept(compute.OpDetachNIC, s.ID, compute.NICInput{NICRequest: compute.NICRequest{PortID: whole.ID}}), operation.Done)
	c.agree("detached", s.ID, 2, direct, tap)
	if p := c.port(whole.ID); p.DeviceID != "" || len(p.Profile) != 0 || p.VIFType != "unbound" || p.MAC == "3c:fd:fe:00:00:01" {
		t.Errorf("%+v", p)
	}
	// Within one host: the server holds both devices until it is confirmed.
	c.ends(c.accept(compute.OpResize, s.ID, compute.ResizeInput{Flavor: flavor, Host: first.Host}), operation.Done)
	same := c.agree("resized on its host", s.ID, 4, direct, tap)
	if same.Host != first.Host || same.Claim().Ports[direct.ID] == first.Claim().Ports[direct.ID] {
		t.Errorf("%s %+v", same.Host, same.Claim())
	}
	c.ends(c.accept(compute.OpRevertResize, s.ID, nil), operation.Done)
	c.agree("reverted on its host", s.ID, 2, direct, tap)
	c.fault(other(first.Host), "live-migrate", nil)
	c.fault(first.Host, "live-migrate", errNoLuck)
	c.ends(c.accept(compute.OpLiveMigrate, s.ID, compute.LiveMigrateInput{}), operation.Undone)
	c.agree("failed live migration", s.ID, 2, direct, tap)
	if vifs := c.plugged(first.Host, s.ID); len(vifs) != 3 {
		t.Errorf("after a live migration that failed the guest has %d interfaces: %+v", len(vifs), vifs)
	}
	c.fault(first.Host, "live-migrate", nil)
	c.ends(c.accept(compute.OpLiveMigrate, s.ID, compute.LiveMigrateInput{}), operation.Done)
	moved := c.agree("moved while it ran", s.ID, 2, direct, tap)
	if moved.Host == first.Host || len(c.plugged(moved.Host, s.ID)) != 3 {
		t.Errorf("on %s with %+v", moved.Host, c.plugged(moved.Host, s.ID))
	}
	c.ends(c.accept(compute.OpShelve, s.ID, compute.ShelveInput{Offload: true}), operation.Done)
	c.agree("offloaded", s.ID, 0)
	if p := c.port(direct.ID); p.Profile["pci_slot"] != nil || p.DeviceID != s.ID {
		t.Errorf("%+v", p)
	}
	c.ends(c.accept(compute.OpUnshelve, s.ID, compute.UnshelveInput{}), operation.Done)
	here := c.agree("unshelved", s.ID, 2, direct, tap).Host
	c.ends(c.accept(compute.OpAttachNIC, s.ID, compute.NICInput{NICRequest: with(whole)[0]}), operation.Done)
	c.agree("attached", s.ID, 3, direct, tap, whole)
	c.dies(here, kill[here])
	c.ends(c.accept(compute.OpEvacuate, s.ID, compute.EvacuateInput{}), operation.Done)
	c.agree("evacuated", s.ID, 3, direct, tap, whole)
	c.ends(c.accept(compute.OpDelete, s.ID, nil), operation.Done)
	c.agree("deleted", s.ID, 0)
	for _, p := range []network.Port{direct, tap, whole} {
		if now := c.port(p.ID); now.DeviceID != "" || now.Profile["pci_slot"] != nil {
			t.Errorf("%+v", now)
		}
	}
}

// plugged gives the interfaces of a guest as its hypervisor has them.
func (c *cloud) plugged(host, server string) []network.VIF {
	c.t.Helper()
	spec, err := fake.New(fake.Config{DB: c.hyper, Host: host}).Spec(c.ctx, server)
	c.must(err)
	return spec.VIFs
}

func other(host string) string {
	if host == "h1" {
		return "h2"
	}
	return "h1"
}

// TestPortsWithoutDevices: what becomes of ports that no host has devices for.
func TestPortsWithoutDevices(t *testing.T) {
	c := newCloud(t, options{})
	c.host("h1", nics())
	held := 0
	fails := func(what string, nic compute.NICRequest) {
		t.Helper()
		s := c.record(nil)
		r := c.ends(c.create(s, compute.CreateInput{NICs: []compute.NICRequest{nic}}), operation.Undone)
		if !strings.Contains(r.Cause, what) {
			t.Errorf("%q: %s", what, r.Cause)
		}
		c.agree(what, s.ID, held)
	}
	for kind, what := range map[string]string{"vdpa": "a port of type vdpa", "virtio-forwarder": "a port of type virtio-forwarder", "remote-managed": "COMPUTE_REMOTE_MANAGED_PORTS",
		"accelerator-direct": "a port of type accelerator-direct"} {
		p := c.devicePort(kind)
		fails(what, compute.NICRequest{PortID: p.ID, NetworkID: p.NetworkID, VNICType: kind})
	}
	bare := c.devicePort("baremetal")
	fails("Binding failed for port", compute.NICRequest{PortID: bare.ID, NetworkID: bare.NetworkID, VNICType: "baremetal"})
	trusting := with(c.devicePort("direct"))[0]
	trusting.Device.Trusted = true
	fails("no free device of its physical network", trusting)
	var ports []network.Port
	for range 5 {
		ports = append(ports, c.devicePort("direct"))
	}
	s := c.record(nil)
	c.ends(c.create(s, compute.CreateInput{NICs: with(ports[:4]...)}), operation.Done)
	held = 4
	fails("no free device", with(ports[4])[0])
	r := c.ends(c.accept(compute.OpAttachNIC, s.ID, compute.NICInput{NICRequest: with(ports[4])[0]}), operation.Undone)
	if !strings.Contains(r.Cause, "Failed to claim PCI device for "+s.ID) {
		t.Errorf("%s", r.Cause)
	}
	c.agree("attach refused", s.ID, 4, ports[:4]...)
	c.ends(c.accept(compute.OpDetachNIC, s.ID, compute.NICInput{NICRequest: compute.NICRequest{PortID: ports[0].ID}}), operation.Done)
	c.fault("h1", "attach-interface", errNoLuck)
	c.ends(c.accept(compute.OpAttachNIC, s.ID, compute.NICInput{NICRequest: with(ports[4])[0]}), operation.Undone)
	c.agree("attach that failed", s.ID, 3, ports[1:4]...)
}

// TestPortsAreRacedFor: of many ports at once each gets a device of its own or none.
func TestPortsAreRacedFor(t *testing.T) {
	c := newCloud(t, options{})
	c.host("h1", nics())
	c.host("h2", nics())
	var ports []network.Port
	ops := map[string]string{}
	for range 14 {
		ports = append(ports, c.devicePort("direct"))
	}
	for i := range ports {
		s := c.record(nil)
		ops[c.create(s, compute.CreateInput{NICs: with(ports[i])})] = s.ID
	}
	built := 0
	for op, server := range ops {
		r, err := c.engine.Wait(c.ctx, op)
		c.must(err)
		if claim := c.get(server).Claim(); (r.State == operation.Done) != (claim != nil && len(claim.Ports) == 1) {
			t.Errorf("%s: %s %+v", r.State, r.Cause, claim)
		}
		if r.State == operation.Done {
			built++
		}
	}
	if _, devices := c.exclusive(); devices != built || built != 8 {
		t.Errorf("%d devices are held by %d servers, want all 8", devices, built)
	}
	c.healthy()
}
