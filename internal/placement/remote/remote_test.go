package remote_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"kilonova/internal/auth"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/placement"
	"kilonova/internal/placement/api"
	"kilonova/internal/placement/local"
	"kilonova/internal/placement/remote"
	"kilonova/internal/policy"
)

const goodToken = "second"

type tokens struct{}

func (tokens) Authenticate(_ context.Context, token string) (*auth.Caller, error) {
	if token != goodToken {
		return nil, fault.New(fault.Unauthorized, "expired")
	}
	return &auth.Caller{UserID: "u", ProjectID: "service", Roles: []string{"service"}}, nil
}

// both gives the same fresh placement directly and over HTTP.
func both(t *testing.T) (*local.Service, *remote.Service) {
	t.Helper()
	d, err := db.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "placement.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	l, err := local.New(t.Context(), local.Config{DB: d})
	if err != nil {
		t.Fatal(err)
	}
	rules, err := policy.New(api.Rules(), nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := api.New(l, api.Config{Auth: tokens{}, Policy: rules})
	if err != nil {
		t.Fatal(err)
	}
	h, err := s.Handler()
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(http.StripPrefix("/placement", h))
	t.Cleanup(web.Close)
	r, err := remote.New(remote.Config{Endpoint: web.URL + "/placement/", Token: func(_ context.Context, _ *auth.Caller, rejected string) (string, error) {
		if rejected == "" {
			return "first", nil // the service must ask for another
		}
		return goodToken, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return l, r
}

// each runs a test on both implementations of placement.Service.
func each(t *testing.T, test func(t *testing.T, s placement.Service)) {
	t.Run("local", func(t *testing.T) { l, _ := both(t); test(t, l) })
	t.Run("remote", func(t *testing.T) { _, r := both(t); test(t, r) })
	t.Run("another", func(t *testing.T) {
		there := os.Getenv("KILONOVA_COMPARE_PLACEMENT")
		if there == "" {
			t.Skip("KILONOVA_COMPARE_PLACEMENT names no placement to work with")
		}
		r, err := remote.New(remote.Config{Endpoint: there, Token: func(context.Context, *auth.Caller, string) (string, error) { return "admin", nil }})
		if err != nil {
			t.Fatal(err)
		}
		clear(t, there)
		test(t, r)
	})
}

// clear removes what is in another placement.
func clear(t *testing.T, url string) {
	ask := func(method, path string) (doc struct {
		Providers   []struct{ UUID string } `json:"resource_providers"`
		Allocations map[string]any          `json:"allocations"`
	}) {
		req, err := http.NewRequestWithContext(t.Context(), method, url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Auth-Token", "admin")
		req.Header.Set("OpenStack-API-Version", "placement 1.39")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		if method == http.MethodGet {
			if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil {
				t.Fatal(err)
			}
		}
		return doc
	}
	for _, p := range ask("GET", "/resource_providers").Providers {
		for c := range ask("GET", "/resource_providers/"+p.UUID+"/allocations").Allocations {
			ask("DELETE", "/allocations/"+c)
		}
		ask("DELETE", "/resource_providers/"+p.UUID)
	}
}

func stock() map[string]placement.Inventory {
	return map[string]placement.Inventory{"VCPU": {Total: 8, AllocationRatio: 2}, "MEMORY_MB": {Total: 4096, Reserved: 512}, "CUSTOM_GPU": {Total: 1}}
}

func host(t *testing.T, s placement.Service, name string) string {
	t.Helper()
	uuid := id.UUID()
	if _, err := s.EnsureProvider(t.Context(), uuid, name); err != nil {
		t.Fatal(err)
	}
	if err := s.Report(t.Context(), uuid, stock(), []string{"COMPUTE_NODE"}, []string{"COMPUTE_NODE", "COMPUTE_ACCELERATORS"}); err != nil {
		t.Fatal(err)
	}
	return uuid
}

func who(uuid string, generation ...int64) placement.Consumer {
	c := placement.Consumer{UUID: uuid, ProjectID: "p", UserID: "u", Type: "INSTANCE"}
	if len(generation) > 0 {
		c.Generation = &generation[0]
	}
	return c
}

func take(host string, n int64) placement.Allocations {
	return placement.Allocations{host: {"VCPU": n, "MEMORY_MB": 64 * n}}
}

func code(err error) string {
	var e *fault.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestClaims(t *testing.T) {
	each(t, func(t *testing.T, s placement.Service) {
		ctx := t.Context()
		h := host(t, s, "a")
		server, other := id.UUID(), id.UUID()
		if err := s.Claim(ctx, who(server), take(h, 10)); err != nil {
			t.Fatal(err)
		}
		if err := s.Claim(ctx, who(server), take(h, 10)); err != nil {
			t.Fatalf("the same claim again: %v", err)
		}
		if err := s.Claim(ctx, who(server), take(h, 9)); code(err) != placement.CodeConcurrentUpdate || !errors.Is(err, fault.Conflict) {
			t.Fatalf("another claim without the generation: %v", err)
		}
		if err := s.Claim(ctx, who(other), take(h, 7)); code(err) != placement.CodeUndefined || !errors.Is(err, fault.Conflict) {
			t.Fatalf("beyond the capacity: %v", err)
		}
		if err := s.ClaimAll(ctx, []placement.Consumer{who(other), who(server, 1)}, []placement.Allocations{take(h, 10), {}}); err != nil {
			t.Fatalf("move to another consumer: %v", err)
		}
		got, owner, err := s.Of(ctx, other)
		if err != nil {
			t.Fatal(err)
		}
		one := int64(1)
		if d := cmp.Diff(take(h, 10), got) + cmp.Diff(&placement.Consumer{UUID: other, ProjectID: "p", UserID: "u", Type: "INSTANCE", Generation: &one}, owner); d != "" {
			t.Fatal(d)
		}
		if err := errors.Join(s.Release(ctx, other), s.Release(ctx, other)); err != nil {
			t.Fatal(err)
		}
		for _, c := range []string{server, other} {
			if got, owner, err := s.Of(ctx, c); err != nil || owner != nil || len(got) > 0 {
				t.Fatalf("left over: %v %v %v", got, owner, err)
			}
		}
		if err := s.Claim(ctx, placement.Consumer{UUID: server, ProjectID: "p", UserID: "u"}, take(h, 1)); err != nil {
			t.Fatalf("a consumer without type: %v", err)
		}
	})
}

func TestProviders(t *testing.T) {
	each(t, func(t *testing.T, s placement.Service) {
		ctx := t.Context()
		a, b := host(t, s, "a"), host(t, s, "b")
		if err := s.SetTrait(ctx, a, "CUSTOM_GOLD", true); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.SetTrait(ctx, a, "CUSTOM_GOLD", true), s.SetTrait(ctx, b, "CUSTOM_GOLD", false)); err != nil {
			t.Fatal(err)
		}
		agg := id.UUID()
		if err := s.SetAggregates(ctx, a, []string{agg, agg}); err != nil {
			t.Fatal(err)
		}
		if err := s.Report(ctx, a, stock(), []string{"COMPUTE_ACCELERATORS"}, []string{"COMPUTE_NODE", "COMPUTE_ACCELERATORS"}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.EnsureProvider(ctx, a, "renamed"); err != nil {
			t.Fatal(err)
		}
		ps, err := s.Providers(ctx, a, id.UUID())
		if err != nil {
			t.Fatal(err)
		}
		inv := map[string]placement.Inventory{}
		for class, i := range stock() {
			inv[class] = i.WithDefaults()
		}
		want := []placement.Provider{{UUID: a, Root: a, Name: "renamed", Inventory: inv, Used: map[string]int64{"VCPU": 0, "MEMORY_MB": 0, "CUSTOM_GPU": 0},
			Traits: []string{"COMPUTE_ACCELERATORS", "CUSTOM_GOLD"}, Aggregates: []string{agg}}}
		if d := cmp.Diff(want, ps, cmpopts.IgnoreFields(placement.Provider{}, "Generation", "UpdatedAt")); d != "" {
			t.Fatalf("provider (-want +got):\n%s", d)
		}
		if err := s.Claim(ctx, who(id.UUID()), take(b, 1)); err != nil {
			t.Fatal(err)
		}
		if err := s.DeleteProvider(ctx, b); code(err) != placement.CodeProviderInUse {
			t.Fatalf("delete in use: %v", err)
		}
		if err := s.Report(ctx, b, map[string]placement.Inventory{"DISK_GB": {Total: 1}}, nil, nil); code(err) != placement.CodeInventoryInUse {
			t.Fatalf("inventory in use: %v", err)
		}
		child := id.UUID()
		for _, name := range []string{"card", "card of a", "card of a"} {
			if p, err := s.EnsureChild(ctx, child, name, a); err != nil || p.Parent != a || p.Root != a || p.Name != name {
				t.Fatalf("child: %+v %v", p, err)
			}
		}
		if tree, err := s.Tree(ctx, a); err != nil || len(tree) != 2 || tree[0].Parent+tree[1].Parent != a {
			t.Fatalf("tree: %+v %v", tree, err)
		}
		if tree, err := s.Tree(ctx, id.UUID()); err != nil || len(tree) != 0 {
			t.Fatalf("tree of a stranger: %+v %v", tree, err)
		}
		if err := s.DeleteProvider(ctx, a); code(err) != placement.CodeHasChildren {
			t.Fatalf("delete of a parent: %v", err)
		}
		if err := errors.Join(s.DeleteProvider(ctx, child), s.DeleteProvider(ctx, a)); err != nil {
			t.Fatal(err)
		}
		if err := s.DeleteProvider(ctx, a); !errors.Is(err, fault.NotFound) {
			t.Fatalf("delete again: %v", err)
		}
		if all, err := s.Providers(ctx); err != nil || len(all) != 1 || all[0].UUID != b {
			t.Fatalf("providers: %v %v", all, err)
		}
		if _, err := s.EnsureProvider(ctx, id.UUID(), "b"); !errors.Is(err, fault.Conflict) {
			t.Fatalf("a name that is taken: %v", err)
		}
	})
}

// The remote asks for exactly what the local answers directly.
func TestCandidatesAreTheSame(t *testing.T) {
	l, r := both(t)
	ctx := t.Context()
	a, b, share := host(t, l, "a"), host(t, l, "b"), id.UUID()
	agg := id.UUID()
	if _, err := l.EnsureProvider(ctx, share, "nfs"); err != nil {
		t.Fatal(err)
	}
	err := errors.Join(l.Report(ctx, share, map[string]placement.Inventory{"DISK_GB": {Total: 100}}, []string{placement.SharesViaAggregate}, nil),
		l.SetAggregates(ctx, a, []string{agg}), l.SetAggregates(ctx, share, []string{agg}), l.SetTrait(ctx, b, "COMPUTE_STATUS_DISABLED", true))
	if err != nil {
		t.Fatal(err)
	}
	cpu := placement.Resources{"VCPU": 2}
	for name, q := range map[string]placement.Query{
		"plain":       {Groups: []placement.Group{{Resources: cpu}}},
		"root traits": {Groups: []placement.Group{{Resources: cpu}}, RootRequired: []string{"COMPUTE_NODE"}, RootForbidden: []string{"COMPUTE_STATUS_DISABLED"}},
		"shared disk": {Groups: []placement.Group{{Resources: placement.Resources{"VCPU": 1, "DISK_GB": 5}}}},
		"aggregates":  {Groups: []placement.Group{{Resources: cpu, MemberOf: [][]string{{agg, id.UUID()}}}}},
		"outside":     {Groups: []placement.Group{{Resources: cpu, NotMemberOf: []string{agg}}}},
		"groups": {Groups: []placement.Group{{Resources: cpu}, {Suffix: "_G", Resources: placement.Resources{"CUSTOM_GPU": 1}, Required: [][]string{{"COMPUTE_NODE", "HW_CPU_X86_AVX"}},
			Forbidden: []string{"COMPUTE_STATUS_DISABLED"}}}, GroupPolicy: "isolate", SameSubtree: [][]string{{"_G"}}},
		"everything numbered, in an aggregate": {Groups: []placement.Group{{MemberOf: [][]string{{agg}}}, {Suffix: "1", Resources: cpu}}, Limit: 5},
		"everything numbered, elsewhere":       {Groups: []placement.Group{{NotMemberOf: []string{agg}, Forbidden: []string{"HW_CPU_X86_AVX"}}, {Suffix: "1", Resources: cpu}}},
		"tree":                                 {Groups: []placement.Group{{Resources: cpu, InTree: b}}},
		"nobody":                               {Groups: []placement.Group{{Resources: placement.Resources{"VCPU": 1000}}}},
		"unknown trait":                        {Groups: []placement.Group{{Resources: cpu, Required: [][]string{{"CUSTOM_NEVER_SEEN"}}}}},
	} {
		want, err := l.Candidates(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.Candidates(ctx, q)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		order := cmpopts.SortSlices(func(x, y placement.Candidate) bool { return x.Root < y.Root })
		if d := cmp.Diff(want.Candidates, got.Candidates, order, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s (-local +remote):\n%s", name, d)
		}
		if len(got.Candidates) == 0 && len(got.Rejected) == 0 {
			t.Errorf("%s: nothing found and nothing said", name)
		}
		for uuid, p := range want.Summaries {
			g := got.Summaries[uuid]
			if g.Root != p.Root || !slices.Equal(g.Traits, p.Traits) || g.Inventory["VCPU"].Capacity() != p.Inventory["VCPU"].Capacity() {
				t.Errorf("%s: summary %+v, want %+v", name, g, p)
			}
		}
	}
}

func TestParallelRemoteClaims(t *testing.T) {
	_, r := both(t)
	h := host(t, r, "a")
	var won atomic.Int64
	var wg sync.WaitGroup
	for range 24 {
		wg.Go(func() {
			switch err := r.Claim(t.Context(), who(id.UUID()), take(h, 1)); {
			case err == nil:
				won.Add(1)
			case code(err) != placement.CodeUndefined:
				t.Errorf("claim: %v", err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 16 {
		t.Fatalf("%d claims won, 16 fit", won.Load())
	}
}

func TestTroubles(t *testing.T) {
	token := func(context.Context, *auth.Caller, string) (string, error) { return goodToken, nil }
	if _, err := remote.New(remote.Config{Endpoint: "/placement", Token: token}); !errors.Is(err, fault.Invalid) {
		t.Fatalf("relative endpoint: %v", err)
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
	s, err := remote.New(remote.Config{Endpoint: web.URL, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Release(t.Context(), id.UUID()); !errors.Is(err, fault.Unavailable) {
		t.Fatalf("a proxy's error: %v", err)
	}
	web.Close()
	if err := s.Claim(t.Context(), who(id.UUID()), nil); !errors.Is(err, fault.Unavailable) {
		t.Fatalf("nobody there: %v", err)
	}
	if err := s.ReleaseTx(t.Context(), nil, id.UUID()); !errors.Is(err, fault.NotImplemented) {
		t.Fatalf("a transaction of others: %v", err)
	}
}
