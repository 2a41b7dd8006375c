// Package process starts the kilonova program as its users do, in one process or in many, and drives it over REST. Its tests show that roles run apart.
package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Program is a built kilonova.
type Program struct {
	Path string // of the binary
	Dir  string // state directory
}

// Build compiles the program into dir, unless KILONOVA_BINARY names one that was built before.
func Build(ctx context.Context, dir string) (string, error) {
	if path := os.Getenv("KILONOVA_BINARY"); path != "" {
		return path, nil
	}
	out := filepath.Join(dir, "kilonova")
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", out, "kilonova/cmd/kilonova")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w: %s", err, text)
	}
	return out, nil
}

// FreePort gives a port of the loopback interface that nobody uses. It is below those that the kernel gives to outgoing connections, and to listeners that do not
// mind: on a busy machine such a connection would now and then take the port before the program does, or while it is down between two starts. The port is given to
// nobody else as long as this process lives, neither by itself nor by the tests beside it: each holds an abstract socket with the port in its name.
func FreePort() (int, error) {
	var err error
	for range 100 {
		port := 10240 + rand.IntN(9700)
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			if err = errors.Join(keepPort(port), l.Close()); err == nil {
				return port, nil
			}
		}
	}
	return 0, fmt.Errorf("no free port was found: %w", err)
}

// keepPort takes the abstract socket of a port, which the kernel closes when the process ends.
func keepPort(port int) error {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: fmt.Sprintf("@kilonova-test-port-%d", port)}); err != nil {
		return errors.Join(err, syscall.Close(fd))
	}
	return nil
}

// Proc is one running process.
type Proc struct {
	Name string
	URL  string
	cmd  *exec.Cmd
	out  *output
	done chan struct{}
	err  error
}

