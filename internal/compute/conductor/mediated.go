package conductor

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"kilonova/internal/compute/command"
	"kilonova/internal/compute/scheduler"
	"kilonova/internal/placement"
)

// reportMediated brings the providers of a host's divided devices in line with its report. What operators keep back of one, and its other traits, stay.
func (c *Conductor) reportMediated(ctx context.Context, rep command.HostReport) error {
	old, _ := c.hosts.get(rep.Host)
	if len(rep.Info.Mediated) == 0 && !old.divided {
		return nil
	}
	want := scheduler.MediatedProviders(rep.NodeID, rep.Info.Hostname, rep.Info.Mediated)
	have, err := c.cfg.Placement.Tree(ctx, rep.NodeID)
	if err != nil {
		return fmt.Errorf("providers of %s: %w", rep.Host, err)
	}
	errs := c.dropProviders(ctx, rep.Host, have, func(p *placement.Provider) bool {
		return scheduler.IsMediatedProvider(rep.NodeID, rep.Info.Hostname, p) && !slices.ContainsFunc(want, func(w scheduler.MediatedProvider) bool { return w.UUID == p.UUID })
	})
	for i := range want {
		w := &want[i]
		var reserved int64
		if at := slices.IndexFunc(have, func(p placement.Provider) bool { return p.UUID == w.UUID }); at >= 0 {
			reserved = have[at].Inventory[w.Class].Reserved
		}
		if _, err := c.cfg.Placement.EnsureChild(ctx, w.UUID, w.Name, rep.NodeID); err != nil {
			errs = append(errs, fmt.Errorf("provider of %s: %w", w.Name, err))
			continue
		}
		if err := c.cfg.Placement.Report(ctx, w.UUID, w.Inventory(reserved), []string{"OWNER_NOVA"}, []string{"OWNER_NOVA"}); err != nil {
			errs = append(errs, fmt.Errorf("inventory of %s: %w", w.Name, err))
		}
	}
	return errors.Join(errs...)
}
