package compute

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"kilonova/internal/fault"
)

// formerNames are the names that properties of images once had; images still have them, and the service's own documents name some.
func formerNames() map[string]string {
	return map[string]string{"hw_architecture": "architecture", "hw_vm_mode": "vm_mode", "img_hv_type": "hypervisor_type", "img_hv_requested_version": "hypervisor_version_requires",
		"img_root_device_name": "root_device_name"}
}

// ImageProp gives a property of an image by its name, or by the name that it once had.
func ImageProp(props map[string]string, name string) string {
	if v := props[name]; v != "" {
		return v
	}
	if former := formerNames()[name]; former != "" {
		return props[former]
	}
	return ""
}

// CheckImageProps fails with fault.Invalid for properties that every hypervisor would find senseless: a word that is none of those known, a number that is none.
func CheckImageProps(props map[string]string) error {
	words := imageWords()
	for _, name := range slices.Sorted(maps.Keys(words)) {
		v := ImageProp(props, name)
		known := strings.Fields(words[name])
		if v = strings.TrimSpace(v); v != "" && !slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, v) }) {
			return fault.New(fault.Invalid, "Invalid image metadata. The property %s has the value %q, which is none of %s.", name, v, strings.Join(known, ", "))
		}
	}
	if v := ImageProp(props, "img_hv_requested_version"); v != "" && !versionPredicate.MatchString(v) {
		return fault.New(fault.Invalid, "Invalid image metadata. The property img_hv_requested_version has the value %q, which is no list of comparisons as >=7.2, <9.", v)
	}
	for name := range strings.FieldsSeq(imageNumbers) {
		if v := props[name]; v != "" {
			if _, err := strconv.Atoi(strings.TrimSpace(v)); err != nil {
				return fault.New(fault.Invalid, "Invalid image metadata. The property %s has the value %q, which is no whole number.", name, v)
			}
		}
	}
	return nil
}

// versionPredicate is a list of comparisons with versions.
var versionPredicate = regexp.MustCompile(`^\s*(<=|>=|==|!=|<|>)\s*\d+(\.\d+)*\s*(,\s*(<=|>=|==|!=|<|>)\s*\d+(\.\d+)*\s*)*$`)

const imageNumbers = "hw_cpu_cores hw_cpu_sockets hw_cpu_threads hw_cpu_max_cores hw_cpu_max_sockets hw_cpu_max_threads hw_numa_nodes hw_serial_port_count hw_video_ram hw_maxphysaddr_bits " +
	"hw_redirected_usb_ports hw_device_id img_compression_level img_version"

// imageWords are the words that properties may have, of all hypervisors that OpenStack knows; which of them a host offers is another question.
func imageWords() map[string]string {
	const architectures = "alpha amd64 armv6 armv7l armv7b aarch64 arm64 cris i386 i486 i586 i686 ia64 lm32 m68k microblaze microblazeel mips mipsel mips64 mips64el openrisc parisc parisc64 ppc ppcle " +
		"ppc64 ppc64le ppcemb powerpc riscv64 s390 s390x sh4 sh4eb sparc sparc64 unicore32 x64 x86 x86_64 xtensa xtensaeb"
	const buses = "fdc ide sata scsi usb virtio xen lxc uml"
	return map[string]string{
		"hw_architecture": architectures, "hw_emulation_architecture": architectures,
		"hw_disk_bus": buses, "hw_cdrom_bus": buses, "hw_floppy_bus": buses, "hw_rescue_bus": buses,
		"hw_rescue_device": "cdrom disk floppy fs lun", "hw_input_bus": "usb virtio",
		"hw_cpu_policy": "dedicated shared mixed", "hw_cpu_thread_policy": "prefer isolate require",
		"hw_firmware_type": "bios uefi", "hw_mem_encryption_model": "amd-sev amd-sev-es amd-sev-snp", "hw_maxphysaddr_mode": "passthrough emulate",
		"hw_pci_numa_affinity_policy": "required legacy preferred socket", "hw_pointer_model": "usbtablet ps2mouse", "hw_rng_model": "virtio",
		"hw_scsi_model":  "buslogic ibmvscsi lsilogic lsisas1068 lsisas1078 virtio-scsi vmpvscsi",
		"hw_sound_model": "sb16 es1370 pcspk ac97 ich6 ich7 ich9 usb virtio", "hw_usb_model": "none nec-xhci qemu-xhci",
		"hw_video_model": "cirrus qxl vga vmvga xen virtio gop none bochs",
		"hw_vif_model": "virtio ne2k_pci pcnet rtl8139 e1000 e1000e igb lan9118 netfront spapr-vlan sriov vmxnet vmxnet3 virtuale1000 virtuale1000e virtualpcnet32 " +
			"virtualsriovethernetcard virtualvmxnet virtualvmxnet3",
		"hw_viommu_model": "intel smmuv3 virtio auto", "hw_vm_mode": "hvm xen xenapi pv uml exe baremetal", "hw_watchdog_action": "none pause poweroff reset disabled",
		"hw_tpm_model": "tpm-tis tpm-crb", "hw_tpm_version": "1.2 2.0", "hw_ephemeral_encryption_format": "plain luks luksv2",
		"img_hv_type":               "baremetal bhyve docker fake hv hyperv ironic kqemu kvm lxc lxd openvz parallels phyp prsm qemu test uml vbox vz vmware xapi xen xen-3.0-x86_32 zvm",
		"img_signature_key_type":    "DSA ECC_SECP384R1 ECC_SECP521R1 ECC_SECT409K1 ECC_SECT409R1 ECC_SECT571K1 ECC_SECT571R1 RSA-PSS",
		"img_signature_hash_method": "SHA-224 SHA-256 SHA-384 SHA-512",
		"img_config_drive":          "optional mandatory", "os_secure_boot": "required disabled optional", "os_type": "linux windows",
	}
}
