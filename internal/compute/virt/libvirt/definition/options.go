package definition

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/compute/virt"
	"kilonova/internal/fault"
)

// Options is what extra specs ("hw:", "quota:") and image properties ("hw_", "os_") ask of a guest, read and checked.
type Options struct {
	Machine              string // "" the host's default
	Q35                  bool
	UEFI                 bool
	DiskBus, CDROMBus    string
	VIFModel             string
	Video                string
	VideoMB              int64
	Agent, RNG, Menu     bool
	RNGBytes, RNGPeriod  int64
	Watchdog             string
	Pointer              string
	Windows              bool
	HideHypervisor       bool
	PMU                  string
	HPET                 bool
	SerialPorts          int
	Topology             *Topology
	Cells                []Cell
	Dedicated            bool  // some virtual CPUs are pinned
	Large                bool  // pages other than the usual ones
	Device               bool  // a PCI device
	Realtime             []int // virtual CPUs
	Locked               bool
	Secure, Stateless    bool // of UEFI
	Sound, IOMMU         string
	Multiqueue, Packed   bool
	TPMModel, TPMVersion string
	Tune                 CPUTune
	Memory               MemTune
	IO                   IOTune
	Bandwidth            Bandwidth
	RescueBus            string
	RescueDevice         string
}

// setting is one way to ask for something: an extra spec and an image property of the same meaning. The flavor wins where both are given.
type setting struct {
	spec, prop string
	set        func(o *Options, v string) error
}

func oneOf(target func(*Options) *string, allowed ...string) func(*Options, string) error {
	return func(o *Options, v string) error {
		if !slices.Contains(allowed, v) {
			return fmt.Errorf("must be one of %s", strings.Join(allowed, ", "))
		}
		*target(o) = v
		return nil
	}
}

func boolean(target func(*Options) *bool) func(*Options, string) error {
	return func(o *Options, v string) error {
		b, err := parseBool(v)
		*target(o) = b
		return err
	}
}

func oneOfWords(v string, allowed ...string) error {
	return oneOf(func(*Options) *string { return new(string) }, allowed...)(nil, v)
}

// parseBool reads the words that OpenStack takes for yes and no.
func parseBool(v string) (bool, error) {
	switch strings.ToLower(v) {
	case "1", "t", "true", "on", "y", "yes", "required", "optional", "enabled":
		return true, nil
	case "0", "f", "false", "off", "n", "no", "disabled", "":
		return false, nil
	}
	return false, fmt.Errorf("must be true or false")
}

func number(target func(*Options) *int64, least int64) func(*Options, string) error {
	return func(o *Options, v string) error {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < least {
			return fmt.Errorf("must be a whole number of at least %d", least)
		}
		*target(o) = n
		return nil
	}
}

// rate sets a field of a bandwidth direction.
func rate(direction func(*Bandwidth) **Rate, field func(*Rate) *int64) func(*Options, string) error {
	return func(o *Options, v string) error {
		r := direction(&o.Bandwidth)
		if *r == nil {
			*r = &Rate{}
		}
		return number(func(*Options) *int64 { return field(*r) }, 1)(o, v)
	}
}

var machineForm = regexp.MustCompile(`^(pc|q35|pc-i440fx-[a-z0-9.]+|pc-q35-[a-z0-9.]+)$`)

func setMachine(o *Options, v string) error {
	if !machineForm.MatchString(v) {
		return fmt.Errorf("must be pc, q35 or a versioned name of these")
	}
	o.Machine, o.Q35 = v, strings.Contains(v, "q35")
	return nil
}

func setFirmware(o *Options, v string) error {
	o.UEFI = v == "uefi"
	if v != "uefi" && v != "bios" {
		return fmt.Errorf("must be bios or uefi")
	}
	return nil
}

