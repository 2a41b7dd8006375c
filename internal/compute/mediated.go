package compute

import (
	"fmt"
	"slices"
	"strings"

	"kilonova/internal/fault"
)

// ClassVGPU is the resource class of parts of devices, unless their type has another.
const ClassVGPU = "VGPU"

// MediatedType is a kind of part that hosts make of their devices: a virtual GPU, say (option [devices] enabled_mdev_types).
type MediatedType struct {
	Name      string   `json:"name"`                       // as the device's driver names it: nvidia-35
	Addresses []string `json:"device_addresses,omitempty"` // PCI addresses of the devices that are divided so; none: all that can be
	Max       int64    `json:"max_instances,omitempty"`    // of each device; 0: as many as it can have
	Class     string   `json:"mdev_class,omitempty"`       // ClassVGPU or a CUSTOM_ one; "": ClassVGPU
}

// HostMediated is a device of a host of which servers may have parts.
type HostMediated struct {
	Address string `json:"address"`
	Type    string `json:"type"`
	Class   string `json:"class"`
	Total   int64  `json:"total"`
}

// MediatedDevice is a part of a device that a server has.
type MediatedDevice struct {
	UUID   string `json:"uuid"`
	Parent string `json:"parent"` // PCI address of the device
	Type   string `json:"type"`
}

// ParseMediatedTypes reads the option [devices] enabled_mdev_types: a JSON object or a list of them.
func ParseMediatedTypes(text string) ([]MediatedType, error) {
	var out []MediatedType
	if err := objects(text, &out); err != nil {
		return nil, fmt.Errorf("[devices] enabled_mdev_types: %w", err)
	}
	seen := map[string]string{}
	for i := range out {
		t := &out[i]
		if t.Class == "" {
			t.Class = ClassVGPU
		}
		switch {
		case t.Name == "":
			return nil, fmt.Errorf("[devices] enabled_mdev_types: a type without a name")
		case slices.ContainsFunc(out[:i], func(o MediatedType) bool { return o.Name == t.Name }):
			return nil, fmt.Errorf("[devices] enabled_mdev_types: the type %s is there twice", t.Name)
		case len(t.Addresses) == 0 && len(out) > 1:
			return nil, fmt.Errorf("[devices] enabled_mdev_types: with several types each needs device_addresses, and %s has none", t.Name)
		case t.Max < 0:
			return nil, fmt.Errorf("[devices] enabled_mdev_types: max_instances of %s is negative", t.Name)
		case t.Class != ClassVGPU && !strings.HasPrefix(t.Class, "CUSTOM_"):
			return nil, fmt.Errorf("[devices] enabled_mdev_types: mdev_class of %s is %s or begins with CUSTOM_", t.Name, ClassVGPU)
		}
		for k, a := range t.Addresses {
			a = strings.ToLower(strings.TrimSpace(a))
			if !wholeAddress(a) {
				return nil, fmt.Errorf("[devices] enabled_mdev_types: %q of %s is no PCI address; write it as 0000:84:00.0", a, t.Name)
			}
			if seen[a] != "" {
				return nil, fmt.Errorf("[devices] enabled_mdev_types: the device %s is given the types %s and %s: it can have one", a, seen[a], t.Name)
			}
			t.Addresses[k], seen[a] = a, t.Name
		}
	}
	return out, nil
}

// wholeAddress tells whether text is a PCI address as 0000:84:00.0.
func wholeAddress(text string) bool {
	if len(text) != 12 {
		return false
	}
	for i, c := range text {
		switch want := "hhhh:hh:hh.h"[i]; {
		case want != 'h' && c != rune(want):
			return false
		case want == 'h' && !strings.ContainsRune("0123456789abcdef", c):
			return false
		}
	}
	return true
}

// AsksMediated tells whether a flavor asks for resources that may be parts of a host's devices. It errs on the side of yes: any custom class may be that of a type.
func AsksMediated(f *Flavor) bool {
	for key, value := range f.ExtraSpecs {
		scope, class, _ := strings.Cut(key, ":")
		if strings.HasPrefix(scope, "resources") && value != "0" && (class == ClassVGPU || strings.HasPrefix(class, "CUSTOM_")) {
			return true
		}
	}
	return false
}

// LacksVGPU tells whether a flavor with these extra specs asks for virtual GPUs and the claim has none; a nil claim has none.
func (c *Claim) LacksVGPU(extra map[string]string) bool {
	if c != nil && len(c.Mediated) > 0 {
		return false
	}
	for key, value := range extra {
		if scope, class, _ := strings.Cut(key, ":"); strings.HasPrefix(scope, "resources") && class == ClassVGPU && value != "0" {
			return true
		}
	}
	return false
}

// StaysWhileRunning fails with fault.Invalid for a server that holds what cannot be moved with its guest while that runs.
func (c *Claim) StaysWhileRunning(server string) error {
	if c != nil && len(c.Mediated) > 0 {
		return fault.New(fault.Invalid, "Instance %s has parts of devices of its host (virtual GPUs): it cannot leave it while it runs. Stop it and migrate it then.", server)
	}
	return nil
}
