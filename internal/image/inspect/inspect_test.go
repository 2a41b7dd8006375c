package inspect_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kilonova/internal/fault"
	"kilonova/internal/image/inspect"
)

// qemu makes an image with the real tool and gives its bytes.
func qemu(t testing.TB, args ...string) []byte {
	t.Helper()
	tool, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("qemu-img is not installed")
	}
	dir := t.TempDir()
	name := filepath.Join(dir, "image")
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "DIR", dir)
	}
	if err := os.WriteFile(filepath.Join(dir, "base.raw"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	args = append(args, name)
	if args[0] == "create" {
		args = append(args, "8M")
	}
	if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %v: %v: %s", args, err, out)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func both(t testing.TB, data []byte, p inspect.Policy) (inspect.Info, error) {
	t.Helper()
	info, err := inspect.Check(bytes.NewReader(data), int64(len(data)), p)
	var s inspect.Stream
	for chunk := range slices.Chunk(data, 37777) {
		if e := s.Early(p); e != nil && err == nil {
			t.Fatalf("the early look refuses a good image: %v", e)
		}
		_, _ = s.Write(chunk)
	}
	got, serr := s.Check(p)
	if got != info || (serr == nil) != (err == nil) {
		t.Fatalf("stream says %+v %v, file says %+v %v", got, serr, info, err)
	}
	return info, err
}

func TestRealImages(t *testing.T) {
	const size = 8 << 20
	for name, c := range map[string]struct {
		args   []string
		format string
	}{
		"qcow2":          {[]string{"create", "-q", "-f", "qcow2"}, inspect.QCOW2},
		"qcow2 v2":       {[]string{"create", "-q", "-f", "qcow2", "-o", "compat=0.10"}, inspect.QCOW2},
		"qcow2 l2":       {[]string{"create", "-q", "-f", "qcow2", "-o", "extended_l2=on"}, inspect.QCOW2},
		"qed":            {[]string{"create", "-q", "-f", "qed"}, inspect.QED},
		"vmdk":           {[]string{"create", "-q", "-f", "vmdk"}, inspect.VMDK},
		"vmdk stream":    {[]string{"create", "-q", "-f", "vmdk", "-o", "subformat=streamOptimized"}, inspect.VMDK},
		"vdi":            {[]string{"create", "-q", "-f", "vdi"}, inspect.VDI},
		"vdi static":     {[]string{"create", "-q", "-f", "vdi", "-o", "static=on"}, inspect.VDI},
		"vhd":            {[]string{"create", "-q", "-f", "vpc", "-o", "force_size=on"}, inspect.VHD},
		"vhd fixed":      {[]string{"create", "-q", "-f", "vpc", "-o", "subformat=fixed,force_size=on"}, inspect.VHD},
		"vhdx":           {[]string{"create", "-q", "-f", "vhdx"}, inspect.VHDX},
		"vhdx fixed":     {[]string{"create", "-q", "-f", "vhdx", "-o", "subformat=fixed"}, inspect.VHDX},
		"parallels":      {[]string{"create", "-q", "-f", "parallels"}, inspect.Ploop},
		"raw":            {[]string{"create", "-q", "-f", "raw"}, inspect.Raw},
		"converted vmdk": {[]string{"convert", "-O", "vmdk", "-o", "subformat=streamOptimized", "DIR/base.raw"}, inspect.VMDK},
	} {
		t.Run(name, func(t *testing.T) {
			data := qemu(t, c.args...)
			want := int64(size)
			if c.args[0] == "convert" {
				want = 1 << 20
			}
			info, err := both(t, data, inspect.Policy{})
			if err != nil || info.Format != c.format || info.VirtualSize != want {
				t.Fatalf("%+v, %v; want %s of %d bytes", info, err, c.format, want)
			}
			if _, err := both(t, data, inspect.Policy{MaxVirtual: want - 1}); !errors.Is(err, fault.Invalid) {
				t.Fatalf("size bomb accepted: %v", err)
			}
			other := "qcow2"
			if c.format == inspect.QCOW2 {
				other = "raw"
			}
			if _, err := both(t, data, inspect.Policy{Declared: other}); !errors.Is(err, fault.Invalid) {
				t.Fatalf("a lie about the format was accepted: %v", err)
			}
		})
	}
}

func TestRefusedRealImages(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		text string
	}{
		"backing file":   {[]string{"create", "-q", "-f", "qcow2", "-F", "raw", "-b", "DIR/base.raw"}, "backing file"},
		"data file":      {[]string{"create", "-q", "-f", "qcow2", "-o", "data_file=DIR/data"}, "external file"},
		"qed backing":    {[]string{"create", "-q", "-f", "qed", "-F", "raw", "-b", "DIR/base.raw"}, "backing file"},
		"vmdk flat":      {[]string{"create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat"}, "other files"},
		"vmdk two parts": {[]string{"create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse"}, "other files"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := both(t, qemu(t, c.args...), inspect.Policy{})
			if !errors.Is(err, fault.Invalid) || !strings.Contains(fault.PublicText(err), c.text) {
				t.Fatalf("want a refusal about %q, got %v", c.text, err)
			}
		})
	}
}

