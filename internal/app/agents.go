package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"kilonova/internal/compute/agent"
	"kilonova/internal/compute/providerconfig"
	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/config"
	"kilonova/internal/id"
)

// hostNames are the hosts that this process is the agent of.
func (a *App) hostNames() []string {
	name := a.cfg.Compute.Host
	if a.cfg.Compute.Driver != "fake" || a.cfg.Compute.FakeHosts <= 1 {
		return []string{name}
	}
	out := make([]string, a.cfg.Compute.FakeHosts)
	for i := range out {
		out[i] = fmt.Sprintf("%s-%d", name, i+1)
	}
	return out
}

func (a *App) startAgents(ctx context.Context) error {
	dir := instancesDir(a.cfg)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("instances directory: %w", err)
	}
	journal, err := a.openDB(ctx, "agent journal", "sqlite:"+filepath.Join(a.cfg.Default.StateDir, "agent-"+fileName(a.cfg.Compute.Host)+".db"))
	if err != nil {
		return err
	}
	if err := agent.Prepare(ctx, journal); err != nil {
		return err
	}
	cfg := agent.Config{Bus: a.bus, DB: journal, Images: a.parts.images, Dir: dir, Report: a.cfg.Compute.ReportInterval, ResumeGuests: a.cfg.Compute.ResumeGuests,
		Monitors: a.cfg.Compute.Monitors, ConfigDrive: a.configDrive, ImageAge: a.cfg.Compute.ImageAge, PCIInPlacement: a.cfg.PCI.ReportInPlacement}
	c := &a.cfg.Compute
	cfg.HiddenImages = c.HiddenImages
	cfg.Offer = &virt.Offer{CPURatio: c.CPURatio, RAMRatio: c.RAMRatio, DiskRatio: c.DiskRatio, InitialCPURatio: c.InitialCPURatio, InitialRAMRatio: c.InitialRAMRatio,
		InitialDiskRatio: c.InitialDiskRatio, ReservedCPUs: c.ReservedCPUs, ReservedMemoryMB: c.ReservedMemoryMB, ReservedDiskMB: c.ReservedDiskMB}
	extra := c.ProviderConfig
	if extra == "" {
		extra = filepath.Join(a.cfg.Default.StateDir, "provider_config")
	}
	if cfg.Providers, err = providerconfig.Load(extra, func(text string) { a.log.Warn(text) }); err != nil {
		return err
	}
	names := a.hostNames()
	if a.cfg.Compute.Driver == "fake" {
		drivers, err := a.openFake(ctx, names)
		if err != nil {
			return err
		}
		if len(names) > 1 {
			return a.startFleet(ctx, cfg, drivers)
		}
		return a.startAgent(ctx, cfg, names[0], drivers[0])
	}
	driver, plane, err := a.openLibvirt(ctx, dir)
	if err != nil {
		return err
	}
	cfg.MaxBuilds = a.cfg.Compute.MaxBuilds
	if plane != nil {
		cfg.Plane, cfg.Tunnel = plane, tunnelAddress(a.cfg)
	}
	return a.startAgent(ctx, cfg, names[0], driver)
}

// startAgent starts the agent of one host.
func (a *App) startAgent(ctx context.Context, cfg agent.Config, name string, driver virt.Driver) error {
	node, err := a.nodeID(name)
	if err != nil {
		return err
	}
	cfg.Host, cfg.NodeID, cfg.Driver, cfg.Physical = name, node, driver, physicalNetworks(a.cfg, 0)
	ag, err := agent.New(cfg)
	if err != nil {
		return err
	}
	return a.runAgents(ctx, "agent "+name, ag, ag)
}

