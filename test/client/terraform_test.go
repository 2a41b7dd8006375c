package client_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/external"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"golang.org/x/crypto/ssh"

	"kilonova/test/process"
)

// The versions that are run: of Terraform the last one under the Mozilla Public License, of its OpenStack provider the last one that the Go module proxy serves whole.
const (
	terraformModule = "github.com/hashicorp/terraform@v1.5.7"
	providerModule  = "github.com/terraform-provider-openstack/terraform-provider-openstack@v1.54.1"
)

// TestTerraform runs an unmodified Terraform and its unmodified OpenStack provider, both built from the Go module proxy outside of this module: a configuration
// through its whole life, and those of the provider's own acceptance tests that are quick (provider.txt).
func TestTerraform(t *testing.T) {
	if os.Getenv("KILONOVA_SLOW") == "" {
		t.Skip("building Terraform and its provider takes minutes: KILONOVA_SLOW=1")
	}
	bins := t.TempDir()
	fetch, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	terraform, provider := source(fetch, t, terraformModule), source(fetch, t, providerModule)
	cli := filepath.Join(bins, "terraform")
	compile(fetch, t, terraform, "build", "-o", cli, ".")
	compile(fetch, t, provider, "build", "-o", filepath.Join(bins, "terraform-provider-openstack"), ".")
	acceptance := filepath.Join(bins, "acceptance")
	compile(fetch, t, provider, "test", "-c", "-o", acceptance, "./openstack")
	t.Run("configuration", func(t *testing.T) {
		t.Parallel()
		configuration(t, cli, bins)
	})
	t.Run("acceptance", func(t *testing.T) {
		t.Parallel()
		providerAcceptance(t, cli, acceptance)
	})
}

// source is where the Go command keeps a module's source. The test is skipped when it cannot be had.
func source(ctx context.Context, t *testing.T, module string) string {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", module)
	cmd.Dir = t.TempDir()
	out, err := cmd.Output()
	var m struct{ Dir, Error string }
	if err = errors.Join(err, json.Unmarshal(out, &m)); err != nil || m.Dir == "" {
		t.Skipf("%s cannot be downloaded here: %v %s", module, err, m.Error)
	}
	return m.Dir
}

// compile runs the go command in a module's source, with the dependencies that this module names. The test is skipped when they cannot be had.
func compile(ctx context.Context, t *testing.T, dir string, args ...string) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly -trimpath -buildvcs=false", "GOWORK=off", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("go %s of %s does not work here: %v\n%s", args[0], filepath.Base(dir), err, out[max(0, len(out)-2000):])
	}
}

// workspace is a directory in which terraform runs against a cloud.
type workspace struct {
	t        *testing.T
	cli, dir string
	env      []string
}

// run runs terraform and gives its exit status.
func (w *workspace) run(args ...string) (string, int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.cli, args...)
	cmd.Dir, cmd.Env = w.dir, w.env
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatalf("terraform %s: %v\n%s", args[0], err, out)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// apply makes the cloud what the configuration says with these variables. Afterwards there must be nothing left to change.
func (w *workspace) apply(vars map[string]any) string {
	w.t.Helper()
	raw, err := json.Marshal(vars)
	ok(w.t, "variables", err)
	ok(w.t, "variables", os.WriteFile(filepath.Join(w.dir, "terraform.tfvars.json"), raw, 0o600))
	out, code := w.run("apply", "-no-color", "-auto-approve", "-parallelism=30")
	if code != 0 {
		w.t.Fatalf("terraform apply: %d\n%s", code, process.LastLines(out, 60))
	}
	if plan, code := w.run("plan", "-no-color", "-detailed-exitcode"); code != 0 {
		w.t.Fatalf("terraform finds after it has applied the configuration, that the cloud is not like it: %d\n%s", code, process.LastLines(plan, 80))
	}
	result := regexp.MustCompile(`(?m)^Apply complete! (.*)$`).FindStringSubmatch(out)
	if result == nil {
		w.t.Fatalf("terraform apply:\n%s", out)
	}
	w.t.Log(result[1])
	return result[1]
}

