package cloud

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/store"
	"kilonova/internal/compute/virt"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/id"
)

// node is a host as a hypervisor: its description and what its servers use.
type node struct {
	*compute.Host
	info    virt.HostInfo
	load    store.HostLoad
	servers []store.ServerRef
}

// name is hypervisor_hostname.
func (n *node) name() string {
	if n.info.Hostname != "" {
		return n.info.Hostname
	}
	return n.Name
}

// id is the node's id: a number until 2.52.
func (n *node) id(minor int) any {
	if minor >= 53 {
		return n.NodeID
	}
	return n.NodeNumber
}

func (n *node) serviceID(minor int) any {
	if minor >= 53 {
		return n.ServiceID
	}
	return n.ServiceNumber
}

// nodes gives all hosts that have a node, by the order of their numbers.
func (a api) nodes(ctx context.Context, loads bool) ([]node, error) {
	hosts, err := a.Store.Hosts(ctx, a.DB())
	if err != nil {
		return nil, err
	}
	var all map[string]store.HostLoad
	if loads {
		if all, err = a.Store.HostLoads(ctx, a.DB()); err != nil {
			return nil, err
		}
	}
	out := make([]node, 0, len(hosts))
	for i := range hosts {
		h := &hosts[i]
		if h.NodeID == "" {
			continue
		}
		n := node{Host: h, load: all[h.Name]}
		if len(h.Info) > 0 {
			if err := json.Unmarshal(h.Info, &n.info); err != nil {
				return nil, err
			}
		}
		out = append(out, n)
	}
	return out, nil
}

// withServers fills the servers of the nodes by one query.
func (a api) withServers(ctx context.Context, nodes []node) error {
	if len(nodes) == 0 {
		return nil
	}
	names := make([]string, len(nodes))
	for i := range nodes {
		names[i] = nodes[i].Name
	}
	refs, err := a.Store.ServerRefs(ctx, a.DB(), names...)
	if err != nil {
		return err
	}
	byHost := map[string][]store.ServerRef{}
	for _, ref := range refs {
		byHost[ref.Host] = append(byHost[ref.Host], ref)
	}
	for i := range nodes {
		nodes[i].servers = byHost[nodes[i].Name]
	}
	return nil
}

// shape says how much of a hypervisor is shown.
type shape struct {
	minor           int
	detail, servers bool
}

func (a api) nodeView(n *node, s shape) document {
	d := document{"id": n.id(s.minor), "hypervisor_hostname": n.name(), "state": "down", "status": "enabled"}
	if a.Up(n.Host) {
		d["state"] = "up"
	}
	if n.Disabled {
		d["status"] = "disabled"
	}
	if s.detail {
		d["host_ip"], d["hypervisor_type"], d["hypervisor_version"] = orNull(n.info.HostIP), n.info.HypervisorType, n.info.HypervisorVersion
		d["service"] = document{"host": n.Name, "id": n.serviceID(s.minor), "disabled_reason": orNull(n.DisabledReason)}
		if s.minor < 88 {
			for k, v := range nodeStatistics(n) {
				d[k] = v
			}
			d["cpu_info"] = cpuInfo(n, s.minor)
		} else {
			d["uptime"] = orNull(n.info.Uptime)
		}
	}
	if s.servers && (len(n.servers) > 0 || s.minor >= 75) {
		list := make([]document, len(n.servers))
		for i, ref := range n.servers {
			list[i] = document{"name": ref.Name, "uuid": ref.ID}
		}
		d["servers"] = list
	}
	return d
}

// nodeStatistics are the figures of a hypervisor that 2.88 took away.
func nodeStatistics(n *node) map[string]int64 {
	return map[string]int64{
		"vcpus": int64(n.info.VCPUs), "vcpus_used": n.load.VCPUs,
		"memory_mb": n.info.MemoryMB, "memory_mb_used": n.load.RAMMB, "free_ram_mb": n.info.MemoryMB - n.load.RAMMB,
		"local_gb": n.info.DiskGB, "local_gb_used": n.load.DiskGB, "free_disk_gb": n.info.DiskGB - n.load.DiskGB,
		"disk_available_least": n.info.FreeDiskGB, "running_vms": n.load.Servers, "current_workload": n.load.Busy,
	}
}

