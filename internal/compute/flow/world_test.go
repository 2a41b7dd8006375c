package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"kilonova/internal/bus"
	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/owed"
	"kilonova/internal/compute/store"
	"kilonova/internal/compute/virt"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/image"
	"kilonova/internal/network"
	"kilonova/internal/operation"
	"kilonova/internal/placement"
)

// world is a small cloud in which flows run: the real engine and store on SQLite, and plain models of the hosts, the network, the images and the
// allocations that keep the promises of their interfaces.
type world struct {
	t     *testing.T
	db    *db.DB
	store *store.Store
	owed  *owed.Book
	hosts map[string]*modelHost
	nets  *modelNetwork
	imgs  *modelImages
	alloc *modelPlacement
	mu    sync.Mutex // of the hosts
	down  map[string]bool
	// refuse makes a host fail a verb.
	refuse map[string]error // "host/verb"

	liveAttempts int
	real         *realHosts // nil: the hosts are models
}

// guests gives what is on a host.
func (w *world) guests(host string) map[string]virt.PowerState {
	if w.real != nil {
		return w.real.guests(host)
	}
	out := map[string]virt.PowerState{}
	for id, g := range w.hosts[host].guests {
		out[id] = g.power
	}
	return out
}

type modelHost struct {
	name   string
	guests map[string]*modelGuest
	epochs map[string]int64
	kept   map[string]virt.Spec // disks kept aside by prepare-resize
	log    []string
}

type modelGuest struct {
	spec  virt.Spec
	power virt.PowerState
	image string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	d, err := db.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "k.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	w := &world{t: t, db: d, hosts: map[string]*modelHost{}, down: map[string]bool{}, refuse: map[string]error{},
		nets:  &modelNetwork{ports: map[string]*network.Port{}},
		imgs:  &modelImages{m: map[string]*image.Image{}},
		alloc: &modelPlacement{capacity: placement.Resources{"VCPU": 64, "MEMORY_MB": 65536}, m: map[string]placement.Allocations{}, c: map[string]placement.Consumer{}}}
	if w.store, err = store.New(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if w.owed, err = owed.New(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	w.addHosts("h1", "h2", "h3")
	return w
}

func (w *world) addHosts(names ...string) {
	w.t.Helper()
	for _, h := range names {
		w.hosts[h] = &modelHost{name: h, guests: map[string]*modelGuest{}, epochs: map[string]int64{}, kept: map[string]virt.Spec{}}
		w.write(func(tx *db.Tx) error {
			return w.store.SaveHost(w.t.Context(), tx, &compute.Host{Name: h, NodeID: "rp-" + h}, h)
		})
	}
}

func (w *world) write(fn func(tx *db.Tx) error) {
	w.t.Helper()
	if err := w.db.Write(w.t.Context(), fn); err != nil {
		w.t.Fatal(err)
	}
}

// change alters a server behind the back of all operations.
func (w *world) change(server string, change func(s *compute.Server)) {
	w.t.Helper()
	w.write(func(tx *db.Tx) error {
		return w.store.UpdateServer(w.t.Context(), tx, server, func(s *compute.Server) error { change(s); return nil })
	})
}

// engine starts an engine with all flows on the world.
func (w *world) engine(inject func(ctx context.Context, p operation.Point, step string, r *operation.Run) error) (*operation.Engine, func()) {
	w.t.Helper()
	e, err := operation.New(w.t.Context(), operation.Config{DB: w.db, Owner: "test", Sole: true, Private: true, Sweep: 5 * time.Millisecond, Pause: time.Millisecond, UndoLimit: 10 * time.Minute, Inject: inject, Log: quiet()})
	if err != nil {
		w.t.Fatal(err)
	}
	e.Register(All(w.config())...)
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			w.t.Errorf("engine: %v", err)
		}
	})
	w.t.Cleanup(stop)
	return e, stop
}