// setPageSize does not say which pages the guest gets: that is chosen where it is known what the host has.
func setPageSize(o *Options, v string) error {
	if v == "small" || v == "any" {
		return nil
	}
	o.Large = true
	if v == "large" {
		return nil
	}
	n := v
	for _, suffix := range []string{"KB", "MB", "GB", "KiB", "MiB", "GiB"} {
		n = strings.TrimSuffix(n, suffix)
	}
	if k, err := strconv.ParseInt(n, 10, 64); err != nil || k <= 0 {
		return fmt.Errorf("must be small, large, any or a size such as 2MB")
	}
	return nil
}

func inbound(b *Bandwidth) **Rate  { return &b.Inbound }
func outbound(b *Bandwidth) **Rate { return &b.Outbound }

// settings is the table of what can be asked for.
func settings() []setting {
	return []setting{
		{"", "hw_machine_type", setMachine},
		{"", "hw_firmware_type", setFirmware},
		{"", "hw_disk_bus", oneOf(func(o *Options) *string { return &o.DiskBus }, "virtio", "scsi", "ide", "sata")},
		{"", "hw_cdrom_bus", oneOf(func(o *Options) *string { return &o.CDROMBus }, "virtio", "scsi", "ide", "sata")},
		{"", "hw_scsi_model", oneOf(func(*Options) *string { return new(string) }, "virtio-scsi")},
		{"", "hw_vif_model", oneOf(func(o *Options) *string { return &o.VIFModel }, "virtio", "e1000", "e1000e", "rtl8139", "ne2k_pci", "pcnet")},
		{"", "hw_video_model", oneOf(func(o *Options) *string { return &o.Video }, "vga", "cirrus", "virtio", "qxl", "bochs", "none")},
		{"", "hw_video_ram", number(func(o *Options) *int64 { return &o.VideoMB }, 1)},
		{"", "hw_qemu_guest_agent", boolean(func(o *Options) *bool { return &o.Agent })},
		{"", "hw_rng_model", oneOf(func(*Options) *string { return new(string) }, "virtio")},
		{"hw_rng:allowed", "", boolean(func(o *Options) *bool { return &o.RNG })},
		{"hw_rng:rate_bytes", "", number(func(o *Options) *int64 { return &o.RNGBytes }, 1)},
		{"hw_rng:rate_period", "", number(func(o *Options) *int64 { return &o.RNGPeriod }, 1)},
		{"hw:watchdog_action", "hw_watchdog_action", oneOf(func(o *Options) *string { return &o.Watchdog }, "disabled", "none", "reset", "poweroff", "pause")},
		{"hw:boot_menu", "hw_boot_menu", boolean(func(o *Options) *bool { return &o.Menu })},
		{"", "hw_pointer_model", oneOf(func(o *Options) *string { return &o.Pointer }, "usbtablet", "ps2mouse")},
		{"", "hw_time_hpet", boolean(func(o *Options) *bool { return &o.HPET })},
		{"hw:pmu", "hw_pmu", func(o *Options, v string) error {
			b, err := parseBool(v)
			o.PMU = map[bool]string{true: "on", false: "off"}[b]
			return err
		}},
		{"hw:hide_hypervisor_id", "img_hide_hypervisor_id", boolean(func(o *Options) *bool { return &o.HideHypervisor })},
		{"", "os_type", func(o *Options, v string) error { o.Windows = v == "windows"; return nil }},
		{"hw:serial_port_count", "hw_serial_port_count", func(o *Options, v string) error {
			n, err := strconv.Atoi(v)
			if err != nil || n < 1 || n > 4 {
				return fmt.Errorf("must be 1 to 4")
			}
			o.SerialPorts = n
			return nil
		}},
		{"hw:mem_page_size", "hw_mem_page_size", setPageSize},
		{"hw:cpu_policy", "hw_cpu_policy", func(o *Options, v string) error {
			o.Dedicated = v == "dedicated" || v == "mixed"
			if !o.Dedicated && v != "shared" {
				return fmt.Errorf("must be shared, dedicated or mixed")
			}
			return nil
		}},
		{"hw:cpu_thread_policy", "hw_cpu_thread_policy", oneOf(func(*Options) *string { return new(string) }, "prefer", "isolate", "require")},
		{"hw:emulator_threads_policy", "", oneOf(func(*Options) *string { return new(string) }, "share", "isolate")},
		{"hw:locked_memory", "hw_locked_memory", boolean(func(o *Options) *bool { return &o.Locked })},
		{"os:secure_boot", "os_secure_boot", func(o *Options, v string) error {
			o.Secure = v == "required"
			return oneOfWords(v, "required", "optional", "disabled")
		}},
		{"", "hw_firmware_stateless", boolean(func(o *Options) *bool { return &o.Stateless })},
		{"", "hw_sound_model", oneOf(func(o *Options) *string { return &o.Sound }, "sb16", "es1370", "pcspk", "ac97", "ich6", "ich9", "usb", "ich7")},
		{"hw:viommu_model", "hw_viommu_model", oneOf(func(o *Options) *string { return &o.IOMMU }, "intel", "virtio", "auto")},
		{"hw:vif_multiqueue_enabled", "hw_vif_multiqueue_enabled", boolean(func(o *Options) *bool { return &o.Multiqueue })},
		{"hw:virtio_packed_ring", "hw_virtio_packed_ring", boolean(func(o *Options) *bool { return &o.Packed })},
		{"hw:tpm_version", "hw_tpm_version", oneOf(func(o *Options) *string { return &o.TPMVersion }, "1.2", "2.0")},
		{"hw:tpm_model", "hw_tpm_model", oneOf(func(o *Options) *string { return &o.TPMModel }, "tpm-tis", "tpm-crb")},
		{"", "hw_rescue_bus", oneOf(func(o *Options) *string { return &o.RescueBus }, "virtio", "scsi", "ide", "sata", "usb")},
		{"", "hw_rescue_device", oneOf(func(o *Options) *string { return &o.RescueDevice }, "disk", "cdrom")},
		{"quota:cpu_shares", "", number(func(o *Options) *int64 { return &o.Tune.Shares }, 2)},
		{"quota:cpu_period", "", number(func(o *Options) *int64 { return &o.Tune.Period }, 1000)},
		{"quota:cpu_quota", "", number(func(o *Options) *int64 { return &o.Tune.Quota }, -1)},
		{"quota:disk_total_bytes_sec", "", number(func(o *Options) *int64 { return &o.IO.TotalBytes }, 0)},
		{"quota:disk_read_bytes_sec", "", number(func(o *Options) *int64 { return &o.IO.ReadBytes }, 0)},
		{"quota:disk_write_bytes_sec", "", number(func(o *Options) *int64 { return &o.IO.WriteBytes }, 0)},
		{"quota:disk_total_iops_sec", "", number(func(o *Options) *int64 { return &o.IO.TotalIOPS }, 0)},
		{"quota:disk_read_iops_sec", "", number(func(o *Options) *int64 { return &o.IO.ReadIOPS }, 0)},
		{"quota:disk_write_iops_sec", "", number(func(o *Options) *int64 { return &o.IO.WriteIOPS }, 0)},
		{"quota:vif_inbound_average", "", rate(inbound, func(r *Rate) *int64 { return &r.Average })},
		{"quota:vif_inbound_peak", "", rate(inbound, func(r *Rate) *int64 { return &r.Peak })},
		{"quota:vif_inbound_burst", "", rate(inbound, func(r *Rate) *int64 { return &r.Burst })},
		{"quota:vif_outbound_average", "", rate(outbound, func(r *Rate) *int64 { return &r.Average })},
		{"quota:vif_outbound_peak", "", rate(outbound, func(r *Rate) *int64 { return &r.Peak })},
		{"quota:vif_outbound_burst", "", rate(outbound, func(r *Rate) *int64 { return &r.Burst })},
		{"quota:memory_limit", "", memLimit(func(m *MemTune) **Size { return &m.Hard })},
		{"quota:memory_reservation", "", memLimit(func(m *MemTune) **Size { return &m.Minimum })},
	}
}

