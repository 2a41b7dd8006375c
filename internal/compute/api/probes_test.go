package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"kilonova/internal/auth"
	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/api/apitest"
	"kilonova/internal/db"
	"kilonova/internal/id"
	"kilonova/internal/image"
	"kilonova/internal/network"
)

// asked is one request about to be made: of which cloud, at which version, by whom.
type asked struct {
	*cloudOf
	t     testing.TB
	minor int
	token string
}

// probe says how a route is asked so that it succeeds; what its path names is made for it.
type probe struct {
	path, body func(a asked) string
}

// write runs fn in a transaction.
func (a asked) write(fn func(tx *db.Tx) error) {
	a.t.Helper()
	if err := a.store.DB.Write(a.t.Context(), fn); err != nil {
		a.t.Fatal(err)
	}
}

// boot makes a server of the caller's project on c1.
func (a asked) boot(change ...func(*compute.Server)) *compute.Server {
	a.t.Helper()
	desc := "a server"
	s := &compute.Server{ID: id.UUID(), Name: "vm", Description: &desc, Hostname: "vm", ProjectID: apitest.Project, UserID: "member", ReservationID: "r-12345678", VMState: compute.VMActive,
		PowerState: compute.PowerRunning, Host: "c1", Node: "c1", AvailabilityZone: "nova", LaunchedOn: "c1", DiskConfig: "AUTO", ImageID: a.image, RootDevice: "/dev/vda", Created: clock.Now(),
		Launched: clock.Now(), KeyName: "k", Metadata: map[string]string{"a": "b"}, Tags: []string{"t"}, Flavor: a.small}
	for _, f := range change {
		f(s)
	}
	a.write(func(tx *db.Tx) error { return a.store.InsertServer(a.t.Context(), tx, s) })
	return s
}

// plugged is boot with a port.
func (a asked) plugged() (*compute.Server, string) {
	a.t.Helper()
	server := id.UUID()
	port := a.network("POST", "/ports", fmt.Sprintf(`{"port":{"network_id":%q,"device_id":%q,"device_owner":"compute:nova"}}`, a.private, server))["port"].(map[string]any)
	address := port["fixed_ips"].([]any)[0].(map[string]any)["ip_address"].(string)
	a.last = address
	s := a.boot(func(s *compute.Server) {
		s.ID = server
		s.GroupID, s.AccessIPv4, s.AccessIPv6, s.TrustedCerts = a.group, "192.0.2.1", "2001:db8::1", []string{id.UUID(), id.UUID()}
		s.VIFs = []network.VIF{{PortID: port["id"].(string), NetworkID: a.private, NetworkName: "private", MAC: port["mac_address"].(string), SecurityGroups: []string{"default"},
			FixedIPs: []network.VIFAddr{{Address: address, Version: 4}}}}
	})
	return s, port["id"].(string)
}

// network asks the network API as the project's member.
func (a asked) network(method, path, body string) map[string]any {
	a.t.Helper()
	r := apitest.Call(a.nets, "member", method, "/v2.0"+path, body, 0)
	if r.Code >= 300 {
		a.t.Fatalf("%s %s: %d %s", method, path, r.Code, r.Body)
	}
	return decode(a.t, r.Body.Bytes())
}

// compute asks the compute API as somebody who may, and gives what the keys lead to in the answer.
func (a asked) compute(token, method, path, body string, minor int, keys ...string) string {
	a.t.Helper()
	r := apitest.Call(a.h, token, method, "/v2.1"+path, body, minor)
	if r.Code >= 300 {
		a.t.Fatalf("%s %s: %d %s", method, path, r.Code, r.Body)
	}
	if len(keys) == 0 {
		return ""
	}
	var v any = decode(a.t, r.Body.Bytes())
	for _, k := range keys {
		v = v.(map[string]any)[k]
	}
	return fmt.Sprint(v)
}

func (a asked) newFlavor() string {
	a.t.Helper()
	f := a.compute("admin", "POST", "/flavors", fmt.Sprintf(`{"flavor":{"name":%q,"ram":512,"vcpus":1,"disk":1,"os-flavor-access:is_public":false}}`, id.Hex()), 1, "flavor", "id")
	a.compute("admin", "POST", "/flavors/"+f+"/os-extra_specs", `{"extra_specs":{"hw:mem_page_size":"small"}}`, 1)
	a.compute("admin", "POST", "/flavors/"+f+"/action", `{"addTenantAccess":{"tenant":"`+apitest.Project+`"}}`, 1)
	return f
}

