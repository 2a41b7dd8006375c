package local

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/placement"
	"kilonova/internal/placement/candidate"
)

const (
	pollEvery    = time.Second      // how old news of other processes may get
	compareEvery = time.Minute      // all versions are compared
	overlap      = 10 * time.Second // clocks may differ and transactions may last that long
	fewEnough    = 400              // providers reloaded by name in one query; more: all are read
)

// snapshot keeps a candidate.View equal to the tables.
//
// Commits of this process arrive by moved and touched, which only note what happened; view, called by every reader, applies the notes
// under refresh before it answers. Rows carry versions, so that it does not matter in which order notes and reloads arrive.
type snapshot struct {
	db *db.DB

	now atomic.Pointer[candidate.View]

	mu     sync.Mutex
	usage  map[string]usage    // newest noted usage by provider
	dirty  map[string]struct{} // to be read again
	fresh  []candidate.Record  // made by committed transactions, as they are in the tables
	noted  atomic.Bool
	began  time.Time    // polled and compared are microseconds since then, by a clock that nobody sets back
	polled atomic.Int64 // when other processes' changes were last looked for

	refresh  sync.Mutex
	newest   int64 // newest time stamp seen
	compared int64
}

// usage is a provider's state as a claim left it.
type usage struct {
	version, generation int64
	used                map[string]int64
}

func newSnapshot(d *db.DB) *snapshot {
	return &snapshot{db: d, began: time.Now(), usage: map[string]usage{}, dirty: map[string]struct{}{}}
}

// age is how long this process has had the snapshot, in microseconds.
func (s *snapshot) age() int64 { return time.Since(s.began).Microseconds() }

// moved notes what a committed claim made of a provider's usage.
func (s *snapshot) moved(uuid string, u usage) {
	s.mu.Lock()
	if old, ok := s.usage[uuid]; !ok || u.version > old.version {
		if ok && u.version != old.version+1 {
			s.dirty[uuid] = struct{}{}
		}
		s.usage[uuid] = u
	}
	s.mu.Unlock()
	s.noted.Store(true)
}

// touched notes that a committed transaction changed providers in another way, made or removed them.
func (s *snapshot) touched(uuids ...string) {
	s.mu.Lock()
	for _, u := range uuids {
		s.dirty[u] = struct{}{}
	}
	s.mu.Unlock()
	s.noted.Store(true)
}

// made notes providers that a committed transaction has made.
func (s *snapshot) made(records []candidate.Record) {
	s.mu.Lock()
	s.fresh = append(s.fresh, records...)
	s.mu.Unlock()
	s.noted.Store(true)
}

// view gives the snapshot with every commit of this process in it. fresh looks for other processes' commits in any case, otherwise at most
// once a second.
func (s *snapshot) view(ctx context.Context, fresh bool) (*candidate.View, error) {
	due := fresh || s.age()-s.polled.Load() >= pollEvery.Microseconds()
	if !due && !s.noted.Load() {
		if v := s.now.Load(); v != nil {
			return v, nil
		}
	}
	s.refresh.Lock()
	defer s.refresh.Unlock()
	if err := s.update(ctx, due); err != nil {
		return nil, fmt.Errorf("refresh the placement snapshot: %w", err)
	}
	return s.now.Load(), nil
}

func (s *snapshot) update(ctx context.Context, poll bool) error {
	v := s.now.Load()
	if v == nil {
		return s.rebuild(ctx)
	}
	s.noted.Store(false)
	s.mu.Lock()
	moved, dirty, fresh := s.usage, s.dirty, s.fresh
	s.usage, s.dirty, s.fresh = map[string]usage{}, map[string]struct{}{}, nil
	s.mu.Unlock()
	if len(fresh) > 0 {
		v = v.Apply(fresh, nil)
		s.now.Store(v)
	}
	for uuid, u := range moved {
		if !v.SetUsed(uuid, u.version, u.generation, u.used) {
			dirty[uuid] = struct{}{}
		}
	}
	err := s.apply(ctx, v, dirty, poll)
	if err != nil { // nothing noted may be lost
		s.touched(slices.Collect(maps.Keys(dirty))...)
	}
	return err
}

func (s *snapshot) apply(ctx context.Context, v *candidate.View, dirty map[string]struct{}, poll bool) error {
	if poll {
		if err := s.look(ctx, v, dirty); err != nil {
			return err
		}
	}
	if len(dirty) == 0 {
		return nil
	}
	if len(dirty) > fewEnough {
		return s.rebuild(ctx)
	}
	records, err := load(ctx, s.db, slices.Sorted(maps.Keys(dirty))...)
	if err != nil {
		return err
	}
	for _, r := range records {
		delete(dirty, r.UUID)
	}
	s.now.Store(v.Apply(records, slices.Collect(maps.Keys(dirty)))) // those left are not in the table
	return nil
}

