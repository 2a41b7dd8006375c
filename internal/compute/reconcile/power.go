package reconcile

import (
	"context"
	"errors"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/virt"
	"kilonova/internal/db"
	"kilonova/internal/fault"
)

// NeedsStop is the rule of the power sync: whether a server whose guest is found in a power state without anybody having asked for it must be stopped. The
// record's power state follows the guest in any case.
func NeedsStop(vmState string, power int) bool {
	switch vmState {
	case compute.VMActive:
		return power == compute.PowerShutdown || power == compute.PowerCrashed || power == compute.PowerSuspended
	case compute.VMStopped:
		return power == compute.PowerRunning || power == compute.PowerPaused
	case compute.VMPaused:
		return power == compute.PowerShutdown || power == compute.PowerCrashed
	}
	return false
}

// watched are the states in which the power sync looks at a server at all.
func watched(vmState string) bool {
	switch vmState {
	case compute.VMActive, compute.VMStopped, compute.VMPaused, compute.VMSoftDeleted, compute.VMShelved:
		return true
	}
	return false
}

// Power takes a host's word that a guest changed by itself. Shortly after an operation the word may be older than the operation: then the guest is
// looked at again a little later.
func (l *Loops) Power(ctx context.Context, host, server string, power int) error {
	s, err := l.cfg.Store.Server(ctx, l.cfg.Store.DB, server)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if s.TaskState == "" && s.Host == host && time.Since(s.Updated) < l.cfg.Settle {
		l.later(host, server)
		return nil
	}
	return l.PowerOf(ctx, host, s, power)
}

// later looks at a guest once the dust has settled.
func (l *Loops) later(host, server string) {
	l.wg.Go(func() {
		t := time.NewTimer(l.cfg.Settle)
		defer t.Stop()
		select {
		case <-l.ctx.Done():
			return
		case <-t.C:
		}
		var g virt.GuestState
		ctx, cancel := context.WithTimeout(l.ctx, 30*time.Second)
		defer cancel()
		if err := l.cfg.Agents.Do(ctx, host, command.Command{Server: server, Verb: command.QueryGuest}, struct{}{}, &g); err != nil {
			return // the host's next full report tells
		}
		s, err := l.cfg.Store.Server(ctx, l.cfg.Store.DB, server)
		if err == nil && time.Since(s.Updated) >= l.cfg.Settle {
			err = l.PowerOf(ctx, host, s, int(g.Power))
		}
		if err != nil && !errors.Is(err, fault.NotFound) && ctx.Err() == nil {
			l.log.Warn("a guest's power state was not taken", "host", host, "server", server, "error", err)
		}
	})
}

// PowerOf brings a server that was just read in line with its guest.
func (l *Loops) PowerOf(ctx context.Context, host string, s *compute.Server, power int) error {
	if s.Host != host || s.TaskState != "" || !watched(s.VMState) || time.Since(s.Updated) < l.cfg.Settle {
		return nil
	}
	if s.PowerState != power {
		err := l.cfg.Store.DB.Write(ctx, func(tx *db.Tx) error {
			return l.cfg.Store.UpdateServer(ctx, tx, s.ID, func(now *compute.Server) error {
				if now.TaskState != "" || now.Host != host || !now.Updated.Equal(s.Updated) {
					return errChanged
				}
				now.PowerState = power
				return nil
			})
		})
		if errors.Is(err, errChanged) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	switch {
	case NeedsStop(s.VMState, power):
		l.log.Info("a guest is not in the state on record: the server is stopped", "server", s.ID, "host", host, "vm_state", s.VMState, "power", power)
		return l.start(ctx, s, compute.OpStop, "stop", compute.TaskPoweringOff, nil)
	case s.VMState == compute.VMActive && power != compute.PowerRunning:
		l.log.Warn("a server that should run does not, and is left alone", "server", s.ID, "host", host, "power", power)
	case s.VMState == compute.VMSoftDeleted && power == compute.PowerRunning:
		l.log.Warn("a soft-deleted server runs", "server", s.ID, "host", host)
	}
	return nil
}

var errChanged = errors.New("the server changed meanwhile")

// Missing notes that a host does not have the guest of a server that is on record there.
func (l *Loops) Missing(ctx context.Context, host string, s *compute.Server) error {
	if s.PowerState == compute.PowerNone || time.Since(s.Updated) < 12*l.cfg.Settle || clock.Now().Sub(s.Launched) < 12*l.cfg.Settle {
		return nil
	}
	return l.PowerOf(ctx, host, s, compute.PowerNone)
}