func (w *world) config() Config {
	return Config{Store: w.store, Network: w.nets, Image: w.imgs, Placement: w.alloc, Agents: w, Placer: w, Owed: w.owed, AllowSameHost: true, LiveAttempts: w.liveAttempts, Patience: 50 * time.Millisecond}
}

// server makes a server record as the API does at create.
func (w *world) server(change func(s *compute.Server)) *compute.Server {
	w.t.Helper()
	s := &compute.Server{ID: id.UUID(), Name: "s", Hostname: "s", ProjectID: "p", UserID: "u", VMState: compute.VMBuilding, ImageID: "img", DiskConfig: "AUTO",
		Flavor: compute.Flavor{ID: 1, FlavorID: "1", Name: "tiny", VCPUs: 1, RAMMB: 512, RootGB: 1}}
	if change != nil {
		change(s)
	}
	w.write(func(tx *db.Tx) error { return w.store.InsertServer(w.t.Context(), tx, s) })
	return s
}

func (w *world) accept(e *operation.Engine, kind, server string, takeOver bool, input any) (string, error) {
	var op string
	err := w.db.Write(w.t.Context(), func(tx *db.Tx) error {
		var err error
		op, err = e.Accept(w.t.Context(), tx, operation.Spec{Kind: kind, ObjectType: "server", Object: server, Action: kind, Project: "p", User: "u", RequestID: id.Request(), Input: input, TakeOver: takeOver})
		return err
	})
	return op, err
}

// do runs one operation to its end.
func (w *world) do(e *operation.Engine, kind, server string, input any) *operation.Record {
	w.t.Helper()
	op, err := w.accept(e, kind, server, kind == compute.OpDelete, input)
	if err != nil {
		w.t.Fatalf("accept %s: %v", kind, err)
	}
	return w.wait(e, op)
}

// patience is how long tests wait for what must come: no test is about how soon.
const patience = 5 * time.Minute

func (w *world) wait(e *operation.Engine, op string) *operation.Record {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	r, err := e.Wait(ctx, op)
	if err != nil {
		w.t.Fatalf("operation %s: %v (%+v)", op, err, r)
	}
	return r
}

// until waits for a condition.
func (w *world) until(what string, f func() bool) {
	w.t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("never: %s", what)
		}
	}
}

// ended demands how an operation ended.
func (w *world) ended(r *operation.Record, want operation.State) {
	w.t.Helper()
	if r.State != want {
		w.t.Fatalf("%s ended as %s (%s), want %s", r.Kind, r.State, r.Cause, want)
	}
}

