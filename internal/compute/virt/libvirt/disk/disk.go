package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"kilonova/internal/fault"
)

// CacheMode tells how files of dir can be opened: without the host's cache where the file system allows it.
func CacheMode(dir string) string {
	f, err := os.CreateTemp(dir, ".direct-*")
	if err != nil {
		return "writeback"
	}
	f.Close()
	defer os.Remove(f.Name())
	fd, err := syscall.Open(f.Name(), syscall.O_RDWR|syscall.O_DIRECT, 0)
	if err != nil {
		return "writeback"
	}
	syscall.Close(fd)
	return "none"
}

// ImageSize gives the virtual size of an image in the cache. It reads the header itself: a second look at what the agent's inspector passed,
// so that no tool ever opens an image that refers to other files.
func ImageSize(path, format string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, fault.Wrap(err, fault.Conflict, "The image file of the server is not on this host.")
	}
	defer f.Close()
	if format == "raw" {
		st, err := f.Stat()
		if err != nil {
			return 0, err
		}
		return st.Size(), nil
	}
	if format != "qcow2" {
		return 0, fault.New(fault.Invalid, "Images of the format %q cannot be booted here: qcow2 and raw can.", format)
	}
	return qcow2Size(f)
}

// qcow2Size reads a qcow2 header (QEMU's docs/interop/qcow2.txt) and refuses one with a backing or a data file.
func qcow2Size(r io.Reader) (int64, error) {
	bad := func(what string) (int64, error) {
		return 0, fault.New(fault.Invalid, "The image file %s.", what)
	}
	var h [104]byte
	n, err := io.ReadFull(r, h[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return bad("is empty")
	}
	version := binary.BigEndian.Uint32(h[4:])
	if n < 72 || string(h[:4]) != "QFI\xfb" || (version != 2 && version != 3) {
		return bad("is not of the format qcow2")
	}
	if binary.BigEndian.Uint64(h[8:]) != 0 {
		return bad("has a backing file")
	}
	if version == 3 && (n < 104 || binary.BigEndian.Uint64(h[72:])&^0b1001 != 0) { // dirty and compression type are harmless
		return bad("needs features that are not allowed, such as an external data file")
	}
	size := binary.BigEndian.Uint64(h[24:])
	if size == 0 || size > 1<<60 {
		return bad("has an impossible size")
	}
	return int64(size), nil
}

// Overlay makes an overlay of size bytes on base, whole or not at all.
func Overlay(ctx context.Context, path, base, format string, size int64) error {
	tmp := path + ".new"
	os.Remove(tmp)
	_, err := Img(ctx, "create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=off", "-F", format, "-b", base, tmp, fmt.Sprint(size))
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return fmt.Errorf("make disk: %w", err)
	}
	return nil
}

// Header is what a disk of ours says of itself.
type Header struct {
	Size    int64
	Backing string // the image beneath, "" when there is none
}

// ReadHeader reads the header of a guest's own root disk.
func ReadHeader(path string) (o Header, err error) {
	f, err := os.Open(path)
	if err != nil {
		return o, fmt.Errorf("open disk: %w", err)
	}
	defer f.Close()
	var h [72]byte
	if _, err := io.ReadFull(f, h[:]); err != nil || string(h[:4]) != "QFI\xfb" {
		return o, fault.Wrap(err, fault.Internal, "The server's root disk cannot be read.")
	}
	o.Size = int64(binary.BigEndian.Uint64(h[24:]))
	if at := binary.BigEndian.Uint64(h[8:]); at != 0 {
		n := binary.BigEndian.Uint32(h[16:])
		if n > 1023 || at > 1<<20 {
			return o, fault.New(fault.Internal, "The server's root disk names its image in an impossible way.")
		}
		name := make([]byte, n)
		if _, err := f.ReadAt(name, int64(at)); err != nil {
			return o, fmt.Errorf("read disk: %w", err)
		}
		o.Backing = string(name)
	}
	return o, nil
}

// Raw makes a raw file of size bytes, prepared by the program, or grows the one that is there.
func Raw(ctx context.Context, path string, size int64, program ...string) error {
	if st, err := os.Stat(path); err == nil {
		if st.Size() < size {
			return os.Truncate(path, size)
		}
		return nil
	}
	tmp := path + ".new"
	defer os.Remove(tmp)
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	if bin, err := FindProgram(program[0]); err == nil {
		cmd := exec.CommandContext(ctx, bin, append(program[1:], tmp)...)
		cmd.Env = []string{"PATH=" + ProgramPath, "LC_ALL=C"}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("format disk: %s: %w: %s", program[0], err, out)
		}
	}
	return os.Rename(tmp, path)
}

// Write writes a file whole or not at all, leaving holes where there are only zeros.
func Write(to string, from io.Reader) error {
	tmp := to + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	size, err := copySparse(f, from)
	if err == nil {
		err = f.Truncate(size)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		if errors.Is(err, syscall.ENOSPC) {
			return fault.Wrap(err, fault.Unavailable, "The host's disk is full.")
		}
		return fmt.Errorf("write %s: %w", filepath.Base(to), err)
	}
	return os.Rename(tmp, to)
}

// copySparse copies and seeks over blocks of zeros; it gives the length.
func copySparse(to *os.File, from io.Reader) (int64, error) {
	buf := make([]byte, 256<<10)
	var at int64
	for {
		n, err := io.ReadFull(from, buf)
		if !isZero(buf[:n]) {
			if _, err := to.WriteAt(buf[:n], at); err != nil {
				return at, err
			}
		}
		at += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return at, nil
		}
		if err != nil {
			return at, err
		}
	}
}

func isZero(b []byte) bool {
	for len(b) >= 8 {
		if binary.NativeEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// Clone copies a file: at once on file systems that share blocks, else leaving holes.
func Clone(ctx context.Context, from, to string) error {
	if err := reflink(from, to); err == nil {
		return nil
	}
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	return Write(to, CancelReader{Context: ctx, Reader: r})
}

// CancelReader ends with its context.
type CancelReader struct {
	Context context.Context
	Reader  io.Reader
}

// Read reads, or gives the error of the context.
func (c CancelReader) Read(p []byte) (int, error) {
	if err := c.Context.Err(); err != nil {
		return 0, err
	}
	return c.Reader.Read(p)
}

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
