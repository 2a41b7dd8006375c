package definition

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute/virt"
	"kilonova/internal/fault"
)

func parse(vcpus int, memory int64, specs, props map[string]string) (*Options, error) {
	return ParseOptions(&virt.Spec{VCPUs: vcpus, MemoryMB: memory, ExtraSpecs: specs, ImageProps: props})
}

func TestDefaults(t *testing.T) {
	o, err := parse(2, 512, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := &Options{Agent: true, RNG: true, SerialPorts: 1, DiskBus: "virtio", CDROMBus: "ide"}
	if diff := cmp.Diff(want, o); diff != "" {
		t.Error(diff)
	}
}

func TestEachSetting(t *testing.T) {
	type m = map[string]string
	for _, c := range []struct {
		specs, props m
		get          func(*Options) any
		want         any
	}{
		{nil, m{"hw_machine_type": "pc-q35-7.2"}, func(o *Options) any { return o.Q35 && o.CDROMBus == "sata" }, true},
		{nil, m{"hw_machine_type": "q35", "hw_cdrom_bus": "scsi"}, func(o *Options) any { return o.CDROMBus }, "scsi"},
		{nil, m{"hw_firmware_type": "uefi"}, func(o *Options) any { return o.UEFI }, true},
		{nil, m{"hw_disk_bus": "scsi", "hw_scsi_model": "virtio-scsi"}, func(o *Options) any { return o.DiskBus }, "scsi"},
		{nil, m{"hw_vif_model": "e1000"}, func(o *Options) any { return o.VIFModel }, "e1000"},
		{nil, m{"hw_qemu_guest_agent": "no"}, func(o *Options) any { return o.Agent }, false},
		{m{"hw:watchdog_action": "reset"}, m{"hw_watchdog_action": "poweroff"}, func(o *Options) any { return o.Watchdog }, "reset"},
		{m{"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "0"}, nil, func(o *Options) any { return o.Dedicated }, true},
		{m{"hw:cpu_realtime": "yes", "hw:cpu_realtime_mask": "^0-1"}, nil, func(o *Options) any { return o.Realtime }, []int{2, 3}},
		{m{"hw:cpu_realtime": "true"}, nil, func(o *Options) any { return o.Realtime }, []int{0, 1, 2, 3}},
		{m{"hw:locked_memory": "true"}, nil, func(o *Options) any { return o.Locked }, true},
		{m{"os:secure_boot": "required"}, m{"hw_firmware_type": "uefi", "hw_machine_type": "q35"}, func(o *Options) any { return o.Secure }, true},
		{nil, m{"hw_firmware_type": "uefi", "hw_firmware_stateless": "true"}, func(o *Options) any { return o.Stateless }, true},
		{nil, m{"hw_sound_model": "ac97"}, func(o *Options) any { return o.Sound }, "ac97"},
		{m{"hw:viommu_model": "virtio"}, nil, func(o *Options) any { return o.IOMMU }, "virtio"},
		{m{"hw:cpu_policy": "dedicated"}, nil, func(o *Options) any { return o.Dedicated }, true},
		{m{"quota:cpu_shares": "512", "quota:cpu_quota": "5000", "quota:cpu_period": "10000"}, nil, func(o *Options) any { return o.Tune }, CPUTune{Shares: 512, Period: 10000, Quota: 5000}},
		{m{"quota:disk_write_iops_sec": "10", "quota:disk_read_bytes_sec": "20"}, nil, func(o *Options) any { return o.IO }, IOTune{WriteIOPS: 10, ReadBytes: 20}},
		{m{"quota:vif_inbound_average": "1", "quota:vif_inbound_peak": "2", "quota:vif_outbound_average": "3"}, nil,
			func(o *Options) any { return o.Bandwidth }, Bandwidth{Inbound: &Rate{Average: 1, Peak: 2}, Outbound: &Rate{Average: 3}}},
		{m{"quota:memory_limit": "300"}, nil, func(o *Options) any { return o.Memory }, MemTune{Hard: &Size{Unit: "MiB", Value: 300}}},
		{m{"hw:cpu_cores": "2"}, nil, func(o *Options) any { return o.Topology }, &Topology{Sockets: 2, Cores: 2, Threads: 1}},
		{m{"hw:cpu_sockets": "1", "hw:cpu_threads": "2"}, nil, func(o *Options) any { return o.Topology }, &Topology{Sockets: 1, Cores: 2, Threads: 2}},
		{m{"hw:numa_nodes": "2"}, nil, func(o *Options) any { return o.Cells }, []Cell{{0, "0-1", 256, "MiB"}, {1, "2-3", 256, "MiB"}}},
		{m{"hw:numa_nodes": "2", "hw:numa_cpus.0": "0,2-3", "hw:numa_mem.0": "384", "hw:numa_cpus.1": "1", "hw:numa_mem.1": "128"}, nil,
			func(o *Options) any { return o.Cells }, []Cell{{0, "0,2-3", 384, "MiB"}, {1, "1", 128, "MiB"}}},
		{nil, m{"os_type": "windows"}, func(o *Options) any { return o.Windows }, true},
		{m{"pci_passthrough:alias": ""}, m{"os_secure_boot": "disabled", "hw_unheard_of": "x", "architecture": "x86_64"}, func(o *Options) any { return o.DiskBus }, "virtio"},
	} {
		o, err := parse(4, 512, c.specs, c.props)
		if err != nil {
			t.Errorf("%v %v: %v", c.specs, c.props, err)
			continue
		}
		if diff := cmp.Diff(c.want, c.get(o)); diff != "" {
			t.Errorf("%v %v: %s", c.specs, c.props, diff)
		}
	}
}

func TestRefused(t *testing.T) {
	type m = map[string]string
	for _, c := range []struct {
		specs, props m
		want         fault.Kind
	}{
		{nil, m{"hw_machine_type": "virt'/><evil/>"}, fault.Invalid},
		{nil, m{"hw_disk_bus": "floppy"}, fault.Invalid},
		{nil, m{"hw_video_ram": "much"}, fault.Invalid},
		{nil, m{"hw_firmware_type": "coreboot"}, fault.Invalid},
		{nil, m{"hw_qemu_guest_agent": "maybe"}, fault.Invalid},
		{m{"hw:mem_page_size": "0"}, nil, fault.Invalid},
		{m{"hw:serial_port_count": "9"}, nil, fault.Invalid},
		{m{"hw:cpu_policy": "greedy"}, nil, fault.Invalid},
		{m{"hw:cpu_realtime": "yes", "hw:cpu_realtime_mask": "9"}, nil, fault.Invalid},
		{nil, m{"os_secure_boot": "required"}, fault.Invalid},
		{nil, m{"os_secure_boot": "required", "hw_firmware_type": "uefi", "hw_machine_type": "pc"}, fault.Invalid},
		{nil, m{"hw_firmware_stateless": "true"}, fault.Invalid},
		{nil, m{"hw_sound_model": "gramophone"}, fault.Invalid},
		{m{"quota:cpu_shares": "-5"}, nil, fault.Invalid},
		{m{"hw:cpu_cores": "3"}, nil, fault.Invalid},
		{m{"hw:cpu_cores": "1", "hw:cpu_sockets": "1", "hw:cpu_threads": "1"}, nil, fault.Invalid},
		{m{"hw:numa_nodes": "3"}, nil, fault.Invalid},
		{m{"hw:numa_nodes": "9"}, nil, fault.Invalid},
		{m{"hw:numa_nodes": "2", "hw:numa_cpus.0": "0-1"}, nil, fault.Invalid},
		{m{"hw:numa_nodes": "2", "hw:numa_cpus.0": "0-2", "hw:numa_mem.0": "256", "hw:numa_cpus.1": "2-3", "hw:numa_mem.1": "256"}, nil, fault.Invalid},
		{m{"hw:numa_nodes": "2", "hw:numa_cpus.0": "0-1", "hw:numa_mem.0": "256", "hw:numa_cpus.1": "2-3", "hw:numa_mem.1": "200"}, nil, fault.Invalid},
		{m{"hw:numa_nodes": "1", "hw:numa_cpus.0": "0-7", "hw:numa_mem.0": "512"}, nil, fault.Invalid},
		{m{"hw:mem_encryption": "true"}, nil, fault.NotImplemented},
		{m{"hw:pmem": "1GB"}, nil, fault.NotImplemented},
	} {
		if _, err := parse(4, 512, c.specs, c.props); !errors.Is(err, c.want) {
			t.Errorf("%v %v: %v, want %v", c.specs, c.props, err, c.want)
		}
	}
}

func TestCPUSet(t *testing.T) {
	for s, want := range map[string][]int{"0": {0}, "0-3,^2": {0, 1, 3}, " 1 , 3": {1, 3}, "0-0": {0}} {
		got, err := parseCPUSet(s, 4)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%q: %v %s", s, err, diff)
		}
	}
	for _, s := range []string{"", "4", "3-1", "a", "1-", "-1", "0-9"} {
		if got, err := parseCPUSet(s, 4); err == nil {
			t.Errorf("%q gives %v", s, got)
		}
	}
}
