package libvirt

import "encoding/xml"

// The parts of libvirt's domain XML that the driver writes and reads (https://libvirt.org/formatdomain.html).

// metadataNS is the namespace of our element in a domain's metadata; metadataKey its prefix there.
const (
	metadataNS  = "urn:kilonova:server:1"
	metadataKey = "kilonova"
)

type domainXML struct {
	XMLName       xml.Name     `xml:"domain"`
	Type          string       `xml:"type,attr"`
	UUID          string       `xml:"uuid"`
	Name          string       `xml:"name"`
	Metadata      *metadataXML `xml:"metadata"`
	Memory        sizeXML      `xml:"memory"`
	CurrentMemory *sizeXML     `xml:"currentMemory"`
	Backing       *backingXML  `xml:"memoryBacking"`
	VCPU          vcpuXML      `xml:"vcpu"`
	CPUTune       *cpuTuneXML  `xml:"cputune"`
	MemTune       *memTuneXML  `xml:"memtune"`
	SysInfo       *sysInfoXML  `xml:"sysinfo"`
	OS            osXML        `xml:"os"`
	Features      featuresXML  `xml:"features"`
	CPU           *cpuXML      `xml:"cpu"`
	Clock         clockXML     `xml:"clock"`
	OnPoweroff    string       `xml:"on_poweroff"`
	OnReboot      string       `xml:"on_reboot"`
	OnCrash       string       `xml:"on_crash"`
	Devices       devicesXML   `xml:"devices"`
}

type metadataXML struct {
	Server *serverXML `xml:"urn:kilonova:server:1 server"`
}

// serverXML is our element.
type serverXML struct {
	XMLName xml.Name `xml:"urn:kilonova:server:1 server"`
	ID      string   `xml:"id,attr"`
	Name    string   `xml:"name,attr,omitempty"`
	Flavor  string   `xml:"flavor,attr,omitempty"`
	Project string   `xml:"project,attr,omitempty"`
	User    string   `xml:"user,attr,omitempty"`
	Rescue  bool     `xml:"rescue,attr,omitempty"`
}

type sizeXML struct {
	Unit  string `xml:"unit,attr"`
	Value int64  `xml:",chardata"`
}

type vcpuXML struct {
	Placement string `xml:"placement,attr,omitempty"`
	CPUSet    string `xml:"cpuset,attr,omitempty"`
	N         int    `xml:",chardata"`
}

type backingXML struct {
	Huge *hugeXML `xml:"hugepages"`
}

type hugeXML struct {
	Pages []pageXML `xml:"page"`
}

type pageXML struct {
	Size int64  `xml:"size,attr"`
	Unit string `xml:"unit,attr"`
}

type cpuTuneXML struct {
	Shares   int64    `xml:"shares,omitempty"`
	Period   int64    `xml:"period,omitempty"`
	Quota    int64    `xml:"quota,omitempty"`
	Pins     []pinXML `xml:"vcpupin"`
	Emulator *pinXML  `xml:"emulatorpin"`
}

type pinXML struct {
	VCPU   *int   `xml:"vcpu,attr"`
	CPUSet string `xml:"cpuset,attr"`
}

type memTuneXML struct {
	Hard    *sizeXML `xml:"hard_limit"`
	Soft    *sizeXML `xml:"soft_limit"`
	Minimum *sizeXML `xml:"min_guarantee"`
}

type sysInfoXML struct {
	Type    string     `xml:"type,attr"`
	Entries []entryXML `xml:"system>entry"`
}

type entryXML struct {
	Name  string `xml:"name,attr"`
	Value string `xml:",chardata"`
}

type osXML struct {
	Type   osTypeXML  `xml:"type"`
	Loader *loaderXML `xml:"loader"`
	NVRAM  *nvramXML  `xml:"nvram"`
	Menu   *enableXML `xml:"bootmenu"`
	SMBIOS *modeXML   `xml:"smbios"`
}

