package servers

import (
	"slices"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/api/view"
	"kilonova/internal/compute/command"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/id"
	"kilonova/internal/network"
)

func (a api) listIPs(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "server_id", backend.Rule("ips:index"))
	if err != nil {
		return nil, err
	}
	return body(map[string]any{"addresses": view.Addresses(s)})
}

func (a api) showIPs(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "server_id", backend.Rule("ips:show"))
	if err != nil {
		return nil, err
	}
	list, found := view.NetworkAddresses(s, r.Path("id"))
	if !found {
		return nil, fault.New(fault.NotFound, "Instance is not a member of specified network")
	}
	return body(map[string]any{r.Path("id"): list})
}

// attachment is the document of one interface.
func attachment(p *network.Port, vifs []network.VIF, minor int) map[string]any {
	fixed := []map[string]string{}
	for _, f := range p.FixedIPs {
		fixed = append(fixed, map[string]string{"subnet_id": f.SubnetID, "ip_address": f.Address})
	}
	m := map[string]any{"port_id": p.ID, "net_id": p.NetworkID, "mac_addr": p.MAC, "port_state": p.Status, "fixed_ips": fixed}
	if minor >= 70 {
		m["tag"] = nil
		if at := slices.IndexFunc(vifs, func(v network.VIF) bool { return v.PortID == p.ID }); at >= 0 && vifs[at].Tag != "" {
			m["tag"] = vifs[at].Tag
		}
	}
	return m
}

func (a api) listInterfaces(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "server_id", backend.Rule("os-attach-interfaces:list"))
	if err != nil {
		return nil, err
	}
	ports, err := a.Network.DevicePorts(r.Context(), backend.Internal(r), s.ID)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(ports, func(x, y network.Port) int { return order(s, x.ID) - order(s, y.ID) })
	list := []map[string]any{}
	for i := range ports {
		list = append(list, attachment(&ports[i], s.VIFs, backend.Minor(r)))
	}
	return body(map[string]any{"interfaceAttachments": list})
}

// order is the place of a port among the server's interfaces; ports that are not there yet come last.
func order(s *compute.Server, port string) int {
	if i := slices.IndexFunc(s.VIFs, func(v network.VIF) bool { return v.PortID == port }); i >= 0 {
		return i
	}
	return len(s.VIFs)
}

func (a api) showInterface(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "server_id", backend.Rule("os-attach-interfaces:show"))
	if err != nil {
		return nil, err
	}
	p, err := a.Network.GetPort(r.Context(), backend.Internal(r), r.Path("id"))
	if err != nil {
		return nil, err
	}
	if p.DeviceID != s.ID {
		return nil, fault.New(fault.NotFound, "Instance %s does not have a port with id %s", s.ID, p.ID)
	}
	return body(map[string]any{"interfaceAttachment": attachment(p, s.VIFs, backend.Minor(r))})
}

// attachBody is the body of POST os-interface.
type attachBody struct {
	Attachment struct {
		Network  string `json:"net_id"`
		Port     string `json:"port_id"`
		FixedIPs []struct {
			Address string `json:"ip_address"`
		} `json:"fixed_ips"`
		Tag string `json:"tag"`
	} `json:"interfaceAttachment"`
}

// attachInterface makes the port in the handler, because its document is the answer, and leaves the plugging to the operation, for whose end it waits:
// clients take the answer for done. When the operation is not accepted the port is removed again; a crash between leaves a port with the server as its
// device, which the server's deletion takes along.
func (a api) attachInterface(r *httpapi.Request) (*httpapi.Reply, error) {
	var in attachBody
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	s, err := a.Server(r, "server_id", backend.Rule("os-attach-interfaces:create"))
	if err != nil {
		return nil, err
	}
	if err := a.Check(r, s, compute.OpAttachNIC); err != nil {
		return nil, err
	}
	v := in.Attachment
	switch {
	case v.Network != "" && v.Port != "":
		return nil, fault.New(fault.Invalid, "Must not input both network_id and port_id")
	case len(v.FixedIPs) > 0 && v.Network == "" && v.Port == "":
		return nil, fault.New(fault.Invalid, "Must input network_id when request IP address")
	case len(v.FixedIPs) > 0 && v.Port != "":
		return nil, fault.New(fault.Invalid, "Specified Fixed IP cannot be used with a port: the two cannot be specified together.")
	}
	input := compute.NICInput{}
	input.Tag = v.Tag
	var port *network.Port
	if v.Port != "" {
		port, err = a.freePort(r.Context(), r, v.Port)
		if err == nil {
			input.PortID, input.NetworkID = port.ID, port.NetworkID
			if input.Device, err = a.Attachable(r, s, port); input.Device != nil {
				input.VNICType = port.VNICType
			}
		}
	} else {
		port, err = a.newPort(r, s, &in)
		if err == nil {
			input.NewPortID, input.NetworkID = port.ID, port.NetworkID
		}
	}
	if err != nil {
		return nil, err
	}
	if err := a.AcceptAndWait(r, s, backend.Request{Op: compute.OpAttachNIC, Action: "attach_interface", Input: input}); err != nil {
		if input.NewPortID != "" {
			if e := a.Network.DeletePort(r.Context(), backend.Internal(r), port.ID); e != nil && fault.KindOf(e) != fault.NotFound {
				a.Log.Warn("port of a refused interface is left behind", "port", port.ID, "request_id", r.RequestID, "error", e)
			}
		}
		return nil, err
	}
	if p, err := a.Network.GetPort(r.Context(), backend.Internal(r), port.ID); err == nil {
		port = p // as it is now that it is plugged
	}
	return body(map[string]any{"interfaceAttachment": attachment(port, []network.VIF{{PortID: port.ID, Tag: v.Tag}}, backend.Minor(r))})
}

