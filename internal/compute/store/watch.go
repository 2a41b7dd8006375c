package store

import (
	"context"

	"kilonova/internal/compute"
	"kilonova/internal/db"
)

// Watcher is told of changes of compute's nouns inside the transactions that make them. An error undoes the transaction. It must not wait for anything but the
// database. Servers that an operation changes are told of as well, so it is asked first which changes it wants.
type Watcher interface {
	// Wants tells whether changes of a kind are to be told.
	Wants(what What) bool
	Changed(ctx context.Context, tx *db.Tx, c Change) error
}

// What names a kind of change.
type What string

// The kinds of change.
const (
	AggregateCreated  What = "aggregate created"
	AggregateDeleted  What = "aggregate deleted"
	AggregateRenamed  What = "aggregate renamed"
	AggregateMetadata What = "aggregate metadata changed"
	AggregateHostIn   What = "host added to aggregate"
	AggregateHostOut  What = "host removed from aggregate"
	CacheBegan        What = "images are being cached on the hosts of an aggregate"
	CacheHost         What = "images were cached on a host" // Now: *Caching
	CacheEnded        What = "images were cached on the hosts of an aggregate"
	FlavorCreated     What = "flavor created"
	FlavorChanged     What = "flavor changed"
	FlavorDeleted     What = "flavor deleted"
	KeyPairCreated    What = "key pair created"
	KeyPairDeleted    What = "key pair deleted"
	GroupCreated      What = "server group created"
	GroupDeleted      What = "server group deleted"
	GroupMember       What = "server added to group" // Now.Members: the new one only
	ServiceCreated    What = "service created"
	ServiceChanged    What = "service changed" // by an operator
	ServiceDeleted    What = "service deleted"
	HostReported      What = "host reported"           // Now: *compute.Host, with the description that it sent
	LibvirtLost       What = "libvirt does not answer" // Now: *Trouble
	ServerChanged     What = "server changed"          // Before: only VMState, Name and Tags
)

// Change is one change. Before and Now point to the same kind of noun (*compute.Aggregate, *compute.Flavor, …); Before is nil for what is made, Now for what is
// removed.
type Change struct {
	What        What
	Before, Now any
	Projects    []string // flavors: who has access
}

// Caching is how far the hosts of an aggregate are with fetching images ahead.
type Caching struct {
	Aggregate      compute.Aggregate
	Host           string
	Cached, Failed []string // images
	Index, Total   int      // hosts
}

// Trouble is what an agent has with its hypervisor.
type Trouble struct{ Host, IP, Cause string }

// Told writes down, in a transaction of its own, what happened outside of any; nobody listening, nothing is done.
func (s *Store) Told(ctx context.Context, what What, now any) error {
	if !s.wants(what) {
		return nil
	}
	return s.DB.Write(ctx, func(tx *db.Tx) error { return s.tell(ctx, tx, what, nil, now) })
}

// Watch sets the watcher; nil: nobody. It must be called before the store is used.
func (s *Store) Watch(w Watcher) { s.watcher = w }

func (s *Store) wants(what What) bool { return s.watcher != nil && s.watcher.Wants(what) }

func (s *Store) tell(ctx context.Context, tx *db.Tx, what What, before, now any) error {
	if !s.wants(what) {
		return nil
	}
	return s.watcher.Changed(ctx, tx, Change{What: what, Before: before, Now: now})
}

// tellFlavor tells of a flavor with those who have access.
func (s *Store) tellFlavor(ctx context.Context, tx *db.Tx, what What, f *compute.Flavor) error {
	if !s.wants(what) {
		return nil
	}
	projects, err := s.FlavorAccess(ctx, tx, f.ID)
	if err != nil {
		return err
	}
	return s.watcher.Changed(ctx, tx, Change{What: what, Now: f, Projects: projects})
}
