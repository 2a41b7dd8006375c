// Package notify tells the world what happens: OpenStack's versioned notifications, in the envelope of oslo.messaging, on the bus and, when configured, on
// RabbitMQ.
//
// What it promises: a notification of an operation or of a change of compute's nouns is written into a table in the transaction that journals or makes that
// change, with the state that the transaction leaves. So there is one for every change that is there and none for one that is not, whenever a process dies. A
// conductor publishes the rows in order and removes what every sink has taken: a consumer gets each at least once, a repeat with the same message_id. What is
// not promised: order between objects; the keeping of messages on the bus that nobody listens to (RabbitMQ keeps them in a queue); notifications older than the
// retention, when no sink took them.
//
// Which event belongs to which turn of which operation stands in one table (Lines), that of the other nouns in another (nouns).
package notify

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/id"
	"kilonova/internal/operation"
)

//go:embed migrations/*.sql
var migrations embed.FS

// The values of Config.StateChange.
const (
	OnVMState   = "vm_state"
	OnTaskState = "vm_and_task_state"
)

// Config of a notifier.
type Config struct {
	DB    *db.DB
	Store *store.Store
	// Host is the host part of the publisher of what no compute host does.
	Host string
	// Sinks take the messages; all of them get all.
	Sinks []Sink
	// Topics are the names under which messages are published; empty: versioned_notifications.
	Topics []string
	// StateChange says when instance.update is told: "" never, OnVMState or OnTaskState. Tags are told of always.
	StateChange string
	// BlockDevices puts a server's volumes into every payload.
	BlockDevices bool
	// Level is the priority of what is no error; "": INFO.
	Level string
	// Audit makes instance.exists at the end of each period; "" none. The form is hour, day, month or year, with an offset behind an @.
	Audit string
	// Retention is how long a message waits for a sink that does not take it; 0: 24 h.
	Retention time.Duration
	// Lease is how long a publisher may be silent before another takes over; 0: 15 s.
	Lease time.Duration
	// Poll is how often messages of other processes are looked for; 0: 500 ms.
	Poll time.Duration
	Log  *slog.Logger
}

// Notifier makes and publishes notifications. It implements operation.Watcher and store.Watcher.
type Notifier struct {
	cfg    Config
	period compute.AuditPeriod
	lines  map[key][]Line
	nouns  map[store.What][]noun
	owner  string
	wake   chan struct{}
	sent   []map[int64]bool // by sink: rows that it has and others have not
}

var (
	_ operation.Watcher = (*Notifier)(nil)
	_ store.Watcher     = (*Notifier)(nil)
)

