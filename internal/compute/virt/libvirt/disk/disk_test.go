package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"kilonova/internal/fault"
)

// qcow2 makes the header of a qcow2 image of version 3.
func qcow2(size, backing, incompatible uint64) []byte {
	h := make([]byte, 512)
	copy(h, "QFI\xfb")
	binary.BigEndian.PutUint32(h[4:], 3)
	binary.BigEndian.PutUint64(h[8:], backing)
	binary.BigEndian.PutUint64(h[24:], size)
	binary.BigEndian.PutUint64(h[72:], incompatible)
	return h
}

func TestImageHeaders(t *testing.T) {
	v2 := qcow2(1<<20, 0, 0)[:72]
	binary.BigEndian.PutUint32(v2[4:], 2)
	v9 := qcow2(1<<20, 0, 0)
	binary.BigEndian.PutUint32(v9[4:], 9)
	for _, c := range []struct {
		name string
		data []byte
		size int64
	}{
		{"version 3", qcow2(5<<20, 0, 0), 5 << 20},
		{"version 2", v2, 1 << 20},
		{"dirty and compressed otherwise", qcow2(1<<20, 0, 0b1001), 1 << 20},
		{"backing file", qcow2(1<<20, 512, 0), 0},
		{"data file", qcow2(1<<20, 0, 0b100), 0},
		{"unknown feature", qcow2(1<<20, 0, 1<<40), 0},
		{"no size", qcow2(0, 0, 0), 0},
		{"too large", qcow2(1<<63, 0, 0), 0},
		{"unknown version", v9, 0},
		{"raw", bytes.Repeat([]byte("x"), 512), 0},
		{"short", []byte("QFI\xfb"), 0},
		{"empty", nil, 0},
	} {
		size, err := qcow2Size(bytes.NewReader(c.data))
		if size != c.size || (err == nil) != (c.size > 0) {
			t.Errorf("%s: %d, %v", c.name, size, err)
		}
		if err != nil && !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v is no fault.Invalid", c.name, err)
		}
	}
}

func TestImageSizeByFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, qcow2(7<<20, 0, 0), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := ImageSize(path, "raw"); n != 512 || err != nil {
		t.Errorf("raw: %d, %v", n, err) // the format is what is said, not what the bytes look like
	}
	if n, err := ImageSize(path, "qcow2"); n != 7<<20 || err != nil {
		t.Errorf("qcow2: %d, %v", n, err)
	}
	if _, err := ImageSize(path, "vmdk"); !errors.Is(err, fault.Invalid) {
		t.Errorf("vmdk: %v", err)
	}
	if _, err := ImageSize(path+"-gone", "raw"); !errors.Is(err, fault.Conflict) {
		t.Errorf("missing file: %v", err)
	}
}

func TestWriteKeepsContentAndLeavesHoles(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		var data []byte
		for range rapid.IntRange(0, 6).Draw(t, "pieces") {
			n := rapid.IntRange(0, 300<<10).Draw(t, "length")
			data = append(data, bytes.Repeat([]byte{byte(rapid.IntRange(0, 1).Draw(t, "byte"))}, n)...)
		}
		to := filepath.Join(dir, "file")
		if err := Write(to, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(to)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("wrote %d bytes, read %d: %v", len(data), len(got), err)
		}
		copied := filepath.Join(dir, "copy")
		if err := Clone(context.Background(), to, copied); err != nil {
			t.Fatal(err)
		}
		if got, err = os.ReadFile(copied); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("the copy has %d bytes of %d: %v", len(got), len(data), err)
		}
	})
}

// broken fails in the middle.
type broken struct{ n int }

func (b *broken) Read(p []byte) (int, error) {
	if b.n -= len(p); b.n < 0 {
		return 0, errors.New("the line went dead")
	}
	p[0] = 1
	return len(p), nil
}

func TestBrokenWriteLeavesTheOldFile(t *testing.T) {
	to := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(to, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write(to, &broken{1 << 20}); err == nil {
		t.Fatal("a broken transfer succeeded")
	}
	if got, _ := os.ReadFile(to); string(got) != "old" {
		t.Errorf("the old file holds %d bytes", len(got))
	}
	if left, _ := filepath.Glob(to + "*"); len(left) != 1 {
		t.Errorf("files left behind: %v", left)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Write(to, CancelReader{ctx, &broken{1 << 30}}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled transfer: %v", err)
	}
}

func TestOverlay(t *testing.T) {
	if _, err := FindProgram("qemu-img"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	base, over := filepath.Join(dir, "base"), filepath.Join(dir, "over")
	if err := os.WriteFile(base, bytes.Repeat([]byte("base"), 256<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Overlay(t.Context(), over, base, "raw", 8<<20); err != nil {
		t.Fatal(err)
	}
	h, err := ReadHeader(over)
	if err != nil || h.Size != 8<<20 || h.Backing != base {
		t.Errorf("%+v, %v", h, err)
	}
	if err := Overlay(t.Context(), filepath.Join(dir, "other"), base+"-gone", "qcow2", 1<<20); err == nil {
		t.Error("an overlay on nothing was made")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "other*")); len(left) != 0 {
		t.Errorf("files left behind: %v", left)
	}
	if _, err := ReadHeader(base); err == nil {
		t.Error("a raw file was read as an overlay")
	}
}

func TestLimitsHold(t *testing.T) {
	if _, err := FindProgram("qemu-img"); err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Img(ctx, "create", "-f", "raw", filepath.Join(t.TempDir(), "x"), "1M"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := Img(t.Context(), "convert", "-O", "raw", "/nonexistent", filepath.Join(t.TempDir(), "x")); err == nil {
		t.Error("a file that is not there was converted")
	}
}

func FuzzImageHeader(f *testing.F) {
	f.Add(qcow2(1<<20, 0, 0))
	f.Add(qcow2(1<<20, 512, 4))
	f.Fuzz(func(t *testing.T, b []byte) {
		size, err := qcow2Size(bytes.NewReader(b))
		if err == nil && (size <= 0 || len(b) < 72 || binary.BigEndian.Uint64(b[8:]) != 0) {
			t.Fatalf("% x passes with size %d", b, size)
		}
	})
}
