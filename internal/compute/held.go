package compute

import (
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
