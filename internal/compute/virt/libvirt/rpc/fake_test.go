package rpc

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"kilonova/internal/fault"
)

// fakeDaemon is a daemon in the test's process: it answers what a test tells it to.
type fakeDaemon struct {
	t    *testing.T
	l    net.Listener
	path string

	mu      sync.Mutex
	conns   map[net.Conn]*sync.Mutex // with the lock of its writer
	calls   map[int32]int
	handler map[int32]func(d *decoder) ([]any, *Error)
	silent  bool // answers nothing, keepalive included
	auth    []int32
	group   sync.WaitGroup
}

func newFake(t *testing.T) *fakeDaemon {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeDaemon{t: t, l: l, path: path, conns: map[net.Conn]*sync.Mutex{}, calls: map[int32]int{}, auth: []int32{authNone},
		handler: map[int32]func(*decoder) ([]any, *Error){}}
	f.group.Go(f.accept)
	t.Cleanup(f.stop)
	return f
}

func (f *fakeDaemon) stop() {
	f.l.Close()
	f.kill()
	f.group.Wait()
}

// kill cuts every connection, as the death of a daemon does.
func (f *fakeDaemon) kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.Close()
	}
}

func (f *fakeDaemon) accept() {
	for {
		c, err := f.l.Accept()
		if err != nil {
			return
		}
		f.mu.Lock()
		f.conns[c] = &sync.Mutex{}
		f.mu.Unlock()
		f.group.Go(func() { f.serve(c) })
	}
}

func (f *fakeDaemon) serve(c net.Conn) {
	defer func() {
		f.mu.Lock()
		delete(f.conns, c)
		f.mu.Unlock()
		c.Close()
	}()
	for {
		h, body, err := readMessage(c)
		if err != nil {
			return
		}
		f.mu.Lock()
		silent, handle := f.silent, f.handler[h.proc]
		f.calls[h.proc]++
		f.mu.Unlock()
		if silent {
			continue
		}
		if h.program == programKeepalive {
			f.write(c, header{program: programKeepalive, version: 1, proc: keepalivePong, kind: typeMessage}, nil)
			continue
		}
		f.group.Go(func() { f.answer(c, h, body, handle) })
	}
}

func (f *fakeDaemon) answer(c net.Conn, h header, body []byte, handle func(*decoder) ([]any, *Error)) {
	h.kind = typeReply
	var e encoder
	switch {
	case h.proc == procAuthList.number:
		f.mu.Lock()
		e.u32(uint32(len(f.auth)))
		for _, a := range f.auth {
			e.put(a)
		}
		f.mu.Unlock()
	case handle != nil:
		out, bad := handle(&decoder{b: body})
		if bad != nil {
			h.status = statusError
			e.put(int32(bad.Code), bad.Domain, opt(bad.Message), bad.Level, none{}, none{}, none{}, none{}, int32(0), int32(0), none{})
		} else {
			e.put(out...)
		}
	case h.proc == procEventRegister.number:
		e.put(int32(7))
	case h.proc == procConnectSupportsFeature.number:
		e.put(int32(1))
	}
	f.write(c, h, e.b)
}

func (f *fakeDaemon) write(c net.Conn, h header, body []byte) {
	f.mu.Lock()
	lock := f.conns[c]
	f.mu.Unlock()
	if lock != nil {
		lock.Lock()
		defer lock.Unlock()
		_, _ = c.Write(h.append(nil, body)) // the client may be gone
	}
}

// send tells every client of an event.
func (f *fakeDaemon) send(proc int32, values ...any) {
	var e encoder
	e.put(values...)
	f.mu.Lock()
	var all []net.Conn
	for c := range f.conns {
		all = append(all, c)
	}
	f.mu.Unlock()
	for _, c := range all {
		f.write(c, header{program: programRemote, version: 1, proc: proc, kind: typeMessage}, e.b)
	}
}

func (f *fakeDaemon) on(p proc, handle func(d *decoder) ([]any, *Error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.handler[p.number] = handle
}

func (f *fakeDaemon) count(p proc) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[p.number]
}

