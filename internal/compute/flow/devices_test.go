package flow

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"kilonova/internal/auth"
	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/store"
	"kilonova/internal/compute/virt"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/image"
	"kilonova/internal/network"
	"kilonova/internal/operation"
)

// The model's side of ports that are PCI devices: each host has four virtual functions.

func (w *world) withDevices() {
	info := virt.HostInfo{}
	for i := range 4 {
		info.PCI = append(info.PCI, compute.HostDevice{Address: fmt.Sprintf("0000:0a:10.%d", i), VendorID: "8086", ProductID: "10ed", Type: compute.PCIVirtual, Tags: map[string]string{"physical_network": "phys"}})
	}
	text, err := json.Marshal(info)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, h := range []string{"h1", "h2", "h3"} {
		w.write(func(tx *db.Tx) error {
			return w.store.SaveHost(w.t.Context(), tx, &compute.Host{Name: h, NodeID: "rp-" + h, Info: text}, h)
		})
	}
}

// free gives a device of a host that nobody holds.
func (w *world) free(ctx context.Context, tx *db.Tx, host string, also map[string]string) (string, error) {
	all, err := w.store.HostClaims(ctx, tx, host)
	if err != nil {
		return "", err
	}
	taken := slices.Collect(maps.Values(also))
	for _, c := range all {
		taken = append(taken, c.Claim.Addresses()...)
	}
	for i := range 4 {
		if a := fmt.Sprintf("0000:0a:10.%d", i); !slices.Contains(taken, a) {
			return a, nil
		}
	}
	return "", fault.New(fault.Invalid, "host %s has no device left", host)
}

// takeDevices claims devices for the ports of a want, as the conductor does before it claims amounts.
func (w *world) takeDevices(ctx context.Context, want Want, host string) (claim *compute.Claim, err error) {
	ports := slices.Clone(want.Ports)
	for _, v := range compute.DevicesOf(want.Server.VIFs) {
		ports = append(ports, *compute.DeviceOf(&v))
	}
	if len(ports) == 0 {
		return nil, nil
	}
	err = w.db.Write(ctx, func(tx *db.Tx) error {
		if want.Migration != "" {
			err = w.store.HandClaim(ctx, tx, want.Server.ID, want.Migration)
		} else {
			err = w.store.DropClaims(ctx, tx, want.Server.ID)
		}
		claim = &compute.Claim{Ports: map[string]string{}}
		for _, p := range ports {
			if err == nil {
				claim.Ports[p.PortID], err = w.free(ctx, tx, host, claim.Ports)
			}
		}
		if err != nil {
			return err
		}
		return w.store.PutClaim(ctx, tx, store.HostClaim{Consumer: want.Server.ID, ServerID: want.Server.ID, Host: host, Claim: *claim})
	})
	return claim, err
}

// TakePort implements Placer.
func (w *world) TakePort(ctx context.Context, s *compute.Server, port compute.PortDevice) (*compute.Claim, error) {
	claim := &compute.Claim{}
	return claim, w.db.Write(ctx, func(tx *db.Tx) error {
		held, err := w.store.ClaimOf(ctx, tx, s.ID)
		if err != nil {
			return err
		}
		if held != nil {
			*claim = held.Claim
		}
		if claim.Ports[port.PortID] != "" {
			return nil
		}
		address, err := w.free(ctx, tx, s.Host, nil)
		if err != nil {
			return err
		}
		claim.Ports = maps.Clone(claim.Ports)
		if claim.Ports == nil {
			claim.Ports = map[string]string{}
		}
		claim.Ports[port.PortID] = address
		return w.store.PutClaim(ctx, tx, store.HostClaim{Consumer: s.ID, ServerID: s.ID, Host: s.Host, Claim: *claim})
	})
}

// BindDevice implements network.DeviceBinder.
func (n *modelNetwork) BindDevice(ctx context.Context, c *auth.Caller, port, device, owner, host string, d network.DeviceBinding) (*network.Port, error) {
	p, err := n.BindPort(ctx, c, port, device, owner, host)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p.Profile = map[string]any{network.ProfileSlot: d.Slot}
	return p, nil
}

