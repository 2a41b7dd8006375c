package providerconfig_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute/providerconfig"
	"kilonova/internal/compute/virt"
)

const head = "meta:\n  schema_version: '1.0'\nproviders:\n"

func TestParse(t *testing.T) {
	const text = `
meta: {schema_version: '1.3', author: me}
later: [1, 2]
providers:
  - identification: {uuid: $COMPUTE_NODE}
    inventories:
      additional:
        - CUSTOM_LICENSE: &some {total: 5, reserved: 1, min_unit: 1, max_unit: 2, step_size: 1, allocation_ratio: 1.5}
        - CUSTOM_SLICE: {total: 22}
          CUSTOM_SEAT: *some
      later: {}
    traits:
      additional: [CUSTOM_B, CUSTOM_A, CUSTOM_B]
  - identification: {name: EXAMPLE_RP}
    traits: {additional: [CUSTOM_C]}
    later: true
  - identification: {uuid: 5A1E5A1E-0000-4000-8000-00000000000F}
`
	var warned []string
	got, err := providerconfig.Parse("a.yaml", []byte(text), func(s string) { warned = append(warned, s) })
	if err != nil {
		t.Fatal(err)
	}
	license := virt.ProviderInventory{Total: 5, Reserved: 1, MinUnit: 1, MaxUnit: 2, StepSize: 1, AllocationRatio: 1.5}
	want := []virt.ProviderConfig{
		{File: "a.yaml", UUID: virt.EveryNode, Traits: []string{"CUSTOM_A", "CUSTOM_B"},
			Inventory: map[string]virt.ProviderInventory{"CUSTOM_LICENSE": license, "CUSTOM_SEAT": license, "CUSTOM_SLICE": {Total: 22}}},
		{File: "a.yaml", Name: "EXAMPLE_RP", Traits: []string{"CUSTOM_C"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if len(warned) != 2 || !strings.Contains(warned[0], "version 1.3") || !strings.Contains(warned[1], "5a1e5a1e-0000-4000-8000-00000000000f") {
		t.Errorf("warned: %q", warned)
	}
}

func TestRefusedFiles(t *testing.T) {
	one := func(rest string) string { return head + "  - identification: {name: n}\n" + rest }
	inv := func(of string) string { return one("    inventories: {additional: [{CUSTOM_A: " + of + "}]}\n") }
	for text, want := range map[string]string{
		"":                                   "meta.schema_version must be a text",
		"meta: {schema_version: 1.0}\n":      "meta.schema_version must be a text",
		"meta: {schema_version: '1'}\n":      "meta.schema_version must be a text",
		"meta: {schema_version: '2.0'}\n":    "version 2.0 of the form is not known, only 1.0",
		"meta: [\n":                          "line 1",
		head + "  - identification: [a]\n":   "line 4",
		"__source_file: x\n" + head + "  []": "__source_file cannot be given",
		head + "  - traits: {}\n":            "provider 1: identification must have uuid or name",
		head + "  - identification: {uuid: $COMPUTE_NODE, name: n}\n":           "identification must have uuid or name, and nothing else",
		head + "  - identification: {id: n}\n":                                  "identification must have uuid or name",
		head + "  - identification: {uuid: n}\n":                                `"n" is neither a UUID nor $COMPUTE_NODE`,
		head + "  - identification: {name: " + strings.Repeat("n", 201) + "}\n": "200 characters",
		one("    traits: {additional: [HW_CPU_X86_AVX]}\n"):                     "provider n: HW_CPU_X86_AVX is no custom trait",
		one("    traits: {additional: [custom_a]}\n"):                           "custom_a is no custom trait",
		one("    inventories: {additional: [{VCPU: {total: 1}}]}\n"):            "VCPU is no custom resource class",
		inv("{}"):                                   "n: CUSTOM_A: it must have a total",
		inv("7"):                                    "CUSTOM_A: it must have a total",
		inv("{total: x}"):                           "cannot unmarshal",
		inv("{total: 1, colour: red}"):              "colour is not known",
		inv("{total: 0}"):                           "total must be 1 to 2147483647",
		inv("{total: 2147483648}"):                  "total must be 1 to 2147483647",
		inv("{total: 1, reserved: 2}"):              "reserved must not be more than total",
		inv("{total: 1, reserved: -1}"):             "reserved must be 0 to 2147483647",
		inv("{total: 1, min_unit: 0}"):              "min_unit must be 1",
		inv("{total: 1, max_unit: 0}"):              "max_unit must be 1",
		inv("{total: 1, step_size: 0}"):             "step_size must be 1",
		inv("{total: 1, allocation_ratio: 0}"):      "allocation_ratio must be more than 0",
		inv("{total: 1, allocation_ratio: [1, 2]}"): "cannot unmarshal",
	} {
		if got, err := providerconfig.Parse("a.yaml", []byte(text), func(string) {}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "a.yaml") {
			t.Errorf("%q: %v, %v; want %s", text, got, err, want)
		}
	}
}

// Files are read in the order of their names; a provider may stand once, and other files are left alone.
func TestLoad(t *testing.T) {
	dir := t.TempDir()
	quiet := func(s string) { t.Errorf("warned: %s", s) }
	if got, err := providerconfig.Load(filepath.Join(dir, "none"), quiet); err != nil || got != nil {
		t.Fatalf("no directory: %v, %v", got, err)
	}
	write := func(name, provider string) {
		t.Helper()
		text := fmt.Sprintf("%s  - identification: {name: %s}\n    traits: {additional: [CUSTOM_T]}\n", head, provider)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("b.yaml", "two")
	write("a.yaml", "one")
	for _, other := range []string{"c.yaml.old", ".d.yaml", "README"} {
		if err := os.WriteFile(filepath.Join(dir, other), []byte("]"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := providerconfig.Load(dir, quiet)
	want := []virt.ProviderConfig{{File: "a.yaml", Name: "one", Traits: []string{"CUSTOM_T"}}, {File: "b.yaml", Name: "two", Traits: []string{"CUSTOM_T"}}}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Fatalf("%v (-want +got):\n%s", err, d)
	}
	write("c.yaml", "one")
	if _, err := providerconfig.Load(dir, quiet); err == nil || !strings.Contains(err.Error(), "provider one stands in a.yaml and again in c.yaml") {
		t.Fatalf("twice: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "0.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := providerconfig.Load(dir, quiet); err == nil {
		t.Fatal("what cannot be read was taken for nothing")
	}
}
