package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/compute/agent"
	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/libvirt"
	"kilonova/internal/compute/virt/libvirt/daemon"
	"kilonova/internal/compute/virt/libvirt/host"
	"kilonova/internal/config"
	"kilonova/internal/network/dataplane"
)

func instancesDir(cfg *config.Config) string {
	if cfg.Compute.Dir != "" {
		return cfg.Compute.Dir
	}
	return filepath.Join(cfg.Default.StateDir, "instances")
}

func daemonConfig(cfg *config.Config) daemon.Config {
	c := daemon.Config{Dir: filepath.Join(cfg.Default.StateDir, "libvirt"), MigrationAddress: cfg.Compute.MyIP}
	if cfg.Compute.MyIP != "" {
		c.ListenTCP = net.JoinHostPort(cfg.Compute.MyIP, "16509")
	}
	return c
}

// tunnelAddress is where this host's tunnels end; "" for a host without them.
func tunnelAddress(cfg *config.Config) string { return cmp.Or(cfg.Network.LocalIP, cfg.Compute.MyIP) }

func planeConfig(cfg *config.Config) (dataplane.Config, error) {
	c := dataplane.Config{StateDir: filepath.Join(cfg.Default.StateDir, "dataplane")}
	for _, s := range cfg.Network.DNS {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return c, fmt.Errorf("[network] dns_servers: %w", err)
		}
		c.DNS = append(c.DNS, a)
	}
	for _, s := range cfg.Network.Physical {
		name, link, ok := strings.Cut(s, ":")
		if !ok || name == "" || link == "" {
			return c, fmt.Errorf("[network] physical_interface_mappings: %q is not PHYSICAL_NETWORK:INTERFACE", s)
		}
		if c.Physical == nil {
			c.Physical = map[string]string{}
		}
		c.Physical[name] = link
	}
	c.Outside = cfg.Network.Outside
	if ip := tunnelAddress(cfg); ip != "" {
		var err error
		if c.Tunnel, err = netip.ParseAddr(ip); err != nil {
			return c, fmt.Errorf("[network] local_ip or [compute] my_ip: %w", err)
		}
	}
	return c, nil
}

// openLibvirt gives this host's libvirt driver and data plane; nil: it has none. A libvirtd is started when none answers; it and the guests outlive this process.
func (a *App) openLibvirt(ctx context.Context, dir string) (virt.Driver, agent.Plane, error) {
	socket := a.cfg.Compute.LibvirtSocket
	if socket == "" {
		var err error
		if _, socket, err = daemon.Ensure(ctx, daemonConfig(a.cfg)); err != nil {
			return nil, nil, err
		}
	}
	cc := a.cfg.Compute
	lc := libvirt.Config{Socket: socket, Host: cc.Host, InstancesDir: filepath.Join(dir, "guests"), VirtType: cc.VirtType, HostIP: cc.MyIP, VNCListen: cc.VNCListen, SerialListen: cc.VNCListen,
		Machine: cc.MachineType, CPUMode: cc.CPUMode, CPUModel: cc.CPUModel, DiskCache: cc.DiskCache, SPICE: a.cfg.Console.SPICE, PCIePorts: cc.PCIePorts, RNGDevice: cc.RNGDevice,
		MemoryStats: cc.MemoryStats, MigrationBandwidth: uint64(cc.MigrationSpeed)}
	if err := hardware(a.cfg, &lc); err != nil {
		return nil, nil, err
	}
	if ip := a.cfg.Compute.MyIP; ip != "" {
		lc.MigrationURI, lc.MigrationAddress = "qemu+tcp://"+ip+"/system", ip
		if !strings.HasPrefix(lc.VNCListen, "127.") {
			lc.ConsoleHost = ip
		}
	}
	d, err := libvirt.New(ctx, lc)
	if err != nil {
		return nil, nil, err
	}
	a.onStop("libvirt driver", func(context.Context) error { return d.Close() })
	if !a.cfg.Network.DataPlane {
		return d, nil, nil
	}
	pc, err := planeConfig(a.cfg)
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(pc.StateDir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("data plane: %w", err)
	}
	if pc.Metadata, err = a.guestMetadata(); err != nil {
		return nil, nil, err
	}
	plane, err := dataplane.New(pc)
	if err != nil {
		return nil, nil, err
	}
	a.onStop("data plane", func(context.Context) error { return plane.Close(false) })
	return d, plane, nil
}

