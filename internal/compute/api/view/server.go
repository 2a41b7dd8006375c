package view

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/network"
)

// Kind is which server document is asked for; fields name the kinds that have them.
type Kind uint8

// The kinds. Update and Rebuild are the answers of PUT and of the action rebuild.
const (
	Detail Kind = 1 << iota
	Show
	Update
	Rebuild
)

const (
	reads  = Detail | Show
	always = Detail | Show | Update | Rebuild
)

// HostStatusLevel is how much of host_status the caller may see.
type HostStatusLevel int

// The levels.
const (
	NoHostStatus HostStatusLevel = iota
	UnknownHostStatus
	FullHostStatus
)

// ServerOptions is what a server document depends on besides the server.
type ServerOptions struct {
	Minor      int // of the microversion
	Links      Links
	Extended   bool // OS-EXT-SRV-ATTR:*
	HostStatus HostStatusLevel
	ExtraSpecs bool // flavor.extra_specs
	Admin      bool // fault details
	// StatusOf gives the host_status of a host: UP, DOWN, MAINTENANCE, UNKNOWN; "" for none.
	StatusOf  func(host string) string
	AdminPass string // of a rebuild; "" leaves it out
}

// serverField is one line of the table of the server document.
type serverField struct {
	name         string
	since, until int // minors; until 0: still there
	in           Kind
	when         func(*ServerOptions, *compute.Server) bool // nil: always
	put          func([]byte, *ServerOptions, *compute.Server) []byte
}

func extended(o *ServerOptions, _ *compute.Server) bool { return o.Extended }

