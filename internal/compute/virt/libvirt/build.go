package libvirt

import (
	"cmp"
	"context"
	"encoding/xml"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"

	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/libvirt/definition"
	"kilonova/internal/compute/virt/libvirt/rpc"
	"kilonova/internal/fault"
	"kilonova/internal/network"
)

// build makes the domain definition of a spec. old is the definition that is there, or nil: ports stay as they are.
func (d *Driver) build(spec *virt.Spec, old *definition.Domain) (*definition.Domain, error) {
	o, err := definition.ParseOptions(spec)
	if err != nil {
		return nil, err
	}
	if spec.VCPUs < 1 || spec.MemoryMB < 1 {
		return nil, fault.New(fault.Invalid, "A server needs at least one CPU and 1 MiB of memory.")
	}
	x := &definition.Domain{
		Type: d.caps.virtType, UUID: spec.ID, Name: spec.Name, Memory: mib(spec.MemoryMB), CurrentMemory: new(mib(spec.MemoryMB)),
		VCPU: definition.VCPU{N: spec.VCPUs},
		Metadata: &definition.Metadata{Server: &definition.Server{ID: spec.ID, Name: spec.Display, Flavor: spec.FlavorName,
			Project: spec.ProjectID, User: spec.UserID, Rescue: spec.Rescue != nil}},
		SysInfo: &definition.SysInfo{Type: "smbios", Entries: []definition.Entry{
			{Name: "manufacturer", Value: "Kilonova"}, {Name: "product", Value: "OpenStack Nova"}, // cloud-init looks for this product
			{Name: "serial", Value: spec.ID}, {Name: "uuid", Value: spec.ID}, {Name: "family", Value: "Virtual Machine"}}},
		Features: definition.Features{ACPI: &definition.Present{}, APIC: &definition.Present{}},
		Clock: definition.Clock{Offset: "utc", Timers: []definition.Timer{{Name: "pit", TickPolicy: "delay"}, {Name: "rtc", TickPolicy: "catchup"},
			{Name: "hpet", Present: "no"}}},
		OnPoweroff: "destroy", OnReboot: "restart", OnCrash: "destroy",
	}
	if err := d.buildSystem(x, spec, o); err != nil {
		return nil, err
	}
	if err := d.buildCPU(x, spec, o); err != nil {
		return nil, err
	}
	if err := d.buildDevices(x, spec, o, old); err != nil {
		return nil, err
	}
	return x, nil
}

func mib(n int64) definition.Size { return definition.Size{Unit: "MiB", Value: n} }

// buildSystem sets firmware, features and memory.
func (d *Driver) buildSystem(x *definition.Domain, spec *virt.Spec, o *definition.Options) error {
	machine := o.Machine
	if machine == "" {
		machine = d.c.Machine
		o.Q35 = strings.Contains(machine, "q35")
		if o.Q35 && spec.ImageProps["hw_cdrom_bus"] == "" {
			o.CDROMBus = "sata"
		}
	}
	if known := d.caps.machines; len(known) > 0 && !slices.Contains(known, machine) {
		return fault.New(fault.NotImplemented, "The host's QEMU has no machine type %q.", machine).WithHint("Set hw_machine_type to pc or q35, or to a version that the host has.")
	}
	x.OS = definition.OS{Type: definition.OSType{Arch: d.caps.arch, Machine: machine, Value: "hvm"}, SMBIOS: &definition.Mode{Mode: "sysinfo"}}
	if o.Menu {
		x.OS.Menu = &definition.Enable{Enable: "yes"}
	}
	if o.UEFI {
		if !d.caps.uefi {
			return fault.New(fault.NotImplemented, "The host has no UEFI firmware.").WithHint("Install the package ovmf on it.")
		}
		code, vars := d.c.UEFICode, d.c.UEFIVars
		x.OS.Loader = &definition.Loader{ReadOnly: "yes", Type: "pflash"}
		if o.Secure {
			if !o.Q35 || !d.caps.secure {
				return fault.New(fault.NotImplemented, "Secure boot needs the machine type q35 and firmware with enrolled keys.").WithHint("Set hw_machine_type to q35; install the package ovmf on the host.")
			}
			code, vars = secureBoot(code, vars)
			x.OS.Loader.Secure, x.Features.SMM = "yes", &definition.State{State: "on"}
		}
		x.OS.Loader.Path = code
		if o.Stateless {
			x.OS.Loader.Stateless = "yes"
		} else {
			x.OS.NVRAM = &definition.NVRAM{Template: vars, Path: d.path(spec.ID, nvramFile)}
		}
	}
	if o.Windows {
		x.Clock.Offset = "localtime"
		on := definition.State{State: "on"}
		x.Features.HyperV = &definition.HyperV{Relaxed: on, VAPIC: on, Spinlocks: definition.State{State: "on", Retries: 8191}}
	}
	if o.HPET {
		x.Clock.Timers[2].Present = "yes"
	}
	if o.HideHypervisor {
		x.Features.KVM = &definition.KVM{Hidden: definition.State{State: "on"}}
	}
	if o.PMU != "" {
		x.Features.PMU = &definition.State{State: o.PMU}
	}
	if o.Memory != (definition.MemTune{}) {
		x.MemTune = &o.Memory
	}
	return nil
}

