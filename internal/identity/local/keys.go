package local

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fernet/fernet-go"

	"kilonova/internal/clock"
	"kilonova/internal/fault"
)

// keyRing is a key repository: a directory of files named by numbers. 0 is staged (the next primary key), the highest number is the
// primary key that makes new tokens, the others still verify old ones. It is the layout that Keystone uses.
type keyRing struct {
	dir string

	mu     sync.RWMutex
	keys   []*fernet.Key // primary first, staged last
	looked time.Time     // when the directory was last read
}

// rereadKeys is how soon the directory is read again after a token that no key verifies.
const rereadKeys = time.Second

// openKeys reads the repository, making it with two keys when it is empty. Several processes may do so at once.
func openKeys(dir string) (*keyRing, error) {
	r := &keyRing{dir: dir}
	if dir == "" {
		return nil, fault.New(fault.Invalid, "No directory is given for the token keys.")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make key directory: %w", err)
	}
	if err := r.load(); err != nil {
		return nil, err
	}
	if len(r.keys) > 0 {
		return r, nil
	}
	for _, name := range []string{"1", "0"} { // the primary first: whoever made it decides
		if err := makeKey(dir, name); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	return r, r.load()
}

// makeKey writes a new key file, whole or not at all. It fails with fs.ErrExist when the name is taken.
func makeKey(dir, name string) error {
	var k fernet.Key
	if err := k.Generate(); err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	f, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.WriteString(k.Encode())
	if err := errors.Join(err, f.Chmod(0o600), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	if err := os.Link(f.Name(), filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("name key: %w", err)
	}
	return nil
}

func (r *keyRing) numbers() ([]int, error) {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	var out []int
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && n >= 0 && e.Type().IsRegular() {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out, nil
}

func (r *keyRing) load() error {
	numbers, err := r.numbers()
	if err != nil {
		return err
	}
	slices.Reverse(numbers)
	var keys []*fernet.Key
	for _, n := range numbers {
		b, err := os.ReadFile(filepath.Join(r.dir, strconv.Itoa(n)))
		if errors.Is(err, fs.ErrNotExist) { // rotated away meanwhile
			continue
		}
		if err != nil {
			return fmt.Errorf("read key: %w", err)
		}
		k, err := fernet.DecodeKey(strings.TrimSpace(string(b)))
		if err != nil {
			return fmt.Errorf("key %d in %s is malformed", n, r.dir)
		}
		keys = append(keys, k)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys, r.looked = keys, clock.Now()
	return nil
}

// seal encrypts and signs with the primary key.
func (r *keyRing) seal(msg []byte) (string, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if len(r.keys) == 0 {
		return "", fmt.Errorf("no keys in %s", r.dir)
	}
	tok, err := fernet.EncryptAndSignAtTime(msg, r.keys[0], clock.Now())
	if err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	return strings.TrimRight(string(tok), "="), nil
}

// open verifies and decrypts; nil when no key fits. A key that appeared since is found.
func (r *keyRing) open(sealed string) []byte {
	sealed = strings.TrimRight(sealed, "=")
	if _, err := base64.RawURLEncoding.Strict().DecodeString(sealed); err != nil { // the library is content with a good beginning
		return nil
	}
	padded := []byte(sealed)
	for len(padded)%4 != 0 {
		padded = append(padded, '=')
	}
	r.mu.RLock()
	keys, looked := r.keys, r.looked
	r.mu.RUnlock()
	if msg := fernet.VerifyAndDecrypt(padded, 0, keys); msg != nil || clock.Now().Sub(looked) < rereadKeys {
		return msg
	}
	if r.load() != nil {
		return nil
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	return fernet.VerifyAndDecrypt(padded, 0, r.keys)
}

// rotate makes the staged key the primary one, stages a new key and drops the oldest beyond keep.
func (r *keyRing) rotate(keep int) error {
	numbers, err := r.numbers()
	if err != nil {
		return err
	}
	if len(numbers) == 0 || numbers[0] != 0 {
		return fmt.Errorf("rotate keys: %s has no staged key", r.dir)
	}
	next := strconv.Itoa(numbers[len(numbers)-1] + 1)
	if err := os.Link(filepath.Join(r.dir, "0"), filepath.Join(r.dir, next)); err != nil {
		return fmt.Errorf("rotate keys: %w", err)
	}
	if err := os.Remove(filepath.Join(r.dir, "0")); err != nil {
		return fmt.Errorf("rotate keys: %w", err)
	}
	if err := makeKey(r.dir, "0"); err != nil {
		return err
	}
	active := numbers[1:] // without the staged key; the new primary and the new staged key make two more
	for len(active)+2 > max(keep, 2) {
		if err := os.Remove(filepath.Join(r.dir, strconv.Itoa(active[0]))); err != nil {
			return fmt.Errorf("rotate keys: %w", err)
		}
		active = active[1:]
	}
	return r.load()
}

// RotateKeys rotates the token keys and keeps at most keep of them (Keystone's max_active_keys; 3 when 0). Tokens of a dropped key become
// invalid, so rotations should be further apart than TokenTTL divided by keep-2.
func (s *Service) RotateKeys(_ context.Context, keep int) error {
	if keep == 0 {
		keep = 3
	}
	return s.keys.rotate(keep)
}
