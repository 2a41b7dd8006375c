// Package clock is the only source of time. Tests use testing/synctest, under which Now and the timers of
// package time are virtual; what this package adds is the formats that OpenStack documents use.
package clock

import "time"

// Now is the current time in UTC, cut to microseconds (what every database keeps).
func Now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// Layouts of times in API documents.
const (
	LayoutZ      = "2006-01-02T15:04:05Z"        // created, updated of servers, images
	LayoutMicro  = "2006-01-02T15:04:05.000000"  // launched_at and admin documents: no zone
	LayoutMicroZ = "2006-01-02T15:04:05.000000Z" // tokens
)

// Micros is t as microseconds since 1970, the form in which times are stored. The zero time is 0.
func Micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// FromMicros is the inverse of Micros.
func FromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
