package configdrive

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
	"time"
	"unicode/utf16"

	"kilonova/internal/fault"
)

// The layout (ECMA-119): system area, primary descriptor, Joliet descriptor, terminator; path tables of both; directories of
// both; the data, which both share. All numbers that the standard wants in both byte orders are written so.
const (
	sector     = 2048
	firstBlock = 19 // behind the descriptors
)

// form is one of the two directory trees of an image.
type form struct {
	joliet bool
	at     time.Time
}

// isoImage makes an ISO 9660 image with Rock Ridge and Joliet names.
func isoImage(root *node, at time.Time) ([]byte, error) {
	root.shorten(20, 8)
	dirs := root.directories()
	plainForm, joliet := form{at: at}, form{joliet: true, at: at}
	block := uint32(firstBlock)
	tables := make([]uint32, 4) // plain little, plain big, Joliet little, Joliet big
	sizes := []int{plainForm.tableSize(dirs), joliet.tableSize(dirs)}
	for i := range tables {
		tables[i] = block
		block += blocks(sizes[i/2])
	}
	for _, f := range []form{plainForm, joliet} {
		for _, d := range dirs {
			n, err := f.directorySize(d)
			if err != nil {
				return nil, err
			}
			f.place(d, block)
			block += blocks(n)
		}
	}
	for _, d := range dirs {
		for _, k := range d.kids {
			if !k.dir {
				k.extent = block
				block += blocks(len(k.data))
			}
		}
	}
	img := make([]byte, int(block)*sector)
	for i, f := range []form{plainForm, joliet} {
		f.descriptor(img[(16+i)*sector:], root, block, sizes[i], tables[2*i], tables[2*i+1])
		f.pathTable(img[int(tables[2*i])*sector:], dirs, binary.LittleEndian)
		f.pathTable(img[int(tables[2*i+1])*sector:], dirs, binary.BigEndian)
		for _, d := range dirs {
			f.directory(img[int(f.block(d))*sector:], d)
		}
	}
	end := img[18*sector:]
	end[0], end[6] = 255, 1
	copy(end[1:], "CD001")
	for _, d := range dirs {
		for _, k := range d.kids {
			copy(img[int(k.extent)*sector:], k.data)
		}
	}
	return img, nil
}

func blocks(n int) uint32 { return uint32((n + sector - 1) / sector) } //nolint:gosec // drives are small

func (f form) place(d *node, block uint32) {
	if f.joliet {
		d.joliet = block
	} else {
		d.extent = block
	}
}

func (f form) block(d *node) uint32 {
	if f.joliet {
		return d.joliet
	}
	return d.extent
}

// name is a node's identifier.
func (f form) name(n *node) string {
	switch {
	case f.joliet:
		return ucs2(n.name)
	case n.dir:
		return n.short
	}
	return n.short + ";1" // the version, which plain names must have
}

func ucs2(s string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, byte(u>>8), byte(u))
	}
	return string(b)
}

// sorted gives the members of a directory in the order of their identifiers.
func (f form) sorted(d *node) []*node {
	kids := slices.Clone(d.kids)
	slices.SortFunc(kids, func(a, b *node) int { return cmp.Compare(f.name(a), f.name(b)) })
	return kids
}

// record makes a directory record of a node under a given identifier.
func (f form) record(n *node, id string, root bool) []byte {
	size, block := uint32(len(n.data)), n.extent //nolint:gosec // drives are small
	if n.dir {
		size, block = n.size, f.block(n)
	}
	r := make([]byte, 33, 64)
	both32(r[2:], block)
	both32(r[10:], size)
	copy(r[18:], shortTime(f.at))
	if n.dir {
		r[25] = 2
	}
	both16(r[28:], 1)
	r[32] = byte(len(id))
	r = append(r, id...)
	if len(id)%2 == 0 {
		r = append(r, 0)
	}
	if !f.joliet {
		r = append(r, f.systemUse(n, id, root)...)
	}
	if len(r)%2 == 1 {
		r = append(r, 0)
	}
	r[0] = byte(len(r))
	return r
}

// systemUse is what Rock Ridge (IEEE P1282) adds: on the root's own record that it is in use, then mode and owner, time, name.
func (f form) systemUse(n *node, id string, root bool) []byte {
	var b []byte
	if root {
		b = append(b, 'S', 'P', 7, 1, 0xbe, 0xef, 0)
	}
	px := make([]byte, 36)
	copy(px, []byte{'P', 'X', 36, 1})
	mode, links := uint32(0o100444), uint32(1)
	if n.dir {
		mode, links = 0o40555, 2
		for _, k := range n.kids {
			if k.dir {
				links++
			}
		}
	}
	both32(px[4:], mode)
	both32(px[12:], links)
	b = append(b, px...)
	b = append(b, 'T', 'F', 26, 1, 0x0e) // changed, read, attributes changed
	for range 3 {
		b = append(b, shortTime(f.at)...)
	}
	if id != "\x00" && id != "\x01" {
		b = append(b, 'N', 'M', byte(5+len(n.name)), 1, 0)
		b = append(b, n.name...)
	}
	if root {
		const extension = "RRIP_1991A"
		b = append(b, 'E', 'R', byte(8+len(extension)), 1, byte(len(extension)), 0, 0, 1)
		b = append(b, extension...)
	}
	return b
}

