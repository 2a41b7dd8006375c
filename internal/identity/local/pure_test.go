package local

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"kilonova/internal/identity"
)

// closure against the obvious model: repeat "add what is implied" until nothing changes.
func TestClosureIsReachability(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(rt, "roles")
		name := func(i int) string { return fmt.Sprint("r", i) }
		table := &roleTable{byID: map[string]identity.Role{}, implied: map[string][]string{}}
		for i := range n {
			table.byID[name(i)] = identity.Role{ID: name(i), Name: name(i)}
		}
		for range rapid.IntRange(0, 12).Draw(rt, "rules") {
			a, b := name(rapid.IntRange(0, n-1).Draw(rt, "prior")), name(rapid.IntRange(0, n-1).Draw(rt, "implied"))
			table.implied[a] = append(table.implied[a], b)
		}
		start := name(rapid.IntRange(0, n-1).Draw(rt, "start"))
		model := map[string]bool{start: true}
		for grew := true; grew; {
			grew = false
			for have := range model {
				for _, next := range table.implied[have] {
					grew = grew || !model[next]
					model[next] = true
				}
			}
		}
		got, prior := table.closure([]string{start})
		if len(got) != len(model) {
			rt.Fatalf("closure %v, model %v", got, model)
		}
		for _, g := range got {
			if !model[g] {
				rt.Fatalf("%s is not implied", g)
			}
			if p := prior[g]; p != "" && !slices.Contains(table.implied[p], g) {
				rt.Fatalf("%s is said to come from %s", g, p)
			}
		}
	})
}

// The cache is bounded, forgets what was not asked for, and takes nothing that was read before a change.
func TestCache(t *testing.T) {
	c := newCache(10, time.Hour)
	tok := func() *identity.Token {
		return &identity.Token{ExpiresAt: time.Now().Add(time.Hour), AuditIDs: []string{"a"}}
	}
	key := func(i int) tokenKey { return tokenKey{byte(i), byte(i >> 8)} }
	for i := range 1000 {
		c.put(key(i), tok(), c.begin())
		if c.get(key(0)) == nil {
			t.Fatalf("an entry that is asked for all the time was dropped after %d others", i)
		}
	}
	if n := len(c.young) + len(c.old); n > 10 {
		t.Errorf("%d entries in a cache of 10", n)
	}
	before := c.begin()
	c.drop(func(*identity.Token) bool { return true })
	c.put(key(0), tok(), before)
	if c.get(key(0)) != nil {
		t.Error("an entry read before a change was kept")
	}
	gone := tok()
	gone.ExpiresAt = time.Now().Add(-time.Second)
	c.put(key(1), gone, c.begin())
	if c.get(key(1)) != nil {
		t.Error("an expired token was given")
	}
}
