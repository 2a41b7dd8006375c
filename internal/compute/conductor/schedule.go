package conductor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"kilonova/internal/bus"
	"kilonova/internal/compute/flow"
	"kilonova/internal/fault"
)

// Between a conductor and a scheduler in another process.
const (
	placeSubject = "scheduler.place" // flow.Want -> flow.Place
	checkSubject = "scheduler.check" // checkRequest -> nothing
)

type checkRequest struct {
	Want flow.Want `json:"want"`
	Host string    `json:"host"`
}

// RunScheduler answers conductors in other processes until ctx ends: it chooses hosts and claims them, as a conductor with a scheduler of its own does.
// Schedulers share the questions; each keeps its own view of the hosts, and claims are judged in placement.
func (c *Conductor) RunScheduler(ctx context.Context, ready func()) error {
	if err := c.hosts.load(ctx); err != nil {
		return err
	}
	var stops []func()
	defer func() {
		for _, s := range stops {
			s()
		}
	}()
	serve := func(subject, queue string, h bus.Handler) error {
		stop, err := c.cfg.Bus.Serve(subject, queue, h)
		if err == nil {
			stops = append(stops, stop)
		}
		return err
	}
	err := errors.Join(
		serve(placeSubject, "scheduler", func(ctx context.Context, _ string, msg []byte) ([]byte, error) {
			var w flow.Want
			if err := json.Unmarshal(msg, &w); err != nil || w.Server == nil {
				return nil, fault.Wrap(err, fault.Invalid, "The scheduling request cannot be read.")
			}
			p, err := c.Place(ctx, w)
			if err != nil {
				return nil, err
			}
			return json.Marshal(p)
		}),
		serve(checkSubject, "scheduler", func(ctx context.Context, _ string, msg []byte) ([]byte, error) {
			var r checkRequest
			if err := json.Unmarshal(msg, &r); err != nil || r.Want.Server == nil {
				return nil, fault.Wrap(err, fault.Invalid, "The scheduling request cannot be read.")
			}
			return nil, c.Check(ctx, r.Want, r.Host)
		}),
	)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	loops, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { c.refreshDirty(loops) })
	if ready != nil {
		ready()
	}
	<-ctx.Done()
	return nil
}

// busPlacer asks schedulers in other processes. Whether hosts are down the conductor knows itself: they report to it.
type busPlacer struct{ *Conductor }

// Place implements flow.Placer. A scheduler that dies over it leaves a claim at most, which the next one finds.
func (p busPlacer) Place(ctx context.Context, w flow.Want) (*flow.Place, error) {
	out, err := p.ask(ctx, placeSubject, w)
	if err != nil {
		return nil, err
	}
	var place flow.Place
	if err := json.Unmarshal(out, &place); err != nil {
		return nil, fmt.Errorf("answer of the scheduler: %w", err)
	}
	return &place, nil
}

// Check implements flow.Placer.
func (p busPlacer) Check(ctx context.Context, w flow.Want, host string) error {
	_, err := p.ask(ctx, checkSubject, checkRequest{w, host})
	return err
}

func (p busPlacer) ask(ctx context.Context, subject string, v any) ([]byte, error) {
	msg, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	one, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := p.cfg.Bus.Call(one, subject, msg)
	switch {
	case errors.Is(err, bus.ErrNoResponder):
		return nil, fault.Wrap(err, fault.Unavailable, "No scheduler answers.")
	case err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		return nil, fault.Wrap(err, fault.Unavailable, "The scheduler did not answer in time.")
	}
	return out, err
}
