package inspect

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

const (
	maxDescriptor = 1 << 20 // bytes of a VMDK descriptor that are read
	gdAtEnd       = ^uint64(0)
)

func isDescriptor(head []byte) bool {
	head = bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")), " \t\r\n")
	return bytes.HasPrefix(bytes.ToLower(head), []byte("# disk descriptorfile"))
}

// readVMDK accepts the two kinds of VMDK that are whole in one file: monolithicSparse and streamOptimized.
func readVMDK(f *file) (int64, error) {
	head := f.peek(0, 80)
	if !bytes.HasPrefix(head, []byte("KDMV")) {
		return 0, refuse("It is a VMDK whose extents are in other files, which the host would open.").
			WithHint("Convert it: qemu-img convert -O vmdk -o subformat=streamOptimized IMAGE NEW.")
	}
	version := f.le32(4)
	capacity, descOff, descLen, gd := f.le64(12), f.le64(28), f.le64(36), f.le64(56)
	if f.err != nil {
		return 0, f.err
	}
	if version < 1 || version > 3 {
		return 0, refuse("It is a VMDK of version %d; versions 1 to 3 are known.", version)
	}
	if gd == gdAtEnd { // stream-optimised: the valid header is the footer, 1,024 bytes before the end
		if string(f.bytes(f.size-1024, 4)) != "KDMV" {
			return 0, refuse("It is a streamed VMDK without its footer: the file is not complete.")
		}
		capacity = max(capacity, f.le64(f.size-1024+12))
	}
	if capacity > uint64(maxVirtual)/512 || descOff == 0 || descOff > 1<<12 || descLen == 0 || descLen > maxDescriptor/512 {
		return 0, refuse("Its VMDK header has no descriptor where one must be.")
	}
	n := min(int64(descLen)*512, max(0, f.size-int64(descOff)*512))
	text := f.bytes(int64(descOff)*512, int(n))
	if f.err != nil {
		return 0, f.err
	}
	text, _, _ = bytes.Cut(text, []byte{0})
	if !isDescriptor(text) {
		return 0, refuse("Its VMDK descriptor is missing.")
	}
	sectors, err := vmdkDescriptor(string(text))
	return int64(max(capacity, sectors)) * 512, err
}

// vmdkDescriptor judges the descriptor and gives the sectors of its extent.
func vmdkDescriptor(text string) (sectors uint64, err error) {
	extents, kind := 0, ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		words := strings.Fields(line)
		switch strings.ToUpper(words[0]) {
		case "RW", "RDONLY", "NOACCESS":
			extents++
			if sectors, err = vmdkExtent(words); err != nil {
				return 0, err
			}
			continue
		}
		key, value, _ := strings.Cut(line, "=")
		value = strings.Trim(strings.TrimSpace(value), `"`)
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "createtype":
			if kind != "" && kind != value {
				return 0, refuse("Its VMDK descriptor names two types.")
			}
			kind = value
		case "parentcid":
			if strings.ToLower(value) != "ffffffff" {
				return 0, refuse("It is a VMDK that builds on a parent image.")
			}
		case "parentfilenamehint":
			return 0, refuse("It is a VMDK that builds on a parent image.")
		}
	}
	if kind != "monolithicSparse" && kind != "streamOptimized" {
		return 0, refuse("It is a VMDK of type %.40q; monolithicSparse and streamOptimized are whole in one file and accepted.", kind)
	}
	if extents != 1 {
		return 0, refuse("Its VMDK descriptor has %d extents where a self-contained image has one.", extents)
	}
	return sectors, nil
}

func vmdkExtent(words []string) (uint64, error) {
	if len(words) < 4 || strings.ToUpper(words[2]) != "SPARSE" {
		return 0, refuse("It is a VMDK with an extent that is not inside the file.")
	}
	name := strings.Trim(strings.Join(words[3:], " "), `"`)
	if strings.ContainsAny(name, `/\:`) {
		return 0, refuse("It is a VMDK with an extent that is another file.")
	}
	sectors, err := strconv.ParseUint(words[1], 10, 53)
	if err != nil {
		return 0, refuse("Its VMDK descriptor has an extent without a size.")
	}
	return sectors, nil
}

// readVDI accepts dynamic and fixed images. The others (undo, difference) and links to another image need a parent.
func readVDI(f *file) (int64, error) {
	version, kind, size := f.le32(0x44), f.le32(0x4c), f.le64(0x170)
	links := f.bytes(0x1a8, 32)
	switch {
	case f.err != nil:
		return 0, f.err
	case version != 0x00010001:
		return 0, refuse("It is a VDI of version %d.%d; version 1.1 is known.", version>>16, version&0xffff)
	case kind != 1 && kind != 2:
		return 0, refuse("It is a VDI that builds on a parent image.")
	case !bytes.Equal(links, make([]byte, 32)):
		return 0, refuse("It is a VDI that links to another image.")
	}
	return size64(size)
}