func (f *fakeDaemon) connections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.conns)
}

func (f *fakeDaemon) open(t *testing.T, o Options) *Client {
	t.Helper()
	o.Address = f.path
	c, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

var testDomain = Domain{Name: "instance-1", UUID: UUID{1, 2, 3}, ID: 4}

func TestCallsAndErrors(t *testing.T) {
	f := newFake(t)
	c := f.open(t, Options{})
	f.on(procDomainLookupByUUID, func(d *decoder) ([]any, *Error) {
		if u := d.uuid(); u != testDomain.UUID {
			return nil, &Error{Code: NoDomain, Domain: 10, Message: "no such domain"}
		}
		return []any{testDomain}, nil
	})
	got, err := c.DomainByUUID(t.Context(), testDomain.UUID)
	if err != nil || got != testDomain {
		t.Fatalf("%+v, %v", got, err)
	}
	_, err = c.DomainByUUID(t.Context(), UUID{9})
	if !errors.Is(err, fault.NotFound) || !HasCode(err, NoDomain) || HasCode(err, NoSecret) {
		t.Fatalf("unknown domain: %v", err)
	}
	var e *Error
	if !errors.As(err, &e) || e.Message != "no such domain" || e.Proc != "DomainLookupByUUID" {
		t.Fatalf("the cause is lost: %+v", e)
	}
}

func TestKinds(t *testing.T) {
	for code, want := range map[Code]fault.Kind{
		NoDomain: fault.NotFound, NoSecret: fault.NotFound, DeviceMissing: fault.NotFound, OperationInvalid: fault.Conflict, DomainExists: fault.Conflict,
		OperationAborted: fault.Conflict, NoSupport: fault.NotImplemented, OperationUnsupported: fault.NotImplemented, XMLError: fault.Invalid,
		InvalidArg: fault.Invalid, AgentUnresponsive: fault.Unavailable, OperationTimeout: fault.Unavailable, AccessDenied: fault.Forbidden,
		InternalError: fault.Internal, OperationFailed: fault.Internal, Code(9999): fault.Internal,
	} {
		if err := wrap(&Error{Code: code, Message: "x"}); fault.KindOf(err) != want {
			t.Errorf("code %d is %v, want %v", code, fault.KindOf(err), want)
		}
	}
}

func TestAuthenticationIsRefusedClearly(t *testing.T) {
	f := newFake(t)
	f.auth = []int32{2}
	_, err := Open(t.Context(), Options{Address: f.path})
	if !errors.Is(err, fault.Forbidden) {
		t.Fatal(err)
	}
	f.auth = []int32{1, authNone}
	f.open(t, Options{})
}

func TestNoDaemon(t *testing.T) {
	_, err := Open(t.Context(), Options{Address: filepath.Join(t.TempDir(), "nobody")})
	if !errors.Is(err, fault.Unavailable) {
		t.Fatal(err)
	}
}

func TestDeadDaemonFailsEveryPendingCall(t *testing.T) {
	f := newFake(t)
	c := f.open(t, Options{})
	hold := make(chan struct{})
	defer close(hold)
	never := func(*decoder) ([]any, *Error) { <-hold; return nil, nil }
	f.on(procMigratePerform3Params, never)
	f.on(procDomainGetState, never)
	const n = 6
	failed := make(chan error, 2*n)
	for range n {
		go func() { _, _, err := c.State(t.Context(), testDomain); failed <- err }()
		go func() { failed <- c.MigrateToURI(t.Context(), testDomain, "qemu+tcp://other/system", nil, 0) }()
	}
	for f.count(procDomainGetState) < n || f.count(procMigratePerform3Params) < n {
		time.Sleep(time.Millisecond)
	}
	f.kill()
	for range 2 * n {
		if err := <-failed; !errors.Is(err, fault.Unavailable) {
			t.Fatalf("a pending call: %v", err)
		}
	}
	f.on(procDomainGetState, func(*decoder) ([]any, *Error) { return []any{int32(1), int32(2)}, nil })
	if s, r, err := c.State(t.Context(), testDomain); err != nil || s != 1 || r != 2 {
		t.Fatalf("the next call does not connect again: %d %d %v", s, r, err)
	}
}

func TestCallEndsWithItsContext(t *testing.T) {
	f := newFake(t)
	c := f.open(t, Options{})
	hold := make(chan struct{})
	defer close(hold)
	f.on(procDomainGetState, func(*decoder) ([]any, *Error) { <-hold; return []any{int32(1), int32(1)}, nil })
	f.on(procConnectGetLibVersion, func(*decoder) ([]any, *Error) { return []any{uint64(9000000)}, nil })
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for f.count(procDomainGetState) == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if _, _, err := c.State(ctx, testDomain); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if v, err := c.LibVersion(t.Context()); err != nil || v != 9000000 {
		t.Fatalf("the connection is spoilt: %d, %v", v, err)
	}
}

func TestSlowCallsLeaveRoomForQuickOnes(t *testing.T) {
	f := newFake(t)
	c := f.open(t, Options{})
	hold := make(chan struct{})
	f.on(procMigratePerform3Params, func(*decoder) ([]any, *Error) { <-hold; return []any{[]byte(nil)}, nil })
	f.on(procConnectGetLibVersion, func(*decoder) ([]any, *Error) { return []any{uint64(1)}, nil })
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if err := c.MigrateToURI(t.Context(), testDomain, "x", nil, 0); err != nil {
				t.Error(err)
			}
		})
	}
	for f.count(procMigratePerform3Params) < 10 {
		time.Sleep(time.Millisecond)
	}
	if err := c.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	// No connection may carry more calls than a daemon serves at a time, or keepalive would starve.
	if got, least := f.connections(), 1+10/perConn[slow]; got < least {
		t.Errorf("%d connections carry 10 slow calls, want at least %d", got, least)
	}
	close(hold)
	wg.Wait()
}

