package conductor

import (
	"context"
	"encoding/json"

	"kilonova/internal/clock"
	"kilonova/internal/compute/command"
	"kilonova/internal/fault"
	"kilonova/internal/id"
)

// Many hosts of one process report, and ask what is theirs, in common messages.

// reports is register for many hosts.
func (c *Conductor) reports(ctx context.Context, _ string, msg []byte) ([]byte, error) {
	var in command.HostReports
	if err := json.Unmarshal(msg, &in); err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "The reports of hosts cannot be read.")
	}
	all, err := in.Each()
	if err != nil {
		return nil, err
	}
	out := command.ReportsReply{Refused: map[string]string{}, Failed: map[string]*command.Failure{}}
	now := clock.Now()
	var full []command.HostReport
	for _, rep := range all {
		if rep.Host == "" || !id.IsUUID(rep.NodeID) {
			return nil, fault.New(fault.Invalid, "A host report names its host and the uuid of its node.")
		}
		if refused := c.takeover(rep); refused != "" {
			out.Refused[rep.Host] = refused
			continue
		}
		known := c.hosts.change(rep.Host, func(h *host) { h.seen = now })
		switch {
		case rep.Info != nil:
			full = append(full, rep)
		case !known:
			out.Failed[rep.Host] = command.FailureOf(unregistered(rep.Host))
		default:
			c.inTrouble(ctx, rep)
		}
	}
	for i, err := range c.fullReports(ctx, full) {
		if err != nil {
			out.Failed[full[i].Host] = command.FailureOf(err)
		}
	}
	return json.Marshal(out)
}

func unregistered(host string) error {
	return fault.New(fault.Unavailable, "Host %s has not registered yet: a full report is needed first.", host)
}

// mineMany is mine for many hosts. Those that have no guests, no servers and no debts are answered without a look.
func (c *Conductor) mineMany(ctx context.Context, _ string, msg []byte) ([]byte, error) {
	var in []command.MineRequest
	if err := json.Unmarshal(msg, &in); err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "The lists of guests cannot be read.")
	}
	hosts := make([]string, len(in))
	for i := range in {
		hosts[i] = in[i].Host
	}
	used, err := c.cfg.Store.HostsWithServers(ctx, c.cfg.DB, hosts...)
	if err != nil {
		return nil, err
	}
	owing, err := c.owed.Debtors(ctx, c.cfg.DB, hosts...)
	if err != nil {
		return nil, err
	}
	out := make([]command.MineReply, len(in))
	for i := range in {
		if len(in[i].Guests) == 0 && !used[in[i].Host] && !owing[in[i].Host] {
			continue
		}
		reply, err := c.verdicts(ctx, &in[i])
		if err != nil {
			return nil, err
		}
		out[i] = *reply
	}
	return json.Marshal(out)
}
