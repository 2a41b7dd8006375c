package local

import (
	"context"
	"maps"
	"slices"
	"strings"

	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/placement"
)

// Claim implements placement.Service.
func (s *Service) Claim(ctx context.Context, c placement.Consumer, a placement.Allocations) error {
	return s.ClaimAll(ctx, []placement.Consumer{c}, []placement.Allocations{a})
}

// ClaimAll implements placement.Service. When each consumer holds already what is claimed, it succeeds and changes nothing.
func (s *Service) ClaimAll(ctx context.Context, cs []placement.Consumer, as []placement.Allocations) error {
	if len(cs) != len(as) {
		return fault.New(fault.Internal, "%d consumers and %d allocations", len(cs), len(as))
	}
	changes := make([]placement.Change, len(cs))
	for i := range cs {
		changes[i] = placement.Change{Consumer: cs[i], Allocations: as[i]}
	}
	return s.write(ctx, func(tx *db.Tx) error { return s.replace(ctx, tx, changes, true) })
}

// Replace implements placement.Registry.
func (s *Service) Replace(ctx context.Context, changes []placement.Change) error {
	return s.write(ctx, func(tx *db.Tx) error { return s.replace(ctx, tx, changes, false) })
}

// Release implements placement.Service.
func (s *Service) Release(ctx context.Context, consumer string) error {
	return s.write(ctx, func(tx *db.Tx) error { return s.ReleaseTx(ctx, tx, consumer) })
}

// ReleaseTx implements placement.Service.
func (s *Service) ReleaseTx(ctx context.Context, tx *db.Tx, consumer string) error {
	return s.replace(ctx, tx, []placement.Change{{Consumer: placement.Consumer{UUID: consumer}, AnyGeneration: true}}, false)
}

// lostRace marks a conflict between two writers that a new try may settle: another process made the same consumer at the same moment.
type lostRace struct{ error }

func (l lostRace) Unwrap() error { return l.error }

// write runs fn, and runs it again when it lost a race.
func (s *Service) write(ctx context.Context, fn func(tx *db.Tx) error) error {
	for try := 1; ; try++ {
		err := s.db.Write(ctx, fn)
		race, lost := err.(lostRace)
		if !lost {
			return err
		}
		if try == 10 {
			return race.error
		}
	}
}

// held is a consumer as the tables have it.
type held struct {
	exists   bool
	consumer placement.Consumer
	now      int64 // generation
	has      placement.Allocations
}

// shelf is one inventory row as the transaction read it.
type shelf struct {
	placement.Inventory
	capacity, used int64
}

// holder is one provider as the transaction read it, its row held.
type holder struct {
	generation, version int64
	// grow is how much the generation grows: 1 when it gives something now, or when a consumer gave all back by an explicit empty set. A provider that only
	// loses keeps its generation, as in the API that clients know; its version grows in any case.
	grow    int64
	shelves map[string]*shelf
}

// replace gives each consumer exactly the new allocations. All checks are made on rows that the transaction holds: consumers first, then
// providers, each in the order of their UUIDs, so that two writers wait for each other instead of both failing.
func (s *Service) replace(ctx context.Context, tx *db.Tx, changes []placement.Change, same bool) error {
	slices.SortFunc(changes, func(a, b placement.Change) int { return strings.Compare(a.Consumer.UUID, b.Consumer.UUID) })
	consumers := make([]held, len(changes))
	pending := !same
	for i := range changes {
		c := &changes[i]
		var err error
		if consumers[i], err = s.consumer(ctx, tx, c.Consumer.UUID); err != nil {
			return err
		}
		pending = pending || !consumers[i].exists && len(c.Allocations) > 0 || !equal(consumers[i].has, c.Allocations)
	}
	if !pending {
		return nil
	}
	for i := range changes {
		if err := consumers[i].check(&changes[i]); err != nil {
			return err
		}
	}
	providers, err := holders(ctx, tx, changes, consumers)
	if err != nil {
		return err
	}
	for i := range changes {
		for provider := range changes[i].Allocations {
			providers[provider].grow = 1
		}
		if len(changes[i].Allocations) == 0 && !changes[i].AnyGeneration {
			for provider := range consumers[i].has {
				providers[provider].grow = 1
			}
		}
	}
	delta, err := s.judge(ctx, tx, changes, consumers, providers)
	if err != nil {
		return err
	}
	for i := range changes {
		if err := s.store(ctx, tx, &changes[i], &consumers[i]); err != nil {
			return err
		}
	}
	return s.count(ctx, tx, providers, delta)
}

