package guests_test

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/png"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/crypto/ssh"

	"kilonova/test/apart"
)

// imageFile is the guest image.
func imageFile() string { return os.Getenv(apart.EnvImage) }

// consoleURL asks for a console as `openstack console url show` does.
func consoleURL(t *testing.T, g *guest, protocol, kind string) string {
	t.Helper()
	var r struct {
		Console struct{ URL string } `json:"remote_console"`
	}
	apart.Must(t, g.demo, "POST", "compute", "/servers/"+g.id+"/remote-consoles", map[string]any{"remote_console": map[string]any{"protocol": protocol, "type": kind}}, &r)
	return r.Console.URL
}

// screen opens the guest's screen in a browser: the picture shows it, what is typed reaches the guest, and the link works once.
func screen(t *testing.T, g *guest) {
	if _, err := exec.LookPath("chromium"); err != nil {
		t.Skip("chromium is not installed")
	}
	b := newBrowser(t)
	url := consoleURL(t, g, "vnc", "novnc")
	const state = `document.getElementById("status") && document.getElementById("status").dataset.state`
	if got := b.open(t, url, state, "connected", "failed", "closed"); got != "connected" {
		t.Fatalf("the page is %s: %s", got, b.eval(t, "document.body.innerText"))
	}
	var picture []byte
	apart.Eventually(t, "the picture shows a text screen", func() (string, bool) {
		picture = b.picture(t)
		img, err := png.Decode(bytes.NewReader(picture))
		if err != nil {
			t.Fatal(err)
		}
		black, light := text(img)
		return fmt.Sprintf("%.0f%% black, %d light pixels", 100*black, light), black > 0.4 && light > 300
	})
	if keep := os.Getenv("KILONOVA_GUESTS_PICTURE"); keep != "" {
		if err := os.WriteFile(keep, picture, 0o644); err != nil {
			t.Error(err)
		}
	}
	typeOn(t, b, "kilo\r")
	apart.Eventually(t, "the name typed on the screen reached the guest's login", func() (string, bool) {
		out, err := g.try("ps | grep '[l]ogin' ", ssh.PublicKeys(g.signer))
		return fmt.Sprint(out, err), strings.Contains(out, "kilo")
	})
	if got := b.open(t, url, state, "connected", "failed", "closed"); got != "failed" {
		t.Errorf("the link works twice: the page is %s", got)
	}
}

// spiceScreen opens the guest's screen by SPICE in a browser.
func spiceScreen(t *testing.T, g *guest) {
	if _, err := os.Stat("/usr/share/spice-html5/main.js"); err != nil {
		t.Skip("spice-html5 is not installed")
	}
	if _, err := exec.LookPath("chromium"); err != nil {
		t.Skip("chromium is not installed")
	}
	b := newBrowser(t)
	const state = `document.getElementById("status") && document.getElementById("status").dataset.state`
	if got := b.open(t, consoleURL(t, g, "spice", "spice-html5"), state, "connected", "failed", "closed"); got != "connected" {
		t.Fatalf("the page is %s: %s", got, b.eval(t, "document.body.innerText"))
	}
	apart.Eventually(t, "the picture shows a text screen", func() (string, bool) {
		img, err := png.Decode(bytes.NewReader(b.picture(t)))
		if err != nil {
			t.Fatal(err)
		}
		black, light := text(img)
		return fmt.Sprintf("%.0f%% black, %d light pixels", 100*black, light), black > 0.3 && light > 300
	})
}

