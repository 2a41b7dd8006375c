package definition

import (
	"cmp"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"

	"kilonova/internal/compute/virt"
	"kilonova/internal/fault"
	"kilonova/internal/id"
)

// Connection reads the connection that Cinder (or whoever serves volumes) gave: driver_volume_type and data.
type Connection struct {
	Kind string // driver_volume_type
	data map[string]any
}

// ReadConnection reads a connection; what is not there is empty.
func ReadConnection(m map[string]any) Connection {
	c := Connection{data: map[string]any{}}
	c.Kind, _ = m["driver_volume_type"].(string)
	if data, ok := m["data"].(map[string]any); ok {
		c.data = data
	}
	return c
}

// Text gives the first of the named values that is there, as text.
func (c Connection) Text(names ...string) string {
	for _, n := range names {
		switch v := c.data[n].(type) {
		case string:
			if v != "" {
				return v
			}
		case float64:
			return strconv.FormatInt(int64(v), 10)
		case int:
			return strconv.Itoa(v)
		case int64:
			return strconv.FormatInt(v, 10)
		}
	}
	return ""
}

func (c Connection) list(name string) []string {
	var out []string
	switch v := c.data[name].(type) {
	case []any:
		for _, x := range v {
			out = append(out, fmt.Sprint(x))
		}
	case []string:
		out = v
	}
	return out
}

func (c Connection) flag(name string) bool {
	b, _ := c.data[name].(bool)
	return b
}

// VolumeAlias names a volume's disk, so that it can be found again whatever its target is called.
func VolumeAlias(volume string) string { return "ua-" + volume }

// SecretFor is the id of the libvirt secret of a volume for one use ("auth", "luks"); the same for ever.
func SecretFor(volume, use string) string { return id.Derived("libvirt-secret", volume, use) }

// Volume makes the disk element of a volume, without its target's name. cache is the cache mode of files.
func Volume(v virt.Disk, o *Options, cache string) (*Disk, error) {
	c := ReadConnection(v.Connection)
	k := &Disk{Device: "disk", Driver: DiskDriver{Name: "qemu", Type: cmp.Or(c.Text("format"), "raw"), Cache: "none", Discard: "unmap"},
		Source: &DiskSource{}, Serial: cmp.Or(v.Serial, v.VolumeID), Alias: &Alias{Name: VolumeAlias(v.VolumeID)}}
	if k.Driver.Type != "raw" && k.Driver.Type != "qcow2" {
		return nil, fault.New(fault.NotImplemented, "Volumes of the format %s cannot be attached to this hypervisor.", k.Driver.Type)
	}
	k.Target.Bus = cmp.Or(v.Bus, o.DiskBus)
	if TargetPrefix(k.Target.Bus) == "sd" && k.Target.Bus != "scsi" && k.Target.Bus != "sata" && k.Target.Bus != "usb" {
		return nil, fault.New(fault.Invalid, "Volumes cannot be attached to the bus %q.", k.Target.Bus)
	}
	source, err := volumeSources()[c.Kind], error(nil)
	if source == nil {
		return nil, fault.New(fault.NotImplemented, "Volumes of the type %q cannot be attached to this hypervisor.", c.Kind)
	}
	if err = source(c, v, k); err != nil {
		return nil, err
	}
	if k.Type == "file" {
		k.Driver.Cache = cache
	}
	if c.Text("access_mode") == "ro" || c.Text("access_mode") == "readonly" {
		k.ReadOnly = &Present{}
	}
	if multi, _ := v.Connection["multiattach"].(bool); multi || c.flag("multiattach") {
		k.Shareable = &Present{}
	}
	if c.flag("encrypted") || v.Secrets["luks"] != "" {
		k.Encryption = &Encryption{Format: "luks", Secret: SecretRef{Type: "passphrase", UUID: SecretFor(v.VolumeID, "luks")}}
	}
	if o.IO != (IOTune{}) {
		k.Tune = &o.IO
	}
	return k, nil
}

