package api_test

import (
	"encoding/json"
	"fmt"
	"kilonova/internal/auth"
	"kilonova/internal/clock"
	"kilonova/internal/compute/store"
	"kilonova/internal/image"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api"
	"kilonova/internal/compute/api/apitest"
	"kilonova/internal/db"
	"kilonova/internal/id"
)

// sample is one published body of requests or answers.
type sample struct {
	File, Microversion, Kind, Action string
	Routes                           []string
	minor                            int
	doc                              any
	raw                              string
}

// readSamples reads the published bodies, which stand beside the repository; without them the test is skipped.
func readSamples(t *testing.T) []sample {
	t.Helper()
	dir := filepath.Join("..", "..", "..", "..", "shared", "spec", "api_samples")
	b, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Skipf("no API samples: %v", err)
	}
	var all []sample
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	for i := range all {
		s := &all[i]
		raw, err := os.ReadFile(filepath.Join(dir, s.File))
		if err != nil {
			t.Fatal(err)
		}
		s.raw = string(raw)
		if err := json.Unmarshal(raw, &s.doc); err != nil {
			s.doc = nil
		}
		if _, err := fmt.Sscanf(s.Microversion, "2.%d", &s.minor); err != nil {
			t.Fatal(err)
		}
		if m := versionInName.FindStringSubmatch(s.File); m != nil { // the name tells more than the folder
			s.minor, _ = strconv.Atoi(m[1])
		}
	}
	return all
}

var versionInName = regexp.MustCompile(`-v2(\d\d)\.json$`)

// isAnswer tells whether a sample is of an answer; where the index does not say, by the route and the name.
func (s *sample) isAnswer() bool {
	if s.Kind != "" {
		return s.Kind == "response"
	}
	return strings.HasPrefix(s.Routes[0], "GET ") || strings.Contains(s.File, "-resp") || strings.Contains(s.File, "-res.json") || s.Action == "adminPass"
}

var uuids = regexp.MustCompile(`[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}`)

var pathVariable = regexp.MustCompile(`\{[^}]*\}`)

// keysOf finds the live routes that a sample is of. Gone: it is of routes that answer 410.
func (s *sample) keysOf() (keys []string, gone bool) {
	action := s.Action
	if action == "adminPass" {
		action = "rescue"
	}
	for _, route := range s.Routes {
		route, _, _ = strings.Cut(route, "?")
		route = strings.NewReplacer("/fake_tenant", "/{id}", "/fake/servers", "/{id}/servers", "/os-services/enable", "/os-services/{id}", "/os-services/disable-log-reason", "/os-services/{id}",
			"/os-services/disable", "/os-services/{id}", "/os-services/force-down", "/os-services/{id}", "GET /v2/", "GET /", "GET /{api_version}/", "GET /").Replace(route)
		for _, k := range api.Keys() {
			f := strings.SplitN(k, " ", 3)
			of := ""
			if len(f) == 3 {
				of = f[2]
			}
			if pathVariable.ReplaceAllString(f[0]+" "+f[1], "{}") == pathVariable.ReplaceAllString(route, "{}") && (of == action || s.isAnswer() && action == "") {
				keys = append(keys, k)
			}
		}
	}
	gone = len(keys) == 0
	if s.minor >= 53 && regexp.MustCompile(`^os-hypervisors/.*/hypervisors-(search|with|without)`).MatchString(s.File) { // the list took over what search and servers were
		keys = append(keys, "GET /os-hypervisors")
	}
	return keys, gone
}

// fitting puts the things of the cloud where a published request names those of another.
func (a asked) fitting(key string, v any, name string) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, x := range v {
			out[k] = a.fitting(key, x, k)
		}
		return out
	case []any:
		out := []any{}
		for _, x := range v {
			out = append(out, a.fitting(key, x, name))
		}
		return out
	case string:
		if to, ok := a.replacement(key, name, v); ok {
			return to
		}
	}
	return v
}

