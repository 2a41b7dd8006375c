package conductor

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/db/dbtest"
	"kilonova/internal/id"
)

// TestPutWhileReading: a host that reports while the hosts are read is neither lost nor put back to what it was before; the next reading has the last word.
func TestPutWhileReading(t *testing.T) {
	table := newHostTable(nil, time.Minute, time.Now())
	began := time.Now()
	old := compute.Host{Name: "h1", NodeID: "n1", Version: 1, Info: []byte(`{"vcpus":4}`)}
	renewed, fresh := old, compute.Host{Name: "h2", NodeID: "n2", Version: 2, Info: []byte(`{"vcpus":8}`)}
	renewed.Version = 2
	table.put(renewed)
	table.put(fresh)
	table.change("h2", func(h *host) { h.start = "process" })
	group := compute.Aggregate{UUID: "a", Hosts: []string{"h1"}}
	table.replace(reading{began: began, rows: []compute.Host{old}, aggregates: []compute.Aggregate{group}, loads: map[string]store.HostLoad{"h1": {Servers: 3}}})
	h1, _ := table.get("h1")
	if h1.Version != 2 || h1.load.Servers != 3 || len(h1.base.Aggregates) != 1 {
		t.Errorf("the host that was renewed: version %d, %d servers, %d aggregates", h1.Version, h1.load.Servers, len(h1.base.Aggregates))
	}
	h2, ok := table.get("h2")
	if _, byNode := table.byProvider("n2"); !ok || !byNode || h2.start != "process" {
		t.Errorf("the new host is lost: %v %v %q", ok, byNode, h2.start)
	}
	table.replace(reading{began: time.Now().Add(time.Nanosecond), rows: []compute.Host{old}})
	h1, _ = table.get("h1")
	if _, ok := table.get("h2"); ok || h1.Version != 1 {
		t.Errorf("after the next reading: the deleted host is there: %v; version %d", ok, h1.Version)
	}
}

// Heartbeats are written when they are old enough, those of one moment together, and never for a host that was not heard of.
func TestBeatsAreWritten(t *testing.T) {
	ctx := t.Context()
	s, err := store.New(ctx, dbtest.Open(t))
	if err != nil {
		t.Fatal(err)
	}
	began := clock.Now().Truncate(time.Second)
	table := newHostTable(s, time.Minute, began)
	for i := range 30 {
		h := compute.Host{Name: fmt.Sprintf("h%d", i), NodeID: id.UUID(), LastSeen: began, Info: []byte("{}")}
		if err := s.DB.Write(ctx, func(tx *db.Tx) error { return s.SaveHost(ctx, tx, &h, h.Name) }); err != nil {
			t.Fatal(err)
		}
		table.put(h)
	}
	seen := map[string]time.Time{}
	for i := range 30 {
		after := []time.Duration{0, beatEvery / 2, beatEvery, 2 * beatEvery}[i%4]
		name := fmt.Sprintf("h%d", i)
		table.change(name, func(h *host) { h.seen = began.Add(after) })
		seen[name] = began
		if after >= beatEvery {
			seen[name] = began.Add(after)
		}
	}
	for range 2 { // the second time there is nothing to do
		if err := table.writeBeats(ctx); err != nil {
			t.Fatal(err)
		}
		states, err := s.HostStates(ctx, s.DB)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range seen {
			if got := states[name].LastSeen; !got.Equal(want) {
				t.Errorf("%s was heard of at %v, want %v", name, got, want)
			}
		}
		for name := range seen {
			if h, _ := table.get(name); h.seen.Sub(h.written) >= beatEvery {
				t.Errorf("%s is due still", name)
			}
		}
	}
}

// A host lives as long as its record or this conductor has heard of it lately, and no operator says otherwise.
func TestLiving(t *testing.T) {
	now := clock.Now()
	c := &Conductor{hosts: newHostTable(nil, time.Minute, now)}
	recent, long := now.Add(-time.Second), now.Add(-time.Hour)
	records, want := map[string]*compute.Host{}, map[string]bool{}
	for name, h := range map[string]struct {
		written, heard time.Time // heard: zero when this conductor does not know the host
		forced, lives  bool
	}{
		"heard here":                {long, recent, false, true},
		"heard elsewhere":           {recent, long, false, true},
		"known elsewhere":           {recent, time.Time{}, false, true},
		"silent":                    {long, long, false, false},
		"silent, known elsewhere":   {long, time.Time{}, false, false},
		"heard here, but forced":    {long, recent, true, false},
		"heard there, but forced":   {recent, time.Time{}, true, false},
		"heard everywhere for long": {recent, recent, false, true},
	} {
		records[name] = &compute.Host{Name: name, LastSeen: h.written, ForcedDown: h.forced}
		if !h.heard.IsZero() {
			c.hosts.put(compute.Host{Name: name, NodeID: name, LastSeen: h.written})
			c.hosts.change(name, func(m *host) { m.seen = h.heard })
		}
		if h.lives {
			want[name] = true
		}
	}
	if got := c.Living(records); !maps.Equal(got, want) {
		t.Errorf("%v live, want %v", got, want)
	}
}