// volumeSources says for each type of connection how the disk's source is written.
func volumeSources() map[string]func(Connection, virt.Disk, *Disk) error {
	return map[string]func(Connection, virt.Disk, *Disk) error{
		"file": fileSource, "local": fileSource, "fibre_channel": fileSource, "nbd": nbdSource, "rbd": rbdSource, "iscsi": iscsiSource,
	}
}

func missing(v virt.Disk, what string) error {
	return fault.New(fault.Invalid, "The connection of the volume %s does not tell its %s.", v.VolumeID, what)
}

func fileSource(c Connection, v virt.Disk, k *Disk) error {
	path := c.Text("device_path", "path", "file")
	if !filepath.IsAbs(path) || path != filepath.Clean(path) {
		return missing(v, "path")
	}
	if strings.HasPrefix(path, "/dev/") {
		k.Type, k.Source.Dev = "block", path
		k.Driver.IO = "native"
	} else {
		k.Type, k.Source.File = "file", path
	}
	return nil
}

// hostPort splits "192.0.2.1:3260", with brackets around IPv6 addresses.
func hostPort(s, port string) Host {
	if h, p, err := net.SplitHostPort(s); err == nil {
		return Host{Name: h, Port: p}
	}
	return Host{Name: strings.Trim(s, "[]"), Port: port}
}

func nbdSource(c Connection, v virt.Disk, k *Disk) error {
	k.Type, k.Source.Protocol, k.Source.Name = "network", "nbd", c.Text("name", "export")
	if socket := c.Text("socket"); socket != "" {
		k.Source.Hosts = []Host{{Transport: "unix", Socket: socket}}
		return nil
	}
	h := Host{Name: c.Text("host", "address"), Port: cmp.Or(c.Text("port"), "10809")}
	if h.Name == "" {
		return missing(v, "host")
	}
	k.Source.Hosts = []Host{h}
	return nil
}

func rbdSource(c Connection, v virt.Disk, k *Disk) error {
	k.Type, k.Source.Protocol, k.Source.Name = "network", "rbd", c.Text("name")
	if !strings.Contains(k.Source.Name, "/") {
		return missing(v, "pool and image")
	}
	ports := c.list("ports")
	for i, h := range c.list("hosts") {
		x := Host{Name: strings.Trim(h, "[]")}
		if i < len(ports) {
			x.Port = ports[i]
		}
		k.Source.Hosts = append(k.Source.Hosts, x)
	}
	if c.flag("auth_enabled") || c.Text("auth_username") != "" {
		secret := c.Text("secret_uuid")
		if v.Secrets["auth"] != "" || secret == "" {
			secret = SecretFor(v.VolumeID, "auth")
		}
		k.Auth = &Auth{Username: c.Text("auth_username"), Secret: SecretRef{Type: "ceph", UUID: secret}}
	}
	return nil
}

func iscsiSource(c Connection, v virt.Disk, k *Disk) error {
	iqn, portal := c.Text("target_iqn"), c.Text("target_portal")
	if iqns, portals := c.list("target_iqns"), c.list("target_portals"); iqn == "" && len(iqns) > 0 && len(portals) > 0 {
		iqn, portal = iqns[0], portals[0]
	}
	if iqn == "" || portal == "" {
		return missing(v, "target")
	}
	k.Type, k.Source.Protocol, k.Source.Name = "network", "iscsi", iqn+"/"+cmp.Or(c.Text("target_lun"), "0")
	k.Source.Hosts = []Host{hostPort(portal, "3260")}
	if c.Text("auth_method") == "CHAP" {
		k.Auth = &Auth{Username: c.Text("auth_username"), Secret: SecretRef{Type: "iscsi", UUID: SecretFor(v.VolumeID, "auth")}}
	}
	return nil
}

// TargetPrefix is what the target names of disks on a bus begin with.
func TargetPrefix(bus string) string {
	switch bus {
	case "virtio":
		return "vd"
	case "ide":
		return "hd"
	}
	return "sd"
}
