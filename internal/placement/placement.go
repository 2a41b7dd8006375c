// Package placement is the placement service's nouns and the interface through which the scheduler's side of compute uses it.
package placement

import (
	"context"
	"slices"
	"strings"
	"time"

	"kilonova/internal/db"
)

// Inventory is what a provider has of one resource class.
type Inventory struct {
	Total           int64   `json:"total"`
	Reserved        int64   `json:"reserved"`
	MinUnit         int64   `json:"min_unit"`
	MaxUnit         int64   `json:"max_unit"`
	StepSize        int64   `json:"step_size"`
	AllocationRatio float64 `json:"allocation_ratio"`
	// KeepRatio leaves the ratio of a class that the provider has: AllocationRatio is that of a new one. For reports only.
	KeepRatio bool `json:"-"`
}

// Capacity is floor((total - reserved) x ratio), and 2^62 at most.
func (i Inventory) Capacity() int64 {
	const most = 1 << 62
	return int64(min(float64(i.Total-i.Reserved)*i.AllocationRatio, most))
}

// WithDefaults fills what a zero value leaves open: min_unit 1, max_unit 2147483647, step_size 1, allocation_ratio 1.0.
func (i Inventory) WithDefaults() Inventory {
	if i.MinUnit == 0 {
		i.MinUnit = 1
	}
	if i.MaxUnit == 0 {
		i.MaxUnit = MaxInt
	}
	if i.StepSize == 0 {
		i.StepSize = 1
	}
	if i.AllocationRatio == 0 {
		i.AllocationRatio = 1
	}
	return i
}

// Settled gives the inventory that a report makes of what a provider has: with defaults, and with ratios kept that shall be.
func Settled(reported, have map[string]Inventory) map[string]Inventory {
	out := make(map[string]Inventory, len(reported))
	for class, i := range reported {
		if old, ok := have[class]; ok && i.KeepRatio {
			i.AllocationRatio = old.AllocationRatio
		}
		i.KeepRatio = false
		out[class] = i.WithDefaults()
	}
	return out
}

