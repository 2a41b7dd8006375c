package compute

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"kilonova/internal/fault"
	"kilonova/internal/network"
)

// PCIAlias is a name under which flavors ask for PCI devices (option [pci] alias).
type PCIAlias struct {
	Name       string `json:"name"`
	VendorID   string `json:"vendor_id,omitempty"`
	ProductID  string `json:"product_id,omitempty"`
	DeviceType string `json:"device_type,omitempty"` // PCIWhole, PCIPhysical, PCIVirtual; "": the first or the last of them
	NUMAPolicy string `json:"numa_policy,omitempty"` // legacy, preferred, required, socket; "" legacy
	// CapabilityType is always pci; it is read for the sake of configurations that have it.
	CapabilityType string `json:"capability_type,omitempty"`
	// ResourceClass and Traits (separated by commas) find the device's provider when requests go through placement.
	ResourceClass string `json:"resource_class,omitempty"`
	Traits        string `json:"traits,omitempty"`
	// LiveMigratable yes asks for devices that can be moved with a running guest, no for others; "": either, and the guest cannot be moved.
	LiveMigratable string `json:"live_migratable,omitempty"`
}

// PCIWant is a number of devices that a flavor asks for. Any device with all facts of one of Specs will do.
type PCIWant struct {
	Alias      string
	Count      int
	Specs      []map[string]string
	NUMAPolicy string
	// Class and Traits are those of the provider in placement that has the device, as the alias names them.
	Class  string
	Traits []string
}

// objects reads a JSON object or a list of such.
func objects(text string, out any) error {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil
	}
	if strings.HasPrefix(text, "{") {
		text = "[" + text + "]"
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(out)
}

// ParsePCIAliases reads the option [pci] alias: a JSON object or a list of them. Several of one name are alternatives. inPlacement tells that requests go through
// placement, which needs one resource class for each alias.
func ParsePCIAliases(text string, inPlacement bool) ([]PCIAlias, error) {
	var out []PCIAlias
	if err := objects(text, &out); err != nil {
		return nil, fmt.Errorf("[pci] alias: %w", err)
	}
	for i := range out {
		a := &out[i]
		a.Name = strings.TrimSpace(a.Name)
		if a.Name == "" {
			return nil, fmt.Errorf("[pci] alias: an alias without a name")
		}
		if err := a.check(out[:i], inPlacement); err != nil {
			return nil, fmt.Errorf("[pci] alias %s: %w", a.Name, err)
		}
	}
	return out, nil
}

func (a *PCIAlias) check(before []PCIAlias, inPlacement bool) (err error) {
	if a.VendorID, err = deviceID("vendor_id", a.VendorID); err != nil {
		return err
	}
	if a.ProductID, err = deviceID("product_id", a.ProductID); err != nil {
		return err
	}
	if a.LiveMigratable != "" {
		on, known := switches[strings.ToLower(strings.TrimSpace(a.LiveMigratable))]
		if !known {
			return fmt.Errorf("live_migratable is yes or no")
		}
		a.LiveMigratable = strconv.FormatBool(on)
	}
	switch {
	case len(a.Name) > 256:
		return fmt.Errorf("its name is longer than 256 characters")
	case a.DeviceType != "" && !slices.Contains([]string{PCIWhole, PCIPhysical, PCIVirtual}, a.DeviceType):
		return fmt.Errorf("device_type is %s, %s or %s", PCIWhole, PCIPhysical, PCIVirtual)
	case a.NUMAPolicy != "" && !slices.Contains([]string{"legacy", "preferred", "required", "socket"}, a.NUMAPolicy):
		return fmt.Errorf("numa_policy is legacy, preferred, required or socket")
	case a.CapabilityType != "" && a.CapabilityType != "pci":
		return fmt.Errorf("capability_type is pci")
	case inPlacement && a.ResourceClass == "" && (a.VendorID == "" || a.ProductID == ""):
		return fmt.Errorf("it has neither a resource_class nor vendor_id and product_id, one of which pci_in_placement needs")
	case !inPlacement && a.VendorID == "" && a.ProductID == "" && a.DeviceType == "":
		return fmt.Errorf("it names neither vendor_id, product_id nor device_type")
	}
	at := slices.IndexFunc(before, func(b PCIAlias) bool { return b.Name == a.Name })
	switch {
	case at < 0:
		return nil
	case inPlacement:
		return fmt.Errorf("there are several of the name, which pci_in_placement does not allow: give the devices of both one resource_class instead")
	case before[at].DeviceType != a.DeviceType:
		return fmt.Errorf("there are several of the name with different device types")
	case before[at].policy() != a.policy():
		return fmt.Errorf("there are several of the name with different NUMA policies")
	}
	return nil
}

func (a *PCIAlias) policy() string {
	if a.NUMAPolicy == "" {
		return "legacy"
	}
	return a.NUMAPolicy
}

