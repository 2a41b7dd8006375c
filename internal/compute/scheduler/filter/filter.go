// Package filter holds the host filters of nova-scheduler, one file each. All is the registry. A filter looks at the request once (Compile)
// and gives a check that judges hosts; the check neither keeps nor changes anything.
package filter

import "kilonova/internal/compute/scheduler"

// All gives every filter by its name.
func All() map[string]scheduler.Filter {
	return map[string]scheduler.Filter{
		"AllHostsFilter":                    {Compile: allHosts, Once: true},
		"ComputeFilter":                     {Compile: computeService, Once: true},
		"ComputeCapabilitiesFilter":         {Compile: capabilities, Once: true},
		"ImagePropertiesFilter":             {Compile: imageProperties, OnRebuild: true, Once: true},
		"AggregateImagePropertiesIsolation": {Compile: aggregateImageIsolation, OnRebuild: true, Once: true},
		"AggregateInstanceExtraSpecsFilter": {Compile: aggregateExtraSpecs, Once: true},
		"AggregateMultiTenancyIsolation":    {Compile: aggregateTenancy, Once: true},
		"AggregateTypeAffinityFilter":       {Compile: aggregateTypeAffinity, Once: true},
		"IoOpsFilter":                       {Compile: ioOps},
		"AggregateIoOpsFilter":              {Compile: aggregateIoOps},
		"NumInstancesFilter":                {Compile: numInstances},
		"AggregateNumInstancesFilter":       {Compile: aggregateNumInstances},
		"IsolatedHostsFilter":               {Compile: isolatedHosts, OnRebuild: true, Once: true},
		"DifferentHostFilter":               {Compile: differentHost, Once: true},
		"SameHostFilter":                    {Compile: sameHost, Once: true},
		"SimpleCIDRAffinityFilter":          {Compile: cidrAffinity, Once: true},
		"JsonFilter":                        {Compile: jsonQuery},
		"MetricsFilter":                     {Compile: metrics},
		"NUMATopologyFilter":                {Compile: numaTopology},
		"PciPassthroughFilter":              {Compile: pciPassthrough},
		"ServerGroupAffinityFilter":         {Compile: groupAffinity},
		"ServerGroupAntiAffinityFilter":     {Compile: groupAntiAffinity},
	}
}
