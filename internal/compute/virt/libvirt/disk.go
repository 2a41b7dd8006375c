package libvirt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"kilonova/internal/compute/virt"
	"kilonova/internal/fault"
)

// The files of a guest.
const (
	rootDisk      = "disk"
	ephemeralDisk = "disk.eph0"
	swapDisk      = "disk.swap"
	configDisk    = "disk.config"
	rescueDisk    = "disk.rescue"
	nvramFile     = "nvram.fd"
	consoleFile   = "console.log"
	keptDir       = "resize"
	incomingMark  = ".incoming" // the directory was made for a live migration that has not ended
)

const gib = 1 << 30

// path names a file of a guest. Ids have been checked by parseUUID.
func (d *Driver) path(guest string, name ...string) string {
	return filepath.Join(append([]string{d.c.InstancesDir, guest}, name...)...)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// cacheMode tells how files of dir can be opened: without the host's cache where the file system allows it.
func cacheMode(dir string) string {
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

// baseSize gives the virtual size of an image in the cache. It reads the header itself: a second look at what the agent's inspector passed,
// so that no tool ever opens an image that refers to other files.
func baseSize(path, format string) (int64, error) {
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

// rootSize is the size of the root disk: the flavor's, or the image's when the flavor has none.
func rootSize(spec *virt.Spec) (int64, error) {
	least, err := baseSize(spec.BaseImage, spec.BaseFormat)
	if err != nil {
		return 0, err
	}
	size := spec.RootGB * gib
	if size == 0 {
		return (least + 511) / 512 * 512, nil
	}
	if size < least {
		return 0, fault.New(fault.Invalid, "The flavor's disk of %d GB is smaller than the image's %d bytes.", spec.RootGB, least)
	}
	return size, nil
}

// overlay makes an overlay of size bytes on base, whole or not at all.
func overlay(ctx context.Context, path, base, format string, size int64) error {
	tmp := path + ".new"
	os.Remove(tmp)
	_, err := qemuImg(ctx, "create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=off", "-F", format, "-b", base, tmp, fmt.Sprint(size))
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return fmt.Errorf("make disk: %w", err)
	}
	return nil
}

// prepareFiles makes the files that spec needs and that are not there, and fits those that are.
func (d *Driver) prepareFiles(ctx context.Context, spec *virt.Spec) error {
	dir := d.path(spec.ID)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("make guest directory: %w", err)
	}
	if spec.BaseImage != "" {
		if err := d.prepareRoot(ctx, spec); err != nil {
			return err
		}
	}
	if spec.EphemeralGB > 0 {
		err := rawDisk(ctx, d.path(spec.ID, ephemeralDisk), spec.EphemeralGB*gib, "mkfs.ext4", "-q", "-F", "-L", "ephemeral0", "-E", "lazy_itable_init=1")
		if err != nil {
			return err
		}
	}
	if spec.SwapMB > 0 {
		if err := rawDisk(ctx, d.path(spec.ID, swapDisk), spec.SwapMB<<20, "mkswap"); err != nil {
			return err
		}
	}
	return d.takeConfigDrive(spec)
}

func (d *Driver) prepareRoot(ctx context.Context, spec *virt.Spec) error {
	root := d.path(spec.ID, rootDisk)
	size, err := rootSize(spec)
	if err != nil {
		return err
	}
	if !exists(root) {
		return overlay(ctx, root, spec.BaseImage, spec.BaseFormat, size)
	}
	// The disk may come from another host, where the image was elsewhere.
	h, err := readOverlay(root)
	if err != nil {
		return err
	}
	if h.backing != "" && h.backing != spec.BaseImage {
		if _, err := qemuImg(ctx, "rebase", "-u", "-f", "qcow2", "-F", spec.BaseFormat, "-b", spec.BaseImage, root); err != nil {
			return fmt.Errorf("name the disk's image: %w", err)
		}
	}
	if h.size < size {
		if _, err := qemuImg(ctx, "resize", "-q", "-f", "qcow2", root, fmt.Sprint(size)); err != nil {
			return fmt.Errorf("grow disk: %w", err)
		}
	}
	return nil
}

// hasRoot tells whether the guest has a root disk of its own, from an image. Its name alone does not say so when the agent could not fetch the
// image again.
func (d *Driver) hasRoot(spec *virt.Spec) bool {
	return spec.BaseImage != "" || exists(d.path(spec.ID, rootDisk))
}

// overlayHeader is what a disk of ours says of itself.
type overlayHeader struct {
	size    int64
	backing string
}

// readOverlay reads the header of a guest's own root disk.
func readOverlay(path string) (o overlayHeader, err error) {
	f, err := os.Open(path)
	if err != nil {
		return o, fmt.Errorf("open disk: %w", err)
	}
	defer f.Close()
	var h [72]byte
	if _, err := io.ReadFull(f, h[:]); err != nil || string(h[:4]) != "QFI\xfb" {
		return o, fault.Wrap(err, fault.Internal, "The server's root disk cannot be read.")
	}
	o.size = int64(binary.BigEndian.Uint64(h[24:]))
	if at := binary.BigEndian.Uint64(h[8:]); at != 0 {
		n := binary.BigEndian.Uint32(h[16:])
		if n > 1023 || at > 1<<20 {
			return o, fault.New(fault.Internal, "The server's root disk names its image in an impossible way.")
		}
		name := make([]byte, n)
		if _, err := f.ReadAt(name, int64(at)); err != nil {
			return o, fmt.Errorf("read disk: %w", err)
		}
		o.backing = string(name)
	}
	return o, nil
}

// rawDisk makes a raw file of size bytes, prepared by the program, or grows the one that is there.
func rawDisk(ctx context.Context, path string, size int64, program ...string) error {
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
	if bin, err := lookPath(program[0]); err == nil {
		cmd := exec.CommandContext(ctx, bin, append(program[1:], tmp)...)
		cmd.Env = []string{"PATH=" + searchPath, "LC_ALL=C"}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("format disk: %s: %w: %s", program[0], err, out)
		}
	}
	return os.Rename(tmp, path)
}

// takeConfigDrive copies the config drive to the guest's files, so that it lives as long as they do.
func (d *Driver) takeConfigDrive(spec *virt.Spec) error {
	if spec.ConfigDrive == "" {
		return nil
	}
	to := d.path(spec.ID, configDisk)
	if spec.ConfigDrive == to {
		return nil
	}
	from, err := os.Open(spec.ConfigDrive)
	if errors.Is(err, fs.ErrNotExist) && exists(to) {
		return nil // it was taken earlier, perhaps on another host
	}
	if err != nil {
		return fmt.Errorf("config drive: %w", err)
	}
	defer from.Close()
	return writeFile(to, from)
}

// writeFile writes a file whole or not at all, leaving holes where there are only zeros.
func writeFile(to string, from io.Reader) error {
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
