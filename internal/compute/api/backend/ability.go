package backend

import (
	"context"
	"slices"

	"kilonova/internal/compute"
	"kilonova/internal/fault"
)

// ability is what an operation needs of the hypervisor: the trait by which a host's agent tells that its driver has it, and how its absence is refused. The
// kinds are those that the API has for each operation.
type ability struct {
	trait string
	kind  fault.Kind
	doing string
}

func abilities() map[string]ability {
	return map[string]ability{
		compute.OpPause:     {"CUSTOM_KILONOVA_PAUSE", fault.NotImplemented, "pause servers"},
		compute.OpUnpause:   {"CUSTOM_KILONOVA_PAUSE", fault.NotImplemented, "unpause servers"},
		compute.OpSuspend:   {"CUSTOM_KILONOVA_SUSPEND", fault.Conflict, "suspend servers"},
		compute.OpResume:    {"CUSTOM_KILONOVA_SUSPEND", fault.Conflict, "resume servers"},
		compute.OpRescue:    {"CUSTOM_KILONOVA_RESCUE", fault.NotImplemented, "rescue servers"},
		compute.OpUnrescue:  {"CUSTOM_KILONOVA_RESCUE", fault.NotImplemented, "unrescue servers"},
		compute.OpPassword:  {"CUSTOM_KILONOVA_PASSWORD", fault.NotImplemented, "set passwords"},
		compute.OpAttachNIC: {"COMPUTE_NET_ATTACH_INTERFACE", fault.NotImplemented, "attach interfaces"},
		compute.OpDetachNIC: {"COMPUTE_NET_ATTACH_INTERFACE", fault.NotImplemented, "detach interfaces"},
		compute.OpCrashDump: {"CUSTOM_KILONOVA_CRASH_DUMP", fault.Invalid, "trigger crash dumps"},
		compute.OpSnapshot:  {"CUSTOM_KILONOVA_SNAPSHOT", fault.Conflict, "make snapshots"},
		compute.OpBackup:    {"CUSTOM_KILONOVA_SNAPSHOT", fault.Conflict, "make snapshots"},
		compute.OpShelve:    {"CUSTOM_KILONOVA_SNAPSHOT", fault.Conflict, "shelve servers"},
		compute.OpResize:    {"CUSTOM_KILONOVA_RESIZE", fault.Conflict, "resize servers"},
		compute.DoMigrate:   {"CUSTOM_KILONOVA_RESIZE", fault.Conflict, "migrate servers"},
	}
}

// aliveTrait is what every host's agent reports: a provider without it has not been described, and nothing follows from what it lacks.
const aliveTrait = "COMPUTE_NODE"

// able refuses an operation that the hypervisor of the server's host does not have. When placement cannot tell, the operation finds out for itself.
func (b *Backend) able(ctx context.Context, s *compute.Server, op string) error {
	need, ok := b.abilities[op]
	if !ok || b.Placement == nil || s.ComputeID == "" {
		return nil
	}
	providers, err := b.Placement.Providers(ctx, s.ComputeID)
	if err != nil || len(providers) != 1 || !slices.Contains(providers[0].Traits, aliveTrait) || slices.Contains(providers[0].Traits, need.trait) {
		return nil
	}
	return fault.New(need.kind, "The hypervisor of instance %s cannot %s.", s.ID, need.doing)
}
