package servers_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/apitest"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/id"
	"kilonova/internal/image"
)

// create is a body of POST /servers: extra are further members of "server", hints those beside it.
func create(extra ...string) string {
	b := `{"name":"vm 1","imageRef":"` + imageID + `","flavorRef":"1"`
	for _, e := range extra {
		b += "," + e
	}
	return `{"server":` + b + `}}`
}

const onA = `"networks":[{"uuid":"` + netA + `"}]`

func (w *world) create(token, body string, minor int) *compute.Server {
	w.Helper()
	m := w.ask(token, "POST", "/servers", body, minor, 202)["server"].(map[string]any)
	return w.server(m["id"].(string))
}

func TestCreate(t *testing.T) {
	w := newWorld(t)
	w.write(func(tx *db.Tx) error {
		return errors.Join(w.store.InsertKeyPair(w.Context(), tx, &compute.KeyPair{Name: "k1", UserID: "member", Type: "ssh", PublicKey: "ssh-ed25519 AAAA"}, -1),
			w.store.InsertGroup(w.Context(), tx, &compute.ServerGroup{ID: "77777777-2222-4333-8444-555555555555", Name: "g", ProjectID: apitest.Project, UserID: "member", Policy: "affinity"}))
	})
	out := apitest.Call(w.h, "member", "POST", "/v2.1/servers", create(onA), 37)
	if out.Code != 202 {
		t.Fatal(out.Body.String())
	}
	apitest.CheckAnswer(t, "POST /servers", 37, out.Body.Bytes())
	var doc struct {
		Server struct {
			ID, AdminPass string
			Links         []struct{ Href string }
		}
	}
	if err := json.Unmarshal(out.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	s := w.server(doc.Server.ID)
	if out.Header().Get("Location") != doc.Server.Links[0].Href || len(doc.Server.AdminPass) != 12 {
		t.Fatal(out.Header(), doc)
	}
	if s.VMState != "building" || s.TaskState != "scheduling" || s.Hostname != "vm-1" || s.Flavor.FlavorID != "1" || s.ImageID != imageID || s.ProjectID != apitest.Project || s.DiskConfig != "MANUAL" ||
		s.Description != nil || s.RootDevice != "/dev/vda" || len(s.BlockDevices) != 1 || s.BlockDevices[0].SourceType != "image" || *s.BlockDevices[0].BootIndex != 0 || s.PinnedZone != nil {
		t.Fatalf("%+v", s)
	}
	op := w.last()
	if op.Kind != "create" || op.Object != s.ID || op.Action != "create" {
		t.Fatal(op)
	}
	if diff := cmp.Diff(compute.CreateInput{NICs: []compute.NICRequest{{NetworkID: netA}}, AdminPass: doc.Server.AdminPass}, op.Input); diff != "" {
		t.Fatal(diff)
	}

	full := `{"server":{"name":"all","imageRef":"` + imageID + `","flavorRef":2,"adminPass":"pw","metadata":{"a":"b"},"key_name":"k1","user_data":"YWJj","config_drive":"true","availability_zone":"nova",
		"security_groups":[{"name":"web"},{"name":"web"}],"accessIPv4":"192.0.2.1","OS-DCF:diskConfig":"AUTO","description":"d","tags":["t"],"hostname":"h1","trusted_image_certificates":["c"],
		"networks":[{"port":"` + portFree + `","tag":"t1"},{"uuid":"` + netA + `","fixed_ip":"10.0.0.50"}]},"os:scheduler_hints":{"group":"77777777-2222-4333-8444-555555555555"}}`
	s = w.create("member", full, 90)
	if s.KeyName != "k1" || s.PublicKey != "ssh-ed25519 AAAA" || s.UserData != "YWJj" || !s.ConfigDrive || *s.PinnedZone != "nova" || s.Hostname != "h1" || s.GroupID == "" || s.Metadata["a"] != "b" ||
		*s.Description != "d" || s.Tags[0] != "t" || s.TrustedCerts[0] != "c" || s.DiskConfig != "AUTO" || s.Flavor.VCPUs != 2 {
		t.Fatalf("%+v", s)
	}
	want := compute.CreateInput{NICs: []compute.NICRequest{{NetworkID: netA, PortID: portFree, Tag: "t1"}, {NetworkID: netA, FixedIP: "10.0.0.50"}}, SecurityGroups: []string{"id-of-web"}, Zone: "nova", AdminPass: "pw"}
	if diff := cmp.Diff(want, w.last().Input); diff != "" {
		t.Fatal(diff)
	}
	g, err := w.store.Group(t.Context(), w.store.DB, s.GroupID)
	if err != nil || len(g.Members) != 1 {
		t.Fatal(g, err)
	}
	shown := func(minor int) any {
		return w.ask("member", "GET", "/servers/"+s.ID, "", minor, 200)["server"].(map[string]any)["server_groups"]
	}
	if got, ok := shown(71).([]any); !ok || len(got) != 1 || got[0] != s.GroupID || shown(70) != nil {
		t.Fatal(shown(71), shown(70))
	}
	w.call("member", "DELETE", "/os-server-groups/"+s.GroupID, "", 1, 204)
	if got, ok := shown(71).([]any); !ok || len(got) != 0 {
		t.Fatal("a deleted group is shown", got)
	}
	if s := w.create("member", create(onA), 1); *s.Description != "vm 1" { // before 2.19
		t.Fatal(s.Description)
	}
}

func TestCreateNetworkDefaults(t *testing.T) {
	w := newWorld(t)
	for _, body := range []string{create(), create(`"networks":[]`)} {
		if got := w.refused("member", "POST", "/servers", body, 1, 409); got != "Multiple possible networks found, use a Network ID to be more specific." {
			t.Fatal(got)
		}
	}
	w.refused("member", "POST", "/servers", create(), 37, 400) // networks are required from 2.37
	w.refused("member", "POST", "/servers", create(`"networks":"auto"`), 37, 409)
	w.create("member", create(`"networks":"none"`), 37)
	if in := w.last().Input.(compute.CreateInput); len(in.NICs) != 0 {
		t.Fatal(in.NICs)
	}
	w.net.nets = w.net.nets[:1]
	for _, c := range []struct {
		body  string
		minor int
	}{{create(), 1}, {create(`"networks":"auto"`), 37}} {
		w.create("member", c.body, c.minor)
		if in := w.last().Input.(compute.CreateInput); len(in.NICs) != 1 || in.NICs[0].NetworkID != netA {
			t.Fatal(in.NICs)
		}
	}
	w.net.nets = nil
	w.create("member", create(), 1)
	w.refused("member", "POST", "/servers", create(`"networks":"auto"`), 37, 400)
}

// TestCreatePlace: a host that an administrator names counts, a zone in which it is not binds nobody, and a zone whose hosts are all disabled is none.
func TestCreatePlace(t *testing.T) {
	w := newWorld(t)
	w.write(func(tx *db.Tx) error {
		hosts, err := w.store.Hosts(w.Context(), tx)
		if err != nil {
			return err
		}
		for _, h := range hosts {
			if h.Name == "c2" {
				yes := true
				if err := w.store.SetServiceState(w.Context(), tx, h.ServiceID, &yes, nil, nil); err != nil {
					return err
				}
			}
		}
		east := &compute.Aggregate{Name: "east", Metadata: map[string]string{"availability_zone": "east"}}
		if err := w.store.InsertAggregate(w.Context(), tx, east); err != nil {
			return err
		}
		return w.store.AddAggregateHost(w.Context(), tx, east.ID, "c2")
	})
	at := func(zone string) string { return create(onA, `"availability_zone":"`+zone+`"`) }
	for zone, want := range map[string]string{"nova:c1": "nova", "east:c1": "", "nowhere:c2": "", "east:c2:c2.example": "east", "::c1.example": "", "nova": "nova"} {
		s := w.create("admin", at(zone), 1)
		got := ""
		if s.PinnedZone != nil {
			got = *s.PinnedZone
		}
		if got != want {
			t.Errorf("%s: pinned to %q, want %q", zone, got, want)
		}
	}
	for _, c := range []struct {
		token, zone string
		code        int
	}{{"member", "east", 400}, {"member", "nova:c1:c1:x", 400}, {"member", "nova:c1", 403}, {"member", "::", 202}, {"admin", "nova:nobody", 400}} {
		w.call(c.token, "POST", "/servers", at(c.zone), 1, c.code)
	}
}

// TestCreateReferences: a flavor may be named by its address, and security groups without a name are passed over.
func TestCreateReferences(t *testing.T) {
	w := newWorld(t)
	body := `{"server":{"name":"x","imageRef":"` + imageID + `","flavorRef":"http://elsewhere/v2.1/flavors/2?x=/",` + onA + `,"security_groups":[{}]}}`
	if s := w.create("member", body, 1); s.Flavor.FlavorID != "2" || !slices.Equal(s.SecurityGroups, []string{"default"}) {
		t.Fatal(s.Flavor.FlavorID, s.SecurityGroups)
	}
	if got := w.refused("member", "POST", "/servers", strings.Replace(body, "flavors/2", "flavors/17", 1), 1, 400); got != "Flavor 17 could not be found." {
		t.Fatal(got)
	}
}

func TestCreateSeveral(t *testing.T) {
	w := newWorld(t, func(o *backend.Options) { o.Quota = store.Limits{"instances": 5} })
	w.create("member", create(onA, `"min_count":"2","max_count":3`), 37)
	all := w.ask("member", "GET", "/servers?sort_key=display_name&sort_dir=asc", "", 37, 200)
	if got := list(all, "servers", "name"); got != "vm 1-1 vm 1-2 vm 1-3" {
		t.Fatal(got)
	}
	w.create("member", create(onA, `"min_count":1,"max_count":9`), 37) // lowered to the 2 that fit
	if got := len(w.ask("member", "GET", "/servers", "", 37, 200)["servers"].([]any)); got != 5 {
		t.Fatal(got)
	}
	if got := w.refused("member", "POST", "/servers", create(onA), 37, 403); got != "Quota exceeded for instances: Requested 1, but already used 5 of 5 instances" {
		t.Fatal(got)
	}
	other := newWorld(t)
	if got := other.ask("member", "POST", "/servers", create(onA, `"return_reservation_id":true,"min_count":2`), 37, 202)["reservation_id"].(string); !strings.HasPrefix(got, "r-") {
		t.Fatal(got)
	} else if found := other.ask("member", "GET", "/servers?reservation_id="+got, "", 37, 200)["servers"].([]any); len(found) != 2 {
		t.Fatal(found)
	}
	for body, want := range map[string]string{create(onA, `"min_count":3,"max_count":2`): "min_count must be <= max_count",
		create(`"networks":[{"port":"`+portFree+`"}]`, `"min_count":2`):                   "Unable to launch multiple instances with a single configured port ID",
		create(`"networks":[{"uuid":"`+netA+`","fixed_ip":"10.0.0.7"}]`, `"max_count":2`): "max_count cannot be greater than 1"} {
		if got := w.refused("member", "POST", "/servers", body, 37, 400); !strings.Contains(got, want) {
			t.Error(got)
		}
	}
}

// TestCreateRefusals: each bad request with its status and what the sentence must have.
func TestCreateRefusals(t *testing.T) {
	w := newWorld(t, func(o *backend.Options) {
		o.Quota = store.Limits{"metadata_items": 1, "server_group_members": 0, "injected_files": 1}
	})
	group := id.UUID()
	w.write(func(tx *db.Tx) error {
		return w.store.InsertGroup(w.Context(), tx, &compute.ServerGroup{ID: group, Name: "g", ProjectID: apitest.Project, UserID: "member", Policy: "affinity"})
	})
	none := `"networks":"none"`
	bdm := func(s string) string { return create(none, `"block_device_mapping_v2":[`+s+`]`) }
	for name, c := range map[string]struct {
		body  string
		minor int
		token string
		code  int
		text  string
	}{
		"image unknown":      {strings.Replace(create(none), imageID, id.UUID(), 1), 37, "member", 400, "Can not find requested image"},
		"image queued":       {strings.Replace(create(none), imageID, queuedID, 1), 37, "member", 400, "Image " + queuedID + " is not active."},
		"image needs RAM":    {strings.Replace(create(none), imageID, bigID, 1), 37, "member", 400, "Flavor's memory is too small for requested image."},
		"no image":           {`{"server":{"name":"x","flavorRef":"1","networks":"none"}}`, 37, "member", 400, "Invalid imageRef provided."},
		"flavor unknown":     {strings.Replace(create(none), `"flavorRef":"1"`, `"flavorRef":"99"`, 1), 37, "member", 400, "Flavor 99 could not be found."},
		"flavor secret":      {strings.Replace(create(none), `"flavorRef":"1"`, `"flavorRef":"secret"`, 1), 37, "member", 400, "Flavor secret could not be found."},
		"flavor diskless":    {strings.Replace(create(none), `"flavorRef":"1"`, `"flavorRef":"0"`, 1), 37, "member", 403, "Only volume-backed servers are allowed for flavors with zero disk."},
		"key unknown":        {create(none, `"key_name":"nope"`), 37, "member", 400, "Invalid key_name provided."},
		"zone unknown":       {create(none, `"availability_zone":"mars"`), 37, "member", 400, "The requested availability zone is not available"},
		"forced, member":     {create(none, `"availability_zone":"nova:c1"`), 37, "member", 403, "forced_host"},
		"forced, unknown":    {create(none, `"availability_zone":"nova:c9"`), 37, "admin", 400, "Compute host c9 could not be found."},
		"host, member":       {create(none, `"host":"c1"`), 74, "member", 403, "requested_destination"},
		"host, unknown":      {create(none, `"host":"c9"`), 74, "admin", 400, "Compute host c9 could not be found."},
		"node of other host": {create(none, `"host":"c1","hypervisor_hostname":"c2.example"`), 74, "admin", 400, "could not be found"},
		"host twice":         {create(none, `"host":"c1","availability_zone":"nova:c1"`), 74, "admin", 400, "not allowed"},
		"net unknown":        {create(`"networks":[{"uuid":"` + id.UUID() + `"}]`), 37, "member", 400, "could not be found."},
		"net not a uuid":     {create(`"networks":[{"uuid":"x"}]`), 1, "member", 400, "Bad networks format: network uuid is not in proper format (x)"},
		"net without uuid":   {create(`"networks":[{}]`), 1, "member", 400, "Bad network format: missing 'uuid'"},
		"net without subnet": {create(`"networks":[{"uuid":"` + netBare + `"}]`), 37, "member", 400, "requires a subnet in order to boot instances on."},
		"net external":       {create(`"networks":[{"uuid":"` + netOut + `"}]`), 37, "member", 403, "It is not allowed to create an interface on external network " + netOut},
		"port unknown":       {create(`"networks":[{"port":"` + id.UUID() + `"}]`), 37, "member", 400, "could not be found."},
		"port in use":        {create(`"networks":[{"port":"` + portUsed + `"}]`), 37, "member", 409, "Port " + portUsed + " is still in use."},
		"port twice":         {create(`"networks":[{"port":"` + portFree + `"},{"port":"` + portFree + `"}]`), 37, "member", 400, "was specified twice: you cannot attach a port multiple times."},
		"port and address":   {create(`"networks":[{"port":"` + portFree + `","fixed_ip":"10.0.0.3"}]`), 37, "member", 400, "cannot be used with port"},
		"address in use":     {create(`"networks":[{"uuid":"` + netA + `","fixed_ip":"10.0.0.9"}]`), 37, "member", 400, "Fixed IP address 10.0.0.9 is already in use on instance other."},
		"address elsewhere":  {create(`"networks":[{"uuid":"` + netA + `","fixed_ip":"10.9.0.9"}]`), 37, "member", 400, "is not a valid ip address for network " + netA},
		"group absent":       {create(none, `"security_groups":[{"name":"absent"}]`), 37, "member", 400, "Security group absent not found."},
		"group ambiguous":    {create(none, `"security_groups":[{"name":"twice"}]`), 37, "member", 409, "Multiple security groups found"},
		"metadata quota":     {create(none, `"metadata":{"a":"","b":""}`), 37, "member", 403, "Maximum number of metadata items exceeds 1"},
		"files quota":        {create(none, `"personality":[{"path":"/a","contents":""},{"path":"/b","contents":""}]`), 37, "member", 403, "Quota exceeded, too many injected files."},
		"hint unknown":       {strings.TrimSuffix(create(none), "}") + `,"os:scheduler_hints":{"group":"` + id.UUID() + `"}}`, 37, "member", 400, "could not be found."},
		"hint full":          {strings.TrimSuffix(create(none), "}") + `,"os:scheduler_hints":{"group":"` + group + `"}}`, 37, "member", 403, "Quota exceeded, too many servers in group"},
		"user data":          {create(none, `"user_data":"not base64!"`), 37, "member", 400, ""},
		"unknown key":        {create(none, `"colour":"blue"`), 37, "member", 400, "colour"},
		"early key":          {create(none, `"tags":["a"]`), 51, "member", 400, "tags"},
		"late key":           {create(none, `"personality":[]`), 57, "member", 400, "personality"},
		"no name":            {`{"server":{"imageRef":"` + imageID + `","flavorRef":"1","networks":"none"}}`, 37, "member", 400, "name"},
		"hostnames":          {create(none, `"hostname":"h","max_count":2`), 94, "member", 400, "Unable to allocate a single hostname to multiple instances"},
		"volume":             {bdm(`{"source_type":"volume","destination_type":"volume","uuid":"` + id.UUID() + `","boot_index":0}`), 37, "member", 400, "no volume service"},
		"old volume":         {create(none, `"block_device_mapping":[{"volume_id":"`+id.UUID()+`","device_name":"vda"}]`), 37, "member", 400, "no volume service"},
		"both forms":         {create(none, `"block_device_mapping":[{"volume_id":"`+id.UUID()+`","device_name":"vda"}],"block_device_mapping_v2":[{"source_type":"blank","destination_type":"local"}]`), 37, "member", 400, "Using different block_device_mapping syntaxes is not allowed in the same request."},
		"volume, local":      {bdm(`{"source_type":"volume","destination_type":"local","uuid":"` + id.UUID() + `"}`), 37, "member", 400, "Mapping volume to local is not supported."},
		"no uuid":            {bdm(`{"source_type":"image","destination_type":"local","boot_index":0}`), 37, "member", 400, "Missing device UUID."},
		"boot order":         {bdm(`{"source_type":"blank","destination_type":"local","boot_index":1}`), 37, "member", 400, "Boot sequence"},
		"boot twice":         {bdm(`{"source_type":"image","destination_type":"local","boot_index":0,"uuid":"` + imageID + `"},{"source_type":"blank","destination_type":"local","boot_index":0}`), 37, "member", 400, "Boot sequence"},
		"image and blank":    {bdm(`{"source_type":"blank","destination_type":"volume"}`), 37, "member", 400, "volume_size"},
		"swap too large":     {bdm(`{"source_type":"blank","destination_type":"local","guest_format":"swap","volume_size":1}`), 37, "member", 400, "Swap drive requested is larger than instance type allows."},
		"ephemeral":          {bdm(`{"source_type":"blank","destination_type":"local","volume_size":1}`), 37, "member", 400, "Ephemeral disks requested are larger"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := w.refused(c.token, "POST", "/servers", c.body, c.minor, c.code); !strings.Contains(got, c.text) {
				t.Fatal(got)
			}
		})
	}
	if n := w.accepted(); n != 0 {
		t.Fatal(n, "were accepted")
	}
	if u, err := w.store.Usage(t.Context(), w.store.DB, apitest.Project, ""); err != nil || u.Instances != 0 {
		t.Fatal(u, err)
	}
}