func (a asked) newImage() string {
	a.t.Helper()
	owner := &auth.Caller{UserID: "member", ProjectID: apitest.Project, Roles: []string{"member", "reader"}}
	img, err := a.images.Create(a.t.Context(), owner, image.Image{Name: "img", Owner: apitest.Project, Visibility: "private", DiskFormat: "raw", ContainerFormat: "bare", Properties: map[string]string{"os": "x"}})
	if err != nil {
		a.t.Fatal(err)
	}
	return img.ID
}

func (a asked) newAggregate(hosts ...string) string {
	a.t.Helper()
	g := a.compute("admin", "POST", "/os-aggregates", fmt.Sprintf(`{"aggregate":{"name":%q}}`, id.Hex()), 1, "aggregate", "id")
	for _, h := range hosts {
		a.compute("admin", "POST", "/os-aggregates/"+g+"/action", fmt.Sprintf(`{"add_host":{"host":%q}}`, h), 1)
	}
	return g
}

// newHost makes a compute service; silent: it was last heard of an hour ago.
func (a asked) newHost(silent bool) *compute.Host {
	a.t.Helper()
	h := &compute.Host{Name: "h" + id.Hex(), NodeID: id.UUID(), Info: []byte(`{}`), LastSeen: clock.Now().Add(24 * time.Hour)} // up, however long the test takes
	if silent {
		h.LastSeen = clock.Now().Add(-time.Hour)
	}
	a.write(func(tx *db.Tx) error { return a.store.SaveHost(a.t.Context(), tx, h, h.Name) })
	return h
}

func (a asked) newGroup() string {
	a.t.Helper()
	return a.network("POST", "/security-groups", fmt.Sprintf(`{"security_group":{"name":%q,"description":"d"}}`, id.Hex()))["security_group"].(map[string]any)["id"].(string)
}

func (a asked) newFloating() string {
	a.t.Helper()
	return a.compute("member", "POST", "/os-floating-ips", `{"pool":"public"}`, 1, "floating_ip", "ip")
}

// moving is a server whose live migration runs.
func (a asked) moving() string {
	a.t.Helper()
	s := a.boot()
	a.compute("admin", "POST", "/servers/"+s.ID+"/action", `{"os-migrateLive":{"host":null,"block_migration":"auto"}}`, 30)
	m := &compute.Migration{ServerID: s.ID, Type: "live-migration", Status: "running", SourceHost: "c1", DestHost: "c2", ProjectID: s.ProjectID, UserID: "member"}
	a.write(func(tx *db.Tx) error { return a.store.InsertMigration(a.t.Context(), tx, m) })
	return fmt.Sprintf("/servers/%s/migrations/%d", s.ID, m.ID)
}

func text(s string) func(asked) string { return func(asked) string { return s } }

func made(format string, get func(asked) string) func(asked) string {
	return func(a asked) string { return fmt.Sprintf(format, get(a)) }
}

// unique is a text with a name that nothing has.
func unique(format string) func(asked) string {
	return func(asked) string { return fmt.Sprintf(format, id.Hex()) }
}

// onServer is a path below a new server in a state.
func onServer(suffix, state string, change ...func(*compute.Server)) func(asked) string {
	return func(a asked) string {
		return "/servers/" + a.boot(append([]func(*compute.Server){func(s *compute.Server) { s.VMState = state }}, change...)...).ID + suffix
	}
}

// until chooses by version: the first text whose key is not below the version.
func until(choices map[int]string) func(asked) string {
	return func(a asked) string { return by(a.minor, choices) }
}

