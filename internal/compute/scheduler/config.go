package scheduler

import "kilonova/internal/compute"

// Config holds the options of nova's [scheduler], [filter_scheduler], [metrics] and [workarounds] groups under their own names.
type Config struct {
	MaxAttempts                             int    // max_attempts
	MaxPlacementResults                     int    // max_placement_results
	LimitTenantsToPlacementAggregate        bool   // limit_tenants_to_placement_aggregate
	PlacementAggregateRequiredForTenants    bool   // placement_aggregate_required_for_tenants
	QueryPlacementForImageTypeSupport       bool   // query_placement_for_image_type_support
	EnableIsolatedAggregateFiltering        bool   // enable_isolated_aggregate_filtering
	ImageMetadataPrefilter                  bool   // image_metadata_prefilter
	QueryPlacementForRoutedNetworkAggregate bool   // query_placement_for_routed_network_aggregates
	TrackInstanceChanges                    bool   // track_instance_changes: filters and weighers see the servers of hosts
	DisableFallbackPCPUQuery                bool   // [workarounds] disable_fallback_pcpu_query
	DefaultArchitecture                     string // image_properties_default_architecture
	DefaultZone                             string // default_availability_zone: that of hosts in no aggregate with a zone

	EnabledFilters            []string // enabled_filters, in order
	WeightClasses             []string // weight_classes; nil: all
	HostSubsetSize            int      // host_subset_size
	ShuffleBest               bool     // shuffle_best_same_weighed_hosts
	MaxIOOpsPerHost           int      // max_io_ops_per_host
	MaxInstancesPerHost       int      // max_instances_per_host
	IsolatedImages            []string // isolated_images
	IsolatedHosts             []string // isolated_hosts
	RestrictIsolatedHosts     bool     // restrict_isolated_hosts_to_isolated_images
	ImageIsolationNamespace   string   // aggregate_image_properties_isolation_namespace
	ImageIsolationSeparator   string   // aggregate_image_properties_isolation_separator
	CPUWeightMultiplier       float64
	RAMWeightMultiplier       float64
	DiskWeightMultiplier      float64
	IOOpsWeightMultiplier     float64
	NumInstancesMultiplier    float64 // num_instances_weight_multiplier
	PCIWeightMultiplier       float64
	SoftAffinityMultiplier    float64 // soft_affinity_weight_multiplier
	SoftAntiAffinityMult      float64 // soft_anti_affinity_weight_multiplier
	BuildFailureMultiplier    float64 // build_failure_weight_multiplier
	CrossCellMoveMultiplier   float64 // cross_cell_move_weight_multiplier
	HypervisorVersionMult     float64 // hypervisor_version_weight_multiplier
	ImagePropsMultiplier      float64 // image_props_weight_multiplier
	ImagePropsSetting         map[string]float64
	MetricsMultiplier         float64 // [metrics] weight_multiplier
	MetricsSetting            map[string]float64
	MetricsRequired           bool    // [metrics] required
	MetricsWeightUnavailable  float64 // [metrics] weight_of_unavailable
	PCIInPlacement            bool    // pci_in_placement: placement knows the PCI devices and chooses among them
	OwnerTraitFromAllComputes bool    // every compute service is of version 73 or newer: hosts carry the trait OWNER_NOVA
}

// Defaults gives nova's defaults.
func Defaults() Config {
	return Config{
		MaxAttempts: 3, MaxPlacementResults: 1000, DefaultZone: "nova",
		EnabledFilters:       []string{"ComputeFilter", "ComputeCapabilitiesFilter", "ImagePropertiesFilter", "ServerGroupAntiAffinityFilter", "ServerGroupAffinityFilter"},
		TrackInstanceChanges: true, HostSubsetSize: 1, MaxIOOpsPerHost: 8, MaxInstancesPerHost: 50, RestrictIsolatedHosts: true, ImageIsolationSeparator: ".",
		CPUWeightMultiplier: 1, RAMWeightMultiplier: 1, DiskWeightMultiplier: 1, IOOpsWeightMultiplier: -1, PCIWeightMultiplier: 1,
		SoftAffinityMultiplier: 1, SoftAntiAffinityMult: 1, BuildFailureMultiplier: 1000000, CrossCellMoveMultiplier: 1000000,
		HypervisorVersionMult: 1, MetricsMultiplier: 1, MetricsRequired: true, MetricsWeightUnavailable: -10000,
	}
}

// GroupOf makes a Group of a server group: places are the hosts of each member, by server id (more than one while it moves); server is the one that is scheduled and own where
// it is.
func GroupOf(g *compute.ServerGroup, places map[string][]string, server, own string) *Group {
	out := &Group{ID: g.ID, Policy: g.Policy, MaxPerHost: g.MaxPerHost, Hosts: map[string]int{}, OwnHost: own}
	for member, hosts := range places {
		if member == server {
			continue
		}
		for _, h := range hosts {
			out.Hosts[h]++
		}
		if len(hosts) > 1 {
			out.Moving++
		}
	}
	return out
}
