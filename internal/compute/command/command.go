// Package command is the protocol between conductors and agents: what is asked of a host, how it is fenced, and how the answer comes back.
//
// A command carries operation, step, epoch and the server it is about. The agent writes it to its journal before acting, acts once, and keeps the
// result until the operation has ended. The same (operation, step, attempt) asked again, with the same or a higher epoch, gives the kept
// result or waits for the one that is running; an epoch lower than one already seen for that server is refused (fault.Conflict, code
// "stale-epoch"). So a conductor whose call timed out, or that took over from a dead one, simply asks again.
package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"kilonova/internal/bus"
	"kilonova/internal/compute/virt"
	"kilonova/internal/fault"
	"kilonova/internal/network"
)

// Command is one thing asked of a host.
type Command struct {
	Operation string          `json:"operation"`
	Step      string          `json:"step"`    // unique within the operation; undo steps carry the suffix "/undo"
	Attempt   int             `json:"attempt"` // a new attempt after an undo runs again; a repeat of the same attempt does not
	Epoch     int64           `json:"epoch"`
	Server    string          `json:"server"`
	RequestID string          `json:"request_id"`
	Verb      Verb            `json:"verb"`
	Args      json.RawMessage `json:"args,omitempty"`
}

// Verb names what to do.
type Verb string

// The verbs and their argument types. Verbs marked with "query" are not journalled and carry no operation.
const (
	Spawn           Verb = "spawn"            // SpawnArgs -> GuestResult
	Destroy         Verb = "destroy"          // DestroyArgs; removes the guest, its files and everything the agent keeps of it
	PowerOn         Verb = "power-on"         // SpecArgs -> GuestResult
	PowerOff        Verb = "power-off"        // PowerOffArgs -> GuestResult
	Reboot          Verb = "reboot"           // RebootArgs -> GuestResult
	Pause           Verb = "pause"            // none -> GuestResult
	Unpause         Verb = "unpause"          // none -> GuestResult
	Suspend         Verb = "suspend"          // none -> GuestResult
	Resume          Verb = "resume"           // SpecArgs -> GuestResult
	Rescue          Verb = "rescue"           // RescueArgs -> GuestResult
	Unrescue        Verb = "unrescue"         // SpecArgs -> GuestResult
	Rebuild         Verb = "rebuild"          // SpawnArgs -> GuestResult: destroys the disks and spawns again
	Snapshot        Verb = "snapshot"         // SnapshotArgs -> SnapshotResult: makes and uploads
	PrepareResize   Verb = "prepare-resize"   // PowerOffArgs -> GuestResult
	FinishResize    Verb = "finish-resize"    // SpecArgs -> GuestResult
	RevertResize    Verb = "revert-resize"    // SpecArgs -> GuestResult
	ConfirmResize   Verb = "confirm-resize"   // none
	SendDisks       Verb = "send-disks"       // SendDisksArgs: cold migration, source to destination over the bus's hosts
	AttachInterface Verb = "attach-interface" // InterfaceArgs -> GuestResult
	DetachInterface Verb = "detach-interface" // InterfaceArgs -> GuestResult
	AttachVolume    Verb = "attach-volume"    // VolumeArgs
	DetachVolume    Verb = "detach-volume"    // VolumeArgs
	SetPassword     Verb = "set-password"     // PasswordArgs
	CrashDump       Verb = "crash-dump"       // none
	PreLiveMigrate  Verb = "pre-live-migrate" // LiveMigrateArgs -> map[string]string (target)
	LiveMigrate     Verb = "live-migrate"     // LiveMigrateArgs
	RollbackLive    Verb = "rollback-live"    // LiveMigrateArgs
	AdoptLive       Verb = "adopt-live"       // SpecArgs -> GuestResult: after a live migration the destination keeps the spec
	ForgetLive      Verb = "forget-live"      // none: the source drops what it keeps, the guest is gone

	QueryGuest       Verb = "guest"        // query: none -> virt.GuestState
	QueryConsoleLog  Verb = "console-log"  // query: ConsoleLogArgs -> ConsoleLogResult
	QueryConsole     Verb = "console"      // query: ConsoleArgs -> virt.ConsoleEndpoint
	QueryDiagnostics Verb = "diagnostics"  // query: none -> virt.Diagnostics
	QueryUptime      Verb = "uptime"       // query: none -> UptimeResult
	QueryGuests      Verb = "guests"       // query: none -> []virt.GuestState, every guest of the host
	AbortLive        Verb = "abort-live"   // query (it acts at once and is safe to repeat): none
	ForceLive        Verb = "force-live"   // query: none
	CacheImages      Verb = "cache-images" // query: CacheImagesArgs -> CacheImagesResult, once all are there or failed
	SyncNetwork      Verb = "sync-network" // query: none; apply the host's data plane now
)

