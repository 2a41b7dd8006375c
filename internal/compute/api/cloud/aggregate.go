package cloud

import (
	"context"
	"slices"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

const zoneKey = "availability_zone"

func aggregateView(r *httpapi.Request, g *compute.Aggregate) document {
	hosts := g.Hosts
	if hosts == nil {
		hosts = []string{}
	}
	d := document{"id": g.ID, "name": g.Name, "availability_zone": orNull(g.Metadata[zoneKey]), "hosts": hosts, "metadata": g.Metadata,
		"created_at": stamp(g.Created), "updated_at": stamp(g.Updated), "deleted": false, "deleted_at": nil}
	if backend.Minor(r) >= 41 {
		d["uuid"] = g.UUID
	}
	return d
}

func (a api) listAggregates(r *httpapi.Request) (*httpapi.Reply, error) {
	list, err := a.Store.Aggregates(r.Context(), a.DB())
	if err != nil {
		return nil, err
	}
	out := make([]document, len(list))
	for i := range list {
		out[i] = aggregateView(r, &list[i])
	}
	return reply("aggregates", out), nil
}

func (a api) showAggregate(r *httpapi.Request) (*httpapi.Reply, error) {
	n, err := number(r, "aggregate")
	if err != nil {
		return nil, err
	}
	g, err := a.Store.Aggregate(r.Context(), a.DB(), n)
	if err != nil {
		return nil, err
	}
	return reply("aggregate", aggregateView(r, g)), nil
}

// createAggregate answers without hosts and metadata, as it always has.
func (a api) createAggregate(r *httpapi.Request) (*httpapi.Reply, error) {
	in, err := decode[struct {
		Name string  `json:"name"`
		Zone *string `json:"availability_zone"`
	}](r, "aggregate")
	if err != nil {
		return nil, err
	}
	g := &compute.Aggregate{Name: in.Name, Metadata: map[string]string{}}
	if in.Zone != nil {
		g.Metadata[zoneKey] = *in.Zone
	}
	if err := a.DB().Write(r.Context(), func(tx *db.Tx) error { return a.Store.InsertAggregate(r.Context(), tx, g) }); err != nil {
		return nil, err
	}
	d := aggregateView(r, g)
	delete(d, "hosts")
	delete(d, "metadata")
	return reply("aggregate", d), nil
}

func (a api) updateAggregate(r *httpapi.Request) (*httpapi.Reply, error) {
	in, err := decode[struct {
		Name *string                  `json:"name"`
		Zone backend.Optional[string] `json:"availability_zone"`
	}](r, "aggregate")
	if err != nil {
		return nil, err
	}
	metadata := map[string]*string{}
	if in.Zone.Given {
		metadata[zoneKey] = in.Zone.Value
	}
	return a.changeAggregate(r, in.Name, metadata)
}

func (a api) setAggregateMetadata(r *httpapi.Request) (*httpapi.Reply, error) {
	in, err := decode[struct {
		Metadata map[string]*string `json:"metadata"`
	}](r, "set_metadata")
	if err != nil {
		return nil, err
	}
	return a.changeAggregate(r, nil, in.Metadata)
}

// changeAggregate writes name and metadata; a nil value removes the key.
func (a api) changeAggregate(r *httpapi.Request, name *string, metadata map[string]*string) (*httpapi.Reply, error) {
	n, err := number(r, "aggregate")
	if err != nil {
		return nil, err
	}
	var g *compute.Aggregate
	err = a.DB().Write(r.Context(), func(tx *db.Tx) error {
		if zone, ok := metadata[zoneKey]; ok {
			if err := a.mayChangeZone(r.Context(), tx, n, zone); err != nil {
				return err
			}
		}
		g, err = a.Store.UpdateAggregate(r.Context(), tx, n, func(g *compute.Aggregate) error {
			if name != nil {
				g.Name = *name
			}
			for k, v := range metadata {
				if v == nil {
					delete(g.Metadata, k)
				} else {
					g.Metadata[k] = *v
				}
			}
			return nil
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return reply("aggregate", aggregateView(r, g)), nil
}

// mayChangeZone refuses a zone that its hosts cannot take: one of them is in another zone already, or has servers.
func (a api) mayChangeZone(ctx context.Context, tx *db.Tx, n int64, zone *string) error {
	g, err := a.Store.Aggregate(ctx, tx, n)
	if err != nil {
		return err
	}
	if zone == nil || *zone == "" {
		return fault.New(fault.Invalid, "Aggregate %d cannot have an availability zone without a name.", n)
	}
	want := *zone
	if want == g.Metadata[zoneKey] || len(g.Hosts) == 0 {
		return nil
	}
	all, err := a.Store.Aggregates(ctx, tx)
	if err != nil {
		return err
	}
	for _, host := range g.Hosts {
		if other := zoneElsewhere(all, g.ID, host); other != "" && other != want {
			return fault.New(fault.Invalid, "Cannot update aggregate %d: host %s is in availability zone %s by another aggregate.", n, host, other)
		}
	}
	refs, err := a.Store.ServerRefs(ctx, tx, g.Hosts...)
	if err != nil {
		return err
	}
	if len(refs) > 0 {
		return fault.New(fault.Invalid, "Cannot update aggregate %d: the availability zone of hosts with instances cannot change, and %s has some.", n, refs[0].Host)
	}
	return nil
}

// zoneElsewhere is the zone that aggregates other than the named one give a host.
func zoneElsewhere(all []compute.Aggregate, except int64, host string) string {
	for _, g := range all {
		if g.ID != except && g.Metadata[zoneKey] != "" && slices.Contains(g.Hosts, host) {
			return g.Metadata[zoneKey]
		}
	}
	return ""
}

func (a api) deleteAggregate(r *httpapi.Request) (*httpapi.Reply, error) {
	n, err := number(r, "aggregate")
	if err != nil {
		return nil, err
	}
	return &httpapi.Reply{}, a.DB().Write(r.Context(), func(tx *db.Tx) error { return a.Store.DeleteAggregate(r.Context(), tx, n) })
}

func (a api) addAggregateHost(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.changeHosts(r, "add_host", func(ctx context.Context, tx *db.Tx, g *compute.Aggregate, host string) error {
		all, err := a.Store.Aggregates(ctx, tx)
		if err != nil {
			return err
		}
		if own, other := g.Metadata[zoneKey], zoneElsewhere(all, g.ID, host); own != "" && other != "" && own != other {
			return fault.New(fault.Conflict, "Cannot add host to aggregate %d: host %s is in availability zone %s already.", g.ID, host, other)
		}
		if err := a.mayMove(ctx, tx, all, g, host, true); err != nil {
			return err
		}
		return a.Store.AddAggregateHost(ctx, tx, g.ID, host)
	})
}

// mayMove refuses to change the zone of a host under servers that asked for another one, by taking it into an aggregate or out of it: joins
// tells which. Servers that asked for no zone are in that of their host, whichever it is.
func (a api) mayMove(ctx context.Context, tx *db.Tx, all []compute.Aggregate, g *compute.Aggregate, host string, joins bool) error {
	zone, other := g.Metadata[zoneKey], zoneElsewhere(all, g.ID, host)
	if zone == "" || zone == other {
		return nil
	}
	what, from, to := "added to", other, zone
	if !joins {
		what, from, to = "removed from", zone, other
	}
	servers, err := a.Store.ServersOnHost(ctx, tx, host)
	if err != nil {
		return err
	}
	for _, s := range servers {
		if s.PinnedZone != nil && *s.PinnedZone != to && (to != "" || *s.PinnedZone == from) {
			return fault.New(fault.Conflict, "Host %s cannot be %s aggregate %d: its availability zone would change from %q to %q, and instance %s asked for %q. Move it away first.",
				host, what, g.ID, from, to, s.ID, *s.PinnedZone)
		}
	}
	return nil
}

func (a api) removeAggregateHost(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.changeHosts(r, "remove_host", func(ctx context.Context, tx *db.Tx, g *compute.Aggregate, host string) error {
		if !slices.Contains(g.Hosts, host) {
			return fault.New(fault.NotFound, "Cannot remove host %s in aggregate %d", host, g.ID)
		}
		all, err := a.Store.Aggregates(ctx, tx)
		if err != nil {
			return err
		}
		if err := a.mayMove(ctx, tx, all, g, host, false); err != nil {
			return err
		}
		return a.Store.RemoveAggregateHost(ctx, tx, g.ID, host)
	})
}

// changeHosts adds or removes one host and tells placement which aggregates the host is in now.
func (a api) changeHosts(r *httpapi.Request, action string, change func(context.Context, *db.Tx, *compute.Aggregate, string) error) (*httpapi.Reply, error) {
	in, err := decode[struct {
		Host string `json:"host"`
	}](r, action)
	if err != nil {
		return nil, err
	}
	n, err := number(r, "aggregate")
	if err != nil {
		return nil, err
	}
	ctx := r.Context()
	var g *compute.Aggregate
	var host *compute.Host
	err = a.DB().Write(ctx, func(tx *db.Tx) error {
		if g, err = a.Store.Aggregate(ctx, tx, n); err != nil {
			return err
		}
		if host, err = a.Store.Host(ctx, tx, in.Host); err != nil {
			return err
		}
		if err := change(ctx, tx, g, in.Host); err != nil {
			return err
		}
		g, err = a.Store.Aggregate(ctx, tx, n)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := a.tellPlacement(ctx, host); err != nil {
		a.Log.Warn("placement could not be told of a host's aggregates; conductors tell it when it answers", "host", host.Name, "request_id", r.RequestID, "error", err)
	}
	return reply("aggregate", aggregateView(r, g)), nil
}

// tellPlacement writes the aggregates of a host to its resource provider at once. Aggregates that are not compute's stay. What fails here the reconcile loop
// "aggregates" does later.
func (a api) tellPlacement(ctx context.Context, host *compute.Host) error {
	if a.Placement == nil || host.NodeID == "" {
		return nil
	}
	all, err := a.Store.Aggregates(ctx, a.DB())
	if err != nil {
		return err
	}
	ps, err := a.Placement.Providers(ctx, host.NodeID)
	if err != nil || len(ps) == 0 {
		return err
	}
	ids := slices.DeleteFunc(slices.Clone(ps[0].Aggregates), func(id string) bool {
		return slices.ContainsFunc(all, func(g compute.Aggregate) bool { return g.UUID == id })
	})
	for _, g := range all {
		if slices.Contains(g.Hosts, host.Name) {
			ids = append(ids, g.UUID)
		}
	}
	return a.Placement.SetAggregates(ctx, host.NodeID, ids)
}

// cacheImages asks the hosts of an aggregate to fetch images ahead. It is a hint: what a host cannot do now it does when it needs the image.
func (a api) cacheImages(r *httpapi.Request) (*httpapi.Reply, error) {
	n, err := number(r, "aggregate")
	if err != nil {
		return nil, err
	}
	cache, err := decode[[]struct {
		ID string `json:"id"`
	}](r, "cache")
	if err != nil {
		return nil, err
	}
	var images []string
	for _, c := range cache {
		if slices.Contains(images, c.ID) {
			return nil, fault.New(fault.Invalid, "Duplicate images in request")
		}
		images = append(images, c.ID)
	}
	g, err := a.Store.Aggregate(r.Context(), a.DB(), n)
	if err != nil {
		return nil, err
	}
	go a.cacheOn(context.WithoutCancel(r.Context()), r.RequestID, *g, images)
	return &httpapi.Reply{}, nil
}

// cacheOn has all hosts fetch the images at the same time and tells of each that is through.
func (a api) cacheOn(ctx context.Context, request string, g compute.Aggregate, images []string) {
	ctx, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	a.told(ctx, store.CacheBegan, &g)
	through := make(chan store.Caching)
	for _, host := range g.Hosts {
		go func() {
			failed := a.cacheOnHost(ctx, request, host, images)
			cached := slices.DeleteFunc(slices.Clone(images), func(i string) bool { return slices.Contains(failed, i) })
			a.Log.Info("images were cached ahead", "host", host, "request_id", request, "cached", len(cached), "failed", failed)
			through <- store.Caching{Aggregate: g, Host: host, Cached: cached, Failed: failed}
		}()
	}
	for i := range g.Hosts {
		c := <-through
		c.Index, c.Total = i+1, len(g.Hosts)
		a.told(ctx, store.CacheHost, &c)
	}
	a.told(ctx, store.CacheEnded, &g)
}

// cacheOnHost has one host fetch images and gives those that it could not. What fails is tried again twice, with pauses.
func (a api) cacheOnHost(ctx context.Context, request, host string, images []string) (failed []string) {
	pause := a.CachePause
	for try := 1; ; try++ {
		var out command.CacheImagesResult
		err := a.Agents.Do(ctx, host, command.Command{Verb: command.CacheImages, RequestID: request}, command.CacheImagesArgs{ImageIDs: images}, &out)
		if failed = out.Failed; err != nil {
			failed = images
		}
		if len(failed) == 0 {
			return nil
		}
		a.Log.Warn("images could not be cached ahead", "host", host, "request_id", request, "images", failed, "try", try, "error", err)
		if try == 3 {
			return failed
		}
		images = failed
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return failed
		}
		pause *= 6
	}
}

// told writes a notification of what no transaction did.
func (a api) told(ctx context.Context, what store.What, now any) {
	if err := a.Store.Told(ctx, what, now); err != nil {
		a.Log.Warn("a notification could not be written", "of", what, "error", err)
	}
}
