package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"kilonova/internal/bus"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/virt"
	"kilonova/internal/fault"
)

// abilityTraits names the trait that tells of each ability: the standard one where there is one.
var abilityTraits = []struct {
	trait string
	has   func(virt.Driver) bool
}{
	{"CUSTOM_KILONOVA_PAUSE", is[virt.Pauser]},
	{"CUSTOM_KILONOVA_SUSPEND", is[virt.Suspender]},
	{"CUSTOM_KILONOVA_RESCUE", is[virt.Rescuer]},
	{"CUSTOM_KILONOVA_SNAPSHOT", is[virt.Snapshotter]},
	{"CUSTOM_KILONOVA_RESIZE", is[virt.Resizer]},
	{"CUSTOM_KILONOVA_MOVE_DISKS", is[virt.DiskMover]},
	{"CUSTOM_KILONOVA_LIVE_MIGRATION", is[virt.Migrator]},
	{"CUSTOM_KILONOVA_PASSWORD", is[virt.PasswordSetter]},
	{"CUSTOM_KILONOVA_CRASH_DUMP", is[virt.CrashDumper]},
	{"COMPUTE_NET_ATTACH_INTERFACE", is[virt.InterfaceAttacher]},
	{"COMPUTE_NET_ATTACH_INTERFACE_WITH_TAG", is[virt.InterfaceAttacher]},
	{"COMPUTE_VOLUME_ATTACH_WITH_TAG", is[virt.VolumeAttacher]},
	{"COMPUTE_DEVICE_TAGGING", func(virt.Driver) bool { return true }},
	{"COMPUTE_NODE", func(virt.Driver) bool { return true }},
	{"COMPUTE_IMAGE_TYPE_RAW", func(virt.Driver) bool { return true }},
	{"COMPUTE_IMAGE_TYPE_QCOW2", func(virt.Driver) bool { return true }},
}

func is[A any](d virt.Driver) bool { _, ok := d.(A); return ok }

// Traits gives what a host advertises: what follows from the driver's abilities and what the driver adds.
func Traits(d virt.Driver, info *virt.HostInfo) []string {
	set := map[string]bool{}
	for _, t := range abilityTraits {
		if t.has(d) {
			set[t.trait] = true
		}
	}
	for _, t := range info.Traits {
		set[t] = true
	}
	return slices.Sorted(maps.Keys(set))
}

