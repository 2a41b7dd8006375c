package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"kilonova/internal/app"
)

func explainCommand(s *settings) *cobra.Command {
	cmd := &cobra.Command{Use: "explain", Short: "Say why things are as they are"}
	var hosts bool
	var host string
	server := &cobra.Command{
		Use: "server ID", Short: "Tell the story of a server: its operations step by step, with times, hosts and causes", Args: cobra.ExactArgs(1),
		Long: `Tell the story of a server: its operations step by step, with times, hosts and causes; what hosts still owe for it; with --hosts, what placement and
each filter say of every host today.`,
		Example: "  kilonova explain server 6c0f2c1e-… --state-dir /var/lib/kilonova\n  kilonova explain server 6c0f2c1e-… --hosts",
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			text, err := app.Explain(ctx, cfg, args[0], hosts, host)
			if err != nil {
				return err
			}
			fmt.Print(text)
			return nil
		},
	}
	server.Flags().BoolVar(&hosts, "hosts", false, "add the verdict of placement and each filter on every host")
	server.Flags().StringVar(&host, "host", "", "only for this host")
	cmd.AddCommand(server)
	return cmd
}
