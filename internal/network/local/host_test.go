package local_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/bus"
	"kilonova/internal/fault"
	"kilonova/internal/network"
	"kilonova/internal/network/local"
)

// recorder is a bus that keeps what is fanned out; the rest of a bus the service does not use.
type recorder struct {
	bus.Bus
	mu   sync.Mutex
	told []string
}

func (r *recorder) Fanout(_ context.Context, subject string, msg []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = append(r.told, subject+" "+string(msg))
	return nil
}

// waits until exactly these hosts have been told, and forgets them.
func (r *recorder) waits(t *testing.T, hosts ...string) {
	t.Helper()
	got := []string{}
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		r.mu.Lock()
		got = append(got[:0], r.told...)
		r.mu.Unlock()
		slices.Sort(got)
		got = slices.Compact(got)
		if len(got) >= len(hosts) {
			break
		}
	}
	want := []string{}
	for _, h := range hosts {
		want = append(want, network.ChangedSubject+" "+h)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	r.mu.Lock()
	r.told = nil
	r.mu.Unlock()
}

// A host counts as heard of once that is on record: one that could not be recorded is, as soon as it asks again.
func TestAHostThatCouldNotBeRecorded(t *testing.T) {
	s, _ := open(t)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Host(gone, "h1"); err == nil {
		t.Fatal("a host was recorded for a caller that has gone")
	}
	if _, err := s.Host(t.Context(), "h1"); err != nil {
		t.Fatal(err)
	}
	all, err := s.Agents(t.Context())
	if err != nil || len(all) != 1 || all[0].Host != "h1" {
		t.Errorf("on record: %+v, %v", all, err)
	}
}

