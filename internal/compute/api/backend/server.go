package backend

import (
	"slices"

	"kilonova/internal/compute"
	"kilonova/internal/fault"
)

// MaxTags is how many tags a server may have.
const MaxTags = 50

// NoVolumes is what requests are told that want volumes.
const NoVolumes = "This cloud has no volume service configured: volumes and snapshots of volumes cannot be used."

// SortedSet sorts and removes repeats; nil stays nil.
func SortedSet(in []string) []string {
	if in == nil {
		return nil
	}
	out := slices.Clone(in)
	slices.Sort(out)
	return slices.Compact(out)
}

// HostFault gives the refusal of a host the status that the API has for it.
func HostFault(err error, s *compute.Server) error {
	if fault.IsAway(err) { // that is no word of the host
		return err
	}
	switch fault.KindOf(err) {
	case fault.Unavailable:
		return fault.Wrap(err, fault.Conflict, "The compute service of instance %s does not answer: try again when its host is back.", s.ID)
	case fault.NotFound:
		return fault.Wrap(err, fault.Conflict, "Instance %s is not ready", s.ID)
	}
	return err
}
