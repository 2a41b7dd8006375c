// Package virt is the contract of hypervisor drivers: a few verbs that every hypervisor has, and small optional interfaces for the rest.
// What a driver implements is what its host advertises as traits (Traits) and what the API offers there.
//
// Rules for every method: safe to repeat (look before you act: spawning a guest that runs is success, destroying one that is gone is
// success); bounded by ctx; an unknown guest is fault.NotFound; what the hypervisor cannot do is fault.NotImplemented; a state that does not
// allow the call is fault.Conflict. A driver keeps no memory of its own that a restart could lose: the hypervisor and the files beside it are the truth.
package virt

import (
	"context"
	"io"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/network"
)

// PowerState of a guest, with Nova's numbers.
type PowerState int

// The power states.
const (
	NoState   PowerState = 0
	Running   PowerState = 1
	Paused    PowerState = 3
	Shutdown  PowerState = 4
	Crashed   PowerState = 6
	Suspended PowerState = 7
)

// Driver is what every hypervisor driver has.
type Driver interface {
	// Info tells what the host is and has. It is asked at start and every report interval.
	Info(ctx context.Context) (*HostInfo, error)
	// Guests lists the guests that this driver made on the host (by server id).
	Guests(ctx context.Context) ([]GuestState, error)
	// Guest gives the state of one guest.
	Guest(ctx context.Context, id string) (*GuestState, error)
	// Spawn makes the disks, defines the guest and starts it (unless spec.Stopped).
	Spawn(ctx context.Context, spec *Spec) error
	// Destroy stops the guest at once and removes its definition, and its disks unless keepDisks.
	Destroy(ctx context.Context, id string, keepDisks bool) error
	// PowerOn starts a stopped guest. The spec lets a driver build the definition again.
	PowerOn(ctx context.Context, spec *Spec) error
	// PowerOff asks the guest to shut down and, when it has not after grace (0: do not ask), stops it.
	PowerOff(ctx context.Context, id string, grace time.Duration) error
	// Reboot asks the guest to restart (hard false; falls back to hard after grace) or rebuilds the definition and starts it anew (hard).
	Reboot(ctx context.Context, spec *Spec, hard bool, grace time.Duration) error
	// Close lets go of the hypervisor; guests run on.
	Close() error
}

// HostInfo is what a host is and has.
type HostInfo struct {
	Hostname          string            `json:"hostname"`           // hypervisor_hostname
	HypervisorType    string            `json:"hypervisor_type"`    // QEMU, KVM, fake, LXC
	HypervisorVersion int               `json:"hypervisor_version"` // 7002000 for 7.2.0
	VCPUs             int               `json:"vcpus"`
	MemoryMB          int64             `json:"memory_mb"`
	DiskGB            int64             `json:"disk_gb"`
	CPUInfo           map[string]any    `json:"cpu_info"`
	Supported         [][3]string       `json:"supported"` // (architecture, hypervisor type, vm mode)
	HostIP            string            `json:"host_ip"`
	Uptime            string            `json:"uptime"` // text of the host's uptime; "" when the driver has none
	Traits            []string          `json:"traits"` // beyond those that follow from the abilities
	Stats             map[string]string `json:"stats"`
	FreeDiskGB        int64             `json:"free_disk_gb"`
	// Metrics are measured values that MetricsFilter and MetricsWeigher know by name, cpu.percent for one; shares are 0 to 1.
	Metrics      map[string]float64 `json:"metrics,omitempty"`
	MemoryUsedMB int64              `json:"memory_used_mb"`
	// NUMA and PCI are the host's NUMA nodes and the PCI devices that servers may have. A driver tells what is there; who holds what is in the conductor's
	// claims (store.HostClaim), so drivers and agents leave Pinned, Used and Server empty.
	NUMA []compute.HostCell   `json:"numa,omitempty"`
	PCI  []compute.HostDevice `json:"pci,omitempty"`
	// Mediated are the devices of which servers may have parts; they are always told of in placement.
	Mediated []compute.HostMediated `json:"mediated,omitempty"`
	// PCIPlacement tells that placement shall know of the devices (option [pci] report_in_placement).
	PCIPlacement bool `json:"pci_placement,omitempty"`
	// Offer and Providers are from the host's configuration: what of it may be promised, and what operators add to its resource providers. Agents fill them in.
	Offer     *Offer           `json:"offer,omitempty"`
	Providers []ProviderConfig `json:"providers,omitempty"`
}

// GuestState is a guest as the hypervisor sees it.
type GuestState struct {
	ID    string     `json:"id"`   // server id
	Name  string     `json:"name"` // instance-00000001
	Power PowerState `json:"power"`
}

