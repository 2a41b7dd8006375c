package remote

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"

	"golang.org/x/sync/errgroup"

	"kilonova/internal/fault"
	"kilonova/internal/placement"
)

const atOnce = 8 // requests under way for one list of providers

// head is what the API says of a provider itself.
type head struct {
	UUID       string `json:"uuid"`
	Name       string `json:"name"`
	Generation int64  `json:"generation"`
	Parent     string `json:"parent_provider_uuid"`
	Root       string `json:"root_provider_uuid"`
}

func path(uuid string) string { return "/resource_providers/" + uuid }

// whole reads everything that belongs to a provider.
func (s *Service) whole(ctx context.Context, h head) (*placement.Provider, error) {
	p := &placement.Provider{UUID: h.UUID, Name: h.Name, Parent: h.Parent, Root: h.Root, Generation: h.Generation}
	var inv struct {
		Inventories map[string]placement.Inventory `json:"inventories"`
	}
	var use struct {
		Usages map[string]int64 `json:"usages"`
	}
	var traits struct {
		Traits []string `json:"traits"`
	}
	var aggs struct {
		Aggregates []string `json:"aggregates"`
	}
	for _, part := range []struct {
		name string
		out  any
	}{{"/inventories", &inv}, {"/usages", &use}, {"/traits", &traits}, {"/aggregates", &aggs}} {
		if err := s.call(ctx, newest, http.MethodGet, path(h.UUID)+part.name, nil, part.out); err != nil {
			return nil, err
		}
	}
	p.Inventory, p.Used, p.Traits, p.Aggregates = inv.Inventories, use.Usages, traits.Traits, aggs.Aggregates
	slices.Sort(p.Traits)
	slices.Sort(p.Aggregates)
	return p, nil
}

