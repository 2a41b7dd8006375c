package conductor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/store"
	"kilonova/internal/compute/virt"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/placement"
)

// serviceVersion is what compute services show as their version: that of the release whose behaviour is offered.
const serviceVersion = 66

// register takes an agent's report: the full one makes or renews the host's record and its provider, a bare one is a heartbeat.
func (c *Conductor) register(ctx context.Context, _ string, msg []byte) ([]byte, error) {
	var rep command.HostReport
	if err := json.Unmarshal(msg, &rep); err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "The host report cannot be read.")
	}
	if rep.Host == "" || !id.IsUUID(rep.NodeID) {
		return nil, fault.New(fault.Invalid, "A host report names its host and the uuid of its node.")
	}
	if refused := c.takeover(rep); refused != "" {
		return json.Marshal(command.RegisterReply{Refused: refused})
	}
	now := clock.Now()
	known := c.hosts.change(rep.Host, func(h *host) { h.seen = now })
	if rep.Info == nil {
		if !known {
			return nil, unregistered(rep.Host)
		}
		c.inTrouble(ctx, rep)
	} else if err := c.fullReport(ctx, rep); err != nil {
		return nil, err
	}
	h, _ := c.hosts.get(rep.Host)
	return json.Marshal(command.RegisterReply{Disabled: h.Disabled})
}

// takeover decides which of two processes that claim one host speaks for it: the one that came last. The other is told so.
func (c *Conductor) takeover(rep command.HostReport) (refused string) {
	c.hosts.change(rep.Host, func(h *host) {
		switch {
		case h.NodeID != "" && h.NodeID != rep.NodeID && c.hosts.alive(h, clock.Now()) && h.start != "" && h.start != rep.Start:
			refused = fmt.Sprintf("Host name %s belongs to the node %s, which is alive.", rep.Host, h.NodeID)
		case slices.Contains(h.former, rep.Start):
			refused = fmt.Sprintf("Another agent has taken over host %s: only one may run.", rep.Host)
		case h.start != "" && h.start != rep.Start:
			h.former = append(h.former, h.start)
			if n := len(h.former); n > 16 {
				h.former = h.former[n-16:]
			}
			h.start = rep.Start
		default:
			h.start = rep.Start
		}
	})
	return refused
}

// inTrouble tells that a host's libvirt does not answer its agent.
func (c *Conductor) inTrouble(ctx context.Context, rep command.HostReport) {
	h, ok := c.hosts.get(rep.Host)
	if rep.Trouble == "" || !ok || h.info == nil || h.info.HypervisorType != "QEMU" && h.info.HypervisorType != "KVM" {
		return
	}
	if err := c.cfg.Store.Told(ctx, store.LibvirtLost, &store.Trouble{Host: rep.Host, IP: h.info.HostIP, Cause: rep.Trouble}); err != nil {
		c.log.Warn("a notification could not be written", "host", rep.Host, "error", err)
	}
}

func (c *Conductor) fullReport(ctx context.Context, rep command.HostReport) error {
	return c.fullReports(ctx, []command.HostReport{rep})[0]
}

// fullReports writes down what hosts report of themselves, where it is new, and tells placement. It gives an error for each.
func (c *Conductor) fullReports(ctx context.Context, reps []command.HostReport) []error {
	errs := make([]error, len(reps))
	now := clock.Now()
	var recs []compute.Host
	var names []string // of their nodes
	var of []int       // their reports
	for i, rep := range reps {
		old, known := c.hosts.get(rep.Host)
		if errs[i] = c.judgeDevices(ctx, rep, old.info); errs[i] != nil {
			continue
		}
		if known && old.NodeID == rep.NodeID && !old.ForcedDown && now.Sub(old.written) <= beatEvery && lasting(old.info) == lasting(rep.Info) {
			continue
		}
		var info []byte
		if info, errs[i] = json.Marshal(rep.Info); errs[i] != nil {
			continue
		}
		recs = append(recs, compute.Host{Name: rep.Host, NodeID: rep.NodeID, Info: info, LastSeen: now, Version: serviceVersion})
		names, of = append(names, rep.Info.Hostname), append(of, i)
	}
	for from := 0; from < len(recs); from += savedAtOnce {
		to := min(from+savedAtOnce, len(recs))
		if err := c.saveHosts(ctx, recs[from:to], names[from:to]); err != nil {
			for _, i := range of[from:to] {
				errs[i] = err
			}
			continue
		}
		for _, i := range of[from:to] {
			c.takeover(reps[i])
			c.hosts.change(reps[i].Host, func(h *host) { h.seen = now })
		}
	}
	c.reportProviders(ctx, reps, errs)
	return errs
}

// savedAtOnce is how many hosts one transaction writes: others wait for it.
const savedAtOnce = 100

