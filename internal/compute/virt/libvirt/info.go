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
	"kilonova/internal/fault"
)

// hostCaps is what libvirt said of the host when the driver was opened.
type hostCaps struct {
	arch, emulator string
	virtType       string // qemu or kvm
	cpuMode        string
	uefi, tpm      bool
	version        uint64
	features       []string // CPU features that guests can have
	machines       []string // machine types, short and versioned names; empty: not known
	host           capabilitiesXML
	domain         domainCapsXML
}

// capabilitiesXML is what the driver reads of a host's capabilities.
type capabilitiesXML struct {
	Host struct {
		UUID     string         `xml:"uuid"`
		CPU      definition.CPU `xml:"cpu"`
		Topology struct {
			Cells []struct {
				ID     int             `xml:"id,attr"`
				Memory definition.Size `xml:"memory"`
				CPUs   []struct {
					ID int `xml:"id,attr"`
				} `xml:"cpus>cpu"`
			} `xml:"cells>cell"`
		} `xml:"topology"`
	} `xml:"host"`
	Guests []struct {
		OSType string `xml:"os_type"`
		Arch   struct {
			Name     string   `xml:"name,attr"`
			Emulator string   `xml:"emulator"`
			Machines []string `xml:"machine"`
			Domains  []struct {
				Type string `xml:"type,attr"`
			} `xml:"domain"`
		} `xml:"arch"`
	} `xml:"guest"`
}

// domainCapsXML is what the driver reads of the capabilities of guests.
type domainCapsXML struct {
	Path string `xml:"path"`
	VCPU struct {
		Max int `xml:"max,attr"`
	} `xml:"vcpu"`
	CPU struct {
		Modes []struct {
			Name      string `xml:"name,attr"`
			Supported string `xml:"supported,attr"`
			definition.CPU
		} `xml:"mode"`
	} `xml:"cpu"`
	Devices struct {
		Disk  capsEnums `xml:"disk"`
		Video capsEnums `xml:"video"`
		TPM   struct {
			Supported string `xml:"supported,attr"`
			capsEnums
		} `xml:"tpm"`
	} `xml:"devices"`
}

type capsEnums struct {
	Enums []struct {
		Name   string   `xml:"name,attr"`
		Values []string `xml:"value"`
	} `xml:"enum"`
}

func (c capsEnums) values(name string) []string {
	for _, e := range c.Enums {
		if e.Name == name {
			return e.Values
		}
	}
	return nil
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
		DiskGB:       int64(fs.Blocks) * block / gib, FreeDiskGB: int64(fs.Bavail) * block / gib, HostIP: d.hostIP(), Uptime: uptime(),
		Supported: d.supported(), Traits: d.traits(), Stats: map[string]string{"virt_type": d.caps.virtType, "cpu_mode": d.caps.cpuMode},
	}
	cpu := d.caps.host.Host.CPU
	info.CPUInfo = map[string]any{"arch": d.caps.arch, "vendor": cpu.Vendor, "features": d.caps.features,
		"topology": map[string]any{"cells": node.Nodes, "sockets": node.Sockets, "cores": node.Cores, "threads": node.Threads}}
	if cpu.Model != nil {
		info.CPUInfo["model"] = cpu.Model.Name
	}
	return info, nil
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

