package api

import (
	"bytes"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/placement"
)

// inventoryIn is an inventory as requests write it.
type inventoryIn struct {
	Class      string   `json:"resource_class"`
	Generation *int64   `json:"resource_provider_generation"`
	Total      int64    `json:"total"`
	Reserved   int64    `json:"reserved"`
	MinUnit    int64    `json:"min_unit"`
	MaxUnit    int64    `json:"max_unit"`
	StepSize   int64    `json:"step_size"`
	Ratio      *float64 `json:"allocation_ratio"`
}

// inventory applies the defaults and the rule about reserved: below total, and since 1.26 it may be equal.
func (in *inventoryIn) inventory(r *httpapi.Request, provider, class string) (placement.Inventory, error) {
	inv := placement.Inventory{Total: in.Total, Reserved: in.Reserved, MinUnit: in.MinUnit, MaxUnit: in.MaxUnit, StepSize: in.StepSize}
	if in.Ratio != nil {
		if *in.Ratio <= 0 {
			return inv, fault.New(fault.Invalid, "JSON does not validate: the allocation_ratio of %s must be greater than 0.", class)
		}
		inv.AllocationRatio = *in.Ratio
	}
	inv = inv.WithDefaults()
	const why = "Unable to %s inventory for resource provider %s: Invalid inventory for '%s' on resource provider '%s'. The reserved value is %s total."
	verb := "update"
	if r.HTTP.Method == http.MethodPost {
		verb = "create"
	}
	switch capacity := inv.Capacity(); {
	case since(r, 26) && capacity < 0:
		return inv, fault.New(fault.Invalid, why, verb, provider, class, provider, "greater than")
	case !since(r, 26) && capacity <= 0:
		return inv, fault.New(fault.Invalid, why, verb, provider, class, provider, "greater than or equal to")
	}
	return inv, nil
}

func inventoriesIn(r *httpapi.Request, provider string, in map[string]inventoryIn) (map[string]placement.Inventory, error) {
	out := make(map[string]placement.Inventory, len(in))
	for _, class := range slices.Sorted(maps.Keys(in)) {
		i := in[class]
		if !placement.IsName(class) {
			return nil, fault.New(fault.Invalid, "Unknown resource class in inventory for resource provider %s: No such resource class %s.", provider, class)
		}
		inv, err := i.inventory(r, provider, class)
		if err != nil {
			return nil, err
		}
		out[class] = inv
	}
	return out, nil
}

func oneInventory(r *httpapi.Request, p *placement.Provider, class string) *httpapi.Reply {
	d := inventory(p.Inventory[class])
	d["resource_provider_generation"] = p.Generation
	return stamped(r, httpapi.OK(d), p.UpdatedAt)
}

func inventory(i placement.Inventory) document {
	return document{"total": i.Total, "reserved": i.Reserved, "min_unit": i.MinUnit, "max_unit": i.MaxUnit, "step_size": i.StepSize, "allocation_ratio": fraction(i.AllocationRatio)}
}

// fraction is a number that is always written with a point or an exponent: 1.0, for clients to which 1 is of another type.
type fraction float64

// MarshalJSON implements json.Marshaler.
func (f fraction) MarshalJSON() ([]byte, error) {
	b := strconv.AppendFloat(nil, float64(f), 'g', -1, 64)
	if !bytes.ContainsAny(b, ".e") {
		b = append(b, ".0"...)
	}
	return b, nil
}

func allInventories(r *httpapi.Request, p *placement.Provider) *httpapi.Reply {
	out := make(document, len(p.Inventory))
	for class, i := range p.Inventory {
		out[class] = inventory(i)
	}
	return stamped(r, httpapi.OK(document{"inventories": out, "resource_provider_generation": p.Generation}), p.UpdatedAt)
}

func (a *api) listInventories(r *httpapi.Request) (*httpapi.Reply, error) {
	p, err := a.svc.Provider(r.Context(), r.Path("uuid"))
	if err != nil {
		return nil, err
	}
	return allInventories(r, p), nil
}

