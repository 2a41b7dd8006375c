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
	Away bool       `json:"away,omitempty"` // fault.IsAway
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

	// direct are the subjects of ServeEach where nobody else can be on the bus: their handlers are called without a message.
	direct map[string]*group
}

// startWithin is how long the server inside this process may take to start and to note a subscription: only a machine that stands still needs long.
const startWithin = time.Minute

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
		if cfg.Listen == "" {
			b.direct = map[string]*group{}
		}
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
	if reply := b.hand(subject, msg); reply != nil {
		return await(ctx, subject, reply)
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
		return nil, w.fault()
	}
	return m.Data, nil
}

func (w *wireError) fault() error {
	e := fault.New(w.Kind, "%s", w.Text).WithCode(w.Code)
	if w.Away {
		e.Cause = fault.ErrAway
	}
	return e
}

// wireOf is what of an error crosses the bus.
func wireOf(err error) *wireError {
	w := &wireError{Kind: fault.KindOf(err), Text: fault.PublicText(err), Away: fault.IsAway(err)}
	var f *fault.Error
	if errors.As(err, &f) {
		w.Code = f.Code
	}
	return w
}

// Cast implements bus.Bus.
func (b *Bus) Cast(_ context.Context, subject string, msg []byte) error {
	if b.hand(subject, msg) != nil {
		return nil
	}
	return b.conn.Publish(subject, msg)
}

// Fanout implements bus.Bus.
func (b *Bus) Fanout(_ context.Context, subject string, msg []byte) error {
	return b.conn.Publish(subject, msg)
}

// Serve implements bus.Bus.
func (b *Bus) Serve(subject, queue string, h bus.Handler) (func(), error) {
	g := b.group(h)
	sub, err := b.conn.QueueSubscribe(subject, queue, g.take)
	if err != nil {
		g.cancel()
		return nil, fmt.Errorf("serve %s: %w", subject, err)
	}
	_ = sub.SetPendingLimits(-1, -1)
	if err := b.flush(); err != nil {
		g.cancel()
		return nil, fmt.Errorf("serve %s: %w", subject, err)
	}
	return func() {
		b.unsubscribe(sub)
		g.end()
	}, nil
}

// unsubscribe ends subscriptions and waits, if it can be reached, until the server knows: whoever calls then is told that nobody serves.
func (b *Bus) unsubscribe(subs ...*nats.Subscription) {
	for _, s := range subs {
		_ = s.Unsubscribe()
	}
	if b.conn.IsConnected() {
		_ = b.flush()
	}
}

// flush waits until an embedded server knows of all subscriptions. Another one may be out of reach just now: it is told once it is there.
func (b *Bus) flush() error {
	within := startWithin
	if b.server == nil {
		within = 5 * time.Second // one that is away at the moment takes the subscription when it is back
	}
	if err := b.conn.FlushTimeout(within); err != nil && b.server != nil {
		return err
	}
	return nil
}

// group is a handler and the messages that it is at.
type group struct {
	bus    *Bus
	h      bus.Handler
	ctx    context.Context // ends with the serving
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func (b *Bus) group(h bus.Handler) *group {
	g := &group{bus: b, h: h}
	g.ctx, g.cancel = context.WithCancel(b.ctx)
	return g
}

func (g *group) end() {
	g.cancel()
	g.wg.Wait()
}

// run calls f in a goroutine that ending waits for; false: it has ended.
func (g *group) run(f func()) bool {
	g.bus.mu.Lock()
	defer g.bus.mu.Unlock()
	if g.bus.closed || g.ctx.Err() != nil {
		return false
	}
	g.bus.wg.Add(1)
	g.wg.Add(1)
	go func() {
		defer g.bus.wg.Done()
		defer g.wg.Done()
		f()
	}()
	return true
}

func (g *group) take(m *nats.Msg) { g.run(func() { g.answer(m) }) }

// handle calls the handler. What it panics with becomes an error.
func (g *group) handle(subject string, msg []byte) (out []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			slog.Error("bus handler panicked", "subject", subject, "panic", p, "stack", string(debug.Stack()))
			err = fault.New(fault.Internal, "The handler of %s failed.", subject)
		}
	}()
	return g.h(g.ctx, subject, msg)
}

func (g *group) answer(m *nats.Msg) {
	out, err := g.handle(m.Subject, m.Data)
	if m.Reply == "" {
		if err != nil {
			slog.Warn("bus message failed", "subject", m.Subject, "error", err)
		}
		return
	}
	r := nats.NewMsg(m.Reply)
	r.Data = out
	if err != nil {
		text, _ := json.Marshal(wireOf(err)) // plain strings always encode
		r.Header.Set(errorHeader, string(text))
		r.Data = nil
	}
	if err := m.RespondMsg(r); err != nil && g.ctx.Err() == nil {
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
