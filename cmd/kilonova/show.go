package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/olekukonko/tablewriter"
	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"kilonova/internal/config"
)

// formats are the output forms, named as the openstack command names them.
func formats() []string { return []string{"table", "json", "yaml", "value", "csv"} }

// form is one of formats. A wrong one is refused before the command does anything.
type form string

func (f *form) String() string { return string(*f) }

func (f *form) Type() string { return "string" }

func (f *form) Set(v string) error {
	if !slices.Contains(formats(), v) {
		return fmt.Errorf("one of %s", strings.Join(formats(), ", "))
	}
	*f = form(v)
	return nil
}

func formatFlag(cmd *cobra.Command, s *settings) {
	s.format = "table"
	cmd.Flags().VarP(&s.format, "format", "f", "output form: "+strings.Join(formats(), ", "))
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(formats(), cobra.ShellCompDirectiveNoFileComp))
}

// print writes rows in the form asked for. data is what json and yaml show.
func (s *settings) print(w io.Writer, header []string, rows [][]string, data any) error {
	switch s.format {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(data)
	case "yaml":
		b, err := json.Marshal(data) // the names of the JSON form
		if err != nil {
			return err
		}
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			return err
		}
		return yaml.NewEncoder(w).Encode(v)
	case "value":
		for _, r := range rows {
			if _, err := fmt.Fprintln(w, strings.Join(r, " ")); err != nil {
				return err
			}
		}
		return nil
	case "csv":
		return writeCSV(w, header, rows)
	}
	t := tablewriter.NewTable(w)
	t.Header(header)
	if err := t.Bulk(rows); err != nil {
		return err
	}
	return t.Render()
}

func configCommand(s *settings) *cobra.Command {
	p := &cobra.Command{
		Use: "print", Short: "Print every option with its value and where that came from", Args: cobra.NoArgs,
		Example: "  kilonova config print --config /etc/kilonova.conf -f json",
		RunE: func(*cobra.Command, []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			values := cfg.Values()
			rows := make([][]string, len(values))
			for i, v := range values {
				rows[i] = []string{v.Section, v.Option, v.Value, string(v.Origin)}
			}
			return s.print(os.Stdout, []string{"Section", "Option", "Value", "Origin"}, rows, values)
		},
	}
	formatFlag(p, s)
	sample := &cobra.Command{
		Use: "sample", Short: "Print a configuration file with every option explained", Args: cobra.NoArgs,
		Example: "  kilonova config sample > kilonova.conf",
		RunE:    func(*cobra.Command, []string) error { return config.Sample(os.Stdout) },
	}
	return group("config", "Show the configuration", "  kilonova config sample > kilonova.conf\n  kilonova config print --config kilonova.conf", p, sample)
}
