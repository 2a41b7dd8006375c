package db

import (
	"testing"
	"time"
)

// WaitQueued waits until so many Writes stand in the writer's queues.
func (d *DB) WaitQueued(t *testing.T, n int) {
	for len(d.writer.jobs)+len(d.writer.urgent) < n {
		if t.Context().Err() != nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
