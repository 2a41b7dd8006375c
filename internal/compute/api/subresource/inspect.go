package subresource

import (
	"slices"
	"strconv"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/virt"
	"kilonova/internal/db"
	"kilonova/internal/httpapi"
)

// passwordChunks is how a password that the guest posted is kept: in pieces, as the metadata service writes them.
const passwordChunks = 4

// showPassword gives the password that the guest posted to the metadata service, encrypted with the server's key.
func (a api) showPassword(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "server_id", backend.Rule("os-server-password:show"))
	if err != nil {
		return nil, err
	}
	text := s.System["password"]
	for i := range passwordChunks {
		text += s.System["password_"+strconv.Itoa(i)]
	}
	return body(map[string]any{"password": text})
}

func (a api) clearPassword(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "server_id", backend.Rule("os-server-password:clear"))
	if err != nil {
		return nil, err
	}
	err = a.DB().Write(r.Context(), func(tx *db.Tx) error {
		return a.Store.UpdateServer(r.Context(), tx, s.ID, func(now *compute.Server) error {
			delete(now.System, "password")
			for i := range passwordChunks {
				delete(now.System, "password_"+strconv.Itoa(i))
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return empty()
}

func (a api) diagnostics(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "server_id", backend.Rule("os-server-diagnostics"))
	if err != nil {
		return nil, err
	}
	if err := a.Check(r, s, compute.DoDiagnostics); err != nil {
		return nil, err
	}
	var d virt.Diagnostics
	if err := a.Query(r.Context(), r, s, command.QueryDiagnostics, nil, &d); err != nil {
		return nil, backend.HostFault(err, s)
	}
	if backend.Minor(r) < 48 {
		if d.Legacy == nil {
			d.Legacy = map[string]any{}
		}
		return body(d.Legacy)
	}
	return body(diagnosticsView(s, &d))
}

// diagnosedDrivers are the names that the document can have. Drivers that came later go by the first; "hypervisor" tells what they are.
var diagnosedDrivers = []string{"libvirt", "ironic", "vmwareapi", "xenapi"}

func diagnosticsView(s *compute.Server, d *virt.Diagnostics) map[string]any {
	cpus, nics, disks := []map[string]any{}, []map[string]any{}, []map[string]any{}
	for _, c := range d.CPUs {
		cpus = append(cpus, map[string]any{"id": c.ID, "time": c.Time, "utilisation": c.Utilisation})
	}
	for _, n := range d.NICs {
		nics = append(nics, map[string]any{"mac_address": n.MAC, "rx_octets": n.RxOctets, "rx_errors": n.RxErrors, "rx_drop": n.RxDrop, "rx_packets": n.RxPackets, "rx_rate": n.RxRate,
			"tx_octets": n.TxOctets, "tx_errors": n.TxErrors, "tx_drop": n.TxDrop, "tx_packets": n.TxPackets, "tx_rate": n.TxRate})
	}
	for _, k := range d.Disks {
		disks = append(disks, map[string]any{"read_bytes": k.ReadBytes, "read_requests": k.ReadRequests, "write_bytes": k.WriteBytes, "write_requests": k.WriteRequests, "errors_count": k.Errors})
	}
	orNil := func(text string) any {
		if text == "" {
			return nil
		}
		return text
	}
	driver := d.Driver
	if !slices.Contains(diagnosedDrivers, driver) {
		driver = diagnosedDrivers[0]
	}
	return map[string]any{"state": d.State, "driver": driver, "hypervisor": orNil(d.Hypervisor), "hypervisor_os": orNil(d.HypervisorOS), "uptime": d.Uptime, "config_drive": s.ConfigDrive,
		"num_cpus": len(cpus), "num_nics": len(nics), "num_disks": len(disks), "cpu_details": cpus, "nic_details": nics, "disk_details": disks,
		"memory_details": map[string]any{"maximum": d.MemoryMaxMB, "used": d.MemoryUsedMB}}
}

// topology is the NUMA topology of a server: one without a topology of its own has no nodes to show. Where it lies on the host is for operators.
func (a api) topology(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "server_id", "compute:server:topology:index")
	if err != nil {
		return nil, err
	}
	nodes, page := []any{}, any(nil)
	claim := s.Claim()
	if claim == nil {
		claim = &compute.Claim{}
	}
	host := r.Allowed("compute:server:topology:host:index", backend.Target(s.ProjectID, s.UserID))
	for _, c := range claim.Cells {
		n := map[string]any{"memory_mb": c.MemoryMB, "siblings": c.Siblings, "vcpu_set": c.CPUs}
		if c.Siblings == nil {
			n["siblings"] = []any{}
		}
		if host {
			pins := map[string]int{}
			for v, at := range c.Pins {
				pins[strconv.Itoa(v)] = at
			}
			n["cpu_pinning"], n["host_node"] = pins, c.Node
		}
		if c.PageKB > 0 {
			page = c.PageKB
		}
		nodes = append(nodes, n)
	}
	return body(map[string]any{"nodes": nodes, "pagesize_kb": page})
}
