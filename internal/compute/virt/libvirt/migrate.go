package libvirt

import (
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/libvirt/definition"
	"kilonova/internal/compute/virt/libvirt/handover"
	"kilonova/internal/compute/virt/libvirt/rpc"
	"kilonova/internal/fault"
)

// What a destination tells a source (the map of LiveMigrationTarget).
const (
	targetURI      = "uri"           // libvirtd, as other hosts' libvirtd reach it
	targetData     = "migrate_uri"   // where QEMU takes memory and disks; may be missing
	targetDir      = "instances_dir" // the guest's files lie in a directory of its own there
	targetPorts    = "serial_ports"  // free ports for serial consoles
	targetVNC      = "vnc_listen"
	targetSerial   = "serial_listen"
	targetBridge   = "bridge "      // and a MAC address: the bridge of that interface
	targetFiles    = "file_address" // where the config drive can be sent, with
	targetFilesKey = "file_token"   // this said first
)

// departed is the mark of a guest that moved away: a migration asked for again is known to be over.
func (d *Driver) departed(guest string) string {
	return filepath.Join(d.c.InstancesDir, ".departed-"+guest)
}

// pruneDeparted drops marks that nobody will ask for any more.
func (d *Driver) pruneDeparted() {
	marks, _ := filepath.Glob(filepath.Join(d.c.InstancesDir, ".departed-*"))
	for _, m := range marks {
		if st, err := os.Stat(m); err == nil && time.Since(st.ModTime()) > 7*24*time.Hour {
			_ = os.Remove(m) // the next start tries again
		}
	}
}

// PreLiveMigration makes disks (block) and secrets for a guest that is to come.
func (d *Driver) PreLiveMigration(ctx context.Context, spec *virt.Spec, block bool) error {
	unlock, err := d.guest(ctx, spec.ID)
	if err != nil {
		return err
	}
	defer unlock()
	if d.c.MigrationURI == "" {
		return fault.New(fault.NotImplemented, "The host has no address for live migration.").WithHint("Configure its migration URI.")
	}
	f, err := d.look(ctx, spec.ID)
	if err != nil {
		return err
	}
	if f.there {
		if f.active() {
			return nil // it is arriving, or has
		}
		return fault.New(fault.Conflict, "The server is defined on the destination already.")
	}
	if _, err := definition.ParseOptions(spec); err != nil {
		return err
	}
	dir := d.path(spec.ID)
	switch {
	case block && !exists(dir):
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, incomingMark), nil, 0o600); err != nil {
			return err
		}
	case block && !exists(filepath.Join(dir, incomingMark)):
		return fault.New(fault.Conflict, "The destination has files of the server already.").WithHint("Is its instances directory shared with the source? Then migrate without copying disks.")
	case !block && spec.BaseImage != "" && !exists(d.path(spec.ID, rootDisk)):
		return fault.New(fault.Conflict, "The destination does not see the server's disk.").WithHint("Without shared storage, migrate with copying disks (block migration).")
	}
	os.Remove(d.departed(spec.ID))
	if block {
		if err := d.own(d.path(spec.ID)); err != nil {
			return err
		}
		here := *spec
		if here.ConfigDrive != "" && !exists(here.ConfigDrive) {
			here.ConfigDrive = "" // it comes from the source
		}
		if err := d.prepareFiles(ctx, &here); err != nil {
			return err
		}
	}
	return d.defineSecrets(ctx, spec)
}

