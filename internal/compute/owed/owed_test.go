package owed

import (
	"path/filepath"
	"testing"

	"kilonova/internal/compute/command"
	"kilonova/internal/db"
)

func book(t *testing.T) (*db.DB, *Book) {
	t.Helper()
	d, err := db.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "k.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	b, err := New(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	return d, b
}

func add(t *testing.T, d *db.DB, b *Book, debt Debt) {
	t.Helper()
	if err := d.Write(t.Context(), func(tx *db.Tx) error { return b.Add(t.Context(), tx, debt) }); err != nil {
		t.Fatal(err)
	}
}

func TestDestroyIsNeverReplacedByLess(t *testing.T) {
	d, b := book(t)
	add(t, d, b, Debt{Host: "h1", Server: "s1", Epoch: 3, Verb: command.RevertResize, Args: []byte(`{"spec":{}}`)})
	add(t, d, b, Debt{Host: "h1", Server: "s1", Epoch: 4, Verb: command.Destroy, Reason: "deleted while the host was down"})
	add(t, d, b, Debt{Host: "h1", Server: "s1", Epoch: 5, Verb: command.RevertResize})
	got, err := b.OfHost(t.Context(), d, "h1")
	if err != nil || len(got) != 1 {
		t.Fatalf("debts of h1: %v, %v; want one", got, err)
	}
	if got[0].Verb != command.Destroy || got[0].Epoch != 4 {
		t.Errorf("debt is %s at epoch %d; want the destroy at 4", got[0].Verb, got[0].Epoch)
	}
}

func TestSettleKeepsANewerDebt(t *testing.T) {
	d, b := book(t)
	add(t, d, b, Debt{Host: "h1", Server: "s1", Epoch: 7, Verb: command.Destroy})
	add(t, d, b, Debt{Host: "h2", Server: "s1", Epoch: 7, Verb: command.Destroy})
	for _, c := range []struct {
		epoch int64
		left  int
	}{{6, 2}, {7, 1}, {8, 1}} {
		if err := b.SettleNow(t.Context(), "h1", "s1", c.epoch); err != nil {
			t.Fatal(err)
		}
		got, err := b.OfServer(t.Context(), d, "s1")
		if err != nil || len(got) != c.left {
			t.Errorf("after settling epoch %d: %d debts (%v), want %d", c.epoch, len(got), err, c.left)
		}
	}
	all, err := b.All(t.Context(), d)
	if err != nil || len(all) != 1 || all[0].Host != "h2" {
		t.Errorf("all debts: %v, %v; want that of h2", all, err)
	}
}

func TestDebtors(t *testing.T) {
	d, b := book(t)
	add(t, d, b, Debt{Host: "h1", Server: "s1", Epoch: 1, Verb: command.Destroy})
	add(t, d, b, Debt{Host: "h1", Server: "s2", Epoch: 1, Verb: command.Destroy})
	add(t, d, b, Debt{Host: "h3", Server: "s1", Epoch: 1, Verb: command.Destroy})
	got, err := b.Debtors(t.Context(), d, "h1", "h2")
	if err != nil || len(got) != 1 || !got["h1"] {
		t.Fatal(got, err)
	}
}
