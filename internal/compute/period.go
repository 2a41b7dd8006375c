package compute

import (
	"strconv"
	"strings"
	"time"

	"kilonova/internal/fault"
)

// AuditPeriod is the length of the periods by which usage is audited, and where they begin. The zero value is a month.
type AuditPeriod struct {
	unit   string // hour, day, month, year
	offset int    // minute, hour, day of the month, month
}

// ParseAuditPeriod reads UNIT or UNIT@OFFSET: an hour begins at the minute, a day at the hour, a month on the day, a year in the month that the offset names.
func ParseAuditPeriod(text string) (AuditPeriod, error) {
	unit, at, given := strings.Cut(text, "@")
	bounds := map[string][2]int{"hour": {0, 59}, "day": {0, 23}, "month": {1, 28}, "year": {1, 12}}
	limit, ok := bounds[unit]
	p := AuditPeriod{unit: unit, offset: limit[0]}
	if given {
		n, err := strconv.Atoi(at)
		if err != nil || n < limit[0] || n > limit[1] {
			ok = false
		}
		p.offset = n
	}
	if !ok {
		return p, fault.New(fault.Invalid, "The audit period %q is none of hour[@0-59], day[@0-23], month[@1-28], year[@1-12].", text)
	}
	return p, nil
}

// Last gives the last whole period that had ended at a time.
func (p AuditPeriod) Last(now time.Time) (begin, end time.Time) {
	now = now.UTC()
	y, m, d := now.Date()
	step := func(t time.Time, by int) time.Time { return t.AddDate(0, by, 0) }
	switch p.unit {
	case "hour":
		end = time.Date(y, m, d, now.Hour(), p.offset, 0, 0, time.UTC)
		step = func(t time.Time, by int) time.Time { return t.Add(time.Duration(by) * time.Hour) }
	case "day":
		end = time.Date(y, m, d, p.offset, 0, 0, 0, time.UTC)
		step = func(t time.Time, by int) time.Time { return t.AddDate(0, 0, by) }
	case "year":
		end = time.Date(y, time.Month(p.offset), 1, 0, 0, 0, 0, time.UTC)
		step = func(t time.Time, by int) time.Time { return t.AddDate(by, 0, 0) }
	default:
		end = time.Date(y, m, max(p.offset, 1), 0, 0, 0, 0, time.UTC)
	}
	if end.After(now) {
		end = step(end, -1)
	}
	return step(end, -1), end
}
