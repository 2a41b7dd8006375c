package store

import (
	"context"
	"fmt"

	"kilonova/internal/compute"
	"kilonova/internal/db"
	"kilonova/internal/fault"
)

// HostClaim is what a consumer (a server or, while it moves, the migration that holds its old place) has of a host by name: CPUs, pages, devices.
type HostClaim struct {
	Consumer string
	ServerID string
	Host     string // "" of a migration whose server had nothing of the kind
	Claim    compute.Claim
}

// HostClaims gives the claims on a host, or all when none is named.
func (s *Store) HostClaims(ctx context.Context, q db.Querier, hosts ...string) ([]HostClaim, error) {
	query, args := "SELECT consumer, server_id, host, doc FROM compute_host_claims WHERE host > ''", []any(nil)
	if len(hosts) > 0 {
		query, args = "SELECT consumer, server_id, host, doc FROM compute_host_claims WHERE host IN ("+db.In(len(hosts))+")", db.Args(hosts)
	}
	var out []HostClaim
	err := scan(ctx, q, query+" ORDER BY host, consumer", args, func(scan func(...any) error) error {
		var c HostClaim
		var doc string
		if err := scan(&c.Consumer, &c.ServerID, &c.Host, &doc); err != nil {
			return err
		}
		out = append(out, c)
		return decode(doc, &out[len(out)-1].Claim)
	})
	if err != nil {
		return nil, fmt.Errorf("read claims of hosts: %w", err)
	}
	return out, nil
}

// ClaimOf gives what a consumer holds; nil when it holds nothing.
func (s *Store) ClaimOf(ctx context.Context, q db.Querier, consumer string) (*HostClaim, error) {
	c := HostClaim{Consumer: consumer}
	var doc string
	err := q.QueryRow(ctx, "SELECT server_id, host, doc FROM compute_host_claims WHERE consumer = ?", consumer).Scan(&c.ServerID, &c.Host, &doc)
	if db.IsNoRows(err) {
		return nil, nil //nolint:nilnil // nothing held
	}
	if err != nil {
		return nil, fmt.Errorf("read claim of %s: %w", consumer, err)
	}
	return &c, decode(doc, &c.Claim)
}

// LockHost gives what a host reported of itself and keeps others from claiming parts of it until the transaction ends. It fails with fault.NotFound.
func (s *Store) LockHost(ctx context.Context, tx *db.Tx, host string) ([]byte, error) {
	var info []byte
	err := tx.QueryRow(ctx, "SELECT info FROM compute_services WHERE host = ? AND service_binary = ?"+tx.ForUpdate(), host, ComputeBinary).Scan(&info)
	if db.IsNoRows(err) {
		return nil, fault.New(fault.NotFound, "Compute host %s could not be found.", host)
	}
	return info, err
}

// PutClaim writes what a consumer holds. LockHost comes first in the same transaction.
func (s *Store) PutClaim(ctx context.Context, tx *db.Tx, c HostClaim) error {
	_, err := tx.Exec(ctx, db.Upsert(tx.Dialect(), "compute_host_claims", []string{"consumer"}, []string{"server_id", "host", "doc"}), c.Consumer, c.ServerID, c.Host, encode(c.Claim))
	if err != nil {
		return fmt.Errorf("write claim of %s: %w", c.Consumer, err)
	}
	return nil
}

// DropClaims lets go of what consumers hold; those that hold nothing are no error.
func (s *Store) DropClaims(ctx context.Context, tx *db.Tx, consumers ...string) error {
	if len(consumers) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, "DELETE FROM compute_host_claims WHERE consumer IN ("+db.In(len(consumers))+")", db.Args(consumers)...)
	return err
}

// HandClaim gives what a server holds to the migration that it begins. When the migration has it already, what the server holds is of a try that came to nothing,
// and is let go of.
func (s *Store) HandClaim(ctx context.Context, tx *db.Tx, server, migration string) error {
	has, err := s.ClaimOf(ctx, tx, migration)
	if err != nil {
		return err
	}
	if has != nil {
		return s.DropClaims(ctx, tx, server)
	}
	n, err := tx.Exec(ctx, "UPDATE compute_host_claims SET consumer = ? WHERE consumer = ?", migration, server)
	if err != nil || n > 0 {
		return err
	}
	return s.PutClaim(ctx, tx, HostClaim{Consumer: migration, ServerID: server})
}

// ReturnClaim gives what a migration holds back to its server, which lets go of what it held instead. A migration that was never given anything changes nothing.
func (s *Store) ReturnClaim(ctx context.Context, tx *db.Tx, server, migration string) error {
	has, err := s.ClaimOf(ctx, tx, migration)
	if err != nil || has == nil {
		return err
	}
	if err := s.DropClaims(ctx, tx, server); err != nil {
		return err
	}
	if has.Host == "" {
		return s.DropClaims(ctx, tx, migration)
	}
	_, err = tx.Exec(ctx, "UPDATE compute_host_claims SET consumer = ? WHERE consumer = ?", server, migration)
	return err
}

// LostClaims gives the consumers of claims that are neither a server on that host nor an open migration, and whose server no operation holds.
func (s *Store) LostClaims(ctx context.Context, q db.Querier) ([]string, error) {
	var out []string
	args := append([]any{}, db.Args(append([]string{"finished", "confirming", "reverting", "done"}, moving...))...)
	err := scan(ctx, q, "SELECT c.consumer FROM compute_host_claims c WHERE NOT EXISTS (SELECT 1 FROM operations o WHERE o.holds = c.server_id)"+
		" AND NOT EXISTS (SELECT 1 FROM compute_servers s WHERE s.id = c.consumer AND s.deleted = 0 AND s.host = c.host)"+
		" AND NOT EXISTS (SELECT 1 FROM compute_migrations m WHERE m.uuid = c.consumer AND m.status IN ("+db.In(len(args))+"))", args, func(scan func(...any) error) error {
		var c string
		err := scan(&c)
		out = append(out, c)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for lost claims: %w", err)
	}
	return out, nil
}
