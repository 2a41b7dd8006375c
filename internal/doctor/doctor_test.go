package doctor

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/owed"
	"kilonova/internal/compute/store"
	"kilonova/internal/compute/virt"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/network"
	"kilonova/internal/operation"
	"kilonova/internal/placement"
)

// patient is a cloud on record, healthy until a case breaks it.
type patient struct {
	t         *testing.T
	cfg       Config
	engine    *operation.Engine
	providers []placement.Provider
	held      map[string][]placement.Holding
	ports     []network.Port
	wiring    Wiring
	guests    map[string]map[string]virt.PowerState
	silent    map[string]bool
}

func (p *patient) HeldOn(_ context.Context, provider string) ([]placement.Holding, error) {
	return p.held[provider], nil
}
func (p *patient) Providers(context.Context, ...string) ([]placement.Provider, error) {
	return p.providers, nil
}
func (p *patient) ServerPorts(context.Context) ([]network.Port, error) { return p.ports, nil }

func (p *patient) Wiring(context.Context) (*Wiring, error) { return &p.wiring, nil }

// twoHosts gives the port's network a second port on another host.
func (p *patient) twoHosts(tunnels map[string]string) {
	twin := p.ports[0]
	twin.ID, twin.HostID, twin.FixedIPs = "cccccccc-0000-4000-8000-000000000002", "h2", nil
	p.ports = append(p.ports, twin)
	p.wiring = Wiring{Carried: map[string]bool{twin.NetworkID: true}, Tunnels: tunnels}
}

func (p *patient) write(fn func(tx *db.Tx) error) {
	p.t.Helper()
	if err := p.cfg.DB.Write(p.t.Context(), fn); err != nil {
		p.t.Fatal(err)
	}
}

func (p *patient) change(server string, f func(s *compute.Server)) {
	p.t.Helper()
	p.write(func(tx *db.Tx) error {
		return p.cfg.Store.UpdateServer(p.t.Context(), tx, server, func(s *compute.Server) error { f(s); return nil })
	})
}

const (
	alice  = "aaaaaaaa-0000-4000-8000-000000000001"
	ghost  = "aaaaaaaa-0000-4000-8000-000000000002"
	node1  = "bbbbbbbb-0000-4000-8000-000000000001"
	node2  = "bbbbbbbb-0000-4000-8000-000000000002"
	portID = "cccccccc-0000-4000-8000-000000000001"
)