func memLimit(target func(*MemTune) **Size) func(*Options, string) error {
	return func(o *Options, v string) error {
		s := &Size{Unit: "MiB"}
		*target(&o.Memory) = s
		return number(func(*Options) *int64 { return &s.Value }, 1)(o, v)
	}
}

// refused are settings that exist in OpenStack and would be wrong to pass over in silence: what asks for them must not get a guest without.
// A name that ends in "*" stands for all that begin so.
func refused() map[string]string {
	return map[string]string{
		"hw:mem_encryption": "encrypted memory", "hw_mem_encryption": "encrypted memory", "hw_mem_encryption_model": "encrypted memory",
		"hw:pmem": "persistent memory", "hw_emulation_architecture": "emulation of other architectures", "hw:maxphysaddr_mode": "a chosen address width",
		"accel:device_profile": "accelerators", "hw_ephemeral_encryption": "encrypted ephemeral disks",
		"hw:ephemeral_encryption": "encrypted ephemeral disks", "kernel_id": "booting with a separate kernel", "hw_usb_model": "USB controllers of a chosen model",
	}
}

// ParseOptions reads what spec asks for. Errors are fault.Invalid for values that make no sense and fault.NotImplemented for what this driver
// does not have.
func ParseOptions(spec *virt.Spec) (*Options, error) {
	o := &Options{Agent: true, RNG: true, SerialPorts: 1}
	no := refused()
	for _, m := range []map[string]string{spec.ExtraSpecs, spec.ImageProps} {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if what, bad := no[k]; bad && m[k] != "" && !isFalse(m[k]) {
				return nil, fault.New(fault.NotImplemented, "The hypervisor does not offer %s (%s).", what, k)
			}
		}
	}
	for _, s := range settings() {
		name, v := s.prop, spec.ImageProps[s.prop]
		if w, ok := spec.ExtraSpecs[s.spec]; ok && s.spec != "" {
			name, v = s.spec, w
		}
		if v == "" {
			continue
		}
		if err := s.set(o, v); err != nil {
			return nil, fault.New(fault.Invalid, "The value %q of %s %s.", v, name, err.Error())
		}
	}
	if spec.Rescue != nil {
		for _, p := range []struct {
			name   string
			target *string
		}{{"hw_rescue_bus", &o.RescueBus}, {"hw_rescue_device", &o.RescueDevice}} {
			if v := spec.Rescue.ImageProps[p.name]; v != "" {
				*p.target = v
			}
		}
	}
	if o.DiskBus == "" {
		o.DiskBus = "virtio"
	}
	if o.CDROMBus == "" {
		o.CDROMBus = map[bool]string{true: "sata", false: "ide"}[o.Q35]
	}
	o.Device = spec.ExtraSpecs["pci_passthrough:alias"] != ""
	if on, _ := asked(spec, "cpu_realtime"); on != "" && !isFalse(on) {
		mask, _ := asked(spec, "cpu_realtime_mask")
		var err error
		if o.Realtime, err = parseRealtime(mask, spec.VCPUs); err != nil {
			return nil, fault.New(fault.Invalid, "%s.", err.Error())
		}
	}
	if o.Secure && !o.UEFI {
		return nil, fault.New(fault.Invalid, "Secure boot needs an image with hw_firmware_type uefi.")
	}
	if o.Secure && o.Machine != "" && !o.Q35 {
		return nil, fault.New(fault.Invalid, "Secure boot needs the machine type q35.")
	}
	if o.Stateless && !o.UEFI {
		return nil, fault.New(fault.Invalid, "Stateless firmware needs an image with hw_firmware_type uefi.")
	}
	if err := o.parseTopology(spec); err != nil {
		return nil, err
	}
	return o, o.parseNUMA(spec)
}

