package conductor_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"reflect"
	"strconv"
	"sync"
	"testing"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/compute/flow"
	"kilonova/internal/compute/reconcile"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/operation"
)

// TestStorm runs random work on a cloud whose conductor and agents are killed all the while, heals it, and demands that every accepted operation ended and
// every invariant holds. KILONOVA_STORM_SEED repeats one run, KILONOVA_STORM_ROUNDS makes it longer, KILONOVA_STORM_LOG
// names a file for the log.
func TestStorm(t *testing.T) { runStorm(t, false) }

// TestStormWithTwoConductors has two conductors at work all the while, each of which is killed in its turn.
func TestStormWithTwoConductors(t *testing.T) { runStorm(t, true) }

func runStorm(t *testing.T, several bool) {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("KILONOVA_STORM_SEED"), 10, 64); err == nil {
		seed = s
	}
	rounds := 4
	if n, err := strconv.Atoi(os.Getenv("KILONOVA_STORM_ROUNDS")); err == nil {
		rounds = n
	}
	t.Logf("KILONOVA_STORM_SEED=%d", seed)
	s := &storm{rnd: rand.New(rand.NewPCG(seed, 1)), several: several}
	if name := os.Getenv("KILONOVA_STORM_LOG"); name != "" {
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		s.log = f
	}
	s.cloud = newCloud(t, s.options(nil))
	for i := range 4 {
		s.kills = append(s.kills, s.host(name(i), stormHost()))
	}
	s.stop()
	for _, g := range groupRaces() {
		s.groups = append(s.groups, s.group(g))
	}
	for range rounds {
		s.round()
		s.policies()
	}
	s.heal()
	s.judge()
}

func stormHost() fake.Config {
	return fake.Config{VCPUs: 48, MemoryMB: 262144, DiskGB: 1000, Hardware: fake.Hardware{Nodes: 2, Threads: 2, Dedicated: []int{0, 1, 2, 3, 4, 5, 6, 7, 24, 25, 26, 27, 28, 29, 30, 31}}}
}

func (s *storm) options(inject func(context.Context, operation.Point, string, *operation.Run) error) options {
	o := options{downTime: 1500 * time.Millisecond, inject: inject, several: s.several, flow: flow.Config{Patience: 300 * time.Millisecond, StopGrace: -1},
		rec: reconcile.Config{Settle: 100 * time.Millisecond}}
	if s.several {
		o.lease = 600 * time.Millisecond
	}
	if s.log != nil {
		o.log = slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return o
}

type storm struct {
	*cloud
	several bool
	log     io.Writer // of everything that the conductors do; nil: nowhere
	mu      sync.Mutex
	rnd     *rand.Rand
	kills   []func()
	groups  []string // of groupRaces
	servers []string
	ops     []string
}

func (s *storm) n(max int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rnd.IntN(max)
}

// round is one life of a conductor: operations are forgotten at random instants, hosts die and fail, clients work; then the conductor is killed.
func (s *storm) round() {
	inject := func(context.Context, operation.Point, string, *operation.Run) error {
		switch s.n(100) {
		case 0, 1, 2:
			return operation.ErrCrash
		case 3:
			return fault.New(fault.Internal, "injected: the step failed")
		case 4:
			return fault.New(fault.Unavailable, "injected: no answer")
		}
		return nil
	}
	stop := s.control(s.options(inject))
	ctx, cancel := context.WithTimeout(s.ctx, 1200*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	if s.several {
		wg.Go(func() {
			for ctx.Err() == nil {
				_, _, kill := s.conductor(s.options(inject))
				time.Sleep(time.Duration(100+s.n(300)) * time.Millisecond)
				kill()
			}
		})
	}
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				s.work()
				time.Sleep(time.Duration(s.n(20)) * time.Millisecond)
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			i := s.n(len(s.kills))
			s.kills[i]()
			time.Sleep(time.Duration(20+s.n(200)) * time.Millisecond)
			s.kills[i] = s.host(name(i), stormHost())
			time.Sleep(time.Duration(50+s.n(200)) * time.Millisecond)
		}
	})
	wg.Wait()
	stop()
}

