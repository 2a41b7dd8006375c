package agent

import (
	"context"
	"sync"
	"time"

	"kilonova/internal/compute/command"
	"kilonova/internal/compute/virt"
	"kilonova/internal/fault"
	"kilonova/internal/network"
)

// planeSync keeps the host's data plane as the network service wants it. What it applies is always the whole, so any lost message is made good by the next look.
type planeSync struct {
	agent *Agent
	kick  chan struct{}
	mu    sync.Mutex      // one sync at a time
	have  map[string]bool // ports that the applied state has
}

// changed takes the network service's fan-out: the message is a host name, or empty for all hosts.
func (p *planeSync) changed(_ context.Context, _ string, msg []byte) ([]byte, error) {
	if len(msg) == 0 || string(msg) == p.agent.cfg.Host {
		p.trigger()
	}
	return nil, nil
}

func (p *planeSync) trigger() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// now syncs and only warns of a failure.
func (p *planeSync) now(ctx context.Context) {
	if err := p.sync(ctx); err != nil && ctx.Err() == nil {
		p.agent.log.Warn("the data plane could not be brought up to date; it is tried again", "error", err)
		time.AfterFunc(2*time.Second, p.trigger)
	}
}

func (p *planeSync) loop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.kick:
			p.now(ctx)
		}
	}
}

func (p *planeSync) sync(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var state network.HostState
	if err := p.agent.call(ctx, command.HostNetworkSubject, []byte(p.agent.cfg.Host), &state); err != nil {
		return err
	}
	if err := p.agent.cfg.Plane.Apply(ctx, &state); err != nil {
		return err
	}
	p.have = make(map[string]bool, len(state.Ports))
	for _, port := range state.Ports {
		p.have[port.ID] = true
	}
	return nil
}

// plug sees that bridges and rules for a guest's interfaces are in force before the guest runs.
func (a *Agent) plug(ctx context.Context, s *virt.Spec) error {
	if a.plane == nil || len(s.VIFs) == 0 {
		return nil
	}
	if err := a.plane.sync(ctx); err != nil {
		return err
	}
	for _, v := range s.VIFs {
		if !a.plane.has(v.PortID) {
			return fault.New(fault.Unavailable, "Port %s is not bound to host %s.", v.PortID, a.cfg.Host)
		}
	}
	return nil
}

func (p *planeSync) has(port string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.have[port]
}

// wired reports that interfaces work. A lost report is made good when the host's ports are looked at the next time.
func (a *Agent) wired(ctx context.Context, vifs []network.VIF, status string) {
	if a.plane == nil {
		return
	}
	for _, v := range vifs {
		if err := a.call(ctx, command.PortStatusSubject, command.PortStatus{PortID: v.PortID, Status: status}, nil); err != nil {
			a.log.Warn("a port's status was not reported", "port", v.PortID, "error", err)
		}
	}
}
