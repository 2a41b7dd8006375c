package servers

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/id"
	"kilonova/internal/operation"
)

// createBody is the body of POST /servers.
type createBody struct {
	Server createServer   `json:"server"`
	Hints  map[string]any `json:"os:scheduler_hints"`
	Hints2 map[string]any `json:"OS-SCH-HNT:scheduler_hints"`
}

type createServer struct {
	Name          string            `json:"name"`
	ImageRef      string            `json:"imageRef"`
	FlavorRef     backend.Text      `json:"flavorRef"`
	AdminPass     string            `json:"adminPass"`
	Metadata      map[string]string `json:"metadata"`
	Networks      json.RawMessage   `json:"networks"`
	DiskConfig    string            `json:"OS-DCF:diskConfig"`
	AccessIPv4    string            `json:"accessIPv4"`
	AccessIPv6    string            `json:"accessIPv6"`
	Personality   []personality     `json:"personality"`
	Zone          string            `json:"availability_zone"`
	Disks         []blockDevice     `json:"block_device_mapping_v2"`
	OldDisks      []blockDevice     `json:"block_device_mapping"`
	ConfigDrive   backend.Bool      `json:"config_drive"`
	KeyName       string            `json:"key_name"`
	MinCount      backend.Int       `json:"min_count"`
	MaxCount      backend.Int       `json:"max_count"`
	ReservationID backend.Bool      `json:"return_reservation_id"`
	Groups        []struct {
		Name string `json:"name"`
	} `json:"security_groups"`
	UserData    string                   `json:"user_data"`
	Description backend.Optional[string] `json:"description"`
	Tags        []string                 `json:"tags"`
	Certs       []string                 `json:"trusted_image_certificates"`
	Host        string                   `json:"host"`
	Node        string                   `json:"hypervisor_hostname"`
	Hostname    string                   `json:"hostname"`
}

type personality struct {
	Path     string     `json:"path"`
	Contents looseBytes `json:"contents"`
}

// looseBytes are bytes in base64, which may be broken by blanks anywhere.
type looseBytes []byte

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *looseBytes) UnmarshalText(text []byte) error {
	out, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		return fault.Wrap(err, fault.Invalid, "The content of an injected file is not base64.")
	}
	*b = out
	return nil
}

// creation is a create request on its way from the body to the rows.
type creation struct {
	api
	r          *httpapi.Request
	in         createServer
	hints      map[string]any
	minor      int
	min, count int64
	server     compute.Server // what all servers of the request have in common
	input      compute.CreateInput
	group      *compute.ServerGroup
}

func (a api) create(r *httpapi.Request) (*httpapi.Reply, error) {
	var in createBody
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	c := &creation{api: a, r: r, in: in.Server, hints: in.Hints, minor: backend.Minor(r)}
	if c.hints == nil {
		c.hints = in.Hints2
	}
	for _, step := range []func(context.Context) error{c.counts, c.rights, c.basics, c.image, c.exact, c.key, c.files, c.place, c.groupHint, c.networks, c.securityGroups} {
		if err := step(r.Context()); err != nil {
			return nil, err
		}
	}
	made, err := c.write(r.Context())
	if err != nil {
		return nil, err
	}
	if c.in.ReservationID {
		return body(map[string]any{"reservation_id": c.server.ReservationID})
	}
	return c.answer(made[0])
}

func (c *creation) answer(s *compute.Server) (*httpapi.Reply, error) {
	links := backend.Links(c.r).To("servers", s.ID)
	groups := []map[string]string{}
	for _, g := range s.SecurityGroups {
		groups = append(groups, map[string]string{"name": g})
	}
	doc := map[string]any{"id": s.ID, "links": links, "OS-DCF:diskConfig": s.DiskConfig, "security_groups": groups}
	if !c.NoPassword {
		doc["adminPass"] = c.input.AdminPass
	}
	return (&httpapi.Reply{Body: map[string]any{"server": doc}}).With("Location", links[0].Href), nil
}

func (c *creation) counts(context.Context) error {
	c.min, c.count = max(int64(c.in.MinCount), 1), int64(c.in.MaxCount)
	if c.count == 0 {
		c.count = c.min
	}
	if c.min > c.count {
		return fault.New(fault.Invalid, "min_count must be <= max_count")
	}
	if c.count > 1 && c.in.Hostname != "" {
		return fault.New(fault.Invalid, "Unable to allocate a single hostname to multiple instances")
	}
	return nil
}

