// Package inspect reads the headers of disk images without running any tool and without trusting a word of them.
//
// It tells the format and the virtual size of an image, and refuses images that would make a hypervisor or a conversion tool
// read or write something else than the image itself: a backing file, a parent, an external data file, extents in other files,
// features that nobody here knows, a virtual size beyond the limit, or a format other than the declared one.
//
// The package is pure: it reads what it is given (an io.ReaderAt, or a stream through Stream) and nothing else, keeps no state,
// allocates a bounded amount whatever the image says, and does not panic on any input (there is a fuzz test).
package inspect

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"kilonova/internal/fault"
)

// The formats that Detect gives. Raw is everything that is nothing else; GPT and MBR are raw disks with a partition table.
const (
	Raw   = "raw"
	QCOW2 = "qcow2"
	VMDK  = "vmdk"
	VDI   = "vdi"
	VHD   = "vhd"
	VHDX  = "vhdx"
	ISO   = "iso"
	QED   = "qed"
	LUKS  = "luks"
	GPT   = "gpt"
	MBR   = "mbr"
	Ploop = "ploop"
)

// Info is what the header of an image says.
type Info struct {
	Format      string
	VirtualSize int64 // bytes of the disk that a guest would see
}

// Policy is what an image is measured against.
type Policy struct {
	// Declared is the image's disk_format; "" accepts any format that is safe.
	Declared string
	// MaxVirtual is the largest virtual size in bytes; 0: no limit.
	MaxVirtual int64
	// Wrapped tells that the data is the container's (ova, docker, compressed …) and not the disk itself: the
	// format is then not compared with the declared one.
	Wrapped bool
}

// maxVirtual is above every real disk (8 EiB would overflow an int64).
const maxVirtual = int64(1) << 62

// accepts lists what may be found under a declared disk_format. The kernel and ramdisk formats of Amazon images, and raw, are
// opaque bytes; a disk with a partition table, a filesystem of a CD or an encrypted volume inside is raw too.
var accepts = map[string][]string{
	"raw": {Raw, GPT, MBR, ISO, LUKS}, "ami": {Raw, GPT, MBR, ISO}, "ari": {Raw, GPT, MBR}, "aki": {Raw, GPT, MBR},
	"qcow2": {QCOW2}, "vmdk": {VMDK}, "vdi": {VDI}, "vhd": {VHD}, "vhdx": {VHDX}, "iso": {ISO}, "ploop": {Ploop},
}

// Check inspects the image of size bytes that r reads and holds it against p. The error is a fault.Invalid whose text tells
// the user what is wrong and what to do.
func Check(r io.ReaderAt, size int64, p Policy) (Info, error) {
	info, err := Inspect(r, size)
	if err != nil {
		return info, err
	}
	if p.Declared != "" && !p.Wrapped && !slices.Contains(accepts[p.Declared], info.Format) {
		return info, refuse("Its content is of the format %s although its disk_format says %s.", info.Format, p.Declared).
			WithHint("Create the image with the disk_format of its content, or convert it with qemu-img convert.")
	}
	if p.MaxVirtual > 0 && info.VirtualSize > p.MaxVirtual {
		return info, refuse("Its virtual size is %d bytes; the largest that is allowed here is %d.", info.VirtualSize, p.MaxVirtual)
	}
	return info, nil
}

// Inspect gives format and virtual size of the image of size bytes that r reads. It fails with fault.Invalid for an image
// that refers to anything outside itself, uses features that are unknown, or is damaged where the header is.
func Inspect(r io.ReaderAt, size int64) (Info, error) {
	f := &file{r: r, size: size}
	info := Info{Format: f.detect()}
	read := map[string]func(*file) (int64, error){
		QCOW2: readQCOW2, VMDK: readVMDK, VDI: readVDI, VHD: readVHD, VHDX: readVHDX, QED: readQED, LUKS: readLUKS, Ploop: readPloop,
	}[info.Format]
	if read == nil {
		info.VirtualSize = size
		return info, nil
	}
	v, err := read(f)
	if err == nil {
		err = f.err
	}
	if err == nil && (v < 0 || v > maxVirtual) {
		err = refuse("Its %s header gives a virtual size that no disk has.", info.Format)
	}
	if err != nil {
		return info, err
	}
	info.VirtualSize = v
	return info, nil
}

