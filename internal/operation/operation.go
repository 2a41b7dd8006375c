// Package operation is the durable operation engine: an accepted request is a row, a row is carried out step by step under a lease
// with an epoch, each step is journalled before and after, and whoever takes an expired lease goes on or undoes.
//
// The contract for steps: a step may be run again after any crash, so it looks before it acts; its identifiers are derived
// (id.Derived(run.ID, …)) or stored with Run.Set by an earlier step; its Undo may be called without Do having taken effect.
package operation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"kilonova/internal/db"
	"kilonova/internal/fault"
)

// State of an operation.
type State string

// The states. Open operations (pending, running, undoing, attention) hold their object.
const (
	Pending    State = "pending"
	Running    State = "running"
	Undoing    State = "undoing"
	Attention  State = "attention" // neither forward nor back without a person; Cause says why
	Done       State = "done"
	Undone     State = "undone"
	Superseded State = "superseded" // a delete took over and ended it
)

// Spec is a request to be accepted.
type Spec struct {
	Kind       string // names the Flow
	ObjectType string // "server"
	Object     string // the object's id
	Action     string // name in os-instance-actions; "" keeps it out of there
	TaskState  string // task state from acceptance until the first step sets another
	Project    string
	User       string
	RequestID  string
	Input      any       // JSON
	NotBefore  time.Time // zero: now
	// TakeOver lets a delete be accepted although another operation holds the object: that one becomes superseded, gets a
	// higher epoch and is ended before the first step of this one (Flow.Removes says how).
	TakeOver bool
	// Yields are the kinds of operation that a TakeOver does not take over: it counts as accepted with them. The own kind is always one.
	Yields []string
	// Shared operations do not hold their object (they run beside the holder): console log fetches, live-migration abort.
	Shared bool
	// First promises that the object was made in the same transaction: nothing holds it and it had no operation.
	First bool
	// Finished records an action that was complete at acceptance (lock, resetState): the row is written as done.
	Finished bool
	Event    string // of a Finished one: the event of its action in os-instance-actions; "": none
}

// HeldError is what Accept fails with when an open operation holds the object. It is a fault.Conflict.
type HeldError struct {
	Object, Operation, Kind, TaskState string
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("%s is held by %s operation %s (task state %s)", e.Object, e.Kind, e.Operation, e.TaskState)
}

// Unwrap makes a HeldError a fault.Conflict.
func (e *HeldError) Unwrap() error { return fault.Conflict }

// Acceptor records operations. API handlers need nothing more of the engine.
type Acceptor interface {
	// Accept writes the operation in tx, together with whatever else the handler writes there, and wakes a conductor after
	// the commit. It fails with *HeldError when the object is held.
	Accept(ctx context.Context, tx *db.Tx, s Spec) (id string, err error)
}

// Flow is one kind of operation: its steps in order.
type Flow struct {
	Kind  string
	Steps []Step
	// Removes says that the operation leaves nothing of its object. Of an operation that it takes over it undoes what can be undone, and from
	// then on it only goes forward. One that does not remove ends what it takes over as if it had waited: back, or forward past the point of no return.
	Removes bool
	// Done runs in the transaction that ends the operation as done, Undone in the one that ends it as undone (cause is why).
	// Both may be nil.
	Done   func(ctx context.Context, tx *db.Tx, r *Run) error
	Undone func(ctx context.Context, tx *db.Tx, r *Run, cause error) error
}

// Step is one line of a flow.
type Step struct {
	Name      string
	Event     string // event name in os-instance-actions, or several, with a space between; "" hides the step there
	FailEvent string // event names that the step gets when it fails and has none
	TaskState string // task state while the step runs; "" leaves the one before
	Do        func(ctx context.Context, r *Run) error
	Undo      func(ctx context.Context, r *Run) error // nil: nothing to undo
	// Commit runs in the transaction that journals the step's success; nil: nothing to write.
	Commit func(ctx context.Context, tx *db.Tx, r *Run) error
	// Deadline bounds one attempt of Do or Undo; 0: 60 s.
	Deadline time.Duration
	// Retries is how often Do is run again after an error that Transient says may pass, with growing pauses; Undo is retried until
	// it succeeds or UndoLimit has passed, then the operation needs attention. 0: 5.
	Retries int
	// NoReturn: once this step is done the operation only goes forward; a later failure is retried, then needs attention.
	NoReturn bool
	// Skip leaves the step out for this run (a server without volumes has no volume step); nil: never.
	Skip func(r *Run) bool
}

