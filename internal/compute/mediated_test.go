package compute

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMediatedTypes(t *testing.T) {
	got, err := ParseMediatedTypes(`[{"name":"nvidia-35","device_addresses":["0000:84:00.0","0000:8A:00.0"],"max_instances":4},{"name":"i915-4","device_addresses":["0000:00:02.0"],"mdev_class":"CUSTOM_IGPU"}]`)
	want := []MediatedType{{Name: "nvidia-35", Addresses: []string{"0000:84:00.0", "0000:8a:00.0"}, Max: 4, Class: ClassVGPU}, {Name: "i915-4", Addresses: []string{"0000:00:02.0"}, Class: "CUSTOM_IGPU"}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
	for _, none := range []string{"", "  ", "[]"} {
		if got, err := ParseMediatedTypes(none); err != nil || len(got) != 0 {
			t.Errorf("%q: %v (%v)", none, got, err)
		}
	}
	if got, err := ParseMediatedTypes(`{"name":"nvidia-35"}`); err != nil || len(got) != 1 || got[0].Addresses != nil {
		t.Errorf("one type for all devices: %v (%v)", got, err)
	}
	for text, why := range map[string]string{
		`{"name":""}`: "without a name",
		`[{"name":"a","device_addresses":["0000:84:00.0"]},{"name":"a","device_addresses":["0000:85:00.0"]}]`: "twice",
		`[{"name":"a","device_addresses":["0000:84:00.0"]},{"name":"b"}]`:                                     "each needs device_addresses",
		`[{"name":"a","device_addresses":["0000:84:00.0"]},{"name":"b","device_addresses":["0000:84:00.0"]}]`: "the types a and b",
		`{"name":"a","device_addresses":["84:00.0"]}`:                                                         "no PCI address",
		`{"name":"a","device_addresses":["0000:84:00:0"]}`:                                                    "no PCI address",
		`{"name":"a","device_addresses":["0000:8g:00.0"]}`:                                                    "no PCI address",
		`{"name":"a","max_instances":-1}`:                                                                     "negative",
		`{"name":"a","mdev_class":"PGPU"}`:                                                                    "begins with CUSTOM_",
		`{"name":"a","what":1}`:                                                                               "unknown field",
		`nvidia-35`:                                                                                           "enabled_mdev_types",
	} {
		if _, err := ParseMediatedTypes(text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want %q", text, err, why)
		}
	}
}

func TestAsksMediated(t *testing.T) {
	for key, want := range map[string]bool{"resources:VGPU": true, "resources1:VGPU": true, "resources_a:CUSTOM_GPU": true, "resources:VCPU": false, "trait:CUSTOM_GPU": false, "hw:cpu_policy": false} {
		f := &Flavor{ExtraSpecs: map[string]string{key: "1"}}
		if got := AsksMediated(f); got != want {
			t.Errorf("%s: %v", key, got)
		}
		if AsksMediated(&Flavor{ExtraSpecs: map[string]string{key: "0"}}) {
			t.Errorf("%s: none is asked for", key)
		}
		if want && !NeedsClaim(f, nil) {
			t.Errorf("%s: a server of the flavor is not seen to hold parts of its host", key)
		}
	}
}
