package password_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"kilonova/internal/fault"
	"kilonova/internal/identity/password"
)

func TestFits(t *testing.T) {
	h, err := password.New(4)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 100)
	for _, secret := range []string{"correct horse", "", long} {
		hash, err := h.Hash(t.Context(), secret)
		if err != nil || !strings.HasPrefix(hash, "$2a$04$") {
			t.Fatalf("%q: %q %v", secret, hash, err)
		}
		for given, want := range map[string]bool{secret: true, secret + "y": false, "other": false} {
			if got, err := h.Fits(t.Context(), hash, given); err != nil || got != want {
				t.Errorf("%q fits the hash of %q: %v %v, want %v", given, secret, got, err, want)
			}
		}
	}
	digest := password.Digest("made by a machine")
	for given, want := range map[string]bool{"made by a machine": true, "made by a man": false, "": false} {
		if got, err := h.Fits(t.Context(), digest, given); err != nil || got != want {
			t.Errorf("%q fits the digest: %v %v, want %v", given, got, err, want)
		}
	}
	for _, given := range []string{"", "anything"} {
		if got, err := h.Fits(t.Context(), "", given); err != nil || got {
			t.Errorf("%q fits where there is no password: %v %v", given, got, err)
		}
	}
	if _, err := h.Fits(t.Context(), "no hash", "anything"); err == nil {
		t.Error("what is no hash is compared without an error")
	}
}

func TestCosts(t *testing.T) {
	for _, cost := range []int{0, 3, 32} {
		if _, err := password.New(cost); !errors.Is(err, fault.Invalid) {
			t.Errorf("the cost %d: %v", cost, err)
		}
	}
}

// A caller who is gone waits for no processor.
func TestHashEndsWithItsContext(t *testing.T) {
	h, err := password.New(4)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for {
		// A free processor may still be taken: the choice between that and the end is a coin's.
		if _, err := h.Hash(ctx, "x"); err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			return
		}
	}
}
