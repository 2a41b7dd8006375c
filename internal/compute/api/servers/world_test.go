package servers_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kilonova/internal/auth"
	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/api"
	"kilonova/internal/compute/api/apitest"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/api/proxy"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/image"
	"kilonova/internal/network"
	"kilonova/internal/operation"
	"kilonova/internal/placement"
)

// recorder is the real engine, which nobody runs, with the accepted requests kept.
type recorder struct {
	*operation.Engine
	mu    sync.Mutex
	specs []operation.Spec
	lost  bool   // the database is lost once the request was accepted: nobody knows whether it was committed
	held  func() // after an operation was refused because another one holds the server; may be nil
}

func (e *recorder) Accept(ctx context.Context, tx *db.Tx, s operation.Spec) (string, error) {
	op, err := e.Engine.Accept(ctx, tx, s)
	var held *operation.HeldError
	if errors.As(err, &held) && e.held != nil {
		e.held()
	}
	if err == nil && e.lost {
		return "", fault.Wrap(fault.ErrAway, fault.Unavailable, "The database cannot be reached. Try again.")
	}
	if err == nil {
		tx.AfterCommit(func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.specs = append(e.specs, s)
		})
	}
	return op, err
}

// images is an image service in memory.
type images struct {
	mu sync.Mutex
	m  map[string]image.Image
}

func (s *images) Get(_ context.Context, c *auth.Caller, id string) (*image.Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.m[id]
	if !ok || i.Owner != "" && i.Owner != c.ProjectID && !c.IsAdmin() {
		return nil, fault.New(fault.NotFound, "no image %s", id)
	}
	return &i, nil
}

func (s *images) List(context.Context, *auth.Caller, map[string]string) ([]image.Image, error) {
	return slices.Collect(maps.Values(s.m)), nil
}

func (s *images) Create(_ context.Context, _ *auth.Caller, i image.Image) (*image.Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i.Status = image.Queued
	s.m[i.ID] = i
	return &i, nil
}

func (s *images) Update(_ context.Context, _ *auth.Caller, i image.Image) (*image.Image, error) {
	s.m[i.ID] = i
	return &i, nil
}

func (s *images) Upload(context.Context, *auth.Caller, string, io.Reader, int64) error {
	return fault.New(fault.NotImplemented, "no data in tests")
}

func (s *images) Download(context.Context, *auth.Caller, string) (*image.Image, io.ReadCloser, error) {
	return nil, nil, fault.New(fault.NotImplemented, "no data in tests")
}

func (s *images) Delete(_ context.Context, _ *auth.Caller, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, id)
	return nil
}

// networks is a network service in memory with what handlers ask of it; the rest of the interface is absent.
type networks struct {
	network.Service
	nets  []network.Network
	ports map[string]*network.Port
	left  int
}

func (s *networks) Available(context.Context, *auth.Caller) ([]network.Network, error) {
	return slices.DeleteFunc(slices.Clone(s.nets), func(n network.Network) bool { return n.External }), nil
}

func (s *networks) GetNetwork(_ context.Context, _ *auth.Caller, id string) (*network.Network, error) {
	for _, n := range s.nets {
		if n.ID == id {
			return &n, nil
		}
	}
	return nil, fault.New(fault.NotFound, "no network %s", id)
}

func (s *networks) GetPort(_ context.Context, _ *auth.Caller, id string) (*network.Port, error) {
	if p := s.ports[id]; p != nil {
		return p, nil
	}
	return nil, fault.New(fault.NotFound, "Port %s could not be found.", id)
}

func (s *networks) CreatePort(_ context.Context, _ *auth.Caller, r network.PortRequest) (*network.Port, error) {
	p := &network.Port{ID: r.ID, NetworkID: r.NetworkID, MAC: "fa:16:3e:aa:bb:cc", DeviceID: r.DeviceID, Status: "DOWN",
		FixedIPs: []network.FixedIP{{SubnetID: subnetID, Address: "10.0.0.77"}}}
	s.ports[p.ID] = p
	return p, nil
}

