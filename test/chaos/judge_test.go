package chaos_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"kilonova/test/process"
)

// judge looks at a cloud after the storm.
type judge struct {
	t      *testing.T
	prog   process.Program
	config []string // arguments that name the cloud
	admin  *process.Client
	ledger *ledger
	ground process.Ground
}

// operation is what `kilonova operation list` tells of one.
type operation struct {
	ID, Kind, Object, RequestID, Action, State, Cause, Step, Owner string
	Accepted, Finished                                             time.Time
}

// finding is what `kilonova doctor` tells.
type finding struct {
	Invariant    int
	Object, Text string
}

func (j *judge) command(ctx context.Context, out any, args ...string) error {
	cmd := exec.CommandContext(ctx, j.prog.Path, append(append(args, "--state-dir", j.prog.Dir, "-f", "json"), j.config...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if stdout.Len() == 0 {
		return fmt.Errorf("kilonova %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return json.Unmarshal(stdout.Bytes(), out)
}

func (j *judge) operations(ctx context.Context) []operation {
	j.t.Helper()
	var ops []operation
	if err := j.command(ctx, &ops, "operation", "list", "--limit", "0"); err != nil {
		j.t.Fatal(err)
	}
	slices.Reverse(ops) // oldest first
	return ops
}

// settle waits until no operation is open.
func (j *judge) settle(ctx context.Context, long time.Duration) []operation {
	j.t.Helper()
	for end := time.Now().Add(long); ; time.Sleep(200 * time.Millisecond) {
		ops := j.operations(ctx)
		open := slices.DeleteFunc(slices.Clone(ops), func(o operation) bool { return !o.Finished.IsZero() })
		if len(open) == 0 {
			return ops
		}
		if time.Now().After(end) {
			for _, o := range open {
				j.t.Errorf("operation %s (%s of %s) is %s at step %s since %s, owner %q: %s", o.ID, o.Kind, o.Object, o.State, o.Step, o.Accepted.Format(time.TimeOnly), o.Owner, o.Cause)
			}
			return ops
		}
	}
}

// healthy demands that the doctor finds nothing; the loops that tidy up have so long.
func (j *judge) healthy(ctx context.Context, long time.Duration) {
	j.t.Helper()
	began := time.Now()
	for end, first := began.Add(long), true; ; first = false {
		var r struct {
			Findings []finding
			Notes    []string
			Counts   map[string]int64
		}
		if err := j.command(ctx, &r, "doctor", "--looks", "3", "--pause", "700ms", "--unled", "20s"); err != nil {
			j.t.Fatal(err)
		}
		if len(r.Findings) == 0 {
			j.t.Logf("doctor: healthy after %s; %v %q", time.Since(began).Round(time.Second), r.Counts, r.Notes)
			return
		}
		for _, f := range r.Findings {
			if first {
				j.t.Logf("to be tidied up: %d %s: %s", f.Invariant, f.Object, f.Text)
			}
		}
		if time.Now().After(end) {
			for _, f := range r.Findings {
				j.t.Errorf("invariant %d: %s: %s", f.Invariant, f.Object, f.Text)
			}
			return
		}
	}
}

// live is a server as the API shows it at the end.
type live struct {
	process.Server
	Name string
}

func (j *judge) servers(ctx context.Context, query string) map[string]live {
	j.t.Helper()
	out := map[string]live{}
	for marker := ""; ; {
		var page struct{ Servers []live }
		if _, _, err := j.admin.Do(ctx, http.MethodGet, "compute", "/servers/detail?all_tenants=1&limit=500"+query+marker, nil, &page); err != nil {
			j.t.Fatal(err)
		}
		for _, s := range page.Servers {
			if _, twice := out[s.ID]; twice {
				j.t.Errorf("the list shows server %s twice", s.ID)
			}
			out[s.ID] = s
			marker = "&marker=" + s.ID
		}
		if len(page.Servers) < 500 {
			return out
		}
	}
}

// all judges everything once no operation is open.
func (j *judge) all(ctx context.Context, ops []operation) {
	j.t.Helper()
	here, gone := j.servers(ctx, ""), j.servers(ctx, "&deleted=True")
	for _, id := range j.ledger.lost {
		j.t.Errorf("server %s was not there although nobody deleted it", id)
	}
	j.counts(here, gone)
	byRequest, byServer := map[string][]operation{}, map[string][]operation{}
	for _, o := range ops {
		byRequest[o.RequestID] = append(byRequest[o.RequestID], o)
		byServer[o.Object] = append(byServer[o.Object], o)
	}
	for _, r := range j.ledger.requests {
		j.request(ctx, r, byRequest[r.RequestID], here, gone)
	}
	for id, s := range here {
		if s.Task != nil {
			j.t.Errorf("server %s has the task %s and nothing works on it", id, *s.Task)
		}
		if want := statusAfter(byServer[id]); want != "" && s.Status != want {
			j.t.Errorf("server %s is %s; after what was done to it, it should be %s: %s", id, s.Status, want, story(byServer[id]))
		}
		if s.Status == "ERROR" && (s.Fault == nil || s.Fault.Message == "") {
			j.t.Errorf("server %s is in ERROR and says not why: %s", id, story(byServer[id]))
		}
	}
	wait := time.Duration(0)
	if slow() {
		wait = patience // a minute until they are taken for left behind, and the sweep's interval
	}
	j.images(ctx, wait)
}

// counts demands that each create made exactly the servers that it promised, or, with an unknown outcome, none or all.
func (j *judge) counts(here, gone map[string]live) {
	j.t.Helper()
	n := map[string]int{}
	for _, m := range []map[string]live{here, gone} {
		for _, s := range m {
			n[base(s.Name)]++
		}
	}
	promised, possible, size := map[string]int{}, map[string]int{}, map[string]int{}
	for _, r := range j.ledger.requests {
		if r.Verb != "create" {
			continue
		}
		size[r.Name] = r.Count
		switch r.Class {
		case accepted:
			promised[r.Name]++
			possible[r.Name]++
		case unknown, failed:
			possible[r.Name]++
		}
	}
	for name, count := range size {
		least, most := promised[name]*count, possible[name]*count
		// A create that was asked again had come to nothing before: two can only be when its client found nothing and was wrong.
		most = min(most, count)
		if got := n[name]; got < least || got > most || got%count != 0 {
			j.t.Errorf("create %s of %d servers, accepted %d times, made %d", name, count, promised[name], got)
		}
	}
}

// base is the name that a request gave: servers of a request for several carry a number behind it.
func base(name string) string {
	if parts := strings.Split(name, "-"); len(parts) > 2 {
		return parts[0] + "-" + parts[1]
	}
	return name
}

// request judges one line of the ledger.
func (j *judge) request(ctx context.Context, r request, ops []operation, here, gone map[string]live) {
	j.t.Helper()
	if r.Class == failed && r.Code != http.StatusServiceUnavailable {
		j.t.Errorf("%s of %s%s was answered with %d: %s", r.Verb, r.Server, r.Name, r.Code, r.Text)
	}
	if r.Class != accepted {
		return
	}
	_, isHere := here[r.Server]
	_, isGone := gone[r.Server]
	if r.Verb == "delete" {
		if isHere || !isGone {
			j.t.Errorf("delete of %s was accepted (%s) and the server is here: %v, on record as deleted: %v", r.Server, r.RequestID, isHere, isGone)
		}
		return // it may have joined a delete that was accepted before
	}
	if r.Server != "" && !isHere && !isGone {
		j.t.Errorf("%s (%s) was accepted, and there is no trace of server %s", r.Verb, r.RequestID, r.Server)
	}
	if r.RequestID == "" {
		return // the answer's head was lost after its status
	}
	if len(ops) != max(r.Count, 1) {
		j.t.Errorf("%s of %s was accepted as %s, which has %d operations", r.Verb, r.Server, r.RequestID, len(ops))
		return
	}
	for _, o := range ops {
		switch {
		case o.Finished.IsZero(), !slices.Contains([]string{"done", "undone", "superseded"}, o.State):
			j.t.Errorf("%s of %s (%s) did not end: %s", r.Verb, r.Server, r.RequestID, o.State)
		case o.State == "undone" && o.Cause == "":
			j.t.Errorf("%s of %s (%s) was undone without a reason", r.Verb, r.Server, r.RequestID)
		}
		if _, there := gone[o.Object]; o.State == "superseded" && !there {
			j.t.Errorf("%s of %s (%s) was given up for a delete, and the server is not deleted", r.Verb, r.Server, r.RequestID)
		}
	}
	j.action(ctx, r)
}

// action demands that the user sees the request among the server's actions, with every event ended.
func (j *judge) action(ctx context.Context, r request) {
	j.t.Helper()
	if r.Server == "" {
		return
	}
	var doc struct {
		Action struct {
			Message *string
			Events  []struct {
				Event, Result string
				Finish        *string `json:"finish_time"`
			}
		} `json:"instanceAction"`
	}
	if _, _, err := j.admin.Do(ctx, http.MethodGet, "compute", "/servers/"+r.Server+"/os-instance-actions/"+r.RequestID, nil, &doc); err != nil {
		j.t.Errorf("%s was accepted as %s, and its action cannot be read: %v", r.Verb, r.RequestID, err)
		return
	}
	for _, e := range doc.Action.Events {
		if e.Finish == nil || e.Result == "" {
			j.t.Errorf("%s of %s (%s): event %s has no end", r.Verb, r.Server, r.RequestID, e.Event)
		}
	}
}

// statusAfter is the status that a server has after its operations, in their order; "" when that cannot be told.
func statusAfter(ops []operation) string {
	status, before := "", ""
	for _, o := range ops {
		if o.Kind == "create" && o.State == "undone" {
			status = "ERROR"
		}
		if o.State == "undone" && slices.Contains([]string{"rebuild", "shelve", "shelve-offload", "unshelve"}, o.Kind) {
			// A rebuilt server is in ERROR if its disks were being made anew already, and as it was before if not. One that was paused or suspended and was not shelved after all
			// has been started anew; one that had left its host has no way back.
			status = ""
		}
		if o.State != "done" {
			continue
		}
		switch o.Kind {
		case "create", "unpause", "resume", "reboot", "start", "unshelve":
			status = "ACTIVE"
		case "rescue":
			before, status = status, "RESCUE"
		case "unrescue":
			status = before
			if status != "SHUTOFF" {
				status = "ACTIVE"
			}
		case "pause":
			status = "PAUSED"
		case "suspend":
			status = "SUSPENDED"
		case "stop":
			status = "SHUTOFF"
		case "shelve":
			status = "SHELVED_OFFLOADED"
		case "resize":
			before, status = status, "VERIFY_RESIZE"
		case "confirm-resize", "revert-resize":
			status = before
		case "rebuild":
			if status == "ERROR" {
				status = "ACTIVE"
			}
		case "snapshot", "backup", "attach-interface", "live-migrate", "shelve-offload", "delete", "password":
		default:
			return ""
		}
	}
	return status
}

func story(ops []operation) string {
	var b strings.Builder
	for _, o := range ops {
		fmt.Fprintf(&b, "%s %s", o.Kind, o.State)
		if o.Cause != "" {
			fmt.Fprintf(&b, " (%s)", o.Cause)
		}
		b.WriteString("; ")
	}
	return b.String()
}

type picture struct{ ID, Name, Status string }

func (j *judge) pictures(ctx context.Context) (out []picture) {
	j.t.Helper()
	next := "/images?limit=500"
	for next != "" {
		var page struct {
			Images []picture
			Next   string
		}
		if _, _, err := j.admin.Do(ctx, http.MethodGet, "image", next, nil, &page); err != nil {
			j.t.Fatal(err)
		}
		out = append(out, page.Images...)
		next = strings.TrimPrefix(page.Next, "/v2")
	}
	return out
}

// images demands that every snapshot is whole or gone. An image that was made for a request which was not accepted may wait for the sweep.
func (j *judge) images(ctx context.Context, long time.Duration) {
	j.t.Helper()
	asked := map[string]string{}
	for _, r := range j.ledger.requests {
		if r.Image != "" {
			asked[r.Image] = r.RequestID
		}
	}
	var left []picture
	for end := time.Now().Add(long); ; time.Sleep(time.Second) {
		left = slices.DeleteFunc(j.pictures(ctx), func(p picture) bool { return p.Status == "active" })
		accepted := slices.ContainsFunc(left, func(p picture) bool { return asked[p.ID] != "" || p.Status != "queued" })
		if len(left) == 0 || accepted || time.Now().After(end) {
			break
		}
	}
	for _, p := range left {
		if asked[p.ID] == "" && p.Status == "queued" && !slow() {
			j.t.Logf("image %s (%s) of a request that was not accepted waits for the sweep", p.ID, p.Name)
			continue
		}
		j.t.Errorf("image %s (%s, request %q) is %s and nobody fills it", p.ID, p.Name, asked[p.ID], p.Status)
	}
}

// clear deletes everything that the storm left and demands that nothing is left of it.
func (j *judge) clear(ctx context.Context) {
	j.t.Helper()
	began := time.Now()
	left := j.servers(ctx, "")
	for id := range left {
		if _, _, err := j.admin.Do(ctx, http.MethodDelete, "compute", "/servers/"+id, nil, nil); err != nil {
			j.t.Error(err)
		}
	}
	for id := range left {
		if _, err := j.admin.WaitStatus(ctx, id, ""); err != nil {
			j.t.Error(err)
		}
	}
	for _, p := range j.pictures(ctx) {
		if p.ID != j.ground.Image {
			if _, _, err := j.admin.Do(ctx, http.MethodDelete, "image", "/images/"+p.ID, nil, nil); err != nil {
				j.t.Error(err)
			}
		}
	}
	j.settle(ctx, patience)
	j.t.Logf("everything was deleted after %s", time.Since(began).Round(time.Millisecond))
	j.healthy(ctx, patience)
	var r struct{ Counts map[string]int64 }
	if err := j.command(ctx, &r, "doctor", "--looks", "1"); err != nil {
		j.t.Fatal(err)
	}
	for _, what := range []string{"servers", "guests", "consumers", "ports of servers", "open operations", "debts of hosts"} {
		if n, counted := r.Counts[what]; n != 0 || !counted {
			j.t.Errorf("after everything was deleted there are %d %s", n, what)
		}
	}
}
