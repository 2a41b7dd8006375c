package servers

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"

	"kilonova/internal/compute"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/id"
	"kilonova/internal/network"
)

// networkEntry is one entry of "networks".
type networkEntry struct {
	UUID    string `json:"uuid"`
	Port    string `json:"port"`
	FixedIP string `json:"fixed_ip"`
	Tag     string `json:"tag"`
}

// networks resolves the interfaces.
func (c *creation) networks(ctx context.Context) error {
	var word string
	var list []networkEntry
	if len(c.in.Networks) > 0 && json.Unmarshal(c.in.Networks, &word) != nil {
		if err := json.Unmarshal(c.in.Networks, &list); err != nil {
			return fault.Wrap(err, fault.Invalid, "The networks of the server are not in a form that is known.")
		}
	}
	switch {
	case word == "none":
		return nil
	case len(list) == 0:
		return c.onlyNetwork(ctx, word == "auto")
	}
	seen := map[string]bool{}
	for _, e := range list {
		nic, err := c.nic(ctx, e, seen)
		if err != nil {
			return err
		}
		c.input.NICs = append(c.input.NICs, *nic)
	}
	return c.portsLeft(ctx)
}

// onlyNetwork takes the one network that the project has.
func (c *creation) onlyNetwork(ctx context.Context, auto bool) error {
	nets, err := c.Network.Available(ctx, c.r.Caller)
	if err != nil {
		return err
	}
	switch len(nets) {
	case 0:
		if auto {
			return c.automaticNetwork(ctx)
		}
		return nil
	case 1:
		if err := c.usable(&nets[0]); err != nil {
			return err
		}
		c.input.NICs = []compute.NICRequest{{NetworkID: nets[0].ID}}
		return c.portsLeft(ctx)
	}
	return fault.New(fault.Conflict, "Multiple possible networks found, use a Network ID to be more specific.")
}

// automaticNetwork takes the project's automatic network, which the network service makes when it is not there. Asking again gives the same one, so a
// request that fails afterwards leaves nothing that the next one would not use.
func (c *creation) automaticNetwork(ctx context.Context) error {
	cannot := "Unable to automatically allocate a network for project " + c.r.Caller.ProjectID
	a, ok := c.Network.(network.AutoAllocator)
	if !ok {
		return fault.New(fault.Invalid, "%s", cannot).WithHint("Create a network, or ask for networks: none.")
	}
	made, err := a.AutoAllocate(ctx, c.r.Caller)
	if errors.Is(err, fault.Conflict) {
		return fault.Wrap(err, fault.Invalid, "%s", cannot).WithHint("%s", fault.PublicText(err))
	}
	if err != nil {
		return err
	}
	c.input.NICs = []compute.NICRequest{{NetworkID: made}}
	return c.portsLeft(ctx)
}

// nic resolves one entry.
func (c *creation) nic(ctx context.Context, e networkEntry, seen map[string]bool) (*compute.NICRequest, error) {
	if e.Port != "" {
		if seen[e.Port] {
			return nil, fault.New(fault.Invalid, "Port ID '%s' was specified twice: you cannot attach a port multiple times.", e.Port)
		}
		seen[e.Port] = true
		return c.portNIC(ctx, e)
	}
	if e.UUID == "" {
		return nil, fault.New(fault.Invalid, "Bad network format: missing 'uuid'")
	}
	if !id.IsUUID(e.UUID) {
		return nil, fault.New(fault.Invalid, "Bad networks format: network uuid is not in proper format (%s)", e.UUID)
	}
	n, err := c.visibleNetwork(ctx, c.r, e.UUID)
	if err != nil {
		return nil, err
	}
	if err := c.usable(n); err != nil {
		return nil, err
	}
	if e.FixedIP != "" {
		if c.count > 1 {
			return nil, fault.New(fault.Invalid, "max_count cannot be greater than 1 if an fixed_ip is specified.")
		}
		if seen[n.ID+e.FixedIP] {
			return nil, fault.New(fault.Invalid, "Fixed IP %s is given more than once.", e.FixedIP)
		}
		seen[n.ID+e.FixedIP] = true
		if err := c.freeAddress(ctx, c.r, n, e.FixedIP); err != nil {
			return nil, err
		}
	}
	return &compute.NICRequest{NetworkID: n.ID, FixedIP: e.FixedIP, Tag: e.Tag}, nil
}

