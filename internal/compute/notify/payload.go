package notify

import (
	"cmp"
	"crypto/md5"  //nolint:gosec // the fingerprint that key pairs have
	"crypto/sha1" //nolint:gosec // the fingerprint that key pairs have
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/fault"
)

// powerStates are the names of the power states' numbers.
func powerName(n int) string {
	names := map[int]string{compute.PowerNone: "pending", compute.PowerRunning: "running", compute.PowerPaused: "paused", compute.PowerShutdown: "shutdown",
		compute.PowerCrashed: "crashed", compute.PowerSuspended: "suspended"}
	return cmp.Or(names[n], "pending")
}

// instance makes the fields that every payload of a server has.
func (n *Notifier) instance(s *compute.Server, who initiator) map[string]any {
	ips := []object{}
	for _, v := range s.VIFs {
		for _, a := range v.FixedIPs {
			ips = append(ips, made("IpPayload", map[string]any{"label": v.NetworkName, "mac": v.MAC, "meta": map[string]string{}, "port_uuid": v.PortID, "version": a.Version,
				"address": a.Address, "device_name": orNull(v.Tap)}))
		}
	}
	var devices any
	if n.cfg.BlockDevices {
		devices = volumes(s)
	}
	return map[string]any{
		"uuid": s.ID, "user_id": s.UserID, "tenant_id": s.ProjectID, "reservation_id": s.ReservationID, "display_name": s.Name, "display_description": s.Description,
		"host_name": s.Hostname, "host": orNull(s.Host), "node": orNull(s.Node), "os_type": orNull(s.ImageProps["os_type"]),
		"architecture": orNull(cmp.Or(s.ImageProps["hw_architecture"], s.ImageProps["architecture"])), "availability_zone": orNull(s.AvailabilityZone),
		"flavor": flavor(&s.Flavor, nil), "image_uuid": s.ImageID, "key_name": orNull(s.KeyName), "kernel_id": s.KernelID, "ramdisk_id": s.RamdiskID,
		"created_at": stamp(s.Created), "updated_at": stamp(s.Updated), "launched_at": stamp(s.Launched), "terminated_at": stamp(s.Terminated), "deleted_at": stamp(s.Deleted),
		"state": s.VMState, "task_state": orNull(s.TaskState), "power_state": powerName(s.PowerState), "progress": s.Progress, "ip_addresses": ips, "block_devices": devices,
		"metadata": orEmpty(s.Metadata), "locked": s.Locked, "locked_reason": s.LockedReason, "auto_disk_config": s.DiskConfig, "request_id": orNull(who.request),
		"action_initiator_user": orNull(who.user), "action_initiator_project": orNull(who.project), "shares": nil,
	}
}

// action makes an InstanceActionPayload or, with more fields, one of the payloads derived from it.
func (n *Notifier) action(name string, s *compute.Server, who initiator, why any, more map[string]any) object {
	d := n.instance(s, who)
	d["fault"] = why
	maps.Copy(d, more)
	return made(name, d)
}

// create makes the payload of instance.create; it always has the block devices.
func (n *Notifier) create(s *compute.Server, who initiator, why any) object {
	keys := []object{}
	if s.KeyName != "" {
		keys = append(keys, keypair(&compute.KeyPair{Name: s.KeyName, UserID: s.UserID, Type: cmp.Or(s.KeyType, "ssh"), PublicKey: s.PublicKey, Fingerprint: fingerprint(s.PublicKey)}))
	}
	return n.action("InstanceCreatePayload", s, who, why, map[string]any{"block_devices": volumes(s), "keypairs": keys, "tags": orNone(s.Tags),
		"trusted_image_certificates": certificates(s), "instance_name": fmt.Sprintf("instance-%08x", s.Number)})
}

// update makes the payload of instance.update. oldName is null unless the name changed.
func (n *Notifier) update(s *compute.Server, who initiator, oldState, oldTask string, oldName any) object {
	d := n.instance(s, who)
	begin, now := n.current()
	d["state_update"] = made("InstanceStateUpdatePayload", map[string]any{"old_state": orNull(oldState), "state": s.VMState, "old_task_state": orNull(oldTask),
		"new_task_state": orNull(s.TaskState)})
	d["audit_period"] = audited(begin, now)
	d["old_display_name"], d["tags"] = oldName, orNone(s.Tags)
	return made("InstanceUpdatePayload", d)
}

// exists makes the payload of instance.exists.
func (n *Notifier) exists(s *compute.Server, who initiator, begin, end time.Time) object {
	d := n.instance(s, who)
	d["audit_period"] = audited(begin, end)
	return made("InstanceExistsPayload", d)
}

func audited(begin, end time.Time) object {
	return made("AuditPeriodPayload", map[string]any{"audit_period_beginning": stamp(begin), "audit_period_ending": stamp(end)})
}

