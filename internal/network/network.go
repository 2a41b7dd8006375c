// Package network is the network service's nouns and the interfaces through which compute and its agents use it.
package network

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"kilonova/internal/auth"
)

// Standard holds what every resource of the network API has besides id, name and project.
type Standard struct {
	Description      string    `json:",omitempty"`
	Tags             []string  `json:",omitempty"` // sorted, without duplicates
	Revision         int64     `json:",omitempty"` // counts the changes
	Created, Updated time.Time `json:",omitzero"`
}

// Network is a virtual network.
type Network struct {
	ID, Name, ProjectID    string
	AdminStateUp, Shared   bool // Shared: for the caller who asked, or for everybody
	External, PortSecurity bool
	MTU                    int
	DNSDomain              string   `json:",omitempty"`
	Subnets                []Subnet `json:"-"`
	Bridge                 string   `json:"-"` // on the hosts: name of the Linux bridge
	Standard
	ProviderType, ProviderPhysical string   `json:",omitempty"` // provider:network_type, provider:physical_network
	SegmentationID                 *int     `json:",omitempty"`
	IsDefault                      bool     `json:",omitempty"` // the external network that auto-allocated topologies use
	ZoneHints                      []string `json:",omitempty"`
	// Segmented tells that the network's segments have records of their own; Segments are these, oldest first.
	Segmented bool      `json:",omitempty"`
	Segments  []Segment `json:"-"`
}

// Subnet is an address range of a network.
type Subnet struct {
	ID, Name, NetworkID, ProjectID string
	Version                        int // 4 or 6
	CIDR, Gateway                  string
	DHCP                           bool
	DNS                            []string
	Routes                         []Route
	Pools                          []Pool
	IPv6AddressMode, IPv6RAMode    string
	Standard
	SubnetPoolID string   `json:",omitempty"`
	ServiceTypes []string `json:",omitempty"`
	SegmentID    string   `json:",omitempty"` // segment of the network that it is on; "": it is on all of the network
}

// Route is a host route.
type Route struct {
	Destination string `json:"destination"`
	NextHop     string `json:"nexthop"`
}

