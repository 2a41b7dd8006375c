// Package compute is the heart's nouns, states and transitions. It is pure: no database, no bus, no network, no clock.
package compute

import (
	"time"

	"kilonova/internal/network"
)

// VM states (OS-EXT-STS:vm_state).
const (
	VMActive           = "active"
	VMBuilding         = "building"
	VMPaused           = "paused"
	VMSuspended        = "suspended"
	VMStopped          = "stopped"
	VMRescued          = "rescued"
	VMResized          = "resized"
	VMSoftDeleted      = "soft-delete"
	VMDeleted          = "deleted"
	VMError            = "error"
	VMShelved          = "shelved"
	VMShelvedOffloaded = "shelved_offloaded"
)

// Task states.
const (
	TaskScheduling         = "scheduling"
	TaskBlockDeviceMapping = "block_device_mapping"
	TaskNetworking         = "networking"
	TaskSpawning           = "spawning"
	TaskSnapshotPending    = "image_snapshot_pending"
	TaskSnapshot           = "image_snapshot"
	TaskImagePendingUpload = "image_pending_upload"
	TaskImageUploading     = "image_uploading"
	TaskBackup             = "image_backup"
	TaskUpdatingPassword   = "updating_password"
	TaskResizePrep         = "resize_prep"
	TaskResizeMigrating    = "resize_migrating"
	TaskResizeMigrated     = "resize_migrated"
	TaskResizeFinish       = "resize_finish"
	TaskResizeReverting    = "resize_reverting"
	TaskResizeConfirming   = "resize_confirming"
	TaskRebooting          = "rebooting"
	TaskRebootPending      = "reboot_pending"
	TaskRebootStarted      = "reboot_started"
	TaskRebootingHard      = "rebooting_hard"
	TaskRebootPendingHard  = "reboot_pending_hard"
	TaskRebootStartedHard  = "reboot_started_hard"
	TaskPausing            = "pausing"
	TaskUnpausing          = "unpausing"
	TaskSuspending         = "suspending"
	TaskResuming           = "resuming"
	TaskPoweringOff        = "powering-off"
	TaskPoweringOn         = "powering-on"
	TaskRescuing           = "rescuing"
	TaskUnrescuing         = "unrescuing"
	TaskRebuilding         = "rebuilding"
	TaskRebuildBDM         = "rebuild_block_device_mapping"
	TaskRebuildSpawning    = "rebuild_spawning"
	TaskMigrating          = "migrating"
	TaskDeleting           = "deleting"
	TaskSoftDeleting       = "soft-deleting"
	TaskRestoring          = "restoring"
	TaskShelving           = "shelving"
	TaskShelvingPending    = "shelving_image_pending_upload"
	TaskShelvingUploading  = "shelving_image_uploading"
	TaskShelvingOffloading = "shelving_offloading"
	TaskUnshelving         = "unshelving"
)

// Power states, with Nova's numbers.
const (
	PowerNone      = 0
	PowerRunning   = 1
	PowerPaused    = 3
	PowerShutdown  = 4
	PowerCrashed   = 6
	PowerSuspended = 7
)

// Server is one server record. TaskState is not stored: it is that of the open operation that holds the server.
type Server struct {
	ID            string
	Number        int64 // counts up; instance-%08x
	Name          string
	Description   *string
	Hostname      string
	ProjectID     string
	UserID        string
	ReservationID string
	LaunchIndex   int

	VMState    string
	TaskState  string // derived, see above
	PowerState int
	Progress   int

	Host, Node       string // "" while not on a host
	AvailabilityZone string // of the host, or the requested one
	PinnedZone       *string
	LaunchedOn       string
	ComputeID        string // resource provider of the host

	Flavor             Flavor            // as it was at create or the last resize
	OldFlavor          *Flavor           // while resized
	ImageID            string            // "" when volume-backed
	ImageProps         map[string]string // properties of the image, as kept with the server
	KernelID           string
	RamdiskID          string
	RootDevice         string
	KeyName            string
	KeyType, PublicKey string
	UserData           string // base64
	ConfigDrive        bool
	DiskConfig         string // AUTO, MANUAL
	AccessIPv4         string
	AccessIPv6         string
	Metadata           map[string]string
	System             map[string]string // internal facts that outlive operations
	Tags               []string
	Hints              map[string]any // scheduler hints as given
	GroupID            string
	TrustedCerts       []string

	VIFs           []network.VIF // cache of the server's interfaces
	SecurityGroups []string      // names asked for at create
	BlockDevices   []BlockDevice

	Locked       bool
	LockedBy     string // owner, admin
	LockedReason *string
	Fault        *Fault

	Created, Updated, Launched, Terminated, Deleted time.Time
}

