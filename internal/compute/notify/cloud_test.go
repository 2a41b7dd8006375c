package notify_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"kilonova/internal/app"
	"kilonova/internal/config"
	"kilonova/test/process"
)

// cloud is a whole Kilonova with three fake hosts, and a consumer of its notifications on the bus.
type cloud struct {
	t     *testing.T
	dir   string
	flags map[string]string
	app   *app.App
	*process.Client
	conn  *nats.Conn
	marks int

	mu   sync.Mutex
	seen []note
	more chan struct{}
}

// note is a notification as a consumer decodes it.
type note struct {
	ID        string  `json:"message_id"`
	Publisher string  `json:"publisher_id"`
	Event     string  `json:"event_type"`
	Priority  string  `json:"priority"`
	Timestamp string  `json:"timestamp"`
	Payload   payload `json:"payload"`
	subject   string
}

type payload struct {
	Name      string         `json:"nova_object.name"`
	Namespace string         `json:"nova_object.namespace"`
	Version   string         `json:"nova_object.version"`
	Data      map[string]any `json:"nova_object.data"`
}

// decode opens the envelope of oslo.messaging.
func decode(body []byte) (n note, err error) {
	var e map[string]string
	if err := json.Unmarshal(body, &e); err != nil {
		return n, err
	}
	if len(e) != 2 || e["oslo.version"] != "2.0" {
		return n, fmt.Errorf("the envelope is %v", slices.Sorted(maps.Keys(e)))
	}
	return n, json.Unmarshal([]byte(e["oslo.message"]), &n)
}

// patience is how long tests wait for what must come: no test is about how soon.
const patience = 5 * time.Minute

func newCloud(t *testing.T, more map[string]string) *cloud {
	t.Helper()
	port, err := process.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	at := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	c := &cloud{t: t, dir: t.TempDir(), more: make(chan struct{}, 1)}
	c.flags = map[string]string{"DEFAULT.state_dir": c.dir, "api.listen": "127.0.0.1:0", "bus.listen": at, "bus.token": "token", "compute.driver": "fake", "compute.host": "h",
		"compute.fake_hosts": "3", "compute.report_interval": "200ms", "identity.bcrypt_cost": "4", "notifications.notification_format": "versioned"}
	maps.Copy(c.flags, more)
	c.start()
	c.conn, err = nats.Connect("nats://"+at, nats.Token("token"), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	c.must(err)
	t.Cleanup(c.conn.Close)
	_, err = c.conn.Subscribe("notifications.>", func(m *nats.Msg) {
		n, err := decode(m.Data)
		if err != nil {
			t.Errorf("%s: %v", m.Subject, err)
			return
		}
		n.subject = m.Subject
		c.mu.Lock()
		c.seen = append(c.seen, n)
		c.mu.Unlock()
		select {
		case c.more <- struct{}{}:
		default:
		}
	})
	c.must(err)
	c.must(c.conn.Flush())
	c.flavor("1", "tiny", 1, nil)
	return c
}

// flavor makes a flavor.
func (c *cloud) flavor(id, name string, vcpus int, specs map[string]string) {
	c.t.Helper()
	c.call("POST", "compute", "/flavors", doc{"flavor": doc{"id": id, "name": name, "vcpus": vcpus, "ram": 64, "disk": 1}}, "flavor")
	if specs != nil {
		c.call("POST", "compute", "/flavors/"+id+"/os-extra_specs", doc{"extra_specs": specs}, "extra_specs")
	}
}

func (c *cloud) start() {
	c.t.Helper()
	cfg, err := config.Load("", nil, c.flags)
	c.must(err)
	c.app, err = app.Start(c.t.Context(), cfg)
	c.must(err)
	a := c.app
	c.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := a.Stop(ctx); err != nil {
			c.t.Errorf("stop: %v", err)
		}
	})
	c.Client, err = process.Login(c.t.Context(), a.URL(), c.dir, "admin")
	c.must(err)
	c.Client.Version = "2.91" // the last one but for those in which keys are not made here
}

func (c *cloud) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// call makes a request that must succeed, and gives the part of the answer under key.
func (c *cloud) call(method, service, path string, body any, key string) map[string]any {
	c.t.Helper()
	var out map[string]any
	var into any
	if key != "" {
		into = &out
	}
	_, _, err := c.Do(c.t.Context(), method, service, path, body, into)
	c.must(err)
	m, _ := out[key].(map[string]any)
	return m
}

// refused makes a request that must be answered with the status.
func (c *cloud) refused(status int, method, path string, body any) {
	c.t.Helper()
	code, _, err := c.Do(c.t.Context(), method, "compute", path, body, nil)
	if code != status {
		c.t.Fatalf("%s %s: %d (%v), want %d", method, path, code, err, status)
	}
}

type doc = map[string]any

// server makes a server and waits until it is there.
func (c *cloud) server(name string, more doc) string {
	c.t.Helper()
	s := doc{"name": name, "flavorRef": "1", "imageRef": c.image(), "networks": "none"}
	maps.Copy(s, more)
	id, _ := c.call("POST", "compute", "/servers", doc{"server": s}, "server")["id"].(string)
	c.settle(id)
	return id
}

