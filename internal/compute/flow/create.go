package flow

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/network"
	"kilonova/internal/operation"
)

// create brings a new server to ACTIVE: a host is chosen and claimed, the ports are made, the guest is built. A host that cannot build it is
// left out and the next one tried, up to MaxAttempts. It ends in ERROR with a fault when no host is left.
func (f *flows) create() operation.Flow {
	return operation.Flow{
		Kind: compute.OpCreate,
		Steps: []operation.Step{
			{Name: "schedule", FailEvent: "conductor_schedule_and_build_instances", TaskState: compute.TaskScheduling, Do: f.createSchedule, Commit: f.createPlaced, Undo: f.releaseClaim},
			{Name: "network", TaskState: compute.TaskNetworking, Do: f.createPorts, Undo: f.removePorts},
			{Name: "build", Event: "compute__do_build_and_run_instance", TaskState: compute.TaskSpawning, Deadline: 4 * f.BuildDeadline,
				Do: f.createBuild, Undo: f.destroyBuilt},
		},
		Done:   f.createDone,
		Undone: f.createUndone,
	}
}

func (f *flows) createSchedule(ctx context.Context, r *operation.Run) error {
	var in compute.CreateInput
	s, err := f.asked(ctx, r, &in)
	if err != nil {
		return err
	}
	f.fresh.keep(r.ID, s)
	for _, b := range s.BlockDevices {
		if b.DestinationType == "volume" {
			return fault.New(fault.NotImplemented, "This cloud has no volume service: a server cannot be made with the volume block device %s.", b.ID)
		}
	}
	return f.choose(ctx, r, Want{Server: s, Flavor: s.Flavor, ImageProps: s.ImageProps, Zone: in.Zone, Host: in.Host, Node: in.Node,
		ForceHost: in.ForceHost, ForceNode: in.ForceNode, Ports: portDevices(s.ID, in.NICs), NICs: in.NICs})
}

// choose has a host chosen and claimed. The hosts that failed, and those that the policy of the server's group refused, are left out.
func (f *flows) choose(ctx context.Context, r *operation.Run, w Want) error {
	w.Exclude = slices.Concat(excluded(r), guarded(r), w.Exclude)
	p, err := f.Placer.Place(ctx, w)
	if err != nil {
		return f.exhausted(r, err)
	}
	r.Set(varPlace, p)
	return nil
}

// portDevices gives the ports that are not normal.
func portDevices(server string, nics []compute.NICRequest) []compute.PortDevice {
	var out []compute.PortDevice
	for i, n := range nics {
		switch {
		case n.Device != nil:
			out = append(out, *n.Device)
		case n.VNICType != "":
			out = append(out, compute.PortDevice{PortID: portID(server, i, n), VNICType: n.VNICType})
		}
	}
	return out
}

// createPlaced writes the host. The policy of the server's group is judged where that is done: of members that are placed at the same moment the later ones choose again.
func (f *flows) createPlaced(ctx context.Context, tx *db.Tx, r *operation.Run) error {
	p := placeOf(r)
	s := f.fresh.get(r.ID)
	if s == nil {
		var err error
		if s, err = f.Store.Server(ctx, tx, r.Object); err != nil {
			return gone(err)
		}
	}
	if err := f.guard(ctx, tx, r, s, p.Host); err != nil {
		return err
	}
	return f.update(ctx, tx, r, func(s *compute.Server) { settle(s, p) })
}

// guard judges the policy of the server's group in the transaction that writes where the server goes. A host that breaks it is left out, and the operation goes back
// to choose another.
func (f *flows) guard(ctx context.Context, tx *db.Tx, r *operation.Run, s *compute.Server, host string) error {
	if s.GroupID == "" {
		return nil
	}
	err := f.Store.GuardGroup(ctx, tx, s.GroupID, s.ID, host)
	if !errors.Is(err, fault.Conflict) {
		return err
	}
	r.Set(varGuarded, append(guarded(r), host))
	r.Set(varLastFail, host+": "+fault.PublicText(err))
	return operation.Back("schedule", err)
}

// guarded are the hosts that the policy of the server's group refused when it was too late.
func guarded(r *operation.Run) []string {
	var hosts []string
	r.Get(varGuarded, &hosts)
	return hosts
}

// settle writes into the server where it is.
func settle(s *compute.Server, p Place) {
	s.Host, s.Node, s.ComputeID, s.AvailabilityZone = p.Host, p.Node, p.Provider, p.Zone
	s.SetClaim(p.Claim)
}

func placeOf(r *operation.Run) Place {
	var p Place
	r.Get(varPlace, &p)
	return p
}

