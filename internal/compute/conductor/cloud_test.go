package conductor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"kilonova/internal/bus"
	"kilonova/internal/bus/nats"
	"kilonova/internal/compute"
	"kilonova/internal/compute/agent"
	"kilonova/internal/compute/conductor"
	"kilonova/internal/compute/flow"
	"kilonova/internal/compute/reconcile"
	"kilonova/internal/compute/scheduler"
	"kilonova/internal/compute/scheduler/filter"
	"kilonova/internal/compute/scheduler/weigher"
	"kilonova/internal/compute/store"
	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/db"
	"kilonova/internal/doctor"
	"kilonova/internal/id"
	imagelocal "kilonova/internal/image/local"
	"kilonova/internal/network"
	netlocal "kilonova/internal/network/local"
	"kilonova/internal/operation"
	"kilonova/internal/placement"
	placelocal "kilonova/internal/placement/local"
)

// cloud is the real control plane of compute in one process: conductor, engine, bus, placement, network, images, and agents with fake hypervisors.
type cloud struct {
	t       testing.TB
	ctx     context.Context
	db      *db.DB
	hyper   *db.DB // the hypervisors' memory and the agents' journals: they outlive the control plane
	dir     string
	bus     bus.Bus
	store   *store.Store
	place   *placelocal.Service
	nets    *netlocal.Service
	images  *imagelocal.Service
	engine  *operation.Engine
	con     *conductor.Conductor
	stop    func() // ends the first conductor
	network string
	flat    string // id of the network on the physical network, once a test asks for it
	nodes   map[string]string
	report  bool                  // hosts that start tell placement of their devices
	tune    func(a *agent.Config) // what hosts that start have besides
	mu      sync.Mutex
	faults  map[string]error // "host/verb"
}

// patience is how long tests wait for what must come: no test is about how soon.
const patience = 5 * time.Minute

type options struct {
	downTime time.Duration // service_down_time; 0: a minute. Only storms shorten it: elsewhere a host dies by dies, and one that lives survives a pause of the machine
	planner  func(c *scheduler.Config)
	aliases  []compute.PCIAlias
	flow     flow.Config
	rec      reconcile.Config
	several  bool          // conductors on one database: leases are waited for
	lease    time.Duration // of operations; 0: the engine's
	inject   func(ctx context.Context, p operation.Point, step string, r *operation.Run) error
	log      *slog.Logger
	place    func(s *placelocal.Service) placement.Service // nil: the service itself
}

func newCloud(t testing.TB, o options) *cloud {
	t.Helper()
	c := &cloud{t: t, ctx: t.Context(), dir: t.TempDir(), nodes: map[string]string{}, faults: map[string]error{}}
	var err error
	c.db, c.hyper = database(t), database(t)
	c.bus, err = nats.Open(nats.Config{Name: "test"}, nil)
	c.must(err)
	t.Cleanup(func() { _ = c.bus.Close() })
	_, err = operation.New(c.ctx, operation.Config{DB: c.db, Owner: "tables"})
	c.must(err)
	c.store, err = store.New(c.ctx, c.db)
	c.must(err)
	c.place, err = placelocal.New(c.ctx, placelocal.Config{DB: c.db})
	c.must(err)
	c.nets, err = netlocal.New(c.ctx, netlocal.Config{DB: c.db, Bus: c.bus, Log: o.logger(), Quotas: map[string]int64{"port": -1}})
	c.must(err)
	t.Cleanup(func() { _ = c.nets.Close() })
	c.images, err = imagelocal.New(c.ctx, imagelocal.Config{DB: c.db, Dir: filepath.Join(c.dir, "images")})
	c.must(err)
	t.Cleanup(func() { _ = c.images.Close() })
	c.must(errors.Join(agent.Prepare(c.ctx, c.hyper), fake.Prepare(c.ctx, c.hyper)))
	c.makeNetwork()
	c.stop = c.control(o)
	return c
}

// control starts the conductor that the cloud's clients speak to and gives the function that ends it.
func (c *cloud) control(o options) (stop func()) {
	c.t.Helper()
	c.engine, c.con, stop = c.conductor(o)
	return stop
}