// The arguments.
type (
	// SpecArgs carries the guest's spec.
	SpecArgs struct {
		Spec virt.Spec `json:"spec"`
	}
	// SpawnArgs asks for a guest. Image "" means volume-backed. Metadata is the input of package metadata for the config drive and the metadata
	// service; the agent keeps it beside the guest.
	SpawnArgs struct {
		Spec        virt.Spec       `json:"spec"`
		ImageID     string          `json:"image_id,omitempty"`
		ConfigDrive bool            `json:"config_drive,omitempty"`
		Metadata    json.RawMessage `json:"metadata,omitempty"`
		AdminPass   string          `json:"admin_pass,omitempty"`
	}
	// RescueArgs is SpecArgs with the rescue image.
	RescueArgs struct {
		Spec      virt.Spec         `json:"spec"`
		ImageID   string            `json:"image_id"`
		Props     map[string]string `json:"props,omitempty"`
		AdminPass string            `json:"admin_pass,omitempty"`
	}
	// DestroyArgs: KeepDisks leaves the disks (evacuated hosts with shared storage, shelving of volume-backed servers).
	DestroyArgs struct {
		KeepDisks bool `json:"keep_disks,omitempty"`
	}
	// PowerOffArgs: Grace is how long the guest may take to shut down by itself.
	PowerOffArgs struct {
		Grace time.Duration `json:"grace"`
	}
	// RebootArgs of Reboot.
	RebootArgs struct {
		Spec  virt.Spec     `json:"spec"`
		Hard  bool          `json:"hard"`
		Grace time.Duration `json:"grace"`
	}
	// SnapshotArgs: the agent makes the file and uploads it into the queued image.
	SnapshotArgs struct {
		ImageID         string `json:"image_id"`
		Format          string `json:"format,omitempty"`
		Quiesce         bool   `json:"quiesce,omitempty"`
		QuiesceRequired bool   `json:"quiesce_required,omitempty"`
	}
	// InterfaceArgs of AttachInterface and DetachInterface; Spec is the spec after the change.
	InterfaceArgs struct {
		Spec virt.Spec   `json:"spec"`
		VIF  network.VIF `json:"vif"`
	}
	// VolumeArgs of AttachVolume and DetachVolume.
	VolumeArgs struct {
		Spec virt.Spec `json:"spec"`
		Disk virt.Disk `json:"disk"`
	}
	// PasswordArgs of SetPassword.
	PasswordArgs struct {
		User     string `json:"user,omitempty"` // "": the image's os_admin_user or the driver's default
		Password string `json:"password"`
	}
	// SendDisksArgs names the destination.
	SendDisksArgs struct {
		Host string `json:"host"`
	}
	// LiveMigrateArgs of the live migration verbs.
	LiveMigrateArgs struct {
		Spec      virt.Spec         `json:"spec"`
		Block     bool              `json:"block"`
		Auto      bool              `json:"auto,omitempty"` // the destination finds out whether disks are to be copied, and says so in its answer: see SharedDisks
		Target    map[string]string `json:"target,omitempty"`
		Migration string            `json:"migration"` // uuid of the migration record, for progress reports
	}
	// ConsoleLogArgs: Lines 0 gives all that is kept.
	ConsoleLogArgs struct {
		Lines int `json:"lines"`
	}
	// ConsoleArgs: Kind is vnc, spice or serial.
	ConsoleArgs struct {
		Kind string `json:"kind"`
	}
	// CacheImagesArgs asks for images to be fetched into the cache.
	CacheImagesArgs struct {
		ImageIDs []string `json:"image_ids"`
	}
)

