package guests_test

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"kilonova/test/apart"
	"kilonova/test/process"
)

// machine: one guest with much of what images and flavors may ask of the machine, as far as software emulation goes: UEFI and TPM on q35, SCSI disks, a
// watchdog, sockets and cores, bounds on disk and CPU.
func (c *cloud) machine(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/usr/share/OVMF/OVMF_CODE_4M.fd"); err != nil {
		t.Skip("the package ovmf is not installed")
	}
	if _, err := exec.LookPath("swtpm"); err != nil {
		t.Skip("the package swtpm is not installed")
	}
	image := apart.Upload(t, c.admin, map[string]any{"name": "machine", "disk_format": "qcow2", "container_format": "bare", "visibility": "public", "hw_machine_type": "q35",
		"hw_firmware_type": "uefi", "hw_disk_bus": "scsi", "hw_scsi_model": "virtio-scsi", "hw_cdrom_bus": "scsi", "hw_video_model": "virtio",
		"hw_tpm_model": "tpm-crb", "hw_tpm_version": "2.0", "hw_rng_model": "virtio", "hw_boot_menu": "true"}, apart.ReadFile(t, imageFile()))
	var f struct{ Flavor process.Thing }
	apart.Must(t, c.admin, "POST", "compute", "/flavors", map[string]any{"flavor": map[string]any{"name": "machine", "vcpus": 2, "ram": 256, "disk": 1}}, &f)
	apart.Must(t, c.admin, "POST", "compute", "/flavors/"+f.Flavor.ID+"/os-extra_specs", map[string]any{"extra_specs": map[string]string{"hw:cpu_sockets": "1", "hw:cpu_cores": "2",
		"hw:watchdog_action": "pause", "hw_rng:allowed": "True", "quota:cpu_shares": "512", "quota:disk_write_bytes_sec": "52428800", "quota:disk_read_iops_sec": "5000"}}, nil)
	g := c.boot(t, "machine", map[string]any{"imageRef": image, "flavorRef": f.Flavor.ID, "config_drive": true}).ready(t)
	for what, x := range map[string]struct{ command, want string }{
		"UEFI":              {"ls -d /sys/firmware/efi", "/sys/firmware/efi"},
		"TPM 2":             {"cat /sys/class/tpm/tpm0/tpm_version_major", "2"},
		"SCSI disks":        {"ls /sys/block | grep -c ^vd; ls -d /sys/block/sda", "0\n/sys/block/sda"},
		"config drive":      {"ls -d /sys/block/sr0; ls /mnt/config/openstack/latest/meta_data.json", "/sys/block/sr0\n/mnt/config/openstack/latest/meta_data.json"},
		"watchdog":          {"grep -l 0x25ab /sys/bus/pci/devices/*/device | wc -l", "1"}, // the guest's kernel has no driver for it
		"sockets and cores": {"sort -u /sys/devices/system/cpu/cpu*/topology/physical_package_id | wc -l; sort -u /sys/devices/system/cpu/cpu*/topology/core_id | wc -l", "1\n2"},
		"random numbers":    {"grep -c virtio /sys/class/misc/hw_random/rng_available", "1"},
	} {
		if out := g.run(t, x.command+" 2>/dev/null || true"); out != x.want {
			t.Errorf("%s: %q, not %q", what, out, x.want)
		}
	}
	line, err := os.ReadFile("/proc/" + strconv.Itoa(g.qemu(t)) + "/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"OVMF_CODE_4M.fd", "pc-q35", "virtio-vga", "i6300esb"} {
		if !strings.Contains(string(line), want) {
			t.Errorf("QEMU was not told %s", want)
		}
	}
	if !t.Failed() {
		g.delete(t)
	}
}
