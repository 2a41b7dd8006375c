// Package definition is the part of libvirt's domain XML that the driver writes and reads (https://libvirt.org/formatdomain.html), and the reading of
// what flavors and images ask of a guest (extra specs and hw_* properties). It is pure: no input, no output, no state.
package definition

import "encoding/xml"

// MetadataNS is the namespace of our element in a domain's metadata.
const MetadataNS = "urn:kilonova:server:1"

// Domain is a whole definition.
type Domain struct {
	XMLName       xml.Name       `xml:"domain"`
	Type          string         `xml:"type,attr"`
	UUID          string         `xml:"uuid"`
	Name          string         `xml:"name"`
	Metadata      *Metadata      `xml:"metadata"`
	Memory        Size           `xml:"memory"`
	CurrentMemory *Size          `xml:"currentMemory"`
	Backing       *MemoryBacking `xml:"memoryBacking"`
	VCPU          VCPU           `xml:"vcpu"`
	CPUTune       *CPUTune       `xml:"cputune"`
	NUMATune      *NUMATune      `xml:"numatune"`
	MemTune       *MemTune       `xml:"memtune"`
	SysInfo       *SysInfo       `xml:"sysinfo"`
	OS            OS             `xml:"os"`
	Features      Features       `xml:"features"`
	CPU           *CPU           `xml:"cpu"`
	Clock         Clock          `xml:"clock"`
	OnPoweroff    string         `xml:"on_poweroff"`
	OnReboot      string         `xml:"on_reboot"`
	OnCrash       string         `xml:"on_crash"`
	Devices       Devices        `xml:"devices"`
}

// Metadata is the element <metadata>.
type Metadata struct {
	Server *Server `xml:"urn:kilonova:server:1 server"`
}

// Server is our element.
type Server struct {
	XMLName xml.Name `xml:"urn:kilonova:server:1 server"`
	ID      string   `xml:"id,attr"`
	Name    string   `xml:"name,attr,omitempty"`
	Flavor  string   `xml:"flavor,attr,omitempty"`
	Project string   `xml:"project,attr,omitempty"`
	User    string   `xml:"user,attr,omitempty"`
	Rescue  bool     `xml:"rescue,attr,omitempty"`
}

// Size is the element <memory>.
type Size struct {
	Unit  string `xml:"unit,attr"`
	Value int64  `xml:",chardata"`
}

// VCPU is the element <vcpu>.
type VCPU struct {
	Placement string `xml:"placement,attr,omitempty"`
	CPUSet    string `xml:"cpuset,attr,omitempty"`
	N         int    `xml:",chardata"`
}

// MemTune is the element <memtune>.
type MemTune struct {
	Hard    *Size `xml:"hard_limit"`
	Soft    *Size `xml:"soft_limit"`
	Minimum *Size `xml:"min_guarantee"`
}

// SysInfo is the element <sysinfo>.
type SysInfo struct {
	Type    string  `xml:"type,attr"`
	Entries []Entry `xml:"system>entry"`
}

// Entry is the element <entry>.
type Entry struct {
	Name  string `xml:"name,attr"`
	Value string `xml:",chardata"`
}

// OS is the element <os>.
type OS struct {
	Type   OSType  `xml:"type"`
	Loader *Loader `xml:"loader"`
	NVRAM  *NVRAM  `xml:"nvram"`
	Menu   *Enable `xml:"bootmenu"`
	SMBIOS *Mode   `xml:"smbios"`
}

// OSType is the element <type>.
type OSType struct {
	Arch    string `xml:"arch,attr"`
	Machine string `xml:"machine,attr"`
	Value   string `xml:",chardata"`
}

// Loader is the element <loader>.
type Loader struct {
	ReadOnly  string `xml:"readonly,attr,omitempty"`
	Secure    string `xml:"secure,attr,omitempty"`
	Type      string `xml:"type,attr,omitempty"`
	Stateless string `xml:"stateless,attr,omitempty"`
	Path      string `xml:",chardata"`
}

// NVRAM is the element <nvram>.
type NVRAM struct {
	Template string `xml:"template,attr,omitempty"`
	Path     string `xml:",chardata"`
}

type (
	// Enable is the element <bootmenu>.
	Enable struct {
		Enable string `xml:"enable,attr"`
	}
	// Mode is the element <smbios>.
	Mode struct {
		Mode string `xml:"mode,attr"`
	}
	// State is the element <pmu>.
	State struct {
		State   string `xml:"state,attr"`
		Retries int    `xml:"retries,attr,omitempty"`
	}
	// Driver is the element <ioapic>.
	Driver struct {
		Name string `xml:"driver,attr"`
	}
	// Present is the element <acpi>.
	Present struct{}
)

