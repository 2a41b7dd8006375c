package api_test

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"kilonova/internal/auth"
	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/api"
	"kilonova/internal/compute/api/apitest"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/image"
	"kilonova/internal/operation"
)

// notRefusedSo are the codes of the description that no request here brings about, each with the reason.
var notRefusedSo = map[string]string{
	"DELETE /os-floating-ips/{id} 400":                  "an id of another form is one of no address",
	"GET /os-floating-ips/{id} 400":                     "the same",
	"DELETE /os-floating-ips/{id} 409":                  "an address belongs to one floating IP",
	"DELETE /os-security-group-rules/{id} 409":          "the network service removes a rule at any time",
	"GET /os-security-groups 404":                       "a project has its default group as soon as it asks",
	"DELETE /servers/{server_id}/os-interface/{id} 400": "it is of ports of accelerators",
	"GET /servers/{server_id}/os-interface 501":         "the network service lists ports whatever the hypervisor is",
	"POST /servers/{server_id}/os-interface 500":        "an interface that the host could not attach is a 500: TestAttachingAnInterfaceAnswersWhenItIsDone",
	"GET /images/{image_id}/metadata 403":               "an image that may not be read is not there",
	"GET /images/{image_id}/metadata/{id} 403":          "the same",
	"GET / 404":                                         "the route has nothing that could be missing",
	"GET /os-console-auth-tokens/{id} 401":              "it is of RDP consoles",
	"GET /os-hosts/{id}/reboot 400":                     "no driver switches whole hosts",
	"GET /os-hosts/{id}/shutdown 400":                   "no driver switches whole hosts",
	"GET /os-hosts/{id}/startup 400":                    "no driver switches whole hosts",
	"GET /os-baremetal-nodes 404":                       "there is no bare metal service",
	"GET /os-baremetal-nodes/{id} 404":                  "there is no bare metal service",
	"POST /flavors/{flavor_id}/os-extra_specs 409":      "it is of two writers that meet; here one waits for the other",
	"PUT /flavors/{flavor_id}/os-extra_specs/{id} 409":  "the same",
	"POST /os-aggregates/{id}/action remove_host 409":   "it is of a placement service that two change at once; here the change is repeated",
	"POST /os-server-groups 409":                        "it is of clouds with hosts too old for the rule",
	"POST /servers/{id}/action resize 401":              "images are read with the caller's own token, which was good a moment before",
	"POST /servers/{id}/action os-getVNCConsole 501":    "a console that a hypervisor has not is refused with 400, as one of an unknown type",
	"POST /servers/{id}/action os-getSPICEConsole 501":  "the same",
	"POST /servers/{id}/action os-getSerialConsole 501": "the same",
	"POST /servers/{server_id}/remote-consoles 501":     "the same",

	"POST /servers/{id}/action pause 501":               "TestHypervisorLacks sees it, of a host without the ability",
	"POST /servers/{id}/action unpause 501":             "TestHypervisorLacks",
	"POST /servers/{id}/action rescue 501":              "TestHypervisorLacks",
	"POST /servers/{id}/action unrescue 501":            "TestHypervisorLacks",
	"POST /servers/{id}/action changePassword 501":      "TestHypervisorLacks",
	"POST /servers/{server_id}/os-interface 501":        "TestHypervisorLacks",
	"DELETE /servers/{server_id}/os-interface/{id} 501": "TestHypervisorLacks",

	"POST /os-volumes 404":                                       "there is no volume service",
	"DELETE /os-volumes/{id} 400":                                "there is no volume service",
	"PUT /servers/{server_id}/os-volume_attachments/{id} 409":    "there is no volume service",
	"DELETE /servers/{server_id}/os-volume_attachments/{id} 400": "there is no volume service",
	"DELETE /servers/{server_id}/shares/{id} 400":                "there is no shared file system service",
	"DELETE /servers/{server_id}/shares/{id} 409":                "there is no shared file system service",
}

// alsoRefusedSo are codes that are not in the description, each with the reason.
var alsoRefusedSo = map[string]string{
	"POST /servers/{id}/action os-resetState 409":     "an operation that is under way ends by itself; to forget it would leave its effects behind",
	"POST /servers/{id}/action addFixedIp 409":        "the server is busy; Nova has an internal error for it",
	"POST /servers/{id}/action removeFixedIp 409":     "the same",
	"POST /servers/{id}/action injectNetworkInfo 501": "Nova asks the host later and tells nobody what it said",
}

