package nats_test

import (
	"errors"
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

// TestServedTwiceInOneProcess: where handlers are called directly, a subject has one.
func TestServedTwiceInOneProcess(t *testing.T) {
	b, err := nats.Open(nats.Config{Name: "twice"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	stop, err := b.ServeEach([]string{"a", "b"}, "q", bustest.Echo)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.ServeEach([]string{"c", "b"}, "q", bustest.Echo); err == nil {
		t.Fatal("b is served twice")
	}
	if _, err := b.Call(t.Context(), "c", nil); !errors.Is(err, bus.ErrNoResponder) {
		t.Fatalf("c of the refused: %v", err)
	}
	stop()
	if stop, err = b.ServeEach([]string{"c", "b"}, "q", bustest.Echo); err != nil {
		t.Fatal(err)
	}
	stop()
}
