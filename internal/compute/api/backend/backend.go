// Package backend is what the handlers of the compute API share: the services they work with, the options of the deployment, and the steps that every
// handler takes: load a server as the caller may see it, judge its state, page a list, accept an operation.
package backend

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"time"

	"kilonova/internal/auth"
	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/api/view"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/scheduler"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/image"
	"kilonova/internal/network"
	"kilonova/internal/operation"
	"kilonova/internal/placement"
	"kilonova/internal/policy"
)

// Handler answers one route.
type Handler = func(*httpapi.Request) (*httpapi.Reply, error)

// Agents carries queries to hosts. *command.Client is one.
type Agents interface {
	Do(ctx context.Context, host string, cmd command.Command, args, out any) error
}

// Projects tells whether a project exists. The identity service does.
type Projects interface {
	ProjectExists(ctx context.Context, id string) (bool, error)
}

// Services are the parts that handlers work with.
type Services struct {
	Store      *store.Store
	Operations operation.Acceptor
	Reader     operation.Reader
	Images     image.Service
	Network    network.Service
	Placement  placement.Service
	Agents     Agents
	Projects   Projects // nil: every project id is taken
}

// Options are the deployment's decisions.
type Options struct {
	Quota           store.Limits      // overrides DefaultQuota by resource
	MaxLimit        int               // most items of one list; 0: 1000
	DefaultZone     string            // availability zone given to servers that ask for none; "": any
	ServiceDownTime time.Duration     // a host that was silent for longer is down; 0: 60 s
	ReclaimInterval time.Duration     // above 0 DELETE is a soft delete
	ShelvedOffload  time.Duration     // 0: shelving offloads at once; below 0: never; above: after that time
	NoPassword      bool              // create, rebuild, rescue and evacuate do not answer an adminPass
	ConsoleURLs     map[string]string // base URL of the console proxy, by console type: "novnc" -> "http://host:6080/vnc_lite.html"
	ConsoleTTL      time.Duration     // 0: 10 min
	AuditPeriod     compute.AuditPeriod
	PCIAliases      []compute.PCIAlias
	CachePause      time.Duration // before a host that could not cache images is asked again; 0: 10 s
	// AnswerWait is how long handlers wait for an operation whose answer says that it is done (attaching an interface); 0: not at all.
	AnswerWait time.Duration
	Log        *slog.Logger
}

// DefaultQuota gives the limits of a deployment that sets none.
func DefaultQuota() store.Limits {
	return store.Limits{"instances": 10, "cores": 20, "ram": 51200, "metadata_items": 128, "key_pairs": 100, "server_groups": 10, "server_group_members": 10,
		"injected_files": 5, "injected_file_content_bytes": 10240, "injected_file_path_bytes": 255, "fixed_ips": -1, "floating_ips": -1, "security_groups": -1,
		"security_group_rules": -1}
}

// Backend is Services and Options made ready, with the steps of handlers.
type Backend struct {
	Services
	Options
	transitions map[string]compute.Transition
	abilities   map[string]ability
}

