package compute_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute"
	"kilonova/internal/fault"
)

var vmStates = []string{compute.VMActive, compute.VMBuilding, compute.VMPaused, compute.VMSuspended, compute.VMStopped, compute.VMRescued, compute.VMResized,
	compute.VMSoftDeleted, compute.VMDeleted, compute.VMError, compute.VMShelved, compute.VMShelvedOffloaded}

// TestAllowedStates lists, for each operation, the VM states in which it is accepted for an idle, unlocked, launched server with a host.
func TestAllowedStates(t *testing.T) {
	all := vmStates
	resting := []string{"active", "paused", "suspended", "stopped"}
	want := map[string][]string{
		compute.DoDelete: all, compute.OpSoftDelete: all, compute.DoForceDelete: all, compute.OpRestore: {"soft-delete"}, compute.OpStart: {"stopped"}, compute.OpStop: {"active", "error"},
		compute.DoRebootSoft: {"active"}, compute.DoRebootHard: {"active", "paused", "suspended", "stopped", "error"}, compute.OpRebuild: {"active", "stopped", "error"},
		compute.OpResize: {"active", "stopped"}, compute.DoMigrate: {"active", "stopped"}, compute.OpConfirmResize: {"resized"}, compute.OpRevertResize: {"resized"},
		compute.OpPause: {"active"}, compute.OpUnpause: {"paused"}, compute.OpSuspend: {"active"}, compute.OpResume: {"suspended"}, compute.OpRescue: {"active", "stopped", "error"},
		compute.OpUnrescue: {"rescued"}, compute.OpShelve: resting, compute.OpShelveOffload: {"shelved"}, compute.OpUnshelve: {"shelved", "shelved_offloaded"},
		compute.OpPassword: {"active"}, compute.OpSnapshot: resting, compute.OpBackup: resting, compute.OpCrashDump: {"active", "paused", "rescued", "resized", "error"},
		compute.OpLiveMigrate: {"active", "paused"}, compute.DoForceComplete: {}, compute.DoAbort: {}, compute.OpEvacuate: {"active", "stopped", "error"},
		compute.OpAttachVolume:  {"active", "paused", "stopped", "resized", "soft-delete"},
		compute.DoAttachShelved: {"active", "paused", "stopped", "resized", "soft-delete", "shelved", "shelved_offloaded"},
		compute.OpDetachVolume:  {"active", "paused", "stopped", "resized", "soft-delete", "shelved", "shelved_offloaded"},
		compute.DoSwapVolume:    {"active", "paused", "resized"}, compute.OpAttachNIC: {"active", "paused", "stopped"}, compute.OpDetachNIC: {"active", "paused", "stopped"},
		compute.DoAttachShare: {"stopped"}, compute.DoDetachShare: {"stopped", "error"}, compute.DoUpdateMetadata: resting, compute.DoDeleteMetadata: resting, compute.DoTags: resting,
		compute.DoConsole: all, compute.DoConsoleOutput: all, compute.DoDiagnostics: all, compute.DoInjectNetwork: all, compute.DoFixedIP: all,
	}
	table := compute.Transitions()
	for op := range table {
		if want[op] == nil {
			t.Errorf("%s is not in this test", op)
		}
	}
	for op, states := range want {
		got := []string{}
		for _, vm := range vmStates {
			s := &compute.Server{ID: "i", VMState: vm, Host: "h", Launched: time.Unix(1, 0)}
			if table[op].Check(s, false) == nil {
				got = append(got, vm)
			}
		}
		sorted := slices.Clone(states)
		slices.Sort(sorted)
		slices.Sort(got)
		if diff := cmp.Diff(sorted, got); diff != "" {
			t.Errorf("%s: %s", op, diff)
		}
	}
}

