package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"kilonova/internal/app"
)

func explainCommand(s *settings) *cobra.Command {
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
	return group("explain", "Say why things are as they are", "  kilonova explain server 6c0f2c1e-…\n  kilonova explain placement --flavor 2", server, explainPlacementCommand(s))
}

func explainPlacementCommand(s *settings) *cobra.Command {
	var t app.Trial
	var hints map[string]string
	placement := &cobra.Command{
		Use: "placement --flavor ID", Short: "Say where a server would go now, and why not elsewhere; nothing is claimed", Args: cobra.NoArgs,
		Long: `Say where a server of a flavor (and an image, a zone, hints) would go now: what placement offers, what each filter says of every host, and what each
weigher gives those that are left. Nothing is claimed.`,
		Example: "  kilonova explain placement --flavor 2 --image 6c0f2c1e-… --zone east\n  kilonova explain placement --flavor 2 --property hw_architecture=aarch64 --hint different_host=0d1e… --host compute-3",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			t.Hints = map[string]any{}
			for k, v := range hints {
				t.Hints[k] = v
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			text, err := app.ExplainPlacement(ctx, cfg, t)
			if err != nil {
				return err
			}
			fmt.Print(text)
			return nil
		},
	}
	f := placement.Flags()
	f.StringVar(&t.Flavor, "flavor", "", "id of the flavor")
	f.StringVar(&t.Image, "image", "", "id of the image, for its properties")
	f.StringToStringVar(&t.Properties, "property", nil, "image property NAME=VALUE; may be repeated")
	f.StringToStringVar(&hints, "hint", nil, "scheduler hint NAME=VALUE; may be repeated")
	f.StringVar(&t.Zone, "zone", "", "availability zone")
	f.StringVar(&t.Host, "destination", "", "requested host")
	f.StringVar(&t.Project, "project", "", "id of the project")
	f.StringVar(&t.Only, "host", "", "explain this host only")
	if err := placement.MarkFlagRequired("flavor"); err != nil {
		panic(err) // the flag is made above
	}
	return placement
}
