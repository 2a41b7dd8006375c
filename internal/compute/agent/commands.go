package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"kilonova/internal/compute/command"
	"kilonova/internal/fault"
)

var errSuperseded = errors.New("agent: a command with a higher epoch has come")

// entry is what the agent knows of one server while it is busy with it.
type entry struct {
	mu      sync.Mutex
	epoch   int64
	results map[string]command.Reply // of commands done, by key
	running *running
	dropped bool // another entry has taken its place, or will
}

type running struct {
	key     string
	epoch   int64
	cancel  context.CancelCauseFunc
	done    chan struct{}
	reply   command.Reply
	waiting int // callers
}

func (e *entry) idle() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.running == nil
}

// drop takes an entry out of use when nothing runs: the journal has what is in it.
func (e *entry) drop() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dropped = e.running == nil
	return e.dropped
}

func (a *Agent) entry(ctx context.Context, server string) (*entry, error) {
	a.mu.Lock()
	e := a.entries[server]
	a.mu.Unlock()
	if e != nil {
		return e, nil
	}
	e, err := a.load(ctx, server)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if old := a.entries[server]; old != nil {
		return old, nil
	}
	if a.entries == nil {
		a.entries = map[string]*entry{}
	}
	a.entries[server] = e
	return e, nil
}

// hold gives the entry of a server, locked.
func (a *Agent) hold(ctx context.Context, server string) (*entry, error) {
	for {
		e, err := a.entry(ctx, server)
		if err != nil {
			return nil, err
		}
		e.mu.Lock()
		if !e.dropped {
			return e, nil
		}
		e.mu.Unlock()
	}
}

// serve answers one message on the host's command subject.
func (a *Agent) serve(ctx context.Context, _ string, msg []byte) ([]byte, error) {
	var c command.Command
	if err := json.Unmarshal(msg, &c); err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "The command is malformed.")
	}
	var r command.Reply
	if q, ok := queries[c.Verb]; ok {
		if c.Verb == command.QueryGuest && c.Epoch > 0 {
			settled, err := a.fence(ctx, &c)
			if err != nil {
				r.Err = command.FailureOf(err)
			}
			if !settled {
				return json.Marshal(r)
			}
		}
		out, err := q(a, ctx, &c)
		r = replyOf(out, err)
	} else if _, ok := verbs[c.Verb]; ok {
		var err error
		if r, err = a.do(ctx, &c); err != nil {
			return nil, err
		}
	} else {
		r.Err = &command.Failure{Kind: fault.NotImplemented, Text: fmt.Sprintf("The agent does not know the command %q.", c.Verb)}
	}
	return json.Marshal(r)
}

func replyOf(out any, err error) command.Reply {
	if err != nil {
		return command.Reply{Err: command.FailureOf(err)}
	}
	r := command.Reply{Done: true}
	if out != nil {
		b, err := json.Marshal(out)
		if err != nil {
			return command.Reply{Err: command.FailureOf(err)}
		}
		r.Data = b
	}
	return r
}

// do carries a command out, or joins or repeats it, under the rules of package command.
func (a *Agent) do(ctx context.Context, c *command.Command) (command.Reply, error) {
	if c.Server == "" || c.Operation == "" || c.Step == "" || len(c.Operation)+len(c.Step) > 200 {
		return command.Reply{}, fault.New(fault.Invalid, "The command names no operation, step or server.")
	}
	key := fmt.Sprintf("%s/%s/%d", c.Operation, c.Step, c.Attempt)
	patience := time.NewTimer(command.Wait)
	defer patience.Stop()
	for {
		e, err := a.hold(ctx, c.Server)
		if err != nil {
			return command.Reply{}, err
		}
		if c.Epoch < e.epoch {
			defer e.mu.Unlock()
			return command.Reply{Err: command.FailureOf(a.stale(c, e.epoch))}, nil
		}
		if r, ok := e.results[key]; ok {
			e.epoch = c.Epoch
			e.mu.Unlock()
			return r, nil
		}
		run := e.running
		switch {
		case run == nil:
			runCtx, cancel := context.WithCancelCause(a.ctx)
			run = &running{key: key, epoch: c.Epoch, cancel: cancel, done: make(chan struct{})}
			e.running, e.epoch = run, c.Epoch
			a.wg.Go(func() { a.execute(runCtx, e, run, c) })
		case run.key == key:
			e.epoch, run.epoch = c.Epoch, c.Epoch
		case c.Epoch > run.epoch:
			run.cancel(errSuperseded)
		}
		mine := run.key == key
		if mine {
			run.waiting++
		}
		e.mu.Unlock()
		select {
		case <-run.done:
			if mine {
				return run.reply, nil
			}
		case <-patience.C:
			leave(e, run, mine)
			return command.Reply{}, nil
		case <-ctx.Done():
			leave(e, run, mine)
			return command.Reply{}, ctx.Err()
		}
	}
}