// actionProbes are those of server actions: the state that a server must have, and what stands below the action's name.
func actionProbes() map[string]probe {
	in := func(state, body string) probe { return probe{onServer("/action", state), text(body)} }
	plugged := func(a asked) string { s, _ := a.plugged(); return "/servers/" + s.ID + "/action" }
	all := map[string]probe{}
	for action, state := range map[string]string{"confirmResize": "resized", "revertResize": "resized", "os-start": "stopped", "os-stop": "active", "trigger_crash_dump": "active",
		"injectNetworkInfo": "active", "restore": "soft-delete", "forceDelete": "active", "lock": "active", "unlock": "active", "migrate": "active", "pause": "active", "unpause": "paused",
		"rescue": "active", "unrescue": "rescued", "shelve": "active", "shelveOffload": "shelved", "unshelve": "shelved_offloaded", "suspend": "active", "resume": "suspended"} {
		all[action] = in(state, fmt.Sprintf(`{%q:null}`, action))
	}
	all["reboot"] = in("active", `{"reboot":{"type":"HARD"}}`)
	all["os-resetState"] = in("error", `{"os-resetState":{"state":"active"}}`)
	all["changePassword"] = in("active", `{"changePassword":{"adminPass":"x"}}`)
	all["os-getConsoleOutput"] = in("active", `{"os-getConsoleOutput":{"length":5}}`)
	all["createImage"] = in("active", `{"createImage":{"name":"snap","metadata":{"k":"v"}}}`)
	all["createBackup"] = in("active", `{"createBackup":{"name":"b","backup_type":"daily","rotation":2}}`)
	all["os-getVNCConsole"] = in("active", `{"os-getVNCConsole":{"type":"novnc"}}`)
	all["os-getSPICEConsole"] = in("active", `{"os-getSPICEConsole":{"type":"spice-html5"}}`)
	all["os-getSerialConsole"] = in("active", `{"os-getSerialConsole":{"type":"serial"}}`)
	all["os-migrateLive"] = probe{onServer("/action", "active"), until(map[int]string{24: `{"os-migrateLive":{"host":null,"block_migration":true,"disk_over_commit":false}}`,
		104: `{"os-migrateLive":{"host":null,"block_migration":"auto"}}`})}
	all["evacuate"] = probe{func(a asked) string {
		h := a.newHost(true)
		return "/servers/" + a.boot(func(s *compute.Server) { s.Host = h.Name }).ID + "/action"
	}, until(map[int]string{13: `{"evacuate":{"onSharedStorage":"False"}}`, 104: `{"evacuate":{}}`})}
	all["rebuild"] = probe{plugged, func(a asked) string { return fmt.Sprintf(`{"rebuild":{"imageRef":%q}}`, a.image) }}
	all["resize"] = probe{onServer("/action", "active"), func(a asked) string { return fmt.Sprintf(`{"resize":{"flavorRef":%q}}`, a.newFlavor()) }}
	all["addSecurityGroup"] = probe{plugged, func(a asked) string { return fmt.Sprintf(`{"addSecurityGroup":{"name":%q}}`, a.newGroup()) }}
	all["removeSecurityGroup"] = probe{plugged, text(`{"removeSecurityGroup":{"name":"default"}}`)}
	all["addFixedIp"] = probe{plugged, func(a asked) string { return fmt.Sprintf(`{"addFixedIp":{"networkId":%q}}`, a.private) }}
	all["removeFixedIp"] = probe{plugged, func(a asked) string { return fmt.Sprintf(`{"removeFixedIp":{"address":%q}}`, a.last) }}
	all["addFloatingIp"] = probe{plugged, func(a asked) string { return fmt.Sprintf(`{"addFloatingIp":{"address":%q}}`, a.newFloating()) }}
	all["removeFloatingIp"] = probe{func(a asked) string {
		path := plugged(a)
		a.lastFloating = a.newFloating()
		a.compute("member", "POST", path, fmt.Sprintf(`{"addFloatingIp":{"address":%q}}`, a.lastFloating), 1)
		return path
	}, func(a asked) string { return fmt.Sprintf(`{"removeFloatingIp":{"address":%q}}`, a.lastFloating) }}
	return all
}

