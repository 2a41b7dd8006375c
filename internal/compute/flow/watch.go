package flow

import (
	"kilonova/internal/compute"
	"kilonova/internal/operation"
)

// What those who watch operations may ask of a run.

// CodeExhausted marks the error of an operation that has tried as many hosts as it may.
const CodeExhausted = "max-retries-exceeded"

// Source is the host that a move leaves, where a server was when the operation began; "" when the operation has not looked yet.
func Source(r *operation.Run) string { return from(r).Host }

// Target is the host that was chosen; "" before.
func Target(r *operation.Run) string { return placeOf(r).Host }

// Tried are the hosts that failed already.
func Tried(r *operation.Run) []string { return excluded(r) }

// Passed tells whether the way back found an effect that cannot be taken back: the operation then counts as done although it ends as undone.
func Passed(r *operation.Run) bool { return passed(r) }

// NewImage tells whether a rebuild brings another image, for which the host is judged anew.
func NewImage(r *operation.Run) bool {
	var in compute.RebuildInput
	return r.Bind(&in) == nil && in.NewImage
}

// ShelvesImage tells whether shelving keeps an image of the disk.
func ShelvesImage(r *operation.Run) bool { return shelveImage(r) != "" }

// Leaves tells whether shelving takes the server off its host at once.
func Leaves(r *operation.Run) bool { return offloads(r) }

// Spawns tells whether unshelving makes the guest anew, since the server had left its host.
func Spawns(r *operation.Run) bool { return !stays(r) }
