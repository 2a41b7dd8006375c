package rpc

// proc is a procedure of the protocol.
type proc struct {
	number int32
	name   string
	lane   lane
	qemu   bool // of the QEMU program
}

func (p proc) program() uint32 {
	if p.qemu {
		return programQEMU
	}
	return programRemote
}

// The procedures. Numbers are those of remote_protocol.x and qemu_protocol.x.
var (
	procConnectOpen            = proc{number: 1, name: "ConnectOpen"}
	procConnectClose           = proc{number: 2, name: "ConnectClose"}
	procConnectGetType         = proc{number: 3, name: "ConnectGetType"}
	procConnectGetVersion      = proc{number: 4, name: "ConnectGetVersion"}
	procNodeGetInfo            = proc{number: 6, name: "NodeGetInfo"}
	procConnectGetCapabilities = proc{number: 7, name: "ConnectGetCapabilities"}
	procDomainGetXMLDesc       = proc{number: 14, name: "DomainGetXMLDesc"}
	procDomainGetInfo          = proc{number: 16, name: "DomainGetInfo"}
	procDomainGetVcpus         = proc{number: 20, name: "DomainGetVcpus"}
	procDomainLookupByName     = proc{number: 23, name: "DomainLookupByName"}
	procDomainLookupByUUID     = proc{number: 24, name: "DomainLookupByUUID"}
	procDomainReboot           = proc{number: 27, name: "DomainReboot"}
	procDomainResume           = proc{number: 28, name: "DomainResume", lane: slow}
	procDomainSetAutostart     = proc{number: 29, name: "DomainSetAutostart"}
	procDomainSuspend          = proc{number: 34, name: "DomainSuspend", lane: slow}
	procConnectGetHostname     = proc{number: 59, name: "ConnectGetHostname"}
	procConnectSupportsFeature = proc{number: 60, name: "ConnectSupportsFeature"}
	procDomainBlockStats       = proc{number: 64, name: "DomainBlockStats"}
	procDomainInterfaceStats   = proc{number: 65, name: "DomainInterfaceStats"}
	procAuthList               = proc{number: 66, name: "AuthList"}
	procNodeGetFreeMemory      = proc{number: 102, name: "NodeGetFreeMemory"}
	procConnectGetURI          = proc{number: 110, name: "ConnectGetURI"}

	procSecretDefineXML     = proc{number: 142, name: "SecretDefineXML"}
	procSecretLookupByUUID  = proc{number: 141, name: "SecretLookupByUUID"}
	procSecretSetValue      = proc{number: 144, name: "SecretSetValue"}
	procSecretUndefine      = proc{number: 146, name: "SecretUndefine"}
	procSecretLookupByUsage = proc{number: 147, name: "SecretLookupByUsage"}

	procDomainIsActive          = proc{number: 150, name: "DomainIsActive"}
	procDomainIsPersistent      = proc{number: 151, name: "DomainIsPersistent"}
	procConnectGetLibVersion    = proc{number: 157, name: "ConnectGetLibVersion"}
	procDomainMemoryStats       = proc{number: 159, name: "DomainMemoryStats"}
	procDomainAttachDevice      = proc{number: 160, name: "DomainAttachDeviceFlags", lane: slow}
	procDomainDetachDevice      = proc{number: 161, name: "DomainDetachDeviceFlags", lane: slow}
	procConnectBaselineCPU      = proc{number: 162, name: "ConnectBaselineCPU"}
	procDomainGetJobInfo        = proc{number: 163, name: "DomainGetJobInfo"}
	procDomainAbortJob          = proc{number: 164, name: "DomainAbortJob"}
	procMigrateSetMaxDowntime   = proc{number: 166, name: "DomainMigrateSetMaxDowntime"}
	procDomainUpdateDevice      = proc{number: 173, name: "DomainUpdateDeviceFlags", lane: slow}
	procDomainManagedSave       = proc{number: 182, name: "DomainManagedSave", lane: slow}
	procDomainHasManagedSave    = proc{number: 183, name: "DomainHasManagedSaveImage"}
	procDomainManagedSaveRemove = proc{number: 184, name: "DomainManagedSaveRemove"}
	procDomainSnapshotCreateXML = proc{number: 185, name: "DomainSnapshotCreateXML", lane: slow}
	procDomainGetBlockInfo      = proc{number: 194, name: "DomainGetBlockInfo"}
	procDomainCreate            = proc{number: 196, name: "DomainCreateWithFlags", lane: slow}
	procMigrateSetMaxSpeed      = proc{number: 207, name: "DomainMigrateSetMaxSpeed"}
	procDomainInjectNMI         = proc{number: 210, name: "DomainInjectNMI"}
	procDomainGetState          = proc{number: 212, name: "DomainGetState"}
	procNodeGetCPUStats         = proc{number: 227, name: "NodeGetCPUStats"}
	procNodeGetMemoryStats      = proc{number: 228, name: "NodeGetMemoryStats"}
	procDomainUndefine          = proc{number: 231, name: "DomainUndefineFlags"}
	procDomainDestroy           = proc{number: 234, name: "DomainDestroyFlags", lane: slow}
	procDomainBlockJobAbort     = proc{number: 237, name: "DomainBlockJobAbort", lane: slow}
	procDomainGetBlockJobInfo   = proc{number: 238, name: "DomainGetBlockJobInfo"}
	procDomainReset             = proc{number: 245, name: "DomainReset"}
	procDomainBlockResize       = proc{number: 251, name: "DomainBlockResize", lane: slow}
	procDomainShutdown          = proc{number: 258, name: "DomainShutdownFlags", lane: slow}
	procDomainSetMetadata       = proc{number: 264, name: "DomainSetMetadata"}
	procDomainGetMetadata       = proc{number: 265, name: "DomainGetMetadata"}
	procConnectListAllDomains   = proc{number: 273, name: "ConnectListAllDomains"}
	procDomainBlockCommit       = proc{number: 290, name: "DomainBlockCommit", lane: slow}
	procNodeGetCPUMap           = proc{number: 293, name: "NodeGetCPUMap"}
	procDomainGetJobStats       = proc{number: 298, name: "DomainGetJobStats"}
	procMigratePerform3Params   = proc{number: 305, name: "DomainMigratePerform3Params", lane: slow}
	procDomainSetStatsPeriod    = proc{number: 308, name: "DomainSetMemoryStatsPeriod"}
	procConnectGetCPUModelNames = proc{number: 312, name: "ConnectGetCPUModelNames"}
	procEventRegister           = proc{number: 316, name: "ConnectDomainEventCallbackRegisterAny"}
	procDomainFSFreeze          = proc{number: 335, name: "DomainFSFreeze", lane: slow}
	procDomainFSThaw            = proc{number: 336, name: "DomainFSThaw", lane: slow}
	procDomainCapabilities      = proc{number: 342, name: "ConnectGetDomainCapabilities", lane: slow}
	procConnectGetAllStats      = proc{number: 344, name: "ConnectGetAllDomainStats"}
	procDomainDefineXML         = proc{number: 350, name: "DomainDefineXMLFlags"}
	procDomainSetUserPassword   = proc{number: 357, name: "DomainSetUserPassword", lane: slow}
	procMigrateStartPostCopy    = proc{number: 364, name: "DomainMigrateStartPostCopy"}
	procManagedSaveGetXML       = proc{number: 388, name: "DomainManagedSaveGetXMLDesc"}
	procManagedSaveDefineXML    = proc{number: 389, name: "DomainManagedSaveDefineXML"}
	procDomainBackupBegin       = proc{number: 421, name: "DomainBackupBegin", lane: slow}
	procDomainGetGuestInfo      = proc{number: 418, name: "DomainGetGuestInfo", lane: slow}
	procAgentSetResponseTimeout = proc{number: 420, name: "DomainAgentSetResponseTimeout"}
	procQEMUMonitorCommand      = proc{number: 1, name: "QEMUMonitorCommand", lane: slow, qemu: true}
	procQEMUAgentCommand        = proc{number: 3, name: "QEMUAgentCommand", lane: slow, qemu: true}
)

