package store_test

import (
	"testing"

	"kilonova/internal/compute"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
)

// TestServersFollowTheirHostsZone: a server that asked for no zone is in that of its host, also when the host goes into another one.
func TestServersFollowTheirHostsZone(t *testing.T) {
	for zone, none := range map[string]string{"": store.DefaultZone, "home": "home"} {
		t.Run(none, func(t *testing.T) {
			s, _ := open(t)
			s.Zone = zone
			ctx := t.Context()
			east := &compute.Aggregate{Name: "east", Metadata: map[string]string{"availability_zone": "east"}}
			fast := &compute.Aggregate{Name: "fast", Metadata: map[string]string{"ssd": "true"}}
			here, away := &compute.Server{ID: "s1", Host: "c1", AvailabilityZone: none}, &compute.Server{ID: "s2", Host: "c2", AvailabilityZone: none}
			write(t, s, func(tx *db.Tx) error {
				for _, h := range []string{"c1", "c2"} {
					if err := s.SaveHost(ctx, tx, &compute.Host{Name: h, NodeID: "n-" + h}, h); err != nil {
						return err
					}
				}
				for _, v := range []*compute.Server{here, away} {
					if err := s.InsertServer(ctx, tx, v); err != nil {
						return err
					}
				}
				for _, a := range []*compute.Aggregate{east, fast} {
					if err := s.InsertAggregate(ctx, tx, a); err != nil {
						return err
					}
				}
				return nil
			})
			for _, step := range []struct {
				name   string
				change func(tx *db.Tx) error
				want   string
			}{
				{"into an aggregate without a zone", func(tx *db.Tx) error { return s.AddAggregateHost(ctx, tx, fast.ID, "c1") }, none},
				{"into a zone", func(tx *db.Tx) error { return s.AddAggregateHost(ctx, tx, east.ID, "c1") }, "east"},
				{"out of the aggregate without", func(tx *db.Tx) error { return s.RemoveAggregateHost(ctx, tx, fast.ID, "c1") }, "east"},
				{"out of the zone", func(tx *db.Tx) error { return s.RemoveAggregateHost(ctx, tx, east.ID, "c1") }, none},
			} {
				write(t, s, step.change)
				h, err := s.Host(ctx, s.DB, "c1")
				if err != nil || h.Zone != step.want {
					t.Errorf("%s: the host is in %s (%v), want %s", step.name, h.Zone, err, step.want)
				}
				for id, want := range map[string]string{"s1": step.want, "s2": none} {
					if v, err := s.Server(ctx, s.DB, id); err != nil || v.AvailabilityZone != want {
						t.Errorf("%s: %s is in %s (%v), want %s", step.name, id, v.AvailabilityZone, err, want)
					}
				}
			}
		})
	}
}
