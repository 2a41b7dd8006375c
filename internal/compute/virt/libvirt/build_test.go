package libvirt

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/libvirt/definition"
	"kilonova/internal/fault"
	"kilonova/internal/network"
)

const guestID = "5a5f2a0e-6f0e-4e47-9a55-111122223333"

// offline makes a driver that has no libvirtd: enough to build definitions.
func offline(t *testing.T) *Driver {
	return &Driver{c: Config{InstancesDir: t.TempDir(), Machine: "pc", VNCListen: "127.0.0.1", SerialListen: "127.0.0.1", SerialPorts: [2]int{20000, 29999}, PCIePorts: 5, RNGDevice: "/dev/hwrng", MemoryStats: 1500 * time.Millisecond},
		log: slog.Default(), cache: "none", caps: hostCaps{arch: "x86_64", emulator: "/usr/bin/qemu-system-x86_64", virtType: "qemu", cpuMode: "none"}}
}

func small() *virt.Spec {
	return &virt.Spec{ID: guestID, Name: "instance-00000001", Display: `<b> & "c"`, VCPUs: 2, MemoryMB: 256, RootGB: 1, BaseImage: "/cache/image", BaseFormat: "qcow2"}
}

func volume(n string, boot int, kind string, data map[string]any) virt.Disk {
	return virt.Disk{VolumeID: n, Device: "/dev/vdb", BootIndex: boot, Connection: map[string]any{"driver_volume_type": kind, "data": data}}
}