func TestRefusals(t *testing.T) {
	ok := compute.Server{ID: "i1", VMState: compute.VMActive, Host: "h", Launched: time.Unix(1, 0)}
	for name, c := range map[string]struct {
		op     string
		change func(*compute.Server)
		admin  bool
		want   string
	}{
		"state":            {compute.OpStart, func(*compute.Server) {}, false, "Cannot 'start' instance i1 while it is in vm_state active"},
		"task":             {compute.OpStop, func(s *compute.Server) { s.TaskState = "rebooting" }, false, "Cannot 'stop' instance i1 while it is in task_state rebooting"},
		"no task":          {compute.DoForceComplete, func(*compute.Server) {}, false, "Cannot 'force_complete' instance i1 while it is in task_state None"},
		"locked":           {compute.OpStop, func(s *compute.Server) { s.Locked = true }, false, "Instance i1 is locked"},
		"locked, admin":    {compute.OpStop, func(s *compute.Server) { s.Locked = true }, true, ""},
		"never launched":   {compute.OpStop, func(s *compute.Server) { s.Launched = time.Time{} }, false, "Instance i1 is in an invalid state for 'stop'"},
		"no host":          {compute.OpStop, func(s *compute.Server) { s.Host = "" }, false, "Instance i1 is not ready"},
		"snapshot, locked": {compute.OpSnapshot, func(s *compute.Server) { s.Locked = true }, false, ""},
		"hard in reboot":   {compute.DoRebootHard, func(s *compute.Server) { s.TaskState = "reboot_started" }, false, ""},
		"hard in snapshot": {compute.DoRebootHard, func(s *compute.Server) { s.TaskState = "image_snapshot" }, false, "Cannot 'reboot' instance i1 while it is in task_state image_snapshot"},
		"abort":            {compute.DoAbort, func(s *compute.Server) { s.TaskState = "migrating" }, false, ""},
		"console, moving":  {compute.DoConsole, func(s *compute.Server) { s.TaskState = "migrating" }, false, "Cannot 'get_vnc_console' instance i1 while it is in task_state migrating"},
		"delete, busy":     {compute.DoDelete, func(s *compute.Server) { s.TaskState = "spawning"; s.VMState = "building"; s.Host = "" }, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := ok
			c.change(&s)
			err := compute.Transitions()[c.op].Check(&s, c.admin)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, fault.Conflict) || fault.PublicText(err) != c.want {
				t.Fatal(err)
			}
		})
	}
}

func TestStatus(t *testing.T) {
	for _, c := range []struct{ vm, task, want string }{
		{"active", "", "ACTIVE"}, {"active", "image_snapshot", "ACTIVE"}, {"active", "reboot_pending", "REBOOT"}, {"active", "reboot_started_hard", "HARD_REBOOT"},
		{"active", "updating_password", "PASSWORD"}, {"active", "rebuild_spawning", "REBUILD"}, {"active", "migrating", "MIGRATING"}, {"active", "resize_finish", "RESIZE"},
		{"building", "spawning", "BUILD"}, {"stopped", "", "SHUTOFF"}, {"stopped", "resize_prep", "RESIZE"}, {"stopped", "rebooting_hard", "SHUTOFF"}, {"resized", "", "VERIFY_RESIZE"},
		{"resized", "resize_reverting", "REVERT_RESIZE"}, {"paused", "migrating", "MIGRATING"}, {"paused", "", "PAUSED"}, {"suspended", "resuming", "SUSPENDED"}, {"rescued", "", "RESCUE"},
		{"error", "", "ERROR"}, {"error", "rebuilding", "REBUILD"}, {"deleted", "", "DELETED"}, {"soft-delete", "", "SOFT_DELETED"}, {"shelved", "", "SHELVED"},
		{"shelved_offloaded", "unshelving", "SHELVED_OFFLOADED"}, {"odd", "", "UNKNOWN"},
	} {
		if got := compute.Status(c.vm, c.task); got != c.want {
			t.Errorf("%s/%s: %s, want %s", c.vm, c.task, got, c.want)
		}
	}
	if got := compute.StatusOf(&compute.Server{VMState: "active", Deleted: time.Unix(1, 0)}); got != "DELETED" {
		t.Error(got)
	}
}

// TestStatusFilterInverts asks for each status and finds every state that has it.
func TestStatusFilterInverts(t *testing.T) {
	tasks := []string{"", "rebooting", "rebooting_hard", "updating_password", "rebuilding", "migrating", "resize_prep", "resize_reverting", "image_snapshot"}
	for _, vm := range vmStates {
		for _, task := range tasks {
			vms, ts, known := compute.StatusFilter(compute.Status(vm, task))
			if !known || !slices.Contains(vms, vm) || ts != nil && !slices.Contains(ts, task) {
				t.Errorf("%s/%s: %v %v", vm, task, vms, ts)
			}
		}
	}
	vms, ts, known := compute.StatusFilter("resize")
	if !known || !slices.Equal(vms, []string{"active", "stopped"}) || len(ts) != 4 {
		t.Error(vms, ts, known)
	}
	if _, _, known := compute.StatusFilter("BUSY"); known {
		t.Error("BUSY is no status")
	}
}
