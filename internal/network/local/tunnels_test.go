package local_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/fault"
	"kilonova/internal/network"
	"kilonova/internal/network/local"
	"kilonova/internal/network/segments"
)

func vxlan(n *network.Network, _ *local.SubnetRequest) { n.ProviderType = local.TypeVXLAN }

func TestHostsKnowWhereNetworksGoOn(t *testing.T) {
	_, d := open(t)
	b := &recorder{}
	s := service(t, d, b)
	n1, sub1 := lan(t, s, "p1", "10.1.0.0/24", vxlan)
	n2, sub2 := lan(t, s, "p1", "10.2.0.0/24", vxlan)
	if n1.SegmentationID == nil || n2.SegmentationID == nil || *n1.SegmentationID == *n2.SegmentationID || n1.MTU != 1450 {
		t.Fatalf("%+v %+v", n1, n2)
	}
	do(t, s, func(c *local.Change) error {
		r := network.Router{ProjectID: "p1", AdminStateUp: true}
		if err := c.CreateRouter(&r); err != nil {
			return err
		}
		for _, id := range []string{sub1.ID, sub2.ID} {
			if _, err := c.AddInterface(r.ID, id, ""); err != nil {
				return err
			}
		}
		return nil
	})
	port := func(netID, host, server string) *network.Port {
		p, err := s.CreatePort(t.Context(), caller("p1"), network.PortRequest{NetworkID: netID, HostID: host, DeviceID: server, DeviceOwner: "compute:nova"})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	state := func(host string) *network.HostState {
		st, err := s.Host(t.Context(), host)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	here, there, beyond := port(n1.ID, "h1", "s1"), port(n1.ID, "h2", "s2"), port(n2.ID, "h3", "s3")
	if st := state("h1"); len(st.Networks) != 1 || st.Networks[0].VNI != 0 || st.Networks[0].Endpoints != nil || !st.Networks[0].Gateway {
		t.Errorf("without tunnels: %+v", st.Networks)
	}
	for host, ip := range map[string]string{"h1": "192.0.2.1", "h2": "192.0.2.2", "h3": "192.0.2.3"} {
		if err := s.SetTunnel(t.Context(), host, ip); err != nil {
			t.Fatal(err)
		}
	}
	st := state("h1")
	if len(st.Networks) != 2 {
		t.Fatalf("the router's other network is not there: %+v", st.Networks)
	}
	nets := map[string]network.HostNetwork{}
	for _, n := range st.Networks {
		nets[n.ID] = n
	}
	remote := func(p *network.Port, ip string) []network.RemotePort {
		return []network.RemotePort{{MAC: p.MAC, Addresses: []string{p.FixedIPs[0].Address}, Endpoint: ip}}
	}
	one, two := nets[n1.ID], nets[n2.ID]
	if diff := cmp.Diff([]any{*n1.SegmentationID, []string{"192.0.2.2"}, remote(there, "192.0.2.2"), []string{n2.ID}}, []any{one.VNI, one.Endpoints, one.Remote, one.Peers}); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]any{*n2.SegmentationID, []string{"192.0.2.3"}, remote(beyond, "192.0.2.3"), []string{n1.ID}}, []any{two.VNI, two.Endpoints, two.Remote, two.Peers}); diff != "" {
		t.Error(diff)
	}
	b.waits(t, "h1", "h2", "h3")

	// The guest of one moves: both hosts have its port, then the other alone.
	for range 2 {
		if err := s.ReserveBinding(t.Context(), caller("p1"), here.ID, "h3"); err != nil {
			t.Fatal(err)
		}
	}
	b.waits(t, "h1", "h2", "h3")
	incoming := func(host, id string) (has, coming bool) {
		for _, p := range state(host).Ports {
			if p.ID == id {
				return true, p.Incoming
			}
		}
		return false, false
	}
	look := func(when string, h1, h3, coming bool) {
		t.Helper()
		got1, _ := incoming("h1", here.ID)
		got3, c := incoming("h3", here.ID)
		if got1 != h1 || got3 != h3 || c != coming {
			t.Errorf("%s: h1 %v, h3 %v coming %v", when, got1, got3, c)
		}
	}
	look("reserved", true, true, true)
	if got := state("h2").Networks[0]; got.ID != n1.ID && len(state("h2").Networks) > 1 {
		got = state("h2").Networks[1]
		if diff := cmp.Diff([]string{"192.0.2.1", "192.0.2.3"}, got.Endpoints); diff != "" {
			t.Errorf("a third host floods also to where a guest goes: %s", diff)
		}
	}
	if err := s.DropBinding(t.Context(), caller("p1"), here.ID, "h3"); err != nil {
		t.Fatal(err)
	}
	look("taken back", true, false, false)
	if err := s.ReserveBinding(t.Context(), caller("p1"), here.ID, "h3"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.BindPort(t.Context(), caller("p1"), here.ID, "s1", "compute:nova", "h3"); err != nil {
		t.Fatal(err)
	}
	look("moved", false, true, false)
	p, err := s.GetPort(t.Context(), caller("p1"), here.ID)
	if err != nil {
		t.Fatal(err)
	}
	if bs, err := s.Bindings(t.Context(), p); err != nil || len(bs) != 1 || bs[0].Host != "h3" {
		t.Errorf("bindings %+v, %v", bs, err)
	}
	if err := s.DropBinding(t.Context(), caller("p1"), here.ID, "h3"); err != nil {
		t.Fatal(err)
	}
	look("a late undo", false, true, false)
	if err := s.SetTunnel(t.Context(), "h3", ""); err != nil {
		t.Fatal(err)
	}
	if st := state("h2"); len(st.Networks[0].Endpoints)+len(st.Networks[len(st.Networks)-1].Endpoints) != 0 {
		t.Errorf("a host without tunnels is an end of one: %+v", st.Networks)
	}
}

func TestSegments(t *testing.T) {
	_, d := open(t)
	s, err := local.New(t.Context(), local.Config{DB: d, TenantType: local.TypeVXLAN, VNIs: []segments.Range{{First: 5, Last: 6}, {First: 9, Last: 10}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	add := func(kind string, vni *int) (*network.Network, error) {
		n := &network.Network{ProjectID: "p1", ProviderType: kind, SegmentationID: vni}
		return n, s.Do(t.Context(), func(c *local.Change) error { n.ID = ""; return c.CreateNetwork(n) })
	}
	taken := map[int]string{}
	for range 4 {
		n, err := add("", nil)
		if err != nil {
			t.Fatal(err)
		}
		if taken[*n.SegmentationID] != "" || n.ProviderType != local.TypeVXLAN {
			t.Errorf("twice, or of another type: %+v", n)
		}
		taken[*n.SegmentationID] = n.ID
	}
	for _, vni := range []int{5, 6, 9, 10} {
		if taken[vni] == "" {
			t.Errorf("%d was not given out: %v", vni, taken)
		}
	}
	if _, err := add("", nil); code(err) != "NoNetworkAvailable" || fault.KindOf(err) != fault.Unavailable {
		t.Errorf("the fifth of four: %v", err)
	}
	nine := 9
	if _, err := add(local.TypeVXLAN, &nine); code(err) != "TunnelIdInUse" {
		t.Errorf("a taken one: %v", err)
	}
	do(t, s, func(c *local.Change) error { return c.DeleteNetwork(taken[9]) })
	if n, err := add("", nil); err != nil || *n.SegmentationID != 9 {
		t.Errorf("the one that came free: %+v, %v", n, err)
	}
	if n, err := add(local.TypeLocal, nil); err != nil || n.SegmentationID != nil || n.MTU != 1500 {
		t.Errorf("a local one: %+v, %v", n, err)
	}
	do(t, s, func(c *local.Change) error {
		n, err := c.UpdateNetwork(taken[5], func(n *network.Network) error { n.ProviderType = local.TypeLocal; return nil })
		if err == nil && n.SegmentationID != nil {
			t.Errorf("a local network has an identifier: %+v", n)
		}
		return err
	})
	if n, err := add("", nil); err != nil || *n.SegmentationID != 5 {
		t.Errorf("the one of a network that changed its type: %+v, %v", n, err)
	}
}
