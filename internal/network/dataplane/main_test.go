package dataplane

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6/nclient6"
	"golang.org/x/sys/unix"

	"kilonova/internal/network"
)

// The tests that move packets run in a network namespace of their own: TestMain starts the test program again inside one, so
// that nothing of the machine's own network is seen or touched. Guests are further namespaces joined by pairs of interfaces.
func TestMain(m *testing.M) {
	if what := os.Getenv("DATAPLANE_GUEST"); what != "" {
		if err := beGuest(what); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Geteuid() == 0 && os.Getenv("DATAPLANE_INSIDE") == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), "DATAPLANE_INSIDE=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		err := cmd.Run()
		if cmd.ProcessState == nil {
			fmt.Fprintln(os.Stderr, "no network namespace of our own:", err)
			os.Exit(m.Run()) // what needs one skips
		}
		os.Exit(cmd.ProcessState.ExitCode())
	}
	os.Exit(m.Run())
}

// beGuest is what the test program does inside a guest: "listen PORT" answers each connection with a greeting and then sends back
// what it gets, "dhcp6 LINK" asks for addresses, "dial ADDR" prints what it is greeted with, "hold ADDR" keeps a connection, sends what it is told and prints what
// comes back, both from a certain port with "ADDR PORT"; "answer", "datagrams" and "forge" are the same with UDP, the last sends only;
// "host ADDR" is a host of its own with a data plane whose tunnels end at ADDR.
func beGuest(what string) error {
	verb, arg, _ := strings.Cut(what, " ")
	switch verb {
	case "host":
		return beHost(arg)
	case "listen":
		l, err := net.Listen("tcp", ":"+arg)
		if err != nil {
			return err
		}
		fmt.Println("ready")
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			go func() {
				_, _ = c.Write([]byte("hello " + c.RemoteAddr().String() + "\n"))
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	case "dial":
		c, err := dialFrom(arg, 3*time.Second)
		if err != nil {
			return err
		}
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		line, err := bufio.NewReader(c).ReadString('\n')
		fmt.Print(strings.TrimSpace(line))
		return err
	case "hold":
		var c net.Conn
		var err error
		// A neighbour that was asked for in vain a moment ago is taken to be away for some seconds.
		if !soon(func() bool { c, err = dialFrom(arg, 10*time.Second); return err == nil }) {
			return err
		}
		go func() { _, _ = io.Copy(c, os.Stdin) }()
		_, err = io.Copy(os.Stdout, c)
		return err
	}
	switch verb {
	case "dhcp6":
		return askDHCP6(arg)
	case "answer":
		return answerDatagrams(arg)
	case "datagrams":
		return sendDatagrams(arg)
	case "forge":
		c, err := datagramsFrom(arg)
		if err == nil {
			_, err = c.Write([]byte("forged\n"))
		}
		return err
	}
	return fmt.Errorf("unknown %q", what)
}

func dialFrom(arg string, wait time.Duration) (net.Conn, error) {
	addr, port, _ := strings.Cut(arg, " ")
	d := net.Dialer{Timeout: wait, Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		return errors.Join(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }), err)
	}}
	if n, err := strconv.Atoi(port); err == nil {
		d.LocalAddr = &net.TCPAddr{Port: n}
	}
	return d.Dial("tcp", addr)
}

// datagramsFrom opens a UDP socket that talks to one address only, "ADDR PORT", from a port of its own.
func datagramsFrom(arg string) (net.Conn, error) {
	addr, port, _ := strings.Cut(arg, " ")
	n, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{LocalAddr: &net.UDPAddr{Port: n}}
	return d.Dial("udp4", addr)
}

// sendDatagrams sends what one is and then each line of in, and prints the datagrams that come back.
func sendDatagrams(arg string) error {
	c, err := datagramsFrom(arg)
	if err != nil {
		return err
	}
	if _, err := c.Write([]byte("hello\n")); err != nil {
		return err
	}
	go func() {
		for sc := bufio.NewScanner(os.Stdin); sc.Scan(); {
			_, _ = c.Write(append(sc.Bytes(), '\n'))
		}
	}()
	_, err = io.Copy(os.Stdout, c)
	return err
}

