//go:build !linux

package db

// fileLayer gives the name of the file layer for databases: that of SQLite.
func fileLayer() (string, error) { return "", nil }
