package nats

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go"

	"kilonova/internal/bus"
)

// backlog is how many messages wait for the goroutine that hands out what comes for many subjects; what does not fit is lost, which the bus is allowed to.
const backlog = 1 << 15

// ServeEach implements bus.Bus.
func (b *Bus) ServeEach(subjects []string, queue string, h bus.Handler) (func(), error) {
	g := b.group(h)
	if b.direct != nil {
		return b.serveDirectly(g, subjects)
	}
	in := make(chan *nats.Msg, min(backlog, 64*len(subjects)))
	subs := make([]*nats.Subscription, 0, len(subjects))
	stop := func() {
		b.unsubscribe(subs...)
		g.end()
	}
	for _, subject := range subjects {
		s, err := b.conn.ChanQueueSubscribe(subject, queue, in)
		if err != nil {
			stop()
			return nil, fmt.Errorf("serve %s: %w", subject, err)
		}
		subs = append(subs, s)
	}
	g.run(func() {
		for {
			select {
			case <-g.ctx.Done():
				return
			case m := <-in:
				g.take(m)
			}
		}
	})
	if err := b.flush(); err != nil {
		stop()
		return nil, fmt.Errorf("serve %d subjects: %w", len(subjects), err)
	}
	return stop, nil
}

// serveDirectly has the handler called by those who call, all of whom are in this process.
func (b *Bus) serveDirectly(g *group, subjects []string) (func(), error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range subjects {
		if b.direct[s] != nil {
			g.cancel()
			return nil, fmt.Errorf("serve %s: it is served in this process already", s)
		}
	}
	for _, s := range subjects {
		b.direct[s] = g
	}
	return func() {
		b.mu.Lock()
		for _, s := range subjects {
			delete(b.direct, s)
		}
		b.mu.Unlock()
		g.end()
	}, nil
}

type reply struct {
	data []byte
	err  *wireError
}

// hand gives a message to who serves its subject directly; nil: nobody does. What comes out, and no more than would cross the bus, is in the channel then.
func (b *Bus) hand(subject string, msg []byte) <-chan reply {
	if b.direct == nil {
		return nil
	}
	b.mu.Lock()
	g := b.direct[subject]
	b.mu.Unlock()
	if g == nil {
		return nil
	}
	msg = bytes.Clone(msg) // the caller may go on before the handler ends
	out := make(chan reply, 1)
	if !g.run(func() {
		data, err := g.handle(subject, msg)
		if err != nil {
			slog.Debug("bus message failed", "subject", subject, "error", err)
			out <- reply{err: wireOf(err)}
			return
		}
		out <- reply{data: data}
	}) {
		return nil
	}
	return out
}

func await(ctx context.Context, subject string, in <-chan reply) ([]byte, error) {
	select {
	case r := <-in:
		if r.err != nil {
			return nil, r.err.fault()
		}
		return r.data, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("call %s: %w", subject, ctx.Err())
	}
}
