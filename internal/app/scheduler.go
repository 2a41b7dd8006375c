package app

import (
	"fmt"
	"strconv"
	"strings"

	"kilonova/internal/compute/scheduler"
	"kilonova/internal/config"
)

// SchedulerConfig makes the scheduler's options of the configuration. It fails for a weight that is no number and for values that make no sense.
func SchedulerConfig(cfg *config.Config) (scheduler.Config, error) {
	c, o, q, m := scheduler.Defaults(), cfg.Scheduler, cfg.Placing, cfg.Metrics
	c.MaxAttempts, c.HostSubsetSize, c.DefaultZone, c.ShuffleBest = q.MaxAttempts, max(o.SubsetSize, 1), cfg.Compute.DefaultZone, o.Shuffle
	if len(o.Filters) > 0 {
		c.EnabledFilters = o.Filters
	}
	if len(o.Weighers) > 0 {
		c.WeightClasses = o.Weighers
	}
	c.MaxPlacementResults = q.MaxResults
	c.LimitTenantsToPlacementAggregate, c.PlacementAggregateRequiredForTenants = q.TenantAggregate, q.TenantRequired
	c.QueryPlacementForImageTypeSupport, c.EnableIsolatedAggregateFiltering, c.ImageMetadataPrefilter = q.ImageType, q.Isolated, q.ImageMetadata
	c.QueryPlacementForRoutedNetworkAggregate = q.Routed
	c.PCIInPlacement = o.PCIInPlacement
	c.DisableFallbackPCPUQuery, c.TrackInstanceChanges = cfg.Workarounds.NoFallbackPCPU, o.TrackServers
	c.MaxIOOpsPerHost, c.MaxInstancesPerHost, c.DefaultArchitecture = o.MaxIOOps, o.MaxInstances, o.Architecture
	c.IsolatedImages, c.IsolatedHosts, c.RestrictIsolatedHosts = o.IsolatedImages, o.IsolatedHosts, o.RestrictIsolated
	c.ImageIsolationNamespace, c.ImageIsolationSeparator = o.ImageNamespace, o.ImageSeparator
	c.RAMWeightMultiplier, c.CPUWeightMultiplier, c.DiskWeightMultiplier, c.IOOpsWeightMultiplier = o.RAMWeight, o.CPUWeight, o.DiskWeight, o.IOWeight
	c.NumInstancesMultiplier, c.PCIWeightMultiplier, c.SoftAffinityMultiplier, c.SoftAntiAffinityMult = o.InstancesWeight, o.PCIWeight, o.AffinityWeight, o.AntiWeight
	c.BuildFailureMultiplier, c.CrossCellMoveMultiplier, c.HypervisorVersionMult, c.ImagePropsMultiplier = o.FailureWeight, o.CrossCellWeight, o.VersionWeight, o.ImageWeight
	c.MetricsMultiplier, c.MetricsRequired, c.MetricsWeightUnavailable = m.Weight, m.Required, m.Unavailable
	if c.PCIWeightMultiplier < 0 {
		return c, fmt.Errorf("[filter_scheduler] pci_weight_multiplier %g: it must not be negative", c.PCIWeightMultiplier)
	}
	var err error
	if c.ImagePropsSetting, err = weights("[filter_scheduler] image_props_weight_setting", o.ImageSetting); err != nil {
		return c, err
	}
	c.MetricsSetting, err = weights("[metrics] weight_setting", m.Setting)
	return c, err
}

// weights reads NAME=NUMBER pairs; nil for none.
func weights(option string, pairs []string) (map[string]float64, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	out := map[string]float64{}
	for _, p := range pairs {
		name, number, _ := strings.Cut(p, "=")
		v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %q is not NAME=NUMBER", option, p)
		}
		out[strings.TrimSpace(name)] = v
	}
	return out, nil
}
