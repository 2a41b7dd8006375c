package client_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/aggregates"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/hypervisors"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/instanceactions"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/keypairs"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/limits"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/migrations"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/quotasets"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/remoteconsoles"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servergroups"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/services"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/tags"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/usage"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/applicationcredentials"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/imagedata"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"
	"github.com/gophercloud/gophercloud/v2/pagination"
	"gopkg.in/yaml.v3"

	"kilonova/test/process"
)

// cloud is a running cloud on the fake driver, seen through gophercloud as its administrator.
type cloud struct {
	t              *testing.T
	dir            string // where the cloud keeps its state
	auth           gophercloud.AuthOptions
	compute        *gophercloud.ServiceClient
	image, network *gophercloud.ServiceClient
	project        string
	imageID        string
	networkID      string
	subnetID       string
}

func must[T any](t *testing.T, what string) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return v
	}
}

func ok(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// newCloud starts a cloud of three hosts with an image and a network.
func newCloud(t *testing.T) *cloud {
	ctx := t.Context()
	bin, err := process.Build(ctx, t.TempDir())
	ok(t, "build", err)
	p := process.Program{Path: bin, Dir: filepath.Join(t.TempDir(), "state")}
	x, err := p.Start(ctx, "up", "--listen", "127.0.0.1:0", "--compute-driver", "fake", "--fake-hosts", "3", "--set", "identity.bcrypt_cost=4",
		"--set", "compute.fake_memory_mb=500000", "--set", "quota.cores=200", "--set", "quota.instances=100", "--set", "compute.report_interval=1s")
	ok(t, "start", err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the cloud's log:\n%s\nits last warnings:\n%s", process.LastLines(x.Output(), 25), process.LastLines(process.Troubles(x.Output()), 15))
		}
		if err := x.Stop(); err != nil {
			t.Error(err)
		}
	})
	c := &cloud{t: t, dir: p.Dir, auth: credentials(t, p.Dir, "admin")}
	provider := must[*gophercloud.ProviderClient](t, "log in")(openstack.AuthenticatedClient(ctx, c.auth))
	at := gophercloud.EndpointOpts{Region: "RegionOne"}
	c.compute = must[*gophercloud.ServiceClient](t, "compute")(openstack.NewComputeV2(provider, at))
	c.image = must[*gophercloud.ServiceClient](t, "image")(openstack.NewImageV2(provider, at))
	c.network = must[*gophercloud.ServiceClient](t, "network")(openstack.NewNetworkV2(provider, at))
	i := must[*images.Image](t, "create image")(images.Create(ctx, c.image, images.CreateOpts{Name: "cirros", DiskFormat: "raw", ContainerFormat: "bare"}).Extract())
	c.imageID = i.ID
	ok(t, "upload image", imagedata.Upload(ctx, c.image, i.ID, bytes.NewReader(bytes.Repeat([]byte("k"), 1<<20))).ExtractErr())
	c.networkID, c.subnetID = c.newNetwork(networks.CreateOpts{Name: "private"}, "10.1.0.0/22")
	return c
}

func (c *cloud) newNetwork(opts networks.CreateOptsBuilder, cidr string) (net, subnet string) {
	n := must[*networks.Network](c.t, "create network")(networks.Create(c.t.Context(), c.network, opts).Extract())
	s := must[*subnets.Subnet](c.t, "create subnet")(subnets.Create(c.t.Context(), c.network, subnets.CreateOpts{NetworkID: n.ID, CIDR: cidr, IPVersion: 4}).Extract())
	return n.ID, s.ID
}

// credentials reads those of a user from clouds.yaml.
func credentials(t *testing.T, dir, user string) gophercloud.AuthOptions {
	raw, err := os.ReadFile(filepath.Join(dir, "clouds.yaml"))
	ok(t, "clouds.yaml", err)
	var doc struct {
		Clouds map[string]struct {
			Auth struct {
				URL      string `yaml:"auth_url"`
				User     string `yaml:"username"`
				Password string
				Project  string `yaml:"project_name"`
			}
		}
	}
	ok(t, "clouds.yaml", yaml.Unmarshal(raw, &doc))
	a := doc.Clouds[user].Auth
	return gophercloud.AuthOptions{IdentityEndpoint: a.URL, Username: a.User, Password: a.Password, TenantName: a.Project, DomainName: "Default"}
}

