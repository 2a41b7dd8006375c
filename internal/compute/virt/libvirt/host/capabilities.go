// Package host reads what libvirt and the kernel say of a host: the capabilities of host and guests, NUMA nodes, PCI devices, and the traits that follow.
// It changes nothing and keeps nothing.
package host

import "kilonova/internal/compute/virt/libvirt/definition"

// Capabilities is what the driver reads of a host's capabilities (https://libvirt.org/formatcaps.html).
type Capabilities struct {
	Host struct {
		UUID     string         `xml:"uuid"`
		CPU      definition.CPU `xml:"cpu"`
		Topology struct {
			Cells []Cell `xml:"cells>cell"`
		} `xml:"topology"`
	} `xml:"host"`
	Guests []Guest `xml:"guest"`
}

// Cell is a NUMA node.
type Cell struct {
	ID     int             `xml:"id,attr"`
	Memory definition.Size `xml:"memory"`
	Pages  []struct {
		Size  int64 `xml:"size,attr"` // KiB
		Count int64 `xml:",chardata"`
	} `xml:"pages"`
	CPUs []struct {
		ID       int    `xml:"id,attr"`
		Socket   int    `xml:"socket_id,attr"`
		Siblings string `xml:"siblings,attr"`
	} `xml:"cpus>cpu"`
}

// Guest is a kind of guest.
type Guest struct {
	OSType string `xml:"os_type"`
	Arch   struct {
		Name     string   `xml:"name,attr"`
		Emulator string   `xml:"emulator"`
		Machines []string `xml:"machine"`
		Domains  []struct {
			Type string `xml:"type,attr"`
		} `xml:"domain"`
	} `xml:"arch"`
}

// DomainCapabilities is what the driver reads of the capabilities of guests (https://libvirt.org/formatdomaincaps.html).
type DomainCapabilities struct {
	Path string `xml:"path"`
	VCPU struct {
		Max int `xml:"max,attr"`
	} `xml:"vcpu"`
	OS struct {
		Loader struct {
			Enums
		} `xml:"loader"`
	} `xml:"os"`
	CPU struct {
		Modes []Mode `xml:"mode"`
	} `xml:"cpu"`
	Devices struct {
		Disk     Enums `xml:"disk"`
		Video    Enums `xml:"video"`
		Graphics Enums `xml:"graphics"`
		TPM      struct {
			Supported string `xml:"supported,attr"`
			Enums
		} `xml:"tpm"`
	} `xml:"devices"`
}

// Mode is a way to choose a guest's CPU.
type Mode struct {
	Name      string `xml:"name,attr"`
	Supported string `xml:"supported,attr"`
	definition.CPU
}

// Enums are lists of values by name.
type Enums struct {
	Enums []struct {
		Name   string   `xml:"name,attr"`
		Values []string `xml:"value"`
	} `xml:"enum"`
}

// Values gives the list of a name.
func (c Enums) Values(name string) []string {
	for _, e := range c.Enums {
		if e.Name == name {
			return e.Values
		}
	}
	return nil
}