// The results.
type (
	// CacheImagesResult names the images that could not be fetched.
	CacheImagesResult struct {
		Failed []string `json:"failed,omitempty"`
	}
	// GuestResult is the power state after the command.
	GuestResult struct {
		Power virt.PowerState `json:"power"`
	}
	// SnapshotResult of Snapshot.
	SnapshotResult struct {
		Size     int64 `json:"size"`
		Quiesced bool  `json:"quiesced"`
	}
	// ConsoleLogResult of QueryConsoleLog.
	ConsoleLogResult struct {
		Output string `json:"output"`
	}
	// UptimeResult of QueryUptime.
	UptimeResult struct {
		Uptime string `json:"uptime"`
	}
)

// Reply is the agent's answer.
type Reply struct {
	Done bool            `json:"done"` // false: accepted and still running; ask again
	Data json.RawMessage `json:"data,omitempty"`
	Err  *Failure        `json:"err,omitempty"`
}

// Failure is an error that crosses the bus.
type Failure struct {
	Kind  fault.Kind `json:"kind"`
	Code  string     `json:"code,omitempty"`
	Text  string     `json:"text"`
	Cause string     `json:"cause,omitempty"` // private: for the journal and the log
	Away  bool       `json:"away,omitempty"`  // fault.IsAway
}

// Error makes the fault again.
func (f *Failure) Error() error {
	e := fault.New(f.Kind, "%s", f.Text).WithCode(f.Code)
	if f.Cause != "" {
		e.Cause = errors.New(f.Cause)
	}
	if f.Away {
		e.Cause = errors.Join(fault.ErrAway, e.Cause)
	}
	return e
}

// FailureOf makes a Failure of any error.
func FailureOf(err error) *Failure {
	f := &Failure{Kind: fault.KindOf(err), Text: fault.PublicText(err), Away: fault.IsAway(err)}
	var e *fault.Error
	if errors.As(err, &e) {
		f.Code, f.Text = e.Code, e.Public()
	}
	f.Cause = err.Error()
	return f
}

// Subject is where a host's agent takes commands.
func Subject(host string) string { return "agent." + bus.Token(host) + ".do" }

// Wait is how long an agent holds a call for a command that is still running before it answers Done false. It bounds, too, how long the death of an agent
// in the middle of a command goes unnoticed: the caller asks again when even that answer does not come.
const Wait = 5 * time.Second

// patience is how long an answer is waited for before the host is asked again: questions are not held by the agent, but may take their time.
func (c *Command) patience() time.Duration {
	if c.Operation == "" {
		return 30 * time.Second
	}
	return Wait + 3*time.Second
}

// Client sends commands to agents.
type Client struct {
	Bus bus.Bus
}

