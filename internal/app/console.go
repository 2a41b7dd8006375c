package app

import (
	"context"
	"strings"

	"kilonova/internal/compute/console"
)

func (a *App) consoleBase() string {
	if u := a.cfg.Console.URL; u != "" {
		return strings.TrimSuffix(u, "/")
	}
	return a.URL() + "/console"
}

// consoleURLs are where the compute API sends clients, by type of console.
func (a *App) consoleURLs() map[string]string {
	base := a.consoleBase()
	urls := map[string]string{
		"novnc":  base + "/vnc.html",
		"serial": "ws" + strings.TrimPrefix(base, "http") + "/",
	}
	if a.cfg.Console.SPICE {
		urls["spice-html5"] = base + "/spice.html"
	}
	return urls
}

func (a *App) startConsole(context.Context) error {
	p, err := console.New(console.Config{Store: a.parts.store, NoVNC: a.cfg.Console.NoVNC, SPICE: a.cfg.Console.SPICEPath, Log: a.log})
	if err != nil {
		return err
	}
	a.onStop("consoles", func(context.Context) error { p.Close(); return nil })
	a.web.handle("console", p)
	return nil
}
