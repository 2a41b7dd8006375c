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
	heapQuiet = 10      // seconds without that until it counts as idle
)

// tendHeap lets the heap grow to three times what is alive while there is work, which saves an eighth of the processor's time of a boot, and to a quarter more
// while there is none, which a host with many idle processes is glad of. The environment variable GOGC, where it is set, decides alone.
func tendHeap(ctx context.Context) error {
	if os.Getenv("GOGC") != "" {
		<-ctx.Done()
		return nil
	}
	const lean, ample = 25, 200
	debug.SetGCPercent(ample)
	t := time.NewTicker(heapLook)
	defer t.Stop()
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	last, quiet := sample[0].Value.Uint64(), 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		metrics.Read(sample)
		now := sample[0].Value.Uint64()
		busy := now-last > heapBusy
		last = now
		switch {
		case busy && quiet >= heapQuiet:
			debug.SetGCPercent(ample)
			quiet = 0
		case busy:
			quiet = 0
		default:
			if quiet++; quiet == heapQuiet {
				debug.SetGCPercent(lean)
				debug.FreeOSMemory()
			}
		}
	}
}
