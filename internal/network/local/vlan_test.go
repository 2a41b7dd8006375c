package local_test

import (
	"testing"

	"kilonova/internal/fault"
	"kilonova/internal/network"
	"kilonova/internal/network/local"
	"kilonova/internal/network/segments"
)

func TestVLANs(t *testing.T) {
	_, d := open(t)
	s, err := local.New(t.Context(), local.Config{DB: d, VLANs: []segments.VLANs{{Physical: "one", Range: segments.Range{First: 7, Last: 7}}, {Physical: "two", Range: segments.Range{First: 7, Last: 8}}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	add := func(kind, physical string, vlan int) (*network.Network, error) {
		n := &network.Network{ProjectID: "p1", ProviderType: kind, ProviderPhysical: physical}
		if vlan != 0 {
			n.SegmentationID = &vlan
		}
		return n, s.Do(t.Context(), func(c *local.Change) error { return c.CreateNetwork(n) })
	}
	change := func(id string, f func(n *network.Network)) (n *network.Network, err error) {
		err = s.Do(t.Context(), func(c *local.Change) error {
			n, err = c.UpdateNetwork(id, func(n *network.Network) error { f(n); return nil })
			return err
		})
		return n, err
	}
	last := map[string]string{}
	for _, tc := range []struct {
		kind, physical string
		vlan           int
		onto           string
		got            int
		code           string
	}{
		{local.TypeVLAN, "one", 100, "one", 100, ""},
		{local.TypeVLAN, "one", 100, "", 0, "VlanIdInUse"},
		{local.TypeVLAN, "three", 100, "three", 100, ""}, // hosts may have it without a range here
		{local.TypeVLAN, "two", 0, "two", 7, ""},
		{local.TypeVLAN, "", 0, "one", 7, ""},
		{local.TypeVLAN, "", 0, "two", 8, ""},
		{local.TypeVLAN, "", 0, "", 0, "NoNetworkAvailable"},
		{local.TypeVLAN, "three", 0, "", 0, "NoNetworkAvailable"},
		{local.TypeFlat, "one", 0, "one", 0, ""},
		{local.TypeFlat, "one", 0, "", 0, "FlatNetworkInUse"},
	} {
		n, err := add(tc.kind, tc.physical, tc.vlan)
		if code(err) != tc.code {
			t.Fatalf("%+v: %v", tc, err)
		}
		if err != nil {
			continue
		}
		if n.ProviderPhysical != tc.onto || (n.SegmentationID == nil) != (tc.got == 0) || n.SegmentationID != nil && *n.SegmentationID != tc.got || n.MTU != 1500 {
			t.Errorf("%+v became %+v", tc, n)
		}
		last[n.ProviderPhysical+n.ProviderType] = n.ID
	}
	taken := 100
	if _, err := change(last["twovlan"], func(n *network.Network) { n.ProviderPhysical, n.SegmentationID = "one", &taken }); code(err) != "VlanIdInUse" || fault.KindOf(err) != fault.Conflict {
		t.Errorf("moved to a VLAN that another has: %v", err)
	}
	n, err := change(last["twovlan"], func(n *network.Network) { n.ProviderPhysical = "four" })
	if err != nil || *n.SegmentationID != 8 {
		t.Errorf("moved to another physical network: %+v %v", n, err)
	}
	if n, err := add(local.TypeVLAN, "two", 0); err != nil || *n.SegmentationID != 8 {
		t.Errorf("the VLAN that came free: %+v %v", n, err)
	}
	do(t, s, func(c *local.Change) error { return c.DeleteNetwork(last["oneflat"]) })
	if _, err := add(local.TypeFlat, "one", 0); err != nil {
		t.Errorf("the physical network that came free: %v", err)
	}
}

// TestHostsKnowVLANs: a host is told the VLAN, and that it is not the gateway.
func TestHostsKnowVLANs(t *testing.T) {
	_, d := open(t)
	s := service(t, d, &recorder{})
	vlan := 100
	n, _ := lan(t, s, "p1", "10.1.0.0/24", func(n *network.Network, _ *local.SubnetRequest) {
		n.ProviderType, n.ProviderPhysical, n.SegmentationID = local.TypeVLAN, "one", &vlan
	})
	if _, err := s.CreatePort(t.Context(), caller("p1"), network.PortRequest{NetworkID: n.ID, HostID: "h1", DeviceID: "server", DeviceOwner: "compute:nova"}); err != nil {
		t.Fatal(err)
	}
	st, err := s.Host(t.Context(), "h1")
	if err != nil || len(st.Networks) != 1 {
		t.Fatalf("%+v %v", st, err)
	}
	if h := st.Networks[0]; h.Physical != "one" || h.VLAN != 100 || h.Gateway || h.NAT || h.VNI != 0 {
		t.Errorf("%+v", h)
	}
}