// Providers implements placement.Service.
func (s *Service) Providers(ctx context.Context, uuids ...string) ([]placement.Provider, error) {
	var heads []head
	if len(uuids) == 0 {
		var list struct {
			Providers []head `json:"resource_providers"`
		}
		if err := s.call(ctx, newest, http.MethodGet, "/resource_providers", nil, &list); err != nil {
			return nil, err
		}
		heads = list.Providers
	} else {
		for _, u := range uuids {
			heads = append(heads, head{UUID: u})
		}
	}
	found := make([]*placement.Provider, len(heads))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i, h := range heads {
		g.Go(func() error {
			if h.Name == "" {
				if err := s.call(gctx, newest, http.MethodGet, path(h.UUID), nil, &h); err != nil {
					return goneIsFine(err)
				}
			}
			p, err := s.whole(gctx, h)
			found[i] = p
			return goneIsFine(err)
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	out := make([]placement.Provider, 0, len(found))
	for _, p := range found {
		if p != nil {
			out = append(out, *p)
		}
	}
	return out, nil
}

// goneIsFine drops the error of a provider that vanished between two questions.
func goneIsFine(err error) error {
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// Tree implements placement.Service.
func (s *Service) Tree(ctx context.Context, root string) ([]placement.Provider, error) {
	var list struct {
		Providers []head `json:"resource_providers"`
	}
	if err := s.call(ctx, newest, http.MethodGet, "/resource_providers?in_tree="+root, nil, &list); err != nil {
		return nil, err
	}
	uuids := make([]string, len(list.Providers))
	for i, h := range list.Providers {
		uuids[i] = h.UUID
	}
	if len(uuids) == 0 {
		return nil, nil
	}
	return s.Providers(ctx, uuids...)
}

// EnsureProvider implements placement.Service.
func (s *Service) EnsureProvider(ctx context.Context, uuid, name string) (*placement.Provider, error) {
	return s.EnsureChild(ctx, uuid, name, "")
}

// EnsureChild implements placement.Service.
func (s *Service) EnsureChild(ctx context.Context, uuid, name, parent string) (*placement.Provider, error) {
	var h head
	err := s.call(ctx, newest, http.MethodGet, path(uuid), nil, &h)
	switch {
	case errors.Is(err, fault.NotFound):
		err = s.call(ctx, newest, http.MethodPost, "/resource_providers", map[string]any{"name": name, "uuid": uuid, "parent_provider_uuid": nilIfEmpty(parent)}, &h)
		if errors.Is(err, fault.Conflict) { // somebody was first, or the name is another provider's
			if e := s.call(ctx, newest, http.MethodGet, path(uuid), nil, &h); e == nil {
				err = nil
			}
		}
	case err == nil && h.Name != name:
		err = s.call(ctx, newest, http.MethodPut, path(uuid), map[string]any{"name": name, "parent_provider_uuid": nilIfEmpty(h.Parent)}, &h)
	}
	if err != nil {
		return nil, err
	}
	return s.whole(ctx, h)
}

func nilIfEmpty(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// current reads what a change starts from.
func (s *Service) current(ctx context.Context, uuid string) (*placement.Provider, error) {
	var h head
	if err := s.call(ctx, newest, http.MethodGet, path(uuid), nil, &h); err != nil {
		return nil, err
	}
	return s.whole(ctx, h)
}

// Report implements placement.Service.
func (s *Service) Report(ctx context.Context, uuid string, inv map[string]placement.Inventory, traits, managed []string) error {
	return again(ctx, func() error {
		p, err := s.current(ctx, uuid)
		if err != nil {
			return err
		}
		want, next := placement.Settled(inv, p.Inventory), placement.Reported(traits, p.Traits, managed)
		generation := p.Generation
		if !maps.Equal(p.Inventory, want) {
			if err := s.makeCustom(ctx, "/resource_classes/", slices.Collect(maps.Keys(want))); err != nil {
				return err
			}
			var out struct {
				Generation int64 `json:"resource_provider_generation"`
			}
			if err := s.call(ctx, newest, http.MethodPut, path(uuid)+"/inventories",
				map[string]any{"resource_provider_generation": generation, "inventories": want}, &out); err != nil {
				return err
			}
			generation = out.Generation
		}
		if slices.Equal(p.Traits, next) {
			return nil
		}
		return s.setTraits(ctx, uuid, generation, next)
	})
}

func (s *Service) setTraits(ctx context.Context, uuid string, generation int64, traits []string) error {
	if err := s.makeCustom(ctx, "/traits/", traits); err != nil {
		return err
	}
	return s.call(ctx, newest, http.MethodPut, path(uuid)+"/traits", map[string]any{"resource_provider_generation": generation, "traits": traits}, nil)
}

// makeCustom makes custom names; those that exist stay.
func (s *Service) makeCustom(ctx context.Context, prefix string, names []string) error {
	for _, n := range names {
		if !placement.IsCustom(n) {
			continue
		}
		if err := s.call(ctx, newest, http.MethodPut, prefix+n, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// SetTrait implements placement.Service.
func (s *Service) SetTrait(ctx context.Context, uuid, trait string, on bool) error {
	return again(ctx, func() error {
		var have struct {
			Traits     []string `json:"traits"`
			Generation int64    `json:"resource_provider_generation"`
		}
		if err := s.call(ctx, newest, http.MethodGet, path(uuid)+"/traits", nil, &have); err != nil {
			return err
		}
		if slices.Contains(have.Traits, trait) == on {
			return nil
		}
		next := slices.DeleteFunc(have.Traits, func(t string) bool { return t == trait })
		if on {
			next = append(next, trait)
		}
		return s.setTraits(ctx, uuid, have.Generation, next)
	})
}

// SetAggregates implements placement.Service.
func (s *Service) SetAggregates(ctx context.Context, uuid string, aggregates []string) error {
	want := slices.Clone(aggregates)
	slices.Sort(want)
	want = slices.Compact(want)
	if want == nil {
		want = []string{}
	}
	return again(ctx, func() error {
		var have struct {
			Aggregates []string `json:"aggregates"`
			Generation int64    `json:"resource_provider_generation"`
		}
		if err := s.call(ctx, newest, http.MethodGet, path(uuid)+"/aggregates", nil, &have); err != nil {
			return err
		}
		slices.Sort(have.Aggregates)
		if slices.Equal(have.Aggregates, want) {
			return nil
		}
		return s.call(ctx, newest, http.MethodPut, path(uuid)+"/aggregates",
			map[string]any{"resource_provider_generation": have.Generation, "aggregates": want}, nil)
	})
}

// DeleteProvider implements placement.Service.
func (s *Service) DeleteProvider(ctx context.Context, uuid string) error {
	return s.call(ctx, newest, http.MethodDelete, path(uuid), nil, nil)
}