// startFleet starts the agents of several fake hosts.
func (a *App) startFleet(ctx context.Context, cfg agent.Config, drivers []*fake.Driver) error {
	nodes, err := a.nodeIDs(drivers)
	if err != nil {
		return err
	}
	hosts := make([]agent.Host, len(drivers))
	for i, d := range drivers {
		hosts[i] = agent.Host{Name: d.Host(), NodeID: nodes[i], Driver: d, Physical: physicalNetworks(a.cfg, i)}
	}
	fleet, err := agent.NewFleet(cfg, hosts)
	if err != nil {
		return err
	}
	return a.runAgents(ctx, "agents", fleet, fleet.Agents()...)
}

// runAgents runs the agents of this process. Where a conductor is, too, it waits until they are registered.
func (a *App) runAgents(ctx context.Context, name string, r interface {
	Reconnected()
	Run(ctx context.Context, ready func()) error
}, agents ...*agent.Agent) error {
	a.mu.Lock()
	a.onLink = append(a.onLink, r.Reconnected)
	a.agents = agents
	a.mu.Unlock()
	if a.has(Conductor) {
		return a.untilReady(ctx, name, r.Run)
	}
	a.background(name, func(ctx context.Context) error { return r.Run(ctx, func() {}) }) // they register when a conductor is there
	return nil
}

// physicalNetworks are those to which the i-th host of this process is joined.
func physicalNetworks(cfg *config.Config, i int) []string {
	if cfg.Compute.Driver != "libvirt" {
		if n := len(cfg.Compute.FakePhysical); n > 0 {
			return cfg.Compute.FakePhysical[i%n : i%n+1]
		}
		return nil
	}
	var out []string
	for _, s := range cfg.Network.Physical {
		name, _, _ := strings.Cut(s, ":")
		out = append(out, name)
	}
	return out
}

func fileName(s string) string {
	return strings.NewReplacer("/", "_", string(filepath.Separator), "_").Replace(s)
}

// nodeID is the uuid that a host keeps for ever.
func (a *App) nodeID(host string) (string, error) {
	dir := filepath.Join(a.cfg.Default.StateDir, "nodes")
	path := filepath.Join(dir, fileName(host))
	b, err := os.ReadFile(path)
	if err == nil && id.IsUUID(strings.TrimSpace(string(b))) {
		return strings.TrimSpace(string(b)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("node id of %s: %w", host, err)
	}
	node := id.UUID()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("node id of %s: %w", host, err)
	}
	if err := os.WriteFile(path, []byte(node+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("node id of %s: %w", host, err)
	}
	return node, nil
}

// nodeIDs are the uuids that several hosts of this process keep for ever: those that they have in files of their own, the others follow from the process's own and their names.
func (a *App) nodeIDs(hosts []*fake.Driver) ([]string, error) {
	seed, err := a.nodeID(a.cfg.Compute.Host)
	if err != nil {
		return nil, err
	}
	files, err := os.ReadDir(filepath.Join(a.cfg.Default.StateDir, "nodes"))
	if err != nil {
		return nil, fmt.Errorf("node ids: %w", err)
	}
	kept := map[string]bool{}
	for _, f := range files {
		kept[f.Name()] = true
	}
	out := make([]string, len(hosts))
	for i, h := range hosts {
		if !kept[fileName(h.Host())] {
			out[i] = id.Derived("compute node", seed, h.Host())
		} else if out[i], err = a.nodeID(h.Host()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// openFake gives the drivers of fake hosts.
func (a *App) openFake(ctx context.Context, names []string) ([]*fake.Driver, error) {
	path := a.cfg.Compute.FakeDB
	if path == "" {
		path = filepath.Join(a.cfg.Default.StateDir, "fake.db")
	}
	hyper, err := a.openDB(ctx, "fake hypervisor", "sqlite:"+path)
	if err != nil {
		return nil, err
	}
	if err := fake.Prepare(ctx, hyper); err != nil {
		return nil, err
	}
	cfg, err := fakeHost(a.cfg)
	if err != nil {
		return nil, err
	}
	cfg.DB = hyper
	return fake.NewHosts(cfg, names...), nil
}
