package scheduler

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/id"
	"kilonova/internal/placement"
)

// PCI devices in placement: each device stands below its host as a resource provider of its own; virtual functions are the inventory of the device whose functions they
// are. Network cards for ports (devices with a physical network) are not told of there.

// DeviceProvider is the resource provider of a PCI device, or of the virtual functions of one.
type DeviceProvider struct {
	UUID, Name string
	Class      string
	Traits     []string // sorted
	Devices    []string // addresses; as many as its inventory
}

// deviceTrait marks the providers that stand for PCI devices.
const deviceTrait = "COMPUTE_MANAGED_PCI_DEVICE"

// movableTrait marks those of devices that can be moved with a running guest.
const movableTrait = "HW_PCI_LIVE_MIGRATABLE"

// tracked tells whether a device is told of in placement.
func tracked(d *compute.HostDevice) bool { return d.Tags[compute.TagPhysicalNetwork] == "" }

// providerOf gives the address of the device whose provider has d.
func providerOf(d *compute.HostDevice) string {
	if d.Parent != "" {
		return d.Parent
	}
	return d.Address
}

// Track writes into the devices of a node that are told of in placement which provider has them.
func Track(node string, devices []compute.HostDevice) {
	for i := range devices {
		if tracked(&devices[i]) {
			devices[i].Provider = id.Derived(node, "pci", providerOf(&devices[i]))
		}
	}
}