// consumer reads and holds a consumer's row and what it has.
func (s *Service) consumer(ctx context.Context, tx *db.Tx, uuid string) (held, error) {
	h := held{consumer: placement.Consumer{UUID: uuid}, has: placement.Allocations{}}
	err := tx.QueryRow(ctx, `SELECT project_id, user_id, type, generation FROM placement_consumers WHERE uuid = ?`+tx.ForUpdate(), uuid).
		Scan(&h.consumer.ProjectID, &h.consumer.UserID, &h.consumer.Type, &h.now)
	if db.IsNoRows(err) {
		return h, nil
	}
	if err != nil {
		return h, err
	}
	h.exists = true
	h.consumer.Generation = &h.now
	h.has, err = allocated(ctx, tx, uuid)
	return h, err
}

func allocated(ctx context.Context, q db.Querier, consumer string) (placement.Allocations, error) {
	out := placement.Allocations{}
	err := each(ctx, q, `SELECT provider, class, amount FROM placement_allocations WHERE consumer = ?`, []any{consumer}, func(scan func(...any) error) error {
		var provider, class string
		var n int64
		if err := scan(&provider, &class, &n); err != nil {
			return err
		}
		if out[provider] == nil {
			out[provider] = placement.Resources{}
		}
		out[provider][class] = n
		return nil
	})
	return out, err
}

func equal(a, b placement.Allocations) bool {
	return maps.EqualFunc(a, b, func(x, y placement.Resources) bool { return maps.Equal(x, y) })
}

// check compares the generation that the caller knows with the row's.
func (h *held) check(c *placement.Change) error {
	if c.AnyGeneration {
		return nil
	}
	switch want := c.Consumer.Generation; {
	case h.exists && want == nil:
		return concurrent("consumer generation conflict - expected %d but got None", h.now)
	case h.exists && *want != h.now:
		return concurrent("consumer generation conflict - expected %d but got %d", h.now, *want)
	case !h.exists && want != nil:
		return concurrent("consumer generation conflict - expected null but got %d", *want)
	}
	return nil
}

// holders reads and holds every provider that gains or loses.
func holders(ctx context.Context, tx *db.Tx, changes []placement.Change, consumers []held) (map[string]*holder, error) {
	var uuids []string
	for i := range changes {
		uuids = slices.AppendSeq(uuids, maps.Keys(changes[i].Allocations))
		uuids = slices.AppendSeq(uuids, maps.Keys(consumers[i].has))
	}
	uuids = distinct(uuids)
	out := make(map[string]*holder, len(uuids))
	if len(uuids) == 0 {
		return out, nil
	}
	in := " IN (" + db.In(len(uuids)) + ")"
	err := each(ctx, tx, `SELECT uuid, generation, version FROM placement_providers WHERE uuid`+in+` ORDER BY uuid`+tx.ForUpdate(), db.Args(uuids),
		func(scan func(...any) error) error {
			var uuid string
			h := &holder{shelves: map[string]*shelf{}}
			err := scan(&uuid, &h.generation, &h.version)
			out[uuid] = h
			return err
		})
	if err != nil {
		return nil, err
	}
	for _, u := range uuids {
		if out[u] == nil {
			return nil, fault.New(fault.Invalid, "Allocation for resource provider '%s' that does not exist.", u).WithCode(placement.CodeUndefined)
		}
	}
	err = each(ctx, tx, `SELECT provider, class, min_unit, max_unit, step_size, capacity, used FROM placement_inventories WHERE provider`+in, db.Args(uuids),
		func(scan func(...any) error) error {
			var uuid, class string
			i := &shelf{}
			err := scan(&uuid, &class, &i.MinUnit, &i.MaxUnit, &i.StepSize, &i.capacity, &i.used)
			if h := out[uuid]; h != nil {
				h.shelves[class] = i
			}
			return err
		})
	return out, err
}

