package compute

import "encoding/json"

// The inputs of operations: what an API handler accepts and a flow carries out. The operation kinds are the constants beside them.

// Operation kinds. Each is one file in compute/flow.
const (
	OpCreate        = "create"
	OpDelete        = "delete"
	OpSoftDelete    = "soft-delete"
	OpRestore       = "restore"
	OpStart         = "start"
	OpStop          = "stop"
	OpReboot        = "reboot"
	OpRebuild       = "rebuild"
	OpResize        = "resize" // also cold migration
	OpConfirmResize = "confirm-resize"
	OpRevertResize  = "revert-resize"
	OpPause         = "pause"
	OpUnpause       = "unpause"
	OpSuspend       = "suspend"
	OpResume        = "resume"
	OpRescue        = "rescue"
	OpUnrescue      = "unrescue"
	OpShelve        = "shelve"
	OpShelveOffload = "shelve-offload"
	OpUnshelve      = "unshelve"
	OpSnapshot      = "snapshot"
	OpBackup        = "backup"
	OpPassword      = "password"
	OpCrashDump     = "crash-dump"
	OpLiveMigrate   = "live-migrate"
	OpEvacuate      = "evacuate"
	OpAttachNIC     = "attach-interface"
	OpDetachNIC     = "detach-interface"
	OpAttachVolume  = "attach-volume"
	OpDetachVolume  = "detach-volume"
)

// NICRequest is one entry of "networks" at create, resolved by the API: a network or an existing port.
type NICRequest struct {
	NetworkID string `json:"network_id,omitempty"`
	PortID    string `json:"port_id,omitempty"`
	FixedIP   string `json:"fixed_ip,omitempty"`
	Tag       string `json:"tag,omitempty"`
	VNICType  string `json:"vnic_type,omitempty"` // of an existing port, when it is not normal
	// Device is what such a port asks of the host's PCI devices; nil: nothing.
	Device *PortDevice `json:"device,omitempty"`
}

// CreateInput of OpCreate. The server row holds the rest.
type CreateInput struct {
	NICs           []NICRequest      `json:"nics"`
	SecurityGroups []string          `json:"security_groups,omitempty"` // ids
	Zone           string            `json:"zone,omitempty"`
	ForceHost      string            `json:"force_host,omitempty"` // az:host[:node]: filters are passed over
	ForceNode      string            `json:"force_node,omitempty"`
	Host           string            `json:"host,omitempty"` // 2.74: checked by the scheduler
	Node           string            `json:"node,omitempty"`
	AdminPass      string            `json:"admin_pass,omitempty"`
	Files          map[string][]byte `json:"files,omitempty"` // personality
	TaggedDisks    map[string]string `json:"tagged_disks,omitempty"`
}

// RebootInput of OpReboot.
type RebootInput struct {
	Hard bool `json:"hard"`
}

// RebuildInput of OpRebuild. ImageID and ImageProps are of the new image; the server row still has the old ones until the operation ends.
type RebuildInput struct {
	ImageID           string            `json:"image_id"`
	ImageProps        map[string]string `json:"image_props,omitempty"`
	AdminPass         string            `json:"admin_pass,omitempty"`
	PreserveEphemeral bool              `json:"preserve_ephemeral,omitempty"`
	Files             map[string][]byte `json:"files,omitempty"`
	NewImage          bool              `json:"new_image"`
}

// ResizeInput of OpResize. A cold migration keeps the flavor.
type ResizeInput struct {
	Flavor   Flavor `json:"flavor"`
	Migrate  bool   `json:"migrate,omitempty"`
	Host     string `json:"host,omitempty"`
	AutoDisk string `json:"auto_disk,omitempty"` // new OS-DCF:diskConfig, "" unchanged
}

type resizeFields ResizeInput

// resizeDoc is a ResizeInput in its operation's row: the flavor's row number, which flavors leave out of their documents, goes along.
type resizeDoc struct {
	resizeFields
	FlavorRow int64 `json:"flavor_row,omitempty"`
}

// MarshalJSON writes the input with the row number of its flavor.
func (in ResizeInput) MarshalJSON() ([]byte, error) {
	return json.Marshal(resizeDoc{resizeFields(in), in.Flavor.ID})
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (in *ResizeInput) UnmarshalJSON(data []byte) error {
	var d resizeDoc
	if err := json.Unmarshal(data, &d); err != nil {
		return err
	}
	*in = ResizeInput(d.resizeFields)
	in.Flavor.ID = d.FlavorRow
	return nil
}

// SnapshotInput of OpSnapshot and OpBackup. ImageID is that of the queued image which the API made.
type SnapshotInput struct {
	ImageID    string `json:"image_id"`
	Name       string `json:"name"`
	BackupType string `json:"backup_type,omitempty"`
	Rotation   int    `json:"rotation,omitempty"`
}

// RescueInput of OpRescue.
type RescueInput struct {
	ImageID    string            `json:"image_id"`
	ImageProps map[string]string `json:"image_props,omitempty"`
	AdminPass  string            `json:"admin_pass,omitempty"`
}

// ShelveInput of OpShelve.
type ShelveInput struct {
	ImageID string `json:"image_id"`
	Offload bool   `json:"offload"` // offload at once
}

// UnshelveInput of OpUnshelve. Zone nil: not given; pointer to "": unpin.
type UnshelveInput struct {
	Zone  *string `json:"zone,omitempty"`
	Unpin bool    `json:"unpin,omitempty"`
	Host  string  `json:"host,omitempty"`
}

// PasswordInput of OpPassword.
type PasswordInput struct {
	Password string `json:"password"`
}

// LiveMigrateInput of OpLiveMigrate. Block nil: auto.
type LiveMigrateInput struct {
	Host       string `json:"host,omitempty"`
	Block      *bool  `json:"block,omitempty"`
	OverCommit bool   `json:"over_commit,omitempty"`
	Force      bool   `json:"force,omitempty"`
}

// EvacuateInput of OpEvacuate.
type EvacuateInput struct {
	Host      string `json:"host,omitempty"`
	AdminPass string `json:"admin_pass,omitempty"`
	Force     bool   `json:"force,omitempty"`
	Shared    bool   `json:"shared,omitempty"`
	Stop      bool   `json:"stop,omitempty"` // from 2.95: ends stopped
}

// NICInput of OpAttachNIC and OpDetachNIC.
type NICInput struct {
	NICRequest
	NewPortID string `json:"new_port_id,omitempty"` // id of the port to make, derived at acceptance
}
