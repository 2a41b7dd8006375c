package fault_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"kilonova/internal/fault"
)

func TestKindSurvivesWrapping(t *testing.T) {
	err := fmt.Errorf("claim: %w", fault.Wrap(io.EOF, fault.Conflict, "provider %s changed", "p1"))
	if !errors.Is(err, fault.Conflict) || errors.Is(err, fault.NotFound) {
		t.Fatalf("kind lost: %v", err)
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal("cause lost")
	}
	if fault.KindOf(err).Status() != 409 {
		t.Fatalf("status %d", fault.KindOf(err).Status())
	}
}

func TestPublicTextHidesCause(t *testing.T) {
	secret := errors.New("dial postgres://user:hunter2@db")
	for _, err := range []error{secret, fault.Wrap(secret, fault.Unavailable, "The database does not answer.")} {
		if strings.Contains(fault.PublicText(err), "hunter2") {
			t.Fatalf("cause leaked: %s", fault.PublicText(err))
		}
	}
	if got := fault.PublicText(fault.New(fault.Invalid, "bad %d", 7).WithHint("Give 8.")); got != "bad 7 Give 8." {
		t.Fatal(got)
	}
}