func TestCreatePlaces(t *testing.T) {
	w := newWorld(t)
	none := `"networks":"none"`
	for extra, want := range map[string]compute.CreateInput{
		`"availability_zone":"nova:c1"`:            {Zone: "nova", ForceHost: "c1"},
		`"availability_zone":"nova:c1:c1.example"`: {Zone: "nova", ForceHost: "c1", ForceNode: "c1.example"},
		`"availability_zone":"nova::c1.example"`:   {Zone: "nova", ForceNode: "c1.example"},
		`"host":"c2"`:                              {Host: "c2"},
		`"hypervisor_hostname":"c2.example"`:       {Node: "c2.example"},
	} {
		w.create("admin", create(none, extra, `"adminPass":"p"`), 74)
		want.AdminPass = "p"
		if diff := cmp.Diff(want, w.last().Input); diff != "" {
			t.Errorf("%s: %s", extra, diff)
		}
	}
	w.net.left = 1
	w.refused("member", "POST", "/servers", create(onA, `"min_count":2`), 37, 403)
	s := w.create("member", create(onA, `"max_count":3`), 37)
	if s.Name != "vm 1" { // lowered to the one port that is left
		t.Fatal(s.Name)
	}
}

func TestHostnames(t *testing.T) {
	w := newWorld(t, func(o *backend.Options) { o.Quota = store.Limits{"instances": -1, "cores": -1, "ram": -1} })
	for name, want := range map[string]string{"My_Server 1": "my-server-1", "a.b-c": "a-b-c", "-x-": "x", strings.Repeat("n", 80): strings.Repeat("n", 63)} {
		body := fmt.Sprintf(`{"server":{"name":%q,"imageRef":%q,"flavorRef":"1","networks":"none"}}`, name, imageID)
		if s := w.create("member", body, 37); s.Hostname != want {
			t.Errorf("%s: %s", name, s.Hostname)
		}
	}
	s := w.create("member", `{"server":{"name":"é","imageRef":"`+imageID+`","flavorRef":"1","networks":"none"}}`, 37)
	if s.Hostname != "server-"+s.ID {
		t.Error(s.Hostname)
	}
}

