package rpc

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"kilonova/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func next(t *testing.T, s *Subscription) Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	e, err := s.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEventsAreDecoded(t *testing.T) {
	f := newFake(t)
	s := f.open(t, Options{}).Subscribe()
	defer s.Close()
	if e := next(t, s); e.Kind != Resync {
		t.Fatalf("the first event is %+v", e)
	}
	for _, c := range []struct {
		proc int32
		body []any
		want Event
	}{
		{318, []any{int32(7), testDomain, int32(Stopped), int32(1)}, Event{Kind: Lifecycle, Domain: testDomain, What: Stopped, Detail: 1}},
		{319, []any{int32(7), testDomain}, Event{Kind: Rebooted, Domain: testDomain}},
		{333, []any{int32(7), testDomain, "ua-x"}, Event{Kind: DeviceRemoved, Domain: testDomain, Device: "ua-x"}},
		{367, []any{int32(7), testDomain, "ua-y"}, Event{Kind: DeviceRemovalFailed, Domain: testDomain, Device: "ua-y"}},
		{339, []any{int32(7), testDomain, "vda", int32(4), int32(3)}, Event{Kind: BlockJob, Domain: testDomain, Device: "vda", Detail: 4, What: 3}},
		{348, []any{int32(7), testDomain, int32(1), int32(2)}, Event{Kind: AgentLifecycle, Domain: testDomain, What: 1, Detail: 2}},
		{363, []any{int32(7), testDomain, []Param{{"operation", int32(5)}, {"time_elapsed", uint64(9)}}},
			Event{Kind: JobCompleted, Domain: testDomain, Params: []Param{{"operation", int32(5)}, {"time_elapsed", uint64(9)}}}},
	} {
		f.send(318, int32(7))              // cut short: passed over
		f.send(9999, int32(7), testDomain) // unknown: passed over
		f.send(c.proc, c.body...)
		if diff := cmp.Diff(c.want, next(t, s)); diff != "" {
			t.Errorf("message %d: %s", c.proc, diff)
		}
	}
}

func TestReconnectRegistersAgainAndAsksForALook(t *testing.T) {
	f := newFake(t)
	s := f.open(t, Options{}).Subscribe()
	defer s.Close()
	for round := 1; round <= 3; round++ {
		for e := next(t, s); e.Kind != Resync; e = next(t, s) {
		}
		if got := f.count(procEventRegister); got != round*len(registered) {
			t.Fatalf("round %d: %d registrations, want %d", round, got, round*len(registered))
		}
		f.send(318, int32(7), testDomain, int32(Started), int32(0))
		if e := next(t, s); e.Kind != Lifecycle || e.What != Started {
			t.Fatalf("round %d: %+v", round, e)
		}
		f.kill()
	}
}

func TestSlowSubscriberHoldsUpNobody(t *testing.T) {
	f := newFake(t)
	c := f.open(t, Options{Backlog: 8})
	lazy, busy := c.Subscribe(), c.Subscribe()
	defer lazy.Close()
	defer busy.Close()
	for next(t, busy).Kind != Resync || f.count(procEventRegister) < len(registered) {
	}
	f.on(procConnectGetLibVersion, func(*decoder) ([]any, *Error) { return []any{uint64(1)}, nil })
	for i := range 100 {
		f.send(318, int32(7), testDomain, int32(Started), int32(i))
		for e := next(t, busy); e.Kind != Lifecycle || e.Detail != int32(i); e = next(t, busy) {
		}
	}
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	// What piled up became a Resync, and the newest events follow it.
	kept, resync := 0, false
	for {
		e := next(t, lazy)
		kept++
		resync = resync || e.Kind == Resync
		if e.Detail == 99 {
			break
		}
	}
	if !resync || kept > 8 {
		t.Errorf("the lazy subscriber got %d events, resync %v", kept, resync)
	}
}

func TestCloseEndsSubscriptions(t *testing.T) {
	f := newFake(t)
	c := f.open(t, Options{})
	s := c.Subscribe()
	next(t, s)
	done := make(chan error, 1)
	go func() {
		_, err := s.Next(context.WithoutCancel(t.Context()))
		done <- err
	}()
	c.Close()
	if err := <-done; !errors.Is(err, fault.Unavailable) {
		t.Fatal(err)
	}
	if _, err := c.Subscribe().Next(t.Context()); err == nil {
		t.Fatal("a closed client gives events")
	}
	if err := c.Ping(t.Context()); !errors.Is(err, fault.Unavailable) {
		t.Fatalf("a closed client answers: %v", err)
	}
}
