package guests_test

import (
	"fmt"
	"strings"
	"testing"

	"kilonova/test/apart"
	"kilonova/test/process"
)

// refused: images that lie and machines that this host cannot make. Each says why.
func (c *cloud) refused(t *testing.T) {
	lie := make([]byte, 1<<16)
	copy(lie, "QFI\xfb\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x48\x00\x00\x00\x0b\x00\x00\x00\x10\x00\x00\x00\x00\x40\x00\x00\x00")
	copy(lie[72:], "/etc/passwd")
	var img process.Thing
	apart.Must(t, c.demo, "POST", "image", "/images", map[string]any{"name": "liar", "disk_format": "qcow2", "container_format": "bare"}, &img)
	code, _, err := c.demo.Do(t.Context(), "PUT", "image", "/images/"+img.ID+"/file", lie, nil)
	if code < 400 || code > 499 || !strings.Contains(fmt.Sprint(err), "backing") {
		t.Errorf("an image with a backing file: %d %v", code, err)
	}
	data := apart.ReadFile(t, imageFile())
	for _, x := range []struct {
		name  string
		props map[string]any
		want  string
	}{
		{"no such machine", map[string]any{"hw_machine_type": "commodore64"}, "commodore64"},
		{"a machine of the future", map[string]any{"hw_machine_type": "pc-i440fx-99.0"}, "pc-i440fx-99.0"},
		{"another architecture", map[string]any{"hw_architecture": "aarch64"}, "aarch64"},
		{"not what it says", map[string]any{"disk_format": "raw"}, ""},
	} {
		t.Run(x.name, func(t *testing.T) {
			meta := map[string]any{"name": x.name, "disk_format": "qcow2", "container_format": "bare"}
			for k, v := range x.props {
				meta[k] = v
			}
			var img process.Thing
			apart.Must(t, c.demo, "POST", "image", "/images", meta, &img)
			code, _, err := c.demo.Do(t.Context(), "PUT", "image", "/images/"+img.ID+"/file", data, nil)
			if x.want == "" {
				if code < 400 || code > 499 {
					t.Errorf("a qcow2 image that is called raw: %d %v", code, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			c.impossible(t, map[string]any{"imageRef": img.ID}, x.want)
		})
	}
	t.Run("too large", func(t *testing.T) {
		var f struct{ Flavor process.Thing }
		apart.Must(t, c.admin, "POST", "compute", "/flavors", map[string]any{"flavor": map[string]any{"name": "monster", "vcpus": 1, "ram": 64 << 20, "disk": 1}}, &f)
		apart.Must(t, c.admin, "PUT", "compute", "/os-quota-sets/"+c.project(t), map[string]any{"quota_set": map[string]any{"ram": -1}}, nil)
		c.impossible(t, map[string]any{"flavorRef": f.Flavor.ID}, "MEMORY_MB")
	})
}

func (c *cloud) project(t *testing.T) string {
	t.Helper()
	var n struct {
		Network struct {
			Tenant string `json:"tenant_id"`
		}
	}
	apart.Must(t, c.demo, "GET", "network", "/networks/"+c.ground.Network, nil, &n)
	return n.Network.Tenant
}

// impossible boots a server that must end in ERROR with a fault that holds want, and leaves nothing behind.
func (c *cloud) impossible(t *testing.T, body map[string]any, want string) {
	t.Helper()
	g := c.boot(t, "impossible", body)
	var s process.Server
	apart.Eventually(t, "the server is in ERROR", func() (string, bool) {
		var d struct{ Server process.Server }
		apart.Must(t, c.demo, "GET", "compute", "/servers/"+g.id, nil, &d)
		s = d.Server
		return s.Status, s.Status == "ERROR"
	})
	if s.Fault == nil || !strings.Contains(s.Fault.Message, want) {
		t.Errorf("the fault does not name %q: %+v", want, s.Fault)
	} else {
		t.Log(s.Fault.Message)
	}
	g.delete(t)
	if g.qemu(t) != 0 {
		t.Error("QEMU runs")
	}
}
