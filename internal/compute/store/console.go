package store

import (
	"context"
	"fmt"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/fault"
)

// ConsoleToken is the right to open one console once. The token itself is not stored, only its hash.
type ConsoleToken struct {
	ServerID  string
	Kind      string // novnc, xvpvnc, spice-html5, serial, webmks …
	Agent     string // compute host
	Host      string // where the console listens
	Port      int
	Path      string
	AccessURL string // of the proxy, without the token
	Expires   time.Time
}

// InsertConsoleToken records a token, and forgets those that have expired.
func (s *Store) InsertConsoleToken(ctx context.Context, tx *db.Tx, token string, t ConsoleToken) error {
	if _, err := tx.Exec(ctx, "DELETE FROM compute_console_tokens WHERE expires_at < ?", clock.Micros(clock.Now())); err != nil {
		return fmt.Errorf("console tokens: %w", err)
	}
	_, err := tx.Exec(ctx, "INSERT INTO compute_console_tokens (token_hash, server_id, kind, host, port, path, agent, access_url, used, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?)",
		hash(token), t.ServerID, t.Kind, t.Host, t.Port, t.Path, t.Agent, t.AccessURL, clock.Micros(t.Expires))
	if err != nil {
		return fmt.Errorf("console tokens: %w", err)
	}
	return nil
}

// ConsoleToken shows what a token is for. It fails with fault.NotFound when it is unknown, expired or used.
func (s *Store) ConsoleToken(ctx context.Context, q db.Querier, token string) (*ConsoleToken, error) {
	var t ConsoleToken
	var expires int64
	err := q.QueryRow(ctx, "SELECT server_id, kind, host, port, path, agent, access_url, expires_at FROM compute_console_tokens WHERE token_hash = ? AND used = 0 AND expires_at >= ?",
		hash(token), clock.Micros(clock.Now())).Scan(&t.ServerID, &t.Kind, &t.Host, &t.Port, &t.Path, &t.Agent, &t.AccessURL, &expires)
	if db.IsNoRows(err) {
		return nil, fault.New(fault.NotFound, "Token not found")
	} else if err != nil {
		return nil, fmt.Errorf("console token: %w", err)
	}
	t.Expires = clock.FromMicros(expires)
	return &t, nil
}

// kindSPICE is the type of SPICE consoles. They have a connection for each of their channels.
const kindSPICE = "spice-html5"

// UseConsoleToken is ConsoleToken for the proxy: it works once, but for SPICE consoles.
func (s *Store) UseConsoleToken(ctx context.Context, tx *db.Tx, token string) (*ConsoleToken, error) {
	t, err := s.ConsoleToken(ctx, tx, token)
	if err != nil {
		return nil, err
	}
	if t.Kind == kindSPICE {
		return t, nil
	}
	n, err := tx.Exec(ctx, "UPDATE compute_console_tokens SET used = 1 WHERE token_hash = ? AND used = 0", hash(token))
	if err := one(n, err, "Token not found"); err != nil {
		return nil, err
	}
	return t, nil
}