// LiveMigrationTarget tells how another host sends a guest here.
func (d *Driver) LiveMigrationTarget(ctx context.Context, spec *virt.Spec) (map[string]string, error) {
	if _, err := parseUUID(spec.ID); err != nil {
		return nil, err
	}
	if d.c.MigrationURI == "" {
		return nil, fault.New(fault.NotImplemented, "The host has no address for live migration.").WithHint("Configure its migration URI.")
	}
	t := map[string]string{targetURI: d.c.MigrationURI, targetDir: d.c.InstancesDir, targetVNC: d.c.VNCListen, targetSerial: d.c.SerialListen}
	address := d.c.MigrationAddress
	if address != "" {
		t[targetData] = "tcp://" + bracketed(address)
	}
	var ports []string
	mine := map[int]bool{}
	for range 4 {
		p, err := d.freePort(mine)
		if err != nil {
			return nil, err
		}
		mine[p] = true
		ports = append(ports, strconv.Itoa(p))
	}
	t[targetPorts] = strings.Join(ports, ",")
	for _, v := range spec.VIFs {
		if v.Bridge != "" {
			t[targetBridge+strings.ToLower(v.MAC)] = v.Bridge
		}
	}
	if err := definition.PlaceTarget(spec, d.c.SharedCPUs, t); err != nil {
		return nil, err
	}
	if exists(d.path(spec.ID, incomingMark)) && !exists(d.path(spec.ID, configDisk)) {
		if address == "" {
			address = d.hostIP()
		}
		var err error
		if t[targetFiles], t[targetFilesKey], err = d.offers.Open(address, spec.ID, d.path(spec.ID, configDisk)); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func bracketed(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

// LiveMigrate moves the running guest to the target. It returns when the guest runs there and is gone here.
func (d *Driver) LiveMigrate(ctx context.Context, spec *virt.Spec, target map[string]string, block bool, progress func(virt.MigrationProgress)) error {
	f, unlock, err := d.hold(ctx, spec.ID)
	defer unlock()
	switch {
	case err != nil:
		return err
	case !f.there && exists(d.departed(spec.ID)):
		return nil
	case !f.there:
		return fault.New(fault.NotFound, "The hypervisor does not know the server %s.", spec.ID)
	case !f.active():
		return conflict("migrated live", f.power)
	case target[targetURI] == "":
		return fault.New(fault.Invalid, "The destination did not tell how it is reached.")
	}
	if joined, err := d.joinMigration(ctx, f.dom, progress); joined {
		if err != nil {
			return fmt.Errorf("migrate %s: %w", spec.Name, err)
		}
		return d.depart(context.WithoutCancel(ctx), spec, block)
	} else if err != nil {
		return err
	}
	if err := d.sendConfigDrive(ctx, spec.ID, target); err != nil {
		return err
	}
	params, flags, err := d.migration(ctx, f, spec.ID, target, block)
	if err != nil {
		return err
	}
	err = d.runMigration(ctx, f.dom, target[targetURI], params, flags, progress)
	if err != nil && flags&rpc.MigratePostCopy != 0 && ctx.Err() == nil && isAboutPostCopy(err) {
		err = d.runMigration(ctx, f.dom, target[targetURI], params, flags&^rpc.MigratePostCopy, progress)
	}
	if err != nil {
		return fmt.Errorf("migrate %s: %w", spec.Name, err)
	}
	return d.depart(context.WithoutCancel(ctx), spec, block)
}

// joinMigration waits for the end of a migration that was started earlier, by a process that is gone: the daemons carry it on by themselves. It
// tells whether there was one.
func (d *Driver) joinMigration(ctx context.Context, dom rpc.Domain, progress func(virt.MigrationProgress)) (bool, error) {
	joined := false
	for {
		kind, params, err := d.rpc.JobStats(ctx, dom, 0)
		if joined && errors.Is(err, fault.NotFound) {
			return true, nil // undefined: it has moved
		}
		if joined && errors.Is(err, fault.Conflict) {
			kind, err = rpc.JobNone, nil // a guest that does not run has no job
		}
		if err != nil {
			return joined, err
		}
		if !joined && (kind == rpc.JobNone || operationOf(params) != rpc.OperationMigrationOut) {
			return false, nil
		}
		joined = true
		if kind == rpc.JobNone {
			// The guest is still defined here. Between the end of the job and the removal of the definition it does not run.
			gone, err := d.waitGone(ctx, dom)
			if err != nil || gone {
				return true, err
			}
			return true, fault.New(fault.Conflict, "The migration that was under way has failed; the server is still here.")
		}
		if progress != nil {
			progress(readProgress(params))
		}
		select {
		case <-ctx.Done():
			return true, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// waitGone gives a domain that does not run any more a moment to disappear.
func (d *Driver) waitGone(ctx context.Context, dom rpc.Domain) (bool, error) {
	for range 50 {
		on, err := d.rpc.IsActive(ctx, dom)
		if errors.Is(err, fault.NotFound) {
			return true, nil
		}
		if err != nil || on {
			return false, err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return false, nil
}

// depart cleans up behind a guest that moved away.
func (d *Driver) depart(ctx context.Context, spec *virt.Spec, block bool) error {
	if err := os.WriteFile(d.departed(spec.ID), nil, 0o600); err != nil {
		return err
	}
	for _, v := range spec.Disks {
		if err := d.removeSecret(ctx, v.VolumeID); err != nil {
			return err
		}
	}
	if !block {
		return nil
	}
	return os.RemoveAll(d.path(spec.ID))
}

// isAboutPostCopy tells whether a host refused to be ready for post-copy, which not every kernel can.
func isAboutPostCopy(err error) bool {
	var e *rpc.Error
	return errors.As(err, &e) && (strings.Contains(strings.ToLower(e.Message), "postcopy") || strings.Contains(e.Message, "post-copy") || strings.Contains(e.Message, "userfault"))
}

// migration makes the parameters: above all the definition as it has to be at the destination.
func (d *Driver) migration(ctx context.Context, f found, guest string, target map[string]string, block bool) ([]rpc.Param, uint32, error) {
	live, err := d.rpc.XML(ctx, f.dom, rpc.XMLSecure|rpc.XMLMigratable)
	if err != nil {
		return nil, 0, err
	}
	kept, err := d.rpc.XML(ctx, f.dom, rpc.XMLSecure|rpc.XMLMigratable|rpc.XMLInactive)
	if err != nil {
		return nil, 0, err
	}
	params := []rpc.Param{{Name: "destination_xml", Value: d.rewrite(live, guest, target)}, {Name: "persistent_xml", Value: d.rewrite(kept, guest, target)}}
	if u := target[targetData]; u != "" {
		params = append(params, rpc.Param{Name: "migrate_uri", Value: u})
	}
	if d.c.MigrationBandwidth > 0 {
		params = append(params, rpc.Param{Name: "bandwidth", Value: d.c.MigrationBandwidth})
	}
	flags := rpc.MigrateLive | rpc.MigratePersistDest | rpc.MigrateUndefineSource | rpc.MigrateAutoConverge | rpc.MigratePostCopy
	if !block {
		// The caller knows that both hosts see the same disks; libvirt believes so only of some network file systems.
		return params, flags | rpc.MigrateUnsafe, nil
	}
	x := &definition.Domain{}
	if err := xml.Unmarshal([]byte(live), x); err != nil {
		return nil, 0, fmt.Errorf("read definition: %w", err)
	}
	own := d.path(guest) + "/"
	local := false
	for _, k := range x.Devices.Disks {
		if k.Device == "disk" && k.Source != nil && strings.HasPrefix(k.Source.File, own) {
			params, local = append(params, rpc.Param{Name: "migrate_disks", Value: k.Target.Dev}), true
		}
	}
	if local {
		flags |= rpc.MigrateNonSharedInc
	} else {
		flags |= rpc.MigrateUnsafe
	}
	return params, flags, nil
}

// rewrite fits a definition's text to the destination: the directory of the guest's files, ports, listen addresses, bridges. Everything else has to
// stay to the letter, so the text is edited rather than read and written.
func (d *Driver) rewrite(text, guest string, target map[string]string) string {
	if dir := target[targetDir]; dir != "" {
		text = strings.ReplaceAll(text, "'"+escaped(d.path(guest))+"/", "'"+escaped(filepath.Join(dir, guest))+"/")
		text = strings.ReplaceAll(text, ">"+escaped(d.path(guest))+"/", ">"+escaped(filepath.Join(dir, guest))+"/") // nvram is text, not attribute
	}
	ports := strings.Split(target[targetPorts], ",")
	seen := map[string]string{} // a console and its serial port are told twice
	text = servicePort.ReplaceAllStringFunc(text, func(s string) string {
		if _, ok := seen[s]; !ok && len(seen) < len(ports) && ports[len(seen)] != "" {
			seen[s] = "service='" + ports[len(seen)] + "'"
		}
		return cmp.Or(seen[s], s)
	})
	if to := target[targetVNC]; to != "" && to != d.c.VNCListen {
		text = strings.ReplaceAll(text, "listen='"+d.c.VNCListen+"'", "listen='"+to+"'")
		text = strings.ReplaceAll(text, "<listen type='address' address='"+d.c.VNCListen+"'", "<listen type='address' address='"+to+"'")
	}
	if to := target[targetSerial]; to != "" && to != d.c.SerialListen {
		text = strings.ReplaceAll(text, "mode='bind' host='"+d.c.SerialListen+"'", "mode='bind' host='"+to+"'")
	}
	for name, bridge := range target {
		if mac, ok := strings.CutPrefix(name, targetBridge); ok {
			text = rewriteBridge(text, mac, bridge)
		}
	}
	return definition.RewritePlace(text, target)
}

// rewriteBridge plugs the interface with the MAC into another bridge.
func rewriteBridge(text, mac, bridge string) string {
	at := strings.Index(strings.ToLower(text), "<mac address='"+mac+"'")
	if at < 0 {
		return text
	}
	const source = "<source bridge='"
	rest := text[at:]
	if end := strings.Index(rest, "</interface>"); end >= 0 {
		rest = rest[:end]
	}
	from := strings.Index(rest, source)
	if from < 0 {
		return text
	}
	from += at + len(source)
	to := strings.IndexByte(text[from:], '\'')
	if to < 0 {
		return text
	}
	return text[:from] + escaped(bridge) + text[from+to:]
}

// escaped writes s as libvirt writes it in XML.
func escaped(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "'", "&apos;", `"`, "&quot;").Replace(s)
}

// runMigration starts the migration and tells its progress until it is over. When ctx ends first, the migration is aborted.
func (d *Driver) runMigration(ctx context.Context, dom rpc.Domain, uri string, params []rpc.Param, flags uint32, progress func(virt.MigrationProgress)) error {
	over := make(chan error, 1)
	call, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	go func() { over <- d.rpc.MigrateToURI(call, dom, uri, params, flags) }() // ends with call at the latest
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	var late <-chan time.Time
	done := ctx.Done()
	for {
		select {
		case err := <-over:
			return err
		case <-done:
			done, late = nil, time.After(time.Minute)
			if err := d.rpc.AbortJob(call, dom); err != nil {
				d.log.Warn("the migration cannot be aborted now", "guest", dom.Name, "error", err)
			}
		case <-late:
			cancel()
			return errors.Join(ctx.Err(), <-over)
		case <-tick.C:
			if progress == nil {
				continue
			}
			if kind, params, err := d.rpc.JobStats(call, dom, 0); err == nil && kind != rpc.JobNone {
				progress(readProgress(params))
			}
		}
	}
}

func readProgress(params []rpc.Param) (p virt.MigrationProgress) {
	to := map[string]*int64{"memory_total": &p.MemoryTotal, "memory_processed": &p.MemoryProcessed, "memory_remaining": &p.MemoryRemaining,
		"disk_total": &p.DiskTotal, "disk_processed": &p.DiskProcessed, "disk_remaining": &p.DiskRemaining}
	for _, x := range params {
		if n, ok := x.Value.(uint64); ok && to[x.Name] != nil {
			*to[x.Name] = int64(n)
		}
	}
	return p
}

// migrating finds the domain and makes sure that it is moving away.
func (d *Driver) migrating(ctx context.Context, guest string) (rpc.Domain, error) {
	dom, err := d.domain(ctx, guest)
	if err != nil {
		return dom, err
	}
	kind, operation, _, err := d.job(ctx, dom, 0)
	if err == nil && (kind == rpc.JobNone || operation != rpc.OperationMigrationOut) {
		err = fault.New(fault.Conflict, "No live migration of the server is under way.")
	}
	return dom, err
}

// AbortLiveMigration gives a migration up; the guest runs on here.
func (d *Driver) AbortLiveMigration(ctx context.Context, guest string) error {
	dom, err := d.migrating(ctx, guest)
	if err != nil {
		return err
	}
	return d.rpc.AbortJob(ctx, dom)
}

// ForceLiveMigration makes a migration end: the guest goes on at the destination and fetches the rest of its memory (post-copy) or, where
// that cannot be (disks are still being copied, or the kernel cannot), it stands still here until all is copied.
func (d *Driver) ForceLiveMigration(ctx context.Context, guest string) error {
	dom, err := d.migrating(ctx, guest)
	if err != nil {
		return err
	}
	err = d.rpc.StartPostCopy(ctx, dom)
	if err == nil {
		return nil
	}
	d.log.Info("post-copy cannot be started, the guest is paused instead", "guest", dom.Name, "error", err)
	return d.rpc.Suspend(ctx, dom)
}

// RollbackLiveMigration removes what PreLiveMigration made, and nothing else: files that it found there stay.
func (d *Driver) RollbackLiveMigration(ctx context.Context, spec *virt.Spec) error {
	unlock, err := d.guest(ctx, spec.ID)
	if err != nil {
		return err
	}
	defer unlock()
	d.offers.Cancel(spec.ID)
	f, err := d.look(ctx, spec.ID)
	if err != nil {
		return err
	}
	if f.there {
		return fault.New(fault.Conflict, "The server is on the destination: there is nothing to roll back.")
	}
	if !exists(d.path(spec.ID, incomingMark)) {
		return nil
	}
	for _, v := range spec.Disks {
		if err := d.removeSecret(ctx, v.VolumeID); err != nil {
			return err
		}
	}
	return os.RemoveAll(d.path(spec.ID))
}

// sendConfigDrive gives the destination the config drive when it asks for one and the guest has one. libvirt copies no disks that are only read.
func (d *Driver) sendConfigDrive(ctx context.Context, guest string, target map[string]string) error {
	path := d.path(guest, configDisk)
	if target[targetFiles] == "" || !exists(path) {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := handover.Send(ctx, target[targetFiles], target[targetFilesKey], f); err != nil {
		return fmt.Errorf("send the config drive: %w", err)
	}
	return nil
}
