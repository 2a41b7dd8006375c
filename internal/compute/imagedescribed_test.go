package compute

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEveryDescribedProperty takes every word and number that the description of image properties, which stands beside the repository, allows, and refuses others.
func TestEveryDescribedProperty(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "..", "shared", "spec", "scheduler.md"))
	if err != nil {
		t.Skipf("the description of the scheduler is not here: %v", err)
	}
	_, list, _ := strings.Cut(string(raw), "## Image properties known")
	list, _, _ = strings.Cut(list, "\n## ")
	judge := func(name, value string, want bool) {
		t.Helper()
		if err := CheckImageProps(map[string]string{name: value}); (err == nil) != want {
			t.Errorf("%s=%s: %v, want taken %v", name, value, err, want)
		}
	}
	word := regexp.MustCompile(`^[a-zA-Z0-9_.-]+$`)
	count := map[string]int{}
	for line := range strings.Lines(list) {
		cells := strings.Split(line, "|")
		if len(cells) < 5 || strings.Contains(cells[1], "---") || strings.TrimSpace(cells[1]) == "Property" {
			continue
		}
		names, kinds := strings.Split(cells[1], ","), strings.Split(cells[2], ";")
		for i, name := range names {
			name, _, _ = strings.Cut(strings.TrimSpace(name), " ")
			kind := strings.TrimSpace(kinds[min(i, len(kinds)-1)])
			switch {
			case kind == "integer":
				judge(name, "7", true)
				judge(name, "seven", false)
				count["numbers"]++
			case strings.Contains(kind, ", ") && !strings.Contains(kind, "list"):
				kind = kind[strings.Index(kind, ":")+1:]
				kind, more, _ := strings.Cut(kind, " (")
				for _, v := range strings.Split(kind+","+strings.TrimSuffix(more, ")"), ",") {
					if v = strings.TrimSuffix(strings.TrimSpace(v), " and others"); word.MatchString(v) {
						judge(name, v, true)
						count["words"]++
					}
				}
				judge(name, "none of them", false)
				count["properties with words"]++
			case kind == "boolean", kind == "string":
				judge(name, "true", true)
				count["others"]++
			case kind == "disk bus" || kind == "architecture" || kind == "hash name" || kind == "version predicate":
				judge(name, map[string]string{"disk bus": "scsi", "architecture": "ppc64le", "hash name": "SHA-256", "version predicate": ">=7.2, <9"}[kind], true)
				judge(name, "none of them", false)
				count["properties with words"]++
			}
		}
	}
	t.Logf("%v", count)
	if count["numbers"] < 12 || count["words"] < 80 || count["properties with words"] < 20 {
		t.Errorf("only these were judged: %v", count)
	}
}