// New fills the options' defaults.
func New(s Services, o Options) *Backend {
	quota := DefaultQuota()
	for k, v := range o.Quota {
		quota[k] = v
	}
	o.Quota = quota
	if o.MaxLimit == 0 {
		o.MaxLimit = 1000
	}
	if o.ServiceDownTime == 0 {
		o.ServiceDownTime = time.Minute
	}
	if o.CachePause == 0 {
		o.CachePause = 10 * time.Second
	}
	if o.ConsoleTTL == 0 {
		o.ConsoleTTL = 10 * time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Backend{Services: s, Options: o, transitions: compute.Transitions(), abilities: abilities()}
}

// Exact judges what a flavor and an image ask of a host beyond amounts (NUMA nodes, CPU policies, page sizes, PCI devices by alias): contradictions and aliases that
// nobody defined are fault.Invalid or fault.Forbidden.
func (b *Backend) Exact(f *compute.Flavor, props map[string]string) error {
	if !compute.NeedsClaim(f, props) && !asksCPUs(f, props) {
		return nil
	}
	policy, err := compute.PCIPolicy(f.ExtraSpecs, props)
	if err != nil {
		return err
	}
	if _, err := compute.PCIWants(b.PCIAliases, f.ExtraSpecs, policy); err != nil {
		return err
	}
	_, err = scheduler.TopologyOf(&scheduler.Request{Flavor: *f, Image: scheduler.Image{Props: props}})
	return err
}

// asksCPUs tells whether a flavor or an image names things that only make sense beside a CPU policy or a page size.
func asksCPUs(f *compute.Flavor, props map[string]string) bool {
	for _, k := range []string{"hw:cpu_thread_policy", "hw:emulator_threads_policy", "hw:cpu_realtime", "hw:locked_memory", "hw:cpu_dedicated_mask", "trait:HW_CPU_HYPERTHREADING", "resources:VCPU"} {
		if f.ExtraSpecs[k] != "" {
			return true
		}
	}
	return props["hw_cpu_thread_policy"] != "" || props["hw_locked_memory"] != "" || props["trait:HW_CPU_HYPERTHREADING"] != ""
}

// KnownProject refuses a project that the identity service does not have: fault.Invalid.
func (b *Backend) KnownProject(ctx context.Context, project string) error {
	if b.Projects == nil {
		return nil
	}
	ok, err := b.Projects.ProjectExists(ctx, project)
	if err != nil {
		return err
	}
	if !ok {
		return fault.New(fault.Invalid, "Project ID %s is not a valid project.", project)
	}
	return nil
}

// DB is the database, for reads.
func (b *Backend) DB() *db.DB { return b.Store.DB }

// Rule is the full name of a policy rule.
func Rule(short string) string { return "os_compute_api:" + short }

// Target is what policy compares the caller with.
func Target(project, user string) policy.Target {
	return policy.Target{"project_id": project, "user_id": user}
}

// Server loads the server of a path variable ("id" or "server_id") as the caller may see it: a server of another project is fault.NotFound to all but
// admins, and then the rule is asked about the server itself.
func (b *Backend) Server(r *httpapi.Request, variable, rule string) (*compute.Server, error) {
	return b.load(r, variable, rule, b.Store.Server)
}

// ServerAny is Server for deleted ones too.
func (b *Backend) ServerAny(r *httpapi.Request, variable, rule string) (*compute.Server, error) {
	return b.load(r, variable, rule, b.Store.ServerAny)
}

func (b *Backend) load(r *httpapi.Request, variable, rule string, get func(context.Context, db.Querier, string) (*compute.Server, error)) (*compute.Server, error) {
	s, err := get(r.Context(), b.DB(), r.Path(variable))
	if err != nil {
		return nil, err
	}
	if s.ProjectID == r.Caller.ProjectID && rule == "" {
		return s, nil
	}
	if rule != "" && r.Allowed(rule, Target(s.ProjectID, s.UserID)) {
		return s, nil
	}
	if s.ProjectID != r.Caller.ProjectID && !r.Caller.IsAdmin() {
		return nil, fault.New(fault.NotFound, "Instance %s could not be found.", s.ID)
	}
	if rule == "" {
		return s, nil
	}
	return nil, r.Authorize(rule, Target(s.ProjectID, s.UserID))
}

// Check judges whether the operation op (a key of compute.Transitions) is allowed for the server as it is.
func (b *Backend) Check(r *httpapi.Request, s *compute.Server, op string) error {
	return b.transitions[op].Check(s, r.Caller.IsAdmin())
}

// Request is an operation to be accepted for a server.
type Request struct {
	Op        string // key of compute.Transitions
	Kind      string // of the operation; "" is Op
	Action    string // name in os-instance-actions
	TaskState string
	Input     any
	TakeOver  bool     // deletes
	Yields    []string // kinds of operation that a TakeOver joins
	Shared    bool
	Finished  bool
	Event     string // of a finished one
	// Change alters the server in the same transaction; nil: only its Updated time.
	Change func(*compute.Server) error
	// Before runs first in the transaction: quota.
	Before func(tx *db.Tx) error
}

// Accept checks the state inside a transaction, on the row as it is then, writes what the request changes and records the operation.
func (b *Backend) Accept(r *httpapi.Request, s *compute.Server, q Request) error {
	_, err := b.accept(r, s, q)
	return err
}

// accept accepts the operation. Where another one without a task state holds the server it waits for that one's end, AnswerWait at the longest:
// a server that shows no task can be asked for the next thing, and clients detach one interface right after the other.
func (b *Backend) accept(r *httpapi.Request, s *compute.Server, q Request) (op string, err error) {
	if err := b.Check(r, s, q.Op); err != nil {
		return "", err
	}
	if err := b.able(r.Context(), s, q.Op); err != nil {
		return "", err
	}
	var patience context.Context
	for {
		err = b.DB().Write(r.Context(), func(tx *db.Tx) error {
			op, err = b.acceptTx(r, tx, s, q)
			return err
		})
		var held *operation.HeldError
		if !errors.As(err, &held) || held.TaskState != "" || held.Operation == "" || b.AnswerWait <= 0 {
			return op, err
		}
		if patience == nil {
			var cancel context.CancelFunc
			patience, cancel = context.WithTimeout(r.Context(), b.AnswerWait)
			defer cancel()
		}
		if rec, problem := b.Reader.Wait(patience, held.Operation); problem != nil || rec.State == operation.Attention {
			return op, err
		}
	}
}

// AcceptAndWait is Accept for what clients take for done when they have the answer. It fails as the operation fails; an operation that takes longer than
// AnswerWait goes on by itself.
func (b *Backend) AcceptAndWait(r *httpapi.Request, s *compute.Server, q Request) error {
	op, err := b.accept(r, s, q)
	if err != nil || b.AnswerWait <= 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), b.AnswerWait)
	defer cancel()
	rec, err := b.Reader.Wait(ctx, op)
	if err != nil {
		b.Log.Info("answered before the operation ended", "operation", op, "request_id", r.RequestID, "error", err)
		return nil
	}
	if rec.State == operation.Undone {
		return fault.New(fault.Internal, "%s", publicCause(rec))
	}
	return nil
}

