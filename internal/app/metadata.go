package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/compute/agent"
	"kilonova/internal/compute/metadata"
	"kilonova/internal/compute/metadata/configdrive"
	"kilonova/internal/db"
	"kilonova/internal/fault"
)

// Where vendor data come from: the names of [metadata] vendordata_providers.
const staticVendor, dynamicVendor = "StaticJSON", "DynamicJSON"

// metadataInput makes what the metadata service and the config drive of a server are built from.
func (a *App) metadataInput(ctx context.Context, s *compute.Server, files map[string][]byte) (json.RawMessage, error) {
	in, err := a.guestData(ctx, s, files)
	if err != nil {
		return nil, err
	}
	return json.Marshal(in)
}

func (a *App) guestData(ctx context.Context, s *compute.Server, files map[string][]byte) (metadata.Input, error) {
	vendor, err := a.vendorData()
	if err != nil {
		return metadata.Input{}, err
	}
	in := metadata.InputOf(s, metadata.Extra{Domain: a.cfg.Compute.DHCPDomain, Files: files, Vendor: vendor})
	if a.vendor != nil {
		in.Dynamic, err = a.vendor.Fetch(ctx, in, strings.Split(s.System[compute.SysBootRoles], ","))
	}
	return in, err
}

// openVendor reads which services give vendor data about each server. They are told who asks with a token of the service user.
func (a *App) openVendor() error {
	c := &a.cfg.Metadata
	for _, p := range c.Vendors {
		if p != staticVendor && p != dynamicVendor {
			return fault.New(fault.Invalid, "[metadata] vendordata_providers: there is no %q, only %s and %s.", p, staticVendor, dynamicVendor)
		}
	}
	if a.vendor != nil || !slices.Contains(c.Vendors, dynamicVendor) {
		return nil
	}
	targets, err := metadata.ParseVendorTargets(c.VendorTargets)
	if err != nil {
		return err
	}
	token, err := a.tokens(a.cfg.API.Identity)
	if err != nil {
		return err
	}
	a.vendor = &metadata.Vendor{Targets: targets, Connect: c.VendorConnect, Read: c.VendorRead, Fatal: c.VendorMustHave, Log: a.log,
		Token: func(ctx context.Context) (string, error) { return token(ctx, nil, "") }}
	return nil
}

func (a *App) vendorData() (json.RawMessage, error) {
	path := a.cfg.Metadata.VendorData
	if path == "" || !slices.Contains(a.cfg.Metadata.Vendors, staticVendor) {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("vendor data: %w", err)
	}
	if !json.Valid(b) {
		return nil, fmt.Errorf("vendor data %s is not JSON", path)
	}
	return b, nil
}

// configDrive builds a config drive on a host.
func (a *App) configDrive(ctx context.Context, input []byte, adminPass, path string) error {
	return configdrive.Writer{}.Build(ctx, input, adminPass, path)
}

// guestMetadata answers guests of this host at 169.254.169.254: the data plane has found out which server asks. The content comes from a conductor, or, while
// none answers, from what the agent keeps.
func (a *App) guestMetadata() (http.Handler, error) {
	h, err := metadata.New(metadata.Config{Log: a.log, Passwords: hostPasswords{a},
		Lookup: metadata.LookupFunc(func(ctx context.Context, k metadata.Key) (*metadata.Content, error) {
			ag := a.agentHere()
			if ag == nil {
				return nil, fault.New(fault.Unavailable, "The agent is starting.")
			}
			raw, err := ag.Metadata(ctx, k.ServerID)
			if err != nil {
				return nil, err
			}
			in, err := metadata.Parse(raw)
			if err != nil {
				return nil, err
			}
			return metadata.Build(in)
		})})
	if err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.Serve(w, r, metadata.Key{ServerID: r.Header.Get("X-Instance-ID"), ProjectID: r.Header.Get("X-Tenant-ID")})
	}), nil
}

func (a *App) agentHere() *agent.Agent {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.agents) == 0 {
		return nil
	}
	return a.agents[0]
}

// hostPasswords keeps posted passwords when this process has the database; another process answers that it cannot.
type hostPasswords struct{ app *App }

func (p hostPasswords) Password(ctx context.Context, server string) ([]byte, error) {
	if p.app.parts.store == nil {
		return nil, nil
	}
	return storedPasswords{p.app}.Password(ctx, server)
}

func (p hostPasswords) SetPassword(ctx context.Context, server string, password []byte) error {
	if p.app.parts.store == nil {
		return fault.New(fault.NotImplemented, "Passwords can be posted only where the agent and the conductor share a process.")
	}
	return storedPasswords{p.app}.SetPassword(ctx, server, password)
}

// storedPasswords keeps the encrypted password that a guest posted in the server's record, in pieces of 255 bytes as the API reads them.
type storedPasswords struct{ app *App }

const passwordPiece = 255

func passwordKeys() []string {
	keys := make([]string, 4)
	for i := range keys {
		keys[i] = "password_" + strconv.Itoa(i)
	}
	return keys
}

func (p storedPasswords) Password(ctx context.Context, server string) ([]byte, error) {
	s, err := p.app.parts.store.Server(ctx, p.app.db, server)
	if err != nil {
		return nil, err
	}
	text := s.System["password"]
	for _, k := range passwordKeys() {
		text += s.System[k]
	}
	return []byte(text), nil
}

func (p storedPasswords) SetPassword(ctx context.Context, server string, password []byte) error {
	return p.app.db.Write(ctx, func(tx *db.Tx) error {
		return p.app.parts.store.UpdateServer(ctx, tx, server, func(s *compute.Server) error {
			for _, k := range append(passwordKeys(), "password") {
				if s.System[k] != "" {
					return fault.New(fault.Conflict, "The password has been posted.")
				}
			}
			if s.System == nil {
				s.System = map[string]string{}
			}
			keys := passwordKeys()
			for i, part := range slices.Collect(slices.Chunk(password, passwordPiece)) {
				s.System[keys[i]] = string(part)
			}
			return nil
		})
	})
}

// startMetadata serves the metadata service for network proxies that sign what they say, at /metadata.
func (a *App) startMetadata(context.Context) error {
	if err := a.openVendor(); err != nil {
		return err
	}
	secret, err := a.secrets.get("metadata_secret")
	if err != nil {
		return err
	}
	h, err := metadata.New(metadata.Config{Proxied: true, Secret: []byte(secret), Log: a.log, Passwords: storedPasswords{a},
		Lookup: metadata.LookupFunc(func(ctx context.Context, k metadata.Key) (*metadata.Content, error) {
			if k.ServerID == "" {
				return nil, fault.New(fault.Invalid, "Only proxies that name the server are served here.")
			}
			s, err := a.parts.store.Server(ctx, a.db, k.ServerID)
			if err != nil {
				return nil, err
			}
			if k.ProjectID != "" && k.ProjectID != s.ProjectID {
				return nil, fault.New(fault.NotFound, "The project has no such server.")
			}
			in, err := a.guestData(ctx, s, nil)
			if err != nil {
				return nil, err
			}
			return metadata.Build(in)
		})})
	if err != nil {
		return err
	}
	a.web.handle("metadata", h)
	return nil
}