// secureBoot names the firmware that only starts what is signed, which lies beside the other.
func secureBoot(code, vars string) (string, string) {
	return strings.TrimSuffix(code, ".fd") + ".secboot.fd", strings.TrimSuffix(vars, ".fd") + ".ms.fd"
}

// buildCPU sets model, topology, NUMA nodes, shares and pins.
func (d *Driver) buildCPU(x *definition.Domain, spec *virt.Spec, o *definition.Options) error {
	c := definition.CPU{Topology: o.Topology}
	switch mode := d.caps.cpuMode; mode {
	case "none":
	case "custom":
		c.Mode, c.Match, c.Model = "custom", "exact", &definition.CPUModel{Fallback: "forbid", Name: d.c.CPUModel}
	default:
		c.Mode = mode
	}
	if len(o.Cells) > 0 {
		c.NUMA = &definition.NUMA{Cells: o.Cells}
	}
	if c.Mode != "" || c.Topology != nil || c.NUMA != nil {
		x.CPU = &c
	}
	if o.Tune.Shares != 0 || o.Tune.Period != 0 || o.Tune.Quota != 0 {
		x.CPUTune = &o.Tune
	}
	switch {
	case spec.Claim != nil && !spec.Claim.LacksVGPU(spec.ExtraSpecs):
		x.Settle(spec.Claim, o)
	case o.Dedicated || o.Large || o.Device || spec.Claim.LacksVGPU(spec.ExtraSpecs):
		return fault.New(fault.Conflict, "No CPUs, memory pages or devices of the host were set aside for the server.").
			WithHint("Hosts offer dedicated CPUs by the option cpu_dedicated_set, devices by [pci] device_spec, virtual GPUs by [devices] enabled_mdev_types.")
	}
	if len(d.c.SharedCPUs) > 0 && x.NUMATune == nil { // with NUMA nodes, each virtual CPU has its own set
		x.VCPU.Placement, x.VCPU.CPUSet = "static", definition.JoinInts(d.c.SharedCPUs)
	}
	return nil
}

// letters gives target device names in turn: vda, vdb … sdz.
type letters struct {
	used, reserved map[string]bool
}

// next takes want when it fits the bus and is free, otherwise the first free name.
func (l *letters) next(bus, want string) string {
	if l.used == nil {
		l.used = map[string]bool{}
	}
	want = strings.TrimPrefix(want, "/dev/")
	if strings.HasPrefix(want, definition.TargetPrefix(bus)) && len(want) > 2 && !l.used[want] {
		l.used[want] = true
		return want
	}
	for i := 0; ; i++ {
		name := definition.TargetPrefix(bus) + diskLetters(i)
		if !l.used[name] && !l.reserved[name] {
			l.used[name] = true
			return name
		}
	}
}

// diskLetters counts a … z, aa, ab …
func diskLetters(i int) string {
	s := ""
	for i++; i > 0; i = (i - 1) / 26 {
		s = string(rune('a'+(i-1)%26)) + s
	}
	return s
}