// readVHD reads the footer of a Virtual PC disk, or its copy at the start of a dynamic one.
func readVHD(f *file) (int64, error) {
	at := int64(0)
	if string(f.peek(0, 8)) != "conectix" {
		at = f.size - footer
	}
	size, kind := f.be64(at+48), f.be32(at+60)
	switch {
	case f.err != nil:
		return 0, f.err
	case kind == 4:
		return 0, refuse("It is a differencing VHD, which builds on a parent image.")
	case kind == 2 && at == 0 && f.size < footer+int64(min(size, uint64(maxVirtual)-footer)):
		return 0, refuse("It is a fixed VHD that is shorter than its size.")
	case kind != 2 && kind != 3:
		return 0, refuse("It is a VHD of the unknown type %d.", kind)
	case kind == 3:
		table := f.be64(16)
		if table > uint64(f.size) || string(f.peek(int64(min(table, uint64(maxVirtual))), 8)) != "cxsparse" {
			return 0, refuse("It is a dynamic VHD without its block table.")
		}
	}
	return size64(size)
}

const (
	vhdxRegions      = 192 << 10
	vhdxMetadata     = "06A27C8B-9047-9A4B-B8FE-575F050F886E"
	vhdxBAT          = "6677C22D-23F6-0042-9D64-115E9BFD4A08"
	vhdxParameters   = "3767A1CA-36FA-434D-B3B6-33F0AA44E76B"
	vhdxVirtualSize  = "2442A52F-1BCD-7648-B211-5DBED83BF4B8"
	vhdxLogical      = "1DBF4181-6FA9-0947-BA47-F233A8FAAB5F"
	vhdxPhysical     = "C748A3CD-5D44-7144-9CC9-E9885251C556"
	vhdxPage83       = "AB12CABE-E6B2-2345-93EF-C309E000C746"
	vhdxParent       = "2D5FD3A8-0BB3-4D45-ABF7-D3D84834AB0C"
	vhdxMaxEntries   = 64
	vhdxRequiredItem = 1 << 2
)

// vhdxGUID is a GUID's bytes in file order, so that it compares with the constants above without byte swaps.
func vhdxGUID(b []byte) string {
	return fmt.Sprintf("%X-%X-%X-%X-%X", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// readVHDX walks region table and metadata table. An entry that is required and unknown refuses the image, as the format asks.
func readVHDX(f *file) (int64, error) {
	if string(f.bytes(vhdxRegions, 4)) != "regi" {
		return 0, refuse("It is a VHDX without its region table.")
	}
	n := f.le32(vhdxRegions + 8)
	if n > vhdxMaxEntries {
		return 0, refuse("It is a VHDX with %d regions.", n)
	}
	// The table is there twice and must be the same: which of the two a reader takes differs between programs.
	if table := 16 + 32*int(n); !bytes.Equal(f.bytes(vhdxRegions, table), f.bytes(vhdxRegions+64<<10, table)) {
		return 0, refuse("It is a VHDX whose two region tables differ.")
	}
	meta := int64(-1)
	for i := range int64(n) {
		e := f.bytes(vhdxRegions+16+32*i, 32)
		switch guid := vhdxGUID(e); {
		case guid == vhdxMetadata:
			off := binary.LittleEndian.Uint64(e[16:])
			if off > uint64(f.size) {
				return 0, refuse("It is a VHDX whose metadata lie behind its end.")
			}
			meta = int64(off)
		case guid != vhdxBAT && binary.LittleEndian.Uint32(e[28:])&1 != 0:
			return 0, refuse("It is a VHDX that needs an unknown region (%s).", guid)
		}
	}
	if meta < 0 || f.err != nil || string(f.bytes(meta, 8)) != "metadata" {
		if f.err != nil {
			return 0, f.err
		}
		return 0, refuse("It is a VHDX without its metadata.")
	}
	return vhdxItems(f, meta)
}

func vhdxItems(f *file, meta int64) (int64, error) {
	n := int64(binary.LittleEndian.Uint16(f.bytes(meta+10, 2)))
	if n > vhdxMaxEntries {
		return 0, refuse("It is a VHDX with %d metadata items.", n)
	}
	size := int64(-1)
	for i := range n {
		e := f.bytes(meta+32+32*i, 32)
		at := meta + int64(binary.LittleEndian.Uint32(e[16:]))
		switch guid := vhdxGUID(e); guid {
		case vhdxParameters:
			if f.le32(at+4)&2 != 0 {
				return 0, refuse("It is a differencing VHDX, which builds on a parent image.")
			}
		case vhdxParent:
			return 0, refuse("It is a differencing VHDX, which builds on a parent image.")
		case vhdxVirtualSize:
			v, err := size64(f.le64(at))
			if err != nil {
				return 0, err
			}
			size = v
		case vhdxLogical, vhdxPhysical, vhdxPage83:
		default:
			if f.err == nil && binary.LittleEndian.Uint32(e[24:])&vhdxRequiredItem != 0 {
				return 0, refuse("It is a VHDX that needs an unknown metadata item (%s).", guid)
			}
		}
	}
	if size < 0 && f.err == nil {
		return 0, refuse("It is a VHDX without a virtual size.")
	}
	return size, f.err
}
