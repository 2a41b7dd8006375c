package flow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/owed"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/image"
	"kilonova/internal/operation"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (w *world) mustBeWhole() {
	w.t.Helper()
	for _, b := range w.whole() {
		w.t.Error(b)
	}
}

func TestLifeOfAServer(t *testing.T) {
	w := newWorld(t)
	e, _ := w.engine(nil)
	s := w.active(e)
	if s.VMState != compute.VMActive || s.PowerState != compute.PowerRunning || s.Host != "h1" || s.LaunchedOn != "h1" || len(s.VIFs) != 1 || !s.VIFs[0].Created {
		t.Fatalf("after create: %+v", s)
	}
	w.mustBeWhole()
	w.imgs.add("snap", image.Queued, nil)
	w.imgs.add("shelf", image.Queued, nil)
	big := compute.Flavor{ID: 2, FlavorID: "2", Name: "big", VCPUs: 4, RAMMB: 2048, RootGB: 2}
	for _, step := range []struct {
		kind  string
		in    any
		state string
		power int
	}{
		{compute.OpStop, nil, compute.VMStopped, compute.PowerShutdown},
		{compute.OpStart, nil, compute.VMActive, compute.PowerRunning},
		{compute.OpReboot, compute.RebootInput{Hard: true}, compute.VMActive, compute.PowerRunning},
		{compute.OpPause, nil, compute.VMPaused, compute.PowerPaused},
		{compute.OpUnpause, nil, compute.VMActive, compute.PowerRunning},
		{compute.OpSuspend, nil, compute.VMSuspended, compute.PowerSuspended},
		{compute.OpResume, nil, compute.VMActive, compute.PowerRunning},
		{compute.OpRescue, compute.RescueInput{ImageID: "img"}, compute.VMRescued, compute.PowerRunning},
		{compute.OpUnrescue, nil, compute.VMActive, compute.PowerRunning},
		{compute.OpPassword, compute.PasswordInput{Password: "x"}, compute.VMActive, compute.PowerRunning},
		{compute.OpCrashDump, nil, compute.VMActive, compute.PowerRunning},
		{compute.OpSnapshot, compute.SnapshotInput{ImageID: "snap"}, compute.VMActive, compute.PowerRunning},
		{compute.OpRebuild, compute.RebuildInput{ImageID: "img2", NewImage: true}, compute.VMActive, compute.PowerRunning},
		{compute.OpResize, compute.ResizeInput{Flavor: big}, compute.VMResized, compute.PowerRunning},
		{compute.OpRevertResize, nil, compute.VMActive, compute.PowerRunning},
		{compute.OpResize, compute.ResizeInput{Flavor: big, Host: "h2"}, compute.VMResized, compute.PowerRunning},
		{compute.OpConfirmResize, nil, compute.VMActive, compute.PowerRunning},
		{compute.OpResize, compute.ResizeInput{Migrate: true}, compute.VMResized, compute.PowerRunning},
		{compute.OpRevertResize, nil, compute.VMActive, compute.PowerRunning},
		{compute.OpLiveMigrate, compute.LiveMigrateInput{Host: "h3"}, compute.VMActive, compute.PowerRunning},
		{compute.OpAttachNIC, compute.NICInput{NICRequest: compute.NICRequest{NetworkID: "net2"}, NewPortID: "np"}, compute.VMActive, compute.PowerRunning},
		{compute.OpDetachNIC, compute.NICInput{NICRequest: compute.NICRequest{PortID: "np"}}, compute.VMActive, compute.PowerRunning},
		{compute.OpShelve, compute.ShelveInput{ImageID: "shelf"}, compute.VMShelved, compute.PowerShutdown},
		{compute.OpShelveOffload, nil, compute.VMShelvedOffloaded, compute.PowerShutdown},
		{compute.OpUnshelve, compute.UnshelveInput{}, compute.VMActive, compute.PowerRunning},
		{compute.OpSoftDelete, nil, compute.VMSoftDeleted, compute.PowerShutdown},
		{compute.OpRestore, nil, compute.VMActive, compute.PowerRunning},
	} {
		w.ended(w.do(e, step.kind, s.ID, step.in), operation.Done)
		got := w.get(s.ID)
		if step.kind == compute.OpResize && !step.in.(compute.ResizeInput).Migrate && (got.Flavor.ID != big.ID || got.OldFlavor == nil || got.OldFlavor.ID != s.Flavor.ID) {
			t.Errorf("after a resize from flavor %d: %d, before %+v; want %d", s.Flavor.ID, got.Flavor.ID, got.OldFlavor, big.ID)
		}
		if got.VMState != step.state || got.PowerState != step.power {
			t.Fatalf("after %s: %s, power %d; want %s, %d", step.kind, got.VMState, got.PowerState, step.state, step.power)
		}
		for _, b := range w.whole() {
			t.Errorf("after %s: %s", step.kind, b)
		}
		if t.Failed() {
			return
		}
	}
	if got := w.get(s.ID); got.Flavor.Name != "big" || got.ImageID != "img2" {
		t.Errorf("flavor %s and image %s, want big and img2", got.Flavor.Name, got.ImageID)
	}
	if w.imgs.m["shelf"] != nil {
		t.Error("the shelve image outlived unshelving")
	}
	w.ended(w.do(e, compute.OpDelete, s.ID, nil), operation.Done)
	w.mustBeWhole()
	if len(w.nets.ports) != 0 || len(w.alloc.m) != 0 {
		t.Errorf("left after delete: ports %v, allocations %v", w.nets.ports, w.alloc.m)
	}
}