// rights asks the rules that depend on what the body has.
func (c *creation) rights(context.Context) error {
	if strings.Count(c.in.Zone, ":") > 2 {
		return fault.New(fault.Invalid, "Unable to parse availability_zone: it must be zone, zone:host or zone:host:node.")
	}
	_, host, node := split3(c.in.Zone)
	for _, need := range []struct {
		when bool
		rule string
	}{
		{c.wantsNetworks(), backend.Rule("servers:create:attach_network")},
		{len(c.in.Disks)+len(c.in.OldDisks) > 0, backend.Rule("servers:create:attach_volume")},
		{c.in.Certs != nil, backend.Rule("servers:create:trusted_certs")},
		{host+node != "", backend.Rule("servers:create:forced_host")},
		{c.in.Host != "" || c.in.Node != "", "compute:servers:create:requested_destination"},
	} {
		if need.when {
			if err := c.r.Authorize(need.rule, c.r.Own()); err != nil {
				return err
			}
		}
	}
	return nil
}

// wantsNetworks tells whether the body asks for interfaces.
func (c *creation) wantsNetworks() bool {
	switch text := strings.Join(strings.Fields(string(c.in.Networks)), ""); text {
	case "", "null", "[]", `"none"`:
		return false
	}
	return true
}

// basics fills what needs no look-up.
func (c *creation) basics(context.Context) error {
	now, in := clock.Now(), &c.in
	c.server = compute.Server{Name: strings.TrimSpace(in.Name), ProjectID: c.r.Caller.ProjectID, UserID: c.r.Caller.UserID, ReservationID: "r-" + id.Secret(4),
		VMState: compute.VMBuilding, PowerState: compute.PowerNone, DiskConfig: in.DiskConfig, AccessIPv4: canonical(in.AccessIPv4), AccessIPv6: canonical(in.AccessIPv6), Metadata: in.Metadata,
		Description: in.Description.Value, UserData: in.UserData, ConfigDrive: bool(in.ConfigDrive), Tags: backend.SortedSet(in.Tags), Hints: c.hints, TrustedCerts: in.Certs,
		Hostname: in.Hostname, Created: now, Updated: now, System: map[string]string{compute.SysBootRoles: strings.Join(c.r.Caller.Roles, ",")}}
	if c.minor < 19 {
		c.server.Description = &c.server.Name
	}
	if c.server.DiskConfig == "" {
		c.server.DiskConfig = "MANUAL"
	}
	if len(in.Tags) > backend.MaxTags {
		return fault.New(fault.Invalid, "The number of tags exceeded the per-server limit %d", backend.MaxTags)
	}
	c.input.AdminPass = in.AdminPass
	if c.input.AdminPass == "" {
		c.input.AdminPass = newPassword()
	}
	return c.metadataFits(in.Metadata)
}

// canonical writes an address in its shortest form (RFC 5952).
func canonical(address string) string {
	if a, err := netip.ParseAddr(address); err == nil {
		return a.String()
	}
	return address
}

// exact judges what the flavor and the image ask of a host by name.
func (c *creation) exact(context.Context) error {
	return c.Exact(&c.server.Flavor, c.server.ImageProps)
}

// key resolves the key pair.
func (c *creation) key(ctx context.Context) error {
	if c.in.KeyName == "" {
		return nil
	}
	k, err := c.Store.KeyPair(ctx, c.DB(), c.r.Caller.UserID, c.in.KeyName)
	if err != nil {
		return asInvalid(err, "Invalid key_name provided.")
	}
	c.server.KeyName, c.server.KeyType, c.server.PublicKey = k.Name, k.Type, k.PublicKey
	return nil
}

// files judges the injected files.
func (c *creation) files(ctx context.Context) error {
	files, err := c.injected(ctx, c.r, c.in.Personality)
	c.input.Files = files
	return err
}

