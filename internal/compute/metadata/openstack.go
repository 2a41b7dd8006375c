package metadata

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"kilonova/internal/network"
)

// The versions of the OpenStack tree that bring something new.
const (
	folsom     = "2012-08-10"
	grizzly    = "2013-04-04" // random seed, password
	havana     = "2013-10-17" // vendor data
	liberty    = "2015-10-15" // network data, project
	newtonOne  = "2016-06-30" // devices
	newtonTwo  = "2016-10-06" // vendor data 2
	ocata      = "2017-02-22" // VLAN of devices
	rocky      = "2018-08-27" // trusted virtual functions
	victoria   = "2020-10-14" // dedicated processors
	epoxy      = "2025-04-04" // shares
	latest     = "latest"
	contentDir = "content"
)

// OpenStackVersions lists the versions of the OpenStack tree, the oldest first.
func OpenStackVersions() []string {
	return []string{folsom, grizzly, havana, liberty, newtonOne, newtonTwo, ocata, rocky, victoria, epoxy}
}

// atLeast compares versions; they are dates.
func atLeast(version, since string) bool { return version == latest || version >= since }

// document is one file of a version.
type document struct {
	name, kind string
	data       []byte
}

const (
	kindJSON = "application/json"
	kindText = "text/plain; charset=UTF-8"
	kindRaw  = "application/octet-stream"
)

// openStack gives the documents of a version. drive adds what only a config drive has.
func (c *Content) openStack(version string, drive bool) []document {
	docs := []document{{"meta_data.json", kindJSON, encode(c.metaData(version, drive))}}
	if c.userData != nil {
		docs = append(docs, document{"user_data", kindRaw, c.userData})
	}
	if atLeast(version, havana) {
		docs = append(docs, document{"vendor_data.json", kindJSON, encode(c.vendor)})
	}
	if atLeast(version, liberty) {
		docs = append(docs, document{"network_data.json", kindJSON, encode(c.networkData())})
	}
	if atLeast(version, newtonTwo) {
		all := map[string]any{"static": c.vendor}
		for name, v := range c.dynamic {
			if name != "static" {
				all[name] = v
			}
		}
		docs = append(docs, document{"vendor_data2.json", kindJSON, encode(all)})
	}
	return docs
}

func contentName(i int) string { return fmt.Sprintf("%04d", i) }

func (c *Content) metaData(version string, drive bool) map[string]any {
	in := &c.in
	m := map[string]any{"uuid": in.ID, "name": in.Name, "hostname": c.hostname(), "launch_index": in.LaunchIndex, "availability_zone": in.AvailabilityZone}
	if len(in.Metadata) > 0 {
		m["meta"] = in.Metadata
	}
	if in.KeyName != "" {
		kind := in.KeyType
		if kind == "" {
			kind = "ssh"
		}
		m["public_keys"] = map[string]string{in.KeyName: in.PublicKey}
		m["keys"] = []map[string]string{{"name": in.KeyName, "type": kind, "data": in.PublicKey}}
	}
	if len(c.files) > 0 {
		list := make([]map[string]string, len(c.files))
		for i, f := range c.files {
			list[i] = map[string]string{"path": f.path, "content_path": "/" + contentDir + "/" + contentName(i)}
		}
		m["files"] = list
	}
	if drive && in.AdminPass != "" {
		m["admin_pass"] = in.AdminPass
	}
	if atLeast(version, grizzly) {
		m["random_seed"] = base64.StdEncoding.EncodeToString(in.Seed)
	}
	if atLeast(version, liberty) {
		m["project_id"] = in.ProjectID
	}
	if atLeast(version, newtonOne) {
		m["devices"] = c.devices(version)
	}
	if atLeast(version, victoria) {
		cpus := slices.Clone(in.DedicatedCPUs)
		slices.Sort(cpus)
		if cpus == nil {
			cpus = []int{}
		}
		m["dedicated_cpus"] = cpus
	}
	return m
}

