package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
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
	"kilonova/internal/compute/virt"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/image"
	imagelocal "kilonova/internal/image/local"
	networkapi "kilonova/internal/network/api"
	networklocal "kilonova/internal/network/local"
	"kilonova/internal/operation"
	"kilonova/internal/policy"
)

// hosts answers the queries of handlers as an agent would; with trouble, as one does that cannot.
type hosts struct{ trouble error }

func (h *hosts) Do(_ context.Context, _ string, cmd command.Command, _, out any) error {
	if h.trouble != nil {
		return h.trouble
	}
	switch v := out.(type) {
	case *command.UptimeResult:
		v.Uptime = "up 1 day"
	case *command.ConsoleLogResult:
		v.Output = "booted\n"
	case *virt.ConsoleEndpoint:
		*v = virt.ConsoleEndpoint{Host: "127.0.0.1", Port: 5900}
	case *virt.Diagnostics:
		n := int64(7)
		*v = virt.Diagnostics{State: "running", Driver: "libvirt", Hypervisor: "qemu", HypervisorOS: "linux", ConfigDrive: true, Uptime: &n, CPUs: []virt.CPUDiag{{ID: 1, Time: &n, Utilisation: &n}},
			NICs:  []virt.NICDiag{{MAC: "fa:16:3e:00:00:01", RxOctets: &n, RxPackets: &n, RxErrors: &n, RxDrop: &n, RxRate: &n, TxOctets: &n, TxPackets: &n, TxErrors: &n, TxDrop: &n, TxRate: &n}},
			Disks: []virt.DiskDiag{{ReadBytes: &n, ReadRequests: &n, WriteBytes: &n, WriteRequests: &n, Errors: &n}}, MemoryMaxMB: &n, MemoryUsedMB: &n, Legacy: map[string]any{"cpu0_time": 7, "memory": 7}}
		for _, name := range strings.Fields("vda_errors vda_read vda_read_req vda_write vda_write_req vnet1_rx vnet1_rx_drop vnet1_rx_errors vnet1_rx_packets vnet1_tx vnet1_tx_drop vnet1_tx_errors vnet1_tx_packets") {
			v.Legacy[name] = 7
		}
	}
	return nil
}

// noSuchProject are the projects that the cloud of the tests does not have.
var noSuchProject = []string{"no such thing!", "987654"}

type projects struct{}

func (projects) ProjectExists(_ context.Context, project string) (bool, error) {
	return !slices.Contains(noSuchProject, project), nil
}

// cloudOf is a whole compute API over real stores, with one of each thing in it.
type cloudOf struct {
	h                            http.Handler
	handlers                     map[string]api.Handler
	log                          bytes.Buffer // of internal errors
	server, broken, flavor, port string
	image, node, group, request  string
	token, host, migration       string
	number                       int64 // of the migration
	volume, private              string

	store  *store.Store
	engine *operation.Engine
	hosts  *hosts
	nets   http.Handler // the network API
	images image.Service
	small  compute.Flavor
	table  map[string]probe
	facts  map[string]api.Facts
	places func(string, int) []api.AnswerPlace

	rescued, spice, aggregate, securityGroup, snapshot string
	counter                                            int
	last, lastFloating                                 string // addresses of the newest server with a port
}