// Do asks host for c and waits until it is done, asking again as often as needed until ctx ends. It fails with fault.Unavailable while nobody serves
// the host, and with the agent's own fault otherwise. out may be nil.
func (c *Client) Do(ctx context.Context, host string, cmd Command, args, out any) error {
	if args != nil {
		b, err := json.Marshal(args)
		if err != nil {
			return fmt.Errorf("command %s: %w", cmd.Verb, err)
		}
		cmd.Args = b
	}
	msg, err := json.Marshal(cmd)
	if err != nil {
		return fmt.Errorf("command %s: %w", cmd.Verb, err)
	}
	for {
		one, cancel := context.WithTimeout(ctx, cmd.patience())
		raw, err := c.Bus.Call(one, Subject(host), msg)
		cancel()
		switch {
		case errors.Is(err, bus.ErrNoResponder):
			return fault.Wrap(err, fault.Unavailable, "The compute service on host %s does not answer.", host)
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && errors.Is(err, context.DeadlineExceeded):
			continue // the outcome is unknown: ask again, the agent knows
		case err != nil:
			return err
		}
		var r Reply
		if err := json.Unmarshal(raw, &r); err != nil {
			return fmt.Errorf("command %s: answer of %s: %w", cmd.Verb, host, err)
		}
		if r.Err != nil {
			return r.Err.Error()
		}
		if !r.Done {
			continue
		}
		if out != nil && len(r.Data) > 0 {
			if err := json.Unmarshal(r.Data, out); err != nil {
				return fmt.Errorf("command %s: answer of %s: %w", cmd.Verb, host, err)
			}
		}
		return nil
	}
}

// SharedDisks is the key in a destination's answer to PreLiveMigrate that tells that it sees the guest's disks, which are then not copied.
const SharedDisks = "shared_disks"

// What agents ask of conductors, over the bus. Each is a Call on the subject; conductors serve them with the queue "conductor".
const (
	// RegisterSubject: HostReport -> RegisterReply. At start, after each reconnection and every report interval (it is the heartbeat).
	RegisterSubject = "conductor.register"
	// ReportsSubject: HostReports -> ReportsReply. What RegisterSubject is, for many hosts of one process.
	ReportsSubject = "conductor.reports"
	// MineManySubject: []MineRequest -> []MineReply, in the same order. What MineSubject is, for many hosts of one process.
	MineManySubject = "conductor.mine-many"
	// MineSubject: MineRequest -> MineReply. "What is mine": at start and on each reconnection, and every few minutes.
	MineSubject = "conductor.mine"
	// GuestSubject: GuestReport -> nothing. A guest changed its power state without being asked to.
	GuestSubject = "conductor.guest"
	// HostNetworkSubject: host name as text -> network.HostState.
	HostNetworkSubject = "conductor.network"
	// TunnelSubject: HostTunnel -> nothing. Once, at an agent's start.
	TunnelSubject = "conductor.tunnel"
	// PortStatusSubject: PortStatus -> nothing.
	PortStatusSubject = "conductor.port-status"
	// MigrationSubject: MigrationReport -> nothing.
	MigrationSubject = "conductor.migration"
	// MetadataSubject: server id as text -> the metadata input (JSON) of the server as it is now.
	MetadataSubject = "conductor.metadata"
	// FinishedSubject: Finished -> nothing. An agent's word that a command is done, sent until it is acknowledged; it wakes the operation.
	FinishedSubject = "conductor.finished"
)

// HostTunnel tells how a host is joined to others: where its tunnels end (empty for a host that has none), and to which physical networks it is joined.
type HostTunnel struct {
	Host     string   `json:"host"`
	Address  string   `json:"address"`
	Physical []string `json:"physical,omitempty"`
}

// HostReport is an agent's report.
type HostReport struct {
	Host   string         `json:"host"`
	NodeID string         `json:"node_id"`          // uuid that the agent keeps in its state directory
	Start  string         `json:"start"`            // random per process start: two agents that claim one host are told apart
	Info   *virt.HostInfo `json:"info,omitempty"`   // absent in a bare heartbeat
	Traits []string       `json:"traits,omitempty"` // all traits the agent manages, abilities included
	// Trouble says why the hypervisor could not be asked for Info; "" when it was not to be asked, or answered.
	Trouble string `json:"trouble,omitempty"`
}

// HostReports are the reports of many hosts for which one process speaks.
type HostReports struct {
	Start string       `json:"start"`
	Kinds []HostKind   `json:"kinds,omitempty"` // hosts of a kind are described once
	Hosts []KindReport `json:"hosts"`
}

