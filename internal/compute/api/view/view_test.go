package view_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/api/view"
	"kilonova/internal/network"
)

var update = flag.Bool("update", false, "write the golden files")

func full() *compute.Server {
	at := time.Date(2026, 3, 4, 5, 6, 7, 8000, time.UTC)
	desc, reason, zone := "a \"quoted\"\nline", "because", "nova"
	return &compute.Server{ID: "0e44cc9c-e052-415d-afbf-469b0d384170", Number: 0x1a, Name: "vm <&> é \u2028", Description: &desc, Hostname: "vm", ProjectID: "p1", UserID: "u1", ReservationID: "r-abc",
		LaunchIndex: 2, VMState: compute.VMActive, TaskState: compute.TaskRebooting, PowerState: compute.PowerRunning, Progress: 7, Host: "c1", Node: "c1.example", AvailabilityZone: "nova", PinnedZone: &zone,
		Flavor:  compute.Flavor{FlavorID: "1", Name: "m1.tiny", VCPUs: 1, RAMMB: 512, RootGB: 1, EphemeralGB: 2, SwapMB: 3, ExtraSpecs: map[string]string{"b": "2", "a": "1"}},
		ImageID: "70a599e0-31e7-49b7-b260-868f441e862b", ImageProps: map[string]string{"hw_disk_bus": "virtio", "architecture": "x86_64", "boot_roles": "the owner's own"}, KernelID: "k", RamdiskID: "r", RootDevice: "/dev/vda", KeyName: "key", UserData: "YWJj",
		ConfigDrive: true, DiskConfig: "AUTO", AccessIPv4: "1.2.3.4", AccessIPv6: "80fe::", Metadata: map[string]string{"z": "1", "y": "2"}, Tags: []string{"a", "b"},
		Hints: map[string]any{"same_host": []string{"48e6a9f6-30af-47e0-bc04-acaed113bb4e"}}, GroupID: "g1", TrustedCerts: []string{"c1"},
		VIFs: []network.VIF{{NetworkName: "private", MAC: "fa:16:3e:00:00:01", SecurityGroups: []string{"default", "web"}, FixedIPs: []network.VIFAddr{{Address: "10.0.0.1", Version: 4}, {Address: "fd00::1", Version: 6}},
			Floating: []network.VIFAddr{{Address: "203.0.113.9", Version: 4}}}, {NetworkName: "other", MAC: "fa:16:3e:00:00:02", FixedIPs: []network.VIFAddr{{Address: "10.1.0.1", Version: 4}}},
			{NetworkName: "private", MAC: "fa:16:3e:00:00:03", SecurityGroups: []string{"web"}, FixedIPs: []network.VIFAddr{{Address: "10.0.0.2", Version: 4}}}},
		BlockDevices: []compute.BlockDevice{{SourceType: "image", DestinationType: "local"}, {VolumeID: "v1", DeleteOnTermination: true}, {VolumeID: "v2"}},
		Locked:       true, LockedBy: "owner", LockedReason: &reason, Fault: &compute.Fault{Code: 500, Message: "m", Details: "d", Created: at}, Created: at, Updated: at.Add(time.Second), Launched: at}
}

func options(minor int) view.ServerOptions {
	return view.ServerOptions{Minor: minor, Links: view.Links{Self: "http://cloud/v2.1", Bookmark: "http://cloud"}, Extended: true, HostStatus: view.FullHostStatus, ExtraSpecs: true, Admin: true,
		StatusOf: func(string) string { return "UP" }}
}

