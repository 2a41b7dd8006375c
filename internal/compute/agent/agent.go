// Package agent is the host side of compute: it takes commands for one host, journals them before it acts, carries them out through the host's driver, and
// reports what the host has and what its guests do.
//
// What it promises: a command that it answered as done was done once, whatever was repeated or restarted; a command with an epoch older than one seen for
// the same server has no effect; guests that the cloud does not know are left alone; ending the agent, gently or not, leaves guests running.
package agent

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"kilonova/internal/auth"
	"kilonova/internal/bus"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/virt"
	"kilonova/internal/db"
	"kilonova/internal/id"
	"kilonova/internal/image"
	"kilonova/internal/network"
)

//go:embed migrations
var migrations embed.FS

// Plane applies the desired data plane of a host. Package network/dataplane has the real one; nil in Config means that the driver's guests need none.
type Plane interface {
	// Apply makes the host what the state says. It goes as far as it can; what concerns only some networks comes as network.PartError.
	Apply(ctx context.Context, s *network.HostState) error
	// Wired tells for each port of the last state whether its device is on its network and up.
	Wired() (map[string]bool, error)
}

// Config of an agent.
type Config struct {
	Host     string
	NodeID   string // uuid of the compute node, kept by the host for ever
	Driver   virt.Driver
	Bus      bus.Bus
	DB       *db.DB        // journal; Prepare has made the tables. Agents of several hosts may share one.
	Images   image.Service // where image data comes from and snapshots go to
	Plane    Plane
	Physical []string // physical networks that the host is joined to
	Tunnel   string   // the host's address at which tunnels of networks end; "": networks do not reach other hosts
	Dir      string   // images/, config drives and snapshots in the making
	// ConfigDrive builds the config drive file of a server from the metadata input; nil: config drives are refused.
	ConfigDrive func(ctx context.Context, metadata []byte, adminPass, path string) error
	// Report is the interval of heartbeats; 0: 10 s. Look is how often the agent asks what is its own; 0: 5 min.
	Report, Look time.Duration
	// ImageAge is how long an unused image stays in the cache; 0: 24 h.
	ImageAge time.Duration
	// MaxBuilds bounds the guests that are made at once; 0: any number.
	MaxBuilds int
	// PCIInPlacement has placement told of the host's PCI devices.
	PCIInPlacement bool
	// Offer is how much of what the host has may be promised; nil: conductors take the defaults.
	Offer *virt.Offer
	// Providers are what operators add to the host's resource providers.
	Providers []virt.ProviderConfig
	// HiddenImages are disk formats (raw, iso) that the host does not advertise although it can use them.
	HiddenImages []string
	// ResumeGuests starts guests, after the host was restarted, that the cloud has as running.
	ResumeGuests bool
	// Monitors are the sets of metrics that are measured: MonitorCPU.
	Monitors []string
	Log      *slog.Logger
}

// Agent is one host's agent.
type Agent struct {
	host, node string
	driver     virt.Driver
	physical   []string
	cfg        *Config // of this host, or of all hosts of a Fleet: what is the host's own is above
	start      string
	cache      *imageCache
	plane      *planeSync
	cpu        *cpuMonitor // nil: not measured

	mu      sync.Mutex
	entries map[string]*entry
	imports map[string]*incoming
	// starting are the guests that ran when the host went down and are being started again.
	starting map[string]bool
	looked   bool            // a conductor has said once what is mine
	ctx      context.Context // ends with Run; commands live in it
	wg       sync.WaitGroup
	again    chan struct{} // look at everything now; nil: the fleet does
	builds   chan struct{} // holds a place for each guest that is being made; nil: any number
}

// Prepare makes the tables of the journal. It is called once for each database.
func Prepare(ctx context.Context, d *db.DB) error {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	return d.Migrate(ctx, "agent", sub)
}

// New makes an agent. Nothing happens before Run.
func New(cfg Config) (*Agent, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	a := &Agent{again: make(chan struct{}, 1)}
	if err := a.init(&cfg, Host{Name: cfg.Host, NodeID: cfg.NodeID, Driver: cfg.Driver, Physical: cfg.Physical}, id.Secret(8)); err != nil {
		return nil, err
	}
	if cfg.Plane != nil {
		a.plane = &planeSync{agent: a, kick: make(chan struct{}, 1), told: map[string]bool{}}
	}
	return a, nil
}