func TestCreateGoesToTheNextHost(t *testing.T) {
	w := newWorld(t)
	w.refuse["h1/spawn"] = fault.New(fault.Internal, "the disk is full")
	e, _ := w.engine(nil)
	s := w.active(e)
	if s.Host != "h2" {
		t.Errorf("the server is on %s, want h2", s.Host)
	}
	w.mustBeWhole()
}

func TestCreateGivesUpAfterMaxAttempts(t *testing.T) {
	w := newWorld(t)
	for h := range w.hosts {
		w.refuse[h+"/spawn"] = fault.New(fault.Internal, "the disk is full")
	}
	e, _ := w.engine(nil)
	s := w.server(nil)
	w.ended(w.do(e, compute.OpCreate, s.ID, compute.CreateInput{NICs: []compute.NICRequest{{NetworkID: "net"}}}), operation.Undone)
	got := w.get(s.ID)
	if got.VMState != compute.VMError || got.Host != "" || got.Fault == nil || got.Fault.Code != 500 {
		t.Fatalf("after the last host failed: %+v, fault %+v", got, got.Fault)
	}
	want := "Exceeded maximum number of retries. Exhausted all hosts available for retrying build failures for instance " + s.ID + ". Last error: the disk is full"
	if got.Fault.Message != want {
		t.Errorf("fault %q, want %q", got.Fault.Message, want)
	}
	w.mustBeWhole()
}

// TestLiveMigrationTriesAllHosts: hosts that cannot take a running guest are left out one after the other, as many as there are, or as the configuration says.
func TestLiveMigrationTriesAllHosts(t *testing.T) {
	for _, c := range []struct {
		attempts int
		want     string
		state    operation.State
	}{{0, "h6", operation.Done}, {5, "h6", operation.Done}, {4, "h1", operation.Undone}} {
		t.Run(fmt.Sprint(c.attempts), func(t *testing.T) {
			w := newWorld(t)
			w.addHosts("h4", "h5", "h6")
			w.liveAttempts = c.attempts
			e, _ := w.engine(nil)
			s := w.active(e)
			for _, h := range []string{"h2", "h3", "h4", "h5"} {
				w.refuse[h+"/"+string(command.PreLiveMigrate)] = fault.New(fault.Internal, "there is no room for the disks")
			}
			w.ended(w.do(e, compute.OpLiveMigrate, s.ID, compute.LiveMigrateInput{}), c.state)
			if got := w.get(s.ID); got.Host != c.want || got.VMState != compute.VMActive || s.Host != "h1" {
				t.Errorf("from %s to %s, which is %s; want %s", s.Host, got.Host, got.VMState, c.want)
			}
			w.mustBeWhole()
		})
	}
}

