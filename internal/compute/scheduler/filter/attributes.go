package filter

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"kilonova/internal/compute/scheduler"
)

// attribute gives a host's attribute by the name that extra specs and JSON queries use; nested ones by path. Names that are no attribute are
// looked up in the host's stats.
func attribute(h *scheduler.HostState, path []string) (any, bool) {
	var v any
	switch path[0] {
	case "id":
		v = h.ID
	case "uuid":
		v = h.Provider
	case "service_id":
		v = h.ServiceID
	case "host":
		v = h.Host
	case "hypervisor_hostname", "nodename":
		v = h.Node
	case "vcpus", "vcpus_total":
		v = h.VCPUs
	case "vcpus_used":
		v = h.VCPUsUsed
	case "memory_mb", "total_usable_ram_mb":
		v = h.MemoryMB
	case "memory_mb_used":
		v = h.MemoryUsedMB
	case "local_gb", "total_usable_disk_gb":
		v = h.DiskGB
	case "local_gb_used":
		v = h.DiskUsedGB
	case "disk_mb_used":
		v = h.DiskUsedGB * 1024
	case "free_ram_mb":
		v = h.FreeRAMMB()
	case "free_disk_mb":
		v = h.FreeDiskMB()
	case "free_disk_gb":
		v = h.FreeDiskMB() / 1024
	case "disk_available_least":
		if h.DiskAvailableLeast == nil {
			return nil, false
		}
		v = *h.DiskAvailableLeast
	case "hypervisor_type":
		v = h.HypervisorType
	case "hypervisor_version":
		v = h.HypervisorVersion
	case "host_ip":
		v = h.HostIP
	case "cpu_allocation_ratio":
		v = h.CPURatio
	case "ram_allocation_ratio":
		v = h.RAMRatio
	case "disk_allocation_ratio":
		v = h.DiskRatio
	case "num_instances", "running_vms":
		v = h.NumServers
	case "num_io_ops", "current_workload":
		v = h.IOOps
	case "failed_builds":
		v = h.FailedBuilds
	case "cell_uuid":
		v = h.Cell
	case "mapped":
		v = 1
	case "updated":
		v = h.Updated.UTC().Format("2006-01-02 15:04:05")
	case "aggregates":
		v = names(h.Aggregates)
	case "cpu_info":
		v = h.CPUInfo
	case "stats":
		v = texts(h.Stats)
	case "metrics":
		v = floats(h.Metrics)
	case "supported_instances", "supported_hv_specs":
		v = h.Supported
	case "numa_topology":
		v = numa(h.NUMA)
	case "pci_device_pools", "pci_stats":
		v = pools(h.PCI)
	case "limits":
		v = map[string]any{"vcpu": float64(h.VCPUs) * h.CPURatio, "memory_mb": float64(h.MemoryMB) * h.RAMRatio, "disk_gb": float64(h.DiskGB) * h.DiskRatio}
	case "instances":
		v = slices.Sorted(maps.Keys(h.Servers))
	default:
		if s, ok := h.Stats[path[0]]; ok && len(path) == 1 {
			return s, true
		}
		return nil, false
	}
	for _, key := range path[1:] {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		if v, ok = m[key]; !ok {
			return nil, false
		}
	}
	return v, true
}

func names(list []*scheduler.Aggregate) []string {
	out := make([]string, len(list))
	for i, a := range list {
		out[i] = a.Name
	}
	return out
}

// numa shows the NUMA nodes by their numbers.
func numa(n *scheduler.NUMA) map[string]any {
	if n == nil {
		return nil
	}
	cells := map[string]any{}
	for i := range n.Cells {
		c := &n.Cells[i]
		cells[strconv.Itoa(c.ID)] = map[string]any{"cpus": len(c.CPUs), "pcpus": len(c.PCPUs), "pinned": len(c.Pinned), "memory": c.MemoryMB, "memory_usage": c.MemoryUsedMB}
	}
	return map[string]any{"nodes": len(n.Cells), "cells": cells}
}

// pools shows how many devices are free by vendor and product.
func pools(in []scheduler.PCIPool) map[string]any {
	out := map[string]any{}
	for i := range in {
		key := in[i].Tags["vendor_id"] + ":" + in[i].Tags["product_id"]
		n, _ := out[key].(int)
		out[key] = n + in[i].Count
	}
	return out
}

func texts(in map[string]string) map[string]any {
	out := make(map[string]any, len(in))
	for k, v := range in {
		out[k] = v
	}
	return out
}

func floats(in map[string]float64) map[string]any {
	out := make(map[string]any, len(in))
	for k, v := range in {
		out[k] = v
	}
	return out
}

// text writes a value as comparisons see it.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case bool:
		if v {
			return "True"
		}
		return "False"
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			parts[i] = text(e)
		}
		return strings.Join(parts, ", ")
	case []string:
		return strings.Join(v, ", ")
	}
	return fmt.Sprint(v)
}
