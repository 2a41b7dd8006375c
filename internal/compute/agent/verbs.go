package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"kilonova/internal/auth"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/virt"
	"kilonova/internal/fault"
	"kilonova/internal/image"
	"kilonova/internal/network"
)

// handler carries out a verb. It gives the result and what is to be kept of the guest from now on (nil: as before).
type handler func(a *Agent, ctx context.Context, c *command.Command) (any, *kept, error)

// verbs is the literal list of what an agent can be told to do.
var verbs = map[command.Verb]handler{
	command.Spawn:           spawn,
	command.Rebuild:         rebuild,
	command.Destroy:         destroy,
	command.PowerOn:         withSpec("power on", func(_ *Agent, ctx context.Context, d virt.Driver, s *virt.Spec) error { return d.PowerOn(ctx, s) }),
	command.PowerOff:        powerOff,
	command.Reboot:          reboot,
	command.Pause:           onGuest("pause", func(ctx context.Context, d virt.Pauser, id string) error { return d.Pause(ctx, id) }),
	command.Unpause:         onGuest("unpause", func(ctx context.Context, d virt.Pauser, id string) error { return d.Unpause(ctx, id) }),
	command.Suspend:         onGuest("suspend", func(ctx context.Context, d virt.Suspender, id string) error { return d.Suspend(ctx, id) }),
	command.Resume:          withSpec("resume", func(_ *Agent, ctx context.Context, d virt.Suspender, s *virt.Spec) error { return d.Resume(ctx, s) }),
	command.Rescue:          rescue,
	command.Unrescue:        withSpec("unrescue", func(_ *Agent, ctx context.Context, d virt.Rescuer, s *virt.Spec) error { return d.Unrescue(ctx, s) }),
	command.Snapshot:        snapshot,
	command.PrepareResize:   prepareResize,
	command.FinishResize:    withSpec("resize", func(_ *Agent, ctx context.Context, d virt.Resizer, s *virt.Spec) error { return d.FinishResize(ctx, s) }),
	command.RevertResize:    withSpec("resize", func(_ *Agent, ctx context.Context, d virt.Resizer, s *virt.Spec) error { return d.RevertResize(ctx, s) }),
	command.ConfirmResize:   confirmResize,
	command.SendDisks:       sendDisks,
	command.AttachInterface: attachInterface,
	command.DetachInterface: detachInterface,
	command.AttachVolume:    attachVolume,
	command.DetachVolume:    detachVolume,
	command.SetPassword:     setPassword,
	command.CrashDump:       onGuest("dump", func(ctx context.Context, d virt.CrashDumper, id string) error { return d.CrashDump(ctx, id) }),
	command.PreLiveMigrate:  preLiveMigrate,
	command.LiveMigrate:     liveMigrate,
	command.RollbackLive:    rollbackLive,
	command.AdoptLive:       adoptLive,
	command.ForgetLive:      func(_ *Agent, _ context.Context, _ *command.Command) (any, *kept, error) { return nil, &kept{}, nil },
}

func bind(c *command.Command, v any) error {
	if len(c.Args) == 0 {
		return nil
	}
	if err := json.Unmarshal(c.Args, v); err != nil {
		return fault.Wrap(err, fault.Invalid, "The arguments of %s are malformed.", c.Verb)
	}
	return nil
}

// ability gives what the driver has of an ability, or fault.NotImplemented.
func ability[A any](a *Agent, what string) (A, error) {
	d, ok := a.driver.(A)
	if !ok {
		return d, fault.New(fault.NotImplemented, "The hypervisor of host %s cannot %s.", a.host, what)
	}
	return d, nil
}

func (a *Agent) power(ctx context.Context, server string) (any, error) {
	g, err := a.driver.Guest(ctx, server)
	if err != nil {
		return nil, err
	}
	return command.GuestResult{Power: g.Power}, nil
}

// onGuest makes a handler of an ability that needs only the guest's id.
func onGuest[A any](what string, f func(ctx context.Context, d A, id string) error) handler {
	return func(a *Agent, ctx context.Context, c *command.Command) (any, *kept, error) {
		d, err := ability[A](a, what)
		if err == nil {
			err = f(ctx, d, c.Server)
		}
		if err != nil {
			return nil, nil, err
		}
		r, err := a.power(ctx, c.Server)
		return r, nil, err
	}
}

