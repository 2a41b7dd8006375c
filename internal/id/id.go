// Package id makes identifiers.
package id

import (
	"crypto/rand"
	"encoding/hex"
	"strings"

	"github.com/google/uuid"
)

// UUID is a random UUID (RFC 9562 version 4) with dashes.
func UUID() string { return uuid.NewString() }

// Ordered is a time-ordered UUID, for keys of tables that grow at the end: laid out as version 7 of RFC 9562, but called version 4, since clients that know
// versions 1 to 5 only, such as older gophercloud and with it Terraform's provider, do not take others for UUIDs.
func Ordered() string {
	u := uuid.Must(uuid.NewV7())
	u[6] = u[6]&0x0f | 0x40
	return u.String()
}

// Hex is a random UUID without dashes, as Keystone writes its ids.
func Hex() string { return strings.ReplaceAll(uuid.NewString(), "-", "") }

// Request is a request id, "req-" and a UUID.
func Request() string { return "req-" + uuid.NewString() }

// IsUUID tells whether s is a UUID in the form with dashes or without, in any case.
func IsUUID(s string) bool {
	if len(s) != 36 && len(s) != 32 {
		return false
	}
	_, err := uuid.Parse(s)
	return err == nil
}

// Secret is n random bytes in hexadecimal.
func Secret(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // crypto/rand.Read never fails
	return hex.EncodeToString(b)
}

// Derived is the UUID (version 5) that always belongs to the given parts: a step that is run again makes the same id.
func Derived(parts ...string) string {
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte(strings.Join(parts, "\x00"))).String()
}