func (s *snapshot) rebuild(ctx context.Context) error {
	start := s.age()
	records, err := load(ctx, s.db)
	if err != nil {
		return err
	}
	s.now.Store(candidate.Build(records))
	s.polled.Store(start)
	s.compared = start
	for i := range records {
		s.newest = max(s.newest, clock.Micros(records[i].UpdatedAt))
	}
	return nil
}

// look adds to dirty the providers that other processes changed.
func (s *snapshot) look(ctx context.Context, v *candidate.View, dirty map[string]struct{}) error {
	start := s.age()
	since := s.newest - overlap.Microseconds()
	all := start-s.compared >= compareEvery.Microseconds()
	if all {
		since = 0
	}
	known := 0
	err := each(ctx, s.db, `SELECT uuid, version, changed FROM placement_providers WHERE changed >= ?`, []any{since}, func(scan func(...any) error) error {
		var uuid string
		var version, changed int64
		if err := scan(&uuid, &version, &changed); err != nil {
			return err
		}
		r, ok := v.Get(uuid)
		if !ok || r.Version != version {
			dirty[uuid] = struct{}{}
		}
		if ok {
			known++
		}
		s.newest = max(s.newest, changed)
		return nil
	})
	if err != nil {
		return err
	}
	if all && known < v.Len() { // some are gone
		v.Each(func(r candidate.Record) { dirty[r.UUID] = struct{}{} })
	}
	err = each(ctx, s.db, `SELECT uuid, changed FROM placement_gone WHERE changed >= ?`, []any{since}, func(scan func(...any) error) error {
		var uuid string
		var changed int64
		if err := scan(&uuid, &changed); err != nil {
			return err
		}
		if _, ok := v.Get(uuid); ok {
			dirty[uuid] = struct{}{}
		}
		s.newest = max(s.newest, changed)
		return nil
	})
	if err != nil {
		return err
	}
	s.polled.Store(start)
	if all {
		s.compared = start
	}
	return nil
}

// load reads the named providers, or all.
func load(ctx context.Context, q db.Querier, uuids ...string) ([]candidate.Record, error) {
	where, args := "", db.Args(uuids)
	if len(uuids) > 0 {
		where = " IN (" + db.In(len(uuids)) + ")"
	}
	clause := func(column string) string {
		if where == "" {
			return ""
		}
		return " WHERE " + column + where
	}
	var records []candidate.Record
	index := map[string]int{}
	err := each(ctx, q, `SELECT uuid, name, parent, root, generation, version, changed FROM placement_providers`+clause("uuid"), args,
		func(scan func(...any) error) error {
			r := candidate.Record{Provider: placement.Provider{Inventory: map[string]placement.Inventory{}, Used: map[string]int64{}}}
			var changed int64
			if err := scan(&r.UUID, &r.Name, &r.Parent, &r.Root, &r.Generation, &r.Version, &changed); err != nil {
				return err
			}
			r.UpdatedAt = clock.FromMicros(changed)
			index[r.UUID] = len(records)
			records = append(records, r)
			return nil
		})
	if err != nil {
		return nil, err
	}
	err = each(ctx, q, `SELECT provider, class, total, reserved, min_unit, max_unit, step_size, ratio, used FROM placement_inventories`+clause("provider"),
		args, func(scan func(...any) error) error {
			var provider, class string
			var inv placement.Inventory
			var used int64
			if err := scan(&provider, &class, &inv.Total, &inv.Reserved, &inv.MinUnit, &inv.MaxUnit, &inv.StepSize, &inv.AllocationRatio, &used); err != nil {
				return err
			}
			if i, ok := index[provider]; ok {
				records[i].Inventory[class], records[i].Used[class] = inv, used
			}
			return nil
		})
	if err != nil {
		return nil, err
	}
	err = pairs(ctx, q, `SELECT provider, trait FROM placement_provider_traits`+clause("provider")+` ORDER BY provider, trait`, args, func(p, t string) {
		if i, ok := index[p]; ok {
			records[i].Traits = append(records[i].Traits, t)
		}
	})
	if err != nil {
		return nil, err
	}
	err = pairs(ctx, q, `SELECT provider, aggregate FROM placement_provider_aggregates`+clause("provider")+` ORDER BY provider, aggregate`, args,
		func(p, a string) {
			if i, ok := index[p]; ok {
				records[i].Aggregates = append(records[i].Aggregates, a)
			}
		})
	if err != nil {
		return nil, err
	}
	return records, nil
}

// each runs a query and calls f for every row.
func each(ctx context.Context, q db.Querier, query string, args []any, f func(scan func(...any) error) error) error {
	rows, err := q.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

func pairs(ctx context.Context, q db.Querier, query string, args []any, f func(a, b string)) error {
	return each(ctx, q, query, args, func(scan func(...any) error) error {
		var a, b string
		if err := scan(&a, &b); err != nil {
			return err
		}
		f(a, b)
		return nil
	})
}