// replacement is what a text of a published request stands for here.
func (a asked) replacement(key, name, value string) (string, bool) {
	switch name {
	case "imageRef", "image_id", "rescue_image_ref":
		return a.image, true
	case "flavorRef":
		if strings.HasSuffix(key, "resize") {
			return a.newFlavor(), true
		}
		return a.flavor, true
	case "uuid", "net_id", "networkId":
		return a.private, true
	case "id":
		if strings.HasSuffix(key, "/images") {
			return a.image, true
		}
		if key == "POST /flavors" {
			return id.Hex(), true
		}
	case "host":
		switch {
		case strings.Contains(key, "add_host"):
			return a.newHost(false).Name, true
		case strings.Contains(key, "remove_host"), key == "POST /servers":
			return "c1", true
		}
		return a.newHost(false).Name, true
	case "hypervisor_hostname":
		return "c1", true
	case "key_name":
		return "k", true
	case "tenant":
		if strings.HasSuffix(key, "removeTenantAccess") {
			return apitest.Project, true
		}
	case "server_uuid":
		return a.boot().ID, true
	case "group":
		return a.group, true
	case "address":
		switch {
		case strings.HasSuffix(key, "removeFixedIp"):
			return a.last, true
		case strings.HasSuffix(key, "addFloatingIp"):
			return a.newFloating(), true
		case strings.HasSuffix(key, "removeFloatingIp"):
			return a.lastFloating, true
		}
	case "availability_zone":
		if strings.Count(value, ":") > 0 {
			return "nova:c1", true
		}
		return "nova", true
	case "pool":
		return "public", true
	case "parent_group_id":
		return a.newGroup(), true
	case "fixed_address":
		return a.last, true
	case "ip_address":
		a.counter++
		return fmt.Sprintf("10.0.200.%d", a.counter), true
	case "same_host", "different_host":
		return a.server, true
	case "name":
		switch {
		case value == "default" && !strings.HasSuffix(key, "SecurityGroup"):
			return value, true
		case strings.HasSuffix(key, "removeSecurityGroup"):
			return "default", true
		case strings.HasSuffix(key, "addSecurityGroup"):
			return a.newGroup(), true
		case !strings.Contains(key, "external-events"):
			return value + id.Hex()[:8], true
		}
	case "port_id":
		port := a.network("POST", "/ports", fmt.Sprintf(`{"port":{"network_id":%q}}`, a.private))["port"].(map[string]any)
		return port["id"].(string), true
	}
	return "", false
}

// exceptionOf is why a sample has no match here: an entry of sampleExceptions by the file, or by a folder or route that has none at all.
func exceptionOf(kind, file string, keys []string) (entry, reason string) {
	for _, k := range append([]string{file}, keys...) {
		if r := sampleExceptions[k]; strings.HasPrefix(r, kind+":") || strings.HasPrefix(r, "both:") {
			return k, r
		}
	}
	return "", ""
}

// TestSamplesOfRequests sends every published request, with the things of this cloud in the places of those that it names.
func TestSamplesOfRequests(t *testing.T) {
	t.Parallel()
	all := readSamples(t)
	c := newCloud(t)
	c.prepare(t)
	count, needed := map[string]int{}, map[string]bool{}
	for i := range all {
		s := &all[i]
		if s.isAnswer() {
			continue
		}
		keys, gone := s.keysOf()
		if gone {
			count["of routes that are gone"]++
			c.mustBeGone(t, s)
			continue
		}
		for _, key := range keys {
			if !c.inRange(t, key, s.minor) {
				continue
			}
			a := asked{c, t, s.minor, "admin"}
			r := a.send(key, s)
			entry, reason := exceptionOf("request", s.File, keys)
			switch {
			case r.Code < 300 && s.doc != nil:
				count["accepted"]++
			case reason != "":
				needed[entry] = true
				count["excepted"]++
			default:
				t.Errorf("%s for %s at 2.%d: %d %.300s", s.File, key, s.minor, r.Code, r.Body)
			}
		}
	}
	t.Logf("requests: %v", count)
	c.judgeExceptions(t, needed, "request")
}

// inRange tells whether a route is there at a version.
func (c *cloudOf) inRange(t testing.TB, key string, minor int) bool {
	if _, ok := c.facts[key]; !ok {
		c.facts[key] = api.FactsOf(t, key)
	}
	b := c.facts[key].Borders
	return b[0] <= minor && minor <= b[len(b)-1]
}

