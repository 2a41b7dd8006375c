package db

import (
	"database/sql"
	"encoding/binary"
	"reflect"
	"sync"
	"sync/atomic"
	"unsafe"

	"modernc.org/libc"
	sqlite "modernc.org/sqlite/lib"
)

// head looks at the first header of a database's WAL index, which is memory that all who have the database open share (https://sqlite.org/walformat.html,
// section 2.1). Whoever commits writes a new one, and nobody sees what was committed before the header says so.
//
// The connection that it was opened by keeps a copy of the header that its own last commit left, or its last look found.
type head struct {
	mu  sync.RWMutex
	sum *atomic.Uint64       // the header's checksum over all its other fields; nil: not to be had
	own *sqlite.TWalIndexHdr // the connection's copy
}

const (
	walIndexPage = 32 << 10 // bytes that are mapped at once
	headerSum    = 40       // where aCksum begins
)

// open finds the header by a connection to a database in WAL mode that stays open until close.
func (h *head) open(conn *sql.Conn) error {
	return conn.Raw(func(driver any) error {
		v := reflect.Indirect(reflect.ValueOf(driver)).FieldByName("db") // the driver keeps to itself what SQLite knows the connection by
		if v.Kind() != reflect.Uintptr || v.Uint() == 0 {
			return nil
		}
		tls := libc.NewTLS()
		defer tls.Close()
		main, err := libc.CString("main")
		if err != nil {
			return err
		}
		defer libc.Xfree(tls, main)
		const word = unsafe.Sizeof(uintptr(0))
		out := tls.Alloc(int(word))
		defer tls.Free(int(word))
		file := at[uintptr](out)
		if *file = 0; sqlite.Xsqlite3_file_control(tls, uintptr(v.Uint()), main, sqlite.SQLITE_FCNTL_FILE_POINTER, out) != sqlite.SQLITE_OK || *file == 0 {
			return nil
		}
		f := *file
		methods := *at[uintptr](f)
		if methods == 0 || at[sqlite.Tsqlite3_io_methods](methods).FiVersion < 2 {
			return nil
		}
		type mapFunc = func(tls *libc.TLS, file uintptr, page, size, extend int32, got uintptr) int32
		if *file = 0; function[mapFunc](at[sqlite.Tsqlite3_io_methods](methods).FxShmMap)(tls, f, 0, walIndexPage, 0, out) != sqlite.SQLITE_OK || *file == 0 {
			return nil
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if wal := logOf(uintptr(v.Uint())); wal != nil {
			h.sum, h.own = at[atomic.Uint64](*file+headerSum), &wal.Fhdr
		}
		return nil
	})
}

// logOf finds what a connection knows of the log of its database; nil when it has none.
func logOf(conn uintptr) *sqlite.TWal {
	tree := at[sqlite.TDb](at[sqlite.Tsqlite3](conn).FaDb).FpBt
	if tree == 0 {
		return nil
	}
	pager := at[sqlite.TBtShared](at[sqlite.TBtree](tree).FpBt).FpPager
	if wal := at[sqlite.TPager](pager).FpWal; wal != 0 {
		return at[sqlite.TWal](wal)
	}
	return nil
}

// read gives what differs after each commit; false when it is not to be had.
func (h *head) read() (uint64, bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.sum == nil {
		return 0, false
	}
	return h.sum.Load(), true
}

// last gives what read gave at the moment when the connection had committed, and still gives if nobody has committed since. It may be called by who uses the connection,
// while that is at rest. False when nobody has committed since the index was made from the log, which may happen twice with one log.
func (h *head) last() (uint64, bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.sum == nil || h.own.FiChange == 0 {
		return 0, false
	}
	return binary.NativeEndian.Uint64((*[8]byte)(unsafe.Pointer(&h.own.FaCksum))[:]), true
}

// close must be called before the connection is closed.
func (h *head) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sum, h.own = nil, nil
}
