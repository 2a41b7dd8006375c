// Package providerconfig reads the provider configuration files of a host: YAML in which an operator adds custom inventories and custom traits to the
// resource providers of the host. Their form is version 1.0 of compute's, so that files written for it are good here.
package providerconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"kilonova/internal/compute/virt"
	"kilonova/internal/placement"
)

// major and minor are the newest version of the form that is known.
const major, minor = "1", "0"

var (
	versionForm = regexp.MustCompile(`^([0-9]+)\.([0-9]|[1-9][0-9]+)$`)
	uuidForm    = regexp.MustCompile(`^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$`)
)

// file is the form. Keys that it does not have are ignored, but for those of an identification and an inventory.
type file struct {
	Meta struct {
		Version yaml.Node `yaml:"schema_version"`
	} `yaml:"meta"`
	Source    any `yaml:"__source_file"`
	Providers []struct {
		Identification map[string]string `yaml:"identification"`
		Inventories    struct {
			Additional []map[string]yaml.Node `yaml:"additional"`
		} `yaml:"inventories"`
		Traits struct {
			Additional []string `yaml:"additional"`
		} `yaml:"traits"`
	} `yaml:"providers"`
}

// Load reads DIR/*.yaml in the order of their names; a directory that is not there has none. What is odd but harmless is told to warn. It fails on a file
// that cannot be read, does not have the form, or names a provider that another entry names in the same way.
func Load(dir string, warn func(text string)) ([]virt.ProviderConfig, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("provider configuration: %w", err)
	}
	var out []virt.ProviderConfig
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".yaml" || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("provider configuration: %w", err)
		}
		list, err := Parse(e.Name(), b, warn)
		if err != nil {
			return nil, err
		}
		for _, p := range list {
			if i := slices.IndexFunc(out, func(o virt.ProviderConfig) bool { return o.ID() == p.ID() }); i >= 0 {
				return nil, fmt.Errorf("provider configuration: provider %s stands in %s and again in %s: one entry must have all", p.ID(), out[i].File, p.File)
			}
			out = append(out, p)
		}
	}
	return out, nil
}

// Parse reads one file.
func Parse(name string, data []byte, warn func(text string)) ([]virt.ProviderConfig, error) {
	wrong := func(format string, args ...any) ([]virt.ProviderConfig, error) {
		return nil, fmt.Errorf("provider configuration %s: "+format, append([]any{name}, args...)...)
	}
	var f file
	if err := yaml.Unmarshal(data, &f); err != nil {
		return wrong("%w", err)
	}
	v := versionForm.FindStringSubmatch(f.Meta.Version.Value)
	switch {
	case v == nil || f.Meta.Version.Tag != "!!str":
		return wrong("meta.schema_version must be a text, '1.0'")
	case v[1] != major:
		return wrong("version %s of the form is not known, only %s.%s", v[0], major, minor)
	case v[2] != minor:
		warn(fmt.Sprintf("Provider configuration %s has version %s of the form; what is newer than %s.%s is ignored.", name, v[0], major, minor))
	}
	if f.Source != nil {
		return wrong("__source_file cannot be given")
	}
	var out []virt.ProviderConfig
	for i, in := range f.Providers {
		p := virt.ProviderConfig{File: name, UUID: in.Identification["uuid"], Name: in.Identification["name"], Traits: slices.Compact(slices.Sorted(slices.Values(in.Traits.Additional)))}
		if err := identified(&p, len(in.Identification)); err != nil {
			return wrong("provider %d: %w", i+1, err)
		}
		for _, t := range p.Traits {
			if !placement.IsCustom(t) {
				return wrong("provider %s: %s is no custom trait: only those that begin with CUSTOM_ can be added", p.ID(), t)
			}
		}
		for _, add := range in.Inventories.Additional {
			for _, class := range slices.Sorted(maps.Keys(add)) {
				if !placement.IsCustom(class) {
					return wrong("provider %s: %s is no custom resource class: only those that begin with CUSTOM_ can be added", p.ID(), class)
				}
				node := add[class]
				inv, err := inventory(&node)
				if err != nil {
					return wrong("provider %s: %s: %w", p.ID(), class, err)
				}
				if p.Inventory == nil {
					p.Inventory = map[string]virt.ProviderInventory{}
				}
				p.Inventory[class] = inv
			}
		}
		if len(p.Traits) == 0 && len(p.Inventory) == 0 {
			warn(fmt.Sprintf("Provider %s in provider configuration %s has neither additional inventories nor traits; it is ignored.", p.ID(), name))
			continue
		}
		out = append(out, p)
	}
	return out, nil
}

func identified(p *virt.ProviderConfig, keys int) error {
	switch {
	case keys != 1 || p.UUID == "" && p.Name == "":
		return errors.New("identification must have uuid or name, and nothing else")
	case p.UUID != "" && p.UUID != virt.EveryNode && !uuidForm.MatchString(p.UUID):
		return fmt.Errorf("%q is neither a UUID nor %s", p.UUID, virt.EveryNode)
	case len(p.Name) > 200:
		return errors.New("a name has 200 characters at most")
	}
	if p.UUID != virt.EveryNode {
		p.UUID = strings.ToLower(p.UUID)
	}
	return nil
}

// inventory reads what a provider has of a class, and refuses what placement would refuse.
func inventory(node *yaml.Node) (inv virt.ProviderInventory, err error) {
	keys := []string{"total", "reserved", "min_unit", "max_unit", "step_size", "allocation_ratio"}
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node.Kind != yaml.MappingNode {
		return inv, errors.New("it must have a total")
	}
	given := map[string]bool{}
	for i := 0; i < len(node.Content); i += 2 {
		key := node.Content[i].Value
		if !slices.Contains(keys, key) {
			return inv, fmt.Errorf("%s is not known: an inventory has %s", key, strings.Join(keys, ", "))
		}
		given[key] = true
	}
	if !given["total"] {
		return inv, errors.New("it must have a total")
	}
	if err := node.Decode(&inv); err != nil {
		return inv, err
	}
	for _, n := range []struct {
		key   string
		value int64
		least int64
	}{{"total", inv.Total, 1}, {"reserved", inv.Reserved, 0}, {"min_unit", inv.MinUnit, 1}, {"max_unit", inv.MaxUnit, 1}, {"step_size", inv.StepSize, 1}} {
		if given[n.key] && (n.value < n.least || n.value > placement.MaxInt) {
			return inv, fmt.Errorf("%s must be %d to %d", n.key, n.least, placement.MaxInt)
		}
	}
	switch {
	case inv.Reserved > inv.Total:
		return inv, errors.New("reserved must not be more than total")
	case given["allocation_ratio"] && inv.AllocationRatio <= 0:
		return inv, errors.New("allocation_ratio must be more than 0")
	}
	return inv, nil
}