// deltas is how much the use of each class of each provider changes.
type deltas map[string]map[string]int64

func (d deltas) add(provider, class string, n int64) {
	if d[provider] == nil {
		d[provider] = map[string]int64{}
	}
	d[provider][class] += n
}

// judge applies the unit rules to each amount and the capacity to the sums.
func (s *Service) judge(ctx context.Context, tx *db.Tx, changes []placement.Change, consumers []held, providers map[string]*holder) (deltas, error) {
	d := deltas{}
	for i := range changes {
		for provider, resources := range consumers[i].has {
			for class, n := range resources {
				d.add(provider, class, -n)
			}
		}
		for provider, resources := range changes[i].Allocations {
			for class, n := range resources {
				d.add(provider, class, n)
				inv := providers[provider].shelves[class]
				if inv == nil {
					return nil, s.noInventory(ctx, tx, changes[i].Consumer.UUID, provider, class)
				}
				if n < inv.MinUnit || n > inv.MaxUnit || inv.StepSize > 1 && n%inv.StepSize != 0 {
					return nil, unable("The requested amount would violate inventory constraints: %d of %s on resource provider %s, "+
						"where min_unit is %d, max_unit %d and step_size %d.", n, class, provider, inv.MinUnit, inv.MaxUnit, inv.StepSize)
				}
			}
		}
	}
	for provider, classes := range d {
		for class, n := range classes {
			inv := providers[provider].shelves[class]
			if inv == nil { // held before, and its inventory row is gone: the tables disagree
				return nil, fault.New(fault.Internal, "allocation of %s on %s has no inventory", class, provider)
			}
			if n > 0 && inv.used+n > inv.capacity {
				return nil, unable("The requested amount would exceed the capacity of %s on resource provider %s: %d more are asked, %d of %d are used.",
					class, provider, n, inv.used, inv.capacity)
			}
		}
	}
	return d, nil
}

func unable(format string, args ...any) error {
	e := fault.New(fault.Conflict, format, args...).WithCode(placement.CodeUndefined)
	e.Text = "Unable to allocate inventory: " + e.Text
	return e
}

func (s *Service) noInventory(ctx context.Context, tx *db.Tx, consumer, provider, class string) error {
	ok, err := s.knownClass(ctx, tx, class)
	if err != nil {
		return err
	}
	if !ok {
		return fault.New(fault.Invalid, "Unable to allocate inventory for consumer %s: No such resource class %s.", consumer, class)
	}
	return unable("Inventory for '%s' on resource provider '%s' invalid.", class, provider)
}

