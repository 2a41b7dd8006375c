package guests_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kilonova/test/apart"
	"kilonova/test/process"
)

// restarts: the program ends in good order and without, while guests are running, paused and suspended; then the whole host goes down and comes up again.
func (c *cloud) restarts(t *testing.T) {
	run := c.boot(t, "runner", nil)
	still := c.boot(t, "sleeper", nil)
	run.ready(t)
	still.ready(t)
	for _, g := range []*guest{run, still} {
		g.run(t, "echo mine > /root/mark; sync")
	}
	boot, rest, pid := run.bootID(t), still.bootID(t), run.qemu(t)

	t.Run("the program ends while a guest is paused", func(t *testing.T) {
		still.act(t, "pause", nil, "PAUSED")
		if err := c.proc.Stop(); err != nil {
			t.Fatal(err)
		}
		untouched(t, run, pid, boot, "while the program is down")
		c.start(t)
		untouched(t, run, pid, boot, "after the program has started again")
		still.wait(t, "PAUSED")
		still.act(t, "unpause", nil, "ACTIVE")
		still.until(t, "cat /proc/sys/kernel/random/boot_id", rest)
	})
	t.Run("the program is killed while a guest is suspended", func(t *testing.T) {
		still.act(t, "suspend", nil, "SUSPENDED")
		if err := c.proc.Kill(); err != nil {
			t.Fatal(err)
		}
		untouched(t, run, pid, boot, "after the program was killed")
		c.start(t)
		untouched(t, run, pid, boot, "after the program has started again")
		still.wait(t, "SUSPENDED")
		still.act(t, "resume", nil, "ACTIVE")
		still.until(t, "cat /proc/sys/kernel/random/boot_id", rest)
		if out := run.run(t, "wget -q -O - "+service+"/latest/meta-data/instance-id | head -c 2"); out != "i-" {
			t.Errorf("the metadata service answers %q", out)
		}
	})
	t.Run("a server that is being made when the program is killed is made", func(t *testing.T) {
		g := c.boot(t, "half", nil)
		time.Sleep(300 * time.Millisecond) // somewhere in the build; where does not matter
		if err := c.proc.Kill(); err != nil {
			t.Fatal(err)
		}
		c.start(t)
		g.ready(t)
		g.delete(t)
		untouched(t, run, pid, boot, "after all that")
	})
	t.Run("the host goes down and comes up", func(t *testing.T) {
		if err := c.proc.Stop(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), apart.Patience)
		defer cancel()
		said, err := c.hostDown(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(said, run.id) {
			t.Errorf("it does not tell which guests it shuts down:\n%s", said)
		}
		c.nothingLeft(t)
		c.start(t)
		for g, before := range map[*guest]string{run: boot, still: rest} {
			g.rebooted(t, before)
			g.wait(t, "ACTIVE")
			mine(t, g)
		}
	})
	if !t.Failed() {
		run.delete(t)
		still.delete(t)
	}
}

// untouched: the guest keeps its QEMU, its boot and its network.
func untouched(t *testing.T, g *guest, pid int, boot, when string) {
	t.Helper()
	if now := g.qemu(t); now != pid || pid == 0 {
		t.Errorf("%s: QEMU was %d and is %d", when, pid, now)
	}
	apart.Eventually(t, when+" the guest answers pings", func() (string, bool) { return g.addr, pings(t, g.addr) })
	if now := g.bootID(t); now != boot {
		t.Errorf("%s: another boot", when)
	}
}

// hostNetwork tells the devices, addresses, rules and settings of the host.
func hostNetwork(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "sh", "-ec", `ip -o link | awk '{print $2}'; ip -o addr | awk '{print $2, $4}'; ip route; nft list ruleset
cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding`).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// nothingLeft: the network is as it was, and no process is there but the tests'.
func (c *cloud) nothingLeft(t *testing.T) {
	t.Helper()
	if d := cmp.Diff(strings.Split(c.before, "\n"), strings.Split(hostNetwork(t), "\n")); d != "" {
		t.Errorf("the host's network is not as it was:\n%s", d)
	}
	apart.Eventually(t, "no process is left", func() (string, bool) { // the last ones may be on their way out
		rest := processes(t)
		return strings.Join(rest, "; "), len(rest) == 0
	})
}

// processes lists those in these namespaces that are neither the tests nor the first process; the dead that wait for it do not count.
func processes(t *testing.T) (out []string) {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		line, err := os.ReadFile(filepath.Join(d, "cmdline"))
		if text := strings.ReplaceAll(string(line), "\x00", " "); err == nil && text != "" && !strings.Contains(text, "guests.test") && filepath.Base(d) != "1" {
			out = append(out, text)
		}
	}
	return out
}

// commands: what users type, with the openstack client as Debian has it.
func (c *cloud) commands(t *testing.T) {
	const python = "/usr/bin/python3" // the client is a package of Debian's python
	if err := exec.CommandContext(t.Context(), python, "-c", "import openstackclient").Run(); err != nil {
		t.Skip("python3-openstackclient is not installed")
	}
	cmd := exec.CommandContext(t.Context(), python, "../client/commands.py", c.prog.Dir, "--guests")
	cmd.Env = append(os.Environ(), "PATH=/usr/bin:/bin", "PYTHONPATH=", "PYTHONDONTWRITEBYTECODE=1")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("%v\n%s", err, process.LastLines(string(out), 12))
	}
}