func TestDisksInOrder(t *testing.T) {
	d := offline(t)
	if err := os.MkdirAll(d.path(guestID), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.path(guestID, configDisk), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	local := func(n string, boot int) virt.Disk {
		return volume(n, boot, "local", map[string]any{"device_path": "/srv/" + n})
	}
	for _, c := range []struct {
		name string
		edit func(*virt.Spec)
		want string // target:bus:file:boot order
	}{
		{"image", func(*virt.Spec) {}, "vda:virtio:disk:1 hdd:ide:disk.config:0"},
		{"ephemeral and swap leave the volume its name", func(s *virt.Spec) { s.EphemeralGB, s.SwapMB, s.Disks = 1, 1, []virt.Disk{local("v", -1)} },
			"vda:virtio:disk:1 vdc:virtio:disk.eph0:0 vdd:virtio:disk.swap:0 vdb:virtio:v:0 hdd:ide:disk.config:0"},
		{"boot from volume", func(s *virt.Spec) {
			s.BaseImage = ""
			root := local("root", 0)
			root.Device = "/dev/vda"
			s.Disks = []virt.Disk{root, local("data", -1)}
		}, "vda:virtio:root:1 vdb:virtio:data:0 hdd:ide:disk.config:0"},
		{"two volumes want one name", func(s *virt.Spec) { s.Disks = []virt.Disk{local("a", -1), local("b", -1)} },
			"vda:virtio:disk:1 vdb:virtio:a:0 vdc:virtio:b:0 hdd:ide:disk.config:0"},
		{"scsi on q35", func(s *virt.Spec) {
			s.ImageProps = map[string]string{"hw_machine_type": "q35", "hw_disk_bus": "scsi", "hw_cdrom_bus": "scsi"}
		}, "sda:scsi:disk:1 sdd:scsi:disk.config:0"},
		{"rescue", func(s *virt.Spec) { s.Rescue, s.Disks = &virt.RescueSpec{BaseImage: "/r"}, []virt.Disk{local("v", -1)} },
			"vda:virtio:disk.rescue:1 vdc:virtio:disk:0 hdd:ide:disk.config:0"},
		{"stable rescue", func(s *virt.Spec) {
			s.Disks = []virt.Disk{local("v", -1)}
			s.Rescue = &virt.RescueSpec{BaseImage: "/r", ImageProps: map[string]string{"hw_rescue_bus": "scsi", "hw_rescue_device": "disk"}}
		}, "vda:virtio:disk:0 vdb:virtio:v:0 sda:scsi:disk.rescue:1 hdd:ide:disk.config:0"},
	} {
		spec := small()
		c.edit(spec)
		o, err := definition.ParseOptions(spec)
		if err != nil {
			t.Fatal(err)
		}
		disks, err := d.buildDisks(spec, o)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		var got []string
		for _, k := range disks {
			order := "0"
			if k.Boot != nil {
				order = string(rune('0' + k.Boot.Order))
			}
			got = append(got, strings.Join([]string{k.Target.Dev, k.Target.Bus, filepath.Base(k.Source.File), order}, ":"))
		}
		if diff := cmp.Diff(c.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
	spec := small()
	a, b := local("a", 1), local("b", 1)
	spec.Disks = []virt.Disk{a, b}
	o, _ := definition.ParseOptions(spec)
	if _, err := d.buildDisks(spec, o); !errors.Is(err, fault.Invalid) {
		t.Errorf("two disks with one boot index: %v", err)
	}
}

func TestMachineTypeThatTheHostLacks(t *testing.T) {
	d := offline(t)
	d.caps.machines = []string{"pc", "q35", "pc-i440fx-7.2"}
	for machine, known := range map[string]bool{"": true, "q35": true, "pc-i440fx-7.2": true, "pc-i440fx-99.0": false} {
		spec := small()
		if machine != "" {
			spec.ImageProps = map[string]string{"hw_machine_type": machine}
		}
		o, err := definition.ParseOptions(spec)
		if err != nil {
			t.Fatal(err)
		}
		err = d.buildSystem(&definition.Domain{}, spec, o)
		if known && err != nil {
			t.Errorf("%q: %v", machine, err)
		}
		if !known && (!errors.Is(err, fault.NotImplemented) || !strings.Contains(fault.PublicText(err), machine)) {
			t.Errorf("%q: %v", machine, err)
		}
	}
}

func TestSecrets(t *testing.T) {
	v := volume("v1", -1, "iscsi", map[string]any{"auth_password": "chap"})
	v.Secrets = map[string]string{"luks": "pass"}
	got := map[string]string{}
	for s, value := range secretsOf(v) {
		got[s.Usage.Type+" "+s.UUID] = value
	}
	want := map[string]string{"iscsi " + definition.SecretFor("v1", "auth"): "chap", "volume " + definition.SecretFor("v1", "luks"): "pass"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for in, key := range map[string]string{"[client.x]\n\tkey = AQB=\n\tcaps = y\n": "AQB=", "AQB=": "AQB="} {
		if got := cephKey(in); got != key {
			t.Errorf("%q gives %q", in, got)
		}
	}
}

func TestDefinitionHoldsTheGuest(t *testing.T) {
	d := offline(t)
	spec := small()
	spec.FlavorName, spec.ProjectID = "m1", "p1"
	spec.VIFs = []network.VIF{{PortID: "port-1", MAC: "fa:16:3e:00:00:01", Bridge: "br0", Tap: "tapport-1", MTU: 1450}}
	spec.ExtraSpecs = map[string]string{"hw:cpu_cores": "2", "hw:watchdog_action": "reset", "hw:serial_port_count": "2", "hw:vif_multiqueue_enabled": "true"}
	x, err := d.build(spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := definition.Encode(x)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`<server xmlns="urn:kilonova:server:1" id="` + guestID + `" name="&lt;b&gt; &amp; &#34;c&#34;" flavor="m1" project="p1">`,
		`<memory unit="MiB">256</memory>`, `<vcpu>2</vcpu>`, `<topology sockets="1" cores="2" threads="1">`, `<target dev="tapport-1">`, `<mtu size="1450">`,
		`<source bridge="br0">`, `<alias name="ua-port-1">`, `queues="2"`, `<log file="` + d.path(guestID, "console.log") + `" append="on">`,
		`<target type="virtio" name="org.qemu.guest_agent.0">`, `<entry name="product">OpenStack Nova</entry>`, `<watchdog model="i6300esb" action="reset">`,
	} {
		if !strings.Contains(text, part) {
			t.Errorf("the definition lacks %s:\n%s", part, text)
		}
	}
	if n := len(x.Devices.Serials); n != 2 || x.Devices.Serials[0].Source.Service == x.Devices.Serials[1].Source.Service {
		t.Errorf("%d serial ports: %+v", n, x.Devices.Serials)
	}
	again, err := d.build(spec, x)
	if err != nil || again.Devices.Serials[0].Source.Service != x.Devices.Serials[0].Source.Service {
		t.Errorf("the console moved from port %s to %s, %v", x.Devices.Serials[0].Source.Service, again.Devices.Serials[0].Source.Service, err)
	}
	for name, edit := range map[string]func(*virt.Spec){
		"no bridge":      func(s *virt.Spec) { s.VIFs[0].Bridge = "" },
		"bad MAC":        func(s *virt.Spec) { s.VIFs[0].MAC = "x" },
		"no CPU":         func(s *virt.Spec) { s.VCPUs = 0 },
		"uefi":           func(s *virt.Spec) { s.ImageProps = map[string]string{"hw_firmware_type": "uefi"} },
		"tpm":            func(s *virt.Spec) { s.ExtraSpecs = map[string]string{"hw:tpm_version": "2.0"} },
		"dedicated CPUs": func(s *virt.Spec) { s.ExtraSpecs = map[string]string{"hw:cpu_policy": "dedicated"} },
		"page size":      func(s *virt.Spec) { s.MemoryMB, s.ExtraSpecs = 257, map[string]string{"hw:mem_page_size": "large"} },
	} {
		s := small()
		s.VIFs = []network.VIF{spec.VIFs[0]}
		edit(s)
		if _, err := d.build(s, nil); err == nil || fault.KindOf(err) == fault.Internal {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRewriteForTheDestination(t *testing.T) {
	d := offline(t)
	d.c.InstancesDir = "/a&b"
	text := `<source file='/a&amp;b/` + guestID + `/disk'/><source file='/a&amp;b/other/disk'/><nvram>/a&amp;b/` + guestID + `/nvram.fd</nvram>` +
		`<source mode='bind' host='127.0.0.1' service='10001'/><source mode='bind' host='127.0.0.1' service='10002'/><source mode='bind' host='127.0.0.1' service='10001'/>` +
		`<graphics type='vnc' listen='127.0.0.1'><listen type='address' address='127.0.0.1'/>`
	got := d.rewrite(text, guestID, map[string]string{targetDir: "/c", targetPorts: "20001,20002,20003", targetVNC: "192.0.2.1", targetSerial: "192.0.2.2"})
	want := `<source file='/c/` + guestID + `/disk'/><source file='/a&amp;b/other/disk'/><nvram>/c/` + guestID + `/nvram.fd</nvram>` +
		`<source mode='bind' host='192.0.2.2' service='20001'/><source mode='bind' host='192.0.2.2' service='20002'/><source mode='bind' host='192.0.2.2' service='20001'/>` +
		`<graphics type='vnc' listen='192.0.2.1'><listen type='address' address='192.0.2.1'/>`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	nics := "<interface type='bridge'><mac address='fa:16:3e:00:00:01'/><source bridge='br1'/></interface><interface type='bridge'><mac address='FA:16:3E:00:00:02'/><source bridge='br1'/></interface>" +
		"<interface type='user'><mac address='fa:16:3e:00:00:03'/></interface><interface type='bridge'><mac address='fa:16:3e:00:00:04'/><source bridge='br1'/></interface>"
	moved := d.rewrite(nics, guestID, map[string]string{targetBridge + "fa:16:3e:00:00:02": "br2", targetBridge + "fa:16:3e:00:00:03": "br3", targetBridge + "fa:16:3e:00:00:09": "br9"})
	if diff := cmp.Diff(strings.Replace(nics, "02'/><source bridge='br1'", "02'/><source bridge='br2'", 1), moved); diff != "" {
		t.Error(diff)
	}
	if same := d.rewrite(text, guestID, map[string]string{}); same != text {
		t.Errorf("a destination that says nothing changes %s", cmp.Diff(text, same))
	}
}

func TestNames(t *testing.T) {
	for i, want := range map[int]string{0: "a", 25: "z", 26: "aa", 27: "ab", 701: "zz", 702: "aaa"} {
		if got := diskLetters(i); got != want {
			t.Errorf("%d is %s, want %s", i, got, want)
		}
	}
	for _, bad := range []string{"", "x", "../../etc", strings.ToUpper(guestID), guestID + "/..", "5a5f2a0e6f0e4e479a55111122223333"} {
		if _, err := parseUUID(bad); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q passes for a server id: %v", bad, err)
		}
	}
	if u, err := parseUUID(guestID); err != nil || u.String() != guestID {
		t.Errorf("%v, %v", u, err)
	}
}

func TestConsoleTails(t *testing.T) {
	for _, c := range []struct {
		text string
		n    int
		want string
	}{{"a\nb\nc\n", 3, "b\nc\n"}, {"a\nb\nc", 1, "c"}, {"a\n", 5, "a\n"}, {"", 3, ""}, {"\n\n\n", 2, "\n"}} {
		if got := string(lastLines([]byte(c.text), c.n)); got != c.want {
			t.Errorf("%d lines of %q: %q, want %q", c.n, c.text, got, c.want)
		}
	}
	path := filepath.Join(t.TempDir(), "log")
	if got, err := tail(path, 4); len(got) != 0 || err != nil {
		t.Errorf("a missing log: %q, %v", got, err)
	}
	if err := os.WriteFile(path, []byte("abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := tail(path, 4); string(got) != "cdef" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestPowerStates(t *testing.T) {
	for _, c := range []struct {
		state, reason int32
		saved         bool
		want          virt.PowerState
	}{{1, 0, false, virt.Running}, {2, 0, false, virt.Running}, {3, 1, false, virt.Paused}, {3, 10, false, virt.Crashed}, {4, 0, false, virt.Running},
		{5, 0, false, virt.Shutdown}, {5, 0, true, virt.Suspended}, {6, 0, false, virt.Crashed}, {7, 0, false, virt.Suspended}, {0, 0, false, virt.NoState}} {
		if got := power(c.state, c.reason, c.saved); got != c.want {
			t.Errorf("%+v is %d", c, got)
		}
	}
}
