// Package fake is a hypervisor that runs nothing. It is a driver like the others: its guests are rows in a database of its own, so they outlive the
// agent as real guests do; every ability is there; and it can be told to be slow or to fail, by configuration or by a flavor's extra specs:
//
//	fake:delay=2s                 every call about the guest takes two seconds
//	fake:delay:spawn=30s          only spawning does
//	fake:fail:spawn=No more heat  spawning fails with that text; hosts=h1,h2 limits it: "No more heat;hosts=h1"
//
// Several hosts, in one process or in several, may share one database: a live migration between them then really moves the guest.
package fake

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute/virt"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/network"
)

//go:embed migrations
var migrations embed.FS

// Config of a fake host.
type Config struct {
	DB   *db.DB // the hypervisor's memory
	Host string
	// VCPUs, MemoryMB and DiskGB are the host's size; zero: 1,000 of everything a large machine has, so that it never fills.
	VCPUs    int
	MemoryMB int64
	DiskGB   int64
	Hardware
	// Delay and Fault are asked at the begin of each call with the verb in lower case ("spawn", "power-off"); nil: neither.
	Delay func(verb, server string) time.Duration
	Fault func(verb, server string) error
}

// Driver is one fake host.
type Driver struct {
	cfg      *Config // of this host, or of several: host is in place of Host
	host     string
	consoles consoles
}

var _ interface {
	virt.Driver
	virt.Pauser
	virt.Suspender
	virt.Rescuer
	virt.Snapshotter
	virt.Resizer
	virt.ConsoleLogger
	virt.Consoler
	virt.InterfaceAttacher
	virt.VolumeAttacher
	virt.PasswordSetter
	virt.CrashDumper
	virt.Diagnoser
	virt.Migrator
	virt.DiskMover
	virt.ImageLess
	virt.Neighbour
} = (*Driver)(nil)

// Prepare makes the tables of the hypervisor's memory. It is called once for each database.
func Prepare(ctx context.Context, d *db.DB) error {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	return d.Migrate(ctx, "fake", sub)
}

// New makes a fake host. Prepare has made the tables.
func New(cfg Config) *Driver { return NewHosts(cfg, cfg.Host)[0] }

// NewHosts makes several fake hosts that differ in their names only.
func NewHosts(cfg Config, names ...string) []*Driver {
	if cfg.VCPUs == 0 {
		cfg.VCPUs = 1000
	}
	if cfg.MemoryMB == 0 {
		cfg.MemoryMB = 8_000_000
	}
	if cfg.DiskGB == 0 {
		cfg.DiskGB = 600_000
	}
	all := make([]Driver, len(names))
	out := make([]*Driver, len(names))
	for i, name := range names {
		all[i].cfg, all[i].host = &cfg, name
		out[i] = &all[i]
	}
	return out
}

// Host is the host's name.
func (d *Driver) Host() string { return d.host }

// IgnoresImages implements virt.ImageLess: guests of this driver need no image data.
func (d *Driver) IgnoresImages() {}

// guest is a row.
type guest struct {
	ID, Name string
	Power    virt.PowerState
	Incoming bool
	doc
}

type doc struct {
	Spec    virt.Spec       `json:"spec"`
	Console []string        `json:"console,omitempty"`
	Kept    *virt.Spec      `json:"kept,omitempty"` // the spec that a resize set aside
	Resized bool            `json:"resized,omitempty"`
	Files   map[string]bool `json:"files,omitempty"` // imported disks
	Started int64           `json:"started,omitempty"`
	Disks   bool            `json:"disks,omitempty"` // only disks are left (Destroy with keepDisks)
}

func (d *Driver) load(ctx context.Context, q db.Querier, host, id string) (*guest, error) {
	g := &guest{ID: id}
	var text string
	err := q.QueryRow(ctx, "SELECT name, power, incoming, doc FROM fake_guests WHERE host = ? AND id = ?", host, id).Scan(&g.Name, &g.Power, &g.Incoming, &text)
	if db.IsNoRows(err) {
		return nil, fault.New(fault.NotFound, "The hypervisor has no guest %s.", id)
	}
	if err != nil {
		return nil, fmt.Errorf("fake guest %s: %w", id, err)
	}
	if err := json.Unmarshal([]byte(text), &g.doc); err != nil {
		return nil, fmt.Errorf("fake guest %s: %w", id, err)
	}
	return g, nil
}

