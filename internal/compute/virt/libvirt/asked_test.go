package libvirt

import (
	"strings"
	"testing"

	"kilonova/internal/compute"
	"kilonova/internal/compute/virt/libvirt/definition"
	"kilonova/internal/network"
)

// Each property of an image and each extra spec of a flavor, and what it makes of the definition.
func TestWhatIsAskedForIsInTheDefinition(t *testing.T) {
	type m = map[string]string
	q35 := func(more m) m {
		out := m{"hw_machine_type": "q35"}
		for k, v := range more {
			out[k] = v
		}
		return out
	}
	for _, c := range []struct {
		specs, props m
		want         []string // "!" before what must not be there
	}{
		{nil, nil, []string{`machine="pc"`, `<target dev="vda" bus="virtio">`, `<model type="virtio">`, `<model type="vga">`, `<rng model="virtio">`, `>/dev/hwrng</backend>`, `<stats period="2">`, `type="tablet"`, `!<tpm`, `!<watchdog`, `!<loader`, `!<bootmenu`, `!<iotune`, `!<cputune`}},
		{nil, m{"hw_machine_type": "q35"}, []string{`machine="q35"`, `model="pcie-root"`, `model="pcie-root-port"`}},
		{nil, m{"hw_disk_bus": "scsi"}, []string{`<target dev="sda" bus="scsi">`, `type="scsi"`, `model="virtio-scsi"`}},
		{nil, m{"hw_disk_bus": "ide"}, []string{`<target dev="hda" bus="ide">`}},
		{nil, q35(m{"hw_disk_bus": "sata"}), []string{`<target dev="sda" bus="sata">`}},
		{nil, m{"hw_vif_model": "e1000"}, []string{`<model type="e1000">`}},
		{nil, m{"hw_video_model": "virtio"}, []string{`<model type="virtio">`, `!<model type="vga"`, `type="vnc"`}},
		{nil, m{"hw_video_model": "none"}, []string{`!<video>`, `!<graphics`}},
		{nil, m{"hw_video_model": "cirrus", "hw_video_ram": "16"}, []string{`<model type="cirrus" vram="16384">`}},
		{nil, m{"hw_pointer_model": "ps2mouse"}, []string{`!type="tablet"`}},
		{nil, m{"hw_firmware_type": "uefi"}, []string{`<loader readonly="yes" type="pflash">/fw/CODE.fd</loader>`, `<nvram template="/fw/VARS.fd">`}},
		{nil, m{"hw_firmware_type": "uefi", "hw_firmware_stateless": "true"}, []string{`stateless="yes">/fw/CODE.fd</loader>`, `!<nvram`}},
		{m{"os:secure_boot": "required"}, q35(m{"hw_firmware_type": "uefi"}), []string{`<loader readonly="yes" secure="yes" type="pflash">/fw/CODE.secboot.fd</loader>`, `<nvram template="/fw/VARS.ms.fd">`, `<smm state="on">`}},
		{m{"hw:tpm_version": "2.0", "hw:tpm_model": "tpm-crb"}, nil, []string{`<tpm model="tpm-crb">`, `<backend type="emulator" version="2.0">`}},
		{nil, m{"hw_boot_menu": "yes"}, []string{`<bootmenu enable="yes">`}},
		{m{"hw:watchdog_action": "reset"}, nil, []string{`<watchdog model="i6300esb" action="reset">`}},
		{m{"hw:watchdog_action": "disabled"}, m{"hw_watchdog_action": "reset"}, []string{`!<watchdog`}},
		{m{"hw_rng:allowed": "False"}, nil, []string{`!<rng`}},
		{m{"hw_rng:rate_bytes": "1000", "hw_rng:rate_period": "50"}, nil, []string{`<rate bytes="1000" period="50">`}},
		{nil, m{"hw_qemu_guest_agent": "no"}, []string{`!org.qemu.guest_agent.0`}},
		{nil, m{"hw_time_hpet": "true"}, []string{`<timer name="hpet" present="yes">`}},
		{nil, m{"hw_pmu": "off"}, []string{`<pmu state="off">`}},
		{nil, m{"img_hide_hypervisor_id": "true"}, []string{`<hidden state="on">`}},
		{nil, m{"os_type": "windows"}, []string{`<clock offset="localtime">`, `<hyperv>`}},
		{nil, m{"hw_sound_model": "ac97"}, []string{`<sound model="ac97">`}},
		{m{"hw:viommu_model": "virtio"}, nil, []string{`<iommu model="virtio">`}},
		{m{"hw:viommu_model": "intel"}, q35(nil), []string{`<iommu model="intel">`, `<ioapic driver="qemu">`}},
		{m{"hw:cpu_sockets": "1", "hw:cpu_cores": "2", "hw:cpu_threads": "2"}, nil, []string{`<topology sockets="1" cores="2" threads="2">`}},
		{m{"hw:numa_nodes": "2"}, nil, []string{`<cell id="0" cpus="0-1" memory="256" unit="MiB">`, `<cell id="1" cpus="2-3" memory="256" unit="MiB">`}},
		{m{"hw:serial_port_count": "3"}, nil, []string{`<target port="2">`}},
		{m{"hw:vif_multiqueue_enabled": "true"}, nil, []string{`queues="4"`}},
		{m{"hw:virtio_packed_ring": "true"}, nil, []string{`packed="on"`}},
		{m{"quota:cpu_shares": "512", "quota:cpu_period": "10000", "quota:cpu_quota": "5000"}, nil, []string{`<shares>512</shares>`, `<period>10000</period>`, `<quota>5000</quota>`}},
		{m{"quota:disk_read_bytes_sec": "1000", "quota:disk_write_iops_sec": "7"}, nil, []string{`<read_bytes_sec>1000</read_bytes_sec>`, `<write_iops_sec>7</write_iops_sec>`}},
		{m{"quota:vif_inbound_average": "100", "quota:vif_outbound_peak": "200"}, nil, []string{`<inbound average="100">`, `peak="200"`}},
		{m{"quota:memory_limit": "600"}, nil, []string{`<hard_limit unit="MiB">600</hard_limit>`}},
	} {
		d := offline(t)
		d.c.UEFICode, d.c.UEFIVars = "/fw/CODE.fd", "/fw/VARS.fd"
		d.caps.uefi, d.caps.secure, d.caps.tpm = true, true, true
		s := small()
		s.VCPUs, s.MemoryMB, s.ExtraSpecs, s.ImageProps = 4, 512, c.specs, c.props
		s.VIFs = []network.VIF{{PortID: "p", MAC: "fa:16:3e:00:00:01", Bridge: "br0"}}
		x, err := d.build(s, nil)
		if err != nil {
			t.Errorf("%v %v: %v", c.specs, c.props, err)
			continue
		}
		text, err := definition.Encode(x)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range c.want {
			wanted := !strings.HasPrefix(part, "!")
			if part = strings.TrimPrefix(part, "!"); strings.Contains(text, part) != wanted {
				t.Errorf("%v %v: %s, wanted %v:\n%s", c.specs, c.props, part, wanted, text)
			}
		}
	}
}