// cpuInfo is an object from 2.28, before a text that holds its JSON.
func cpuInfo(n *node, minor int) any {
	info := n.info.CPUInfo
	if info == nil {
		info = map[string]any{}
	}
	if minor >= 28 {
		return info
	}
	b, err := json.Marshal(info)
	if err != nil {
		return "{}"
	}
	return string(b)
}

func (a api) listHypervisors(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.hypervisors(r, "/os-hypervisors", false)
}

func (a api) detailHypervisors(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.hypervisors(r, "/os-hypervisors/detail", true)
}

func (a api) hypervisors(r *httpapi.Request, path string, detail bool) (*httpapi.Reply, error) {
	minor, q := backend.Minor(r), r.Query()
	s := shape{minor: minor, detail: detail}
	page := backend.Page{Limit: 1 << 30}
	var err error
	if minor >= 33 {
		if page, err = a.Page(q); err != nil {
			return nil, err
		}
	}
	pattern := ""
	if minor >= 53 {
		if s.servers, err = wantsServers(r); err != nil {
			return nil, err
		}
		if pattern = httpapi.Last(q, "hypervisor_hostname_pattern"); pattern != "" && (q.Has("limit") || q.Has("marker")) {
			return nil, fault.New(fault.Invalid, "Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not supported.")
		}
	}
	nodes, err := a.nodes(r.Context(), detail)
	if err != nil {
		return nil, err
	}
	if nodes, err = matching(nodes, pattern); err != nil {
		return nil, err
	}
	if nodes, err = pageOf(nodes, page, minor); err != nil {
		return nil, err
	}
	if s.servers {
		if err := a.withServers(r.Context(), nodes); err != nil {
			return nil, err
		}
	}
	out := make([]document, len(nodes))
	for i := range nodes {
		out[i] = a.nodeView(&nodes[i], s)
	}
	doc := document{"hypervisors": out}
	if n := len(nodes); n > 0 && minor >= 33 && pattern == "" {
		marker := nodes[n-1].NodeID
		if minor < 53 {
			marker = strconv.FormatInt(nodes[n-1].NodeNumber, 10)
		}
		links(doc, r, "hypervisors", path, page, n, marker)
	}
	return &httpapi.Reply{Body: doc}, nil
}

func wantsServers(r *httpapi.Request) (bool, error) {
	text := httpapi.Last(r.Query(), "with_servers")
	if text == "" {
		return false, nil
	}
	v, ok := backend.ParseBool(text)
	if !ok {
		return false, fault.New(fault.Invalid, "Invalid input for query parameters with_servers. Value: %s. It is not a boolean.", text)
	}
	return v, nil
}

// matching keeps the nodes whose name holds the pattern. None left is fault.NotFound.
func matching(nodes []node, pattern string) ([]node, error) {
	if pattern == "" {
		return nodes, nil
	}
	kept := slices.DeleteFunc(nodes, func(n node) bool { return !strings.Contains(n.name(), pattern) })
	if len(kept) == 0 {
		return nil, fault.New(fault.NotFound, "No hypervisor matching '%s' could be found.", pattern)
	}
	return kept, nil
}

// pageOf cuts nodes after the marker. An unknown marker is fault.Invalid.
func pageOf(nodes []node, p backend.Page, minor int) ([]node, error) {
	if p.Marker != "" {
		i := slices.IndexFunc(nodes, func(n node) bool {
			return minor >= 53 && n.NodeID == p.Marker || minor < 53 && strconv.FormatInt(n.NodeNumber, 10) == p.Marker
		})
		if i < 0 {
			return nil, fault.New(fault.Invalid, "marker [%s] not found", p.Marker)
		}
		nodes = nodes[i+1:]
	}
	return nodes[:min(p.Limit, len(nodes))], nil
}

// node finds the hypervisor that the path names.
func (a api) node(r *httpapi.Request) (*node, error) {
	name, minor := r.Path("id"), backend.Minor(r)
	if minor >= 53 && !id.IsUUID(name) {
		return nil, fault.New(fault.Invalid, "Invalid uuid %s", name)
	}
	nodes, err := a.nodes(r.Context(), true)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(nodes, func(n node) bool {
		return minor >= 53 && n.NodeID == name || minor < 53 && strconv.FormatInt(n.NodeNumber, 10) == name
	})
	if i < 0 {
		return nil, fault.New(fault.NotFound, "Hypervisor with ID '%s' could not be found.", name)
	}
	return &nodes[i], nil
}