// place judges where the server may go.
func (c *creation) place(ctx context.Context) error {
	in := &c.in
	zone, host, node := split3(in.Zone)
	if host+node != "" && in.Host+in.Node != "" {
		return fault.New(fault.Invalid, "Specifying both host or hypervisor_hostname and an availability zone with a host is not allowed.")
	}
	hosts, err := c.hostsFor(ctx, zone != "" || host+node+in.Host+in.Node != "")
	if err != nil {
		return err
	}
	for _, want := range []struct{ host, node string }{{host, node}, {in.Host, in.Node}} {
		if want.host+want.node != "" && !slices.ContainsFunc(hosts, func(h compute.Host) bool {
			return (want.host == "" || h.Name == want.host) && (want.node == "" || nodeName(&h) == want.node)
		}) {
			return fault.New(fault.Invalid, "Compute host %s could not be found.", want.host+want.node)
		}
	}
	switch in := func(h compute.Host) bool { return h.Zone == zone }; {
	case zone == "":
	case host != "": // the host counts, and a zone in which it is not binds nobody
		if !slices.ContainsFunc(hosts, func(h compute.Host) bool { return h.Name == host && in(h) }) {
			zone = ""
		}
	case !slices.ContainsFunc(hosts, func(h compute.Host) bool { return in(h) && !h.Disabled }):
		return fault.New(fault.Invalid, "The requested availability zone is not available")
	}
	if zone == "" {
		zone = c.DefaultZone
	}
	c.input.Zone, c.input.ForceHost, c.input.ForceNode, c.input.Host, c.input.Node = zone, host, node, in.Host, in.Node
	c.server.AvailabilityZone = zone
	if zone != "" {
		c.server.PinnedZone = &zone
	}
	return nil
}

// hostsFor gives all hosts when they are needed.
func (c *creation) hostsFor(ctx context.Context, needed bool) ([]compute.Host, error) {
	if !needed {
		return nil, nil
	}
	return c.Store.Hosts(ctx, c.DB())
}

func split3(zone string) (az, host, node string) {
	parts := strings.SplitN(zone, ":", 3)
	parts = append(parts, "", "")
	return parts[0], parts[1], parts[2]
}

// nodeName is the hypervisor's name on a host.
func nodeName(h *compute.Host) string {
	var info struct {
		Hostname string `json:"hostname"`
	}
	if json.Unmarshal(h.Info, &info) != nil || info.Hostname == "" {
		return h.Name
	}
	return info.Hostname
}

// groupHint resolves the hint "group".
func (c *creation) groupHint(ctx context.Context) error {
	var want string
	switch g := c.hints["group"].(type) {
	case string:
		want = g
	case []any:
		if len(g) > 0 {
			want, _ = g[0].(string)
		}
	}
	if want == "" {
		return nil
	}
	if !id.IsUUID(want) {
		return fault.New(fault.Invalid, "Server group scheduler hint must be a UUID.")
	}
	g, err := c.Store.Group(ctx, c.DB(), want)
	if err == nil && g.ProjectID != c.r.Caller.ProjectID && !c.r.Caller.IsAdmin() {
		err = fault.New(fault.NotFound, "Instance group %s could not be found.", want)
	}
	if err != nil {
		return asInvalid(err, "Instance group %s could not be found.", want)
	}
	c.group, c.server.GroupID = g, g.ID
	return nil
}

// write makes the rows and operations of as many servers as quota allows, in one transaction.
func (c *creation) write(ctx context.Context) ([]*compute.Server, error) {
	var made []*compute.Server
	err := c.DB().Write(ctx, func(tx *db.Tx) error {
		made = made[:0]
		n, err := c.Store.Reserve(ctx, tx, store.Want{Defaults: c.Quota, Project: c.server.ProjectID, User: c.server.UserID,
			Each: store.Usage{Instances: 1, Cores: int64(c.server.Flavor.VCPUs), RAM: c.server.Flavor.RAMMB}, Min: c.min, Count: c.count})
		if err != nil {
			return err
		}
		if c.group != nil {
			limits, err := c.Store.Limits(ctx, tx, c.Quota, c.server.ProjectID, c.server.UserID)
			if err != nil {
				return err
			}
			if err := c.Store.ReserveMembers(ctx, tx, c.group.ID, c.server.UserID, n, limits.Of("server_group_members")); err != nil {
				return err
			}
		}
		for i := range n {
			s := c.one(int(i), int(n))
			if err := c.Store.InsertServer(ctx, tx, s); err != nil {
				return err
			}
			if _, err := c.Operations.Accept(ctx, tx, operation.Spec{Kind: compute.OpCreate, ObjectType: "server", Object: s.ID, Action: "create", First: true,
				TaskState: compute.TaskScheduling, Project: s.ProjectID, User: s.UserID, RequestID: c.r.RequestID, Input: c.input}); err != nil {
				return err
			}
			made = append(made, s)
		}
		return nil
	})
	return made, err
}

