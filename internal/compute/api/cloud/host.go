package cloud

import (
	"kilonova/internal/compute/store"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

// listHosts is the host list that ended with 2.42: every service of every host.
func (a api) listHosts(r *httpapi.Request) (*httpapi.Reply, error) {
	all, err := a.Store.Services(r.Context(), a.DB())
	if err != nil {
		return nil, err
	}
	zone, out := httpapi.Last(r.Query(), "zone"), []document{}
	for i := range all {
		if s := &all[i]; zone == "" || s.Zone == zone {
			out = append(out, document{"host_name": s.Name, "service": binaries[s.Binary], "zone": s.Zone})
		}
	}
	return reply("hosts", out), nil
}

// binaries are the short names of services.
var binaries = map[string]string{store.ComputeBinary: "compute", "nova-conductor": "conductor", "nova-scheduler": "scheduler"}

// showHost gives what a host has, what is used (used_now and used_max are the same here), and what each project uses of it.
func (a api) showHost(r *httpapi.Request) (*httpapi.Reply, error) {
	nodes, err := a.nodes(r.Context(), true)
	if err != nil {
		return nil, err
	}
	name := r.Path("id")
	for i := range nodes {
		n := &nodes[i]
		if n.Name != name {
			continue
		}
		servers, err := a.Store.ServersOnHost(r.Context(), a.DB(), name)
		if err != nil {
			return nil, err
		}
		line := func(project string, cpu, memory, disk int64) document {
			return document{"resource": document{"host": name, "project": project, "cpu": cpu, "memory_mb": memory, "disk_gb": disk}}
		}
		out := []document{line("(total)", int64(n.info.VCPUs), n.info.MemoryMB, n.info.DiskGB), line("(used_now)", n.load.VCPUs, n.load.RAMMB, n.load.DiskGB),
			line("(used_max)", n.load.VCPUs, n.load.RAMMB, n.load.DiskGB)}
		type use struct{ cpu, memory, disk int64 }
		projects, order := map[string]use{}, []string{}
		for _, s := range servers {
			u, seen := projects[s.ProjectID]
			if !seen {
				order = append(order, s.ProjectID)
			}
			projects[s.ProjectID] = use{u.cpu + int64(s.Flavor.VCPUs), u.memory + s.Flavor.RAMMB, u.disk + s.Flavor.RootGB + s.Flavor.EphemeralGB}
		}
		for _, p := range order {
			out = append(out, line(p, projects[p].cpu, projects[p].memory, projects[p].disk))
		}
		return reply("host", out), nil
	}
	return nil, fault.New(fault.NotFound, "Compute host %s could not be found.", name)
}

// updateHost enables or disables the host's compute service. No driver has a maintenance mode of the whole host.
func (a api) updateHost(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Status      string `json:"status"`
		Maintenance string `json:"maintenance_mode"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	s, err := a.Store.Host(r.Context(), a.DB(), r.Path("id"))
	if err != nil {
		return nil, err
	}
	d := document{"host": s.Name}
	switch in.Maintenance {
	case "":
	case "disable", "Disable", "DISABLE":
		d["maintenance_mode"] = "off_maintenance" // no host is ever in it
	default:
		return nil, fault.New(fault.NotImplemented, "Virt driver does not implement host maintenance mode.")
	}
	if in.Status != "" {
		off := in.Status[0] == 'd' || in.Status[0] == 'D'
		if _, err := a.setService(r.Context(), s, &off, nil, nil); err != nil {
			return nil, err
		}
		d["status"] = map[bool]string{true: "disabled", false: "enabled"}[off]
	}
	return &httpapi.Reply{Body: d}, nil
}

// powerHost refuses to reboot, shut down or start whole hosts.
func (a api) powerHost(r *httpapi.Request) (*httpapi.Reply, error) {
	if _, err := a.Store.Host(r.Context(), a.DB(), r.Path("id")); err != nil {
		return nil, err
	}
	return nil, fault.New(fault.NotImplemented, "Virt driver does not implement host power management.")
}
