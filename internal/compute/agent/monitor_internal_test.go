package agent

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"kilonova/internal/compute/virt"
)

func TestCPUMonitor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stat")
	m := &cpuMonitor{path: path}
	look := func(line string) map[string]float64 {
		t.Helper()
		if err := os.WriteFile(path, []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		info := &virt.HostInfo{Metrics: map[string]float64{"own": 1}}
		m.measure(info)
		if info.Metrics["own"] != 1 {
			t.Error("what the driver measures is lost")
		}
		return info.Metrics
	}
	if got := look("cpu  100 0 50 800 50 0 0 0\ncpu0 1\n"); got["cpu.user.time"] != 1e9 || got["cpu.percent"] != 0 {
		t.Errorf("%v", got)
	}
	got := look("cpu  150 10 70 890 60 10 10 0\n") // of 200 ticks 60 user, 40 kernel, 90 idle, 10 waiting
	for name, want := range map[string]float64{"cpu.user.percent": 0.3, "cpu.kernel.percent": 0.2, "cpu.idle.percent": 0.45, "cpu.iowait.percent": 0.05, "cpu.percent": 0.5} {
		if math.Abs(got[name]-want) > 1e-9 {
			t.Errorf("%s is %g, want %g", name, got[name], want)
		}
	}
	if got := look("nonsense"); len(got) != 1 {
		t.Errorf("%v", got)
	}
	var none *cpuMonitor
	none.measure(&virt.HostInfo{})
}