// typeOn presses keys on the page.
func typeOn(t *testing.T, b *browser, keys string) {
	t.Helper()
	for _, k := range keys {
		key := map[string]any{"text": string(k), "key": string(k), "code": "Key" + strings.ToUpper(string(k))}
		if k == '\r' {
			key = map[string]any{"text": "\r", "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
		}
		for _, kind := range []string{"keyDown", "keyUp"} {
			key["type"] = kind
			b.do(t, "Input.dispatchKeyEvent", key, nil)
		}
	}
}

// text looks at the middle of the page, where the screen of a machine is: the share of black, and how many pixels are light, as letters are.
func text(img image.Image) (black float64, light int) {
	b := img.Bounds()
	n, dark := 0, 0
	for y := b.Min.Y + b.Dy()/6; y < b.Max.Y-b.Dy()/12; y++ {
		for x := b.Min.X + b.Dx()/8; x < b.Max.X-b.Dx()/8; x++ {
			r, g, bl, _ := img.At(x, y).RGBA()
			switch sum := (r + g + bl) >> 8; {
			case sum < 24:
				dark++
			case sum > 300:
				light++
			}
			n++
		}
	}
	return float64(dark) / float64(n), light
}

// line is a serial console over a websocket.
type line struct {
	ws   *websocket.Conn
	seen string
}

func (l *line) send(t *testing.T, s string) {
	t.Helper()
	if err := l.ws.Write(t.Context(), websocket.MessageBinary, []byte(s)); err != nil {
		t.Fatal(err)
	}
}

// expect reads until the pattern has come and forgets what was before its end. nudge is sent whenever nothing comes.
func (l *line) expect(t *testing.T, pattern, nudge string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	ctx, cancel := context.WithTimeout(t.Context(), apart.Patience)
	defer cancel()
	if nudge != "" {
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Second):
					_ = l.ws.Write(ctx, websocket.MessageBinary, []byte(nudge)) // a line that has ended shows at the reader
				}
			}
		}()
	}
	for {
		if m := re.FindStringIndex(l.seen); m != nil {
			got := l.seen[:m[1]]
			l.seen = l.seen[m[1]:]
			return got
		}
		_, data, err := l.ws.Read(ctx)
		if err != nil {
			t.Fatalf("waiting for %q: %v; the line said %q", pattern, err, l.seen)
		}
		l.seen += string(data)
	}
}

func serial(t *testing.T, g *guest) {
	url := consoleURL(t, g, "serial", "serial")
	dial := func() (*websocket.Conn, int, error) {
		ws, r, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{Subprotocols: []string{"binary"}})
		code := 0
		if r != nil {
			code = r.StatusCode
		}
		return ws, code, err
	}
	ws, _, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.CloseNow() }()
	l := &line{ws: ws}
	l.send(t, "\n")
	l.expect(t, `login: $`, "\n")
	l.send(t, "kilo\n")
	l.expect(t, `assword: ?$`, "")
	l.send(t, "kilo\n")
	l.expect(t, `[$#] `, "")
	l.send(t, "echo sum=$((6*7)) on $(hostname | cut -d. -f1) as $(id -un)\n")
	l.expect(t, fmt.Sprintf(`sum=42 on %s as kilo`, g.name), "")
	l.send(t, "exit\n")
	if _, code, err := dial(); err == nil || code != http.StatusForbidden {
		t.Errorf("the link works twice: %d %v", code, err)
	}
}

// terminal opens the page of the serial console in a browser: what is typed reaches the guest, what it says is shown.
func terminal(t *testing.T, g *guest) {
	if _, err := exec.LookPath("chromium"); err != nil {
		t.Skip("chromium is not installed")
	}
	b := newBrowser(t)
	url := "http" + strings.TrimPrefix(consoleURL(t, g, "serial", "serial"), "ws")
	const state, shown = `document.getElementById("status") && document.getElementById("status").dataset.state`, `document.getElementById("screen").textContent`
	if got := b.open(t, url, state, "connected", "failed", "closed"); got != "connected" {
		t.Fatalf("the page is %s: %s", got, b.eval(t, "document.body.innerText"))
	}
	says := func(pattern, nudge string) string {
		re, last := regexp.MustCompile(pattern), time.Now()
		var text string
		apart.Eventually(t, "the terminal shows "+pattern, func() (string, bool) {
			if nudge != "" && time.Since(last) > 3*time.Second {
				last = time.Now()
				typeOn(t, b, nudge)
			}
			text = strings.TrimRight(b.eval(t, shown), " \n")
			return text, re.MatchString(text)
		})
		return text
	}
	typeOn(t, b, "\r")
	says(`login:$`, "\r")
	typeOn(t, b, "kilo\r")
	says(`assword:$`, "")
	typeOn(t, b, "kilo\r")
	says(`[$#]$`, "")
	// The cursor goes up and over what was written; colours and their ends are not shown.
	typeOn(t, b, `printf 'one\ntwo\n\033[2A\033[31mONE\033[0m\n\n'; echo sum $((6*7))`+"\r")
	if text := says(`(?m)^sum 42$`, ""); !regexp.MustCompile(`(?m)^ONE\ntwo\nsum 42$`).MatchString(text) {
		t.Errorf("the terminal shows\n%s", text)
	}
	typeOn(t, b, "exit\r")
	says(`login:$`, "")
	if got := b.open(t, url, state, "connected", "failed", "closed"); got != "failed" {
		t.Errorf("the link works twice: the page is %s", got)
	}
}
