// Package bustest is the suite that every implementation of bus.Bus passes.
package bustest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kilonova/internal/bus"
	"kilonova/internal/fault"
)

// Run runs the suite. open gives two clients of one bus.
func Run(t *testing.T, open func(t *testing.T) (a, b bus.Bus)) {
	t.Run("serve", func(t *testing.T) {
		serving(t, open, func(b bus.Bus, subject string, h bus.Handler) (func(), error) { return b.Serve(subject, "q", h) })
	})
	t.Run("serve each", func(t *testing.T) {
		serving(t, open, func(b bus.Bus, subject string, h bus.Handler) (func(), error) {
			return b.ServeEach([]string{subject, subject + ".other"}, "q", h)
		})
	})
	t.Run("many subjects", func(t *testing.T) { many(t, open) })
	t.Run("queue shares, fanout reaches all", func(t *testing.T) { sharing(t, open) })
}

// serving is what holds however a subject is served.
func serving(t *testing.T, open func(t *testing.T) (a, b bus.Bus), serve func(b bus.Bus, subject string, h bus.Handler) (func(), error)) {
	t.Run("call", func(t *testing.T) {
		a, b := open(t)
		stop, err := serve(a, "t.echo", func(_ context.Context, s string, m []byte) ([]byte, error) { return append([]byte(s+":"), m...), nil })
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
		if _, err := serve(a, "t.fail", func(context.Context, string, []byte) ([]byte, error) {
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
	t.Run("that the database is away crosses", func(t *testing.T) {
		a, b := open(t)
		if _, err := serve(a, "t.away", func(context.Context, string, []byte) ([]byte, error) {
			away := fault.Wrap(fmt.Errorf("commit: %w", fault.ErrAway), fault.Unavailable, "The database cannot be reached.")
			return nil, fault.Wrap(away, fault.Internal, "It was not done.")
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Call(t.Context(), "t.away", nil); !fault.IsAway(err) || fault.KindOf(err) != fault.Internal || fault.PublicText(err) != "It was not done." {
			t.Fatalf("%v", err)
		}
	})
	t.Run("panic is an error", func(t *testing.T) {
		a, b := open(t)
		if _, err := serve(a, "t.panic", func(context.Context, string, []byte) ([]byte, error) { panic("x") }); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Call(t.Context(), "t.panic", nil); fault.KindOf(err) != fault.Internal || err == nil {
			t.Fatalf("%v", err)
		}
	})
	t.Run("slow handler does not block others", func(t *testing.T) {
		a, b := open(t)
		release := make(chan struct{})
		if _, err := serve(a, "t.slow", func(_ context.Context, _ string, m []byte) ([]byte, error) {
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
		if _, err := serve(a, "t.never", func(ctx context.Context, _ string, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := b.Call(ctx, "t.never", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%v", err)
		}
	})
}

func sharing(t *testing.T, open func(t *testing.T) (a, b bus.Bus)) {
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
}

// many: a client may serve thousands of subjects, which cost no goroutine each, and a call reaches the handler with its own subject until the serving ends.
func many(t *testing.T, open func(t *testing.T) (a, b bus.Bus)) {
	a, b := open(t)
	before := runtime.NumGoroutine()
	subjects := make([]string, 300)
	for i := range subjects {
		subjects[i] = fmt.Sprintf("many.%d.do", i)
	}
	stop, err := a.ServeEach(subjects, "q", func(_ context.Context, subject string, msg []byte) ([]byte, error) {
		return append([]byte(subject+" "), msg...), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if more := runtime.NumGoroutine() - before; more > 100 {
		t.Errorf("%d goroutines for %d idle subjects", more, len(subjects))
	}
	var wg sync.WaitGroup
	for _, subject := range subjects {
		wg.Go(func() {
			if out, err := b.Call(t.Context(), subject, []byte("x")); err != nil || string(out) != subject+" x" {
				t.Errorf("%s answered %q, %v", subject, out, err)
			}
		})
	}
	wg.Wait()
	cast := make(chan string, 1)
	stopCast, err := a.ServeEach([]string{"many.cast"}, "q", func(_ context.Context, _ string, msg []byte) ([]byte, error) {
		cast <- string(msg)
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Cast(t.Context(), "many.cast", []byte("news")); err != nil {
		t.Fatal(err)
	}
	if got := <-cast; got != "news" {
		t.Errorf("cast %q", got)
	}
	stopCast()
	stop()
	for _, subject := range []string{subjects[0], subjects[len(subjects)-1], "many.cast"} {
		if _, err := b.Call(t.Context(), subject, nil); !errors.Is(err, bus.ErrNoResponder) {
			t.Errorf("%s, which nobody serves any more: %v", subject, err)
		}
	}
}

// Echo is a handler that answers with its message.
func Echo(_ context.Context, _ string, m []byte) ([]byte, error) { return m, nil }