// TestGolden keeps the whole document at some versions as it is on the wire.
func TestGolden(t *testing.T) {
	for _, minor := range []int{1, 47, 104} {
		s := full()
		if minor == 104 {
			s.VMState, s.TaskState = compute.VMError, ""
		}
		raw := view.NewServerEncoder(view.Show, options(minor)).Append(nil, s)
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, raw, "", "  "); err != nil {
			t.Fatalf("2.%d is not JSON: %v\n%s", minor, err, raw)
		}
		file := filepath.Join("testdata", fmt.Sprintf("server-2.%d.json", minor))
		if *update {
			if err := os.WriteFile(file, append(pretty.Bytes(), '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), pretty.String()+"\n"); diff != "" {
			t.Errorf("2.%d: %s", minor, diff)
		}
	}
}

// TestAgreesWithEncodingJSON builds the newest document a second time, with the standard encoder, and compares.
func TestAgreesWithEncodingJSON(t *testing.T) {
	s := full()
	links := func(id string) []any {
		return []any{map[string]any{"rel": "self", "href": "http://cloud/v2.1/servers/" + id}, map[string]any{"rel": "bookmark", "href": "http://cloud/servers/" + id}}
	}
	addr := func(a, kind, mac string, v float64) map[string]any {
		return map[string]any{"addr": a, "version": v, "OS-EXT-IPS:type": kind, "OS-EXT-IPS-MAC:mac_addr": mac}
	}
	want := map[string]any{"id": s.ID, "name": s.Name, "status": "REBOOT", "tenant_id": "p1", "user_id": "u1", "metadata": s.Metadata, "hostId": view.HostID("p1", "c1"),
		"image":   map[string]any{"id": s.ImageID, "links": []any{map[string]any{"rel": "bookmark", "href": "http://cloud/images/" + s.ImageID}}, "properties": map[string]any{"hw_disk_bus": "virtio", "architecture": "x86_64"}},
		"flavor":  map[string]any{"vcpus": 1, "ram": 512, "disk": 1, "ephemeral": 2, "swap": 3, "original_name": "m1.tiny", "extra_specs": s.Flavor.ExtraSpecs},
		"created": s.Created.Format(clock.LayoutZ), "updated": s.Updated.Format(clock.LayoutZ), "accessIPv4": "1.2.3.4", "accessIPv6": "80fe::", "links": links(s.ID), "OS-DCF:diskConfig": "AUTO",
		"addresses": map[string]any{"private": []any{addr("10.0.0.1", "fixed", "fa:16:3e:00:00:01", 4), addr("fd00::1", "fixed", "fa:16:3e:00:00:01", 6), addr("203.0.113.9", "floating", "fa:16:3e:00:00:01", 4),
			addr("10.0.0.2", "fixed", "fa:16:3e:00:00:03", 4)}, "other": []any{addr("10.1.0.1", "fixed", "fa:16:3e:00:00:02", 4)}},
		"key_name": "key", "config_drive": "True", "OS-EXT-AZ:availability_zone": "nova", "OS-EXT-SRV-ATTR:host": "c1", "OS-EXT-SRV-ATTR:hypervisor_hostname": "c1.example",
		"OS-EXT-SRV-ATTR:instance_name": "instance-0000001a", "OS-EXT-STS:power_state": 1, "OS-EXT-STS:task_state": "rebooting", "OS-EXT-STS:vm_state": "active",
		"OS-SRV-USG:launched_at": "2026-03-04T05:06:07.000008", "OS-SRV-USG:terminated_at": nil, "security_groups": []any{map[string]any{"name": "default"}, map[string]any{"name": "web"}},
		"os-extended-volumes:volumes_attached": []any{map[string]any{"id": "v1", "delete_on_termination": true}, map[string]any{"id": "v2", "delete_on_termination": false}},
		"OS-EXT-SRV-ATTR:hostname":             "vm", "OS-EXT-SRV-ATTR:kernel_id": "k", "OS-EXT-SRV-ATTR:ramdisk_id": "r", "OS-EXT-SRV-ATTR:launch_index": 2, "OS-EXT-SRV-ATTR:reservation_id": "r-abc",
		"OS-EXT-SRV-ATTR:root_device_name": "/dev/vda", "OS-EXT-SRV-ATTR:user_data": "YWJj", "locked": true, "host_status": "UP", "description": s.Description, "tags": s.Tags,
		"trusted_image_certificates": s.TrustedCerts, "server_groups": []string{"g1"}, "locked_reason": "because", "pinned_availability_zone": "nova", "scheduler_hints": s.Hints}
	raw, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var a, b any
	if err := json.Unmarshal(raw, &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(view.NewServerEncoder(view.Show, options(104)).Append(nil, s), &b); err != nil {
		t.Fatal(err)
	}
	delete(b.(map[string]any), "progress") // only in some statuses
	if diff := cmp.Diff(a, b); diff != "" {
		t.Fatal(diff)
	}
}

// TestAnyStringSurvives: whatever text a user gives comes out as the standard decoder reads it.
func TestAnyStringSurvives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &compute.Server{Name: string(rapid.SliceOf(rapid.Byte()).Draw(t, "name")), Metadata: map[string]string{rapid.String().Draw(t, "key"): rapid.String().Draw(t, "value")}}
		var got struct {
			Name     string
			Metadata map[string]string
		}
		if err := json.Unmarshal(view.NewServerEncoder(view.Detail, options(104)).Append(nil, s), &got); err != nil {
			t.Fatal(err)
		}
		if got.Name != strings.ToValidUTF8(s.Name, "\ufffd") && got.Name != string([]rune(s.Name)) {
			t.Fatalf("%q became %q", s.Name, got.Name)
		}
		if diff := cmp.Diff(s.Metadata, got.Metadata); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestNextKeepsTheQuery(t *testing.T) {
	l := view.Links{Self: "http://cloud/v2.1/p"}
	got := l.Next("/servers", map[string][]string{"name": {"b"}, "limit": {"1"}, "marker": {"old"}}, "m")
	if diff := cmp.Diff([]view.Link{{Rel: "next", Href: "http://cloud/v2.1/p/servers?limit=1&marker=m&name=b"}}, got); diff != "" {
		t.Fatal(diff)
	}
}

func BenchmarkDetail1000(b *testing.B) {
	servers := make([]*compute.Server, 1000)
	for i := range servers {
		servers[i] = full()
	}
	list := view.ServerList{Encoder: view.NewServerEncoder(view.Detail, options(104)), Servers: servers}
	for b.Loop() {
		if raw, err := list.AppendJSON(nil); err != nil || len(raw) < 1000 {
			b.Fatal(err)
		}
	}
}