// RoutesText writes routes into a sentence as their documents have them.
func RoutesText(routes []Route) string {
	out := make([]string, len(routes))
	for i, r := range routes {
		out[i] = fmt.Sprintf("{'destination': '%s', 'nexthop': '%s'}", r.Destination, r.NextHop)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// Pool is an allocation pool.
type Pool struct {
	Start string `json:"start"`
	End   string `json:"end"`
}

// FixedIP is an address of a port.
type FixedIP struct {
	SubnetID string `json:"subnet_id"`
	Address  string `json:"ip_address"`
}

// AddressPair is an allowed address pair.
type AddressPair struct {
	MAC string `json:"mac_address,omitempty"`
	IP  string `json:"ip_address"`
}

// Port is a port.
type Port struct {
	ID, Name, NetworkID, ProjectID string
	MAC                            string
	FixedIPs                       []FixedIP
	SecurityGroups                 []string
	DeviceID, DeviceOwner, HostID  string
	Status                         string // ACTIVE, DOWN, BUILD
	VNICType, VIFType              string // normal; bridge, unbound, binding_failed
	AdminStateUp, PortSecurity     bool
	AllowedPairs                   []AddressPair
	DNSName                        string `json:",omitempty"`
	Standard
	Profile   map[string]any `json:",omitempty"` // binding:profile, kept as given
	ExtraDHCP []DHCPOption   `json:",omitempty"`
	// NUMAPolicy is numa_affinity_policy: required, preferred, legacy, socket; "": that of the server.
	NUMAPolicy string `json:",omitempty"`

	IPAllocation string `json:",omitempty"` // when it gets its addresses: AllocationImmediate, …
	SegmentID    string `json:",omitempty"` // segment of its addresses; "": the network is not routed, or it has none
}

// DHCPOption is an option that a port's DHCP answers carry besides the usual ones (extension extra_dhcp_opt).
type DHCPOption struct {
	Name    string `json:"opt_name"`
	Value   string `json:"opt_value"`
	Version int    `json:"ip_version"`
}

// PortRequest asks for a port.
type PortRequest struct {
	ID             string // derived by the caller: asking again gives the same port
	NetworkID      string
	Name           string
	MAC            string    // "": made
	FixedIPs       []FixedIP // SubnetID or Address may be empty
	SecurityGroups []string  // ids; nil: the project's group "default"
	DeviceID       string
	DeviceOwner    string
	HostID         string
	DNSName        string
	ProjectID      string
}

// SecurityGroup is a security group as compute's proxies and server documents need it.
type SecurityGroup struct {
	ID, Name, ProjectID, Description string
}

// VIF is one network interface of a server, as the server record caches it and as drivers plug it.
type VIF struct {
	PortID         string    `json:"port_id"`
	NetworkID      string    `json:"network_id"`
	NetworkName    string    `json:"network_name"`
	MAC            string    `json:"mac"`
	FixedIPs       []VIFAddr `json:"fixed_ips"`
	Floating       []VIFAddr `json:"floating,omitempty"`
	SecurityGroups []string  `json:"security_groups,omitempty"` // names
	Bridge         string    `json:"bridge,omitempty"`
	Tap            string    `json:"tap,omitempty"`
	MTU            int       `json:"mtu,omitempty"`
	Tag            string    `json:"tag,omitempty"`
	Model          string    `json:"model,omitempty"`   // virtio, e1000, …; "" driver's default
	Created        bool      `json:"created,omitempty"` // the port was made for the server and goes with it
	Type           string    `json:"type,omitempty"`    // bridge, hw_veb, hostdev_physical, binding_failed
	// The rest is of ports that are not of the type normal. The PCI device of one that is a device (IsDevice) stands in the server's claim.
	VNICType        string `json:"vnic_type,omitempty"` // "": normal
	PhysicalNetwork string `json:"physical_network,omitempty"`
	VLAN            int    `json:"vlan,omitempty"`
	Trusted         bool   `json:"trusted,omitempty"`
	NUMAPolicy      string `json:"numa_policy,omitempty"`
}

// VIFAddr is an address with what a guest must know to use it.
type VIFAddr struct {
	Address  string   `json:"address"`
	Version  int      `json:"version"`
	SubnetID string   `json:"subnet_id,omitempty"`
	CIDR     string   `json:"cidr,omitempty"`
	Gateway  string   `json:"gateway,omitempty"`
	DHCP     bool     `json:"dhcp,omitempty"`
	DNS      []string `json:"dns,omitempty"`
	Routes   []Route  `json:"routes,omitempty"`
	Fixed    string   `json:"fixed,omitempty"` // floating addresses: the fixed one behind
}

// Service is what compute needs of the network service. Errors carry fault kinds: NotFound, Conflict (address in use), Forbidden (quota: code OverQuota).
type Service interface {
	// Available gives the networks that a server of the caller may be attached to without naming one: its project's own and shared ones, not external.
	Available(ctx context.Context, c *auth.Caller) ([]Network, error)
	GetNetwork(ctx context.Context, c *auth.Caller, id string) (*Network, error)
	GetPort(ctx context.Context, c *auth.Caller, id string) (*Port, error)
	// CreatePort makes a port, or gives the one with the request's ID that is there.
	CreatePort(ctx context.Context, c *auth.Caller, r PortRequest) (*Port, error)
	// BindPort sets device, owner and host of an existing port (fault.Conflict when another device has it); empty device unbinds.
	BindPort(ctx context.Context, c *auth.Caller, id, deviceID, deviceOwner, hostID string) (*Port, error)
	// DeletePort removes a port; a port that is gone is success.
	DeletePort(ctx context.Context, c *auth.Caller, id string) error
	// DevicePorts gives the ports whose DeviceID is given.
	DevicePorts(ctx context.Context, c *auth.Caller, deviceID string) ([]Port, error)
	// VIFs gives ports with their network, subnets, floating addresses and group names, in the order asked.
	VIFs(ctx context.Context, portIDs ...string) ([]VIF, error)
	// SecurityGroups resolves names or ids for the caller's project; fault.NotFound names the missing one, fault.Conflict an ambiguous name.
	SecurityGroups(ctx context.Context, c *auth.Caller, namesOrIDs ...string) ([]SecurityGroup, error)
	// SetPortGroups replaces the security groups of a port.
	SetPortGroups(ctx context.Context, c *auth.Caller, portID string, groups []string) error
	// ReserveBinding prepares a port for a host to which its device is about to move while it runs: that host's data plane has the port from then on,
	// besides the one that it is bound to. BindPort to that host ends it. Repeating is success.
	ReserveBinding(ctx context.Context, c *auth.Caller, id, hostID string) error
	// DropBinding takes a reservation back; one that is not there is success, and so is a port that is bound to the host by now, which stays so.
	DropBinding(ctx context.Context, c *auth.Caller, id, hostID string) error
	// SetTunnel keeps the address at which a host's tunnels end, "" for a host that has none. Hosts with common networks are told of a change.
	SetTunnel(ctx context.Context, host, address string) error
	// QuotaLeft tells how many more ports the project may have (-1: unlimited).
	QuotaLeft(ctx context.Context, c *auth.Caller) (int, error)
	// Host gives the whole desired data plane of one host. Agents apply it as a whole, so a lost message never matters.
	Host(ctx context.Context, host string) (*HostState, error)
	// SetPortStatus is the agent's report that a port is wired (ACTIVE) or not (DOWN).
	SetPortStatus(ctx context.Context, portID, status string) error
	// ByFixedIP finds the port behind an address on a network (metadata service).
	ByFixedIP(ctx context.Context, networkID, address string) (*Port, error)
}

// AutoAllocator is a Service that can make a network for a project that has none: what compute's "networks": "auto" stands for.
type AutoAllocator interface {
	// CanAutoAllocate fails (fault.Conflict) when the caller's project has no such network and none can be made.
	CanAutoAllocate(ctx context.Context, c *auth.Caller) error
	// AutoAllocate gives the id of the project's automatic network and makes it when it is not there.
	AutoAllocate(ctx context.Context, c *auth.Caller) (networkID string, err error)
}

// Segmenter is a Service whose networks may have several segments.
type Segmenter interface {
	// SetPhysical keeps which physical networks a host is joined to, and so which segments.
	SetPhysical(ctx context.Context, host string, physical []string) error
	// RoutedSegments gives the segments that have subnets, in the order of their ids.
	RoutedSegments(ctx context.Context) ([]RoutedSegment, error)
	// SegmentsOf gives the segments on one of which a server must be that has a port: that of the port's addresses or, while it has none or portID is empty, those of
	// the network that have subnets, or the one whose subnet has the address, if one is given. None: the network is not routed.
	SegmentsOf(ctx context.Context, networkID, portID, address string) ([]string, error)
}

// Codes of the errors of binding a port of a routed network to a host.
const (
	CodeNoSegment    = "HostNotConnectedToAnySegment"  // the host is joined to none of the network's segments
	CodeOtherSegment = "HostNotCompatibleWithFixedIps" // … or not to that of the port's addresses
)

// SegmentsSubject is where a Fanout tells that segments with subnets, or the hosts joined to them, changed.
const SegmentsSubject = "network.segments"

// ChangedSubject is where a Fanout tells agents that the data plane of hosts changed: the message is a host name, or empty for all.
const ChangedSubject = "network.changed"

// HostState is the desired data plane of a host.
type HostState struct {
	Host     string        `json:"host"`
	Revision string        `json:"revision"` // hash of the content; equal means nothing to do
	Networks []HostNetwork `json:"networks"`
	Ports    []HostPort    `json:"ports"`
	Groups   []HostGroup   `json:"groups"`
}

// HostNetwork is a network that has ports on the host.
type HostNetwork struct {
	ID      string   `json:"id"`
	Bridge  string   `json:"bridge"`
	MTU     int      `json:"mtu"`
	Domain  string   `json:"domain"`
	Subnets []Subnet `json:"subnets"`
	Leases  []Lease  `json:"leases"` // every port of the network with DHCP, on any host: the name service of the network
	// Peers are the networks that a router joins to this one; the host forwards between them and no others.
	Peers []string `json:"peers,omitempty"`
	// Routes are the static routes of the routers that join the network; a next hop is on it or on one of its peers.
	Routes []Route `json:"routes,omitempty"`
	// Gateway tells that the hosts themselves have the gateway addresses of the subnets and route for the guests; false for
	// networks of a physical one, which has a router of its own.
	Gateway bool `json:"gateway"`
	// NAT tells that guests reach the outside behind the host's own address.
	NAT      bool   `json:"nat"`
	Physical string `json:"physical,omitempty"` // name of the physical network that the bridge is joined to
	VLAN     int    `json:"vlan,omitempty"`     // the VLAN of it that the network is; 0: the physical network as it is
	// VNI is the VXLAN identifier by which hosts carry the network to each other; 0: it does not leave the host.
	VNI int `json:"vni,omitempty"`
	// Endpoints are the tunnel addresses of the other hosts that have ports of the network, or are about to.
	Endpoints []string `json:"endpoints,omitempty"`
	// Remote are the ports that are bound to those hosts.
	Remote []RemotePort `json:"remote,omitempty"`
}

// PartError is the failure of a part of a host's data plane: a network, or with an empty NetworkID what concerns no network in particular. The other
// networks work.
type PartError struct {
	NetworkID string
	Err       error
}

func (e *PartError) Error() string {
	if e.NetworkID == "" {
		return e.Err.Error()
	}
	return "network " + e.NetworkID + ": " + e.Err.Error()
}

// Unwrap gives the cause.
func (e *PartError) Unwrap() error { return e.Err }

// Parts divides what a data plane says: failures of parts, and what concerns the whole.
func Parts(err error) (parts []*PartError, whole error) {
	var p *PartError
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			some, rest := Parts(e)
			parts, whole = append(parts, some...), errors.Join(whole, rest)
		}
		return parts, whole
	}
	if errors.As(err, &p) {
		return []*PartError{p}, nil
	}
	return nil, err
}

