package rpc

import (
	"errors"
	"fmt"

	"kilonova/internal/fault"
)

// Code is libvirt's number of an error (virErrorNumber).
type Code int32

// The codes that callers tell apart.
const (
	InternalError        Code = 1
	NoSupport            Code = 3
	InvalidDomain        Code = 7
	InvalidArg           Code = 8
	OperationFailed      Code = 9
	XMLError             Code = 27
	DomainExists         Code = 28
	OperationDenied      Code = 29
	XMLDetail            Code = 35
	SystemError          Code = 38
	RPCError             Code = 39
	NoDomain             Code = 42
	NoNetwork            Code = 43
	AuthFailed           Code = 45
	OperationInvalid     Code = 55
	NoSecret             Code = 66
	ConfigUnsupported    Code = 67
	OperationTimeout     Code = 68
	NoDomainSnapshot     Code = 72
	ArgumentUnsupported  Code = 74
	OperationAborted     Code = 78
	NoDomainMetadata     Code = 80
	UnsafeMigration      Code = 81
	BlockCopyActive      Code = 83
	OperationUnsupported Code = 84
	AgentUnresponsive    Code = 86
	ResourceBusy         Code = 87
	AccessDenied         Code = 88
	CPUIncompatible      Code = 91
	XMLInvalidSchema     Code = 92
	AgentUnsynced        Code = 97
	DeviceMissing        Code = 99
	AgentCommandTimeout  Code = 112
	AgentCommandFailed   Code = 113
)

// Error is an error as libvirt reports it.
type Error struct {
	Code    Code
	Domain  int32 // the part of libvirt that failed (virErrorDomain)
	Level   int32
	Message string
	Proc    string // the procedure that was called
}

func (e *Error) Error() string {
	return fmt.Sprintf("libvirt %s: %s (code %d, from %d)", e.Proc, e.Message, e.Code, e.Domain)
}

// HasCode tells whether err came from libvirt with one of the codes.
func HasCode(err error, codes ...Code) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range codes {
		if e.Code == c {
			return true
		}
	}
	return false
}

// kindOf gives the kind and the public sentence of a code.
func kindOf(c Code) (fault.Kind, string) {
	switch c {
	case NoDomain, InvalidDomain:
		return fault.NotFound, "The hypervisor does not know this server."
	case NoDomainSnapshot, NoNetwork, NoSecret, NoDomainMetadata, DeviceMissing:
		return fault.NotFound, "The hypervisor does not know this object."
	case OperationInvalid:
		return fault.Conflict, "The server's state on the hypervisor does not allow this."
	case DomainExists, BlockCopyActive:
		return fault.Conflict, "Another action or object on the hypervisor is in the way."
	case OperationAborted:
		return fault.Conflict, "The action was aborted."
	case UnsafeMigration, CPUIncompatible:
		return fault.Conflict, "The hypervisor refuses to migrate the server there."
	case NoSupport, ConfigUnsupported, ArgumentUnsupported, OperationUnsupported:
		return fault.NotImplemented, "The hypervisor cannot do this."
	case InvalidArg, XMLError, XMLDetail, XMLInvalidSchema:
		return fault.Invalid, "The hypervisor does not accept this configuration."
	case OperationDenied, AuthFailed, AccessDenied:
		return fault.Forbidden, "The hypervisor denies access."
	case AgentUnresponsive, AgentUnsynced, AgentCommandTimeout:
		return fault.Unavailable, "The guest agent does not answer."
	case AgentCommandFailed:
		return fault.Conflict, "The guest agent could not do it."
	case OperationTimeout, ResourceBusy, RPCError:
		return fault.Unavailable, "The hypervisor is busy."
	}
	return fault.Internal, "The hypervisor failed to do it."
}

// wrap gives e its kind.
func wrap(e *Error) error {
	k, text := kindOf(e.Code)
	return fault.Wrap(e, k, "%s", text)
}

// lost says that a connection ended.
func lost(cause error) error {
	return fault.Wrap(cause, fault.Unavailable, "The hypervisor's daemon does not answer.")
}

// decodeError reads the error that a reply carries in place of a result.
func decodeError(body []byte, proc string) error {
	d := decoder{b: body}
	e := &Error{Code: Code(d.u32()), Domain: int32(d.u32()), Message: d.optional(), Level: int32(d.u32()), Proc: proc}
	if d.err != nil {
		return fmt.Errorf("libvirt %s: an error that cannot be read: %w", proc, d.err)
	}
	return wrap(e)
}
