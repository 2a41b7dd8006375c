// Package keyring keeps Fernet keys in a directory, in the layout of a Keystone key repository: files named by numbers, each with one
// key, readable by their owner alone. 0 is staged (the next primary key), the highest number is the primary key that seals, and every
// key opens. What a process seals, each process that shares the directory can open, also across a rotation: the staged key is there
// before it seals anything. A ring looks whether its directory has changed before it seals or opens, so that a rotation holds in every
// process at once, without a restart.
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
	looked time.Time     // when the directory began to be read
	stamp  time.Time     // when the directory had been changed by then
}

const (
	rereadKeys = time.Second           // how soon the directory is read again although it looks as it did
	tick       = 50 * time.Millisecond // more than the steps in which file systems tell when a directory was changed
)

// stale tells whether the directory may hold other keys than those that are known.
func (r *Ring) stale() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if time.Since(r.looked) >= rereadKeys || r.looked.Sub(r.stamp) < tick { // what was changed just before may have been changed again just after
		return true
	}
	info, err := os.Stat(r.dir)
	return err != nil || !info.ModTime().Equal(r.stamp)
}

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
	path, err := writeKey(dir)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(path) }()
	if err := os.Link(path, filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("name key: %w", err)
	}
	return syncDir(dir)
}

// writeKey writes a new key under a name that is no key's, and gives its path.
func writeKey(dir string) (path string, err error) {
	var k fernet.Key
	if err := k.Generate(); err != nil {
		return "", fmt.Errorf("make key: %w", err)
	}
	f, err := os.CreateTemp(dir, unfinished)
	if err != nil {
		return "", fmt.Errorf("make key: %w", err)
	}
	_, err = f.WriteString(k.Encode())
	if err := errors.Join(err, f.Chmod(0o600), f.Sync(), f.Close()); err != nil {
		_ = os.Remove(f.Name())
		return "", fmt.Errorf("write key: %w", err)
	}
	return f.Name(), nil
}

// unfinished begins the names of files that become keys.
const unfinished = ".new-"

// syncDir makes the names in a directory outlive a crash of the machine.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync keys: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync keys: %w", err)
	}
	return nil
}

// numbers lists the key files of a directory, ascending.
func numbers(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
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

// load reads the directory. A directory without keys (one that is being put in place anew) does not make a ring forget those that it has.
func (r *Ring) load() error {
	for {
		now := time.Now() // with the clock that nobody sets back
		info, err := os.Stat(r.dir)
		if err != nil {
			return fmt.Errorf("read keys: %w", err)
		}
		all, err := numbers(r.dir)
		if err != nil {
			return err
		}
		keys, err := read(r.dir, all)
		if err != nil {
			return err
		}
		after, err := numbers(r.dir)
		if err != nil {
			return err
		}
		if !slices.Equal(all, after) { // a rotation went on meanwhile: a name may have changed its key
			continue
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.looked, r.stamp = now, info.ModTime()
		if len(keys) > 0 {
			r.keys = keys
		}
		return nil
	}
}

// read gives the keys of some numbers, the highest first, without those that are gone meanwhile.
func read(dir string, all []int) ([]*fernet.Key, error) {
	var keys []*fernet.Key
	for _, n := range slices.Backward(all) {
		b, err := os.ReadFile(filepath.Join(dir, strconv.Itoa(n)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read key: %w", err)
		}
		k, err := fernet.DecodeKey(strings.TrimSpace(string(b)))
		if err != nil {
			return nil, fmt.Errorf("key %d in %s is malformed", n, dir)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// Seal encrypts and signs with the primary key; the result has no padding. It fails when the directory cannot be read, since another
// key may be the primary one by now and the one that is known be dropped soon.
func (r *Ring) Seal(msg []byte) (string, error) {
	if r.stale() {
		if err := r.load(); err != nil {
			return "", err
		}
	}
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
	if r.stale() {
		_ = r.load() // the keys that are known go on
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	return fernet.VerifyAndDecrypt(padded, 0, r.keys)
}
