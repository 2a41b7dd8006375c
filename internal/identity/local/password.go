package local

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"kilonova/internal/id"
)

// bcryptMax is how many bytes of a password bcrypt takes in.
const bcryptMax = 72

// digestPrefix marks the hash of a secret that was made here: it is random enough that a plain digest cannot be guessed.
const digestPrefix = "{sha256}"

// HashPassword gives the bcrypt hash of a password, waiting for a free processor.
func (s *Service) HashPassword(ctx context.Context, password string) (string, error) {
	if err := s.takeHashing(ctx); err != nil {
		return "", err
	}
	defer func() { <-s.hashing }()
	h, err := bcrypt.GenerateFromPassword(fold(password), s.cfg.BcryptCost)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return string(h), nil
}

// verify tells whether the password fits the hash. An empty hash fits nothing, after the usual time.
func (s *Service) verify(ctx context.Context, hash, password string) (bool, error) {
	if digest, ok := strings.CutPrefix(hash, digestPrefix); ok {
		return subtle.ConstantTimeCompare([]byte(digest), []byte(digestOf(password))) == 1, nil
	}
	if err := s.takeHashing(ctx); err != nil {
		return false, err
	}
	defer func() { <-s.hashing }()
	if hash == "" {
		_ = bcrypt.CompareHashAndPassword(s.decoy, fold(password)) // only for the time it takes
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

func (s *Service) takeHashing(ctx context.Context) error {
	select {
	case s.hashing <- struct{}{}:
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

func digestOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// decoyHash is a well-formed hash of the given cost that no password is known for, made without hashing anything.
func decoyHash(cost int) []byte {
	tail := strings.ReplaceAll(base64.RawStdEncoding.EncodeToString([]byte(id.Secret(20))), "+", ".")
	return fmt.Appendf(nil, "$2a$%02d$%s", cost, tail[:53])
}