func (s *networks) DeletePort(_ context.Context, _ *auth.Caller, id string) error {
	delete(s.ports, id)
	return nil
}

func (s *networks) DevicePorts(_ context.Context, _ *auth.Caller, device string) ([]network.Port, error) {
	var out []network.Port
	for _, p := range s.ports {
		if p.DeviceID == device {
			out = append(out, *p)
		}
	}
	return out, nil
}

func (s *networks) VIFs(_ context.Context, ids ...string) ([]network.VIF, error) {
	var out []network.VIF
	for _, id := range ids {
		v := network.VIF{PortID: id, SecurityGroups: s.ports[id].SecurityGroups}
		for _, f := range s.ports[id].FixedIPs {
			v.FixedIPs = append(v.FixedIPs, network.VIFAddr{Address: f.Address, Version: 4, SubnetID: f.SubnetID})
		}
		out = append(out, v)
	}
	return out, nil
}

func (s *networks) SecurityGroups(_ context.Context, _ *auth.Caller, names ...string) ([]network.SecurityGroup, error) {
	var out []network.SecurityGroup
	for _, n := range names {
		switch n {
		case "twice":
			return nil, fault.New(fault.Conflict, "Multiple security groups found matching '%s'. Use an ID to be more specific.", n)
		case "absent":
			return nil, fault.New(fault.NotFound, "Security group %s not found.", n)
		}
		out = append(out, network.SecurityGroup{ID: "id-of-" + n, Name: n})
	}
	return out, nil
}

func (s *networks) SetPortGroups(_ context.Context, _ *auth.Caller, port string, groups []string) error {
	s.ports[port].SecurityGroups = groups
	return nil
}

func (s *networks) QuotaLeft(context.Context, *auth.Caller) (int, error) { return s.left, nil }

func (s *networks) ByFixedIP(_ context.Context, _, address string) (*network.Port, error) {
	if address == "10.0.0.9" {
		return &network.Port{DeviceID: "other"}, nil
	}
	return nil, fault.New(fault.NotFound, "free")
}

// provider is a placement service that knows the traits of one host.
type provider struct {
	placement.Service
	traits []string
}

func (p *provider) Providers(context.Context, ...string) ([]placement.Provider, error) {
	return []placement.Provider{{Traits: p.traits}}, nil
}

// agents answers queries.
type agents struct {
	asked  []command.Verb
	answer map[command.Verb]any
	fail   error
}

func (a *agents) Do(_ context.Context, _ string, c command.Command, _, out any) error {
	a.asked = append(a.asked, c.Verb)
	if a.fail != nil || out == nil {
		return a.fail
	}
	b, err := json.Marshal(a.answer[c.Verb])
	if err != nil {
		return err
	}
	return json.Unmarshal(b, out)
}

const (
	imageID  = "11111111-2222-4333-8444-555555555555"
	queuedID = "11111111-2222-4333-8444-666666666666"
	bigID    = "11111111-2222-4333-8444-777777777777"
	netA     = "aaaaaaaa-2222-4333-8444-555555555555"
	netB     = "bbbbbbbb-2222-4333-8444-555555555555"
	netBare  = "cccccccc-2222-4333-8444-555555555555"
	netOut   = "dddddddd-2222-4333-8444-555555555555"
	subnetID = "eeeeeeee-2222-4333-8444-555555555555"
	portFree = "99999999-2222-4333-8444-555555555555"
	portUsed = "88888888-2222-4333-8444-555555555555"
)

// world is a compute API with a real store and engine.
type world struct {
	testing.TB
	h      http.Handler
	store  *store.Store
	ops    *recorder
	images *images
	net    *networks
	agents *agents
	host   *provider
}

