package conductor

import (
	"errors"
	"testing"
	"time"

	"kilonova/internal/fault"
)

// What nobody could write down while the database was away is not held against a host.
func TestSilenceWhileTheDatabaseIsAway(t *testing.T) {
	began := time.Unix(1_000_000, 0)
	away := fault.Wrap(fault.ErrAway, fault.Unavailable, "The database cannot be reached.")
	at := func(d time.Duration) time.Time { return began.Add(d) }
	type try struct {
		after time.Duration
		err   error
	}
	for _, c := range []struct {
		name  string
		tries []try
		asked time.Duration // after the host was heard of
		want  time.Duration
	}{
		{"never away", []try{{0, nil}, {time.Minute, nil}}, time.Minute, time.Minute},
		{"never read", nil, time.Minute, time.Minute},
		{"another error", []try{{0, nil}, {time.Second, errors.New("no")}}, time.Minute, time.Minute},
		{"away", []try{{time.Second, nil}, {2 * time.Second, away}}, time.Hour, time.Second},
		{"away from the start", []try{{0, away}}, time.Hour, time.Hour},
		{"just back", []try{{time.Second, nil}, {2 * time.Second, away}, {time.Hour, nil}}, time.Hour + settled, time.Second},
		{"long back", []try{{time.Second, nil}, {2 * time.Second, away}, {time.Hour, nil}}, time.Hour + settled + time.Second, time.Hour + settled + time.Second},
		{"back and away again", []try{{time.Second, nil}, {2 * time.Second, away}, {time.Hour, nil}, {time.Hour + time.Second, away}, {2 * time.Hour, nil}}, 2 * time.Hour, time.Second},
		{"away once more, later", []try{{time.Second, nil}, {2 * time.Second, away}, {time.Hour, nil}, {2 * time.Hour, nil}, {3 * time.Hour, away}}, 4 * time.Hour, 2 * time.Hour},
	} {
		g := &gap{}
		for _, x := range c.tries {
			g.tried(x.err, at(x.after))
		}
		if got := g.silence(began, at(c.asked)); got != c.want {
			t.Errorf("%s: silent for %s, want %s", c.name, got, c.want)
		}
	}
}
