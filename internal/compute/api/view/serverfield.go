package view

import (
	"fmt"
	"slices"
	"strings"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
)

// The values of the server document's fields.

func putImage(b []byte, o *ServerOptions, s *compute.Server) []byte {
	if s.ImageID == "" {
		return append(b, `""`...)
	}
	b = append(b, `{"id":`...)
	b = appendString(b, s.ImageID)
	b = append(b, `,"links":`...)
	b = o.Links.appendBookmark(b, "images", s.ImageID)
	return append(b, '}')
}

func putImageWithProperties(b []byte, o *ServerOptions, s *compute.Server) []byte {
	b = putImage(b, o, s)
	if s.ImageID == "" {
		return b
	}
	known := make(map[string]string, len(s.ImageProps))
	for k, v := range s.ImageProps {
		if knownProperty(k) {
			known[k] = v
		}
	}
	b = append(b[:len(b)-1], `,"properties":`...)
	b = appendMap(b, known)
	return append(b, '}')
}

// knownProperty tells whether an image's property is one of those that say how its servers run, of which the reference says that they are shown. Others
// are the owner's.
func knownProperty(name string) bool {
	switch name {
	case "architecture", "auto_disk_config", "bdm_v2", "bittorrent", "block_device_mapping", "cache_in_nova", "hypervisor_type", "hypervisor_version_requires", "ipxe_boot", "mappings",
		"owner_id", "root_device_name", "traits_required", "vm_mode", "vmware_disktype", "vmware_image_version", "vmware_linked_clone", "vmware_ostype", "xenapi_device_id",
		"xenapi_image_compression_level", "xenapi_skip_agent_inject_files_at_boot", "xenapi_skip_agent_inject_ssh", "xenapi_use_agent":
		return true
	}
	return strings.HasPrefix(name, "hw_") || strings.HasPrefix(name, "os_") || strings.HasPrefix(name, "img_")
}

func putFlavorLink(b []byte, o *ServerOptions, s *compute.Server) []byte {
	b = append(b, `{"id":`...)
	b = appendString(b, s.Flavor.FlavorID)
	b = append(b, `,"links":`...)
	b = o.Links.appendBookmark(b, "flavors", s.Flavor.FlavorID)
	return append(b, '}')
}

func putFlavor(b []byte, o *ServerOptions, s *compute.Server) []byte {
	f := &s.Flavor
	b = append(b, `{"vcpus":`...)
	b = appendInt(b, int64(f.VCPUs))
	b = append(b, `,"ram":`...)
	b = appendInt(b, f.RAMMB)
	b = append(b, `,"disk":`...)
	b = appendInt(b, f.RootGB)
	b = append(b, `,"ephemeral":`...)
	b = appendInt(b, f.EphemeralGB)
	b = append(b, `,"swap":`...)
	b = appendInt(b, f.SwapMB)
	b = append(b, `,"original_name":`...)
	b = appendString(b, f.Name)
	if o.ExtraSpecs {
		b = append(b, `,"extra_specs":`...)
		b = appendMap(b, f.ExtraSpecs)
	}
	return append(b, '}')
}

func hasProgress(_ *ServerOptions, s *compute.Server) bool {
	switch compute.StatusOf(s) {
	case "ACTIVE", "BUILD", "REBUILD", "RESIZE", "VERIFY_RESIZE", "MIGRATING":
		return true
	}
	return false
}

func hasFault(_ *ServerOptions, s *compute.Server) bool {
	if s.Fault == nil {
		return false
	}
	st := compute.StatusOf(s)
	return st == "ERROR" || st == "DELETED"
}

func putFault(b []byte, o *ServerOptions, s *compute.Server) []byte {
	b = append(b, `{"code":`...)
	b = appendInt(b, int64(s.Fault.Code))
	b = append(b, `,"created":`...)
	b = appendTime(b, s.Fault.Created, clock.LayoutZ)
	b = append(b, `,"message":`...)
	b = appendString(b, s.Fault.Message)
	if s.Fault.Details != "" && (o.Admin || s.Fault.Code != 500) {
		b = append(b, `,"details":`...)
		b = appendString(b, s.Fault.Details)
	}
	return append(b, '}')
}

func putKeyName(b []byte, _ *ServerOptions, s *compute.Server) []byte { return appendOr(b, s.KeyName) }

func putConfigDrive(b []byte, _ *ServerOptions, s *compute.Server) []byte {
	if s.ConfigDrive {
		return append(b, `"True"`...)
	}
	return append(b, `""`...)
}

func putZone(b []byte, _ *ServerOptions, s *compute.Server) []byte {
	if s.VMState == compute.VMShelvedOffloaded {
		return append(b, `""`...)
	}
	return appendString(b, s.AvailabilityZone)
}

func putHost(b []byte, _ *ServerOptions, s *compute.Server) []byte { return appendOr(b, s.Host) }

func putNode(b []byte, _ *ServerOptions, s *compute.Server) []byte { return appendOr(b, s.Node) }

// putInstanceName writes the name of the server's guest on its host.
func putInstanceName(b []byte, _ *ServerOptions, s *compute.Server) []byte {
	const hex = "0123456789abcdef"
	b = append(b, `"instance-`...)
	n := s.Number
	if n >= 1<<32 {
		return append(b, fmt.Sprintf("%08x\"", n)...)
	}
	for shift := 28; shift >= 0; shift -= 4 {
		b = append(b, hex[n>>shift&15])
	}
	return append(b, '"')
}