func newWorld(t testing.TB, options ...func(*backend.Options)) *world {
	t.Helper()
	d := database(t)
	e, err := operation.New(t.Context(), operation.Config{DB: d})
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.New(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{TB: t, store: s, ops: &recorder{Engine: e}, agents: &agents{answer: map[command.Verb]any{}}, host: &provider{}}
	w.images = &images{m: map[string]image.Image{
		imageID:  {ID: imageID, Status: image.Active, MinRAM: 64, MinDisk: 1, Size: 1 << 20, DiskFormat: "qcow2", ContainerFormat: "bare", Properties: map[string]string{"hw_disk_bus": "virtio"}},
		queuedID: {ID: queuedID, Status: image.Queued},
		bigID:    {ID: bigID, Status: image.Active, MinRAM: 1 << 20, VirtualSize: 900 << 30},
	}}
	subnets := []network.Subnet{{ID: subnetID, CIDR: "10.0.0.0/24"}}
	w.net = &networks{left: -1, ports: map[string]*network.Port{portFree: {ID: portFree, NetworkID: netA, MAC: "fa:16:3e:00:00:09", Status: "DOWN"}, portUsed: {ID: portUsed, DeviceID: "other"}},
		nets: []network.Network{{ID: netA, Name: "a", ProjectID: apitest.Project, Subnets: subnets}, {ID: netB, Name: "b", ProjectID: apitest.Project, Subnets: subnets},
			{ID: netBare, Name: "bare", ProjectID: apitest.Project}, {ID: netOut, Name: "out", External: true, Subnets: subnets}}}
	var o backend.Options
	o.ConsoleURLs = map[string]string{"novnc": "http://console/vnc.html", "serial": "ws://console/serial"}
	for _, f := range options {
		f(&o)
	}
	b := backend.New(backend.Services{Store: s, Operations: w.ops, Reader: e, Images: w.images, Network: w.net, Placement: w.host, Agents: w.agents}, o)
	handlers, err := api.Handlers(b, proxy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.h = apitest.Handler(t, handlers)
	w.write(func(tx *db.Tx) error {
		for _, f := range []*compute.Flavor{{FlavorID: "1", Name: "m1.tiny", VCPUs: 1, RAMMB: 512, RootGB: 1, Public: true, RXTX: 1, ExtraSpecs: map[string]string{"hw:cpu_policy": "shared"}},
			{FlavorID: "2", Name: "m1.small", VCPUs: 2, RAMMB: 2048, RootGB: 20, SwapMB: 64, Public: true, RXTX: 1}, {FlavorID: "0", Name: "diskless", VCPUs: 1, RAMMB: 512, Public: true},
			{FlavorID: "secret", Name: "secret", VCPUs: 1, RAMMB: 512, RootGB: 1}} {
			if err := s.InsertFlavor(t.Context(), tx, f); err != nil {
				return err
			}
		}
		if err := s.SaveHost(t.Context(), tx, &compute.Host{Name: "c1", NodeID: id.UUID(), LastSeen: clock.Now().Add(24 * time.Hour), Info: []byte(`{"hostname":"c1.example"}`)}, "c1.example"); err != nil {
			return err
		}
		return s.SaveHost(t.Context(), tx, &compute.Host{Name: "c2", NodeID: id.UUID(), LastSeen: clock.Now().Add(24 * time.Hour), Info: []byte(`{"hostname":"c2.example"}`)}, "c2.example")
	})
	return w
}

func (w *world) write(fn func(tx *db.Tx) error) {
	w.Helper()
	if err := w.store.DB.Write(w.Context(), fn); err != nil {
		w.Fatal(err)
	}
}

// call makes a request and wants a status; the body of the answer is returned as it is.
func (w *world) call(token, method, path, body string, minor, want int) []byte {
	w.Helper()
	out := apitest.Call(w.h, token, method, "/v2.1"+path, body, minor)
	if out.Code != want {
		w.Fatalf("%s %s at 2.%d: %d, want %d: %s", method, path, minor, out.Code, want, out.Body.String())
	}
	return bytes.Clone(out.Body.Bytes())
}

// ask is call for answers that are objects.
func (w *world) ask(token, method, path, body string, minor, want int) map[string]any {
	w.Helper()
	raw := w.call(token, method, path, body, minor, want)
	if len(raw) == 0 {
		return nil
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		w.Fatalf("%s %s: %v in %s", method, path, err, raw)
	}
	return m
}

// refused makes a request that fails and gives its sentence.
func (w *world) refused(token, method, path, body string, minor, want int) string {
	w.Helper()
	for _, v := range w.ask(token, method, path, body, minor, want) {
		if m, ok := v.(map[string]any); ok {
			return fmt.Sprint(m["message"])
		}
	}
	w.Fatalf("%s %s: no error body", method, path)
	return ""
}

// boot makes a server that is active on c1.
func (w *world) boot(change ...func(*compute.Server)) *compute.Server {
	w.Helper()
	desc := "a server"
	s := &compute.Server{ID: id.UUID(), Name: "vm", Description: &desc, Hostname: "vm", ProjectID: apitest.Project, UserID: "member", ReservationID: "r-1", VMState: compute.VMActive,
		PowerState: compute.PowerRunning, Host: "c1", Node: "c1.example", AvailabilityZone: "nova", LaunchedOn: "c1", ComputeID: id.UUID(), DiskConfig: "MANUAL", ImageID: imageID, RootDevice: "/dev/vda",
		ImageProps: map[string]string{"hw_disk_bus": "virtio"}, Launched: clock.Now(), KeyName: "k", Metadata: map[string]string{"a": "b"}, Tags: []string{"blue"}, System: map[string]string{},
		Flavor: compute.Flavor{ID: 1, FlavorID: "1", Name: "m1.tiny", VCPUs: 1, RAMMB: 512, RootGB: 1, ExtraSpecs: map[string]string{"hw:cpu_policy": "shared"}}}
	s.VIFs = []network.VIF{{PortID: id.UUID(), NetworkID: netA, NetworkName: "a", MAC: "fa:16:3e:00:00:01", SecurityGroups: []string{"default"}, Tag: "eth",
		FixedIPs: []network.VIFAddr{{Address: "10.0.0.5", Version: 4}}, Floating: []network.VIFAddr{{Address: "203.0.113.7", Version: 4}}}}
	for _, f := range change {
		f(s)
	}
	w.write(func(tx *db.Tx) error { return w.store.InsertServer(w.Context(), tx, s) })
	for _, v := range s.VIFs {
		w.net.ports[v.PortID] = &network.Port{ID: v.PortID, NetworkID: v.NetworkID, MAC: v.MAC, Status: "ACTIVE", DeviceID: s.ID, SecurityGroups: []string{"id-of-default"},
			FixedIPs: []network.FixedIP{{SubnetID: subnetID, Address: v.FixedIPs[0].Address}}}
	}
	return s
}

// last gives the newest accepted operation.
func (w *world) last() operation.Spec {
	w.Helper()
	w.ops.mu.Lock()
	defer w.ops.mu.Unlock()
	if len(w.ops.specs) == 0 {
		w.Fatal("nothing was accepted")
	}
	return w.ops.specs[len(w.ops.specs)-1]
}

func (w *world) accepted() int {
	w.ops.mu.Lock()
	defer w.ops.mu.Unlock()
	return len(w.ops.specs)
}

func (w *world) server(id string) *compute.Server {
	w.Helper()
	s, err := w.store.ServerAny(w.Context(), w.store.DB, id)
	if err != nil {
		w.Fatal(err)
	}
	return s
}

func list(m map[string]any, key, field string) string {
	var out []string
	items, _ := m[key].([]any)
	for _, x := range items {
		out = append(out, fmt.Sprint(x.(map[string]any)[field]))
	}
	return strings.Join(out, " ")
}
