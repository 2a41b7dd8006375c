package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kilonova/internal/app"
	"kilonova/internal/db"
	"kilonova/internal/operation"
)

// engine opens the operations of the configured cloud for reading, beside whatever runs it.
func (s *settings) engine(ctx context.Context) (*operation.Engine, *db.DB, error) {
	cfg, err := s.load()
	if err != nil {
		return nil, nil, err
	}
	d, err := app.OpenCloud(ctx, cfg)
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
	var state []string
	var limit int
	list := &cobra.Command{
		Use: "list", Short: "List operations, newest first", Args: cobra.NoArgs,
		Example: "  kilonova operation list --state running --state attention\n  kilonova operation list -f json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var states []operation.State
			for _, n := range state {
				if !slices.Contains(operationStates(), n) {
					return fmt.Errorf("--state %s: one of %s", n, strings.Join(operationStates(), ", "))
				}
				states = append(states, operation.State(n))
			}
			e, d, err := s.engine(cmd.Context())
			if err != nil {
				return err
			}
			defer func() { _ = d.Close() }()
			recs, err := e.List(cmd.Context(), states, limit)
			if err != nil {
				return err
			}
			rows := make([][]string, len(recs))
			for i, r := range recs {
				rows[i] = []string{r.ID, r.Kind, r.Object, string(r.State), r.Step, r.Accepted.Format(time.RFC3339), took(r), r.Cause}
			}
			return s.print(os.Stdout, []string{"ID", "Kind", "Server", "State", "Step", "Accepted", "Took", "Cause"}, rows, append([]operation.Record{}, recs...))
		},
	}
	list.Flags().StringArrayVar(&state, "state", nil, "only these states: "+strings.Join(operationStates(), ", ")+" (repeatable)")
	_ = list.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(operationStates(), cobra.ShellCompDirectiveNoFileComp))
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
	return group("operation", "Look at the durable operations behind the servers", "  kilonova operation list --state attention\n  kilonova operation show 0199…", list, show, retry)
}

func operationStates() []string {
	return []string{string(operation.Pending), string(operation.Running), string(operation.Undoing), string(operation.Attention), string(operation.Done), string(operation.Undone),
		string(operation.Superseded)}
}

func took(r operation.Record) string {
	if r.Finished.IsZero() {
		return ""
	}
	return r.Finished.Sub(r.Accepted).String()
}
