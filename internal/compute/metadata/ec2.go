package metadata

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// EC2Versions lists the versions of the EC2 tree, the oldest first.
func EC2Versions() []string {
	return []string{"1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01", "2008-09-01", "2009-04-04"}
}

// nameKey marks the name under which a directory stands in its parent's list.
const nameKey = "_name"

// ec2 is the meta-data tree of a version: strings, lists of lines, and directories.
func (c *Content) ec2(version string) map[string]any {
	in := &c.in
	local, public := c.addresses()
	m := map[string]any{"ami-id": ec2ID("ami", in.ImageID), "ami-launch-index": strconv.Itoa(in.LaunchIndex), "ami-manifest-path": "FIXME",
		"instance-id": fmt.Sprintf("i-%08x", in.Number), "hostname": c.hostname(), "local-ipv4": local, "reservation-id": in.ReservationID,
		"security-groups": in.SecurityGroups}
	if in.KeyName != "" {
		m["public-keys"] = map[string]any{"0": map[string]any{nameKey: "0=" + in.KeyName, "openssh-key": in.PublicKey}}
	}
	if atLeast(version, "2007-01-19") {
		m["local-hostname"], m["public-hostname"], m["public-ipv4"] = c.hostname(), c.hostname(), public
	}
	if atLeast(version, "2007-08-29") {
		m["instance-type"] = in.Flavor
	}
	if atLeast(version, "2007-12-15") {
		m["block-device-mapping"] = c.mapping()
		if in.KernelID != "" {
			m["kernel-id"] = ec2ID("aki", in.KernelID)
		}
		if in.RamdiskID != "" {
			m["ramdisk-id"] = ec2ID("ari", in.RamdiskID)
		}
	}
	if atLeast(version, "2008-02-01") {
		m["placement"] = map[string]any{"availability-zone": in.AvailabilityZone}
	}
	if atLeast(version, "2008-09-01") {
		m["instance-action"] = "none"
	}
	if version == "1.0" {
		for k := range m {
			if !slices.Contains([]string{"ami-id", "ami-launch-index", "ami-manifest-path", "instance-id", "hostname", "local-ipv4", "reservation-id", "security-groups", "public-keys"}, k) {
				delete(m, k)
			}
		}
	}
	return m
}

// addresses gives the first fixed IPv4 address and the first floating one.
func (c *Content) addresses() (local, public string) {
	for _, v := range c.in.VIFs {
		for _, a := range v.FixedIPs {
			if a.Version == 4 && local == "" {
				local = a.Address
			}
		}
		for _, a := range v.Floating {
			if a.Version != 6 && public == "" {
				public = a.Address
			}
		}
	}
	return local, public
}

// mapping is the block device mapping.
func (c *Content) mapping() map[string]any {
	root := c.in.RootDevice
	if root == "" {
		root = "/dev/vda"
	}
	m := map[string]any{"ami": strings.TrimPrefix(root, "/dev/"), "root": root}
	count := map[string]int{}
	for _, d := range c.in.Disks {
		name := d.Kind
		if d.Kind != "swap" {
			name += strconv.Itoa(count[d.Kind])
		}
		count[d.Kind]++
		m[name] = d.Device
	}
	return m
}

// listing is the text of a directory: one name per line, directories with a slash or under the name that they have.
func listing(dir map[string]any) string {
	var lines []string
	for _, k := range slices.Sorted(maps.Keys(dir)) {
		if k == nameKey {
			continue
		}
		switch v := dir[k].(type) {
		case map[string]any:
			if name, ok := v[nameKey].(string); ok {
				lines = append(lines, name)
			} else {
				lines = append(lines, k+"/")
			}
		default:
			lines = append(lines, k)
		}
	}
	return strings.Join(lines, "\n")
}

// leaf is the text of a value.
func leaf(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []string:
		return strings.Join(v, "\n")
	case map[string]any:
		return listing(v)
	}
	return fmt.Sprint(v)
}