// work is what a client does next.
func (s *storm) work() {
	s.mu.Lock()
	var server string
	if len(s.servers) > 0 {
		server = s.servers[s.rnd.IntN(len(s.servers))]
	}
	s.mu.Unlock()
	if server == "" || s.n(3) == 0 {
		exact, group := s.n(3) == 0, s.n(3*len(s.groups))
		r := s.record(func(v *compute.Server) {
			if group < len(s.groups) {
				v.GroupID = s.groups[group]
			}
			if v.ImageID = id.UUID(); exact {
				v.Flavor.ExtraSpecs = map[string]string{"hw:cpu_policy": "dedicated"}
			}
		})
		op := s.create(r, compute.CreateInput{})
		s.mu.Lock()
		s.servers, s.ops = append(s.servers, r.ID), append(s.ops, op)
		s.mu.Unlock()
		return
	}
	big := compute.Flavor{ID: 2, FlavorID: "2", Name: "big", VCPUs: 2, RAMMB: 1024, RootGB: 2}
	if s.n(2) == 0 {
		big.ExtraSpecs = map[string]string{"hw:cpu_policy": "dedicated"}
	}
	choices := []struct {
		kind string
		in   any
		ok   []string // states; nil: any
	}{
		{compute.OpDelete, nil, nil}, {compute.OpDelete, nil, nil},
		{compute.OpStop, nil, []string{compute.VMActive}}, {compute.OpStart, nil, []string{compute.VMStopped}},
		{compute.OpReboot, compute.RebootInput{Hard: true}, []string{compute.VMActive, compute.VMStopped, compute.VMError}},
		{compute.OpSoftDelete, nil, []string{compute.VMActive, compute.VMStopped, compute.VMResized}}, {compute.OpRestore, nil, []string{compute.VMSoftDeleted}},
		{compute.OpSuspend, nil, []string{compute.VMActive}}, {compute.OpResume, nil, []string{compute.VMSuspended}},
		{compute.OpRescue, compute.RescueInput{ImageID: id.UUID()}, []string{compute.VMActive, compute.VMStopped, compute.VMError}},
		{compute.OpUnrescue, nil, []string{compute.VMRescued}},
		{compute.OpShelve, compute.ShelveInput{Offload: true}, []string{compute.VMActive, compute.VMStopped}},
		{compute.OpUnshelve, compute.UnshelveInput{}, []string{compute.VMShelved, compute.VMShelvedOffloaded}},
		{compute.OpPause, nil, []string{compute.VMActive}}, {compute.OpUnpause, nil, []string{compute.VMPaused}},
		{compute.OpResize, compute.ResizeInput{Flavor: big}, []string{compute.VMActive, compute.VMStopped}},
		{compute.OpResize, compute.ResizeInput{Migrate: true}, []string{compute.VMActive, compute.VMStopped}},
		{compute.OpConfirmResize, nil, []string{compute.VMResized}}, {compute.OpRevertResize, nil, []string{compute.VMResized}},
		{compute.OpLiveMigrate, compute.LiveMigrateInput{}, []string{compute.VMActive}},
		{compute.OpRebuild, compute.RebuildInput{ImageID: id.UUID()}, []string{compute.VMActive, compute.VMStopped, compute.VMError}},
		{compute.OpShelveOffload, nil, []string{compute.VMShelved}},
	}
	c := choices[s.n(len(choices))]
	if err := s.tryAccept(c.kind, server, c.in, c.ok); err != nil {
		var held *operation.HeldError
		if !errors.As(err, &held) && !errors.Is(err, fault.Conflict) && !errors.Is(err, fault.NotFound) {
			s.t.Errorf("accept %s: %v", c.kind, err)
		}
	}
}

// tryAccept accepts an operation as the API does: the state is judged in the transaction that writes it.
func (s *storm) tryAccept(kind, server string, in any, states []string) error {
	var op string
	err := s.db.Write(s.ctx, func(tx *db.Tx) error {
		v, err := s.store.Server(s.ctx, tx, server)
		if err != nil {
			return err
		}
		over := kind == compute.OpDelete || kind == compute.OpSoftDelete
		if states != nil && (!contains(states, v.VMState) || v.TaskState != "" && !over || v.Launched.IsZero()) {
			return fault.New(fault.Conflict, "not now")
		}
		op, err = s.engine.Accept(s.ctx, tx, operation.Spec{Kind: kind, ObjectType: "server", Object: server, Action: kind, Project: "p", User: "u", RequestID: id.Request(), Input: in,
			TakeOver: over, Yields: []string{compute.OpDelete}})
		return err
	})
	if err == nil {
		s.mu.Lock()
		s.ops = append(s.ops, op)
		s.mu.Unlock()
	}
	return err
}