func (d *Driver) save(ctx context.Context, tx *db.Tx, host string, g *guest) error {
	if err := d.plugged(host, g); err != nil {
		return err
	}
	text, err := json.Marshal(g.doc)
	if err != nil {
		return fmt.Errorf("fake guest %s: %w", g.ID, err)
	}
	_, err = tx.Exec(ctx, db.Upsert(tx.Dialect(), "fake_guests", []string{"host", "id"}, []string{"name", "power", "incoming", "doc"}),
		host, g.ID, g.Name, int64(g.Power), g.Incoming, string(text))
	return err
}

// change loads a guest, lets f change it, and saves it, in one transaction.
func (d *Driver) change(ctx context.Context, verb, id string, f func(g *guest) error) error {
	g, err := d.present(ctx, d.cfg.DB, id)
	if err != nil {
		return err
	}
	if err := d.begin(ctx, verb, id, g.Spec.ExtraSpecs); err != nil {
		return err
	}
	err = d.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		var err error
		if g, err = d.present(ctx, tx, id); err != nil {
			return err
		}
		if err := f(g); err != nil {
			return err
		}
		return d.save(ctx, tx, d.host, g)
	})
	if err == nil && g.Power != virt.Running && g.Power != virt.Paused {
		d.consoles.end(id)
	}
	return err
}

// present is load without guests that are only disks or only awaited.
func (d *Driver) present(ctx context.Context, q db.Querier, id string) (*guest, error) {
	g, err := d.load(ctx, q, d.host, id)
	if err == nil && (g.Incoming || g.Disks) {
		return nil, fault.New(fault.NotFound, "The hypervisor has no guest %s.", id)
	}
	return g, err
}

// begin waits and fails as told.
func (d *Driver) begin(ctx context.Context, verb, id string, extra map[string]string) error {
	wait := time.Duration(0)
	if d.cfg.Delay != nil {
		wait = d.cfg.Delay(verb, id)
	}
	for _, k := range []string{"fake:delay", "fake:delay:" + verb} {
		if s := extra[k]; s != "" {
			w, err := time.ParseDuration(s)
			if err != nil {
				return fault.Wrap(err, fault.Invalid, "Extra spec %s is no duration such as 2s: %q.", k, s)
			}
			wait = w
		}
	}
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if d.cfg.Fault != nil {
		if err := d.cfg.Fault(verb, id); err != nil {
			return err
		}
	}
	if s := extra["fake:fail:"+verb]; s != "" {
		text, hosts, limited := strings.Cut(s, ";hosts=")
		if !limited || slices.Contains(strings.Split(hosts, ","), d.host) {
			return fault.New(fault.Internal, "%s", text)
		}
	}
	return nil
}

// Info implements virt.Driver.
func (d *Driver) Info(ctx context.Context) (*virt.HostInfo, error) {
	return &virt.HostInfo{Hostname: d.host, HypervisorType: "fake", HypervisorVersion: 1000, VCPUs: d.cfg.VCPUs, MemoryMB: d.cfg.MemoryMB, DiskGB: d.cfg.DiskGB,
		FreeDiskGB: d.cfg.DiskGB, HostIP: "127.0.0.1",
		CPUInfo: map[string]any{"arch": "x86_64", "model": "Nehalem", "vendor": "Intel", "features": []string{"pge", "clflush"},
			"topology": map[string]any{"cores": 1, "threads": 1, "sockets": 4}},
		Supported: [][3]string{{"x86_64", "fake", "hvm"}}, Stats: map[string]string{},
		NUMA: d.cfg.cells(d.cfg.VCPUs, d.cfg.MemoryMB), PCI: d.cfg.devices(), Mediated: d.cfg.Mediated, Metrics: d.cfg.Metrics,
		Uptime: " 00:00:00 up 1 day,  0:00,  0 users,  load average: 0.00, 0.00, 0.00",
	}, ctx.Err()
}

// Guests implements virt.Driver.
func (d *Driver) Guests(ctx context.Context) ([]virt.GuestState, error) {
	of, err := d.GuestsOf(ctx, []string{d.host})
	return of[d.host], err
}

