// Package bustest is the suite that every implementation of bus.Bus passes.
package bustest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kilonova/internal/bus"
	"kilonova/internal/fault"
)

// Run runs the suite. open gives two clients of one bus.
func Run(t *testing.T, open func(t *testing.T) (a, b bus.Bus)) {
	t.Run("call", func(t *testing.T) {
		a, b := open(t)
		stop, err := a.Serve("t.echo", "q", func(_ context.Context, s string, m []byte) ([]byte, error) { return append([]byte(s+":"), m...), nil })
		if err != nil {
			t.Fatal(err)
		}
		out, err := b.Call(t.Context(), "t.echo", []byte("hi"))
		if err != nil || string(out) != "t.echo:hi" {
			t.Fatalf("%q %v", out, err)
		}
		stop()
		if _, err := b.Call(t.Context(), "t.echo", nil); !errors.Is(err, bus.ErrNoResponder) {
			t.Fatalf("after stop: %v", err)
		}
	})
	t.Run("fault crosses without its cause", func(t *testing.T) {
		a, b := open(t)
		if _, err := a.Serve("t.fail", "q", func(context.Context, string, []byte) ([]byte, error) {
			return nil, fault.Wrap(errors.New("secret cause"), fault.Conflict, "Taken.").WithCode("c1")
		}); err != nil {
			t.Fatal(err)
		}
		_, err := b.Call(t.Context(), "t.fail", nil)
		var f *fault.Error
		if !errors.As(err, &f) || f.Kind != fault.Conflict || f.Code != "c1" || err.Error() != "Taken." {
			t.Fatalf("%v", err)
		}
	})
	t.Run("panic is an error", func(t *testing.T) {
		a, b := open(t)
		if _, err := a.Serve("t.panic", "q", func(context.Context, string, []byte) ([]byte, error) { panic("x") }); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Call(t.Context(), "t.panic", nil); fault.KindOf(err) != fault.Internal || err == nil {
			t.Fatalf("%v", err)
		}
	})
	t.Run("queue shares, fanout reaches all", func(t *testing.T) {
		a, b := open(t)
		var queued, all atomic.Int64
		var wg sync.WaitGroup
		count := func(n *atomic.Int64) bus.Handler {
			return func(context.Context, string, []byte) ([]byte, error) { n.Add(1); wg.Done(); return nil, nil }
		}
		for _, x := range []bus.Bus{a, b} {
			if _, err := x.Serve("t.work", "q", count(&queued)); err != nil {
				t.Fatal(err)
			}
			if _, err := x.Serve("t.news", "", count(&all)); err != nil {
				t.Fatal(err)
			}
		}
		wg.Add(10 + 20)
		for range 10 {
			if err := errors.Join(b.Cast(t.Context(), "t.work", nil), a.Fanout(t.Context(), "t.news", nil)); err != nil {
				t.Fatal(err)
			}
		}
		wg.Wait()
		if queued.Load() != 10 || all.Load() != 20 {
			t.Fatalf("queued %d, all %d", queued.Load(), all.Load())
		}
	})
	t.Run("slow handler does not block others", func(t *testing.T) {
		a, b := open(t)
		release := make(chan struct{})
		if _, err := a.Serve("t.slow", "q", func(_ context.Context, _ string, m []byte) ([]byte, error) {
			if string(m) == "wait" {
				<-release
			}
			return m, nil
		}); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { _, err := b.Call(context.Background(), "t.slow", []byte("wait")); done <- err }()
		if _, err := b.Call(t.Context(), "t.slow", []byte("go")); err != nil {
			t.Fatal(err)
		}
		close(release)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
	t.Run("deadline", func(t *testing.T) {
		a, b := open(t)
		if _, err := a.Serve("t.never", "q", func(ctx context.Context, _ string, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := b.Call(ctx, "t.never", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%v", err)
		}
	})
}

// Echo is a handler that answers with its message.
func Echo(_ context.Context, _ string, m []byte) ([]byte, error) { return m, nil }