func TestARequestAtFaultIsNotTriedElsewhere(t *testing.T) {
	w := newWorld(t)
	w.refuse["h1/spawn"] = fault.New(fault.NotFound, "Image img could not be found.")
	e, _ := w.engine(nil)
	s := w.server(nil)
	w.ended(w.do(e, compute.OpCreate, s.ID, compute.CreateInput{}), operation.Undone)
	if len(w.hosts["h2"].log) != 0 {
		t.Errorf("h2 was asked: %v", w.hosts["h2"].log)
	}
	if f := w.get(s.ID).Fault; f == nil || f.Message != "Image img could not be found." {
		t.Errorf("fault %+v", f)
	}
	w.mustBeWhole()
}

func TestNoValidHostEndsInError(t *testing.T) {
	w := newWorld(t)
	e, _ := w.engine(nil)
	s := w.server(func(s *compute.Server) { s.Flavor.VCPUs = 1000 })
	w.ended(w.do(e, compute.OpCreate, s.ID, compute.CreateInput{}), operation.Undone)
	got := w.get(s.ID)
	if got.VMState != compute.VMError || got.Fault == nil || got.Fault.Message != "No valid host was found. The model has none left." {
		t.Errorf("%s, fault %+v", got.VMState, got.Fault)
	}
	w.mustBeWhole()
}

func TestDeleteDoesNotWaitForADeadHost(t *testing.T) {
	w := newWorld(t)
	e, _ := w.engine(nil)
	s := w.active(e)
	w.mu.Lock()
	w.down["h1"] = true
	w.mu.Unlock()
	w.ended(w.do(e, compute.OpDelete, s.ID, nil), operation.Done)
	debts, err := w.owed.OfHost(t.Context(), w.db, "h1")
	if err != nil || len(debts) != 1 || debts[0].Verb != command.Destroy || debts[0].Server != s.ID {
		t.Fatalf("h1 owes %+v (%v), want the destruction of %s", debts, err, s.ID)
	}
	if got := w.get(s.ID); got.VMState != compute.VMDeleted || len(w.alloc.m) != 0 || len(w.nets.ports) != 0 {
		t.Errorf("%s, allocations %v, ports %v", got.VMState, w.alloc.m, w.nets.ports)
	}
}

func TestEvacuationFencesTheOldHost(t *testing.T) {
	w := newWorld(t)
	e, _ := w.engine(nil)
	s := w.active(e)
	w.ended(w.do(e, compute.OpEvacuate, s.ID, compute.EvacuateInput{}), operation.Undone) // h1 lives
	if got := w.get(s.ID); got.Host != "h1" || got.VMState != compute.VMActive {
		t.Fatalf("the server on a living host is %s on %s", got.VMState, got.Host)
	}
	w.mu.Lock()
	w.down["h1"] = true
	w.mu.Unlock()
	w.ended(w.do(e, compute.OpEvacuate, s.ID, compute.EvacuateInput{}), operation.Done)
	got := w.get(s.ID)
	if got.Host != "h2" || got.VMState != compute.VMActive || w.hosts["h2"].guests[s.ID] == nil {
		t.Errorf("evacuated to %s, %s", got.Host, got.VMState)
	}
	debts, err := w.owed.OfHost(t.Context(), w.db, "h1")
	if err != nil || len(debts) != 1 || debts[0].Verb != command.Destroy {
		t.Errorf("h1 owes %+v (%v)", debts, err)
	}
	if held, _, _ := w.alloc.Of(t.Context(), s.ID); len(held) != 1 || held["rp-h2"] == nil || len(w.alloc.m) != 1 {
		t.Errorf("allocations %v", w.alloc.m)
	}
}

func TestBackupRotates(t *testing.T) {
	w := newWorld(t)
	e, _ := w.engine(nil)
	s := w.active(e)
	props := map[string]string{"instance_uuid": s.ID, "backup_type": "daily"}
	for _, img := range []string{"b1", "b2", "b3"} {
		w.imgs.add(img, image.Queued, props)
		w.ended(w.do(e, compute.OpBackup, s.ID, compute.SnapshotInput{ImageID: img, BackupType: "daily", Rotation: 2}), operation.Done)
	}
	if w.imgs.m["b1"] != nil || w.imgs.m["b2"] == nil || w.imgs.m["b3"] == nil {
		t.Errorf("images after the third backup with rotation 2: %v", w.imgs.m)
	}
}

