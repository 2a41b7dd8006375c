package reconcile

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/owed"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/fault"
)

// Debts has every host that is up do what it owes. A host that knows a newer epoch of the server refuses: then somebody else has dealt with the server there
// since, and the debt is settled too.
func (l *Loops) Debts(ctx context.Context) error {
	all, err := l.cfg.Owed.All(ctx, l.cfg.Store.DB)
	if err != nil || len(all) == 0 {
		return err
	}
	byHost := map[string][]owed.Debt{}
	for _, d := range all {
		byHost[d.Host] = append(byHost[d.Host], d)
	}
	var wg sync.WaitGroup
	for host, debts := range byHost {
		if l.cfg.Hosts.Down(ctx, host) {
			if debts, err = l.ofEvacuations(ctx, host, debts); err != nil {
				return err
			}
		}
		wg.Go(func() {
			for _, d := range debts {
				if !l.pay(ctx, d) {
					return
				}
			}
		})
	}
	wg.Wait()
	return nil
}

// ofEvacuations gives the debts that a host pays although an operator has said that it is down, if its agent is back: it may be called up again only when
// it has removed the guests whose evacuation is over.
func (l *Loops) ofEvacuations(ctx context.Context, host string, debts []owed.Debt) (out []owed.Debt, err error) {
	if !l.cfg.Hosts.Heard(ctx, host) {
		return nil, nil
	}
	over, err := l.cfg.Store.Migrations(ctx, l.cfg.Store.DB, store.MigrationFilter{SourceHost: host, Type: "evacuation", Status: []string{"done"}})
	for _, d := range debts {
		if d.Verb == command.Destroy && slices.ContainsFunc(over, func(m compute.Migration) bool { return m.ServerID == d.Server }) {
			out = append(out, d)
		}
	}
	return out, err
}

// completeEvacuations closes the records of evacuations from a host that has removed what it had: their last state is completed.
func (l *Loops) completeEvacuations(ctx context.Context, d owed.Debt) error {
	if d.Verb != command.Destroy {
		return nil
	}
	ms, err := l.cfg.Store.Migrations(ctx, l.cfg.Store.DB, store.MigrationFilter{ServerID: d.Server, SourceHost: d.Host, Type: "evacuation", Status: []string{"done"}})
	if err != nil || len(ms) == 0 {
		return err
	}
	return l.cfg.Store.DB.Write(ctx, func(tx *db.Tx) error {
		for _, m := range ms {
			if err := l.cfg.Store.UpdateMigration(ctx, tx, m.UUID, func(m *compute.Migration) error { m.Status = "completed"; return nil }); err != nil {
				return err
			}
		}
		return nil
	})
}

// pay asks for one debt; false when the host does not answer.
func (l *Loops) pay(ctx context.Context, d owed.Debt) bool {
	one, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	err := l.cfg.Agents.Do(one, d.Host, command.Command{Operation: d.Operation, Step: "owed." + string(d.Verb), Attempt: 1, Epoch: d.Epoch, Server: d.Server, Verb: d.Verb}, d.Args, nil)
	var e *fault.Error
	switch {
	case err == nil:
		l.log.Info("a host did what it owed", "host", d.Host, "server", d.Server, "verb", d.Verb, "since", d.Since, "reason", d.Reason)
	case errors.Is(err, fault.NotFound), errors.As(err, &e) && e.Code == "stale-epoch":
	case errors.Is(err, fault.Unavailable) || ctx.Err() != nil:
		return false
	default:
		l.log.Warn("a host could not do what it owes; it is asked again later", "host", d.Host, "server", d.Server, "verb", d.Verb, "error", err)
		return true
	}
	if err := errors.Join(l.completeEvacuations(ctx, d), l.cfg.Owed.SettleNow(ctx, d.Host, d.Server, d.Epoch)); err != nil && ctx.Err() == nil {
		l.log.Error("a debt could not be settled", "host", d.Host, "server", d.Server, "error", err)
	}
	return true
}
