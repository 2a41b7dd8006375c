package libvirt

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"

	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/libvirt/definition"
	"kilonova/internal/fault"
	"kilonova/internal/id"
)

// connection reads the connection that Cinder (or whoever serves volumes) gave: driver_volume_type and data.
type connection struct {
	kind string
	data map[string]any
}

func readConnection(m map[string]any) connection {
	c := connection{data: map[string]any{}}
	c.kind, _ = m["driver_volume_type"].(string)
	if data, ok := m["data"].(map[string]any); ok {
		c.data = data
	}
	return c
}

// text gives the first of the named values that is there, as text.
func (c connection) text(names ...string) string {
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

func (c connection) list(name string) []string {
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

func (c connection) flag(name string) bool {
	b, _ := c.data[name].(bool)
	return b
}

// volumeAlias names a volume's disk, so that it can be found again whatever its target is called.
func volumeAlias(volume string) string { return "ua-" + volume }

// secretFor is the id of the libvirt secret of a volume for one use ("auth", "luks"); the same for ever.
func secretFor(volume, use string) string { return id.Derived("libvirt-secret", volume, use) }

// volumeDisk makes the disk element of a volume, without its target's name.
func (d *Driver) volumeDisk(v virt.Disk, o *definition.Options) (*definition.Disk, error) {
	c := readConnection(v.Connection)
	k := &definition.Disk{Device: "disk", Driver: definition.DiskDriver{Name: "qemu", Type: orElse(c.text("format"), "raw"), Cache: "none", Discard: "unmap"},
		Source: &definition.DiskSource{}, Serial: orElse(v.Serial, v.VolumeID), Alias: &definition.Alias{Name: volumeAlias(v.VolumeID)}}
	if k.Driver.Type != "raw" && k.Driver.Type != "qcow2" {
		return nil, fault.New(fault.NotImplemented, "Volumes of the format %s cannot be attached to this hypervisor.", k.Driver.Type)
	}
	k.Target.Bus = orElse(v.Bus, o.DiskBus)
	if prefixOf(k.Target.Bus) == "sd" && k.Target.Bus != "scsi" && k.Target.Bus != "sata" && k.Target.Bus != "usb" {
		return nil, fault.New(fault.Invalid, "Volumes cannot be attached to the bus %q.", k.Target.Bus)
	}
	source, err := volumeSources()[c.kind], error(nil)
	if source == nil {
		return nil, fault.New(fault.NotImplemented, "Volumes of the type %q cannot be attached to this hypervisor.", c.kind)
	}
	if err = source(c, v, k); err != nil {
		return nil, err
	}
	if k.Type == "file" {
		k.Driver.Cache = d.cache
	}
	if c.text("access_mode") == "ro" || c.text("access_mode") == "readonly" {
		k.ReadOnly = &definition.Present{}
	}
	if multi, _ := v.Connection["multiattach"].(bool); multi || c.flag("multiattach") {
		k.Shareable = &definition.Present{}
	}
	if c.flag("encrypted") || v.Secrets["luks"] != "" {
		k.Encryption = &definition.Encryption{Format: "luks", Secret: definition.SecretRef{Type: "passphrase", UUID: secretFor(v.VolumeID, "luks")}}
	}
	if o.IO != (definition.IOTune{}) {
		k.Tune = &o.IO
	}
	return k, nil
}

// volumeSources says for each type of connection how the disk's source is written.
func volumeSources() map[string]func(connection, virt.Disk, *definition.Disk) error {
	return map[string]func(connection, virt.Disk, *definition.Disk) error{
		"file": fileSource, "local": fileSource, "fibre_channel": fileSource, "nbd": nbdSource, "rbd": rbdSource, "iscsi": iscsiSource,
	}
}

func missing(v virt.Disk, what string) error {
	return fault.New(fault.Invalid, "The connection of the volume %s does not tell its %s.", v.VolumeID, what)
}

func fileSource(c connection, v virt.Disk, k *definition.Disk) error {
	path := c.text("device_path", "path", "file")
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
func hostPort(s, port string) definition.Host {
	if h, p, err := net.SplitHostPort(s); err == nil {
		return definition.Host{Name: h, Port: p}
	}
	return definition.Host{Name: strings.Trim(s, "[]"), Port: port}
}

func nbdSource(c connection, v virt.Disk, k *definition.Disk) error {
	k.Type, k.Source.Protocol, k.Source.Name = "network", "nbd", c.text("name", "export")
	if socket := c.text("socket"); socket != "" {
		k.Source.Hosts = []definition.Host{{Transport: "unix", Socket: socket}}
		return nil
	}
	h := definition.Host{Name: c.text("host", "address"), Port: orElse(c.text("port"), "10809")}
	if h.Name == "" {
		return missing(v, "host")
	}
	k.Source.Hosts = []definition.Host{h}
	return nil
}

func rbdSource(c connection, v virt.Disk, k *definition.Disk) error {
	k.Type, k.Source.Protocol, k.Source.Name = "network", "rbd", c.text("name")
	if !strings.Contains(k.Source.Name, "/") {
		return missing(v, "pool and image")
	}
	ports := c.list("ports")
	for i, h := range c.list("hosts") {
		x := definition.Host{Name: strings.Trim(h, "[]")}
		if i < len(ports) {
			x.Port = ports[i]
		}
		k.Source.Hosts = append(k.Source.Hosts, x)
	}
	if c.flag("auth_enabled") || c.text("auth_username") != "" {
		secret := c.text("secret_uuid")
		if v.Secrets["auth"] != "" || secret == "" {
			secret = secretFor(v.VolumeID, "auth")
		}
		k.Auth = &definition.Auth{Username: c.text("auth_username"), Secret: definition.SecretRef{Type: "ceph", UUID: secret}}
	}
	return nil
}

func iscsiSource(c connection, v virt.Disk, k *definition.Disk) error {
	iqn, portal := c.text("target_iqn"), c.text("target_portal")
	if iqns, portals := c.list("target_iqns"), c.list("target_portals"); iqn == "" && len(iqns) > 0 && len(portals) > 0 {
		iqn, portal = iqns[0], portals[0]
	}
	if iqn == "" || portal == "" {
		return missing(v, "target")
	}
	k.Type, k.Source.Protocol, k.Source.Name = "network", "iscsi", iqn+"/"+orElse(c.text("target_lun"), "0")
	k.Source.Hosts = []definition.Host{hostPort(portal, "3260")}
	if c.text("auth_method") == "CHAP" {
		k.Auth = &definition.Auth{Username: c.text("auth_username"), Secret: definition.SecretRef{Type: "iscsi", UUID: secretFor(v.VolumeID, "auth")}}
	}
	return nil
}

// secretXML is a libvirt secret. Its description names the guest, so that it can be removed with it.
type secretXML struct {
	XMLName     xml.Name `xml:"secret"`
	Ephemeral   string   `xml:"ephemeral,attr"`
	Private     string   `xml:"private,attr"`
	UUID        string   `xml:"uuid"`
	Description string   `xml:"description,omitempty"`
	Usage       usageXML `xml:"usage"`
}

type usageXML struct {
	Type   string `xml:"type,attr"`
	Name   string `xml:"name,omitempty"`
	Target string `xml:"target,omitempty"`
	Volume string `xml:"volume,omitempty"`
}

// secretsOf lists what a volume needs libvirt to keep: definition and value.
func secretsOf(v virt.Disk) map[*secretXML]string {
	out := map[*secretXML]string{}
	c := readConnection(v.Connection)
	auth := orElse(v.Secrets["auth"], c.text("auth_password", "keyring"))
	name := "kilonova " + v.VolumeID
	if auth != "" {
		u := usageXML{Type: "ceph", Name: name}
		if c.kind == "iscsi" {
			u = usageXML{Type: "iscsi", Target: name}
		}
		out[&secretXML{Ephemeral: "no", Private: "yes", UUID: secretFor(v.VolumeID, "auth"), Usage: u}] = auth
	}
	if luks := orElse(v.Secrets["luks"], c.text("encryption_passphrase")); luks != "" {
		out[&secretXML{Ephemeral: "no", Private: "yes", UUID: secretFor(v.VolumeID, "luks"), Usage: usageXML{Type: "volume", Volume: name}}] = luks
	}
	return out
}

// defineSecrets gives libvirt the secrets of all the guest's volumes.
func (d *Driver) defineSecrets(ctx context.Context, spec *virt.Spec) error {
	for _, v := range spec.Disks {
		for s, value := range secretsOf(v) {
			s.Description = "volume of " + spec.ID
			text, err := definition.Encode(s)
			if err != nil {
				return err
			}
			secret, err := d.rpc.DefineSecret(ctx, text)
			if err != nil {
				return fmt.Errorf("keep the volume's secret: %w", err)
			}
			raw := []byte(value)
			if s.Usage.Type == "ceph" {
				if raw, err = decodeBase64(cephKey(value)); err != nil {
					return fault.New(fault.Invalid, "The key of the volume %s is not in base64.", v.VolumeID)
				}
			}
			if err := d.rpc.SetSecret(ctx, secret, raw); err != nil {
				return fmt.Errorf("keep the volume's secret: %w", err)
			}
		}
	}
	return nil
}

// cephKey takes the key out of a keyring file; a key alone stays as it is.
func cephKey(s string) string {
	for line := range strings.Lines(s) {
		if name, v, ok := strings.Cut(line, "="); ok && strings.TrimSpace(name) == "key" {
			return strings.TrimSpace(v)
		}
	}
	return s
}

// removeSecret drops the secrets of a volume.
func (d *Driver) removeSecret(ctx context.Context, volume string) error {
	for _, use := range []string{"auth", "luks"} {
		u, err := parseUUID(secretFor(volume, use))
		if err != nil {
			return err
		}
		s, err := d.rpc.SecretByUUID(ctx, u)
		if err == nil {
			err = d.rpc.UndefineSecret(ctx, s)
		}
		if err != nil && !errors.Is(err, fault.NotFound) {
			return fmt.Errorf("drop the volume's secret: %w", err)
		}
	}
	return nil
}

// removeSecrets drops the secrets of all volumes in a definition.
func (d *Driver) removeSecrets(ctx context.Context, x *definition.Domain) error {
	if x == nil {
		return nil
	}
	for _, k := range x.Devices.Disks {
		if k.Alias != nil && strings.HasPrefix(k.Alias.Name, "ua-") {
			if err := d.removeSecret(ctx, strings.TrimPrefix(k.Alias.Name, "ua-")); err != nil {
				return err
			}
		}
	}
	return nil
}

// AttachVolume plugs a volume into the guest, now when it runs and for its next start.
func (d *Driver) AttachVolume(ctx context.Context, spec *virt.Spec, v virt.Disk) error {
	unlock, err := d.guest(ctx, spec.ID)
	if err != nil {
		return err
	}
	defer unlock()
	f, err := d.must(ctx, spec.ID)
	if err != nil {
		return err
	}
	if f.power == virt.Suspended {
		return conflict("given a volume", f.power)
	}
	o, err := definition.ParseOptions(spec)
	if err != nil {
		return err
	}
	k, err := d.volumeDisk(v, o)
	if err != nil {
		return err
	}
	if err := d.defineSecrets(ctx, &virt.Spec{ID: spec.ID, Disks: []virt.Disk{v}}); err != nil {
		return err
	}
	return d.plug(ctx, f, deviceRef{alias: volumeAlias(v.VolumeID)}, func(live *definition.Domain) (string, error) {
		names := letters{used: map[string]bool{}}
		for _, x := range []*definition.Domain{f.old, live} {
			if x == nil {
				continue
			}
			for _, other := range x.Devices.Disks {
				if other.Alias == nil || other.Alias.Name != k.Alias.Name {
					names.used[other.Target.Dev] = true
				} else {
					v.Device = other.Target.Dev // half attached by an earlier try
				}
			}
		}
		k.Target.Dev = names.next(k.Target.Bus, v.Device)
		return definition.Encode(k)
	})
}

// DetachVolume unplugs it and waits until the guest has let go.
func (d *Driver) DetachVolume(ctx context.Context, spec *virt.Spec, v virt.Disk) error {
	if err := d.unplug(ctx, spec.ID, deviceRef{alias: volumeAlias(v.VolumeID)}); err != nil {
		return err
	}
	return d.removeSecret(ctx, v.VolumeID)
}
