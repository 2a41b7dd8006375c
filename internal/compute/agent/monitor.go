package agent

import (
	"maps"
	"os"
	"strconv"
	"strings"
	"sync"

	"kilonova/internal/compute/virt"
)

// MonitorCPU measures how the host's CPUs spend their time: cpu.user.time, cpu.kernel.time, cpu.idle.time, cpu.iowait.time (nanoseconds since the host started) and
// the shares since the report before, 0 to 1: cpu.user.percent, cpu.kernel.percent, cpu.idle.percent, cpu.iowait.percent, cpu.percent.
const MonitorCPU = "cpu.virt_driver"

// tick is the unit of /proc/stat, in nanoseconds.
const tick = 1e9 / 100

type cpuMonitor struct {
	path string
	mu   sync.Mutex
	last map[string]float64
}

// measure adds the metrics to a report. A host that cannot be read reports none.
func (m *cpuMonitor) measure(info *virt.HostInfo) {
	if m == nil {
		return
	}
	b, err := os.ReadFile(m.path)
	if err != nil {
		return
	}
	now := times(string(b))
	if now == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	out := maps.Clone(info.Metrics)
	if out == nil {
		out = map[string]float64{}
	}
	whole := 0.0
	for k, v := range now {
		out["cpu."+k+".time"] = v * tick
		whole += v - m.last[k]
	}
	if m.last != nil && whole > 0 {
		for k, v := range now {
			out["cpu."+k+".percent"] = (v - m.last[k]) / whole
		}
		out["cpu.percent"] = 1 - out["cpu.idle.percent"] - out["cpu.iowait.percent"]
	}
	m.last, info.Metrics = now, out
}

// times reads the first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, … in ticks.
func times(text string) map[string]float64 {
	line, _, _ := strings.Cut(text, "\n")
	f := strings.Fields(line)
	if len(f) < 8 || f[0] != "cpu" {
		return nil
	}
	var v [8]float64
	for i := 1; i < 8; i++ {
		n, err := strconv.ParseFloat(f[i], 64)
		if err != nil {
			return nil
		}
		v[i] = n
	}
	return map[string]float64{"user": v[1] + v[2], "kernel": v[3] + v[6] + v[7], "idle": v[4], "iowait": v[5]}
}
