package cloud

import (
	"slices"
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/compute/store"
	"kilonova/internal/httpapi"
)

// listZones shows users the zones of compute hosts; one is available while a host of it is enabled.
func (a api) listZones(r *httpapi.Request) (*httpapi.Reply, error) {
	zones, err := a.zones(r)
	if err != nil {
		return nil, err
	}
	out := []document{}
	for _, z := range zones {
		if z.name != store.InternalZone {
			out = append(out, document{"zoneName": z.name, "zoneState": document{"available": z.available}, "hosts": nil})
		}
	}
	return reply("availabilityZoneInfo", out), nil
}

// detailZones adds the internal zone and the services of each host.
func (a api) detailZones(r *httpapi.Request) (*httpapi.Reply, error) {
	zones, err := a.zones(r)
	if err != nil {
		return nil, err
	}
	out := []document{}
	for _, z := range zones {
		d := document{"zoneName": z.name, "zoneState": document{"available": z.available}, "hosts": nil}
		hosts := document{}
		for i := range z.services {
			s := &z.services[i]
			if s.Disabled {
				continue
			}
			services, _ := hosts[s.Name].(document)
			if services == nil {
				services = document{}
				hosts[s.Name] = services
			}
			services[s.Binary] = document{"active": true, "available": a.Up(s), "updated_at": stamp(s.LastSeen)}
		}
		if z.available {
			d["hosts"] = hosts
		}
		out = append(out, d)
	}
	return reply("availabilityZoneInfo", out), nil
}

type zone struct {
	name      string
	available bool
	services  []compute.Host
}

// zones gives the zones that have services, available ones first, by name.
func (a api) zones(r *httpapi.Request) ([]zone, error) {
	services, err := a.Store.Services(r.Context(), a.DB())
	if err != nil {
		return nil, err
	}
	var out []zone
	for _, s := range services {
		i := slices.IndexFunc(out, func(z zone) bool { return z.name == s.Zone })
		if i < 0 {
			i, out = len(out), append(out, zone{name: s.Zone})
		}
		out[i].services = append(out[i].services, s)
		out[i].available = out[i].available || !s.Disabled
	}
	slices.SortFunc(out, func(x, y zone) int {
		if x.available != y.available {
			if x.available {
				return -1
			}
			return 1
		}
		return strings.Compare(x.name, y.name)
	})
	return out, nil
}
