// Package weigher holds the host weighers of nova-scheduler, one file each. All is the registry. A weigher gives raw values; the planner
// normalises them over the hosts of the request, multiplies and sums.
package weigher

import "kilonova/internal/compute/scheduler"

// All gives every weigher by its name.
func All() map[string]scheduler.Weigher {
	return map[string]scheduler.Weigher{
		"RAMWeigher":                         ram(),
		"CPUWeigher":                         cpu(),
		"DiskWeigher":                        disk(),
		"IoOpsWeigher":                       ioOps(),
		"NumInstancesWeigher":                numInstances(),
		"PCIWeigher":                         pci(),
		"ServerGroupSoftAffinityWeigher":     softAffinity(),
		"ServerGroupSoftAntiAffinityWeigher": softAntiAffinity(),
		"BuildFailureWeigher":                buildFailure(),
		"CrossCellWeigher":                   crossCell(),
		"HypervisorVersionWeigher":           hypervisorVersion(),
		"ImagePropertiesWeigher":             imageProperties(),
		"MetricsWeigher":                     metrics(),
	}
}

type value = func(*scheduler.HostState) float64

// always is a weigher whose value does not depend on the request.
func always(v value) func(*scheduler.Config, *scheduler.Request) func(*scheduler.HostState) float64 {
	return func(*scheduler.Config, *scheduler.Request) func(*scheduler.HostState) float64 { return v }
}

func zero() *float64 {
	var z float64
	return &z
}
