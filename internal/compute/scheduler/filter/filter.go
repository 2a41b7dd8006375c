// Package filter holds the host filters of nova-scheduler, one file each. All is the registry. A filter looks at the request once (Compile)
// and gives a check that judges hosts; the check neither keeps nor changes anything.
package filter

import "kilonova/internal/compute/scheduler"

// All gives every filter by its name.
func All() map[string]scheduler.Filter {
	return map[string]scheduler.Filter{
		"AllHostsFilter":                    {Compile: allHosts},
		"ComputeFilter":                     {Compile: computeService},
		"ComputeCapabilitiesFilter":         {Compile: capabilities},
		"ImagePropertiesFilter":             {Compile: imageProperties, OnRebuild: true},
		"AggregateImagePropertiesIsolation": {Compile: aggregateImageIsolation, OnRebuild: true},
		"AggregateInstanceExtraSpecsFilter": {Compile: aggregateExtraSpecs},
		"AggregateMultiTenancyIsolation":    {Compile: aggregateTenancy},
		"AggregateTypeAffinityFilter":       {Compile: aggregateTypeAffinity},
		"IoOpsFilter":                       {Compile: ioOps},
		"AggregateIoOpsFilter":              {Compile: aggregateIoOps},
		"NumInstancesFilter":                {Compile: numInstances},
		"AggregateNumInstancesFilter":       {Compile: aggregateNumInstances},
		"IsolatedHostsFilter":               {Compile: isolatedHosts, OnRebuild: true},
		"DifferentHostFilter":               {Compile: differentHost},
		"SameHostFilter":                    {Compile: sameHost},
		"SimpleCIDRAffinityFilter":          {Compile: cidrAffinity},
		"JsonFilter":                        {Compile: jsonQuery},
		"MetricsFilter":                     {Compile: metrics},
		"NUMATopologyFilter":                {Compile: numaTopology},
		"PciPassthroughFilter":              {Compile: pciPassthrough},
		"ServerGroupAffinityFilter":         {Compile: groupAffinity},
		"ServerGroupAntiAffinityFilter":     {Compile: groupAntiAffinity},
	}
}