// conductor starts a conductor on the cloud.
func (c *cloud) conductor(o options) (*operation.Engine, *conductor.Conductor, func()) {
	c.t.Helper()
	engine, err := operation.New(c.ctx, operation.Config{DB: c.db, Bus: c.bus, Owner: "test", Sole: !o.several, Private: !o.several, Lease: o.lease, Sweep: 50 * time.Millisecond,
		Pause: 5 * time.Millisecond, Inject: o.inject, Log: o.logger()})
	c.must(err)
	cfg := scheduler.Defaults()
	if o.planner != nil {
		o.planner(&cfg)
	}
	planner, err := scheduler.New(cfg, filter.All(), weigher.All())
	c.must(err)
	o.flow.AllowSameHost = true
	place := placement.Service(c.place)
	if o.place != nil {
		place = o.place(c.place)
	}
	con, err := conductor.New(c.ctx, conductor.Config{DB: c.db, Bus: c.bus, Store: c.store, Engine: engine, Network: c.nets, Image: c.images, Placement: place,
		Metadata: func(_ context.Context, s *compute.Server, _ map[string][]byte) (json.RawMessage, error) {
			return json.Marshal(map[string]string{"uuid": s.ID})
		},
		Flow: o.flow, Reconcile: o.rec, PCIAliases: o.aliases, Planner: planner, ServiceDownTime: o.downTime, Log: o.logger()})
	c.must(err)
	ready := make(chan struct{})
	stop := c.background(func(ctx context.Context) error { return con.Run(ctx, func() { close(ready) }) })
	<-ready
	return engine, con, stop
}

func (o options) logger() *slog.Logger {
	if o.log != nil {
		return o.log
	}
	return slog.New(slog.DiscardHandler)
}

func (c *cloud) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// background runs something until the test ends, or until the function given back is called.
func (c *cloud) background(run func(ctx context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.ctx))
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			c.t.Errorf("ended with %v", err)
		}
	})
	c.t.Cleanup(stop)
	return stop
}

func (c *cloud) makeNetwork() {
	c.must(c.nets.Do(c.ctx, func(ch *netlocal.Change) error {
		n := &network.Network{Name: "net", ProjectID: "p", AdminStateUp: true, PortSecurity: true}
		if err := ch.CreateNetwork(n); err != nil {
			return err
		}
		c.network = n.ID
		_, err := ch.CreateSubnet(&netlocal.SubnetRequest{Subnet: network.Subnet{ProjectID: "p", NetworkID: n.ID, CIDR: "10.0.0.0/16", DHCP: true}})
		return err
	}))
}

// host starts a host with its agent and gives the function that kills it.
func (c *cloud) host(name string, size fake.Config) (kill func()) {
	c.t.Helper()
	if c.nodes[name] == "" {
		c.nodes[name] = id.UUID()
	}
	size.DB, size.Host = c.hyper, name
	size.Fault = func(verb, _ string) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.faults[name+"/"+verb]
	}
	cfg := agent.Config{Host: name, NodeID: c.nodes[name], Bus: c.bus, DB: c.hyper, Driver: fake.New(size), Report: 200 * time.Millisecond, Look: 400 * time.Millisecond,
		PCIInPlacement: c.report, Log: slog.New(slog.DiscardHandler)}
	if c.tune != nil {
		c.tune(&cfg)
	}
	a, err := agent.New(cfg)
	c.must(err)
	up := make(chan struct{})
	kill = c.background(func(ctx context.Context) error { return a.Run(ctx, func() { close(up) }) })
	select {
	case <-up:
	case <-time.After(patience): // a conductor that is killed while it answers costs the agent its 30 s
		c.t.Fatalf("host %s did not come up", name)
	}
	return kill
}

// dies kills a host's agent and lets so much time pass that the host is known to be down.
func (c *cloud) dies(host string, kill func()) {
	c.t.Helper()
	kill()
	c.must(c.con.Silent(c.ctx, host, time.Hour))
	c.eventually(host+" is down", func() bool { return c.con.Down(c.ctx, host) })
}