// one is the i-th of n servers.
func (c *creation) one(i, n int) *compute.Server {
	s := c.server
	// Ids that grow with time let the indexes of all that belongs to servers grow at their ends: of a large cloud far fewer pages change with each server.
	s.ID, s.LaunchIndex = id.Ordered(), i
	if n > 1 {
		s.Name = fmt.Sprintf("%s-%d", c.server.Name, i+1)
	}
	if s.Hostname == "" {
		s.Hostname = hostnameOf(s.Name, s.ID)
	}
	s.BlockDevices = slices.Clone(c.server.BlockDevices)
	for k := range s.BlockDevices {
		s.BlockDevices[k].ID = id.UUID()
	}
	return &s
}

// hostnameOf makes a host name of a server's name: what is not allowed in one is left out, and a name with dots is one label.
func hostnameOf(name, serverID string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			b.WriteRune(r)
		case r == ' ' || r == '_' || r == '.':
			b.WriteByte('-')
		}
	}
	out := strings.Trim(b.String(), ".-")
	if len(out) > 63 {
		out = strings.TrimRight(out[:63], ".-")
	}
	if out == "" {
		return "server-" + serverID
	}
	return out
}

// newPassword makes a password of 12 letters and digits that are not easily mistaken for one another.
func newPassword() string {
	const letters = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz" // 56
	out := make([]byte, 0, 12)
	for len(out) < cap(out) {
		raw, _ := hex.DecodeString(id.Secret(16))
		for _, v := range raw {
			if v < 4*56 && len(out) < cap(out) { // each letter is as likely as any other
				out = append(out, letters[v%56])
			}
		}
	}
	return string(out)
}

// metadataFits judges the number of metadata items by the quota.
func (c *creation) metadataFits(m map[string]string) error { return c.fitsMetadata(c.r, m) }

func (a api) fitsMetadata(r *httpapi.Request, m map[string]string) error {
	if len(m) == 0 {
		return nil
	}
	limits, err := a.Store.Limits(r.Context(), a.DB(), a.Quota, r.Caller.ProjectID, r.Caller.UserID)
	if err != nil {
		return err
	}
	if n := limits.Of("metadata_items"); n >= 0 && int64(len(m)) > n {
		return fault.New(fault.Forbidden, "Maximum number of metadata items exceeds %d", n).WithCode("OverQuota")
	}
	return nil
}

// injected judges injected files by the quota and gives them by path.
func (a api) injected(ctx context.Context, r *httpapi.Request, files []personality) (map[string][]byte, error) {
	if len(files) == 0 {
		return nil, nil
	}
	limits, err := a.Store.Limits(ctx, a.DB(), a.Quota, r.Caller.ProjectID, r.Caller.UserID)
	if err != nil {
		return nil, err
	}
	over := func(resource string, n int) bool {
		l := limits.Of(resource)
		return l >= 0 && int64(n) > l
	}
	if over("injected_files", len(files)) {
		return nil, fault.New(fault.Forbidden, "Quota exceeded, too many injected files. The limit is %d.", limits.Of("injected_files"))
	}
	out := map[string][]byte{}
	for _, f := range files {
		if over("injected_file_path_bytes", len(f.Path)) {
			return nil, fault.New(fault.Forbidden, "Quota exceeded, the path of an injected file is longer than %d bytes.", limits.Of("injected_file_path_bytes"))
		}
		if over("injected_file_content_bytes", len(f.Contents)) {
			return nil, fault.New(fault.Forbidden, "Quota exceeded, an injected file is larger than %d bytes.", limits.Of("injected_file_content_bytes"))
		}
		out[f.Path] = f.Contents
	}
	return out, nil
}
