package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"kilonova/internal/app"
	"kilonova/internal/placement"
)

func healCommand(s *settings) *cobra.Command {
	var dry bool
	allocations := &cobra.Command{
		Use: "allocations [SERVER...]", Short: "Give servers the allocations that they lack on their hosts",
		Long: `Give servers the allocations in placement that they should have on their hosts: those that have none there, because somebody deleted them. Allocations on
other hosts are replaced. Servers that an operation holds are left to it. Without names it looks at all servers. It ends with 1 when a server could not be helped.`,
		Example: "  kilonova heal allocations --dry-run\n  kilonova heal allocations 6c0f…",
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			healed, err := app.Heal(cmd.Context(), cfg, dry, args...)
			if err != nil {
				return err
			}
			left := 0
			rows := make([][]string, len(healed))
			for i, h := range healed {
				rows[i] = []string{h.Server, h.Host, amounts(h.Allocations), h.Problem}
				if h.Problem != "" {
					left++
				}
			}
			if err := s.print(os.Stdout, []string{"Server", "Host", "Allocations", "Problem"}, rows, healed); err != nil {
				return err
			}
			if left > 0 {
				return fmt.Errorf("%d of %d servers could not be helped", left, len(healed))
			}
			return nil
		},
	}
	allocations.Flags().BoolVar(&dry, "dry-run", false, "tell what would be done")
	formatFlag(allocations, s)
	return group("heal", "Mend what an accident or an operator's hand has broken", "  kilonova heal allocations --dry-run", allocations)
}

// amounts words allocations: VCPU=1 MEMORY_MB=512, with those of several providers one after the other.
func amounts(a placement.Allocations) string {
	var out []string
	for _, provider := range slices.Sorted(maps.Keys(a)) {
		for _, class := range slices.Sorted(maps.Keys(a[provider])) {
			out = append(out, fmt.Sprintf("%s=%d", class, a[provider][class]))
		}
	}
	return strings.Join(out, " ")
}
