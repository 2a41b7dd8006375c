package store_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
)

// Many hosts saved together are as if each had been saved alone: new ones, those that only were heard of again, and those with news.
func TestSaveHostsIsSaveHost(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	const n = 150
	at := clock.Now().Truncate(time.Second)
	hosts := func(version int, info string, seen time.Time) (out []compute.Host, nodes []string) {
		for i := range n {
			h := compute.Host{Name: fmt.Sprintf("h%03d", i), NodeID: fmt.Sprintf("node-%d", i), Version: 3, Info: []byte(`{"vcpus":4}`), LastSeen: seen}
			if i%3 == 0 {
				h.Version, h.Info = version, []byte(info)
			}
			out, nodes = append(out, h), append(nodes, h.Name+".example")
		}
		return out, nodes
	}
	save := func(version int, info string, seen time.Time) []compute.Host {
		t.Helper()
		var saved []compute.Host
		write(t, s, func(tx *db.Tx) (err error) {
			in, nodes := hosts(version, info, seen)
			saved, err = s.SaveHosts(ctx, tx, in, nodes)
			return err
		})
		slices.SortFunc(saved, func(a, b compute.Host) int { return cmp.Compare(a.Name, b.Name) })
		return saved
	}
	for round, c := range []struct {
		version int
		info    string
	}{{3, `{"vcpus":4}`}, {3, `{"vcpus":4}`}, {4, `{"vcpus":8}`}} {
		seen := at.Add(time.Duration(round) * time.Minute)
		saved := save(c.version, c.info, seen)
		var names []string
		for _, h := range saved {
			names = append(names, h.Name)
		}
		read, err := s.HostsByName(ctx, s.DB, names...)
		if err != nil || len(saved) != n || len(read) != n {
			t.Fatalf("round %d: %d saved, %d read: %v", round, len(saved), len(read), err)
		}
		for i, h := range read {
			if h.ServiceID != saved[i].ServiceID || h.NodeNumber != saved[i].NodeNumber || h.ServiceID == "" {
				t.Fatalf("round %d: %s is %+v and was given as %+v", round, h.Name, h, saved[i])
			}
			version, info := 3, `{"vcpus":4}`
			if i%3 == 0 {
				version, info = c.version, c.info
			}
			if h.Version != version || string(h.Info) != info || !h.LastSeen.Equal(seen) || h.Zone != store.DefaultZone {
				t.Fatalf("round %d: %s is %+v", round, h.Name, h)
			}
		}
		if round == 1 { // what operators decide stays
			yes, why := true, "repair"
			write(t, s, func(tx *db.Tx) error { return s.SetServiceState(ctx, tx, saved[3].ServiceID, &yes, &why, nil) })
		}
		if round == 2 && (!saved[3].Disabled || saved[4].Disabled) {
			t.Fatalf("%+v", saved[3])
		}
	}
}

func TestHeartbeatsOfMany(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	var in []compute.Host
	var nodes []string
	for i := range 600 {
		in, nodes = append(in, compute.Host{Name: fmt.Sprintf("h%03d", i), NodeID: fmt.Sprintf("n%d", i), LastSeen: clock.Now().Add(-time.Hour)}), append(nodes, "")
	}
	write(t, s, func(tx *db.Tx) error { _, err := s.SaveHosts(ctx, tx, in, nodes); return err })
	seen := clock.Now()
	var heard []string
	for _, h := range in[10:] {
		heard = append(heard, h.Name)
	}
	write(t, s, func(tx *db.Tx) error { return s.Heartbeats(ctx, tx, append(heard, "nobody"), seen) })
	states, err := s.HostStates(ctx, s.DB)
	if err != nil || len(states) != len(in) {
		t.Fatal(len(states), err)
	}
	for i, h := range in {
		if got := states[h.Name].LastSeen.Equal(seen); got != (i >= 10) {
			t.Fatalf("%s was heard of at %v", h.Name, states[h.Name].LastSeen)
		}
	}
	v := server("p", 1)
	write(t, s, func(tx *db.Tx) error { return s.InsertServer(ctx, tx, v) })
	used, err := s.HostsWithServers(ctx, s.DB, v.Host, "h000")
	if err != nil || len(used) != 1 || !used[v.Host] {
		t.Fatal(used, err)
	}
}