// TestLegacyNames: below /v2 blanks around names do not count, where /v2.1 refuses them.
func TestLegacyNames(t *testing.T) {
	w := newWorld(t)
	body := `{"server":{"name":"  old client ","imageRef":"` + imageID + `","flavorRef":"1","networks":[{"uuid":"` + netA + `"}],"availability_zone":" nova ",
		"security_groups":[{"name":" web "}],"user_data":null,"metadata":{"name":" kept "},"colour":1}}`
	w.refused("member", "POST", "/servers", body, 1, 400)
	out := apitest.Call(w.h, "member", "POST", "/v2/servers", body, 0)
	if out.Code != 202 {
		t.Fatal(out.Body.String())
	}
	var doc struct{ Server struct{ ID string } }
	if err := json.Unmarshal(out.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	s := w.server(doc.Server.ID)
	if s.Name != "old client" || *s.PinnedZone != "nova" || !slices.Equal(s.SecurityGroups, []string{"web"}) || s.UserData != "" || s.Metadata["name"] != " kept " {
		t.Fatalf("%+v", s)
	}
	boot := "/v2/servers/" + w.boot().ID
	for _, c := range [][3]string{{"PUT", boot, `{"server":{"name":" renamed "}}`}, {"POST", boot + "/action", `{"createImage":{"name":" copy "}}`}, {"POST", "/v2/os-keypairs", `{"keypair":{"name":" key "}}`}} {
		if out := apitest.Call(w.h, "member", c[0], c[1], c[2], 0); out.Code >= 300 {
			t.Errorf("%s %s: %s", c[0], c[1], out.Body)
		}
	}
	if out := apitest.Call(w.h, "member", "PUT", boot, `{"server":{"name":"   "}}`, 0); out.Code != 400 {
		t.Error(out.Code)
	}
	if _, err := w.store.KeyPair(w.Context(), w.store.DB, "member", "key"); err != nil {
		t.Error(err)
	}
	if got := w.server(strings.TrimPrefix(boot, "/v2/servers/")).Name; got != "renamed" {
		t.Error(got)
	}
}

// TestDiskConfig: an image says whether its servers' disks grow with the flavor, and may forbid it.
func TestDiskConfig(t *testing.T) {
	w := newWorld(t)
	img := w.images.m[imageID]
	property := func(v string) {
		img.Properties = map[string]string{"auto_disk_config": v}
		w.images.m[imageID] = img
	}
	asked := func(v string) string { return create(onA, `"OS-DCF:diskConfig":"`+v+`"`) }
	for _, c := range []struct{ property, body, want string }{{"True", create(onA), "AUTO"}, {"False", create(onA), "MANUAL"}, {"True", asked("MANUAL"), "MANUAL"}, {"nonsense", create(onA), "MANUAL"},
		{"False", asked("AUTO"), "AUTO"}, {"disabled", create(onA), "MANUAL"}, {"Disabled ", asked("MANUAL"), "MANUAL"}} {
		property(c.property)
		if s := w.create("member", c.body, 37); s.DiskConfig != c.want {
			t.Errorf("%+v: %s", c, s.DiskConfig)
		}
	}
	property("Disabled")
	s := w.boot(func(s *compute.Server) { s.ImageProps = img.Properties })
	action := "/servers/" + s.ID + "/action"
	for _, c := range [][2]string{{"/servers", asked("AUTO")}, {action, `{"rebuild":{"imageRef":"` + imageID + `","OS-DCF:diskConfig":"AUTO"}}`}, {action, `{"resize":{"flavorRef":"2","OS-DCF:diskConfig":"AUTO"}}`}} {
		if got := w.refused("member", "POST", c[0], c[1], 37, 400); got != "Requested image "+imageID+" has automatic disk resize disabled." {
			t.Error(c, got)
		}
	}
}

// TestImagesThatNobodyBoots: an image whose properties make no sense, or whose data are those of an encrypted volume, is refused at once, at create and at rebuild.
func TestImagesThatNobodyBoots(t *testing.T) {
	w := newWorld(t)
	s := w.boot()
	for name, c := range map[string]struct {
		props map[string]string
		want  string
	}{
		"architecture": {map[string]string{"hw_architecture": "pdp-11"}, `Invalid image metadata. The property hw_architecture has the value "pdp-11"`},
		"number":       {map[string]string{"hw_video_ram": "much"}, `Invalid image metadata. The property hw_video_ram has the value "much", which is no whole number.`},
		"encrypted":    {map[string]string{"cinder_encryption_key_id": "k"}, "Direct booting of an image uploaded from an encrypted volume is unsupported."},
	} {
		ref := id.UUID()
		w.images.m[ref] = image.Image{ID: ref, Status: image.Active, DiskFormat: "qcow2", ContainerFormat: "bare", Properties: c.props}
		for path, body := range map[string]string{"/servers": `{"server":{"name":"x","flavorRef":"1","networks":"none","imageRef":"` + ref + `"}}`, "/servers/" + s.ID + "/action": `{"rebuild":{"imageRef":"` + ref + `"}}`} {
			if got := w.refused("member", "POST", path, body, 37, 400); !strings.Contains(got, c.want) {
				t.Errorf("%s, %s: %s", name, path, got)
			}
		}
	}
	local := `{"server":{"name":"x","flavorRef":"1","networks":"none","imageRef":"","block_device_mapping_v2":[{"source_type":"image","destination_type":"local","boot_index":0,"uuid":"` + imageID + `"}]}}`
	if got := w.refused("member", "POST", "/servers", local, 37, 400); !strings.Contains(got, "Mapping image to local is not supported.") {
		t.Error(got)
	}
}

// TestImageDemands: an image may demand a config drive, and a kernel and a RAM disk, which must be there.
func TestImageDemands(t *testing.T) {
	w := newWorld(t)
	img := w.images.m[imageID]
	property := func(k, v string) {
		img.Properties = map[string]string{k: v}
		w.images.m[imageID] = img
	}
	for v, want := range map[string]bool{"mandatory": true, "optional": false, "": false} {
		property("img_config_drive", v)
		if s := w.create("member", create(onA), 37); s.ConfigDrive != want {
			t.Errorf("%q: %v", v, s.ConfigDrive)
		}
	}
	s := w.boot()
	rebuild := `{"rebuild":{"imageRef":"` + imageID + `"}}`
	for _, name := range []string{"kernel_id", "ramdisk_id"} {
		property(name, id.UUID())
		for path, body := range map[string]string{"/servers": create(onA), "/servers/" + s.ID + "/action": rebuild} {
			if got := w.refused("member", "POST", path, body, 1, 400); got != "Can not find requested image" {
				t.Error(name, got)
			}
		}
		property(name, bigID)
		w.create("member", create(onA), 37)
	}
	img.Properties = map[string]string{"kernel_id": "nokernel", "ramdisk_id": id.UUID()}
	w.images.m[imageID] = img
	if s := w.create("member", create(onA), 37); s.KernelID != "" || s.RamdiskID != "" {
		t.Error(s.KernelID, s.RamdiskID)
	}
	property("img_config_drive", "mandatory")
	w.call("member", "POST", "/servers/"+s.ID+"/action", rebuild, 1, 202)
	if !w.server(s.ID).ConfigDrive {
		t.Error("a rebuild with an image that demands a config drive makes none")
	}
}
