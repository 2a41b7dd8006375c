package conductor_test

import (
	"testing"

	"kilonova/internal/db"
	"kilonova/internal/db/dbtest"
)

func database(t testing.TB) *db.DB { return dbtest.Open(t) }
