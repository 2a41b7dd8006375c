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
		if l.Allocations == nil {
			continue
		}
		if err := l.placedParts(h, &info, on[h.Name]); err != nil {
			return err
		}
		if !info.PCIPlacement {
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
	for i := range providers {
		p := &providers[i]
		err := l.placed(p.UUID, p.Name, p.Class, "PCI devices", claims, func(c *compute.Claim) int64 { return scheduler.WithDevices(nil, c, providers[i:i+1])[p.UUID][p.Class] })
		if err != nil {
			return err
		}
	}
	return nil
}

// placedParts is placedDevices for the parts of devices.
func (l *look) placedParts(h *compute.Host, info *virt.HostInfo, claims []store.HostClaim) error {
	for _, p := range scheduler.MediatedProviders(h.NodeID, info.Hostname, info.Mediated) {
		err := l.placed(p.UUID, p.Name, p.Class, "parts", claims, func(c *compute.Claim) (n int64) {
			for _, m := range c.Mediated {
				if m.Parent == p.Address {
					n++
				}
			}
			return n
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// placed compares what claims hold of a provider with what is allocated of it.
func (l *look) placed(provider, name, class, what string, claims []store.HostClaim, amount func(*compute.Claim) int64) error {
	held, err := l.Allocations.HeldOn(l.ctx, provider)
	if err != nil {
		return err
	}
	ours := map[string]string{} // consumer -> server
	has, want := map[string]int64{}, map[string]int64{}
	for i := range claims {
		ours[claims[i].Consumer], want[claims[i].Consumer] = claims[i].ServerID, amount(&claims[i].Claim)
	}
	for _, a := range held {
		has[a.Consumer] = a.Resources[class]
		want[a.Consumer] += 0 // so that it is looked at
	}
	for consumer, n := range want {
		server := ours[consumer]
		if server == "" {
			server = l.serverOf(consumer)
		}
		if _, busy := l.open[server]; has[consumer] != n && !busy && server != "" {
			l.say(NoOrphanAllocation, consumer, "The report of the host's agent completes what lacks; what is too much an operator may remove.",
				"it holds %d %s of %s, and has %d of them allocated in placement", n, what, name, has[consumer])
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