func newCloud(t testing.TB) *cloudOf {
	t.Helper()
	ctx := t.Context()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	d, err := db.Open(ctx, "sqlite:"+filepath.Join(t.TempDir(), "k.db"))
	check(err)
	t.Cleanup(func() { _ = d.Close() })
	engine, err := operation.New(ctx, operation.Config{DB: d})
	check(err)
	s, err := store.New(ctx, d)
	check(err)
	images, err := imagelocal.New(ctx, imagelocal.Config{DB: d, Dir: t.TempDir()})
	check(err)
	t.Cleanup(func() { images.Close() })
	nets, err := networklocal.New(ctx, networklocal.Config{DB: d})
	check(err)
	t.Cleanup(func() { _ = nets.Close() })
	rules, err := policy.New(networkapi.Rules(), nil)
	check(err)
	nh, err := networkapi.New(networkapi.Config{Service: nets, Auth: apitest.Tokens(), Policy: rules}).Handler()
	check(err)
	agents := &hosts{}
	b := backend.New(backend.Services{Store: s, Operations: engine, Reader: engine, Images: images, Network: nets, Agents: agents, Projects: projects{}},
		backend.Options{ConsoleURLs: map[string]string{"novnc": "http://console/vnc", "serial": "ws://console/serial", "spice-html5": "http://console/spice", "spice-direct": "http://console/direct", "webmks": "http://console/mks"},
			Quota: store.Limits{"instances": -1, "cores": -1, "ram": -1, "key_pairs": -1, "server_groups": -1}})
	handlers, err := api.Handlers(b, proxy.Options{Network: proxy.InProcess(nh)})
	check(err)
	c := &cloudOf{node: id.UUID(), server: id.UUID(), broken: id.UUID(), group: id.UUID(), token: id.UUID(), volume: id.UUID(), store: s, engine: engine, hosts: agents, nets: nh, images: images}
	c.h, c.handlers = apitest.LoggedHandler(t, handlers, &c.log), handlers
	owner := &auth.Caller{UserID: "admin", ProjectID: apitest.Project, Roles: []string{"admin", "member", "reader"}, RequestID: id.Request()}
	img, err := images.Create(ctx, owner, image.Image{Name: "img", Owner: apitest.Project, Visibility: "private", DiskFormat: "raw", ContainerFormat: "bare",
		Properties: map[string]string{"os": "x", "kernel_id": "nokernel", "auto_disk_config": "True"}})
	check(err)
	c.image = img.ID
	check(images.Upload(ctx, owner, c.image, strings.NewReader("data"), 4))
	ask := func(method, path, body string, minor int) map[string]any {
		t.Helper()
		r := apitest.Call(c.h, "admin", method, "/v2.1"+path, body, minor)
		if r.Code >= 300 {
			t.Fatalf("%s %s: %d %s", method, path, r.Code, r.Body)
		}
		var m map[string]any
		if r.Body.Len() > 0 {
			check(json.Unmarshal(r.Body.Bytes(), &m))
		}
		return m
	}
	private := decode(t, apitest.Call(nh, "admin", "POST", "/v2.0/networks", `{"network":{"name":"private"}}`, 0).Body.Bytes())["network"].(map[string]any)["id"].(string)
	apitest.Call(nh, "admin", "POST", "/v2.0/subnets", fmt.Sprintf(`{"subnet":{"network_id":%q,"ip_version":4,"cidr":"10.0.0.0/16"}}`, private), 0)
	c.private = private
	port := decode(t, apitest.Call(nh, "admin", "POST", "/v2.0/ports", fmt.Sprintf(`{"port":{"network_id":%q,"device_id":%q,"device_owner":"compute:nova"}}`, private, c.server), 0).Body.Bytes())
	c.port = port["port"].(map[string]any)["id"].(string)
	vifs, err := nets.VIFs(ctx, c.port)
	check(err)
	vifs[0].Tag = "nic"

	c.flavor = ask("POST", "/flavors", `{"flavor":{"name":"f","ram":512,"vcpus":1,"disk":1,"os-flavor-access:is_public":false}}`, 1)["flavor"].(map[string]any)["id"].(string)
	ask("POST", "/flavors/"+c.flavor+"/os-extra_specs", `{"extra_specs":{"hw:cpu_policy":"shared"}}`, 1)
	ask("POST", "/os-keypairs", `{"keypair":{"name":"k"}}`, 1)
	info, err := json.Marshal(virt.HostInfo{HypervisorType: "QEMU", VCPUs: 8, MemoryMB: 16384, DiskGB: 100, HostIP: "192.0.2.1",
		CPUInfo: map[string]any{"arch": "x86_64", "model": "Nehalem", "vendor": "Intel", "features": []string{"pge"}, "topology": map[string]int{"cores": 1, "threads": 1, "sockets": 4}}})
	check(err)
	description, reason := "d", "because"
	flavor, err := s.Flavor(ctx, d, c.flavor, "")
	check(err)
	c.small = *flavor
	check(d.Write(ctx, func(tx *db.Tx) error {
		h := &compute.Host{Name: "c1", NodeID: c.node, Info: info, LastSeen: clock.Now().Add(24 * time.Hour)}
		if err := s.SaveHost(ctx, tx, h, "c1"); err != nil {
			return err
		}
		c.host = h.ServiceID
		g := &compute.ServerGroup{ID: c.group, Name: "g", ProjectID: apitest.Project, UserID: "admin", Policy: "anti-affinity", MaxPerHost: 1}
		if err := s.InsertGroup(ctx, tx, g); err != nil {
			return err
		}
		for _, v := range []*compute.Server{
			{ID: c.server, Name: "whole", Description: &description, VMState: compute.VMActive, PowerState: compute.PowerRunning, Host: "c1", Node: "c1", AvailabilityZone: "nova",
				PinnedZone: &description, ImageID: c.image, ImageProps: map[string]string{"os": "x"}, KeyName: "k", UserData: "aGk=", ConfigDrive: true, AccessIPv4: "192.0.2.1",
				AccessIPv6: "2001:db8::1", Metadata: map[string]string{"a": "b"}, Tags: []string{"t"}, Hints: map[string]any{"group": c.group}, GroupID: c.group,
				TrustedCerts: []string{id.UUID(), id.UUID()}, VIFs: vifs, Locked: true, LockedBy: "owner", LockedReason: &reason, Launched: clock.Now(), RootDevice: "/dev/vda",
				BlockDevices: []compute.BlockDevice{{ID: id.UUID(), SourceType: "volume", DestinationType: "volume", VolumeID: c.volume, Device: "/dev/vdb", Tag: "disk", AttachmentID: id.UUID()}}},
			{ID: c.broken, Name: "broken", VMState: compute.VMError, Fault: &compute.Fault{Code: 500, Message: "No valid host was found.", Details: "d", Created: clock.Now()}},
		} {
			v.ProjectID, v.UserID, v.Hostname, v.DiskConfig, v.ReservationID, v.Flavor, v.Created = apitest.Project, "admin", "h", "AUTO", "r-12345678", *flavor, clock.Now()
			if err := s.InsertServer(ctx, tx, v); err != nil {
				return err
			}
		}
		m := &compute.Migration{ServerID: c.server, Type: "live-migration", Status: "running", SourceHost: "c1", SourceNode: "c1", DestHost: "c2", ProjectID: apitest.Project, UserID: id.UUID(),
			MemoryTotal: 9, MemoryProcessed: 4, MemoryRemaining: 5, DiskTotal: 9, DiskProcessed: 4, DiskRemaining: 5}
		if err := s.InsertMigration(ctx, tx, m); err != nil {
			return err
		}
		c.migration, c.number = m.UUID, m.ID
		return s.InsertConsoleToken(ctx, tx, c.token, store.ConsoleToken{ServerID: c.server, Kind: "novnc", Agent: "c1", Host: "192.0.2.1", Port: 5900, Expires: clock.Now().Add(time.Hour)})
	}))
	r := apitest.Call(c.h, "admin", "POST", "/v2.1/servers/"+c.server+"/action", `{"lock":null}`, 1)
	if r.Code != 202 {
		t.Fatal(r.Code, r.Body)
	}
	c.request = finished(t, d, c.server)
	return c
}

