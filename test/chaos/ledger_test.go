package chaos_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"kilonova/test/process"
)

// class is how a request ended for its client.
type class string

const (
	accepted class = "accepted" // 2xx
	refused  class = "refused"  // 4xx
	failed   class = "failed"   // 5xx: it must not happen without a reason, and says nothing about the effect
	unknown  class = "unknown"  // the connection ended before an answer
	notSent  class = "not sent" // nobody listened
)

// request is one line of the ledger.
type request struct {
	Verb      string // create, delete, or the name of the action
	Server    string // id; "" for creates whose answer was lost
	Name      string // creates: name of the server, or of all servers of the request without their number
	Count     int    // creates: how many servers
	RequestID string
	Image     string
	Class     class
	Code      int
	Text      string
	At        time.Time
}

// ledger is what clients asked for and what they were told.
type ledger struct {
	mu       sync.Mutex
	requests []request
	servers  []string        // known and not yet asked to be deleted
	doomed   map[string]bool // ids with a delete that was, or may have been, accepted
	lost     []string        // servers that were not there although nobody deleted them
}

func newLedger() *ledger { return &ledger{doomed: map[string]bool{}} }

// add notes a request.
func (l *ledger) add(r request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests = append(l.requests, r)
}

// accepted counts the requests that were.
func (l *ledger) accepted() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for i := range l.requests {
		if l.requests[i].Class == accepted {
			n++
		}
	}
	return n
}

func (l *ledger) know(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if id != "" && !slices.Contains(l.servers, id) && !l.doomed[id] {
		l.servers = append(l.servers, id)
	}
}

// doom notes that a server is about to be asked to be deleted: from now on it may be gone.
func (l *ledger) doom(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.doomed[id] = true
}

// drop takes a server out of those that clients work on.
func (l *ledger) drop(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.servers = slices.DeleteFunc(l.servers, func(s string) bool { return s == id })
}

// missing notes that a server was not there.
func (l *ledger) missing(id string) {
	l.drop(id)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.doomed[id] {
		l.lost = append(l.lost, id)
	}
}

// summary counts requests by verb and class.
func (l *ledger) summary() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := map[string]map[class]int{}
	total := map[class]int{}
	for _, r := range l.requests {
		if n[r.Verb] == nil {
			n[r.Verb] = map[class]int{}
		}
		n[r.Verb][r.Class]++
		total[r.Class]++
	}
	var b strings.Builder
	line := func(what string, m map[class]int) {
		fmt.Fprintf(&b, "\n  %-14s", what)
		for _, c := range []class{accepted, refused, failed, unknown, notSent} {
			fmt.Fprintf(&b, " %s %d,", c, m[c])
		}
	}
	for _, v := range slices.Sorted(maps.Keys(n)) {
		line(v, n[v])
	}
	line("all", total)
	return b.String()
}

// client is one user of the cloud.
type client struct {
	*process.Client
	ledger *ledger
}

// ask makes a request, classifies its outcome and notes it. out is filled when the answer could be read.
func (c *client) ask(ctx context.Context, r request, method, path string, body, out any) request {
	r.At = time.Now()
	var raw json.RawMessage
	code, h, err := c.Do(ctx, method, "compute", path, body, nil2(out != nil, &raw))
	r.Code = code
	switch {
	case code >= 200 && code < 300:
		r.Class = accepted
		if err == nil && out != nil {
			err = json.Unmarshal(raw, out)
		}
	case code >= 500:
		r.Class = failed
	case code >= 400:
		r.Class = refused
	case errors.Is(err, syscall.ECONNREFUSED):
		r.Class = notSent
	default:
		r.Class = unknown
	}
	if err != nil {
		r.Text = err.Error()
	}
	if h != nil {
		r.RequestID = h.Get("X-Openstack-Request-Id")
	}
	return r
}

// nil2 gives p as an interface, or none.
func nil2(some bool, p *json.RawMessage) any {
	if some {
		return p
	}
	return nil
}