// Features is the element <features>.
type Features struct {
	ACPI   *Present `xml:"acpi"`
	APIC   *Present `xml:"apic"`
	HyperV *HyperV  `xml:"hyperv"`
	KVM    *KVM     `xml:"kvm"`
	PMU    *State   `xml:"pmu"`
	SMM    *State   `xml:"smm"`
	IOAPIC *Driver  `xml:"ioapic"`
}

// HyperV is the element <hyperv>.
type HyperV struct {
	Relaxed   State `xml:"relaxed"`
	VAPIC     State `xml:"vapic"`
	Spinlocks State `xml:"spinlocks"`
}

// KVM is the element <kvm>.
type KVM struct {
	Hidden State `xml:"hidden"`
}

// CPU is the element <cpu>.
type CPU struct {
	Mode     string       `xml:"mode,attr,omitempty"`
	Match    string       `xml:"match,attr,omitempty"`
	Check    string       `xml:"check,attr,omitempty"`
	Arch     string       `xml:"arch,omitempty"`
	Model    *CPUModel    `xml:"model"`
	Vendor   string       `xml:"vendor,omitempty"`
	Topology *Topology    `xml:"topology"`
	Features []CPUFeature `xml:"feature"`
	NUMA     *NUMA        `xml:"numa"`
}

// CPUModel is the element <model>.
type CPUModel struct {
	Fallback string `xml:"fallback,attr,omitempty"`
	Name     string `xml:",chardata"`
}

// CPUFeature is the element <feature>.
type CPUFeature struct {
	Policy string `xml:"policy,attr,omitempty"`
	Name   string `xml:"name,attr"`
}

// Topology is the element <topology>.
type Topology struct {
	Sockets int `xml:"sockets,attr"`
	Dies    int `xml:"dies,attr,omitempty"`
	Cores   int `xml:"cores,attr"`
	Threads int `xml:"threads,attr"`
}

// NUMA is the element <numa>.
type NUMA struct {
	Cells []Cell `xml:"cell"`
}

// Cell is the element <cell>.
type Cell struct {
	ID     int    `xml:"id,attr"`
	CPUs   string `xml:"cpus,attr"`
	Memory int64  `xml:"memory,attr"`
	Unit   string `xml:"unit,attr"`
}

// Clock is the element <clock>.
type Clock struct {
	Offset string  `xml:"offset,attr"`
	Timers []Timer `xml:"timer"`
}

// Timer is the element <timer>.
type Timer struct {
	Name       string `xml:"name,attr"`
	TickPolicy string `xml:"tickpolicy,attr,omitempty"`
	Present    string `xml:"present,attr,omitempty"`
}

// Devices is the element <devices>.
type Devices struct {
	Emulator    string       `xml:"emulator,omitempty"`
	Controllers []Controller `xml:"controller"`
	Disks       []Disk       `xml:"disk"`
	Interfaces  []Interface  `xml:"interface"`
	Serials     []Serial     `xml:"serial"`
	Channels    []Channel    `xml:"channel"`
	Inputs      []Input      `xml:"input"`
	TPM         *TPM         `xml:"tpm"`
	Graphics    []Graphics   `xml:"graphics"`
	Video       *Video       `xml:"video"`
	Watchdog    *Watchdog    `xml:"watchdog"`
	Balloon     *Balloon     `xml:"memballoon"`
	RNG         *RNG         `xml:"rng"`
	Sound       *Modelled    `xml:"sound"`
	HostDevs    []HostDev    `xml:"hostdev"`
	IOMMU       *Modelled    `xml:"iommu"`
}

// Controller is the element <controller>.
type Controller struct {
	Type  string `xml:"type,attr"`
	Index *int   `xml:"index,attr"`
	Model string `xml:"model,attr,omitempty"`
}

// Disk is the element <disk>.
type Disk struct {
	XMLName    xml.Name     `xml:"disk"`
	Type       string       `xml:"type,attr"`
	Device     string       `xml:"device,attr"`
	Driver     DiskDriver   `xml:"driver"`
	Auth       *Auth        `xml:"auth"`
	Source     *DiskSource  `xml:"source"`
	Backing    *BackingFile `xml:"backingStore"`
	Target     DiskTarget   `xml:"target"`
	Tune       *IOTune      `xml:"iotune"`
	ReadOnly   *Present     `xml:"readonly"`
	Shareable  *Present     `xml:"shareable"`
	Boot       *Boot        `xml:"boot"`
	Serial     string       `xml:"serial,omitempty"`
	Encryption *Encryption  `xml:"encryption"`
	Alias      *Alias       `xml:"alias"`
}

