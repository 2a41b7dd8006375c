package flow

import (
	"context"
	"errors"

	"kilonova/internal/compute"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/operation"
	"kilonova/internal/placement"
)

// What moves between hosts share: the migration record, the allocations, the bindings of ports.

// origin is where and how a server was when the operation began.
type origin struct {
	Place
	VMState   string `json:"vm_state"`
	Power     int    `json:"power"`
	Off       bool   `json:"off"`
	Migration string `json:"migration,omitempty"`
	Lost      bool   `json:"lost,omitempty"` // it had no allocations that could come back to it
}

func originOf(s *compute.Server) origin {
	return origin{Place: Place{Host: s.Host, Node: s.Node, Provider: s.ComputeID, Zone: s.AvailabilityZone, Claim: s.Claim()}, VMState: s.VMState, Power: s.PowerState, Off: off(s)}
}

func from(r *operation.Run) origin {
	var o origin
	r.Get(varFrom, &o)
	return o
}

// pinned is the availability zone that the server has asked for and keeps to; "": any.
func pinned(s *compute.Server) string {
	if s.PinnedZone == nil {
		return ""
	}
	return *s.PinnedZone
}

// migrationID is the uuid of the record that this operation makes.
func migrationID(r *operation.Run) string { return id.Derived(r.ID, "migration") }

// beginMove remembers where the server is.
func (f *flows) beginMove(ctx context.Context, r *operation.Run) error {
	s, err := f.server(ctx, r)
	if err != nil {
		return err
	}
	o := originOf(s)
	o.Migration = migrationID(r)
	held, _, err := f.Placement.Of(ctx, s.ID)
	if err != nil {
		return err
	}
	o.Lost = len(held) == 0
	r.Set(varFrom, o)
	return nil
}

// openMigration makes a Commit that writes the migration record.
func (f *flows) openMigration(kind func(r *operation.Run) string, status string) func(context.Context, *db.Tx, *operation.Run) error {
	return func(ctx context.Context, tx *db.Tx, r *operation.Run) error {
		s, err := f.Store.Server(ctx, tx, r.Object)
		if err != nil {
			return err
		}
		m := compute.Migration{UUID: migrationID(r), ServerID: s.ID, Type: kind(r), Status: status, SourceHost: s.Host, SourceNode: s.Node, OldFlavorID: s.Flavor.ID,
			NewFlavorID: s.Flavor.ID, ProjectID: s.ProjectID, UserID: r.User}
		switch r.Kind {
		case compute.OpResize:
			var in compute.ResizeInput
			if r.Bind(&in) == nil && !in.Migrate {
				m.NewFlavorID = in.Flavor.ID
			}
		case compute.OpLiveMigrate, compute.OpEvacuate: // the host that was asked for is on record also when it will not do
			var in struct{ Host string }
			if r.Bind(&in) == nil {
				m.DestHost = in.Host
			}
		}
		return f.Store.InsertMigration(ctx, tx, &m)
	}
}

func typed(kind string) func(*operation.Run) string {
	return func(*operation.Run) string { return kind }
}

// failMigration is the undo of openMigration. A live migration or an evacuation that a host has begun with has failed, all others are in error.
func (f *flows) failMigration(ctx context.Context, r *operation.Run) error {
	status, tried := "error", false
	if r.Get(varTried, &tried) && tried {
		status = "failed"
	}
	return f.Store.DB.Write(ctx, func(tx *db.Tx) error {
		return gone(f.Store.UpdateMigration(ctx, tx, migrationID(r), func(m *compute.Migration) error {
			if m.Status != "cancelled" {
				m.Status = status
			}
			return nil
		}))
	})
}

func (f *flows) setMigration(ctx context.Context, tx *db.Tx, uuid, status string) error {
	return f.Store.UpdateMigration(ctx, tx, uuid, func(m *compute.Migration) error { m.Status = status; return nil })
}

// status makes a Commit that moves the operation's migration record on.
func (f *flows) status(status string) func(context.Context, *db.Tx, *operation.Run) error {
	return func(ctx context.Context, tx *db.Tx, r *operation.Run) error {
		return f.Store.UpdateMigration(ctx, tx, migrationID(r), func(m *compute.Migration) error {
			err := notCancelled(m)
			m.Status = status
			return err
		})
	}
}

// destined makes a Commit that writes the chosen destination into the migration record.
func (f *flows) destined(status string) func(context.Context, *db.Tx, *operation.Run) error {
	return func(ctx context.Context, tx *db.Tx, r *operation.Run) error {
		p := placeOf(r)
		s, err := f.Store.Server(ctx, tx, r.Object)
		if err != nil {
			return err
		}
		if err := f.guard(ctx, tx, r, s, p.Host); err != nil {
			return err
		}
		return f.Store.UpdateMigration(ctx, tx, migrationID(r), func(m *compute.Migration) error {
			err := notCancelled(m)
			m.Status, m.DestHost, m.DestNode = status, p.Host, p.Node
			return err
		})
	}
}

// notCancelled fails for a migration that somebody aborted.
func notCancelled(m *compute.Migration) error {
	if m.Status == "cancelled" {
		return fault.New(fault.Conflict, "The live migration of instance %s was aborted.", m.ServerID)
	}
	return nil
}

// takeBack gives what the operation's migration holds back to the server; a server that never gave it away keeps what it has.
func (f *flows) takeBack(ctx context.Context, r *operation.Run) error {
	return f.returnAllocations(ctx, r.Object, migrationID(r), from(r).Place, placeOf(r), from(r).Lost)
}

// returnAllocations gives what a migration holds back to its server, which is at home and had been given a place away. A server that had lost its allocations before it moved has
// nothing to get back: it lets go of what it has away, which is known by its host or, on one host, by what was seen before (lost).
func (f *flows) returnAllocations(ctx context.Context, server, migration string, home, away Place, lost bool) error {
	if err := f.Store.DB.Write(ctx, func(tx *db.Tx) error { return f.Store.ReturnClaim(ctx, tx, server, migration) }); err != nil {
		return err
	}
	for try := 0; ; try++ {
		held, mover, err := f.Placement.Of(ctx, migration)
		if err != nil {
			return err
		}
		has, owner, err := f.Placement.Of(ctx, server)
		if err != nil {
			return err
		}
		if len(held) == 0 {
			if has[away.Provider] != nil && (away.Provider != home.Provider || lost) {
				return f.Placement.Release(ctx, server)
			}
			return nil
		}
		to := placement.Consumer{UUID: server, ProjectID: mover.ProjectID, UserID: mover.UserID, Type: "INSTANCE"}
		if owner != nil {
			to = *owner
		}
		err = f.Placement.ClaimAll(ctx, []placement.Consumer{*mover, to}, []placement.Allocations{{}, held})
		if err == nil || !errors.Is(err, fault.Conflict) || try == 5 {
			return err
		}
	}
}

// release lets go of all that consumers hold of hosts: amounts in placement, and parts by name.
func (f *flows) release(ctx context.Context, consumers ...string) error {
	for _, c := range consumers {
		if err := f.Placement.Release(ctx, c); err != nil {
			return err
		}
	}
	return f.Store.DB.Write(ctx, func(tx *db.Tx) error { return f.Store.DropClaims(ctx, tx, consumers...) })
}

// bind moves the bindings of the server's ports to a host; "" leaves them with the server but on no host.
func (f *flows) bind(ctx context.Context, r *operation.Run, s *compute.Server, p Place) error {
	for _, v := range s.VIFs {
		if err := f.bindOne(ctx, r, s.ID, v.PortID, v.VNICType, p); gone(err) != nil {
			return err
		}
	}
	return nil
}
