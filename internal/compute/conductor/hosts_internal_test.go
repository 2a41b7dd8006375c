package conductor

import (
	"testing"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/compute/store"
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