// complete puts defaults in, and judges what is not a host's own.
func (c *Config) complete() error {
	if c.Bus == nil || c.DB == nil {
		return errors.New("agent: bus and journal are required")
	}
	for _, d := range []struct {
		v *time.Duration
		d time.Duration
	}{{&c.Report, 10 * time.Second}, {&c.Look, 5 * time.Minute}, {&c.ImageAge, 24 * time.Hour}} {
		if *d.v == 0 {
			*d.v = d.d
		}
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	for _, m := range c.Monitors {
		if m != MonitorCPU {
			return fmt.Errorf("agent: there is no monitor %q; %s is", m, MonitorCPU)
		}
	}
	return nil
}

// Host is what is a host's own.
type Host struct {
	Name   string
	NodeID string // uuid of the compute node, kept by the host for ever
	Driver virt.Driver
	// Physical are the physical networks that the host is joined to.
	Physical []string
}

// init makes an agent of a host. start tells this process from others that claim the host.
func (a *Agent) init(cfg *Config, h Host, start string) error {
	if h.Name == "" || !id.IsUUID(h.NodeID) || h.Driver == nil {
		return errors.New("agent: host, node id and driver are required")
	}
	a.cfg, a.host, a.node, a.driver, a.physical, a.start = cfg, h.Name, h.NodeID, h.Driver, h.Physical, start
	if _, without := h.Driver.(virt.ImageLess); !without {
		if cfg.Images == nil || cfg.Dir == "" {
			return errors.New("agent: this driver needs images and a directory")
		}
		a.cache = newImageCache(cfg.Dir, cfg.Images, auth.Internal(""))
	}
	if cfg.MaxBuilds > 0 {
		a.builds = make(chan struct{}, cfg.MaxBuilds)
	}
	if len(cfg.Monitors) > 0 {
		a.cpu = &cpuMonitor{path: "/proc/stat"}
	}
	return nil
}

func (a *Agent) log() *slog.Logger { return a.cfg.Log.With("host", a.host) }

// Reconnected makes the agent look at everything again; the bus calls it after a reconnection.
func (a *Agent) Reconnected() {
	select {
	case a.again <- struct{}{}:
	default:
	}
}

// Run serves the host until ctx ends. Commands that are running then are cut off; their conductors ask again. ready is called once the host is registered.
func (a *Agent) Run(ctx context.Context, ready func()) error {
	runCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	a.ctx = runCtx
	stops := []func(){}
	defer func() {
		cancel()
		for _, s := range stops {
			s()
		}
		a.wg.Wait()
	}()
	serve := func(subject, queue string, h bus.Handler) error {
		stop, err := a.cfg.Bus.Serve(subject, queue, h)
		if err != nil {
			return fmt.Errorf("agent %s: %w", a.host, err)
		}
		stops = append(stops, stop)
		return nil
	}
	var err error
	if apart(func() { err = a.arrive(ctx, runCtx, serve) }); err != nil {
		return err
	}
	if ready != nil {
		ready()
	}
	a.loop(ctx)
	return nil
}

// arrive registers the host and begins to serve it.
func (a *Agent) arrive(ctx, runCtx context.Context, serve func(subject, queue string, h bus.Handler) error) error {
	if err := a.register(ctx, true); err != nil {
		return err
	}
	if a.cfg.Dir != "" {
		if err := os.RemoveAll(a.snapshotsDir()); err != nil {
			return fmt.Errorf("agent %s: half-made snapshots: %w", a.host, err)
		}
	}
	if a.plane != nil {
		if err := serve(network.ChangedSubject, "", a.plane.changed); err != nil {
			return err
		}
		a.plane.now(runCtx)
		a.wg.Go(func() { a.plane.loop(runCtx) })
	}
	a.joins(ctx)
	if err := a.mine(ctx); err != nil {
		a.log().Warn("what is mine could not be asked; it is asked again later", "error", err)
	}
	if err := serve(command.Subject(a.host), "agent", a.serve); err != nil {
		return err
	}
	if err := serve(transferSubject(a.host), "agent", a.receive); err != nil {
		return err
	}
	if w, ok := a.driver.(virt.Watcher); ok {
		a.wg.Go(func() { a.watch(runCtx, w) })
	}
	return nil
}

// joins tells of the physical networks that a host without a data plane is joined to.
func (a *Agent) joins(ctx context.Context) {
	if a.plane == nil && len(a.physical) > 0 {
		a.warn(ctx, "telling the physical networks of the host", a.call(ctx, command.TunnelSubject, command.HostTunnel{Host: a.host, Physical: a.physical}, nil))
	}
}

// lookAgain is how long after its start an agent asks again what is its own: its hypervisor may still have been at work for the agent before it, which was killed.
const lookAgain = 30 * time.Second

// loop reports and looks at its times. What it does runs in goroutines that end, so that the stack of the one that waits stays small.
func (a *Agent) loop(ctx context.Context) {
	tick := time.NewTicker(min(a.cfg.Report, a.cfg.Look))
	defer tick.Stop()
	began := time.Now()
	reported, looked, pruned, n := began, began, began, 0
	if a.cfg.Look > lookAgain {
		looked = began.Add(lookAgain - a.cfg.Look)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if due(&reported, now, a.cfg.Report) {
				n++
				apart(func() { a.warn(ctx, "report", a.report(ctx, n%6 == 0)) })
			}
			if due(&looked, now, a.cfg.Look) {
				apart(func() { a.lookAround(ctx) })
			}
			if due(&pruned, now, time.Hour) {
				apart(func() { a.pruneAll(ctx) })
			}
		case <-a.again:
			apart(func() {
				a.warn(ctx, "report", a.report(ctx, true))
				a.lookAround(ctx)
			})
		}
	}
}

// due tells whether something is to be done again, with half a tick's allowance for tickers that are early.
func due(last *time.Time, now time.Time, every time.Duration) bool {
	if now.Sub(*last) < every-every/20 {
		return false
	}
	*last = now
	return true
}

// apart runs f in a goroutine of its own and waits for it.
func apart(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

func (a *Agent) warn(ctx context.Context, what string, err error) {
	if err != nil && ctx.Err() == nil {
		a.log().Warn(what+" failed; it is tried again", "error", err)
	}
}

func (a *Agent) lookAround(ctx context.Context) {
	a.warn(ctx, "asking what is mine", a.mine(ctx))
	if a.plane != nil {
		a.plane.trigger()
	}
}

func (a *Agent) pruneAll(ctx context.Context) {
	a.warn(ctx, "pruning the journal", a.prune(ctx))
	if a.cache != nil {
		a.warn(ctx, "pruning the image cache", a.pruneImages(ctx))
	}
}