// answerDatagrams sends every datagram back to where it comes from.
func answerDatagrams(port string) error {
	c, err := net.ListenPacket("udp4", ":"+port)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	buf := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		_, _ = c.WriteTo(buf[:n], from)
	}
}

// askDHCP6 gets addresses by DHCPv6 on an interface and prints them.
func askDHCP6(link string) error {
	c, err := nclient6.New(link, nclient6.WithRetry(10), nclient6.WithTimeout(3*time.Second))
	if err != nil {
		return err
	}
	ctx := context.Background()
	offer, err := c.Solicit(ctx)
	if err != nil {
		return err
	}
	reply, err := c.Request(ctx, offer)
	if err != nil {
		return err
	}
	if ia := reply.Options.OneIANA(); ia != nil {
		for _, a := range ia.Options.Addresses() {
			fmt.Println(a.IPv6Addr)
		}
	}
	return nil
}

// needRoot skips what needs a namespace and the programs that act in it.
func needRoot(t *testing.T, programs ...string) {
	t.Helper()
	if os.Getenv("DATAPLANE_INSIDE") == "" {
		t.Skip("needs root and a network namespace of its own")
	}
	for _, p := range append(programs, "nft", "ip") {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs the program %s: %v", p, err)
		}
	}
	run(t, "ip", "link", "set", "lo", "up")
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// guest is a namespace that plays a virtual machine.
type guest struct {
	t    *testing.T
	ns   string
	port network.HostPort
}

// boot makes a guest behind a port's tap.
func boot(t *testing.T, p network.HostPort) *guest {
	t.Helper()
	return bootOn(t, "", p)
}

// bootOn makes a guest on a host, which is a namespace too; "" is the namespace of the test.
func bootOn(t *testing.T, host string, p network.HostPort) *guest {
	t.Helper()
	at := func(args ...string) []string {
		if host != "" {
			return append([]string{"-n", host}, args...)
		}
		return args
	}
	g := &guest{t: t, ns: fmt.Sprintf("kn%d-%s", os.Getpid(), p.ID[:8]), port: p}
	run(t, "ip", "netns", "add", g.ns)
	t.Cleanup(func() {
		_ = exec.Command("ip", at("link", "del", p.Tap)...).Run()
		run(t, "ip", "netns", "del", g.ns)
	})
	run(t, "ip", at("link", "add", p.Tap, "type", "veth", "peer", "name", "eth0", "address", p.MAC, "netns", g.ns)...)
	g.ip("link", "set", "lo", "up")
	g.ip("link", "set", "eth0", "up")
	return g
}

func (g *guest) ip(args ...string) string {
	g.t.Helper()
	return run(g.t, "ip", append([]string{"-n", g.ns}, args...)...)
}

// static gives the guest its address and routes without DHCP.
func (g *guest) static(cidr, gateway string) {
	g.t.Helper()
	g.ip("addr", "add", cidr, "dev", "eth0")
	g.ip("route", "add", "default", "via", gateway)
}