// Run is an operation that is being carried out, as its steps see it.
type Run struct {
	ID, Kind, Object, ObjectType     string
	Project, User, RequestID, Action string
	Epoch                            int64 // fencing token: rises with every lease taken on the object
	StepName                         string
	Attempt                          int // 1, and one more each time the operation was sent back
	Input                            json.RawMessage
	Vars                             map[string]json.RawMessage
	Host                             string // where the step runs, for the journal; steps set it
	// Details are written to the event row of the step (public text, action details from 2.84).
	Details string
}

// Bind decodes the operation's input.
func (r *Run) Bind(v any) error {
	if err := json.Unmarshal(r.Input, v); err != nil {
		return fmt.Errorf("operation %s input: %w", r.ID, err)
	}
	return nil
}

// Get decodes a variable that Set stored; false when there is none.
func (r *Run) Get(key string, v any) bool {
	raw, ok := r.Vars[key]
	return ok && json.Unmarshal(raw, v) == nil
}

// Set stores a variable. It is journalled with the step's success (and with a Back), so later steps and Undo see it; a crash inside
// the step loses it.
func (r *Run) Set(key string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("operation variable %s: %v", key, err)) // a type that cannot be encoded is a programming error
	}
	if r.Vars == nil {
		r.Vars = map[string]json.RawMessage{}
	}
	r.Vars[key] = b
}

// BackError sends the operation back: the steps after To, and To itself, are undone in reverse order and then run again from To.
type BackError struct {
	To    string
	Cause error
}

func (e *BackError) Error() string { return "back to " + e.To + ": " + e.Cause.Error() }

// Unwrap gives the cause.
func (e *BackError) Unwrap() error { return e.Cause }

// Back makes a BackError. The step that failed is undone too. Variables set before are kept, so that the step gone back to can
// choose differently; the flow bounds how often.
func Back(to string, cause error) error { return &BackError{To: to, Cause: cause} }

// Transient tells whether an error may pass by itself: unavailable parts, deadlines, no responder.
func Transient(err error) bool {
	return errors.Is(err, fault.Unavailable) || errors.Is(err, context.DeadlineExceeded)
}

// Record is an operation as it is read: os-instance-actions, `kilonova operation`, explain.
type Record struct {
	ID, Kind, ObjectType, Object, Action string
	Project, User, RequestID             string
	State                                State
	TaskState, Step, Cause, Owner        string
	Epoch                                int64
	Accepted, Updated, Finished          time.Time
	LeaseUntil                           time.Time
	Input                                json.RawMessage
	Vars                                 map[string]json.RawMessage
	Steps                                []StepRecord // only from Show
}

// StepRecord is one journalled try of a step.
type StepRecord struct {
	Seq       int64
	Name      string
	Event     string
	Undo      bool
	Attempt   int
	Epoch     int64
	Host      string
	Started   time.Time
	Finished  time.Time // zero while running
	Error     string    // private cause; while the step runs, why it was tried again; "" when it succeeded
	Public    string    // what a user may read of the error, and details
	Succeeded bool
}

// Reader reads operations.
type Reader interface {
	// ByObject gives the operations of an object that have an Action, newest first.
	ByObject(ctx context.Context, object string) ([]Record, error)
	// Show gives one operation with its steps. It fails with fault.NotFound.
	Show(ctx context.Context, id string) (*Record, error)
	// List gives operations in the given states (all when empty), newest first.
	List(ctx context.Context, states []State, limit int) ([]Record, error)
	// Wait blocks until an operation has ended or needs attention, or the context ends.
	Wait(ctx context.Context, id string) (*Record, error)
}
