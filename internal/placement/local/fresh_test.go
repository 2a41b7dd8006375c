package local

import (
	"testing"

	"kilonova/internal/placement"
)

// A host that another process has registered this very moment is found, although the snapshot is looked at only once a second.
func TestNoneIsNeverSaidFromAnOldView(t *testing.T) {
	s := open(t)
	other := on(t, s.db)
	q := placement.Query{Groups: []placement.Group{{Resources: placement.Resources{"VCPU": 1}}}}
	if c, err := other.Candidates(t.Context(), q); err != nil || len(c.Candidates) != 0 {
		t.Fatal(c, err)
	}
	host := addHost(t, s, "a", stock(4, 4096))
	c, err := other.Candidates(t.Context(), q)
	if err != nil || len(c.Candidates) != 1 || c.Candidates[0].Root != host {
		t.Fatalf("%+v %v", c, err)
	}
}
