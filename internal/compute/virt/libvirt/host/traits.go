package host

import (
	"maps"
	"slices"
	"strings"

	"kilonova/internal/compute"
)

// cpuTraits are libvirt's names of CPU features and the traits that they mean.
const cpuTraits = `3dnow=3DNOW abm=ABM aes=AESNI avx=AVX avx2=AVX2 avx512-vpopcntdq=AVX512VPOPCNTDQ avx512bitalg=AVX512BITALG avx512bw=AVX512BW
avx512cd=AVX512CD avx512dq=AVX512DQ avx512er=AVX512ER avx512f=AVX512F avx512ifma=AVX512IFMA avx512pf=AVX512PF avx512vbmi=AVX512VBMI
avx512vbmi2=AVX512VBMI2 avx512vl=AVX512VL avx512vnni=AVX512VNNI amx-bf16=AMXBF16 amx-int8=AMXINT8 amx-tile=AMXTILE bmi1=BMI bmi2=BMI2 f16c=F16C
fma=FMA3 fma4=FMA4 gfni=AVX512GFNI vaes=AVX512VAES vpclmulqdq=AVX512VPCLMULQDQ ibpb=AMD_IBPB md-clear=INTEL_MD_CLEAR mmx=MMX mpx=MPX
pcid=INTEL_PCID pclmuldq=CLMUL pclmulqdq=CLMUL pdpe1gb=PDPE1GB pni=SSE3 rtm=TSX sgx=SGX sha-ni=SHA spec-ctrl=INTEL_SPEC_CTRL ssbd=INTEL_SSBD
amd-ssbd=AMD_SSBD amd-no-ssb=AMD_NO_SSB virt-ssbd=AMD_VIRT_SSBD sse=SSE sse2=SSE2 sse4.1=SSE41 sse4.2=SSE42 sse4a=SSE4A ssse3=SSSE3 stibp=STIBP
svm=SVM svm=AMD_SVM tbm=TBM vmx=VMX vmx=INTEL_VMX xop=XOP`

// Has is what of a host decides on its traits.
type Has struct {
	Arch      string
	Features  []string // CPU features that guests can have
	Caps      *Capabilities
	Domain    *DomainCapabilities
	UEFI, TPM bool
	// SecureBoot is UEFI that starts only what is signed.
	SecureBoot bool
}

// Traits are those beyond what follows from a driver's abilities.
func Traits(h Has) []string {
	set := map[string]bool{"COMPUTE_IMAGE_TYPE_QCOW2": true, "COMPUTE_IMAGE_TYPE_RAW": true, "COMPUTE_IMAGE_TYPE_ISO": true, "COMPUTE_IMAGE_TYPE_AMI": true,
		"COMPUTE_FIRMWARE_BIOS": true, "COMPUTE_MIGRATE_AUTO_CONVERGE": true, "COMPUTE_MIGRATE_POST_COPY": true, "COMPUTE_GRAPHICS_MODEL_NONE": true,
		"COMPUTE_NET_VIRTIO_PACKED": true, "COMPUTE_VOLUME_MULTI_ATTACH": true, "COMPUTE_SOCKET_PCI_NUMA_AFFINITY": true}
	for _, pair := range strings.Fields(cpuTraits) {
		feature, trait, _ := strings.Cut(pair, "=")
		if slices.Contains(h.Features, feature) {
			set["HW_CPU_X86_"+trait] = true
		}
	}
	for _, bus := range h.Domain.Devices.Disk.Values("bus") {
		if slices.Contains([]string{"virtio", "scsi", "ide", "sata"}, bus) {
			set["COMPUTE_STORAGE_BUS_"+strings.ToUpper(bus)] = true
		}
	}
	for _, m := range h.Domain.Devices.Video.Values("modelType") {
		if slices.Contains([]string{"vga", "cirrus", "virtio", "qxl", "bochs"}, m) {
			set["COMPUTE_GRAPHICS_MODEL_"+strings.ToUpper(m)] = true
		}
	}
	for _, m := range []string{"VIRTIO", "E1000", "E1000E", "RTL8139", "NE2K_PCI", "PCNET"} {
		set["COMPUTE_NET_VIF_MODEL_"+m] = true
	}
	if h.Arch == "x86_64" {
		set["COMPUTE_ARCH_X86_64"], set["HW_ARCH_X86_64"] = true, true
	}
	if h.UEFI {
		set["COMPUTE_FIRMWARE_UEFI"] = true
	}
	if h.UEFI {
		set["COMPUTE_SECURITY_STATELESS_FIRMWARE"] = true
	}
	if h.SecureBoot {
		set["COMPUTE_SECURITY_UEFI_SECURE_BOOT"] = true
	}
	for _, m := range []string{"SB16", "ES1370", "PCSPK", "AC97", "ICH6", "ICH9", "USB"} {
		set["COMPUTE_SOUND_MODEL_"+m] = true
	}
	for _, m := range []string{"INTEL", "VIRTIO", "AUTO"} {
		set["COMPUTE_VIOMMU_MODEL_"+m] = true
	}
	if h.TPM {
		set["COMPUTE_SECURITY_TPM_1_2"], set["COMPUTE_SECURITY_TPM_2_0"] = true, true
		set["COMPUTE_SECURITY_TPM_TIS"], set["COMPUTE_SECURITY_TPM_CRB"] = true, true
		// The state of a TPM lies on the host like a disk: its user alone starts the server, as with the secret that is the default elsewhere.
		set["COMPUTE_SECURITY_TPM_SECRET_SECURITY_USER"] = true
	}
	if h.Caps.hyperthreads() {
		set["HW_CPU_HYPERTHREADING"] = true
	}
	return slices.Sorted(maps.Keys(set))
}

// hyperthreads tells whether some core has more than one thread.
func (c *Capabilities) hyperthreads() bool {
	for _, cell := range c.Host.Topology.Cells {
		for _, cpu := range cell.CPUs {
			if set, err := compute.ParseCPUs(cpu.Siblings); err == nil && len(set) > 1 {
				return true
			}
		}
	}
	return false
}