// special are requests of single routes that go wrong in a way of their own; each gives the caller and then path and body.
func special() map[string]func(a asked) []string {
	theirs := func(format, body string) func(a asked) []string { // a public image of another project
		return func(a asked) []string {
			owner := &auth.Caller{UserID: "admin", ProjectID: apitest.Other, Roles: []string{"admin", "member", "reader"}}
			img, err := a.images.Create(a.t.Context(), owner, image.Image{Name: "img", Owner: apitest.Other, Visibility: "public", DiskFormat: "raw", ContainerFormat: "bare", Properties: map[string]string{"os": "x"}})
			if err != nil {
				a.t.Fatal(err)
			}
			return []string{"member", fmt.Sprintf(format, img.ID), body}
		}
	}
	return map[string]func(a asked) []string{
		"DELETE /images/{id}":                     theirs("/images/%s", ""),
		"POST /images/{image_id}/metadata":        theirs("/images/%s/metadata", `{"metadata":{"k":"v"}}`),
		"PUT /images/{image_id}/metadata":         theirs("/images/%s/metadata", `{"metadata":{"k":"v"}}`),
		"PUT /images/{image_id}/metadata/{id}":    theirs("/images/%s/metadata/os", `{"meta":{"os":"y"}}`),
		"DELETE /images/{image_id}/metadata/{id}": theirs("/images/%s/metadata/os", ""),
		"DELETE /os-services/{id}": func(a asked) []string {
			h := a.newHost(false)
			a.boot(func(s *compute.Server) { s.Host = h.Name })
			return []string{"admin", "/os-services/" + by(a.minor, map[int]string{52: fmt.Sprint(h.ServiceNumber), 104: h.ServiceID}), ""}
		},
		"DELETE /servers/{server_id}/migrations/{id}": func(a asked) []string {
			s := a.boot()
			a.compute("admin", "POST", "/servers/"+s.ID+"/action", `{"os-migrateLive":{"host":null,"block_migration":"auto"}}`, 30)
			m := &compute.Migration{ServerID: s.ID, Type: "live-migration", Status: "queued", SourceHost: "c1", DestHost: "c2", ProjectID: s.ProjectID, UserID: "member"}
			a.write(func(tx *db.Tx) error { return a.store.InsertMigration(a.t.Context(), tx, m) })
			return []string{"admin", fmt.Sprintf("/servers/%s/migrations/%d", s.ID, m.ID), ""}
		},
		"PUT /flavors/{flavor_id}/os-extra_specs/{id}": func(asked) []string {
			return []string{"admin", "/flavors/" + id.UUID() + "/os-extra_specs/hw:mem_page_size", `{"hw:mem_page_size":"large"}`}
		},
		"GET /os-quota-sets/{id}/defaults": func(asked) []string {
			return []string{"admin", "/os-quota-sets/" + noSuchProject[1] + "/defaults", ""}
		},
		"PUT /os-hosts/{id}": func(asked) []string {
			return []string{"admin", "/os-hosts/c1", `{"maintenance_mode":"enable"}`}
		},
		"PUT /servers/{id}": func(a asked) []string {
			return []string{"member", "/servers/" + a.boot().ID, `{"server":{"pinned_availability_zone":"another"}}`}
		},
		"POST /servers": func(a asked) []string {
			_, port := a.plugged()
			return []string{"member", "/servers", fmt.Sprintf(`{"server":{"name":"n","imageRef":%q,"flavorRef":%q,"networks":[{"port":%q}]}}`, a.image, a.flavor, port)}
		},
		"POST /os-keypairs": func(a asked) []string {
			a.compute("admin", "PUT", "/os-quota-class-sets/default", `{"quota_class_set":{"key_pairs":0}}`, 1) // taken back in TestErrorCodes
			return []string{"member", "/os-keypairs", fmt.Sprintf(`{"keypair":{"name":"one too many","public_key":%q}}`, publicKey)}
		},
	}
}

// trouble is a way in which requests go wrong.
type trouble struct {
	name  string
	token string
	set   func(c *cloudOf)
	mould func(*compute.Server)                                  // what is changed of the server in the path
	spoil func(a asked, key, method, path, body string) []string // pairs of path and body; nil: as it is
}