// DeviceProviders gives the providers of a node's devices, sorted by name. It fails for devices that cannot be told of so: a device together with its own functions, functions
// of one device with several classes or traits.
func DeviceProviders(node, hostname string, devices []compute.HostDevice) ([]DeviceProvider, error) {
	var out []DeviceProvider
	whole := map[string]bool{} // by uuid: the provider is the device itself
	for i := range devices {
		d := &devices[i]
		if !tracked(d) {
			continue
		}
		p := DeviceProvider{UUID: id.Derived(node, "pci", providerOf(d)), Name: hostname + "_" + strings.ToUpper(providerOf(d)),
			Class:  deviceClass(d.Tags[compute.TagResourceClass], d.VendorID, d.ProductID),
			Traits: append(deviceTraits(strings.Split(d.Tags[compute.TagTraits], ",")), deviceTrait, "OWNER_NOVA"), Devices: []string{d.Address}}
		if d.Tags[compute.TagLiveMigratable] == "true" {
			p.Traits = append(p.Traits, movableTrait)
		}
		slices.Sort(p.Traits)
		p.Traits = slices.Compact(p.Traits)
		at := slices.IndexFunc(out, func(o DeviceProvider) bool { return o.UUID == p.UUID })
		if at < 0 {
			whole[p.UUID] = d.Parent == ""
			out = append(out, p)
			continue
		}
		o := &out[at]
		switch {
		case whole[p.UUID] || d.Parent == "":
			return nil, fmt.Errorf("[pci] device_spec names the device %s and virtual functions of it: with report_in_placement servers may have the one or the others", providerOf(d))
		case o.Class != p.Class:
			return nil, fmt.Errorf("[pci] device_spec gives the virtual functions of %s the resource classes %s and %s: they need the same one", d.Parent, o.Class, p.Class)
		case !slices.Equal(o.Traits, p.Traits):
			return nil, fmt.Errorf("[pci] device_spec gives the virtual functions of %s different traits: %s and %s", d.Parent, strings.Join(o.Traits, ","), strings.Join(p.Traits, ","))
		}
		o.Devices = append(o.Devices, d.Address)
	}
	slices.SortFunc(out, func(a, b DeviceProvider) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// IsDeviceProvider tells whether a provider stands for PCI devices.
func IsDeviceProvider(p *placement.Provider) bool {
	return p.Parent != "" && slices.Contains(p.Traits, deviceTrait)
}

// Inventory is what the provider has of its class; reserved is what an operator keeps back.
func (p *DeviceProvider) Inventory(reserved int64) map[string]placement.Inventory {
	n := int64(len(p.Devices))
	return map[string]placement.Inventory{p.Class: {Total: n, Reserved: min(reserved, n), MinUnit: 1, MaxUnit: n, StepSize: 1, AllocationRatio: 1}}
}

// WithDevices gives allocations with what a claim's devices are in placement: one of each provider's class for each device.
func WithDevices(a placement.Allocations, c *compute.Claim, providers []DeviceProvider) placement.Allocations {
	if c == nil || len(c.Devices) == 0 || len(providers) == 0 {
		return a
	}
	out := placement.Allocations{}
	for provider, r := range a {
		out[provider] = r
	}
	for i := range providers {
		p, held := &providers[i], int64(0)
		for _, d := range p.Devices {
			if slices.Contains(c.Devices, d) {
				held++
			}
		}
		if held == 0 || out[p.UUID][p.Class] >= held {
			continue
		}
		r := placement.Resources{p.Class: held}
		for class, n := range out[p.UUID] {
			if class != p.Class {
				r[class] = n
			}
		}
		out[p.UUID] = r
	}
	return out
}

// deviceClass is the resource class of a device: the one named, made a custom one unless it is standard, or one made of vendor and product.
func deviceClass(named, vendor, product string) string {
	if named == "" {
		return "CUSTOM_PCI_" + strings.ToUpper(vendor+"_"+product)
	}
	return deviceName(named, placement.StandardClasses())
}

func deviceTraits(named []string) []string {
	var out []string
	for _, t := range named {
		if t = strings.TrimSpace(t); t != "" {
			out = append(out, deviceName(t, placement.StandardTraits()))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

var notInNames = regexp.MustCompile(`[^A-Z0-9_]+`)

// deviceName makes a name for placement of what an operator wrote: a standard name stays, others become custom ones.
func deviceName(text string, standard []string) string {
	name := strings.ToUpper(strings.TrimSpace(text))
	if slices.Contains(standard, name) {
		return name
	}
	name = notInNames.ReplaceAllString(name, "_")
	if !strings.HasPrefix(name, "CUSTOM_") {
		name = "CUSTOM_" + name
	}
	return name[:min(len(name), 255)]
}

// inPlacement tells whether placement has a say in which devices the server gets.
func (r *Request) inPlacement() bool {
	return slices.ContainsFunc(r.PCI, func(p PCIRequest) bool { return p.Class != "" })
}

// suffixOf names the request group of a request's n-th device.
func suffixOf(r *PCIRequest, n int) string { return fmt.Sprintf("%s-%d", r.ID, n) }

// deviceGroups are the request groups of the server's devices, one for each.
func (r *Request) deviceGroups() []placement.Group {
	var out []placement.Group
	for i := range r.PCI {
		p := &r.PCI[i]
		for n := range p.Count {
			if p.Class == "" {
				break
			}
			g := placement.Group{Suffix: suffixOf(p, n), Resources: placement.Resources{p.Class: 1}}
			for _, t := range append([]string{"OWNER_NOVA"}, p.Traits...) {
				addTrait(&g, t)
			}
			switch p.Specs[0][compute.TagLiveMigratable] {
			case "true":
				addTrait(&g, movableTrait)
			case "false":
				g.Forbidden = []string{movableTrait}
			}
			out = append(out, g)
		}
	}
	return out
}

// chosen gives the server's requests for devices as a candidate answers them: each of those that went through placement from the provider that was found for it.
func (r *Request) chosen(c *placement.Candidate) []PCIRequest {
	var out []PCIRequest
	for i := range r.PCI {
		p := r.PCI[i]
		if p.Class == "" {
			out = append(out, p)
			continue
		}
		for n := range p.Count {
			one := p
			one.Count = 1
			if providers := c.Mappings[suffixOf(&p, n)]; len(providers) > 0 {
				one.Provider = providers[0]
			}
			out = append(out, one)
		}
	}
	return out
}

// Way is a request as some of a host's candidates would have it answered.
type Way struct {
	Request    *Request
	Candidates []placement.Candidate
}

// Ways gives the ways to claim a ranked host: one for all its candidates, or one for each that has devices for the server, when placement chose these.
func Ways(r *Request, on *Ranked) []Way {
	if compute.AsksMediated(&r.Flavor) {
		return inParts(deviceWays(r, on), on.Host)
	}
	return deviceWays(r, on)
}

func deviceWays(r *Request, on *Ranked) []Way {
	if !r.inPlacement() {
		return []Way{{r, on.Candidates}}
	}
	var out []Way
	for i := range on.Candidates {
		one := *r
		one.PCI = r.chosen(&on.Candidates[i])
		if FitPCI(on.Host.PCI, one.PCI, nil) == "" {
			out = append(out, Way{&one, on.Candidates[i : i+1]})
		}
	}
	return out
}

// FitsDevices tells, in words, why no way to give the server devices of the host passes judge; "" when one does.
func (h *HostState) FitsDevices(r *Request, judge func(want []PCIRequest) string) (why string) {
	if len(h.Offers) == 0 || !r.inPlacement() {
		return judge(r.PCI)
	}
	for i := range h.Offers {
		if why = judge(r.chosen(&h.Offers[i])); why == "" {
			return ""
		}
	}
	return why
}