// GuestsOf implements virt.Neighbour.
func (d *Driver) GuestsOf(ctx context.Context, hosts []string) (map[string][]virt.GuestState, error) {
	out := map[string][]virt.GuestState{}
	for part := range slices.Chunk(hosts, 500) {
		rows, err := d.cfg.DB.Query(ctx, "SELECT host, id, name, power, doc FROM fake_guests WHERE host IN ("+db.In(len(part))+") AND incoming = 0", db.Args(part)...)
		if err != nil {
			return nil, fmt.Errorf("fake guests: %w", err)
		}
		for rows.Next() {
			var host, text string
			var g virt.GuestState
			if err := rows.Scan(&host, &g.ID, &g.Name, &g.Power, &text); err != nil {
				_ = rows.Close()
				return nil, fmt.Errorf("fake guests: %w", err)
			}
			if !strings.Contains(text, `"disks":true`) {
				out[host] = append(out[host], g)
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return nil, fmt.Errorf("fake guests: %w", err)
		}
	}
	return out, nil
}

// Guest implements virt.Driver.
func (d *Driver) Guest(ctx context.Context, id string) (*virt.GuestState, error) {
	g, err := d.present(ctx, d.cfg.DB, id)
	if err != nil {
		return nil, err
	}
	return &virt.GuestState{ID: g.ID, Name: g.Name, Power: g.Power}, nil
}

// boot puts a guest into the running state with a few lines on its console.
func (g *guest) boot() {
	g.Power, g.Started = virt.Running, clock.Micros(clock.Now())
	g.Console = append(g.Console, "FAKE CONSOLE OUTPUT", "ANOTHER", "fake guest "+g.Name+" of "+g.Spec.FlavorName+" booted", "LAST LINE")
	if n := len(g.Console); n > 200 {
		g.Console = g.Console[n-200:]
	}
}

// Spawn implements virt.Driver.
func (d *Driver) Spawn(ctx context.Context, spec *virt.Spec) error {
	if err := d.begin(ctx, "spawn", spec.ID, spec.ExtraSpecs); err != nil {
		return err
	}
	return d.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		if _, err := d.present(ctx, tx, spec.ID); err == nil {
			return nil // it is there
		}
		if err := d.divided(ctx, tx, spec); err != nil {
			return err
		}
		g := &guest{ID: spec.ID, Name: spec.Name, Power: virt.Shutdown, doc: doc{Spec: *spec, Disks: false}}
		if !spec.Stopped {
			g.boot()
		}
		return d.save(ctx, tx, d.host, g)
	})
}

// Destroy implements virt.Driver.
func (d *Driver) Destroy(ctx context.Context, id string, keepDisks bool) error {
	var extra map[string]string
	if g, err := d.load(ctx, d.cfg.DB, d.host, id); err == nil {
		extra = g.Spec.ExtraSpecs
	}
	if err := d.begin(ctx, "destroy", id, extra); err != nil {
		return err
	}
	defer d.consoles.end(id)
	return d.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		if keepDisks {
			g, err := d.load(ctx, tx, d.host, id)
			if err != nil {
				return ignoreGone(err)
			}
			g.Disks, g.Power = true, virt.Shutdown
			return d.save(ctx, tx, d.host, g)
		}
		_, err := tx.Exec(ctx, "DELETE FROM fake_guests WHERE host = ? AND id = ?", d.host, id)
		return err
	})
}

func ignoreGone(err error) error {
	if fault.KindOf(err) == fault.NotFound {
		return nil
	}
	return err
}

// PowerOn implements virt.Driver.
func (d *Driver) PowerOn(ctx context.Context, spec *virt.Spec) error {
	return d.change(ctx, "power-on", spec.ID, func(g *guest) error {
		g.Spec = *spec
		if g.Power != virt.Running {
			g.boot()
		}
		return nil
	})
}

// PowerOff implements virt.Driver.
func (d *Driver) PowerOff(ctx context.Context, id string, _ time.Duration) error {
	return d.change(ctx, "power-off", id, func(g *guest) error { g.Power = virt.Shutdown; return nil })
}

// Reboot implements virt.Driver.
func (d *Driver) Reboot(ctx context.Context, spec *virt.Spec, hard bool, _ time.Duration) error {
	return d.change(ctx, "reboot", spec.ID, func(g *guest) error {
		if !hard && g.Power != virt.Running {
			return fault.New(fault.Conflict, "The guest does not run: only a hard reboot starts it.")
		}
		g.Spec = *spec
		g.boot()
		return nil
	})
}

// Close implements virt.Driver.
func (d *Driver) Close() error {
	d.consoles.end("")
	return nil
}

// Die ends a guest behind the agent's back, as a crash would; tests use it.
func (d *Driver) Die(ctx context.Context, id string) error {
	return d.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE fake_guests SET power = ? WHERE host = ? AND id = ?", int64(virt.Shutdown), d.host, id)
		return err
	})
}

func wantRunning(g *guest) error {
	if g.Power != virt.Running {
		return fault.New(fault.Conflict, "The guest does not run.")
	}
	return nil
}

func withoutVIF(in []network.VIF, portID string) []network.VIF {
	return slices.DeleteFunc(slices.Clone(in), func(v network.VIF) bool { return v.PortID == portID })
}
