package chaos_test

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"kilonova/internal/db"
	"kilonova/internal/db/dbtest"
	"kilonova/test/process"
)

// TestDatabaseServerKilled crashes the database's server again and again while clients work on a cloud that lives on. It is away for a while, and what was being committed when it
// went is there or not. (RELIABILITY: every accepted request finished, every invariant kept.)
func TestDatabaseServerKilled(t *testing.T) {
	for _, kind := range []db.Dialect{db.Postgres, db.MySQL} {
		t.Run(string(kind), func(t *testing.T) { serverStorm(t, kind) })
	}
}

func serverStorm(t *testing.T, kind db.Dialect) {
	t.Helper()
	kills := times(t, 5, 40)
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(kills)*30*time.Second+20*time.Minute)
	defer cancel()
	seed := seeded(t)
	rnd := rand.New(rand.NewPCG(seed, 1<<32))
	store := dbtest.NewServer(t, kind, true)
	p, where := program(t), []string{"--set", "database.connection=" + store.URL}
	x, err := p.Start(ctx, append([]string{"up", "--listen", "127.0.0.1:0", "--compute-driver", "fake", "--fake-hosts", "4", "--set", "compute.host=fake", "--set", "identity.bcrypt_cost=4",
		"--set", "quota.instances=60", "--set", "quota.cores=-1", "--set", "quota.ram=-1", "--set", "compute.shutdown_timeout=1s"}, where...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Kill(); err != nil {
			t.Error(err)
		}
	})
	admin, err := process.Login(ctx, x.URL, p.Dir, "admin")
	if err != nil {
		t.Fatal(err)
	}
	ground, flavors, bigger := furnish(t, admin, "fake-1")
	s := &storm{ledger: newLedger(), ground: ground, flavors: flavors, bigger: bigger, seed: seed, pause: 40 * time.Millisecond, moves: allMoves}
	stormCtx, calm := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); s.run(stormCtx, 6, func() *process.Client { return sameSession(admin) }) }()
	defer func() { calm(); <-done }()
	began, at := time.Now(), []time.Time{}
	for range kills {
		s.works(ctx, t, 3)
		wait(ctx, time.Duration(50+rnd.IntN(750))*time.Millisecond)
		at = append(at, time.Now())
		store.Crash(t)
		wait(ctx, time.Duration(rnd.IntN(700))*time.Millisecond)
		if slow() && len(at) == (kills+1)/2 { // once for longer than leases last
			wait(ctx, 20*time.Second)
		}
		store.Start(t)
	}
	s.works(ctx, t, 3)
	calm()
	<-done
	stormed := time.Since(began)
	j := &judge{t: t, prog: p, config: where, admin: admin, ledger: s.ledger, ground: ground}
	ops := j.settle(ctx, patience)
	settled := time.Since(began)
	j.healthy(ctx, patience)
	j.all(ctx, ops)
	for _, o := range ops {
		if o.State == "undone" && !strings.Contains(o.Cause, "the guest") { // the guests that this storm has cannot be built, or grow, by their flavor
			t.Errorf("%s of %s was undone at step %s although only the database was away: %s", o.Kind, o.Object, o.Step, o.Cause)
		}
	}
	if t.Failed() {
		keep(t, p, []string{x.Output()})
	}
	hit, inside := struck(ops, at)
	t.Logf("%d crashes, %d of them inside %d operations; storm %s, settled after %s; %d operations (%s)%s", len(at), hit, inside, stormed.Round(time.Second),
		(settled - stormed).Round(time.Millisecond), len(ops), states(ops), s.ledger.summary())
	if hit*3 < len(at) {
		t.Errorf("only %d of %d crashes were inside an operation: the storm is too weak to show anything", hit, len(at))
	}
	j.clear(ctx)
	checkLog(t, x.Output())
	if err := x.Stop(); err != nil {
		t.Error(err)
	}
}
