package conductor

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"kilonova/internal/bus"
	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/store"
	"kilonova/internal/compute/virt"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/network"
)

// serve answers the agents. Conductors share the calls.
func (c *Conductor) serve() (stop func(), err error) {
	var stops []func()
	stop = func() {
		for _, s := range stops {
			s()
		}
	}
	for subject, h := range map[string]bus.Handler{
		command.RegisterSubject:    c.register,
		command.ReportsSubject:     c.reports,
		command.MineSubject:        c.mine,
		command.MineManySubject:    c.mineMany,
		command.GuestSubject:       c.guest,
		command.HostNetworkSubject: c.network,
		command.PortStatusSubject:  c.portStatus,
		command.TunnelSubject:      c.tunnel,
		command.MigrationSubject:   c.migration,
		command.MetadataSubject:    c.metadata,
		command.FinishedSubject:    c.finished,
	} {
		s, err := c.cfg.Bus.Serve(subject, "conductor", h)
		if err != nil {
			stop()
			return nil, err
		}
		stops = append(stops, s)
	}
	s, err := c.cfg.Bus.Serve(network.ChangedSubject, "", c.networkChanged)
	if err != nil {
		stop()
		return nil, err
	}
	stops = append(stops, s)
	if s, err = c.cfg.Bus.Serve(network.SegmentsSubject, "", func(context.Context, string, []byte) ([]byte, error) {
		c.rec.Kick("aggregates")
		return nil, nil
	}); err != nil {
		stop()
		return nil, err
	}
	stops = append(stops, s)
	return stop, nil
}

// guest takes an agent's word that a guest changed by itself.
func (c *Conductor) guest(ctx context.Context, _ string, msg []byte) ([]byte, error) {
	var g command.GuestReport
	if err := json.Unmarshal(msg, &g); err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "The guest report cannot be read.")
	}
	return nil, c.rec.Power(ctx, g.Host, g.ID, int(g.Power))
}

func (c *Conductor) network(ctx context.Context, _ string, msg []byte) ([]byte, error) {
	st, err := c.cfg.Network.Host(ctx, string(msg))
	if err != nil {
		return nil, err
	}
	return json.Marshal(st)
}

func (c *Conductor) tunnel(ctx context.Context, _ string, msg []byte) ([]byte, error) {
	var t command.HostTunnel
	if err := json.Unmarshal(msg, &t); err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "The word of a host's tunnels cannot be read.")
	}
	if s, ok := c.cfg.Network.(network.Segmenter); ok {
		if err := s.SetPhysical(ctx, t.Host, t.Physical); err != nil {
			return nil, err
		}
	}
	return nil, c.cfg.Network.SetTunnel(ctx, t.Host, t.Address)
}

func (c *Conductor) portStatus(ctx context.Context, _ string, msg []byte) ([]byte, error) {
	var p command.PortStatus
	if err := json.Unmarshal(msg, &p); err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "The port status cannot be read.")
	}
	if err := c.cfg.Network.SetPortStatus(ctx, p.PortID, p.Status); err != nil && !errors.Is(err, fault.NotFound) {
		return nil, err
	}
	return nil, nil
}

func (c *Conductor) migration(ctx context.Context, _ string, msg []byte) ([]byte, error) {
	var m command.MigrationReport
	if err := json.Unmarshal(msg, &m); err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "The migration report cannot be read.")
	}
	return nil, c.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		return c.cfg.Store.UpdateMigration(ctx, tx, m.Migration, func(r *compute.Migration) error {
			p := m.Progress
			r.MemoryTotal, r.MemoryProcessed, r.MemoryRemaining = p.MemoryTotal, p.MemoryProcessed, p.MemoryRemaining
			r.DiskTotal, r.DiskProcessed, r.DiskRemaining = p.DiskTotal, p.DiskProcessed, p.DiskRemaining
			return nil
		})
	})
}

func (c *Conductor) metadata(ctx context.Context, _ string, msg []byte) ([]byte, error) {
	if c.cfg.Metadata == nil {
		return nil, fault.New(fault.NotImplemented, "This conductor has no metadata.")
	}
	s, err := c.cfg.Store.Server(ctx, c.cfg.DB, string(msg))
	if err != nil {
		return nil, err
	}
	return c.cfg.Metadata(ctx, s, nil)
}

func (c *Conductor) finished(_ context.Context, _ string, msg []byte) ([]byte, error) {
	var f command.Finished
	if err := json.Unmarshal(msg, &f); err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "The word of a finished command cannot be read.")
	}
	c.cfg.Engine.Wake(f.Operation)
	return nil, nil
}

// mine tells an agent what becomes of the guests that it sees, and takes their power states.
//
// A guest is to be destroyed only when the cloud has it in writing: its server is deleted, or the host owes its destruction. A guest of a server that
// lives elsewhere without such a debt, or of no server at all, is not named: the agent leaves it alone and reports it.
func (c *Conductor) mine(ctx context.Context, _ string, msg []byte) ([]byte, error) {
	var req command.MineRequest
	if err := json.Unmarshal(msg, &req); err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "The list of guests cannot be read.")
	}
	reply, err := c.verdicts(ctx, &req)
	if err != nil {
		return nil, err
	}
	return json.Marshal(reply)
}

