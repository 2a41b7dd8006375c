// Package sealed is what a token carries: ids packed into a few bytes, times and epochs, in MessagePack, encrypted and signed with a Fernet key. Everything else is looked up when a
// token is verified.
package sealed

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"kilonova/internal/clock"
	"kilonova/internal/identity/keyring"
)

// The authentication methods in the order of their bits.
var methodBits = [...]string{"password", "token", "application_credential", "totp"}

// What a token is for.
const (
	Unscoped = iota
	Project
	Domain
	System
)

const version = 2

// Token is what a token carries.
type Token struct {
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

// Pack makes an id short: 16 bytes when it is a UUID without dashes, else a zero byte and the text.
func Pack(id string) []byte {
	if b, err := hex.DecodeString(id); err == nil && len(b) == 16 && hex.EncodeToString(b) == id {
		return append([]byte{1}, b...)
	}
	if id == "" {
		return nil
	}
	return append([]byte{0}, id...)
}

// Unpack gives the id that Pack made short.
func Unpack(b []byte) string {
	switch {
	case len(b) == 0:
		return ""
	case b[0] == 1:
		return hex.EncodeToString(b[1:])
	}
	return string(b[1:])
}

// Methods gives the bits of authentication methods; those that are not known have none.
func Methods(methods []string) uint8 {
	var m uint8
	for i, name := range methodBits {
		if slices.Contains(methods, name) {
			m |= 1 << i
		}
	}
	return m
}

// MethodNames names the methods by which the token came about.
func (t *Token) MethodNames() []string {
	var out []string
	for i, name := range methodBits {
		if t.Methods&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return out
}

// NewAudit is a random audit id.
func NewAudit() []byte {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // crypto/rand.Read never fails
	return b
}

// AuditIDs gives the audit ids as users see them: the token's own, and that of the first of its chain.
func (t *Token) AuditIDs() []string {
	out := make([]string, len(t.Audits))
	for i, a := range t.Audits {
		out[i] = base64.RawURLEncoding.EncodeToString(a)
	}
	return out
}

// IssuedAt is when the token was made.
func (t *Token) IssuedAt() time.Time { return clock.FromMicros(t.Issued) }

// ExpiresAt is when the token ends by itself.
func (t *Token) ExpiresAt() time.Time { return clock.FromMicros(t.Expires) }

// Seal makes the text that users carry.
func (t *Token) Seal(keys *keyring.Ring) (string, error) {
	t.Version = version
	b, err := msgpack.Marshal(t)
	if err != nil {
		return "", fmt.Errorf("encode token: %w", err)
	}
	return keys.Seal(b)
}

var errMalformed = errors.New("the token is malformed or made with another key")

// Open reads a token; it says nothing of whether the token still holds.
func Open(keys *keyring.Ring, token string) (*Token, error) {
	if len(token) < 64 || len(token) > 2048 {
		return nil, errMalformed
	}
	b := keys.Open(token)
	if b == nil {
		return nil, errMalformed
	}
	var t Token
	if err := msgpack.Unmarshal(b, &t); err != nil || t.Version != version || len(t.Audits) == 0 {
		return nil, errMalformed
	}
	return &t, nil
}