// send makes the request of a sample.
func (a asked) send(key string, s *sample) answer {
	method, path, _, ok := a.request(key)
	if !ok {
		return answer{Code: 599, Body: "nothing tells how to ask " + key}
	}
	if key == "PUT /os-services/{id}" && s.minor < 53 {
		path = "/os-services/" + regexp.MustCompile(`(disable-log|disable|enable|force-down)`).FindString(s.File)
		path = strings.Replace(path, "disable-log", "disable-log-reason", 1)
	}
	if key == "PUT /os-quota-class-sets/{id}" || s.doc == nil {
		return call(a, method, path, s.raw)
	}
	doc := a.fitting(key, s.doc, "")
	if m, ok := doc.(map[string]any); ok && len(m) == 1 {
		for k := range m { // keys that stand in the path, too
			switch key {
			case "PUT /flavors/{flavor_id}/os-extra_specs/{id}":
				path = path[:strings.LastIndex(path, "/")+1] + k
				a.compute("admin", "POST", path[:strings.LastIndex(path, "/")], fmt.Sprintf(`{"extra_specs":{%q:"1"}}`, k), 1)
			case "PUT /servers/{server_id}/metadata/{id}", "PUT /images/{image_id}/metadata/{id}":
				for name := range m["meta"].(map[string]any) {
					path = path[:strings.LastIndex(path, "/")+1] + name
				}
			}
		}
	}
	b, err := json.Marshal(doc)
	if err != nil {
		a.t.Fatal(err)
	}
	return call(a, method, path, string(b))
}

// answer is what came of a request.
type answer struct {
	Code int
	Body string
}

func call(a asked, method, path, body string) answer {
	r := apitest.Call(a.h, a.token, method, "/v2.1"+path, body, a.minor)
	return answer{r.Code, r.Body.String()}
}

// mustBeGone asks the routes of a sample: every one answers 410, RDP consoles 400.
func (c *cloudOf) mustBeGone(t *testing.T, s *sample) {
	t.Helper()
	for _, route := range s.Routes {
		method, path, _ := strings.Cut(route, " ")
		body := ""
		if method == "POST" || method == "PUT" {
			body = "{}"
			if s.Action != "" {
				body = fmt.Sprintf(`{%q:null}`, s.Action)
			}
		}
		path = pathVariable.ReplaceAllString(path, c.server)
		want := 410
		if s.Action == "os-getRDPConsole" {
			want = 400
		}
		if r := apitest.Call(c.h, "admin", method, "/v2.1"+path, body, s.minor); r.Code != want {
			t.Errorf("%s: %s is no live route and answers %d %s", s.File, route, r.Code, r.Body)
		}
	}
}

// judgeExceptions finds exceptions that nothing needs.
func (c *cloudOf) judgeExceptions(t *testing.T, needed map[string]bool, kind string) {
	t.Helper()
	for entry, why := range sampleExceptions {
		if (strings.HasPrefix(why, kind+":") || strings.HasPrefix(why, "both:")) && !needed[entry] {
			t.Errorf("the exception %s (%s) is not needed any more", entry, why)
		}
	}
}

// TestSamplesOfAnswers looks for an answer of this cloud that has the shape of each published one: the same keys, the same types, the same
// formats of times, ids, addresses and links.
func TestSamplesOfAnswers(t *testing.T) {
	t.Parallel()
	all := readSamples(t)
	c := newCloud(t)
	c.prepare(t)
	c.populate(t)
	count, needed := map[string]int{}, map[string]bool{}
	for i := range all {
		s := &all[i]
		if !s.isAnswer() {
			continue
		}
		keys, gone := s.keysOf()
		if gone {
			count["of routes that are gone"]++
			c.mustBeGone(t, s)
			continue
		}
		best, matched := "no route answers it", false
		for _, key := range keys {
			if !matched && c.inRange(t, key, s.minor) {
				matched, best = c.matches(t, key, s, all, best)
			}
		}
		entry, reason := exceptionOf("answer", s.File, keys)
		switch {
		case matched:
			count["matched"]++
		case reason != "":
			needed[entry] = true
			count["excepted"]++
		default:
			t.Errorf("%s at 2.%d (%v): %s", s.File, s.minor, keys, best)
		}
	}
	t.Logf("answers: %v", count)
	c.judgeExceptions(t, needed, "answer")
}