// publicCause is what a caller may read about why an operation was undone.
func publicCause(rec *operation.Record) string {
	for _, step := range slices.Backward(rec.Steps) {
		if step.Public != "" && !step.Undo {
			return step.Public
		}
	}
	return "The operation failed and was undone."
}

// AcceptTx is Accept inside a transaction of the handler's own.
func (b *Backend) AcceptTx(r *httpapi.Request, tx *db.Tx, s *compute.Server, q Request) error {
	_, err := b.acceptTx(r, tx, s, q)
	return err
}

func (b *Backend) acceptTx(r *httpapi.Request, tx *db.Tx, s *compute.Server, q Request) (string, error) {
	ctx := r.Context()
	if q.Before != nil {
		if err := q.Before(tx); err != nil {
			return "", err
		}
	}
	rule := b.transitions[q.Op]
	change := func(now *compute.Server) error {
		if !now.Deleted.IsZero() {
			return fault.New(fault.NotFound, "Instance %s could not be found.", s.ID)
		}
		if err := rule.Check(now, r.Caller.IsAdmin()); err != nil {
			return err
		}
		if q.Change != nil {
			return q.Change(now)
		}
		return nil
	}
	if err := b.Store.UpdateServer(ctx, tx, s.ID, change); err != nil {
		return "", err
	}
	kind := q.Kind
	if kind == "" {
		kind = q.Op
	}
	op, err := b.Operations.Accept(ctx, tx, operation.Spec{Kind: kind, ObjectType: "server", Object: s.ID, Action: q.Action, TaskState: q.TaskState, Project: r.Caller.ProjectID,
		User: r.Caller.UserID, RequestID: r.RequestID, Input: q.Input, TakeOver: q.TakeOver, Yields: q.Yields, Shared: q.Shared, Finished: q.Finished, Event: q.Event})
	return op, refused(err, rule, s)
}