// at is the compute client at a microversion.
func (c *cloud) at(version string) *gophercloud.ServiceClient {
	s := *c.compute
	s.Microversion = version
	return &s
}

func (c *cloud) wait(id, status string) *servers.Server {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Minute)
	defer cancel()
	ok(c.t, "wait for "+status, servers.WaitForStatus(ctx, c.compute, id, status))
	return must[*servers.Server](c.t, "show server")(servers.Get(ctx, c.compute, id).Extract())
}

// settled waits until a server has the status and nothing goes on.
func (c *cloud) settled(id, status string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Minute)
	defer cancel()
	for {
		s := must[*servers.Server](c.t, "show server")(servers.Get(ctx, c.compute, id).Extract())
		if s.Status == status && s.TaskState == "" {
			return
		}
		if s.Status == "ERROR" && status != "ERROR" {
			c.t.Fatalf("server in ERROR: %+v", s.Fault)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (c *cloud) flavor(name string, ram, disk, ephemeral int) string {
	f := must[*flavors.Flavor](c.t, "create flavor")(flavors.Create(c.t.Context(), c.compute, flavors.CreateOpts{Name: name, RAM: ram, VCPUs: 1, Disk: &disk, Ephemeral: &ephemeral}).Extract())
	return f.ID
}

func status(err error) int {
	var e gophercloud.ErrUnexpectedResponseCode
	if errors.As(err, &e) {
		return e.Actual
	}
	return 0
}

func TestGophercloud(t *testing.T) {
	c := newCloud(t)
	small, large := c.flavor("small", 64, 1, 0), c.flavor("large", 128, 2, 0)
	t.Run("flavors", func(t *testing.T) { c.flavors(t, small) })
	t.Run("keypairs", func(t *testing.T) { c.keys(t) })
	t.Run("server", func(t *testing.T) { c.server(t, small, large) })
	t.Run("moves", func(t *testing.T) { c.moves(t, small) })
	t.Run("groups", func(t *testing.T) { c.groups(t, small) })
	t.Run("access rules", func(t *testing.T) { c.accessRules(t) })
	t.Run("operators", func(t *testing.T) { c.operators(t, small) })
}

func (c *cloud) flavors(t *testing.T, id string) {
	ctx := t.Context()
	created := must[map[string]string](t, "create extra specs")(flavors.CreateExtraSpecs(ctx, c.at("2.86"), id, flavors.ExtraSpecsOpts{"hw:cpu_policy": "shared", "quota:cpu_shares": "10"}).Extract())
	if created["hw:cpu_policy"] != "shared" {
		t.Errorf("extra specs %v", created)
	}
	if _, err := flavors.CreateExtraSpecs(ctx, c.at("2.86"), id, flavors.ExtraSpecsOpts{"hw:cpu_policy": "whatever"}).Extract(); status(err) != 400 {
		t.Errorf("an extra spec that 2.86 refuses: %v", err)
	}
	if f := must[*flavors.Flavor](t, "show flavor")(flavors.Get(ctx, c.at("2.61"), id).Extract()); f.ExtraSpecs["quota:cpu_shares"] != "10" {
		t.Errorf("flavor of 2.61 without extra specs: %+v", f)
	}
	if f := must[*flavors.Flavor](t, "show flavor")(flavors.Get(ctx, c.at("2.60"), id).Extract()); f.ExtraSpecs != nil {
		t.Errorf("flavor of 2.60 with extra specs: %+v", f)
	}
	if f := must[*flavors.Flavor](t, "update flavor")(flavors.Update(ctx, c.at("2.55"), id, flavors.UpdateOpts{Description: "for tests"}).Extract()); f.Description != "for tests" {
		t.Errorf("description %q", f.Description)
	}
	for _, key := range []string{"hw:cpu_policy", "quota:cpu_shares"} {
		ok(t, "delete extra spec", flavors.DeleteExtraSpec(ctx, c.at("2.86"), id, key).ExtractErr())
	}
}

func (c *cloud) keys(t *testing.T) {
	ctx := t.Context()
	key := must[*keypairs.KeyPair](t, "create key pair")(keypairs.Create(ctx, c.at("2.91"), keypairs.CreateOpts{Name: "generated", Type: "ssh"}).Extract())
	if !strings.Contains(key.PrivateKey, "PRIVATE KEY") || !strings.HasPrefix(key.PublicKey, "ssh-") {
		t.Errorf("generated key %.40q, %.40q", key.PrivateKey, key.PublicKey)
	}
	imported := must[*keypairs.KeyPair](t, "import key pair")(keypairs.Create(ctx, c.at("2.92"), keypairs.CreateOpts{Name: "imported", Type: "ssh", PublicKey: key.PublicKey}).Extract())
	if imported.Fingerprint != key.Fingerprint || imported.PublicKey != key.PublicKey {
		t.Errorf("imported %+v", imported)
	}
	if _, err := keypairs.Create(ctx, c.at("2.92"), keypairs.CreateOpts{Name: "none", Type: "ssh"}).Extract(); status(err) != 400 {
		t.Errorf("since 2.92 keys are not generated: %v", err)
	}
	pages, err := keypairs.List(c.at("2.35"), keypairs.ListOpts{}).AllPages(ctx)
	ok(t, "list key pairs", err)
	if list := must[[]keypairs.KeyPair](t, "list key pairs")(keypairs.ExtractKeyPairs(pages)); len(list) != 2 {
		t.Errorf("key pairs %+v", list)
	}
	ok(t, "delete key pair", keypairs.Delete(ctx, c.compute, "imported", nil).ExtractErr())
}

// server takes one server through its life.
func (c *cloud) server(t *testing.T, small, large string) {
	ctx := t.Context()
	drive := true
	made := must[*servers.Server](t, "create server")(servers.Create(ctx, c.at("2.90"), keypairs.CreateOptsExt{KeyName: "generated", CreateOptsBuilder: servers.CreateOpts{
		Name: "one", ImageRef: c.imageID, FlavorRef: small, Networks: []servers.Network{{UUID: c.networkID}}, Metadata: map[string]string{"a": "b"}, Tags: []string{"x"},
		Hostname: "host-one", UserData: []byte("#!/bin/sh\n"), ConfigDrive: &drive}}, nil).Extract())
	id := made.ID
	s := c.wait(id, "ACTIVE")
	if s.Addresses["private"] == nil || s.KeyName != "generated" || s.Metadata["a"] != "b" {
		t.Errorf("server %+v", s)
	}
	c.project = s.TenantID
	if s := must[*servers.Server](t, "show")(servers.Get(ctx, c.at("2.96"), id).Extract()); s.Hostname == nil || *s.Hostname != "host-one" || s.Tags == nil || !slices.Equal(*s.Tags, []string{"x"}) {
		t.Errorf("server at 2.96: %+v", s)
	}
	ok(t, "add tag", tags.Add(ctx, c.at("2.26"), id, "y").ExtractErr())
	if has := must[bool](t, "check tag")(tags.Check(ctx, c.at("2.26"), id, "y").Extract()); !has {
		t.Error("the tag is not there")
	}
	if list := must[[]string](t, "list tags")(tags.List(ctx, c.at("2.26"), id).Extract()); !slices.Equal(list, []string{"x", "y"}) {
		t.Errorf("tags %v", list)
	}
	ok(t, "delete tags", tags.DeleteAll(ctx, c.at("2.26"), id).ExtractErr())
	if _, err := tags.List(ctx, c.at("2.25"), id).Extract(); status(err) != 404 {
		t.Errorf("tags at 2.25: %v", err)
	}

	act := func(what, end string, err error) {
		t.Helper()
		ok(t, what, err)
		c.settled(id, end)
	}
	act("stop", "SHUTOFF", servers.Stop(ctx, c.compute, id).ExtractErr())
	if err := servers.Pause(ctx, c.compute, id).ExtractErr(); status(err) != 409 {
		t.Errorf("pause of a stopped server: %v", err)
	}
	act("start", "ACTIVE", servers.Start(ctx, c.compute, id).ExtractErr())
	act("reboot", "ACTIVE", servers.Reboot(ctx, c.compute, id, servers.RebootOpts{Type: servers.HardReboot}).ExtractErr())
	act("pause", "PAUSED", servers.Pause(ctx, c.compute, id).ExtractErr())
	act("unpause", "ACTIVE", servers.Unpause(ctx, c.compute, id).ExtractErr())
	act("suspend", "SUSPENDED", servers.Suspend(ctx, c.compute, id).ExtractErr())
	act("resume", "ACTIVE", servers.Resume(ctx, c.compute, id).ExtractErr())
	act("change password", "ACTIVE", servers.ChangeAdminPassword(ctx, c.compute, id, "secret1").ExtractErr())
	if pass := must[string](t, "rescue")(servers.Rescue(ctx, c.at("2.87"), id, servers.RescueOpts{AdminPass: "secret2"}).Extract()); pass != "secret2" {
		t.Errorf("password of the rescue %q", pass)
	}
	c.settled(id, "RESCUE")
	act("unrescue", "ACTIVE", servers.Unrescue(ctx, c.compute, id).ExtractErr())
	act("resize", "VERIFY_RESIZE", servers.Resize(ctx, c.compute, id, servers.ResizeOpts{FlavorRef: large}).ExtractErr())
	act("revert", "ACTIVE", servers.RevertResize(ctx, c.compute, id).ExtractErr())
	act("resize", "VERIFY_RESIZE", servers.Resize(ctx, c.compute, id, servers.ResizeOpts{FlavorRef: large}).ExtractErr())
	act("confirm", "ACTIVE", servers.ConfirmResize(ctx, c.compute, id).ExtractErr())
	if s := must[*servers.Server](t, "show")(servers.Get(ctx, c.at("2.47"), id).Extract()); s.Flavor["original_name"] != "large" || s.Flavor["ram"] != 128.0 {
		t.Errorf("flavor at 2.47: %v", s.Flavor)
	}
	act("shelve", "SHELVED_OFFLOADED", servers.Shelve(ctx, c.compute, id).ExtractErr())
	act("unshelve", "ACTIVE", servers.Unshelve(ctx, c.at("2.77"), id, servers.UnshelveOpts{AvailabilityZone: "nova"}).ExtractErr())
	rebuilt := must[*servers.Server](t, "rebuild")(servers.Rebuild(ctx, c.compute, id, servers.RebuildOpts{ImageRef: c.imageID, Name: "two", AdminPass: "secret3"}).Extract())
	c.settled(id, "ACTIVE")
	if rebuilt.AdminPass != "secret3" {
		t.Errorf("password of the rebuild %q", rebuilt.AdminPass)
	}
	ok(t, "lock", servers.Lock(ctx, c.at("2.73"), id).ExtractErr())
	ok(t, "unlock", servers.Unlock(ctx, c.compute, id).ExtractErr())
	snapshot := must[string](t, "create image")(servers.CreateImage(ctx, c.at("2.45"), id, servers.CreateImageOpts{Name: "snapshot"}).ExtractImageID())
	c.settled(id, "ACTIVE")
	if i := must[*images.Image](t, "show image")(images.Get(ctx, c.image, snapshot).Extract()); i.Status != images.ImageStatusActive || i.Properties["instance_uuid"] != id {
		t.Errorf("snapshot %+v", i)
	}
	if text := must[string](t, "console output")(servers.ShowConsoleOutput(ctx, c.compute, id, servers.ShowConsoleOutputOpts{Length: 5}).Extract()); !strings.Contains(text, "LAST LINE") {
		t.Errorf("console output %q", text)
	}
	console := must[*remoteconsoles.RemoteConsole](t, "remote console")(remoteconsoles.Create(ctx, c.at("2.6"), id, remoteconsoles.CreateOpts{
		Protocol: remoteconsoles.ConsoleProtocolVNC, Type: remoteconsoles.ConsoleTypeNoVNC}).Extract())
	if !strings.Contains(console.URL, "vnc.html?path=console%2Fwebsocket%3Ftoken%3D") {
		t.Errorf("console %+v", console)
	}

	pages, err := instanceactions.List(c.at("2.58"), id, instanceactions.ListOpts{}).AllPages(ctx)
	ok(t, "list actions", err)
	var names []string
	for _, a := range must[[]instanceactions.InstanceAction](t, "list actions")(instanceactions.ExtractInstanceActions(pages)) {
		names = append(names, a.Action)
	}
	for _, want := range []string{"create", "stop", "start", "reboot", "pause", "rescue", "resize", "revertResize", "confirmResize", "shelve", "unshelve", "rebuild", "createImage"} {
		if !slices.Contains(names, want) {
			t.Errorf("no action %s among %v", want, names)
		}
	}
	ok(t, "delete", servers.Delete(ctx, c.compute, id).ExtractErr())
	c.gone(t, id)
}

func (c *cloud) gone(t *testing.T, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	for {
		if _, err := servers.Get(ctx, c.compute, id).Extract(); status(err) == 404 {
			return
		} else if ctx.Err() != nil {
			t.Fatalf("the server does not go: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (c *cloud) boot(t *testing.T, opts servers.CreateOpts, hints servers.SchedulerHintOptsBuilder) *servers.Server {
	t.Helper()
	opts.ImageRef, opts.Networks = c.imageID, "none"
	made := must[*servers.Server](t, "create server")(servers.Create(t.Context(), c.at("2.74"), opts, hints).Extract())
	c.settled(made.ID, "ACTIVE")
	return must[*servers.Server](t, "show server")(servers.Get(t.Context(), c.compute, made.ID).Extract())
}

// moves takes a server from host to host.
func (c *cloud) moves(t *testing.T, flavor string) {
	ctx := t.Context()
	s := c.boot(t, servers.CreateOpts{Name: "mover", FlavorRef: flavor}, nil)
	ok(t, "migrate", servers.Migrate(ctx, c.compute, s.ID).ExtractErr())
	c.settled(s.ID, "VERIFY_RESIZE")
	ok(t, "confirm", servers.ConfirmResize(ctx, c.compute, s.ID).ExtractErr())
	c.settled(s.ID, "ACTIVE")
	moved := must[*servers.Server](t, "show server")(servers.Get(ctx, c.compute, s.ID).Extract())
	if moved.Host == s.Host {
		t.Errorf("the server was migrated from %s to itself", s.Host)
	}
	block, overcommit := false, false
	ok(t, "live migrate", servers.LiveMigrate(ctx, c.at("2.24"), s.ID, servers.LiveMigrateOpts{Host: &s.Host, BlockMigration: &block, DiskOverCommit: &overcommit}).ExtractErr())
	c.settled(s.ID, "ACTIVE")
	if back := must[*servers.Server](t, "show server")(servers.Get(ctx, c.compute, s.ID).Extract()); back.Host != s.Host {
		t.Errorf("the server is on %s, not back on %s", back.Host, s.Host)
	}
	for _, v := range []string{"2.23", "2.59", "2.80"} {
		opts := migrations.ListOpts{}
		opts.InstanceID = &s.ID
		pages, err := migrations.List(c.at(v), opts).AllPages(ctx)
		ok(t, "list migrations at "+v, err)
		kinds := []string{}
		for _, m := range must[[]migrations.Migration](t, "migrations")(migrations.ExtractMigrations(pages)) {
			kinds = append(kinds, m.MigrationType+" "+m.Status)
			if v == "2.80" && (m.UUID == "" || m.ProjectID == "") {
				t.Errorf("migration at 2.80: %+v", m)
			}
		}
		slices.Sort(kinds)
		if want := []string{"live-migration completed", "migration confirmed"}; !slices.Equal(kinds, want) {
			t.Errorf("migrations at %s: %v, want %v", v, kinds, want)
		}
	}
	ok(t, "delete", servers.Delete(ctx, c.compute, s.ID).ExtractErr())
	c.gone(t, s.ID)
}

// groups checks server groups of both forms.
func (c *cloud) groups(t *testing.T, flavor string) {
	ctx := t.Context()
	old := must[*servergroups.ServerGroup](t, "create group")(servergroups.Create(ctx, c.at("2.15"), servergroups.CreateOpts{Name: "old", Policies: []string{"soft-affinity"}}).Extract())
	if !slices.Equal(old.Policies, []string{"soft-affinity"}) || old.Policy != nil {
		t.Errorf("group of 2.15: %+v", old)
	}
	g := must[*servergroups.ServerGroup](t, "create group")(servergroups.Create(ctx, c.at("2.64"), servergroups.CreateOpts{Name: "apart", Policy: "anti-affinity",
		Rules: &servergroups.Rules{MaxServerPerHost: 1}}).Extract())
	if g.Policy == nil || *g.Policy != "anti-affinity" || g.Rules == nil || g.Rules.MaxServerPerHost != 1 {
		t.Errorf("group of 2.64: %+v", g)
	}
	hosts := map[string]bool{}
	var ids []string
	for _, name := range []string{"g1", "g2", "g3"} {
		s := c.boot(t, servers.CreateOpts{Name: name, FlavorRef: flavor}, servers.SchedulerHintOpts{Group: g.ID})
		hosts[s.Host] = true
		ids = append(ids, s.ID)
	}
	if len(hosts) != 3 {
		t.Errorf("three servers that keep apart are on %v", hosts)
	}
	fourth := must[*servers.Server](t, "create server")(servers.Create(ctx, c.at("2.74"), servers.CreateOpts{Name: "g4", FlavorRef: flavor, ImageRef: c.imageID, Networks: "none"},
		servers.SchedulerHintOpts{Group: g.ID}).Extract())
	c.settled(fourth.ID, "ERROR")
	for _, id := range append(ids, fourth.ID) {
		ok(t, "delete", servers.Delete(ctx, c.compute, id).ExtractErr())
	}
	for _, id := range append(ids, fourth.ID) {
		c.gone(t, id)
	}
	ok(t, "delete group", servergroups.Delete(ctx, c.compute, g.ID).ExtractErr())
	ok(t, "delete group", servergroups.Delete(ctx, c.compute, old.ID).ExtractErr())
}

// operators looks at hosts, services, aggregates, quotas, limits and usage.
func (c *cloud) operators(t *testing.T, flavor string) {
	ctx := t.Context()
	s := c.boot(t, servers.CreateOpts{Name: "watched", FlavorRef: flavor}, nil)
	with := true
	for _, v := range []string{"2.1", "2.53", "2.87", "2.88"} {
		var opts hypervisors.ListOptsBuilder
		if v != "2.1" {
			opts = hypervisors.ListOpts{WithServers: &with}
		}
		pages, err := hypervisors.List(c.at(v), opts).AllPages(ctx)
		ok(t, "list hypervisors at "+v, err)
		list := must[[]hypervisors.Hypervisor](t, "hypervisors")(hypervisors.ExtractHypervisors(pages))
		if len(list) != 3 || list[0].HypervisorType != "fake" {
			t.Errorf("hypervisors at %s: %+v", v, list)
		}
		guests := 0
		for _, h := range list {
			if h.Servers != nil {
				guests += len(*h.Servers)
			}
		}
		if v != "2.1" && guests != 1 {
			t.Errorf("%d servers on the hypervisors at %s", guests, v)
		}
	}
	if st := must[*hypervisors.Statistics](t, "statistics")(hypervisors.GetStatistics(ctx, c.at("2.87")).Extract()); st.Count != 3 || st.RunningVMs != 1 {
		t.Errorf("statistics %+v", st)
	}
	if _, err := hypervisors.GetStatistics(ctx, c.at("2.88")).Extract(); status(err) != 404 {
		t.Errorf("statistics went with 2.88: %v", err)
	}

	pages, err := services.List(c.at("2.53"), services.ListOpts{Binary: "nova-compute"}).AllPages(ctx)
	ok(t, "list services", err)
	list := must[[]services.Service](t, "services")(services.ExtractServices(pages))
	if len(list) != 3 {
		t.Fatalf("services %+v", list)
	}
	for _, want := range []services.ServiceStatus{services.ServiceDisabled, services.ServiceEnabled} {
		u := services.UpdateOpts{Status: want}
		if want == services.ServiceDisabled {
			u.DisabledReason = "tests"
		}
		if got := must[*services.Service](t, "update service")(services.Update(ctx, c.at("2.53"), list[0].ID, u).Extract()); got.Status != string(want) {
			t.Errorf("service %+v", got)
		}
	}

	a := must[*aggregates.Aggregate](t, "create aggregate")(aggregates.Create(ctx, c.compute, aggregates.CreateOpts{Name: "racks", AvailabilityZone: "north"}).Extract())
	must[*aggregates.Aggregate](t, "add host")(aggregates.AddHost(ctx, c.compute, a.ID, aggregates.AddHostOpts{Host: list[1].Host}).Extract())
	must[*aggregates.Aggregate](t, "set metadata")(aggregates.SetMetadata(ctx, c.compute, a.ID, aggregates.SetMetadataOpts{Metadata: map[string]any{"ssd": "true"}}).Extract())
	if got := must[*aggregates.Aggregate](t, "show aggregate")(aggregates.Get(ctx, c.compute, a.ID).Extract()); !slices.Equal(got.Hosts, []string{list[1].Host}) || got.Metadata["ssd"] != "true" {
		t.Errorf("aggregate %+v", got)
	}
	north := c.boot(t, servers.CreateOpts{Name: "in-north", FlavorRef: flavor, AvailabilityZone: "north"}, nil)
	if north.Host != list[1].Host || north.AvailabilityZone != "north" {
		t.Errorf("a server of zone north is on %s in %s", north.Host, north.AvailabilityZone)
	}
	for _, id := range []string{s.ID, north.ID} {
		ok(t, "delete", servers.Delete(ctx, c.compute, id).ExtractErr())
		c.gone(t, id)
	}
	must[*aggregates.Aggregate](t, "remove host")(aggregates.RemoveHost(ctx, c.compute, a.ID, aggregates.RemoveHostOpts{Host: list[1].Host}).Extract())
	ok(t, "delete aggregate", aggregates.Delete(ctx, c.compute, a.ID).ExtractErr())

	most := 7
	if q := must[*quotasets.QuotaSet](t, "update quotas")(quotasets.Update(ctx, c.compute, c.project, quotasets.UpdateOpts{ServerGroups: &most}).Extract()); q.ServerGroups != 7 {
		t.Errorf("quotas %+v", q)
	}
	if q := must[quotasets.QuotaDetailSet](t, "quotas in detail")(quotasets.GetDetail(ctx, c.compute, c.project).Extract()); q.ServerGroups.Limit != 7 || q.Instances.InUse != 0 {
		t.Errorf("quotas %+v", q)
	}
	if l := must[*limits.Limits](t, "limits")(limits.Get(ctx, c.at("2.57"), limits.GetOpts{}).Extract()); l.Absolute.MaxServerGroups != 7 || l.Absolute.TotalInstancesUsed != 0 {
		t.Errorf("limits %+v", l)
	}
	ok(t, "delete quotas", quotasets.Delete(ctx, c.compute, c.project).Err)
	begin := time.Now().Add(-time.Hour)
	for _, v := range []string{"2.1", "2.40"} {
		seen := 0
		ok(t, "usage at "+v, usage.SingleTenant(c.at(v), c.project, usage.SingleTenantOpts{Start: &begin}).EachPage(ctx, func(_ context.Context, page pagination.Page) (bool, error) {
			u, err := usage.ExtractSingleTenant(page)
			if err == nil && u.TenantID == c.project {
				seen += len(u.ServerUsages)
			}
			return true, err
		}))
		if seen == 0 {
			t.Errorf("no usage at %s", v)
		}
	}
}

// accessRules logs in with an application credential that may do little.
func (c *cloud) accessRules(t *testing.T) {
	ctx := t.Context()
	at := gophercloud.EndpointOpts{Region: "RegionOne"}
	id := must[*gophercloud.ServiceClient](t, "identity")(openstack.NewIdentityV3(c.compute.ProviderClient, at))
	user := must[*tokens.User](t, "own user")(tokens.Get(ctx, id, id.Token()).ExtractUser())
	cred := must[*applicationcredentials.ApplicationCredential](t, "create credential")(applicationcredentials.Create(ctx, id, user.ID, applicationcredentials.CreateOpts{Name: "narrow",
		AccessRules: []applicationcredentials.AccessRule{{Service: "compute", Method: "GET", Path: "/v2.1/servers/**"}, {Service: "network", Method: "GET", Path: "/network/v2.0/networks"}}}).Extract())
	narrow := must[*gophercloud.ProviderClient](t, "log in")(openstack.AuthenticatedClient(ctx, gophercloud.AuthOptions{IdentityEndpoint: c.auth.IdentityEndpoint,
		ApplicationCredentialID: cred.ID, ApplicationCredentialSecret: cred.Secret}))
	compute := must[*gophercloud.ServiceClient](t, "compute")(openstack.NewComputeV2(narrow, at))
	net := must[*gophercloud.ServiceClient](t, "network")(openstack.NewNetworkV2(narrow, at))
	if _, err := servers.List(compute, servers.ListOpts{}).AllPages(ctx); err != nil {
		t.Errorf("a list that is allowed: %v", err)
	}
	if _, err := networks.List(net, networks.ListOpts{}).AllPages(ctx); err != nil {
		t.Errorf("a list that is allowed with the service's prefix: %v", err)
	}
	if _, err := flavors.ListDetail(compute, flavors.ListOpts{}).AllPages(ctx); status(err) != 401 {
		t.Errorf("a list that is not allowed: %v", err)
	}
	if err := networks.Delete(ctx, net, c.networkID).ExtractErr(); status(err) != 401 {
		t.Errorf("a method that is not allowed: %v", err)
	}
}
