package servers_test

import (
	"fmt"
	"testing"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/apitest"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/store"
)

func unlimited(o *backend.Options) {
	o.Quota = store.Limits{"instances": -1, "cores": -1, "ram": -1}
}

// BenchmarkRoutes measures whole requests: token, routing, policy, database, document.
func BenchmarkRoutes(b *testing.B) {
	w := newWorld(b, unlimited)
	var last *compute.Server
	for i := range 1000 {
		last = w.boot(func(s *compute.Server) { s.Name = fmt.Sprint("vm", i) })
	}
	for name, path := range map[string]string{"detail-1000": "/servers/detail", "detail-100": "/servers/detail?limit=100", "list-1000": "/servers", "show": "/servers/" + last.ID} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if out := apitest.Call(w.h, "reader", "GET", "/v2.1"+path, "", 90); out.Code != 200 {
					b.Fatal(out.Code)
				}
			}
		})
	}
	b.Run("create", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if out := apitest.Call(w.h, "member", "POST", "/v2.1/servers", create(onA), 90); out.Code != 202 {
					b.Fatal(out.Code, out.Body.String())
				}
			}
		})
	})
}