// fence sees to it that no command with an epoch below c's acts on the server any more, or ever will: what c then finds stays so. A command that runs is cut
// off, one of c's own epoch is awaited. It gives false when that takes long: the caller asks again.
func (a *Agent) fence(ctx context.Context, c *command.Command) (settled bool, err error) {
	patience := time.NewTimer(command.Wait)
	defer patience.Stop()
	for {
		e, err := a.hold(ctx, c.Server)
		if err != nil {
			return false, err
		}
		if c.Epoch < e.epoch {
			defer e.mu.Unlock()
			return false, a.stale(c, e.epoch)
		}
		run, known := e.running, e.epoch
		if run == nil {
			e.epoch = c.Epoch
		} else if c.Epoch > run.epoch {
			run.cancel(errSuperseded)
		}
		e.mu.Unlock()
		if run == nil {
			if known < c.Epoch {
				err = a.raise(ctx, c)
			}
			return err == nil, err
		}
		select {
		case <-run.done:
		case <-patience.C:
			return false, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

func (a *Agent) stale(c *command.Command, seen int64) error {
	return fault.New(fault.Conflict, "Epoch %d of server %s is stale: %d has been seen on host %s.", c.Epoch, c.Server, seen, a.host).WithCode("stale-epoch")
}

func leave(e *entry, run *running, mine bool) {
	if mine {
		e.mu.Lock()
		run.waiting--
		e.mu.Unlock()
	}
}

// execute journals, acts, and journals again. A failure is not kept: asked again, the command is carried out again.
func (a *Agent) execute(ctx context.Context, e *entry, run *running, c *command.Command) {
	defer run.cancel(nil)
	began := time.Now()
	out, err := func() (out json.RawMessage, err error) {
		defer func() {
			if p := recover(); p != nil {
				a.log().Error("command panicked", "verb", c.Verb, "server", c.Server, "panic", p, "stack", string(debug.Stack()))
				err = fault.New(fault.Internal, "The driver failed at %s.", c.Verb)
			}
		}()
		if err := a.begin(ctx, c, run.key); err != nil {
			return nil, err
		}
		res, keep, err := verbs[c.Verb](a, ctx, c)
		if err != nil {
			return nil, err
		}
		if res != nil {
			if out, err = json.Marshal(res); err != nil {
				return nil, err
			}
		}
		return out, a.end(context.WithoutCancel(ctx), c, run.key, out, keep)
	}()
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = fault.Wrap(errors.Join(cause, err), fault.Unavailable, "The command %s was interrupted on host %s.", c.Verb, a.host)
	}
	a.log().Debug("command", "verb", c.Verb, "server", c.Server, "operation", c.Operation, "step", c.Step, "epoch", c.Epoch, "request", c.RequestID, "took", time.Since(began), "error", err)
	e.mu.Lock()
	run.reply = command.Reply{Done: true, Data: out}
	if err != nil {
		run.reply = command.Reply{Err: command.FailureOf(err)}
	} else {
		if len(e.results) >= 4*keepEpochs {
			clear(e.results) // the journal has them
		}
		e.results[run.key] = run.reply
	}
	e.running = nil
	alone := run.waiting == 0
	close(run.done)
	e.mu.Unlock()
	if alone && a.ctx.Err() == nil {
		a.tellFinished(c)
	}
}

// tellFinished reports a command that nobody was waiting for any more until a conductor has acknowledged it, for a while: after that the operation's lease has
// run out and its next owner asks by itself.
func (a *Agent) tellFinished(c *command.Command) {
	msg, err := json.Marshal(command.Finished{Host: a.host, Operation: c.Operation, Step: c.Step})
	if err != nil {
		return
	}
	for pause := 200 * time.Millisecond; pause < 30*time.Second; pause *= 2 {
		ctx, cancel := context.WithTimeout(a.ctx, 5*time.Second)
		_, err := a.cfg.Bus.Call(ctx, command.FinishedSubject, msg)
		cancel()
		if err == nil {
			return
		}
		select {
		case <-time.After(pause):
		case <-a.ctx.Done():
			return
		}
	}
}
