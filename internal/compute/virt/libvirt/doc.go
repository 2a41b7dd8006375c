// Package libvirt drives QEMU and KVM guests through a libvirtd (qemu:///system), over its own RPC client.
//
// The truth about a guest is what libvirt has defined and what lies beside its disks in InstancesDir/<server id>/; the driver remembers nothing
// that a restart could lose. A domain's UUID is the server's id, and an element of our own namespace in its metadata marks it as ours: domains
// of others are never listed and never touched.
//
//	disk           root disk, a qcow2 overlay on the image in the agent's cache
//	disk.eph0      ephemeral disk, raw, ext4
//	disk.swap      swap disk, raw
//	disk.config    config drive, a copy of the file that the spec names
//	disk.rescue    root disk of the rescue system while the guest is rescued
//	nvram.fd       UEFI variables
//	console.log    what the guest wrote to its first serial port (virtlogd turns it over)
//	resize/        the disks as they were before a resize that is not confirmed
//
// Definitions are built anew from the spec whenever a guest starts. Nothing here opens an image before its header was looked at, and the format
// of every file is named, never probed.
//
// Guests and daemons survive the process that uses this package. Package daemon starts a libvirtd on machines whose init system has none.
package libvirt
