package flow

import (
	"slices"
	"strings"
	"testing"

	"kilonova/internal/compute"
)

// described is what the description of Nova's states says of an operation: the task states that it passes through, the first being that from acceptance on, and the
// events of its action.
type described struct{ tasks, events string }

// states are the lines of that description.
func states() map[string]described {
	return map[string]described{
		compute.OpCreate: {"scheduling networking block_device_mapping spawning", "conductor_schedule_and_build_instances compute__do_build_and_run_instance"},
		compute.OpDelete: {"deleting", "compute_terminate_instance"}, compute.OpSoftDelete: {"soft-deleting", "compute_soft_delete_instance"},
		compute.OpRestore: {"restoring", "compute_restore_instance"}, compute.OpStop: {"powering-off", "compute_stop_instance"}, compute.OpStart: {"powering-on", "compute_start_instance"},
		compute.OpReboot:   {"rebooting reboot_pending reboot_started", "compute_reboot_instance"},
		compute.OpRebuild:  {"rebuilding rebuild_block_device_mapping rebuild_spawning", "rebuild_server compute_rebuild_instance"},
		compute.OpEvacuate: {"rebuilding rebuild_block_device_mapping rebuild_spawning", "rebuild_server compute_rebuild_instance"},
		compute.OpResize: {"resize_prep resize_migrating resize_migrated resize_finish",
			"conductor_migrate_server cold_migrate compute_prep_resize compute_resize_instance compute_finish_resize"},
		compute.OpConfirmResize: {"", "compute_confirm_resize"}, compute.OpRevertResize: {"resize_reverting", "compute_revert_resize compute_finish_revert_resize"},
		compute.OpPause: {"pausing", "compute_pause_instance"}, compute.OpUnpause: {"unpausing", "compute_unpause_instance"},
		compute.OpSuspend: {"suspending", "compute_suspend_instance"}, compute.OpResume: {"resuming", "compute_resume_instance"},
		compute.OpRescue: {"rescuing", "compute_rescue_instance"}, compute.OpUnrescue: {"unrescuing", "compute_unrescue_instance"},
		compute.OpPassword:      {"updating_password", "compute_set_admin_password"},
		compute.OpShelve:        {"shelving shelving_image_pending_upload shelving_image_uploading shelving_offloading", "compute_shelve_instance compute_shelve_offload_instance"},
		compute.OpShelveOffload: {"shelving_offloading", "compute_shelve_offload_instance"},
		compute.OpUnshelve:      {"unshelving spawning powering-on", "get_image_info schedule_instances compute_unshelve_instance compute_start_instance"},
		compute.OpSnapshot:      {"image_snapshot_pending image_snapshot image_pending_upload image_uploading", "compute_snapshot_instance"},
		compute.OpBackup:        {"image_backup image_pending_upload image_uploading", "compute_backup_instance"},
		compute.OpLiveMigrate: {"migrating", "conductor_live_migrate_instance compute_check_can_live_migrate_destination compute_check_can_live_migrate_source compute_pre_live_migration" +
			" compute_live_migration compute_post_live_migration_at_destination"},
		OpAbortLive: {"", "compute_live_migration_abort"}, OpForceLive: {"", "compute_live_migration_force_complete"}, compute.OpCrashDump: {"", "compute_trigger_crash_dump"},
		compute.OpAttachNIC: {"", "compute_attach_interface"}, compute.OpDetachNIC: {"", "compute_detach_interface"},
	}
}

// passedOver are the task states and events that have no step of their own here, each with the reason. The API sets a first state; the status that clients see is the same
// in those of one operation.
var passedOver = map[string]string{
	"block_device_mapping": "there are no volumes", "rebuild_block_device_mapping": "the same",
	"reboot_pending": "the host does it in one go with what follows", "reboot_started": "the same", "resize_migrated": "the same",
	"image_snapshot_pending": "it is the API's", "image_backup": "it is the API's", "image_pending_upload": "the host makes the snapshot and sends it in one go", "image_uploading": "the same",
	"shelving_image_pending_upload": "the same", "rebooting": "it is the API's, which knows whether it is rebooting_hard",
	"compute_check_can_live_migrate_destination": "the destination judges and prepares in one go", "compute_check_can_live_migrate_source": "the source has nothing to judge before",
}

// TestStatesAndEvents holds the tables of steps against the description: they show its task states and events in its order, no others, and what they pass over is excused.
func TestStatesAndEvents(t *testing.T) {
	want, used := states(), map[string]bool{}
	for _, f := range All(Config{}) {
		d, ok := want[f.Kind]
		if !ok {
			t.Errorf("%s is not described", f.Kind)
			continue
		}
		delete(want, f.Kind)
		var tasks, events []string
		for _, s := range f.Steps {
			if s.TaskState != "" && !slices.Contains(tasks, s.TaskState) {
				tasks = append(tasks, s.TaskState)
			}
			for _, e := range strings.Fields(s.FailEvent + " " + s.Event) {
				if !slices.Contains(events, e) {
					events = append(events, e)
				}
			}
		}
		if f.Kind == compute.OpResize { // one step stands for both, and the one tells of the other's failure
			slices.Sort(events[:2])
			slices.Reverse(events[:2])
		}
		for what, both := range map[string][2][]string{"task states": {strings.Fields(d.tasks), tasks}, "events": {strings.Fields(d.events), events}} {
			var left []string
			for _, name := range both[0] {
				if slices.Contains(both[1], name) {
					left = append(left, name)
				} else if passedOver[name] != "" {
					used[name] = true
				} else {
					t.Errorf("%s: no step has %s", f.Kind, name)
				}
			}
			if !slices.Equal(left, both[1]) {
				t.Errorf("%s: %s %v, described are %v", f.Kind, what, both[1], both[0])
			}
		}
	}
	for kind := range want {
		t.Errorf("%s has no flow", kind)
	}
	for name, why := range passedOver {
		if !used[name] {
			t.Errorf("%s (%s) is not passed over", name, why)
		}
	}
}
