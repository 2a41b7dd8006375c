package agent

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"kilonova/internal/compute/command"
	"kilonova/internal/compute/virt"
	"kilonova/internal/fault"
	"kilonova/internal/network"
)

// planeSync keeps the host's data plane as the network service wants it. What it applies is always the whole, so any lost message is made good by the next look.
type planeSync struct {
	agent   *Agent
	kick    chan struct{}
	mu      sync.Mutex       // one sync at a time
	have    map[string]bool  // ports that the applied state has
	broken  map[string]error // networks of it that could not be made
	told    map[string]bool  // ports that the cloud has been told are wired
	tunnels bool             // the network service knows where this host's tunnels end
}

// changed takes the network service's fan-out: the message is a host name, or empty for all hosts.
func (p *planeSync) changed(_ context.Context, _ string, msg []byte) ([]byte, error) {
	if len(msg) == 0 || string(msg) == p.agent.host {
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

// now syncs, tells which ports work, and only warns of a failure.
func (p *planeSync) now(ctx context.Context) {
	err := p.sync(ctx)
	p.mu.Lock()
	for _, e := range p.broken {
		err = errors.Join(err, e)
	}
	p.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		p.agent.log().Warn("the data plane could not be brought up to date; it is tried again", "error", err)
		time.AfterFunc(2*time.Second, p.trigger)
	}
	p.tell(ctx)
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

// sync asks for the state and applies it. A part that fails does not make the whole fail: see broken.
func (p *planeSync) sync(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.tunnels {
		err := p.agent.call(ctx, command.TunnelSubject, command.HostTunnel{Host: p.agent.host, Address: p.agent.cfg.Tunnel, Physical: p.agent.physical}, nil)
		if p.tunnels = err == nil; err != nil && (p.agent.cfg.Tunnel != "" || len(p.agent.physical) > 0) {
			p.agent.log().Warn("the address of this host's tunnels was not taken; it is tried again", "error", err)
			time.AfterFunc(5*time.Second, p.trigger)
		}
	}
	var state network.HostState
	if err := p.agent.call(ctx, command.HostNetworkSubject, []byte(p.agent.host), &state); err != nil {
		return err
	}
	parts, err := network.Parts(p.agent.cfg.Plane.Apply(ctx, &state))
	if err != nil && ctx.Err() == nil {
		err = fault.Wrap(err, fault.Internal, "The networks of host %s could not be brought up to date.", p.agent.host).WithHint("%s", whatToDo(err))
	}
	if err != nil {
		return err
	}
	p.broken = map[string]error{}
	for _, part := range parts {
		p.broken[part.NetworkID] = errors.Join(p.broken[part.NetworkID], part)
	}
	p.have = make(map[string]bool, len(state.Ports))
	for _, port := range state.Ports {
		p.have[port.ID] = true
	}
	return nil
}

// plug sees that bridges and rules for a guest's interfaces are in force before the guest runs. What is wrong with other networks does not matter to it.
func (a *Agent) plug(ctx context.Context, s *virt.Spec) error {
	if a.plane == nil || len(s.VIFs) == 0 {
		return nil
	}
	if err := a.plane.sync(ctx); err != nil {
		return err
	}
	for _, v := range s.VIFs {
		if err := a.plane.ready(v); err != nil {
			return err
		}
	}
	return nil
}

func (p *planeSync) ready(v network.VIF) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.broken) > 0 {
		p.trigger()
	}
	if err := p.broken[v.NetworkID]; err != nil {
		return fault.Wrap(err, fault.Internal, "The network of port %s could not be made on host %s.", v.PortID, p.agent.host).WithHint("%s", whatToDo(err))
	}
	if !p.have[v.PortID] {
		return fault.New(fault.Unavailable, "Port %s is not bound to host %s.", v.PortID, p.agent.host)
	}
	return nil
}

// whatToDo is the public part of a failure of the data plane: what the data plane itself says to those who look after the host, or where they find it.
func whatToDo(err error) string {
	var told *fault.Error
	if errors.As(err, &told) {
		return told.Public()
	}
	return "The log of the host's agent says why. It tries again every few seconds: ask again when the cause is mended."
}

// tell reports the ports that are wired and of which the cloud has not been told; only bounds it to some.
func (p *planeSync) tell(ctx context.Context, only ...network.VIF) {
	news, err := p.news(only)
	if err != nil {
		p.agent.log().Warn("which ports work could not be seen; it is looked again", "error", err)
		return
	}
	for _, port := range news {
		if err := p.agent.call(ctx, command.PortStatusSubject, command.PortStatus{PortID: port, Status: "ACTIVE"}, nil); err != nil {
			p.agent.log().Warn("a port's status was not reported; it is tried again", "port", port, "error", err)
			time.AfterFunc(5*time.Second, p.trigger)
			return
		}
		p.mu.Lock()
		p.told[port] = true
		p.mu.Unlock()
	}
}

func (p *planeSync) news(only []network.VIF) (out []string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	wired, err := p.agent.cfg.Plane.Wired()
	if err != nil {
		return nil, err
	}
	for port := range p.told {
		if !wired[port] {
			delete(p.told, port)
		}
	}
	for port, up := range wired {
		if up && !p.told[port] && (len(only) == 0 || slices.ContainsFunc(only, func(v network.VIF) bool { return v.PortID == port })) {
			out = append(out, port)
		}
	}
	return out, nil
}

// wired reports the interfaces of a guest that has come up or arrived.
func (a *Agent) wired(ctx context.Context, vifs []network.VIF) {
	if a.plane == nil || len(vifs) == 0 {
		return
	}
	a.plane.mu.Lock()
	for _, v := range vifs {
		delete(a.plane.told, v.PortID) // a port that was bound elsewhere meanwhile is told anew
	}
	a.plane.mu.Unlock()
	a.plane.tell(ctx, vifs...)
}
