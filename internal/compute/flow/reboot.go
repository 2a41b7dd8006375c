package flow

import (
	"context"

	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/operation"
)

// reboot restarts the guest; hard brings it up from any state it may be in. The task state says from acceptance on which of the two it is, so the step
// leaves it.
func (f *flows) reboot() operation.Flow {
	return f.oneCommand(compute.OpReboot, operation.Step{Name: "reboot", Event: "compute_reboot_instance", Deadline: f.StopGrace + longAgo,
		Do: f.doReboot}, becomes(compute.VMActive))
}

func (f *flows) doReboot(ctx context.Context, r *operation.Run) error {
	var in compute.RebootInput
	s, err := f.asked(ctx, r, &in)
	if err != nil {
		return err
	}
	return f.guest(ctx, r, s.Host, command.Reboot, command.RebootArgs{Spec: SpecOf(s), Hard: in.Hard, Grace: f.grace(s)})
}
