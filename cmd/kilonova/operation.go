package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"kilonova/internal/db"
	"kilonova/internal/operation"
)

// engine opens the operations of the configured cloud for reading, beside whatever runs it.
func (s *settings) engine(ctx context.Context) (*operation.Engine, *db.DB, error) {
	cfg, err := s.load()
	if err != nil {
		return nil, nil, err
	}
	d, err := db.Open(ctx, cfg.Database.Connection)
	if err != nil {
		return nil, nil, err
	}
	e, err := operation.New(ctx, operation.Config{DB: d, Owner: "command"})
	if err != nil {
		_ = d.Close()
		return nil, nil, err
	}
	return e, d, nil
}

func operationCommand(s *settings) *cobra.Command {
	cmd := &cobra.Command{Use: "operation", Short: "Look at the durable operations behind the servers"}
	var state []string
	var limit int
	list := &cobra.Command{
		Use: "list", Short: "List operations, newest first", Args: cobra.NoArgs,
		Example: "  kilonova operation list --state running --state attention\n  kilonova operation list -f json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, d, err := s.engine(cmd.Context())
			if err != nil {
				return err
			}
			defer func() { _ = d.Close() }()
			var states []operation.State
			for _, n := range state {
				states = append(states, operation.State(n))
			}
			recs, err := e.List(cmd.Context(), states, limit)
			if err != nil {
				return err
			}
			rows := make([][]string, len(recs))
			for i, r := range recs {
				rows[i] = []string{r.ID, r.Kind, r.Object, string(r.State), r.Step, r.Accepted.Format(time.RFC3339), took(r), r.Cause}
			}
			return s.print(os.Stdout, []string{"ID", "Kind", "Server", "State", "Step", "Accepted", "Took", "Cause"}, rows, recs)
		},
	}
	list.Flags().StringArrayVar(&state, "state", nil, "only these states: pending, running, undoing, attention, done, undone, superseded (repeatable)")
	list.Flags().IntVar(&limit, "limit", 50, "at most so many; 0: all")
	formatFlag(list, s)
	show := &cobra.Command{
		Use: "show ID", Short: "Show one operation step by step", Args: cobra.ExactArgs(1),
		Example: "  kilonova operation show 0199…",
		RunE: func(cmd *cobra.Command, args []string) error {
			e, d, err := s.engine(cmd.Context())
			if err != nil {
				return err
			}
			defer func() { _ = d.Close() }()
			r, err := e.Show(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			rows := make([][]string, len(r.Steps))
			for i, st := range r.Steps {
				what, end := st.Name, "running"
				if st.Undo {
					what = "undo " + what
				}
				if !st.Finished.IsZero() {
					end = st.Finished.Sub(st.Started).String()
				}
				rows[i] = []string{what, fmt.Sprint(st.Attempt), st.Host, st.Started.Format("15:04:05.000000"), end, st.Error}
			}
			return s.print(os.Stdout, []string{"Step", "Attempt", "Host", "Started", "Took", "Error"}, rows, r)
		},
	}
	formatFlag(show, s)
	retry := &cobra.Command{
		Use: "retry ID", Short: "Put an operation that needs attention back to work", Args: cobra.ExactArgs(1),
		Example: "  kilonova operation retry 0199…",
		RunE: func(cmd *cobra.Command, args []string) error {
			e, d, err := s.engine(cmd.Context())
			if err != nil {
				return err
			}
			defer func() { _ = d.Close() }()
			return e.Retry(cmd.Context(), args[0])
		},
	}
	cmd.AddCommand(list, show, retry)
	return cmd
}

func took(r operation.Record) string {
	if r.Finished.IsZero() {
		return ""
	}
	return r.Finished.Sub(r.Accepted).String()
}
