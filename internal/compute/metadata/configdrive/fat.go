package configdrive

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
	"time"
	"unicode/utf16"

	"kilonova/internal/fault"
)

// The layout of the vfat drive: FAT16 with clusters of 2 KiB, as the usual tools make for this size.
const (
	fatSector    = 512
	fatCluster   = 4 * fatSector
	fatReserved  = 4
	fatRootSlots = 512
	fatTotal     = vfatSize / fatSector
	fatRootSize  = fatRootSlots * 32 / fatSector // sectors
	// The table has an entry of two bytes for each cluster and two more; taking all sectors as clusters is a little too many.
	fatTable    = ((fatTotal-fatReserved-fatRootSize)/(fatCluster/fatSector)*2 + 4 + fatSector - 1) / fatSector
	fatData     = fatReserved + 2*fatTable + fatRootSize // first sector of cluster 2
	fatClusters = (fatTotal - fatData) / (fatCluster / fatSector)
)

// Attributes of directory entries.
const (
	attrLabel   = 0x08
	attrDir     = 0x10
	attrArchive = 0x20
	attrLong    = 0x0f
)

type fat struct {
	img  []byte
	next int // first free cluster
	at   time.Time
}

// fatImage makes the used part of a FAT16 filesystem of vfatSize bytes.
func fatImage(root *node, at time.Time) ([]byte, error) {
	used, sum := 2, crc32.NewIEEE()
	var measure func(n *node) int
	measure = func(n *node) int {
		if !n.dir {
			_, _ = sum.Write([]byte(n.name))
			_, _ = sum.Write(n.data)
			return clusters(len(n.data))
		}
		total := 0
		if n.parent != n {
			total = clusters(32 * slots(n))
		}
		for _, k := range n.kids {
			total += measure(k)
		}
		return total
	}
	if used += measure(root); used-2 > fatClusters || slots(root) > fatRootSlots {
		return nil, fault.New(fault.Invalid, "The content of the config drive does not fit into %d MiB.", vfatSize>>20)
	}
	shortNames(root)
	f := &fat{img: make([]byte, fatData*fatSector+(used-2)*fatCluster), next: 2, at: at}
	f.boot(sum.Sum32())
	f.set(0, 0xfff8)
	f.set(1, 0xffff)
	f.children(root)
	f.directory(root, f.img[(fatData-fatRootSize)*fatSector:])
	copy(f.img[(fatReserved+fatTable)*fatSector:], f.img[fatReserved*fatSector:(fatReserved+fatTable)*fatSector])
	return f.img, nil
}

func clusters(n int) int { return (n + fatCluster - 1) / fatCluster }

// slots is the number of directory entries of a directory, its label or its two dots among them.
func slots(n *node) int {
	total := 2
	for _, k := range n.kids {
		total += 1 + longSlots(k.name)
	}
	return total
}

func longSlots(name string) int { return (len(utf16.Encode([]rune(name))) + 12) / 13 }

// shortNames gives every node an 8.3 name as eleven bytes, unique in its directory. The tail number keeps it apart from
// any name that a guest may have meant.
func shortNames(n *node) {
	for i, k := range n.kids {
		name, ext, _ := strings.Cut(k.name, ".")
		if k.dir {
			ext = ""
		}
		tail := fmt.Sprintf("~%d", i+1)
		base := plain(name, 8-len(tail)) + tail
		k.short = fmt.Sprintf("%-8s%-3s", base, plain(ext, 3))
		shortNames(k)
	}
}

func (f *fat) boot(serial uint32) {
	b := f.img
	le := binary.LittleEndian
	copy(b, "\xeb\x3c\x90KILONOVA")
	le.PutUint16(b[11:], fatSector)
	b[13] = fatCluster / fatSector
	le.PutUint16(b[14:], fatReserved)
	b[16] = 2 // tables
	le.PutUint16(b[17:], fatRootSlots)
	b[21] = 0xf8 // a fixed disk
	le.PutUint16(b[22:], fatTable)
	le.PutUint16(b[24:], 32) // sectors of a track
	le.PutUint16(b[26:], 64) // heads
	le.PutUint32(b[32:], fatTotal)
	b[36], b[38] = 0x80, 0x29
	le.PutUint32(b[39:], serial)
	copy(b[43:], fmt.Sprintf("%-11s", Label))
	copy(b[54:], "FAT16   ")
	b[510], b[511] = 0x55, 0xaa
}

