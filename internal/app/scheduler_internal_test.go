package app

import (
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute/scheduler"
	"kilonova/internal/config"
)

// TestSchedulerOptions: what nobody sets is Nova's default, and every option of the scheduler's sections changes something of the scheduler.
func TestSchedulerOptions(t *testing.T) {
	fresh := func() *config.Config {
		t.Helper()
		cfg, err := config.Load("", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	base, err := SchedulerConfig(fresh())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(scheduler.Defaults(), base); diff != "" {
		t.Errorf("the defaults differ: %s", diff)
	}
	elsewhere := map[string]bool{"migrate_max_retries": true} // goes to the flows: TestLiveMigrationTriesAllHosts
	tried := 0
	for _, section := range []string{"Placing", "Scheduler", "Metrics", "Workarounds"} {
		kind := reflect.ValueOf(fresh()).Elem().FieldByName(section).Type()
		for i := range kind.NumField() {
			name := kind.Field(i).Tag.Get("opt")
			if elsewhere[name] {
				continue
			}
			cfg := fresh()
			v := reflect.ValueOf(cfg).Elem().FieldByName(section).Field(i)
			switch v.Kind() {
			case reflect.Bool:
				v.SetBool(!v.Bool())
			case reflect.Int:
				v.SetInt(v.Int() + 1)
			case reflect.Float64:
				v.SetFloat(v.Float() + 2)
			case reflect.String:
				v.SetString("x")
			case reflect.Slice:
				v.Set(reflect.ValueOf([]string{"x=1"}))
			default:
				t.Fatalf("[%s] %s is a %s", section, name, v.Kind())
			}
			changed, err := SchedulerConfig(cfg)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if cmp.Equal(base, changed) {
				t.Errorf("%s changes nothing", name)
			}
			tried++
		}
	}
	t.Logf("%d options", tried)
	if tried < 35 {
		t.Errorf("only %d options were tried", tried)
	}
}
