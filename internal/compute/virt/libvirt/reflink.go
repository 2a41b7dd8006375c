package libvirt

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// reflink makes a copy that shares its blocks with the original, where the file system can (btrfs, xfs).
func reflink(from, to string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := unix.IoctlFileClone(int(w.Fd()), int(r.Fd())); err != nil {
		w.Close()
		os.Remove(to)
		return err
	}
	return errors.Join(w.Sync(), w.Close())
}