// serverFields is the server document. The answers of PUT and rebuild have only some fields before 2.75, and all of them from there.
var serverFields = []serverField{
	{"id", 1, 0, always, nil, func(b []byte, _ *ServerOptions, s *compute.Server) []byte { return appendString(b, s.ID) }},
	{"name", 1, 0, always, nil, func(b []byte, _ *ServerOptions, s *compute.Server) []byte { return appendString(b, s.Name) }},
	{"status", 1, 0, always, nil, func(b []byte, _ *ServerOptions, s *compute.Server) []byte {
		return appendString(b, compute.StatusOf(s))
	}},
	{"tenant_id", 1, 0, always, nil, func(b []byte, _ *ServerOptions, s *compute.Server) []byte { return appendString(b, s.ProjectID) }},
	{"user_id", 1, 0, always, nil, func(b []byte, _ *ServerOptions, s *compute.Server) []byte { return appendString(b, s.UserID) }},
	{"metadata", 1, 0, always, nil, func(b []byte, _ *ServerOptions, s *compute.Server) []byte { return appendMap(b, s.Metadata) }},
	{"hostId", 1, 0, always, nil, func(b []byte, _ *ServerOptions, s *compute.Server) []byte {
		return appendString(b, HostID(s.ProjectID, s.Host))
	}},
	{"image", 1, 97, always, nil, putImage},
	{"image", 98, 0, always, nil, putImageWithProperties},
	{"flavor", 1, 46, always, nil, putFlavorLink},
	{"flavor", 47, 0, always, nil, putFlavor},
	{"created", 1, 0, always, nil, func(b []byte, _ *ServerOptions, s *compute.Server) []byte {
		return appendTime(b, s.Created, clock.LayoutZ)
	}},
	{"updated", 1, 0, always, nil, func(b []byte, _ *ServerOptions, s *compute.Server) []byte {
		return appendTime(b, s.Updated, clock.LayoutZ)
	}},
	{"addresses", 1, 0, reads, nil, putAddresses},
	{"addresses", 1, 74, Update | Rebuild, nil, func(b []byte, _ *ServerOptions, s *compute.Server) []byte { return appendAddresses(b, s, false) }},
	{"addresses", 75, 0, Update | Rebuild, nil, putAddresses},
	{"accessIPv4", 1, 0, always, nil, func(b []byte, _ *ServerOptions, s *compute.Server) []byte { return appendString(b, s.AccessIPv4) }},
	{"accessIPv6", 1, 0, always, nil, func(b []byte, _ *ServerOptions, s *compute.Server) []byte { return appendString(b, s.AccessIPv6) }},
	{"links", 1, 0, always, nil, func(b []byte, o *ServerOptions, s *compute.Server) []byte { return o.Links.append(b, "servers", s.ID) }},
	{"OS-DCF:diskConfig", 1, 0, always, nil, func(b []byte, _ *ServerOptions, s *compute.Server) []byte { return appendString(b, s.DiskConfig) }},
	{"progress", 1, 0, always, hasProgress, func(b []byte, _ *ServerOptions, s *compute.Server) []byte { return appendInt(b, int64(s.Progress)) }},
	{"fault", 1, 0, always, hasFault, putFault},
	{"key_name", 1, 0, reads, nil, putKeyName},
	{"key_name", 54, 74, Rebuild, nil, putKeyName},
	{"key_name", 75, 0, Update | Rebuild, nil, putKeyName},
	{"user_data", 57, 0, Rebuild, nil, func(b []byte, _ *ServerOptions, s *compute.Server) []byte { return appendOr(b, s.UserData) }},
	{"config_drive", 1, 0, reads, nil, putConfigDrive},
	{"config_drive", 75, 0, Update | Rebuild, nil, putConfigDrive},
	{"OS-EXT-AZ:availability_zone", 1, 0, reads, nil, putZone},
	{"OS-EXT-AZ:availability_zone", 75, 0, Update | Rebuild, nil, putZone},
	{"OS-EXT-SRV-ATTR:host", 1, 0, reads, extended, putHost},
	{"OS-EXT-SRV-ATTR:host", 75, 0, Update | Rebuild, extended, putHost},
	{"OS-EXT-SRV-ATTR:hypervisor_hostname", 1, 0, reads, extended, putNode},
	{"OS-EXT-SRV-ATTR:hypervisor_hostname", 75, 0, Update | Rebuild, extended, putNode},
	{"OS-EXT-SRV-ATTR:instance_name", 1, 0, reads, extended, putInstanceName},
	{"OS-EXT-SRV-ATTR:instance_name", 75, 0, Update | Rebuild, extended, putInstanceName},
	{"OS-EXT-STS:power_state", 1, 0, reads, nil, putPowerState},
	{"OS-EXT-STS:power_state", 75, 0, Update | Rebuild, nil, putPowerState},
	{"OS-EXT-STS:task_state", 1, 0, reads, nil, putTaskState},
	{"OS-EXT-STS:task_state", 75, 0, Update | Rebuild, nil, putTaskState},
	{"OS-EXT-STS:vm_state", 1, 0, reads, nil, putVMState},
	{"OS-EXT-STS:vm_state", 75, 0, Update | Rebuild, nil, putVMState},
	{"OS-SRV-USG:launched_at", 1, 0, reads, nil, putLaunched},
	{"OS-SRV-USG:launched_at", 75, 0, Update | Rebuild, nil, putLaunched},
	{"OS-SRV-USG:terminated_at", 1, 0, reads, nil, putTerminated},
	{"OS-SRV-USG:terminated_at", 75, 0, Update | Rebuild, nil, putTerminated},
	{"os-extended-volumes:volumes_attached", 1, 0, reads, nil, putVolumes},
	{"os-extended-volumes:volumes_attached", 75, 0, Update | Rebuild, nil, putVolumes},
	{"security_groups", 1, 0, reads, hasGroups, putGroups},
	{"security_groups", 75, 0, Update | Rebuild, hasGroups, putGroups},
	{"OS-EXT-SRV-ATTR:hostname", 3, 89, reads, extended, putHostname},
	{"OS-EXT-SRV-ATTR:hostname", 75, 89, Update | Rebuild, extended, putHostname},
	{"OS-EXT-SRV-ATTR:hostname", 90, 0, always, nil, putHostname},
	{"OS-EXT-SRV-ATTR:kernel_id", 3, 0, reads, extended, putKernel},
	{"OS-EXT-SRV-ATTR:kernel_id", 75, 0, Update | Rebuild, extended, putKernel},
	{"OS-EXT-SRV-ATTR:launch_index", 3, 0, reads, extended, putLaunchIndex},
	{"OS-EXT-SRV-ATTR:launch_index", 75, 0, Update | Rebuild, extended, putLaunchIndex},
	{"OS-EXT-SRV-ATTR:ramdisk_id", 3, 0, reads, extended, putRamdisk},
	{"OS-EXT-SRV-ATTR:ramdisk_id", 75, 0, Update | Rebuild, extended, putRamdisk},
	{"OS-EXT-SRV-ATTR:reservation_id", 3, 0, reads, extended, putReservation},
	{"OS-EXT-SRV-ATTR:reservation_id", 75, 0, Update | Rebuild, extended, putReservation},
	{"OS-EXT-SRV-ATTR:root_device_name", 3, 0, reads, extended, putRootDevice},
	{"OS-EXT-SRV-ATTR:root_device_name", 75, 0, Update | Rebuild, extended, putRootDevice},
	{"OS-EXT-SRV-ATTR:user_data", 3, 0, reads, extended, putUserData},
	{"OS-EXT-SRV-ATTR:user_data", 75, 0, Update, extended, putUserData},
	{"locked", 9, 0, always, nil, func(b []byte, _ *ServerOptions, s *compute.Server) []byte { return strconv.AppendBool(b, s.Locked) }},
	{"host_status", 16, 0, reads, showsHostStatus, putHostStatus},
	{"host_status", 75, 0, Update | Rebuild, showsHostStatus, putHostStatus},
	{"description", 19, 0, always, nil, putDescription},
	{"tags", 26, 0, always, nil, func(b []byte, _ *ServerOptions, s *compute.Server) []byte { return appendList(b, s.Tags) }},
	{"trusted_image_certificates", 63, 0, always, nil, putCerts},
	{"server_groups", 71, 0, Show | Update | Rebuild, nil, putServerGroups},
	{"locked_reason", 73, 0, always, nil, putLockedReason},
	{"pinned_availability_zone", 96, 0, always, nil, putPinnedZone},
	{"scheduler_hints", 100, 0, always, nil, putHints},
	{"adminPass", 1, 0, Rebuild, func(o *ServerOptions, _ *compute.Server) bool { return o.AdminPass != "" },
		func(b []byte, o *ServerOptions, _ *compute.Server) []byte { return appendString(b, o.AdminPass) }},
}