type osTypeXML struct {
	Arch    string `xml:"arch,attr"`
	Machine string `xml:"machine,attr"`
	Value   string `xml:",chardata"`
}

type loaderXML struct {
	ReadOnly string `xml:"readonly,attr,omitempty"`
	Type     string `xml:"type,attr,omitempty"`
	Path     string `xml:",chardata"`
}

type nvramXML struct {
	Template string `xml:"template,attr,omitempty"`
	Path     string `xml:",chardata"`
}

type (
	enableXML struct {
		Enable string `xml:"enable,attr"`
	}
	modeXML struct {
		Mode string `xml:"mode,attr"`
	}
	stateXML struct {
		State   string `xml:"state,attr"`
		Retries int    `xml:"retries,attr,omitempty"`
	}
	presentXML struct{}
)

type featuresXML struct {
	ACPI   *presentXML `xml:"acpi"`
	APIC   *presentXML `xml:"apic"`
	HyperV *hypervXML  `xml:"hyperv"`
	KVM    *kvmXML     `xml:"kvm"`
	PMU    *stateXML   `xml:"pmu"`
}

type hypervXML struct {
	Relaxed   stateXML `xml:"relaxed"`
	VAPIC     stateXML `xml:"vapic"`
	Spinlocks stateXML `xml:"spinlocks"`
}

type kvmXML struct {
	Hidden stateXML `xml:"hidden"`
}

type cpuXML struct {
	Mode     string          `xml:"mode,attr,omitempty"`
	Match    string          `xml:"match,attr,omitempty"`
	Check    string          `xml:"check,attr,omitempty"`
	Arch     string          `xml:"arch,omitempty"`
	Model    *cpuModelXML    `xml:"model"`
	Vendor   string          `xml:"vendor,omitempty"`
	Topology *topologyXML    `xml:"topology"`
	Features []cpuFeatureXML `xml:"feature"`
	NUMA     *numaXML        `xml:"numa"`
}

type cpuModelXML struct {
	Fallback string `xml:"fallback,attr,omitempty"`
	Name     string `xml:",chardata"`
}

type cpuFeatureXML struct {
	Policy string `xml:"policy,attr,omitempty"`
	Name   string `xml:"name,attr"`
}

type topologyXML struct {
	Sockets int `xml:"sockets,attr"`
	Dies    int `xml:"dies,attr,omitempty"`
	Cores   int `xml:"cores,attr"`
	Threads int `xml:"threads,attr"`
}

type numaXML struct {
	Cells []cellXML `xml:"cell"`
}

type cellXML struct {
	ID     int    `xml:"id,attr"`
	CPUs   string `xml:"cpus,attr"`
	Memory int64  `xml:"memory,attr"`
	Unit   string `xml:"unit,attr"`
}

type clockXML struct {
	Offset string     `xml:"offset,attr"`
	Timers []timerXML `xml:"timer"`
}

type timerXML struct {
	Name       string `xml:"name,attr"`
	TickPolicy string `xml:"tickpolicy,attr,omitempty"`
	Present    string `xml:"present,attr,omitempty"`
}

type devicesXML struct {
	Emulator    string          `xml:"emulator,omitempty"`
	Controllers []controllerXML `xml:"controller"`
	Disks       []diskXML       `xml:"disk"`
	Interfaces  []interfaceXML  `xml:"interface"`
	Serials     []serialXML     `xml:"serial"`
	Channels    []channelXML    `xml:"channel"`
	Inputs      []inputXML      `xml:"input"`
	TPM         *tpmXML         `xml:"tpm"`
	Graphics    []graphicsXML   `xml:"graphics"`
	Video       *videoXML       `xml:"video"`
	Watchdog    *watchdogXML    `xml:"watchdog"`
	Balloon     *balloonXML     `xml:"memballoon"`
	RNG         *rngXML         `xml:"rng"`
}

type controllerXML struct {
	Type  string `xml:"type,attr"`
	Index *int   `xml:"index,attr"`
	Model string `xml:"model,attr,omitempty"`
}

