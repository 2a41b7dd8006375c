package rpc

import (
	"context"
	"sync"
	"time"
)

// EventKind tells what an event is about; the numbers are libvirt's event ids.
type EventKind int32

// The kinds of event that the client registers for.
const (
	Resync              EventKind = -1 // changes may have been missed: look at everything
	Lifecycle           EventKind = 0
	Rebooted            EventKind = 1
	DeviceRemoved       EventKind = 15
	BlockJob            EventKind = 16 // version 2: names the disk by its target
	AgentLifecycle      EventKind = 18
	JobCompleted        EventKind = 21
	DeviceRemovalFailed EventKind = 22
)

// What a Lifecycle event says (Event.What).
const (
	Defined = iota
	Undefined
	Started
	SuspendedEvent
	Resumed
	Stopped
	ShutdownEvent
	PMSuspended
	CrashedEvent
)

// Event is a change that the daemon told of.
type Event struct {
	Kind   EventKind
	Domain Domain
	What   int32  // Lifecycle: what happened; AgentLifecycle: 1 connected, 2 not; BlockJob: status
	Detail int32  // Lifecycle and AgentLifecycle: the reason; BlockJob: type of job
	Device string // DeviceRemoved, DeviceRemovalFailed: alias; BlockJob: target
	Params []Param
}

// registered are the events that each connection asks for and the messages that bring them.
var registered = map[int32]EventKind{
	318: Lifecycle, 319: Rebooted, 333: DeviceRemoved, 339: BlockJob, 348: AgentLifecycle, 363: JobCompleted, 367: DeviceRemovalFailed,
}

// decodeEvent reads an event; ok is false for messages that are none of ours or cannot be read.
func decodeEvent(proc int32, body []byte) (e Event, ok bool) {
	kind, ok := registered[proc]
	if !ok {
		return e, false
	}
	d := decoder{b: body}
	d.u32() // callback id: one registration for each kind, so the kind says it all
	e = Event{Kind: kind, Domain: d.domain()}
	switch kind {
	case Lifecycle, AgentLifecycle:
		e.What, e.Detail = int32(d.u32()), int32(d.u32())
	case DeviceRemoved, DeviceRemovalFailed:
		e.Device = d.string()
	case BlockJob:
		e.Device, e.Detail, e.What = d.string(), int32(d.u32()), int32(d.u32())
	case JobCompleted:
		e.Params = d.params()
	}
	return e, d.err == nil
}

// Subscription is a queue of events.
type Subscription struct {
	c    *Client
	mu   sync.Mutex
	wake chan struct{} // holds a token when there is something to look at
	list []Event
	err  error
}

// Subscribe gives all events from now on. The first one is a Resync as soon as the events are registered with the daemon; another one follows
// each time that the connection was lost and is back. Close it.
func (c *Client) Subscribe() *Subscription {
	s := &Subscription{c: c, wake: make(chan struct{}, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		s.end(lost(context.Canceled))
		return s
	}
	c.subs[s] = struct{}{}
	if !c.watch {
		c.watch = true
		c.group.Go(c.eventLoop)
	} else {
		s.push(Event{Kind: Resync}, c.o.Backlog)
	}
	return s
}

// Next waits for an event.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		s.mu.Lock()
		if len(s.list) > 0 {
			e := s.list[0]
			s.list = s.list[1:]
			s.mu.Unlock()
			return e, nil
		}
		err := s.err
		s.mu.Unlock()
		if err != nil {
			return Event{}, err
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.c.mu.Lock()
	delete(s.c.subs, s)
	s.c.mu.Unlock()
	s.end(context.Canceled)
}

func (s *Subscription) end(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.mu.Unlock()
	s.signal()
}

func (s *Subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// push never waits: when the pile is too high it becomes one Resync.
func (s *Subscription) push(e Event, backlog int) {
	s.mu.Lock()
	if len(s.list) >= backlog {
		s.list = []Event{{Kind: Resync}}
	} else {
		s.list = append(s.list, e)
	}
	s.mu.Unlock()
	s.signal()
}

func (c *Client) publish(e Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.subs {
		s.push(e, c.o.Backlog)
	}
}

// eventLoop keeps one connection for events alive until the client is closed.
func (c *Client) eventLoop() {
	const shortest, longest = 50 * time.Millisecond, 5 * time.Second
	pause := shortest
	for {
		cn, err := c.dial(c.ctx, func(proc int32, body []byte) {
			if e, ok := decodeEvent(proc, body); ok {
				c.publish(e)
			}
		})
		if err == nil {
			err = c.register(cn)
		}
		if err == nil {
			pause = shortest
			c.publish(Event{Kind: Resync})
			select {
			case <-cn.done:
			case <-c.ctx.Done():
			}
		}
		if cn != nil {
			cn.close()
		}
		select {
		case <-c.ctx.Done():
			return
		case <-time.After(pause):
			pause = min(2*pause, longest)
		}
	}
}

func (c *Client) register(cn *conn) error {
	ctx, cancel := context.WithTimeout(c.ctx, 30*time.Second)
	defer cancel()
	for _, kind := range registered {
		var callback int32
		if err := cn.call(ctx, procEventRegister, []any{int32(kind), none{}}, []any{&callback}); err != nil {
			return err
		}
	}
	return nil
}
