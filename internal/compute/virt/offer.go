package virt

// Offer is how a host's configuration turns what the host has into what may be promised of it.
type Offer struct {
	// CPURatio, RAMRatio and DiskRatio are how often each is given out; 0: as its inventory in placement says, where operators may set it.
	CPURatio  float64 `json:"cpu_ratio,omitempty"`
	RAMRatio  float64 `json:"ram_ratio,omitempty"`
	DiskRatio float64 `json:"disk_ratio,omitempty"`
	// With a ratio of 0, an inventory begins with these; 0: 4, 1 and 1.
	InitialCPURatio  float64 `json:"initial_cpu_ratio,omitempty"`
	InitialRAMRatio  float64 `json:"initial_ram_ratio,omitempty"`
	InitialDiskRatio float64 `json:"initial_disk_ratio,omitempty"`

	ReservedCPUs     int64 `json:"reserved_cpus"`
	ReservedMemoryMB int64 `json:"reserved_memory_mb"`
	ReservedDiskMB   int64 `json:"reserved_disk_mb"`
}

// EveryNode stands in ProviderConfig.UUID for the compute nodes that no other entry names.
const EveryNode = "$COMPUTE_NODE"

// ProviderConfig is what an operator's file adds to a resource provider: package providerconfig reads them.
type ProviderConfig struct {
	File      string                       `json:"file"` // its name, for messages
	UUID      string                       `json:"uuid,omitempty"`
	Name      string                       `json:"name,omitempty"` // one of UUID and Name is set
	Inventory map[string]ProviderInventory `json:"inventory,omitempty"`
	Traits    []string                     `json:"traits,omitempty"`
}

// ProviderInventory is what a provider has of a custom resource class; what is 0 takes placement's default.
type ProviderInventory struct {
	Total           int64   `json:"total" yaml:"total"`
	Reserved        int64   `json:"reserved,omitempty" yaml:"reserved"`
	MinUnit         int64   `json:"min_unit,omitempty" yaml:"min_unit"`
	MaxUnit         int64   `json:"max_unit,omitempty" yaml:"max_unit"`
	StepSize        int64   `json:"step_size,omitempty" yaml:"step_size"`
	AllocationRatio float64 `json:"allocation_ratio,omitempty" yaml:"allocation_ratio"`
}

// ID is what the file calls the provider.
func (p *ProviderConfig) ID() string {
	if p.UUID != "" {
		return p.UUID
	}
	return p.Name
}
