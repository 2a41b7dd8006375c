// Package nats is the bus over NATS: a server embedded in the process, or a cluster that is already there.
package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"kilonova/internal/bus"
	"kilonova/internal/fault"
)

// Config says which NATS to use.
type Config struct {
	// URL of a server or cluster ("nats://host:4222,nats://other:4222"). Empty: a server inside this process.
	URL string
	// Listen (HOST:PORT) opens the embedded server to other processes; empty: this process only.
	Listen string
	// Token that clients of the embedded server, and this client, must show. Never logged.
	Token string
	Name  string // of this client, for the server's own views
}

const (
	maxPayload  = 8 << 20
	errorHeader = "Kilonova-Error"
)

type wireError struct {
	Kind fault.Kind `json:"kind"`
	Code string     `json:"code,omitempty"`
	Text string     `json:"text"`
}

// Bus is a bus.Bus over NATS.
type Bus struct {
	conn   *nats.Conn
	server *server.Server
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	closed bool

	count   int            // subscriptions made
	shared  chan *nats.Msg // of the subscriptions beyond the first few; nil: there are none
	binding sync.Mutex
	served  sync.Map // *nats.Subscription -> func(*nats.Msg) of those
}

const (
	// alone is how many subscriptions have a goroutine of their own. A process that plays thousands of hosts has all others share one.
	alone = 32
	// startWithin is how long the server inside this process may take to start and to note a subscription: only a machine that stands still needs long.
	startWithin = time.Minute
	// backlog is how many messages wait for that one; what does not fit is lost, which the bus is allowed to.
	backlog = 1 << 15
)

var _ bus.Bus = (*Bus)(nil)

// Open starts or joins a NATS server. reconnected, when not nil, is called after each reconnection: whoever serves subjects then looks for what it missed.
func Open(cfg Config, reconnected func()) (*Bus, error) {
	b := &Bus{}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	opts := []nats.Option{nats.Name(cfg.Name), nats.MaxReconnects(-1), nats.ReconnectWait(200 * time.Millisecond), nats.RetryOnFailedConnect(true),
		nats.ReconnectHandler(func(*nats.Conn) {
			if reconnected != nil {
				reconnected()
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { slog.Warn("bus", "error", err) }),
	}
	if cfg.Token != "" {
		opts = append(opts, nats.Token(cfg.Token))
	}
	url := cfg.URL
	if url == "" {
		srv, err := embedded(cfg)
		if err != nil {
			return nil, err
		}
		b.server = srv
		opts = append(opts, nats.InProcessServer(srv))
	}
	conn, err := nats.Connect(url, opts...)
	if err != nil {
		b.shutdownServer()
		return nil, fmt.Errorf("connect to the message bus: %w", err)
	}
	b.conn = conn
	return b, nil
}

func embedded(cfg Config) (*server.Server, error) {
	o := &server.Options{ServerName: "kilonova", DontListen: cfg.Listen == "", NoSigs: true, NoLog: true, MaxPayload: maxPayload,
		Authorization: cfg.Token, MaxPending: 256 << 20, WriteDeadline: 10 * time.Second}
	if cfg.Listen != "" {
		host, port, err := splitHostPort(cfg.Listen)
		if err != nil {
			return nil, err
		}
		o.Host, o.Port = host, port
	}
	srv, err := server.NewServer(o)
	if err != nil {
		return nil, fmt.Errorf("start the message bus: %w", err)
	}
	go srv.Start()
	if !srv.ReadyForConnections(startWithin) {
		srv.Shutdown()
		return nil, fmt.Errorf("the embedded message bus did not start on %q: is the address in use?", cfg.Listen)
	}
	return srv, nil
}

// Addr is where the embedded server listens; "" when it serves this process only.
func (b *Bus) Addr() string {
	if b.server == nil || b.server.Addr() == nil {
		return ""
	}
	return b.server.Addr().String()
}

// Call implements bus.Bus.
func (b *Bus) Call(ctx context.Context, subject string, msg []byte) ([]byte, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Minute)
		defer cancel()
	}
	m, err := b.conn.RequestWithContext(ctx, subject, msg)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, bus.ErrNoResponder
	case err != nil:
		return nil, fmt.Errorf("call %s: %w", subject, err)
	}
	if h := m.Header.Get(errorHeader); h != "" {
		var w wireError
		if err := json.Unmarshal([]byte(h), &w); err != nil {
			return nil, fmt.Errorf("call %s: %w", subject, err)
		}
		return nil, fault.New(w.Kind, "%s", w.Text).WithCode(w.Code)
	}
	return m.Data, nil
}

