package flow

import (
	"context"

	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/db"
	"kilonova/internal/operation"
)

// The flows of one command on the server's host. Each fails without changing the server: the fault is kept, the task state ends.

// oneCommand is the flow of a single step; end changes the server when it is done.
func (f *flows) oneCommand(kind string, step operation.Step, end func(s *compute.Server, r *operation.Run)) operation.Flow {
	step.Undo = f.lookAgain
	return operation.Flow{
		Kind:  kind,
		Steps: []operation.Step{step},
		Done: func(ctx context.Context, tx *db.Tx, r *operation.Run) error {
			return f.update(ctx, tx, r, func(s *compute.Server) { power(r, s); end(s, r) })
		},
		Undone: f.keepFaultAndPower,
	}
}

// on makes a Do that sends verb to the server's host, with the arguments that args makes of the server.
func (f *flows) on(verb command.Verb, args func(s *compute.Server) any) func(context.Context, *operation.Run) error {
	return func(ctx context.Context, r *operation.Run) error {
		s, err := f.server(ctx, r)
		if err != nil {
			return err
		}
		return f.guest(ctx, r, s.Host, verb, args(s))
	}
}

func withSpec(s *compute.Server) any { return command.SpecArgs{Spec: SpecOf(s)} }
func none(*compute.Server) any       { return struct{}{} }

func (f *flows) withGrace(s *compute.Server) any { return command.PowerOffArgs{Grace: f.grace(s)} }

func becomes(state string) func(*compute.Server, *operation.Run) {
	return func(s *compute.Server, _ *operation.Run) { s.VMState = state }
}

func (f *flows) start() operation.Flow {
	return f.oneCommand(compute.OpStart, operation.Step{Name: "power-on", Event: "compute_start_instance", TaskState: compute.TaskPoweringOn,
		Do: f.on(command.PowerOn, withSpec)}, becomes(compute.VMActive))
}

func (f *flows) stop() operation.Flow {
	return f.oneCommand(compute.OpStop, operation.Step{Name: "power-off", Event: "compute_stop_instance", TaskState: compute.TaskPoweringOff,
		Deadline: f.StopGrace + longAgo, Do: f.on(command.PowerOff, f.withGrace)}, becomes(compute.VMStopped))
}

func (f *flows) pause() operation.Flow {
	return f.oneCommand(compute.OpPause, operation.Step{Name: "pause", Event: "compute_pause_instance", TaskState: compute.TaskPausing,
		Do: f.on(command.Pause, none)}, becomes(compute.VMPaused))
}

func (f *flows) unpause() operation.Flow {
	return f.oneCommand(compute.OpUnpause, operation.Step{Name: "unpause", Event: "compute_unpause_instance", TaskState: compute.TaskUnpausing,
		Do: f.on(command.Unpause, none)}, becomes(compute.VMActive))
}

func (f *flows) suspend() operation.Flow {
	return f.oneCommand(compute.OpSuspend, operation.Step{Name: "suspend", Event: "compute_suspend_instance", TaskState: compute.TaskSuspending,
		Deadline: f.BuildDeadline, Do: f.on(command.Suspend, none)}, becomes(compute.VMSuspended))
}

func (f *flows) resume() operation.Flow {
	return f.oneCommand(compute.OpResume, operation.Step{Name: "resume", Event: "compute_resume_instance", TaskState: compute.TaskResuming,
		Deadline: f.BuildDeadline, Do: f.on(command.Resume, withSpec)}, becomes(compute.VMActive))
}

func (f *flows) password() operation.Flow {
	return f.oneCommand(compute.OpPassword, operation.Step{Name: "set-password", Event: "compute_set_admin_password", TaskState: compute.TaskUpdatingPassword,
		Do: f.setPassword}, func(*compute.Server, *operation.Run) {})
}

func (f *flows) setPassword(ctx context.Context, r *operation.Run) error {
	var in compute.PasswordInput
	s, err := f.asked(ctx, r, &in)
	if err != nil {
		return err
	}
	return f.ask(ctx, r, s.Host, command.SetPassword, command.PasswordArgs{User: s.ImageProps["os_admin_user"], Password: in.Password}, nil)
}

func (f *flows) crashDump() operation.Flow {
	return f.oneCommand(compute.OpCrashDump, operation.Step{Name: "crash-dump", Event: "compute_trigger_crash_dump", Do: f.dump}, func(*compute.Server, *operation.Run) {})
}

func (f *flows) dump(ctx context.Context, r *operation.Run) error {
	s, err := f.server(ctx, r)
	if err != nil {
		return err
	}
	return f.ask(ctx, r, s.Host, command.CrashDump, struct{}{}, nil)
}
