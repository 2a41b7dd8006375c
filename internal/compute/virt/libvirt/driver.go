package libvirt

import (
	"context"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/libvirt/daemon"
	"kilonova/internal/compute/virt/libvirt/definition"
	"kilonova/internal/compute/virt/libvirt/disk"
	"kilonova/internal/compute/virt/libvirt/handover"
	"kilonova/internal/compute/virt/libvirt/rpc"
	"kilonova/internal/fault"
	"kilonova/internal/id"
)

// Config of a driver.
type Config struct {
	Socket       string // libvirtd's unix socket; default daemon.SystemSocket
	InstancesDir string // where guests' files are; must be absolute
	Host         string // the host's name in the cloud, which no other has; "" its host name
	// VirtType is qemu, kvm or "" for kvm where it works, else qemu.
	VirtType string
	Machine  string // default machine type; "" pc
	// CPUMode is none, host-model, host-passthrough, maximum or custom (then CPUModel names it); "" is host-model under kvm, else none.
	CPUMode, CPUModel string
	DiskCache         string // cache mode of file disks; "" none where the file system can do direct I/O, else writeback
	SPICE             bool   // guests have a SPICE screen beside that of VNC
	VNCListen         string // address that VNC servers listen on; "" 127.0.0.1
	SerialListen      string // address that serial consoles listen on; "" 127.0.0.1
	SerialPorts       [2]int // range of their ports; zero 10000 to 19999
	ConsoleHost       string // where console proxies reach VNC and serial ports; "" the listen address
	// MigrationURI is how other hosts' libvirtd reach this one (qemu+tcp://192.0.2.1/system), MigrationAddress where this host takes guests'
	// memory and files. Without a URI guests cannot be moved here while they run.
	MigrationURI, MigrationAddress string
	// MigrationBandwidth bounds a live migration, in MiB/s; 0 no bound.
	MigrationBandwidth uint64
	HostIP             string
	// DedicatedCPUs are those of the host to which virtual CPUs are pinned, SharedCPUs those on which the others float (none: on all, unless some
	// are dedicated).
	DedicatedCPUs, SharedCPUs []int
	// ReservedPages are memory pages that guests may not have, by NUMA node and size in KiB.
	ReservedPages map[int]map[int64]int64
	// Sys is where the kernel shows devices; "": /sys.
	Sys string
	// Devices says which PCI devices guests may have.
	Devices []compute.DeviceSpec
	// Mediated says of which devices guests may have parts.
	Mediated    []compute.MediatedType
	PCIePorts   int           // places for devices of guests on q35; 0: 16
	RNGDevice   string        // "" /dev/urandom
	MemoryStats time.Duration // how often guests tell what memory they use; 0: they do not
	// AgentPatience is how long a guest that boots may take until its agent listens, when a password is to be set, and how long an agent that listens may take to answer; 0: 1 min.
	AgentPatience time.Duration
	UEFICode      string // firmware; "" Debian's OVMF
	UEFIVars      string
	Log           *slog.Logger
}

// Driver drives one libvirtd. It implements virt.Driver and every ability of package virt.
type Driver struct {
	c     Config
	rpc   *rpc.Client
	log   *slog.Logger
	locks keyed
	caps  hostCaps
	cache string // cache mode of file disks

	mu   sync.Mutex
	ours map[string]bool // by UUID: whether the domain has our metadata; what is known need not be asked again

	offers handover.Offers
}

// Every ability.
var (
	_ virt.Driver            = (*Driver)(nil)
	_ virt.Pauser            = (*Driver)(nil)
	_ virt.Suspender         = (*Driver)(nil)
	_ virt.Rescuer           = (*Driver)(nil)
	_ virt.Snapshotter       = (*Driver)(nil)
	_ virt.Resizer           = (*Driver)(nil)
	_ virt.ConsoleLogger     = (*Driver)(nil)
	_ virt.Consoler          = (*Driver)(nil)
	_ virt.InterfaceAttacher = (*Driver)(nil)
	_ virt.VolumeAttacher    = (*Driver)(nil)
	_ virt.PasswordSetter    = (*Driver)(nil)
	_ virt.CrashDumper       = (*Driver)(nil)
	_ virt.Diagnoser         = (*Driver)(nil)
	_ virt.Migrator          = (*Driver)(nil)
	_ virt.DiskMover         = (*Driver)(nil)
	_ virt.Watcher           = (*Driver)(nil)
)