func TestHostState(t *testing.T) {
	_, d := open(t)
	b := &recorder{}
	s := service(t, d, b)
	ext, _ := lan(t, s, "adm", "203.0.113.0/24", func(n *network.Network, _ *local.SubnetRequest) { n.External = true })
	n1, sub1 := lan(t, s, "p1", "10.1.0.0/24")
	n2, sub2 := lan(t, s, "p1", "10.2.0.0/24")
	router := &network.Router{ProjectID: "p1", AdminStateUp: true, Gateway: &network.RouterGateway{NetworkID: ext.ID, SNAT: true}}
	do(t, s, func(c *local.Change) error {
		r := *router
		if err := c.CreateRouter(&r); err != nil {
			return err
		}
		router.ID = r.ID
		for _, id := range []string{sub1.ID, sub2.ID} {
			if _, err := c.AddInterface(r.ID, id, ""); err != nil {
				return err
			}
		}
		return nil
	})
	port := func(netID, host, server string) *network.Port {
		p, err := s.CreatePort(t.Context(), caller("p1"), network.PortRequest{NetworkID: netID, HostID: host, DeviceID: server, DeviceOwner: "compute:nova", DNSName: "n-" + server})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	b.waits(t)
	a := port(n1.ID, "h1", "s1")
	b.waits(t, "h1")
	other := port(n1.ID, "h2", "s2")
	b.waits(t, "h1", "h2") // the first has a new member in its group and a new name
	port(n2.ID, "h1", "s3")
	b.waits(t, "h1", "h2")
	do(t, s, func(c *local.Change) error {
		_, err := c.CreateFloatingIP(&local.FloatingRequest{FloatingIP: network.FloatingIP{ProjectID: "p1", NetworkID: ext.ID, PortID: a.ID}})
		return err
	})
	b.waits(t, "h1")
	do(t, s, func(c *local.Change) error {
		return c.CreateRule(&network.Rule{ProjectID: "p1", GroupID: a.SecurityGroups[0], GroupRule: network.GroupRule{Direction: "ingress", Protocol: "icmp"}})
	})
	b.waits(t, "h1", "h2")

	st, err := s.Host(t.Context(), "h1")
	if err != nil {
		t.Fatal(err)
	}
	if len(st.Networks) != 2 || len(st.Ports) != 2 || len(st.Groups) != 1 {
		t.Fatalf("%+v", st)
	}
	i := slices.IndexFunc(st.Networks, func(n network.HostNetwork) bool { return n.ID == n1.ID })
	net := st.Networks[i]
	if diff := cmp.Diff([]string{n2.ID}, net.Peers); diff != "" || !net.Gateway || !net.NAT || net.Bridge != network.BridgeName(n1.ID) {
		t.Errorf("%+v %s", net, diff)
	}
	if diff := cmp.Diff([]network.Lease{{MAC: a.MAC, Address: "10.1.0.2", SubnetID: sub1.ID, Hostname: "n-s1"}, {MAC: other.MAC, Address: "10.1.0.3", SubnetID: sub1.ID, Hostname: "n-s2"}}, net.Leases); diff != "" {
		t.Error(diff)
	}
	i = slices.IndexFunc(st.Ports, func(p network.HostPort) bool { return p.ID == a.ID })
	want := network.HostPort{ID: a.ID, NetworkID: n1.ID, Tap: network.TapName(a.ID), MAC: a.MAC, Addresses: []string{"10.1.0.2"}, Groups: a.SecurityGroups, PortSecurity: true,
		ServerID: "s1", ProjectID: "p1", Floating: []network.Floating{{Address: "203.0.113.3", Fixed: "10.1.0.2"}}}
	if diff := cmp.Diff(want, st.Ports[i]); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"10.1.0.2", "10.1.0.3", "10.2.0.2"}, st.Groups[0].Members); diff != "" || len(st.Groups[0].Rules) != 5 {
		t.Errorf("%+v %s", st.Groups[0], diff)
	}
	again, err := s.Host(t.Context(), "h1")
	if err != nil || again.Revision != st.Revision || st.Revision == "" {
		t.Errorf("nothing changed but the revision: %s, then %s, %v", st.Revision, again.Revision, err)
	}
	as, err := s.Agents(t.Context())
	if err != nil || len(as) != 1 || as[0].Host != "h1" {
		t.Errorf("agents %+v, %v", as, err)
	}
	static := []network.Route{{Destination: "10.9.0.0/16", NextHop: "10.2.0.77"}}
	do(t, s, func(c *local.Change) error {
		_, err := c.UpdateRouter(router.ID, func(r *network.Router) error { r.Routes = static; return nil })
		return err
	})
	b.waits(t, "h1", "h2")
	if st, err = s.Host(t.Context(), "h1"); err != nil || !cmp.Equal(st.Networks[0].Routes, static) || !cmp.Equal(st.Networks[1].Routes, static) {
		t.Errorf("static routes: %+v, %v", st.Networks, err)
	}
	do(t, s, func(c *local.Change) error {
		_, err := c.UpdateRouter(router.ID, func(r *network.Router) error { r.AdminStateUp = false; return nil })
		return err
	})
	if st, err = s.Host(t.Context(), "h1"); err != nil || len(st.Networks[0].Peers) != 0 {
		t.Errorf("a router that is down still joins: %+v, %v", st.Networks, err)
	}
	if slices.ContainsFunc(st.Networks, func(n network.HostNetwork) bool { return n.NAT }) || slices.ContainsFunc(st.Ports, func(p network.HostPort) bool { return len(p.Floating) > 0 }) {
		t.Errorf("a router that is switched off leads out: %+v", st)
	}
}

func TestVIFs(t *testing.T) {
	s, _ := open(t)
	n, sub := lan(t, s, "p1", "10.1.0.0/24", func(_ *network.Network, r *local.SubnetRequest) {
		r.DNS = []string{"9.9.9.9"}
	})
	var ids []string
	for range 3 {
		p, err := s.CreatePort(t.Context(), caller("p1"), network.PortRequest{NetworkID: n.ID, DeviceID: "s1"})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, p.ID)
	}
	slices.Reverse(ids)
	vifs, err := s.VIFs(t.Context(), append(ids, "gone")...)
	if err != nil || len(vifs) != 3 {
		t.Fatalf("%v, %v", vifs, err)
	}
	for i, v := range vifs {
		if v.PortID != ids[i] {
			t.Errorf("place %d has %s", i, v.PortID)
		}
	}
	want := network.VIF{PortID: ids[2], NetworkID: n.ID, NetworkName: "net", MAC: vifs[2].MAC, Bridge: network.BridgeName(n.ID), Tap: network.TapName(ids[2]), MTU: 1500,
		Type: "bridge", SecurityGroups: []string{"default"}, FixedIPs: []network.VIFAddr{{Address: "10.1.0.2", Version: 4, SubnetID: sub.ID, CIDR: "10.1.0.0/24", Gateway: "10.1.0.1",
			DHCP: true, DNS: []string{"9.9.9.9"}}}}
	if diff := cmp.Diff(want, vifs[2]); diff != "" {
		t.Error(diff)
	}
	ports, err := s.DevicePorts(t.Context(), caller("p1"), "s1")
	if err != nil || len(ports) != 3 {
		t.Errorf("%v, %v", ports, err)
	}
	if ports, err := s.DevicePorts(t.Context(), caller("p2"), "s1"); err != nil || len(ports) != 0 {
		t.Errorf("another project sees %v, %v", ports, err)
	}
}