// probes are how each route is asked; a reading route that is not here has its path from cloudOf.path.
func probes() map[string]probe {
	all := map[string]probe{}
	for action, p := range actionProbes() {
		all["POST /servers/{id}/action "+action] = p
	}
	flavor := func(format string) func(asked) string { return made(format, asked.newFlavor) }
	picture := func(format string) func(asked) string { return made(format, asked.newImage) }
	aggregate := func(format string) func(asked) string {
		return made(format, func(a asked) string { return a.newAggregate() })
	}
	group := func(format string) func(asked) string { return made(format, asked.newGroup) }
	port := func(a asked) string { s, p := a.plugged(); return "/servers/" + s.ID + "/os-interface/" + p }
	floating := func(a asked) string {
		return "/os-floating-ips/" + a.compute("member", "POST", "/os-floating-ips", `{"pool":"public"}`, 1, "floating_ip", "id")
	}
	for key, p := range map[string]probe{
		"POST /flavors": {text("/flavors"), unique(`{"flavor":{"name":%q,"ram":64,"vcpus":1,"disk":1}}`)}, "PUT /flavors/{id}": {flavor("/flavors/%s"), text(`{"flavor":{"description":"d"}}`)},
		"DELETE /flavors/{id}": {flavor("/flavors/%s"), nil}, "POST /flavors/{id}/action addTenantAccess": {flavor("/flavors/%s/action"), unique(`{"addTenantAccess":{"tenant":%q}}`)},
		"POST /flavors/{id}/action removeTenantAccess":    {flavor("/flavors/%s/action"), text(`{"removeTenantAccess":{"tenant":"` + apitest.Project + `"}}`)},
		"POST /flavors/{flavor_id}/os-extra_specs":        {flavor("/flavors/%s/os-extra_specs"), text(`{"extra_specs":{"hw:mem_page_size":"any"}}`)},
		"PUT /flavors/{flavor_id}/os-extra_specs/{id}":    {flavor("/flavors/%s/os-extra_specs/hw:mem_page_size"), text(`{"hw:mem_page_size":"large"}`)},
		"DELETE /flavors/{flavor_id}/os-extra_specs/{id}": {flavor("/flavors/%s/os-extra_specs/hw:mem_page_size"), nil},
		"DELETE /images/{id}":                             {picture("/images/%s"), nil},
		"POST /images/{image_id}/metadata":                {picture("/images/%s/metadata"), text(`{"metadata":{"k":"v"}}`)},
		"PUT /images/{image_id}/metadata":                 {picture("/images/%s/metadata"), text(`{"metadata":{"k":"v"}}`)},
		"PUT /images/{image_id}/metadata/{id}":            {picture("/images/%s/metadata/os"), text(`{"meta":{"os":"y"}}`)},
		"DELETE /images/{image_id}/metadata/{id}":         {picture("/images/%s/metadata/os"), nil},
		"POST /os-aggregates":                             {text("/os-aggregates"), unique(`{"aggregate":{"name":%q}}`)},
		"PUT /os-aggregates/{id}":                         {aggregate("/os-aggregates/%s"), unique(`{"aggregate":{"name":%q}}`)},
		"DELETE /os-aggregates/{id}":                      {aggregate("/os-aggregates/%s"), nil},
		"POST /os-aggregates/{id}/action add_host":        {aggregate("/os-aggregates/%s/action"), func(a asked) string { return fmt.Sprintf(`{"add_host":{"host":%q}}`, a.newHost(false).Name) }},
		"POST /os-aggregates/{id}/action remove_host":     {made("/os-aggregates/%s/action", func(a asked) string { return a.newAggregate("c1") }), text(`{"remove_host":{"host":"c1"}}`)},
		"POST /os-aggregates/{id}/action set_metadata":    {aggregate("/os-aggregates/%s/action"), text(`{"set_metadata":{"metadata":{"a":"b"}}}`)},
		"POST /os-aggregates/{id}/images":                 {made("/os-aggregates/%s/images", func(a asked) string { return a.newAggregate("c1") }), func(a asked) string { return fmt.Sprintf(`{"cache":[{"id":%q}]}`, a.image) }},
		"POST /os-assisted-volume-snapshots": {text("/os-assisted-volume-snapshots"), func(a asked) string {
			return fmt.Sprintf(`{"snapshot":{"volume_id":%q,"create_info":{"snapshot_id":%q,"type":"qcow2","new_file":"f"}}}`, a.volume, id.UUID())
		}},
		"DELETE /os-assisted-volume-snapshots/{id}":             {made("/os-assisted-volume-snapshots/x?delete_info=%s", func(a asked) string { return `%7B%22volume_id%22:%22` + a.volume + `%22%7D` }), nil},
		"GET /os-baremetal-nodes":                               {text("/os-baremetal-nodes"), nil},
		"GET /os-baremetal-nodes/{id}":                          {text("/os-baremetal-nodes/x"), nil},
		"POST /os-baremetal-nodes":                              {text("/os-baremetal-nodes"), nil},
		"DELETE /os-baremetal-nodes/{id}":                       {text("/os-baremetal-nodes/x"), nil},
		"POST /os-baremetal-nodes/{id}/action add_interface":    {text("/os-baremetal-nodes/x/action"), text(`{"add_interface":null}`)},
		"POST /os-baremetal-nodes/{id}/action remove_interface": {text("/os-baremetal-nodes/x/action"), text(`{"remove_interface":null}`)},
		"POST /os-floating-ips":                                 {text("/os-floating-ips"), text(`{"pool":"public"}`)},
		"GET /os-floating-ips/{id}":                             {floating, nil},
		"DELETE /os-floating-ips/{id}":                          {floating, nil},
		"PUT /os-hosts/{id}":                                    {text("/os-hosts/c1"), text(`{"status":"enable"}`)},
		"GET /os-hosts/{id}/reboot":                             {text("/os-hosts/c1/reboot"), nil},
		"GET /os-hosts/{id}/shutdown":                           {text("/os-hosts/c1/shutdown"), nil},
		"GET /os-hosts/{id}/startup":                            {text("/os-hosts/c1/startup"), nil},
		"POST /os-keypairs":                                     {text("/os-keypairs"), unique(`{"keypair":{"name":%q,"public_key":"` + publicKey + `"}}`)},
		"GET /os-keypairs/{id}":                                 {keyOf, nil},
		"DELETE /os-keypairs/{id}":                              {keyOf, nil},
		"PUT /os-quota-class-sets/{id}":                         {text("/os-quota-class-sets/other"), text(`{"quota_class_set":{"cores":7}}`)},
		"PUT /os-quota-sets/{id}":                               {text("/os-quota-sets/" + apitest.Other), text(`{"quota_set":{"metadata_items":100}}`)},
		"DELETE /os-quota-sets/{id}":                            {text("/os-quota-sets/" + apitest.Other), nil},
		"GET /os-security-groups/{id}":                          {group("/os-security-groups/%s"), nil},
		"POST /os-security-groups":                              {text("/os-security-groups"), unique(`{"security_group":{"name":%q,"description":"d"}}`)},
		"PUT /os-security-groups/{id}":                          {group("/os-security-groups/%s"), unique(`{"security_group":{"name":%q,"description":"d"}}`)},
		"DELETE /os-security-groups/{id}":                       {group("/os-security-groups/%s"), nil},
		"POST /os-security-group-rules":                         {text("/os-security-group-rules"), group(`{"security_group_rule":{"parent_group_id":%q,"ip_protocol":"tcp","from_port":1,"to_port":2,"cidr":"192.0.2.0/24"}}`)},
		"DELETE /os-security-group-rules/{id}":                  {made("/os-security-group-rules/%s", ruleOf), nil},
		"POST /os-server-external-events": {text("/os-server-external-events"), func(a asked) string {
			return fmt.Sprintf(`{"events":[{"name":"network-changed","server_uuid":%q}]}`, a.server)
		}},
		"POST /os-server-groups":        {text("/os-server-groups"), until(map[int]string{63: `{"server_group":{"name":"x","policies":["affinity"]}}`, 104: `{"server_group":{"name":"x","policy":"anti-affinity","rules":{"max_server_per_host":2}}}`})},
		"DELETE /os-server-groups/{id}": {made("/os-server-groups/%s", groupOf), nil},
		"PUT /os-services/{id}": {func(a asked) string {
			return "/os-services/" + by(a.minor, map[int]string{52: "enable", 104: a.newHost(false).ServiceID})
		},
			until(map[int]string{52: `{"host":"c1","binary":"nova-compute"}`, 104: `{"status":"enabled"}`})},
		"DELETE /os-services/{id}": {func(a asked) string {
			h := a.newHost(false)
			return "/os-services/" + by(a.minor, map[int]string{52: fmt.Sprint(h.ServiceNumber), 104: h.ServiceID})
		}, nil},
		"GET /os-console-auth-tokens/{id}": {func(a asked) string { return "/os-console-auth-tokens/" + a.cloudOf.token }, nil},
		"POST /os-snapshots":               {text("/os-snapshots"), text(`{"snapshot":{"volume_id":"` + id.UUID() + `"}}`)},
		"GET /os-snapshots/{id}":           {text("/os-snapshots/" + id.UUID()), nil},
		"DELETE /os-snapshots/{id}":        {text("/os-snapshots/" + id.UUID()), nil},
		"POST /os-volumes":                 {text("/os-volumes"), text(`{"volume":{"size":1}}`)},
		"GET /os-volumes/{id}":             {text("/os-volumes/" + id.UUID()), nil},
		"DELETE /os-volumes/{id}":          {text("/os-volumes/" + id.UUID()), nil},
		"POST /servers": {text("/servers"), func(a asked) string {
			return fmt.Sprintf(`{"server":{"name":"n","imageRef":%q,"flavorRef":%q%s}}`, a.image, a.flavor, by(a.minor, map[int]string{36: "", 104: `,"networks":"none"`}))
		}},
		"PUT /servers/{id}":                                               {func(a asked) string { s, _ := a.plugged(); return "/servers/" + s.ID }, unique(`{"server":{"name":%q}}`)},
		"DELETE /servers/{id}":                                            {onServer("", "active"), nil},
		"POST /servers/{server_id}/metadata":                              {onServer("/metadata", "active"), text(`{"metadata":{"c":"d"}}`)},
		"PUT /servers/{server_id}/metadata":                               {onServer("/metadata", "active"), text(`{"metadata":{"e":"f"}}`)},
		"PUT /servers/{server_id}/metadata/{id}":                          {onServer("/metadata/e", "active"), text(`{"meta":{"e":"g"}}`)},
		"DELETE /servers/{server_id}/metadata/{id}":                       {onServer("/metadata/a", "active"), nil},
		"PUT /servers/{server_id}/tags":                                   {onServer("/tags", "active"), text(`{"tags":["a","b"]}`)},
		"DELETE /servers/{server_id}/tags":                                {onServer("/tags", "active"), nil},
		"PUT /servers/{server_id}/tags/{id}":                              {onServer("/tags/new", "active"), nil},
		"DELETE /servers/{server_id}/tags/{id}":                           {onServer("/tags/t", "active"), nil},
		"DELETE /servers/{server_id}/migrations/{id}":                     {asked.moving, nil},
		"POST /servers/{server_id}/migrations/{id}/action force_complete": {made("%s/action", asked.moving), text(`{"force_complete":null}`)},
		"POST /servers/{server_id}/os-interface":                          {onServer("/os-interface", "active"), func(a asked) string { return fmt.Sprintf(`{"interfaceAttachment":{"net_id":%q}}`, a.private) }},
		"DELETE /servers/{server_id}/os-interface/{id}":                   {port, nil},
		"DELETE /servers/{server_id}/os-server-password":                  {onServer("/os-server-password", "active"), nil},
		"POST /servers/{server_id}/remote-consoles":                       {onServer("/remote-consoles", "active"), text(`{"remote_console":{"protocol":"vnc","type":"novnc"}}`)},
		"POST /servers/{server_id}/os-volume_attachments":                 {onServer("/os-volume_attachments", "active"), text(`{"volumeAttachment":{"volumeId":"` + id.UUID() + `"}}`)},
		"PUT /servers/{server_id}/os-volume_attachments/{id}":             {func(a asked) string { return "/servers/" + a.server + "/os-volume_attachments/" + a.volume }, func(a asked) string { return fmt.Sprintf(`{"volumeAttachment":{"volumeId":%q}}`, a.volume) }},
		"DELETE /servers/{server_id}/os-volume_attachments/{id}":          {func(a asked) string { return "/servers/" + a.boot().ID + "/os-volume_attachments/" + a.volume }, nil},
		"POST /servers/{server_id}/shares":                                {onServer("/shares", "stopped"), text(`{"share":{"share_id":"` + id.UUID() + `"}}`)},
		"GET /servers/{server_id}/shares/{id}":                            {onServer("/shares/"+id.UUID(), "stopped"), nil},
		"DELETE /servers/{server_id}/shares/{id}":                         {onServer("/shares/"+id.UUID(), "stopped"), nil},
	} {
		all[key] = p
	}
	return all
}

