package id_test

import (
	"regexp"
	"testing"

	"kilonova/internal/id"
)

// What clients that know versions 1 to 5 only take for a UUID.
var strict = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

func TestEveryUUIDIsOneForStrictClients(t *testing.T) {
	for kind, make := range map[string]func() string{
		"random": id.UUID, "ordered": id.Ordered, "derived": func() string { return id.Derived("server", "7") }, "request": func() string { return id.Request()[len("req-"):] },
	} {
		if u := make(); !strict.MatchString(u) || !id.IsUUID(u) {
			t.Errorf("%s: %s is no UUID of versions 1 to 5", kind, u)
		}
	}
}

func TestOrderedIDsGrow(t *testing.T) {
	last := ""
	for range 10_000 {
		u := id.Ordered()
		if u <= last {
			t.Fatalf("%s comes after %s", u, last)
		}
		last = u
	}
}
