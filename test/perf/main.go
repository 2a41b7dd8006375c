// Command perf measures a Kilonova binary from outside, on the fake driver: start, memory, accept latency, servers to ACTIVE, lists, tokens, candidates, deletes.
// Every load is bounded in count and goes to loopback.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.binary, "binary", "bin/kilonova", "program to measure")
	flag.StringVar(&o.dir, "dir", "", "state directory to make; empty: a temporary one")
	flag.StringVar(&o.out, "json", "", "file for the figures as JSON")
	flag.IntVar(&o.servers, "servers", 1000, "servers of the boot measurement")
	flag.IntVar(&o.hosts, "hosts", 10000, "hosts of the boot of many servers on many hosts")
	flag.StringVar(&o.only, "only", "", "start, servers, candidates, hosts or population; empty: all")
	flag.StringVar(&o.flags, "flags", "", "more flags for the program, separated by blanks")
	flag.Parse()
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "perf:", err)
		os.Exit(1)
	}
}

type options struct {
	binary, dir, out, flags string
	servers, hosts          int
	only                    string
}

// cloud is the process that is measured.
type cloud struct {
	cmd   *exec.Cmd
	ended chan error // gets what the process ended with
	log   *os.File
	url   string
	dir   string
}

func startCloud(o options, dir string, hosts int) (*cloud, time.Duration, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, 0, err
	}
	logFile, err := os.Create(filepath.Join(dir, "kilonova.log"))
	if err != nil {
		return nil, 0, err
	}
	args := []string{"up", "--state-dir", dir, "--listen", "127.0.0.1:0", "--compute-driver", "fake", "--fake-hosts", strconv.Itoa(hosts),
		"--set", "quota.instances=-1", "--set", "quota.cores=-1", "--set", "quota.ram=-1"}
	c := &cloud{cmd: exec.Command(o.binary, append(args, strings.Fields(o.flags)...)...), log: logFile, dir: dir}
	c.cmd.Stdout, c.cmd.Stderr = logFile, logFile
	began := time.Now()
	if err := c.cmd.Start(); err != nil {
		return nil, 0, err
	}
	c.ended = make(chan error, 1)
	go func() { c.ended <- c.cmd.Wait() }()
	for time.Since(began) < 2*time.Minute {
		b, err := os.ReadFile(logFile.Name())
		if err != nil {
			return nil, 0, errors.Join(err, c.stop())
		}
		if len(c.ended) > 0 {
			return nil, 0, fmt.Errorf("the program ended (%v) and said: %s", <-c.ended, b)
		}
		if _, rest, ok := strings.Cut(string(b), "kilonova is ready: "); ok && strings.Contains(rest, "\n") {
			c.url, _, _ = strings.Cut(rest, " ")
			return c, time.Since(began), nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	return nil, 0, errors.Join(errors.New("the program was not ready within two minutes"), c.stop())
}

func (c *cloud) stop() error {
	defer func() { _ = c.log.Close() }()
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case err := <-c.ended:
		return err
	case <-time.After(time.Minute):
		return errors.Join(errors.New("the program did not stop within a minute"), c.cmd.Process.Kill())
	}
}

// memory is the proportional set size of the process in MiB.
func (c *cloud) memory() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", c.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
			kb, err := strconv.ParseFloat(f[1], 64)
			return kb / 1024, err
		}
	}
	return 0, errors.New("smaps_rollup has no Pss line")
}

// peak is the most memory that the process has had resident since it was last asked, in MiB; the kernel is told to begin anew.
func (c *cloud) peak() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmHWM:" {
			kb, err := strconv.ParseFloat(f[1], 64)
			return kb / 1024, errors.Join(err, os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", c.cmd.Process.Pid), []byte("5"), 0))
		}
	}
	return 0, errors.New("status has no VmHWM line")
}

// cpu is the CPU seconds that the process has used.
func (c *cloud) cpu() float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, _ := strconv.ParseFloat(f[11], 64)
	system, _ := strconv.ParseFloat(f[12], 64)
	return (user + system) / 100
}

type figures map[string]any

func (f figures) put(name string, v any, unit string) {
	f[name] = v
	switch x := v.(type) {
	case float64:
		fmt.Printf("%-52s %10.2f %s\n", name, x, unit)
	default:
		fmt.Printf("%-52s %10v %s\n", name, x, unit)
	}
}

func run(ctx context.Context, o options) (err error) {
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "kilonova-perf-"); err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(o.dir) }()
	}
	out := figures{}
	for _, part := range []struct {
		name    string
		measure func() error
	}{
		{"start", func() error { return measureStart(ctx, o, out) }},
		{"servers", func() error { return measureServers(ctx, o, out) }},
		{"candidates", func() error { return measureCandidates(ctx, o, out, 1000) }},
		{"candidates", func() error { return measureCandidates(ctx, o, out, 5000) }},
		{"hosts", func() error { return measureHosts(ctx, o, out) }},
		{"population", func() error { return measurePopulation(ctx, o, out) }},
	} {
		if o.only != "" && o.only != part.name {
			continue
		}
		if err := part.measure(); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	if o.out == "" {
		return nil
	}
	b, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.out, append(b, '\n'), 0o644)
}

// measureStart times the first start on an empty directory and the second one.
func measureStart(ctx context.Context, o options, out figures) error {
	dir := filepath.Join(o.dir, "start")
	for _, name := range []string{"first start to ready (makes keys and tables)", "second start to ready"} {
		c, took, err := startCloud(o, dir, 1)
		if err != nil {
			return err
		}
		out.put(name, float64(took.Microseconds())/1000, "ms")
		began := time.Now()
		cl, err := login(ctx, c)
		if err != nil {
			return errors.Join(err, c.stop())
		}
		out.put(name+": first token after", float64(time.Since(began).Microseconds())/1000, "ms")
		if err := cl.do(ctx, "GET", "compute", "/servers", nil, nil); err != nil {
			return errors.Join(err, c.stop())
		}
		time.Sleep(time.Second)
		m, err := c.memory()
		if err = errors.Join(err, c.stop()); err != nil {
			return err
		}
		out.put("idle memory (PSS)", m, "MiB")
	}
	return nil
}
