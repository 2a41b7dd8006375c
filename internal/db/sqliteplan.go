package db

import (
	"errors"
	"unsafe"

	"modernc.org/libc"
	sqlite "modernc.org/sqlite/lib"
)

// stablePlans makes SQLite plan a statement once, when it is prepared, for every connection that is opened from now on. Otherwise it looks at the values too, and a
// statement whose plan they might change is prepared anew each time that it is run, which takes several times as long as most of ours take to run.
func stablePlans() error {
	tls := libc.NewTLS()
	defer tls.Close()
	// It is called with each new connection. The same function twice counts once.
	if rc := sqlite.Xsqlite3_auto_extension(tls, funcPointer(keepPlans)); rc != sqlite.SQLITE_OK {
		return errors.New("SQLite does not take what is to be set for each connection")
	}
	return nil
}

func keepPlans(tls *libc.TLS, conn, _, _ uintptr) int32 {
	args := tls.Alloc(16)
	defer tls.Free(16)
	return sqlite.Xsqlite3_db_config(tls, conn, sqlite.SQLITE_DBCONFIG_ENABLE_QPSG, libc.VaList(args, int32(1), uintptr(0)))
}

// funcPointer is a function as SQLite's tables hold it.
func funcPointer[T any](f T) uintptr { return *(*uintptr)(unsafe.Pointer(&f)) }
