package libvirt

import (
	"context"
	"encoding/xml"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/libvirt/definition"
	"kilonova/internal/compute/virt/libvirt/disk"
	"kilonova/internal/compute/virt/libvirt/host"
	"kilonova/internal/fault"
)

// hostCaps is what libvirt said of the host when the driver was opened.
type hostCaps struct {
	arch, emulator string
	virtType       string // qemu or kvm
	cpuMode        string
	uefi, tpm      bool
	secure         bool // UEFI that starts only what is signed
	version        uint64
	features       []string // CPU features that guests can have
	machines       []string // machine types, short and versioned names; empty: not known
	host           host.Capabilities
	domain         host.DomainCapabilities
}

// probe asks libvirt what the host and its guests can have.
func (d *Driver) probe(ctx context.Context) (hostCaps, error) {
	h := hostCaps{virtType: d.c.VirtType, cpuMode: d.c.CPUMode}
	text, err := d.rpc.Capabilities(ctx)
	if err != nil {
		return h, err
	}
	if err := xml.Unmarshal([]byte(text), &h.host); err != nil {
		return h, fmt.Errorf("read capabilities: %w", err)
	}
	h.arch = h.host.Host.CPU.Arch
	types := map[string]bool{}
	for _, g := range h.host.Guests {
		if g.Arch.Name == h.arch && g.OSType == "hvm" {
			h.emulator, h.machines = g.Arch.Emulator, g.Arch.Machines
			for _, t := range g.Arch.Domains {
				types[t.Type] = true
			}
		}
	}
	switch {
	case h.virtType == "" && types["kvm"] && kvmWorks(ctx, h.emulator):
		h.virtType = "kvm"
	case h.virtType == "":
		h.virtType = "qemu"
	}
	if !types[h.virtType] {
		return h, fault.New(fault.Unavailable, "The hypervisor cannot run guests of the type %q; it offers %s.", h.virtType,
			strings.Join(slices.Sorted(maps.Keys(types)), ", ")).WithHint("Install qemu-system-x86, or choose another virt_type.")
	}
	if h.cpuMode == "" {
		h.cpuMode = map[bool]string{true: "host-model", false: "none"}[h.virtType == "kvm"]
	}
	if h.version, err = d.rpc.Version(ctx); err != nil {
		return h, err
	}
	if text, err = d.rpc.DomainCapabilities(ctx, h.emulator, h.arch, d.c.Machine, h.virtType); err != nil {
		return h, err
	}
	if err := xml.Unmarshal([]byte(text), &h.domain); err != nil {
		return h, fmt.Errorf("read domain capabilities: %w", err)
	}
	h.uefi = exists(d.c.UEFICode) && exists(d.c.UEFIVars)
	code, vars := secureBoot(d.c.UEFICode, d.c.UEFIVars)
	h.secure = exists(code) && exists(vars)
	_, noTPM := disk.FindProgram("swtpm")
	h.tpm = noTPM == nil && h.domain.Devices.TPM.Supported == "yes"
	h.features = d.cpuFeatures(ctx, h)
	return h, nil
}

