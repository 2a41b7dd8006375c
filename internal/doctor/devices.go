package doctor

import (
	"encoding/json"

	"kilonova/internal/compute"
	"kilonova/internal/compute/scheduler"
	"kilonova/internal/compute/store"
	"kilonova/internal/compute/virt"
)

// devices checks that every PCI device has one holder, and that placement says the same of devices that it is told of (3, 4).
func (l *look) devices() error {
	claims, err := l.Store.HostClaims(l.ctx, l.DB)
	if err != nil {
		return err
	}
	on := map[string][]store.HostClaim{}
	for _, c := range claims {
		on[c.Host] = append(on[c.Host], c)
	}
	l.report.Counts["claims of parts of hosts"] = int64(len(claims))
	for i := range l.hosts {
		h := &l.hosts[i]
		var info virt.HostInfo
		if len(on[h.Name]) == 0 && len(h.Info) < 3 || len(h.Info) > 0 && json.Unmarshal(h.Info, &info) != nil {
			continue
		}
		l.heldOnce(h, on[h.Name])
		if l.Allocations == nil || !info.PCIPlacement {
			continue
		}
		if err := l.placedDevices(h, &info, on[h.Name]); err != nil {
			return err
		}
	}
	return nil
}

func (l *look) heldOnce(h *compute.Host, claims []store.HostClaim) {
	who := map[string]string{}
	for _, c := range claims {
		for _, d := range c.Claim.Addresses() {
			if who[d] != "" && who[d] != c.Consumer {
				l.say(NoDoubleAllocation, h.Name+" "+d, "", "the PCI device is held by %s and %s", who[d], c.Consumer)
			}
			who[d] = c.Consumer
		}
	}
}

// placedDevices compares the claims on a host with the allocations of the providers of its devices.
func (l *look) placedDevices(h *compute.Host, info *virt.HostInfo, claims []store.HostClaim) error {
	providers, err := scheduler.DeviceProviders(h.NodeID, info.Hostname, info.PCI)
	if err != nil {
		l.say(LegalState, h.Name, "Mend [pci] device_spec of the host.", "its PCI devices cannot be told of in placement: %s", err)
		return nil
	}
	ours := map[string]string{} // consumer -> server
	for _, c := range claims {
		ours[c.Consumer] = c.ServerID
	}
	for i := range providers {
		p := &providers[i]
		held, err := l.Allocations.HeldOn(l.ctx, p.UUID)
		if err != nil {
			return err
		}
		has, want := map[string]int64{}, map[string]int64{}
		for _, a := range held {
			has[a.Consumer] = a.Resources[p.Class]
		}
		for _, c := range claims {
			want[c.Consumer] = scheduler.WithDevices(nil, &c.Claim, providers[i:i+1])[p.UUID][p.Class]
		}
		for consumer := range has {
			want[consumer] += 0 // so that it is looked at
		}
		for consumer, n := range want {
			server := ours[consumer]
			if server == "" {
				server = l.serverOf(consumer)
			}
			if _, busy := l.open[server]; has[consumer] != n && !busy && server != "" {
				l.say(NoOrphanAllocation, consumer, "The report of the host's agent completes what lacks; what is too much an operator may remove.",
					"it holds %d PCI devices of %s, and has %d of them allocated in placement", n, p.Name, has[consumer])
			}
		}
	}
	return nil
}

// serverOf tells which server a consumer belongs to; "": none of ours.
func (l *look) serverOf(consumer string) string {
	if l.servers[consumer] != nil {
		return consumer
	}
	return l.moving[consumer].ServerID
}
