package flow

import (
	"context"
	"fmt"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/db"
	"kilonova/internal/operation"
)

// rescue boots the guest from the rescue image with its own disk beside.
func (f *flows) rescue() operation.Flow {
	return operation.Flow{
		Kind: compute.OpRescue,
		Steps: []operation.Step{
			{Name: "rescue", Event: "compute_rescue_instance", TaskState: compute.TaskRescuing, Deadline: f.BuildDeadline, Do: f.doRescue, Undo: f.lookAgain},
		},
		Done: func(ctx context.Context, tx *db.Tx, r *operation.Run) error {
			return f.update(ctx, tx, r, func(s *compute.Server) {
				power(r, s)
				s.VMState, s.Launched = compute.VMRescued, clock.Now()
			})
		},
		Undone: f.keepFaultAndPower,
	}
}

func (f *flows) doRescue(ctx context.Context, r *operation.Run) error {
	var in compute.RescueInput
	s, err := f.asked(ctx, r, &in)
	if err != nil {
		return err
	}
	if err := f.guest(ctx, r, s.Host, command.Rescue, command.RescueArgs{Spec: SpecOf(s), ImageID: in.ImageID, Props: in.ImageProps, AdminPass: in.AdminPass}); err != nil {
		return fmt.Errorf("rescue: %w", err)
	}
	return nil
}

// unrescue boots the guest from its own disk again.
func (f *flows) unrescue() operation.Flow {
	return f.oneCommand(compute.OpUnrescue, operation.Step{Name: "unrescue", Event: "compute_unrescue_instance", TaskState: compute.TaskUnrescuing,
		Deadline: f.BuildDeadline, Do: f.on(command.Unrescue, withSpec)}, becomes(compute.VMActive))
}
