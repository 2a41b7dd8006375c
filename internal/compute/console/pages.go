package console

import (
	"bytes"
	"fmt"
	"html/template"
	"net/http"
	"time"
)

// screenPage is what one page with a console has besides what all have.
type screenPage struct {
	Title     string
	Generator string // clients tell a noVNC page by this
	Style     string // a style sheet of its own
	Keys      bool   // a button for Ctrl+Alt+Del
	Screen    template.HTML
	Script    string
}

// screenPages are the pages by path.
func screenPages() map[string]screenPage {
	return map[string]screenPage{
		"/vnc.html": {Title: "Console", Generator: "noVNC", Keys: true, Script: "vnc.js",
			Screen: `<main id="screen"><noscript>This page needs JavaScript: noVNC draws the screen.</noscript></main>`},
		"/spice.html": {Title: "Console", Keys: true, Script: "spice.js",
			Screen: "<main id=\"spice-area\"><div id=\"spice-screen\"></div></main>\n<div id=\"message-div\" hidden></div>"},
		"/serial.html": {Title: "Serial console", Style: "serial.css", Script: "serial.js",
			Screen: `<main><pre id="screen" tabindex="0" aria-label="Terminal"></pre></main>`},
	}
}

// renderPages gives a handler for each page.
func renderPages() (map[string]http.Handler, error) {
	t, err := template.ParseFS(page, "page/page.html")
	if err != nil {
		return nil, fmt.Errorf("console pages: %w", err)
	}
	out := map[string]http.Handler{}
	for path, p := range screenPages() {
		var b bytes.Buffer
		if err := t.Execute(&b, p); err != nil {
			return nil, fmt.Errorf("console page %s: %w", path, err)
		}
		out[path] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, path, time.Time{}, bytes.NewReader(b.Bytes()))
		})
	}
	return out, nil
}