// New makes a notifier and brings its tables up to date.
func New(ctx context.Context, cfg Config) (*Notifier, error) {
	if cfg.Level == "" {
		cfg.Level = "INFO"
	}
	if len(cfg.Topics) == 0 {
		cfg.Topics = []string{"versioned_notifications"}
	}
	for v, d := range map[*time.Duration]time.Duration{&cfg.Retention: 24 * time.Hour, &cfg.Lease: 15 * time.Second, &cfg.Poll: 500 * time.Millisecond} {
		if *v == 0 {
			*v = d
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	n := &Notifier{cfg: cfg, lines: map[key][]Line{}, nouns: nouns(), owner: cfg.Host + "/" + id.Secret(6), wake: make(chan struct{}, 1)}
	for range cfg.Sinks {
		n.sent = append(n.sent, map[int64]bool{})
	}
	for _, l := range Lines() {
		k := key{l.Kind, l.Step, l.At}
		n.lines[k] = append(n.lines[k], l)
	}
	if cfg.Audit != "" {
		p, err := compute.ParseAuditPeriod(cfg.Audit)
		if err != nil {
			return nil, err
		}
		n.period = p
	}
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	if err := cfg.DB.Migrate(ctx, "compute_notify", sub); err != nil {
		return nil, err
	}
	return n, nil
}

type key struct {
	kind, step string
	at         operation.Moment
}

// Turned implements operation.Watcher.
func (n *Notifier) Turned(ctx context.Context, tx *db.Tx, t operation.Turn) error {
	lines := n.lines[key{t.Run.Kind, t.Step, t.Moment}]
	task := t.Moment == operation.TaskChanged && n.cfg.StateChange == OnTaskState
	broken := t.Moment == operation.Failed && !t.Again && t.Run.Host != ""
	if t.Run.ObjectType != "server" || len(lines) == 0 && !task && !broken {
		return nil
	}
	s, err := n.cfg.Store.ServerAny(ctx, tx, t.Run.Object)
	if errors.Is(err, fault.NotFound) {
		return nil // its record was purged: there is nothing left to tell of
	} else if err != nil {
		return err
	}
	if t.Holds {
		s.TaskState = t.TaskState
	}
	o := &occasion{n: n, ctx: ctx, tx: tx, turn: t, server: s, who: initiator{user: t.Run.User, project: t.Run.Project, request: t.Run.RequestID}}
	for _, l := range lines {
		if err := o.tell(l); err != nil {
			return err
		}
	}
	if task {
		was := t.Was
		return n.add(ctx, tx, "instance.update", n.cfg.Level, computeAt(s.Host, n.cfg.Host), n.update(s, o.who, s.VMState, was, nil), o.who)
	}
	if broken {
		return n.add(ctx, tx, "compute.exception", "ERROR", computeAt(t.Run.Host, n.cfg.Host), exception(t.Err, t.Step), o.who)
	}
	return nil
}

// Wants implements store.Watcher.
func (n *Notifier) Wants(store.What) bool { return true }

// Changed implements store.Watcher.
func (n *Notifier) Changed(ctx context.Context, tx *db.Tx, c store.Change) error {
	who := initiatorOf(ctx)
	if c.What == store.ServerChanged {
		was, now := c.Before.(*compute.Server), c.Now.(*compute.Server)
		return n.serverChanged(ctx, tx, was, now, who)
	}
	for _, l := range n.nouns[c.What] {
		if l.when != nil && !l.when(c) {
			continue
		}
		priority := n.cfg.Level
		if isError(l.event) {
			priority = "ERROR"
		}
		if err := n.add(ctx, tx, l.event, priority, l.from(n, c), l.body(c), who); err != nil {
			return err
		}
	}
	return nil
}

// serverChanged tells of a server whose record changed outside of what operations tell themselves.
func (n *Notifier) serverChanged(ctx context.Context, tx *db.Tx, was, now *compute.Server, who initiator) error {
	state := n.cfg.StateChange != "" && (was.VMState != now.VMState || was.Name != now.Name)
	tags := !slices.Equal(was.Tags, now.Tags)
	if !state && !tags {
		return nil
	}
	from := computeAt(now.Host, n.cfg.Host)
	if httpapi.CallerOf(ctx) != nil {
		from = "nova-api:" + n.cfg.Host
	}
	var old any
	if was.Name != now.Name {
		old = was.Name
	}
	return n.add(ctx, tx, "instance.update", n.cfg.Level, from, n.update(now, who, was.VMState, now.TaskState, old), who)
}

// initiator is who asked for something; zero: nobody, a task of the cloud itself.
type initiator struct{ user, project, request string }

// initiatorOf gives the caller of the request that ctx belongs to, or who asked for the operation that it belongs to.
func initiatorOf(ctx context.Context) initiator {
	if r := operation.RunOf(ctx); r != nil {
		return initiator{user: r.User, project: r.Project, request: r.RequestID}
	}
	if c := httpapi.CallerOf(ctx); c != nil {
		return initiator{user: c.UserID, project: c.ProjectID, request: httpapi.RequestID(ctx)}
	}
	return initiator{}
}

func computeAt(host, otherwise string) string {
	if host == "" {
		host = otherwise
	}
	return "nova-compute:" + host
}

// add writes one notification into the table.
func (n *Notifier) add(ctx context.Context, tx *db.Tx, event, priority, publisher string, payload object, who initiator) error {
	m := message{ID: id.UUID(), Event: event, Priority: priority, Publisher: publisher, Payload: payload, who: who}
	now := clock.Now()
	body, err := m.encode(now)
	if err != nil {
		return fmt.Errorf("notification %s: %w", event, err)
	}
	if _, err := tx.Exec(ctx, "INSERT INTO compute_notifications (message_id, event_type, priority, body, created_at) VALUES (?, ?, ?, ?, ?)", m.ID, event, priority, body,
		clock.Micros(now)); err != nil {
		return fmt.Errorf("notification %s: %w", event, err)
	}
	tx.AfterCommit(n.look)
	return nil
}

// look has the publisher of this process, if there is one, look for messages now.
func (n *Notifier) look() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}
