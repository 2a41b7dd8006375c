// Package dbtest opens databases for tests.
package dbtest

import (
	"database/sql"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kilonova/internal/db"
	"kilonova/internal/id"
)

// Open opens an empty database, which goes with the test.
func Open(t testing.TB) *db.DB {
	t.Helper()
	return At(t, URL(t))
}

// URL is where an empty database is: SQLite or, when KILONOVA_TEST_DATABASE is the URL of a PostgreSQL or MariaDB server whose user may create databases, a new
// one there. It goes with the test; tests that play several processes open it several times with At.
func URL(t testing.TB) string {
	t.Helper()
	if server := os.Getenv("KILONOVA_TEST_DATABASE"); server != "" {
		return create(t, server)
	}
	return "sqlite:" + filepath.Join(t.TempDir(), "k.db")
}

// At opens a database until the test ends.
func At(t testing.TB, url string) *db.DB {
	t.Helper()
	d, err := db.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// create makes a database on a server and gives its URL.
func create(t testing.TB, server string) string {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal("KILONOVA_TEST_DATABASE is no URL")
	}
	driver, dsn := "pgx", server
	if !strings.HasPrefix(u.Scheme, "postgres") {
		password, _ := u.User.Password()
		driver, dsn = "mysql", u.User.Username()+":"+password+"@tcp("+u.Host+")/"
	}
	admin, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	name := "kilonova_test_" + id.Secret(6)
	if _, err := admin.ExecContext(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // after the close of what is opened on it
		if _, err := admin.Exec("DROP DATABASE " + name); err != nil {
			t.Error(err)
		}
		_ = admin.Close()
	})
	u.Path = "/" + name
	return u.String()
}
