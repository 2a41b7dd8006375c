package configdrive_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute/metadata"
	"kilonova/internal/compute/metadata/configdrive"
	"kilonova/internal/network"
)

func input() metadata.Input {
	return metadata.Input{ID: "8a3f2c1e-7f47-4c5c-9b60-6d2d0cbe3c11", Number: 7, Name: "My Server", Hostname: "my-server", Domain: "novalocal", ProjectID: "p1",
		ReservationID: "r-1", AvailabilityZone: "nova", Flavor: "m1.small", ImageID: "img", KeyName: "key", KeyType: "ssh", PublicKey: "ssh-ed25519 AAAA me",
		UserData: base64.StdEncoding.EncodeToString([]byte("#!/bin/sh\necho \x00\xff\n")), Metadata: map[string]string{"a": "ü<&>"},
		Files: map[string][]byte{"/etc/banner": []byte("hello"), "/etc/a": {0, 1, 2}, "/empty": {}}, SecurityGroups: []string{"default"},
		VIFs: []network.VIF{{PortID: "port", NetworkID: "net", MAC: "fa:16:3e:00:00:01", Tap: "tapx", Type: "bridge", MTU: 1500,
			FixedIPs: []network.VIFAddr{{Address: "10.0.0.5", Version: 4, CIDR: "10.0.0.0/24", Gateway: "10.0.0.1", DNS: []string{"9.9.9.9"}}}}},
		RootDevice: "/dev/vda", Seed: bytes.Repeat([]byte{7}, 512), Vendor: json.RawMessage(`{"v":1}`), Created: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)}
}

func build(t *testing.T, format string) (path string, files map[string][]byte) {
	t.Helper()
	in := input()
	raw, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "drive")
	if err := (configdrive.Writer{Format: format}).Build(t.Context(), raw, "s3cret", path); err != nil {
		t.Fatal(err)
	}
	in.AdminPass = "s3cret"
	c, err := metadata.Build(in)
	if err != nil {
		t.Fatal(err)
	}
	files = map[string][]byte{}
	for _, f := range c.DriveFiles() {
		files[f.Path] = f.Data
	}
	return path, files
}

func tool(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	bin, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	out, err := exec.Command(bin, args...).Output()
	if err != nil {
		t.Fatalf("%s %v: %v", name, args, err)
	}
	return out
}

// TestISO reads the drive with a reader that is not ours, by its Rock Ridge and its Joliet names.
func TestISO(t *testing.T) {
	path, files := build(t, "")
	if head := string(tool(t, "isoinfo", "-d", "-i", path)); !strings.Contains(head, "Volume id: config-2") || !strings.Contains(head, "Joliet with UCS level 3") ||
		!strings.Contains(head, "Rock Ridge signatures version 1 found") {
		t.Fatal(head)
	}
	for _, names := range []string{"-R", "-J"} {
		args := []string{"-j", "iso8859-1", names, "-i", path}
		var want, got []string
		for p := range files {
			want = append(want, "/"+p)
		}
		for line := range strings.Lines(string(tool(t, "isoinfo", append(args, "-f")...))) {
			if p := strings.TrimSpace(line); p != "" {
				if _, ok := files[p[1:]]; ok {
					got = append(got, p)
				} else if filepath.Ext(p) == ".json" {
					t.Errorf("%s shows %s", names, p)
				}
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %d of %d files: %v", names, len(got), len(want), got)
		}
		for p, data := range files {
			if d := tool(t, "isoinfo", append(args, "-x", "/"+p)...); !bytes.Equal(d, data) {
				t.Errorf("%s %s: %q, want %q", names, p, d, data)
			}
		}
	}
}

// TestVFAT reads the drive with mtools.
func TestVFAT(t *testing.T) {
	path, files := build(t, configdrive.VFAT)
	if st, err := os.Stat(path); err != nil || st.Size() != 64<<20 {
		t.Fatal(st.Size(), err)
	}
	if label := string(tool(t, "minfo", "-i", path, "::")); !strings.Contains(label, "config-2") {
		t.Fatal(label)
	}
	tool(t, "fsck.vfat", "-n", path)
	dir := t.TempDir()
	tool(t, "mcopy", "-s", "-n", "-i", path, "::ec2", "::openstack", dir)
	count := 0
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		count++
		rel, _ := filepath.Rel(dir, p)
		got, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if !bytes.Equal(got, files[rel]) {
			return fmt.Errorf("%s has %d bytes, want %d", rel, len(got), len(files[rel]))
		}
		return nil
	})
	if err != nil || count != len(files) {
		t.Fatalf("%d of %d files, %v", count, len(files), err)
	}
}

