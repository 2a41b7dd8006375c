package metadata_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute"
	"kilonova/internal/compute/metadata"
	"kilonova/internal/fault"
	"kilonova/internal/network"
)

func server() *compute.Server {
	zero, one := 0, -1
	return &compute.Server{ID: "8a3f2c1e-7f47-4c5c-9b60-6d2d0cbe3c11", Number: 255, Name: "My Server", Hostname: "my-server", ProjectID: "p1", ReservationID: "r-abc",
		LaunchIndex: 2, AvailabilityZone: "nova", Flavor: compute.Flavor{Name: "m1.small"}, ImageID: "img", KernelID: "k", RootDevice: "/dev/vda",
		KeyName: "mykey", KeyType: "ssh", PublicKey: "ssh-ed25519 AAAA me", UserData: " " + base64.StdEncoding.EncodeToString([]byte("#cloud-config\n"))[:8] + " \n\t" + base64.StdEncoding.EncodeToString([]byte("#cloud-config\n"))[8:],
		Metadata: map[string]string{"role": "web"}, Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		BlockDevices: []compute.BlockDevice{{BootIndex: &zero, Device: "/dev/vda", SourceType: "image", DestinationType: "local"},
			{BootIndex: &one, Device: "/dev/vdb", SourceType: "blank", DestinationType: "local"}, {Device: "/dev/vdc", SourceType: "blank", DestinationType: "local", GuestFormat: "swap"},
			{Device: "/dev/vdd", SourceType: "volume", DestinationType: "volume", VolumeID: "vol-1", Tag: "data"}},
		VIFs: []network.VIF{{PortID: "port-1", NetworkID: "net-1", MAC: "fa:16:3e:00:00:01", Tap: "tap1", Type: "bridge", MTU: 1450, Tag: "front", SecurityGroups: []string{"default", "web"},
			FixedIPs: []network.VIFAddr{{Address: "10.0.0.5", Version: 4, CIDR: "10.0.0.0/22", Gateway: "10.0.0.1", DNS: []string{"9.9.9.9"},
				Routes: []network.Route{{Destination: "192.168.0.0/16", NextHop: "10.0.0.2"}}}, {Address: "10.9.0.5", Version: 4, CIDR: "10.9.0.0/24"},
				{Address: "2001:db8::5", Version: 6, CIDR: "2001:db8::/64", Gateway: "2001:db8::1", DNS: []string{"9.9.9.9", "2620:fe::fe"}}},
			Floating: []network.VIFAddr{{Address: "203.0.113.7", Version: 4}}},
			{PortID: "port-2", NetworkID: "net-2", MAC: "fa:16:3e:00:00:02", MTU: 1450, SecurityGroups: []string{"default"},
				FixedIPs: []network.VIFAddr{{Address: "10.1.0.5", Version: 4, CIDR: "10.1.0.0/24", DHCP: true}}}}}
}

func content(t *testing.T, edit func(*metadata.Input)) *metadata.Content {
	t.Helper()
	in := metadata.InputOf(server(), metadata.Extra{Domain: "novalocal", Files: map[string][]byte{"/etc/motd": []byte("hi")}, Seed: bytes.Repeat([]byte{1}, 512),
		Vendor: json.RawMessage(`{"cloud": "k"}`), Dynamic: map[string]json.RawMessage{"target": json.RawMessage(`[1]`)}})
	if edit != nil {
		edit(&in)
	}
	raw, err := json.Marshal(in) // as it travels to agents
	if err != nil {
		t.Fatal(err)
	}
	if in, err = metadata.Parse(raw); err != nil {
		t.Fatal(err)
	}
	c, err := metadata.Build(in)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func get(t *testing.T, c *metadata.Content, path string) string {
	t.Helper()
	b, _, ok := c.Get(path)
	if !ok {
		t.Fatalf("nothing at %s", path)
	}
	return string(b)
}

func doc(t *testing.T, c *metadata.Content, path string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(get(t, c, path)), &m); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return m
}