func (c *creation) portNIC(ctx context.Context, e networkEntry) (*compute.NICRequest, error) {
	if e.FixedIP != "" {
		return nil, fault.New(fault.Invalid, "Specified Fixed IP '%s' cannot be used with port '%s': the two cannot be specified together.", e.FixedIP, e.Port)
	}
	if c.count > 1 {
		return nil, fault.New(fault.Invalid, "Unable to launch multiple instances with a single configured port ID. Please launch your instance one by one with different ports.")
	}
	p, err := c.freePort(ctx, c.r, e.Port)
	if err != nil {
		return nil, err
	}
	n := &compute.NICRequest{NetworkID: p.NetworkID, PortID: p.ID, Tag: e.Tag}
	if p.VNICType != "normal" {
		n.VNICType = p.VNICType
		n.Device, err = c.PortDevice(ctx, c.r, p)
	}
	return n, err
}

// freePort finds a port that no device has.
func (a api) freePort(ctx context.Context, r *httpapi.Request, port string) (*network.Port, error) {
	p, err := a.Network.GetPort(ctx, r.Caller, port)
	if err != nil {
		return nil, asInvalid(err, "Port %s could not be found.", port)
	}
	if p.DeviceID != "" {
		return nil, fault.New(fault.Conflict, "Port %s is still in use.", port)
	}
	return p, nil
}

// visibleNetwork finds a network that the caller may attach a server to.
func (a api) visibleNetwork(ctx context.Context, r *httpapi.Request, network string) (*network.Network, error) {
	n, err := a.Network.GetNetwork(ctx, r.Caller, network)
	if err != nil {
		return nil, asInvalid(err, "Network %s could not be found.", network)
	}
	if n.External && !n.Shared && !r.Allowed("network:attach_external_network", r.Own()) {
		return nil, fault.New(fault.Forbidden, "It is not allowed to create an interface on external network %s", n.ID)
	}
	return n, nil
}

func (c *creation) usable(n *network.Network) error {
	if len(n.Subnets) == 0 {
		return fault.New(fault.Invalid, "Network %s requires a subnet in order to boot instances on.", n.ID)
	}
	return nil
}

// freeAddress judges whether an address can be had on a network.
func (a api) freeAddress(ctx context.Context, r *httpapi.Request, n *network.Network, address string) error {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return fault.Wrap(err, fault.Invalid, "Invalid fixed IP address (%s)", address)
	}
	if !slices.ContainsFunc(n.Subnets, func(s network.Subnet) bool {
		p, err := netip.ParsePrefix(s.CIDR)
		return err == nil && p.Contains(ip)
	}) {
		return fault.New(fault.Invalid, "Fixed IP %s is not a valid ip address for network %s.", address, n.ID)
	}
	p, err := a.Network.ByFixedIP(ctx, n.ID, ip.String())
	if err == nil && p != nil {
		return fault.New(fault.Invalid, "Fixed IP address %s is already in use on instance %s.", address, p.DeviceID)
	}
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return err
	}
	return nil
}

// portsLeft judges the ports to be made by the project's quota for ports.
func (c *creation) portsLeft(ctx context.Context) error {
	need := 0
	for _, n := range c.input.NICs {
		if n.PortID == "" {
			need++
		}
	}
	if need == 0 {
		return nil
	}
	left, err := c.Network.QuotaLeft(ctx, c.r.Caller)
	if err != nil || left < 0 {
		return err
	}
	if int64(left) < int64(need)*c.min {
		return fault.New(fault.Forbidden, "Maximum number of ports exceeded").WithCode("OverQuota")
	}
	c.count = min(c.count, int64(left)/int64(need))
	return nil
}

// securityGroups resolves the groups that ports to be made will have.
func (c *creation) securityGroups(ctx context.Context) error {
	names := []string{}
	for _, g := range c.in.Groups {
		if g.Name != "" && !slices.Contains(names, g.Name) {
			names = append(names, g.Name)
		}
	}
	if len(names) == 0 {
		c.server.SecurityGroups = []string{"default"}
		return nil
	}
	found, err := c.Network.SecurityGroups(ctx, c.r.Caller, names...)
	if err != nil {
		return asInvalid(err, "%s", fault.PublicText(err))
	}
	for _, g := range found {
		c.input.SecurityGroups = append(c.input.SecurityGroups, g.ID)
		c.server.SecurityGroups = append(c.server.SecurityGroups, g.Name)
	}
	return nil
}
