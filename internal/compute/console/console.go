// Package console is the console proxy: it carries a guest's screen (VNC) or serial line to a browser over a websocket.
//
// A console is opened with a token that the compute API gave out. A token opens one console, once, until it expires; it is used up before the guest's
// end is dialled. That of a SPICE console, which takes a connection for each of its channels, may be used again until it expires. The proxy connects only to where the host said the console is; nothing that a client sends chooses an address. The page that shows
// screens is ours; the RFB client in it is noVNC, read from a directory of the system. The terminal for serial lines is ours.
package console

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/fault"
)

//go:embed page
var page embed.FS

// Config of a proxy.
type Config struct {
	Store *store.Store
	// NoVNC is the directory of the noVNC library (its core/rfb.js is used); when it is not there the page says so.
	NoVNC string
	// SPICE is the directory of the spice-html5 library (its main.js is used); when it is not there the page says so.
	SPICE string
	// Idle ends a console over which nothing went for so long; 0: 1 h.
	Idle time.Duration
	Log  *slog.Logger
}

// Proxy answers at the console service's root:
//
//	/vnc.html?token=…   the page with the screen
//	/novnc/…            the library for it
//	/spice.html?token=…  the page with a SPICE screen
//	/spice/…            the library for it
//	/serial.html?token=…  the page with a terminal for the serial line; a browser at /?token=… is sent there
//	/websocket?token=…  the websocket; also at /?token=…, where serial clients look
type Proxy struct {
	cfg Config
	mux *http.ServeMux

	mu   sync.Mutex
	open map[*websocket.Conn]struct{}
	wg   sync.WaitGroup
	shut bool
}

// New makes a proxy.
func New(cfg Config) (*Proxy, error) {
	if cfg.Idle == 0 {
		cfg.Idle = time.Hour
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	sub, err := fs.Sub(page, "page")
	if err != nil {
		return nil, err
	}
	p := &Proxy{cfg: cfg, mux: http.NewServeMux(), open: map[*websocket.Conn]struct{}{}}
	files := http.FileServerFS(sub)
	for _, name := range []string{"/vnc.js", "/vnc.css", "/serial.js", "/serial.css", "/terminal.js", "/spice.js", "/library.js"} {
		p.mux.Handle("GET "+name, secured(files))
	}
	pages, err := renderPages()
	if err != nil {
		return nil, err
	}
	for path, h := range pages {
		p.mux.Handle("GET "+path, secured(h))
	}
	p.mux.Handle("GET /novnc/", http.StripPrefix("/novnc", library(p.cfg.NoVNC, "The noVNC library is not installed on the console proxy: install the package novnc, or set [console] novnc_path.")))
	p.mux.Handle("GET /spice/", http.StripPrefix("/spice", library(p.cfg.SPICE, "The spice-html5 library is not installed on the console proxy: install the package spice-html5, or set [console] spice_html5_path.")))
	p.mux.HandleFunc("GET /websocket", p.connect)
	p.mux.Handle("GET /{$}", p.door(secured(pages["/serial.html"])))
	return p, nil
}

// door is where the URL of a serial console leads: clients open its websocket there, browsers are shown the page.
func (p *Proxy) door(page http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" || !strings.Contains(r.Header.Get("Accept"), "text/html") {
			p.connect(w, r)
			return
		}
		page.ServeHTTP(w, r)
	})
}

func secured(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Referrer-Policy", "no-referrer") // the address holds the token
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Frame-Options", "SAMEORIGIN")
		h.ServeHTTP(w, r)
	})
}

// library serves a directory, without directory listings; without one it says what is missing.
func library(dir, missing string) http.Handler {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, missing, http.StatusNotFound) })
	}
	files := http.FileServerFS(root.FS())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/") {
			http.NotFound(w, r)
			return
		}
		files.ServeHTTP(w, r)
	})
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.mux.ServeHTTP(w, r) }