func TestGroupsByNameAndID(t *testing.T) {
	s, _ := open(t)
	var ids []string
	do(t, s, func(c *local.Change) error {
		ids = nil
		for _, name := range []string{"web", "twice", "twice"} {
			g := &network.Group{Name: name, ProjectID: "p1", Stateful: true}
			if err := c.CreateGroup(g); err != nil {
				return err
			}
			ids = append(ids, g.ID)
		}
		return nil
	})
	got, err := s.SecurityGroups(t.Context(), caller("p1"), "web", "default", ids[0], ids[1])
	if err != nil || len(got) != 3 || got[0].ID != ids[0] || got[1].Name != "default" {
		t.Errorf("%+v, %v", got, err)
	}
	for name, want := range map[string]fault.Kind{"twice": fault.Conflict, "none": fault.NotFound} {
		if _, err := s.SecurityGroups(t.Context(), caller("p1"), name); fault.KindOf(err) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.SecurityGroups(t.Context(), caller("p2"), ids[0]); fault.KindOf(err) != fault.NotFound {
		t.Errorf("another project's group: %v", err)
	}
}

func TestPortBindings(t *testing.T) {
	s, _ := open(t)
	n, _ := lan(t, s, "p1", "10.1.0.0/24")
	p, err := s.CreatePort(t.Context(), caller("p1"), network.PortRequest{NetworkID: n.ID, HostID: "h1", DeviceID: "s1"})
	if err != nil {
		t.Fatal(err)
	}
	do(t, s, func(c *local.Change) error { return c.AddBinding(p, &network.Binding{Host: "h2"}) })
	if err := s.Do(t.Context(), func(c *local.Change) error { return c.AddBinding(p, &network.Binding{Host: "h2"}) }); code(err) != "PortBindingAlreadyExists" {
		t.Errorf("the second of a kind: %v", err)
	}
	do(t, s, func(c *local.Change) error { _, err := c.ActivateBinding(p.ID, "h2"); return err })
	p, err = s.GetPort(t.Context(), caller("p1"), p.ID)
	if err != nil || p.HostID != "h2" {
		t.Fatalf("%+v, %v", p, err)
	}
	bs, err := s.Bindings(t.Context(), p)
	if err != nil || len(bs) != 2 || bs[0].Host != "h2" || bs[0].Status != "ACTIVE" || bs[1].Host != "h1" || bs[1].Status != "INACTIVE" {
		t.Errorf("%+v, %v", bs, err)
	}
	do(t, s, func(c *local.Change) error { return c.DeleteBinding(p.ID, "h1") })
	if err := s.Do(t.Context(), func(c *local.Change) error { return c.DeleteBinding(p.ID, "h1") }); code(err) != "PortBindingNotFound" {
		t.Errorf("a binding that is gone: %v", err)
	}
}

func TestHostsKnowStatelessGroups(t *testing.T) {
	_, d := open(t)
	s := service(t, d, &recorder{})
	n, _ := lan(t, s, "p1", "10.1.0.0/24")
	for _, stateful := range []bool{true, false} {
		g := &network.Group{Name: "g", ProjectID: "p1", Stateful: stateful}
		do(t, s, func(c *local.Change) error { return c.CreateGroup(g) })
		host := fmt.Sprintf("h-%v", stateful)
		if _, err := s.CreatePort(t.Context(), caller("p1"), network.PortRequest{NetworkID: n.ID, HostID: host, DeviceID: "s1", DeviceOwner: "compute:nova", SecurityGroups: []string{g.ID}}); err != nil {
			t.Fatal(err)
		}
		st, err := s.Host(t.Context(), host)
		if err != nil {
			t.Fatal(err)
		}
		if len(st.Groups) != 1 || st.Groups[0].ID != g.ID || st.Groups[0].Stateless == stateful {
			t.Errorf("stateful %v: the host is told %+v", stateful, st.Groups)
		}
	}
}