func isFalse(v string) bool {
	b, err := parseBool(v)
	return err == nil && !b
}

// asked gives a value from the flavor or else the image.
func asked(spec *virt.Spec, name string) (string, string) {
	if v, ok := spec.ExtraSpecs["hw:"+name]; ok {
		return v, "hw:" + name
	}
	return spec.ImageProps["hw_"+name], "hw_" + name
}

// parseTopology fills in what was left open: preferring sockets, as a hypervisor without topology would.
func (o *Options) parseTopology(spec *virt.Spec) error {
	var n [3]int
	given := false
	for i, name := range []string{"cpu_sockets", "cpu_cores", "cpu_threads"} {
		v, from := asked(spec, name)
		if v == "" {
			continue
		}
		k, err := strconv.Atoi(v)
		if err != nil || k < 1 {
			return fault.New(fault.Invalid, "The value %q of %s must be a whole number of at least 1.", v, from)
		}
		n[i], given = k, true
	}
	if !given {
		return nil
	}
	rest := spec.VCPUs
	for _, k := range n {
		if k > 0 {
			if rest%k != 0 {
				return fault.New(fault.Invalid, "The CPU topology asked for does not make %d virtual CPUs.", spec.VCPUs)
			}
			rest /= k
		}
	}
	for i := range n {
		if n[i] == 0 {
			n[i], rest = rest, 1
		}
	}
	if n[0]*n[1]*n[2] != spec.VCPUs {
		return fault.New(fault.Invalid, "The CPU topology asked for does not make %d virtual CPUs.", spec.VCPUs)
	}
	o.Topology = &Topology{Sockets: n[0], Cores: n[1], Threads: n[2]}
	return nil
}

