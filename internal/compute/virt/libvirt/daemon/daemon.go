// Package daemon starts and finds a libvirtd and a virtlogd of the agent's own, for machines whose init system does not run them. Guests and daemons outlive the process
// that started them.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"kilonova/internal/compute/virt/libvirt/disk"
	"kilonova/internal/compute/virt/libvirt/rpc"
	"kilonova/internal/fault"
	"kilonova/internal/id"
)

// Config describes a libvirt of the agent's own.
type Config struct {
	// Dir holds everything: configuration, sockets, logs, the definitions of guests. It must outlive restarts, and its path must be short enough
	// for a socket's name (some 80 characters).
	Dir string
	// Hostname gives the daemon a host name of its own, NetNS a network namespace (a name under /run/netns): several hosts on one machine.
	Hostname, NetNS string
	// ListenTCP is an address on which the daemon also answers without authentication, for migration on a trusted network; "" none.
	ListenTCP string
	// MigrationAddress is where this host receives guests.
	MigrationAddress string
	// OwnCgroups runs the daemon below a control group of its own, so that two daemons on one machine may hold guests of the same name.
	OwnCgroups bool
	Log        *slog.Logger
}

// Daemon is libvirtd and virtlogd started by hand, for machines whose init system does not run them. They live in a mount namespace in which
// libvirt's directories are those below Dir. Guests and daemons outlive the process that started them: a later Start on the same Dir
// finds them again.
type Daemon struct {
	c Config
}

// SystemSocket is where a libvirtd that the system runs listens.
const SystemSocket = "/run/libvirt/libvirt-sock"

// Ensure gives the socket of a libvirtd that answers: the system's when it runs, otherwise one started under c.Dir. The Daemon is nil for
// the system's.
func Ensure(ctx context.Context, c Config) (*Daemon, string, error) {
	if answers(ctx, SystemSocket) {
		return nil, SystemSocket, nil
	}
	d, err := Start(ctx, c)
	if err != nil {
		return nil, "", err
	}
	return d, d.Socket(), nil
}

// answers tells whether a daemon serves the socket.
func answers(ctx context.Context, socket string) bool {
	if _, err := os.Stat(socket); err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	c, err := rpc.Open(ctx, rpc.Options{Address: socket, Keepalive: -1})
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// Find gives the daemon that runs under c.Dir, nil when none does.
func Find(c Config) *Daemon {
	d := &Daemon{c: c}
	if c.Log == nil {
		d.c.Log = slog.Default()
	}
	if d.PID() == 0 && d.pid("virtlogd") == 0 {
		return nil
	}
	return d
}

// Programs are what Start runs.
func Programs() []string {
	return []string{"libvirtd", "virtlogd", "unshare", "mount", "qemu-system-x86_64", "qemu-img"}
}

// Start starts what does not run yet and returns when the daemon answers. It needs root.
func Start(ctx context.Context, c Config) (*Daemon, error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if os.Geteuid() != 0 {
		return nil, fault.New(fault.Forbidden, "Starting libvirtd needs root.")
	}
	for _, p := range Programs() {
		if _, err := disk.FindProgram(p); err != nil {
			return nil, fault.Wrap(err, fault.Unavailable, "The program %s is not installed.", p).
				WithHint("Install the packages libvirt-daemon-system, qemu-system-x86 and qemu-utils.")
		}
	}
	d := &Daemon{c: c}
	if len(d.Socket()) > 107 {
		return nil, fault.New(fault.Invalid, "The directory %s is too long for libvirt's sockets.", c.Dir)
	}
	if err := d.configure(); err != nil {
		return nil, fmt.Errorf("configure libvirtd: %w", err)
	}
	if answers(ctx, d.Socket()) {
		return d, nil
	}
	for _, dir := range []string{"/etc/libvirt", "/run/libvirt", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make mount point: %w", err)
		}
	}
	if err := d.launch(ctx); err != nil {
		return nil, err
	}
	for n := 0; !answers(ctx, d.Socket()); n++ {
		if n > 20 && d.PID() == 0 {
			return nil, fault.Wrap(errors.New(d.lastLog()), fault.Unavailable, "libvirtd ended as soon as it was started.")
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("libvirtd does not answer: %w\n%s", ctx.Err(), d.lastLog())
		case <-time.After(100 * time.Millisecond):
		}
	}
	c.Log.Info("libvirtd started", "dir", c.Dir, "pid", d.pid("libvirtd"))
	return d, nil
}

// Socket is where the daemon listens.
func (d *Daemon) Socket() string { return filepath.Join(d.c.Dir, "run", "libvirt-sock") }

func (d *Daemon) path(p ...string) string {
	return filepath.Join(append([]string{d.c.Dir}, p...)...)
}

