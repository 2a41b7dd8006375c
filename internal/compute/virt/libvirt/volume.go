package libvirt

import (
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"

	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/libvirt/definition"
	"kilonova/internal/fault"
)

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
	c := definition.ReadConnection(v.Connection)
	auth := cmp.Or(v.Secrets["auth"], c.Text("auth_password", "keyring"))
	name := "kilonova " + v.VolumeID
	if auth != "" {
		u := usageXML{Type: "ceph", Name: name}
		if c.Kind == "iscsi" {
			u = usageXML{Type: "iscsi", Target: name}
		}
		out[&secretXML{Ephemeral: "no", Private: "yes", UUID: definition.SecretFor(v.VolumeID, "auth"), Usage: u}] = auth
	}
	if luks := cmp.Or(v.Secrets["luks"], c.Text("encryption_passphrase")); luks != "" {
		out[&secretXML{Ephemeral: "no", Private: "yes", UUID: definition.SecretFor(v.VolumeID, "luks"), Usage: usageXML{Type: "volume", Volume: name}}] = luks
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
		u, err := parseUUID(definition.SecretFor(volume, use))
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
	f, unlock, err := d.holdThere(ctx, spec.ID)
	defer unlock()
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
	k, err := definition.Volume(v, o, d.cache)
	if err != nil {
		return err
	}
	if err := d.defineSecrets(ctx, &virt.Spec{ID: spec.ID, Disks: []virt.Disk{v}}); err != nil {
		return err
	}
	return d.plug(ctx, f, deviceRef{alias: definition.VolumeAlias(v.VolumeID)}, func(live *definition.Domain) (string, error) {
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
	if err := d.unplug(ctx, spec.ID, deviceRef{alias: definition.VolumeAlias(v.VolumeID)}); err != nil {
		return err
	}
	return d.removeSecret(ctx, v.VolumeID)
}
