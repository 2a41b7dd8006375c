package servers

import (
	"slices"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/network"
)

func (a api) addSecurityGroup(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.changeGroups(r, "addSecurityGroup", "os-security-groups:add", func(have []string, g string) ([]string, error) {
		if slices.Contains(have, g) {
			return have, nil
		}
		return append(slices.Clone(have), g), nil
	})
}

func (a api) removeSecurityGroup(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.changeGroups(r, "removeSecurityGroup", "os-security-groups:remove", func(have []string, g string) ([]string, error) {
		i := slices.Index(have, g)
		if i < 0 {
			return nil, nil
		}
		return slices.Delete(slices.Clone(have), i, i+1), nil
	})
}

// changeGroups changes the security groups of every port of a server. change gives nil for a port that it does not concern.
func (a api) changeGroups(r *httpapi.Request, action, rule string, change func(have []string, group string) ([]string, error)) (*httpapi.Reply, error) {
	var in map[string]struct {
		Name string `json:"name"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	name := in[action].Name
	s, err := a.Server(r, "id", backend.Rule(rule))
	if err != nil {
		return nil, err
	}
	ctx, owner := r.Context(), *r.Caller
	owner.ProjectID = s.ProjectID
	groups, err := a.Network.SecurityGroups(ctx, &owner, name)
	if err != nil {
		return nil, err
	}
	ports, err := a.Network.DevicePorts(ctx, backend.Internal(r), s.ID)
	if err != nil {
		return nil, err
	}
	if len(ports) == 0 {
		return nil, fault.New(fault.NotFound, "Instance %s has no ports that could have security groups.", s.ID)
	}
	changed := false
	for _, p := range ports {
		want, err := change(p.SecurityGroups, groups[0].ID)
		if err != nil {
			return nil, err
		}
		if want == nil {
			continue
		}
		changed = true
		if err := a.Network.SetPortGroups(ctx, backend.Internal(r), p.ID, want); err != nil {
			return nil, err
		}
	}
	if !changed {
		return nil, fault.New(fault.NotFound, "Security group %s not associated with the instance %s", name, s.ID)
	}
	if err := a.refreshVIFs(r, s); err != nil {
		return nil, err
	}
	return empty()
}

// refreshVIFs brings the names of groups and the floating addresses in the server's record up to date.
func (a api) refreshVIFs(r *httpapi.Request, s *compute.Server) error {
	ids := make([]string, len(s.VIFs))
	for i, v := range s.VIFs {
		ids[i] = v.PortID
	}
	if len(ids) == 0 {
		return nil
	}
	fresh, err := a.Network.VIFs(r.Context(), ids...)
	if err != nil {
		return err
	}
	return a.DB().Write(r.Context(), func(tx *db.Tx) error {
		return a.Store.UpdateServer(r.Context(), tx, s.ID, func(now *compute.Server) error {
			now.VIFs = slices.Clone(now.VIFs)
			for i := range now.VIFs {
				v := &now.VIFs[i]
				if at := slices.IndexFunc(fresh, func(f network.VIF) bool { return f.PortID == v.PortID }); at >= 0 {
					v.SecurityGroups, v.Floating, v.FixedIPs = fresh[at].SecurityGroups, fresh[at].Floating, fresh[at].FixedIPs
				}
			}
			return nil
		})
	})
}
