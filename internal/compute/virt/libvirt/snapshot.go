package libvirt

import (
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/libvirt/definition"
	"kilonova/internal/compute/virt/libvirt/disk"
	"kilonova/internal/compute/virt/libvirt/rpc"
	"kilonova/internal/fault"
	"kilonova/internal/id"
)

// backupXML asks libvirt to copy the disks as they are at one instant.
type backupXML struct {
	XMLName xml.Name        `xml:"domainbackup"`
	Mode    string          `xml:"mode,attr"`
	Disks   []backupDiskXML `xml:"disks>disk"`
}

type backupDiskXML struct {
	Name   string           `xml:"name,attr"`
	Backup string           `xml:"backup,attr"`
	Type   string           `xml:"type,attr,omitempty"`
	Driver *backupDriverXML `xml:"driver"`
	Target *backupTargetXML `xml:"target"`
}

type (
	backupDriverXML struct {
		Type string `xml:"type,attr"`
	}
	backupTargetXML struct {
		File string `xml:"file,attr"`
	}
)

// Snapshot copies the root disk, flattened, into one file. A running guest's disk is copied by QEMU itself as it was at the instant of the
// call, while the guest goes on; the chain of its images is not touched, so nothing is left to mend when anybody dies meanwhile.
func (d *Driver) Snapshot(ctx context.Context, guest string, o virt.SnapshotOptions) (*virt.SnapshotFile, error) {
	if o.Format != "qcow2" && o.Format != "raw" {
		return nil, fault.New(fault.Invalid, "Snapshots are made in the formats qcow2 and raw, not %q.", o.Format)
	}
	unlock, err := d.guest(ctx, guest)
	if err != nil {
		return nil, err
	}
	defer unlock()
	f, err := d.must(ctx, guest)
	if err != nil {
		return nil, err
	}
	root := d.path(guest, rootDisk)
	if !exists(root) {
		return nil, fault.New(fault.Conflict, "The server has no disk of its own on the host.")
	}
	out := &virt.SnapshotFile{Path: filepath.Join(o.Dir, "snapshot-"+id.UUID()+"."+o.Format), Format: o.Format}
	if f.active() {
		out.Quiesced, err = d.copyLive(ctx, f, root, out.Path, o)
	} else if o.QuiesceRequired && f.power == virt.Suspended {
		err = conflict("quiesced", f.power)
	} else {
		_, err = disk.Img(ctx, "convert", "-q", "-f", "qcow2", "-O", o.Format, root, out.Path)
	}
	if err != nil {
		os.Remove(out.Path)
		return nil, fmt.Errorf("snapshot %s: %w", guest, err)
	}
	return out, nil
}

// copyLive has QEMU copy a running guest's root disk.
func (d *Driver) copyLive(ctx context.Context, f found, root, to string, o virt.SnapshotOptions) (quiesced bool, err error) {
	live, err := d.definition(ctx, f.dom, 0)
	if err != nil {
		return false, err
	}
	ask := backupXML{Mode: "push"}
	for _, k := range live.Devices.Disks {
		switch {
		case k.Source != nil && k.Source.File == root:
			ask.Disks = append(ask.Disks, backupDiskXML{k.Target.Dev, "yes", "file", &backupDriverXML{o.Format}, &backupTargetXML{to}})
		case k.Device == "disk":
			ask.Disks = append(ask.Disks, backupDiskXML{Name: k.Target.Dev, Backup: "no"})
		}
	}
	text, err := definition.Encode(ask)
	if err != nil {
		return false, err
	}
	events := d.rpc.Subscribe()
	defer events.Close()
	if err := d.endBackup(ctx, f.dom, events); err != nil { // of an earlier try
		return false, err
	}
	if o.Quiesce || o.QuiesceRequired {
		if quiesced, err = d.freezeDisks(ctx, f, o.QuiesceRequired); err != nil {
			return false, err
		}
	}
	err = d.rpc.BackupBegin(ctx, f.dom, text)
	if quiesced {
		d.thawDisks(ctx, f)
	}
	if err != nil {
		return false, err
	}
	return quiesced, d.waitBackup(ctx, f.dom, events)
}

