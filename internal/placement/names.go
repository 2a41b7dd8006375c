package placement

import (
	"regexp"
	"strings"
)

// MaxInt bounds the integers of an inventory.
const MaxInt = 2147483647

// StandardClasses are the resource classes that every deployment has, in the order of their introduction.
func StandardClasses() []string {
	return []string{
		"VCPU", "MEMORY_MB", "DISK_GB", "PCI_DEVICE", "SRIOV_NET_VF", "NUMA_SOCKET", "NUMA_CORE", "NUMA_THREAD", "NUMA_MEMORY_MB",
		"IPV4_ADDRESS", "VGPU", "VGPU_DISPLAY_HEAD", "NET_BW_EGR_KILOBIT_PER_SEC", "NET_BW_IGR_KILOBIT_PER_SEC", "PCPU",
		"MEM_ENCRYPTION_CONTEXT", "FPGA", "PGPU", "NET_PACKET_RATE_KILOPACKET_PER_SEC", "NET_PACKET_RATE_EGR_KILOPACKET_PER_SEC",
		"NET_PACKET_RATE_IGR_KILOPACKET_PER_SEC",
	}
}

// customPrefix begins the names that operators may make.
const customPrefix = "CUSTOM_"

// IsName tells whether s can be the name of a resource class, trait or consumer type: 1 to 255 of A-Z, 0-9 and _.
func IsName(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}

// IsCustom tells whether s is a well-formed name of a custom resource class or trait.
func IsCustom(s string) bool {
	return strings.HasPrefix(s, customPrefix) && len(s) > len(customPrefix) && IsName(s)
}

// CustomName turns any text into the custom name that stands for it: upper case, other characters become _.
func CustomName(s string) string {
	s = strings.ToUpper(s)
	out := []byte(s)
	for i, c := range out {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			out[i] = '_'
		}
	}
	if !strings.HasPrefix(string(out), customPrefix) {
		out = append([]byte(customPrefix), out...)
	}
	if len(out) > 255 {
		out = out[:255]
	}
	return string(out)
}

// SuffixPattern is what may follow "resources", "required" and the like in the name of a request group.
const SuffixPattern = `[a-zA-Z0-9_-]{1,64}`

// IsSuffix tells whether s may name a request group other than the unsuffixed one.
func IsSuffix(s string) bool { return suffix.MatchString(s) }

var suffix = regexp.MustCompile(`^` + SuffixPattern + `$`)
