package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"kilonova/internal/compute/agent"
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
	driver, err := a.openDriver(ctx, dir)
	if err != nil {
		return err
	}
	names := a.hostNames()
	// Heartbeats of many simulated hosts are spread so that their sum stays small.
	report := max(a.cfg.Compute.ReportInterval, time.Duration(len(names))*2*time.Millisecond)
	var wg sync.WaitGroup
	ready := make(chan struct{}, len(names))
	for i, name := range names {
		node, err := a.nodeID(name)
		if err != nil {
			return err
		}
		d, plane, err := driver(name)
		if err != nil {
			return err
		}
		cfg := agent.Config{Host: name, NodeID: node, Driver: d, Bus: a.bus, DB: journal, Images: a.parts.images, Dir: dir, Report: report,
			ResumeGuests: a.cfg.Compute.ResumeGuests, Monitors: a.cfg.Compute.Monitors, ConfigDrive: a.configDrive, ImageAge: a.cfg.Compute.ImageAge,
			PCIInPlacement: a.cfg.PCI.ReportInPlacement}
		if a.cfg.Compute.Driver == "libvirt" {
			cfg.MaxBuilds = a.cfg.Compute.MaxBuilds
		}
		if plane != nil {
			cfg.Plane, cfg.Tunnel = plane, tunnelAddress(a.cfg)
		}
		cfg.Physical = physicalNetworks(a.cfg, i)
		ag, err := agent.New(cfg)
		if err != nil {
			return err
		}
		a.mu.Lock()
		a.onLink = append(a.onLink, ag.Reconnected)
		a.agents = append(a.agents, ag)
		a.mu.Unlock()
		wg.Add(1)
		a.background("agent "+name, func(ctx context.Context) error {
			var once sync.Once
			defer once.Do(wg.Done)
			return ag.Run(ctx, func() { once.Do(wg.Done); ready <- struct{}{} })
		})
	}
	if !a.has(Conductor) {
		return nil // it registers when a conductor is there
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case err := <-a.failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
	if len(ready) != len(names) {
		select {
		case err := <-a.failed:
			return err
		case <-time.After(time.Second):
			return errors.New("a host could not be registered")
		}
	}
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

// openDriver gives the constructor of a host's driver and data plane.
func (a *App) openDriver(ctx context.Context, dir string) (func(host string) (virt.Driver, agent.Plane, error), error) {
	if a.cfg.Compute.Driver != "fake" {
		return a.openLibvirt(ctx, dir)
	}
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
	size, err := fakeHost(a.cfg)
	if err != nil {
		return nil, err
	}
	size.DB = hyper
	return func(host string) (virt.Driver, agent.Plane, error) {
		one := size
		one.Host = host
		return fake.New(one), nil, nil
	}, nil
}