// records lists a directory's records: itself, its parent, its members.
func (f form) records(d *node) [][]byte {
	list := [][]byte{f.record(d, "\x00", d.parent == d), f.record(d.parent, "\x01", false)}
	for _, k := range f.sorted(d) {
		list = append(list, f.record(k, f.name(k), false))
	}
	return list
}

// directorySize is how many bytes a directory takes: records do not cross sectors.
func (f form) directorySize(d *node) (int, error) {
	n := 0
	for i, r := range f.records(d) {
		if len(r) > 254 {
			return 0, fault.New(fault.Invalid, "A name on a config drive is too long: %.150q.", d.kids[max(i-2, 0)].name)
		}
		if n%sector+len(r) > sector {
			n = (n/sector + 1) * sector
		}
		n += len(r)
	}
	n = int(blocks(n)) * sector
	d.size = uint32(n) //nolint:gosec // drives are small
	return n, nil
}

func (f form) directory(out []byte, d *node) {
	for _, x := range append([]*node{d, d.parent}, d.kids...) { // sizes are those of this form
		if x.dir {
			_, _ = f.directorySize(x) // was asked before
		}
	}
	n := 0
	for _, r := range f.records(d) {
		if n%sector+len(r) > sector {
			n = (n/sector + 1) * sector
		}
		n += copy(out[n:], r)
	}
}

// tableSize is the length of a path table.
func (f form) tableSize(dirs []*node) int {
	n := 0
	for _, d := range dirs {
		n += len(f.pathEntry(d, binary.LittleEndian))
	}
	return n
}

func (f form) pathEntry(d *node, order binary.ByteOrder) []byte {
	id := "\x00"
	if d.parent != d {
		id = f.name(d)
	}
	b := make([]byte, 8, 8+len(id)+1)
	b[0] = byte(len(id))
	order.PutUint32(b[2:], f.block(d))
	order.PutUint16(b[6:], uint16(d.parent.number)) //nolint:gosec // drives are small
	b = append(b, id...)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	return b
}

// pathTable lists all directories by level, parent and identifier.
func (f form) pathTable(out []byte, dirs []*node, order binary.ByteOrder) {
	sorted := []*node{dirs[0]}
	for i := 0; i < len(sorted); i++ {
		sorted[i].number = i + 1
		for _, k := range f.sorted(sorted[i]) {
			if k.dir {
				sorted = append(sorted, k)
			}
		}
	}
	for _, d := range sorted {
		out = out[copy(out, f.pathEntry(d, order)):]
	}
}

// descriptor writes a volume descriptor.
func (f form) descriptor(out []byte, root *node, total uint32, tableSize int, little, big uint32) {
	out[0], out[6], out[881] = 1, 1, 1
	copy(out[1:], "CD001")
	text := func(from, to int, s string) {
		pad := " "
		if f.joliet {
			s, pad = ucs2(s), "\x00 "
		}
		copy(out[from:to], s+strings.Repeat(pad, to-from))
	}
	if f.joliet {
		out[0] = 2
		copy(out[88:], "%/E") // UCS-2 level 3
	}
	text(8, 40, "LINUX")
	text(40, 72, Label)
	both32(out[80:], total)
	both16(out[120:], 1)
	both16(out[124:], 1)
	both16(out[128:], sector)
	both32(out[132:], uint32(tableSize)) //nolint:gosec // drives are small
	binary.LittleEndian.PutUint32(out[140:], little)
	binary.BigEndian.PutUint32(out[148:], big)
	_, _ = f.directorySize(root) // was asked before
	copy(out[156:190], bare(f.record(root, "\x00", false)))
	for _, field := range [][2]int{{190, 318}, {318, 446}, {446, 574}, {702, 739}, {739, 776}, {776, 813}} {
		text(field[0], field[1], "")
	}
	text(574, 702, "KILONOVA")
	stamp := f.at.Format("20060102150405") + "00\x00"
	copy(out[813:], stamp)
	copy(out[830:], stamp)
	copy(out[847:], strings.Repeat("0", 16)+"\x00") // never expires
	copy(out[864:], stamp)
}

// bare is a record without its system use area: the descriptor has room for 34 bytes.
func bare(r []byte) []byte {
	r = slices.Clone(r[:34])
	r[0] = 34
	return r
}

// shortTime is a time as directory records have it, in UTC.
func shortTime(t time.Time) []byte {
	return []byte{byte(t.Year() - 1900), byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second()), 0}
}

func both32(b []byte, v uint32) {
	binary.LittleEndian.PutUint32(b, v)
	binary.BigEndian.PutUint32(b[4:], v)
}

func both16(b []byte, v uint16) {
	binary.LittleEndian.PutUint16(b, v)
	binary.BigEndian.PutUint16(b[2:], v)
}
