package weigher

import "kilonova/internal/compute/scheduler"

// crossCell keeps a move in its cell when there is a choice.
func crossCell() scheduler.Weigher {
	return scheduler.Weigher{
		Multiplier: func(c *scheduler.Config) float64 { return c.CrossCellMoveMultiplier },
		Key:        "cross_cell_move_weight_multiplier",
		Compile: func(_ *scheduler.Config, r *scheduler.Request) func(*scheduler.HostState) float64 {
			if r.SourceCell == "" {
				return nil
			}
			return func(h *scheduler.HostState) float64 {
				if h.Cell == r.SourceCell {
					return 1
				}
				return -1
			}
		},
	}
}
