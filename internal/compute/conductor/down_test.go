package conductor_test

import (
	"testing"

	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/db"
)

// TestDownIsKnownAtOnce: an operator says that a host is down and evacuates its servers in the next moment.
func TestDownIsKnownAtOnce(t *testing.T) {
	c := newCloud(t, options{})
	defer c.host("h1", fake.Config{})()
	for range 5 {
		c.eventually("the host is up", func() bool { return !c.con.Down(t.Context(), "h1") })
		say := func(down bool) {
			c.must(c.db.Write(t.Context(), func(tx *db.Tx) error {
				h, err := c.store.Host(t.Context(), tx, "h1")
				if err != nil {
					return err
				}
				return c.store.SetServiceState(t.Context(), tx, h.ServiceID, nil, nil, &down)
			}))
		}
		say(true)
		if !c.con.Down(t.Context(), "h1") {
			t.Error("the host is taken for up although an operator has said that it is down")
		}
		say(false)
	}
}
