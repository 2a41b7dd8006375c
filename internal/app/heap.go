package app

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	heapLook  = time.Second
	heapBusy  = 8 << 20 // bytes allocated in a second from which on a process counts as busy
	heapFirst = 2       // seconds without that after the start, and
	heapQuiet = 10      // after work, until it counts as idle
)

// tender looks after the memory of the process. It lets the heap grow to three times what is alive while there is work, which saves an eighth of the processor's
// time of a boot, and to a quarter more while there is none, which a host with many idle processes is glad of. What work needed and rest does not is given back
// to the system once the work is over. The environment variable GOGC, where it is set, decides alone how far the heap grows.
type tender struct {
	rests       []func(context.Context) error // let go of what only speeds up the next request
	steady      bool                          // GOGC decides
	percent     int
	busy, quiet int // seconds, one after the other
	wait        int // seconds of quiet until the next rest
}

// newTender makes a tender and lets the heap be ample for the start.
func newTender() *tender {
	t := &tender{steady: os.Getenv("GOGC") != "", wait: heapFirst}
	t.grow(ample)
	return t
}

// How much the heap may grow beyond what is alive, in percent.
const lean, ample = 25, 200

func (t *tender) grow(percent int) {
	if t.percent != percent && !t.steady {
		debug.SetGCPercent(percent)
	}
	t.percent = percent
}

// run looks once a second until ctx ends.
func (t *tender) run(ctx context.Context) error {
	tick := time.NewTicker(heapLook)
	defer tick.Stop()
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	for last := sample[0].Value.Uint64(); ; last = sample[0].Value.Uint64() {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		metrics.Read(sample)
		if t.look(sample[0].Value.Uint64() - last) {
			t.rest(ctx)
		}
	}
}

// look takes what was allocated in a second, and tells when it is time to rest.
func (t *tender) look(allocated uint64) (rest bool) {
	if allocated > heapBusy {
		// One such second is a few requests, or what a large cloud looks after all the time: no work yet, but there is something to give back once more.
		t.busy++
		if t.busy > 1 {
			t.grow(ample)
		}
		if t.busy > 1 || t.quiet >= t.wait {
			t.quiet, t.wait = 0, heapQuiet
		}
		return false
	}
	t.busy = 0
	if t.quiet > t.wait {
		return false
	}
	t.quiet++
	return t.quiet == t.wait
}

func (t *tender) rest(ctx context.Context) {
	t.grow(lean)
	for _, f := range t.rests {
		_ = f(ctx) // it costs memory until the next time, nothing else
	}
	debug.FreeOSMemory()
}