// TestErrorCodes asks every route in all ways in which a request can go wrong: nothing is refused with a code that the description does not have of the
// route, and every code that it has is given.
func TestErrorCodes(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	c.prepare(t)
	codes := api.ErrorCodes(t)
	seen := map[string]map[int]string{}
	asks := 0
	see := func(key string, minor, code int, how, body string) {
		asks++
		if code < 300 {
			return
		}
		if seen[key] == nil {
			seen[key] = map[int]string{}
		}
		if seen[key][code] == "" {
			seen[key][code] = fmt.Sprintf("2.%d, %s: %.200s", minor, how, body)
		}
	}
	for _, key := range api.Keys() {
		borders := api.FactsOf(t, key).Borders
		for _, minor := range slices.Compact([]int{borders[0], borders[len(borders)-1]}) {
			for _, w := range troubles() {
				if w.mould != nil && minor != borders[len(borders)-1] {
					continue // states are judged alike at all versions
				}
				c.hosts.trouble = nil
				if w.set != nil {
					w.set(c)
				}
				token := w.token
				if token == "" {
					token = "admin"
				}
				a := asked{c, t, minor, token}
				method, path, body, ok := a.request(key)
				if !ok {
					continue
				}
				if server := serverIn(path); w.mould != nil {
					if server == "" || server == c.server {
						continue
					}
					a.write(func(tx *db.Tx) error {
						return c.store.UpdateServer(t.Context(), tx, server, func(s *compute.Server) error { w.mould(s); return nil })
					})
				}
				pairs := []string{path, body}
				if w.spoil != nil {
					pairs = w.spoil(a, key, method, path, body)
				}
				if f := special()[key]; w.name == "in its own way" {
					if f == nil {
						continue
					}
					own := f(a)
					token, pairs = own[0], own[1:]
				}
				for i := 0; i+1 < len(pairs); i += 2 {
					r := apitest.Call(c.h, token, method, "/v2.1"+pairs[i], pairs[i+1], minor)
					see(key, minor, r.Code, w.name, r.Body.String())
				}
				if w.name == "in its own way" {
					a.compute("admin", "PUT", "/os-quota-class-sets/default", `{"quota_class_set":{"key_pairs":-1}}`, 1)
				}
			}
		}
	}
	c.hosts.trouble = nil
	want, got := 0, 0
	unneeded := maps.Clone(notRefusedSo)
	maps.Copy(unneeded, alsoRefusedSo)
	for _, key := range api.Keys() {
		borders := api.FactsOf(t, key).Borders
		all := append(codes(key, borders[0]), codes(key, borders[len(borders)-1])...)
		slices.Sort(all)
		for _, code := range slices.Compact(all) {
			want++
			why := notRefusedSo[fmt.Sprint(key, " ", code)]
			if delete(unneeded, fmt.Sprint(key, " ", code)); seen[key][code] != "" {
				got++
			}
			if (seen[key][code] == "") != (why != "") {
				t.Errorf("%s: %d (%s), the reason for its absence is %q", key, code, seen[key][code], why)
			}
		}
		for code, how := range seen[key] {
			if alsoRefusedSo[fmt.Sprint(key, " ", code)] != "" {
				delete(unneeded, fmt.Sprint(key, " ", code))
				continue
			}
			if !slices.Contains(all, code) && code != 400 && code != 403 { // which schemas and policy give everywhere
				t.Errorf("%s: refused with %d, which is not described (%s)", key, code, how)
			}
		}
	}
	if len(unneeded) > 0 {
		t.Errorf("exceptions that nothing needs: %v", slices.Collect(maps.Keys(unneeded)))
	}
	t.Logf("%d requests, %d of %d codes", asks, got, want)
}