// Spec is all that a driver needs to make a guest. Agents keep it beside the guest, so that it outlives every restart.
type Spec struct {
	ID          string            `json:"id"`
	Name        string            `json:"name"` // instance-%08x: the domain's name
	Display     string            `json:"display"`
	Hostname    string            `json:"hostname"`
	ProjectID   string            `json:"project_id"`
	UserID      string            `json:"user_id"`
	VCPUs       int               `json:"vcpus"`
	MemoryMB    int64             `json:"memory_mb"`
	RootGB      int64             `json:"root_gb"` // 0: as large as the image
	EphemeralGB int64             `json:"ephemeral_gb"`
	SwapMB      int64             `json:"swap_mb"`
	FlavorName  string            `json:"flavor_name"`
	ExtraSpecs  map[string]string `json:"extra_specs,omitempty"`
	ImageID     string            `json:"image_id"`
	ImageProps  map[string]string `json:"image_props,omitempty"` // hw_*, os_* properties
	// BaseImage is the verified image file in the agent's cache (qcow2 or raw as BaseFormat says; never with a backing file). Empty for volume-backed servers.
	BaseImage   string        `json:"base_image,omitempty"`
	BaseFormat  string        `json:"base_format,omitempty"`
	VIFs        []network.VIF `json:"vifs"`
	Disks       []Disk        `json:"disks,omitempty"`        // volumes and image-less disks beyond root, ephemeral and swap
	ConfigDrive string        `json:"config_drive,omitempty"` // file to attach; "" none
	AdminPass   string        `json:"-"`
	Stopped     bool          `json:"stopped,omitempty"` // define, do not start
	Rescue      *RescueSpec   `json:"rescue,omitempty"`
	// Claim is what the conductor claimed on the host, exactly, for a server that asks for NUMA nodes, pinned CPUs, page sizes or PCI devices; nil: it asks for none.
	Claim *compute.Claim `json:"claim,omitempty"`
}

// Disk is an attached volume.
type Disk struct {
	VolumeID   string            `json:"volume_id"`
	Device     string            `json:"device"` // vdb
	Bus        string            `json:"bus"`
	BootIndex  int               `json:"boot_index"` // -1 not bootable
	Serial     string            `json:"serial"`
	Tag        string            `json:"tag,omitempty"`
	Connection map[string]any    `json:"connection"` // driver_volume_type and data, as Cinder gives them
	Secrets    map[string]string `json:"-"`
}

// RescueSpec is the rescue image of a rescued guest.
type RescueSpec struct {
	BaseImage  string            `json:"base_image"`
	BaseFormat string            `json:"base_format"`
	ImageProps map[string]string `json:"image_props,omitempty"`
}

// Neighbour is what drivers are whose hosts live in one hypervisor: one of them tells what Guests of each would.
type Neighbour interface {
	// GuestsOf gives the guests of the hosts that have any.
	GuestsOf(ctx context.Context, hosts []string) (map[string][]GuestState, error)
}

