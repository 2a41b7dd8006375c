package compute

import (
	"encoding/json"
	"fmt"
	"maps"
)

// sysHeld is the key of Server.System that holds quota asked for in advance.
const sysHeld = "held_quota"

// HeldQuota gives the virtual CPUs and the memory in MB that the server counts for beyond its flavor: what an accepted resize, or its revert, will need.
func (s *Server) HeldQuota() (cores, ramMB int64) {
	if t, ok := s.System[sysHeld]; ok {
		_, _ = fmt.Sscan(t, &cores, &ramMB) // HoldQuota wrote it
	}
	return cores, ramMB
}

// HoldQuota makes the server count for more than its flavor; zeros let go of it.
func (s *Server) HoldQuota(cores, ramMB int64) {
	_, held := s.System[sysHeld]
	if cores == 0 && ramMB == 0 {
		if held {
			s.System = maps.Clone(s.System)
			delete(s.System, sysHeld)
		}
		return
	}
	s.System = maps.Clone(s.System)
	if s.System == nil {
		s.System = map[string]string{}
	}
	s.System[sysHeld] = fmt.Sprint(cores, ramMB)
}

// sysRestoring is the key of Server.System that a soft-deleted server has while it is brought back.
const sysRestoring = "restoring"

// Counts tells whether the server counts against quotas. What is deleted does not, and what is soft deleted only from the moment its restoring was accepted.
func (s *Server) Counts() bool {
	return s.Deleted.IsZero() && (s.VMState != VMSoftDeleted || s.System[sysRestoring] != "")
}

// CountRestored makes a soft-deleted server count again, or no longer when its restoring has ended.
func (s *Server) CountRestored(yes bool) {
	if was := s.System[sysRestoring] != ""; was == yes {
		return
	}
	s.System = maps.Clone(s.System)
	if s.System == nil {
		s.System = map[string]string{}
	}
	if delete(s.System, sysRestoring); yes {
		s.System[sysRestoring] = "1"
	}
}

// SysBootRoles is the key of Server.System that holds the roles of who asked for the server, with commas between them: services that give vendor data are told.
const SysBootRoles = "boot_roles"

// SysMigration is the key of Server.System that holds, while a server is resized, the uuid of its migration record.
const SysMigration = "migration"

// SysClaim is the key of Server.System that holds what the server has of its host by name.
const SysClaim = "claim"

// Claim gives what the server holds of its host by name; nil: nothing.
func (s *Server) Claim() *Claim {
	text := s.System[SysClaim]
	if text == "" {
		return nil
	}
	var c Claim
	if json.Unmarshal([]byte(text), &c) != nil {
		return nil // SetClaim wrote it
	}
	return &c
}

// SetClaim writes what the server holds of its host by name; nil: nothing.
func (s *Server) SetClaim(c *Claim) {
	text := ""
	if c != nil {
		b, _ := json.Marshal(c) // plain data: it can be encoded
		text = string(b)
	}
	if s.System[SysClaim] == text {
		return
	}
	s.System = maps.Clone(s.System)
	if s.System == nil {
		s.System = map[string]string{}
	}
	if text == "" {
		delete(s.System, SysClaim)
		return
	}
	s.System[SysClaim] = text
}