func TestEC2Tree(t *testing.T) {
	c := content(t, nil)
	base := "ami-id\nami-launch-index\nami-manifest-path\n"
	for path, want := range map[string]string{
		"/":                                             "1.0\n2007-01-19\n2007-03-01\n2007-08-29\n2007-10-10\n2007-12-15\n2008-02-01\n2008-09-01\n2009-04-04\nlatest",
		"/latest":                                       "meta-data/\nuser-data",
		"//latest//meta-data//":                         base + "block-device-mapping/\nhostname\ninstance-action\ninstance-id\ninstance-type\nkernel-id\nlocal-hostname\nlocal-ipv4\nplacement/\npublic-hostname\npublic-ipv4\npublic-keys/\nreservation-id\nsecurity-groups",
		"/1.0/meta-data":                                base + "hostname\ninstance-id\nlocal-ipv4\npublic-keys/\nreservation-id\nsecurity-groups",
		"/2007-03-01/meta-data":                         base + "hostname\ninstance-id\nlocal-hostname\nlocal-ipv4\npublic-hostname\npublic-ipv4\npublic-keys/\nreservation-id\nsecurity-groups",
		"/latest/meta-data/hostname":                    "my-server.novalocal",
		"/ec2/latest/user-data":                         "#cloud-config\n",
		"/latest/meta-data/ami-launch-index":            "2",
		"/latest/meta-data/instance-id":                 "i-000000ff",
		"/latest/meta-data/local-ipv4":                  "10.0.0.5",
		"/latest/meta-data/public-ipv4":                 "203.0.113.7",
		"/latest/meta-data/security-groups":             "default\nweb",
		"/latest/meta-data/public-keys":                 "0=mykey",
		"/latest/meta-data/public-keys/0":               "openssh-key",
		"/latest/meta-data/public-keys/0/openssh-key":   "ssh-ed25519 AAAA me",
		"/latest/meta-data/placement/availability-zone": "nova",
		"/latest/meta-data/block-device-mapping":        "ami\nebs0\nephemeral0\nroot\nswap",
		"/latest/meta-data/block-device-mapping/ami":    "vda",
		"/latest/meta-data/block-device-mapping/ebs0":   "/dev/vdd",
		"/latest/meta-data/instance-type":               "m1.small",
		"/latest/meta-data/instance-action":             "none",
	} {
		if got := get(t, c, path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	for _, path := range []string{"/1999-01-01", "/latest/nope", "/latest/meta-data/nope", "/1.0/meta-data/instance-type", "/latest/meta-data/public-keys/_name",
		"/latest/meta-data/public-keys/0/_name", "/latest/meta-data/hostname/x", "/favicon.ico"} {
		if b, _, ok := c.Get(path); ok {
			t.Errorf("%s is %q", path, b)
		}
	}
}

func TestOpenStackVersions(t *testing.T) {
	c := content(t, nil)
	if got, want := get(t, c, "/openstack"), strings.Join(append(metadata.OpenStackVersions(), "latest"), "\n"); got != want {
		t.Errorf("%q", got)
	}
	for version, want := range map[string]string{
		"2012-08-10": "meta_data.json user_data",
		"2013-04-04": "meta_data.json user_data password",
		"2013-10-17": "meta_data.json user_data password vendor_data.json",
		"2015-10-15": "meta_data.json user_data password vendor_data.json network_data.json",
		"2016-10-06": "meta_data.json user_data password vendor_data.json network_data.json vendor_data2.json",
		"latest":     "meta_data.json user_data password vendor_data.json network_data.json vendor_data2.json",
	} {
		if got := strings.ReplaceAll(get(t, c, "/openstack/"+version+"/"), "\n", " "); got != want {
			t.Errorf("%s: %q", version, got)
		}
	}
	since := map[string]string{"random_seed": "2013-04-04", "project_id": "2015-10-15", "devices": "2016-06-30", "dedicated_cpus": "2020-10-14"}
	for _, v := range metadata.OpenStackVersions() {
		m := doc(t, c, "/openstack/"+v+"/meta_data.json")
		for field, from := range since {
			if _, has := m[field]; has != (v >= from) {
				t.Errorf("%s of %s: %v", field, v, has)
			}
		}
	}
	for _, path := range []string{"/openstack/2011-01-01", "/openstack/2012-08-10/vendor_data.json", "/openstack/latest/nope", "/openstack/latest/user_data/x",
		"/openstack/content", "/openstack/content/0001", "/openstack/content/00", "/openstack/content/0000/x", "/openstack/content/-001"} {
		if _, _, ok := c.Get(path); ok {
			t.Errorf("%s is there", path)
		}
	}
}

func TestMetaData(t *testing.T) {
	c := content(t, func(in *metadata.Input) {
		in.AdminPass, in.DedicatedCPUs = "secret", []int{3, 1}
		in.Devices = append(in.Devices, metadata.Device{Type: "nic", MAC: "m", VLAN: 7}, metadata.Device{Type: "nic", MAC: "untold"},
			metadata.Device{Type: "share", ShareID: "s", ShareTag: "st"})
	})
	want := map[string]any{"uuid": "8a3f2c1e-7f47-4c5c-9b60-6d2d0cbe3c11", "name": "My Server", "hostname": "my-server.novalocal", "launch_index": 2.0,
		"availability_zone": "nova", "meta": map[string]any{"role": "web"}, "public_keys": map[string]any{"mykey": "ssh-ed25519 AAAA me"},
		"keys":        []any{map[string]any{"name": "mykey", "type": "ssh", "data": "ssh-ed25519 AAAA me"}},
		"files":       []any{map[string]any{"path": "/etc/motd", "content_path": "/content/0000"}},
		"random_seed": base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1}, 512)), "project_id": "p1", "dedicated_cpus": []any{1.0, 3.0},
		"devices": []any{
			map[string]any{"type": "nic", "bus": "none", "address": "none", "mac": "fa:16:3e:00:00:01", "tags": []any{"front"}, "vf_trusted": false},
			map[string]any{"type": "disk", "bus": "none", "address": "none", "serial": "vol-1", "path": "/dev/vdd", "tags": []any{"data"}},
			map[string]any{"type": "nic", "bus": "none", "address": "none", "mac": "m", "vlan": 7.0, "tags": []any{}, "vf_trusted": false},
			map[string]any{"type": "share", "share_id": "s", "tag": "st"}}}
	if d := cmp.Diff(want, doc(t, c, "/openstack/latest/meta_data.json")); d != "" {
		t.Error(d)
	}
	for version, n := range map[string]int{"2016-06-30": 2, "2017-02-22": 3, "2020-10-14": 3, "2025-04-04": 4} {
		list, _ := doc(t, c, "/openstack/"+version+"/meta_data.json")["devices"].([]any)
		if len(list) != n {
			t.Errorf("%s has %d devices", version, len(list))
		}
	}
	bare, err := metadata.Build(metadata.Input{ID: "x", Hostname: "h"})
	if err != nil {
		t.Fatal(err)
	}
	m := doc(t, bare, "/openstack/latest/meta_data.json")
	for _, k := range []string{"meta", "public_keys", "keys", "files", "admin_pass"} {
		if _, has := m[k]; has {
			t.Errorf("%s stands in an empty document", k)
		}
	}
	if m["hostname"] != "h" {
		t.Error(m["hostname"])
	}
	if _, _, ok := bare.Get("/openstack/latest/user_data"); ok {
		t.Error("user data that was not given")
	}
	if got := get(t, bare, "/latest"); got != "meta-data/" {
		t.Error(got)
	}
}