func refuse(format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, "The image was refused. "+format, args...)
}

// file reads fixed-size pieces and remembers the first failure, so that a reader of a header needs no check per field.
type file struct {
	r    io.ReaderAt
	size int64
	err  error
}

// bytes gives n bytes at off, zeros where the file ends before (err is then set unless the caller asked softly with peek).
func (f *file) bytes(off int64, n int) []byte {
	b := make([]byte, n)
	if f.err != nil {
		return b
	}
	if off < 0 || off > f.size || int64(n) > f.size-off {
		f.err = refuse("It ends inside its own header.")
		return b
	}
	if _, err := f.r.ReadAt(b, off); err != nil && err != io.EOF {
		f.err = refuse("Its header could not be read to the end: a part of it lies where it is not looked for.")
		return make([]byte, n)
	}
	return b
}

// peek is bytes for detection: what is not there is zeros and no error.
func (f *file) peek(off int64, n int) []byte {
	b := make([]byte, n)
	if off < 0 || off >= f.size {
		return b
	}
	got, _ := f.r.ReadAt(b[:min(int64(n), f.size-off)], off)
	clear(b[got:])
	return b
}

func (f *file) be32(off int64) uint32 { return binary.BigEndian.Uint32(f.bytes(off, 4)) }
func (f *file) be64(off int64) uint64 { return binary.BigEndian.Uint64(f.bytes(off, 8)) }
func (f *file) le32(off int64) uint32 { return binary.LittleEndian.Uint32(f.bytes(off, 4)) }
func (f *file) le64(off int64) uint64 { return binary.LittleEndian.Uint64(f.bytes(off, 8)) }

// footer is the length of what formats keep at the end of a file.
const footer = 512

func (f *file) detect() string {
	head := f.peek(0, 4104)
	switch {
	case bytes.HasPrefix(head, []byte("QFI\xfb")):
		return QCOW2
	case bytes.HasPrefix(head, []byte("QED\x00")):
		return QED
	case bytes.HasPrefix(head, []byte("KDMV")), bytes.HasPrefix(head, []byte("COWD")), isDescriptor(head):
		return VMDK
	case bytes.HasPrefix(head, []byte("vhdxfile")):
		return VHDX
	case bytes.HasPrefix(head, []byte("conectix")):
		return VHD
	case binary.LittleEndian.Uint32(head[0x40:]) == 0xbeda107f:
		return VDI
	case bytes.HasPrefix(head, []byte("LUKS\xba\xbe")):
		return LUKS
	case bytes.HasPrefix(head, []byte("WithoutFreeSpace")), bytes.HasPrefix(head, []byte("WithouFreSpacExt")):
		return Ploop
	case bytes.HasPrefix(f.peek(f.size-footer, footer), []byte("conectix")):
		return VHD // a fixed one has only the footer
	case string(f.peek(0x8001, 5)) == "CD001":
		return ISO
	}
	return partitioned(head)
}

// partitioned tells a partition table from other boot sectors: every entry must look like one, and at least one be in use.
func partitioned(head []byte) string {
	if head[510] != 0x55 || head[511] != 0xaa {
		return Raw
	}
	used, protective := 0, false
	for i := range 4 {
		e := head[446+16*i:][:16]
		if e[0] != 0 && e[0] != 0x80 {
			return Raw
		}
		if e[4] != 0 {
			used++
			protective = protective || e[4] == 0xee
		}
	}
	switch {
	case protective && (string(head[512:520]) == "EFI PART" || string(head[4096:4104]) == "EFI PART"):
		return GPT
	case used > 0:
		return MBR
	}
	return Raw
}

func size64(v uint64) (int64, error) {
	if v > uint64(maxVirtual) {
		return 0, fmt.Errorf("size %d: %w", v, refuse("Its header gives a virtual size that no disk has."))
	}
	return int64(v), nil
}
