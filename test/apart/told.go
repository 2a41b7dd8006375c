package apart

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"testing"

	"kilonova/test/process"
)

// How much is told once more at the end of a run that failed: what is shown of a continuous integration's log is its end.
const (
	toldTests   = 5  // failed tests
	toldEntries = 3  // of each, its last words
	toldLines   = 10 // of each of these
	toldProof   = 8  // pieces of evidence
)

// evidence marks what Evidence logs, more what is logged at length beside it.
const evidence, more = "--- ", "+++ "

// More logs something at length that helps to understand a failure. It is not told once more.
func More(t *testing.T, title, text string, size int) {
	t.Helper()
	t.Logf("%s%s\n%s", more, title, Tail(text, size))
}

// Evidence logs the end of a text that helps to understand a failure: the last lines of it, none when it is empty. A run that fails tells it once more at its end.
func Evidence(t *testing.T, title, text string, lines int) {
	t.Helper()
	if text = process.LastLines(text, lines); text != "" {
		t.Logf("%s%s\n%s", evidence, title, text)
	}
}

// TellServer is the evidence on one server: what it is, what it was asked for, what it said on its console, and what the processes have to say of it.
func TellServer(ctx context.Context, t *testing.T, c *process.Client, title, id string, procs ...*process.Proc) {
	t.Helper()
	var d struct{ Server process.Server }
	_, _, err := c.Do(ctx, "GET", "compute", "/servers/"+id, nil, &d)
	s := d.Server
	is := fmt.Sprintf("status %s on %q", s.Status, s.Host)
	if s.Task != nil {
		is += ", " + *s.Task
	}
	if s.Fault != nil {
		is += ", fault: " + s.Fault.Message
	}
	if err != nil {
		is = err.Error()
	}
	var asked struct {
		Actions []struct {
			Action, Start_time string
			Request            string `json:"request_id"`
			Message            *string
		} `json:"instanceActions"`
	}
	_, _, _ = c.Do(ctx, "GET", "compute", "/servers/"+id+"/os-instance-actions", nil, &asked)
	names := []string{id}
	for i, a := range asked.Actions { // the newest first
		names = append(names, a.Request)
		if i < 4 {
			is += fmt.Sprintf("\n%s %s %s", a.Start_time, a.Action, a.Request)
			if a.Message != nil {
				is += " " + *a.Message
			}
		}
	}
	Evidence(t, title+" "+id, is, 6)
	var out struct{ Output string }
	_, _, err = c.Do(ctx, "POST", "compute", "/servers/"+id+"/action", map[string]any{"os-getConsoleOutput": map[string]any{}}, &out)
	if err != nil {
		out.Output = err.Error()
	}
	More(t, "console of "+title, out.Output, 3000)
	Evidence(t, "console of "+title, out.Output, 8)
	for _, p := range procs {
		role, _, _ := strings.Cut(p.Name, " --")
		Evidence(t, "warnings of "+title+" by "+role, process.Troubles(p.Output(), names...), 6)
	}
}

var (
	turns   = regexp.MustCompile(`^=== (?:RUN|CONT|NAME|PAUSE)\s+(\S+)`)
	verdict = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+)`)
	entry   = regexp.MustCompile(`^\s+\S+\.go:\d+: `)
)

// retelling passes on what tests write and keeps it apart for each of them, so that it can say at the end what failed and what is known of it.
type retelling struct {
	out io.Writer

	mu      sync.Mutex
	part    []byte // of a line
	current string
	said    map[string][]string // by test, its log entries
	failed  []string
}

// Write implements io.Writer.
func (r *retelling) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.part = append(r.part, p...)
	for {
		line, rest, whole := bytes.Cut(r.part, []byte("\n"))
		if !whole {
			break
		}
		r.line(string(line))
		r.part = rest
	}
	return r.out.Write(p)
}

func (r *retelling) line(line string) {
	if m := turns.FindStringSubmatch(line); m != nil {
		r.current = m[1]
		return
	}
	if m := verdict.FindStringSubmatch(line); m != nil {
		if m[1] == "FAIL" {
			r.failed = append(r.failed, m[2])
		}
		return
	}
	said := r.said[r.current]
	if strings.HasPrefix(line, "panic: ") { // also when the time is up: then no verdict comes
		r.failed = append(r.failed, r.current)
		said = append(said, line)
	} else if line == "FAIL" || line == "PASS" {
		return
	} else if entry.MatchString(line) {
		said = append(said, strings.TrimSpace(line))
	} else if n := len(said); n > 0 {
		said[n-1] += "\n" + line
	} else {
		return
	}
	if r.said == nil {
		r.said = map[string][]string{}
	}
	r.said[r.current] = said
}

// tell writes what failed: the last words of the tests that did, then the evidence. It writes nothing when no test failed.
func (r *retelling) tell() {
	r.mu.Lock()
	defer r.mu.Unlock()
	var words, proofs []string
	told := 0
	for i := range r.failed {
		name := r.failed[i]
		var own []string
		for _, e := range r.said[name] {
			switch _, text, _ := strings.Cut(e, ": "); {
			case strings.HasPrefix(text, evidence):
				proofs = append(proofs, e)
			case !strings.HasPrefix(text, more):
				own = append(own, first(e, toldLines))
			}
		}
		if len(own) > 0 && told < toldTests {
			told++
			words = append(words, name+"\n    "+strings.Join(own[max(0, len(own)-toldEntries):], "\n    "))
		}
	}
	if len(r.failed) == 0 {
		return
	}
	fmt.Fprintf(r.out, "\n######## what failed: %d tests, and what is known of it (more is above)\n%s\n", len(r.failed), strings.Join(words, "\n"))
	for _, p := range proofs[:min(len(proofs), toldProof)] {
		fmt.Fprintln(r.out, p)
	}
}

// first is the beginning of a text.
func first(text string, lines int) string {
	all := strings.Split(text, "\n")
	if len(all) > lines {
		all = append(all[:lines:lines], "...")
	}
	return strings.Join(all, "\n")
}