// ServerEncoder appends server documents of one kind at one microversion for one caller.
type ServerEncoder struct {
	o      ServerOptions
	fields []encoderField
}

type encoderField struct {
	prefix []byte // ,"name":
	when   func(*ServerOptions, *compute.Server) bool
	put    func([]byte, *ServerOptions, *compute.Server) []byte
}

// NewServerEncoder picks the fields once for all servers of a request.
func NewServerEncoder(k Kind, o ServerOptions) *ServerEncoder {
	if o.StatusOf == nil {
		o.StatusOf = func(string) string { return "" }
	}
	e := &ServerEncoder{o: o}
	for _, f := range serverFields {
		if f.in&k == 0 || o.Minor < f.since || f.until > 0 && o.Minor > f.until {
			continue
		}
		e.fields = append(e.fields, encoderField{append(append([]byte{','}, strconv.Quote(f.name)...), ':'), f.when, f.put})
	}
	return e
}

// Append appends one document.
func (e *ServerEncoder) Append(b []byte, s *compute.Server) []byte {
	b = append(b, '{')
	first := true
	for i := range e.fields {
		f := &e.fields[i]
		if f.when != nil && !f.when(&e.o, s) {
			continue
		}
		if first {
			b = append(b, f.prefix[1:]...)
			first = false
		} else {
			b = append(b, f.prefix...)
		}
		b = f.put(b, &e.o, s)
	}
	return append(b, '}')
}

// ServerDocument is {"server": …}. It appends its own JSON.
type ServerDocument struct {
	Encoder *ServerEncoder
	Server  *compute.Server
}

