package rpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// UUID of a domain or secret, in binary.
type UUID [16]byte

// String gives the usual text form.
func (u UUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// Domain names a guest on the wire. ID is -1 for a domain that does not run.
type Domain struct {
	Name string
	UUID UUID
	ID   int32
}

// Secret names a secret on the wire.
type Secret struct {
	UUID      UUID
	UsageType int32
	UsageID   string
}

// Param is a named value; Value is int32, uint32, int64, uint64, float64, bool or string.
type Param struct {
	Name  string
	Value any
}

// opt is a string that may be absent; an empty one is sent as absent.
type opt string

// none is an optional value that is absent.
type none struct{}

// The types of a typed parameter.
const (
	paramInt = iota + 1
	paramUint
	paramLlong
	paramUllong
	paramDouble
	paramBool
	paramString
)

var errShort = errors.New("the message ends too early")

// encoder appends values in XDR. The types of put are those that the procedures use; another type is a defect and fails the call.
type encoder struct {
	b   []byte
	err error
}

func (e *encoder) u32(v uint32) { e.b = binary.BigEndian.AppendUint32(e.b, v) }
func (e *encoder) u64(v uint64) { e.b = binary.BigEndian.AppendUint64(e.b, v) }

func (e *encoder) fixed(p []byte) {
	e.b = append(e.b, p...)
	for len(e.b)%4 != 0 {
		e.b = append(e.b, 0)
	}
}

func (e *encoder) bytes(p []byte) { e.u32(uint32(len(p))); e.fixed(p) }

func (e *encoder) put(values ...any) {
	for _, v := range values {
		switch v := v.(type) {
		case int32:
			e.u32(uint32(v))
		case uint32:
			e.u32(v)
		case int64:
			e.u64(uint64(v))
		case uint64:
			e.u64(v)
		case bool:
			if v {
				e.u32(1)
			} else {
				e.u32(0)
			}
		case float64:
			e.u64(math.Float64bits(v))
		case string:
			e.bytes([]byte(v))
		case []byte:
			e.bytes(v)
		case opt:
			if v == "" {
				e.u32(0)
			} else {
				e.u32(1)
				e.bytes([]byte(v))
			}
		case none:
			e.u32(0)
		case UUID:
			e.fixed(v[:])
		case Domain:
			e.put(v.Name, v.UUID, v.ID)
		case Secret:
			e.put(v.UUID, v.UsageType, v.UsageID)
		case []string:
			e.u32(uint32(len(v)))
			for _, s := range v {
				e.put(s)
			}
		case []Domain:
			e.u32(uint32(len(v)))
			for _, d := range v {
				e.put(d)
			}
		case []Param:
			e.u32(uint32(len(v)))
			for _, p := range v {
				e.param(p)
			}
		default:
			e.err = fmt.Errorf("encode: no XDR form for %T", v)
		}
	}
}

func (e *encoder) param(p Param) {
	e.put(p.Name)
	switch p.Value.(type) {
	case int32:
		e.u32(paramInt)
	case uint32:
		e.u32(paramUint)
	case int64:
		e.u32(paramLlong)
	case uint64:
		e.u32(paramUllong)
	case float64:
		e.u32(paramDouble)
	case bool:
		e.u32(paramBool)
	case string:
		e.u32(paramString)
	default:
		e.err = fmt.Errorf("encode: parameter %s cannot be a %T", p.Name, p.Value)
		return
	}
	e.put(p.Value)
}

// decoder takes values off a message. After the first error it gives zero values; err tells. It never allocates more than the message is long,
// times a small factor.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || n < 0 || n > len(d.b) {
		if d.err == nil {
			d.err = errShort
		}
		return nil
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) u32() uint32 {
	if p := d.take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if p := d.take(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

// bytes takes a counted opaque field with its padding.
func (d *decoder) bytes() []byte {
	n := d.u32()
	if uint64(n) > uint64(len(d.b)) {
		d.fail(errShort)
		return nil
	}
	p := d.take(int(n))
	d.take((4 - int(n)%4) % 4)
	return p
}

func (d *decoder) string() string { return string(d.bytes()) }

// optional takes a string that may be absent.
func (d *decoder) optional() string {
	if d.u32() == 0 {
		return ""
	}
	return d.string()
}

// count takes the length of an array whose elements need at least size bytes each.
func (d *decoder) count(size int) int {
	n := d.u32()
	if uint64(n)*uint64(size) > uint64(len(d.b)) {
		d.fail(errShort)
		return 0
	}
	return int(n)
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

func (d *decoder) uuid() (u UUID)  { copy(u[:], d.take(16)); return u }
func (d *decoder) domain() Domain  { return Domain{d.string(), d.uuid(), int32(d.u32())} }
func (d *decoder) secret() Secret  { return Secret{d.uuid(), int32(d.u32()), d.string()} }
func (d *decoder) boolean() bool   { return d.u32() != 0 }
func (d *decoder) double() float64 { return math.Float64frombits(d.u64()) }

func (d *decoder) param() Param {
	p := Param{Name: d.string()}
	switch t := d.u32(); t {
	case paramInt:
		p.Value = int32(d.u32())
	case paramUint:
		p.Value = d.u32()
	case paramLlong:
		p.Value = int64(d.u64())
	case paramUllong:
		p.Value = d.u64()
	case paramDouble:
		p.Value = d.double()
	case paramBool:
		p.Value = d.boolean()
	case paramString:
		p.Value = d.string()
	default:
		d.fail(fmt.Errorf("parameter %q has the unknown type %d", p.Name, t))
	}
	return p
}

func (d *decoder) params() []Param {
	return list(d, 12, d.param)
}

// list takes an array whose elements need at least size bytes each.
func list[T any](d *decoder, size int, one func() T) []T {
	n := d.count(size)
	out := make([]T, 0, min(n, 1024))
	for range n {
		x := one()
		if d.err != nil {
			return nil
		}
		out = append(out, x)
	}
	return out
}

// get fills the targets in order.
func (d *decoder) get(targets ...any) error {
	for _, t := range targets {
		switch t := t.(type) {
		case *int32:
			*t = int32(d.u32())
		case *uint32:
			*t = d.u32()
		case *int64:
			*t = int64(d.u64())
		case *uint64:
			*t = d.u64()
		case *bool:
			*t = d.boolean()
		case *string:
			*t = d.string()
		case *opt:
			*t = opt(d.optional())
		case *[]byte:
			*t = append([]byte(nil), d.bytes()...)
		case *Domain:
			*t = d.domain()
		case *Secret:
			*t = d.secret()
		case *[]Param:
			*t = d.params()
		case *[]string:
			*t = list(d, 4, d.string)
		case *[]Domain:
			*t = list(d, 24, d.domain)
		case func(*decoder):
			t(d)
		default:
			d.fail(fmt.Errorf("decode: no XDR form for %T", t))
		}
	}
	return d.err
}
