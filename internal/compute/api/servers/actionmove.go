package servers

import (
	"context"
	"errors"
	"strings"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

// resize gives a server another flavor.
func (a api) resize(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Resize struct {
			Flavor     backend.Text `json:"flavorRef"`
			DiskConfig string       `json:"OS-DCF:diskConfig"`
		} `json:"resize"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	s, err := a.Server(r, "id", backend.Rule("servers:resize"))
	if err != nil {
		return nil, err
	}
	if err := a.Check(r, s, compute.OpResize); err != nil {
		return nil, err
	}
	f, err := a.flavor(r.Context(), r, string(in.Resize.Flavor))
	if err != nil {
		return nil, err
	}
	switch {
	case f.FlavorID == s.Flavor.FlavorID:
		return nil, fault.New(fault.Invalid, "When resizing, instances must change flavor!")
	case f.RootGB == 0 && s.Flavor.RootGB != 0 && s.ImageID != "":
		return nil, fault.New(fault.Invalid, "Resize to zero disk flavor is not allowed.")
	case f.RootGB < s.Flavor.RootGB && s.ImageID != "":
		return nil, fault.New(fault.Invalid, "The flavor %s has a smaller disk (%d GB) than the server (%d GB).", f.Name, f.RootGB, s.Flavor.RootGB).
			WithHint("A disk cannot be made smaller.")
	}
	if err := mayGrow(in.Resize.DiskConfig, s.ImageID, s.ImageProps); err != nil {
		return nil, err
	}
	if err := a.Exact(f, s.ImageProps); err != nil {
		return nil, err
	}
	if err := a.enoughMemory(r, s, f); err != nil {
		return nil, err
	}
	if err := a.hostWorks(r.Context(), s); err != nil {
		return nil, err
	}
	more := larger(f, &s.Flavor)
	err = a.Accept(r, s, backend.Request{Op: compute.OpResize, Action: "resize", TaskState: compute.TaskResizePrep, Before: a.reserve(r.Context(), s, more), Change: hold(s, more),
		Input: compute.ResizeInput{Flavor: *f, AutoDisk: in.Resize.DiskConfig}})
	if err != nil {
		return nil, err
	}
	return empty()
}

// enoughMemory refuses a flavor that has less memory than the server's image asks for. An image that is gone asks for nothing.
func (a api) enoughMemory(r *httpapi.Request, s *compute.Server, f *compute.Flavor) error {
	if f.RAMMB >= s.Flavor.RAMMB || s.ImageID == "" {
		return nil
	}
	img, err := a.Images.Get(r.Context(), r.Caller, s.ImageID)
	switch {
	case errors.Is(err, fault.NotFound), errors.Is(err, fault.Forbidden):
		return nil
	case err != nil:
		return err
	case img.MinRAM <= f.RAMMB:
		return nil
	}
	return tooLittleMemory(img, f)
}

// revertResize gives a resized server its old flavor back, if the quota has room for what that had more and the policy of its group allows it on its old host.
func (a api) revertResize(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "id", backend.Rule("servers:revert_resize"))
	if err != nil {
		return nil, err
	}
	req := backend.Request{Op: compute.OpRevertResize, Action: "revertResize", TaskState: compute.TaskResizeReverting}
	if s.OldFlavor != nil {
		if more := larger(s.OldFlavor, &s.Flavor); more != (store.Usage{}) {
			req.Before, req.Change = a.reserve(r.Context(), s, more), hold(s, more)
		}
	}
	if reserve := req.Before; s.GroupID != "" {
		req.Before = func(tx *db.Tx) error {
			if err := a.Store.GuardRevert(r.Context(), tx, s); err != nil || reserve == nil {
				return err
			}
			return reserve(tx)
		}
	}
	if err := a.Accept(r, s, req); err != nil {
		return nil, err
	}
	return empty()
}

// larger is what a server of flavor f needs beyond what one of flavor old counts for.
func larger(f, old *compute.Flavor) store.Usage {
	return store.Usage{Cores: int64(max(0, f.VCPUs-old.VCPUs)), RAM: max(0, f.RAMMB-old.RAMMB)}
}

// hold counts more for the server from the moment the operation is accepted, in the transaction that found room for it; the end of the operation lets go of it.
func hold(s *compute.Server, more store.Usage) func(*compute.Server) error {
	return func(now *compute.Server) error {
		if now.Flavor.FlavorID != s.Flavor.FlavorID {
			return fault.New(fault.Conflict, "Instance %s got another flavor while the request was judged; ask again.", s.ID)
		}
		now.HoldQuota(more.Cores, more.RAM)
		return nil
	}
}

// hostWorks fails with fault.Conflict when the server's host is down: its disks cannot be read.
func (a api) hostWorks(ctx context.Context, s *compute.Server) error {
	states, err := a.Store.HostStates(ctx, a.DB(), s.Host)
	if err != nil {
		return err
	}
	if h := states[s.Host]; h == nil || !a.Up(h) {
		return fault.New(fault.Conflict, "Service is unavailable at this time: the compute service of host %s is down.", s.Host)
	}
	return nil
}

// migrate moves a server that is stopped for it.
func (a api) migrate(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Migrate any `json:"migrate"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	host := ""
	if m, ok := in.Migrate.(map[string]any); ok && backend.Minor(r) >= 56 {
		host, _ = m["host"].(string)
	}
	s, err := a.Server(r, "id", backend.Rule("os-migrate-server:migrate"))
	if err != nil {
		return nil, err
	}
	if err := a.Check(r, s, compute.DoMigrate); err != nil {
		return nil, err
	}
	if host != "" {
		if err := r.Authorize(backend.Rule("os-migrate-server:migrate:host"), backend.Target(s.ProjectID, s.UserID)); err != nil {
			return nil, err
		}
		if err := a.destination(r, s, host); err != nil {
			return nil, err
		}
	}
	if err := a.hostWorks(r.Context(), s); err != nil {
		return nil, err
	}
	err = a.Accept(r, s, backend.Request{Op: compute.DoMigrate, Kind: compute.OpResize, Action: "migrate", TaskState: compute.TaskResizePrep,
		Input: compute.ResizeInput{Flavor: s.Flavor, Migrate: true, Host: host}})
	if err != nil {
		return nil, err
	}
	return empty()
}

// destination judges the host that a move names.
func (a api) destination(r *httpapi.Request, s *compute.Server, host string) error {
	if host == s.Host {
		return fault.New(fault.Invalid, "The target host can't be the same one.")
	}
	h, err := a.Store.Host(r.Context(), a.DB(), host)
	if err != nil {
		return asInvalid(err, "Compute host %s could not be found.", host)
	}
	if !a.Up(h) {
		return fault.New(fault.Invalid, "Compute service of %s is unavailable at this time.", host)
	}
	return nil
}

func (a api) liveMigrate(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Live struct {
			Host  string       `json:"host"`
			Block any          `json:"block_migration"`
			Over  backend.Bool `json:"disk_over_commit"`
			Force backend.Bool `json:"force"`
		} `json:"os-migrateLive"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	s, err := a.Server(r, "id", backend.Rule("os-migrate-server:migrate_live"))
	if err != nil {
		return nil, err
	}
	if err := a.Check(r, s, compute.OpLiveMigrate); err != nil {
		return nil, err
	}
	input := compute.LiveMigrateInput{Host: in.Live.Host, OverCommit: bool(in.Live.Over), Force: bool(in.Live.Force)}
	if input.Block, err = blockMigration(in.Live.Block); err != nil {
		return nil, err
	}
	if input.Host != "" {
		if err := r.Authorize(backend.Rule("os-migrate-server:migrate_live:host"), backend.Target(s.ProjectID, s.UserID)); err != nil {
			return nil, err
		}
		if err := a.destination(r, s, input.Host); err != nil {
			return nil, err
		}
		if backend.Minor(r) < 30 { // the scheduler is asked about a named destination from 2.30 on
			input.Force = true
		}
	} else if input.Force {
		return nil, fault.New(fault.Invalid, "Can't force to a non-provided destination")
	}
	if err := a.Accept(r, s, backend.Request{Op: compute.OpLiveMigrate, Action: "live-migration", TaskState: compute.TaskMigrating, Input: input}); err != nil {
		return nil, err
	}
	return empty()
}

// blockMigration reads a boolean or "auto", which is nil.
func blockMigration(v any) (*bool, error) {
	switch v := v.(type) {
	case bool:
		return &v, nil
	case string:
		if strings.EqualFold(v, "auto") {
			return nil, nil
		}
		if yes, ok := backend.ParseBool(v); ok {
			return &yes, nil
		}
	}
	return nil, fault.New(fault.Invalid, "block_migration must be a boolean or auto.")
}

// evacuate builds a server anew elsewhere because its host is dead.
func (a api) evacuate(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Evacuate struct {
			Host   string       `json:"host"`
			Shared backend.Bool `json:"onSharedStorage"`
			Pass   string       `json:"adminPass"`
			Force  backend.Bool `json:"force"`
		} `json:"evacuate"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	s, err := a.Server(r, "id", backend.Rule("os-evacuate"))
	if err != nil {
		return nil, err
	}
	if err := a.Check(r, s, compute.OpEvacuate); err != nil {
		return nil, err
	}
	v := in.Evacuate
	switch {
	case v.Host == "" && bool(v.Force):
		return nil, fault.New(fault.Invalid, "Can't force to a non-provided destination")
	case v.Host != "" && v.Host == s.Host:
		return nil, fault.New(fault.Invalid, "The target host can't be the same one.")
	case bool(v.Shared) && v.Pass != "":
		return nil, fault.New(fault.Invalid, "admin password can't be changed on existing disk")
	}
	if v.Host != "" {
		if _, err := a.Store.Host(r.Context(), a.DB(), v.Host); err != nil {
			if fault.KindOf(err) == fault.NotFound {
				err = fault.Wrap(err, fault.NotFound, "Compute host %s not found.", v.Host)
			}
			return nil, err
		}
	}
	if a.hostWorks(r.Context(), s) == nil {
		return nil, fault.New(fault.Invalid, "Compute service of %s is still in use.", s.Host)
	}
	if v.Pass == "" && !bool(v.Shared) {
		v.Pass = newPassword()
	}
	forced := bool(v.Force) || v.Host != "" && backend.Minor(r) < 29 // the scheduler is asked about a named destination from 2.29 on
	input := compute.EvacuateInput{Host: v.Host, AdminPass: v.Pass, Force: forced, Shared: bool(v.Shared), Stop: backend.Minor(r) >= 95}
	if err := a.Accept(r, s, backend.Request{Op: compute.OpEvacuate, Action: "evacuate", TaskState: compute.TaskRebuilding, Input: input}); err != nil {
		return nil, err
	}
	if backend.Minor(r) >= 14 {
		return empty()
	}
	if a.NoPassword {
		return body(map[string]any{})
	}
	if v.Shared {
		return body(map[string]any{"adminPass": nil}) // the disk is as it was, and so is its password
	}
	return body(map[string]any{"adminPass": v.Pass})
}

// unshelve brings a shelved server back.
func (a api) unshelve(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Unshelve *struct {
			Zone backend.Optional[string] `json:"availability_zone"`
			Host string                   `json:"host"`
		} `json:"unshelve"`
	}
	if backend.Minor(r) >= 77 {
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
	}
	s, err := a.Server(r, "id", backend.Rule("os-shelve:unshelve"))
	if err != nil {
		return nil, err
	}
	if err := a.Check(r, s, compute.OpUnshelve); err != nil {
		return nil, err
	}
	input := compute.UnshelveInput{}
	if v := in.Unshelve; v != nil {
		input = compute.UnshelveInput{Zone: v.Zone.Value, Unpin: v.Zone.Given && v.Zone.Value == nil, Host: v.Host}
		if err := a.unshelveTo(r, s, input); err != nil {
			return nil, err
		}
	}
	if err := a.Accept(r, s, backend.Request{Op: compute.OpUnshelve, Action: "unshelve", TaskState: compute.TaskUnshelving, Input: input}); err != nil {
		return nil, err
	}
	return empty()
}