// withSpec makes a handler of an ability that needs the guest's spec, which is then kept.
func withSpec[A any](what string, f func(a *Agent, ctx context.Context, d A, s *virt.Spec) error) handler {
	return func(a *Agent, ctx context.Context, c *command.Command) (any, *kept, error) {
		var args command.SpecArgs
		if err := bind(c, &args); err != nil {
			return nil, nil, err
		}
		d, err := ability[A](a, what)
		if err != nil {
			return nil, nil, err
		}
		k, err := a.complete(ctx, c.Server, &args.Spec)
		if err == nil {
			err = f(a, ctx, d, &args.Spec)
		}
		if err != nil {
			return nil, nil, err
		}
		k.Spec = &args.Spec
		r, err := a.power(ctx, c.Server)
		return r, &k, err
	}
}

// complete adds to a spec what only this host knows: the image file, the config drive; and sees that the data plane is there for its interfaces.
func (a *Agent) complete(ctx context.Context, server string, s *virt.Spec) (kept, error) {
	k, err := a.kept(ctx, server)
	if err != nil {
		return k, err
	}
	if k.Spec != nil && s.ConfigDrive == "" {
		s.ConfigDrive = k.Spec.ConfigDrive
	}
	if err := a.addImage(ctx, s); err != nil {
		return k, err
	}
	return k, a.plug(ctx, s)
}

func (a *Agent) addImage(ctx context.Context, s *virt.Spec) error {
	if a.cache == nil || s.ImageID == "" {
		return nil
	}
	f, err := a.cache.get(ctx, s.ImageID)
	if err != nil {
		return err
	}
	s.BaseImage, s.BaseFormat = f.path, f.format
	return nil
}