// RemotePort is a port of a network on another host.
type RemotePort struct {
	MAC       string   `json:"mac"`
	Addresses []string `json:"addresses"`
	Endpoint  string   `json:"endpoint"` // tunnel address of its host
}

// Lease is one DHCP binding.
type Lease struct {
	MAC      string `json:"mac"`
	Address  string `json:"address"`
	SubnetID string `json:"subnet_id"`
	Hostname string `json:"hostname"`

	Options []DHCPOption `json:"options,omitempty"`
}

// HostPort is a port on the host.
type HostPort struct {
	ID           string        `json:"id"`
	NetworkID    string        `json:"network_id"`
	Tap          string        `json:"tap"`
	MAC          string        `json:"mac"`
	Addresses    []string      `json:"addresses"`
	Pairs        []AddressPair `json:"pairs,omitempty"`
	Groups       []string      `json:"groups"`
	PortSecurity bool          `json:"port_security"`
	ServerID     string        `json:"server_id"`
	ProjectID    string        `json:"project_id"`
	Floating     []Floating    `json:"floating,omitempty"`
	Down         bool          `json:"down,omitempty"` // admin_state_up is false: nothing passes
	// Incoming tells that the port's guest runs on another host and is about to move here: everything is ready for it, but floating addresses stay there.
	Incoming bool `json:"incoming,omitempty"`
}