func TestNetworkData(t *testing.T) {
	c := content(t, nil)
	def := func(all, gw string) map[string]any {
		return map[string]any{"network": all, "netmask": all, "gateway": gw}
	}
	dns := func(a string) map[string]any { return map[string]any{"type": "dns", "address": a} }
	want := map[string]any{
		"links": []any{
			map[string]any{"id": "tap1", "vif_id": "port-1", "type": "bridge", "mtu": 1450.0, "ethernet_mac_address": "fa:16:3e:00:00:01"},
			map[string]any{"id": "interface1", "vif_id": "port-2", "type": "phy", "mtu": nil, "ethernet_mac_address": "fa:16:3e:00:00:02"}},
		"networks": []any{
			map[string]any{"id": "network0", "type": "ipv4", "link": "tap1", "network_id": "net-1", "ip_address": "10.0.0.5", "netmask": "255.255.252.0",
				"routes": []any{def("0.0.0.0", "10.0.0.1"), map[string]any{"network": "192.168.0.0", "netmask": "255.255.0.0", "gateway": "10.0.0.2"}}, "services": []any{dns("9.9.9.9")}},
			map[string]any{"id": "network1", "type": "ipv6", "link": "tap1", "network_id": "net-1", "ip_address": "2001:db8::5", "netmask": "ffff:ffff:ffff:ffff::",
				"routes": []any{def("::", "2001:db8::1")}, "services": []any{dns("9.9.9.9"), dns("2620:fe::fe")}},
			map[string]any{"id": "network2", "type": "ipv4_dhcp", "link": "interface1", "network_id": "net-2"}},
		"services": []any{dns("9.9.9.9"), dns("2620:fe::fe")}}
	if d := cmp.Diff(want, doc(t, c, "/openstack/latest/network_data.json")); d != "" {
		t.Error(d)
	}
}

func TestVendorData(t *testing.T) {
	c := content(t, nil)
	if d := cmp.Diff(map[string]any{"cloud": "k"}, doc(t, c, "/openstack/latest/vendor_data.json")); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]any{"static": map[string]any{"cloud": "k"}, "target": []any{1.0}}, doc(t, c, "/openstack/latest/vendor_data2.json")); d != "" {
		t.Error(d)
	}
	if got := get(t, c, "/openstack/content/0000"); got != "hi" {
		t.Error(got)
	}
}

func TestBuildRefuses(t *testing.T) {
	for _, in := range []metadata.Input{{UserData: "%"}, {Vendor: json.RawMessage(`[]`)}, {Dynamic: map[string]json.RawMessage{"a": json.RawMessage(`{`)}}} {
		if _, err := metadata.Build(in); !errors.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", in, err)
		}
	}
}

func TestSeedsDiffer(t *testing.T) {
	a, b := metadata.InputOf(server(), metadata.Extra{}), metadata.InputOf(server(), metadata.Extra{})
	if len(a.Seed) != 512 || bytes.Equal(a.Seed, b.Seed) {
		t.Fatal("two servers would share a seed")
	}
}
