package store_test

import (
	"fmt"
	"sync"
	"testing"

	"kilonova/internal/compute"
	"kilonova/internal/db"
	"kilonova/internal/id"
)

// TestGuardGroup lets 40 servers of each group choose hosts at once; those that pass keep the policy.
func TestGuardGroup(t *testing.T) {
	for name, c := range map[string]struct {
		policy string
		limit  int
		passed int // of 40 that want one of 4 hosts
		hosts  int
	}{"anti-affinity": {"anti-affinity", 0, 4, 4}, "three per host": {"anti-affinity", 3, 12, 4}, "affinity": {"affinity", 0, 10, 1}, "soft": {"soft-anti-affinity", 0, 40, 4}} {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t)
			ctx := t.Context()
			g := &compute.ServerGroup{ID: id.UUID(), Name: "g", ProjectID: "p", UserID: "u", Policy: c.policy, MaxPerHost: c.limit}
			var servers []*compute.Server
			write(t, s, func(tx *db.Tx) error {
				if err := s.InsertGroup(ctx, tx, g); err != nil {
					return err
				}
				for n := range 40 {
					v := server("p", n)
					v.Host, v.GroupID = "", g.ID
					servers = append(servers, v)
					if err := s.InsertServer(ctx, tx, v); err != nil {
						return err
					}
				}
				return nil
			})
			var wg sync.WaitGroup
			var mu sync.Mutex
			passed := 0
			for i, v := range servers {
				wg.Go(func() {
					host := fmt.Sprint("c", i%4)
					err := s.DB.Write(ctx, func(tx *db.Tx) error {
						if err := s.GuardGroup(ctx, tx, g.ID, v.ID, host); err != nil {
							return err
						}
						return s.UpdateServer(ctx, tx, v.ID, func(v *compute.Server) error { v.Host = host; return nil })
					})
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						passed++
					} else if !isConflict(err) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			places, err := s.GroupPlaces(ctx, s.DB, g.ID, g.Policy)
			hosts := map[string]bool{}
			for _, at := range places {
				hosts[at[0]] = true
			}
			if err != nil || passed != c.passed || len(hosts) != c.hosts {
				t.Fatal(passed, hosts, err)
			}
			// A server may stay where it is.
			write(t, s, func(tx *db.Tx) error {
				for _, v := range servers {
					now, err := s.Server(ctx, tx, v.ID)
					if err != nil {
						return err
					}
					if err := s.GuardGroup(ctx, tx, g.ID, now.ID, now.Host); err != nil {
						return err
					}
				}
				return s.GuardGroup(ctx, tx, "gone", "x", "c1")
			})
		})
	}
}
