package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/virt"
	"kilonova/internal/db"
)

// keepEpochs is how many epochs back results are kept; a command that is older is simply carried out again, which every verb allows.
const keepEpochs = 16

// load reads what the journal has of a server.
func (a *Agent) load(ctx context.Context, server string) (*entry, error) {
	e := &entry{results: map[string]command.Reply{}}
	err := a.cfg.DB.QueryRow(ctx, "SELECT epoch FROM agent_servers WHERE host = ? AND server = ?", a.host, server).Scan(&e.epoch)
	if db.IsNoRows(err) {
		return e, nil
	}
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	rows, err := a.cfg.DB.Query(ctx, "SELECT command, result FROM agent_commands WHERE host = ? AND server = ? AND done = 1", a.host, server)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var key, result string
		if err := rows.Scan(&key, &result); err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		e.results[key] = command.Reply{Done: true, Data: json.RawMessage(result)}
	}
	return e, rows.Err()
}

// kept is what the agent keeps of a guest.
type kept struct {
	Spec     *virt.Spec // nil: nothing kept
	Metadata json.RawMessage
}

func (a *Agent) kept(ctx context.Context, server string) (kept, error) {
	var k kept
	var spec, meta string
	err := a.cfg.DB.QueryRow(ctx, "SELECT spec, metadata FROM agent_servers WHERE host = ? AND server = ?", a.host, server).Scan(&spec, &meta)
	if db.IsNoRows(err) || err == nil && spec == "" {
		return k, nil
	}
	if err != nil {
		return k, fmt.Errorf("journal: %w", err)
	}
	k.Spec = &virt.Spec{}
	if err := json.Unmarshal([]byte(spec), k.Spec); err != nil {
		return k, fmt.Errorf("journal: spec of %s: %w", server, err)
	}
	if meta != "" {
		k.Metadata = json.RawMessage(meta)
	}
	return k, nil
}

// begin journals that a command is about to be carried out.
func (a *Agent) begin(ctx context.Context, c *command.Command, key string) error {
	return a.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		if err := a.raiseTx(ctx, tx, c); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, db.Upsert(tx.Dialect(), "agent_commands", []string{"host", "server", "command"}, []string{"epoch", "verb", "done", "result", "updated"}),
			a.host, c.Server, key, c.Epoch, string(c.Verb), 0, "", clock.Micros(clock.Now()))
		if err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		return nil
	})
}

// raise journals the epoch of a command that only looks.
func (a *Agent) raise(ctx context.Context, c *command.Command) error {
	return a.cfg.DB.Write(ctx, func(tx *db.Tx) error { return a.raiseTx(ctx, tx, c) })
}

func (a *Agent) raiseTx(ctx context.Context, tx *db.Tx, c *command.Command) error {
	n, err := tx.Exec(ctx, "UPDATE agent_servers SET epoch = CASE WHEN epoch < ? THEN ? ELSE epoch END WHERE host = ? AND server = ?", c.Epoch, c.Epoch, a.host, c.Server)
	if err == nil && n == 0 {
		// A server that was only looked for is gone again when nothing comes of it.
		_, err = tx.Exec(ctx, "INSERT INTO agent_servers (host, server, epoch, spec, metadata, gone) VALUES (?, ?, ?, '', '', ?)", a.host, c.Server, c.Epoch, goneSince(c))
	}
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// goneSince is when a server without a guest may be forgotten: from now on when it was only looked for, not at all while a command makes it.
func goneSince(c *command.Command) int64 {
	if c.Verb == command.QueryGuest {
		return clock.Micros(clock.Now())
	}
	return 0
}

// end journals that it was done, with what is now to be kept of the guest: keep nil leaves that as it is, an empty one forgets the guest.
func (a *Agent) end(ctx context.Context, c *command.Command, key string, result []byte, keep *kept) error {
	now := clock.Micros(clock.Now())
	return a.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		if _, err := tx.Exec(ctx, "UPDATE agent_commands SET done = 1, result = ?, updated = ? WHERE host = ? AND server = ? AND command = ?",
			string(result), now, a.host, c.Server, key); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		if keep == nil {
			return nil
		}
		var spec []byte
		gone := now
		if keep.Spec != nil {
			var err error
			if spec, err = json.Marshal(keep.Spec); err != nil {
				return fmt.Errorf("journal: %w", err)
			}
			gone = 0
		}
		if _, err := tx.Exec(ctx, "UPDATE agent_servers SET spec = ?, metadata = ?, gone = ? WHERE host = ? AND server = ?",
			string(spec), string(keep.Metadata), gone, a.host, c.Server); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		_, err := tx.Exec(ctx, "DELETE FROM agent_commands WHERE host = ? AND server = ? AND epoch < ?", a.host, c.Server, c.Epoch-keepEpochs)
		return err
	})
}

// prune forgets results that nobody will ask for again, and servers that are long gone.
func (a *Agent) prune(ctx context.Context) error {
	err := prune(ctx, a.cfg.DB, a.host)
	a.forgetIdle()
	return err
}

func prune(ctx context.Context, d *db.DB, hosts ...string) error {
	old := clock.Micros(clock.Now().Add(-24 * time.Hour))
	in := "host IN (" + db.In(len(hosts)) + ")"
	args := append(db.Args(hosts), old)
	return d.Write(ctx, func(tx *db.Tx) error {
		if _, err := tx.Exec(ctx, "DELETE FROM agent_commands WHERE "+in+" AND updated < ?", args...); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "DELETE FROM agent_servers WHERE "+in+" AND gone <> 0 AND gone < ?", args...)
		return err
	})
}

// forgetIdle drops what is in memory of servers that the agent is not busy with.
func (a *Agent) forgetIdle() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for server, e := range a.entries {
		if e.drop() {
			delete(a.entries, server)
		}
	}
}