// Floating is a floating address of a port.
type Floating struct {
	Address string `json:"address"`
	Fixed   string `json:"fixed"`
}

// HostGroup is a security group that a port on the host has, with its rules and the addresses of all its members.
type HostGroup struct {
	ID      string      `json:"id"`
	Rules   []GroupRule `json:"rules"`
	Members []string    `json:"members"` // only for groups that a rule names as remote
	// Stateless: what its rules let through is not followed; answers need rules of their own.
	Stateless bool `json:"stateless,omitempty"`
}

// GroupRule is one security group rule.
type GroupRule struct {
	Direction   string `json:"direction"` // ingress, egress
	EtherType   string `json:"ethertype"` // IPv4, IPv6
	Protocol    string `json:"protocol"`  // "", tcp, udp, icmp, icmpv6, or a number
	PortMin     *int   `json:"port_min,omitempty"`
	PortMax     *int   `json:"port_max,omitempty"`
	RemoteIP    string `json:"remote_ip,omitempty"`
	RemoteGroup string `json:"remote_group,omitempty"`
}

// TapName is the name of a port's tap device: "tap" and the first 11 characters of its id.
func TapName(portID string) string { return "tap" + portID[:11] }

// BridgeName is the name of a network's bridge: "kbr" and the first 12 hexadecimal digits of its id (15 characters is the kernel's limit).
func BridgeName(networkID string) string { return "kbr" + networkID[:8] + networkID[9:13] }