// devices lists those with tags, and network cards that a guest must know more of.
func (c *Content) devices(version string) []map[string]any {
	list := []map[string]any{}
	for _, d := range c.in.Devices {
		m := map[string]any{"type": d.Type}
		switch d.Type {
		case "nic":
			vlan, trusted := d.VLAN > 0 && atLeast(version, ocata), d.VFTrusted && atLeast(version, rocky)
			if len(d.Tags) == 0 && !vlan && !trusted {
				continue
			}
			m["mac"] = d.MAC
			if vlan {
				m["vlan"] = d.VLAN
			}
			if atLeast(version, rocky) {
				m["vf_trusted"] = d.VFTrusted
			}
		case "disk":
			if len(d.Tags) == 0 {
				continue
			}
			if d.Serial != "" {
				m["serial"] = d.Serial
			}
			if d.Path != "" {
				m["path"] = d.Path
			}
		case "share":
			if atLeast(version, epoxy) {
				list = append(list, map[string]any{"type": "share", "share_id": d.ShareID, "tag": d.ShareTag})
			}
			continue
		}
		m["bus"], m["address"] = orNone(d.Bus), orNone(d.Address)
		m["tags"] = append([]string{}, d.Tags...)
		list = append(list, m)
	}
	return list
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// oldKinds are the interface types that network data names; all others are "phy".
func oldKinds() []string {
	return []string{"bridge", "ovs", "hyperv", "hostdev_physical", "hw_veb", "midonet", "tap", "vhostuser", "vrouter", "dvs", "vif", "802.1qbg", "802.1qbh"}
}

// networkData describes links, networks and name servers.
func (c *Content) networkData() map[string]any {
	links, nets, services := []any{}, []any{}, []any{}
	seen := map[string]bool{}
	for i, v := range c.in.VIFs {
		id := v.Tap
		if id == "" {
			id = "interface" + strconv.Itoa(i)
		}
		kind := "phy"
		if slices.Contains(oldKinds(), v.Type) {
			kind = v.Type
		}
		var mtu any
		if v.MTU > 0 && !slices.ContainsFunc(v.FixedIPs, func(a network.VIFAddr) bool { return a.DHCP }) {
			mtu = v.MTU
		}
		links = append(links, map[string]any{"id": id, "vif_id": v.PortID, "type": kind, "mtu": mtu, "ethernet_mac_address": v.MAC})
		for _, version := range []int{4, 6} {
			j := slices.IndexFunc(v.FixedIPs, func(a network.VIFAddr) bool { return a.Version == version })
			if j < 0 {
				continue
			}
			nets = append(nets, networkOf(v.FixedIPs[j], v.NetworkID, id, len(nets)))
			for _, dns := range v.FixedIPs[j].DNS {
				if !seen[dns] {
					seen[dns] = true
					services = append(services, map[string]any{"type": "dns", "address": dns})
				}
			}
		}
	}
	return map[string]any{"links": links, "networks": nets, "services": services}
}

func networkOf(a network.VIFAddr, networkID, link string, number int) map[string]any {
	kind := "ipv" + strconv.Itoa(a.Version)
	m := map[string]any{"id": "network" + strconv.Itoa(number), "link": link, "network_id": networkID}
	if a.DHCP {
		m["type"] = kind + "_dhcp"
		return m
	}
	routes := []any{}
	if a.Gateway != "" {
		all := "0.0.0.0"
		if a.Version == 6 {
			all = "::"
		}
		routes = append(routes, map[string]any{"network": all, "netmask": all, "gateway": a.Gateway})
	}
	for _, r := range a.Routes {
		if p, err := netip.ParsePrefix(r.Destination); err == nil {
			routes = append(routes, map[string]any{"network": p.Addr().String(), "netmask": netmask(p), "gateway": r.NextHop})
		}
	}
	dns := []any{}
	for _, s := range a.DNS {
		dns = append(dns, map[string]any{"type": "dns", "address": s})
	}
	m["type"], m["ip_address"], m["routes"], m["services"] = kind, a.Address, routes, dns
	if p, err := netip.ParsePrefix(a.CIDR); err == nil {
		m["netmask"] = netmask(p)
	}
	return m
}

// netmask writes the mask of a prefix as an address.
func netmask(p netip.Prefix) string {
	b := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a.String()
}