// wholeDevices tells what is wrong with ports that are devices and with what is held of hosts.
func (w *world) wholeDevices(servers []*compute.Server) (bad []string) {
	ctx := w.t.Context()
	say := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	known, bound := map[string]bool{}, map[string]bool{}
	for _, s := range servers {
		known[s.ID+" "+s.Host] = true
		if m, err := w.store.Migration(ctx, w.db, s.System[compute.SysMigration]); err == nil && s.System[compute.SysMigration] != "" {
			known[m.UUID+" "+m.SourceHost] = true
		}
		for _, v := range compute.DevicesOf(s.VIFs) {
			bound[v.PortID] = true
			held, err := w.store.ClaimOf(ctx, w.db, s.ID)
			if err != nil {
				w.t.Fatal(err)
			}
			port, own := w.nets.ports[v.PortID], s.Claim()
			switch {
			case s.Host == "" && (held != nil || port.Profile != nil):
				say("server %s on no host holds %+v, its port is %v", s.ID, held, port.Profile)
			case s.Host == "":
			case held == nil || own == nil || held.Claim.Ports[v.PortID] == "" || held.Host != s.Host || own.Ports[v.PortID] != held.Claim.Ports[v.PortID] || port.Profile[network.ProfileSlot] != own.Ports[v.PortID]:
				say("server %s on %s holds %+v, has %+v on record, its port is %v", s.ID, s.Host, held, own, port.Profile)
			}
			if s.Fault != nil {
				continue // a command that failed after its effect: the server says so, and it can be asked for again
			}
			if g := w.hosts[s.Host]; g != nil && g.guests[s.ID] != nil && g.guests[s.ID].power == virt.Running && len(compute.DevicesOf(g.guests[s.ID].spec.VIFs)) != len(compute.DevicesOf(s.VIFs)) {
				say("the guest of server %s on %s lacks a device: %+v", s.ID, s.Host, g.guests[s.ID].spec.VIFs)
			}
		}
	}
	all, err := w.store.HostClaims(ctx, w.db)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range all {
		if !known[c.Consumer+" "+c.Host] {
			say("%s holds %+v on %s and is nobody there", c.Consumer, c.Claim, c.Host)
		}
	}
	for id, p := range w.nets.ports {
		if p.Profile != nil && !bound[id] {
			say("port %s is the device %v and nobody's", id, p.Profile)
		}
	}
	return bad
}

// deviceNIC asks for a port that is a device.
func deviceNIC(port string) compute.NICRequest {
	return compute.NICRequest{PortID: port, VNICType: "direct", Device: &compute.PortDevice{PortID: port, VNICType: "direct", PhysicalNetwork: "phys"}}
}

// giveDevices makes devices, and ports that will be such.
func (w *world) giveDevices() {
	w.withDevices()
	for _, p := range []string{"given", "second", "third"} {
		w.nets.givePort(p)
		w.nets.ports[p].VNICType = "direct"
	}
}

// TestALiveMigrationThatFailedWaitsToKnowWhereTheGuestIs: until then it leaves the guest alone and says what it waits for; then the guest has its devices where it is.
func TestALiveMigrationThatFailedWaitsToKnowWhereTheGuestIs(t *testing.T) {
	const silent, onItsWay = "it cannot be told where instance", "is on its way from host h1 to host h2"
	for _, c := range []struct {
		name, says string
		left       bool // the guest has left the source
		trouble    func(w *world, server string)
		end        func(w *world, server string)
	}{
		{"both hosts are down, it stayed", silent, false, bothDown, func(*world, string) {}},
		{"both hosts are down, it left", silent, true, bothDown, func(*world, string) {}},
		{"on its way, it stays", onItsWay, false, onBoth, func(w *world, server string) { delete(w.hosts["h2"].guests, server) }},
		{"on its way, it leaves", onItsWay, true, onBoth, func(w *world, server string) { delete(w.hosts["h1"].guests, server) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.giveDevices()
			var once sync.Once
			e, _ := w.engine(func(_ context.Context, p operation.Point, step string, r *operation.Run) error {
				if r.Kind == compute.OpLiveMigrate && step == "migrate" {
					switch p {
					case operation.AfterDo:
						return fault.New(fault.Internal, "injected")
					case operation.BeforeUndo:
						once.Do(func() { c.trouble(w, r.Object) })
					}
				}
				return nil
			})
			s := w.server(nil)
			w.ended(w.do(e, compute.OpCreate, s.ID, compute.CreateInput{NICs: []compute.NICRequest{deviceNIC("given"), deviceNIC("second")}}), operation.Done)
			if !c.left {
				w.refuse["h1/"+string(command.LiveMigrate)] = fault.New(fault.Internal, "the guest does not move")
			}
			op, err := w.accept(e, compute.OpLiveMigrate, s.ID, false, compute.LiveMigrateInput{Host: "h2"})
			if err != nil {
				t.Fatal(err)
			}
			w.until("the operation says what it waits for", func() bool {
				r, err := e.Show(t.Context(), op)
				if err != nil {
					t.Fatal(err)
				}
				last := r.Steps[len(r.Steps)-1]
				return r.State == operation.Undoing && last.Undo && last.Name == "migrate" && last.Finished.IsZero() && strings.Contains(last.Public, c.says)
			})
			w.mu.Lock()
			for _, h := range w.hosts {
				if i := slices.Index(h.log, string(command.LiveMigrate)); i >= 0 && slices.Contains(h.log[i:], string(command.AttachInterface)) {
					t.Errorf("%s was asked %v although nobody knew where the guest was", h.name, h.log)
				}
			}
			c.end(w, s.ID)
			w.mu.Unlock()
			w.rise(e)
			w.ended(w.wait(e, op), operation.Undone)
			want := "h1"
			if c.left {
				want = "h2"
			}
			if got := w.get(s.ID); got.Host != want {
				t.Errorf("the server is on %s, want %s", got.Host, want)
			}
			if g := w.hosts[want].guests[s.ID]; g == nil || len(compute.DevicesOf(g.spec.VIFs)) != 2 {
				t.Errorf("the guest on %s is %+v, want it with two devices", want, g)
			}
			w.mustBeWhole()
		})
	}
}

