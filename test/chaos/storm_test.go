package chaos_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"kilonova/test/process"
)

// storm is a set of clients at work.
type storm struct {
	ledger  *ledger
	ground  process.Ground
	flavors []string // what servers are created with
	bigger  []string // what they are resized to
	seed    uint64
	pause   time.Duration // of a client between two requests, at most
	moves   map[string][]string
	deletes int    // one request of so many is a delete; 0: 12
	name    string // put before the clients' names, so that two storms on one cloud are told apart
}

// run lets n clients work until ctx ends. login gives each its session.
func (s *storm) run(ctx context.Context, n int, login func() *process.Client) {
	var wg sync.WaitGroup
	for i := range n {
		w := &worker{storm: s, client: client{login(), s.ledger}, name: fmt.Sprintf("%sw%d", s.name, i), rnd: rand.New(rand.NewPCG(s.seed, uint64(i)))}
		wg.Go(func() { w.run(ctx) })
	}
	wg.Wait()
}

type worker struct {
	*storm
	client
	name string
	rnd  *rand.Rand
	made int
}

func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		w.step(ctx)
		wait(ctx, time.Duration(w.rnd.Int64N(int64(w.pause))))
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// works waits until clients have n more requests accepted: what is killed then is killed at its work, however slow the machine is.
func (s *storm) works(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	for more := s.ledger.accepted() + n; s.ledger.accepted() < more; wait(ctx, 5*time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatal("the clients do not get on")
		}
	}
}

func (w *worker) step(ctx context.Context) {
	server := w.any()
	if server == "" || w.rnd.IntN(5) == 0 {
		w.create(ctx)
		return
	}
	if w.rnd.IntN(cmp.Or(w.deletes, 12)) == 0 {
		w.delete(ctx, server)
		return
	}
	var doc struct{ Server process.Server }
	code, _, err := w.Do(ctx, http.MethodGet, "compute", "/servers/"+server, nil, &doc)
	switch {
	case code == http.StatusNotFound:
		w.storm.ledger.missing(server)
	case err == nil && doc.Server.Task == nil:
		w.act(ctx, server, doc.Server.Status)
	}
}

func (w *worker) any() string {
	l := w.storm.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.servers) == 0 {
		return ""
	}
	return l.servers[w.rnd.IntN(len(l.servers))]
}

// create asks for one server or for two. When the outcome is unknown it looks for what came of it.
func (w *worker) create(ctx context.Context) {
	w.made++
	r := request{Verb: "create", Name: fmt.Sprintf("%s-%d", w.name, w.made), Count: 1}
	doc := map[string]any{"name": r.Name, "imageRef": w.ground.Image, "flavorRef": w.flavors[w.rnd.IntN(len(w.flavors))], "networks": []any{map[string]string{"uuid": w.ground.Network}}}
	if w.rnd.IntN(8) == 0 {
		r.Count = 2
		doc["min_count"], doc["max_count"] = 2, 2
	}
	for ctx.Err() == nil {
		var out struct{ Server process.Thing }
		r.Server = ""
		r = w.ask(ctx, r, http.MethodPost, "/servers", map[string]any{"server": doc}, &out)
		r.Server = out.Server.ID
		w.storm.ledger.add(r)
		if r.Server != "" {
			w.storm.ledger.know(r.Server)
		}
		if r.Class == refused || r.Class == failed || (r.Class == accepted && r.Server != "") {
			return
		}
		if r.Class != notSent && w.adopt(ctx, r.Name) {
			return
		}
		wait(ctx, 10*time.Millisecond)
	}
}

// adopt looks for the servers of a create whose answer was lost.
func (w *worker) adopt(ctx context.Context, name string) bool {
	for ctx.Err() == nil {
		var list struct{ Servers []process.Thing }
		code, _, err := w.Do(ctx, http.MethodGet, "compute", "/servers?name=^"+name+"(-[0-9]%2B)?$", nil, &list)
		if err == nil {
			for _, s := range list.Servers {
				w.storm.ledger.know(s.ID)
			}
			return len(list.Servers) > 0
		}
		if code >= 400 && code < 500 {
			w.storm.ledger.add(request{Verb: "look", Class: failed, Code: code, Text: err.Error()})
			return true
		}
		wait(ctx, 20*time.Millisecond)
	}
	return false
}

func (w *worker) delete(ctx context.Context, server string) {
	w.storm.ledger.doom(server)
	for ctx.Err() == nil {
		r := w.ask(ctx, request{Verb: "delete", Server: server}, http.MethodDelete, "/servers/"+server, nil, nil)
		w.storm.ledger.add(r)
		if r.Class == accepted || r.Code == http.StatusNotFound {
			w.storm.ledger.drop(server)
			return
		}
		if r.Class == refused || r.Class == failed {
			return
		}
		wait(ctx, 20*time.Millisecond)
	}
}

// allMoves are what can be asked of a server by its status; a name that stands twice is asked for more often.
var allMoves = map[string][]string{
	"ACTIVE": {"resize", "resize", "resize", "createImage", "createImage", "createImage", "pause", "reboot-soft", "reboot-hard", "shelve", "os-stop", "suspend",
		"rebuild", "migrate", "os-migrateLive", "rescue", "createBackup", "attach", "attach"},
	"VERIFY_RESIZE":     {"confirmResize", "revertResize"},
	"PAUSED":            {"unpause", "createImage", "shelve"},
	"SUSPENDED":         {"resume", "shelve"},
	"SHUTOFF":           {"os-start", "resize", "shelve", "reboot-hard", "rebuild"},
	"SHELVED":           {"unshelve", "shelveOffload"},
	"SHELVED_OFFLOADED": {"unshelve"},
	"RESCUE":            {"unrescue"},
	"ERROR":             {"reboot-hard", "rebuild"},
}

func (w *worker) act(ctx context.Context, server, status string) {
	options := w.moves[status]
	if len(options) == 0 {
		return
	}
	verb := options[w.rnd.IntN(len(options))]
	path, body := "/servers/"+server+"/action", map[string]any{verb: nil}
	switch verb {
	case "resize":
		body[verb] = map[string]any{"flavorRef": w.bigger[w.rnd.IntN(len(w.bigger))]}
	case "createImage":
		w.made++
		body[verb] = map[string]any{"name": fmt.Sprintf("%s-i%d", w.name, w.made)}
	case "createBackup":
		w.made++
		body[verb] = map[string]any{"name": fmt.Sprintf("%s-b%d", w.name, w.made), "backup_type": "daily", "rotation": 1}
	case "attach":
		path, body = "/servers/"+server+"/os-interface", map[string]any{"interfaceAttachment": map[string]any{"net_id": w.ground.Network}}
	case "reboot-soft":
		body = map[string]any{"reboot": map[string]any{"type": "SOFT"}}
	case "reboot-hard":
		body = map[string]any{"reboot": map[string]any{"type": "HARD"}}
	case "rebuild":
		body[verb] = map[string]any{"imageRef": w.ground.Image}
	case "rescue":
		body[verb] = map[string]any{}
	case "os-migrateLive":
		body[verb] = map[string]any{"host": nil, "block_migration": "auto"}
	}
	for ctx.Err() == nil {
		var out struct {
			Image string `json:"image_id"`
		}
		var into any
		if verb == "createImage" || verb == "createBackup" {
			into = &out
		}
		r := w.ask(ctx, request{Verb: verb, Server: server}, http.MethodPost, path, body, into)
		r.Image = out.Image
		w.storm.ledger.add(r)
		if r.Class != unknown {
			return
		}
		wait(ctx, 20*time.Millisecond)
	}
}