func certificates(s *compute.Server) any {
	if len(s.TrustedCerts) == 0 {
		return nil
	}
	return s.TrustedCerts
}

// volumes makes the list of a server's volumes: other block devices are not told of.
func volumes(s *compute.Server) []object {
	out := []object{}
	for _, b := range s.BlockDevices {
		if b.VolumeID == "" {
			continue
		}
		out = append(out, made("BlockDevicePayload", map[string]any{"device_name": orNull(b.Device), "boot_index": b.BootIndex, "delete_on_termination": b.DeleteOnTermination,
			"volume_id": b.VolumeID, "tag": orNull(b.Tag)}))
	}
	return out
}

// flavor makes a FlavorPayload. projects null: not known (a server's own copy has none).
func flavor(f *compute.Flavor, projects []string) object {
	var access any
	if projects != nil {
		access = projects
	}
	return made("FlavorPayload", map[string]any{"flavorid": f.FlavorID, "memory_mb": f.RAMMB, "vcpus": f.VCPUs, "root_gb": f.RootGB, "ephemeral_gb": f.EphemeralGB, "name": f.Name,
		"swap": f.SwapMB, "rxtx_factor": f.RXTX, "vcpu_weight": 0, "disabled": f.Disabled, "is_public": f.Public, "extra_specs": orEmpty(f.ExtraSpecs), "projects": access,
		"description": f.Description})
}

func keypair(k *compute.KeyPair) object {
	return made("KeypairPayload", map[string]any{"user_id": k.UserID, "name": k.Name, "fingerprint": orNull(k.Fingerprint), "public_key": orNull(k.PublicKey), "type": k.Type})
}

// fingerprint is that of a public key as key pairs show it; "" for one that cannot be read.
func fingerprint(key string) string {
	if block, _ := pem.Decode([]byte(key)); block != nil {
		sum := sha1.Sum(block.Bytes) //nolint:gosec // see above
		return colons(sum[:])
	}
	fields := strings.Fields(key)
	if len(fields) < 2 {
		return ""
	}
	raw, err := base64.StdEncoding.DecodeString(fields[1])
	if err != nil {
		return ""
	}
	sum := md5.Sum(raw) //nolint:gosec // see above
	return colons(sum[:])
}

func colons(sum []byte) string {
	out := make([]string, len(sum))
	for i := range sum {
		out[i] = hex.EncodeToString(sum[i : i+1])
	}
	return strings.Join(out, ":")
}

func group(g *compute.ServerGroup) object {
	rules := map[string]string{}
	if g.MaxPerHost > 0 {
		rules["max_server_per_host"] = strconv.Itoa(g.MaxPerHost)
	}
	return made("ServerGroupPayload", map[string]any{"uuid": g.ID, "name": g.Name, "user_id": g.UserID, "project_id": g.ProjectID, "policies": []string{g.Policy}, "policy": g.Policy,
		"rules": rules, "members": orNone(g.Members), "hosts": nil})
}

func aggregate(a *compute.Aggregate) object {
	return made("AggregatePayload", map[string]any{"id": orNull(a.ID), "uuid": a.UUID, "name": a.Name, "hosts": orNone(a.Hosts), "metadata": orEmpty(a.Metadata)})
}

func service(h *compute.Host) object {
	var zone any
	if h.Zone != "" {
		zone = h.Zone
	}
	return made("ServiceStatusPayload", map[string]any{"host": h.Name, "binary": h.Binary, "topic": strings.TrimPrefix(h.Binary, "nova-"), "report_count": 0, "disabled": h.Disabled,
		"disabled_reason": orNull(h.DisabledReason), "availability_zone": zone, "last_seen_up": stamp(h.LastSeen), "forced_down": h.ForcedDown, "version": h.Version, "uuid": h.ServiceID})
}

// exception makes the payload of an error: its kind or code as the name of the class, its public sentence, and as the trace the chain of its causes.
func exception(err error, function string) object {
	name := map[fault.Kind]string{fault.Invalid: "Invalid", fault.Forbidden: "Forbidden", fault.NotFound: "NotFound", fault.Conflict: "Conflict",
		fault.Unavailable: "ServiceUnavailable", fault.NotImplemented: "NotSupported", fault.TooLarge: "TooLarge"}[fault.KindOf(err)]
	var e *fault.Error
	if errors.As(err, &e) && e.Code != "" {
		name = ""
		for _, part := range strings.FieldsFunc(e.Code, func(r rune) bool { return r == '-' || r == '_' || r == '.' }) {
			name += strings.ToUpper(part[:1]) + part[1:]
		}
	}
	return made("ExceptionPayload", map[string]any{"module_name": "kilonova.compute.flow", "function_name": function, "exception": cmp.Or(name, "InternalError"),
		"exception_message": fault.PublicText(err), "traceback": err.Error()})
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

func orNone(l []string) []string {
	if l == nil {
		return []string{}
	}
	return l
}
