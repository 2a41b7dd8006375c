package api

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/id"
	"kilonova/internal/placement"
)

// allocationIn is a consumer's allocations as requests write them: a list before 1.12, an object by provider since then.
type allocationIn struct {
	Allocations json.RawMessage `json:"allocations"`
	ProjectID   string          `json:"project_id"`
	UserID      string          `json:"user_id"`
	Generation  *int64          `json:"consumer_generation"`
	Type        string          `json:"consumer_type"`
}

func (in *allocationIn) change(r *httpapi.Request, consumer string) (placement.Change, error) {
	c := placement.Change{Consumer: placement.Consumer{UUID: consumer, ProjectID: in.ProjectID, UserID: in.UserID, Type: in.Type, Generation: in.Generation},
		Allocations: placement.Allocations{}, AnyGeneration: !since(r, 28)}
	if !since(r, 12) {
		var list []struct {
			Provider  struct{ UUID string } `json:"resource_provider"`
			Resources placement.Resources   `json:"resources"`
		}
		if err := json.Unmarshal(in.Allocations, &list); err != nil {
			return c, fault.Wrap(err, fault.Invalid, "JSON does not validate: allocations must be a list of providers with whole amounts.")
		}
		for _, e := range list {
			c.Allocations[dashed(e.Provider.UUID)] = e.Resources
		}
		return c, nil
	}
	var by map[string]struct {
		Resources placement.Resources `json:"resources"`
	}
	if err := json.Unmarshal(in.Allocations, &by); err != nil {
		return c, fault.Wrap(err, fault.Invalid, "JSON does not validate: allocations must be an object of providers with whole amounts.")
	}
	for uuid, e := range by {
		c.Allocations[dashed(uuid)] = e.Resources
	}
	return c, nil
}

func changes(r *httpapi.Request, in map[string]allocationIn) ([]placement.Change, error) {
	out := make([]placement.Change, 0, len(in))
	for _, consumer := range slices.Sorted(maps.Keys(in)) {
		one := in[consumer]
		c, err := one.change(r, dashed(consumer))
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

func (a *api) setAllocations(r *httpapi.Request) (*httpapi.Reply, error) {
	consumer := r.Path("consumer")
	if !id.IsUUID(consumer) {
		return nil, fault.New(fault.Invalid, "Malformed consumer_uuid: %s", consumer)
	}
	var in allocationIn
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	c, err := in.change(r, dashed(consumer))
	if err != nil {
		return nil, err
	}
	if err := a.svc.Replace(r.Context(), []placement.Change{c}); err != nil {
		return nil, err
	}
	return httpapi.NoContent(), nil
}

func (a *api) manageAllocations(r *httpapi.Request) (*httpapi.Reply, error) {
	var in map[string]allocationIn
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	list, err := changes(r, in)
	if err != nil {
		return nil, err
	}
	if err := a.svc.Replace(r.Context(), list); err != nil {
		return nil, err
	}
	return httpapi.NoContent(), nil
}

func (a *api) deleteAllocations(r *httpapi.Request) (*httpapi.Reply, error) {
	consumer := dashed(r.Path("consumer"))
	list, _, err := a.svc.HeldBy(r.Context(), consumer)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fault.New(fault.NotFound, "No allocations for consumer '%s'", consumer)
	}
	if err := a.svc.Release(r.Context(), consumer); err != nil {
		return nil, err
	}
	return httpapi.NoContent(), nil
}

func (a *api) consumerAllocations(r *httpapi.Request) (*httpapi.Reply, error) {
	list, owner, err := a.svc.HeldBy(r.Context(), dashed(r.Path("consumer")))
	if err != nil {
		return nil, err
	}
	by := document{}
	for _, h := range list {
		by[h.Provider] = document{"resources": h.Resources, "generation": h.ProviderGeneration}
	}
	d := document{"allocations": by}
	if owner != nil && since(r, 12) {
		d["project_id"], d["user_id"] = owner.ProjectID, owner.UserID
		if since(r, 28) {
			d["consumer_generation"] = *owner.Generation
		}
		if since(r, 38) {
			d["consumer_type"] = typeName(owner.Type)
		}
	}
	return stamped(r, httpapi.OK(d), time.Time{}), nil
}

func typeName(s string) string {
	if s == "" {
		return placement.UnknownType
	}
	return s
}

func (a *api) providerAllocations(r *httpapi.Request) (*httpapi.Reply, error) {
	p, err := a.svc.Provider(r.Context(), r.Path("uuid"))
	if err != nil {
		return nil, err
	}
	list, err := a.svc.HeldOn(r.Context(), p.UUID)
	if err != nil {
		return nil, err
	}
	by := document{}
	for _, h := range list {
		d := document{"resources": h.Resources}
		if since(r, 28) {
			d["consumer_generation"] = h.ConsumerGeneration
		}
		by[h.Consumer] = d
	}
	return stamped(r, httpapi.OK(document{"allocations": by, "resource_provider_generation": p.Generation}), time.Time{}), nil
}

func (a *api) reshape(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Inventories map[string]struct {
			Generation  int64                  `json:"resource_provider_generation"`
			Inventories map[string]inventoryIn `json:"inventories"`
		} `json:"inventories"`
		Allocations map[string]allocationIn `json:"allocations"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	var inventories []placement.NewInventory
	for _, uuid := range slices.Sorted(maps.Keys(in.Inventories)) {
		inv, err := inventoriesIn(r, uuid, in.Inventories[uuid].Inventories)
		if err != nil {
			return nil, err
		}
		inventories = append(inventories, placement.NewInventory{Provider: dashed(uuid), Generation: in.Inventories[uuid].Generation, Inventory: inv})
	}
	list, err := changes(r, in.Allocations)
	if err != nil {
		return nil, err
	}
	if err := a.svc.Reshape(r.Context(), inventories, list); err != nil {
		return nil, err
	}
	return httpapi.NoContent(), nil
}

func (a *api) usages(r *httpapi.Request) (*httpapi.Reply, error) {
	q := r.Query()
	f := placement.UsageFilter{ProjectID: httpapi.Last(q, "project_id"), UserID: httpapi.Last(q, "user_id"), Type: httpapi.Last(q, "consumer_type")}
	if err := r.Authorize(ruleUsages, map[string]string{"project_id": f.ProjectID}); err != nil {
		return nil, err
	}
	all := f.Type == "all"
	if all {
		f.Type = ""
	}
	list, err := a.svc.Usages(r.Context(), f)
	if err != nil {
		return nil, err
	}
	out := document{}
	switch {
	case !since(r, 38):
		for class, n := range total(list).Resources {
			out[class] = n
		}
	case all && len(list) > 0:
		out["all"] = usage(total(list))
	default:
		for _, u := range list {
			out[u.Type] = usage(u)
		}
	}
	return stamped(r, httpapi.OK(document{"usages": out}), time.Time{}), nil
}

func total(list []placement.Usage) placement.Usage {
	sum := placement.Usage{Resources: placement.Resources{}}
	for _, u := range list {
		sum.Consumers += u.Consumers
		for class, n := range u.Resources {
			sum.Resources[class] += n
		}
	}
	return sum
}

func usage(u placement.Usage) document {
	d := document{"consumer_count": u.Consumers}
	for class, n := range u.Resources {
		d[class] = n
	}
	return d
}