func (c *Conductor) verdicts(ctx context.Context, req *command.MineRequest) (*command.MineReply, error) {
	here, err := c.cfg.Store.ServersOnHost(ctx, c.cfg.DB, req.Host)
	if err != nil {
		return nil, err
	}
	ids := make([]string, 0, len(here)+len(req.Guests))
	for _, s := range here {
		ids = append(ids, s.ID)
	}
	for _, g := range req.Guests {
		ids = append(ids, g.ID)
	}
	owes := map[string]int64{}
	debts, err := c.owed.OfHost(ctx, c.cfg.DB, req.Host)
	if err != nil {
		return nil, err
	}
	for _, d := range debts {
		if d.Verb == command.Destroy {
			owes[d.Server] = d.Epoch
			ids = append(ids, d.Server)
		}
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	// The epochs come before the records: a verdict may carry an epoch that is too old, and then it is refused, but never an epoch that is newer than the
	// record it was made of. A server that was stopped meanwhile would be started again.
	tops, err := c.epochs(ctx, ids)
	if err != nil {
		return nil, err
	}
	known := map[string]*compute.Server{}
	if err := c.addServers(ctx, known, ids); err != nil {
		return nil, err
	}
	here = here[:0]
	for _, s := range known {
		if s.Host == req.Host && s.Deleted.IsZero() {
			here = append(here, s)
		}
	}
	c.powers(ctx, req, here, tops)
	if len(debts) > 0 {
		c.rec.Kick("debts")
	}
	reply := &command.MineReply{}
	for server, epoch := range owes {
		reply.Servers = append(reply.Servers, command.MineServer{ID: server, Epoch: epoch, Verdict: "destroy"})
		delete(known, server)
	}
	for _, s := range known {
		m, err := c.verdict(ctx, req.Host, s, tops[s.ID])
		if err != nil {
			return nil, err
		}
		if m.Verdict != "" {
			reply.Servers = append(reply.Servers, m)
		}
	}
	return reply, nil
}

// powers takes the power states of the servers that live on a host and that no operation holds.
func (c *Conductor) powers(ctx context.Context, req *command.MineRequest, here []*compute.Server, tops map[string]top) {
	seen := make(map[string]virt.PowerState, len(req.Guests))
	for _, g := range req.Guests {
		seen[g.ID] = g.Power
	}
	for _, s := range here {
		if tops[s.ID].open {
			continue
		}
		var err error
		if p, ok := seen[s.ID]; ok {
			if p == virt.Shutdown && (slices.Contains(req.Starting, s.ID) || req.Resume && resumable(s)) {
				continue
			}
			err = c.rec.PowerOf(ctx, req.Host, s, int(p))
		} else {
			err = c.rec.Missing(ctx, req.Host, s)
		}
		if err != nil {
			c.log.Warn("a guest's power state was not taken", "host", req.Host, "server", s.ID, "error", err)
		}
	}
}

// resumable tells whether an agent that comes to its host starts the server's guest.
func resumable(s *compute.Server) bool {
	return s.VMState == compute.VMActive && s.TaskState == "" && s.PowerState == compute.PowerRunning
}

func (c *Conductor) addServers(ctx context.Context, known map[string]*compute.Server, ids []string) error {
	for len(ids) > 0 {
		n := min(len(ids), 500)
		more, err := c.cfg.Store.ServersByID(ctx, c.cfg.DB, ids[:n]...)
		if err != nil {
			return err
		}
		for _, s := range more {
			known[s.ID] = s
		}
		ids = ids[n:]
	}
	return nil
}

// top is the newest fence of a server.
type top struct {
	epoch int64
	open  bool // an operation holds the server
}

func (c *Conductor) epochs(ctx context.Context, ids []string) (map[string]top, error) {
	out := map[string]top{}
	for len(ids) > 0 {
		n := min(len(ids), 500)
		rows, err := c.cfg.DB.Query(ctx, "SELECT object, MAX(epoch), MAX(CASE WHEN holds IS NULL THEN 0 ELSE 1 END) FROM operations WHERE object IN ("+db.In(n)+") GROUP BY object", db.Args(ids[:n])...)
		if err != nil {
			return nil, err
		}
		for rows.Next() {
			var server string
			var t top
			var open int
			if err := rows.Scan(&server, &t.epoch, &open); err != nil {
				_ = rows.Close()
				return nil, err
			}
			t.open = open != 0
			out[server] = t
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return nil, err
		}
		ids = ids[n:]
	}
	return out, nil
}

func (c *Conductor) verdict(ctx context.Context, host string, s *compute.Server, t top) (command.MineServer, error) {
	m := command.MineServer{ID: s.ID, Epoch: t.epoch, Want: virt.PowerState(s.PowerState)}
	switch {
	case t.open:
		m.Verdict = "busy"
	case !s.Deleted.IsZero():
		m.Verdict = "destroy"
	case s.Host == host:
		m.Verdict = "keep"
		if m.Want == virt.Running && !resumable(s) { // on record for another reason: nobody wants it started
			m.Want = virt.NoState
		}
	default:
		open, err := c.cfg.Store.Migrations(ctx, c.cfg.DB, store.MigrationFilter{ServerID: s.ID, SourceHost: host, Status: []string{"finished"}, Limit: 1})
		if err != nil {
			return m, err
		}
		if len(open) > 0 { // resized away and not confirmed: what is here is the way back
			m.Verdict, m.Want = "keep", virt.Shutdown
		}
	}
	return m, nil
}
