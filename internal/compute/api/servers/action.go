package servers

import (
	"context"
	"errors"
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/operation"
)

// simple is an action without a body that matters: one line of the table in actions.
type simple struct {
	rule string // policy, without its common prefix
	op   string // key of compute.Transitions and kind of the operation
	name string // in os-instance-actions
	task string
}

// actions gives the handlers of POST /servers/{id}/action by action.
func (a api) actions() map[string]backend.Handler {
	h := map[string]backend.Handler{
		"reboot": a.reboot, "resize": a.resize, "rebuild": a.rebuild, "createImage": a.createImage, "createBackup": a.createBackup, "changePassword": a.changePassword,
		"forceDelete": a.forceDelete, "restore": a.restore, "lock": a.lock, "unlock": a.unlock, "os-resetState": a.resetState, "injectNetworkInfo": a.injectNetworkInfo,
		"migrate": a.migrate, "os-migrateLive": a.liveMigrate, "evacuate": a.evacuate, "rescue": a.rescue, "shelve": a.shelve, "unshelve": a.unshelve,
		"os-getConsoleOutput": a.consoleOutput, "os-getVNCConsole": a.oldConsole("vnc", "os-getVNCConsole"), "os-getSPICEConsole": a.oldConsole("spice", "os-getSPICEConsole"),
		"os-getSerialConsole": a.oldConsole("serial", "os-getSerialConsole"), "addSecurityGroup": a.addSecurityGroup, "removeSecurityGroup": a.removeSecurityGroup,
		"addFixedIp": a.addFixedIP, "removeFixedIp": a.removeFixedIP, "revertResize": a.revertResize,
	}
	for key, line := range map[string]simple{
		"os-start":           {"servers:start", compute.OpStart, "start", compute.TaskPoweringOn},
		"os-stop":            {"servers:stop", compute.OpStop, "stop", compute.TaskPoweringOff},
		"confirmResize":      {"servers:confirm_resize", compute.OpConfirmResize, "confirmResize", ""},
		"pause":              {"os-pause-server:pause", compute.OpPause, "pause", compute.TaskPausing},
		"unpause":            {"os-pause-server:unpause", compute.OpUnpause, "unpause", compute.TaskUnpausing},
		"suspend":            {"os-suspend-server:suspend", compute.OpSuspend, "suspend", compute.TaskSuspending},
		"resume":             {"os-suspend-server:resume", compute.OpResume, "resume", compute.TaskResuming},
		"unrescue":           {"os-unrescue", compute.OpUnrescue, "unrescue", compute.TaskUnrescuing},
		"shelveOffload":      {"os-shelve:shelve_offload", compute.OpShelveOffload, "shelveOffload", compute.TaskShelvingOffloading},
		"trigger_crash_dump": {"servers:trigger_crash_dump", compute.OpCrashDump, "trigger_crash_dump", ""},
	} {
		h[key] = a.simple(line)
	}
	return h
}

// simple makes the handler of one line.
func (a api) simple(line simple) backend.Handler {
	return func(r *httpapi.Request) (*httpapi.Reply, error) {
		return a.accept(r, line.rule, backend.Request{Op: line.op, Action: line.name, TaskState: line.task})
	}
}

// accept loads the server, judges and accepts: the whole of most actions.
func (a api) accept(r *httpapi.Request, rule string, q backend.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "id", backend.Rule(rule))
	if err != nil {
		return nil, err
	}
	if err := a.Accept(r, s, q); err != nil {
		return nil, err
	}
	return empty()
}

func (a api) reboot(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Reboot struct {
			Type string `json:"type"`
		} `json:"reboot"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	q := backend.Request{Op: compute.DoRebootSoft, Kind: compute.OpReboot, Action: "reboot", TaskState: compute.TaskRebooting}
	if strings.EqualFold(in.Reboot.Type, "hard") {
		q.Op, q.TaskState, q.Input = compute.DoRebootHard, compute.TaskRebootingHard, compute.RebootInput{Hard: true}
	} else {
		q.Input = compute.RebootInput{}
	}
	return a.accept(r, "servers:reboot", q)
}

func (a api) changePassword(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Change struct {
			Password string `json:"adminPass"`
		} `json:"changePassword"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	return a.accept(r, "os-admin-password", backend.Request{Op: compute.OpPassword, Action: "changePassword", TaskState: compute.TaskUpdatingPassword,
		Input: compute.PasswordInput{Password: in.Change.Password}})
}

// restore brings a soft-deleted server back. It was not counted while it was soft deleted, so there must be room for it again.
func (a api) restore(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "id", backend.Rule("os-deferred-delete:restore"))
	if err != nil {
		return nil, err
	}
	err = a.Accept(r, s, backend.Request{Op: compute.OpRestore, Action: "restore", TaskState: compute.TaskRestoring,
		Before: a.reserve(r.Context(), s, store.Usage{Instances: 1, Cores: int64(s.Flavor.VCPUs), RAM: s.Flavor.RAMMB}),
		Change: func(now *compute.Server) error {
			now.CountRestored(true)
			return nil
		}})
	if err != nil {
		return nil, err
	}
	return empty()
}

