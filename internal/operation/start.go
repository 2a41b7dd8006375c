package operation

import (
	"context"
	"time"
)

const (
	soon    = 5 * time.Millisecond   // operations accepted within this time of each other are many
	quiet   = 20 * time.Millisecond  // many begin together, once no more were accepted for so long
	longest = 500 * time.Millisecond // or so long after the first of them
)

// together is closed when an operation that starts now may begin: at once, or, while many start, with the others of a moment. Operations that go on side by side share
// the commits of their journals, which costs less than one after the other; and while requests come in without a pause, those that wait for their acceptance have the
// processors for themselves. e.mu is held.
func (e *Engine) together() <-chan struct{} {
	now := time.Now()
	e.last = now
	if e.next != nil {
		return e.next
	}
	next := make(chan struct{})
	if now.Sub(e.began) > soon {
		e.began = now
		close(next)
		return next
	}
	e.next = next
	time.AfterFunc(quiet, func() { e.begin(now) })
	return next
}

// begin lets those begin that have gathered since a time, once no more come or they have waited for long.
func (e *Engine) begin(since time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	if more := min(quiet-now.Sub(e.last), longest-now.Sub(since)); more > 0 {
		time.AfterFunc(more, func() { e.begin(since) })
		return
	}
	close(e.next)
	e.next, e.began = nil, now
}

func (e *Engine) start(o *row) {
	e.mu.Lock()
	if !e.active {
		e.mu.Unlock()
		return
	}
	ctx, cancel := context.WithCancelCause(e.runCtx)
	if l := e.local[o.ID]; l != nil {
		l.cancel(errFenced)
	}
	e.local[o.ID] = &localRun{epoch: o.Epoch, cancel: cancel}
	e.wg.Add(1)
	together := e.together()
	e.mu.Unlock()
	go func() {
		defer e.wg.Done()
		defer cancel(nil)
		select {
		case <-together:
		case <-ctx.Done():
			return
		}
		select {
		case e.slots <- struct{}{}:
			defer func() { <-e.slots }()
		case <-ctx.Done():
			return
		}
		e.execute(ctx, o)
		e.mu.Lock()
		if l := e.local[o.ID]; l != nil && l.epoch == o.Epoch {
			delete(e.local, o.ID)
		}
		finished := o.Finished != 0 || o.State == Attention
		var wake []chan struct{}
		if finished {
			wake = e.waiters[o.ID]
			delete(e.waiters, o.ID)
		}
		e.mu.Unlock()
		for _, c := range wake {
			close(c)
		}
	}()
}

func (e *Engine) stopLocal(op string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if l := e.local[op]; l != nil {
		l.cancel(errFenced)
		delete(e.local, op)
	}
}