// Close ends all consoles.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.shut = true
	for c := range p.open {
		_ = c.Close(websocket.StatusGoingAway, "the console proxy stops")
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// connect uses the token up (unless it is that of a SPICE console), dials the console and carries bytes both ways until one end closes.
func (p *Proxy) connect(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		http.Error(w, "This is the address of a console's websocket; a browser opens vnc.html.", http.StatusUpgradeRequired)
		return
	}
	if !sameOrigin(r) {
		http.Error(w, "A page of another site may not open consoles.", http.StatusForbidden)
		return
	}
	token := tokenOf(r)
	var t *store.ConsoleToken
	err := p.cfg.Store.DB.Write(r.Context(), func(tx *db.Tx) (err error) {
		t, err = p.cfg.Store.UseConsoleToken(r.Context(), tx, token)
		return err
	})
	if err != nil {
		status := fault.KindOf(err).Status()
		if status == http.StatusNotFound { // unknown, used or expired
			status = http.StatusForbidden
		}
		p.cfg.Log.Info("console refused", "status", status, "error", err)
		// Some clients take whatever comes after the header for frames, so there is no text and nothing follows.
		w.Header().Set("Connection", "close")
		w.WriteHeader(status)
		return
	}
	guest, err := dial(r.Context(), t)
	if err != nil {
		p.cfg.Log.Warn("console could not be reached", "server", t.ServerID, "kind", t.Kind, "host", t.Agent, "error", err)
		http.Error(w, "The guest's console does not answer. Is the server running?", http.StatusBadGateway)
		return
	}
	defer func() { _ = guest.Close() }()
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"binary"}, InsecureSkipVerify: true}) // the origin was judged above
	if err != nil {
		return
	}
	if !p.enter(ws) {
		_ = ws.Close(websocket.StatusGoingAway, "the console proxy stops")
		return
	}
	defer p.leave(ws)
	p.cfg.Log.Info("console opened", "server", t.ServerID, "kind", t.Kind)
	err = p.carry(r.Context(), ws, guest)
	p.cfg.Log.Info("console closed", "server", t.ServerID, "kind", t.Kind, "reason", err)
}

func (p *Proxy) enter(ws *websocket.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shut {
		return false
	}
	p.open[ws] = struct{}{}
	p.wg.Add(1)
	return true
}

func (p *Proxy) leave(ws *websocket.Conn) {
	p.mu.Lock()
	delete(p.open, ws)
	p.mu.Unlock()
	p.wg.Done()
	_ = ws.CloseNow()
}

// tokenOf finds the token: in the query, in noVNC's way of putting a query into the parameter "path", or in the cookie that older pages set.
func tokenOf(r *http.Request) string {
	q := r.URL.Query()
	if t := q.Get("token"); t != "" {
		return t
	}
	if u, err := url.Parse(q.Get("path")); err == nil && u.Query().Get("token") != "" {
		return u.Query().Get("token")
	}
	if c, err := r.Cookie("token"); err == nil {
		return c.Value
	}
	return ""
}

// sameOrigin tells whether the page that asks comes from this proxy. Clients that are no browsers send no origin.
func sameOrigin(r *http.Request) bool {
	o := r.Header.Get("Origin")
	if o == "" {
		return true
	}
	u, err := url.Parse(o)
	return err == nil && strings.EqualFold(u.Host, r.Host)
}

func dial(ctx context.Context, t *store.ConsoleToken) (io.ReadWriteCloser, error) {
	d := net.Dialer{Timeout: 10 * time.Second}
	if t.Path == "" {
		return d.DialContext(ctx, "tcp", net.JoinHostPort(t.Host, strconv.Itoa(t.Port)))
	}
	st, err := os.Stat(t.Path)
	if err != nil {
		return nil, err
	}
	if st.Mode()&fs.ModeSocket != 0 {
		return d.DialContext(ctx, "unix", t.Path)
	}
	return os.OpenFile(t.Path, os.O_RDWR, 0)
}

// carry copies both ways. It ends when either side does or nothing went for Idle.
func (p *Proxy) carry(ctx context.Context, ws *websocket.Conn, guest io.ReadWriteCloser) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(p.cfg.Idle, func() { cancel(fmt.Errorf("nothing went over it for %s", p.cfg.Idle)) })
	defer idle.Stop()
	ws.SetReadLimit(1 << 20)
	up := make(chan error, 1)
	go func() {
		for {
			kind, data, err := ws.Read(ctx)
			if err != nil {
				up <- err
				break
			}
			idle.Reset(p.cfg.Idle)
			if kind != websocket.MessageBinary && kind != websocket.MessageText {
				continue
			}
			if _, err := guest.Write(data); err != nil {
				up <- err
				break
			}
		}
		_ = guest.Close() // ends the other direction
	}()
	buf := make([]byte, 32<<10)
	var down error
	for down == nil {
		n, err := guest.Read(buf)
		if n > 0 {
			idle.Reset(p.cfg.Idle)
			if e := ws.Write(ctx, websocket.MessageBinary, buf[:n]); e != nil {
				down = e
			}
		}
		if err != nil {
			down = err
		}
	}
	_ = ws.Close(websocket.StatusNormalClosure, "the console has ended")
	cancel(nil)
	err := <-up
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	if websocket.CloseStatus(err) == websocket.StatusNormalClosure || errors.Is(down, io.EOF) {
		return nil
	}
	return down
}