func (a api) showHypervisor(r *httpapi.Request) (*httpapi.Reply, error) {
	n, err := a.node(r)
	if err != nil {
		return nil, err
	}
	s := shape{minor: backend.Minor(r), detail: true}
	if s.minor >= 53 {
		if s.servers, err = wantsServers(r); err != nil {
			return nil, err
		}
	}
	if s.servers {
		one := []node{*n}
		if err := a.withServers(r.Context(), one); err != nil {
			return nil, err
		}
		n = &one[0]
	}
	if s.minor >= 88 {
		n.info.Uptime, err = a.uptime(r, n)
		if err != nil && !errors.Is(err, fault.NotImplemented) && !errors.Is(err, fault.Unavailable) {
			return nil, err
		}
	}
	return reply("hypervisor", a.nodeView(n, s)), nil
}

// uptime asks the host. A host that is down is fault.Unavailable, one that cannot tell fault.NotImplemented.
func (a api) uptime(r *httpapi.Request, n *node) (string, error) {
	if !a.Up(n.Host) {
		return "", fault.New(fault.Unavailable, "Compute service of %s is unavailable at this time.", n.Name)
	}
	if a.Agents == nil {
		return n.info.Uptime, nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	var out command.UptimeResult
	err := a.Agents.Do(ctx, n.Name, command.Command{Verb: command.QueryUptime, RequestID: r.RequestID}, nil, &out)
	if err == nil && out.Uptime == "" {
		return "", fault.New(fault.NotImplemented, "Virt driver does not implement uptime function.")
	}
	return out.Uptime, err
}

func (a api) hypervisorUptime(r *httpapi.Request) (*httpapi.Reply, error) {
	n, err := a.node(r)
	if err != nil {
		return nil, err
	}
	up, err := a.uptime(r, n)
	if errors.Is(err, fault.Unavailable) && !fault.IsAway(err) {
		return nil, fault.Wrap(err, fault.Invalid, "%s", fault.PublicText(err))
	}
	if err != nil {
		return nil, err
	}
	d := a.nodeView(n, shape{minor: backend.Minor(r)})
	d["uptime"] = up
	return reply("hypervisor", d), nil
}

func (a api) hypervisorStatistics(r *httpapi.Request) (*httpapi.Reply, error) {
	nodes, err := a.nodes(r.Context(), true)
	if err != nil {
		return nil, err
	}
	sum := map[string]int64{"count": 0, "vcpus": 0, "vcpus_used": 0, "memory_mb": 0, "memory_mb_used": 0, "free_ram_mb": 0, "local_gb": 0, "local_gb_used": 0,
		"free_disk_gb": 0, "disk_available_least": 0, "running_vms": 0, "current_workload": 0}
	for i := range nodes {
		if nodes[i].Disabled {
			continue
		}
		sum["count"]++
		for k, v := range nodeStatistics(&nodes[i]) {
			sum[k] += v
		}
	}
	return reply("hypervisor_statistics", sum), nil
}

func (a api) searchHypervisors(r *httpapi.Request) (*httpapi.Reply, error) { return a.named(r, false) }

func (a api) hypervisorServers(r *httpapi.Request) (*httpapi.Reply, error) { return a.named(r, true) }

// named lists the hypervisors whose name holds the path's pattern.
func (a api) named(r *httpapi.Request, servers bool) (*httpapi.Reply, error) {
	nodes, err := a.nodes(r.Context(), false)
	if err != nil {
		return nil, err
	}
	if nodes, err = matching(nodes, r.Path("id")); err != nil {
		return nil, err
	}
	if servers {
		if err := a.withServers(r.Context(), nodes); err != nil {
			return nil, err
		}
	}
	out := make([]document, len(nodes))
	for i := range nodes {
		out[i] = a.nodeView(&nodes[i], shape{minor: backend.Minor(r), servers: servers})
	}
	return reply("hypervisors", out), nil
}