// matches asks a route in the ways that are known until an answer has the sample's shape; otherwise it tells the smallest difference.
func (c *cloudOf) matches(t *testing.T, key string, s *sample, all []sample, best string) (bool, string) {
	if s.doc == nil {
		return false, "the sample is not JSON"
	}
	least := 1 << 30
	shape := shapeOf(c.places(key, s.minor))
	try := func(r answer) bool {
		var doc any
		if r.Code >= 300 || json.Unmarshal([]byte(r.Body), &doc) != nil {
			if least == 1<<30 {
				best = fmt.Sprintf("%d %.200s", r.Code, r.Body)
			}
			return false
		}
		diff := shape.compare("", s.doc, doc)
		if len(diff) < least {
			least, best = len(diff), strings.Join(diff, "; ")
		}
		return len(diff) == 0
	}
	for _, token := range []string{"admin", "member"} {
		a := asked{c, t, s.minor, token}
		for _, variant := range append([]string{""}, variants[key]...) {
			method, path, body, ok := a.request(key)
			if !ok {
				return false, "nothing tells how to ask " + key
			}
			if after, ok := strings.CutPrefix(variant, "^"); ok { // the service's root
				r := apitest.Call(c.h, token, method, after, "", 0)
				if try(answer{r.Code, r.Body.String()}) {
					return true, ""
				}
				continue
			}
			if strings.HasPrefix(variant, "{") {
				body, variant = a.named(variant), ""
			}
			if strings.HasPrefix(variant, "/") {
				path, variant = a.named(variant), ""
			}
			if try(call(a, method, path+variant, body)) {
				return true, ""
			}
		}
		if strings.HasPrefix(key, "GET ") {
			continue
		}
		for i := range all { // published requests of the route that fit the version
			o := &all[i]
			if o.isAnswer() || o.doc == nil || o.minor > s.minor || folder(o.File) != folder(s.File) {
				continue
			}
			if keys, _ := o.keysOf(); slices.Contains(keys, key) && try(a.send(key, o)) {
				return true, ""
			}
		}
	}
	return false, best
}

func folder(file string) string {
	f, _, _ := strings.Cut(file, "/")
	return f
}

// variants are other ways to ask routes whose usual answer has not all shapes: a query that is added, or a whole path.
var variants = map[string][]string{
	"GET /": {"^/"}, "GET /servers": {"?limit=1", "?deleted=true"}, "GET /servers/detail": {"?limit=1&name=whole"}, "GET /flavors": {"?limit=1"}, "GET /flavors/detail": {"?limit=1"},
	"GET /os-hypervisors":                          {"?limit=1", "?with_servers=true", "?with_servers=true&limit=1", "?hypervisor_hostname_pattern=c1", "?hypervisor_hostname_pattern=c1&with_servers=true"},
	"GET /os-hypervisors/detail":                   {"?limit=1", "?with_servers=true", "?with_servers=true&limit=1"},
	"GET /os-hypervisors/{id}":                     {"?with_servers=true"},
	"GET /os-hypervisors/{id}/servers":             {"/os-hypervisors/empty/servers"},
	"GET /os-simple-tenant-usage":                  {"?detailed=1", "?limit=1", "?detailed=1&limit=1"},
	"GET /os-simple-tenant-usage/{id}":             {"?limit=1"},
	"GET /servers/{server_id}/os-instance-actions": {"?limit=1"},
	"GET /os-migrations":                           {"?limit=1"},
	"GET /os-keypairs":                             {"?limit=1"},
	"GET /flavors/{flavor_id}/os-extra_specs/{id}": {"/flavors/FLAVOR/os-extra_specs/hw:numa_nodes"},
	"GET /images/{image_id}/metadata/{id}":         {"/images/IMAGE/metadata/kernel_id"},
	"POST /os-server-external-events":              {`{"events":[{"name":"network-changed","server_uuid":"SERVER","tag":"foo","status":"completed"}]}`},
	"GET /images/{id}":                             {"/images/SNAPSHOT"},
	"GET /images":                                  {"?limit=1"}, "GET /images/detail": {"?limit=1"},
	"GET /os-aggregates/{id}": {"/os-aggregates/AGGREGATE"}, "GET /os-security-groups/{id}": {"/os-security-groups/GROUP"},
	"GET /os-console-auth-tokens/{id}": {"/os-console-auth-tokens/SPICE"},
	"GET /servers/{id}":                {"/servers/RESCUED", "/servers/BROKEN"},
}

