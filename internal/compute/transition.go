package compute

import (
	"slices"
	"strings"

	"kilonova/internal/fault"
)

// Transition says when an operation on a server is allowed. It is data: the table Transitions has one line for each operation.
type Transition struct {
	Name       string   // in the sentence of the refusal
	VMStates   []string // nil: any
	TaskStates []string // "" is none; nil: not checked
	Locked     bool     // refused for a locked server unless the caller is an admin
	Host       bool     // needs a host
	Launched   bool     // the server must have been active once
}

// The names of the lines of Transitions that are not operation kinds.
const (
	DoDelete         = "delete"
	DoForceDelete    = "forceDelete"
	DoRebootSoft     = "reboot-soft"
	DoRebootHard     = "reboot-hard"
	DoMigrate        = "migrate"
	DoForceComplete  = "force-complete"
	DoAbort          = "abort"
	DoSwapVolume     = "swap-volume"
	DoAttachShelved  = "attach-volume-shelved" // from 2.20
	DoAttachShare    = "attach-share"
	DoDetachShare    = "detach-share"
	DoUpdateMetadata = "update-metadata"
	DoDeleteMetadata = "delete-metadata"
	DoTags           = "tags"
	DoConsole        = "console"
	DoConsoleOutput  = "console-output"
	DoDiagnostics    = "diagnostics"
	DoInjectNetwork  = "inject-network"
	DoFixedIP        = "fixed-ip"
)

// Sets of states that several lines have.
var (
	idle      = []string{""}
	onOff     = []string{VMActive, VMStopped}
	resting   = []string{VMActive, VMStopped, VMPaused, VMSuspended}
	plugNIC   = []string{VMActive, VMPaused, VMStopped}
	plugDisk  = []string{VMActive, VMPaused, VMStopped, VMResized, VMSoftDeleted}
	plugDisk2 = []string{VMActive, VMPaused, VMStopped, VMResized, VMSoftDeleted, VMShelved, VMShelvedOffloaded}
)

