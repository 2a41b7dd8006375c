package cloud

import (
	"context"
	"errors"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/scheduler"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/id"
)

// disabledTrait keeps new servers off a host whose service is disabled.
const disabledTrait = "COMPUTE_STATUS_DISABLED"

func (a api) serviceView(r *httpapi.Request, s *compute.Host) document {
	minor := backend.Minor(r)
	d := document{"binary": s.Binary, "host": s.Name, "id": s.ServiceNumber, "zone": s.Zone, "status": "enabled", "state": "down",
		"updated_at": stamp(s.LastSeen), "disabled_reason": orNull(s.DisabledReason)}
	if s.Disabled {
		d["status"] = "disabled"
	}
	if a.Up(s) {
		d["state"] = "up"
	}
	if minor >= 11 {
		d["forced_down"] = s.ForcedDown
	}
	if minor >= 53 {
		d["id"] = s.ServiceID
	}
	return d
}

func (a api) listServices(r *httpapi.Request) (*httpapi.Reply, error) {
	all, err := a.Store.Services(r.Context(), a.DB())
	if err != nil {
		return nil, err
	}
	q, out := r.Query(), []document{}
	host, binary := httpapi.Last(q, "host"), httpapi.Last(q, "binary")
	for i := range all {
		s := &all[i]
		if host != "" && host != s.Name || binary != "" && binary != s.Binary {
			continue
		}
		out = append(out, a.serviceView(r, s))
	}
	return reply("services", out), nil
}

// serviceChange is the body of PUT in all versions.
type serviceChange struct {
	Host       string        `json:"host"`
	Binary     string        `json:"binary"`
	Status     string        `json:"status"`
	Reason     *string       `json:"disabled_reason"`
	ForcedDown *backend.Bool `json:"forced_down"`
}

func (a api) updateService(r *httpapi.Request) (*httpapi.Reply, error) {
	var in serviceChange
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if backend.Minor(r) < 53 {
		return a.updateNamedService(r, in)
	}
	serviceID := r.Path("id")
	if !id.IsUUID(serviceID) {
		return nil, fault.New(fault.Invalid, "Invalid uuid %s", serviceID)
	}
	s, err := a.Store.Service(r.Context(), a.DB(), serviceID)
	if err != nil {
		return nil, err
	}
	if s.Binary != store.ComputeBinary {
		return nil, fault.New(fault.Invalid, "Updating a %s service is not supported. Only nova-compute services can be updated.", s.Binary)
	}
	var disabled *bool
	switch {
	case in.Status == "" && in.ForcedDown == nil:
		return nil, fault.New(fault.Invalid, "No updates were requested. Fields 'status' or 'forced_down' should be specified.")
	case in.Reason != nil && *in.Reason != "" && in.Status == "enabled":
		return nil, fault.New(fault.Invalid, "Specifying 'disabled_reason' with status 'enabled' is invalid.")
	case in.Status == "":
		in.Reason = nil // it belongs to the status
	default:
		off := in.Status == "disabled"
		disabled = &off
	}
	if s, err = a.setService(r.Context(), s, disabled, in.Reason, (*bool)(in.ForcedDown)); err != nil {
		return nil, err
	}
	return reply("service", a.serviceView(r, s)), nil
}

// updateNamedService is PUT until 2.52: the path says what to do, the body to which service.
func (a api) updateNamedService(r *httpapi.Request, in serviceChange) (*httpapi.Reply, error) {
	on, off := false, true
	d := document{"host": in.Host, "binary": in.Binary}
	var disabled, down *bool
	var reason *string
	switch action := r.Path("id"); {
	case action == "enable":
		disabled, d["status"] = &on, "enabled"
	case action == "disable":
		disabled, d["status"] = &off, "disabled"
	case action == "disable-log-reason":
		if in.Reason == nil {
			return nil, fault.New(fault.Invalid, "Missing disabled reason field")
		}
		disabled, reason, d["status"], d["disabled_reason"] = &off, in.Reason, "disabled", *in.Reason
	case action == "force-down" && backend.Minor(r) >= 11:
		if in.ForcedDown == nil {
			return nil, fault.New(fault.Invalid, "Missing forced_down field")
		}
		down, d["forced_down"] = (*bool)(in.ForcedDown), bool(*in.ForcedDown)
	default:
		return nil, fault.New(fault.NotFound, "Unknown action")
	}
	if in.Binary != store.ComputeBinary {
		return nil, fault.New(fault.Invalid, "Updating a %s service is not supported. Only nova-compute services can be updated.", in.Binary)
	}
	all, err := a.Store.Services(r.Context(), a.DB())
	if err != nil {
		return nil, err
	}
	for i := range all {
		if s := &all[i]; s.Name == in.Host && s.Binary == in.Binary {
			if _, err := a.setService(r.Context(), s, disabled, reason, down); err != nil {
				return nil, err
			}
			return reply("service", d), nil
		}
	}
	return nil, fault.New(fault.NotFound, "Could not find binary %s on host %s.", in.Binary, in.Host)
}