func troubles() []trouble {
	state := func(name string, mould func(*compute.Server)) trouble {
		return trouble{name: name, mould: mould}
	}
	all := []trouble{
		{name: "as it is"},
		{name: "in its own way"},
		{name: "without a role", token: "none"},
		{name: "as a reader", token: "reader"},
		{name: "as a member", token: "member"},
		{name: "twice", spoil: func(_ asked, _, _, path, body string) []string { return []string{path, body, path, body} }},
		{name: "nothing of these ids", spoil: missing},
		{name: "odd ids", spoil: func(_ asked, key, _, path, body string) []string {
			return []string{replaced(key, path, "no such thing!", false), body, replaced(key, path, "no such thing!", true), body, replaced(key, path, "a%2Cb:c", true), body}
		}},
		{name: "odd queries", spoil: func(a asked, key, _, path, body string) []string {
			var out []string
			before, _, _ := strings.Cut(path, "?")
			for _, name := range api.QueryNames(a.t, key, a.minor) {
				for _, v := range []string{"-1x", "", "5f3c6b5e-0d5c-4d6a-9a56-0b9b1f6f2f10", "("} {
					out = append(out, before+"?"+url.Values{name: {v}}.Encode(), body)
				}
			}
			return append(out, before+"?marker=5f3c6b5e-0d5c-4d6a-9a56-0b9b1f6f2f10", body)
		}},
		{name: "odd bodies", spoil: oddOnes},
		{name: "held by an operation", spoil: func(a asked, key, _, path, body string) []string {
			server := serverIn(path)
			if server == "" || server == a.server {
				return nil
			}
			a.write(func(tx *db.Tx) error {
				_, err := a.engine.Accept(a.t.Context(), tx, operation.Spec{Kind: compute.OpStop, ObjectType: "server", Object: server, Action: "stop", TaskState: compute.TaskPoweringOff, Project: apitest.Project, User: "member", RequestID: id.Request()})
				if errors.Is(err, fault.Conflict) { // it is held already
					return nil
				}
				return err
			})
			return []string{path, body}
		}},
		{name: "hosts that cannot", set: func(c *cloudOf) { c.hosts.trouble = fault.New(fault.NotImplemented, "The hypervisor cannot do that.") }},
		{name: "hosts whose guest refuses", set: func(c *cloudOf) { c.hosts.trouble = fault.New(fault.Conflict, "The guest does not run.") }, spoil: ofGuests},
		{name: "hosts without the guest", set: func(c *cloudOf) { c.hosts.trouble = fault.New(fault.NotFound, "There is no such guest.") }, spoil: ofGuests},
		{name: "locked by its owner", token: "member", mould: func(s *compute.Server) { s.Locked, s.LockedBy = true, "admin" }},
		{name: "another project's things", token: "member@other"},
		state("a host that is gone", func(s *compute.Server) { s.Host = "no-such-host" }),
	}
	for _, vm := range []string{compute.VMBuilding, compute.VMError, compute.VMStopped, compute.VMPaused, compute.VMRescued, compute.VMResized, compute.VMSuspended, "soft-delete", "shelved", "shelved_offloaded", "deleted"} {
		all = append(all, state("in the state "+vm, func(s *compute.Server) {
			s.VMState = vm
			if vm == compute.VMBuilding || vm == "shelved_offloaded" {
				s.Host, s.Node, s.Launched = "", "", time.Time{}
			}
			if vm == "deleted" {
				s.Deleted = clock.Now()
			}
		}))
	}
	return all
}

// ofGuests leaves requests about servers as they are and makes no others.
func ofGuests(_ asked, _, _, path, body string) []string {
	if serverIn(path) == "" {
		return nil
	}
	return []string{path, body}
}

// replaced puts other texts in the places of a path's variables: in all, or in the last only.
func replaced(key, path, with string, last bool) string {
	pattern := strings.Split(strings.Fields(key)[1], "/")
	path, query, has := strings.Cut(path, "?")
	parts := strings.Split(path, "/")
	for i := len(pattern) - 1; i >= 0 && i < len(parts); i-- {
		if strings.HasPrefix(pattern[i], "{") {
			parts[i] = url.PathEscape(with)
			if last {
				break
			}
		}
	}
	if path = strings.Join(parts, "/"); has {
		path += "?" + query
	}
	return path
}

func missing(_ asked, key, _, path, body string) []string {
	var out []string
	for _, with := range []string{id.UUID(), "987654"} {
		out = append(out, replaced(key, path, with, false), body, replaced(key, path, with, true), body)
	}
	// what a body names is not there either
	for _, known := range uuids.FindAllString(body, -1) {
		out = append(out, path, strings.ReplaceAll(body, known, id.UUID()))
	}
	return out
}

// serverIn is the id of the server in a path; "" when there is none.
func serverIn(path string) string {
	if rest, ok := strings.CutPrefix(path, "/servers/"); ok {
		server, _, _ := strings.Cut(rest, "/")
		return uuids.FindString(server)
	}
	return ""
}

func oddOnes(a asked, _, _, path, body string) []string {
	out := []string{path, "[]", path, "{}"}
	if body == "" {
		return out
	}
	doc := decode(a.t, []byte(body))
	for _, at := range places(doc, nil) {
		for _, text := range []string{`"no such thing!"`, `7`, `{}`, `null`, `["` + id.UUID() + `"]`, `"` + id.UUID() + `"`} {
			out = append(out, path, with(doc, at, text))
		}
	}
	return out
}