// named puts ids into a path of variants.
func (a asked) named(path string) string {
	return strings.NewReplacer("SERVER", a.server, "BROKEN", a.broken, "FLAVOR", a.flavor, "RESCUED", a.rescued, "SPICE", a.spice, "AGGREGATE", a.aggregate, "GROUP", a.securityGroup, "SNAPSHOT", a.snapshot, "IMAGE", a.image).Replace(path)
}

// populate adds what some published answers show.
func (c *cloudOf) populate(t *testing.T) {
	t.Helper()
	a := asked{c, t, 1, "admin"}
	a.compute("admin", "POST", "/flavors/"+c.flavor+"/os-extra_specs", `{"extra_specs":{"hw:numa_nodes":"1"}}`, 1)
	c.aggregate = a.newAggregate("c1")
	a.newFloating()
	owner := &auth.Caller{UserID: "member", ProjectID: apitest.Project, Roles: []string{"member", "reader"}}
	img, err := a.images.Create(t.Context(), owner, image.Image{Name: "snapshot", Owner: apitest.Project, Visibility: "private", DiskFormat: "raw", ContainerFormat: "bare",
		Properties: map[string]string{"instance_uuid": c.server, "image_type": "snapshot"}})
	if err != nil {
		t.Fatal(err)
	}
	c.snapshot = img.ID
	c.securityGroup = a.network("GET", "/security-groups?name=default", "")["security_groups"].([]any)[0].(map[string]any)["id"].(string)
	a.network("POST", "/security-group-rules", fmt.Sprintf(`{"security_group_rule":{"security_group_id":%q,"direction":"ingress","protocol":"tcp","port_range_min":1,"port_range_max":2,"remote_ip_prefix":"192.0.2.0/24"}}`, c.securityGroup))
	a.compute("admin", "POST", "/flavors", `{"flavor":{"name":"public","ram":64,"vcpus":1,"disk":1}}`, 1)
	a.write(func(tx *db.Tx) error {
		if err := a.store.SaveHost(t.Context(), tx, &compute.Host{Name: "empty", NodeID: id.UUID(), Info: []byte(`{}`), LastSeen: clock.Now().Add(24 * time.Hour)}, "empty"); err != nil {
			return err
		}
		whole, err := a.store.Server(t.Context(), tx, c.server)
		if err != nil {
			return err
		}
		c.rescued, c.spice = id.UUID(), id.UUID()
		if err := a.store.InsertConsoleToken(t.Context(), tx, c.spice, store.ConsoleToken{ServerID: c.server, Kind: "spice-direct", Agent: "c1", Host: "192.0.2.1", Port: 5901, Expires: clock.Now().Add(time.Hour)}); err != nil {
			return err
		}
		whole.ID, whole.VMState, whole.Name = c.rescued, compute.VMRescued, "rescued"
		if err := a.store.InsertServer(t.Context(), tx, whole); err != nil {
			return err
		}
		for _, kind := range []string{"migration", "resize", "evacuation"} {
			m := &compute.Migration{ServerID: c.rescued, Type: kind, Status: "done", SourceHost: "c1", SourceNode: "c1", DestHost: "c2", DestNode: "c2", DestIP: "192.0.2.7", ProjectID: apitest.Project, UserID: id.UUID(),
				OldFlavorID: 1, NewFlavorID: 2}
			if err := a.store.InsertMigration(t.Context(), tx, m); err != nil {
				return err
			}
		}
		return a.store.UpdateServer(t.Context(), tx, c.server, func(s *compute.Server) error {
			s.SetClaim(&compute.Claim{Cells: []compute.ClaimedCell{{Node: 1, CPUs: []int{0, 1}, MemoryMB: 1024, PageKB: 4, Pins: map[int]int{0: 3, 1: 4}, Siblings: [][]int{{0, 1}}}}})
			return nil
		})
	})
}
