package network

import (
	"cmp"
	"slices"
	"strings"
)

// Rule is a security group rule with its place.
type Rule struct {
	ID, ProjectID, GroupID string
	GroupRule
	Standard
}

// Group is a security group with its rules.
type Group struct {
	ID, Name, ProjectID string
	Stateful            bool
	Standard
	Rules []Rule `json:"-"`
}

// Router joins subnets, and these with an external network. Its interfaces are ports with its id as device.
type Router struct {
	ID, Name, ProjectID string
	AdminStateUp        bool
	Standard
	Gateway   *RouterGateway `json:",omitempty"`
	Routes    []Route        `json:",omitempty"`
	ZoneHints []string       `json:",omitempty"`
}

// RouterGateway is a router's attachment to an external network.
type RouterGateway struct {
	NetworkID string
	SNAT      bool
	PortID    string
	FixedIPs  []FixedIP
}

// FloatingIP is an address of an external network that stands for a fixed one.
type FloatingIP struct {
	ID, ProjectID              string
	NetworkID, Address         string
	PortID, FixedIP, RouterID  string // empty while not associated
	OwnPortID                  string // the port on the external network that holds the address
	DNSName, DNSDomain, Status string
	Standard
}

// SubnetPool is a stock of prefixes from which subnets are cut.
type SubnetPool struct {
	ID, Name, ProjectID    string
	Version                int
	Prefixes               []string
	MinLen, MaxLen, DefLen int
	DefaultQuota           *int
	Shared, IsDefault      bool
	ScopeID                string
	Standard
}

// AddressScope is a set of subnet pools whose addresses do not overlap.
type AddressScope struct {
	ID, Name, ProjectID string
	Version             int
	Shared              bool
	Standard
}

// RBAC gives a project, or everybody ("*"), the use of an object.
type RBAC struct {
	ID, ProjectID    string
	ObjectType       string // network, security_group, subnetpool, address_scope
	ObjectID, Target string
	Action           string // access_as_shared, access_as_external
	Standard
}

// Agent is a host's network part as the service last heard of it.
type Agent struct {
	ID, Host, Type, Binary, Zone, Description string
	AdminStateUp                              bool
	Created, Started, Heartbeat               int64 // microseconds since 1970
	Configurations                            map[string]any
}

// Binding is a port's binding to a host; a port may have one active and, while its server moves, others.
type Binding struct {
	PortID, Host, Status, VNICType, VIFType string
	Profile                                 map[string]any
}

// Segment is a part of a network that hosts are joined to directly. Most networks have one; a routed network has several, each with subnets of its own and a router
// of the physical network between them.
type Segment struct {
	ID, Name, NetworkID string
	Type                string // flat, vxlan, local
	Physical            string `json:",omitempty"` // physical network of a flat one
	SegmentationID      *int   `json:",omitempty"`
	Standard
}

// RoutedSegment is a segment that has subnets, as compute needs it: which hosts are joined to it, and how many IPv4 addresses it has.
type RoutedSegment struct {
	ID         string
	Hosts      []string
	Everywhere bool // every host is joined to it
	// IPv4Total and IPv4Reserved count addresses: those of allocation pools and gateways, and of them what servers cannot have.
	IPv4Total, IPv4Reserved int64
}

// When a port gets its addresses (Port.IPAllocation).
const (
	AllocationImmediate = ""         // when it is made
	AllocationDeferred  = "deferred" // when it is bound to a host, because they depend on the host's segment
	AllocationNone      = "none"     // never: it was asked for without
)

// Owners of ports that the service itself makes (device_owner).
const (
	OwnerRouterInterface = "network:router_interface"
	OwnerRouterGateway   = "network:router_gateway"
	OwnerFloatingIP      = "network:floatingip"
	OwnerDHCP            = "network:dhcp"
)

// InOrder sorts addresses in place as ports show them.
func InOrder(ips []FixedIP) []FixedIP {
	slices.SortStableFunc(ips, func(a, b FixedIP) int {
		return cmp.Or(strings.Compare(a.Address, b.Address), strings.Compare(a.SubnetID, b.SubnetID))
	})
	return ips
}