// placed gives the server on the chosen host: as the step before read it, when that was in this process a moment ago.
func (f *flows) placed(ctx context.Context, r *operation.Run) (*compute.Server, error) {
	s := f.fresh.get(r.ID)
	if s == nil {
		var err error
		if s, err = f.server(ctx, r); err != nil {
			return nil, err
		}
	}
	c := *s
	settle(&c, placeOf(r))
	return &c, nil
}

// releaseClaim gives back what Place claimed for a server that has no other host.
func (f *flows) releaseClaim(ctx context.Context, r *operation.Run) error {
	if err := f.release(ctx, r.Object); err != nil {
		return err
	}
	return f.Store.DB.Write(ctx, func(tx *db.Tx) error {
		return gone(f.update(ctx, tx, r, func(s *compute.Server) { settle(s, Place{Zone: s.AvailabilityZone}) }))
	})
}

// createPorts makes or binds the server's ports on the chosen host.
func (f *flows) createPorts(ctx context.Context, r *operation.Run) error {
	var in compute.CreateInput
	if err := r.Bind(&in); err != nil {
		return err
	}
	s, err := f.placed(ctx, r)
	if err != nil {
		return err
	}
	place := placeOf(r)
	vifs, err := f.plug(ctx, r, s, place, in.NICs, in.SecurityGroups)
	if offSegment(err) && in.ForceHost+in.ForceNode == "" {
		return f.another(r, "schedule", place.Host, err)
	}
	if err != nil {
		return err
	}
	r.Set(varVIFs, vifs)
	return nil
}

// plug makes (with ids that belong to the server and the position) or binds one port for each NIC and gives them as interfaces.
func (f *flows) plug(ctx context.Context, r *operation.Run, s *compute.Server, place Place, nics []compute.NICRequest, groups []string) ([]network.VIF, error) {
	if len(nics) == 0 {
		return []network.VIF{}, nil
	}
	ids := make([]string, len(nics))
	for i, n := range nics {
		ids[i] = portID(s.ID, i, n)
		if err := f.plugOne(ctx, r, s, place, ids[i], n, groups); err != nil {
			return nil, err
		}
	}
	vifs, err := f.Network.VIFs(ctx, ids...)
	if err != nil {
		return nil, err
	}
	for i := range vifs {
		if at := slices.Index(ids, vifs[i].PortID); at >= 0 {
			vifs[i].Tag, vifs[i].Created = nics[at].Tag, nics[at].PortID == ""
		}
	}
	return vifs, bound(vifs)
}

func (f *flows) plugOne(ctx context.Context, r *operation.Run, s *compute.Server, place Place, port string, n compute.NICRequest, groups []string) error {
	if n.PortID != "" {
		return f.bindOne(ctx, r, s.ID, port, n.VNICType, place)
	}
	req := network.PortRequest{ID: port, NetworkID: n.NetworkID, SecurityGroups: groups, DeviceID: s.ID, DeviceOwner: portOwner(place.Zone), HostID: place.Host,
		DNSName: s.Hostname, ProjectID: s.ProjectID}
	if n.FixedIP != "" {
		req.FixedIPs = []network.FixedIP{{Address: n.FixedIP}}
	}
	_, err := f.Network.CreatePort(ctx, caller(r), req)
	return err
}

// offSegment tells whether ports cannot be on a host because of the segment of their routed network: on another host they may.
func offSegment(err error) bool {
	var e *fault.Error
	return errors.As(err, &e) && (e.Code == network.CodeNoSegment || e.Code == network.CodeOtherSegment)
}

// portID is the id of a server's n-th port: that of the existing port, or one that is always the same for the position.
func portID(server string, i int, n compute.NICRequest) string {
	if n.PortID != "" {
		return n.PortID
	}
	return id.Derived(server, "nic", strconv.Itoa(i))
}

func portOwner(zone string) string {
	if zone == "" {
		zone = "nova"
	}
	return "compute:" + zone
}

func vifsOf(r *operation.Run) []network.VIF {
	var v []network.VIF
	r.Get(varVIFs, &v)
	return v
}

// removePorts takes back what createPorts did: made ports are deleted, given ones unbound.
func (f *flows) removePorts(ctx context.Context, r *operation.Run) error {
	var in compute.CreateInput
	if err := r.Bind(&in); err != nil {
		return err
	}
	for i, n := range in.NICs {
		if err := f.unplugOne(ctx, r, portID(r.Object, i, n), n.PortID == ""); err != nil {
			return err
		}
	}
	return nil
}

// unplugOne deletes a port, or unbinds it if the server has it.
func (f *flows) unplugOne(ctx context.Context, r *operation.Run, port string, made bool) error {
	if made {
		return f.Network.DeletePort(ctx, caller(r), port)
	}
	p, err := f.Network.GetPort(ctx, caller(r), port)
	if err != nil || p.DeviceID != r.Object {
		return gone(err)
	}
	_, err = f.Network.BindPort(ctx, caller(r), port, "", "", "")
	return gone(err)
}