// image gives the id of any active image.
func (c *cloud) image() string {
	c.t.Helper()
	var out struct{ Images []struct{ ID, Name string } }
	_, _, err := c.Do(c.t.Context(), "GET", "image", "/images?name=i", nil, &out)
	c.must(err)
	if len(out.Images) > 0 {
		return out.Images[0].ID
	}
	var made struct{ ID string }
	_, _, err = c.Do(c.t.Context(), "POST", "image", "/images", doc{"name": "i", "disk_format": "raw", "container_format": "bare", "visibility": "public", "os_type": "linux",
		"hw_architecture": "x86_64"}, &made)
	c.must(err)
	_, _, err = c.Do(c.t.Context(), "PUT", "image", "/images/"+made.ID+"/file", make([]byte, 1<<16), nil)
	c.must(err)
	return made.ID
}

// settle waits until no operation holds the server and gives it as the API shows it; nil when it is gone.
func (c *cloud) settle(id string) doc {
	c.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		var out doc
		code, _, err := c.Do(c.t.Context(), "GET", "compute", "/servers/"+id, nil, &out)
		if code == http.StatusNotFound {
			return nil
		}
		c.must(err)
		s, _ := out["server"].(map[string]any)
		if s["OS-EXT-STS:task_state"] == nil {
			return s
		}
	}
	c.t.Fatalf("server %s is still busy", id)
	return nil
}

// act does an action and waits for its end.
func (c *cloud) act(id, action string, body any) {
	c.t.Helper()
	c.call("POST", "compute", "/servers/"+id+"/action", doc{action: body}, "")
	c.ended(id)
}

// open tells whether an operation of the server has not ended.
func (c *cloud) open(id string) bool {
	all, err := c.app.Operations().List(c.t.Context(), nil, 20)
	c.must(err)
	for _, o := range all {
		if o.Object == id && o.Finished.IsZero() {
			return true
		}
	}
	return false
}

// since gives the notifications that came since the last call. A key pair marks the end: notifications come in the order of what they tell.
func (c *cloud) since() []note {
	c.t.Helper()
	c.marks++
	mark := fmt.Sprintf("mark-%d", c.marks)
	c.call("POST", "compute", "/os-keypairs", doc{"keypair": doc{"name": mark, "public_key": publicKey, "type": "ssh"}}, "keypair")
	timeout := time.After(patience)
	for {
		c.mu.Lock()
		end := slices.IndexFunc(c.seen, func(n note) bool { return n.Event == "keypair.import.end" && n.Payload.Data["name"] == mark })
		if end >= 0 {
			out := slices.Clone(c.seen[:end-1]) // without the mark's own start
			c.seen = c.seen[end+1:]
			c.mu.Unlock()
			return out
		}
		c.mu.Unlock()
		select {
		case <-c.more:
		case <-timeout:
			c.t.Fatal("no notification of the marking key pair came")
		}
	}
}

// foreign makes an image for a hypervisor that is not there.
func (c *cloud) foreign() string {
	c.t.Helper()
	var made struct{ ID string }
	_, _, err := c.Do(c.t.Context(), "POST", "image", "/images", doc{"name": "other", "disk_format": "raw", "container_format": "bare", "visibility": "public", "img_hv_type": "hyperv"}, &made)
	c.must(err)
	_, _, err = c.Do(c.t.Context(), "PUT", "image", "/images/"+made.ID+"/file", make([]byte, 1<<16), nil)
	c.must(err)
	return made.ID
}

const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl test"

// until waits until a notification has come.
func (c *cloud) until(event string) {
	c.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		c.mu.Lock()
		there := slices.ContainsFunc(c.seen, func(n note) bool { return n.Event == event })
		c.mu.Unlock()
		if there {
			return
		}
	}
	c.t.Fatalf("no %s came", event)
}

// short writes notifications as lines of event and publisher.
func short(notes []note) []string {
	out := make([]string, len(notes))
	for i, n := range notes {
		out[i] = n.Event + " " + n.Publisher
	}
	return out
}

// ended waits until no operation of the server is open, also of one that is gone.
func (c *cloud) ended(id string) {
	c.t.Helper()
	for end := time.Now().Add(patience); c.open(id); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("the operation of %s does not end", id)
		}
	}
}

// port makes a port on a network of its own.
func (c *cloud) port(name string) string {
	c.t.Helper()
	n, _ := c.call("POST", "network", "/networks", doc{"network": doc{"name": name}}, "network")["id"].(string)
	c.call("POST", "network", "/subnets", doc{"subnet": doc{"network_id": n, "cidr": "10.9.0.0/24", "ip_version": 4}}, "subnet")
	p, _ := c.call("POST", "network", "/ports", doc{"port": doc{"network_id": n}}, "port")["id"].(string)
	return p
}

// service gives the id of a host's compute service.
func (c *cloud) service(host string) string {
	c.t.Helper()
	var out struct {
		Services []struct{ ID, Host, Binary string }
	}
	_, _, err := c.Do(c.t.Context(), "GET", "compute", "/os-services?binary=nova-compute&host="+host, nil, &out)
	c.must(err)
	return out.Services[0].ID
}

func (c *cloud) disable(host string, yes bool) {
	c.t.Helper()
	c.call("PUT", "compute", "/os-services/"+c.service(host), doc{"status": map[bool]string{true: "disabled", false: "enabled"}[yes]}, "service")
}

func (c *cloud) forceDown(host string, yes bool) {
	c.t.Helper()
	c.call("PUT", "compute", "/os-services/"+c.service(host), doc{"forced_down": yes}, "service")
}
