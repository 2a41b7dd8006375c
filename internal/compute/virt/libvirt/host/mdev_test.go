package host_test

import (
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute"
	"kilonova/internal/compute/virt/libvirt/host"
)

func TestMediated(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s + "\n")} }
	const dir = "class/mdev_bus/"
	sys := fstest.MapFS{
		dir + "0000:84:00.0/mdev_supported_types/nvidia-35/available_instances":   file("14"),
		dir + "0000:84:00.0/mdev_supported_types/nvidia-35/devices/a-uuid/remove": file(""),
		dir + "0000:84:00.0/mdev_supported_types/nvidia-35/devices/b-uuid/remove": file(""),
		dir + "0000:84:00.0/mdev_supported_types/nvidia-36/available_instances":   file("0"),
		dir + "0000:85:00.0/mdev_supported_types/nvidia-35/available_instances":   file("16"),
		dir + "0000:86:00.0/mdev_supported_types/nvidia-36/available_instances":   file("8"),
	}
	for _, c := range []struct {
		name  string
		types []compute.MediatedType
		want  []compute.HostMediated
	}{
		{"none", nil, nil},
		{"all devices that have the type", []compute.MediatedType{{Name: "nvidia-35", Class: "VGPU"}},
			[]compute.HostMediated{{Address: "0000:84:00.0", Type: "nvidia-35", Class: "VGPU", Total: 16}, {Address: "0000:85:00.0", Type: "nvidia-35", Class: "VGPU", Total: 16}}},
		{"a type for each", []compute.MediatedType{{Name: "nvidia-35", Addresses: []string{"0000:85:00.0"}, Class: "VGPU", Max: 4}, {Name: "nvidia-36", Addresses: []string{"0000:86:00.0"}, Class: "CUSTOM_X"}},
			[]compute.HostMediated{{Address: "0000:85:00.0", Type: "nvidia-35", Class: "VGPU", Total: 4}, {Address: "0000:86:00.0", Type: "nvidia-36", Class: "CUSTOM_X", Total: 8}}},
		{"no room for the type", []compute.MediatedType{{Name: "nvidia-36", Addresses: []string{"0000:84:00.0"}, Class: "VGPU"}}, nil},
	} {
		got, err := host.Mediated(sys, c.types)
		if d := cmp.Diff(c.want, got); d != "" || err != nil {
			t.Errorf("%s: %s (%v)", c.name, d, err)
		}
	}
	if got, err := host.Mediated(fstest.MapFS{}, []compute.MediatedType{{Name: "x"}}); err != nil || got != nil {
		t.Errorf("a host without such devices: %v (%v)", got, err)
	}
	if _, err := host.Mediated(fstest.MapFS{dir + "0000:84:00.0/mdev_supported_types/x/available_instances": file("many")}, []compute.MediatedType{{Name: "x"}}); err == nil {
		t.Error("a number that is none is taken")
	}
}
