// Package password hashes passwords with bcrypt, as many at a time as there are processors, and digests secrets that are random enough.
package password

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"kilonova/internal/fault"
	"kilonova/internal/id"
)

// bcryptMax is how many bytes of a password bcrypt takes in.
const bcryptMax = 72

// digestPrefix marks the hash of a secret that was made here: it is random enough that a plain digest cannot be guessed.
const digestPrefix = "{sha256}"

// Hasher hashes with one cost.
type Hasher struct {
	cost  int
	slots chan struct{} // one for each processor
	decoy []byte        // compared with when there is no such user, so that both answers take as long
}

// New gives a hasher of a bcrypt cost (4 to 31). Invalid: there is no such cost.
func New(cost int) (*Hasher, error) {
	if cost < bcrypt.MinCost || cost > bcrypt.MaxCost {
		return nil, fault.New(fault.Invalid, "The bcrypt cost %d is not between %d and %d.", cost, bcrypt.MinCost, bcrypt.MaxCost)
	}
	return &Hasher{cost: cost, slots: make(chan struct{}, runtime.GOMAXPROCS(0)), decoy: decoyHash(cost)}, nil
}

// Hash gives the bcrypt hash of a password, waiting for a free processor.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	if err := h.take(ctx); err != nil {
		return "", err
	}
	defer func() { <-h.slots }()
	hash, err := bcrypt.GenerateFromPassword(fold(password), h.cost)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return string(hash), nil
}

// Fits tells whether the password fits the hash. An empty hash fits nothing, after the usual time.
func (h *Hasher) Fits(ctx context.Context, hash, password string) (bool, error) {
	if digest, ok := strings.CutPrefix(hash, digestPrefix); ok {
		return subtle.ConstantTimeCompare([]byte(digest), []byte(digestOf(password))) == 1, nil
	}
	if err := h.take(ctx); err != nil {
		return false, err
	}
	defer func() { <-h.slots }()
	if hash == "" {
		_ = bcrypt.CompareHashAndPassword(h.decoy, fold(password)) // only for the time it takes
		return false, nil
	}
	err := bcrypt.CompareHashAndPassword([]byte(hash), fold(password))
	if errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("compare password: %w", err)
	}
	return true, nil
}

func (h *Hasher) take(ctx context.Context) error {
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fold makes a password that bcrypt would cut off short enough.
func fold(password string) []byte {
	if len(password) <= bcryptMax {
		return []byte(password)
	}
	sum := sha512.Sum384([]byte(password))
	return []byte(base64.StdEncoding.EncodeToString(sum[:]))
}

// Digest is the hash of a secret that was made here from at least 128 random bits.
func Digest(secret string) string { return digestPrefix + digestOf(secret) }

func digestOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// decoyHash is a well-formed hash of the given cost that no password is known for, made without hashing anything.
func decoyHash(cost int) []byte {
	tail := strings.ReplaceAll(base64.RawStdEncoding.EncodeToString([]byte(id.Secret(20))), "+", ".")
	return fmt.Appendf(nil, "$2a$%02d$%s", cost, tail[:53])
}