// buildDevices sets everything that is plugged in.
func (d *Driver) buildDevices(x *definition.Domain, spec *virt.Spec, o *definition.Options, old *definition.Domain) error {
	dev := &x.Devices
	dev.Emulator = d.caps.emulator
	if o.Q35 {
		zero := 0
		dev.Controllers = append(dev.Controllers, definition.Controller{Type: "pci", Index: &zero, Model: "pcie-root"})
		for range d.c.PCIePorts { // free slots for what is plugged in later
			dev.Controllers = append(dev.Controllers, definition.Controller{Type: "pci", Model: "pcie-root-port"})
		}
	}
	disks, err := d.buildDisks(spec, o)
	if err != nil {
		return err
	}
	dev.Disks = disks
	for _, k := range disks {
		if k.Target.Bus == "scsi" {
			dev.Controllers = append(dev.Controllers, definition.Controller{Type: "scsi", Model: "virtio-scsi"})
			break
		}
	}
	for _, v := range spec.VIFs {
		if network.IsDevice(v.VNICType) {
			if err := d.buildDevicePort(dev, spec, v); err != nil {
				return err
			}
			continue
		}
		i, err := buildInterface(spec, v, o)
		if err != nil {
			return err
		}
		dev.Interfaces = append(dev.Interfaces, *i)
	}
	if dev.Serials, err = d.buildSerials(spec, o, old); err != nil {
		return err
	}
	if o.Agent {
		dev.Channels = []definition.Channel{{Type: "unix", Target: definition.ChannelTarget{Type: "virtio", Name: "org.qemu.guest_agent.0"}}}
	}
	if o.Pointer == "usbtablet" || o.Pointer == "" {
		dev.Inputs = []definition.Input{{Type: "tablet", Bus: "usb"}}
	}
	if o.Video != "none" {
		model := o.Video
		if model == "" {
			model = "vga"
		}
		dev.Graphics = []definition.Graphics{{Type: "vnc", Port: -1, AutoPort: "yes", Listen: d.c.VNCListen}}
		if d.c.SPICE {
			dev.Graphics = append(dev.Graphics, definition.Graphics{Type: "spice", Port: -1, AutoPort: "yes", Listen: d.c.VNCListen})
			dev.Channels = append(dev.Channels, definition.Channel{Type: "spicevmc", Target: definition.ChannelTarget{Type: "virtio", Name: "com.redhat.spice.0"}})
		}
		dev.Video = &definition.Video{Model: definition.VideoModel{Type: model, VRAM: o.VideoMB << 10}}
	}
	if o.Watchdog != "" && o.Watchdog != "disabled" {
		dev.Watchdog = &definition.Watchdog{Model: "i6300esb", Action: o.Watchdog}
	}
	if o.TPMVersion != "" || o.TPMModel != "" {
		if !d.caps.tpm {
			return fault.New(fault.NotImplemented, "The host cannot emulate a TPM.").WithHint("Install the packages swtpm and swtpm-tools on it.")
		}
		dev.TPM = &definition.TPM{Model: cmp.Or(o.TPMModel, "tpm-tis"), Backend: definition.TPMBackend{Type: "emulator", Version: cmp.Or(o.TPMVersion, "2.0")}}
	}
	if o.Sound != "" {
		dev.Sound = &definition.Modelled{Model: o.Sound}
	}
	switch {
	case o.IOMMU == "intel" && !o.Q35:
		return fault.New(fault.Invalid, "The IOMMU model intel needs the machine type q35.")
	case o.IOMMU == "intel":
		dev.IOMMU = &definition.Modelled{Model: "intel"}
		x.Features.IOAPIC = &definition.Driver{Name: "qemu"} // so that it can remap interrupts
	case o.IOMMU != "":
		dev.IOMMU = &definition.Modelled{Model: "virtio"}
	}
	dev.Balloon = &definition.Balloon{Model: "virtio"}
	if d.c.MemoryStats > 0 {
		dev.Balloon.Stats = &definition.BalloonStats{Period: int(math.Ceil(d.c.MemoryStats.Seconds()))}
	}
	if o.RNG {
		dev.RNG = &definition.RNG{Model: "virtio", Backend: definition.RNGBackend{Model: "random", Path: d.c.RNGDevice}}
		if o.RNGBytes > 0 {
			dev.RNG.Rate = &definition.RNGRate{Bytes: o.RNGBytes, Period: o.RNGPeriod}
		}
	}
	return nil
}