func (c *Conductor) saveHosts(ctx context.Context, recs []compute.Host, names []string) error {
	saved := recs
	err := c.cfg.DB.Write(ctx, func(tx *db.Tx) (err error) {
		if len(recs) == 1 {
			return c.cfg.Store.SaveHost(ctx, tx, &recs[0], names[0])
		}
		saved, err = c.cfg.Store.SaveHosts(ctx, tx, recs, names)
		return err
	})
	if err != nil {
		return err
	}
	for _, r := range saved {
		c.hosts.put(r)
	}
	return nil
}

// lasting is what of a host's description is worth a write when it changes.
func lasting(i *virt.HostInfo) string {
	if i == nil {
		return ""
	}
	c := *i
	c.Uptime, c.FreeDiskGB, c.MemoryUsedMB, c.Stats, c.Traits, c.Metrics = "", 0, 0, nil, nil, nil
	b, _ := json.Marshal(c) // plain data: it can be encoded
	return string(b)
}

// reportProviders tells placement what hosts have, when that is new or some minutes old. Reports that have failed already are passed over.
func (c *Conductor) reportProviders(ctx context.Context, reps []command.HostReport, errs []error) {
	var news []placement.HostReport
	var told []string // of each
	var of []int      // their reports
	for i, rep := range reps {
		h, ok := c.hosts.get(rep.Host)
		if errs[i] != nil || !ok {
			continue
		}
		inv, traits := inventoryOf(rep.Info), append(slices.Clone(rep.Traits), "COMPUTE_NODE", "OWNER_NOVA")
		if traits, errs[i] = extend(rep.Info.Providers, rep.NodeID, rep.Info.Hostname, true, inv, traits); errs[i] != nil {
			continue
		}
		slices.Sort(traits)
		traits = slices.Compact(traits)
		// Each host tells again after some minutes, not all at the same moment: somebody may have changed the provider meanwhile.
		shift := time.Duration(h.NodeNumber%600) * time.Second
		print := fingerprint(rep.NodeID, rep.Info.Hostname, inv, traits, placed(rep.Info), rep.Info.Providers, rep.Info.Offer, rep.Info.Mediated, clock.Now().Add(shift).Truncate(10*time.Minute))
		if h.reported == print {
			continue
		}
		report := placement.HostReport{UUID: rep.NodeID, Name: rep.Info.Hostname, Inventory: inv, Traits: traits}
		if n := len(news); n > 0 && slices.Equal(traits, news[n-1].Traits) {
			report.Managed = news[n-1].Managed
		} else {
			report.Managed = managed(traits)
		}
		news, told, of = append(news, report), append(told, print), append(of, i)
	}
	var synced []string
	for k, err := range c.registerProviders(ctx, news) {
		rep := reps[of[k]]
		if err == nil {
			err = errors.Join(c.reportDevices(ctx, rep), c.reportMediated(ctx, rep))
		}
		if errs[of[k]] = err; err == nil {
			synced = append(synced, rep.Host)
		}
	}
	if len(synced) == 0 {
		return
	}
	err := c.rec.SyncHosts(ctx, synced...)
	for k, i := range of {
		if errs[i] == nil {
			if errs[i] = err; err == nil {
				c.hosts.change(reps[i].Host, func(h *host) { h.reported = told[k] })
			}
		}
	}
}

// registerProviders gives an error for each report.
func (c *Conductor) registerProviders(ctx context.Context, news []placement.HostReport) []error {
	if r, ok := c.cfg.Placement.(placement.Registrar); ok && len(news) > 1 {
		errs := r.Register(ctx, news)
		for i, err := range errs {
			if err != nil {
				errs[i] = fmt.Errorf("provider of %s: %w", news[i].Name, err)
			}
		}
		return errs
	}
	errs := make([]error, len(news))
	for i, h := range news {
		if _, err := c.cfg.Placement.EnsureProvider(ctx, h.UUID, h.Name); err != nil {
			errs[i] = fmt.Errorf("provider of %s: %w", h.Name, err)
		} else if err := c.cfg.Placement.Report(ctx, h.UUID, h.Inventory, h.Traits, h.Managed); err != nil {
			errs[i] = fmt.Errorf("inventory of %s: %w", h.Name, err)
		}
	}
	return errs
}

// placed gives the devices that placement is told of.
func placed(i *virt.HostInfo) []compute.HostDevice {
	if !i.PCIPlacement {
		return nil
	}
	return i.PCI
}

func fingerprint(parts ...any) string {
	b, _ := json.Marshal(parts) // plain data: it can be encoded
	f := fnv.New64a()
	_, _ = f.Write(b) // a hash never fails
	return strconv.FormatUint(f.Sum64(), 36)
}

// managed gives the traits that a host's report decides alone: those of compute, its driver's abilities and hardware, and what it names itself. Others are an operator's.
func managed(reported []string) []string {
	out := append(slices.Clone(reported), "CUSTOM_KILONOVA_*")
	for _, t := range placement.StandardTraits() {
		if t == "COMPUTE_STATUS_DISABLED" {
			continue
		}
		if strings.HasPrefix(t, "COMPUTE_") || strings.HasPrefix(t, "HW_CPU_") {
			out = append(out, t)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
