package libvirt

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"time"

	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/libvirt/definition"
	"kilonova/internal/compute/virt/libvirt/rpc"
	"kilonova/internal/fault"
	"kilonova/internal/network"
)

// unplugRetry is how often a guest is asked again to let go of a device; unplugLimit how long it may take.
const (
	unplugRetry = 5 * time.Second
	unplugLimit = 2 * time.Minute
)

// deviceRef finds a device in a definition: by its alias or, for interfaces, by its MAC.
type deviceRef struct{ alias, mac string }

// find gives the device's XML in a definition, "" when it is not there.
func (r deviceRef) find(x *definition.Domain) string {
	if x == nil {
		return ""
	}
	for _, k := range x.Devices.Disks {
		if k.Alias != nil && k.Alias.Name == r.alias {
			k.Backing = nil
			s, _ := definition.Encode(k)
			return s
		}
	}
	for _, i := range x.Devices.Interfaces {
		if (i.Alias != nil && i.Alias.Name == r.alias) || (r.mac != "" && strings.EqualFold(i.MAC.Address, r.mac)) {
			s, _ := definition.Encode(i)
			return s
		}
	}
	for _, h := range x.Devices.HostDevs {
		if h.Alias != nil && h.Alias.Name == r.alias {
			s, _ := definition.Encode(h)
			return s
		}
	}
	return ""
}

// plug adds a device where it is missing: to the definition, and to the guest when it runs.
func (d *Driver) plug(ctx context.Context, f found, ref deviceRef, make func(live *definition.Domain) (string, error)) error {
	var live *definition.Domain
	var err error
	if f.active() {
		if live, err = d.definition(ctx, f.dom, 0); err != nil {
			return err
		}
	}
	text, err := make(live)
	if err != nil {
		return err
	}
	if f.active() && ref.find(live) == "" {
		err := d.rpc.Attach(ctx, f.dom, text, rpc.AffectLive)
		for try := 1; inUse(err) && try < clashTries; try++ {
			err = d.rpc.Attach(ctx, f.dom, text, rpc.AffectLive)
		}
		if err != nil {
			return err
		}
	}
	if ref.find(f.old) == "" {
		return d.rpc.Attach(ctx, f.dom, text, rpc.AffectConfig)
	}
	return nil
}

