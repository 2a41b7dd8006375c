package client_test

import (
	"bufio"
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/external"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
)

// acceptance is where gophercloud keeps the tests that its maintainers run against clouds.
const acceptance = "github.com/gophercloud/gophercloud/v2/internal/acceptance/openstack/"

var outcome = regexp.MustCompile(`(?m)^--- (PASS|FAIL|SKIP): (\w+)`)

// TestGophercloudAcceptance runs gophercloud's own acceptance tests of the services that a cloud here has. What does not pass stands with its reason in
// acceptance.txt, and nothing else may.
func TestGophercloudAcceptance(t *testing.T) {
	bins := t.TempDir()
	const extensions = "networking/v2/extensions"
	suites := []string{"compute/v2", "identity/v3", "image/v2", "networking/v2", extensions, extensions + "/dns", extensions + "/layer3", extensions + "/mtu",
		extensions + "/networkipavailabilities", extensions + "/portsbinding", extensions + "/quotas", extensions + "/rbacpolicies", extensions + "/subnetpools", "placement/v1"}
	file := func(suite string) string { return filepath.Join(bins, strings.ReplaceAll(suite, "/", "-")) }
	for _, s := range suites {
		cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "acceptance", "-o", file(s), acceptance+s)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("the tests of gophercloud cannot be built here: %v\n%s", err, out)
		}
	}
	c := newCloud(t)
	external, _ := c.newNetwork(external.CreateOptsExt{CreateOptsBuilder: networks.CreateOpts{Name: "public"}, External: new(true)}, "203.0.113.0/24")
	env := append(slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "OS_") }),
		"OS_AUTH_URL="+c.auth.IdentityEndpoint, "OS_USERNAME="+c.auth.Username, "OS_PASSWORD="+c.auth.Password, "OS_PROJECT_NAME="+c.auth.TenantName,
		"OS_TENANT_NAME="+c.auth.TenantName, "OS_DOMAIN_ID=default", "OS_REGION_NAME=RegionOne", "OS_BRANCH=master", "OS_LIVE_MIGRATE=1",
		"OS_IMAGE_ID="+c.imageID, "OS_IMAGE_NAME=cirros", "OS_NETWORK_ID="+c.networkID, "OS_NETWORK_NAME=private", "OS_SUBNET_ID="+c.subnetID, "OS_EXTGW_ID="+external,
		"OS_POOL_NAME=public", "OS_FLAVOR_ID="+c.flavor("m1.acctest", 512, 10, 10), "OS_FLAVOR_ID_RESIZE="+c.flavor("m1.resize", 512, 11, 10))
	// One test downloads an image. Requests to the cloud itself, on the loopback interface, do not go through a proxy.
	internet := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("an image")) }))
	t.Cleanup(internet.Close)
	env = append(env, "HTTP_PROXY="+internet.URL, "http_proxy="+internet.URL, "NO_PROXY=", "no_proxy=")
	known, unrun := exceptions(t)
	skip := "^(" + strings.Join(unrun, "|") + ")$"
	for _, s := range suites {
		t.Run(s, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 25*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, file(s), "-test.v", "-test.timeout", "24m", "-test.skip", skip)
			cmd.Env, cmd.Dir = env, t.TempDir()
			out, err := cmd.CombinedOutput()
			text := string(out)
			seen, passed := map[string]bool{}, 0
			for _, m := range outcome.FindAllStringSubmatchIndex(text, -1) {
				verdict, name := text[m[2]:m[3]], text[m[4]:m[5]]
				seen[name] = true
				reason, listed := known[name]
				switch {
				case verdict == "PASS" && listed:
					t.Errorf("%s passes, so it does not belong into acceptance.txt (%s)", name, reason)
				case verdict == "PASS":
					passed++
				case !listed:
					t.Errorf("%s: %s\n%s", verdict, name, transcript(text, name))
				}
			}
			if passed == 0 {
				t.Errorf("nothing passed: %v\n%s", err, text)
			}
			if strings.Contains(text, "panic:") {
				t.Errorf("the tests ended early\n%s", text[strings.Index(text, "panic:"):])
			}
			t.Logf("%d passed, %d with a reason did not", passed, len(seen)-passed)
			for name := range seen {
				delete(known, name)
			}
		})
	}
	if len(known) > 0 && !t.Failed() {
		t.Errorf("acceptance.txt has tests that are not there: %v", slices.Sorted(maps.Keys(known)))
	}
}

// transcript is what a test wrote, from the end of it that tells the failure.
func transcript(text, name string) string {
	_, rest, _ := strings.Cut(text, "=== RUN   "+name+"\n")
	rest, _, _ = strings.Cut(rest, "\n=== RUN ")
	return rest[max(0, len(rest)-2000):]
}

// exceptions reads acceptance.txt: the tests that do not pass ('TEST # REASON') and those that are not run ('TEST ! REASON').
func exceptions(t *testing.T) (known map[string]string, unrun []string) {
	f, err := os.Open("acceptance.txt")
	ok(t, "exceptions", err)
	defer func() { _ = f.Close() }()
	known = map[string]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		name, reason, found := strings.Cut(s.Text(), " # ")
		left, _, leave := strings.Cut(s.Text(), " ! ")
		switch {
		case strings.HasPrefix(s.Text(), "#"):
		case leave:
			unrun = append(unrun, left)
		case !found || known[name] != "":
			t.Fatalf("acceptance.txt: %q has no reason or is there twice", s.Text())
		default:
			known[name] = reason
		}
	}
	return known, unrun
}
