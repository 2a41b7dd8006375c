package scheduler

import (
	"slices"
	"strings"
	"time"

	"kilonova/internal/placement"
)

// HostState is one compute node as the scheduler sees it. A Planner only reads it.
type HostState struct {
	Host, Node string
	Provider   string // uuid of its root provider in placement
	ServiceID  string
	ID         int64
	Cell       string
	Zone       string
	HostIP     string
	Aggregates []*Aggregate

	Enabled    bool // os-services status
	Up         bool // heard of within service_down_time, and not forced down
	ForcedDown bool
	Down       string // why it is not up or not enabled, for explanations; may be ""

	HypervisorType    string
	HypervisorVersion int
	Supported         [][3]string // architecture, hypervisor type, mode
	CPUInfo           map[string]any
	Stats             map[string]string
	Metrics           map[string]float64

	VCPUs, VCPUsUsed       int64
	MemoryMB, MemoryUsedMB int64
	DiskGB, DiskUsedGB     int64
	DiskAvailableLeast     *int64
	CPURatio               float64
	RAMRatio               float64
	DiskRatio              float64

	NumServers   int                 // servers on it
	IOOps        int                 // servers that are being built, resized, snapshotted, migrated, rescued, unshelved
	Servers      map[string]ServerOn // those that somebody asked for: by hint, or all when images are weighed or JSON queries may name them
	FailedBuilds int                 // since the last that went well
	Updated      time.Time

	NUMA *NUMA // nil: the host reports none
	PCI  []PCIPool
	// Mediated are the providers of its divided devices.
	Mediated []MediatedProvider
	// Offers are what placement offers on the host, while a request is judged whose devices placement chooses; nil otherwise.
	Offers []placement.Candidate
}

// ServerOn is what matters of a server that is on a host.
type ServerOn struct {
	ImageProps map[string]string
}

// Aggregate is a host aggregate.
type Aggregate struct {
	UUID, Name string
	Metadata   map[string]string
}

// FreeRAMMB is the memory left by the host's own account and ratio.
func (h *HostState) FreeRAMMB() int64 {
	return int64(float64(h.MemoryMB)*ratio(h.RAMRatio)) - h.MemoryUsedMB
}

// FreeDiskMB is the disk left; disk_available_least bounds it when the driver reports it.
func (h *HostState) FreeDiskMB() int64 {
	free := (int64(float64(h.DiskGB)*ratio(h.DiskRatio)) - h.DiskUsedGB) * 1024
	if h.DiskAvailableLeast != nil {
		free = min(free, *h.DiskAvailableLeast*1024)
	}
	return free
}

// FreeVCPUs is what is left of vcpus x ratio.
func (h *HostState) FreeVCPUs() float64 {
	return float64(h.VCPUs)*ratio(h.CPURatio) - float64(h.VCPUsUsed)
}

func ratio(r float64) float64 {
	if r <= 0 {
		return 1
	}
	return r
}

// MetadataValues gives the values that the host's aggregates have for a key, split at commas.
func (h *HostState) MetadataValues(key string) []string {
	var out []string
	for _, a := range h.Aggregates {
		v, ok := a.Metadata[key]
		if !ok {
			continue
		}
		for p := range strings.SplitSeq(v, ",") {
			if p = strings.TrimSpace(p); !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	return out
}
