package compute

import (
	"errors"
	"strings"
	"testing"

	"kilonova/internal/fault"
)

func TestImageProps(t *testing.T) {
	type m = map[string]string
	for _, good := range []m{nil, {"hw_architecture": "x86_64"}, {"architecture": "AMD64"}, {"hw_disk_bus": "xen"}, {"os_type": "Windows"}, {"hw_numa_nodes": "2"}, {"hw_video_ram": ""},
		{"hypervisor_type": "kvm", "vm_mode": "hvm"}, {"hw_vif_multiqueue_enabled": "maybe"}, {"my_own": "thing"}, {"hw_vif_model": "VirtualE1000"}} {
		if err := CheckImageProps(good); err != nil {
			t.Errorf("%v: %v", good, err)
		}
	}
	for name, v := range map[string]string{"hw_architecture": "pdp-11", "architecture": "pdp-11", "vm_mode": "half", "hw_numa_nodes": "two", "hw_disk_bus": "school", "hw_video_ram": "1.5",
		"hypervisor_type": "perhaps"} {
		if err := CheckImageProps(m{name: v}); !errors.Is(err, fault.Invalid) || !strings.HasPrefix(fault.PublicText(err), "Invalid image metadata.") || !strings.Contains(err.Error(), v) {
			t.Errorf("%s %s: %v", name, v, err)
		}
	}
	for _, c := range []struct {
		props m
		name  string
		want  string
	}{{m{"architecture": "s390x"}, "hw_architecture", "s390x"}, {m{"architecture": "s390x", "hw_architecture": "x86_64"}, "hw_architecture", "x86_64"}, {m{"": "x"}, "hw_disk_bus", ""}, {nil, "hw_vm_mode", ""}} {
		if got := ImageProp(c.props, c.name); c.want != got {
			t.Errorf("%v: %s is %q, want %q", c.props, c.name, got, c.want)
		}
	}
}
