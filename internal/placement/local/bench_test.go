package local

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"kilonova/internal/db"
	"kilonova/internal/id"
	"kilonova/internal/placement"
	"kilonova/internal/placement/candidate"
)

func fill(b testing.TB, s *Service, n int) []string {
	hosts := make([]string, n)
	now := placement.StandardTraits()[:60]
	err := s.db.Write(b.Context(), func(tx *db.Tx) error {
		for i := range hosts {
			hosts[i] = id.UUID()
			p := placement.Provider{UUID: hosts[i], Name: fmt.Sprintf("compute-%d", i), Root: hosts[i]}
			if err := s.insertProvider(b.Context(), tx, &p); err != nil {
				return err
			}
			r := candidate.Record{Provider: placement.Provider{UUID: hosts[i], Inventory: map[string]placement.Inventory{}, Used: map[string]int64{}}}
			if err := s.setInventory(b.Context(), tx, &r, map[string]placement.Inventory{"VCPU": {Total: 1 << 20}, "MEMORY_MB": {Total: 1 << 30}, "DISK_GB": {Total: 1 << 28}}); err != nil {
				return err
			}
			if err := setPairs(b.Context(), tx, "placement_provider_traits", "trait", hosts[i], now); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return hosts
}

var small = placement.Resources{"VCPU": 1, "MEMORY_MB": 512, "DISK_GB": 1}

func BenchmarkCandidates(b *testing.B) {
	for _, n := range []int{1000, 5000, 10000} {
		s := open(b)
		fill(b, s, n)
		for _, limit := range []int{0, 10, 1000} {
			q := placement.Query{Groups: []placement.Group{{Resources: small}}, RootForbidden: []string{"COMPUTE_STATUS_DISABLED"}, Limit: limit}
			b.Run(fmt.Sprintf("hosts=%d/limit=%d", n, limit), func(b *testing.B) {
				for b.Loop() {
					if _, err := s.Candidates(b.Context(), q); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkClaim(b *testing.B) {
	s := open(b)
	hosts := fill(b, s, 1000)
	b.Run("parallel", func(b *testing.B) {
		b.SetParallelism(32)
		var n atomic.Int64
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := s.Claim(b.Context(), who(id.UUID(), 0), placement.Allocations{hosts[n.Add(1)%1000]: small}); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
	b.Run("candidates, claim, release", func(b *testing.B) {
		b.SetParallelism(32)
		q := placement.Query{Groups: []placement.Group{{Resources: small}}, Limit: 10}
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				c, err := s.Candidates(b.Context(), q)
				if err != nil {
					b.Fatal(err)
				}
				server := id.UUID()
				if err := errors.Join(s.Claim(b.Context(), who(server, 0), c.Candidates[0].Allocations), s.Release(b.Context(), server)); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}

// BenchmarkRegister is a host's first report in a cloud that has many already.
func BenchmarkRegister(b *testing.B) {
	s := open(b)
	fill(b, s, 5000)
	n := 0
	for b.Loop() {
		n++
		addHost(b, s, fmt.Sprintf("new-%d", n), stock(8, 8192))
	}
}
