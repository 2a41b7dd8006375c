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
	url := b.connect(t, g, "vnc", "novnc")
	var picture []byte
	apart.Eventually(t, "the picture shows a text screen", func() (string, bool) {
		if b.eval(t, consoleState) != "connected" {
			url = b.connect(t, g, "vnc", "novnc")
		}
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
	var typed time.Time
	apart.Eventually(t, "the name typed on the screen reached the guest's login", func() (string, bool) {
		if time.Since(typed) > 90*time.Second { // a login that waited too long for its password has ended
			if b.eval(t, consoleState) != "connected" {
				url = b.connect(t, g, "vnc", "novnc")
			}
			typeOn(t, b, "kilo\r")
			typed = time.Now()
		}
		out, err := g.try("ps | grep '[l]ogin' ", ssh.PublicKeys(g.signer))
		return fmt.Sprint(out, err), strings.Contains(out, "kilo")
	})
	if got := b.open(t, url); got != "failed" {
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
	b.connect(t, g, "spice", "spice-html5")
	apart.Eventually(t, "the picture shows a text screen", func() (string, bool) {
		if b.eval(t, consoleState) != "connected" {
			b.connect(t, g, "spice", "spice-html5")
		}
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
	came <-chan string
	seen string
}

func (l *line) send(t *testing.T, s string) {
	t.Helper()
	if err := l.ws.Write(t.Context(), websocket.MessageBinary, []byte(s)); err != nil {
		t.Fatal(err)
	}
}

// read gives what comes, or "" when nothing comes for a while.
func (l *line) read(t *testing.T, ctx context.Context, while time.Duration) string {
	t.Helper()
	if l.came == nil { // a read that is given up would end the connection, so that another goroutine reads
		came := make(chan string, 100)
		go func() {
			defer close(came)
			for {
				_, data, err := l.ws.Read(ctx)
				if err != nil {
					return
				}
				select {
				case came <- string(data):
				case <-ctx.Done():
					return
				}
			}
		}()
		l.came = came
	}
	select {
	case s, more := <-l.came:
		if !more {
			t.Fatalf("the line has ended; it said %q", apart.Tail(l.seen, 500))
		}
		return s
	case <-time.After(while):
		return ""
	}
}

// expect reads until the pattern has come and forgets what was before its end.
func (l *line) expect(t *testing.T, pattern string) {
	t.Helper()
	re := regexp.MustCompile(pattern)
	apart.Eventually(t, "the line says "+pattern, func() (string, bool) {
		m := re.FindStringIndex(l.seen)
		if m == nil {
			l.seen += l.read(t, t.Context(), time.Second)
			return l.seen, false
		}
		l.seen = l.seen[m[1]:]
		return "", true
	})
}

// login answers what the line asks until there is a shell.
func (l *line) login(t *testing.T, user, password string) {
	t.Helper()
	d := dialogue{send: func(s string) { l.send(t, s) }, user: user, password: password}
	apart.Eventually(t, "the line gives a shell", func() (string, bool) {
		l.seen += l.read(t, t.Context(), time.Second)
		return l.seen, d.answer(l.seen)
	})
	l.seen = ""
}

// dialogue logs in on a console: it answers what stands at its end. What the console says is read while it is being written, the kernel writes there as well, and a login that waits too
// long begins anew: so it answers when what it sees has changed, or has stayed the same for long.
type dialogue struct {
	send           func(string)
	user, password string
	said           string
	at             time.Time
}

var (
	asksUser     = regexp.MustCompile(`login: ?$`)
	asksPassword = regexp.MustCompile(`assword: ?$`)
	isShell      = regexp.MustCompile(`[$#] ?$`)
)

// answer answers once, and tells whether there is a shell.
func (d *dialogue) answer(seen string) bool {
	late := time.Since(d.at) > 20*time.Second
	if seen == d.said && !late {
		return false
	}
	switch {
	case isShell.MatchString(seen):
		return true
	case asksUser.MatchString(seen):
		d.send(d.user + "\r")
	case asksPassword.MatchString(seen):
		d.send(d.password + "\r")
	case late: // it may have asked before anybody listened, or been interrupted
		d.send("\r")
	default:
		return false
	}
	d.said, d.at = seen, time.Now()
	return false
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
	l.login(t, "kilo", "kilo")
	l.send(t, "echo sum=$((6*7)) on $(hostname | cut -d. -f1) as $(id -un)\n")
	l.expect(t, fmt.Sprintf(`sum=42 on %s as kilo`, g.name))
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
	url := b.connect(t, g, "serial", "serial")
	const shown = `document.getElementById("screen").textContent`
	screen := func() string {
		if got := b.eval(t, consoleState); got != "connected" {
			t.Logf("the page is %s", got)
			url = b.connect(t, g, "serial", "serial")
		}
		return strings.TrimRight(b.eval(t, shown), " \n")
	}
	d := dialogue{send: func(s string) { typeOn(t, b, s) }, user: "kilo", password: "kilo"}
	apart.Eventually(t, "the terminal shows a shell", func() (string, bool) {
		text := screen()
		return text, d.answer(text)
	})
	// The cursor goes up and over what was written; colours and their ends are not shown.
	const command = `printf 'one\ntwo\n\033[2A\033[31mONE\033[0m\n\n'; echo sum $((6*7))` + "\r"
	good, typed := regexp.MustCompile(`(?m)^ONE\ntwo\nsum 42$`), time.Time{}
	apart.Eventually(t, "the terminal shows what the command writes", func() (string, bool) {
		text := screen()
		if good.MatchString(text) {
			return text, true
		}
		if time.Since(typed) > time.Minute { // again, when the kernel's words came between
			typeOn(t, b, command)
			typed = time.Now()
		}
		return text, false
	})
	typeOn(t, b, "exit\r")
	typed = time.Now()
	apart.Eventually(t, "the terminal asks for a name", func() (string, bool) {
		if time.Since(typed) > time.Minute {
			typeOn(t, b, "\r")
			typed = time.Now()
		}
		text := screen()
		return text, asksUser.MatchString(text)
	})
	if got := b.open(t, url); got != "failed" {
		t.Errorf("the link works twice: the page is %s", got)
	}
}