// set writes an entry of the first table; the second is a copy made at the end.
func (f *fat) set(cluster int, v uint16) {
	binary.LittleEndian.PutUint16(f.img[fatReserved*fatSector+2*cluster:], v)
}

// allocate chains the clusters for n bytes and gives the first with the room for them; 0 for nothing.
func (f *fat) allocate(n int) (first int, room []byte) {
	count := clusters(n)
	if count == 0 {
		return 0, nil
	}
	first = f.next
	for i := range count {
		v := uint16(first + i + 1) //nolint:gosec // FAT16 has fewer than 65,525 clusters
		if i == count-1 {
			v = 0xffff
		}
		f.set(first+i, v)
	}
	f.next += count
	from := fatData*fatSector + (first-2)*fatCluster
	return first, f.img[from : from+count*fatCluster]
}

// children places everything below a directory, deepest last, so that a directory's entries know where its members are.
func (f *fat) children(d *node) {
	for _, k := range d.kids {
		if !k.dir {
			first, room := f.allocate(len(k.data))
			copy(room, k.data)
			k.extent = uint32(first) //nolint:gosec // see above
			continue
		}
		first, room := f.allocate(32 * slots(k))
		k.extent = uint32(first) //nolint:gosec // see above
		f.children(k)
		f.directory(k, room)
	}
}

// directory writes the entries of a directory.
func (f *fat) directory(d *node, out []byte) {
	if d.parent == d {
		out = f.entry(out, fmt.Sprintf("%-11s", Label), attrLabel, 0, 0)
	} else {
		out = f.entry(out, ".          ", attrDir, d.extent, 0)
		out = f.entry(out, "..         ", attrDir, d.parent.extent, 0) // the root's is 0
	}
	for _, k := range d.kids {
		out = longName(out, k)
		if k.dir {
			out = f.entry(out, k.short, attrDir, k.extent, 0)
		} else {
			out = f.entry(out, k.short, attrArchive, k.extent, len(k.data))
		}
	}
}

func (f *fat) entry(out []byte, name string, attr byte, cluster uint32, size int) []byte {
	le := binary.LittleEndian
	copy(out, name)
	out[11] = attr
	clock := uint16(f.at.Hour()<<11 | f.at.Minute()<<5 | f.at.Second()/2)     //nolint:gosec // five, six and five bits
	date := uint16((f.at.Year()-1980)<<9 | int(f.at.Month())<<5 | f.at.Day()) //nolint:gosec // seven, four and five bits
	le.PutUint16(out[14:], clock)
	le.PutUint16(out[16:], date)
	le.PutUint16(out[18:], date)
	le.PutUint16(out[22:], clock)
	le.PutUint16(out[24:], date)
	le.PutUint16(out[26:], uint16(cluster)) //nolint:gosec // see allocate
	le.PutUint32(out[28:], uint32(size))    //nolint:gosec // the drive has 64 MiB
	return out[32:]
}

// longName writes the entries with the full name, the last part first, bound to the short name by its checksum.
func longName(out []byte, n *node) []byte {
	var sum byte
	for _, c := range []byte(n.short) {
		sum = sum>>1 | sum<<7
		sum += c
	}
	units := utf16.Encode([]rune(n.name))
	count := longSlots(n.name)
	if len(units) < 13*count {
		units = append(units, 0)
	}
	for len(units) < 13*count {
		units = append(units, 0xffff)
	}
	for i := count; i > 0; i-- {
		out[0] = byte(i)
		if i == count {
			out[0] |= 0x40
		}
		out[11], out[13] = attrLong, sum
		part := units[13*(i-1) : 13*i]
		for j, at := range []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
			binary.LittleEndian.PutUint16(out[at:], part[j])
		}
		out = out[32:]
	}
	return out
}