func (c *cloud) fault(host, verb string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults[host+"/"+verb] = err
}

// guests gives what runs on a host.
func (c *cloud) guests(host string) map[string]virt.PowerState {
	c.t.Helper()
	gs, err := fake.New(fake.Config{DB: c.hyper, Host: host}).Guests(c.ctx)
	c.must(err)
	out := map[string]virt.PowerState{}
	for _, g := range gs {
		out[g.ID] = g.Power
	}
	return out
}

func (c *cloud) record(change func(s *compute.Server)) *compute.Server {
	s := &compute.Server{ID: id.UUID(), Name: "s", Hostname: "s", ProjectID: "p", UserID: "u", VMState: compute.VMBuilding, ImageID: id.UUID(), DiskConfig: "AUTO",
		Flavor: compute.Flavor{ID: 1, FlavorID: "1", Name: "tiny", VCPUs: 1, RAMMB: 512, RootGB: 1}}
	if change != nil {
		change(s)
	}
	return s
}

// create accepts a server and its operation in one transaction, as the API does.
func (c *cloud) create(s *compute.Server, in compute.CreateInput) (op string) {
	c.t.Helper()
	if in.NICs == nil {
		in.NICs = []compute.NICRequest{{NetworkID: c.network}}
	}
	c.must(c.db.Write(c.ctx, func(tx *db.Tx) error {
		if err := c.store.InsertServer(c.ctx, tx, s); err != nil {
			return err
		}
		var err error
		op, err = c.engine.Accept(c.ctx, tx, operation.Spec{Kind: compute.OpCreate, ObjectType: "server", Object: s.ID, Action: "create", TaskState: compute.TaskScheduling,
			Project: "p", User: "u", RequestID: id.Request(), Input: in})
		return err
	}))
	return op
}

func (c *cloud) accept(kind, server string, in any) (op string) {
	c.t.Helper()
	c.must(c.db.Write(c.ctx, func(tx *db.Tx) error {
		var err error
		op, err = c.engine.Accept(c.ctx, tx, operation.Spec{Kind: kind, ObjectType: "server", Object: server, Action: kind, Project: "p", User: "u", RequestID: id.Request(), Input: in,
			TakeOver: kind == compute.OpDelete})
		return err
	}))
	return op
}

// ends waits for an operation and demands how it ends.
func (c *cloud) ends(op string, want operation.State) *operation.Record {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	r, err := c.engine.Wait(ctx, op)
	c.must(err)
	if r.State != want {
		c.t.Fatalf("%s of %s ended as %s: %s; want %s", r.Kind, r.Object, r.State, r.Cause, want)
	}
	return r
}

func (c *cloud) get(server string) *compute.Server {
	c.t.Helper()
	s, err := c.store.ServerAny(c.ctx, c.db, server)
	c.must(err)
	return s
}

// healthy demands that every invariant holds.
func (c *cloud) healthy() {
	c.t.Helper()
	r, err := doctor.Check(c.ctx, doctor.Config{DB: c.db, Store: c.store, Owed: c.con.Owed(), Allocations: c.place, Ports: doctor.PortTable{DB: c.db}, Looks: 25, Pause: 200 * time.Millisecond,
		Guests: func(_ context.Context, host string, _ []string) (doctor.Seen, error) {
			return doctor.Seen{Guests: c.guests(host), Complete: true}, nil
		}})
	c.must(err)
	if !r.Healthy() {
		c.t.Errorf("the cloud is not healthy:\n%s", r.Text())
	}
}

// eventually waits until a condition holds.
func (c *cloud) eventually(what string, f func() bool) {
	c.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if f() {
			return
		}
	}
	c.t.Fatalf("never: %s", what)
}

// ask calls a conductor as an agent does.
func ask[T any](c *cloud, subject string, args any) (out T) {
	c.t.Helper()
	msg, err := json.Marshal(args)
	c.must(err)
	raw, err := c.bus.Call(c.ctx, subject, msg)
	c.must(err)
	if len(raw) > 0 {
		c.must(json.Unmarshal(raw, &out))
	}
	return out
}

func name(i int) string { return fmt.Sprintf("h%d", i) }
