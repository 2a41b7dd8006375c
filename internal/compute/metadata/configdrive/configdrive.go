// Package configdrive writes the content of a server into an image file that the guest sees as a disk labelled config-2.
//
// What it promises: the file is there whole or not at all; its files are those of metadata.Content.DriveFiles; the same input
// makes the same bytes; only the owner may read it. The iso9660 form has Joliet and Rock Ridge names, the vfat form is FAT16 with
// long names. Both are written here, in memory: they are small, read once, and hold nothing but plain files.
package configdrive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"kilonova/internal/compute/metadata"
	"kilonova/internal/fault"
)

// Label is the volume label by which guests find the drive.
const Label = "config-2"

// The formats of a drive.
const (
	ISO9660 = "iso9660"
	VFAT    = "vfat"
)

// vfatSize is the size of a vfat drive.
const vfatSize = 64 << 20

// Writer writes drives in one format; the zero value is iso9660.
type Writer struct {
	Format string
}

// Build makes the drive of a server at path from the JSON of its metadata.Input, with the administrator's password when that is
// not empty. A file that is there is replaced.
func (w Writer) Build(ctx context.Context, input []byte, adminPass, path string) error {
	in, err := metadata.Parse(input)
	if err != nil {
		return err
	}
	in.AdminPass = adminPass
	c, err := metadata.Build(in)
	if err != nil {
		return err
	}
	return w.Write(ctx, c.DriveFiles(), in.Created, path)
}

// Write makes a drive of files that all bear the time at.
func (w Writer) Write(ctx context.Context, files []metadata.File, at time.Time, path string) error {
	if at.Year() < 1990 || at.Year() > 2099 { // what both formats can say
		at = time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	at = at.UTC().Truncate(2 * time.Second)
	root, err := tree(files)
	if err != nil {
		return err
	}
	var img []byte
	size := int64(0)
	switch w.Format {
	case "", ISO9660:
		img, err = isoImage(root, at)
		size = int64(len(img))
	case VFAT:
		img, err = fatImage(root, at)
		size = vfatSize
	default:
		err = fault.New(fault.Invalid, "The config drive format %q is neither iso9660 nor vfat.", w.Format)
	}
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".config-drive-*")
	if err != nil {
		return fmt.Errorf("config drive: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // after a success it has its final name
	if _, err = f.Write(img); err == nil {
		err = f.Truncate(size) // what follows the used part of a vfat drive is a hole
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("config drive: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("config drive: %w", err)
	}
	return nil
}
