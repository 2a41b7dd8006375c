// Package local is the built-in placement service: the tables, the guarded claims and an in-memory snapshot of all providers.
//
// What it promises. A claim is one transaction that checks capacity, unit rules and generations where the rows are: for each provider and
// class the counter "used" equals the sum of the allocations at every commit, and no claim takes it past the capacity. (Lowering an inventory
// below its use is allowed, as in the API; claims that do not add to it still pass.) A consumer without allocations has no row. Every change of a
// provider or of what it has makes its generation grow.
//
// Candidates, lists and Providers are answered from the snapshot. It holds every commit of this process at once, by hooks that run
// before a Write returns; changes of other processes are found by their time stamps at most a second later, and by a comparison of all
// versions once a minute, so that clocks more than ten seconds apart delay news instead of losing it. Reading a single provider, its
// allocations or a consumer asks the database.
//
// What it does not promise: that a candidate can still be claimed.
package local

import (
	"context"
	"embed"
	"io/fs"
	"slices"

	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/placement"
	"kilonova/internal/placement/candidate"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Config is what the service needs.
type Config struct {
	DB *db.DB
	// Search are the settings of allocation candidates.
	Search candidate.Options
	// IncompleteProject and IncompleteUser own the consumers of callers that name no owner (before microversion 1.8). Default: the zero UUID.
	IncompleteProject, IncompleteUser string
}

// Service is the built-in placement. It implements placement.Registry.
type Service struct {
	db                    *db.DB
	config                Config
	snap                  *snapshot
	stdClasses, stdTraits map[string]bool
}

var _ placement.Registry = (*Service)(nil)

// New brings the tables up to date and loads the snapshot.
func New(ctx context.Context, c Config) (*Service, error) {
	const nobody = "00000000-0000-0000-0000-000000000000"
	if c.IncompleteProject == "" {
		c.IncompleteProject = nobody
	}
	if c.IncompleteUser == "" {
		c.IncompleteUser = nobody
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	if err := c.DB.Migrate(ctx, "placement", files); err != nil {
		return nil, err
	}
	s := &Service{db: c.DB, config: c, snap: newSnapshot(c.DB), stdClasses: map[string]bool{}, stdTraits: map[string]bool{}}
	for _, n := range placement.StandardClasses() {
		s.stdClasses[n] = true
	}
	for _, n := range placement.StandardTraits() {
		s.stdTraits[n] = true
	}
	if _, err := s.snap.view(ctx, true); err != nil {
		return nil, err
	}
	return s, nil
}

// Rest lets go of memory that only speeds up the next request; it is called while there are none.
func (s *Service) Rest(context.Context) error {
	if v := s.snap.now.Load(); v != nil {
		v.Rest()
	}
	return nil
}

// Candidates implements placement.Service.
func (s *Service) Candidates(ctx context.Context, q placement.Query) (*placement.Candidates, error) {
	v, err := s.snap.view(ctx, false)
	if err != nil {
		return nil, err
	}
	found, err := v.Search(ctx, q, s.config.Search)
	if err != nil || len(found.Candidates) > 0 {
		return found, err
	}
	// Before the answer is "none", what other processes have committed this very moment counts too.
	if v, err = s.snap.view(ctx, true); err != nil {
		return nil, err
	}
	return v.Search(ctx, q, s.config.Search)
}

// Providers implements placement.Service.
func (s *Service) Providers(ctx context.Context, uuids ...string) ([]placement.Provider, error) {
	v, err := s.snap.view(ctx, false)
	if err != nil {
		return nil, err
	}
	if len(uuids) == 0 {
		out := make([]placement.Provider, 0, v.Len())
		v.Each(func(r candidate.Record) { out = append(out, r.Provider) })
		return out, nil
	}
	out := make([]placement.Provider, 0, len(uuids))
	for _, u := range uuids {
		if r, ok := v.Get(u); ok {
			out = append(out, r.Provider)
		}
	}
	return out, nil
}

// List implements placement.Registry.
func (s *Service) List(ctx context.Context, f placement.Filter) ([]placement.Provider, error) {
	if err := s.checkNames(ctx, f); err != nil {
		return nil, err
	}
	v, err := s.snap.view(ctx, true)
	if err != nil {
		return nil, err
	}
	tree := ""
	if f.InTree != "" {
		r, ok := v.Get(f.InTree)
		if !ok {
			return []placement.Provider{}, nil
		}
		tree = r.Root
	}
	out := []placement.Provider{}
	v.Each(func(r candidate.Record) {
		if passes(r.Provider, f, tree) {
			out = append(out, r.Provider)
		}
	})
	slices.SortFunc(out, func(a, b placement.Provider) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out, nil
}

func passes(p placement.Provider, f placement.Filter, tree string) bool {
	has := func(list, choice []string) bool {
		return slices.ContainsFunc(choice, func(s string) bool { return slices.Contains(list, s) })
	}
	switch {
	case f.UUID != "" && p.UUID != f.UUID, f.Name != "" && p.Name != f.Name, tree != "" && p.Root != tree:
		return false
	case has(p.Aggregates, f.NotMemberOf), has(p.Traits, f.Forbidden):
		return false
	}
	for _, choice := range f.MemberOf {
		if !has(p.Aggregates, choice) {
			return false
		}
	}
	for _, choice := range f.Required {
		if !has(p.Traits, choice) {
			return false
		}
	}
	for class, n := range f.Resources {
		if inv, ok := p.Inventory[class]; !ok || !inv.Fits(n, p.Used[class]) {
			return false
		}
	}
	return true
}

func (s *Service) checkNames(ctx context.Context, f placement.Filter) error {
	var traits []string
	for _, choice := range f.Required {
		traits = append(traits, choice...)
	}
	if err := s.knownTraits(ctx, s.db, append(traits, f.Forbidden...)); err != nil {
		return err
	}
	for class := range f.Resources {
		ok, err := s.knownClass(ctx, s.db, class)
		if err != nil {
			return err
		}
		if !ok {
			return fault.New(fault.Invalid, "Invalid resource class in resources parameter: No such resource class %s.", class)
		}
	}
	return nil
}

func notFound(uuid string) error {
	return fault.New(fault.NotFound, "No resource provider with uuid %s found.", uuid).WithCode(placement.CodeProviderNotFound)
}

func concurrent(format string, args ...any) error {
	return fault.New(fault.Conflict, format, args...).WithCode(placement.CodeConcurrentUpdate)
}
