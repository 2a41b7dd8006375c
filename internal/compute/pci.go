package compute

import (
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"kilonova/internal/fault"
)

// PCIAlias is a name under which flavors ask for PCI devices (option [pci] alias).
type PCIAlias struct {
	Name       string `json:"name"`
	VendorID   string `json:"vendor_id,omitempty"`
	ProductID  string `json:"product_id,omitempty"`
	DeviceType string `json:"device_type,omitempty"` // PCIWhole, PCIPhysical, PCIVirtual; "": the first or the last of them
	NUMAPolicy string `json:"numa_policy,omitempty"` // legacy, preferred, required, socket; "" legacy
}

// PCIWant is a number of devices that a flavor asks for. Any device with all facts of one of Specs will do.
type PCIWant struct {
	Alias      string
	Count      int
	Specs      []map[string]string
	NUMAPolicy string
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

// ParsePCIAliases reads the option [pci] alias: a JSON object or a list of them. Several of one name are alternatives.
func ParsePCIAliases(text string) ([]PCIAlias, error) {
	var out []PCIAlias
	if err := objects(text, &out); err != nil {
		return nil, fmt.Errorf("[pci] alias: %w", err)
	}
	for _, a := range out {
		switch {
		case a.Name == "":
			return nil, fmt.Errorf("[pci] alias: an alias without a name")
		case a.VendorID == "" && a.ProductID == "" && a.DeviceType == "":
			return nil, fmt.Errorf("[pci] alias %s: it names neither vendor_id, product_id nor device_type", a.Name)
		case a.DeviceType != "" && !slices.Contains([]string{PCIWhole, PCIPhysical, PCIVirtual}, a.DeviceType):
			return nil, fmt.Errorf("[pci] alias %s: device_type is %s, %s or %s", a.Name, PCIWhole, PCIPhysical, PCIVirtual)
		case a.NUMAPolicy != "" && !slices.Contains([]string{"legacy", "preferred", "required", "socket"}, a.NUMAPolicy):
			return nil, fmt.Errorf("[pci] alias %s: numa_policy is legacy, preferred, required or socket", a.Name)
		}
	}
	return out, nil
}

// PCIWants reads a flavor's pci_passthrough:alias ("gpu:2,nic:1") and hw:pci_numa_affinity_policy. An alias that nobody defined is fault.Invalid.
func PCIWants(aliases []PCIAlias, extra map[string]string) ([]PCIWant, error) {
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
		w := PCIWant{Alias: strings.TrimSpace(name), Count: n, NUMAPolicy: extra["hw:pci_numa_affinity_policy"]}
		for _, a := range aliases {
			if a.Name != w.Alias {
				continue
			}
			spec := map[string]string{}
			for k, v := range map[string]string{"vendor_id": a.VendorID, "product_id": a.ProductID, "dev_type": a.DeviceType} {
				if v != "" {
					spec[k] = strings.TrimPrefix(v, "0x")
				}
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

// Matches tells whether a device has what is wanted.
func (w *PCIWant) Matches(d *HostDevice) bool {
	facts := d.Facts()
	return slices.ContainsFunc(w.Specs, func(spec map[string]string) bool {
		for k, v := range spec {
			if facts[k] != v {
				return false
			}
		}
		return true
	})
}

// DeviceSpec says which of a host's PCI devices servers may have (option [pci] device_spec).
type DeviceSpec struct {
	vendor, product, address, devname string
	fields                            map[string]*regexp.Regexp // domain, bus, slot, function
	tags                              map[string]string
}

// ParseDeviceSpecs reads the option [pci] device_spec: a JSON object or a list of them with vendor_id, product_id, address (a pattern such as
// "0000:0a:00.*" or an object of regular expressions), devname and further keys, which become tags.
func ParseDeviceSpecs(text string) ([]DeviceSpec, error) {
	var all []map[string]any
	if err := objects(text, &all); err != nil {
		return nil, fmt.Errorf("[pci] device_spec: %w", err)
	}
	out := make([]DeviceSpec, 0, len(all))
	for _, m := range all {
		s := DeviceSpec{tags: map[string]string{}}
		for k, v := range m {
			if parts, ok := v.(map[string]any); ok && k == "address" {
				if err := s.patterns(parts); err != nil {
					return nil, err
				}
				continue
			}
			t, ok := v.(string)
			if !ok {
				return nil, fmt.Errorf("[pci] device_spec: %s must be a text", k)
			}
			switch k {
			case "vendor_id":
				s.vendor = strings.TrimPrefix(t, "0x")
			case "product_id":
				s.product = strings.TrimPrefix(t, "0x")
			case "address":
				if _, err := path.Match(t, ""); err != nil {
					return nil, fmt.Errorf("[pci] device_spec: address %q is no pattern", t)
				}
				s.address = t
			case "devname":
				s.devname = t
			default:
				s.tags[k] = t
			}
		}
		if s.address != "" && s.devname != "" {
			return nil, fmt.Errorf("[pci] device_spec: address and devname exclude each other")
		}
		out = append(out, s)
	}
	return out, nil
}

func (s *DeviceSpec) patterns(parts map[string]any) error {
	s.fields = map[string]*regexp.Regexp{}
	for k, v := range parts {
		t, ok := v.(string)
		if !ok || !slices.Contains([]string{"domain", "bus", "slot", "function"}, k) {
			return fmt.Errorf("[pci] device_spec: an address has domain, bus, slot and function, as texts")
		}
		re, err := regexp.Compile("^(?:" + t + ")$")
		if err != nil {
			return fmt.Errorf("[pci] device_spec: %s: %w", k, err)
		}
		s.fields[k] = re
	}
	return nil
}

var pciAddress = regexp.MustCompile(`^([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])$`)

// Match tells whether the specification means the device, whose network interface is called devname ("" none).
func (s *DeviceSpec) Match(d *HostDevice, devname string) bool {
	is := func(want, got string) bool { return want == "" || want == "*" || strings.EqualFold(want, got) }
	if !is(s.vendor, d.VendorID) || !is(s.product, d.ProductID) || !is(s.devname, devname) {
		return false
	}
	fit := func(address string) bool {
		if s.address != "" {
			pattern := s.address
			if strings.Count(pattern, ":") == 1 { // without a domain
				pattern = "*:" + pattern
			}
			ok, err := path.Match(strings.ToLower(pattern), address)
			return err == nil && ok || short(pattern, address)
		}
		m := pciAddress.FindStringSubmatch(address)
		for i, k := range []string{"domain", "bus", "slot", "function"} {
			if re := s.fields[k]; re != nil && (m == nil || !re.MatchString(m[i+1])) {
				return false
			}
		}
		return true
	}
	return fit(d.Address) || d.Parent != "" && (s.address != "" || s.fields != nil) && fit(d.Parent)
}

// short reads patterns in which a star stands for the rest: "*:0a:00.*", "0000:0a:*".
func short(pattern, address string) bool {
	rest, ok := strings.CutSuffix(pattern, "*")
	return ok && !strings.ContainsAny(rest, "*?[") && strings.HasPrefix(address, strings.ToLower(rest))
}

// Tags are what the operator says of the devices.
func (s *DeviceSpec) Tags() map[string]string { return s.tags }