// AppendJSON appends the document.
func (d ServerDocument) AppendJSON(b []byte) ([]byte, error) {
	b = append(b, `{"server":`...)
	b = d.Encoder.Append(b, d.Server)
	return append(b, '}'), nil
}

// ServerList is {"servers": […], "servers_links": …}. Encoder nil gives ids, names and links only.
type ServerList struct {
	Encoder *ServerEncoder
	Servers []*compute.Server
	Links   Links
	Next    []Link
}

// AppendJSON appends the document.
func (d ServerList) AppendJSON(b []byte) ([]byte, error) {
	b = slices.Grow(b, len(d.Servers)*map[bool]int{true: 2300, false: 330}[d.Encoder != nil]+64)
	b = append(b, `{"servers":[`...)
	for i, s := range d.Servers {
		if i > 0 {
			b = append(b, ',')
		}
		if d.Encoder != nil {
			b = d.Encoder.Append(b, s)
			continue
		}
		b = append(b, `{"id":`...)
		b = appendString(b, s.ID)
		b = append(b, `,"name":`...)
		b = appendString(b, s.Name)
		b = append(b, `,"links":`...)
		b = d.Links.append(b, "servers", s.ID)
		b = append(b, '}')
	}
	b = append(b, ']')
	if d.Next != nil {
		b = append(b, `,"servers_links":`...)
		b = appendAny(b, d.Next)
	}
	return append(b, '}'), nil
}

// HostID is the hash by which a project tells its servers' hosts apart; "" without a host.
func HostID(project, host string) string {
	if host == "" {
		return ""
	}
	h := sha256.Sum224([]byte(project + host))
	return hex.EncodeToString(h[:])
}

// Addresses is the "addresses" object: by network name, in the order of the interfaces.
func Addresses(s *compute.Server) json.RawMessage { return appendAddresses(nil, s, false) }

// NetworkAddresses is the list of one network; false when the server has no interface there.
func NetworkAddresses(s *compute.Server, name string) (json.RawMessage, bool) {
	b, found := appendNetwork(nil, s, name, false)
	return b, found
}

func appendAddresses(b []byte, s *compute.Server, extended bool) []byte {
	b = append(b, '{')
	if s.VMState != compute.VMBuilding {
		var done []string
		for i := range s.VIFs {
			v := &s.VIFs[i]
			if slices.Contains(done, v.NetworkName) {
				continue
			}
			if len(done) > 0 {
				b = append(b, ',')
			}
			done = append(done, v.NetworkName)
			b = appendString(b, v.NetworkName)
			b = append(b, ':')
			b, _ = appendNetwork(b, s, v.NetworkName, extended)
		}
	}
	return append(b, '}')
}

// appendNetwork appends the addresses of the server on one network and tells whether it has an interface there.
func appendNetwork(b []byte, s *compute.Server, name string, extended bool) ([]byte, bool) {
	b = append(b, '[')
	found := false
	at := len(b)
	for i := range s.VIFs {
		v := &s.VIFs[i]
		if v.NetworkName != name {
			continue
		}
		found = true
		for _, a := range v.FixedIPs {
			b = appendAddress(b, at, a, "fixed", v.MAC, extended)
		}
		for _, a := range v.Floating {
			b = appendAddress(b, at, a, "floating", v.MAC, extended)
		}
	}
	return append(b, ']'), found
}

// appendAddress appends one address to the list that begins at b[at].
func appendAddress(b []byte, at int, a network.VIFAddr, kind, mac string, extended bool) []byte {
	if len(b) > at {
		b = append(b, ',')
	}
	b = append(b, `{"version":`...)
	b = appendInt(b, int64(a.Version))
	b = append(b, `,"addr":`...)
	b = appendString(b, a.Address)
	if extended {
		b = append(b, `,"OS-EXT-IPS:type":"`...)
		b = append(b, kind...)
		b = append(b, `","OS-EXT-IPS-MAC:mac_addr":`...)
		b = appendString(b, mac)
	}
	return append(b, '}')
}
