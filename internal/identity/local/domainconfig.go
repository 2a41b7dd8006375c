package local

import (
	"context"
	"encoding/json"
	"fmt"

	"kilonova/internal/db"
	"kilonova/internal/fault"
)

// Settings are the options of a domain by section: {"ldap": {"url": …}}.
type Settings map[string]map[string]any

// DomainSettings gives what is stored for a domain. It is kept for clients; the built-in service itself reads none of it.
func (s *Service) DomainSettings(ctx context.Context, domain string) (Settings, error) {
	if _, err := s.domain(ctx, s.db, domain); err != nil {
		return nil, err
	}
	rows, err := s.db.Query(ctx, `SELECT section, name, "value" FROM identity_domain_config WHERE domain_id = ?`, domain)
	if err != nil {
		return nil, fmt.Errorf("read domain configuration: %w", err)
	}
	defer rows.Close()
	out := Settings{}
	for rows.Next() {
		var section, name, text string
		if err := rows.Scan(&section, &name, &text); err != nil {
			return nil, fmt.Errorf("read domain configuration: %w", err)
		}
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			return nil, fmt.Errorf("domain configuration %s.%s: %w", section, name, err)
		}
		if out[section] == nil {
			out[section] = map[string]any{}
		}
		out[section][name] = v
	}
	return out, rows.Err()
}

// PutDomainSettings stores options of a domain; with replace, the others go.
func (s *Service) PutDomainSettings(ctx context.Context, domain string, set Settings, replace bool) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		if _, err := s.domain(ctx, tx, domain); err != nil {
			return err
		}
		if replace {
			if err := exec(ctx, tx, domain, "DELETE FROM identity_domain_config WHERE domain_id = ?"); err != nil {
				return err
			}
		}
		put := db.Upsert(tx.Dialect(), "identity_domain_config", []string{"domain_id", "section", "name"}, []string{`"value"`})
		for section, options := range set {
			for name, v := range options {
				text, err := json.Marshal(v)
				if err != nil {
					return fmt.Errorf("encode %s.%s: %w", section, name, err)
				}
				if _, err := tx.Exec(ctx, put, domain, section, name, string(text)); err != nil {
					return fmt.Errorf("store domain configuration: %w", err)
				}
			}
		}
		return nil
	})
}

// DropDomainSettings deletes all options of a domain, of one section, or one option ("" for no restriction). It fails with
// fault.NotFound when there is nothing to delete.
func (s *Service) DropDomainSettings(ctx context.Context, domain, section, name string) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		q, args := "DELETE FROM identity_domain_config WHERE domain_id = ?", []any{domain}
		if section != "" {
			q, args = q+" AND section = ?", append(args, section)
		}
		if name != "" {
			q, args = q+" AND name = ?", append(args, name)
		}
		n, err := tx.Exec(ctx, q, args...)
		if err != nil {
			return fmt.Errorf("delete domain configuration: %w", err)
		}
		if n == 0 {
			return fault.New(fault.NotFound, "Could not find domain configuration for domain %s.", domain)
		}
		return nil
	})
}