// refused turns "the server is held" into the sentence about its task state.
func refused(err error, rule compute.Transition, s *compute.Server) error {
	var held *operation.HeldError
	if errors.As(err, &held) {
		return rule.Refuse(s, held.TaskState, err)
	}
	return err
}

// Links makes links for the request: with the project in them when it is in the request's path.
func Links(r *httpapi.Request) view.Links {
	root, project := r.Root, ""
	if root == "" {
		root = "/v2.1"
	}
	if r.Project != "" {
		project = "/" + r.Project
	}
	return view.Links{Self: r.Base + root + project, Bookmark: r.Base + project}
}

// Minor is the minor of the microversion in force.
func Minor(r *httpapi.Request) int { return r.Version.Minor }

// Page is the part of a list that is asked for.
type Page struct {
	Limit  int // never above the maximum
	Marker string
	Zero   bool // limit=0 was given
}

// Page reads limit and marker.
func (b *Backend) Page(q url.Values) (Page, error) {
	p := Page{Limit: b.MaxLimit, Marker: httpapi.Last(q, "marker")}
	if text := httpapi.Last(q, "limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return p, fault.New(fault.Invalid, "limit must be an integer of 0 or more, not %q.", text)
		}
		p.Zero = n == 0
		p.Limit = min(n, b.MaxLimit)
	}
	return p, nil
}

// Offset cuts a list by limit and offset.
func Offset[T any](b *Backend, q url.Values, list []T) ([]T, error) {
	offset, limit, err := b.Window(q)
	if err != nil {
		return nil, err
	}
	list = list[min(offset, len(list)):]
	return list[:min(limit, len(list))], nil
}

// Window reads limit and offset, the older way of paging, in which a limit of 0 is the maximum.
func (b *Backend) Window(q url.Values) (offset, limit int, err error) {
	n := map[string]int{"limit": 0, "offset": 0}
	for k := range n {
		if text := httpapi.Last(q, k); text != "" {
			v, err := strconv.Atoi(text)
			if err != nil || v < 0 {
				return 0, 0, fault.New(fault.Invalid, "%s must be an integer of 0 or more, not %q.", k, text)
			}
			n[k] = v
		}
	}
	if n["limit"] == 0 || n["limit"] > b.MaxLimit {
		n["limit"] = b.MaxLimit
	}
	return n["offset"], n["limit"], nil
}

// Up tells whether a service was heard of lately and is not forced down.
func (b *Backend) Up(h *compute.Host) bool {
	return !h.ForcedDown && clock.Now().Sub(h.LastSeen) <= b.ServiceDownTime
}

// HostStatus is the host_status of a host: UP, DOWN (forced down), MAINTENANCE (disabled, silent or not), UNKNOWN (silent).
func (b *Backend) HostStatus(h *compute.Host) string {
	switch {
	case h == nil:
		return ""
	case h.ForcedDown:
		return "DOWN"
	case h.Disabled:
		return "MAINTENANCE"
	case !b.Up(h):
		return "UNKNOWN"
	}
	return "UP"
}

// Internal is who the API is towards other services when it acts for itself.
func Internal(r *httpapi.Request) *auth.Caller { return auth.Internal(r.RequestID) }

// Query asks a host something that leaves no trace.
func (b *Backend) Query(ctx context.Context, r *httpapi.Request, s *compute.Server, verb command.Verb, args, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return b.Agents.Do(ctx, s.Host, command.Command{Verb: verb, Server: s.ID, RequestID: r.RequestID}, args, out)
}

// Time reads a time of a query: ISO 8601 with or without zone, or a date.
func Time(name, text string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999-0700", "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999-07:00",
		"2006-01-02 15:04:05.999999999", "2006-01-02T15:04", "2006-01-02", "20060102T150405Z", "20060102T150405"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fault.New(fault.Invalid, "Invalid %s value: %q is not a time of ISO 8601.", name, text)
}

// Through gives the last moment that counts as t where t bounds a range from above: times are shown in whole seconds, and what is shown as
// changed at t must be in the range, whatever its microseconds.
func Through(t time.Time) time.Time {
	return t.Truncate(time.Second).Add(time.Second - time.Microsecond)
}