// register reports the host until a conductor has taken it. It gives up only when ctx ends or another live agent has the name.
func (a *Agent) register(ctx context.Context, patient bool) error {
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		err := a.report(ctx, true)
		if err == nil || !patient || errors.Is(err, fault.Conflict) || ctx.Err() != nil {
			return err
		}
		if !errors.Is(err, fault.Unavailable) {
			a.log().Warn("the host could not be registered; it is tried again", "error", err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// report is the heartbeat; full adds what the host has.
func (a *Agent) report(ctx context.Context, full bool) error {
	r, err := a.looks(ctx, full)
	return errors.Join(err, a.send(ctx, r))
}

// looks makes a report. It carries the error, too, with which the hypervisor did not tell what the host has.
func (a *Agent) looks(ctx context.Context, full bool) (command.HostReport, error) {
	r := command.HostReport{Host: a.host, NodeID: a.node, Start: a.start}
	if !full {
		return r, nil
	}
	info, err := a.driver.Info(ctx)
	if err != nil {
		r.Trouble = err.Error()
		return r, fmt.Errorf("look at the host: %w", err)
	}
	a.cpu.measure(info)
	info.PCIPlacement = a.cfg.PCIInPlacement
	info.Offer, info.Providers = a.cfg.Offer, a.cfg.Providers
	r.Info, r.Traits = info, Traits(a.driver, info)
	for _, format := range a.cfg.HiddenImages {
		hidden := "COMPUTE_IMAGE_TYPE_" + strings.ToUpper(format)
		r.Traits = slices.DeleteFunc(r.Traits, func(t string) bool { return t == hidden })
	}
	return r, nil
}

// send gives a report to a conductor.
func (a *Agent) send(ctx context.Context, r command.HostReport) error {
	// A conductor that hangs must not cost the host its good name: the next try reaches another one.
	one, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var reply command.RegisterReply
	if err := a.call(one, command.RegisterSubject, r, &reply); err != nil {
		return err
	}
	if reply.Refused != "" {
		return fault.New(fault.Conflict, "%s", reply.Refused)
	}
	return nil
}

// call asks a conductor.
func (a *Agent) call(ctx context.Context, subject string, args, out any) error {
	return call(ctx, a.cfg.Bus, subject, args, out)
}

func call(ctx context.Context, b bus.Bus, subject string, args, out any) error {
	msg, ok := args.([]byte)
	if !ok {
		var err error
		if msg, err = json.Marshal(args); err != nil {
			return err
		}
	}
	one, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	raw, err := b.Call(one, subject, msg)
	if errors.Is(err, bus.ErrNoResponder) {
		return fault.Wrap(err, fault.Unavailable, "No conductor answers.")
	}
	if err != nil {
		return err
	}
	if out == nil || len(raw) == 0 {
		return nil
	}
	return json.Unmarshal(raw, out)
}

// mine asks what becomes of the guests that are here, and does it. The first answer also says which of them shall run: those are started.
func (a *Agent) mine(ctx context.Context) error {
	guests, err := a.driver.Guests(ctx)
	if err != nil {
		return fmt.Errorf("list guests: %w", err)
	}
	req := a.question(guests)
	var reply command.MineReply
	if err := a.call(ctx, command.MineSubject, req, &reply); err != nil {
		return err
	}
	a.settle(&req, &reply)
	return nil
}

// question asks what becomes of guests.
func (a *Agent) question(guests []virt.GuestState) command.MineRequest {
	req := command.MineRequest{Host: a.host, Guests: guests, Epochs: map[string]int64{}, Resume: !a.looked && a.cfg.ResumeGuests}
	a.mu.Lock()
	defer a.mu.Unlock()
	req.Starting = slices.Sorted(maps.Keys(a.starting))
	for server, e := range a.entries {
		e.mu.Lock()
		req.Epochs[server] = e.epoch
		e.mu.Unlock()
	}
	return req
}

// settle does what the answer says.
func (a *Agent) settle(req *command.MineRequest, reply *command.MineReply) {
	a.looked = true
	power := map[string]virt.PowerState{}
	for _, g := range req.Guests {
		power[g.ID] = g.Power
	}
	for _, s := range reply.Servers {
		switch p, here := power[s.ID]; s.Verdict {
		case "destroy":
			a.wg.Go(func() { a.destroyOwed(s) })
		case "keep":
			if req.Resume && here && s.Want == virt.Running && p == virt.Shutdown {
				a.resume(s)
			}
		}
		delete(power, s.ID)
	}
	for server := range power {
		a.log().Warn("a guest is here that the cloud does not know; it is left alone", "server", server)
	}
}

func (a *Agent) destroyOwed(s command.MineServer) {
	c := &command.Command{Operation: "mine", Step: "destroy", Attempt: int(s.Epoch), Epoch: s.Epoch, Server: s.ID, Verb: command.Destroy}
	r, err := a.do(a.ctx, c)
	if err == nil && r.Err != nil {
		err = r.Err.Error()
	}
	if err != nil {
		a.log().Warn("a guest that should not be here could not be removed; it is tried again later", "server", s.ID, "error", err)
		return
	}
	a.log().Info("a guest that should not be here was removed", "server", s.ID)
}

// resume starts a guest that ran when the host went down. It is a command like another: one with a higher epoch cuts it off.
func (a *Agent) resume(s command.MineServer) {
	a.mu.Lock()
	if a.starting == nil {
		a.starting = map[string]bool{}
	}
	a.starting[s.ID] = true
	a.mu.Unlock()
	a.wg.Go(func() {
		err := a.powerOnKept(s)
		a.mu.Lock()
		delete(a.starting, s.ID)
		a.mu.Unlock()
		if err != nil && a.ctx.Err() == nil {
			a.log().Warn("a guest could not be started again", "server", s.ID, "error", err)
		}
	})
}

func (a *Agent) powerOnKept(s command.MineServer) error {
	k, err := a.kept(a.ctx, s.ID)
	if err != nil {
		return err
	}
	if k.Spec == nil {
		return fault.New(fault.NotFound, "The host keeps nothing of server %s.", s.ID)
	}
	args, err := json.Marshal(command.SpecArgs{Spec: *k.Spec})
	if err != nil {
		return err
	}
	c := &command.Command{Operation: "start-" + a.start, Step: "power-on", Attempt: 1, Epoch: s.Epoch, Server: s.ID, Verb: command.PowerOn, Args: args}
	for {
		r, err := a.do(a.ctx, c)
		switch {
		case err != nil:
			return err
		case r.Err != nil:
			return r.Err.Error()
		case r.Done:
			return nil
		}
	}
}

// watch reports changes that no command made.
func (a *Agent) watch(ctx context.Context, w virt.Watcher) {
	for ctx.Err() == nil {
		err := w.Watch(ctx, func(g virt.GuestState) {
			if g.ID == "" {
				a.Reconnected()
				return
			}
			a.mu.Lock()
			e := a.entries[g.ID]
			a.mu.Unlock()
			if e != nil && !e.idle() {
				return // the command that is running tells the outcome
			}
			if err := a.call(ctx, command.GuestSubject, command.GuestReport{Host: a.host, ID: g.ID, Power: g.Power}, nil); err != nil && ctx.Err() == nil {
				a.log().Warn("a guest's change was not reported; the next look tells it", "server", g.ID, "error", err)
			}
		})
		if ctx.Err() != nil {
			return
		}
		a.log().Warn("watching the hypervisor ended; it begins again", "error", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// Metadata gives the metadata input of a server whose guest is here: as a conductor has it now, or as it was when the guest was made while none answers.
func (a *Agent) Metadata(ctx context.Context, server string) (json.RawMessage, error) {
	one, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	raw, err := a.cfg.Bus.Call(one, command.MetadataSubject, []byte(server))
	if err == nil {
		return raw, nil
	}
	if errors.Is(err, fault.NotFound) {
		return nil, err
	}
	k, e := a.kept(ctx, server)
	if e != nil {
		return nil, errors.Join(err, e)
	}
	if len(k.Metadata) == 0 {
		return nil, fault.Wrap(err, fault.Unavailable, "No conductor answers, and this host keeps nothing of server %s.", server)
	}
	return k.Metadata, nil
}
