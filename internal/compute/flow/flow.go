// Package flow holds compute's durable operations: one file per operation, each of which reads as its table of steps. The engine of package operation
// carries them out.
//
// What each promises: every step looks before it acts and may be run again after any crash; every effect has an undo that may be run without the
// effect; every command to a host carries the operation's epoch. What a host that is down can not do now is written down in package owed and done when
// the host returns, so no operation waits for a dead host.
//
// Allocations while a server moves: the consumer with the migration's uuid holds what the server had, the server itself holds what it is to get. So a
// move needs no bookkeeping of its own: whoever ends it releases the one or gives it back.
package flow

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"kilonova/internal/auth"
	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/owed"
	"kilonova/internal/compute/store"
	"kilonova/internal/fault"
	"kilonova/internal/image"
	"kilonova/internal/network"
	"kilonova/internal/operation"
	"kilonova/internal/placement"
)

// Agents carries commands to hosts. *command.Client is one.
type Agents interface {
	Do(ctx context.Context, host string, cmd command.Command, args, out any) error
}

// Placer chooses hosts and knows how they are. The conductor is one.
type Placer interface {
	// Place chooses a host for the server and claims it. Called again for the same consumer it finds the claim that is there. It fails with
	// an error of code CodeNoValidHost when no host will do.
	Place(ctx context.Context, w Want) (*Place, error)
	// TakePort claims a PCI device for one more port of a server, on its host, and gives all that the server holds there then. Called again it finds the device that is
	// claimed. It fails with fault.Invalid when there is none.
	TakePort(ctx context.Context, s *compute.Server, port compute.PortDevice) (*compute.Claim, error)
	// Check tells whether the server may be on host with another image (rebuild).
	Check(ctx context.Context, w Want, host string) error
	// Down tells whether a host is known not to work: its agent has been silent for longer than service_down_time, was forced down, or is unknown.
	Down(ctx context.Context, host string) bool
	// Built reports how a build on a host ended, for the weigher of build failures. It counts also when ctx has ended.
	Built(ctx context.Context, host string, ok bool)
}

// Want is what a server needs of a host.
type Want struct {
	Server     *compute.Server
	Flavor     compute.Flavor
	ImageProps map[string]string
	Zone       string
	Host, Node string // exactly this one, if it passes
	// ForceHost and ForceNode are not put before the filters.
	ForceHost, ForceNode string
	Exclude              []string // hosts that failed already, or that the server shall leave
	// Ports are those of a new server's ports that are not of the type normal; those of others stand in its record.
	Ports []compute.PortDevice
	// Running tells that the guest runs while it moves: the devices that its flavor asks for must bear that.
	Running bool
	// NICs are the interfaces that a new server asks for; one that moves has its own.
	NICs []compute.NICRequest
	// Migration is the uuid of the consumer that takes over what the server holds now; "" when it does not move.
	Migration string
}

// Place is where a server shall be.
type Place struct {
	Host     string `json:"host"`
	Node     string `json:"node"`
	Provider string `json:"provider"`
	Zone     string `json:"zone"`
	// Claim is what the server holds there by name: CPUs, pages, devices; nil: nothing.
	Claim *compute.Claim `json:"claim,omitempty"`
}

// CodeNoValidHost marks the error of a Placer that found no host.
const CodeNoValidHost = "no-valid-host"

// NoValidHost is the failure to find a host; the text is a sentence for the user that names each constraint, how many hosts it removed and the nearest miss.
func NoValidHost(text string) error {
	return fault.New(fault.Internal, "%s", text).WithCode(CodeNoValidHost)
}

// Config is what flows work with.
type Config struct {
	Store     *store.Store
	Network   network.Service
	Image     image.Service
	Placement placement.Service
	Agents    Agents
	Placer    Placer
	Owed      *owed.Book
	// Metadata makes the input of the metadata service and the config drive for a server.
	Metadata func(ctx context.Context, s *compute.Server, files map[string][]byte) (json.RawMessage, error)

	MaxAttempts      int           // hosts tried for one build or move; 0: 3
	LiveAttempts     int           // hosts tried for one live migration; 0: all that there are
	StopGrace        time.Duration // how long a guest may take to shut down by itself; 0: 60 s, negative: none
	Patience         time.Duration // how long a silent host that is not down is asked again; 0: 20 s
	AllowSameHost    bool          // resize may stay on the host
	ColdMigrateSame  bool          // cold migration may, too (the host copies to itself)
	BuildDeadline    time.Duration // one attempt to build; 0: 20 min
	TransferDeadline time.Duration // a snapshot, a disk transfer, a live migration; 0: 3 h
	Log              *slog.Logger
}

// The kinds of operation beside those of package compute that only conductors and the API's live migration calls use.
const (
	OpAbortLive = "live-migration-abort"
	OpForceLive = "live-migration-force"
)

type flows struct {
	Config
	fresh recent
}

// All gives every flow.
func All(c Config) []operation.Flow {
	defaults(&c)
	f := &flows{Config: c, fresh: recent{m: map[string]*compute.Server{}}}
	return f.afterResize([]operation.Flow{
		f.create(), f.delete(), f.softDelete(), f.restore(),
		f.start(), f.stop(), f.reboot(), f.pause(), f.unpause(), f.suspend(), f.resume(), f.rescue(), f.unrescue(),
		f.rebuild(), f.resize(), f.confirmResize(), f.revertResize(), f.liveMigrate(), f.abortLive(), f.forceLive(), f.evacuate(),
		f.shelve(), f.shelveOffload(), f.unshelve(), f.snapshot(), f.backup(), f.password(), f.crashDump(),
		f.attachInterface(), f.detachInterface(),
	})
}

func defaults(c *Config) {
	if c.MaxAttempts == 0 {
		c.MaxAttempts = 3
	}
	if c.StopGrace == 0 {
		c.StopGrace = time.Minute
	}
	if c.StopGrace < 0 {
		c.StopGrace = 0
	}
	if c.Patience == 0 {
		c.Patience = 20 * time.Second
	}
	if c.BuildDeadline == 0 {
		c.BuildDeadline = 20 * time.Minute
	}
	if c.TransferDeadline == 0 {
		c.TransferDeadline = 3 * time.Hour
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metadata == nil {
		c.Metadata = func(context.Context, *compute.Server, map[string][]byte) (json.RawMessage, error) { return nil, nil }
	}
}

// caller is who the flows are towards the other services.
func caller(r *operation.Run) *auth.Caller { return auth.Internal(r.RequestID) }