func contains(list []string, v string) bool {
	for _, e := range list {
		if e == v {
			return true
		}
	}
	return false
}

// heal starts everything anew, without faults.
func (s *storm) heal() {
	s.control(s.options(nil))
	for i := range s.kills {
		s.kills[i]()
		s.host(name(i), stormHost())
	}
}

// settle waits for the operations that reports of guests started.
func (s *storm) settle() {
	s.t.Helper()
	s.eventually("no operation is open", func() bool {
		ops, err := s.engine.List(s.ctx, []operation.State{operation.Pending, operation.Running, operation.Undoing}, 1)
		return err == nil && len(ops) == 0
	})
}

// parts demands that each server holds on its host what its record says, and that nobody else holds it.
func (s *storm) parts() {
	s.t.Helper()
	s.exclusive()
	pinned := 0
	for _, server := range s.servers {
		v := s.get(server)
		held, err := s.store.ClaimOf(s.ctx, s.db, server)
		s.must(err)
		switch said := v.Claim(); {
		case !v.Deleted.IsZero() || v.Host == "":
			if held != nil {
				s.t.Errorf("%s, which is on no host, holds %+v", server, held)
			}
		case said == nil && held == nil:
		case said == nil || held == nil || held.Host != v.Host || !reflect.DeepEqual(*said, held.Claim):
			s.t.Errorf("%s on %s has in its record %+v and holds %+v", server, v.Host, said, held)
		default:
			pinned++
		}
	}
	s.t.Log(pinned, "servers hold pinned CPUs")
}

// policies demands that the places of all servers, as they are at this moment, keep the policies of their groups.
func (s *storm) policies() {
	s.t.Helper()
	members := map[string][]*compute.Server{}
	for _, server := range s.servers {
		v := s.get(server)
		members[v.GroupID] = append(members[v.GroupID], v)
	}
	for i, g := range groupRaces() {
		g.policyHolds(s.cloud, members[s.groups[i]])
	}
}

func (s *storm) judge() {
	s.t.Helper()
	states := map[string]int{}
	for _, op := range s.ops {
		ctx, cancel := context.WithTimeout(s.ctx, patience)
		r, err := s.engine.Wait(ctx, op)
		cancel()
		if err != nil {
			s.t.Fatalf("operation %s did not end: %v, %+v", op, err, r)
		}
		states[r.Kind+" "+string(r.State)]++
		if r.State == operation.Attention {
			s.t.Logf("%s of %s needs attention and is retried: %s", r.Kind, r.Object, r.Cause)
			if err := s.engine.Retry(s.ctx, op); err != nil {
				s.t.Error(err)
			}
			s.eventually("a retried operation ends", func() bool {
				r, err := s.engine.Show(s.ctx, op)
				return err == nil && !r.Finished.IsZero()
			})
		}
	}
	s.t.Log(len(s.ops), "operations:", fmt.Sprint(states))
	time.Sleep(1500 * time.Millisecond) // the hosts look for what is theirs and report what their guests do
	s.settle()
	s.must(errors.Join(s.con.Reconcile().Debts(s.ctx), s.con.Reconcile().Orphans(s.ctx), s.con.Reconcile().Claims(s.ctx)))
	s.healthy()
	s.policies()
	s.parts()
	for _, server := range s.servers {
		if v := s.get(server); v.Deleted.IsZero() {
			s.must(s.tryAccept(compute.OpDelete, server, nil, nil))
			s.ends(s.ops[len(s.ops)-1], operation.Done)
		}
	}
	s.must(errors.Join(s.con.Reconcile().Debts(s.ctx), s.con.Reconcile().Orphans(s.ctx)))
	s.healthy()
	if cpus, _ := s.exclusive(); cpus != 0 {
		s.t.Errorf("%d CPUs are held after all servers are gone", cpus)
	}
	s.eventually("no guest is left on any host", func() bool { // a host that was silent for a moment pays what it owes when it is heard again
		s.must(s.con.Reconcile().Debts(s.ctx))
		for i := range s.kills {
			if len(s.guests(name(i))) != 0 {
				return false
			}
		}
		return true
	})
}
