package agent

import (
	"context"
	"errors"

	"kilonova/internal/compute/command"
	"kilonova/internal/compute/virt"
	"kilonova/internal/fault"
)

// queries is the literal list of what an agent can be asked without a journal: questions, and calls that act at once and may be repeated.
var queries = map[command.Verb]func(a *Agent, ctx context.Context, c *command.Command) (any, error){
	command.QueryGuest: func(a *Agent, ctx context.Context, c *command.Command) (any, error) {
		return a.driver.Guest(ctx, c.Server)
	},
	command.QueryGuests: func(a *Agent, ctx context.Context, _ *command.Command) (any, error) {
		return a.driver.Guests(ctx)
	},
	command.QueryConsoleLog: func(a *Agent, ctx context.Context, c *command.Command) (any, error) {
		var args command.ConsoleLogArgs
		if err := bind(c, &args); err != nil {
			return nil, err
		}
		d, err := ability[virt.ConsoleLogger](a, "show console logs")
		if err != nil {
			return nil, err
		}
		out, err := d.ConsoleLog(ctx, c.Server, args.Lines, 100<<10)
		return command.ConsoleLogResult{Output: string(out)}, err
	},
	command.QueryConsole: func(a *Agent, ctx context.Context, c *command.Command) (any, error) {
		var args command.ConsoleArgs
		if err := bind(c, &args); err != nil {
			return nil, err
		}
		d, err := ability[virt.Consoler](a, "give consoles")
		if err != nil {
			return nil, err
		}
		return d.Console(ctx, c.Server, args.Kind)
	},
	command.QueryDiagnostics: func(a *Agent, ctx context.Context, c *command.Command) (any, error) {
		d, err := ability[virt.Diagnoser](a, "give diagnostics")
		if err != nil {
			return nil, err
		}
		return d.Diagnostics(ctx, c.Server)
	},
	command.QueryUptime: func(a *Agent, ctx context.Context, _ *command.Command) (any, error) {
		i, err := a.driver.Info(ctx)
		if err != nil {
			return nil, err
		}
		if i.Uptime == "" {
			return nil, fault.New(fault.NotImplemented, "The hypervisor of host %s does not tell its uptime.", a.host)
		}
		return command.UptimeResult{Uptime: i.Uptime}, nil
	},
	command.AbortLive: func(a *Agent, ctx context.Context, c *command.Command) (any, error) {
		d, err := ability[virt.Migrator](a, "migrate running guests")
		if err != nil {
			return nil, err
		}
		err = d.AbortLiveMigration(ctx, c.Server)
		if errors.Is(err, fault.NotFound) && a.cancelRunning(c.Server) {
			return nil, nil // it had not begun to move memory: cutting the command off is enough
		}
		return nil, err
	},
	command.ForceLive: func(a *Agent, ctx context.Context, c *command.Command) (any, error) {
		d, err := ability[virt.Migrator](a, "migrate running guests")
		if err != nil {
			return nil, err
		}
		return nil, d.ForceLiveMigration(ctx, c.Server)
	},
	command.CacheImages: func(a *Agent, ctx context.Context, c *command.Command) (any, error) {
		var args command.CacheImagesArgs
		if err := bind(c, &args); err != nil || a.cache == nil {
			return nil, err
		}
		failed := make(chan string, len(args.ImageIDs))
		for _, image := range args.ImageIDs {
			a.wg.Go(func() {
				if _, err := a.cache.get(a.ctx, image); err != nil {
					a.log().Warn("image was not cached", "image", image, "error", err)
					failed <- image
					return
				}
				failed <- ""
			})
		}
		var out command.CacheImagesResult
		for range args.ImageIDs {
			select {
			case image := <-failed:
				if image != "" {
					out.Failed = append(out.Failed, image)
				}
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return out, nil
	},
	command.SyncNetwork: func(a *Agent, ctx context.Context, _ *command.Command) (any, error) {
		if a.plane == nil {
			return nil, nil
		}
		return nil, a.plane.sync(ctx)
	},
}

var errAborted = errors.New("agent: aborted on request")

// cancelRunning cuts off the command that is running for a server.
func (a *Agent) cancelRunning(server string) bool {
	a.mu.Lock()
	e := a.entries[server]
	a.mu.Unlock()
	if e == nil {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running == nil {
		return false
	}
	e.running.cancel(errAborted)
	return true
}