// finished carries out an operation on a server that fails at its second step, as a conductor would, and gives its request id.
func finished(t testing.TB, d *db.DB, server string) string {
	t.Helper()
	e, err := operation.New(t.Context(), operation.Config{DB: d, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	host := func(f func() error) func(context.Context, *operation.Run) error {
		return func(_ context.Context, r *operation.Run) error { r.Host = "c1"; return f() }
	}
	e.Register(operation.Flow{Kind: "test", Steps: []operation.Step{{Name: "one", Event: "compute_stop_instance", Do: host(func() error { return nil })},
		{Name: "two", Event: "compute_start_instance", Do: host(func() error { return fault.New(fault.Invalid, "It does not start.") }), Retries: 1}}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()
	request, op := id.Request(), ""
	err = d.Write(ctx, func(tx *db.Tx) error {
		op, err = e.Accept(ctx, tx, operation.Spec{Kind: "test", ObjectType: "server", Object: server, Action: "stop", Project: apitest.Project, User: "admin", RequestID: request})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Wait(ctx, op); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-done
	return request
}

func decode(t testing.TB, b []byte) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	return m
}

// path gives a path of a reading route that finds something; "" when there is nothing to find.
func (c *cloudOf) path(key string, minor int) string {
	by := func(number, uuid string) string {
		if minor < 53 {
			return number
		}
		return uuid
	}
	path := strings.TrimPrefix(key, "GET ")
	if path == "/os-console-auth-tokens/{id}" && minor < 31 {
		return ""
	}
	switch path {
	case "/os-hypervisors/{id}", "/os-hypervisors/{id}/uptime":
		return strings.ReplaceAll(path, "{id}", by("1", c.node))
	case "/servers/{server_id}/migrations/{id}":
		return fmt.Sprintf("/servers/%s/migrations/%d", c.server, c.number)
	case "/servers/{server_id}/os-volume_attachments/{id}":
		return fmt.Sprintf("/servers/%s/os-volume_attachments/%s", c.server, c.volume)
	case "/os-networks/{id}", "/os-tenant-networks/{id}":
		return strings.Replace(path, "{id}", c.private, 1)
	case "/os-volumes/{id}", "/os-snapshots/{id}", "/servers/{server_id}/shares/{id}", "/os-floating-ips/{id}",
		"/os-baremetal-nodes", "/os-baremetal-nodes/{id}", "/os-security-groups/{id}", "/os-hosts/{id}/reboot", "/os-hosts/{id}/shutdown", "/os-hosts/{id}/startup":
		return ""
	}
	for _, last := range [][2]string{{"/flavors/{flavor_id}/os-extra_specs/", "hw:cpu_policy"}, {"/flavors", c.flavor}, {"/images/{image_id}/metadata/", "os"},
		{"/images", c.image}, {"/extensions", "os-keypairs"}, {"/os-aggregates", "1"}, {"/os-console-auth-tokens", c.token}, {"/os-hypervisors", "c1"},
		{"/os-hosts", "c1"}, {"/os-keypairs", "k"}, {"/os-quota-sets", apitest.Project}, {"/os-quota-class-sets", "default"}, {"/os-server-groups", c.group},
		{"/os-simple-tenant-usage", apitest.Project}, {"/os-instance_usage_audit_log", "2026-01-02%2003:04:05"}, {"/versions", "v2.1"},
		{"/servers/{server_id}/ips/", "private"}, {"/servers/{server_id}/metadata/", "a"}, {"/servers/{server_id}/tags/", "t"},
		{"/servers/{server_id}/os-instance-actions/", c.request}, {"/servers/{server_id}/os-interface/", c.port}, {"/servers/{id}", c.server}} {
		if strings.HasPrefix(path, last[0]) {
			path = strings.ReplaceAll(path, "{id}", last[1])
			break
		}
	}
	return strings.NewReplacer("{server_id}", c.server, "{flavor_id}", c.flavor, "{image_id}", c.image).Replace(path)
}

// notInDescription are answers that are right although the description of the API says otherwise, each with the reason.
var notInDescription = map[string]string{
	"GET /os-instance_usage_audit_log":      "host names are UUIDs only in the samples that the description was made of",
	"GET /os-instance_usage_audit_log/{id}": "the same",
}

// TestEveryAnswerAtEveryVersion compares the answer of every reading route with the description: for an administrator at each of the 104
// versions, for a reader of the project at some.
func TestEveryAnswerAtEveryVersion(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	if r := apitest.Call(c.h, "admin", "POST", "/v2.1/os-aggregates", `{"aggregate":{"name":"a"}}`, 1); r.Code != 200 {
		t.Fatal(r.Code)
	}
	var answers apitest.Answers
	seen := map[string]int{}
	for _, key := range api.Keys() {
		if !strings.HasPrefix(key, "GET ") || notInDescription[key] != "" {
			continue
		}
		for _, token := range []string{"admin", "reader"} {
			for minor := 1; minor <= 104; minor++ {
				if token == "reader" && minor%7 != 1 {
					continue
				}
				found, err := c.compare(&answers, key, token, minor)
				if err != nil {
					t.Errorf("%s at 2.%d as %s: %v", key, minor, token, err)
					break
				}
				if found {
					seen[token]++
				}
			}
		}
	}
	t.Logf("answers: %v", seen)
	if seen["admin"] < 5500 || seen["reader"] < 400 {
		t.Errorf("only %v answers were seen", seen)
	}
}

// compare judges one answer; found is false when the route is not there or not allowed.
func (c *cloudOf) compare(answers *apitest.Answers, key, token string, minor int) (found bool, err error) {
	path := c.path(key, minor)
	if path == "" {
		return false, nil
	}
	r := apitest.Call(c.h, token, "GET", "/v2.1"+path, "", minor)
	switch {
	case r.Code == 404 && strings.Contains(r.Body.String(), `"The resource could not be found."`):
		return false, nil // not in this version
	case r.Code == 403 && token == "reader", r.Code == 404 && token == "reader":
		return false, nil
	case r.Code == 204:
		return true, nil
	case r.Code != 200:
		return false, fmt.Errorf("%s: %d %s", path, r.Code, r.Body)
	}
	if err := answers.Judge(key, minor, r.Body.Bytes()); err != nil {
		return false, fmt.Errorf("%w in %.1500s", err, r.Body)
	}
	return true, nil
}
