// Package config is the one typed configuration: built-in defaults, a file in the style of nova.conf, environment variables (KILONOVA_SECTION_OPTION) and
// command-line flags, each overriding the one before. It knows where each value came from.
package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"gopkg.in/ini.v1"
)

// Origin says where a value came from: "default", "file PATH", "environment NAME" or "flag NAME".
type Origin string

// Value is one option as `kilonova config print` shows it.
type Value struct {
	Section string `json:"section"`
	Option  string `json:"option"`
	Value   string `json:"value"`
	Default string `json:"default"`
	Origin  Origin `json:"origin"`
	Help    string `json:"help"`
}

// Load reads the configuration. file "" means none; env is in the form of os.Environ; flags maps "section.option" to values. It fails with every
// problem it finds: unknown sections and options, and values of the wrong kind.
func Load(file string, env []string, flags map[string]string) (*Config, error) {
	c := &Config{origins: map[string]Origin{}}
	index := map[string]reflect.Value{}
	var problems []error
	each(c, func(section, option string, f reflect.StructField, v reflect.Value) {
		index[section+"."+option] = v
		if err := set(v, f.Tag.Get("default")); err != nil {
			problems = append(problems, fmt.Errorf("default of [%s] %s: %w", section, option, err))
		}
	})
	apply := func(key, text string, o Origin) {
		v, ok := index[key]
		if !ok {
			problems = append(problems, fmt.Errorf("%s: there is no option %s (kilonova config print lists them)", o, key))
			return
		}
		if err := set(v, text); err != nil {
			problems = append(problems, fmt.Errorf("%s: %s: %w", o, key, err))
			return
		}
		c.origins[key] = o
	}
	if file != "" {
		doc, err := ini.LoadSources(ini.LoadOptions{AllowShadows: true, AllowPythonMultilineValues: true, IgnoreInlineComment: true}, file)
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		for _, s := range doc.Sections() {
			for _, k := range s.Keys() {
				apply(s.Name()+"."+k.Name(), strings.Join(k.ValueWithShadows(), ","), Origin("file "+file))
			}
		}
	}
	names := map[string]string{}
	for key := range index {
		names[EnvName(key)] = key
	}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		if key, ok := names[name]; ok {
			apply(key, value, Origin("environment "+name))
		}
	}
	keys := make([]string, 0, len(flags))
	for k := range flags {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		apply(k, flags[k], Origin("flag"))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return c, c.finish()
}

// EnvName is the environment variable of an option: "api.listen" is KILONOVA_API_LISTEN.
func EnvName(key string) string {
	return "KILONOVA_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(key))
}

// finish derives what depends on other options and checks what belongs together.
func (c *Config) finish() error {
	abs, err := filepath.Abs(c.Default.StateDir)
	if err != nil {
		return fmt.Errorf("state_dir: %w", err)
	}
	c.Default.StateDir = abs
	if c.Database.Connection == "" {
		c.Database.Connection = "sqlite://" + filepath.Join(abs, "kilonova.db")
	}
	if c.Compute.Host == "" {
		if c.Compute.Host, err = os.Hostname(); err != nil {
			return fmt.Errorf("name of this host: %w", err)
		}
	}
	if (c.API.TLSCert == "") != (c.API.TLSKey == "") {
		return errors.New("tls_cert and tls_key go together: give both or neither")
	}
	if !slices.Contains([]string{"libvirt", "fake"}, c.Compute.Driver) {
		return fmt.Errorf("[compute] driver %q: libvirt and fake are there", c.Compute.Driver)
	}
	if c.Compute.DedicatedCPUs != "" && c.Compute.ReservedCPUs > 0 {
		return errors.New("[compute] reserved_host_cpus and cpu_dedicated_set exclude each other: leave the host's CPUs out of cpu_dedicated_set and cpu_shared_set")
	}
	if (c.Compute.CPUMode == "custom") != (c.Compute.CPUModel != "") {
		return errors.New("[compute] cpu_model goes with cpu_mode custom: give both or neither")
	}
	return c.checkNotifications()
}