// hardware reads the options that say which CPUs, pages, devices and ports guests may have.
func hardware(cfg *config.Config, lc *libvirt.Config) (err error) {
	if lc.DedicatedCPUs, err = compute.ParseCPUs(cfg.Compute.DedicatedCPUs); err != nil {
		return fmt.Errorf("[compute] cpu_dedicated_set: %w", err)
	}
	if lc.SharedCPUs, err = compute.ParseCPUs(cfg.Compute.SharedCPUs); err != nil {
		return fmt.Errorf("[compute] cpu_shared_set: %w", err)
	}
	for _, n := range lc.SharedCPUs {
		if slices.Contains(lc.DedicatedCPUs, n) {
			return fmt.Errorf("[compute] CPU %d is in cpu_dedicated_set and in cpu_shared_set", n)
		}
	}
	if lc.ReservedPages, err = host.ParseReservedPages(cfg.Compute.ReservedPages); err != nil {
		return fmt.Errorf("[compute] %w", err)
	}
	if n, err := fmt.Sscanf(cfg.Compute.SerialPorts, "%d:%d", &lc.SerialPorts[0], &lc.SerialPorts[1]); n != 2 || err != nil || lc.SerialPorts[0] < 1 ||
		lc.SerialPorts[1] < lc.SerialPorts[0] || lc.SerialPorts[1] > 65535 {
		return fmt.Errorf("[compute] serial_port_range %q: write it as 10000:19999", cfg.Compute.SerialPorts)
	}
	if lc.PCIePorts < 1 || lc.PCIePorts > 28 {
		return fmt.Errorf("[compute] num_pcie_ports %d: 1 to 28 are possible", lc.PCIePorts)
	}
	if lc.Devices, err = compute.ParseDeviceSpecs(cfg.PCI.DeviceSpec); err != nil {
		return err
	}
	if lc.Mediated, err = compute.ParseMediatedTypes(cfg.Devices.MDEVTypes); err != nil {
		return err
	}
	if cfg.PCI.ReportInPlacement && slices.ContainsFunc(lc.Devices, func(s compute.DeviceSpec) bool { return s.Named() }) {
		return fmt.Errorf("[pci] device_spec finds devices by devname, which report_in_placement does not allow: name their addresses")
	}
	return nil
}

// HostDown makes a host as it was before its agent came: guests are shut down, the libvirtd that Kilonova started ends, and bridges, taps, rules and settings
// go. The guests' disks stay: the next start of the agent boots the guests again. The agent must not run.
func HostDown(ctx context.Context, cfg *config.Config, grace time.Duration, say func(string)) error {
	if cfg.Compute.Driver != "libvirt" {
		return nil
	}
	var errs []error
	if d := daemon.Find(daemonConfig(cfg)); d != nil {
		errs = append(errs, stopGuests(ctx, cfg, d.Socket(), grace, say))
		say("stopping libvirtd")
		errs = append(errs, d.Stop(ctx))
	} else if s := cfg.Compute.LibvirtSocket; s != "" {
		errs = append(errs, stopGuests(ctx, cfg, s, grace, say))
	} else if _, err := os.Stat(daemon.SystemSocket); err == nil {
		errs = append(errs, stopGuests(ctx, cfg, daemon.SystemSocket, grace, say))
	}
	pc, err := planeConfig(cfg)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	if _, err := os.Stat(pc.StateDir); err == nil {
		plane, err := dataplane.New(pc)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		say("removing bridges, taps and firewall rules")
		errs = append(errs, plane.Close(true))
	}
	return errors.Join(errs...)
}

func stopGuests(ctx context.Context, cfg *config.Config, socket string, grace time.Duration, say func(string)) error {
	d, err := libvirt.New(ctx, libvirt.Config{Socket: socket, InstancesDir: filepath.Join(instancesDir(cfg), "guests"), VirtType: cfg.Compute.VirtType})
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	guests, err := d.Guests(ctx)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, len(guests))
	for i, g := range guests {
		if g.Power == virt.Shutdown || g.Power == virt.Crashed || g.Power == virt.Suspended {
			continue
		}
		say("shutting down the guest of server " + g.ID)
		wg.Go(func() { errs[i] = d.PowerOff(ctx, g.ID, grace) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
