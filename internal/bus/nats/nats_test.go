package nats_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"kilonova/internal/bus"
	"kilonova/internal/bus/bustest"
	"kilonova/internal/bus/nats"
)

func TestEmbeddedAndRemote(t *testing.T) {
	bustest.Run(t, func(t *testing.T) (bus.Bus, bus.Bus) {
		a, err := nats.Open(nats.Config{Listen: "127.0.0.1:0", Token: "s3cret", Name: "a"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := nats.Open(nats.Config{URL: "nats://" + a.Addr(), Token: "s3cret", Name: "b"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = b.Close(), a.Close() })
		return a, b
	})
}

func TestInProcessOnly(t *testing.T) {
	bustest.Run(t, func(t *testing.T) (bus.Bus, bus.Bus) {
		a, err := nats.Open(nats.Config{Name: "a"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if a.Addr() != "" {
			t.Fatalf("listens on %s", a.Addr())
		}
		t.Cleanup(func() { _ = a.Close() })
		return a, a
	})
}

func BenchmarkCall(b *testing.B) {
	x, err := nats.Open(nats.Config{Name: "a"}, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = x.Close() }()
	if _, err := x.Serve("t.e", "q", bustest.Echo); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := x.Call(b.Context(), "t.e", []byte("hi")); err != nil {
			b.Fatal(err)
		}
	}
}

// TestManySubjects: a process may serve thousands of subjects; those beyond the first few share a goroutine, and each call still reaches its own handler.
func TestManySubjects(t *testing.T) {
	b, err := nats.Open(nats.Config{Name: "many"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	const n = 300
	before := runtime.NumGoroutine()
	stops := make([]func(), n)
	for i := range n {
		stops[i], err = b.Serve(fmt.Sprintf("many.%d", i), "q", func(_ context.Context, subject string, msg []byte) ([]byte, error) {
			return append([]byte(subject+" "), msg...), nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if more := runtime.NumGoroutine() - before; more > 100 {
		t.Errorf("%d goroutines for %d idle subjects", more, n)
	}
	call := func(i int) error {
		subject := fmt.Sprintf("many.%d", i)
		out, err := b.Call(t.Context(), subject, []byte("x"))
		if err == nil && string(out) != subject+" x" {
			return fmt.Errorf("%s answered %q", subject, out)
		}
		return err
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := call(i); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	stops[n-1]()
	if err := call(n - 1); !errors.Is(err, bus.ErrNoResponder) {
		t.Errorf("a subject that nobody serves any more: %v", err)
	}
	if err := call(0); err != nil {
		t.Error(err)
	}
}