// Flags of several procedures.
const (
	AffectLive   uint32 = 1
	AffectConfig uint32 = 2

	DefineValidate uint32 = 1

	StartPaused      uint32 = 1
	StartBypassCache uint32 = 4
	StartForceBoot   uint32 = 8

	DestroyGraceful uint32 = 1

	UndefineManagedSave         uint32 = 1
	UndefineSnapshotsMetadata   uint32 = 2
	UndefineNVRAM               uint32 = 4
	UndefineCheckpointsMetadata uint32 = 16

	ShutdownACPI  uint32 = 1
	ShutdownAgent uint32 = 2

	XMLSecure     uint32 = 1
	XMLInactive   uint32 = 2
	XMLMigratable uint32 = 8

	ListActive   uint32 = 1
	ListInactive uint32 = 2

	SnapshotNoMetadata uint32 = 4
	SnapshotDiskOnly   uint32 = 16
	SnapshotReuse      uint32 = 32
	SnapshotQuiesce    uint32 = 64
	SnapshotAtomic     uint32 = 128

	CommitShallow uint32 = 1
	CommitActive  uint32 = 4

	BlockJobPivot uint32 = 2

	ResizeBytes uint32 = 1

	MigrateLive           uint32 = 1
	MigratePeer2Peer      uint32 = 2
	MigrateTunnelled      uint32 = 4
	MigratePersistDest    uint32 = 8
	MigrateUndefineSource uint32 = 16
	MigrateNonSharedDisk  uint32 = 64
	MigrateNonSharedInc   uint32 = 128
	MigrateUnsafe         uint32 = 512
	MigrateAbortOnError   uint32 = 4096
	MigrateAutoConverge   uint32 = 8192
	MigratePostCopy       uint32 = 32768
)

// The states of a domain (virDomainState).
const (
	StateNone = iota
	StateRunning
	StateBlocked
	StatePaused
	StateShutdown // shutting down
	StateShutoff
	StateCrashed
	StatePMSuspended
)

// Reasons of StatePaused that callers tell apart.
const (
	PausedUser      = 1
	PausedMigration = 2
	PausedSave      = 3
	PausedIOError   = 5
	PausedCrashed   = 10
	PausedStarting  = 11
	PausedPostcopy  = 12
)

// The types of a block job and the status words of its events.
const (
	BlockJobCommit       = 3
	BlockJobActiveCommit = 4

	BlockJobCompleted = 0
	BlockJobFailed    = 1
	BlockJobCanceled  = 2
	BlockJobReady     = 3
)

// Types of a running job (DomainJobStats) and of secrets.
const (
	JobNone      = 0
	JobDone      = 3
	JobFailed    = 4
	JobCancelled = 5

	JobStatsCompleted uint32 = 1

	// Operations that a job's "operation" parameter tells.
	OperationMigrationOut = 5
	OperationBackup       = 9

	SecretVolume = 1
	SecretCeph   = 2
	SecretISCSI  = 3
)