// uptime words how long the host is up, as the program of that name does.
func uptime() string {
	b, err := os.ReadFile("/proc/uptime")
	load, err2 := os.ReadFile("/proc/loadavg")
	var up float64
	if err != nil || err2 != nil {
		return ""
	}
	if _, err := fmt.Sscan(string(b), &up); err != nil {
		return ""
	}
	l := strings.Fields(string(load))
	s := int64(up)
	return fmt.Sprintf("up %d days, %d:%02d, load average: %s", s/86400, s/3600%24, s/60%60, strings.Join(l[:3], ", "))
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

// cpuTraits are libvirt's names of CPU features and the traits that they mean.
const cpuTraits = `3dnow=3DNOW abm=ABM aes=AESNI avx=AVX avx2=AVX2 avx512-vpopcntdq=AVX512VPOPCNTDQ avx512bitalg=AVX512BITALG avx512bw=AVX512BW
avx512cd=AVX512CD avx512dq=AVX512DQ avx512er=AVX512ER avx512f=AVX512F avx512ifma=AVX512IFMA avx512pf=AVX512PF avx512vbmi=AVX512VBMI
avx512vbmi2=AVX512VBMI2 avx512vl=AVX512VL avx512vnni=AVX512VNNI amx-bf16=AMXBF16 amx-int8=AMXINT8 amx-tile=AMXTILE bmi1=BMI bmi2=BMI2 f16c=F16C
fma=FMA3 fma4=FMA4 gfni=AVX512GFNI vaes=AVX512VAES vpclmulqdq=AVX512VPCLMULQDQ ibpb=AMD_IBPB md-clear=INTEL_MD_CLEAR mmx=MMX mpx=MPX
pcid=INTEL_PCID pclmuldq=CLMUL pclmulqdq=CLMUL pdpe1gb=PDPE1GB pni=SSE3 rtm=TSX sgx=SGX sha-ni=SHA spec-ctrl=INTEL_SPEC_CTRL ssbd=INTEL_SSBD
amd-ssbd=AMD_SSBD amd-no-ssb=AMD_NO_SSB virt-ssbd=AMD_VIRT_SSBD sse=SSE sse2=SSE2 sse4.1=SSE41 sse4.2=SSE42 sse4a=SSE4A ssse3=SSSE3 stibp=STIBP
svm=SVM svm=AMD_SVM tbm=TBM vmx=VMX vmx=INTEL_VMX xop=XOP`

// traits are those beyond what follows from the abilities.
func (d *Driver) traits() []string {
	set := map[string]bool{"COMPUTE_IMAGE_TYPE_QCOW2": true, "COMPUTE_IMAGE_TYPE_RAW": true, "COMPUTE_IMAGE_TYPE_ISO": true, "COMPUTE_IMAGE_TYPE_AMI": true,
		"COMPUTE_FIRMWARE_BIOS": true, "COMPUTE_MIGRATE_AUTO_CONVERGE": true, "COMPUTE_MIGRATE_POST_COPY": true, "COMPUTE_GRAPHICS_MODEL_NONE": true,
		"COMPUTE_NET_VIRTIO_PACKED": true, "COMPUTE_VOLUME_MULTI_ATTACH": true}
	for _, pair := range strings.Fields(cpuTraits) {
		feature, trait, _ := strings.Cut(pair, "=")
		if slices.Contains(d.caps.features, feature) {
			set["HW_CPU_X86_"+trait] = true
		}
	}
	for _, bus := range d.caps.domain.Devices.Disk.values("bus") {
		if slices.Contains([]string{"virtio", "scsi", "ide", "sata"}, bus) {
			set["COMPUTE_STORAGE_BUS_"+strings.ToUpper(bus)] = true
		}
	}
	for _, m := range d.caps.domain.Devices.Video.values("modelType") {
		if slices.Contains([]string{"vga", "cirrus", "virtio", "qxl", "bochs"}, m) {
			set["COMPUTE_GRAPHICS_MODEL_"+strings.ToUpper(m)] = true
		}
	}
	for _, m := range []string{"VIRTIO", "E1000", "E1000E", "RTL8139", "NE2K_PCI", "PCNET"} {
		set["COMPUTE_NET_VIF_MODEL_"+m] = true
	}
	if d.caps.arch == "x86_64" {
		set["COMPUTE_ARCH_X86_64"], set["HW_ARCH_X86_64"] = true, true
	}
	if d.caps.uefi {
		set["COMPUTE_FIRMWARE_UEFI"] = true
	}
	if d.caps.tpm {
		set["COMPUTE_SECURITY_TPM_1_2"], set["COMPUTE_SECURITY_TPM_2_0"] = true, true
		set["COMPUTE_SECURITY_TPM_TIS"], set["COMPUTE_SECURITY_TPM_CRB"] = true, true
	}
	return slices.Sorted(maps.Keys(set))
}

// UUID gives the host's id as libvirt knows it.
func (d *Driver) UUID() string { return d.caps.host.Host.UUID }