// freezeDisks asks the guest agent to bring the file systems to rest. A guest without one is in order unless rest is required.
func (d *Driver) freezeDisks(ctx context.Context, f found, required bool) (bool, error) {
	if f.power != virt.Running {
		return false, nil // a paused guest writes nothing
	}
	freeze := func() error {
		_, err := d.rpc.Freeze(ctx, f.dom)
		return err
	}
	try := freeze
	if required {
		try = func() error { return d.askAgent(ctx, f.dom, freeze) }
	}
	err := try()
	if err != nil && !rpc.HasCode(err, rpc.AgentUnresponsive, rpc.ArgumentUnsupported, rpc.ConfigUnsupported) {
		// Nobody knows how far it came; or they are frozen already, by an earlier try that was cut off.
		d.thawDisks(ctx, f)
		if err = try(); err != nil {
			d.thawDisks(ctx, f)
		}
	}
	if err == nil || !required {
		return err == nil, nil
	}
	return false, fault.Wrap(err, fault.Conflict, "The server's file systems could not be brought to rest.").WithHint("It needs a guest agent that answers.")
}

// thawDisks lets the guest's file systems go on, also when the caller has given up: a guest whose file systems stay frozen is lost to its owner.
func (d *Driver) thawDisks(ctx context.Context, f found) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.c.AgentPatience+time.Minute)
	defer cancel()
	err := d.askAgent(ctx, f.dom, func() error {
		_, err := d.rpc.Thaw(ctx, f.dom)
		return err
	})
	if err != nil {
		d.log.Error("the guest's file systems stay frozen", "guest", f.dom.Name, "error", err)
	}
}

// job gives the type of the domain's job, its operation and its error.
func (d *Driver) job(ctx context.Context, dom rpc.Domain, flags uint32) (kind int32, operation int32, message string, err error) {
	kind, params, err := d.rpc.JobStats(ctx, dom, flags)
	for _, p := range params {
		if text, ok := p.Value.(string); ok && p.Name == "errmsg" {
			message = text
		}
	}
	return kind, operationOf(params), message, err
}

// operationOf gives the operation that a job's parameters name.
func operationOf(params []rpc.Param) int32 {
	for _, p := range params {
		if n, ok := p.Value.(int32); ok && p.Name == "operation" {
			return n
		}
	}
	return 0
}

// waitBackup waits for the end of a backup and tells how it went. When ctx ends first, the job is ended too.
func (d *Driver) waitBackup(ctx context.Context, dom rpc.Domain, events *rpc.Subscription) error {
	for {
		kind, _, _, err := d.job(ctx, dom, 0)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if ctx.Err() != nil {
			clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
			defer cancel()
			return errors.Join(ctx.Err(), d.endBackup(clean, dom, events))
		}
		if kind == rpc.JobNone {
			break
		}
		d.nextEvent(ctx, events, dom, 250*time.Millisecond)
	}
	kind, operation, message, err := d.job(ctx, dom, rpc.JobStatsCompleted)
	if err != nil {
		return err
	}
	if kind != rpc.JobDone || operation != rpc.OperationBackup {
		return fault.New(fault.Internal, "The disk could not be copied: %s", cmp.Or(message, "the job ended early"))
	}
	return nil
}

// endBackup ends a backup that runs, if one does.
func (d *Driver) endBackup(ctx context.Context, dom rpc.Domain, events *rpc.Subscription) error {
	for {
		kind, operation, _, err := d.job(ctx, dom, 0)
		if err != nil || kind == rpc.JobNone || operation != rpc.OperationBackup {
			return err
		}
		if err := d.rpc.AbortJob(ctx, dom); err != nil && !errors.Is(err, fault.Conflict) {
			return err
		}
		d.nextEvent(ctx, events, dom, 250*time.Millisecond)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