// Where SPICE is offered, guests have its screen beside that of VNC; without a screen they have neither.
func TestSPICE(t *testing.T) {
	d := offline(t)
	d.c.SPICE = true
	for props, want := range map[string]int{"vga": 2, "none": 0} {
		s := small()
		s.ImageProps = map[string]string{"hw_video_model": props}
		x, err := d.build(s, nil)
		if err != nil || len(x.Devices.Graphics) != want || want > 0 && x.Devices.Graphics[1].Type != "spice" {
			t.Errorf("%s: %+v %v", props, x.Devices.Graphics, err)
		}
	}
}

// On a host with CPUs that are shared, guests float on these.
func TestSharedCPUs(t *testing.T) {
	d := offline(t)
	d.c.SharedCPUs = []int{2, 3}
	x, err := d.build(small(), nil)
	if err != nil || x.VCPU.CPUSet != "2,3" || x.VCPU.Placement != "static" {
		t.Errorf("%+v %v", x.VCPU, err)
	}
}

// A guest that moves while it runs lies where the destination says.
func TestPlaceAtTheDestination(t *testing.T) {
	d := offline(t)
	s := small()
	s.Claim = &compute.Claim{Cells: []compute.ClaimedCell{{Node: 1, CPUs: []int{0, 1}, MemoryMB: 256, Pins: map[int]int{1: 7}, Float: []int{4}}}}
	target := map[string]string{}
	if err := definition.PlaceTarget(s, d.c.SharedCPUs, target); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(strings.Fields(d.rewrite(`<vcpu placement='static'>2</vcpu><cputune><shares>512</shares>
    <vcpupin vcpu='0' cpuset='0'/>
    <vcpupin vcpu='1' cpuset='1'/>
    <emulatorpin cpuset='0-1'/>
    <vcpusched vcpus='1' scheduler='fifo' priority='1'/>
  </cputune><numatune><memory mode='strict' nodeset='0'/><memnode cellid='0' mode='strict' nodeset='0'/></numatune>`, guestID, target)), " ")
	want := `<vcpu placement='static'>2</vcpu><cputune><shares>512</shares> <vcpusched vcpus='1' scheduler='fifo' priority='1'/> ` +
		`<vcpupin vcpu="0" cpuset="4"></vcpupin> <vcpupin vcpu="1" cpuset="7"></vcpupin> <emulatorpin cpuset="4,7"></emulatorpin> </cputune>` +
		`<numatune> <memory mode="strict" nodeset="1"></memory> <memnode cellid="0" mode="strict" nodeset="1"></memnode> </numatune>`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, c := range []struct {
		shared   []int
		in, want string
	}{
		{[]int{2, 3}, "<vcpu placement='static'>2</vcpu>", "<vcpu placement='static' cpuset='2,3'>2</vcpu>"},
		{[]int{2}, "<vcpu placement='static' cpuset='0-1'>2</vcpu>", "<vcpu placement='static' cpuset='2'>2</vcpu>"},
		{nil, "<vcpu placement='static' cpuset='0-1'>2</vcpu>", "<vcpu placement='static'>2</vcpu>"},
	} {
		d.c.SharedCPUs = c.shared
		target := map[string]string{}
		if err := definition.PlaceTarget(small(), d.c.SharedCPUs, target); err != nil {
			t.Fatal(err)
		}
		if got := d.rewrite(c.in, guestID, target); got != c.want {
			t.Errorf("%v: %s, want %s", c.shared, got, c.want)
		}
	}
}