// checkNotifications refuses what would be silently without effect.
func (c *Config) checkNotifications() error {
	o := &c.Notifications
	o.Level = strings.ToUpper(o.Level)
	switch {
	case o.Format == "unversioned" || o.Format == "both":
		return fmt.Errorf("[notifications] notification_format %q: only versioned notifications are there; set it to versioned or none", o.Format)
	case o.Format != "versioned" && o.Format != "none":
		return fmt.Errorf("[notifications] notification_format %q is neither versioned nor none", o.Format)
	case !slices.Contains([]string{"", "vm_state", "vm_and_task_state"}, o.StateChange):
		return fmt.Errorf("[notifications] notify_on_state_change %q: vm_state and vm_and_task_state are there; empty: off", o.StateChange)
	case !slices.Contains([]string{"DEBUG", "INFO", "WARN", "ERROR", "CRITICAL"}, o.Level):
		return fmt.Errorf("[notifications] default_level %q is none of DEBUG, INFO, WARN, ERROR, CRITICAL", o.Level)
	case len(o.Topics) == 0 && o.Format == "versioned":
		return errors.New("[notifications] versioned_notifications_topics: name at least one topic")
	}
	return nil
}

// Values lists all options in the order of the sections.
func (c *Config) Values() []Value {
	var out []Value
	each(c, func(section, option string, f reflect.StructField, v reflect.Value) {
		o := c.origins[section+"."+option]
		if o == "" {
			o = "default"
		}
		text := format(v)
		if f.Tag.Get("secret") != "" && text != "" {
			text = "(hidden)"
		}
		out = append(out, Value{section, option, text, f.Tag.Get("default"), o, f.Tag.Get("help")})
	})
	return out
}

// Sample writes a configuration file with every option at its default, explained and commented out.
func Sample(w io.Writer) error {
	c := &Config{}
	last := ""
	var err error
	each(c, func(section, option string, f reflect.StructField, _ reflect.Value) {
		if section != last {
			if last != "" {
				_, e := fmt.Fprintln(w)
				err = errors.Join(err, e)
			}
			_, e := fmt.Fprintf(w, "[%s]\n", section)
			err, last = errors.Join(err, e), section
		}
		_, e := fmt.Fprintf(w, "\n# %s\n#%s = %s\n", f.Tag.Get("help"), option, f.Tag.Get("default"))
		err = errors.Join(err, e)
	})
	return err
}

func each(c *Config, f func(section, option string, field reflect.StructField, v reflect.Value)) {
	top := reflect.ValueOf(c).Elem()
	for i := range top.NumField() {
		section := top.Type().Field(i).Tag.Get("section")
		if section == "" {
			continue
		}
		s := top.Field(i)
		for j := range s.NumField() {
			field := s.Type().Field(j)
			f(section, field.Tag.Get("opt"), field, s.Field(j))
		}
	}
}

func set(v reflect.Value, text string) error {
	text = strings.TrimSpace(text)
	switch p := v.Addr().Interface().(type) {
	case *string:
		*p = text
	case *bool:
		switch strings.ToLower(text) {
		case "true", "yes", "on", "1":
			*p = true
		case "false", "no", "off", "0", "":
			*p = false
		default:
			return fmt.Errorf("%q is neither true nor false", text)
		}
	case *int, *int64:
		n, err := strconv.ParseInt(cmpOr(text, "0"), 10, 64)
		if err != nil {
			return fmt.Errorf("%q is no whole number", text)
		}
		v.SetInt(n)
	case *float64:
		n, err := strconv.ParseFloat(cmpOr(text, "0"), 64)
		if err != nil {
			return fmt.Errorf("%q is no number", text)
		}
		*p = n
	case *time.Duration:
		text = cmpOr(text, "0")
		if n, err := strconv.ParseFloat(text, 64); err == nil { // plain numbers are seconds
			*p = time.Duration(n * float64(time.Second))
			return nil
		}
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%q is no time: give seconds, or a unit as in 500ms or 2h", text)
		}
		*p = d
	case *[]string:
		*p = nil
		for _, s := range strings.Split(text, ",") {
			if s = strings.TrimSpace(s); s != "" {
				*p = append(*p, s)
			}
		}
	default:
		return fmt.Errorf("an option cannot be a %s", v.Type())
	}
	return nil
}

func format(v reflect.Value) string {
	if l, ok := v.Interface().([]string); ok {
		return strings.Join(l, ",")
	}
	return fmt.Sprint(v.Interface())
}

func cmpOr(s, d string) string {
	if s == "" {
		return d
	}
	return s
}
