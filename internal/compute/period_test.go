package compute_test

import (
	"testing"
	"time"

	"kilonova/internal/compute"
)

func TestPeriods(t *testing.T) {
	now := time.Date(2026, 3, 15, 10, 30, 0, 0, time.UTC)
	for unit, want := range map[string]string{
		"hour": "2026-03-15T09:00 2026-03-15T10:00", "hour@45": "2026-03-15T08:45 2026-03-15T09:45", "day": "2026-03-14T00:00 2026-03-15T00:00", "day@18": "2026-03-13T18:00 2026-03-14T18:00",
		"month": "2026-02-01T00:00 2026-03-01T00:00", "month@20": "2026-01-20T00:00 2026-02-20T00:00", "year": "2025-01-01T00:00 2026-01-01T00:00", "year@6": "2024-06-01T00:00 2025-06-01T00:00",
	} {
		p, err := compute.ParseAuditPeriod(unit)
		if err != nil {
			t.Fatal(err)
		}
		begin, end := p.Last(now)
		if got := begin.Format("2006-01-02T15:04") + " " + end.Format("2006-01-02T15:04"); got != want {
			t.Errorf("%s: %s, want %s", unit, got, want)
		}
	}
	for _, bad := range []string{"", "week", "month@29", "day@x", "hour@60", "year@0"} {
		if _, err := compute.ParseAuditPeriod(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if b, e := (compute.AuditPeriod{}).Last(now); b.Month() != 2 || e.Month() != 3 || e.Day() != 1 {
		t.Error(b, e)
	}
}