// parseNUMA divides CPUs and memory among the guest's NUMA nodes: evenly, or as numa_cpus.N and numa_mem.N say.
func (o *Options) parseNUMA(spec *virt.Spec) error {
	v, from := asked(spec, "numa_nodes")
	if v == "" {
		return nil
	}
	nodes, err := strconv.Atoi(v)
	if err != nil || nodes < 1 || nodes > spec.VCPUs {
		return fault.New(fault.Invalid, "The value %q of %s must be a number from 1 to the number of CPUs.", v, from)
	}
	explicit, total := false, int64(0)
	seen := make([]bool, spec.VCPUs)
	for i := range nodes {
		cpus, cpusFrom := asked(spec, fmt.Sprintf("numa_cpus.%d", i))
		mem, memFrom := asked(spec, fmt.Sprintf("numa_mem.%d", i))
		if (cpus == "") != (mem == "") || (i > 0 && explicit != (cpus != "")) {
			return fault.New(fault.Invalid, "Give CPUs and memory of every NUMA node, or of none.")
		}
		c := Cell{ID: i, Unit: "MiB"}
		if cpus == "" {
			per := spec.VCPUs / nodes
			if spec.VCPUs%nodes != 0 || spec.MemoryMB%int64(nodes) != 0 {
				return fault.New(fault.Invalid, "%d CPUs and %d MiB cannot be divided evenly among %d NUMA nodes.", spec.VCPUs, spec.MemoryMB, nodes)
			}
			c.CPUs, c.Memory = fmt.Sprintf("%d-%d", i*per, (i+1)*per-1), spec.MemoryMB/int64(nodes)
		} else {
			explicit = true
			set, err := parseCPUSet(cpus, spec.VCPUs)
			if err != nil {
				return fault.New(fault.Invalid, "The value %q of %s %s.", cpus, cpusFrom, err.Error())
			}
			for _, n := range set {
				if seen[n] {
					return fault.New(fault.Invalid, "CPU %d is in two NUMA nodes.", n)
				}
				seen[n] = true
			}
			c.CPUs = cpus
			if c.Memory, err = strconv.ParseInt(mem, 10, 64); err != nil || c.Memory <= 0 {
				return fault.New(fault.Invalid, "The value %q of %s must be a size in MiB.", mem, memFrom)
			}
		}
		total += c.Memory
		o.Cells = append(o.Cells, c)
	}
	if total != spec.MemoryMB || (explicit && slices.Contains(seen, false)) {
		return fault.New(fault.Invalid, "The NUMA nodes do not add up to the flavor's CPUs and memory.")
	}
	return nil
}

// parseCPUSet reads a list such as "0-3,8,^2" of numbers below n.
func parseCPUSet(s string, n int) ([]int, error) {
	set, err := compute.ParseCPUs(s)
	if err != nil || s == "" || len(set) > 0 && set[len(set)-1] >= n {
		return nil, fmt.Errorf("must be a list of CPUs below %d", n)
	}
	return set, nil
}
