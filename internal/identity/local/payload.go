package local

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"kilonova/internal/clock"
)

// The authentication methods in the order of their bits.
var methodBits = [...]string{"password", "token", "application_credential", "totp"}

// What a token is for.
const (
	kindUnscoped = iota
	kindProject
	kindDomain
	kindSystem
)

const payloadVersion = 2

// payload is what a token carries, sealed. Everything else is looked up when the token is verified.
type payload struct {
	_msgpack struct{} `msgpack:",as_array"`

	Version         uint8
	Methods         uint8
	Kind            uint8
	User, Scope     []byte // packed ids
	AppCred, Trust  []byte // packed ids, empty for none
	Epoch           int64  // of the user
	ScopeEpoch      int64  // of the project or domain
	TrusteeEpoch    int64  // of the trustee, when Trust is set
	Issued, Expires int64  // microseconds since 1970
	Audits          [][]byte
}

// packID makes an id short: 16 bytes when it is a UUID without dashes, else a zero byte and the text.
func packID(id string) []byte {
	if b, err := hex.DecodeString(id); err == nil && len(b) == 16 && hex.EncodeToString(b) == id {
		return append([]byte{1}, b...)
	}
	if id == "" {
		return nil
	}
	return append([]byte{0}, id...)
}

func unpackID(b []byte) string {
	switch {
	case len(b) == 0:
		return ""
	case b[0] == 1:
		return hex.EncodeToString(b[1:])
	}
	return string(b[1:])
}

func methodMask(methods []string) uint8 {
	var m uint8
	for i, name := range methodBits {
		if slices.Contains(methods, name) {
			m |= 1 << i
		}
	}
	return m
}

func methodNames(mask uint8) []string {
	var out []string
	for i, name := range methodBits {
		if mask&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return out
}

// newAudit is a random audit id.
func newAudit() []byte {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // crypto/rand.Read never fails
	return b
}

func auditText(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (p *payload) audits() []string {
	out := make([]string, len(p.Audits))
	for i, a := range p.Audits {
		out[i] = auditText(a)
	}
	return out
}

func (p *payload) issued() time.Time  { return clock.FromMicros(p.Issued) }
func (p *payload) expires() time.Time { return clock.FromMicros(p.Expires) }

// seal makes the token.
func (s *Service) seal(p *payload) (string, error) {
	p.Version = payloadVersion
	b, err := msgpack.Marshal(p)
	if err != nil {
		return "", fmt.Errorf("encode token: %w", err)
	}
	return s.keys.Seal(b)
}

var errMalformed = errors.New("the token is malformed or made with another key")

// unseal reads a token; it says nothing of whether the token still holds.
func (s *Service) unseal(token string) (*payload, error) {
	if len(token) < 64 || len(token) > 2048 {
		return nil, errMalformed
	}
	b := s.keys.Open(token)
	if b == nil {
		return nil, errMalformed
	}
	var p payload
	if err := msgpack.Unmarshal(b, &p); err != nil || p.Version != payloadVersion || len(p.Audits) == 0 {
		return nil, errMalformed
	}
	return &p, nil
}

// RotateKeys rotates the token keys and keeps at most keep of them (Keystone's max_active_keys; 3 when 0). Tokens of a dropped key become
// invalid, so rotations should be further apart than TokenTTL divided by keep-2.
func (s *Service) RotateKeys(_ context.Context, keep int) error {
	if keep == 0 {
		keep = 3
	}
	return s.keys.Rotate(keep)
}
