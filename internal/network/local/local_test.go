package local_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/auth"
	"kilonova/internal/bus"
	"kilonova/internal/db"
	"kilonova/internal/db/dbtest"
	"kilonova/internal/fault"
	"kilonova/internal/network"
	"kilonova/internal/network/local"
)

// open gives the service on an empty database.
func open(t *testing.T) (*local.Service, *db.DB) {
	t.Helper()
	d := dbtest.Open(t)
	return service(t, d, nil), d
}

func service(t *testing.T, d *db.DB, b bus.Bus) *local.Service {
	t.Helper()
	s, err := local.New(t.Context(), local.Config{DB: d, Bus: b})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func caller(project string, roles ...string) *auth.Caller {
	return &auth.Caller{ProjectID: project, UserID: "u-" + project, Roles: append(roles, "member", "reader")}
}

// do runs one change and fails the test when it does not work.
func do(t *testing.T, s *local.Service, fn func(c *local.Change) error) {
	t.Helper()
	if err := s.Do(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

// lan makes a network with one subnet.
func lan(t *testing.T, s *local.Service, project, cidr string, more ...func(n *network.Network, r *local.SubnetRequest)) (network.Network, network.Subnet) {
	t.Helper()
	n := network.Network{Name: "net", ProjectID: project, AdminStateUp: true, PortSecurity: true}
	r := &local.SubnetRequest{Subnet: network.Subnet{ProjectID: project, CIDR: cidr, DHCP: true}}
	for _, m := range more {
		m(&n, r)
	}
	var sub *network.Subnet
	do(t, s, func(c *local.Change) error {
		n := &n
		n.ID, r.ID, r.NetworkID = "", "", ""
		if err := c.CreateNetwork(n); err != nil {
			return err
		}
		r.NetworkID = n.ID
		var err error
		sub, err = c.CreateSubnet(r)
		return err
	})
	return n, *sub
}

func TestPortGetsAddressGroupAndMAC(t *testing.T) {
	s, _ := open(t)
	n, sub := lan(t, s, "p1", "10.0.0.0/24")
	if _, err := s.Host(t.Context(), "h1"); err != nil { // the host has a data plane
		t.Fatal(err)
	}
	if diff := cmp.Diff([]network.Pool{{Start: "10.0.0.2", End: "10.0.0.254"}}, sub.Pools); diff != "" {
		t.Error(diff)
	}
	p, err := s.CreatePort(t.Context(), caller("p1"), network.PortRequest{ID: "7d0b0e32-0000-4000-8000-000000000001", NetworkID: n.ID, DeviceID: "srv", DeviceOwner: "compute:nova", HostID: "h1"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]network.FixedIP{{SubnetID: sub.ID, Address: "10.0.0.2"}}, p.FixedIPs); diff != "" {
		t.Error(diff)
	}
	if p.VIFType != "bridge" || p.Status != "DOWN" || len(p.SecurityGroups) != 1 || p.MAC[:9] != "fa:16:3e:" {
		t.Errorf("port %+v", p)
	}
	sim, err := s.CreatePort(t.Context(), caller("p1"), network.PortRequest{NetworkID: n.ID, DeviceID: "srv", DeviceOwner: "compute:nova", HostID: "simulated"})
	if err != nil || sim.Status != "ACTIVE" {
		t.Errorf("a port on a host without data plane: %+v, %v", sim, err)
	}
	if sim, err = s.BindPort(t.Context(), caller("p1"), sim.ID, "", "", ""); err != nil || sim.Status != "DOWN" {
		t.Errorf("after it was unbound: %+v, %v", sim, err)
	}
	again, err := s.CreatePort(t.Context(), caller("p1"), network.PortRequest{ID: p.ID, NetworkID: n.ID})
	if err != nil || again.MAC != p.MAC {
		t.Errorf("asking again: %+v, %v", again, err)
	}
	if _, err := s.CreatePort(t.Context(), caller("p2"), network.PortRequest{NetworkID: n.ID}); !errors.Is(err, fault.NotFound) {
		t.Errorf("another project's network: %v", err)
	}
	if err := s.SetPortStatus(t.Context(), p.ID, "ACTIVE"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.ByFixedIP(t.Context(), n.ID, "10.0.0.2"); err != nil || got.ID != p.ID || got.Status != "ACTIVE" {
		t.Errorf("by address: %+v, %v", got, err)
	}
	if _, err := s.BindPort(t.Context(), caller("p1"), p.ID, "other", "compute:nova", "h1"); !errors.Is(err, fault.Conflict) {
		t.Errorf("binding to a second device: %v", err)
	}
	for range 2 {
		if err := s.DeletePort(t.Context(), caller("p1"), p.ID); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
}

func TestConcurrentAllocationIsExact(t *testing.T) {
	s, d := open(t)
	n, _ := lan(t, s, "p1", "10.0.0.0/25") // 125 addresses beside the gateway
	if err := s.SetQuotas(t.Context(), "p1", map[string]int64{"port": 200}); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	seen := map[string]string{}
	full := 0
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 20 {
				p, err := s.CreatePort(context.Background(), caller("p1"), network.PortRequest{NetworkID: n.ID, Name: fmt.Sprint(w, i)})
				mu.Lock()
				if err != nil {
					full++
					if !errors.Is(err, fault.Conflict) {
						t.Error(err)
					}
				} else if a := p.FixedIPs[0].Address; seen[a] != "" {
					t.Errorf("%s was given twice", a)
				} else {
					seen[a] = p.ID
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != 125 || full != 160-125 {
		t.Errorf("%d addresses, %d refusals; want 125, 35", len(seen), full)
	}
	recount(t, d)
	// What is given back is given out again, and nothing else.
	for a, id := range seen {
		if a == "10.0.0.77" {
			if err := s.DeletePort(t.Context(), caller("p1"), id); err != nil {
				t.Fatal(err)
			}
		}
	}
	p, err := s.CreatePort(t.Context(), caller("p1"), network.PortRequest{NetworkID: n.ID})
	if err != nil || p.FixedIPs[0].Address != "10.0.0.77" {
		t.Errorf("after one was freed: %+v, %v", p, err)
	}
	if _, err := s.CreatePort(t.Context(), caller("p1"), network.PortRequest{NetworkID: n.ID}); code(err) != "IpAddressGenerationFailure" {
		t.Errorf("full subnet: %v", err)
	}
	recount(t, d)
}

func code(err error) string {
	var e *fault.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// recount compares every usage counter with the rows that it counts.
func recount(t *testing.T, d *db.DB) {
	t.Helper()
	for res, table := range map[string]string{"network": "network_networks", "subnet": "network_subnets", "port": "network_ports", "router": "network_routers",
		"floatingip": "network_floatingips", "security_group": "network_groups", "security_group_rule": "network_rules"} {
		rows, err := d.Query(t.Context(), "SELECT u.project_id, u.used, (SELECT COUNT(*) FROM "+table+" r WHERE r.project_id = u.project_id) FROM network_usages u WHERE u.resource = ?", res)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var project string
			var used, real int
			if err := rows.Scan(&project, &used, &real); err != nil {
				t.Fatal(err)
			}
			if used != real {
				t.Errorf("%s of %s: counted %d, there are %d", res, project, used, real)
			}
		}
		_ = rows.Close()
	}
}

func TestQuotaIsExactUnderConcurrency(t *testing.T) {
	s, d := open(t)
	n, _ := lan(t, s, "p1", "10.0.0.0/16")
	if err := s.SetQuotas(t.Context(), "p1", map[string]int64{"port": 25}); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	ok, over := 0, 0
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			_, err := s.CreatePort(context.Background(), caller("p1"), network.PortRequest{NetworkID: n.ID})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				ok++
			} else if code(err) == "OverQuota" {
				over++
			} else {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if ok != 25 || over != 15 {
		t.Errorf("%d made, %d refused; want 25, 15", ok, over)
	}
	recount(t, d)
	if left, err := s.QuotaLeft(t.Context(), caller("p1")); err != nil || left != 0 {
		t.Errorf("left %d, %v", left, err)
	}
}

func TestNamedAddresses(t *testing.T) {
	s, _ := open(t)
	n, sub := lan(t, s, "p1", "10.0.0.0/24")
	for _, tc := range []struct {
		name string
		want []network.FixedIP
		code string
	}{
		{"in the pool", []network.FixedIP{{Address: "10.0.0.9"}}, ""},
		{"taken", []network.FixedIP{{Address: "10.0.0.9"}}, "IpAddressInUse"},
		{"broadcast", []network.FixedIP{{Address: "10.0.0.255"}}, "InvalidIpForSubnet"},
		{"elsewhere", []network.FixedIP{{Address: "192.168.1.1"}}, "InvalidIpForNetwork"},
		{"elsewhere with subnet", []network.FixedIP{{SubnetID: sub.ID, Address: "192.168.1.1"}}, "InvalidIpForSubnet"},
		{"unknown subnet", []network.FixedIP{{SubnetID: "nope"}}, "SubnetNotFound"},
		{"nothing named", []network.FixedIP{{}}, "InvalidInput"},
		{"no address", []network.FixedIP{}, ""},
		{"two of one subnet", []network.FixedIP{{SubnetID: sub.ID}, {SubnetID: sub.ID}}, ""},
	} {
		p, err := s.CreatePort(t.Context(), caller("p1"), network.PortRequest{NetworkID: n.ID, FixedIPs: tc.want})
		if code(err) != tc.code || (err == nil) != (tc.code == "") {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.code)
		}
		if err == nil && len(p.FixedIPs) != len(tc.want) {
			t.Errorf("%s: %+v", tc.name, p.FixedIPs)
		}
	}
	// The cursor passes over the address that was taken by name.
	for range 8 {
		p, err := s.CreatePort(t.Context(), caller("p1"), network.PortRequest{NetworkID: n.ID})
		if err != nil || p.FixedIPs[0].Address == "10.0.0.9" {
			t.Fatalf("%+v, %v", p, err)
		}
	}
}

func TestIPv6AddressesFollowTheMAC(t *testing.T) {
	s, _ := open(t)
	n, sub := lan(t, s, "p1", "2001:db8::/64", func(_ *network.Network, r *local.SubnetRequest) {
		r.IPv6AddressMode, r.IPv6RAMode = "slaac", "slaac"
	})
	p, err := s.CreatePort(t.Context(), caller("p1"), network.PortRequest{NetworkID: n.ID, MAC: "FA:16:3E:00:00:01"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]network.FixedIP{{SubnetID: sub.ID, Address: "2001:db8::f816:3eff:fe00:1"}}, p.FixedIPs); diff != "" {
		t.Error(diff)
	}
	if _, err := s.CreatePort(t.Context(), caller("p1"), network.PortRequest{NetworkID: n.ID, MAC: "fa:16:3e:00:00:01"}); code(err) != "MacAddressInUse" {
		t.Errorf("same MAC: %v", err)
	}
	// The subnet goes although a port has an address of it, and the port stays without.
	do(t, s, func(c *local.Change) error { return c.DeleteSubnet(sub.ID) })
	if got, err := s.GetPort(t.Context(), caller("p1"), p.ID); err != nil || len(got.FixedIPs) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}
