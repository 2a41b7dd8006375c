package notify_test

import (
	"testing"

	"kilonova/internal/compute"
	"kilonova/internal/compute/notify"
	"kilonova/internal/db"
	"kilonova/internal/db/dbtest"
)

// Messages whose removal nobody heard of are not sent again, whether it happened or not, and nothing is remembered of those that are gone.
func TestMessagesWhoseRemovalHadNoAnswer(t *testing.T) {
	d, way := dbtest.Cables(t, db.Postgres)
	w := worldOn(t, d)
	n := w.notifier(notify.Config{Sinks: []notify.Sink{w.sink}})
	for i, carriedOut := range []bool{false, true} {
		name := []string{"c1", "c2"}[i]
		w.write(func(tx *db.Tx) error {
			return w.store.SaveHost(t.Context(), tx, &compute.Host{Name: name, Version: 66, Info: []byte("{}")}, name)
		})
		lost := way.LoseCommit(carriedOut)
		if _, err := n.Publish(t.Context()); !db.IsAway(err) {
			t.Fatal(err)
		}
		<-lost
		w.publish(n)
		if len(w.sink.notes) != i+1 || w.waiting() != 0 || n.Known() != 0 {
			t.Errorf("carried out: %t: %s; %d wait, %d are remembered", carriedOut, w.sink.short(), w.waiting(), n.Known())
		}
	}
}