type diskXML struct {
	XMLName    xml.Name       `xml:"disk"`
	Type       string         `xml:"type,attr"`
	Device     string         `xml:"device,attr"`
	Driver     diskDriverXML  `xml:"driver"`
	Auth       *authXML       `xml:"auth"`
	Source     *diskSourceXML `xml:"source"`
	Backing    *backingFile   `xml:"backingStore"`
	Target     diskTargetXML  `xml:"target"`
	Tune       *ioTuneXML     `xml:"iotune"`
	ReadOnly   *presentXML    `xml:"readonly"`
	Shareable  *presentXML    `xml:"shareable"`
	Boot       *bootXML       `xml:"boot"`
	Serial     string         `xml:"serial,omitempty"`
	Encryption *encryptionXML `xml:"encryption"`
	Alias      *aliasXML      `xml:"alias"`
}

// backingFile is read only.
type backingFile struct {
	Source *diskSourceXML `xml:"source"`
}

type diskDriverXML struct {
	Name    string `xml:"name,attr"`
	Type    string `xml:"type,attr"`
	Cache   string `xml:"cache,attr,omitempty"`
	IO      string `xml:"io,attr,omitempty"`
	Discard string `xml:"discard,attr,omitempty"`
	Packed  string `xml:"packed,attr,omitempty"`
}

type diskSourceXML struct {
	File      string        `xml:"file,attr,omitempty"`
	Dev       string        `xml:"dev,attr,omitempty"`
	Protocol  string        `xml:"protocol,attr,omitempty"`
	Name      string        `xml:"name,attr,omitempty"`
	TLS       string        `xml:"tls,attr,omitempty"`
	Hosts     []hostXML     `xml:"host"`
	Auth      *authXML      `xml:"auth"`
	Initiator *initiatorXML `xml:"initiator"`
}

type initiatorXML struct {
	IQN nameXML `xml:"iqn"`
}

type nameXML struct {
	Name string `xml:"name,attr"`
}

type hostXML struct {
	Transport string `xml:"transport,attr,omitempty"`
	Name      string `xml:"name,attr,omitempty"`
	Port      string `xml:"port,attr,omitempty"`
	Socket    string `xml:"socket,attr,omitempty"`
}

type authXML struct {
	Username string    `xml:"username,attr"`
	Secret   secretRef `xml:"secret"`
}

type secretRef struct {
	Type string `xml:"type,attr"`
	UUID string `xml:"uuid,attr"`
}

type encryptionXML struct {
	Format string    `xml:"format,attr"`
	Secret secretRef `xml:"secret"`
}

type diskTargetXML struct {
	Dev string `xml:"dev,attr"`
	Bus string `xml:"bus,attr,omitempty"`
}

type ioTuneXML struct {
	TotalBytes int64 `xml:"total_bytes_sec,omitempty"`
	ReadBytes  int64 `xml:"read_bytes_sec,omitempty"`
	WriteBytes int64 `xml:"write_bytes_sec,omitempty"`
	TotalIOPS  int64 `xml:"total_iops_sec,omitempty"`
	ReadIOPS   int64 `xml:"read_iops_sec,omitempty"`
	WriteIOPS  int64 `xml:"write_iops_sec,omitempty"`
}

type bootXML struct {
	Order int `xml:"order,attr"`
}

type aliasXML struct {
	Name string `xml:"name,attr"`
}

type interfaceXML struct {
	XMLName   xml.Name      `xml:"interface"`
	Type      string        `xml:"type,attr"`
	MAC       macXML        `xml:"mac"`
	Source    ifSourceXML   `xml:"source"`
	Target    *ifTargetXML  `xml:"target"`
	Model     *ifModelXML   `xml:"model"`
	Driver    *ifDriverXML  `xml:"driver"`
	Bandwidth *bandwidthXML `xml:"bandwidth"`
	MTU       *mtuXML       `xml:"mtu"`
	Alias     *aliasXML     `xml:"alias"`
}