type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// Start runs the program with args and waits until it says that it is ready.
func (p Program) Start(ctx context.Context, args ...string) (*Proc, error) {
	x := &Proc{Name: strings.Join(args, " "), out: &output{}, done: make(chan struct{})}
	x.cmd = exec.Command(p.Path, append(args, "--state-dir", p.Dir)...)
	x.cmd.Stdout, x.cmd.Stderr = x.out, x.out
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := x.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { x.err = x.cmd.Wait(); close(x.done) }()
	for {
		if _, rest, ok := strings.Cut(x.out.String(), "kilonova is ready: "); ok && strings.Contains(rest, "\n") {
			x.URL, _, _ = strings.Cut(rest, " ")
			return x, nil
		}
		select {
		case <-x.done:
			return nil, fmt.Errorf("%s ended: %w\n%s", x.Name, x.err, x.out)
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("%s was not ready: %w\n%s", x.Name, ctx.Err(), x.out), x.Kill())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Output is what the process has printed.
func (x *Proc) Output() string { return x.out.String() }

// Kill ends the process at once, as a power cut would.
func (x *Proc) Kill() error {
	err := x.cmd.Process.Kill()
	<-x.done
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Signal sends a signal, such as SIGSTOP and SIGCONT.
func (x *Proc) Signal(sig syscall.Signal) error { return x.cmd.Process.Signal(sig) }

// Stop ends the process gently and fails when it does not end well.
func (x *Proc) Stop() error {
	select {
	case <-x.done:
		return nil
	default:
	}
	if err := x.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-x.done:
		if x.err != nil {
			return fmt.Errorf("%s: %w\n%s", x.Name, x.err, x.out)
		}
		return nil
	case <-time.After(5 * time.Minute):
		return errors.Join(fmt.Errorf("%s did not stop\n%s", x.Name, x.out), x.Kill())
	}
}

// Client speaks REST as one user. The services of a cloud may have different roots.
type Client struct {
	Roots   map[string]string // "compute" -> "http://127.0.0.1:1234/compute/v2.1"
	Version string            // compute microversion; "": 2.79
	token   string
	http    http.Client
}

// Login makes a client from the files that the program wrote into its state directory. user is admin or demo.
func Login(ctx context.Context, identity, stateDir, user string) (*Client, error) {
	secret, err := os.ReadFile(filepath.Join(stateDir, "secrets", user+"_password"))
	if err != nil {
		return nil, err
	}
	base := strings.TrimSuffix(identity, "/")
	c := &Client{Roots: map[string]string{"identity": base + "/identity/v3", "compute": base + "/compute/v2.1", "image": base + "/image/v2",
		"network": base + "/network/v2.0", "placement": base + "/placement"}, http: http.Client{Timeout: 5 * time.Minute}}
	named := map[string]string{"name": "Default"}
	body := map[string]any{"auth": map[string]any{
		"identity": map[string]any{"methods": []string{"password"}, "password": map[string]any{"user": map[string]any{"name": user, "domain": named, "password": strings.TrimSpace(string(secret))}}},
		"scope":    map[string]any{"project": map[string]any{"name": user, "domain": named}}}}
	_, h, err := c.Do(ctx, "POST", "identity", "/auth/tokens", body, nil)
	if err != nil {
		return nil, err
	}
	c.token = h.Get("X-Subject-Token")
	return c, nil
}

// StatusError is an answer of 400 or above.
type StatusError struct {
	Code       int
	Text, What string
}

func (e *StatusError) Error() string { return fmt.Sprintf("%s: %d %s", e.What, e.Code, e.Text) }

// Do makes one request. body []byte is sent as it is.
func (c *Client) Do(ctx context.Context, method, service, path string, body, out any) (int, http.Header, error) {
	var rd io.Reader
	kind := "application/json"
	switch b := body.(type) {
	case nil:
	case []byte:
		rd, kind = bytes.NewReader(b), "application/octet-stream"
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			return 0, nil, err
		}
		rd = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.Roots[service]+path, rd)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("X-Auth-Token", c.token)
	req.Header.Set("Content-Type", kind)
	switch service {
	case "placement":
		req.Header.Set("OpenStack-API-Version", "placement 1.36")
	case "compute":
		v := c.Version
		if v == "" {
			v = "2.79"
		}
		req.Header.Set("OpenStack-API-Version", "compute "+v)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, nil, err
	}
	if resp.StatusCode >= 400 {
		return resp.StatusCode, resp.Header, &StatusError{resp.StatusCode, string(raw), method + " " + path}
	}
	if out != nil {
		err = json.Unmarshal(raw, out)
	}
	return resp.StatusCode, resp.Header, err
}

// Thing is anything with an id.
type Thing struct {
	ID string `json:"id"`
}

// Ground is what servers are made of.
type Ground struct{ Image, Flavor, Bigger, Network string }

// Prepare registers an image, two flavors and a network. c must be an administrator.
func (c *Client) Prepare(ctx context.Context) (g Ground, err error) {
	do := func(method, service, path string, body, out any) {
		if err == nil {
			_, _, err = c.Do(ctx, method, service, path, body, out)
		}
	}
	var img Thing
	do("POST", "image", "/images", map[string]any{"name": "ground", "disk_format": "raw", "container_format": "bare", "visibility": "public"}, &img)
	do("PUT", "image", "/images/"+img.ID+"/file", make([]byte, 1<<20), nil)
	var fl [2]struct{ Flavor Thing }
	do("POST", "compute", "/flavors", map[string]any{"flavor": map[string]any{"name": "small", "ram": 64, "vcpus": 1, "disk": 1}}, &fl[0])
	do("POST", "compute", "/flavors", map[string]any{"flavor": map[string]any{"name": "bigger", "ram": 128, "vcpus": 2, "disk": 2}}, &fl[1])
	var net struct{ Network Thing }
	do("POST", "network", "/networks", map[string]any{"network": map[string]any{"name": "ground", "shared": true}}, &net)
	do("POST", "network", "/subnets", map[string]any{"subnet": map[string]any{"network_id": net.Network.ID, "ip_version": 4, "cidr": "198.18.0.0/16"}}, nil)
	return Ground{img.ID, fl[0].Flavor.ID, fl[1].Flavor.ID, net.Network.ID}, err
}

// Boot asks for a server and gives its id.
func (c *Client) Boot(ctx context.Context, name string, g Ground) (string, error) {
	var s struct{ Server Thing }
	_, _, err := c.Do(ctx, "POST", "compute", "/servers", map[string]any{"server": map[string]any{"name": name, "imageRef": g.Image, "flavorRef": g.Flavor,
		"networks": []any{map[string]string{"uuid": g.Network}}}}, &s)
	return s.Server.ID, err
}

// Server is what tests look at in a server's document.
type Server struct {
	ID, Status string
	Host       string  `json:"OS-EXT-SRV-ATTR:host"`
	Task       *string `json:"OS-EXT-STS:task_state"`
	Fault      *struct {
		Message string
	}
}

// WaitStatus waits until a server has a status and no task. "" waits until it is gone.
func (c *Client) WaitStatus(ctx context.Context, id, want string) (Server, error) {
	for {
		var s struct{ Server Server }
		code, _, err := c.Do(ctx, "GET", "compute", "/servers/"+id, nil, &s)
		switch {
		case code == http.StatusNotFound && want == "":
			return s.Server, nil
		case err != nil && ctx.Err() == nil && code == 0: // the API is restarting
		case err != nil:
			return s.Server, err
		case s.Server.Status == want && s.Server.Task == nil:
			return s.Server, nil
		case s.Server.Status == "ERROR" && want != "":
			text := ""
			if s.Server.Fault != nil {
				text = s.Server.Fault.Message
			}
			return s.Server, fmt.Errorf("server %s is in ERROR: %s", id, text)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return s.Server, fmt.Errorf("server %s is %s (task %v), not %q: %w", id, s.Server.Status, s.Server.Task, want, ctx.Err())
		}
	}
}