func TestASnapshotThatWasCutOffIsTakenAgain(t *testing.T) {
	w := newWorld(t)
	e, _ := w.engine(nil)
	s := w.active(e)
	w.imgs.add("cut", image.Queued, nil)
	w.imgs.cut = map[string]int{"cut": 5}
	w.ended(w.do(e, compute.OpSnapshot, s.ID, compute.SnapshotInput{ImageID: "cut"}), operation.Done)
	if got := w.imgs.m["cut"]; got == nil || got.Status != image.Active {
		t.Errorf("the image is %+v", got)
	}
	w.imgs.add("left", image.Saving, nil) // by somebody who was killed
	w.imgs.cut["left"] = 3
	w.ended(w.do(e, compute.OpSnapshot, s.ID, compute.SnapshotInput{ImageID: "left"}), operation.Done)
	if got := w.imgs.m["left"]; got == nil || got.Status != image.Active {
		t.Errorf("the image is %+v", got)
	}
	w.mustBeWhole()
}

func TestUnsupportedVerbLeavesTheServerAsItIs(t *testing.T) {
	w := newWorld(t)
	e, _ := w.engine(nil)
	s := w.active(e)
	w.refuse["h1/pause"] = fault.New(fault.NotImplemented, "The driver cannot pause.")
	w.ended(w.do(e, compute.OpPause, s.ID, nil), operation.Undone)
	if got := w.get(s.ID); got.VMState != compute.VMActive || got.Fault == nil || got.Fault.Message != "The driver cannot pause." {
		t.Errorf("%s, %+v", got.VMState, got.Fault)
	}
	w.mustBeWhole()
}

func TestAHostPaysBeforeItIsAskedForMore(t *testing.T) {
	w := newWorld(t)
	e, _ := w.engine(nil)
	s := w.active(e)
	w.write(func(tx *db.Tx) error {
		return w.owed.Add(t.Context(), tx, owed.Debt{Host: "h1", Server: s.ID, Epoch: 1, Verb: command.RevertResize, Args: []byte(`{"spec":{"id":"` + s.ID + `","vcpus":1}}`)})
	})
	w.hosts["h1"].log = nil
	w.ended(w.do(e, compute.OpStop, s.ID, nil), operation.Done)
	if got := w.hosts["h1"].log; len(got) != 2 || got[0] != string(command.RevertResize) || got[1] != string(command.PowerOff) {
		t.Errorf("h1 was asked %v; it owed %s", got, command.RevertResize)
	}
	w.mustBeWhole()
}

// An error that says that the database was away is no word of a host: the host is not taken for down, owes nothing, and its builds are not counted.
func TestTheDatabaseIsNoHost(t *testing.T) {
	w := newWorld(t)
	w.down["h1"] = true
	c := w.config()
	builds := counted{w, map[string][]bool{}}
	c.Placer = builds
	f := &flows{Config: c}
	s := w.server(nil)
	r := &operation.Run{ID: id.UUID(), Object: s.ID, Epoch: 1}
	silent := fault.New(fault.Unavailable, "The compute service on host h1 does not answer.")
	away := fault.Wrap(fault.ErrAway, fault.Unavailable, "The database cannot be reached. Try again.")
	owes := func() int {
		all, err := w.owed.All(t.Context(), w.db)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	if err := f.orOwe(t.Context(), r, "h1", command.Destroy, command.DestroyArgs{}, "why", away); !errors.Is(err, fault.ErrAway) || owes() != 0 {
		t.Errorf("away: %v, %d debts", err, owes())
	}
	if err := f.orOwe(t.Context(), r, "h1", command.Destroy, command.DestroyArgs{}, "why", silent); err != nil || owes() != 1 {
		t.Errorf("silent: %v, %d debts", err, owes())
	}
	for _, err := range []error{nil, silent, away} {
		f.built(t.Context(), "h1", err)
	}
	if got := builds.ends["h1"]; !slices.Equal(got, []bool{true, false}) {
		t.Errorf("counted: %v", got)
	}
}

// counted keeps how builds ended.
type counted struct {
	Placer
	ends map[string][]bool
}

func (c counted) Built(_ context.Context, host string, ok bool) {
	c.ends[host] = append(c.ends[host], ok)
}