// Cast implements bus.Bus.
func (b *Bus) Cast(_ context.Context, subject string, msg []byte) error {
	return b.conn.Publish(subject, msg)
}

// Fanout implements bus.Bus.
func (b *Bus) Fanout(_ context.Context, subject string, msg []byte) error {
	return b.conn.Publish(subject, msg)
}

// Serve implements bus.Bus.
func (b *Bus) Serve(subject, queue string, h bus.Handler) (func(), error) {
	ctx, cancel := context.WithCancel(b.ctx)
	var wg sync.WaitGroup
	handle := func(m *nats.Msg) {
		b.mu.Lock()
		if b.closed || ctx.Err() != nil {
			b.mu.Unlock()
			return
		}
		b.wg.Add(1)
		wg.Add(1)
		b.mu.Unlock()
		go func() {
			defer b.wg.Done()
			defer wg.Done()
			b.answer(ctx, m, h)
		}()
	}
	sub, err := b.subscribe(subject, queue, handle)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("serve %s: %w", subject, err)
	}
	within := startWithin
	if b.server == nil {
		within = 5 * time.Second // one that is away at the moment takes the subscription when it is back
	}
	if err := b.conn.FlushTimeout(within); err != nil && b.server != nil {
		cancel()
		return nil, fmt.Errorf("serve %s: %w", subject, err)
	}
	return func() {
		_ = sub.Unsubscribe()
		b.served.Delete(sub)
		cancel()
		wg.Wait()
	}, nil
}

// subscribe has handle called for each message of a subject, one after the other.
func (b *Bus) subscribe(subject, queue string, handle nats.MsgHandler) (*nats.Subscription, error) {
	b.mu.Lock()
	b.count++
	if b.count > alone && b.shared == nil && !b.closed {
		b.shared = make(chan *nats.Msg, backlog)
		b.wg.Go(b.dispatch)
	}
	shared := b.shared
	b.mu.Unlock()
	if shared == nil {
		sub, err := b.conn.QueueSubscribe(subject, queue, handle)
		if err == nil {
			_ = sub.SetPendingLimits(-1, -1)
		}
		return sub, err
	}
	b.binding.Lock() // a message that is there before the handler is waits for it
	defer b.binding.Unlock()
	sub, err := b.conn.ChanQueueSubscribe(subject, queue, shared)
	if err == nil {
		b.served.Store(sub, handle)
	}
	return sub, err
}

// dispatch hands out what comes for the subscriptions that share a channel, until the bus is closed.
func (b *Bus) dispatch() {
	for {
		select {
		case <-b.ctx.Done():
			return
		case m := <-b.shared:
			h, ok := b.served.Load(m.Sub)
			if !ok {
				b.binding.Lock()
				h, ok = b.served.Load(m.Sub)
				b.binding.Unlock()
			}
			if ok {
				h.(nats.MsgHandler)(m) //nolint:forcetypeassert // subscribe stores nothing else
			}
		}
	}
}

func (b *Bus) answer(ctx context.Context, m *nats.Msg, h bus.Handler) {
	out, err := func() (out []byte, err error) {
		defer func() {
			if p := recover(); p != nil {
				slog.Error("bus handler panicked", "subject", m.Subject, "panic", p, "stack", string(debug.Stack()))
				err = fault.New(fault.Internal, "The handler of %s failed.", m.Subject)
			}
		}()
		return h(ctx, m.Subject, m.Data)
	}()
	if m.Reply == "" {
		if err != nil {
			slog.Warn("bus message failed", "subject", m.Subject, "error", err)
		}
		return
	}
	r := nats.NewMsg(m.Reply)
	r.Data = out
	if err != nil {
		w := wireError{Kind: fault.KindOf(err), Text: fault.PublicText(err)}
		var f *fault.Error
		if errors.As(err, &f) {
			w.Code = f.Code
		}
		text, _ := json.Marshal(w) // plain strings always encode
		r.Header.Set(errorHeader, string(text))
		r.Data = nil
	}
	if err := m.RespondMsg(r); err != nil && ctx.Err() == nil {
		slog.Warn("bus answer not sent", "subject", m.Subject, "error", err)
	}
}

// Close implements bus.Bus.
func (b *Bus) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	b.mu.Unlock()
	b.cancel()
	b.wg.Wait()
	if b.conn != nil {
		_ = b.conn.FlushTimeout(time.Second)
		b.conn.Close()
	}
	b.shutdownServer()
	return nil
}

func (b *Bus) shutdownServer() {
	if b.server != nil {
		b.server.Shutdown()
		b.server.WaitForShutdown()
	}
}
