package guests_test

import (
	"testing"

	"kilonova/test/apart"
)

func TestMain(m *testing.M) { apart.Main(m, "kg", "genisoimage") }