// output reads what the configuration says of what it made.
func (w *workspace) output() (s seen) {
	w.t.Helper()
	text, code := w.run("output", "-json", "-no-color", "seen")
	if code != 0 {
		w.t.Fatalf("terraform output: %d\n%s", code, text)
	}
	ok(w.t, "output", json.Unmarshal([]byte(text), &s))
	return s
}

type seen struct {
	Address, Looked, Floating, Flavor, Project string
	Image, Key, Network, Zones                 bool
	Ports                                      int
	Names, Images, Flavors, States             []string
	Sixes                                      []bool
}

func configuration(t *testing.T, cli, bins string) {
	c := newCloud(t)
	dir := t.TempDir()
	w := &workspace{t: t, cli: cli, dir: filepath.Join(dir, "configuration"), env: append(withoutOpenStack(), "OS_CLIENT_CONFIG_FILE="+filepath.Join(c.dir, "clouds.yaml"),
		"TF_CLI_CONFIG_FILE="+filepath.Join(dir, "cli"), "HOME="+dir, "CHECKPOINT_DISABLE=1", "TF_IN_AUTOMATION=1")}
	ok(t, "copy", os.CopyFS(w.dir, os.DirFS("terraform")))
	overrides := fmt.Sprintf("provider_installation {\n  dev_overrides {\n    \"terraform-provider-openstack/openstack\" = %q\n  }\n  direct {}\n}\n", bins)
	ok(t, "settings", os.WriteFile(filepath.Join(dir, "cli"), []byte(overrides), 0o600))
	image := filepath.Join(dir, "image")
	ok(t, "image", os.WriteFile(image, []byte(strings.Repeat("k", 1<<20)), 0o600))
	before := c.everything()

	vars := map[string]any{"image_file": image, "host": c.hypervisor(), "public_key": publicKey(t)}
	w.apply(vars)
	first := seen{Address: "10.77.0.20", Looked: "service", Floating: "10.77.0.20", Flavor: "true", Project: "demo", Image: true, Key: true, Network: true, Zones: true, Ports: 1,
		Names: []string{"web-0", "web-1"}, Images: []string{"own-first", "own-first"}, Flavors: []string{"tf.small", "tf.small"},
		States: []string{"active", "active"}, Sixes: []bool{true, true}}
	if diff := cmp.Diff(first, w.output()); diff != "" {
		t.Errorf("what was made (-want +got):\n%s", diff)
	}

	// Renamed, resized, rebuilt, stopped, shelved, told and tagged otherwise, in other security groups; and one more.
	maps.Copy(vars, map[string]any{"name": "shop", "size": "large", "image": "second", "metadata": map[string]string{"role": "shop", "owner": "ann"},
		"tags": []string{"blue", "green"}, "groups": []string{"inside", "front"}, "power": "shutoff", "resting": "shelved_offloaded", "open_port": 8443, "members": 3})
	if got, want := w.apply(vars), "Resources: 2 added, 11 changed, 1 destroyed."; got != want {
		t.Errorf("the first change: %s, want %s", got, want)
	}
	second := first
	second.Names, second.Images = []string{"shop-0", "shop-1", "shop-2"}, []string{"own-second", "own-second", "own-second"}
	second.Flavors, second.States, second.Sixes = []string{"tf.large", "tf.large", "tf.large"}, []string{"shutoff", "shutoff", "shutoff"}, []bool{true, true, true}
	if diff := cmp.Diff(second, w.output()); diff != "" {
		t.Errorf("after the first change (-want +got):\n%s", diff)
	}

	// Running again, small again, one fewer.
	maps.Copy(vars, map[string]any{"size": "small", "power": "active", "resting": "active", "members": 2, "metadata": map[string]string{"stage": "three"}})
	if got, want := w.apply(vars), "Resources: 0 added, 5 changed, 1 destroyed."; got != want {
		t.Errorf("the second change: %s, want %s", got, want)
	}
	third := first
	third.Names, third.Images = []string{"shop-0", "shop-1"}, []string{"own-second", "own-second"}
	if diff := cmp.Diff(third, w.output()); diff != "" {
		t.Errorf("after the second change (-want +got):\n%s", diff)
	}

	n := w.forget()
	if got, want := w.apply(vars), fmt.Sprintf("Resources: %d imported, 0 added, 0 changed, 0 destroyed.", n); got != want {
		t.Errorf("after terraform was made to forget: %s, want %s", got, want)
	}
	if out, code := w.run("destroy", "-no-color", "-auto-approve", "-parallelism=30"); code != 0 {
		t.Fatalf("terraform destroy: %d\n%s", code, process.LastLines(out, 60))
	}
	if diff := cmp.Diff(before, c.everything()); diff != "" {
		t.Errorf("what is there after terraform destroy and was not before (-before +after):\n%s", diff)
	}
}

