package flow

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/virt"
	"kilonova/internal/fault"
)

// Keys of Server.System; compute.SysMigration and compute.SysClaim are others.
const (
	SysOldVMState    = "old_vm_state"     // while resized: what it was before
	SysSoftDeletedAt = "soft_deleted_at"  // microseconds
	SysShelvedImage  = "shelved_image_id" // while shelved
	SysShelvedAt     = "shelved_at"       // microseconds
	SysResizedAt     = "resized_at"       // microseconds; the confirm window counts from here
)

// SpecOf gives what a driver needs to make the server's guest.
func SpecOf(s *compute.Server) virt.Spec { return specWith(s, s.Flavor) }

func specWith(s *compute.Server, fl compute.Flavor) virt.Spec {
	sp := virt.Spec{ID: s.ID, Name: fmt.Sprintf("instance-%08x", s.Number), Display: s.Name, Hostname: s.Hostname, ProjectID: s.ProjectID, UserID: s.UserID,
		VCPUs: fl.VCPUs, MemoryMB: fl.RAMMB, RootGB: fl.RootGB, EphemeralGB: fl.EphemeralGB, SwapMB: fl.SwapMB, FlavorName: fl.Name,
		ExtraSpecs: fl.ExtraSpecs, ImageID: s.ImageID, ImageProps: s.ImageProps, VIFs: s.VIFs, Claim: s.Claim()}
	if s.ImageID == "" {
		sp.RootGB = 0
	}
	return sp
}

// grace is how long the guest may take to shut down: the image's os_shutdown_timeout (seconds) or the configured time.
func (f *flows) grace(s *compute.Server) time.Duration {
	if v, err := strconv.Atoi(s.ImageProps["os_shutdown_timeout"]); err == nil && v >= 0 {
		return time.Duration(v) * time.Second
	}
	return f.StopGrace
}

// faultOf makes a server's fault of an error.
func faultOf(err error, host string) *compute.Fault {
	code := fault.KindOf(err).Status()
	text := []rune(fault.PublicText(err))
	if len(text) > 255 {
		text = append(text[:254], '…')
	}
	details := err.Error()
	var e *fault.Error
	if errors.As(err, &e) && e.Cause != nil {
		details = e.Cause.Error()
	}
	if details == string(text) {
		details = ""
	}
	return &compute.Fault{Code: cmp.Or(code, 500), Message: string(text), Details: details, Created: clock.Now(), Host: host}
}

// setSystem changes keys of Server.System; "" removes one.
func setSystem(s *compute.Server, kv map[string]string) {
	next := maps.Clone(s.System)
	if next == nil {
		next = map[string]string{}
	}
	for k, v := range kv {
		if v == "" {
			delete(next, k)
		} else {
			next[k] = v
		}
	}
	s.System = next
}

func nowText() string { return strconv.FormatInt(clock.Micros(clock.Now()), 10) }

// off tells whether the server's guest is shut off.
func off(s *compute.Server) bool {
	return s.VMState == compute.VMStopped || s.PowerState == compute.PowerShutdown || s.PowerState == compute.PowerCrashed
}