// keyOf is a key pair of the caller.
func keyOf(a asked) string {
	name := id.Hex()
	r := apitest.Call(a.h, a.token, "POST", "/v2.1/os-keypairs", fmt.Sprintf(`{"keypair":{"name":%q,"public_key":%q}}`, name, publicKey), 1)
	if r.Code != 200 && r.Code != 401 {
		a.t.Fatal(r.Code, r.Body)
	}
	return "/os-keypairs/" + name
}

func groupOf(a asked) string {
	return a.compute("member", "POST", "/os-server-groups", `{"server_group":{"name":"x","policies":["affinity"]}}`, 1, "server_group", "id")
}

func ruleOf(a asked) string {
	r := a.network("POST", "/security-group-rules", fmt.Sprintf(`{"security_group_rule":{"security_group_id":%q,"direction":"ingress","protocol":"tcp","port_range_min":1,"port_range_max":2}}`, a.newGroup()))
	return r["security_group_rule"].(map[string]any)["id"].(string)
}

// request is what a probe asks; ok is false when nothing is known of the route.
func (a asked) request(key string) (method, path, body string, ok bool) {
	method = strings.Fields(key)[0]
	p, known := a.table[key]
	switch {
	case known:
		path = p.path(a)
	case method == "GET":
		path = a.path(key, a.minor)
	}
	if p.body != nil {
		body = p.body(a)
	}
	return method, path, body, path != ""
}