// configure writes the daemons' files.
func (d *Daemon) configure() error {
	for _, s := range []string{"etc/qemu", "run", "lib", "log", "cache"} {
		if err := os.MkdirAll(d.path(s), 0o755); err != nil {
			return err
		}
	}
	uuid, err := os.ReadFile(d.path("host-uuid"))
	if err != nil {
		uuid = []byte(id.UUID())
		if err := os.WriteFile(d.path("host-uuid"), uuid, 0o644); err != nil {
			return err
		}
	}
	lib := []string{
		`listen_tls = 0`, `auth_unix_ro = "none"`, `auth_unix_rw = "none"`, `unix_sock_rw_perms = "0700"`, `unix_sock_ro_perms = "0700"`,
		`host_uuid = ` + strconv.Quote(strings.TrimSpace(string(uuid))),
		`max_client_requests = 32`, `keepalive_interval = 10`, `keepalive_count = 6`,
		`log_level = 3`, `log_outputs = "3:file:/var/log/libvirt/libvirtd.log"`,
	}
	if c := d.c.ListenTCP; c != "" {
		host, port, err := net.SplitHostPort(c)
		if err != nil {
			return fault.Wrap(err, fault.Invalid, "The address %q needs the form host:port.", c)
		}
		lib = append(lib, `listen_tcp = 1`, `auth_tcp = "none"`, `listen_addr = `+strconv.Quote(host), `tcp_port = `+strconv.Quote(port))
	}
	qemu := []string{
		`user = "root"`, `group = "root"`, `dynamic_ownership = 1`, `remember_owner = 0`, `security_driver = "none"`, `namespaces = []`,
		`stdio_handler = "logd"`, `vnc_listen = "127.0.0.1"`, `max_core = 0`,
	}
	if a := d.c.MigrationAddress; a != "" && !net.ParseIP(a).IsLoopback() { // libvirt refuses loopback addresses here
		qemu = append(qemu, `migration_address = `+strconv.Quote(a), `migration_host = `+strconv.Quote(a))
	}
	logd := []string{`max_size = 1048576`, `max_backups = 1`, `log_level = 3`, `log_outputs = "3:file:/var/log/libvirt/virtlogd.log"`}
	for name, lines := range map[string][]string{"libvirtd.conf": lib, "qemu.conf": qemu, "virtlogd.conf": logd} {
		if err := os.WriteFile(d.path("etc", name), []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// launchScript runs inside the new namespaces. $1 is Dir, $2 a host name or "", $3 "--listen" or "".
const launchScript = `set -e
mount --bind "$1/etc" /etc/libvirt
mount --bind "$1/run" /run/libvirt
mount --bind "$1/lib" /var/lib/libvirt
mount --bind "$1/log" /var/log/libvirt
mount --bind "$1/cache" /var/cache/libvirt
if [ -n "$2" ]; then
  hostname "$2"
  { echo "127.0.0.1 localhost"; echo "127.0.1.1 $2"; } > "$1/hosts"
  mount --bind "$1/hosts" /etc/hosts
elif [ -n "$3" ] && ! awk -v name="$(hostname)" '!/^#/ { for (i = 2; i <= NF; i++) if ($i == name) found = 1 } END { exit !found }' /etc/hosts; then
  # While a guest migrates, libvirt asks again and again for the address of its own host's name, also while the guest stands still: that must not wait for DNS.
  { cat /etc/hosts; echo "127.0.1.1 $(hostname)"; } > "$1/hosts"
  mount --bind "$1/hosts" /etc/hosts
fi
if ! { [ -s /run/libvirt/virtlogd.pid ] && [ "$(cat /proc/"$(cat /run/libvirt/virtlogd.pid)"/comm 2>/dev/null)" = virtlogd ]; }; then
  rm -f /run/libvirt/virtlogd-sock /run/libvirt/virtlogd.pid
  virtlogd -d -p /run/libvirt/virtlogd.pid
fi
rm -f /run/libvirt/libvirt-sock
exec libvirtd -d $3 -p /run/libvirt/libvirtd.pid
`

// ownCgroups moves the shell into control groups named $1, in every hierarchy that is mounted, before it goes on with the rest.
const ownCgroups = `name=$1; shift
for d in $(awk '$3=="cgroup" || $3=="cgroup2" {print $2}' /proc/self/mounts); do
  mkdir -p "$d/$name"
  if [ -e "$d/cpuset.cpus" ]; then cat "$d/cpuset.cpus" > "$d/$name/cpuset.cpus"; cat "$d/cpuset.mems" > "$d/$name/cpuset.mems"; fi
  echo $$ > "$d/$name/cgroup.procs" || true
done
exec "$@"
`

// inCgroupNamespace shows each hierarchy from the shell's own group down, then goes on with the rest.
const inCgroupNamespace = `set -e
set_up() { mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup; }
list=$(awk '$3=="cgroup" || $3=="cgroup2" {print $2 " " $3 " " $4}' /proc/self/mounts)
set_up
echo "$list" | while read -r dir type opts; do
  [ -n "$dir" ] || continue
  mkdir -p "$dir"
  case $type in
  cgroup2) mount -t cgroup2 cgroup2 "$dir";;
  *) mount -t cgroup -o "$(echo "$opts" | tr , '\n' | grep -vE '^(rw|ro|relatime|nosuid|nodev|noexec|xattr|clone_children|release_agent=.*)$' | paste -sd,)" cgroup "$dir";;
  esac
done
exec "$@"
`

// launch runs the daemons; both go to the background when they are ready.
func (d *Daemon) launch(ctx context.Context) error {
	args := []string{"unshare", "--mount", "--propagation", "slave"}
	if d.c.Hostname != "" {
		args = append(args, "--uts")
	}
	if d.c.OwnCgroups {
		args = append(args, "--cgroup", "sh", "-c", inCgroupNamespace, "sh")
	}
	listen := ""
	if d.c.ListenTCP != "" {
		listen = "--listen"
	}
	args = append(args, "sh", "-c", launchScript, "sh", d.c.Dir, d.c.Hostname, listen)
	if d.c.NetNS != "" {
		args = append([]string{"nsenter", "--net=/run/netns/" + d.c.NetNS}, args...)
	}
	if d.c.OwnCgroups {
		args = append([]string{"sh", "-c", ownCgroups, "sh", d.cgroup()}, args...)
	}
	out, err := os.OpenFile(d.path("log", "start.log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = out, out, "/"
	cmd.Env = append(os.Environ(), "PATH="+disk.ProgramPath)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Run(); err != nil {
		return fault.Wrap(fmt.Errorf("%w: %s", err, d.lastLog()), fault.Unavailable, "libvirtd could not be started.")
	}
	return nil
}

// cgroup names the daemon's own control group.
func (d *Daemon) cgroup() string {
	h := fnv.New32a()
	h.Write([]byte(d.c.Dir))
	return fmt.Sprintf("kilonova-%08x", h.Sum32())
}

// lastLog gives the end of what the daemons said.
func (d *Daemon) lastLog() string {
	var b strings.Builder
	for _, f := range []string{"start.log", "libvirtd.log"} {
		if text, err := os.ReadFile(d.path("log", f)); err == nil {
			b.Write(text[max(0, len(text)-2000):])
		}
	}
	return strings.TrimSpace(b.String())
}

// pid gives a daemon's process id, 0 when it does not run.
func (d *Daemon) pid(name string) int {
	text, err := os.ReadFile(d.path("run", name+".pid"))
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || n <= 1 {
		return 0
	}
	// A dead process that nobody waits for keeps its name; where the first process waits for none, as in many containers, it stays.
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n))
	if err != nil || !strings.Contains(string(stat), "("+name+") ") || strings.Contains(string(stat), "("+name+") Z") {
		return 0
	}
	return n
}

// PID gives libvirtd's process id, 0 when it does not run.
func (d *Daemon) PID() int { return d.pid("libvirtd") }

// Stop ends libvirtd. Guests run on; virtlogd, which keeps their console logs, stays as long as there are any.
func (d *Daemon) Stop(ctx context.Context) error {
	err := d.end(ctx, "libvirtd")
	if d.guestsRun() {
		return err
	}
	err = errors.Join(err, d.end(ctx, "virtlogd"))
	if d.c.OwnCgroups {
		d.removeCgroups(ctx)
	}
	return err
}

// removeCgroups removes the daemon's own control groups. The kernel frees a group a moment after its last process ended.
func (d *Daemon) removeCgroups(ctx context.Context) {
	for try := 0; try < 20 && ctx.Err() == nil; try++ {
		dirs, _ := filepath.Glob("/sys/fs/cgroup/*/" + d.cgroup())
		if one := "/sys/fs/cgroup/" + d.cgroup(); there(one) { // a single hierarchy
			dirs = append(dirs, one)
		}
		if len(dirs) == 0 {
			return
		}
		for _, dir := range dirs {
			var inner []string
			_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
				if err == nil && e.IsDir() {
					inner = append(inner, path)
				}
				return nil
			})
			for _, path := range slices.Backward(inner) {
				_ = os.Remove(path) // one that is still used stays, and is tried again
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// guestsRun tells whether a QEMU that this daemon started is alive.
func (d *Daemon) guestsRun() bool {
	files, _ := filepath.Glob(d.path("run", "qemu", "*.pid"))
	for _, f := range files {
		text, err := os.ReadFile(f)
		n, err2 := strconv.Atoi(strings.TrimSpace(string(text)))
		if err == nil && err2 == nil && filepath.Base(f) != "driver.pid" && syscall.Kill(n, 0) == nil {
			return true
		}
	}
	return false
}

// end asks a daemon to stop and, after ten seconds, makes it.
func (d *Daemon) end(ctx context.Context, name string) error {
	sig := syscall.SIGTERM
	late := time.After(10 * time.Second)
	for {
		pid := d.pid(name)
		if pid == 0 {
			return nil
		}
		if sig != 0 {
			if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("stop %s: %w", name, err)
			}
			sig = 0
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("stop %s: %w", name, ctx.Err())
		case <-late:
			sig = syscall.SIGKILL
		case <-time.After(20 * time.Millisecond):
		}
	}
}