// Transitions is the table "which operation is allowed when" of the compute API.
func Transitions() map[string]Transition {
	return map[string]Transition{
		DoDelete:      {Name: "delete", Locked: true},
		OpSoftDelete:  {Name: "delete", Locked: true, Launched: true},
		DoForceDelete: {Name: "forceDelete", Locked: true},
		OpRestore:     {Name: "restore", VMStates: []string{VMSoftDeleted}, TaskStates: idle, Locked: true, Launched: true},
		OpStart:       {Name: "start", VMStates: []string{VMStopped}, TaskStates: idle, Locked: true, Host: true, Launched: true},
		OpStop:        {Name: "stop", VMStates: []string{VMActive, VMError}, TaskStates: idle, Locked: true, Host: true, Launched: true},
		DoRebootSoft:  {Name: "reboot", VMStates: []string{VMActive}, TaskStates: idle, Locked: true, Launched: true},
		DoRebootHard: {Name: "reboot", VMStates: []string{VMActive, VMStopped, VMPaused, VMSuspended, VMError}, TaskStates: []string{"", TaskRebooting, TaskRebootPending,
			TaskRebootStarted, TaskRebootingHard, TaskResuming, TaskUnpausing, TaskPausing, TaskSuspending}, Locked: true, Launched: true},
		OpRebuild:       {Name: "rebuild", VMStates: []string{VMActive, VMStopped, VMError}, TaskStates: idle, Locked: true, Launched: true},
		OpResize:        {Name: "resize", VMStates: onOff, TaskStates: idle, Locked: true, Host: true, Launched: true},
		DoMigrate:       {Name: "migrate", VMStates: onOff, TaskStates: idle, Locked: true, Host: true, Launched: true},
		OpConfirmResize: {Name: "confirmResize", VMStates: []string{VMResized}, TaskStates: idle, Locked: true, Launched: true},
		OpRevertResize:  {Name: "revertResize", VMStates: []string{VMResized}, TaskStates: idle, Locked: true, Launched: true},
		OpPause:         {Name: "pause", VMStates: []string{VMActive}, TaskStates: idle, Locked: true, Launched: true},
		OpUnpause:       {Name: "unpause", VMStates: []string{VMPaused}, TaskStates: idle, Locked: true, Launched: true},
		OpSuspend:       {Name: "suspend", VMStates: []string{VMActive}, TaskStates: idle, Locked: true, Launched: true},
		OpResume:        {Name: "resume", VMStates: []string{VMSuspended}, TaskStates: idle, Locked: true, Launched: true},
		OpRescue:        {Name: "rescue", VMStates: []string{VMActive, VMStopped, VMError}, TaskStates: idle, Locked: true, Launched: true},
		OpUnrescue:      {Name: "unrescue", VMStates: []string{VMRescued}, TaskStates: idle, Locked: true, Launched: true},
		OpShelve:        {Name: "shelve", VMStates: resting, TaskStates: idle, Locked: true, Launched: true},
		OpShelveOffload: {Name: "shelveOffload", VMStates: []string{VMShelved}, TaskStates: idle, Locked: true, Launched: true},
		OpUnshelve:      {Name: "unshelve", VMStates: []string{VMShelved, VMShelvedOffloaded}, TaskStates: idle, Locked: true, Launched: true},
		OpPassword:      {Name: "changePassword", VMStates: []string{VMActive}, TaskStates: idle, Locked: true, Launched: true},
		OpSnapshot:      {Name: "createImage", VMStates: resting, TaskStates: idle, Launched: true},
		OpBackup:        {Name: "createBackup", VMStates: resting, TaskStates: idle, Launched: true},
		OpCrashDump: {Name: "trigger_crash_dump", VMStates: []string{VMActive, VMPaused, VMRescued, VMResized, VMError}, TaskStates: idle, Locked: true, Host: true,
			Launched: true},
		OpLiveMigrate:    {Name: "os-migrateLive", VMStates: []string{VMActive, VMPaused}, TaskStates: idle, Locked: true, Launched: true},
		DoForceComplete:  {Name: "force_complete", VMStates: []string{VMActive}, TaskStates: []string{TaskMigrating}, Locked: true, Launched: true},
		DoAbort:          {Name: "abort live migration", TaskStates: []string{TaskMigrating}, Locked: true, Launched: true},
		OpEvacuate:       {Name: "evacuate", VMStates: []string{VMActive, VMStopped, VMError}, Launched: true},
		OpAttachVolume:   {Name: "attach_volume", VMStates: plugDisk, TaskStates: idle, Locked: true, Launched: true},
		DoAttachShelved:  {Name: "attach_volume", VMStates: plugDisk2, TaskStates: idle, Locked: true, Launched: true},
		OpDetachVolume:   {Name: "detach_volume", VMStates: plugDisk2, TaskStates: idle, Locked: true, Launched: true},
		DoSwapVolume:     {Name: "swap_volume", VMStates: []string{VMActive, VMPaused, VMResized}, TaskStates: idle, Locked: true, Launched: true},
		OpAttachNIC:      {Name: "attach_interface", VMStates: plugNIC, TaskStates: idle, Locked: true, Launched: true},
		OpDetachNIC:      {Name: "detach_interface", VMStates: plugNIC, TaskStates: idle, Locked: true, Launched: true},
		DoAttachShare:    {Name: "create share", VMStates: []string{VMStopped}, Host: true},
		DoDetachShare:    {Name: "delete share", VMStates: []string{VMStopped, VMError}, Host: true},
		DoUpdateMetadata: {Name: "update metadata", VMStates: resting, Locked: true, Launched: true},
		DoDeleteMetadata: {Name: "delete metadata", VMStates: resting, Locked: true, Launched: true},
		DoTags:           {Name: "update tags", VMStates: resting},
		DoConsole:        {Name: "get_vnc_console", Host: true},
		DoConsoleOutput:  {Name: "get_console_output", Host: true},
		DoDiagnostics:    {Name: "get_diagnostics", Host: true},
		DoInjectNetwork:  {Name: "inject_network_info", Locked: true},
		DoFixedIP:        {Name: "add_fixed_ip", Locked: true},
	}
}

// consoleless are the task states in which no console is given: the guest is leaving its host.
var consoleless = []string{TaskDeleting, TaskMigrating}

// Check tells whether the operation may be accepted for the server as it is. The refusals are fault.Conflict with the sentences that clients match on.
func (t Transition) Check(s *Server, admin bool) error {
	if t.Locked && s.Locked && !admin {
		return fault.New(fault.Conflict, "Instance %s is locked", s.ID)
	}
	if t.VMStates != nil && !slices.Contains(t.VMStates, s.VMState) {
		return t.refuse(s, "vm_state", s.VMState)
	}
	if t.TaskStates != nil && !slices.Contains(t.TaskStates, s.TaskState) {
		return t.refuse(s, "task_state", s.TaskState)
	}
	if t.Name == "get_vnc_console" && slices.Contains(consoleless, s.TaskState) {
		return t.refuse(s, "task_state", s.TaskState)
	}
	if t.Launched && s.Launched.IsZero() {
		return fault.New(fault.Conflict, "Instance %s is in an invalid state for '%s'", s.ID, t.Name)
	}
	if t.Host && s.Host == "" {
		return fault.New(fault.Conflict, "Instance %s is not ready", s.ID)
	}
	return nil
}