// qcow2 is a smallest header; edit changes it.
func qcow2(edit func(b []byte)) []byte {
	b := make([]byte, 1<<16)
	copy(b, "QFI\xfb")
	be := binary.BigEndian
	be.PutUint32(b[4:], 3)
	be.PutUint32(b[20:], 16)
	be.PutUint64(b[24:], 1<<30)
	be.PutUint32(b[100:], 112)
	edit(b)
	return b
}

func vmdk(descriptor string) []byte {
	b := make([]byte, 1<<16)
	copy(b, "KDMV")
	le := binary.LittleEndian
	le.PutUint32(b[4:], 1)
	le.PutUint64(b[12:], 2048)
	le.PutUint64(b[28:], 1)
	le.PutUint64(b[36:], 20)
	copy(b[512:], descriptor)
	return b
}

func TestCraftedHeaders(t *testing.T) {
	be := binary.BigEndian
	good := "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\nRW 2048 SPARSE \"a.vmdk\"\n"
	for name, c := range map[string]struct {
		data []byte
		text string // "": accepted
	}{
		"plain qcow2":        {qcow2(func([]byte) {}), ""},
		"version 1":          {qcow2(func(b []byte) { be.PutUint32(b[4:], 1) }), "version 1"},
		"unknown feature":    {qcow2(func(b []byte) { be.PutUint64(b[72:], 1<<40) }), "unknown here"},
		"encrypted":          {qcow2(func(b []byte) { be.PutUint32(b[32:], 2) }), "encrypted"},
		"luks 3":             {append([]byte("LUKS\xba\xbe\x00\x03"), make([]byte, 512)...), "version 3"},
		"luks 2":             {append([]byte("LUKS\xba\xbe\x00\x02"), make([]byte, 512)...), ""},
		"luks payload":       {append([]byte("LUKS\xba\xbe\x00\x01"), bytes.Repeat([]byte{9}, 512)...), "behind the end"},
		"corrupt":            {qcow2(func(b []byte) { be.PutUint64(b[72:], 2) }), "corrupt"},
		"dirty":              {qcow2(func(b []byte) { be.PutUint64(b[72:], 1) }), ""},
		"cluster bits":       {qcow2(func(b []byte) { be.PutUint32(b[20:], 60) }), "cluster size"},
		"negative size":      {qcow2(func(b []byte) { be.PutUint64(b[24:], 1<<63) }), "no disk has"},
		"long header":        {qcow2(func(b []byte) { be.PutUint32(b[100:], 1<<31) }), "impossible length"},
		"data file name":     {qcow2(func(b []byte) { be.PutUint32(b[112:], 0x44415441); be.PutUint32(b[116:], 8) }), "external data file"},
		"huge extension":     {qcow2(func(b []byte) { be.PutUint32(b[112:], 7); be.PutUint32(b[116:], 1<<30) }), "header extension"},
		"hidden data file":   {qcow2(func(b []byte) { be.PutUint32(b[112:], 7); be.PutUint32(b[116:], 3); be.PutUint32(b[128:], 0x44415441) }), "external data file"},
		"short":              {qcow2(func([]byte) {})[:50], "ends inside"},
		"vmdk":               {vmdk(good), ""},
		"vmdk parent":        {vmdk(strings.Replace(good, "ffffffff", "12345678", 1)), "parent"},
		"vmdk hint":          {vmdk(good + "parentFileNameHint=\"/etc/passwd\"\n"), "parent"},
		"vmdk path":          {vmdk(strings.Replace(good, "a.vmdk", "/etc/passwd", 1)), "another file"},
		"vmdk flat extent":   {vmdk(strings.Replace(good, "SPARSE", "FLAT", 1)), "not inside"},
		"vmdk two extents":   {vmdk(good + "RW 1 SPARSE \"b.vmdk\"\n"), "2 extents"},
		"vmdk type":          {vmdk(strings.Replace(good, "monolithicSparse", "vmfs", 1)), "type"},
		"vmdk two types":     {vmdk(good + "createType=\"monolithicFlat\"\n"), "two types"},
		"vmdk no descriptor": {vmdk("hello"), "descriptor"},
		"vmdk text":          {[]byte("# Disk DescriptorFile\nRW 1 FLAT \"/etc/passwd\" 0\n"), "other files"},
		"empty":              {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := both(t, c.data, inspect.Policy{})
			if c.text == "" && err != nil || c.text != "" && (!errors.Is(err, fault.Invalid) || !strings.Contains(fault.PublicText(err), c.text)) {
				t.Fatalf("want %q, got %v", c.text, err)
			}
		})
	}
}