// notImported is what the provider cannot tell from the cloud alone: it compares what only the configuration says, such as tags, passwords and scheduler hints.
var notImported = regexp.MustCompile(`^openstack_(compute_instance|compute_interface_attach|images_image|identity_user|networking_floatingip|networking_port|networking_router|networking_secgroup)_v[23]\.` +
	`|^openstack_networking_(network|subnet)_v2\.inside$`)

// forget makes terraform forget what it can import, and tells it to import that. It gives the number of these things.
func (w *workspace) forget() int {
	w.t.Helper()
	text, code := w.run("show", "-json", "-no-color")
	var state struct {
		Values struct {
			Root struct {
				Resources []struct {
					Address, Mode string
					Values        struct{ ID string }
				}
			} `json:"root_module"`
		}
	}
	if err := json.Unmarshal([]byte(text), &state); err != nil || code != 0 {
		w.t.Fatalf("terraform show: %d %v\n%s", code, err, text)
	}
	forget, imports := []string{"state", "rm"}, ""
	for _, r := range state.Values.Root.Resources {
		if r.Mode == "managed" && !notImported.MatchString(r.Address) {
			forget = append(forget, r.Address)
			imports += fmt.Sprintf("import {\n  to = %s\n  id = %q\n}\n", r.Address, r.Values.ID)
		}
	}
	ok(w.t, "imports", os.WriteFile(filepath.Join(w.dir, "imports.tf"), []byte(imports), 0o600))
	if out, code := w.run(forget...); code != 0 {
		w.t.Fatalf("terraform state rm: %d\n%s", code, out)
	}
	return len(forget) - 2
}

// everything names what the cloud has, by kind. Default security groups are left out: projects get them without being asked.
func (c *cloud) everything() map[string][]string {
	c.t.Helper()
	identity, err := openstack.NewIdentityV3(c.compute.ProviderClient, gophercloud.EndpointOpts{Region: "RegionOne"})
	ok(c.t, "identity", err)
	compute := c.at("2.87")
	have := map[string][]string{}
	for kind, from := range map[string]struct {
		client *gophercloud.ServiceClient
		path   string
	}{
		"servers": {compute, "servers?all_tenants=1"}, "flavors": {compute, "flavors?is_public=none"}, "server_groups": {compute, "os-server-groups?all_projects=true"},
		"aggregates": {compute, "os-aggregates"}, "networks": {c.network, "networks"}, "subnets": {c.network, "subnets"}, "ports": {c.network, "ports"},
		"routers": {c.network, "routers"}, "security_groups": {c.network, "security-groups"}, "floatingips": {c.network, "floatingips"},
		"subnetpools": {c.network, "subnetpools"}, "address_scopes": {c.network, "address-scopes"}, "rbac_policies": {c.network, "rbac-policies"},
		"images": {c.image, "images?limit=1000"}, "projects": {identity, "projects"}, "users": {identity, "users"}, "groups": {identity, "groups"},
		"roles": {identity, "roles"}, "services": {identity, "services"}, "endpoints": {identity, "endpoints"},
	} {
		var doc map[string]json.RawMessage
		_, err := from.client.Get(c.t.Context(), from.client.ServiceURL()+from.path, &doc, nil)
		ok(c.t, "list "+kind, err)
		var list []struct {
			ID   any
			Name string
		}
		ok(c.t, "list "+kind, json.Unmarshal(doc[kind], &list))
		for _, x := range list {
			if kind != "security_groups" || x.Name != "default" {
				have[kind] = append(have[kind], fmt.Sprint(x.ID))
			}
		}
		slices.Sort(have[kind])
	}
	return have
}