// Fault is why a server is in ERROR.
type Fault struct {
	Code    int       `json:"code"`
	Message string    `json:"message"`
	Details string    `json:"details,omitempty"` // admins only
	Created time.Time `json:"created"`
	Host    string    `json:"host,omitempty"`
}

// Flavor is a flavor. The copy inside a server is what the server was made with.
type Flavor struct {
	ID          int64             `json:"-"` // row
	FlavorID    string            `json:"flavorid"`
	Name        string            `json:"name"`
	VCPUs       int               `json:"vcpus"`
	RAMMB       int64             `json:"ram"`
	RootGB      int64             `json:"disk"`
	EphemeralGB int64             `json:"ephemeral"`
	SwapMB      int64             `json:"swap"`
	RXTX        float64           `json:"rxtx"`
	Public      bool              `json:"public"`
	Disabled    bool              `json:"disabled"`
	Description *string           `json:"description,omitempty"`
	ExtraSpecs  map[string]string `json:"extra_specs,omitempty"`
}

// BlockDevice is one entry of a server's block device mapping.
type BlockDevice struct {
	ID                  string `json:"id"`
	SourceType          string `json:"source_type"`      // image, volume, snapshot, blank
	DestinationType     string `json:"destination_type"` // local, volume
	ImageID             string `json:"image_id,omitempty"`
	VolumeID            string `json:"volume_id,omitempty"`
	SnapshotID          string `json:"snapshot_id,omitempty"`
	SizeGB              int64  `json:"size_gb,omitempty"`
	BootIndex           *int   `json:"boot_index,omitempty"`
	Device              string `json:"device,omitempty"`
	DeleteOnTermination bool   `json:"delete_on_termination"`
	GuestFormat         string `json:"guest_format,omitempty"`
	DiskBus, DeviceType string
	Tag, VolumeType     string
	AttachmentID        string `json:"attachment_id,omitempty"`
}

// KeyPair is a key pair.
type KeyPair struct {
	ID                     int64
	Name, UserID, Type     string
	PublicKey, Fingerprint string
	Created                time.Time
	Generated              bool // made by us just now, not imported; not stored
}

// Host is a compute service with its node, as reported by its agent.
type Host struct {
	ServiceID      string // uuid of the service (os-services)
	ServiceNumber  int64
	Name           string // host
	Binary         string // nova-compute, nova-conductor, nova-scheduler
	Zone           string // availability zone of its aggregates, or the default
	Disabled       bool
	DisabledReason string
	ForcedDown     bool
	LastSeen       time.Time
	Version        int
	NodeID         string // uuid of the compute node = resource provider
	NodeNumber     int64
	Info           []byte // JSON of virt.HostInfo
	Created        time.Time
	FailedBuilds   int64 // builds that failed on the host since one succeeded
}

// Aggregate is a host aggregate.
type Aggregate struct {
	ID               int64
	UUID, Name       string
	Hosts            []string
	Metadata         map[string]string // availability_zone among them
	Created, Updated time.Time
}

// ServerGroup is a server group.
type ServerGroup struct {
	ID, Name, ProjectID, UserID, Policy string // affinity, anti-affinity, soft-affinity, soft-anti-affinity
	MaxPerHost                          int    // 0: no rule given
	Members                             []string
}

// Migration is a migration record.
type Migration struct {
	ID                                                 int64
	UUID, ServerID, Type, Status                       string
	SourceHost, SourceNode, DestHost, DestNode, DestIP string
	OldFlavorID, NewFlavorID                           int64
	ProjectID, UserID                                  string
	MemoryTotal, MemoryProcessed, MemoryRemaining      int64
	DiskTotal, DiskProcessed, DiskRemaining            int64
	Created, Updated                                   time.Time
}
