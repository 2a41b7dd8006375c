//go:build !linux

package dbtest

import (
	"testing"

	"kilonova/internal/db"
)

// Own starts a database server of the test's own: on Linux. Elsewhere the test is skipped.
func Own(t testing.TB, kind db.Dialect) string {
	t.Helper()
	t.Skipf("a %s server of a test's own is started on Linux only", kind)
	return ""
}
