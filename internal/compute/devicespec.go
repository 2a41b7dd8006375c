package compute

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The tags of devices that mean something to Kilonova; an operator may give others for his own use.
const (
	TagPhysicalNetwork = "physical_network" // the device is a network card on it, for ports; NoPhysicalNetwork: on tunnelled networks
	TagTrusted         = "trusted"          // "true": a virtual function that may be given trusted mode
	TagRemoteManaged   = "remote_managed"   // "true": a function that a card of its own mind manages
	TagManaged         = "managed"          // "false": the operator binds the device to its driver himself
	TagLiveMigratable  = "live_migratable"  // "true": the device can be moved with a running guest
	TagResourceClass   = "resource_class"   // its class in placement
	TagTraits          = "traits"           // its traits in placement, separated by commas
)

// NoPhysicalNetwork is the tag physical_network of devices for networks that lie on no physical one (null in device_spec).
const NoPhysicalNetwork = "<none>"

// DeviceSpec says which of a host's PCI devices servers may have (option [pci] device_spec).
type DeviceSpec struct {
	vendor, product, devname string
	fields                   [4]string         // domain, bus, slot, function in lower case; "*" any
	patterns                 [4]*regexp.Regexp // instead of fields, when the address is an object
	single                   bool              // fields name one device
	tags                     map[string]string
}

var addressParts = [4]string{"domain", "bus", "slot", "function"}

// addressMost are the greatest numbers of an address, and addressForm how they are written.
var (
	addressMost = [4]uint64{0xffff, 0xff, 0x1f, 7}
	addressForm = [4]string{"%04x", "%02x", "%02x", "%x"}
)

// ParseDeviceSpecs reads the option [pci] device_spec: a JSON object or a list of them with vendor_id, product_id, address or devname, and tags. An address is text of
// the form [[[domain:]bus:]slot][.function], where a part that is left out or * means any, or an object of regular expressions for domain, bus, slot and function.
func ParseDeviceSpecs(text string) ([]DeviceSpec, error) {
	var all []map[string]any
	if err := objects(text, &all); err != nil {
		return nil, fmt.Errorf("[pci] device_spec: %w", err)
	}
	out := make([]DeviceSpec, 0, len(all))
	for _, m := range all {
		s := DeviceSpec{tags: map[string]string{}, fields: [4]string{"*", "*", "*", "*"}}
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if err := s.read(k, m[k]); err != nil {
				return nil, fmt.Errorf("[pci] device_spec: %w", err)
			}
		}
		if m["address"] != nil && s.devname != "" {
			return nil, fmt.Errorf("[pci] device_spec: address and devname exclude each other")
		}
		out = append(out, s)
	}
	return out, nil
}

func (s *DeviceSpec) read(key string, value any) (err error) {
	switch v := value.(type) {
	case map[string]any:
		if key != "address" {
			return fmt.Errorf("%s must be a text", key)
		}
		return s.expressions(v)
	case nil:
		if key != TagPhysicalNetwork {
			return fmt.Errorf("%s must be a text", key)
		}
		s.tags[key] = NoPhysicalNetwork
		return nil
	case bool:
		if !isSwitch(key) {
			return fmt.Errorf("%s must be a text", key)
		}
		s.tags[key] = strconv.FormatBool(v)
		return nil
	case string:
		switch {
		case key == "vendor_id":
			s.vendor, err = deviceID(key, v)
		case key == "product_id":
			s.product, err = deviceID(key, v)
		case key == "address":
			err = s.address(v)
		case key == "devname":
			s.devname = v
		case isSwitch(key):
			on, known := switches[strings.ToLower(strings.TrimSpace(v))]
			if !known {
				return fmt.Errorf("%s is true or false, not %q", key, v)
			}
			s.tags[key] = strconv.FormatBool(on)
		default:
			s.tags[key] = v
		}
		return err
	}
	return fmt.Errorf("%s must be a text", key)
}

func isSwitch(key string) bool {
	return slices.Contains([]string{TagTrusted, TagRemoteManaged, TagManaged, TagLiveMigratable}, key)
}

// switches are the words for yes and no.
var switches = map[string]bool{"1": true, "t": true, "true": true, "on": true, "y": true, "yes": true, "0": false, "f": false, "false": false, "off": false, "n": false, "no": false}

// deviceID reads a vendor or product: up to four hexadecimal digits; "" and "*" mean any.
func deviceID(key, text string) (string, error) {
	text = strings.TrimSpace(text)
	if text == "" || text == "*" {
		return "", nil
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(text), "0x"), 16, 16)
	if err != nil {
		return "", fmt.Errorf("%s %q is no hexadecimal number of four digits at most", key, text)
	}
	return fmt.Sprintf("%04x", n), nil
}

// address reads the text form.
func (s *DeviceSpec) address(text string) error {
	path, function, _ := strings.Cut(text, ".")
	parts := strings.Split(path, ":")
	if len(parts) > 3 {
		return fmt.Errorf("address %q has too many parts: it is domain:bus:slot.function", text)
	}
	s.single = true
	copy(s.fields[3-len(parts):], parts)
	s.fields[3] = function
	for i, f := range s.fields {
		if f = strings.TrimSpace(f); f == "" || f == "*" {
			s.fields[i], s.single = "*", false
			continue
		}
		n, err := strconv.ParseUint(f, 16, 64)
		if err != nil || n > addressMost[i] {
			return fmt.Errorf("address %q: the %s is a hexadecimal number up to %X, or *", text, addressParts[i], addressMost[i])
		}
		s.fields[i] = fmt.Sprintf(addressForm[i], n)
	}
	return nil
}

func (s *DeviceSpec) expressions(parts map[string]any) error {
	for k, v := range parts {
		i := slices.Index(addressParts[:], k)
		t, ok := v.(string)
		if !ok || i < 0 {
			return fmt.Errorf("an address has domain, bus, slot and function, as texts")
		}
		re, err := regexp.Compile("^(?:" + t + ")")
		if err != nil {
			return fmt.Errorf("address: %s: %w", k, err)
		}
		s.patterns[i] = re
	}
	return nil
}

var pciAddress = regexp.MustCompile(`^([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])$`)

// Match tells whether the specification means the device. names are the network interfaces of the device and of the one whose function it is. Who names one device by
// its address or its interface means its virtual functions too.
func (s *DeviceSpec) Match(d *HostDevice, names ...string) bool {
	is := func(want, got string) bool { return want == "" || strings.EqualFold(want, got) }
	if !is(s.vendor, d.VendorID) || !is(s.product, d.ProductID) || s.devname != "" && !slices.Contains(names, s.devname) {
		return false
	}
	return s.at(d.Address) || s.single && d.Parent != "" && s.at(d.Parent)
}

func (s *DeviceSpec) at(address string) bool {
	m := pciAddress.FindStringSubmatch(strings.ToLower(address))
	for i := range addressParts {
		switch re := s.patterns[i]; {
		case re != nil && (m == nil || !re.MatchString(m[i+1])), re == nil && s.fields[i] != "*" && (m == nil || m[i+1] != s.fields[i]):
			return false
		}
	}
	return true
}

// Tags are what the operator says of the devices.
func (s *DeviceSpec) Tags() map[string]string { return s.tags }

// Named tells whether the specification finds devices by the name of their network interface, which may change from one boot to the next.
func (s *DeviceSpec) Named() bool { return s.devname != "" }
