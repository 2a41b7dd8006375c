package servers_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"kilonova/internal/compute"
	"kilonova/internal/id"
)

// TestPublishedSamples compares the keys of our documents with those of the published samples at the microversion of each.
func TestPublishedSamples(t *testing.T) {
	root := filepath.Join("..", "..", "..", "..", "..", "shared", "spec", "api_samples")
	if _, err := os.Stat(root); err != nil {
		t.Skip("the published samples are not here:", err)
	}
	w := newWorld(t)
	reason := "r"
	s := w.boot(func(s *compute.Server) {
		s.LockedReason, s.GroupID, s.UserData, s.TrustedCerts = &reason, id.UUID(), "YQ==", []string{"c"}
		s.BlockDevices = []compute.BlockDevice{{ID: id.UUID(), VolumeID: id.UUID(), Device: "/dev/vdb", AttachmentID: id.UUID()}}
	})
	p := "/servers/" + s.ID
	compared := 0
	for file, ask := range map[string]func(minor int) map[string]any{
		"servers/*/server-get-resp.json":                            func(m int) map[string]any { return w.ask("admin", "GET", p, "", m, 200) },
		"servers/server-get-resp.json":                              func(m int) map[string]any { return w.ask("admin", "GET", p, "", m, 200) },
		"servers/*/servers-details-resp.json":                       func(m int) map[string]any { return w.ask("admin", "GET", "/servers/detail?limit=1", "", m, 200) },
		"servers/*/servers-list-resp.json":                          func(m int) map[string]any { return w.ask("admin", "GET", "/servers?limit=1", "", m, 200) },
		"servers/*/server-update-resp.json":                         func(m int) map[string]any { return w.ask("admin", "PUT", p, `{"server":{"name":"x"}}`, m, 200) },
		"server-ips/server-ips-resp.json":                           func(m int) map[string]any { return w.ask("admin", "GET", p+"/ips", "", m, 200) },
		"os-attach-interfaces/*/attach-interfaces-list-resp.json":   func(m int) map[string]any { return w.ask("admin", "GET", p+"/os-interface", "", m, 200) },
		"os-volume_attachments/*/list-volume-attachments-resp.json": func(m int) map[string]any { return w.ask("admin", "GET", p+"/os-volume_attachments", "", m, 200) },
	} {
		names, err := filepath.Glob(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			minor := 1
			if v, ok := strings.CutPrefix(filepath.Base(filepath.Dir(name)), "v2."); ok {
				if minor, err = strconv.Atoi(v); err != nil {
					t.Fatal(err)
				}
			}
			raw, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var sample map[string]any
			if err := json.Unmarshal(raw, &sample); err != nil {
				t.Fatal(name, err)
			}
			if minor == 69 { // records of a cell that is down: this cloud has no cells
				continue
			}
			for _, lost := range lacking("", sample, ask(minor)) {
				t.Errorf("%s: %s is not in our document", strings.TrimPrefix(name, root+"/"), lost)
			}
			compared++
		}
	}
	if compared < 30 {
		t.Fatal("only", compared, "samples were found")
	}
}

// free are objects whose keys are names that users choose.
var free = []string{".metadata", ".addresses", ".extra_specs", ".properties", ".scheduler_hints"}

// lacking gives the keys of a sample that a document does not have; of lists the first items are compared.
func lacking(path string, sample, doc any) []string {
	switch s := sample.(type) {
	case map[string]any:
		d, ok := doc.(map[string]any)
		if !ok {
			return []string{path + " (an object)"}
		}
		if slices.ContainsFunc(free, func(f string) bool { return strings.HasSuffix(path, f) }) {
			return nil
		}
		var out []string
		for k, v := range s {
			if _, has := d[k]; !has {
				out = append(out, path+"."+k)
				continue
			}
			out = append(out, lacking(path+"."+k, v, d[k])...)
		}
		return out
	case []any:
		d, ok := doc.([]any)
		if !ok {
			return []string{path + " (a list)"}
		}
		if len(s) > 0 && len(d) > 0 {
			return lacking(path+"[]", s[0], d[0])
		}
	}
	return nil
}
