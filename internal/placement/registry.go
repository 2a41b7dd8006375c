package placement

import (
	"context"
	"time"
)

// Error codes of the placement API (they stand in the error body from microversion 1.23).
const (
	CodeUndefined        = "placement.undefined_code"
	CodeInventoryInUse   = "placement.inventory.inuse"
	CodeConcurrentUpdate = "placement.concurrent_update"
	CodeDuplicateName    = "placement.duplicate_name"
	CodeProviderInUse    = "placement.resource_provider.inuse"
	CodeHasChildren      = "placement.resource_provider.cannot_delete_parent"
	CodeProviderNotFound = "placement.resource_provider.not_found"
	CodeDuplicateKey     = "placement.query.duplicate_key"
	CodeBadValue         = "placement.query.bad_value"
	CodeMissingValue     = "placement.query.missing_value"
)

// UnknownType is what usages call consumers that were made before consumer types.
const UnknownType = "unknown"

// Filter selects providers; all parts must hold.
type Filter struct {
	UUID, Name  string
	InTree      string
	MemberOf    [][]string // AND of OR-lists
	NotMemberOf []string
	Resources   Resources  // room for each
	Required    [][]string // AND of OR-lists
	Forbidden   []string
}

// Named is a resource class or trait and when it was made (zero for standard ones).
type Named struct {
	Name      string
	CreatedAt time.Time
}

// TraitFilter selects traits.
type TraitFilter struct {
	In         []string // only these; nil: all
	Prefix     string
	Associated *bool // used by some provider, or by none
}

// Holding is what a consumer has of one provider.
type Holding struct {
	Consumer           string
	Provider           string
	ProviderGeneration int64
	ConsumerGeneration int64
	Resources          Resources
}

// Change replaces what one consumer holds.
type Change struct {
	Consumer    Consumer
	Allocations Allocations
	// AnyGeneration accepts the change whatever the consumer's generation is (callers before microversion 1.28).
	AnyGeneration bool
}

// NewInventory is a provider's whole inventory as the reshaper gets it.
type NewInventory struct {
	Provider   string
	Generation int64
	Inventory  map[string]Inventory
}

// UsageFilter selects consumers for GET /usages.
type UsageFilter struct {
	ProjectID, UserID string
	Type              string // "" every consumer, UnknownType those without a type
}

// Usage is the sum of what consumers of one type hold.
type Usage struct {
	Type      string // UnknownType for consumers without
	Consumers int64
	Resources Resources
}

// Registry is all that the REST API offers: Service and the administration of providers, classes, traits and allocations. A generation
// that is nil is not checked; one that is stale is fault.Conflict with CodeConcurrentUpdate.
type Registry interface {
	Service
	// CreateProvider makes a provider (UUID and Name given; Parent may be "").
	CreateProvider(ctx context.Context, p Provider) (*Provider, error)
	// UpdateProvider renames and, when parent is not nil, moves a provider; reparent allows to change or drop a parent that is set.
	UpdateProvider(ctx context.Context, uuid, name string, parent *string, reparent bool) (*Provider, error)
	// Provider gives one, read from the database: fault.NotFound when it does not exist.
	Provider(ctx context.Context, uuid string) (*Provider, error)
	// List gives the providers that pass the filter, by name.
	List(ctx context.Context, f Filter) ([]Provider, error)

	// SetInventory replaces a provider's whole inventory.
	SetInventory(ctx context.Context, uuid string, generation *int64, inv map[string]Inventory) (*Provider, error)
	// AddInventory adds one class that must not be there, PutInventory replaces one that must.
	AddInventory(ctx context.Context, uuid, class string, generation *int64, inv Inventory) (*Provider, error)
	PutInventory(ctx context.Context, uuid, class string, generation *int64, inv Inventory) (*Provider, error)
	// DeleteInventory removes one class that is not in use.
	DeleteInventory(ctx context.Context, uuid, class string) error
	// SetTraits replaces a provider's traits; an unknown trait is fault.Invalid.
	SetTraits(ctx context.Context, uuid string, generation *int64, traits []string) (*Provider, error)
	// ReplaceAggregates replaces a provider's aggregates. Without a generation the provider's own does not grow.
	ReplaceAggregates(ctx context.Context, uuid string, generation *int64, aggregates []string) (*Provider, error)

	// Classes gives all resource classes, standard ones first.
	Classes(ctx context.Context) ([]Named, error)
	// Class gives one: fault.NotFound when it does not exist.
	Class(ctx context.Context, name string) (*Named, error)
	CreateClass(ctx context.Context, name string) error
	RenameClass(ctx context.Context, name, to string) error
	DeleteClass(ctx context.Context, name string) error

	// Traits gives those that pass the filter, in alphabetic order.
	Traits(ctx context.Context, f TraitFilter) ([]Named, error)
	// CreateTrait tells whether the trait is new.
	CreateTrait(ctx context.Context, name string) (bool, error)
	DeleteTrait(ctx context.Context, name string) error

	// HeldBy gives a consumer's holdings and its record (nil when it has none); HeldOn those of all consumers on a provider.
	HeldBy(ctx context.Context, consumer string) ([]Holding, *Consumer, error)
	HeldOn(ctx context.Context, provider string) ([]Holding, error)
	// Replace makes the changes, all or none.
	Replace(ctx context.Context, changes []Change) error
	// Reshape sets inventories and changes allocations in one transaction.
	Reshape(ctx context.Context, inventories []NewInventory, changes []Change) error
	// Usages sums what the consumers hold, by consumer type.
	Usages(ctx context.Context, f UsageFilter) ([]Usage, error)
}
