package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"kilonova/internal/bus"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/virt"
	"kilonova/internal/fault"
	"kilonova/internal/id"
)

func liveArgs(a *Agent, c *command.Command) (args command.LiveMigrateArgs, d virt.Migrator, err error) {
	if err = bind(c, &args); err == nil {
		d, err = ability[virt.Migrator](a, "migrate running guests")
	}
	return args, d, err
}

func preLiveMigrate(a *Agent, ctx context.Context, c *command.Command) (any, *kept, error) {
	args, d, err := liveArgs(a, c)
	if err != nil {
		return nil, nil, err
	}
	if _, err := a.complete(ctx, c.Server, &args.Spec); err != nil {
		return nil, nil, err
	}
	s, sharing := d.(virt.DiskSharer)
	shared := args.Auto && sharing && s.SeesDisks(&args.Spec)
	if err := d.PreLiveMigration(ctx, &args.Spec, args.Block && !shared); err != nil {
		return nil, nil, err
	}
	target, err := d.LiveMigrationTarget(ctx, &args.Spec)
	if err == nil && shared {
		target[command.SharedDisks] = "yes"
	}
	return target, nil, err
}

func liveMigrate(a *Agent, ctx context.Context, c *command.Command) (any, *kept, error) {
	args, d, err := liveArgs(a, c)
	if err != nil {
		return nil, nil, err
	}
	k, err := a.kept(ctx, c.Server)
	if err != nil {
		return nil, nil, err
	}
	if k.Spec != nil {
		args.Spec.BaseImage, args.Spec.BaseFormat, args.Spec.ConfigDrive = k.Spec.BaseImage, k.Spec.BaseFormat, k.Spec.ConfigDrive
	}
	var last time.Time
	err = d.LiveMigrate(ctx, &args.Spec, args.Target, args.Block, func(p virt.MigrationProgress) {
		if time.Since(last) < time.Second {
			return
		}
		last = time.Now()
		if msg, err := json.Marshal(command.MigrationReport{Migration: args.Migration, Progress: p}); err == nil {
			_ = a.cfg.Bus.Cast(ctx, command.MigrationSubject, msg) // the next report follows within a second
		}
	})
	return nil, nil, err
}

func rollbackLive(a *Agent, ctx context.Context, c *command.Command) (any, *kept, error) {
	args, d, err := liveArgs(a, c)
	if err == nil {
		err = d.RollbackLiveMigration(ctx, &args.Spec)
	}
	if err != nil {
		return nil, nil, err
	}
	if a.plane != nil {
		a.plane.trigger()
	}
	return nil, &kept{}, nil
}

// adoptLive keeps the spec of a guest that has arrived.
func adoptLive(a *Agent, ctx context.Context, c *command.Command) (any, *kept, error) {
	var args command.SpawnArgs // its spec is where SpecArgs has it; metadata may be there
	if err := bind(c, &args); err != nil {
		return nil, nil, err
	}
	if err := a.addImage(ctx, &args.Spec); err != nil {
		return nil, nil, err
	}
	r, err := a.power(ctx, c.Server)
	if err != nil {
		return nil, nil, err
	}
	a.wired(ctx, args.Spec.VIFs)
	return r, &kept{Spec: &args.Spec, Metadata: args.Metadata}, nil
}

// Disks of stopped guests travel over the bus in pieces, each acknowledged before the next.

const piece = 1 << 20

func transferSubject(host string) string { return "agent." + bus.Token(host) + ".file" }

type transfer struct {
	ID     string `json:"id"` // one for each try of one file
	Server string `json:"server"`
	Name   string `json:"name"`
	Offset int64  `json:"offset"`
	Data   []byte `json:"data,omitempty"`
	Last   bool   `json:"last,omitempty"`
}

type incoming struct {
	mu   sync.Mutex
	next int64
	w    *io.PipeWriter
	done chan error
	used time.Time
}

func sendDisks(a *Agent, ctx context.Context, c *command.Command) (any, *kept, error) {
	var args command.SendDisksArgs
	if err := bind(c, &args); err != nil {
		return nil, nil, err
	}
	d, err := ability[virt.DiskMover](a, "move disks to other hosts")
	if err != nil {
		return nil, nil, err
	}
	names, err := d.ExportDisks(ctx, c.Server)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		if err := a.sendDisk(ctx, d, args.Host, c.Server, name); err != nil {
			return nil, nil, fmt.Errorf("send %s of %s to %s: %w", name, c.Server, args.Host, err)
		}
	}
	return nil, nil, nil
}

func (a *Agent) sendDisk(ctx context.Context, d virt.DiskMover, host, server, name string) error {
	r, err := d.OpenDisk(ctx, server, name)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	t := transfer{ID: id.UUID(), Server: server, Name: name}
	buf := make([]byte, piece)
	for !t.Last {
		n, err := io.ReadFull(r, buf)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		t.Data, t.Last = buf[:n], err != nil
		msg, err := json.Marshal(t)
		if err != nil {
			return err
		}
		one, cancel := context.WithTimeout(ctx, 2*time.Minute)
		_, err = a.cfg.Bus.Call(one, transferSubject(host), msg)
		cancel()
		if errors.Is(err, bus.ErrNoResponder) {
			return fault.Wrap(err, fault.Unavailable, "The compute service on host %s does not answer.", host)
		}
		if err != nil {
			return err
		}
		t.Offset += int64(n)
	}
	return nil
}

// receive takes one piece. A piece that comes again is acknowledged; one out of order ends the transfer, and the sender begins anew.
func (a *Agent) receive(ctx context.Context, _ string, msg []byte) ([]byte, error) {
	var t transfer
	if err := json.Unmarshal(msg, &t); err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "The piece of a disk is malformed.")
	}
	d, err := ability[virt.DiskMover](a, "take disks from other hosts")
	if err != nil {
		return nil, err
	}
	in, err := a.transferOf(d, &t)
	if err != nil {
		return nil, err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.used = time.Now()
	switch {
	case t.Offset+int64(len(t.Data)) <= in.next && !t.Last && len(t.Data) > 0:
		return nil, nil
	case t.Offset != in.next:
		return nil, fault.New(fault.Conflict, "Piece at %d of %s does not follow %d.", t.Offset, t.Name, in.next)
	}
	if _, err := in.w.Write(t.Data); err != nil {
		return nil, err
	}
	in.next += int64(len(t.Data))
	if !t.Last {
		return nil, nil
	}
	_ = in.w.Close()
	a.mu.Lock()
	delete(a.imports, t.ID)
	a.mu.Unlock()
	select {
	case err := <-in.done:
		return nil, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (a *Agent) transferOf(d virt.DiskMover, t *transfer) (*incoming, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if in := a.imports[t.ID]; in != nil {
		return in, nil
	}
	if t.Offset != 0 {
		return nil, fault.New(fault.Conflict, "The transfer of %s is not known here any more: begin again.", t.Name)
	}
	for key, old := range a.imports { // senders that went away
		if old.mu.TryLock() {
			if time.Since(old.used) > 10*time.Minute {
				_ = old.w.CloseWithError(errors.New("the sender went away"))
				delete(a.imports, key)
			}
			old.mu.Unlock()
		}
	}
	r, w := io.Pipe()
	in := &incoming{w: w, done: make(chan error, 1), used: time.Now()}
	if a.imports == nil {
		a.imports = map[string]*incoming{}
	}
	a.imports[t.ID] = in
	a.wg.Go(func() {
		err := d.ImportDisk(a.ctx, t.Server, t.Name, r)
		_ = r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
		in.done <- err
	})
	return in, nil
}
