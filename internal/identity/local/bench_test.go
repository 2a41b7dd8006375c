package local_test

import (
	"testing"
	"time"

	"kilonova/internal/db/dbtest"
	"kilonova/internal/identity"
	"kilonova/internal/identity/local"
)

func benchCloud(b *testing.B, cfg local.Config) (*local.Service, *identity.Token) {
	b.Helper()
	s := open(b, dbtest.URL(b), b.TempDir(), cfg)
	if err := s.Bootstrap(b.Context(), boot("http://here")); err != nil {
		b.Fatal(err)
	}
	tok, err := s.Login(b.Context(), benchLogin())
	if err != nil {
		b.Fatal(err)
	}
	return s, tok
}

func benchLogin() identity.Login {
	return identity.Login{Methods: []string{"password"}, Password: "demo-secret", User: identity.Selector{Name: "demo", DomainID: "default"},
		Scope: identity.Scope{Project: identity.Selector{Name: "demo", DomainID: "default"}}}
}

// BenchmarkAuthenticate is the validation of a token that is remembered.
func BenchmarkAuthenticate(b *testing.B) {
	s, tok := benchCloud(b, local.Config{})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Authenticate(b.Context(), tok.ID); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkAuthenticateCold is the validation of a token that is looked up in the database.
func BenchmarkAuthenticateCold(b *testing.B) {
	s, tok := benchCloud(b, local.Config{CacheTTL: time.Nanosecond})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Authenticate(b.Context(), tok.ID); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLogin is the issue of a token at the least bcrypt cost; what a higher cost adds is the hash alone.
func BenchmarkLogin(b *testing.B) {
	for name, cost := range map[string]int{"cost4": 4, "cost12": 12} {
		b.Run(name, func(b *testing.B) {
			s, _ := benchCloud(b, local.Config{BcryptCost: cost})
			for b.Loop() {
				if _, err := s.Login(b.Context(), benchLogin()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