// Reported gives the traits that a report makes of those that a provider has: the reported ones and, of the others, those that are not managed.
func Reported(reported, have, managed []string) []string {
	out := slices.Clone(reported)
	for _, t := range have {
		is := func(m string) bool {
			prefix, all := strings.CutSuffix(m, "*")
			return m == t || all && strings.HasPrefix(t, prefix)
		}
		if !slices.ContainsFunc(managed, is) {
			out = append(out, t)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Fits tells whether n may be taken when used is taken already.
func (i Inventory) Fits(n, used int64) bool {
	return n >= i.MinUnit && n <= i.MaxUnit && (i.StepSize <= 1 || n%i.StepSize == 0) && used+n <= i.Capacity()
}

// Provider is a resource provider with what it has, in one view.
type Provider struct {
	UUID, Name, Parent, Root string
	Generation               int64
	Inventory                map[string]Inventory // by class
	Used                     map[string]int64
	Traits                   []string
	Aggregates               []string
	UpdatedAt                time.Time // last change of the provider or of anything that belongs to it
}

// Resources is amounts by class.
type Resources map[string]int64

// Allocations is what one consumer holds: resources by provider.
type Allocations map[string]Resources

// Consumer owns allocations. Generation nil: "no allocations exist yet".
type Consumer struct {
	UUID, ProjectID, UserID, Type string // Type INSTANCE, MIGRATION
	Generation                    *int64
}

// Group is one request group of a candidates query. An unsuffixed group without resources takes nothing: what else it asks holds for the root of the tree.
type Group struct {
	Suffix      string
	Resources   Resources
	Required    [][]string // AND of OR-lists of traits
	Forbidden   []string
	MemberOf    [][]string // AND of OR-lists of aggregates
	NotMemberOf []string
	InTree      string
}

// Query asks for allocation candidates.
type Query struct {
	Groups        []Group // the first, with Suffix "", is the unsuffixed group
	GroupPolicy   string  // "", none, isolate
	RootRequired  []string
	RootForbidden []string
	SameSubtree   [][]string
	Limit         int
	// Flat leaves out candidates that take from more than one provider of a tree, as callers before microversion 1.29 expect.
	Flat bool
}

// Candidate is one way to satisfy a query.
type Candidate struct {
	Root        string
	Allocations Allocations
	Mappings    map[string][]string // suffix -> providers
}

// Candidates answers a query. Its maps and slices are shared with the service's snapshot and between candidates: they must not be changed.
type Candidates struct {
	Candidates []Candidate
	Summaries  map[string]*Provider
	// Rejected counts, for an answer that names what was missing, the root providers that each constraint removed, in the order of asking:
	// "VCPU: 12 asked, at most 8 free", … When the limit ended the search, only those looked at before.
	Rejected []Rejection
}

// Rejection is one constraint and how many providers it removed.
type Rejection struct {
	Constraint string // "resource VCPU", "trait COMPUTE_STATUS_DISABLED forbidden", "aggregate …"
	Removed    int
	Nearest    string // the nearest miss: "compute-3 has 2 of 4"
}

// HostReport is what a host has, for Registrar.
type HostReport struct {
	UUID, Name      string
	Inventory       map[string]Inventory
	Traits, Managed []string // as for Service.Report
}

// Registrar is what an implementation is that takes the reports of many hosts at once.
type Registrar interface {
	// Register does what EnsureProvider and Report would for each host, and gives an error for each.
	Register(ctx context.Context, hosts []HostReport) []error
}

// Service is what compute uses.
type Service interface {
	// Candidates answers from an in-memory snapshot that is never older than the last commit of this process and at most a second
	// behind other processes: Claim decides.
	Candidates(ctx context.Context, q Query) (*Candidates, error)
	// Claim replaces all allocations of a consumer in one guarded transaction: capacity and unit rules are checked where the rows are.
	// fault.Conflict (code placement.concurrent_update) when the consumer's generation is stale, fault.Conflict (placement.undefined_code) when the
	// capacity does not suffice. An identical claim that is there already succeeds.
	Claim(ctx context.Context, c Consumer, a Allocations) error
	// ClaimAll is Claim for several consumers, all or nothing (moves between consumers).
	ClaimAll(ctx context.Context, cs []Consumer, as []Allocations) error
	// Release removes all allocations of a consumer; none there is success.
	Release(ctx context.Context, consumer string) error
	// Of gives a consumer's allocations and its record (nil when it has none).
	Of(ctx context.Context, consumer string) (Allocations, *Consumer, error)
	// EnsureProvider creates or renames a root provider and gives its present state.
	EnsureProvider(ctx context.Context, uuid, name string) (*Provider, error)
	// EnsureChild creates or renames a provider below another one and gives its present state.
	EnsureChild(ctx context.Context, uuid, name, parent string) (*Provider, error)
	// Tree gives a root provider and all below it.
	Tree(ctx context.Context, root string) ([]Provider, error)
	// Report replaces a provider's inventory and the traits in the managed set (others, set by operators, stay; NAME* stands for all that begin with NAME). It re-reads and repeats on a
	// generation conflict, does nothing when nothing changed, and fails with fault.Conflict when a removed class is in use.
	Report(ctx context.Context, uuid string, inv map[string]Inventory, traits, managed []string) error
	// SetTrait adds (on) or removes a trait.
	SetTrait(ctx context.Context, uuid, trait string, on bool) error
	// SetAggregates replaces the provider's aggregates.
	SetAggregates(ctx context.Context, uuid string, aggregates []string) error
	// DeleteProvider removes a provider without allocations.
	DeleteProvider(ctx context.Context, uuid string) error
	// Providers gives all providers, or the named ones.
	Providers(ctx context.Context, uuids ...string) ([]Provider, error)
	// ReleaseTx is Release inside a transaction of the caller, on the same database.
	ReleaseTx(ctx context.Context, tx *db.Tx, consumer string) error
}
