package app

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/config"
	"kilonova/internal/fault"
	"kilonova/internal/identity/keyring"
)

// keyDir is where the keys of identity tokens lie.
func keyDir(cfg *config.Config) string { return filepath.Join(cfg.Default.StateDir, "fernet-keys") }

// TokenKeys tells of the keys of identity tokens, beside whatever runs the cloud. NotFound: there are none in the state directory.
func TokenKeys(cfg *config.Config) ([]keyring.Key, error) {
	keys, err := keyring.List(keyDir(cfg))
	return keys, noKeys(cfg, err)
}

// RotateTokenKeys makes the staged key the one that seals tokens, and drops keys that were replaced longer than life ago; see keyring.Rotate.
// A negative life stands for that of tokens.
func RotateTokenKeys(cfg *config.Config, life time.Duration) error {
	if life < 0 {
		life = cfg.Identity.TokenTTL
	}
	return noKeys(cfg, keyring.Rotate(keyDir(cfg), life))
}

func noKeys(cfg *config.Config, err error) error {
	if errors.Is(err, fault.NotFound) {
		return fault.Wrap(err, fault.NotFound, "There are no token keys in %s. Name the state directory of a host with the identity service with --state-dir, or its configuration file with --config.", keyDir(cfg))
	}
	return err
}

// lookAtKeys is how often the age of the keys is looked at, at most.
const lookAtKeys = time.Hour

// rotateKeys rotates the token keys every [identity] key_rotation_interval. Of several processes that share the directory, one does.
func (a *App) rotateKeys(ctx context.Context) error {
	every, dir := a.cfg.Identity.KeyRotation, keyDir(a.cfg)
	for {
		wait := min(every, time.Minute)
		switch done, err := keyring.RotateDue(dir, every, a.cfg.Identity.TokenTTL); {
		case err != nil && !errors.Is(err, fault.Conflict):
			slog.Warn("the token keys were not rotated; it is tried again", "after", wait, "error", err)
		case done:
			slog.Info("token keys rotated")
			fallthrough
		case err == nil:
			if keys, err := keyring.List(dir); err == nil {
				wait = max(time.Second, min(lookAtKeys, every-clock.Now().Sub(keys[0].Since)))
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}
