package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"kilonova/internal/app"
	"kilonova/internal/doctor"
)

func doctorCommand(s *settings) *cobra.Command {
	var c doctor.Config
	cmd := &cobra.Command{
		Use: "doctor", Short: "Check that what must always hold does hold", Args: cobra.NoArgs,
		Long: `Check that what must always hold does hold: servers, operations, allocations, ports, quota and the guests that hosts see fit to each other.

It only reads, beside whatever runs the cloud. Because a cloud that works is never still, it looks several times and tells what stays. It ends with 1 when
it found something. docs/guarantees.md explains each invariant by its number.`,
		Example: "  kilonova doctor\n  kilonova doctor -f json --looks 5",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			r, err := app.Examine(cmd.Context(), cfg, c)
			if err != nil {
				return err
			}
			if s.format == "table" {
				_, err = fmt.Print(r.Text())
			} else {
				rows := make([][]string, len(r.Findings))
				for i, f := range r.Findings {
					rows[i] = []string{f.Invariant.String(), f.Object, f.Text, f.Hint}
				}
				err = s.print(os.Stdout, []string{"Invariant", "Object", "Finding", "What to do"}, rows, r)
			}
			if err == nil && !r.Healthy() {
				err = fmt.Errorf("%d findings", len(r.Findings))
			}
			return err
		},
	}
	cmd.Flags().IntVar(&c.Looks, "looks", 3, "how often a finding must be seen to count")
	cmd.Flags().DurationVar(&c.Pause, "pause", 2*time.Second, "time between two looks")
	cmd.Flags().DurationVar(&c.Unled, "unled", 2*time.Minute, "how long an operation may be without a conductor")
	formatFlag(cmd, s)
	return cmd
}