// reserve asks for more quota of a server's owner.
func (a api) reserve(ctx context.Context, s *compute.Server, more store.Usage) func(*db.Tx) error {
	return func(tx *db.Tx) error {
		_, err := a.Store.Reserve(ctx, tx, store.Want{Defaults: a.Quota, Project: s.ProjectID, User: s.UserID, Each: more})
		return err
	}
}

func (a api) lock(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Lock any `json:"lock"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	s, err := a.Server(r, "id", backend.Rule("os-lock-server:lock"))
	if err != nil {
		return nil, err
	}
	var reason *string
	if m, ok := in.Lock.(map[string]any); ok && backend.Minor(r) >= 73 {
		if text, ok := m["locked_reason"].(string); ok {
			reason = &text
		}
	}
	by := lockerOf(r, s)
	stays := func(s *compute.Server) bool { return s.Locked && by == "owner" }
	if stays(s) {
		return empty()
	}
	return a.record(r, s, "lock", func(s *compute.Server) error {
		if stays(s) {
			return nil
		}
		s.Locked, s.LockedBy = true, by
		if reason != nil {
			s.LockedReason = reason
		}
		return nil
	})
}

// lockerOf tells as whom a caller locks a server: those of its project are its owner, administrators among them, and others administrators. An owner's lock
// replaces none: what an administrator has locked stays so.
func lockerOf(r *httpapi.Request, s *compute.Server) string {
	if s.ProjectID == r.Caller.ProjectID {
		return "owner"
	}
	return "admin"
}

func (a api) unlock(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "id", backend.Rule("os-lock-server:unlock"))
	if err != nil {
		return nil, err
	}
	return a.record(r, s, "unlock", func(s *compute.Server) error {
		if s.LockedBy != "" && s.LockedBy != lockerOf(r, s) {
			if err := r.Authorize(backend.Rule("os-lock-server:unlock:unlock_override"), backend.Target(s.ProjectID, s.UserID)); err != nil {
				return err
			}
		}
		s.Locked, s.LockedBy, s.LockedReason = false, "", nil
		return nil
	})
}

// record changes the server at once and leaves an action that is finished, with the event of the API that did it.
func (a api) record(r *httpapi.Request, s *compute.Server, action string, change func(*compute.Server) error) (*httpapi.Reply, error) {
	if err := a.Accept(r, s, backend.Request{Op: action, Kind: action, Action: action, Finished: true, Event: "api_" + action, Change: change}); err != nil {
		return nil, err
	}
	return empty()
}

func (a api) resetState(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Reset struct {
			State string `json:"state"`
		} `json:"os-resetState"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	s, err := a.Server(r, "id", backend.Rule("os-admin-actions:reset_state"))
	if err != nil {
		return nil, err
	}
	if s.TaskState != "" {
		// A task state is an open operation: it is being carried out, or undone, by a conductor that is alive. Forgetting it would leave its effects behind.
		return nil, fault.New(fault.Conflict, "Cannot 'os-resetState' instance %s while it is in task_state %s", s.ID, s.TaskState).
			WithHint("The operation ends by itself, or delete the server: a delete takes over.")
	}
	open := false
	reset := backend.Request{Op: "resetState", Kind: "resetState", Action: "resetState", Finished: true, Change: func(s *compute.Server) error {
		s.VMState = in.Reset.State
		if open = s.OldFlavor != nil && s.VMState == compute.VMActive; s.VMState == compute.VMActive {
			s.Fault = nil
		}
		return nil
	}}
	err = a.DB().Write(r.Context(), func(tx *db.Tx) error {
		if err := a.AcceptTx(r, tx, s, reset); err != nil || !open {
			return err
		}
		// A resize that waited for its end can be neither confirmed nor reverted from here: the server keeps the new flavor, and what is left of the old guest goes.
		_, err := a.Operations.Accept(r.Context(), tx, operation.Spec{Kind: compute.OpConfirmResize, ObjectType: "server", Object: s.ID, Project: r.Caller.ProjectID,
			User: r.Caller.UserID, RequestID: r.RequestID})
		if held := (*operation.HeldError)(nil); errors.As(err, &held) {
			return nil // the next operation does it
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return empty()
}

// injectNetworkInfo makes the host apply its network again: the data plane is always made of the whole desired state.
func (a api) injectNetworkInfo(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "id", backend.Rule("os-admin-actions:inject_network_info"))
	if err != nil {
		return nil, err
	}
	if err := a.Check(r, s, compute.DoInjectNetwork); err != nil {
		return nil, err
	}
	if s.Host != "" {
		if err := a.syncNetwork(r, s); err != nil {
			return nil, err
		}
	}
	return empty()
}
