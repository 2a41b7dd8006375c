package servers

import (
	"net/url"
	"strings"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/store"
	"kilonova/internal/compute/virt"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/id"
)

// consoleOutput asks the server's host for the console log.
func (a api) consoleOutput(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Get struct {
			Length *backend.Int `json:"length"`
		} `json:"os-getConsoleOutput"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	s, err := a.Server(r, "id", backend.Rule("os-console-output"))
	if err != nil {
		return nil, err
	}
	if err := a.Check(r, s, compute.DoConsoleOutput); err != nil {
		return nil, err
	}
	lines := 0
	if n := in.Get.Length; n != nil {
		if lines = int(*n); lines == 0 {
			return body(map[string]any{"output": ""})
		}
		lines = max(lines, 0) // -1 is all
	}
	var out command.ConsoleLogResult
	if err := a.Query(r.Context(), r, s, command.QueryConsoleLog, command.ConsoleLogArgs{Lines: lines}, &out); err != nil {
		return nil, backend.HostFault(err, s)
	}
	return body(map[string]any{"output": clean(out.Output)})
}

// clean leaves out what XML and terminals do not take: control characters but tab, line feed and carriage return.
func clean(text string) string {
	return strings.Map(func(c rune) rune {
		if c < 0x20 && c != '\t' && c != '\n' && c != '\r' {
			return -1
		}
		return c
	}, strings.ToValidUTF8(text, "\ufffd"))
}

// consoleKinds maps the console types of the API to what a host offers.
var consoleKinds = map[string]string{"novnc": "vnc", "xvpvnc": "vnc", "spice-html5": "spice", "spice-direct": "spice", "serial": "serial", "rdp-html5": "rdp", "webmks": "mks"}

// oldConsole makes the handler of one of the console actions before 2.6.
func (a api) oldConsole(protocol, action string) backend.Handler {
	return func(r *httpapi.Request) (*httpapi.Reply, error) {
		var in map[string]struct {
			Type string `json:"type"`
		}
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		kind := in[action].Type
		s, err := a.Server(r, "id", backend.Rule("os-remote-consoles"))
		if err != nil {
			return nil, err
		}
		link, err := a.openConsole(r, s, protocol, kind)
		if err != nil {
			return nil, err
		}
		return body(map[string]any{"console": map[string]string{"type": kind, "url": link}})
	}
}

func (a api) remoteConsole(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Console struct {
			Protocol string `json:"protocol"`
			Type     string `json:"type"`
		} `json:"remote_console"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	s, err := a.Server(r, "server_id", backend.Rule("os-remote-consoles"))
	if err != nil {
		return nil, err
	}
	link, err := a.openConsole(r, s, in.Console.Protocol, in.Console.Type)
	if err != nil {
		return nil, err
	}
	return body(map[string]any{"remote_console": map[string]string{"protocol": in.Console.Protocol, "type": in.Console.Type, "url": link}})
}

// openConsole asks the host where the console is, records a token for it and gives the URL of the proxy with the token.
func (a api) openConsole(r *httpapi.Request, s *compute.Server, protocol, kind string) (string, error) {
	if err := a.Check(r, s, compute.DoConsole); err != nil {
		return "", err
	}
	if consoleKinds[kind] != protocol {
		return "", fault.New(fault.Invalid, "Unavailable console type %s for protocol %s.", kind, protocol)
	}
	base := a.ConsoleURLs[kind]
	if base == "" {
		return "", fault.New(fault.Invalid, "Unavailable console type %s.", kind).WithHint("This cloud has no proxy for it.")
	}
	var at virt.ConsoleEndpoint
	if err := a.Query(r.Context(), r, s, command.QueryConsole, command.ConsoleArgs{Kind: protocol}, &at); err != nil {
		if fault.KindOf(err) == fault.NotImplemented {
			return "", fault.Wrap(err, fault.Invalid, "Unavailable console type %s.", kind)
		}
		return "", backend.HostFault(err, s)
	}
	token := id.UUID()
	err := a.DB().Write(r.Context(), func(tx *db.Tx) error {
		return a.Store.InsertConsoleToken(r.Context(), tx, token, store.ConsoleToken{ServerID: s.ID, Kind: kind, Agent: s.Host, Host: at.Host, Port: at.Port, Path: at.Path, AccessURL: base,
			Expires: clock.Now().Add(a.ConsoleTTL)})
	})
	if err != nil {
		return "", err
	}
	return consoleURL(base, kind, token)
}

// consoleURL puts a token into the proxy's URL. Pages of noVNC have it in the parameter "path", which is where on the page's host the websocket is;
// others have it in "token".
func consoleURL(base, kind, token string) (string, error) {
	u, err := url.Parse(base)
	if err != nil {
		return "", err
	}
	q := u.Query()
	if kind == "novnc" {
		path := q.Get("path")
		if path == "" {
			path = strings.TrimPrefix(strings.TrimSuffix(u.Path, "vnc.html")+"websocket", "/")
		}
		q.Set("path", path+"?token="+token)
	} else {
		q.Set("token", token)
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// consoleToken tells a console proxy where a token leads, without using it up.
func (a api) consoleToken(r *httpapi.Request) (*httpapi.Reply, error) {
	if backend.Minor(r) < 31 {
		return nil, fault.New(fault.Invalid, "Before microversion 2.31 this was for RDP consoles alone, which no hypervisor here has. Ask at 2.31 or later.")
	}
	t, err := a.Store.ConsoleToken(r.Context(), a.DB(), r.Path("id"))
	if err != nil {
		return nil, err
	}
	m := map[string]any{"instance_uuid": t.ServerID, "host": t.Host, "port": t.Port, "internal_access_path": nil}
	if t.Path != "" {
		m["internal_access_path"] = t.Path
	}
	if backend.Minor(r) >= 99 && t.Kind == "spice-direct" {
		m["tls_port"] = nil
	}
	return body(map[string]any{"console": m})
}