// BackingFile is read only.
type BackingFile struct {
	Source *DiskSource `xml:"source"`
}

// DiskDriver is the element <driver>.
type DiskDriver struct {
	Name    string `xml:"name,attr"`
	Type    string `xml:"type,attr"`
	Cache   string `xml:"cache,attr,omitempty"`
	IO      string `xml:"io,attr,omitempty"`
	Discard string `xml:"discard,attr,omitempty"`
	Packed  string `xml:"packed,attr,omitempty"`
}

// DiskSource is the element <source>.
type DiskSource struct {
	File      string     `xml:"file,attr,omitempty"`
	Dev       string     `xml:"dev,attr,omitempty"`
	Protocol  string     `xml:"protocol,attr,omitempty"`
	Name      string     `xml:"name,attr,omitempty"`
	TLS       string     `xml:"tls,attr,omitempty"`
	Hosts     []Host     `xml:"host"`
	Auth      *Auth      `xml:"auth"`
	Initiator *Initiator `xml:"initiator"`
}

// Initiator is the element <initiator>.
type Initiator struct {
	IQN Name `xml:"iqn"`
}

// Name is the element <iqn>.
type Name struct {
	Name string `xml:"name,attr"`
}

// Host is the element <host>.
type Host struct {
	Transport string `xml:"transport,attr,omitempty"`
	Name      string `xml:"name,attr,omitempty"`
	Port      string `xml:"port,attr,omitempty"`
	Socket    string `xml:"socket,attr,omitempty"`
}

// Auth is the element <auth>.
type Auth struct {
	Username string    `xml:"username,attr"`
	Secret   SecretRef `xml:"secret"`
}

// SecretRef is the element <secret>.
type SecretRef struct {
	Type string `xml:"type,attr"`
	UUID string `xml:"uuid,attr"`
}

// Encryption is the element <encryption>.
type Encryption struct {
	Format string    `xml:"format,attr"`
	Secret SecretRef `xml:"secret"`
}

// DiskTarget is the element <target>.
type DiskTarget struct {
	Dev string `xml:"dev,attr"`
	Bus string `xml:"bus,attr,omitempty"`
}

// IOTune is the element <iotune>.
type IOTune struct {
	TotalBytes int64 `xml:"total_bytes_sec,omitempty"`
	ReadBytes  int64 `xml:"read_bytes_sec,omitempty"`
	WriteBytes int64 `xml:"write_bytes_sec,omitempty"`
	TotalIOPS  int64 `xml:"total_iops_sec,omitempty"`
	ReadIOPS   int64 `xml:"read_iops_sec,omitempty"`
	WriteIOPS  int64 `xml:"write_iops_sec,omitempty"`
}

// Boot is the element <boot>.
type Boot struct {
	Order int `xml:"order,attr"`
}

// Alias is the element <alias>.
type Alias struct {
	Name string `xml:"name,attr"`
}

// Interface is the element <interface>.
type Interface struct {
	XMLName   xml.Name         `xml:"interface"`
	Type      string           `xml:"type,attr"`
	Managed   string           `xml:"managed,attr,omitempty"`
	MAC       MAC              `xml:"mac"`
	Source    InterfaceSource  `xml:"source"`
	Target    *InterfaceTarget `xml:"target"`
	Model     *InterfaceModel  `xml:"model"`
	Driver    *InterfaceDriver `xml:"driver"`
	VLAN      *VLAN            `xml:"vlan"`
	Bandwidth *Bandwidth       `xml:"bandwidth"`
	MTU       *MTU             `xml:"mtu"`
	Alias     *Alias           `xml:"alias"`
}