// HostKind describes hosts that differ in their names only.
type HostKind struct {
	Info   virt.HostInfo `json:"info"`
	Traits []string      `json:"traits"`
}

// KindReport is HostReport of one of many hosts.
type KindReport struct {
	Host     string `json:"host"`
	NodeID   string `json:"node_id"`
	Hostname string `json:"hostname,omitempty"` // takes the place of the kind's; "": the host's name
	Kind     int    `json:"kind,omitempty"`     // counted from 1; 0: a bare heartbeat
	Trouble  string `json:"trouble,omitempty"`
}

// Each gives the reports one by one. It fails when one names a kind that is not there.
func (r *HostReports) Each() ([]HostReport, error) {
	out := make([]HostReport, len(r.Hosts))
	for i, h := range r.Hosts {
		out[i] = HostReport{Host: h.Host, NodeID: h.NodeID, Start: r.Start, Trouble: h.Trouble}
		if h.Kind == 0 {
			continue
		}
		if h.Kind < 0 || h.Kind > len(r.Kinds) {
			return nil, fault.New(fault.Invalid, "The report of host %s names kind %d of %d.", h.Host, h.Kind, len(r.Kinds))
		}
		kind := r.Kinds[h.Kind-1]
		if kind.Info.Hostname = h.Hostname; h.Hostname == "" {
			kind.Info.Hostname = h.Host
		}
		kind.Info.PCI = slices.Clip(kind.Info.PCI) // who adds to one host's adds to no other's
		out[i].Info, out[i].Traits = &kind.Info, slices.Clip(kind.Traits)
	}
	return out, nil
}

// ReportsReply tells the hosts of which the conductor has more to say than that it heard them.
type ReportsReply struct {
	Refused map[string]string   `json:"refused,omitempty"` // another live agent has the name
	Failed  map[string]*Failure `json:"failed,omitempty"`
}

// RegisterReply tells the agent what the cloud thinks of it.
type RegisterReply struct {
	Disabled bool   `json:"disabled"`
	Refused  string `json:"refused,omitempty"` // another live agent has the name
}

// MineRequest lists what the agent sees.
type MineRequest struct {
	Host   string            `json:"host"`
	Guests []virt.GuestState `json:"guests"`
	Epochs map[string]int64  `json:"epochs,omitempty"`
	// Resume says that the agent has just come to the host and starts those guests again that are shut down and run on record; Starting, which it is
	// starting still. That they are shut down is not taken as news.
	Resume   bool     `json:"resume,omitempty"`
	Starting []string `json:"starting,omitempty"`
}

// MineReply says what becomes of each guest. Guests that it does not name are unknown to the cloud: the agent leaves them alone and reports them.
type MineReply struct {
	Servers []MineServer `json:"servers"`
}

// MineServer is one server that the cloud knows in connection with the host.
type MineServer struct {
	ID    string `json:"id"`
	Epoch int64  `json:"epoch"`
	// Verdict: keep (it lives here), destroy (deleted or evacuated from here, and no operation touches it: with Epoch as fence), busy (an operation is at it).
	Verdict string          `json:"verdict"`
	Want    virt.PowerState `json:"want"` // the power state on record
}

// GuestReport is an unasked change.
type GuestReport struct {
	Host  string          `json:"host"`
	ID    string          `json:"id"`
	Power virt.PowerState `json:"power"`
}

// PortStatus of one port.
type PortStatus struct {
	PortID string `json:"port_id"`
	Status string `json:"status"`
}

// MigrationReport is the progress of a live migration.
type MigrationReport struct {
	Migration string                 `json:"migration"`
	Progress  virt.MigrationProgress `json:"progress"`
}

// Finished tells that a command ended.
type Finished struct {
	Host      string `json:"host"`
	Operation string `json:"operation"`
	Step      string `json:"step"`
}