// New connects to libvirtd and looks at what the host can do. It fails when the daemon does not answer.
func New(ctx context.Context, c Config) (*Driver, error) {
	if c.Socket == "" {
		c.Socket = daemon.SystemSocket
	}
	if !filepath.IsAbs(c.InstancesDir) {
		return nil, fault.New(fault.Invalid, "The instances directory %q must be an absolute path.", c.InstancesDir)
	}
	if c.Machine == "" {
		c.Machine = "pc"
	}
	if c.Host == "" {
		var err error
		if c.Host, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("name of the host: %w", err)
		}
	}
	if c.VNCListen == "" {
		c.VNCListen = "127.0.0.1"
	}
	if c.SerialListen == "" {
		c.SerialListen = "127.0.0.1"
	}
	if c.SerialPorts == [2]int{} {
		c.SerialPorts = [2]int{10000, 19999}
	}
	if c.PCIePorts == 0 {
		c.PCIePorts = 16
	}
	if c.RNGDevice == "" {
		c.RNGDevice = "/dev/urandom"
	}
	if c.AgentPatience == 0 {
		c.AgentPatience = time.Minute
	}
	if c.UEFICode == "" {
		c.UEFICode, c.UEFIVars = "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if err := os.MkdirAll(c.InstancesDir, 0o711); err != nil {
		return nil, fmt.Errorf("instances directory: %w", err)
	}
	client, err := rpc.Open(ctx, rpc.Options{Address: c.Socket})
	if err != nil {
		return nil, err
	}
	d := &Driver{c: c, rpc: client, log: c.Log, ours: map[string]bool{}, cache: c.DiskCache}
	if d.cache == "" {
		d.cache = disk.CacheMode(c.InstancesDir)
	}
	if d.caps, err = d.probe(ctx); err != nil {
		client.Close()
		return nil, fmt.Errorf("ask libvirt what the host can do: %w", err)
	}
	d.pruneDeparted()
	return d, nil
}

// Close lets go of libvirtd; guests run on.
func (d *Driver) Close() error {
	d.offers.Close()
	return d.rpc.Close()
}

// keyed is a set of locks by name.
type keyed struct {
	mu sync.Mutex
	m  map[string]*keyedLock
}

type keyedLock struct {
	held  chan struct{}
	users int
}

// lock waits for the lock of name; the function it gives releases it.
func (k *keyed) lock(ctx context.Context, name string) (func(), error) {
	k.mu.Lock()
	if k.m == nil {
		k.m = map[string]*keyedLock{}
	}
	l := k.m[name]
	if l == nil {
		l = &keyedLock{held: make(chan struct{}, 1)}
		k.m[name] = l
	}
	l.users++
	k.mu.Unlock()
	leave := func() {
		k.mu.Lock()
		if l.users--; l.users == 0 {
			delete(k.m, name)
		}
		k.mu.Unlock()
	}
	select {
	case l.held <- struct{}{}:
		return func() { <-l.held; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, fmt.Errorf("another action on guest %s is under way: %w", name, ctx.Err())
	}
}

// guest locks a guest; calls that change one do so one at a time.
func (d *Driver) guest(ctx context.Context, guest string) (func(), error) {
	if _, err := parseUUID(guest); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return d.locks.lock(ctx, guest)
}

// parseUUID reads a server id. Ids become file names, so nothing else may pass.
func parseUUID(s string) (u rpc.UUID, err error) {
	if len(s) != 36 || !id.IsUUID(s) || strings.ToLower(s) != s {
		return u, fault.New(fault.Invalid, "%q is no server id.", s)
	}
	_, err = hex.Decode(u[:], []byte(strings.ReplaceAll(s, "-", "")))
	return u, err
}

// domain finds the guest's domain; fault.NotFound when there is none or when it is somebody else's.
func (d *Driver) domain(ctx context.Context, guest string) (rpc.Domain, error) {
	u, err := parseUUID(guest)
	if err != nil {
		return rpc.Domain{}, err
	}
	dom, err := d.rpc.DomainByUUID(ctx, u)
	if err != nil {
		return dom, err
	}
	mine, err := d.isOurs(ctx, dom)
	if err == nil && !mine {
		err = fault.New(fault.NotFound, "The domain with the id %s on the hypervisor was not made by this service.", guest)
	}
	return dom, err
}

// isOurs tells whether the domain's metadata has our element.
func (d *Driver) isOurs(ctx context.Context, dom rpc.Domain) (bool, error) {
	key := dom.UUID.String() + " " + dom.Name
	d.mu.Lock()
	mine, known := d.ours[key]
	d.mu.Unlock()
	if known {
		return mine, nil
	}
	_, err := d.rpc.Metadata(ctx, dom, definition.MetadataNS, 0)
	if err != nil && !rpc.HasCode(err, rpc.NoDomainMetadata) {
		return false, err
	}
	mine = err == nil
	d.mu.Lock()
	d.ours[key] = mine
	d.mu.Unlock()
	return mine, nil
}

// power translates a domain's state. A domain that is off with its memory saved is suspended.
func power(state, reason int32, saved bool) virt.PowerState {
	switch state {
	case rpc.StateRunning, rpc.StateBlocked, rpc.StateShutdown:
		return virt.Running
	case rpc.StatePaused:
		if reason == rpc.PausedCrashed {
			return virt.Crashed
		}
		return virt.Paused
	case rpc.StateShutoff:
		if saved {
			return virt.Suspended
		}
		return virt.Shutdown
	case rpc.StateCrashed:
		return virt.Crashed
	case rpc.StatePMSuspended:
		return virt.Suspended
	}
	return virt.NoState
}

// Guests lists the guests that this driver made, in four calls whatever their number (and one more for each domain seen for the first time).
func (d *Driver) Guests(ctx context.Context) ([]virt.GuestState, error) {
	const managedSave, stateGroup = 256, 1
	stats, err := d.rpc.AllStats(ctx, nil, stateGroup)
	if err != nil {
		return nil, err
	}
	saved, err := d.rpc.Domains(ctx, managedSave)
	if err != nil {
		return nil, err
	}
	hasSave := map[rpc.UUID]bool{}
	for _, s := range saved {
		hasSave[s.UUID] = true
	}
	out := make([]virt.GuestState, 0, len(stats))
	for _, s := range stats {
		mine, err := d.isOurs(ctx, s.Domain)
		if errors.Is(err, fault.NotFound) {
			continue // it went away since it was listed
		}
		if err != nil {
			return nil, err
		}
		if !mine {
			continue
		}
		var state, reason int32
		for _, p := range s.Params {
			if n, ok := p.Value.(int32); ok && p.Name == "state.state" {
				state = n
			} else if ok && p.Name == "state.reason" {
				reason = n
			}
		}
		out = append(out, virt.GuestState{ID: s.Domain.UUID.String(), Name: s.Domain.Name, Power: power(state, reason, hasSave[s.Domain.UUID])})
	}
	d.forget(stats)
	return out, nil
}

// forget drops what is known of domains that are gone.
func (d *Driver) forget(there []rpc.Stats) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.ours) <= 2*len(there)+64 {
		return
	}
	keep := map[string]bool{}
	for _, s := range there {
		key := s.Domain.UUID.String() + " " + s.Domain.Name
		if v, ok := d.ours[key]; ok {
			keep[key] = v
		}
	}
	d.ours = keep
}