type (
	// MAC is the element <mac>.
	MAC struct {
		Address string `xml:"address,attr"`
	}
	// InterfaceSource is the element <source>.
	InterfaceSource struct {
		Bridge  string      `xml:"bridge,attr,omitempty"`
		Dev     string      `xml:"dev,attr,omitempty"`
		Mode    string      `xml:"mode,attr,omitempty"`
		Address *PCIAddress `xml:"address"`
	}
	// VLAN is the element <vlan>.
	VLAN struct {
		Tags []VLANTag `xml:"tag"`
	}
	// VLANTag is the element <tag>.
	VLANTag struct {
		ID int `xml:"id,attr"`
	}
	// InterfaceTarget is the element <target>.
	InterfaceTarget struct {
		Dev string `xml:"dev,attr"`
	}
	// InterfaceModel is the element <model>.
	InterfaceModel struct {
		Type string `xml:"type,attr"`
	}
	// InterfaceDriver is the element <driver>.
	InterfaceDriver struct {
		Name   string `xml:"name,attr,omitempty"`
		Queues int    `xml:"queues,attr,omitempty"`
		Packed string `xml:"packed,attr,omitempty"`
	}
	// MTU is the element <mtu>.
	MTU struct {
		Size int `xml:"size,attr"`
	}
	// Bandwidth is the element <bandwidth>.
	Bandwidth struct {
		Inbound  *Rate `xml:"inbound"`
		Outbound *Rate `xml:"outbound"`
	}
	// Rate is the element <inbound>.
	Rate struct {
		Average int64 `xml:"average,attr"`
		Peak    int64 `xml:"peak,attr,omitempty"`
		Burst   int64 `xml:"burst,attr,omitempty"`
	}
)

// Serial is the element <serial>.
type Serial struct {
	Type     string        `xml:"type,attr"`
	Source   *SerialSource `xml:"source"`
	Protocol *Protocol     `xml:"protocol"`
	Log      *Log          `xml:"log"`
	Target   *Port         `xml:"target"`
}

type (
	// SerialSource is the element <source>.
	SerialSource struct {
		Mode    string `xml:"mode,attr,omitempty"`
		Host    string `xml:"host,attr,omitempty"`
		Service string `xml:"service,attr,omitempty"`
		Path    string `xml:"path,attr,omitempty"`
	}
	// Protocol is the element <protocol>.
	Protocol struct {
		Type string `xml:"type,attr"`
	}
	// Log is the element <log>.
	Log struct {
		File   string `xml:"file,attr"`
		Append string `xml:"append,attr"`
	}
	// Port is the element <target>.
	Port struct {
		Port int `xml:"port,attr"`
	}
)

// Channel is the element <channel>.
type Channel struct {
	Type   string        `xml:"type,attr"`
	Target ChannelTarget `xml:"target"`
}

// ChannelTarget is the element <target>.
type ChannelTarget struct {
	Type  string `xml:"type,attr"`
	Name  string `xml:"name,attr"`
	State string `xml:"state,attr,omitempty"`
}

// Input is the element <input>.
type Input struct {
	Type string `xml:"type,attr"`
	Bus  string `xml:"bus,attr"`
}

// TPM is the element <tpm>.
type TPM struct {
	Model   string     `xml:"model,attr"`
	Backend TPMBackend `xml:"backend"`
}

// TPMBackend is the element <backend>.
type TPMBackend struct {
	Type    string `xml:"type,attr"`
	Version string `xml:"version,attr"`
}

// Graphics is the element <graphics>.
type Graphics struct {
	Type     string `xml:"type,attr"`
	Port     int    `xml:"port,attr"`
	AutoPort string `xml:"autoport,attr,omitempty"`
	Listen   string `xml:"listen,attr,omitempty"`
}

// Video is the element <video>.
type Video struct {
	Model VideoModel `xml:"model"`
}

// VideoModel is the element <model>.
type VideoModel struct {
	Type string `xml:"type,attr"`
	VRAM int64  `xml:"vram,attr,omitempty"`
}

// Watchdog is the element <watchdog>.
type Watchdog struct {
	Model  string `xml:"model,attr"`
	Action string `xml:"action,attr"`
}

// Balloon is the element <memballoon>.
type Balloon struct {
	Model string        `xml:"model,attr"`
	Stats *BalloonStats `xml:"stats"`
}

// BalloonStats is the element <stats>.
type BalloonStats struct {
	Period int `xml:"period,attr"`
}

// RNG is the element <rng>.
type RNG struct {
	Model   string     `xml:"model,attr"`
	Rate    *RNGRate   `xml:"rate"`
	Backend RNGBackend `xml:"backend"`
}

// RNGRate is the element <rate>.
type RNGRate struct {
	Bytes  int64 `xml:"bytes,attr"`
	Period int64 `xml:"period,attr,omitempty"`
}

// RNGBackend is the element <backend>.
type RNGBackend struct {
	Model string `xml:"model,attr"`
	Path  string `xml:",chardata"`
}

// Encode writes an element.
func Encode(v any) (string, error) {
	b, err := xml.MarshalIndent(v, "", "  ")
	return string(b), err
}