// buildDisks lists the disks in the order in which the guest finds them: root (or, in rescue, the rescue disk before it), ephemeral, swap,
// volumes, config drive.
func (d *Driver) buildDisks(spec *virt.Spec, o *definition.Options) ([]definition.Disk, error) {
	var out []definition.Disk
	names := letters{reserved: map[string]bool{}}
	for _, v := range spec.Disks { // volumes have their names; the other disks take those that are left
		names.reserved[strings.TrimPrefix(v.Device, "/dev/")] = true
	}
	add := func(k definition.Disk, bus, want string) *definition.Disk {
		k.Target = definition.DiskTarget{Dev: names.next(bus, want), Bus: bus}
		out = append(out, k)
		return &out[len(out)-1]
	}
	file := func(name, format string) definition.Disk {
		k := definition.Disk{Type: "file", Device: "disk", Driver: definition.DiskDriver{Name: "qemu", Type: format, Cache: d.cache, Discard: "unmap"},
			Source: &definition.DiskSource{File: d.path(spec.ID, name)}, Serial: serialOf(spec.ID, name)}
		if o.IO != (definition.IOTune{}) {
			k.Tune = &o.IO
		}
		return k
	}
	stable := o.RescueBus != "" || o.RescueDevice != ""
	rescueBus := cmp.Or(o.RescueBus, o.DiskBus)
	if spec.Rescue != nil && !stable {
		add(file(rescueDisk, "qcow2"), rescueBus, "").Boot = &definition.Boot{Order: 1}
	}
	hasRoot := d.hasRoot(spec)
	if hasRoot {
		k := add(file(rootDisk, "qcow2"), o.DiskBus, "")
		if spec.Rescue == nil {
			k.Boot = &definition.Boot{Order: 1}
		}
	}
	if spec.Rescue == nil || stable {
		if spec.EphemeralGB > 0 {
			add(file(ephemeralDisk, "raw"), o.DiskBus, "")
		}
		if spec.SwapMB > 0 {
			add(file(swapDisk, "raw"), o.DiskBus, "")
		}
		for _, v := range spec.Disks {
			k, err := definition.Volume(v, o, d.cache)
			if err != nil {
				return nil, err
			}
			bus := k.Target.Bus
			k = add(*k, bus, v.Device)
			if v.BootIndex >= 0 && spec.Rescue == nil && (!hasRoot || v.BootIndex > 0) {
				k.Boot = &definition.Boot{Order: v.BootIndex + 1}
			}
		}
	}
	if spec.Rescue != nil && stable {
		k := file(rescueDisk, "qcow2")
		if o.RescueDevice == "cdrom" {
			k.Device, k.Driver.Discard, k.ReadOnly = "cdrom", "", &definition.Present{}
			rescueBus = cmp.Or(o.RescueBus, o.CDROMBus)
		}
		add(k, rescueBus, "").Boot = &definition.Boot{Order: 1}
	}
	if exists(d.path(spec.ID, configDisk)) {
		add(definition.Disk{Type: "file", Device: "cdrom", Driver: definition.DiskDriver{Name: "qemu", Type: "raw"},
			Source: &definition.DiskSource{File: d.path(spec.ID, configDisk)}, ReadOnly: &definition.Present{}}, o.CDROMBus, definition.TargetPrefix(o.CDROMBus)+"d")
	}
	return out, uniqueBoot(out)
}

// uniqueBoot refuses two devices with one place in the boot order.
func uniqueBoot(disks []definition.Disk) error {
	seen := map[int]bool{}
	for _, k := range disks {
		if k.Boot != nil && seen[k.Boot.Order] {
			return fault.New(fault.Invalid, "Two block devices have the boot index %d.", k.Boot.Order-1)
		} else if k.Boot != nil {
			seen[k.Boot.Order] = true
		}
	}
	return nil
}

// serialOf makes the serial number by which the guest can tell a disk: virtio shows 20 characters.
func serialOf(guest, name string) string {
	return strings.ReplaceAll(guest, "-", "")[:12] + "-" + strings.TrimPrefix(strings.TrimPrefix(name, "disk"), ".")
}

