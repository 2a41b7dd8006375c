package conductor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/owed"
	"kilonova/internal/compute/store"
	"kilonova/internal/operation"
)

// Stories is what Story reads of operations; *operation.Engine is one.
type Stories interface {
	ByObject(ctx context.Context, object string) ([]operation.Record, error)
	StepsOf(ctx context.Context, ops ...string) (map[string][]operation.StepRecord, error)
}

// Explain tells the story of a server, deleted or not: what it is now, then each of its operations, oldest first, step by step with times, hosts, epochs
// and causes, then what hosts still owe for it.
func (c *Conductor) Explain(ctx context.Context, server string) (string, error) {
	return Story(ctx, c.cfg.Store, c.cfg.Engine, c.owed, server)
}

// Story is Explain for programs that run no conductor. It only reads.
func Story(ctx context.Context, st *store.Store, engine Stories, book *owed.Book, server string) (string, error) {
	s, err := st.ServerAny(ctx, st.DB, server)
	if err != nil {
		return "", err
	}
	ops, err := engine.ByObject(ctx, server)
	if err != nil {
		return "", err
	}
	ids := make([]string, len(ops))
	for i, o := range ops {
		ids[i] = o.ID
	}
	steps, err := engine.StepsOf(ctx, ids...)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	describe(&b, s)
	for i := len(ops) - 1; i >= 0; i-- {
		story(&b, &ops[i], steps[ops[i].ID])
	}
	debts, err := book.OfServer(ctx, st.DB, server)
	if err != nil {
		return "", err
	}
	for _, d := range debts {
		fmt.Fprintf(&b, "\nHost %s owes %s (epoch %d) since %s: %s\n", d.Host, d.Verb, d.Epoch, d.Since.Format(clock.LayoutMicroZ), d.Reason)
	}
	return b.String(), nil
}

func describe(b *strings.Builder, s *compute.Server) {
	fmt.Fprintf(b, "Server %s %q of project %s: %s", s.ID, s.Name, s.ProjectID, s.VMState)
	if s.TaskState != "" {
		fmt.Fprintf(b, ", %s", s.TaskState)
	}
	fmt.Fprintf(b, ", power state %d", s.PowerState)
	if s.Host != "" {
		fmt.Fprintf(b, ", on %s", s.Host)
	}
	b.WriteString("\n")
	if s.Fault != nil {
		fmt.Fprintf(b, "Fault %d at %s: %s\n", s.Fault.Code, s.Fault.Created.Format(clock.LayoutMicroZ), s.Fault.Message)
		if s.Fault.Details != "" && s.Fault.Details != s.Fault.Message {
			fmt.Fprintf(b, "  cause: %s\n", s.Fault.Details)
		}
	}
}

func story(b *strings.Builder, o *operation.Record, steps []operation.StepRecord) {
	fmt.Fprintf(b, "\n%s  %s, operation %s, request %s: %s", o.Accepted.Format(clock.LayoutMicroZ), o.Kind, o.ID, o.RequestID, o.State)
	if !o.Finished.IsZero() {
		fmt.Fprintf(b, " after %s", short(o.Finished.Sub(o.Accepted)))
	}
	b.WriteString("\n")
	if o.Cause != "" {
		fmt.Fprintf(b, "  because: %s\n", o.Cause)
	}
	for _, s := range steps {
		verb := s.Name
		if s.Undo {
			verb = "undo " + verb
		}
		if s.Attempt > 1 {
			verb = fmt.Sprintf("%s (try %d)", verb, s.Attempt)
		}
		fmt.Fprintf(b, "  +%-9s %-28s", short(s.Started.Sub(o.Accepted)), verb)
		switch {
		case s.Finished.IsZero():
			fmt.Fprintf(b, " running since %s", s.Started.Format(clock.LayoutMicroZ))
			if s.Error != "" {
				fmt.Fprintf(b, ", tried again: %s", s.Error)
			}
		case s.Succeeded:
			fmt.Fprintf(b, " done in %s", short(s.Finished.Sub(s.Started)))
		default:
			fmt.Fprintf(b, " failed after %s: %s", short(s.Finished.Sub(s.Started)), s.Error)
		}
		if s.Host != "" {
			fmt.Fprintf(b, " [%s]", s.Host)
		}
		fmt.Fprintf(b, " epoch %d\n", s.Epoch)
	}
	if o.Finished.IsZero() && o.Owner != "" {
		fmt.Fprintf(b, "  carried out by %s, lease until %s\n", o.Owner, o.LeaseUntil.Format(clock.LayoutMicroZ))
	}
}

func short(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(10 * time.Microsecond).String()
	case d < time.Minute:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