// unshelveTo judges the zone and host that unshelving names.
func (a api) unshelveTo(r *httpapi.Request, s *compute.Server, in compute.UnshelveInput) error {
	if in.Zone == nil && !in.Unpin && in.Host == "" {
		return nil
	}
	if s.VMState != compute.VMShelvedOffloaded {
		return fault.New(fault.Conflict, "Instance %s is not shelved offloaded: an availability zone or host can only be given then.", s.ID)
	}
	hosts, err := a.Store.Hosts(r.Context(), a.DB())
	if err != nil {
		return err
	}
	zones := map[string]string{}
	for _, h := range hosts {
		zones[h.Name] = h.Zone
	}
	if in.Host != "" {
		if err := r.Authorize(backend.Rule("os-shelve:unshelve_to_host"), backend.Target(s.ProjectID, s.UserID)); err != nil {
			return err
		}
		zone, ok := zones[in.Host]
		switch {
		case !ok:
			return fault.New(fault.Invalid, "Compute host %s could not be found.", in.Host)
		case in.Zone != nil && *in.Zone != zone, in.Zone == nil && !in.Unpin && s.PinnedZone != nil && *s.PinnedZone != zone:
			return fault.New(fault.Conflict, "Host \"%s\" is not in the availability zone of the server.", in.Host)
		}
	}
	if in.Zone != nil {
		for _, z := range zones {
			if z == *in.Zone {
				return nil
			}
		}
		return fault.New(fault.Invalid, "The requested availability zone is not available")
	}
	return nil
}

// offloadsAtOnce tells whether shelving leaves the host at once.
func (a api) offloadsAtOnce(s *compute.Server) bool {
	return a.ShelvedOffload == time.Duration(0) || s.ImageID == ""
}