// setService writes what an operator decides and keeps the scheduler off a disabled host. Each time it is enabled or disabled the reason
// that was given before is forgotten.
func (a api) setService(ctx context.Context, s *compute.Host, disabled *bool, reason *string, down *bool) (*compute.Host, error) {
	if disabled != nil && (!*disabled || reason == nil) {
		none := ""
		reason = &none
	}
	if down != nil && !*down {
		if err := a.mayRise(ctx, s.Name); err != nil {
			return nil, err
		}
	}
	err := a.DB().Write(ctx, func(tx *db.Tx) error { return a.Store.SetServiceState(ctx, tx, s.ServiceID, disabled, reason, down) })
	if err != nil {
		return nil, err
	}
	if disabled != nil && s.NodeID != "" && a.Placement != nil {
		if err := a.Placement.SetTrait(ctx, s.NodeID, disabledTrait, *disabled); err != nil && !errors.Is(err, fault.NotFound) {
			a.Log.Warn("placement could not be told of a service's state; conductors tell it when it answers", "host", s.Name, "error", err)
		}
	}
	return a.Store.Service(ctx, a.DB(), s.ServiceID)
}

// mayRise refuses to call a host up again whose agent has not yet seen that servers were evacuated from it: it could start them twice.
func (a api) mayRise(ctx context.Context, host string) error {
	left, err := a.Store.Migrations(ctx, a.DB(), store.MigrationFilter{SourceHost: host, Type: "evacuation", Status: []string{"done"}, Limit: 1})
	if err != nil || len(left) == 0 {
		return err
	}
	return fault.New(fault.Invalid, "Unable to force up host %s: servers were evacuated from it and its agent has not removed them yet. Start the agent, wait until these migrations are completed, then repeat the request.", host)
}

func (a api) deleteService(r *httpapi.Request) (*httpapi.Reply, error) {
	ctx := r.Context()
	s, err := a.serviceByID(r)
	if err != nil {
		return nil, err
	}
	if s.Binary == store.ComputeBinary {
		moving, err := a.Store.Migrations(ctx, a.DB(), store.MigrationFilter{Host: s.Name, Status: openMigrations, Limit: 1})
		if err != nil {
			return nil, err
		}
		if len(moving) > 0 {
			return nil, fault.New(fault.Conflict, "Unable to delete compute service that has in-progress migrations. Complete the migrations or delete the instances first.")
		}
	}
	if err := a.DB().Write(ctx, func(tx *db.Tx) error { return a.Store.DeleteHost(ctx, tx, s.ServiceID) }); err != nil {
		return nil, err
	}
	if s.NodeID != "" && a.Placement != nil {
		if err := a.deleteProviders(ctx, s.NodeID); err != nil && !errors.Is(err, fault.NotFound) {
			a.Log.Warn("resource provider of a deleted service stays", "host", s.Name, "provider", s.NodeID, "request_id", r.RequestID, "error", err)
		}
	}
	return &httpapi.Reply{}, nil
}

// deleteProviders removes a host's resource provider with those of its PCI devices. What others hung below it stays, and keeps it.
func (a api) deleteProviders(ctx context.Context, node string) error {
	tree, err := a.Placement.Tree(ctx, node)
	if err != nil {
		return err
	}
	for i := range tree {
		if scheduler.IsDeviceProvider(&tree[i]) {
			if err := a.Placement.DeleteProvider(ctx, tree[i].UUID); err != nil && !errors.Is(err, fault.NotFound) {
				return err
			}
		}
	}
	return a.Placement.DeleteProvider(ctx, node)
}

// openMigrations are the states of migrations that have not ended; a resize that waits for its confirmation is one.
var openMigrations = []string{"accepted", "queued", "preparing", "pre-migrating", "running", "migrating", "post-migrating", "finished", "reverting", "confirming"}

// serviceByID finds the service that the path names: by number until 2.52, then by uuid.
func (a api) serviceByID(r *httpapi.Request) (*compute.Host, error) {
	if backend.Minor(r) >= 53 {
		if !id.IsUUID(r.Path("id")) {
			return nil, fault.New(fault.Invalid, "Invalid uuid %s", r.Path("id"))
		}
		return a.Store.Service(r.Context(), a.DB(), r.Path("id"))
	}
	n, err := number(r, "service")
	if err != nil {
		return nil, err
	}
	all, err := a.Store.Services(r.Context(), a.DB())
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].ServiceNumber == n {
			return &all[i], nil
		}
	}
	return nil, fault.New(fault.NotFound, "Service %d not found.", n)
}
