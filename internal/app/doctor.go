package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"kilonova/internal/bus/nats"
	"kilonova/internal/compute"
	"kilonova/internal/compute/owed"
	"kilonova/internal/compute/store"
	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/compute/virt/libvirt"
	"kilonova/internal/compute/virt/libvirt/daemon"
	"kilonova/internal/config"
	"kilonova/internal/db"
	"kilonova/internal/doctor"
	"kilonova/internal/fault"
	"kilonova/internal/operation"
	placementlocal "kilonova/internal/placement/local"
)

// Examine looks at the configured cloud beside whatever runs it. Hosts are asked for their guests over the bus where other processes can reach it;
// otherwise every host is played by this machine, and its hypervisor is asked. c may name how often and how long is looked; the rest is filled in.
func Examine(ctx context.Context, cfg *config.Config, c doctor.Config) (_ *doctor.Report, err error) {
	var closers []func() error
	defer func() {
		for _, f := range closers {
			err = errors.Join(err, f())
		}
	}()
	d, err := OpenCloud(ctx, cfg)
	if err != nil {
		return nil, err
	}
	closers = append(closers, d.Close)
	if _, err := operation.New(ctx, operation.Config{DB: d, Owner: "doctor"}); err != nil {
		return nil, err
	}
	if c.Store, err = store.New(ctx, d); err != nil {
		return nil, err
	}
	if c.Owed, err = owed.New(ctx, d); err != nil {
		return nil, err
	}
	switch p, err := placementlocal.New(ctx, placementlocal.Config{DB: d}); {
	case err == nil:
		c.Allocations = p
	case cfg.Placement.URL == "" || !errors.Is(err, fault.Unavailable): // with a Placement of somebody else's the built-in one may have no tables
		return nil, err
	}
	if err := d.Migrated(ctx, "network", 1); err != nil {
		return nil, err
	}
	c.DB, c.Ports = d, doctor.PortTable{DB: d}
	if c.Silent == 0 {
		c.Silent = cfg.Compute.ServiceDownTime
	}
	if url := busURL(cfg); url != "" {
		token := cfg.Bus.Token
		if token == "" {
			s, err := openSecrets(cfg)
			if err != nil {
				return nil, err
			}
			if token, err = s.get("bus_token"); err != nil {
				return nil, err
			}
		}
		b, err := nats.Open(nats.Config{URL: url, Token: token, Name: "doctor"}, nil)
		if err != nil {
			return nil, err
		}
		closers = append(closers, b.Close)
		c.Guests = doctor.AskAgents(b)
	} else {
		h := &hypervisors{cfg: cfg, store: c.Store, drivers: map[string]virt.Driver{}}
		closers = append(closers, h.close)
		c.Guests = h.guests
	}
	return doctor.Check(ctx, c)
}

// busURL is where another process reaches the bus; "" when it cannot.
func busURL(cfg *config.Config) string {
	if cfg.Bus.URL != "" || cfg.Bus.Listen == "" {
		return cfg.Bus.URL
	}
	return "nats://" + cfg.Bus.Listen
}

// hypervisors asks the hypervisors of this machine, without their agents.
type hypervisors struct {
	cfg     *config.Config
	store   *store.Store
	drivers map[string]virt.Driver
	stops   []func() error
}

func (h *hypervisors) close() (err error) {
	for _, f := range h.stops {
		err = errors.Join(err, f())
	}
	return err
}

func (h *hypervisors) guests(ctx context.Context, host string, _ []string) (doctor.Seen, error) {
	d, err := h.driver(ctx, host)
	if err != nil {
		return doctor.Seen{}, err
	}
	all, err := d.Guests(ctx)
	if err != nil {
		return doctor.Seen{}, err
	}
	seen := doctor.Seen{Guests: map[string]virt.PowerState{}, Complete: true}
	for _, g := range all {
		seen.Guests[g.ID] = g.Power
	}
	return seen, nil
}

func (h *hypervisors) driver(ctx context.Context, host string) (virt.Driver, error) {
	if d := h.drivers[host]; d != nil {
		return d, nil
	}
	rec, err := h.store.Host(ctx, h.store.DB, host)
	if err != nil {
		return nil, err
	}
	d, err := h.open(ctx, rec)
	if err == nil {
		h.drivers[host] = d
	}
	return d, err
}

func (h *hypervisors) open(ctx context.Context, rec *compute.Host) (virt.Driver, error) {
	var info virt.HostInfo
	if err := json.Unmarshal(rec.Info, &info); err != nil {
		return nil, fmt.Errorf("host %s: %w", rec.Name, err)
	}
	if strings.EqualFold(info.HypervisorType, "fake") {
		path := h.cfg.Compute.FakeDB
		if path == "" {
			path = filepath.Join(h.cfg.Default.StateDir, "fake.db")
		}
		if _, err := os.Stat(path); err != nil {
			return nil, fault.Wrap(err, fault.Unavailable, "The fake hypervisor of host %s is not on this machine.", rec.Name)
		}
		d, err := db.Open(ctx, "sqlite:"+path)
		if err != nil {
			return nil, err
		}
		h.stops = append(h.stops, d.Close)
		return fake.New(fake.Config{DB: d, Host: rec.Name}), nil
	}
	socket := h.cfg.Compute.LibvirtSocket
	if d := daemon.Find(daemonConfig(h.cfg)); socket == "" && d != nil {
		socket = d.Socket()
	}
	d, err := libvirt.New(ctx, libvirt.Config{Socket: socket, InstancesDir: filepath.Join(instancesDir(h.cfg), "guests"), VirtType: h.cfg.Compute.VirtType})
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "The hypervisor of host %s does not answer here.", rec.Name)
	}
	h.stops = append(h.stops, d.Close)
	return d, nil
}