func newPatient(t *testing.T) *patient {
	t.Helper()
	ctx := t.Context()
	d, err := db.Open(ctx, "sqlite:"+filepath.Join(t.TempDir(), "k.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	p := &patient{t: t, held: map[string][]placement.Holding{}, guests: map[string]map[string]virt.PowerState{}, silent: map[string]bool{}}
	if p.engine, err = operation.New(ctx, operation.Config{DB: d, Owner: "t"}); err != nil {
		t.Fatal(err)
	}
	st, err := store.New(ctx, d)
	if err != nil {
		t.Fatal(err)
	}
	book, err := owed.New(ctx, d)
	if err != nil {
		t.Fatal(err)
	}
	p.cfg = Config{DB: d, Store: st, Owed: book, Allocations: p, Ports: p, Looks: 1, Pause: time.Nanosecond, Unled: time.Minute,
		Guests: func(_ context.Context, host string, _ []string) (Seen, error) {
			if p.silent[host] {
				return Seen{}, fault.New(fault.Unavailable, "silent")
			}
			return Seen{Guests: p.guests[host], Complete: true}, nil
		}}
	for host, node := range map[string]string{"h1": node1, "h2": node2} {
		p.write(func(tx *db.Tx) error {
			return st.SaveHost(ctx, tx, &compute.Host{Name: host, NodeID: node, LastSeen: clock.Now().Add(24 * time.Hour)}, host)
		})
		p.providers = append(p.providers, placement.Provider{UUID: node, Name: host, Inventory: map[string]placement.Inventory{"VCPU": {Total: 4, AllocationRatio: 1}}})
		p.guests[host] = map[string]virt.PowerState{}
	}
	p.write(func(tx *db.Tx) error {
		return st.InsertServer(ctx, tx, &compute.Server{ID: alice, ProjectID: "p", UserID: "u", VMState: compute.VMActive, PowerState: compute.PowerRunning, Host: "h1", ComputeID: node1,
			LaunchedOn: "h1", Flavor: compute.Flavor{VCPUs: 2, RAMMB: 512}, VIFs: []network.VIF{{PortID: portID}}, Created: clock.Now().Add(-time.Hour), Updated: clock.Now().Add(-time.Hour)})
	})
	p.held[node1] = []placement.Holding{{Consumer: alice, Provider: node1, Resources: placement.Resources{"VCPU": 2}}}
	p.ports = []network.Port{{ID: portID, DeviceID: alice, DeviceOwner: "compute:nova", HostID: "h1", FixedIPs: []network.FixedIP{{SubnetID: "s", Address: "10.0.0.2"}}}}
	p.guests["h1"][alice] = virt.Running
	return p
}

func (p *patient) look() *Report {
	p.t.Helper()
	r, err := Check(p.t.Context(), p.cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

func TestHealthyCloudHasNoFindings(t *testing.T) {
	p := newPatient(t)
	r := p.look()
	if !r.Healthy() || len(r.Notes) != 0 {
		t.Errorf("a healthy cloud:\n%s", r.Text())
	}
	if r.Counts["servers"] != 1 || r.Counts["guests"] != 1 || r.Counts["ports of servers"] != 1 {
		t.Errorf("counts %v", r.Counts)
	}
}

func TestEachBreachIsFound(t *testing.T) {
	for _, c := range []struct {
		name  string
		inv   Invariant
		text  string
		wound func(p *patient)
	}{
		{"an operation that waits for a person", NoLostAccept, "needs attention: the disk is gone", func(p *patient) {
			p.operation(alice, compute.OpStop, "attention", "the disk is gone", time.Now())
		}},
		{"an operation without a conductor", NoLostAccept, "carried on by nobody", func(p *patient) {
			p.operation(alice, compute.OpStop, "running", "", time.Now().Add(-time.Hour))
		}},
		{"two servers with one port", ExactlyOneEffect, "two servers have the port", func(p *patient) {
			p.second(func(s *compute.Server) { s.VIFs = []network.VIF{{PortID: portID}} })
		}},
		{"one address twice", ExactlyOneEffect, "is also that of port", func(p *patient) {
			twin := p.ports[0]
			twin.ID = "cccccccc-0000-4000-8000-000000000002"
			p.ports = append(p.ports, twin)
		}},
		{"too much allocated", NoDoubleAllocation, "6 VCPU are allocated of 4", func(p *patient) { p.held[node1][0].Resources["VCPU"] = 6 }},
		{"allocations elsewhere", NoOrphanAllocation, "its allocations on " + node2, func(p *patient) {
			p.held[node2] = []placement.Holding{{Consumer: alice, Provider: node2, Resources: placement.Resources{"VCPU": 2}}}
			p.held[node1] = nil
		}},
		{"allocations of a deleted server", NoOrphanAllocation, "belong to no server and no operation", func(p *patient) {
			p.deleted()
			p.held[node1] = append(p.held[node1], placement.Holding{Consumer: ghost, Provider: node1, Resources: placement.Resources{"VCPU": 1}})
		}},
		{"no allocations", NoMissingThing, "has no allocations", func(p *patient) { p.held[node1] = nil }},
		{"a port of nobody", NoOrphanThing, "belongs to server " + ghost, func(p *patient) {
			p.ports = append(p.ports, network.Port{ID: "cccccccc-0000-4000-8000-000000000002", DeviceID: ghost, DeviceOwner: "compute:nova"})
		}},
		{"a host without tunnels", NoMissingThing, "host h2 has no address for tunnels", func(p *patient) { p.twoHosts(map[string]string{"h1": "192.0.2.1", "h2": ""}) }},
		{"two hosts with one end", NoMissingThing, "both end their tunnels at 192.0.2.1", func(p *patient) {
			p.twoHosts(map[string]string{"h1": "192.0.2.1", "h2": "192.0.2.1"})
		}},
		{"a port kept ready for nothing", NoOrphanThing, "is kept ready on host h2", func(p *patient) {
			p.wiring.Reserved = []network.Binding{{PortID: portID, Host: "h2"}}
		}},
		{"an unknown guest", NoOrphanThing, "a guest on h2 belongs to no server", func(p *patient) { p.guests["h2"][ghost] = virt.Running }},
		{"a guest elsewhere", NoOrphanThing, "a guest on h2 belongs to a server that is on", func(p *patient) { p.guests["h2"][alice] = virt.Shutdown }},
		{"a guest of a deleted server", DeletedStays, "belongs to a server that is deleted", func(p *patient) {
			p.deleted()
			p.guests["h2"][ghost] = virt.Running
		}},
		{"no guest", NoMissingThing, "host h1 has no guest of it", func(p *patient) { delete(p.guests["h1"], alice) }},
		{"a guest that does not run", NoMissingThing, "in power state 4", func(p *patient) { p.guests["h1"][alice] = virt.Shutdown }},
		{"two running guests of a resized server", NeverTwoGuests, "the server runs on h1 and on h2", func(p *patient) {
			p.write(func(tx *db.Tx) error {
				return p.cfg.Store.InsertMigration(p.t.Context(), tx, &compute.Migration{UUID: ghost, ServerID: alice, Type: "resize", Status: "finished", SourceHost: "h1", DestHost: "h2"})
			})
			p.change(alice, func(s *compute.Server) {
				f := s.Flavor
				s.VMState, s.OldFlavor, s.Host, s.ComputeID, s.System = compute.VMResized, &f, "h2", node2, map[string]string{compute.SysMigration: ghost}
			})
			p.held[node2] = p.held[node1]
			p.ports[0].HostID = "h2"
			p.guests["h2"][alice] = virt.Running
		}},
		{"an unbound port", NoMissingThing, `its port ` + portID + ` bound on "h2"`, func(p *patient) { p.ports[0].HostID = "h2" }},
		{"a lost port", NoMissingThing, "whose port is not there", func(p *patient) { p.ports = nil }},
		{"an ended operation that holds", TaskStateIsHeld, "still holds its object", func(p *patient) {
			p.operation(alice, compute.OpStop, "done", "", time.Now())
			p.write(func(tx *db.Tx) error {
				_, err := tx.Exec(p.t.Context(), "UPDATE operations SET finished = 1")
				return err
			})
		}},
		{"an unknown state", LegalState, `unknown state "melted"`, func(p *patient) { p.change(alice, func(s *compute.Server) { s.VMState = "melted" }) }},
		{"a state that needs a host", LegalState, "is active and on no host", func(p *patient) { p.change(alice, func(s *compute.Server) { s.Host = "" }) }},
		{"a step from the future", Fencing, "an epoch that the operation never had", func(p *patient) {
			p.operation(alice, compute.OpStop, "running", "", time.Now())
			p.write(func(tx *db.Tx) error {
				_, err := tx.Exec(p.t.Context(), "INSERT INTO operation_steps (operation, name, event, is_undo, attempt, epoch, host, started, finished, succeeded, error, public) SELECT id, 's', '', 0, 1, 9, '', 0, 0, 0, '', '' FROM operations")
				return err
			})
		}},
		{"steps of nothing", Bounded, "steps are left", func(p *patient) {
			p.write(func(tx *db.Tx) error {
				_, err := tx.Exec(p.t.Context(), "INSERT INTO operation_steps (operation, name, event, is_undo, attempt, epoch, host, started, finished, succeeded, error, public) VALUES ('gone', 's', '', 0, 1, 1, '', 0, 0, 0, '', '')")
				return err
			})
		}},
		{"a host that is up and does not pay", NoOrphanThing, "host h1 is up and owes destroy", func(p *patient) {
			p.write(func(tx *db.Tx) error {
				return p.cfg.Owed.Add(p.t.Context(), tx, owed.Debt{Host: "h1", Server: ghost, Verb: command.Destroy, Since: clock.Now().Add(-time.Hour)})
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPatient(t)
			c.wound(p)
			r := p.look()
			if !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Invariant == c.inv && strings.Contains(f.Text, c.text) }) {
				t.Errorf("not found: %s, %q; the report is\n%s", c.inv, c.text, r.Text())
			}
		})
	}
}

// operation writes an open operation as the engine would have left it.
func (p *patient) operation(server, kind, state, cause string, lease time.Time) {
	p.write(func(tx *db.Tx) error {
		if _, err := p.engine.Accept(p.t.Context(), tx, operation.Spec{Kind: kind, ObjectType: "server", Object: server, TaskState: "powering-off"}); err != nil {
			return err
		}
		_, err := tx.Exec(p.t.Context(), "UPDATE operations SET state = ?, cause = ?, lease_until = ?, due = ? WHERE object = ?", state, cause, clock.Micros(lease), clock.Micros(lease), server)
		return err
	})
}

func (p *patient) second(change func(s *compute.Server)) {
	s := &compute.Server{ID: ghost, ProjectID: "p", UserID: "u", VMState: compute.VMError, Flavor: compute.Flavor{VCPUs: 1}}
	change(s)
	p.write(func(tx *db.Tx) error { return p.cfg.Store.InsertServer(p.t.Context(), tx, s) })
}

func (p *patient) deleted() {
	p.second(func(*compute.Server) {})
	p.write(func(tx *db.Tx) error { return p.cfg.Store.DeleteServer(p.t.Context(), tx, ghost) })
}

func TestOpenOperationsExcuse(t *testing.T) {
	p := newPatient(t)
	p.operation(alice, compute.OpStop, "running", "", time.Now().Add(time.Minute))
	p.guests["h1"][alice] = virt.Shutdown
	p.held[node2] = []placement.Holding{{Consumer: alice, Provider: node2, Resources: placement.Resources{"VCPU": 2}}}
	if r := p.look(); !r.Healthy() {
		t.Errorf("in the middle of an operation:\n%s", r.Text())
	}
}

func TestSilentAndDeadHostsAreNoted(t *testing.T) {
	p := newPatient(t)
	p.silent["h1"] = true
	p.write(func(tx *db.Tx) error {
		return p.cfg.Store.Heartbeat(t.Context(), tx, "h2", store.ComputeBinary, clock.Now().Add(-time.Hour))
	})
	r := p.look()
	text := strings.Join(r.Notes, "\n")
	if !r.Healthy() || !strings.Contains(text, "host h1 does not answer") || !strings.Contains(text, "host h2 is down") {
		t.Errorf("%s", r.Text())
	}
}

func TestOnlyWhatStaysCounts(t *testing.T) {
	p := newPatient(t)
	looks := 0
	inner := p.cfg.Guests
	p.cfg.Looks = 3
	p.cfg.Guests = func(ctx context.Context, host string, expected []string) (Seen, error) {
		if looks++; looks <= 2 { // the first look at both hosts
			return Seen{Guests: map[string]virt.PowerState{}, Complete: true}, nil
		}
		return inner(ctx, host, expected)
	}
	if r := p.look(); !r.Healthy() || looks != 4 {
		t.Errorf("after %d questions:\n%s", looks, r.Text())
	}
}

// TestPageSaysWhatIsChecked: findings name guarantees by their numbers, so each must stand in the page, marked as checked, and no other.
func TestPageSaysWhatIsChecked(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "guarantees.md"))
	if err != nil {
		t.Fatal(err)
	}
	marked := map[Invariant]bool{}
	for _, row := range regexp.MustCompile(`(?m)^\| (\d+) \| ([^|]*) \|`).FindAllStringSubmatch(string(page), -1) {
		n, err := strconv.Atoi(row[1])
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(row[2], "(d)") {
			marked[Invariant(n)] = true
		}
	}
	want := map[Invariant]bool{}
	for i := range names {
		want[i] = true
	}
	if d := cmp.Diff(want, marked); d != "" {
		t.Errorf("docs/guarantees.md marks other guarantees than those that are checked (-want +got):\n%s", d)
	}
}
