package definition

import (
	"errors"
	"strings"
	"testing"

	"kilonova/internal/compute/virt"
	"kilonova/internal/fault"
)

func volume(n string, boot int, kind string, data map[string]any) virt.Disk {
	return virt.Disk{VolumeID: n, Device: "/dev/vdb", BootIndex: boot, Connection: map[string]any{"driver_volume_type": kind, "data": data}}
}

func TestVolumeConnections(t *testing.T) {
	for _, c := range []struct {
		name string
		v    virt.Disk
		want string // a part of the XML
	}{
		{"file", volume("v1", -1, "local", map[string]any{"device_path": "/srv/v1", "format": "qcow2"}), `<disk type="file" device="disk"><driver name="qemu" type="qcow2" cache="none" discard="unmap"></driver><source file="/srv/v1"></source>`},
		{"block device", volume("v1", -1, "fibre_channel", map[string]any{"device_path": "/dev/sdx"}), `<source dev="/dev/sdx"></source>`},
		{"nbd", volume("v1", -1, "nbd", map[string]any{"host": "192.0.2.1", "port": float64(10810), "name": "volume-1"}), `<source protocol="nbd" name="volume-1"><host name="192.0.2.1" port="10810"></host></source>`},
		{"nbd over a unix socket", volume("v1", -1, "nbd", map[string]any{"socket": "/run/x.sock", "name": "x"}), `<host transport="unix" socket="/run/x.sock"></host>`},
		{"rbd", volume("v1", -1, "rbd", map[string]any{"name": "volumes/volume-1", "hosts": []any{"192.0.2.1", "[2001:db8::1]"}, "ports": []any{"6789", "6790"},
			"auth_enabled": true, "auth_username": "cinder", "secret_uuid": "457eb676-33da-42ec-9a8c-9293d545c337"}),
			`<auth username="cinder"><secret type="ceph" uuid="457eb676-33da-42ec-9a8c-9293d545c337"></secret></auth><source protocol="rbd" name="volumes/volume-1"><host name="192.0.2.1" port="6789"></host><host name="2001:db8::1" port="6790"></host></source>`},
		{"iscsi with CHAP", volume("v1", -1, "iscsi", map[string]any{"target_portal": "[2001:db8::2]:3261", "target_iqn": "iqn.2010-10.org.openstack:v1", "target_lun": 1,
			"auth_method": "CHAP", "auth_username": "u", "auth_password": "p"}),
			`<auth username="u"><secret type="iscsi" uuid="` + SecretFor("v1", "auth") + `"></secret></auth><source protocol="iscsi" name="iqn.2010-10.org.openstack:v1/1"><host name="2001:db8::2" port="3261"></host></source>`},
		{"encrypted", volume("v1", -1, "local", map[string]any{"device_path": "/srv/v1", "encrypted": true}), `<encryption format="luks"><secret type="passphrase" uuid="` + SecretFor("v1", "luks") + `"></secret></encryption>`},
		{"read only", volume("v1", -1, "local", map[string]any{"device_path": "/srv/v1", "access_mode": "ro"}), `<readonly></readonly>`},
		{"shared", volume("v1", -1, "local", map[string]any{"device_path": "/srv/v1", "multiattach": true}), `<shareable></shareable>`},
		{"serial and alias", volume("v1", -1, "local", map[string]any{"device_path": "/srv/v1"}), `<serial>v1</serial><alias name="ua-v1"></alias>`},
	} {
		k, err := Volume(c.v, &Options{DiskBus: "virtio"}, "none")
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		text, err := Encode(k)
		if err != nil {
			t.Fatal(err)
		}
		flat := strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' }), "")
		for strings.Contains(flat, "  ") {
			flat = strings.ReplaceAll(flat, "  ", "")
		}
		if !strings.Contains(flat, c.want) {
			t.Errorf("%s: %s lacks %s", c.name, flat, c.want)
		}
		if strings.Contains(flat, `"p"`) {
			t.Errorf("%s: the definition holds the password", c.name)
		}
	}
	for name, v := range map[string]virt.Disk{
		"relative path": volume("v", -1, "local", map[string]any{"device_path": "etc/passwd"}),
		"dots":          volume("v", -1, "local", map[string]any{"device_path": "/srv/../etc/passwd"}),
		"no host":       volume("v", -1, "nbd", map[string]any{"name": "x"}),
		"no pool":       volume("v", -1, "rbd", map[string]any{"name": "x"}),
		"no target":     volume("v", -1, "iscsi", map[string]any{"target_portal": "192.0.2.1"}),
		"format":        volume("v", -1, "local", map[string]any{"device_path": "/srv/v", "format": "vmdk"}),
		"type":          volume("v", -1, "smoke_signals", nil),
		"nothing":       {VolumeID: "v"},
	} {
		if _, err := Volume(v, &Options{DiskBus: "virtio"}, "none"); !errors.Is(err, fault.Invalid) && !errors.Is(err, fault.NotImplemented) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