// PCIPolicy gives the NUMA affinity policy that flavor or image ask for their PCI devices: hw:pci_numa_affinity_policy, hw_pci_numa_affinity_policy; "": neither does. Two that
// differ are fault.Invalid.
func PCIPolicy(extra, props map[string]string) (string, error) {
	flavor, image := extra["hw:pci_numa_affinity_policy"], props["hw_pci_numa_affinity_policy"]
	if flavor != "" && image != "" && flavor != image {
		return "", fault.New(fault.Invalid, "Image property 'hw_pci_numa_affinity_policy' is not permitted to override the 'hw:pci_numa_affinity_policy' flavor extra spec.")
	}
	if flavor == "" {
		flavor = image
	}
	return flavor, nil
}

// PCIWants reads a flavor's pci_passthrough:alias ("gpu:2,nic:1"); policy is the NUMA affinity policy of flavor and image, which goes before that of an alias. An alias that
// nobody defined is fault.Invalid.
func PCIWants(aliases []PCIAlias, extra map[string]string, policy string) ([]PCIWant, error) {
	var out []PCIWant
	for part := range strings.SplitSeq(extra["pci_passthrough:alias"], ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, number, counted := strings.Cut(part, ":")
		n := 1
		if counted {
			var err error
			if n, err = strconv.Atoi(strings.TrimSpace(number)); err != nil || n < 1 {
				return nil, fault.New(fault.Invalid, "pci_passthrough:alias %q must name an alias and a number, as in gpu:1.", part)
			}
		}
		w := PCIWant{Alias: strings.TrimSpace(name), Count: n, NUMAPolicy: policy}
		for _, a := range aliases {
			if a.Name != w.Alias {
				continue
			}
			spec := map[string]string{}
			for k, v := range map[string]string{"vendor_id": a.VendorID, "product_id": a.ProductID, "dev_type": a.DeviceType, TagLiveMigratable: a.LiveMigratable} {
				if v != "" {
					spec[k] = v
				}
			}
			w.Class = a.ResourceClass
			if w.Traits = nil; a.Traits != "" {
				w.Traits = strings.Split(a.Traits, ",")
			}
			w.Specs = append(w.Specs, spec)
			if w.NUMAPolicy == "" {
				w.NUMAPolicy = a.NUMAPolicy
			}
		}
		if len(w.Specs) == 0 {
			return nil, fault.New(fault.Invalid, "PCI alias %s is not defined.", w.Alias).WithHint("An operator defines it in [pci] alias.")
		}
		out = append(out, w)
	}
	return out, nil
}

// Running narrows what is wanted to devices that can be moved with a running guest.
func (w *PCIWant) Running() {
	for i, spec := range w.Specs {
		w.Specs[i] = maps.Clone(spec)
		w.Specs[i][TagLiveMigratable] = "true"
	}
}

// Matches tells whether a device with these facts will do for one of the specifications. A device that has virtual functions is given as a whole, and one that is managed
// from afar is given, only to who asks for just that.
func Matches(specs []map[string]string, facts map[string]string) bool {
	return slices.ContainsFunc(specs, func(spec map[string]string) bool {
		if facts["dev_type"] == PCIPhysical && spec["dev_type"] != PCIPhysical || facts[TagRemoteManaged] == "true" && spec[TagRemoteManaged] != "true" {
			return false
		}
		for k, v := range spec {
			if facts[k] != v && !(k == TagLiveMigratable && v == "false" && facts[k] == "") {
				return false
			}
		}
		return true
	})
}

// PortDevice is what a port that is a PCI device asks of its host.
type PortDevice struct {
	PortID          string `json:"port_id"`
	VNICType        string `json:"vnic_type"`
	PhysicalNetwork string `json:"physical_network,omitempty"` // "": the port's network lies on none
	Trusted         bool   `json:"trusted,omitempty"`
	NUMAPolicy      string `json:"numa_policy,omitempty"` // the port's numa_affinity_policy; "": that of the server
}

// DeviceOf gives what an interface that is not normal asks of its host; nil: it is an ordinary one.
func DeviceOf(v *network.VIF) *PortDevice {
	if v.VNICType == "" || v.VNICType == "normal" {
		return nil
	}
	return &PortDevice{PortID: v.PortID, VNICType: v.VNICType, PhysicalNetwork: v.PhysicalNetwork, Trusted: v.Trusted, NUMAPolicy: v.NUMAPolicy}
}

// DevicesOf gives those of a server's interfaces that are PCI devices.
func DevicesOf(vifs []network.VIF) (out []network.VIF) {
	for _, v := range vifs {
		if network.IsDevice(v.VNICType) {
			out = append(out, v)
		}
	}
	return out
}

// WithoutDevices gives those that are not.
func WithoutDevices(vifs []network.VIF) []network.VIF {
	return slices.DeleteFunc(slices.Clone(vifs), func(v network.VIF) bool { return network.IsDevice(v.VNICType) })
}

// Facts are what a device must have to be the port.
func (p *PortDevice) Facts() map[string]string {
	out := map[string]string{TagPhysicalNetwork: p.PhysicalNetwork}
	if p.PhysicalNetwork == "" {
		out[TagPhysicalNetwork] = NoPhysicalNetwork
	}
	if p.Trusted {
		out[TagTrusted] = "true"
	}
	if p.VNICType == "direct-physical" {
		out["dev_type"] = PCIPhysical
	}
	return out
}