// Guest gives the state of one guest.
func (d *Driver) Guest(ctx context.Context, guest string) (*virt.GuestState, error) {
	dom, err := d.domain(ctx, guest)
	if err != nil {
		return nil, err
	}
	p, err := d.powerOf(ctx, dom)
	if err != nil {
		return nil, err
	}
	if p == virt.Running {
		if err := d.arrived(guest); err != nil {
			return nil, err
		}
	}
	return &virt.GuestState{ID: guest, Name: dom.Name, Power: p}, nil
}

func (d *Driver) powerOf(ctx context.Context, dom rpc.Domain) (virt.PowerState, error) {
	state, reason, err := d.rpc.State(ctx, dom)
	if err != nil {
		return virt.NoState, err
	}
	saved := false
	if state == rpc.StateShutoff {
		if saved, err = d.rpc.HasManagedSave(ctx, dom); err != nil {
			return virt.NoState, err
		}
	}
	return power(state, reason, saved), nil
}

// definition reads a domain's XML.
func (d *Driver) definition(ctx context.Context, dom rpc.Domain, flags uint32) (*definition.Domain, error) {
	text, err := d.rpc.XML(ctx, dom, flags)
	if err != nil {
		return nil, err
	}
	x := &definition.Domain{}
	if err := xml.Unmarshal([]byte(text), x); err != nil {
		return nil, fmt.Errorf("read the definition of %s: %w", dom.Name, err)
	}
	return x, nil
}

// waitPower waits until the guest is in the state; false when the time is over.
func (d *Driver) waitPower(ctx context.Context, dom rpc.Domain, want virt.PowerState, limit time.Duration, each func()) (bool, error) {
	end := time.Now().Add(limit)
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, 250*time.Millisecond) {
		p, err := d.powerOf(ctx, dom)
		if err != nil {
			return false, err
		}
		if p == want {
			return true, nil
		}
		if time.Now().After(end) {
			return false, nil
		}
		if each != nil {
			each()
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// conflict says that the guest's state does not allow what was asked.
func conflict(what string, p virt.PowerState) error {
	return fault.New(fault.Conflict, "The server cannot be %s while it is %s.", what, stateName(p))
}

func stateName(p virt.PowerState) string {
	switch p {
	case virt.Running:
		return "running"
	case virt.Paused:
		return "paused"
	case virt.Shutdown:
		return "stopped"
	case virt.Crashed:
		return "crashed"
	case virt.Suspended:
		return "suspended"
	}
	return "in an unknown state"
}
