package api

import "testing"

// BodyFor is the smallest body that the entry of a key takes at a version, for the tests outside the package.
func BodyFor(t testing.TB, key string, minor int) string {
	t.Helper()
	e, err := find(key)
	if err != nil {
		t.Fatal(err)
	}
	return body(t, e, minor)
}

// SinceOf is the first version of a key.
func SinceOf(key string) int {
	e, err := find(key)
	if err != nil {
		return 0
	}
	return e.Since
}