// try runs a program in the guest.
func (g *guest) try(env string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(g.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", g.ns}, args...)...)
	cmd.Env = append(os.Environ(), env)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// patience is how long tests wait for what must come to pass. What must not is looked for once: waiting longer would not make it more certain.
const patience = 2 * time.Minute

// soon tells whether something comes to pass on a machine that may be slow.
func soon(ok func() bool) bool {
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if ok() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// reaches tells whether an address answers, now or soon; ping asks once.
func (g *guest) reaches(addr string) bool { return soon(func() bool { return g.ping(addr) }) }

func (g *guest) ping(addr string) bool {
	_, err := g.try("", "ping", "-c1", "-W1", addr)
	return err == nil
}

// greeting is what an address and port say to whoever connects, now or soon; dial asks once.
func (g *guest) greeting(addr string) (said string) {
	soon(func() bool { said = g.dial(addr); return said != "" })
	return said
}

// dial connects to an address and port and gives the greeting, "" when nothing comes.
func (g *guest) dial(addr string) string {
	out, err := g.try("DATAPLANE_GUEST=dial "+addr, testProgram(g.t))
	if err != nil {
		return ""
	}
	return out
}

// listen answers connections on a port until the test ends.
func (g *guest) listen(port string) {
	g.t.Helper()
	g.serve("listen " + port)
}

// serve runs one of the test program's servers in the guest until the test ends.
func (g *guest) serve(what string) {
	g.t.Helper()
	cmd := exec.Command("ip", "netns", "exec", g.ns, testProgram(g.t))
	cmd.Env = append(os.Environ(), "DATAPLANE_GUEST="+what)
	out, err := cmd.StdoutPipe()
	if err != nil {
		g.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	buf := make([]byte, 16)
	if n, err := out.Read(buf); err != nil || !bytes.HasPrefix(buf[:n], []byte("ready")) {
		g.t.Fatalf("listener in the guest: %q, %v", buf[:n], err)
	}
}

// held is a connection that stays open.
type held struct {
	t     *testing.T
	in    io.Writer
	lines chan string
}

// hold opens a connection from the guest and keeps it until the test ends.
func (g *guest) hold(addr string) *held {
	g.t.Helper()
	return hold(g.t, exec.Command("ip", "netns", "exec", g.ns, testProgram(g.t)), "hold "+addr)
}

// holdFrom opens a connection from where the test is.
func holdFrom(t *testing.T, addr string) *held {
	t.Helper()
	return hold(t, exec.Command(testProgram(t)), "hold "+addr)
}

func hold(t *testing.T, cmd *exec.Cmd, what string) *held {
	t.Helper()
	cmd.Env, cmd.Stderr = append(os.Environ(), "DATAPLANE_GUEST="+what), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	h := &held{t: t, in: in, lines: make(chan string, 16)}
	go func() {
		for sc := bufio.NewScanner(out); sc.Scan(); {
			h.lines <- sc.Text()
		}
		close(h.lines)
	}()
	if l := h.read(patience); !strings.HasPrefix(l, "hello") {
		t.Fatalf("%s: the connection was greeted %q", what, l)
	}
	return h
}

func (h *held) read(wait time.Duration) string {
	select {
	case l := <-h.lines:
		return l
	case <-time.After(wait):
		return ""
	}
}

// echo tells whether a line comes back.
func (h *held) echo(line string) bool { return h.echoWithin(line, patience) }

func (h *held) echoWithin(line string, wait time.Duration) bool {
	h.t.Helper()
	if _, err := io.WriteString(h.in, line+"\n"); err != nil {
		h.t.Fatal(err)
	}
	return h.read(wait) == line
}

func testProgram(t *testing.T) string {
	t.Helper()
	p, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// lease runs a real DHCP client in the guest, which takes the address, and gives what it was told.
func (g *guest) lease() (map[string]string, error) { return g.askLease(60) }

// askLease is lease by a client that asks so often, once a second.
func (g *guest) askLease(times int) (map[string]string, error) {
	g.t.Helper()
	script := filepath.Join(g.t.TempDir(), "lease.sh")
	text := `#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/$mask" dev "$interface"
[ -z "$router" ] || ip route add default via "$router"
env
`
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil { //nolint:gosec // a script for the DHCP client
		g.t.Fatal(err)
	}
	out, err := g.try("", "busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", strconv.Itoa(times), "-T", "1", "-s", script, "-O", "mtu", "-O", "staticroutes", "-O", "hostname")
	told := map[string]string{}
	for line := range strings.Lines(out) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			told[k] = v
		}
	}
	return told, err
}
