package keyring

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/fault"
)

// What a key is for.
const (
	Staged  = "staged"  // becomes the primary key with the next rotation
	Primary = "primary" // seals
	Retired = "retired" // opens what it sealed when it was the primary key
)

// Key tells of one key of a repository; what it is made of stays in its file.
type Key struct {
	Number int       `json:"number"` // the name of its file
	State  string    `json:"state"`  // Staged, Primary or Retired
	Since  time.Time `json:"since"`  // when its state began, at the latest
}

// slack is how long after a rotation another process may still give out what the replaced key sealed: what it had begun by then.
const slack = time.Minute

// lockFile is held by who changes the keys.
const lockFile = ".lock"

// List tells of the keys of a repository, the primary one first, then those it replaced, the staged one last. It makes none; NotFound: there is no
// repository in dir.
func List(dir string) ([]Key, error) {
	all, err := numbers(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if len(all) == 0 || all[len(all)-1] == 0 {
		return nil, fault.New(fault.NotFound, "There are no token keys in %s.", dir)
	}
	var out []Key
	var since time.Time // when the key that was looked at last came to its place
	for i := len(all) - 1; i >= 0; i-- {
		placed, err := placed(dir, all[i])
		if errors.Is(err, fs.ErrNotExist) { // dropped meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		k := Key{Number: all[i], State: Retired, Since: since}
		switch {
		case k.Number == 0:
			k.State, k.Since = Staged, placed
		case len(out) == 0:
			k.State, k.Since = Primary, placed
		}
		out, since = append(out, k), placed
	}
	return out, nil
}

// placed tells when a key got its name, or later: what else changes the file (a copy, another owner) only makes it younger than it is, and a key
// stays longer than it must.
func placed(dir string, number int) (time.Time, error) {
	info, err := os.Lstat(filepath.Join(dir, strconv.Itoa(number)))
	if err != nil {
		return time.Time{}, fmt.Errorf("read key: %w", err)
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return clock.Now().UTC(), nil
	}
	return time.Unix(s.Ctim.Unix()).UTC(), nil
}

// Rotate makes the staged key of a repository the primary one, stages a new key, and drops keys that were replaced more than life ago, and a minute
// besides for processes that had not seen it yet: what they sealed has ended by itself when life is how long a sealed text is good for. With a
// life of 0 they go at once. It may be cut off anywhere: what was sealed can be opened, and the next rotation ends what was begun and does no
// more. Rings that are open learn of it by themselves. NotFound: there is no repository in dir; Conflict: somebody else changes it.
func Rotate(dir string, life time.Duration) error {
	return rotate(dir, life, func(string) error { return nil })
}

// RotateDue is Rotate for keys whose primary one has been that for interval; it tells whether it was so.
func RotateDue(dir string, interval, life time.Duration) (bool, error) {
	unlock, err := lock(dir)
	if err != nil {
		return false, err
	}
	defer unlock()
	keys, err := List(dir)
	if err != nil || clock.Now().Sub(keys[0].Since) < interval {
		return false, err
	}
	return true, rotateLocked(dir, life, func(string) error { return nil })
}

// rotate is Rotate that calls at before each of its steps, and ends where that fails.
func rotate(dir string, life time.Duration, at func(step string) error) error {
	if _, err := List(dir); err != nil {
		return err
	}
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	return rotateLocked(dir, life, at)
}

func rotateLocked(dir string, life time.Duration, at func(step string) error) error {
	all, err := numbers(dir)
	if err != nil {
		return err
	}
	last, staged := filepath.Join(dir, strconv.Itoa(all[len(all)-1])), filepath.Join(dir, "0")
	ended, err := same(staged, last)
	if err != nil {
		return err
	}
	if !ended {
		if err := at("promote"); err != nil {
			return err
		}
		if err := os.Link(staged, filepath.Join(dir, strconv.Itoa(all[len(all)-1]+1))); err != nil {
			return fmt.Errorf("rotate keys: %w", err)
		}
	}
	if err := at("stage"); err != nil {
		return err
	}
	if err := stage(dir, staged, at); err != nil {
		return err
	}
	if err := at("drop"); err != nil {
		return err
	}
	return drop(dir, life)
}

// same tells whether an earlier rotation was cut off before it staged a new key: the staged one is missing, or is the primary key.
func same(staged, last string) (bool, error) {
	s, err := os.Lstat(staged)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	l, err2 := os.Lstat(last)
	if err := errors.Join(err, err2); err != nil {
		return false, fmt.Errorf("rotate keys: %w", err)
	}
	return os.SameFile(s, l), nil
}

// stage puts a new key in the place of the staged one, which has a second name by now.
func stage(dir, staged string, at func(step string) error) error {
	if err := syncDir(dir); err != nil { // the second name must last before the first one goes
		return err
	}
	fresh, err := writeKey(dir)
	if err != nil {
		return err
	}
	if err := at("replace"); err != nil {
		return err
	}
	if err := os.Rename(fresh, staged); err != nil {
		_ = os.Remove(fresh)
		return fmt.Errorf("rotate keys: %w", err)
	}
	return syncDir(dir)
}

// drop removes keys that nothing can need any more, and what rotations that were cut off left behind.
func drop(dir string, life time.Duration) error {
	keys, err := List(dir)
	if err != nil {
		return err
	}
	if life > 0 {
		life += slack
	}
	for _, k := range keys {
		if k.State != Retired || clock.Now().Sub(k.Since) < life {
			continue
		}
		if err := os.Remove(filepath.Join(dir, strconv.Itoa(k.Number))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("drop key: %w", err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read keys: %w", err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && strings.HasPrefix(e.Name(), unfinished) && clock.Now().Sub(info.ModTime()) > slack {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("drop key: %w", err)
			}
		}
	}
	return nil
}

// lock keeps other processes from changing the keys meanwhile; the lock ends with the process.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock keys: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return func() { _ = f.Close() }, nil
	}
	_ = f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fault.New(fault.Conflict, "The keys in %s are being rotated by another process. Look at them, and try again if there is need.", dir)
	}
	return nil, fmt.Errorf("lock keys: %w", err)
}
