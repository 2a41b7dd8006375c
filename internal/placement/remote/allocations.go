package remote

import (
	"context"
	"errors"
	"maps"
	"net/http"

	"kilonova/internal/fault"
	"kilonova/internal/placement"
)

// wire is a consumer's allocations in the API's form.
type wire struct {
	Allocations map[string]resources `json:"allocations"`
	ProjectID   string               `json:"project_id,omitempty"`
	UserID      string               `json:"user_id,omitempty"`
	Generation  *int64               `json:"consumer_generation"`
	Type        string               `json:"consumer_type,omitempty"`
}

type resources struct {
	Resources placement.Resources `json:"resources"`
}

func encode(c placement.Consumer, a placement.Allocations) wire {
	w := wire{Allocations: make(map[string]resources, len(a)), ProjectID: c.ProjectID, UserID: c.UserID, Generation: c.Generation, Type: c.Type}
	for provider, r := range a {
		w.Allocations[provider] = resources{r}
	}
	return w
}

// Of implements placement.Service.
func (s *Service) Of(ctx context.Context, consumer string) (placement.Allocations, *placement.Consumer, error) {
	var w wire
	if err := s.call(ctx, newest, http.MethodGet, "/allocations/"+consumer, nil, &w); err != nil {
		return nil, nil, err
	}
	out := placement.Allocations{}
	if len(w.Allocations) == 0 {
		return out, nil, nil
	}
	for provider, r := range w.Allocations {
		out[provider] = r.Resources
	}
	if w.Type == placement.UnknownType {
		w.Type = ""
	}
	return out, &placement.Consumer{UUID: consumer, ProjectID: w.ProjectID, UserID: w.UserID, Type: w.Type, Generation: w.Generation}, nil
}

// Claim implements placement.Service.
func (s *Service) Claim(ctx context.Context, c placement.Consumer, a placement.Allocations) error {
	return s.ClaimAll(ctx, []placement.Consumer{c}, []placement.Allocations{a})
}

// ClaimAll implements placement.Service. A conflict is looked into: what is there already is success, a race about providers is run again.
func (s *Service) ClaimAll(ctx context.Context, cs []placement.Consumer, as []placement.Allocations) error {
	if len(cs) != len(as) {
		return fault.New(fault.Internal, "%d consumers and %d allocations", len(cs), len(as))
	}
	body, version := map[string]wire{}, newest
	for i, c := range cs {
		body[c.UUID] = encode(c, as[i])
		if c.Type == "" {
			version = untyped
		}
	}
	if version == untyped {
		for id, w := range body {
			w.Type = ""
			body[id] = w
		}
	}
	var stale error
	err := again(ctx, func() error {
		err := s.call(ctx, version, http.MethodPost, "/allocations", body, nil)
		if !isRace(err) {
			return err
		}
		there, old := true, false
		for i, c := range cs {
			have, owner, lookErr := s.Of(ctx, c.UUID)
			if lookErr != nil {
				return lookErr
			}
			there = there && same(have, as[i])
			old = old || (owner == nil) != (c.Generation == nil) || owner != nil && *owner.Generation != *c.Generation
		}
		switch {
		case there:
			return nil
		case old: // trying again cannot help
			stale = err
			return nil
		}
		return err
	})
	if err == nil {
		return stale
	}
	return err
}

func same(a, b placement.Allocations) bool {
	if len(a) != len(b) {
		return false
	}
	return maps.EqualFunc(a, b, func(x, y placement.Resources) bool { return maps.Equal(x, y) })
}

// Release implements placement.Service.
func (s *Service) Release(ctx context.Context, consumer string) error {
	err := again(ctx, func() error { return s.call(ctx, newest, http.MethodDelete, "/allocations/"+consumer, nil, nil) })
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}