// The abilities. Each is one interface; a driver has those that its hypervisor has.
type (
	// Pauser freezes and thaws a guest in memory.
	Pauser interface {
		Pause(ctx context.Context, id string) error
		Unpause(ctx context.Context, id string) error
	}
	// Suspender saves a guest's memory to disk and brings it back, also after the host was restarted.
	Suspender interface {
		Suspend(ctx context.Context, id string) error
		Resume(ctx context.Context, spec *Spec) error
	}
	// Rescuer boots the guest from a rescue disk with its own root disk beside.
	Rescuer interface {
		Rescue(ctx context.Context, spec *Spec) error
		Unrescue(ctx context.Context, spec *Spec) error
	}
	// Snapshotter gives a consistent copy of the root disk as one file without backing file. The guest may run. quiesce asks the guest agent to freeze
	// file systems first; a guest without an agent is no error unless required.
	Snapshotter interface {
		Snapshot(ctx context.Context, id string, o SnapshotOptions) (*SnapshotFile, error)
	}
	// Resizer changes a guest's flavor on the same host: the disks are kept aside so that RevertResize finds them as they were.
	Resizer interface {
		// PrepareResize stops the guest and keeps a copy of its disks under a second name.
		PrepareResize(ctx context.Context, id string, grace time.Duration) error
		// FinishResize grows the disks to spec and starts the guest (unless Stopped).
		FinishResize(ctx context.Context, spec *Spec) error
		// RevertResize puts the kept disks back and starts the guest with the old spec.
		RevertResize(ctx context.Context, old *Spec) error
		// ConfirmResize removes what PrepareResize kept.
		ConfirmResize(ctx context.Context, id string) error
	}
	// ConsoleLogger reads the console log.
	ConsoleLogger interface {
		// ConsoleLog gives the newest lines (0 or less: all that is kept, at most limit bytes).
		ConsoleLog(ctx context.Context, id string, lines int, limit int64) ([]byte, error)
	}
	// Consoler tells where a console can be reached from this host.
	Consoler interface {
		Console(ctx context.Context, id, kind string) (*ConsoleEndpoint, error) // kind vnc, spice, serial
	}
	// InterfaceAttacher plugs and unplugs interfaces of a guest that exists.
	InterfaceAttacher interface {
		AttachInterface(ctx context.Context, spec *Spec, vif network.VIF) error
		DetachInterface(ctx context.Context, spec *Spec, vif network.VIF) error
	}
	// VolumeAttacher attaches and detaches volumes of a guest that exists.
	VolumeAttacher interface {
		AttachVolume(ctx context.Context, spec *Spec, d Disk) error
		DetachVolume(ctx context.Context, spec *Spec, d Disk) error
	}
	// PasswordSetter sets a password through the guest agent.
	PasswordSetter interface {
		SetPassword(ctx context.Context, id, user, password string) error
	}
	// CrashDumper makes the guest dump itself (NMI).
	CrashDumper interface {
		CrashDump(ctx context.Context, id string) error
	}
	// Diagnoser gives counters.
	Diagnoser interface {
		Diagnostics(ctx context.Context, id string) (*Diagnostics, error)
	}
	// Migrator moves disks of a stopped guest and running guests between hosts.
	Migrator interface {
		// LiveMigrationTarget tells how another host reaches this one and what it must know.
		LiveMigrationTarget(ctx context.Context, spec *Spec) (map[string]string, error)
		// PreLiveMigration makes ready at the destination.
		PreLiveMigration(ctx context.Context, spec *Spec, block bool) error
		// LiveMigrate moves the running guest; it returns when the guest runs there and is gone here. progress is called now and then.
		LiveMigrate(ctx context.Context, spec *Spec, target map[string]string, block bool, progress func(MigrationProgress)) error
		AbortLiveMigration(ctx context.Context, id string) error
		ForceLiveMigration(ctx context.Context, id string) error
		// RollbackLiveMigration removes at the destination what PreLiveMigration made.
		RollbackLiveMigration(ctx context.Context, spec *Spec) error
	}
	// DiskMover carries the disks of a stopped guest to another host (cold migration, resize to another host).
	DiskMover interface {
		// ExportDisks lists the guest's files; OpenDisk reads one, ImportDisk writes one at the other end.
		ExportDisks(ctx context.Context, id string) ([]string, error)
		OpenDisk(ctx context.Context, id, name string) (io.ReadCloser, error)
		ImportDisk(ctx context.Context, id, name string, r io.Reader) error
	}
	// DiskSharer is a driver that can tell whether the storage of guests is shared between hosts.
	DiskSharer interface {
		// SeesDisks tells whether the disks of a guest that is on another host are in sight here.
		SeesDisks(spec *Spec) bool
	}
	// ImageLess marks a driver whose guests need no image data (fake): the agent then fetches none and builds no config drive.
	ImageLess interface {
		IgnoresImages()
	}
	// Watcher tells of changes that nobody asked for (a guest that shut itself down).
	Watcher interface {
		// Watch calls f for each change until ctx ends; it reconnects by itself and calls f with a zero GuestState after each
		// reconnection, which means: look at everything.
		Watch(ctx context.Context, f func(GuestState)) error
	}
)

// SnapshotOptions of a snapshot.
type SnapshotOptions struct {
	Format          string // qcow2 or raw
	Dir             string // where the file may be made; the caller removes it
	Quiesce         bool
	QuiesceRequired bool
}

// SnapshotFile is a finished snapshot.
type SnapshotFile struct {
	Path, Format string
	Quiesced     bool
}

// ConsoleEndpoint is where a console proxy connects.
type ConsoleEndpoint struct {
	Kind string `json:"kind"`
	Host string `json:"host"`
	Port int    `json:"port"`
	Path string `json:"path,omitempty"` // unix socket or pty instead of host and port
}

// MigrationProgress of a live migration, in bytes.
type MigrationProgress struct {
	MemoryTotal, MemoryProcessed, MemoryRemaining int64
	DiskTotal, DiskProcessed, DiskRemaining       int64
}

// Diagnostics is the hypervisor-independent document of 2.48; nil means unknown.
type Diagnostics struct {
	State        string         `json:"state"` // pending, running, paused, shutdown, crashed, suspended
	Driver       string         `json:"driver"`
	Hypervisor   string         `json:"hypervisor"`
	HypervisorOS string         `json:"hypervisor_os"`
	Uptime       *int64         `json:"uptime"` // seconds
	ConfigDrive  bool           `json:"config_drive"`
	CPUs         []CPUDiag      `json:"cpu_details"`
	NICs         []NICDiag      `json:"nic_details"`
	Disks        []DiskDiag     `json:"disk_details"`
	MemoryMaxMB  *int64         `json:"memory_max"`
	MemoryUsedMB *int64         `json:"memory_used"`
	Legacy       map[string]any `json:"legacy"` // the free-form document before 2.48
}

// CPUDiag of one virtual CPU: Time in nanoseconds, Utilisation in percent.
type CPUDiag struct {
	ID          int    `json:"id"`
	Time        *int64 `json:"time"`
	Utilisation *int64 `json:"utilisation"`
}

// NICDiag of one interface, in octets, packets and errors.
type NICDiag struct {
	MAC                                           string
	RxOctets, RxErrors, RxDrop, RxPackets, RxRate *int64
	TxOctets, TxErrors, TxDrop, TxPackets, TxRate *int64
}

// DiskDiag of one disk.
type DiskDiag struct {
	ReadBytes, ReadRequests, WriteBytes, WriteRequests, Errors *int64
}