func TestSameInputSameBytes(t *testing.T) {
	for _, format := range []string{configdrive.ISO9660, configdrive.VFAT} {
		a, _ := build(t, format)
		one, err := os.ReadFile(a)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(1100 * time.Millisecond) // the formats keep whole seconds
		b, _ := build(t, format)
		two, err := os.ReadFile(b)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(one, two) {
			n := 0
			for i := range min(len(one), len(two)) {
				if one[i] != two[i] && n < 10 {
					t.Errorf("%s: byte %#x of sector %d differs: %x %x", format, i%2048, i/2048, one[i], two[i])
					n++
				}
			}
			t.Fatalf("%s: %d and %d bytes differ", format, len(one), len(two))
		}
		if st, err := os.Stat(a); err != nil || st.Mode().Perm() != 0o600 {
			t.Fatal(st.Mode(), err)
		}
	}
}

// TestServiceAndDriveAgree compares what a guest reads from the service with what it reads from the drive, file by file. They
// differ in the administrator's password alone.
func TestServiceAndDriveAgree(t *testing.T) {
	_, files := build(t, "")
	c, err := metadata.Build(input())
	if err != nil {
		t.Fatal(err)
	}
	h, err := metadata.New(metadata.Config{Proxied: true, Secret: []byte("x"), Lookup: nil})
	if err == nil || h != nil {
		t.Fatal("a handler without a look-up was made")
	}
	for path, want := range files {
		if strings.HasPrefix(path, "ec2/") && strings.HasSuffix(path, ".json") {
			compareEC2(t, c, path, want)
			continue
		}
		got, _, ok := c.Get("/" + path)
		if !ok {
			t.Errorf("the service does not have %s", path)
			continue
		}
		if strings.HasSuffix(path, "meta_data.json") {
			var drive, service map[string]any
			if err := json.Unmarshal(want, &drive); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(got, &service); err != nil {
				t.Fatal(err)
			}
			if drive["admin_pass"] != "s3cret" || service["admin_pass"] != nil {
				t.Errorf("%s: the password is at the wrong place", path)
			}
			delete(drive, "admin_pass")
			if d := cmp.Diff(drive, service); d != "" {
				t.Errorf("%s: %s", path, d)
			}
			continue
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: the service has %q, the drive %q", path, got, want)
		}
	}
	// And the other way round: every document of the service is on the drive.
	for _, v := range append(metadata.OpenStackVersions(), "latest") {
		list, _, _ := c.Get("/openstack/" + v)
		for name := range strings.Lines(string(list)) {
			name = strings.TrimSpace(name)
			if _, ok := files["openstack/"+v+"/"+name]; !ok && name != metadata.PasswordPath {
				t.Errorf("the drive does not have openstack/%s/%s", v, name)
			}
		}
	}
}

// compareEC2 walks the service's tree below meta-data and compares each value with the drive's document.
func compareEC2(t *testing.T, c *metadata.Content, path string, raw []byte) {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	base := strings.TrimSuffix(path, ".json")
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, x := range v {
				if k != "_name" {
					walk(at+"/"+k, x)
				}
			}
		case []any:
			var lines []string
			for _, x := range v {
				lines = append(lines, fmt.Sprint(x))
			}
			walk(at, strings.Join(lines, "\n"))
		default:
			if got, _, ok := c.Get(at); !ok || string(got) != fmt.Sprint(v) {
				t.Errorf("%s: the service has %q, the drive %v", at, got, v)
			}
		}
	}
	walk(base, doc)
}

func TestFailureLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	w := configdrive.Writer{}
	for _, raw := range []string{"", "{", `{"user_data": "%%%"}`} {
		if err := w.Build(t.Context(), []byte(raw), "", filepath.Join(dir, "drive")); err == nil {
			t.Errorf("%q made a drive", raw)
		}
	}
	if err := (configdrive.Writer{Format: "ext4"}).Build(t.Context(), []byte(`{}`), "", filepath.Join(dir, "drive")); err == nil {
		t.Error("an unknown format made a drive")
	}
	if err := w.Write(t.Context(), []metadata.File{{Path: "a", Data: nil}, {Path: "a/b", Data: nil}}, time.Time{}, filepath.Join(dir, "drive")); err == nil {
		t.Error("a file that is a directory too made a drive")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Fatal(left, err)
	}
}

func BenchmarkISO(b *testing.B) {
	raw, err := json.Marshal(input())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := (configdrive.Writer{}).Build(b.Context(), raw, "", filepath.Join(b.TempDir(), "drive")); err != nil {
			b.Fatal(err)
		}
	}
}
