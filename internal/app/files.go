package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"kilonova/internal/config"
	"kilonova/internal/fault"
	"kilonova/internal/id"
)

// secrets are files that only the owner reads, made at the first start.
type secrets struct {
	dir string
	mu  sync.Mutex
}

func openSecrets(cfg *config.Config) (*secrets, error) {
	s := &secrets{dir: filepath.Join(cfg.Default.StateDir, "secrets")}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("secrets: %w", err)
	}
	return s, os.Chmod(s.dir, 0o700)
}

// get gives a secret, making it when it is not there. Several processes may ask at once: all get the same.
func (s *secrets) get(name string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := filepath.Join(s.dir, name)
	for range 2 {
		b, err := os.ReadFile(path)
		if err == nil {
			return strings.TrimSpace(string(b)), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("secret %s: %w", name, err)
		}
		tmp, err := os.CreateTemp(s.dir, ".new-*") // mode 0600
		if err != nil {
			return "", fmt.Errorf("secret %s: %w", name, err)
		}
		_, err = tmp.WriteString(id.Secret(16) + "\n")
		err = errors.Join(err, tmp.Sync(), tmp.Close())
		if err == nil {
			if err = os.Link(tmp.Name(), path); errors.Is(err, fs.ErrExist) { // whoever was first decides
				err = nil
			}
		}
		if err = errors.Join(err, os.Remove(tmp.Name())); err != nil {
			return "", fmt.Errorf("secret %s: %w", name, err)
		}
	}
	return "", fmt.Errorf("secret %s: it vanishes", name)
}

// writeClientFiles writes clouds.yaml and openrc into the state directory.
func (a *App) writeClientFiles() error {
	admin, err := a.secrets.get("admin_password")
	if err != nil {
		return err
	}
	demo, err := a.secrets.get("demo_password")
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintln(&b, "clouds:")
	for _, u := range []struct{ name, password string }{{"admin", admin}, {"demo", demo}} {
		fmt.Fprintf(&b, "  %s:\n    auth:\n      auth_url: %s/identity/v3\n      username: %s\n      password: %s\n      project_name: %s\n      user_domain_name: Default\n      project_domain_name: Default\n    region_name: %s\n    identity_api_version: 3\n",
			u.name, a.URL(), u.name, u.password, u.name, a.cfg.Default.Region)
		if a.cfg.API.TLSCert != "" {
			cert, err := filepath.Abs(a.cfg.API.TLSCert)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "    cacert: %s\n", cert)
		}
	}
	if err := a.writeFile("clouds.yaml", b.String()); err != nil {
		return err
	}
	rc := fmt.Sprintf("export OS_AUTH_URL=%s/identity/v3 OS_USERNAME=admin OS_PASSWORD=%s OS_PROJECT_NAME=admin\nexport OS_USER_DOMAIN_NAME=Default OS_PROJECT_DOMAIN_NAME=Default OS_REGION_NAME=%s OS_IDENTITY_API_VERSION=3\n",
		a.URL(), admin, a.cfg.Default.Region)
	if a.cfg.API.TLSCert != "" {
		cert, err := filepath.Abs(a.cfg.API.TLSCert)
		if err != nil {
			return err
		}
		rc += "export OS_CACERT=" + cert + "\n"
	}
	return a.writeFile("openrc", rc)
}

func (a *App) writeFile(name, text string) error {
	path := filepath.Join(a.cfg.Default.StateDir, name)
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// alone tells whether no other process of this host carries out operations on the same state directory. The lock is shared afterwards, so that the
// next one to ask learns that it is not alone. Conductors on other hosts are only possible with a server database, and then nobody is alone. It fails with
// fault.Conflict for a second one whose bus is private: it could not reach what the first one has started.
func (a *App) alone(private bool) (bool, error) {
	if !strings.HasPrefix(a.cfg.Database.Connection, "sqlite") {
		return false, nil
	}
	f, err := os.OpenFile(filepath.Join(a.cfg.Default.StateDir, "conductor.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return false, fmt.Errorf("conductor lock: %w", err)
	}
	sole := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH); err != nil {
		_ = f.Close()
		return false, fmt.Errorf("conductor lock: %w", err)
	}
	a.onStop("conductor lock", func(context.Context) error { return f.Close() })
	if private && !sole {
		return false, fault.New(fault.Conflict, "Another kilonova runs on the state directory %s. Stop it, or give both the same [bus] url if they are to share the work.", a.cfg.Default.StateDir)
	}
	return sole, nil
}