// unplug removes a device from definition and guest. A running guest is asked, again and again, until it has let go.
func (d *Driver) unplug(ctx context.Context, guest string, ref deviceRef) error {
	f, unlock, err := d.holdThere(ctx, guest)
	defer unlock()
	if err != nil {
		return err
	}
	if text := ref.find(f.old); text != "" {
		if err := d.rpc.Detach(ctx, f.dom, text, rpc.AffectConfig); err != nil && !errors.Is(err, fault.NotFound) {
			return err
		}
	}
	if !f.active() {
		return nil
	}
	events := d.rpc.Subscribe()
	defer events.Close()
	end := time.Now().Add(unplugLimit)
	var asked time.Time
	for {
		live, err := d.definition(ctx, f.dom, 0)
		if err != nil {
			return err
		}
		text := ref.find(live)
		if text == "" {
			return nil
		}
		if time.Now().After(end) {
			return fault.New(fault.Conflict, "The server's operating system does not let go of the device.").WithHint("Try again when it has booted, or stop the server.")
		}
		if time.Since(asked) >= unplugRetry {
			asked = time.Now()
			err := d.rpc.Detach(ctx, f.dom, text, rpc.AffectLive)
			if errors.Is(err, fault.NotFound) {
				return nil
			}
			// "Already in the process of unplug" comes as OperationFailed: the guest takes its time.
			if err != nil && !rpc.HasCode(err, rpc.OperationFailed, rpc.OperationInvalid, rpc.OperationTimeout) {
				return err
			}
			if on, err2 := d.rpc.IsActive(ctx, f.dom); err2 == nil && !on {
				return nil
			}
		}
		d.nextEvent(ctx, events, f.dom, 500*time.Millisecond)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// nextEvent waits until something happens to the domain, or for at most the limit.
func (d *Driver) nextEvent(ctx context.Context, s *rpc.Subscription, dom rpc.Domain, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		e, err := s.Next(ctx)
		if err != nil || e.Domain.UUID == dom.UUID {
			return
		}
	}
}

// interfaceRef finds the interface of a port.
func interfaceRef(v network.VIF) deviceRef {
	r := deviceRef{mac: v.MAC}
	if a := interfaceAlias(v); a != nil {
		r.alias = a.Name
	}
	return r
}

// AttachInterface plugs an interface into the guest, now when it runs and for its next start.
func (d *Driver) AttachInterface(ctx context.Context, spec *virt.Spec, v network.VIF) error {
	f, unlock, err := d.holdThere(ctx, spec.ID)
	defer unlock()
	if err != nil {
		return err
	}
	if f.power == virt.Suspended {
		return conflict("given an interface", f.power)
	}
	o, err := definition.ParseOptions(spec)
	if err != nil {
		return err
	}
	text, err := d.portXML(spec, v, o)
	if err != nil {
		return err
	}
	if err := d.trustPorts(ctx, spec, v); err != nil {
		return err
	}
	err = d.plug(ctx, f, interfaceRef(v), func(*definition.Domain) (string, error) { return text, nil })
	if err != nil {
		return d.explain(&virt.Spec{Name: spec.Name, VIFs: []network.VIF{v}}, err)
	}
	return nil
}

// DetachInterface unplugs it and waits until the guest has let go.
func (d *Driver) DetachInterface(ctx context.Context, spec *virt.Spec, v network.VIF) error {
	return d.unplug(ctx, spec.ID, interfaceRef(v))
}

// SetPassword sets a password through the guest agent.
func (d *Driver) SetPassword(ctx context.Context, guest, user, password string) error {
	f, unlock, err := d.holdThere(ctx, guest)
	defer unlock()
	if err != nil {
		return err
	}
	if f.power != virt.Running {
		return conflict("given a password", f.power)
	}
	if err := d.waitAgent(ctx, f.dom); err != nil {
		return err
	}
	err = d.askAgent(ctx, f.dom, func() error { return d.rpc.SetUserPassword(ctx, f.dom, cmp.Or(user, "root"), password) })
	if rpc.HasCode(err, rpc.AgentUnresponsive, rpc.ArgumentUnsupported, rpc.ConfigUnsupported) {
		return fault.Wrap(err, fault.Conflict, "The server has no guest agent that answers.").WithHint("Install qemu-guest-agent in it.")
	}
	return err
}

// waitAgent waits until the guest's end of the agent's channel is open.
func (d *Driver) waitAgent(ctx context.Context, dom rpc.Domain) error {
	for end := time.Now().Add(d.c.AgentPatience); ; {
		there, open, err := d.agentChannel(ctx, dom)
		if err != nil || open {
			return err
		}
		if !there || time.Now().After(end) {
			return fault.New(fault.Conflict, "The server has no guest agent that answers.").WithHint("Install qemu-guest-agent in it.")
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// agentChannel tells whether the guest has a channel for an agent, and whether its end of it is open.
func (d *Driver) agentChannel(ctx context.Context, dom rpc.Domain) (there, open bool, err error) {
	live, err := d.definition(ctx, dom, 0)
	if err != nil {
		return false, false, err
	}
	at := slices.IndexFunc(live.Devices.Channels, func(c definition.Channel) bool { return c.Target.Name == "org.qemu.guest_agent.0" })
	return at >= 0, at >= 0 && live.Devices.Channels[at].Target.State == "connected", nil
}

// askAgent asks the guest agent and, when it is silent though its end of the channel is open, asks again: libvirt gives it five seconds to wake up before it sends a command, which
// is short for a guest on a busy host. A command that was sent is not sent again.
func (d *Driver) askAgent(ctx context.Context, dom rpc.Domain, ask func() error) error {
	for end := time.Now().Add(d.c.AgentPatience); ; {
		err := ask()
		if !rpc.HasCode(err, rpc.AgentUnresponsive, rpc.AgentUnsynced) || time.Now().After(end) {
			return err
		}
		if _, open, err2 := d.agentChannel(ctx, dom); err2 != nil || !open {
			return err
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// CrashDump sends the guest a non-maskable interrupt, at which it dumps if it is set up to.
func (d *Driver) CrashDump(ctx context.Context, guest string) error {
	f, unlock, err := d.holdThere(ctx, guest)
	defer unlock()
	if err != nil {
		return err
	}
	if !f.active() {
		return conflict("made to dump", f.power)
	}
	return d.rpc.InjectNMI(ctx, f.dom)
}

func decodeBase64(s string) ([]byte, error) {
	return base64.StdEncoding.DecodeString(strings.TrimSpace(s))
}
