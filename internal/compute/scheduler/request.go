package scheduler

import (
	"fmt"
	"strconv"
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/placement"
)

// Request is what a server needs of a host.
type Request struct {
	ServerID  string
	ProjectID string
	Flavor    compute.Flavor
	Image     Image
	// FromVolume says that the root disk is a volume: it needs no local disk.
	FromVolume bool
	Zone       string         // availability zone asked for; "" any
	Hints      map[string]any // scheduler hints as the API took them
	Group      *Group

	ForceHost, ForceNode string   // az:host[:node]: host filters are passed over
	Host, Node           string   // requested destination: only this one, and it must pass
	Ignore               []string // hosts that shall not be used: the one it leaves, those that failed

	// Rebuild: the server stays on Host with another image; only the filters that judge images run.
	Rebuild bool
	// SourceCell is the cell that a move between cells leaves; "" when it is none.
	SourceCell string

	Ports []Port
	PCI   []PCIRequest
	// Mediated are the parts of the host's devices that placement chose (Ways).
	Mediated []compute.MediatedDevice
	// Groups are request groups that other services want: of ports with resources, of device profiles.
	Groups []placement.Group
	// SameSubtree are sets of suffixes of Groups that belong together.
	SameSubtree [][]string

	// Explain asks for the names of the hosts that placement offers.
	Explain bool
}

// Image is what matters of the image (or of the volume that the server boots from).
type Image struct {
	ID         string
	DiskFormat string
	Props      map[string]string // hw_*, img_*, os_*, trait:*
}

// Group is the server's group as it is now.
type Group struct {
	ID         string
	Policy     string         // affinity, anti-affinity, soft-affinity, soft-anti-affinity
	MaxPerHost int            // rule max_server_per_host; 0: 1
	Hosts      map[string]int // members on each host, on their way to it or kept a place there; the server itself not counted
	Moving     int            // members that are in more than one place: nobody knows yet where they will be
	OwnHost    string         // where the server itself is now; "" while it is new
}

// Port is what matters of a requested port or network.
type Port struct {
	ID         string
	VNICType   string // normal, direct, remote-managed, …
	Aggregates []string
	// Segments says that the port's network has segments with aggregates: the host must be in one.
	Segments bool
}

// NeedsDevice tells whether the port is a part of a PCI device, or wants another thing that plain hosts do not have.
func (p Port) NeedsDevice() bool {
	switch p.VNICType {
	case "direct", "macvtap", "direct-physical", "virtio-forwarder", "vdpa", "remote-managed", "accelerator-direct", "accelerator-direct-physical":
		return true
	}
	return false
}

// PCIRequest asks for devices of an alias, or for the one of a port.
type PCIRequest struct {
	ID         string // of the port, or unique among the server's requests
	Alias      string // "" of a port
	Count      int
	Specs      []map[string]string // any of these: vendor_id, product_id, dev_type, physical_network …
	NUMAPolicy string              // legacy, preferred, required, socket
	// Class and Traits are what the provider of each device has in placement (Queries); a request without a class is not known there.
	Class  string
	Traits []string
	// Provider is the one that has the devices, when placement has chosen (Ways); "": any.
	Provider string
}

// Prop gives an image property by its name, or by the name that it once had.
func (r *Request) Prop(name string) string { return compute.ImageProp(r.Image.Props, name) }

// Spec gives an extra spec of the flavor.
func (r *Request) Spec(name string) string { return r.Flavor.ExtraSpecs[name] }

// FlavorOrImage gives the flavor's hw:name, or else the image's hw_name. bad tells that both are set and differ.
func (r *Request) FlavorOrImage(name string) (value string, bad bool) {
	f, i := r.Spec("hw:"+name), r.Prop("hw_"+name)
	if f != "" {
		return f, i != "" && i != f
	}
	return i, false
}

// HintList gives a hint as a list of texts: one text is a list of one.
func (r *Request) HintList(name string) []string {
	switch v := r.Hints[name].(type) {
	case nil:
		return nil
	case string:
		return []string{v}
	case []string:
		return v
	case []any:
		out := make([]string, 0, len(v))
		for _, e := range v {
			out = append(out, fmt.Sprint(e))
		}
		return out
	default:
		return []string{fmt.Sprint(v)}
	}
}

// Hint gives the first text of a hint.
func (r *Request) Hint(name string) string {
	if l := r.HintList(name); len(l) > 0 {
		return l[0]
	}
	return ""
}

// True reads a boolean as extra specs and image properties write it.
func True(s string) bool {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "1", "t", "true", "on", "y", "yes":
		return true
	}
	return false
}

// DiskGB is the local disk that the server takes: root (unless on a volume), ephemeral, and swap rounded up.
func (r *Request) DiskGB() int64 {
	d := r.Flavor.EphemeralGB + (r.Flavor.SwapMB+1023)/1024
	if !r.FromVolume {
		d += r.Flavor.RootGB
	}
	return d
}

func atoi(s string) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