func (w *world) get(server string) *compute.Server {
	w.t.Helper()
	s, err := w.store.ServerAny(w.t.Context(), w.db, server)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// active makes a running server with one interface.
func (w *world) active(e *operation.Engine) *compute.Server {
	w.t.Helper()
	s := w.server(nil)
	w.ended(w.do(e, compute.OpCreate, s.ID, compute.CreateInput{NICs: []compute.NICRequest{{NetworkID: "net"}}}), operation.Done)
	return w.get(s.ID)
}

// Do implements Agents: the fence, and the verbs as a driver without hypervisor does them.
func (w *world) Do(ctx context.Context, host string, c command.Command, args, out any) error {
	if w.real != nil {
		return w.real.client.Do(ctx, host, c, args, out)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.hosts[host]
	if h == nil || w.down[host] {
		return fault.Wrap(bus.ErrNoResponder, fault.Unavailable, "The compute service on host %s does not answer.", host)
	}
	if c.Epoch < h.epochs[c.Server] {
		return fault.New(fault.Conflict, "stale").WithCode("stale-epoch")
	}
	if c.Epoch > 0 {
		h.epochs[c.Server] = c.Epoch
	}
	h.log = append(h.log, string(c.Verb))
	if err := w.refuse[host+"/"+string(c.Verb)]; err != nil {
		return err
	}
	raw, err := json.Marshal(args)
	if err != nil {
		return err
	}
	res, err := w.verb(h, c, raw)
	if err != nil || out == nil || res == nil {
		return err
	}
	b, err := json.Marshal(res)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, out)
}

func as[T any](raw json.RawMessage) (v T) {
	if err := json.Unmarshal(raw, &v); err != nil {
		panic(err)
	}
	return v
}

func (w *world) verb(h *modelHost, c command.Command, raw json.RawMessage) (any, error) {
	g := h.guests[c.Server]
	need := func() error {
		if g == nil {
			return fault.New(fault.NotFound, "no guest %s on %s", c.Server, h.name)
		}
		return nil
	}
	set := func(p virt.PowerState) (any, error) {
		if err := need(); err != nil {
			return nil, err
		}
		g.power = p
		return command.GuestResult{Power: p}, nil
	}
	start := func(sp virt.Spec, img string) (any, error) {
		p := virt.Running
		if sp.Stopped {
			p = virt.Shutdown
		}
		h.guests[c.Server] = &modelGuest{spec: sp, power: p, image: img}
		return command.GuestResult{Power: p}, nil
	}
	switch c.Verb {
	case command.Spawn, command.Rebuild:
		a := as[command.SpawnArgs](raw)
		if g != nil && c.Verb == command.Spawn {
			return command.GuestResult{Power: g.power}, nil
		}
		return start(a.Spec, a.ImageID)
	case command.Destroy:
		delete(h.guests, c.Server)
		delete(h.kept, c.Server)
		return nil, nil
	case command.PowerOn, command.Resume, command.Unpause, command.Reboot, command.Unrescue, command.Rescue:
		return set(virt.Running)
	case command.PowerOff:
		return set(virt.Shutdown)
	case command.Pause:
		return set(virt.Paused)
	case command.Suspend:
		return set(virt.Suspended)
	case command.PrepareResize:
		if err := need(); err != nil {
			return nil, err
		}
		if _, ok := h.kept[c.Server]; !ok {
			h.kept[c.Server] = g.spec
		}
		return set(virt.Shutdown)
	case command.SendDisks:
		w.hosts[as[command.SendDisksArgs](raw).Host].guests[c.Server] = &modelGuest{power: virt.Shutdown}
		return nil, nil
	case command.FinishResize:
		return start(as[command.SpecArgs](raw).Spec, "")
	case command.RevertResize:
		delete(h.kept, c.Server)
		return start(as[command.SpecArgs](raw).Spec, "")
	case command.ConfirmResize:
		delete(h.kept, c.Server)
		return nil, nil
	case command.AttachInterface, command.DetachInterface:
		if err := need(); err != nil {
			return nil, err
		}
		g.spec.VIFs = as[command.InterfaceArgs](raw).Spec.VIFs
		return nil, nil
	case command.Snapshot:
		return nil, w.imgs.fill(as[command.SnapshotArgs](raw).ImageID)
	case command.PreLiveMigrate:
		return map[string]string{"uri": "tcp://" + h.name}, nil
	case command.LiveMigrate:
		if g == nil {
			return nil, nil
		}
		if len(compute.DevicesOf(g.spec.VIFs)) > 0 {
			return nil, fault.New(fault.Conflict, "a guest with devices cannot leave")
		}
		to := as[command.LiveMigrateArgs](raw).Target["uri"][len("tcp://"):]
		w.hosts[to].guests[c.Server] = g
		delete(h.guests, c.Server)
		return nil, nil
	case command.RollbackLive:
		delete(h.guests, c.Server)
		return nil, nil
	case command.AdoptLive:
		return set(virt.Running)
	case command.QueryGuest:
		if err := need(); err != nil {
			return nil, err
		}
		return virt.GuestState{ID: c.Server, Power: g.power}, nil
	case command.SetPassword, command.CrashDump, command.ForgetLive, command.AbortLive, command.ForceLive:
		return nil, nil
	}
	return nil, fault.New(fault.NotImplemented, "verb %s", c.Verb)
}

// Place implements Placer: the first host by name that is up, not excluded and has room.
func (w *world) Place(ctx context.Context, want Want) (*Place, error) {
	need := placement.Resources{"VCPU": int64(want.Flavor.VCPUs), "MEMORY_MB": want.Flavor.RAMMB}
	if got, err := w.claimed(want); got != nil || err != nil {
		return got, err
	}
	for _, h := range slices.Sorted(maps.Keys(w.hosts)) {
		switch {
		case w.Down(ctx, h), slices.Contains(want.Exclude, h), want.Host != "" && want.Host != h, want.ForceHost != "" && want.ForceHost != h:
			continue
		}
		claim, err := w.takeDevices(ctx, want, h)
		if err != nil {
			return nil, err
		}
		to := placement.Allocations{"rp-" + h: need}
		me := placement.Consumer{UUID: want.Server.ID, ProjectID: "p", UserID: "u", Type: "INSTANCE"}
		if want.Migration == "" {
			err = w.alloc.Claim(ctx, me, to)
		} else {
			held, own, _ := w.alloc.Of(ctx, want.Server.ID)
			mover := placement.Consumer{UUID: want.Migration, ProjectID: "p", UserID: "u", Type: "MIGRATION"}
			err = w.alloc.ClaimAll(ctx, []placement.Consumer{mover, *own}, []placement.Allocations{held, to})
		}
		if err == nil {
			return &Place{Host: h, Node: h, Provider: "rp-" + h, Zone: "nova", Claim: claim}, nil
		}
	}
	return nil, NoValidHost("No valid host was found. The model has none left.")
}

func (w *world) claimed(want Want) (*Place, error) {
	consumer := want.Server.ID
	if want.Migration != "" {
		if held, _, _ := w.alloc.Of(w.t.Context(), want.Migration); len(held) == 0 {
			return nil, nil
		}
	}
	held, _, err := w.alloc.Of(w.t.Context(), consumer)
	for rp := range held {
		h := rp[len("rp-"):]
		c, err := w.store.ClaimOf(w.t.Context(), w.db, consumer)
		if c != nil && c.Host == h {
			return &Place{Host: h, Node: h, Provider: rp, Zone: "nova", Claim: &c.Claim}, err
		}
		return &Place{Host: h, Node: h, Provider: rp, Zone: "nova"}, err
	}
	return nil, err
}

func (w *world) Check(context.Context, Want, string) error { return nil }
func (w *world) Built(context.Context, string, bool)       {}
func (w *world) Down(_ context.Context, host string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.down[host] || w.hosts[host] == nil
}

// whole gives every way in which the world is not as it should be, once no operation is open and no host is down.
func (w *world) whole() []string {
	w.t.Helper()
	var bad []string
	say := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	ctx := w.t.Context()
	servers, err := w.store.ListServers(ctx, w.db, store.ListFilter{})
	if err != nil {
		w.t.Fatal(err)
	}
	guests, consumers, vifs := map[string]string{}, map[string]bool{}, map[string]bool{}
	for _, s := range servers {
		if s.TaskState != "" {
			say("server %s has the task state %s", s.ID, s.TaskState)
		}
		if s.Host == "" && s.VMState == compute.VMActive {
			say("server %s is active on no host", s.ID)
		}
		want := map[string]bool{}
		if s.Host != "" {
			want[s.Host] = true
		}
		if s.OldFlavor != nil && s.VMState != compute.VMResized && s.VMState != compute.VMError {
			say("server %s is %s and has an old flavor", s.ID, s.VMState)
		}
		if s.VMState == compute.VMResized || s.OldFlavor != nil {
			m, err := w.store.Migration(ctx, w.db, s.System[compute.SysMigration])
			if err != nil {
				say("resized server without migration: %v", err)
				continue
			}
			want[m.SourceHost] = true
			consumers[m.UUID] = true
			held, _, _ := w.alloc.Of(ctx, m.UUID)
			if len(held) != 1 || held["rp-"+m.SourceHost] == nil {
				say("the migration holds %v, want the source %s", held, m.SourceHost)
			}
		}
		for h := range want {
			guests[h+"/"+s.ID] = s.ID
			if power, there := w.guests(h)[s.ID]; !there && (s.VMState == compute.VMError || s.Fault != nil && h != s.Host) {
				continue // a command that failed after its effect: the server says so, and can be deleted or confirmed again
			} else if !there {
				say("server %s (%s) has no guest on %s", s.ID, s.VMState, h)
			} else if running := power == virt.Running; h == s.Host && running != (s.PowerState == compute.PowerRunning) {
				say("server %s (%s) has power %d on record, the guest %d", s.ID, s.VMState, s.PowerState, power)
			}
		}
		held, _, _ := w.alloc.Of(ctx, s.ID)
		if s.Host != "" {
			consumers[s.ID] = true
			if len(held) != 1 || held["rp-"+s.Host]["VCPU"] != int64(s.Flavor.VCPUs) {
				say("server %s on %s with %d VCPU holds %v", s.ID, s.Host, s.Flavor.VCPUs, held)
			}
		}
		for _, v := range s.VIFs {
			vifs[v.PortID] = true
			if p := w.nets.ports[v.PortID]; p == nil || p.DeviceID != s.ID || p.HostID != s.Host {
				say("port %s of server %s on %q: %+v", v.PortID, s.ID, s.Host, p)
			}
		}
	}
	bad = append(bad, w.wholeDevices(servers)...)
	for port, host := range w.nets.reserved {
		if w.nets.ports[port] != nil {
			say("port %s is reserved on %s", port, host)
		}
	}
	for name := range w.hosts {
		for g := range w.guests(name) {
			if guests[name+"/"+g] == "" {
				say("guest %s on %s belongs to nobody", g, name)
			}
		}
	}
	for c, a := range w.alloc.m {
		if !consumers[c] {
			say("consumer %s holds %v and is nobody", c, a)
		}
	}
	for p, port := range w.nets.ports {
		if port.DeviceID != "" && !vifs[p] {
			say("port %s of device %s is nobody's", p, port.DeviceID)
		}
	}
	if debts, err := w.owed.All(ctx, w.db); err != nil || len(debts) > 0 {
		say("debts are left: %v %v", debts, err)
	}
	counted, err := w.store.Counted(ctx, w.db)
	if err != nil {
		w.t.Fatal(err)
	}
	recount, err := w.store.Recount(ctx, w.db)
	if err != nil {
		w.t.Fatal(err)
	}
	for k, v := range recount {
		if counted[k] != v {
			say("quota of %v: counted %+v, recount %+v", k, counted[k], v)
		}
	}
	return bad
}

// givePort makes a port that belongs to nobody yet.
func (n *modelNetwork) givePort(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ports[id] = &network.Port{ID: id, NetworkID: "net"}
}

// fall takes a host down.
func (w *world) fall(host string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down[host] = true
	if w.real != nil {
		w.real.kill(host)
	}
}

// rise brings every host back; each does what it owes.
func (w *world) rise(*operation.Engine) {
	w.t.Helper()
	w.mu.Lock()
	for h := range w.down {
		if w.real != nil {
			w.real.start(h)
		}
	}
	clear(w.down)
	w.mu.Unlock()
	debts, err := w.owed.All(w.t.Context(), w.db)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, d := range debts {
		if err := w.Do(w.t.Context(), d.Host, command.Command{Operation: d.Operation, Step: "owed", Epoch: d.Epoch, Server: d.Server, Verb: d.Verb}, d.Args, nil); err != nil {
			w.t.Errorf("debt %+v: %v", d, err)
			continue
		}
		if err := w.owed.SettleNow(w.t.Context(), d.Host, d.Server, d.Epoch); err != nil {
			w.t.Fatal(err)
		}
	}
}

// waitEnd waits until the operation has really ended.
func (w *world) waitEnd(e *operation.Engine, op string) *operation.Record {
	w.t.Helper()
	for {
		r := w.wait(e, op)
		if !r.Finished.IsZero() || w.t.Context().Err() != nil {
			return r
		}
		time.Sleep(5 * time.Millisecond)
	}
}