func bothDown(w *world, _ string) {
	w.fall("h1")
	w.fall("h2")
}

// onBoth plays a migration under way: each host has the guest, and each says that it runs.
func onBoth(w *world, server string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, pair := range [][2]string{{"h1", "h2"}, {"h2", "h1"}} {
		if g := w.hosts[pair[0]].guests[server]; g != nil && w.hosts[pair[1]].guests[server] == nil {
			w.hosts[pair[1]].guests[server] = &modelGuest{spec: g.spec, power: g.power}
		}
	}
}

// TestEveryStepWithDevices is the exhaustive failure test for servers with ports that are PCI devices, where these matter.
func TestEveryStepWithDevices(t *testing.T) {
	big := compute.Flavor{ID: 2, FlavorID: "2", Name: "big", VCPUs: 4, RAMMB: 2048, RootGB: 2}
	here, there := compute.ResizeInput{Flavor: big, Host: "h1"}, compute.ResizeInput{Flavor: big, Host: "h2"}
	nics := compute.CreateInput{NICs: []compute.NICRequest{deviceNIC("given"), deviceNIC("second")}}
	with := func(kinds ...any) func(w *world, e *operation.Engine) *compute.Server {
		return func(w *world, e *operation.Engine) *compute.Server {
			w.giveDevices()
			s := w.server(nil)
			w.ended(w.do(e, compute.OpCreate, s.ID, nics), operation.Done)
			for i := 0; i < len(kinds); i += 2 {
				w.ended(w.do(e, kinds[i].(string), s.ID, kinds[i+1]), operation.Done)
			}
			return w.get(s.ID)
		}
	}
	shelf := func(w *world, e *operation.Engine) *compute.Server {
		w.imgs.add("shelf", image.Queued, nil)
		return with(compute.OpShelve, compute.ShelveInput{ImageID: "shelf", Offload: true})(w, e)
	}
	everyScene(t, []scene{
		{kind: compute.OpCreate, input: plain(nics), before: func(w *world, _ *operation.Engine) *compute.Server {
			w.giveDevices()
			return w.server(nil)
		}},
		{kind: compute.OpDelete, variant: "while resized", input: plain(nil), before: with(compute.OpResize, there)},
		{kind: compute.OpResize, variant: "on one host", input: plain(here), before: with()},
		{kind: compute.OpResize, variant: "to another host", input: plain(there), before: with()},
		{kind: compute.OpConfirmResize, variant: "on one host", input: plain(nil), before: with(compute.OpResize, here)},
		{kind: compute.OpRevertResize, variant: "on one host", input: plain(nil), before: with(compute.OpResize, here)},
		{kind: compute.OpRevertResize, variant: "to another host", input: plain(nil), before: with(compute.OpResize, there)},
		{kind: compute.OpLiveMigrate, input: plain(compute.LiveMigrateInput{}), before: with()},
		{kind: compute.OpEvacuate, input: plain(compute.EvacuateInput{}), before: func(w *world, e *operation.Engine) *compute.Server {
			s := with()(w, e)
			w.fall("h1")
			return s
		}},
		{kind: compute.OpUnshelve, input: plain(compute.UnshelveInput{}), before: shelf, skips: []string{"power-on"}},
		{kind: compute.OpAttachNIC, input: plain(compute.NICInput{NICRequest: deviceNIC("third")}), before: with()},
		{kind: compute.OpDetachNIC, input: plain(compute.NICInput{NICRequest: compute.NICRequest{PortID: "second"}}), before: with()},
	}, false)
}
