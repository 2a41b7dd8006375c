package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"kilonova/internal/app"
)

func hostCommand(s *settings) *cobra.Command {
	var grace time.Duration
	down := &cobra.Command{
		Use: "down", Short: "Shut down this host's guests and remove bridges, taps, rules and the libvirtd that Kilonova started",
		Long: `Shut down this host's guests and remove bridges, taps, rules and the libvirtd that Kilonova started.

The agent must have been stopped before. Disks and records stay: when the agent starts again it boots the guests that ran.`,
		Example: "  kilonova host down --state-dir /var/lib/kilonova",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			return app.HostDown(cmd.Context(), cfg, grace, func(text string) { fmt.Println("==> " + text) })
		},
	}
	down.Flags().DurationVar(&grace, "grace", 10*time.Second, "time that guests have to shut down by themselves")
	return group("host", "Look after this compute host", "  kilonova host down --state-dir /var/lib/kilonova", down)
}
