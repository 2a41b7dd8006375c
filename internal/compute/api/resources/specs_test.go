package resources

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// describedSpecs reads the table of extra specs from the description of the scheduler, which stands beside the repository: name, type, values.
func describedSpecs(t *testing.T) [][3]string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "..", "shared", "spec", "scheduler.md"))
	if err != nil {
		t.Skipf("the description of the scheduler is not here: %v", err)
	}
	var out [][3]string
	for line := range strings.Lines(string(raw)) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		cells := strings.Split(strings.ReplaceAll(line, `\|`, "\x00"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(strings.ReplaceAll(cells[i], "\x00", "|"))
		}
		out = append(out, [3]string{strings.Trim(cells[1], "`"), cells[2], cells[3]})
	}
	return out
}

var textOfPattern = map[string][2]string{ // a text that it takes, and one that it does not
	"mask": {"^1-3,5", "one"}, "numa_cpus": {"0-3,^2", "-"}, "page_size": {"2MB", "huge"}, "pmem": {"6GB,x", "6 GB"}, "alias": {"gpu:1 , nic:2", "gpu"},
}

// TestEveryDescribedSpec takes and refuses a value of every extra spec that is described, one below, at and above where it has bounds, and an unknown key beside it.
func TestEveryDescribedSpec(t *testing.T) {
	list := describedSpecs(t)
	judge := func(key, value string, want bool) {
		t.Helper()
		if err := checkSpec(key, value); (err == nil) != want {
			t.Errorf("%s=%s: %v, want taken %v", key, value, err, want)
		}
	}
	bounds := regexp.MustCompile(`^(?:>= )?(\d+)(?:\.\.(\d*))?$`)
	for _, d := range list {
		key, kind, values := d[0], d[1], d[2]
		for from, to := range map[string]string{"{num}": "1", "{key}": "any key", "{S}:CLASS": "1:VCPU", "{S}:NAME": "_N:HW_CPU_X86_AVX"} {
			key = strings.ReplaceAll(key, from, to)
		}
		switch {
		case strings.HasPrefix(key, "capabilities:"):
			for _, name := range regexp.MustCompile("`([a-z_]+)(\\[:sub...\\])?`").FindAllStringSubmatch(values, -1) {
				judge("capabilities:"+name[1], ">= 4", true)
				judge("capabilities:"+name[1]+":deep:er", ">= 4", name[2] != "")
			}
			continue
		case kind == "bool":
			judge(key, "True", true)
			judge(key, "no", true)
			judge(key, "maybe", false)
		case kind == "int":
			judge(key, "seven", false)
			judge(key, "1.5", false)
			judge(key, "1", true)
			m := bounds.FindStringSubmatch(values)
			if m == nil {
				judge(key, "-1", true)
				break
			}
			low, _ := strconv.Atoi(m[1])
			judge(key, strconv.Itoa(low-1), false)
			judge(key, strconv.Itoa(low), true)
			judge(key, strconv.Itoa(low+1), true)
			if m[2] != "" {
				high, _ := strconv.Atoi(m[2])
				judge(key, strconv.Itoa(high), true)
				judge(key, strconv.Itoa(high+1), false)
			}
		case strings.HasPrefix(values, "`"):
			i := slices.IndexFunc([]string{"mask", "numa_cpus", "page_size", "pmem", "alias"}, func(part string) bool { return strings.Contains(key, part) })
			if i < 0 {
				t.Fatalf("%s has a pattern that the test does not know", key)
			}
			texts := textOfPattern[[]string{"mask", "numa_cpus", "page_size", "pmem", "alias"}[i]]
			judge(key, texts[0], true)
			judge(key, texts[1], false)
		case values != "" && strings.Contains(values, ","):
			for _, v := range strings.Split(values, ",") {
				judge(key, strings.TrimSpace(v), true)
			}
			judge(key, "none of them", false)
		default:
			judge(key, "anything", true)
		}
		if namespace, _, ok := strings.Cut(key, ":"); ok && namespace != "aggregate_instance_extra_specs" {
			judge(namespace+":no_such_key", "1", false)
		}
	}
	judge("my:own", "anything", true)
	judge("own", "anything", true)
	t.Logf("%d extra specs", len(list))
	if len(list) < 80 {
		t.Errorf("only %d extra specs are described", len(list))
	}
}