// newPort makes a port for a server on the network asked for, or the only one there is.
func (a api) newPort(r *httpapi.Request, s *compute.Server, in *attachBody) (*network.Port, error) {
	ctx := r.Context()
	var net *network.Network
	if in.Attachment.Network == "" {
		nets, err := a.Network.Available(ctx, r.Caller)
		if err != nil {
			return nil, err
		}
		switch len(nets) {
		case 0:
			return nil, fault.New(fault.Invalid, "No free port available in instance's network: the project has no network.")
		case 1:
			net = &nets[0]
		default:
			return nil, fault.New(fault.Conflict, "Multiple possible networks found, use a Network ID to be more specific.")
		}
	} else {
		var err error
		if net, err = a.visibleNetwork(ctx, r, in.Attachment.Network); err != nil {
			return nil, err
		}
	}
	if len(net.Subnets) == 0 {
		return nil, fault.New(fault.Invalid, "Network %s requires a subnet in order to boot instances on.", net.ID)
	}
	req := network.PortRequest{ID: id.UUID(), NetworkID: net.ID, DeviceID: s.ID, DeviceOwner: "compute:" + s.AvailabilityZone, HostID: s.Host, DNSName: s.Hostname, ProjectID: s.ProjectID}
	for _, f := range in.Attachment.FixedIPs {
		if err := a.freeAddress(ctx, r, net, f.Address); err != nil {
			return nil, err
		}
		req.FixedIPs = append(req.FixedIPs, network.FixedIP{Address: f.Address})
	}
	return a.Network.CreatePort(ctx, r.Caller, req)
}

func (a api) detachInterface(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "server_id", backend.Rule("os-attach-interfaces:delete"))
	if err != nil {
		return nil, err
	}
	if err := a.detach(r, s, r.Path("id")); err != nil {
		return nil, err
	}
	return empty()
}

func (a api) detach(r *httpapi.Request, s *compute.Server, port string) error {
	if err := a.Check(r, s, compute.OpDetachNIC); err != nil {
		return err
	}
	at := slices.IndexFunc(s.VIFs, func(v network.VIF) bool { return v.PortID == port })
	if at < 0 {
		return fault.New(fault.NotFound, "Port %s is not attached", port)
	}
	input := compute.NICInput{NICRequest: compute.NICRequest{PortID: port, NetworkID: s.VIFs[at].NetworkID}}
	return a.Accept(r, s, backend.Request{Op: compute.OpDetachNIC, Action: "detach_interface", Input: input})
}

// addFixedIP is the older way to attach an interface.
func (a api) addFixedIP(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Add struct {
			Network backend.Text `json:"networkId"`
		} `json:"addFixedIp"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	s, err := a.Server(r, "id", backend.Rule("os-multinic:add"))
	if err != nil {
		return nil, err
	}
	if err := a.Check(r, s, compute.OpAttachNIC); err != nil {
		return nil, err
	}
	var want attachBody
	want.Attachment.Network = string(in.Add.Network)
	port, err := a.newPort(r, s, &want)
	if err != nil {
		return nil, err
	}
	// Clients that see the address take the server for free again.
	err = a.AcceptAndWait(r, s, backend.Request{Op: compute.OpAttachNIC, Action: "attach_interface",
		Input: compute.NICInput{NICRequest: compute.NICRequest{NetworkID: port.NetworkID}, NewPortID: port.ID}})
	if err != nil {
		return nil, err
	}
	return empty()
}

func (a api) removeFixedIP(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Remove struct {
			Address string `json:"address"`
		} `json:"removeFixedIp"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	s, err := a.Server(r, "id", backend.Rule("os-multinic:remove"))
	if err != nil {
		return nil, err
	}
	for _, v := range s.VIFs {
		if slices.ContainsFunc(v.FixedIPs, func(f network.VIFAddr) bool { return f.Address == in.Remove.Address }) {
			if err := a.detach(r, s, v.PortID); err != nil {
				return nil, err
			}
			return empty()
		}
	}
	return nil, fault.New(fault.Invalid, "Unable to remove fixed IP %s: it is not an address of instance %s.", in.Remove.Address, s.ID)
}

// syncNetwork asks the server's host to apply its data plane now.
func (a api) syncNetwork(r *httpapi.Request, s *compute.Server) error {
	return a.Query(r.Context(), r, s, command.SyncNetwork, nil, nil)
}
