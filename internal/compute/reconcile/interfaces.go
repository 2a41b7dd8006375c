package reconcile

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"kilonova/internal/compute"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/network"
)

// interfacesAtOnce is how many servers the interface cache loop looks at in one round.
const interfacesAtOnce = 200

// Interfaces walks over all servers, some at a time, and brings the cached interfaces in line with the network service: addresses, floating addresses and
// group names may change without compute being asked.
func (l *Loops) Interfaces(ctx context.Context) error {
	l.turn.Lock()
	defer l.turn.Unlock()
	ss, err := l.cfg.Store.ListServers(ctx, l.cfg.Store.DB, store.ListFilter{Marker: l.next, Limit: interfacesAtOnce, Sort: []store.SortKey{{Key: "uuid"}}})
	if errors.Is(err, fault.Invalid) && l.next != "" { // the marker was deleted
		l.next = ""
		return nil
	}
	if err != nil {
		return err
	}
	l.next = ""
	if len(ss) == interfacesAtOnce {
		l.next = ss[len(ss)-1].ID
	}
	return l.RefreshInterfaces(ctx, ss...)
}

// RefreshInterfaces brings the cached interfaces of idle servers in line with the network service.
func (l *Loops) RefreshInterfaces(ctx context.Context, ss ...*compute.Server) error {
	var ports []string
	for _, s := range ss {
		if s.TaskState == "" {
			for _, v := range s.VIFs {
				ports = append(ports, v.PortID)
			}
		}
	}
	if len(ports) == 0 {
		return nil
	}
	now, err := l.cfg.Network.VIFs(ctx, ports...)
	if err != nil {
		return err
	}
	byPort := make(map[string]network.VIF, len(now))
	for _, v := range now {
		byPort[v.PortID] = v
	}
	var errs []error
	for _, s := range ss {
		if next, changed := renew(s.VIFs, byPort); changed && s.TaskState == "" {
			errs = append(errs, l.putInterfaces(ctx, s, next))
		}
	}
	return errors.Join(errs...)
}

// renew gives the interfaces as they are now; what only compute knows of them is kept, and one whose port is gone is left out.
func renew(old []network.VIF, now map[string]network.VIF) (next []network.VIF, changed bool) {
	for _, v := range old {
		n, ok := now[v.PortID]
		if !ok {
			changed = true
			continue
		}
		n.Tag, n.Created, n.Model = v.Tag, v.Created, v.Model
		if !same(n, v) {
			changed = true
		}
		next = append(next, n)
	}
	return next, changed
}

// same compares as the record would be written: an empty list is no list.
func same(a, b network.VIF) bool {
	if len(a.Floating) == 0 && len(b.Floating) == 0 {
		a.Floating, b.Floating = nil, nil
	}
	if slices.Equal(a.SecurityGroups, b.SecurityGroups) {
		a.SecurityGroups, b.SecurityGroups = nil, nil
	}
	return reflect.DeepEqual(trim(a), trim(b))
}

func trim(v network.VIF) network.VIF {
	v.FixedIPs = slices.Clone(v.FixedIPs)
	for i := range v.FixedIPs {
		if len(v.FixedIPs[i].DNS) == 0 {
			v.FixedIPs[i].DNS = nil
		}
		if len(v.FixedIPs[i].Routes) == 0 {
			v.FixedIPs[i].Routes = nil
		}
	}
	return v
}

func (l *Loops) putInterfaces(ctx context.Context, s *compute.Server, next []network.VIF) error {
	err := l.cfg.Store.DB.Write(ctx, func(tx *db.Tx) error {
		return l.cfg.Store.UpdateServer(ctx, tx, s.ID, func(now *compute.Server) error {
			if now.TaskState != "" || !now.Updated.Equal(s.Updated) {
				return errChanged // it is looked at again in the next round
			}
			now.VIFs = next
			return nil
		})
	})
	if errors.Is(err, errChanged) || errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

func usageText(counted, recount store.Usage) string {
	return fmt.Sprintf("counted %+v, recount %+v", counted, recount)
}
