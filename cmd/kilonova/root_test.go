package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"kilonova/internal/fault"
)

// words gives the arguments of a line of an example, nil for lines that do not run kilonova.
func words(line string) []string {
	line, _, _ = strings.Cut(line, " #")
	line, _, _ = strings.Cut(line, " > ")
	if f := strings.Fields(line); len(f) > 1 && f[0] == "kilonova" {
		return f[1:]
	}
	return nil
}

// misunderstood tells what is wrong with a command line, before it does anything; a command is what it names.
func misunderstood(args []string) (*cobra.Command, error) {
	found, rest, err := root().Find(args)
	if err == nil {
		err = found.ParseFlags(rest)
	}
	if err == nil {
		err = found.ValidateArgs(found.Flags().Args())
	}
	if err == nil {
		err = found.ValidateRequiredFlags()
	}
	return found, err
}

// TestPages: the commands in README.md and docs are understood.
func TestPages(t *testing.T) {
	code := regexp.MustCompile("`((?:bin/)?kilonova [^`\n]+)`|(?m:^ {4}((?:bin/)?kilonova .*)$)")
	seen := 0
	for _, pattern := range []string{"../../README.md", "../../docs/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range code.FindAllStringSubmatch(strings.ReplaceAll(string(text), "\\\n", " "), -1) {
				line := strings.TrimPrefix(m[1]+m[2], "bin/")
				args := words(strings.NewReplacer("[", "", "]", "").Replace(line))
				if args == nil || strings.HasPrefix(line, "kilonova is ready") {
					continue // what it prints
				}
				seen++
				if _, err := misunderstood(args); err != nil {
					t.Errorf("%s: %q: %v", f, line, err)
				}
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d commands were found: the pattern looks for the wrong thing", seen)
	}
}

// TestExamples holds every command to having an example, and every example to the commands, flags and arguments that there are.
func TestExamples(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() == "completion" || c.Name() == "help" {
			return
		}
		if c.Short == "" || c.Example == "" {
			t.Errorf("%s says nothing of itself or has no example", c.CommandPath())
		}
		for line := range strings.Lines(c.Example) {
			args := words(line)
			if args == nil {
				continue
			}
			found, err := misunderstood(args)
			if err != nil {
				t.Errorf("%s: the example %q: %v", c.CommandPath(), strings.TrimSpace(line), err)
			} else if found.CommandPath() != c.CommandPath() && !c.HasSubCommands() {
				t.Errorf("%s has an example of %s", c.CommandPath(), found.CommandPath())
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root())
}

// TestRefused: what cannot be meant is refused before anything is done, and a command for a cloud that is there makes none.
func TestRefused(t *testing.T) {
	const noCloud = "There is no cloud in "
	for _, c := range []struct{ args, want string }{
		{"lsit", `unknown command "lsit"`},
		{"operation lsit", `unknown command "lsit" for "kilonova operation"`},
		{"heal everything", `unknown command "everything" for "kilonova heal"`},
		{"run identity nova", `invalid argument "nova"`},
		{"operation list --state open", "--state open: one of pending, running"},
		{"heal allocations -f jsn", "one of table, json, yaml, value, csv"},
		{"config print --set state", "--set state: want section.option=value"},
		{"operation list", noCloud},
		{"operation show 1", noCloud},
		{"operation retry 1", noCloud},
		{"doctor", noCloud},
		{"key list", "There are no token keys in "},
		{"key rotate", "There are no token keys in "},
		{"key rotate --keep=-1h", "--keep: want a time that is not negative"},
		{"key renew", `unknown command "renew" for "kilonova key"`},
		{"heal allocations", noCloud},
		{"explain server 1", noCloud},
		{"explain placement --flavor 1", noCloud},
	} {
		t.Run(c.args, func(t *testing.T) {
			dir := t.TempDir()
			cmd := root()
			cmd.SetArgs(append(strings.Fields(c.args), "--state-dir", dir))
			cmd.SetOut(io.Discard)
			if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
				t.Errorf("it left %v behind: %v", left, err)
			}
		})
	}
}

// TestHalfMade: on a cloud whose first start failed, commands say so and what to do, and make nothing.
func TestHalfMade(t *testing.T) {
	dir := t.TempDir()
	run := func(args string) error {
		cmd := root()
		cmd.SetArgs(append(strings.Fields(args), "--state-dir", dir))
		cmd.SetOut(io.Discard)
		return cmd.ExecuteContext(t.Context())
	}
	if err := os.WriteFile(filepath.Join(dir, "images"), nil, 0o600); err != nil { // where the image store's directory would be
		t.Fatal(err)
	}
	if err := run("up --listen 127.0.0.1:0 --compute-driver fake --set identity.bcrypt_cost=4 --set DEFAULT.log_level=error"); err == nil || !strings.Contains(err.Error(), "start image") {
		t.Fatalf("%v: the start did not fail where it should", err)
	}
	for range 2 {
		for _, args := range []string{"doctor", "doctor -f json", "operation list", "heal allocations", "explain server 1", "explain placement --flavor 1"} {
			err := run(args)
			if !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "tables operation_… are not there: its first start has not come to its end") {
				t.Errorf("%s: %v", args, err)
			}
		}
	}
}
