package config_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kilonova/internal/config"
)

func TestEachSourceOverridesTheOneBefore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "k.conf")
	if err := os.WriteFile(file, []byte("[DEFAULT]\nstate_dir = /a\n[quota]\ninstances = 5\ncores = 6\nram = 7\n[compute]\nservice_down_time = 90\nreport_interval = 250ms\n[filter_scheduler]\nenabled_filters = A\nenabled_filters = B, C\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file, []string{"KILONOVA_QUOTA_CORES=60", "KILONOVA_QUOTA_RAM=70", "HOME=/x"}, map[string]string{"quota.ram": "700"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Quota.Instances != 5 || c.Quota.Cores != 60 || c.Quota.RAM != 700 || c.Quota.KeyPairs != 100 {
		t.Fatalf("%+v", c.Quota)
	}
	if c.Compute.ServiceDownTime != 90*time.Second || c.Compute.ReportInterval != 250*time.Millisecond || strings.Join(c.Scheduler.Filters, " ") != "A B C" {
		t.Fatalf("%+v %v", c.Compute, c.Scheduler.Filters)
	}
	if c.Database.Connection != "sqlite:///a/kilonova.db" {
		t.Fatal(c.Database.Connection)
	}
	origin := map[string]config.Origin{}
	for _, v := range c.Values() {
		origin[v.Section+"."+v.Option] = v.Origin
		if v.Option == "connection" && strings.Contains(v.Value, "kilonova.db") {
			t.Error("a secret option is shown")
		}
	}
	want := map[string]config.Origin{"quota.instances": config.Origin("file " + file), "quota.cores": "environment KILONOVA_QUOTA_CORES", "quota.ram": "flag", "quota.key_pairs": "default"}
	for k, o := range want {
		if origin[k] != o {
			t.Errorf("%s comes from %q, want %q", k, origin[k], o)
		}
	}
}

func TestEveryProblemIsNamed(t *testing.T) {
	_, err := config.Load("", nil, map[string]string{"quota.cores": "many", "compute.colour": "red", "compute.service_down_time": "soon"})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, w := range []string{"many", "compute.colour", "soon"} {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not named in %v", w, err)
		}
	}
	if _, err := config.Load("", nil, map[string]string{"api.tls_cert": "x"}); err == nil {
		t.Error("a certificate without a key was accepted")
	}
	for name, bad := range map[string]map[string]string{
		"reserved_host_cpus": {"compute.cpu_dedicated_set": "1-3", "compute.reserved_host_cpus": "1"},
		"cpu_model":          {"compute.cpu_mode": "custom"},
		"cpu_mode custom":    {"compute.cpu_model": "Nehalem"},
	} {
		if _, err := config.Load("", nil, bad); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	for option, bad := range map[string]string{"notification_format": "unversioned", "notify_on_state_change": "always", "default_level": "LOUD"} {
		if _, err := config.Load("", nil, map[string]string{"notifications." + option: bad}); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("[notifications] %s = %s: %v", option, bad, err)
		}
	}
}

func TestSampleIsAConfiguration(t *testing.T) {
	var b bytes.Buffer
	if err := config.Sample(&b); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "k.conf")
	var text strings.Builder
	for line := range strings.Lines(b.String()) {
		if strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "# ") {
			line = line[1:]
		}
		text.WriteString(line)
	}
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(file, nil, nil); err != nil {
		t.Fatalf("%v", err)
	}
}
