// Package rpc speaks libvirt's remote protocol: program 0x20008086 in XDR over a unix socket or TCP, without libvirt's C library.
//
// Client is the whole of it for callers: a method for each procedure, and Subscribe for events. What it promises:
//
//   - A call fails when its connection does; nothing waits for a daemon that is gone. Such an error is fault.Unavailable, and the outcome of
//     the call is unknown: look, do not repeat.
//   - The next call after a lost connection dials again. Subscriptions register again by themselves and tell with a Resync event that
//     changes may have been missed.
//   - A subscriber that does not read holds up nobody. When too much has piled up for it, the pile is replaced by one Resync event.
//   - Keepalive runs apart from reading and writing; a daemon that is silent for too long is treated as dead.
//   - Errors of libvirt are *Error inside a fault.Error of the fitting kind.
//
// It does not do TLS, SASL or polkit: the agent runs as root beside its hypervisor, and libvirtd lets root in on the unix socket. The numbers
// and layouts are those of libvirt's published protocol definition (remote_protocol.x).
package rpc
