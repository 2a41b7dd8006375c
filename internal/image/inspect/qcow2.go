package inspect

// Bits of qcow2's incompatible features (QEMU docs/interop/qcow2.rst): dirty, corrupt, external data file, compression type,
// extended L2 entries. Whoever meets a bit that he does not know must not open the image.
const (
	qcow2Corrupt  = 1 << 1
	qcow2DataFile = 1 << 2
	qcow2Known    = 1<<5 - 1

	qcow2ExtDataFile = 0x44415441
	qcow2MaxExts     = 64
)

func readQCOW2(f *file) (int64, error) {
	version := f.be32(4)
	if f.err != nil {
		return 0, f.err
	}
	if version != 2 && version != 3 {
		return 0, refuse("It is a qcow image of version %d; versions 2 and 3 are known.", version)
	}
	if f.be64(8) != 0 {
		return 0, refuse("It has a backing file, which would make the host read another file.").
			WithHint("Flatten it: qemu-img convert -O qcow2 IMAGE NEW.")
	}
	if bits := f.be32(20); f.err == nil && (bits < 9 || bits > 21) {
		return 0, refuse("Its qcow2 cluster size of 2^%d bytes is not allowed.", bits)
	}
	if f.be32(32) != 0 {
		return 0, refuse("It is an encrypted qcow2 image, and the cloud has no key for it.")
	}
	length := int64(72)
	if version == 3 {
		features := f.be64(72)
		length = int64(f.be32(100))
		switch {
		case f.err != nil:
			return 0, f.err
		case features&qcow2DataFile != 0:
			return 0, refuse("It keeps its data in an external file.").WithHint("Convert it: qemu-img convert -O qcow2 IMAGE NEW.")
		case features&qcow2Corrupt != 0:
			return 0, refuse("It is marked as corrupt.").WithHint("Repair it: qemu-img check -r all IMAGE.")
		case features&^uint64(qcow2Known) != 0:
			return 0, refuse("It needs qcow2 features that are unknown here (%#x).", features&^uint64(qcow2Known))
		case length < 104 || length > 1<<16:
			return 0, refuse("Its qcow2 header has the impossible length %d.", length)
		}
	}
	if err := qcow2Extensions(f, length); err != nil {
		return 0, err
	}
	return size64(f.be64(24))
}

// qcow2Extensions walks the header extensions, which end with type 0.
func qcow2Extensions(f *file, off int64) error {
	for range qcow2MaxExts {
		if off+8 > f.size {
			return nil
		}
		kind, n := f.be32(off), int64(f.be32(off+4))
		switch {
		case f.err != nil:
			return f.err
		case kind == 0:
			return nil
		case kind == qcow2ExtDataFile:
			return refuse("It names an external data file.").WithHint("Convert it: qemu-img convert -O qcow2 IMAGE NEW.")
		case n > 1<<16:
			return refuse("It has a qcow2 header extension of %d bytes, longer than any known.", n)
		}
		off += 8 + (n+7)&^7
	}
	return refuse("It has more than %d qcow2 header extensions.", qcow2MaxExts)
}

// readQED reads the header of QEMU's enhanced disk format: feature bit 0 is a backing file.
func readQED(f *file) (int64, error) {
	features, size := f.le64(16), f.le64(48)
	switch {
	case f.err != nil:
		return 0, f.err
	case features&1 != 0:
		return 0, refuse("It has a backing file, which would make the host read another file.")
	case features&^uint64(7) != 0:
		return 0, refuse("It needs qed features that are unknown here (%#x).", features&^uint64(7))
	}
	return size64(size)
}

// readLUKS gives the size of what is encrypted. Version 1 has the payload's offset in its header, version 2 in a JSON area
// that is not read: the whole file is then taken.
func readLUKS(f *file) (int64, error) {
	b := f.bytes(0, 108)
	if f.err != nil {
		return 0, f.err
	}
	switch version := int(b[6])<<8 | int(b[7]); version {
	case 1:
		offset := int64(f.be32(104)) * 512
		if offset > f.size {
			return 0, refuse("Its LUKS header puts the data behind the end of the file.")
		}
		return f.size - offset, nil
	case 2:
		return f.size, nil
	default:
		return 0, refuse("It is a LUKS volume of version %d; versions 1 and 2 are known.", version)
	}
}

func readPloop(f *file) (int64, error) {
	magic, sectors := f.bytes(0, 16), f.le64(36)
	if string(magic) == "WithoutFreeSpace" {
		sectors &= 1<<32 - 1
	}
	if sectors > uint64(maxVirtual)/512 {
		return 0, refuse("Its header gives a virtual size that no disk has.")
	}
	return int64(sectors) * 512, nil
}
