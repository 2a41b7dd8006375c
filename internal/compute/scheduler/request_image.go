package scheduler

import (
	"strings"

	"kilonova/internal/fault"
	"kilonova/internal/placement"
)

// imageMetadata turns properties of the image into required traits of the host.
func imageMetadata(b *builder) error {
	if !b.cfg.ImageMetadataPrefilter {
		return nil
	}
	known := placementTraits()
	for _, p := range []struct{ property, prefix string }{
		{"hw_cdrom_bus", "COMPUTE_STORAGE_BUS_"}, {"hw_disk_bus", "COMPUTE_STORAGE_BUS_"}, {"hw_video_model", "COMPUTE_GRAPHICS_MODEL_"},
		{"hw_vif_model", "COMPUTE_NET_VIF_MODEL_"}, {"hw_architecture", "HW_ARCH_"}, {"hw_emulation_architecture", "COMPUTE_ARCH_"},
		{"hw_viommu_model", "COMPUTE_VIOMMU_MODEL_"},
	} {
		v := b.req.Prop(p.property)
		if v == "" {
			continue
		}
		t := p.prefix + strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(v))
		if !known[t] {
			return fault.New(fault.Invalid, "The image property %s has the value %s, for which no trait exists.", p.property, v)
		}
		b.required[t] = true
	}
	return nil
}

func placementTraits() map[string]bool {
	out := map[string]bool{}
	for _, t := range placement.StandardTraits() {
		out[t] = true
	}
	return out
}