type (
	macXML struct {
		Address string `xml:"address,attr"`
	}
	ifSourceXML struct {
		Bridge string `xml:"bridge,attr,omitempty"`
	}
	ifTargetXML struct {
		Dev string `xml:"dev,attr"`
	}
	ifModelXML struct {
		Type string `xml:"type,attr"`
	}
	ifDriverXML struct {
		Name   string `xml:"name,attr,omitempty"`
		Queues int    `xml:"queues,attr,omitempty"`
		Packed string `xml:"packed,attr,omitempty"`
	}
	mtuXML struct {
		Size int `xml:"size,attr"`
	}
	bandwidthXML struct {
		Inbound  *rateXML `xml:"inbound"`
		Outbound *rateXML `xml:"outbound"`
	}
	rateXML struct {
		Average int64 `xml:"average,attr"`
		Peak    int64 `xml:"peak,attr,omitempty"`
		Burst   int64 `xml:"burst,attr,omitempty"`
	}
)

type serialXML struct {
	Type     string           `xml:"type,attr"`
	Source   *serialSourceXML `xml:"source"`
	Protocol *protocolXML     `xml:"protocol"`
	Log      *logXML          `xml:"log"`
	Target   *portXML         `xml:"target"`
}

type (
	serialSourceXML struct {
		Mode    string `xml:"mode,attr,omitempty"`
		Host    string `xml:"host,attr,omitempty"`
		Service string `xml:"service,attr,omitempty"`
		Path    string `xml:"path,attr,omitempty"`
	}
	protocolXML struct {
		Type string `xml:"type,attr"`
	}
	logXML struct {
		File   string `xml:"file,attr"`
		Append string `xml:"append,attr"`
	}
	portXML struct {
		Port int `xml:"port,attr"`
	}
)

type channelXML struct {
	Type   string           `xml:"type,attr"`
	Target channelTargetXML `xml:"target"`
}

type channelTargetXML struct {
	Type  string `xml:"type,attr"`
	Name  string `xml:"name,attr"`
	State string `xml:"state,attr,omitempty"`
}

type inputXML struct {
	Type string `xml:"type,attr"`
	Bus  string `xml:"bus,attr"`
}

type tpmXML struct {
	Model   string        `xml:"model,attr"`
	Backend tpmBackendXML `xml:"backend"`
}

type tpmBackendXML struct {
	Type    string `xml:"type,attr"`
	Version string `xml:"version,attr"`
}

type graphicsXML struct {
	Type     string `xml:"type,attr"`
	Port     int    `xml:"port,attr"`
	AutoPort string `xml:"autoport,attr,omitempty"`
	Listen   string `xml:"listen,attr,omitempty"`
}

type videoXML struct {
	Model videoModelXML `xml:"model"`
}

type videoModelXML struct {
	Type string `xml:"type,attr"`
	VRAM int64  `xml:"vram,attr,omitempty"`
}

type watchdogXML struct {
	Model  string `xml:"model,attr"`
	Action string `xml:"action,attr"`
}

type balloonXML struct {
	Model string    `xml:"model,attr"`
	Stats *statsXML `xml:"stats"`
}

type statsXML struct {
	Period int `xml:"period,attr"`
}

type rngXML struct {
	Model   string      `xml:"model,attr"`
	Rate    *rngRateXML `xml:"rate"`
	Backend rngBackXML  `xml:"backend"`
}

type rngRateXML struct {
	Bytes  int64 `xml:"bytes,attr"`
	Period int64 `xml:"period,attr,omitempty"`
}

type rngBackXML struct {
	Model string `xml:"model,attr"`
	Path  string `xml:",chardata"`
}

// encodeXML writes v; the types here always can be written.
func encodeXML(v any) (string, error) {
	b, err := xml.MarshalIndent(v, "", "  ")
	return string(b), err
}
