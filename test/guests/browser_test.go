package guests_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"kilonova/test/apart"
)

// browser is a headless Chromium with one page, driven by its DevTools protocol.
type browser struct {
	ws   *websocket.Conn
	next int
}

// newBrowser starts a browser that ends with the test.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	dir := t.TempDir()
	profile := filepath.Join(dir, "profile")
	said, err := os.Create(filepath.Join(dir, "said"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
		"--disable-sync", "--no-first-run", "--user-data-dir="+profile, "--window-size=1000,760", "--hide-scrollbars", "--remote-debugging-port=0", "about:blank")
	cmd.Env = append(os.Environ(), "HOME="+dir)
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it and its renderers, a process group of their own
		_ = cmd.Wait()
		if t.Failed() {
			text, _ := os.ReadFile(said.Name())
			t.Logf("--- chromium said\n%s", apart.Tail(string(text), 2000))
		}
		_ = said.Close()
	})
	var pages []struct {
		Type string
		URL  string `json:"webSocketDebuggerUrl"`
	}
	var page string
	apart.Eventually(t, "the browser has a page", func() (string, bool) {
		b, err := os.ReadFile(filepath.Join(profile, "DevToolsActivePort"))
		if err != nil {
			return err.Error(), false
		}
		port, _, _ := strings.Cut(string(b), "\n")
		r, err := http.Get("http://127.0.0.1:" + port + "/json/list")
		if err != nil {
			return err.Error(), false
		}
		defer func() { _ = r.Body.Close() }()
		if err := json.NewDecoder(r.Body).Decode(&pages); err != nil {
			return err.Error(), false
		}
		for _, p := range pages {
			if p.Type == "page" {
				page = p.URL
			}
		}
		return fmt.Sprint(pages), page != ""
	})
	ws, _, err := websocket.Dial(t.Context(), page, nil)
	if err != nil {
		t.Fatal(err)
	}
	ws.SetReadLimit(64 << 20)
	t.Cleanup(func() { _ = ws.CloseNow() })
	return &browser{ws: ws}
}

// do has one command of the protocol done and gives its result. A page that is just going away for another one refuses commands; they are given again.
func (b *browser) do(t *testing.T, method string, params map[string]any, out any) {
	t.Helper()
	apart.Eventually(t, "the browser does "+method, func() (string, bool) {
		refused := b.try(t, method, params, out)
		return refused, refused == ""
	})
}

// try sends one command; when it is refused it gives why.
func (b *browser) try(t *testing.T, method string, params map[string]any, out any) (refused string) {
	t.Helper()
	b.next++
	body, err := json.Marshal(map[string]any{"id": b.next, "method": method, "params": params})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.ws.Write(t.Context(), websocket.MessageText, body); err != nil {
		t.Fatal(err)
	}
	for {
		_, data, err := b.ws.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var r struct {
			ID     int
			Result json.RawMessage
			Error  json.RawMessage
		}
		if err := json.Unmarshal(data, &r); err != nil {
			t.Fatal(err)
		}
		if r.ID != b.next {
			continue // an event
		}
		if len(r.Error) > 0 {
			return string(r.Error)
		}
		if out != nil {
			err = json.Unmarshal(r.Result, out)
		}
		if err != nil {
			t.Fatal(err)
		}
		return ""
	}
}

// eval gives the value of a JavaScript expression as text.
func (b *browser) eval(t *testing.T, expression string) string {
	t.Helper()
	var r struct {
		Result struct{ Value any }
	}
	b.do(t, "Runtime.evaluate", map[string]any{"expression": "String(" + expression + ")"}, &r)
	return fmt.Sprint(r.Result.Value)
}

// consoleState tells how far a console page is.
const consoleState = `document.getElementById("status") && document.getElementById("status").dataset.state`

// open opens a console's page and waits until it is connected, or is not; it gives which.
func (b *browser) open(t *testing.T, url string) (got string) {
	t.Helper()
	b.do(t, "Page.navigate", map[string]any{"url": "about:blank"}, nil)
	b.do(t, "Page.navigate", map[string]any{"url": url}, nil)
	asked := time.Now()
	apart.Eventually(t, "the console's page says how it goes", func() (string, bool) {
		if time.Since(asked) > time.Minute {
			b.do(t, "Page.navigate", map[string]any{"url": url}, nil)
			asked = time.Now()
		}
		got = b.eval(t, consoleState)
		return got, got == "connected" || got == "failed" || got == "closed"
	})
	return got
}

// connect opens a console and gives its link, which is used up. It asks for another link when the browser has lost the connection: browsers drop what they fetch, and sockets, when
// an interface of the host comes or goes, as those of other guests do.
func (b *browser) connect(t *testing.T, g *guest, protocol, kind string) (url string) {
	t.Helper()
	var got string
	for range 10 {
		url = consoleURL(t, g, protocol, kind)
		if protocol == "serial" {
			url = "http" + strings.TrimPrefix(url, "ws")
		}
		if got = b.open(t, url); got == "connected" {
			return url
		}
		t.Logf("the page is %s: %s", got, apart.Tail(b.eval(t, "document.body.innerText"), 300))
	}
	t.Fatalf("the page is %s", got)
	return ""
}

// picture gives the page as PNG.
func (b *browser) picture(t *testing.T) []byte {
	t.Helper()
	var r struct{ Data []byte }
	b.do(t, "Page.captureScreenshot", map[string]any{"format": "png"}, &r)
	if !bytes.HasPrefix(r.Data, []byte("\x89PNG")) {
		t.Fatal("no picture")
	}
	return r.Data
}