// cpuFeatures gives the CPU features of the model that guests can have at most. A daemon that cannot tell gives none.
func (d *Driver) cpuFeatures(ctx context.Context, h hostCaps) []string {
	const expand = 1
	for _, m := range h.domain.CPU.Modes {
		if m.Name != "host-model" || m.Supported != "yes" || m.Model == nil {
			continue
		}
		type baseline struct {
			XMLName xml.Name `xml:"cpu"`
			definition.CPU
		}
		ask := baseline{CPU: definition.CPU{Arch: h.arch, Model: &definition.CPUModel{Name: m.Model.Name}, Vendor: m.Vendor}}
		off := map[string]bool{}
		for _, f := range m.Features {
			if f.Policy == "disable" {
				off[f.Name] = true
			} else {
				ask.Features = append(ask.Features, definition.CPUFeature{Name: f.Name})
			}
		}
		text, err := definition.Encode(ask)
		if err == nil {
			text, err = d.rpc.BaselineCPU(ctx, []string{text}, expand)
		}
		var full definition.CPU
		if err == nil {
			err = xml.Unmarshal([]byte(text), &full)
		}
		if err != nil {
			d.log.Warn("libvirt does not tell the CPU's features", "error", err)
			return nil
		}
		var out []string
		for _, f := range full.Features {
			if !off[f.Name] && f.Policy != "disable" {
				out = append(out, f.Name)
			}
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	return nil
}

// Info tells what the host is and has.
func (d *Driver) Info(ctx context.Context) (*virt.HostInfo, error) {
	name, err := d.rpc.Hostname(ctx)
	if err != nil {
		return nil, err
	}
	node, err := d.rpc.NodeInfo(ctx)
	if err != nil {
		return nil, err
	}
	mem, err := d.rpc.NodeMemory(ctx)
	if err != nil {
		return nil, err
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(d.c.InstancesDir, &fs); err != nil {
		return nil, fmt.Errorf("instances directory: %w", err)
	}
	block := int64(fs.Bsize)
	total := int64(max(mem["total"], 0) / 1024)
	info := &virt.HostInfo{
		Hostname: name, HypervisorType: "QEMU", HypervisorVersion: int(d.caps.version), VCPUs: int(node.CPUs), MemoryMB: total,
		MemoryUsedMB: total - int64((mem["free"]+mem["buffers"]+mem["cached"])/1024),
		DiskGB:       int64(fs.Blocks) * block / gib, FreeDiskGB: int64(fs.Bavail) * block / gib, HostIP: d.hostIP(), Uptime: host.Uptime(),
		Supported: d.supported(), Traits: host.Traits(host.Has{Arch: d.caps.arch, Features: d.caps.features, Caps: &d.caps.host, Domain: &d.caps.domain, UEFI: d.caps.uefi, SecureBoot: d.caps.secure, TPM: d.caps.tpm}), Stats: map[string]string{"virt_type": d.caps.virtType, "cpu_mode": d.caps.cpuMode},
	}
	if err := d.hardware(ctx, info); err != nil {
		return nil, err
	}
	cpu := d.caps.host.Host.CPU
	info.CPUInfo = map[string]any{"arch": d.caps.arch, "vendor": cpu.Vendor, "features": d.caps.features,
		"topology": map[string]any{"cells": node.Nodes, "sockets": node.Sockets, "cores": node.Cores, "threads": node.Threads}}
	if cpu.Model != nil {
		info.CPUInfo["model"] = cpu.Model.Name
	}
	return info, nil
}

// hardware tells of NUMA nodes, whose stock of pages may change, and of PCI devices.
func (d *Driver) hardware(ctx context.Context, info *virt.HostInfo) error {
	text, err := d.rpc.Capabilities(ctx)
	if err != nil {
		return err
	}
	var now host.Capabilities
	if err := xml.Unmarshal([]byte(text), &now); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	info.NUMA = host.Cells(&now, d.c.DedicatedCPUs, d.c.SharedCPUs, d.c.ReservedPages)
	sys := os.DirFS(d.sys())
	if info.PCI, err = host.Devices(sys, d.c.Devices); err != nil {
		return err
	}
	info.Mediated, err = host.Mediated(sys, d.c.Mediated)
	return err
}

func (d *Driver) hostIP() string {
	if d.c.HostIP != "" {
		return d.c.HostIP
	}
	c, err := net.Dial("udp4", "192.0.2.1:9") // sends nothing; tells which address leads outward
	if err != nil {
		return "127.0.0.1"
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).IP.String()
}

// supported lists the kinds of guest as Nova names them.
func (d *Driver) supported() [][3]string {
	var out [][3]string
	for _, g := range d.caps.host.Guests {
		if g.Arch.Name != d.caps.arch && g.Arch.Name != "i686" {
			continue
		}
		for _, t := range g.Arch.Domains {
			out = append(out, [3]string{g.Arch.Name, t.Type, g.OSType})
		}
	}
	return out
}

// UUID gives the host's id as libvirt knows it.
func (d *Driver) UUID() string { return d.caps.host.Host.UUID }