// store writes a consumer and its allocations.
func (s *Service) store(ctx context.Context, tx *db.Tx, c *placement.Change, h *held) error {
	id := c.Consumer.UUID
	if len(h.has) > 0 {
		if _, err := tx.Exec(ctx, `DELETE FROM placement_allocations WHERE consumer = ?`, id); err != nil {
			return err
		}
	}
	if len(c.Allocations) == 0 {
		if !h.exists {
			return nil
		}
		_, err := tx.Exec(ctx, `DELETE FROM placement_consumers WHERE uuid = ?`, id)
		return err
	}
	owner := c.Consumer
	if owner.ProjectID == "" {
		owner.ProjectID, owner.UserID = s.config.IncompleteProject, s.config.IncompleteUser
		if h.exists {
			owner.ProjectID, owner.UserID = h.consumer.ProjectID, h.consumer.UserID
		}
	}
	if owner.Type == "" {
		owner.Type = h.consumer.Type
	}
	if h.exists {
		if _, err := tx.Exec(ctx, `UPDATE placement_consumers SET project_id = ?, user_id = ?, type = ?, generation = generation + 1 WHERE uuid = ?`,
			owner.ProjectID, owner.UserID, owner.Type, id); err != nil {
			return err
		}
	} else {
		_, err := tx.Exec(ctx, `INSERT INTO placement_consumers (uuid, project_id, user_id, type, generation) VALUES (?, ?, ?, ?, 1)`,
			id, owner.ProjectID, owner.UserID, owner.Type)
		if db.IsDuplicate(err) {
			return lostRace{concurrent("consumer generation conflict - another process made consumer %s at the same time", id)}
		}
		if err != nil {
			return err
		}
	}
	q := strings.Builder{}
	q.WriteString(`INSERT INTO placement_allocations (consumer, provider, class, amount) VALUES `)
	var args []any
	for _, provider := range slices.Sorted(maps.Keys(c.Allocations)) {
		for _, class := range slices.Sorted(maps.Keys(c.Allocations[provider])) {
			if len(args) > 0 {
				q.WriteString(", ")
			}
			q.WriteString("(?, ?, ?, ?)")
			args = append(args, id, provider, class, c.Allocations[provider][class])
		}
	}
	_, err := tx.Exec(ctx, q.String(), args...)
	return err
}

// count moves the counters of use. Each statement checks the capacity once more where the row is; a claim that reads a stale row can
// therefore fail, but never take too much.
func (s *Service) count(ctx context.Context, tx *db.Tx, providers map[string]*holder, d deltas) error {
	now := clock.Micros(clock.Now())
	for _, provider := range slices.Sorted(maps.Keys(providers)) {
		h := providers[provider]
		classes := slices.Sorted(maps.Keys(d[provider]))
		if len(classes) > 0 {
			args := make([]any, 0, 5*len(classes)+1)
			sum := strings.Builder{}
			sum.WriteString("used + CASE class")
			for range classes {
				sum.WriteString(" WHEN ? THEN ?")
			}
			sum.WriteString(" ELSE used - used END") // of the column's type, which gives the parameters theirs
			for _, class := range classes {
				args = append(args, class, d[provider][class])
			}
			shrinks := "1 = 1"
			for _, class := range classes {
				if d[provider][class] > 0 {
					shrinks = sum.String() + " <= capacity OR " + sum.String() + " <= used"
					break
				}
			}
			pairs := slices.Clone(args)
			args = append(append(args, provider), db.Args(classes)...)
			if shrinks != "1 = 1" {
				args = append(append(args, pairs...), pairs...)
			}
			n, err := tx.Exec(ctx, `UPDATE placement_inventories SET used = `+sum.String()+` WHERE provider = ? AND class IN (`+db.In(len(classes))+`) AND (`+shrinks+`)`, args...)
			if err != nil {
				return err
			}
			if n != int64(len(classes)) {
				return concurrent("resource provider generation conflict: provider %s was changed by another request", provider)
			}
		}
		n, err := tx.Exec(ctx, `UPDATE placement_providers SET generation = generation + ?, version = version + 1, changed = ? WHERE uuid = ? AND version = ?`,
			h.grow, now, provider, h.version)
		if err != nil {
			return err
		}
		if n != 1 {
			return concurrent("resource provider generation conflict: provider %s was changed by another request", provider)
		}
		used := make(map[string]int64, len(h.shelves))
		for class, inv := range h.shelves {
			used[class] = inv.used + d[provider][class]
		}
		u := usage{version: h.version + 1, generation: h.generation + h.grow, used: used}
		tx.AfterCommit(func() { s.snap.moved(provider, u) })
	}
	return nil
}
