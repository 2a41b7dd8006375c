package db

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"unsafe"

	"modernc.org/libc"
	sqlite "modernc.org/sqlite/lib"
)

const (
	walLayer = "kilonova" // name of the file layer
	walChunk = 1 << 20    // bytes by which a log grows

	dirSync = 0x08 // unixFile.ctrlFlags: the directory of the file is to be synced too
)

// fileLayer gives the name of the file layer for databases, which it registers with SQLite. The layer is SQLite's own for Unix but for write-ahead logs. As it is
// built into the driver that one brings every commit to disk with fsync and lets the log grow by each page: both make the file system commit its own journal too,
// in a thread of the kernel that has to be given a processor first, and all writers wait for it. Here a log grows by walChunk bytes of zeros, over which commits are then written, and
// is synced with fdatasync: as durable, but there is nothing left to do for the journal.
func fileLayer() (string, error) {
	tls := libc.NewTLS()
	defer tls.Close()
	name, err := libc.CString(walLayer)
	if err != nil {
		return "", fmt.Errorf("file layer: %w", err)
	}
	if sqlite.Xsqlite3_vfs_find(tls, name) != 0 { // two who find nothing at the same moment register two that are equal
		libc.Xfree(tls, name)
		return walLayer, nil
	}
	unix, mine := sqlite.Xsqlite3_vfs_find(tls, 0), libc.Xcalloc(tls, 1, libc.Tsize_t(unsafe.Sizeof(sqlite.Tsqlite3_vfs{})))
	if unix == 0 || mine == 0 {
		return "", errors.New("file layer: SQLite has none to build on")
	}
	v := at[sqlite.Tsqlite3_vfs](mine)
	*v = *at[sqlite.Tsqlite3_vfs](unix)
	v.FpNext, v.FzName, v.FpAppData, v.FxOpen = 0, name, 0, funcPointer(openFile)
	if rc := sqlite.Xsqlite3_vfs_register(tls, mine, 0); rc != sqlite.SQLITE_OK {
		return "", fmt.Errorf("file layer: SQLite does not take it: %d", rc)
	}
	return walLayer, nil
}

// at looks at memory that SQLite has allocated, which Go's collector neither knows nor moves.
func at[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

// function is the function of an entry of SQLite's tables.
func function[T any](p uintptr) T { return *(*T)(unsafe.Pointer(&p)) }

type (
	openFunc  = func(tls *libc.TLS, vfs, path, file uintptr, flags int32, got uintptr) int32
	writeFunc = func(tls *libc.TLS, file, buf uintptr, n int32, offset sqlite.Tsqlite3_int64) int32
	syncFunc  = func(tls *libc.TLS, file uintptr, flags int32) int32
)

// logMethods are the methods of a log: those that were there, but for two.
type logMethods struct {
	sqlite.Tsqlite3_io_methods
	was uintptr // what was there
}

// openFile opens a file as the layer below does. All logs share one table of methods.
func openFile(tls *libc.TLS, vfs, path, file uintptr, flags int32, got uintptr) int32 {
	below := sqlite.Xsqlite3_vfs_find(tls, 0)
	rc := function[openFunc](at[sqlite.Tsqlite3_vfs](below).FxOpen)(tls, below, path, file, flags, got)
	if rc != sqlite.SQLITE_OK || flags&sqlite.SQLITE_OPEN_WAL == 0 {
		return rc
	}
	f, shared := at[sqlite.TunixFile](file), &at[sqlite.Tsqlite3_vfs](vfs).FpAppData
	mine := atomic.LoadUintptr(shared)
	if mine == 0 {
		if mine = libc.Xmalloc(tls, libc.Tsize_t(unsafe.Sizeof(logMethods{}))); mine == 0 {
			return rc // it works as it is
		}
		m := at[logMethods](mine)
		m.Tsqlite3_io_methods, m.was = *at[sqlite.Tsqlite3_io_methods](f.FpMethod), f.FpMethod
		m.FxWrite, m.FxSync = funcPointer(writeLog), funcPointer(syncLog)
		if !atomic.CompareAndSwapUintptr(shared, 0, mine) {
			libc.Xfree(tls, mine)
			mine = atomic.LoadUintptr(shared)
		}
	}
	if at[logMethods](mine).was == f.FpMethod { // a file of another kind stays as it is
		f.FpMethod = mine
	}
	return rc
}

func methodsBelow(file uintptr) *sqlite.Tsqlite3_io_methods {
	return at[sqlite.Tsqlite3_io_methods](at[logMethods](at[sqlite.TunixFile](file).FpMethod).was)
}

// writeLog lets the log grow when a write gets to the end of a chunk.
func writeLog(tls *libc.TLS, file, buf uintptr, n int32, offset sqlite.Tsqlite3_int64) int32 {
	if end := offset + int64(n); offset%walChunk == 0 || offset/walChunk != (end-1)/walChunk {
		grow(int(at[sqlite.TunixFile](file).Fh), ((end-1)/walChunk+1)*walChunk)
	}
	return function[writeFunc](methodsBelow(file).FxWrite)(tls, file, buf, n, offset)
}

// grow writes zeros from the end of a file up to size. Where that fails, the write that follows fails too, or grows the file itself.
func grow(fd int, size int64) {
	var s syscall.Stat_t
	if syscall.Fstat(fd, &s) != nil {
		return
	}
	zeros := make([]byte, 128<<10)
	for at := s.Size; at < size; {
		n, err := syscall.Pwrite(fd, zeros[:min(int64(len(zeros)), size-at)], at)
		if err != nil && err != syscall.EINTR || n == 0 {
			return
		}
		at += int64(max(n, 0))
	}
}

// syncLog brings what was written to the disk, and with it as much about the file as is needed to find it again.
func syncLog(tls *libc.TLS, file uintptr, flags int32) int32 {
	f := at[sqlite.TunixFile](file)
	if f.FctrlFlags&dirSync != 0 { // the first time; the layer below clears it
		return function[syncFunc](methodsBelow(file).FxSync)(tls, file, flags)
	}
	for {
		switch err := syscall.Fdatasync(int(f.Fh)); err {
		case nil:
			return sqlite.SQLITE_OK
		case syscall.EINTR:
		default:
			if errno, ok := err.(syscall.Errno); ok {
				f.FlastErrno = int32(errno)
			}
			return sqlite.SQLITE_IOERR_FSYNC
		}
	}
}