func (t Transition) refuse(s *Server, attribute, value string) error {
	if value == "" {
		value = "None"
	}
	return fault.New(fault.Conflict, "Cannot '%s' instance %s while it is in %s %s", t.Name, s.ID, attribute, value)
}

// Refuse is the refusal of an operation because another one holds the server with a task state; cause is what says so.
func (t Transition) Refuse(s *Server, taskState string, cause error) error {
	if taskState == "" {
		return fault.Wrap(cause, fault.Conflict, "Cannot '%s' instance %s while another operation is under way", t.Name, s.ID)
	}
	return fault.Wrap(cause, fault.Conflict, "Cannot '%s' instance %s while it is in task_state %s", t.Name, s.ID, taskState)
}

// statusLine is one line of the table of API statuses: the status of a VM state, by task states; the line without task states is the default.
type statusLine struct {
	vm     string
	tasks  []string
	status string
}

var (
	resizing   = []string{TaskResizePrep, TaskResizeMigrating, TaskResizeMigrated, TaskResizeFinish}
	rebuilding = []string{TaskRebuilding, TaskRebuildBDM, TaskRebuildSpawning}
)

var statusLines = []statusLine{
	{VMActive, []string{TaskRebooting, TaskRebootPending, TaskRebootStarted}, "REBOOT"},
	{VMActive, []string{TaskRebootingHard, TaskRebootPendingHard, TaskRebootStartedHard}, "HARD_REBOOT"},
	{VMActive, []string{TaskUpdatingPassword}, "PASSWORD"},
	{VMActive, rebuilding, "REBUILD"},
	{VMActive, []string{TaskMigrating}, "MIGRATING"},
	{VMActive, resizing, "RESIZE"},
	{VMActive, nil, "ACTIVE"},
	{VMBuilding, nil, "BUILD"},
	{VMStopped, resizing, "RESIZE"},
	{VMStopped, rebuilding, "REBUILD"},
	{VMStopped, nil, "SHUTOFF"},
	{VMResized, []string{TaskResizeReverting}, "REVERT_RESIZE"},
	{VMResized, nil, "VERIFY_RESIZE"},
	{VMPaused, []string{TaskMigrating}, "MIGRATING"},
	{VMPaused, nil, "PAUSED"},
	{VMSuspended, nil, "SUSPENDED"},
	{VMRescued, nil, "RESCUE"},
	{VMError, rebuilding, "REBUILD"},
	{VMError, nil, "ERROR"},
	{VMDeleted, nil, "DELETED"},
	{VMSoftDeleted, nil, "SOFT_DELETED"},
	{VMShelved, nil, "SHELVED"},
	{VMShelvedOffloaded, nil, "SHELVED_OFFLOADED"},
}

// Status is the API status of a server's VM state and task state.
func Status(vmState, taskState string) string {
	for _, l := range statusLines {
		if l.vm == vmState && (l.tasks == nil || slices.Contains(l.tasks, taskState)) {
			return l.status
		}
	}
	return "UNKNOWN"
}

// StatusOf is the API status of a server; deleted records are DELETED.
func StatusOf(s *Server) string {
	if !s.Deleted.IsZero() {
		return "DELETED"
	}
	return Status(s.VMState, s.TaskState)
}

// StatusFilter is the inverse: the VM states and task states whose status has one of the names, without regard to case. tasks is nil when a matching
// line is the default of its VM state: then task states are not compared. known is false when no line has any of the names.
func StatusFilter(names ...string) (vms, tasks []string, known bool) {
	byDefault := false
	for _, l := range statusLines {
		if !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, l.status) }) {
			continue
		}
		known = true
		if !slices.Contains(vms, l.vm) {
			vms = append(vms, l.vm)
		}
		if l.tasks == nil {
			byDefault = true
		}
		for _, t := range l.tasks {
			if !slices.Contains(tasks, t) {
				tasks = append(tasks, t)
			}
		}
	}
	if byDefault {
		tasks = nil
	}
	return vms, tasks, known
}