func (a *api) showInventory(r *httpapi.Request) (*httpapi.Reply, error) {
	p, err := a.svc.Provider(r.Context(), r.Path("uuid"))
	if err != nil {
		return nil, err
	}
	class := r.Path("class")
	if _, ok := p.Inventory[class]; !ok {
		return nil, fault.New(fault.NotFound, "No inventory of class %s for %s", class, p.UUID)
	}
	return oneInventory(r, p, class), nil
}

func (a *api) addInventory(r *httpapi.Request) (*httpapi.Reply, error) {
	uuid := r.Path("uuid")
	if _, err := a.svc.Provider(r.Context(), uuid); err != nil {
		return nil, err
	}
	var in inventoryIn
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	inv, err := in.inventory(r, uuid, in.Class)
	if err != nil {
		return nil, err
	}
	p, err := a.svc.AddInventory(r.Context(), uuid, in.Class, in.Generation, inv)
	if err != nil {
		return nil, err
	}
	reply := oneInventory(r, p, in.Class)
	reply.Status = 201
	return located(r, reply, "/resource_providers/"+uuid+"/inventories/"+in.Class), nil
}

func (a *api) setInventories(r *httpapi.Request) (*httpapi.Reply, error) {
	uuid := r.Path("uuid")
	if err := a.atGeneration(r, uuid); err != nil {
		return nil, err
	}
	var in struct {
		Generation  *int64                 `json:"resource_provider_generation"`
		Inventories map[string]inventoryIn `json:"inventories"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	inv, err := inventoriesIn(r, uuid, in.Inventories)
	if err != nil {
		return nil, err
	}
	p, err := a.svc.SetInventory(r.Context(), uuid, in.Generation, inv)
	if err != nil {
		return nil, err
	}
	return allInventories(r, p), nil
}

// atGeneration refuses a body whose generation is stale before anything else in it is judged.
func (a *api) atGeneration(r *httpapi.Request, uuid string) error {
	var in struct {
		Generation *int64 `json:"resource_provider_generation"`
	}
	if err := r.Decode(&in); err != nil {
		return err
	}
	p, err := a.svc.Provider(r.Context(), uuid)
	if err != nil {
		return err
	}
	if in.Generation != nil && *in.Generation != p.Generation {
		return fault.New(fault.Conflict, "resource provider generation conflict: the provider's generation is %d, %d was given.", p.Generation, *in.Generation).
			WithCode(placement.CodeConcurrentUpdate)
	}
	return nil
}

func (a *api) setInventory(r *httpapi.Request) (*httpapi.Reply, error) {
	uuid, class := r.Path("uuid"), r.Path("class")
	if err := a.atGeneration(r, uuid); err != nil {
		return nil, err
	}
	var in inventoryIn
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	inv, err := in.inventory(r, uuid, class)
	if err != nil {
		return nil, err
	}
	p, err := a.svc.PutInventory(r.Context(), uuid, class, in.Generation, inv)
	if err != nil {
		return nil, err
	}
	return oneInventory(r, p, class), nil
}

func (a *api) deleteInventories(r *httpapi.Request) (*httpapi.Reply, error) {
	if _, err := a.svc.SetInventory(r.Context(), r.Path("uuid"), nil, nil); err != nil {
		return nil, err
	}
	return httpapi.NoContent(), nil
}

func (a *api) noDeleteInventories(*httpapi.Request) (*httpapi.Reply, error) {
	e := fault.New(fault.NotAllowed, "The method specified is not allowed for this resource.")
	e.Header = map[string]string{"Allow": "GET, POST, PUT"}
	return nil, e
}

func (a *api) deleteInventory(r *httpapi.Request) (*httpapi.Reply, error) {
	err := a.svc.DeleteInventory(r.Context(), r.Path("uuid"), r.Path("class"))
	if err != nil {
		err = prefixed(err, fault.Conflict, "Unable to delete inventory of class %s: ", r.Path("class"))
		if e := (*fault.Error)(nil); errors.As(err, &e) && e.Kind == fault.Conflict {
			return nil, e.WithCode(placement.CodeConcurrentUpdate) // also for one in use
		}
		return nil, err
	}
	return httpapi.NoContent(), nil
}
