package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/owed"
	"kilonova/internal/compute/virt"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/operation"
)

// try asks a host once. It fails with fault.Unavailable while the host does not answer.
func (f *flows) try(ctx context.Context, r *operation.Run, host string, verb command.Verb, args, out any) error {
	return f.send(ctx, r, host, verb, "", args, out)
}

func (f *flows) send(ctx context.Context, r *operation.Run, host string, verb command.Verb, suffix string, args, out any) error {
	r.Host = host
	return f.Agents.Do(ctx, host, command.Command{Operation: r.ID, Step: r.StepName + "." + string(verb) + suffix, Attempt: r.Attempt, Epoch: r.Epoch,
		Server: r.Object, RequestID: r.RequestID, Verb: verb}, args, out)
}

// ask is try that is patient with a host which does not answer at the moment (its agent restarts) and gives up, with an error that is not retried,
// when the host is down or stays silent. stop may end it before it asks again.
func (f *flows) ask(ctx context.Context, r *operation.Run, host string, verb command.Verb, args, out any, stop ...func(context.Context, *operation.Run) error) error {
	if host == "" {
		return fault.New(fault.Conflict, "Instance %s is not on a host.", r.Object)
	}
	until, pause := time.Now().Add(f.Patience), 50*time.Millisecond
	for {
		err := f.payFirst(ctx, r, host)
		if err == nil {
			err = f.try(ctx, r, host, verb, args, out)
		}
		if !errors.Is(err, fault.Unavailable) {
			return err
		}
		if f.Placer.Down(ctx, host) || time.Now().After(until) {
			return fault.Wrap(err, fault.Internal, "The compute service on host %s does not answer.", host)
		}
		for _, s := range stop {
			if err := s(ctx, r); err != nil {
				return err
			}
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
		pause = min(2*pause, time.Second)
	}
}

// payFirst has a host that was down do what it still owes for the server before anything else is asked of it: the host would refuse it afterwards, for it
// carries an older epoch. Servers that were never active owe nothing but destruction, which is not done here: Place keeps them from such hosts.
func (f *flows) payFirst(ctx context.Context, r *operation.Run, host string) error {
	if r.Kind == compute.OpCreate {
		return nil
	}
	debts, err := f.Owed.OfServer(ctx, f.Store.DB, r.Object)
	if err != nil {
		return err
	}
	for _, d := range debts {
		if d.Host != host || d.Verb == command.Destroy {
			continue
		}
		err := f.Agents.Do(ctx, host, command.Command{Operation: r.ID, Step: "owed." + string(d.Verb), Attempt: r.Attempt, Epoch: r.Epoch, Server: r.Object, RequestID: r.RequestID, Verb: d.Verb}, d.Args, nil)
		if gone(err) != nil {
			return err
		}
		if err := f.Owed.SettleNow(ctx, host, r.Object, r.Epoch); err != nil {
			return err
		}
	}
	return nil
}

// undoOn asks a host to take something back. A host that is down owes it; one that is only silent is asked again by the engine.
func (f *flows) undoOn(ctx context.Context, r *operation.Run, host string, verb command.Verb, args any, why string) error {
	if host == "" {
		return nil
	}
	err := f.send(ctx, r, host, verb, "/undo", args, nil)
	return f.orOwe(ctx, r, host, verb, args, why, err)
}

// must is undoOn for the forward way of operations that do not wait for dead hosts.
func (f *flows) must(ctx context.Context, r *operation.Run, host string, verb command.Verb, args any, why string) error {
	if host == "" {
		return nil
	}
	err := f.try(ctx, r, host, verb, args, nil)
	return f.orOwe(ctx, r, host, verb, args, why, err)
}

func (f *flows) orOwe(ctx context.Context, r *operation.Run, host string, verb command.Verb, args any, why string, err error) error {
	switch {
	case err == nil:
		return f.Owed.SettleNow(ctx, host, r.Object, r.Epoch)
	case verb == command.Destroy && errors.Is(err, fault.NotFound):
		return nil
	case f.silent(ctx, host, err):
		return f.owe(ctx, r, host, verb, args, why)
	}
	return err
}

// silent tells whether err comes of a host that is down, and is no word of its agent, nor of a database that is away.
func (f *flows) silent(ctx context.Context, host string, err error) bool {
	return errors.Is(err, fault.Unavailable) && !db.IsAway(err) && f.Placer.Down(ctx, host)
}

func (f *flows) owe(ctx context.Context, r *operation.Run, host string, verb command.Verb, args any, why string) error {
	return f.Store.DB.Write(ctx, func(tx *db.Tx) error { return f.oweTx(ctx, tx, r, host, verb, args, why) })
}

func (f *flows) oweTx(ctx context.Context, tx *db.Tx, r *operation.Run, host string, verb command.Verb, args any, why string) error {
	raw, err := json.Marshal(args)
	if err != nil {
		return fmt.Errorf("owe %s: %w", verb, err)
	}
	return f.Owed.Add(ctx, tx, owed.Debt{Host: host, Server: r.Object, Operation: r.ID, Epoch: r.Epoch, Verb: verb, Args: raw, Reason: why})
}

// server reads the server that the operation is about.
func (f *flows) server(ctx context.Context, r *operation.Run) (*compute.Server, error) {
	return f.Store.Server(ctx, f.Store.DB, r.Object)
}

// asked reads what the operation was asked for, and the server.
func (f *flows) asked(ctx context.Context, r *operation.Run, in any) (*compute.Server, error) {
	if err := r.Bind(in); err != nil {
		return nil, err
	}
	return f.server(ctx, r)
}

// update changes the server in tx.
func (f *flows) update(ctx context.Context, tx *db.Tx, r *operation.Run, change func(s *compute.Server)) error {
	return f.Store.UpdateServer(ctx, tx, r.Object, func(s *compute.Server) error { change(s); return nil })
}

// keepFault records why an operation was undone and leaves the server as it is.
func (f *flows) keepFault(ctx context.Context, tx *db.Tx, r *operation.Run, cause error) error {
	return f.update(ctx, tx, r, func(s *compute.Server) {
		s.Fault = faultOf(cause, s.Host)
		s.HoldQuota(0, 0)
	})
}

// lookAgain is the undo of commands that cannot be taken back, or need not be: it sees what became of the guest. What it cannot see, the power sync
// will.
func (f *flows) lookAgain(ctx context.Context, r *operation.Run) error {
	s, err := f.Store.ServerAny(ctx, f.Store.DB, r.Object)
	if err != nil || s.Host == "" {
		return gone(err)
	}
	var g virt.GuestState
	if err := f.try(ctx, r, s.Host, command.QueryGuest, struct{}{}, &g); err == nil {
		r.Set(varPower, g.Power)
	}
	return nil
}

// keepFaultAndPower is keepFault after lookAgain.
func (f *flows) keepFaultAndPower(ctx context.Context, tx *db.Tx, r *operation.Run, cause error) error {
	return f.update(ctx, tx, r, func(s *compute.Server) {
		s.Fault = faultOf(cause, s.Host)
		s.CountRestored(false)
		power(r, s)
	})
}

// passed tells whether the way back found an effect that cannot be taken back: the rest of the way back then leaves everything as it is, and the
// operation's end is written as if it had gone forward.
func passed(r *operation.Run) bool {
	var yes bool
	return r.Get(varPassed, &yes) && yes
}

// unlessPassed makes an Undo that does nothing once the operation has passed the point of no return.
func unlessPassed(undo func(context.Context, *operation.Run) error) func(context.Context, *operation.Run) error {
	return func(ctx context.Context, r *operation.Run) error {
		if passed(r) {
			return nil
		}
		return undo(ctx, r)
	}
}

// toError records why and puts the server into ERROR.
func (f *flows) toError(ctx context.Context, tx *db.Tx, r *operation.Run, cause error) error {
	return f.update(ctx, tx, r, func(s *compute.Server) {
		s.Fault = faultOf(cause, s.Host)
		s.VMState = compute.VMError
	})
}

// keepOrError is toError when a step has found that the server cannot be as it was, else keepFault.
func (f *flows) keepOrError(ctx context.Context, tx *db.Tx, r *operation.Run, cause error) error {
	if yes := false; r.Get(varToError, &yes) && yes {
		return f.toError(ctx, tx, r, cause)
	}
	return f.keepFault(ctx, tx, r, cause)
}

// power puts the power state that the last command gave into the server.
func power(r *operation.Run, s *compute.Server) {
	var p virt.PowerState
	if r.Get(varPower, &p) {
		s.PowerState = int(p)
	}
}

// guest asks a host and keeps the power state that it answers.
func (f *flows) guest(ctx context.Context, r *operation.Run, host string, verb command.Verb, args any) error {
	var g command.GuestResult
	if err := f.ask(ctx, r, host, verb, args, &g); err != nil {
		return err
	}
	r.Set(varPower, g.Power)
	return nil
}

// The variables that steps hand on.
const (
	varPower    = "power"    // virt.PowerState after the last command
	varPlace    = "place"    // Place chosen
	varExclude  = "exclude"  // []string: hosts that failed
	varGuarded  = "guarded"  // []string: hosts that the policy of the server's group refused
	varVIFs     = "vifs"     // []network.VIF
	varFrom     = "from"     // origin: where and how the server was
	varTarget   = "target"   // map[string]string of a live migration
	varImage    = "image"    // id of an image
	varPassed   = "passed"   // bool: see passed
	varTried    = "tried"    // bool: the host that was chosen last has begun with a live migration or an evacuation
	varToError  = "to_error" // bool: see keepOrError
	varRefused  = "refused"  // bool: nothing was tried with the server, which stays as it was
	varLastFail = "lastfail" // what the last host said
)