func TestDisksWithoutHeader(t *testing.T) {
	boot := func(kind byte, gpt bool) []byte {
		b := make([]byte, 1<<20)
		b[446], b[450], b[510], b[511] = 0x80, kind, 0x55, 0xaa
		if gpt {
			copy(b[512:], "EFI PART")
		}
		return b
	}
	iso := make([]byte, 1<<17)
	copy(iso[0x8001:], "CD001")
	fat := boot(0, false)
	fat[446] = 0x33
	for name, c := range map[string]struct {
		data           []byte
		format, refuse string
	}{
		"mbr": {boot(0x83, false), inspect.MBR, "qcow2"}, "gpt": {boot(0xee, true), inspect.GPT, "iso"},
		"protective without gpt": {boot(0xee, false), inspect.MBR, "vmdk"}, "boot sector": {fat, inspect.Raw, "qcow2"},
		"iso": {iso, inspect.ISO, "qcow2"},
	} {
		t.Run(name, func(t *testing.T) {
			info, err := both(t, c.data, inspect.Policy{Declared: "raw"})
			if err != nil || info.Format != c.format || info.VirtualSize != int64(len(c.data)) {
				t.Fatalf("%+v %v", info, err)
			}
			if _, err := both(t, c.data, inspect.Policy{Declared: c.refuse}); err == nil {
				t.Fatalf("accepted as %s", c.refuse)
			}
			if _, err := both(t, c.data, inspect.Policy{Declared: c.refuse, Wrapped: true}); err != nil {
				t.Fatalf("a container's content is not compared, yet: %v", err)
			}
		})
	}
}

func TestEarlyRefusal(t *testing.T) {
	var s inspect.Stream
	bad := qcow2(func(b []byte) { binary.BigEndian.PutUint64(b[8:], 200) })
	_, _ = s.Write(bad)
	_, _ = s.Write(make([]byte, 1<<20))
	if err := s.Early(inspect.Policy{}); !errors.Is(err, fault.Invalid) {
		t.Fatalf("a backing file is plain after the first MiB, got %v", err)
	}
}

func FuzzInspect(f *testing.F) {
	f.Add(qcow2(func([]byte) {})[:4096])
	f.Add(vmdk("# Disk DescriptorFile\ncreateType=\"streamOptimized\"\nRW 2048 SPARSE \"a\"\n")[:4096])
	f.Add([]byte("conectix"))
	f.Add([]byte("LUKS\xba\xbe\x00\x01"))
	vhdx := make([]byte, 330<<10)
	copy(vhdx, "vhdxfile")
	for _, at := range []int{192 << 10, 256 << 10} {
		copy(vhdx[at:], "regi\x00\x00\x00\x00\x01")
		copy(vhdx[at+16:], "\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e\x00\x00\x05\x00")
	}
	copy(vhdx[320<<10:], "metadata\x00\x00\x01")
	f.Add(vhdx)
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := both(t, data, inspect.Policy{MaxVirtual: 1 << 40})
		if err == nil && (info.VirtualSize < 0 || info.VirtualSize > 1<<40) {
			t.Fatalf("accepted with virtual size %d", info.VirtualSize)
		}
		if err != nil && !errors.Is(err, fault.Invalid) {
			t.Fatalf("not a refusal: %v", err)
		}
	})
}
