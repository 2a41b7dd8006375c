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
	procDomainGetVcpus         = proc{number: 20, name: "DomainGetVcpus"}
	procDomainLookupByUUID     = proc{number: 24, name: "DomainLookupByUUID"}
	procDomainResume           = proc{number: 28, name: "DomainResume", lane: slow}
	procDomainSuspend          = proc{number: 34, name: "DomainSuspend", lane: slow}
	procConnectGetHostname     = proc{number: 59, name: "ConnectGetHostname"}
	procConnectSupportsFeature = proc{number: 60, name: "ConnectSupportsFeature"}
	procAuthList               = proc{number: 66, name: "AuthList"}
	procConnectGetURI          = proc{number: 110, name: "ConnectGetURI"}

	procSecretDefineXML    = proc{number: 142, name: "SecretDefineXML"}
	procSecretLookupByUUID = proc{number: 141, name: "SecretLookupByUUID"}
	procSecretSetValue     = proc{number: 144, name: "SecretSetValue"}
	procSecretUndefine     = proc{number: 146, name: "SecretUndefine"}

	procDomainIsActive          = proc{number: 150, name: "DomainIsActive"}
	procDomainIsPersistent      = proc{number: 151, name: "DomainIsPersistent"}
	procConnectGetLibVersion    = proc{number: 157, name: "ConnectGetLibVersion"}
	procDomainMemoryStats       = proc{number: 159, name: "DomainMemoryStats"}
	procDomainAttachDevice      = proc{number: 160, name: "DomainAttachDeviceFlags", lane: slow}
	procDomainDetachDevice      = proc{number: 161, name: "DomainDetachDeviceFlags", lane: slow}
	procConnectBaselineCPU      = proc{number: 162, name: "ConnectBaselineCPU"}
	procDomainAbortJob          = proc{number: 164, name: "DomainAbortJob"}
	procDomainManagedSave       = proc{number: 182, name: "DomainManagedSave", lane: slow}
	procDomainHasManagedSave    = proc{number: 183, name: "DomainHasManagedSaveImage"}
	procDomainManagedSaveRemove = proc{number: 184, name: "DomainManagedSaveRemove"}
	procDomainCreate            = proc{number: 196, name: "DomainCreateWithFlags", lane: slow}
	procDomainInjectNMI         = proc{number: 210, name: "DomainInjectNMI"}
	procDomainGetState          = proc{number: 212, name: "DomainGetState"}
	procNodeGetMemoryStats      = proc{number: 228, name: "NodeGetMemoryStats"}
	procDomainUndefine          = proc{number: 231, name: "DomainUndefineFlags"}
	procDomainDestroy           = proc{number: 234, name: "DomainDestroyFlags", lane: slow}
	procDomainShutdown          = proc{number: 258, name: "DomainShutdownFlags", lane: slow}
	procDomainGetMetadata       = proc{number: 265, name: "DomainGetMetadata"}
	procConnectListAllDomains   = proc{number: 273, name: "ConnectListAllDomains"}
	procDomainGetJobStats       = proc{number: 298, name: "DomainGetJobStats"}
	procMigratePerform3Params   = proc{number: 305, name: "DomainMigratePerform3Params", lane: slow}
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
	procQEMUAgentCommand        = proc{number: 3, name: "QEMUAgentCommand", lane: slow, qemu: true}
)

// Flags of several procedures.
const (
	AffectLive   uint32 = 1
	AffectConfig uint32 = 2

	UndefineManagedSave         uint32 = 1
	UndefineSnapshotsMetadata   uint32 = 2
	UndefineNVRAM               uint32 = 4
	UndefineCheckpointsMetadata uint32 = 16

	ShutdownACPI uint32 = 1

	XMLSecure     uint32 = 1
	XMLInactive   uint32 = 2
	XMLMigratable uint32 = 8

	ListActive   uint32 = 1
	ListInactive uint32 = 2

	MigrateLive           uint32 = 1
	MigratePeer2Peer      uint32 = 2
	MigratePersistDest    uint32 = 8
	MigrateUndefineSource uint32 = 16
	MigrateNonSharedInc   uint32 = 128
	MigrateUnsafe         uint32 = 512
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

// PausedCrashed is the reason of StatePaused that callers tell apart.
const PausedCrashed = 10

// Types of a running job (DomainJobStats).
const (
	JobNone = 0
	JobDone = 3

	JobStatsCompleted uint32 = 1

	// Operations that a job's "operation" parameter tells.
	OperationMigrationOut = 5
	OperationBackup       = 9
)
