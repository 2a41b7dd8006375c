package libvirt_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kilonova/internal/compute"
	"kilonova/internal/compute/virt/libvirt/daemon"
	"kilonova/internal/compute/virt/libvirt/rpc"
	"kilonova/internal/fault"
)

// TestPartsOfDevices: a guest with parts of a device has them made before it is defined, libvirt keeps them in its definition, and they go with it.
func TestPartsOfDevices(t *testing.T) {
	t.Parallel()
	h := startHost(t, daemon.Config{})
	h.cfg.Sys = t.TempDir()
	h.cfg.Mediated = []compute.MediatedType{{Name: "nvidia-35", Class: compute.ClassVGPU}}
	const first, second = "4b20d080-1b54-4048-85b3-a6a62d165c01", "4b20d080-1b54-4048-85b3-a6a62d165c02"
	create := filepath.Join(h.cfg.Sys, "class/mdev_bus/0000:84:00.0/mdev_supported_types/nvidia-35/create")
	remove := filepath.Join(h.cfg.Sys, "bus/mdev/devices", first, "remove")
	for path, text := range map[string]string{create: "", filepath.Join(filepath.Dir(create), "available_instances"): "2\n"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	d, c := h.open(t), h.client(t)
	info, err := d.Info(t.Context())
	if err != nil || len(info.Mediated) != 1 || info.Mediated[0] != (compute.HostMediated{Address: "0000:84:00.0", Type: "nvidia-35", Class: compute.ClassVGPU, Total: 2}) {
		t.Fatalf("%+v (%v)", info, err)
	}
	s := spec(h.image(t))
	s.Stopped, s.ExtraSpecs = true, map[string]string{"resources:VGPU": "1"}
	if err := d.Spawn(t.Context(), s); !errors.Is(err, fault.Conflict) {
		t.Errorf("without a part set aside: %v", err)
	}
	s.Claim = &compute.Claim{Mediated: []compute.MediatedDevice{{UUID: first, Parent: "0000:99:00.0", Type: "nvidia-35"}}}
	if err := d.Spawn(t.Context(), s); !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "cannot be divided") {
		t.Errorf("of a device that is not there: %v", err)
	}
	s.Claim.Mediated[0].Parent = "0000:84:00.0"
	if err := d.Spawn(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	read := func(path, want string) {
		t.Helper()
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			t.Errorf("%s has %q (%v), want %q", filepath.Base(path), b, err, want)
		}
	}
	read(create, first)
	text, err := c.XML(t.Context(), domainOf(t, c, s.ID), rpc.XMLInactive)
	if err != nil {
		t.Fatal(err)
	}
	text = strings.Join(strings.Fields(text), " ")
	if want := `type='mdev' managed='no' model='vfio-pci'`; !strings.Contains(text, want) || !strings.Contains(text, `<source> <address uuid='`+first+`'/> </source>`) {
		t.Errorf("the definition lacks %s:\n%s", want, text)
	}
	// Built anew with another part, the first one goes.
	if err := errors.Join(os.MkdirAll(filepath.Dir(remove), 0o755), os.WriteFile(remove, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	s.Claim.Mediated[0].UUID = second
	if err := d.Spawn(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	read(create, second)
	read(remove, "1")
	remove = filepath.Join(h.cfg.Sys, "bus/mdev/devices", second, "remove")
	if err := errors.Join(os.MkdirAll(filepath.Dir(remove), 0o755), os.WriteFile(remove, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.Destroy(t.Context(), s.ID, false); err != nil {
			t.Fatal(err)
		}
	}
	read(remove, "1")
}