func TestSilentDaemonIsDead(t *testing.T) {
	f := newFake(t)
	c := f.open(t, Options{Keepalive: 50 * time.Millisecond, KeepaliveCount: 40})
	hold := make(chan struct{})
	defer close(hold)
	f.on(procDomainGetState, func(*decoder) ([]any, *Error) { <-hold; return nil, nil })
	done := make(chan error, 1)
	go func() { _, _, err := c.State(t.Context(), testDomain); done <- err }()
	for f.count(procDomainGetState) == 0 {
		time.Sleep(time.Millisecond)
	}
	// As long as the daemon answers the keepalive, the call waits.
	for f.count(proc{number: keepalivePing}) < 10 {
		time.Sleep(time.Millisecond)
	}
	select {
	case err := <-done:
		t.Fatalf("the call was given up while the daemon lives: %v", err)
	default:
	}
	f.mu.Lock()
	f.silent = true
	f.mu.Unlock()
	if err := <-done; !errors.Is(err, fault.Unavailable) {
		t.Fatal(err)
	}
}

func TestDaemonsPingIsAnswered(t *testing.T) {
	here, there := net.Pipe()
	c := newConn(here, 0, 0, nil)
	defer c.close()
	if _, err := there.Write(header{program: programKeepalive, version: 1, proc: keepalivePing, kind: typeMessage}.append(nil, nil)); err != nil {
		t.Fatal(err)
	}
	h, _, err := readMessage(there)
	if err != nil || h.program != programKeepalive || h.proc != keepalivePong {
		t.Fatalf("%+v, %v", h, err)
	}
}

func TestGarbageEndsTheConnection(t *testing.T) {
	for _, garbage := range []string{"\x00\x00\x00\x03abc", "\xff\xff\xff\xffabcdefghijklmnopqrstuvwxyz", "GET / HTTP/1.1\r\n\r\n"} {
		here, there := net.Pipe()
		c := newConn(here, 0, 0, nil)
		if _, err := io.WriteString(there, garbage); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Fatal(err)
		}
		there.Close()
		<-c.done
		if err := c.call(t.Context(), procConnectGetType, nil, nil); !errors.Is(err, fault.Unavailable) {
			t.Errorf("%q: %v", garbage, err)
		}
		c.close()
	}
}
