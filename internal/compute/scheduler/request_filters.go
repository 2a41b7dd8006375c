package scheduler

import (
	"fmt"
	"slices"
	"strings"

	"kilonova/internal/fault"
)

// requestFilter adds to the placement query before it is asked.
type requestFilter struct {
	name  string
	apply func(b *builder) error
}

// requestFilters are the filters in their order.
func requestFilters() []requestFilter {
	return []requestFilter{
		{"require_tenant_aggregate", tenantAggregate},
		{"map_az_to_placement_aggregate", zoneAggregate},
		{"require_image_type_support", imageType},
		{"compute_status_filter", computeStatus},
		{"isolate_aggregates", isolateAggregates},
		{"transform_image_metadata", imageMetadata},
		{"accelerators_filter", accelerators},
		{"packed_virtqueue_filter", packedVirtqueue},
		{"routed_networks_filter", routedNetworks},
		{"remote_managed_ports_filter", remoteManagedPorts},
		{"ephemeral_encryption_filter", ephemeralEncryption},
		{"virtio_sound_filter", virtioSound},
		{"tpm_secret_security_filter", tpmSecretSecurity},
		{"owner_nova_filter", ownerNova},
	}
}

func refused(format string, args ...any) error {
	return fault.New(fault.Internal, "No valid host was found. %s", fmt.Sprintf(format, args...)).WithCode("no-valid-host")
}

// tenantAggregate keeps a project to the aggregates that name it.
func tenantAggregate(b *builder) error {
	if !b.cfg.LimitTenantsToPlacementAggregate {
		return nil
	}
	var own []string
	for _, a := range b.cloud.Aggregates {
		for key, value := range a.Metadata {
			if strings.HasPrefix(key, "filter_tenant_id") && value == b.req.ProjectID {
				own = append(own, a.UUID)
				break
			}
		}
	}
	if len(own) > 0 {
		slices.Sort(own)
		b.group.MemberOf = append(b.group.MemberOf, own)
		return nil
	}
	if b.cfg.PlacementAggregateRequiredForTenants {
		return refused("No aggregate names the project %s in filter_tenant_id.", b.req.ProjectID)
	}
	return nil
}

// zoneAggregate keeps the server to the aggregates of its availability zone. The default zone is that of the hosts which no other zone has.
func zoneAggregate(b *builder) error {
	if b.req.Zone == "" {
		return nil
	}
	var in, others []string
	for _, a := range b.cloud.Aggregates {
		switch zone := a.Metadata["availability_zone"]; zone {
		case b.req.Zone:
			in = append(in, a.UUID)
		case "":
		default:
			others = append(others, a.UUID)
		}
	}
	slices.Sort(in)
	switch {
	case b.req.Zone == b.cfg.DefaultZone:
		b.group.NotMemberOf = append(b.group.NotMemberOf, others...)
		slices.Sort(b.group.NotMemberOf)
	case len(in) == 0:
		return refused("No aggregate is the availability zone %s.", b.req.Zone)
	default:
		b.group.MemberOf = append(b.group.MemberOf, in)
	}
	return nil
}

// imageType asks for hosts that can use the image's disk format.
func imageType(b *builder) error {
	if b.cfg.QueryPlacementForImageTypeSupport && !b.req.FromVolume && b.req.Image.DiskFormat != "" {
		b.required["COMPUTE_IMAGE_TYPE_"+strings.ToUpper(b.req.Image.DiskFormat)] = true
	}
	return nil
}

// computeStatus leaves disabled hosts out.
func computeStatus(b *builder) error {
	b.forbidden["COMPUTE_STATUS_DISABLED"] = true
	return nil
}

// isolateAggregates leaves out the aggregates that are reserved for a trait which the server does not ask for.
func isolateAggregates(b *builder) error {
	if !b.cfg.EnableIsolatedAggregateFiltering {
		return nil
	}
	asked := map[string]bool{}
	for _, choice := range b.group.Required {
		asked[choice[0]] = true
	}
	for _, g := range b.suffixed {
		for _, choice := range g.Required {
			asked[choice[0]] = true
		}
	}
	for _, a := range b.cloud.Aggregates {
		for key, value := range a.Metadata {
			if t, ok := strings.CutPrefix(key, "trait:"); ok && value == "required" && !asked[t] {
				b.group.NotMemberOf = append(b.group.NotMemberOf, a.UUID)
				break
			}
		}
	}
	slices.Sort(b.group.NotMemberOf)
	return nil
}

// accelerators asks for hosts that can use a device profile.
func accelerators(b *builder) error {
	if b.req.Spec("accel:device_profile") != "" {
		b.required["COMPUTE_ACCELERATORS"] = true
	}
	return nil
}

// packedVirtqueue asks for hosts with packed virtqueues.
func packedVirtqueue(b *builder) error {
	if v, _ := b.req.FlavorOrImage("virtio_packed_ring"); True(v) {
		b.required["COMPUTE_NET_VIRTIO_PACKED"] = true
	}
	return nil
}

// routedNetworks keeps the server where each network's segments reach.
func routedNetworks(b *builder) error {
	if !b.cfg.QueryPlacementForRoutedNetworkAggregate {
		return nil
	}
	for _, p := range b.req.Ports {
		switch {
		case len(p.Aggregates) > 0:
			b.group.MemberOf = append(b.group.MemberOf, p.Aggregates)
		case p.Segments:
			return refused("A requested network has segments, but none of them has an aggregate.")
		}
	}
	return nil
}

// remoteManagedPorts asks for hosts that can drive such ports.
func remoteManagedPorts(b *builder) error {
	if slices.ContainsFunc(b.req.Ports, func(p Port) bool { return p.VNICType == "remote-managed" }) {
		b.required["COMPUTE_REMOTE_MANAGED_PORTS"] = true
	}
	return nil
}

// ephemeralEncryption asks for hosts that can encrypt local disks.
func ephemeralEncryption(b *builder) error {
	if v, _ := b.req.FlavorOrImage("ephemeral_encryption"); !True(v) {
		return nil
	}
	b.required["COMPUTE_EPHEMERAL_ENCRYPTION"] = true
	if f, _ := b.req.FlavorOrImage("ephemeral_encryption_format"); f != "" {
		b.required["COMPUTE_EPHEMERAL_ENCRYPTION_"+strings.ToUpper(f)] = true
	}
	return nil
}

// virtioSound asks for hosts with that sound device.
func virtioSound(b *builder) error {
	if m, _ := b.req.FlavorOrImage("sound_model"); m == "virtio" {
		b.required["COMPUTE_SOUND_MODEL_VIRTIO"] = true
	}
	return nil
}

// tpmSecretSecurity asks for hosts that keep a TPM's secret as the flavor wants.
func tpmSecretSecurity(b *builder) error {
	if version, _ := b.tpm(); version == "" {
		return nil
	}
	s := b.req.Spec("hw:tpm_secret_security")
	if s == "" {
		s = "user"
	}
	b.required["COMPUTE_SECURITY_TPM_SECRET_SECURITY_"+strings.ToUpper(s)] = true
	return nil
}

// ownerNova asks for providers that are compute's own, once every host says so.
func ownerNova(b *builder) error {
	if b.cfg.OwnerTraitFromAllComputes {
		b.required["OWNER_NOVA"] = true
	}
	return nil
}