func putPowerState(b []byte, _ *ServerOptions, s *compute.Server) []byte {
	return appendInt(b, int64(s.PowerState))
}

func putTaskState(b []byte, _ *ServerOptions, s *compute.Server) []byte {
	return appendOr(b, s.TaskState)
}

func putVMState(b []byte, _ *ServerOptions, s *compute.Server) []byte {
	return appendString(b, s.VMState)
}

func putLaunched(b []byte, _ *ServerOptions, s *compute.Server) []byte {
	return appendTime(b, s.Launched, clock.LayoutMicro)
}

func putTerminated(b []byte, _ *ServerOptions, s *compute.Server) []byte {
	return appendTime(b, s.Terminated, clock.LayoutMicro)
}

func putVolumes(b []byte, o *ServerOptions, s *compute.Server) []byte {
	b = append(b, '[')
	first := true
	for i := range s.BlockDevices {
		d := &s.BlockDevices[i]
		if d.VolumeID == "" {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, `{"id":`...)
		b = appendString(b, d.VolumeID)
		if o.Minor >= 3 {
			b = append(b, `,"delete_on_termination":`...)
			b = append(b, map[bool]string{true: "true", false: "false"}[d.DeleteOnTermination]...)
		}
		b = append(b, '}')
	}
	return append(b, ']')
}

// GroupNames gives the names of the security groups of a server: those of its ports, or those asked for while it has none.
func GroupNames(s *compute.Server) []string {
	if len(s.VIFs) == 1 {
		return s.VIFs[0].SecurityGroups
	}
	var names []string
	for i := range s.VIFs {
		v := &s.VIFs[i]
		for _, g := range v.SecurityGroups {
			if !slices.Contains(names, g) {
				names = append(names, g)
			}
		}
	}
	if len(s.VIFs) == 0 && s.VMState == compute.VMBuilding {
		return s.SecurityGroups
	}
	return names
}

func hasGroups(_ *ServerOptions, s *compute.Server) bool { return len(GroupNames(s)) > 0 }

func putGroups(b []byte, _ *ServerOptions, s *compute.Server) []byte {
	b = append(b, '[')
	for i, g := range GroupNames(s) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"name":`...)
		b = appendString(b, g)
		b = append(b, '}')
	}
	return append(b, ']')
}

func putHostname(b []byte, _ *ServerOptions, s *compute.Server) []byte {
	return appendString(b, s.Hostname)
}

func putKernel(b []byte, _ *ServerOptions, s *compute.Server) []byte {
	return appendString(b, s.KernelID)
}

func putLaunchIndex(b []byte, _ *ServerOptions, s *compute.Server) []byte {
	return appendInt(b, int64(s.LaunchIndex))
}

func putRamdisk(b []byte, _ *ServerOptions, s *compute.Server) []byte {
	return appendString(b, s.RamdiskID)
}

func putReservation(b []byte, _ *ServerOptions, s *compute.Server) []byte {
	return appendOr(b, s.ReservationID)
}

func putRootDevice(b []byte, _ *ServerOptions, s *compute.Server) []byte {
	return appendOr(b, s.RootDevice)
}

func putUserData(b []byte, _ *ServerOptions, s *compute.Server) []byte {
	return appendOr(b, s.UserData)
}

func showsHostStatus(o *ServerOptions, s *compute.Server) bool {
	switch o.HostStatus {
	case FullHostStatus:
		return true
	case UnknownHostStatus:
		return o.StatusOf(s.Host) == "UNKNOWN"
	}
	return false
}

func putHostStatus(b []byte, o *ServerOptions, s *compute.Server) []byte {
	if s.Host == "" {
		return append(b, `""`...)
	}
	return appendString(b, o.StatusOf(s.Host))
}

func putDescription(b []byte, _ *ServerOptions, s *compute.Server) []byte {
	return appendPointer(b, s.Description)
}

func appendPointer(b []byte, s *string) []byte {
	if s == nil {
		return append(b, "null"...)
	}
	return appendString(b, *s)
}

func putCerts(b []byte, _ *ServerOptions, s *compute.Server) []byte {
	if s.TrustedCerts == nil {
		return append(b, "null"...)
	}
	return appendList(b, s.TrustedCerts)
}

func putServerGroups(b []byte, _ *ServerOptions, s *compute.Server) []byte {
	if s.GroupID == "" {
		return append(b, "[]"...)
	}
	return appendList(b, []string{s.GroupID})
}

func putLockedReason(b []byte, _ *ServerOptions, s *compute.Server) []byte {
	return appendPointer(b, s.LockedReason)
}

func putPinnedZone(b []byte, _ *ServerOptions, s *compute.Server) []byte {
	return appendPointer(b, s.PinnedZone)
}

func putHints(b []byte, _ *ServerOptions, s *compute.Server) []byte {
	if s.Hints == nil {
		return append(b, "{}"...)
	}
	return appendAny(b, s.Hints)
}

func putAddresses(b []byte, _ *ServerOptions, s *compute.Server) []byte {
	return appendAddresses(b, s, true)
}