// gone makes success of fault.NotFound.
func gone(err error) error {
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

func (f *flows) createBuild(ctx context.Context, r *operation.Run) error {
	var in compute.CreateInput
	if err := r.Bind(&in); err != nil {
		return err
	}
	s, err := f.placed(ctx, r)
	if err != nil {
		return err
	}
	f.fresh.drop(r.ID)
	s.VIFs = vifsOf(r)
	place := placeOf(r)
	meta, err := f.Metadata(ctx, s, in.Files)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, f.BuildDeadline)
	defer cancel()
	err = f.guest(ctx, r, place.Host, command.Spawn, command.SpawnArgs{Spec: SpecOf(s), ImageID: s.ImageID, ConfigDrive: s.ConfigDrive, Metadata: meta, AdminPass: in.AdminPass})
	f.built(ctx, place.Host, err)
	if err == nil || errors.Is(err, context.Canceled) || !elsewhere(err) || in.ForceHost+in.ForceNode != "" {
		return err
	}
	return f.another(r, "schedule", place.Host, err)
}

// built counts how a build ended on a host. That the database was away says nothing of the host.
func (f *flows) built(ctx context.Context, host string, err error) {
	if !db.IsAway(err) {
		f.Placer.Built(ctx, host, err == nil)
	}
}

// elsewhere tells whether another host might succeed where one failed with err: not when the request itself is at fault.
func elsewhere(err error) bool {
	switch fault.KindOf(err) {
	case fault.Invalid, fault.Forbidden, fault.NotFound, fault.TooLarge:
		return false
	}
	return true
}

// another sends the operation back to its step to, which then leaves host out; after MaxAttempts hosts (LiveAttempts when a guest
// moves while it runs) it fails instead.
func (f *flows) another(r *operation.Run, to, host string, cause error) error {
	ex := excluded(r)
	if !slices.Contains(ex, host) {
		ex = append(ex, host)
		r.Set(varExclude, ex)
	}
	r.Set(varLastFail, host+": "+fault.PublicText(cause))
	if r.Kind == compute.OpLiveMigrate {
		if f.LiveAttempts > 0 && len(ex) >= f.LiveAttempts {
			return fault.Wrap(cause, fault.Internal, "Exceeded the maximum number of hosts tried for the live migration of instance %s. Last error: %s", r.Object, fault.PublicText(cause)).WithCode(CodeExhausted)
		}
		return operation.Back(to, cause)
	}
	if len(ex) >= f.MaxAttempts {
		return fault.Wrap(cause, fault.Internal, "Exceeded maximum number of retries. Exhausted all hosts available for retrying build failures for instance %s. Last error: %s",
			r.Object, fault.PublicText(cause)).WithCode(CodeExhausted)
	}
	return operation.Back(to, cause)
}

func excluded(r *operation.Run) []string {
	var ex []string
	r.Get(varExclude, &ex)
	return ex
}

// exhausted adds to "no valid host" what the hosts tried before said.
func (f *flows) exhausted(r *operation.Run, err error) error {
	var last string
	var e *fault.Error
	if r.Get(varLastFail, &last) && errors.As(err, &e) && noValidHost(err) {
		return fault.Wrap(err, fault.Internal, "%s The last host tried failed: %s", e.Text, last).WithCode(CodeNoValidHost)
	}
	return err
}

func (f *flows) destroyBuilt(ctx context.Context, r *operation.Run) error {
	return f.undoOn(ctx, r, placeOf(r).Host, command.Destroy, command.DestroyArgs{}, "the build of "+r.Object+" was undone while the host was down")
}

func (f *flows) createDone(ctx context.Context, tx *db.Tx, r *operation.Run) error {
	return f.update(ctx, tx, r, func(s *compute.Server) {
		power(r, s)
		s.VMState = compute.VMActive
		s.LaunchedOn, s.Launched = s.Host, clock.Now()
		s.VIFs, s.Fault = vifsOf(r), nil
	})
}

func (f *flows) createUndone(ctx context.Context, tx *db.Tx, r *operation.Run, cause error) error {
	return f.update(ctx, tx, r, func(s *compute.Server) {
		s.Fault = faultOf(cause, s.Host)
		s.VMState, s.PowerState = compute.VMError, compute.PowerNone
		settle(s, Place{Zone: s.AvailabilityZone})
		s.VIFs = nil
	})
}

const longAgo = 90 * time.Second // longer than service_down_time: by then a silent host is known to be down
