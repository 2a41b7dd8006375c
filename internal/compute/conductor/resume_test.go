package conductor_test

import (
	"testing"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/reconcile"
	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/operation"
)

// An agent that comes to a host that was down finds its guests shut down. It says that it starts those that ran: the power sync does not stop their servers.
// Later the same finding is news.
func TestGuestsOfAHostThatComesUpAreNotStopped(t *testing.T) {
	c := newCloud(t, options{rec: reconcile.Config{Settle: time.Nanosecond}})
	kill := c.host("h1", fake.Config{})
	ran, paused := c.record(nil), c.record(nil)
	c.ends(c.create(ran, compute.CreateInput{}), operation.Done)
	c.ends(c.create(paused, compute.CreateInput{}), operation.Done)
	c.ends(c.accept(compute.OpPause, paused.ID, nil), operation.Done)
	kill()
	down := []virt.GuestState{{ID: ran.ID, Power: virt.Shutdown}, {ID: paused.ID, Power: virt.Shutdown}}
	want := func(req command.MineRequest) map[string]virt.PowerState {
		t.Helper()
		req.Host, req.Guests = "h1", down
		out := map[string]virt.PowerState{}
		for _, s := range ask[command.MineReply](c, command.MineSubject, req).Servers {
			if s.Verdict == "keep" {
				out[s.ID] = s.Want
			}
		}
		return out
	}
	for _, req := range []command.MineRequest{{Resume: true}, {Starting: []string{ran.ID}}} {
		if got := want(req)[ran.ID]; got != virt.Running {
			t.Errorf("%+v: the guest that ran shall be %v", req, got)
		}
		if s := c.get(ran.ID); s.VMState != compute.VMActive || s.TaskState != "" || s.PowerState != compute.PowerRunning {
			t.Errorf("%+v: the server is %s, task %q, power %d", req, s.VMState, s.TaskState, s.PowerState)
		}
		if got := want(req)[paused.ID]; got == virt.Running {
			t.Errorf("%+v: a paused guest shall run", req)
		}
	}
	want(command.MineRequest{})
	if s := c.get(ran.ID); s.PowerState != compute.PowerShutdown || s.TaskState != compute.TaskPoweringOff {
		t.Errorf("a guest that shut down by itself: the server has task %q, power %d", s.TaskState, s.PowerState)
	}
}
