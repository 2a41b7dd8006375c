package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"kilonova/internal/app"
	"kilonova/internal/clock"
	"kilonova/internal/config"
)

func keyCommand(s *settings) *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List the keys of identity tokens", Args: cobra.NoArgs,
		Long:    "List the keys of identity tokens: the primary one, which seals tokens, those that it replaced and that still open tokens, and the staged one, which is next. What they are made of is not shown.",
		Example: "  kilonova key list\n  kilonova key list -f json",
		RunE: func(*cobra.Command, []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			return s.printKeys(cfg)
		},
	}
	formatFlag(list, s)

	var keep time.Duration
	rotate := &cobra.Command{
		Use: "rotate", Short: "Seal identity tokens with a new key from now on", Args: cobra.NoArgs,
		Long: `Seal identity tokens with the staged key from now on, and stage a new one. Processes that share the state directory learn of it at once, without a restart, and tokens that
were issued before stay valid until they expire. Keys that no valid token can need are dropped. A rotation that is cut off loses nothing: the next one ends it, and does no more.

Hosts with a copy of the directory fernet-keys get a new one after each rotation and before the next. After token_ttl was made shorter, give the longer time with --keep
once. When keys are known to strangers, rotate twice with --keep 0s: that ends every token, at the latest after [identity] cache_ttl.`,
		Example: "  kilonova key rotate\n  kilonova key rotate --keep 24h --state-dir /var/lib/kilonova",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			life := time.Duration(-1)
			if cmd.Flags().Changed("keep") {
				if life = keep; life < 0 {
					return errors.New("--keep: want a time that is not negative, as 24h")
				}
			}
			if err := app.RotateTokenKeys(cfg, life); err != nil {
				return err
			}
			return s.printKeys(cfg)
		},
	}
	rotate.Flags().DurationVar(&keep, "keep", 0, "life of the tokens for which replaced keys are kept (default [identity] token_ttl)")
	formatFlag(rotate, s)
	return group("key", "Look after the keys of identity tokens", "  kilonova key list\n  kilonova key rotate", list, rotate)
}

func (s *settings) printKeys(cfg *config.Config) error {
	keys, err := app.TokenKeys(cfg)
	if err != nil {
		return err
	}
	rows := make([][]string, len(keys))
	for i, k := range keys {
		rows[i] = []string{fmt.Sprint(k.Number), k.State, k.Since.Format(clock.LayoutZ)}
	}
	return s.print(os.Stdout, []string{"Number", "State", "Since"}, rows, keys)
}
