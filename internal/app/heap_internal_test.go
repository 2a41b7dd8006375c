package app

import (
	"context"
	"errors"
	"testing"
)

func TestTenderRestsAfterWork(t *testing.T) {
	const work, calm = heapBusy + 1, heapBusy
	for name, c := range map[string]struct {
		seconds []uint64
		rests   int
		percent int
	}{
		"after the start":              {[]uint64{calm, calm}, 1, lean},
		"not yet after the start":      {[]uint64{calm}, 0, ample},
		"once":                         {append([]uint64{calm, calm}, repeat(calm, 30)...), 1, lean},
		"a few requests":               {append([]uint64{calm, calm, work}, repeat(calm, heapQuiet-1)...), 1, lean},
		"given back after few as well": {append([]uint64{calm, calm, work}, repeat(calm, heapQuiet)...), 2, lean},
		"now and then":                 {append(append([]uint64{calm, calm, work}, repeat(calm, heapQuiet/2)...), append([]uint64{work}, repeat(calm, heapQuiet/2)...)...), 2, lean},
		"work":                         {append([]uint64{calm, calm, work, work}, repeat(calm, heapQuiet-1)...), 1, ample},
		"after work":                   {append([]uint64{calm, calm, work, work}, repeat(calm, heapQuiet)...), 2, lean},
		"work goes on":                 {append(repeat(work, 50), repeat(calm, heapFirst)...), 0, ample},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			rest := func(context.Context) error { asked++; return errors.New("it cannot") }
			tn := tender{steady: true, percent: ample, wait: heapFirst, rests: []func(context.Context) error{rest}}
			for _, s := range c.seconds {
				if tn.look(s) {
					tn.rest(t.Context())
				}
			}
			if asked != c.rests || tn.percent != c.percent {
				t.Fatalf("rested %d times and grows by %d %%, want %d and %d %%", asked, tn.percent, c.rests, c.percent)
			}
		})
	}
}

func repeat(v uint64, n int) []uint64 {
	out := make([]uint64, n)
	for i := range out {
		out[i] = v
	}
	return out
}