// interfaceAlias names an interface by its port, so that it can be found again.
func interfaceAlias(v network.VIF) *definition.Alias {
	if v.PortID == "" {
		return nil
	}
	return &definition.Alias{Name: "ua-" + v.PortID}
}

func buildInterface(spec *virt.Spec, v network.VIF, o *definition.Options) (*definition.Interface, error) {
	if v.Bridge == "" {
		return nil, fault.New(fault.Conflict, "The port %s is not bound to a bridge of this host.", v.PortID)
	}
	if _, err := net.ParseMAC(v.MAC); err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "The port %s has the impossible MAC address %q.", v.PortID, v.MAC)
	}
	model := cmp.Or(v.Model, cmp.Or(o.VIFModel, "virtio"))
	i := &definition.Interface{Type: "bridge", MAC: definition.MAC{Address: v.MAC}, Source: definition.InterfaceSource{Bridge: v.Bridge},
		Model: &definition.InterfaceModel{Type: model}, Alias: interfaceAlias(v)}
	if v.Tap != "" {
		i.Target = &definition.InterfaceTarget{Dev: v.Tap}
	}
	if v.MTU > 0 {
		i.MTU = &definition.MTU{Size: v.MTU}
	}
	if model == "virtio" && (o.Multiqueue || o.Packed) {
		i.Driver = &definition.InterfaceDriver{Name: "qemu"}
		if o.Multiqueue && spec.VCPUs > 1 {
			i.Driver.Queues = min(spec.VCPUs, 8)
		}
		if o.Packed {
			i.Driver.Packed = "on"
		}
	}
	if o.Bandwidth != (definition.Bandwidth{}) {
		i.Bandwidth = &o.Bandwidth
	}
	return i, nil
}

// buildSerials gives the first port the console log. Ports that the old definition has are kept while they are free or the guest's own.
func (d *Driver) buildSerials(spec *virt.Spec, o *definition.Options, old *definition.Domain) ([]definition.Serial, error) {
	var out []definition.Serial
	mine := map[int]bool{}
	for n := range o.SerialPorts {
		port := 0
		if old != nil && n < len(old.Devices.Serials) && old.Devices.Serials[n].Source != nil {
			port, _ = strconv.Atoi(old.Devices.Serials[n].Source.Service)
		}
		if port == 0 || !d.portFree(port) {
			var err error
			if port, err = d.freePort(mine); err != nil {
				return nil, err
			}
		}
		mine[port] = true
		s := definition.Serial{Type: "tcp", Source: &definition.SerialSource{Mode: "bind", Host: d.c.SerialListen, Service: strconv.Itoa(port)},
			Protocol: &definition.Protocol{Type: "raw"}, Target: &definition.Port{Port: n}}
		if n == 0 {
			s.Log = &definition.Log{File: d.path(spec.ID, consoleFile), Append: "on"}
		}
		out = append(out, s)
	}
	return out, nil
}

// portFree tries to listen.
func (d *Driver) portFree(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort(d.c.SerialListen, strconv.Itoa(port)))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// freePort looks for a port nobody listens on, starting anywhere, so that two agents on one machine rarely meet.
func (d *Driver) freePort(not map[int]bool) (int, error) {
	first, n := d.c.SerialPorts[0], d.c.SerialPorts[1]-d.c.SerialPorts[0]+1
	start := rand.IntN(n)
	for i := range n {
		port := first + (start+i)%n
		if !not[port] && d.portFree(port) {
			return port, nil
		}
	}
	return 0, fault.New(fault.Unavailable, "No port for a serial console is free on the host.")
}

// define writes the definition of spec to libvirt.
func (d *Driver) define(ctx context.Context, spec *virt.Spec, old *definition.Domain) (rpc.Domain, error) {
	x, err := d.build(spec, old)
	if err != nil {
		return rpc.Domain{}, err
	}
	text, err := xml.Marshal(x)
	if err != nil {
		return rpc.Domain{}, fmt.Errorf("write definition: %w", err)
	}
	dom, err := d.rpc.Define(ctx, string(text), 0)
	if err != nil {
		return dom, fmt.Errorf("define %s: %w", spec.Name, err)
	}
	return dom, nil
}
