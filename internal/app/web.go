package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"kilonova/internal/db"
	"kilonova/internal/httpapi"
)

// web is the HTTP listeners of the process: the common one, where each service has a path, and those of single services.
type web struct {
	app      *App
	mux      *http.ServeMux
	services map[string]http.Handler // answering below /NAME
	inner    map[string]http.Handler // answering at their own root
	common   net.Listener
	servers  []*http.Server
}

// listen opens the common listener, so that the URL is known before services are built.
func listen(a *App) (*web, error) {
	w := &web{app: a, mux: http.NewServeMux(), services: map[string]http.Handler{}, inner: map[string]http.Handler{}}
	if !a.any(Identity, Image, Network, Placement, ComputeAPI, Console, Metadata) {
		return w, nil
	}
	l, err := net.Listen("tcp", a.cfg.API.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for the REST services: %w", err)
	}
	w.common = l
	a.onStop("REST services", w.shutdown)
	return w, nil
}

func (w *web) url() string {
	if u := strings.TrimSuffix(w.app.cfg.API.PublicURL, "/"); u != "" {
		return u
	}
	scheme := "http"
	if w.app.cfg.API.TLSCert != "" {
		scheme = "https"
	}
	addr := w.app.cfg.API.Listen
	if w.common != nil {
		addr = w.common.Addr().String()
	}
	host, port, err := net.SplitHostPort(addr)
	if err == nil {
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			host = "127.0.0.1"
		}
		addr = net.JoinHostPort(host, port)
	}
	return scheme + "://" + addr
}

// mount puts a REST service at /NAME. Its own links begin with the public URL.
func (w *web) mount(name string, s *httpapi.Service) error {
	s.PublicURL = func(*http.Request) string { return w.url() + "/" + name }
	if s.IdentityURL == "" {
		s.IdentityURL = w.url() + "/identity"
	}
	h, err := s.Handler()
	if err != nil {
		return fmt.Errorf("%s API: %w", name, err)
	}
	c := w.app.cfg.CORS
	w.handle(name, httpapi.Sharing{Origins: c.Origins, Credentials: c.Credentials, Expose: c.Expose, MaxAge: c.MaxAge, Methods: c.Methods, Headers: c.Headers}.Handler(h))
	return nil
}

func (w *web) handle(name string, h http.Handler) {
	w.inner[name] = h
	h = http.StripPrefix("/"+name, rooted(h))
	w.services[name] = h
	w.mux.Handle("/"+name, h)
	w.mux.Handle("/"+name+"/", h)
}

// rooted gives a service asked for as /NAME the path "/". What it writes for its caller goes before the work behind the scenes.
func rooted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "" {
			r.URL.Path = "/"
		}
		h.ServeHTTP(rw, r.WithContext(db.Urgent(r.Context())))
	})
}

func (w *web) serve() {
	if w.common == nil {
		return
	}
	w.mux.HandleFunc("GET /healthcheck", func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte("OK\n")) })
	if w.app.cfg.API.Pprof {
		w.mux.HandleFunc("/debug/pprof/", loopbackOnly(pprof.Index))
		w.mux.HandleFunc("/debug/pprof/profile", loopbackOnly(pprof.Profile))
	}
	w.start("all services", w.common, w.mux)
	for _, e := range w.app.cfg.API.Extra {
		name, addr, _ := strings.Cut(e, "=")
		h := w.services[name]
		if h == nil {
			continue // another process has it
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			w.app.failed <- fmt.Errorf("listen for %s: %w", name, err)
			return
		}
		mux := http.NewServeMux()
		mux.Handle("/"+name, h)
		mux.Handle("/"+name+"/", h)
		w.start(name, l, mux)
	}
}

func loopbackOnly(h http.HandlerFunc) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
			http.NotFound(rw, r)
			return
		}
		h(rw, r)
	}
}

func (w *web) start(name string, l net.Listener, h http.Handler) {
	s := &http.Server{Handler: httpapi.MergeSlashes(h), ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 5 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(w.app.log.Handler(), slog.LevelDebug)}
	w.servers = append(w.servers, s)
	cfg := w.app.cfg.API
	go func() {
		var err error
		if cfg.TLSCert != "" {
			s.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
			err = s.ServeTLS(l, cfg.TLSCert, cfg.TLSKey)
		} else {
			err = s.Serve(l)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			w.app.failed <- fmt.Errorf("%s at %s: %w", name, l.Addr(), err)
		}
	}()
}

func (w *web) shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var errs []error
	for _, s := range w.servers {
		if err := s.Shutdown(ctx); err != nil {
			errs = append(errs, s.Close())
		}
	}
	if len(w.servers) == 0 && w.common != nil {
		errs = append(errs, w.common.Close())
	}
	return errors.Join(errs...)
}