func spawn(a *Agent, ctx context.Context, c *command.Command) (any, *kept, error) {
	var args command.SpawnArgs
	if err := bind(c, &args); err != nil {
		return nil, nil, err
	}
	if a.builds != nil {
		select {
		case a.builds <- struct{}{}:
			defer func() { <-a.builds }()
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	s := &args.Spec
	s.AdminPass = args.AdminPass
	s.ImageID = args.ImageID
	if err := a.addImage(ctx, s); err != nil {
		return nil, nil, err
	}
	if err := a.configDrive(ctx, &args); err != nil {
		return nil, nil, err
	}
	if err := a.plug(ctx, s); err != nil {
		return nil, nil, err
	}
	if err := a.driver.Spawn(ctx, s); err != nil {
		return nil, nil, err
	}
	a.wired(ctx, s.VIFs)
	power := virt.Running
	if s.Stopped {
		power = virt.Shutdown
	}
	return command.GuestResult{Power: power}, &kept{Spec: s, Metadata: args.Metadata}, nil
}

// rebuild destroys the disks and spawns anew.
func rebuild(a *Agent, ctx context.Context, c *command.Command) (any, *kept, error) {
	if err := a.driver.Destroy(ctx, c.Server, false); err != nil && !errors.Is(err, fault.NotFound) {
		return nil, nil, err
	}
	return spawn(a, ctx, c)
}

func (a *Agent) serverDir(server string) string { return filepath.Join(a.cfg.Dir, "servers", server) }

func (a *Agent) configDrive(ctx context.Context, args *command.SpawnArgs) error {
	if !args.ConfigDrive || a.cache == nil {
		return nil
	}
	if a.cfg.ConfigDrive == nil {
		return fault.New(fault.NotImplemented, "Host %s cannot make config drives.", a.host)
	}
	dir := a.serverDir(args.Spec.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("config drive: %w", err)
	}
	path := filepath.Join(dir, "config.iso")
	if err := a.cfg.ConfigDrive(ctx, args.Metadata, args.AdminPass, path); err != nil {
		return fmt.Errorf("config drive: %w", err)
	}
	args.Spec.ConfigDrive = path
	return nil
}

func destroy(a *Agent, ctx context.Context, c *command.Command) (any, *kept, error) {
	var args command.DestroyArgs
	if err := bind(c, &args); err != nil {
		return nil, nil, err
	}
	if err := a.driver.Destroy(ctx, c.Server, args.KeepDisks); err != nil && !errors.Is(err, fault.NotFound) {
		return nil, nil, err
	}
	if a.cfg.Dir != "" && a.cache != nil {
		if err := os.RemoveAll(a.serverDir(c.Server)); err != nil {
			return nil, nil, fmt.Errorf("destroy: %w", err)
		}
	}
	if a.plane != nil {
		a.plane.trigger()
	}
	return nil, &kept{}, nil
}

func powerOff(a *Agent, ctx context.Context, c *command.Command) (any, *kept, error) {
	var args command.PowerOffArgs
	if err := bind(c, &args); err != nil {
		return nil, nil, err
	}
	if err := a.driver.PowerOff(ctx, c.Server, args.Grace); err != nil {
		return nil, nil, err
	}
	return command.GuestResult{Power: virt.Shutdown}, nil, nil
}

func reboot(a *Agent, ctx context.Context, c *command.Command) (any, *kept, error) {
	var args command.RebootArgs
	if err := bind(c, &args); err != nil {
		return nil, nil, err
	}
	k, err := a.complete(ctx, c.Server, &args.Spec)
	if err == nil {
		err = a.driver.Reboot(ctx, &args.Spec, args.Hard, args.Grace)
	}
	if err != nil {
		return nil, nil, err
	}
	k.Spec = &args.Spec
	r, err := a.power(ctx, c.Server)
	return r, &k, err
}

func rescue(a *Agent, ctx context.Context, c *command.Command) (any, *kept, error) {
	var args command.RescueArgs
	if err := bind(c, &args); err != nil {
		return nil, nil, err
	}
	d, err := ability[virt.Rescuer](a, "rescue")
	if err != nil {
		return nil, nil, err
	}
	k, err := a.complete(ctx, c.Server, &args.Spec)
	if err != nil {
		return nil, nil, err
	}
	args.Spec.Rescue = &virt.RescueSpec{ImageProps: args.Props}
	args.Spec.AdminPass = args.AdminPass
	if a.cache != nil {
		f, err := a.cache.get(ctx, args.ImageID)
		if err != nil {
			return nil, nil, err
		}
		args.Spec.Rescue.BaseImage, args.Spec.Rescue.BaseFormat = f.path, f.format
	}
	if err := d.Rescue(ctx, &args.Spec); err != nil {
		return nil, nil, err
	}
	k.Spec = &args.Spec
	r, err := a.power(ctx, c.Server)
	return r, &k, err
}

// snapshotsDir is where this host's snapshots are made; whatever is in it when the agent starts was left by one that was killed.
func (a *Agent) snapshotsDir() string {
	return filepath.Join(a.cfg.Dir, "snapshots", url.PathEscape(a.host))
}

// snapshot makes the file and uploads it. An image that is active already was uploaded by an earlier try.
func snapshot(a *Agent, ctx context.Context, c *command.Command) (any, *kept, error) {
	var args command.SnapshotArgs
	if err := bind(c, &args); err != nil {
		return nil, nil, err
	}
	d, err := ability[virt.Snapshotter](a, "make snapshots")
	if err != nil {
		return nil, nil, err
	}
	caller := auth.Internal(c.RequestID)
	img, err := a.cfg.Images.Get(ctx, caller, args.ImageID)
	if err != nil {
		return nil, nil, err
	}
	if img.Status == image.Active {
		return command.SnapshotResult{Size: img.Size}, nil, nil
	}
	format := args.Format
	if img.DiskFormat == "raw" || img.DiskFormat == "qcow2" {
		format = img.DiskFormat
	}
	if format == "" {
		format = "qcow2"
	}
	base := a.cfg.Dir
	if base != "" {
		base = a.snapshotsDir()
		if err := os.MkdirAll(base, 0o700); err != nil {
			return nil, nil, fmt.Errorf("snapshot: %w", err)
		}
	}
	dir, err := os.MkdirTemp(base, "snapshot-")
	if err != nil {
		return nil, nil, fmt.Errorf("snapshot: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file, err := d.Snapshot(ctx, c.Server, virt.SnapshotOptions{Format: format, Dir: dir, Quiesce: args.Quiesce, QuiesceRequired: args.QuiesceRequired})
	if err != nil {
		return nil, nil, err
	}
	r, err := os.Open(file.Path)
	if err != nil {
		return nil, nil, fmt.Errorf("snapshot: %w", err)
	}
	defer func() { _ = r.Close() }()
	st, err := r.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("snapshot: %w", err)
	}
	if err := a.cfg.Images.Upload(ctx, caller, args.ImageID, r, st.Size()); err != nil {
		return nil, nil, err
	}
	return command.SnapshotResult{Size: st.Size(), Quiesced: file.Quiesced}, nil, nil
}

func prepareResize(a *Agent, ctx context.Context, c *command.Command) (any, *kept, error) {
	var args command.PowerOffArgs
	if err := bind(c, &args); err != nil {
		return nil, nil, err
	}
	d, err := ability[virt.Resizer](a, "resize")
	if err == nil {
		err = d.PrepareResize(ctx, c.Server, args.Grace)
	}
	if err != nil {
		return nil, nil, err
	}
	r, err := a.power(ctx, c.Server)
	return r, nil, err
}

func confirmResize(a *Agent, ctx context.Context, c *command.Command) (any, *kept, error) {
	d, err := ability[virt.Resizer](a, "resize")
	if err == nil {
		err = d.ConfirmResize(ctx, c.Server)
	}
	return nil, nil, err
}

func attachInterface(a *Agent, ctx context.Context, c *command.Command) (any, *kept, error) {
	return changeInterface(a, ctx, c, func(d virt.InterfaceAttacher, s *virt.Spec, v network.VIF) error {
		if err := d.AttachInterface(ctx, s, v); err != nil {
			return err
		}
		a.wired(ctx, []network.VIF{v})
		return nil
	})
}

func detachInterface(a *Agent, ctx context.Context, c *command.Command) (any, *kept, error) {
	return changeInterface(a, ctx, c, func(d virt.InterfaceAttacher, s *virt.Spec, v network.VIF) error {
		if err := d.DetachInterface(ctx, s, v); err != nil && !errors.Is(err, fault.NotFound) {
			return err
		}
		return nil
	})
}

func changeInterface(a *Agent, ctx context.Context, c *command.Command, f func(d virt.InterfaceAttacher, s *virt.Spec, v network.VIF) error) (any, *kept, error) {
	var args command.InterfaceArgs
	if err := bind(c, &args); err != nil {
		return nil, nil, err
	}
	d, err := ability[virt.InterfaceAttacher](a, "plug interfaces into guests")
	if err != nil {
		return nil, nil, err
	}
	k, err := a.complete(ctx, c.Server, &args.Spec)
	if err == nil {
		err = f(d, &args.Spec, args.VIF)
	}
	if err != nil {
		return nil, nil, err
	}
	k.Spec = &args.Spec
	r, err := a.power(ctx, c.Server)
	return r, &k, err
}

func attachVolume(a *Agent, ctx context.Context, c *command.Command) (any, *kept, error) {
	return changeVolume(a, ctx, c, func(d virt.VolumeAttacher, s *virt.Spec, v virt.Disk) error { return d.AttachVolume(ctx, s, v) })
}

func detachVolume(a *Agent, ctx context.Context, c *command.Command) (any, *kept, error) {
	return changeVolume(a, ctx, c, func(d virt.VolumeAttacher, s *virt.Spec, v virt.Disk) error { return d.DetachVolume(ctx, s, v) })
}

func changeVolume(a *Agent, ctx context.Context, c *command.Command, f func(d virt.VolumeAttacher, s *virt.Spec, v virt.Disk) error) (any, *kept, error) {
	var args command.VolumeArgs
	if err := bind(c, &args); err != nil {
		return nil, nil, err
	}
	d, err := ability[virt.VolumeAttacher](a, "attach volumes")
	if err != nil {
		return nil, nil, err
	}
	k, err := a.complete(ctx, c.Server, &args.Spec)
	if err == nil {
		err = f(d, &args.Spec, args.Disk)
	}
	if err != nil {
		return nil, nil, err
	}
	k.Spec = &args.Spec
	return nil, &k, nil
}

func setPassword(a *Agent, ctx context.Context, c *command.Command) (any, *kept, error) {
	var args command.PasswordArgs
	if err := bind(c, &args); err != nil {
		return nil, nil, err
	}
	d, err := ability[virt.PasswordSetter](a, "set passwords inside guests")
	if err != nil {
		return nil, nil, err
	}
	if args.User == "" {
		args.User = "root"
		if k, err := a.kept(ctx, c.Server); err == nil && k.Spec != nil && k.Spec.ImageProps["os_admin_user"] != "" {
			args.User = k.Spec.ImageProps["os_admin_user"]
		}
	}
	return nil, nil, d.SetPassword(ctx, c.Server, args.User, args.Password)
}
