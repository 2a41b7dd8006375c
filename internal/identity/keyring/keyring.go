// Package keyring keeps Fernet keys in a directory, in the layout of a Keystone key repository: files named by numbers, each with one
// key, readable by their owner alone. 0 is staged (the next primary key), the highest number is the primary key that seals, and every
// key opens. What a process seals, each process that shares the directory can open, also across a rotation: the staged key is there
// before it seals anything, and a ring reads its directory again when no key of it fits.
package keyring

import (
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

// Ring is an open key repository. It is safe for use by many goroutines.
type Ring struct {
	dir string

	mu     sync.RWMutex
	keys   []*fernet.Key // primary first, staged last
	looked time.Time     // when the directory was last read
}

// rereadKeys is how soon the directory is read again after a token that no key verifies.
const rereadKeys = time.Second

// Open reads the repository, making it with two keys when it is empty. Several processes may do so at once.
func Open(dir string) (*Ring, error) {
	r := &Ring{dir: dir}
	if dir == "" {
		return nil, fault.New(fault.Invalid, "No directory is given for the keys.")
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

// numbers lists the key files, ascending.
func (r *Ring) numbers() ([]int, error) {
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

func (r *Ring) load() error {
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

// Seal encrypts and signs with the primary key; the result has no padding.
func (r *Ring) Seal(msg []byte) (string, error) {
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

// Open verifies and decrypts; nil when no key fits or the text is malformed.
func (r *Ring) Open(sealed string) []byte {
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

// Rotate makes the staged key the primary one, stages a new key and drops the oldest beyond keep, which counts the staged key too.
func (r *Ring) Rotate(keep int) error {
	numbers, err := r.numbers()
	if err != nil {
		return err
	}
	if len(numbers) == 0 || numbers[0] != 0 { // a rotation was cut off after it had a new primary key: end it
		if err := makeKey(r.dir, "0"); err != nil {
			return err
		}
		return r.load()
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
