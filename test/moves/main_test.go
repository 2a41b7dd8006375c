package moves_test

import (
	"testing"

	"kilonova/test/apart"
)

func TestMain(m *testing.M) { apart.Main(m, "km", "tc") }