// hypervisor is the name of one of the cloud's hosts.
func (c *cloud) hypervisor() string {
	c.t.Helper()
	var doc struct {
		Hypervisors []struct {
			Name string `json:"hypervisor_hostname"`
		}
	}
	_, err := c.compute.Get(c.t.Context(), c.compute.ServiceURL("os-hypervisors"), &doc, &gophercloud.RequestOpts{OkCodes: []int{http.StatusOK}})
	ok(c.t, "hypervisors", err)
	return doc.Hypervisors[0].Name
}

// withoutOpenStack is the environment without what would send a client elsewhere.
func withoutOpenStack() []string {
	return slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "OS_") || strings.HasPrefix(s, "TF_") })
}

// publicKey makes an SSH public key as ssh-keygen writes it.
func publicKey(t *testing.T) string {
	raw, _, err := ed25519.GenerateKey(rand.Reader)
	ok(t, "key", err)
	key, err := ssh.NewPublicKey(raw)
	ok(t, "key", err)
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " ann@example.org"
}

// providerAcceptance runs the tests of provider.txt, which the provider's maintainers run against clouds: those of operators as the administrator, those of projects as a
// user of one.
func providerAcceptance(t *testing.T, cli, acceptance string) {
	text, err := os.ReadFile("provider.txt")
	ok(t, "provider.txt", err)
	want := slices.DeleteFunc(strings.Split(strings.TrimSpace(string(text)), "\n"), func(s string) bool { return strings.HasPrefix(s, "#") })
	c := newCloud(t)
	external, _ := c.newNetwork(external.CreateOptsExt{CreateOptsBuilder: networks.CreateOpts{Name: "public"}, External: new(true)}, "203.0.113.0/24")
	ok(t, "share the network", networks.Update(t.Context(), c.network, c.networkID, networks.UpdateOpts{Shared: new(true)}).Err)
	ok(t, "share the image", images.Update(t.Context(), c.image, c.imageID, images.UpdateOpts{images.UpdateVisibility{Visibility: images.ImageVisibilityPublic}}).Err)
	flavor, home := c.flavor("m1.acctest", 512, 10, 10), t.TempDir()
	for _, user := range []string{"admin", "demo"} {
		a := credentials(t, c.dir, user)
		env := append(withoutOpenStack(), "TF_ACC=1", "TF_ACC_TERRAFORM_PATH="+cli, "CHECKPOINT_DISABLE=1", "HOME="+home, "OS_AUTH_URL="+a.IdentityEndpoint,
			"OS_USERNAME="+a.Username, "OS_PASSWORD="+a.Password, "OS_PROJECT_NAME="+a.TenantName, "OS_TENANT_NAME="+a.TenantName, "OS_USER_DOMAIN_NAME=Default",
			"OS_PROJECT_DOMAIN_NAME=Default", "OS_REGION_NAME=RegionOne", "OS_BRANCH=master", "OS_IMAGE_ID="+c.imageID, "OS_IMAGE_NAME=cirros", "OS_NETWORK_ID="+c.networkID,
			"OS_EXTGW_ID="+external, "OS_POOL_NAME=public", "OS_FLAVOR_ID="+flavor, "OS_FLAVOR_NAME=m1.acctest")
		t.Run(user, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 25*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, acceptance, "-test.v", "-test.timeout", "24m", "-test.run", "^("+strings.Join(want, "|")+")$")
			cmd.Env, cmd.Dir = env, t.TempDir()
			out, err := cmd.CombinedOutput()
			passed, seen := 0, 0
			for _, m := range outcome.FindAllStringSubmatch(string(out), -1) {
				seen++
				skipped := m[1] == "SKIP" && strings.Contains(transcript(string(out), m[2]), "Skipping test because it requires the")
				if m[1] == "PASS" {
					passed++
				} else if !skipped {
					t.Errorf("%s: %s\n%s", m[1], m[2], transcript(string(out), m[2]))
				}
			}
			if seen != len(want) || passed == 0 {
				t.Errorf("of %d tests %d ran and %d passed: %v\n%s", len(want), seen, passed, err, process.LastLines(string(out), 60))
			}
			t.Logf("%d of %d passed, the others are another user's", passed, len(want))
		})
	}
}
