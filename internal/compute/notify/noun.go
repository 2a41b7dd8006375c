package notify

import (
	"encoding/json"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/compute/store"
	"kilonova/internal/fault"
)

// noun is one event of the table of changes that are no operation.
type noun struct {
	event string
	from  func(n *Notifier, c store.Change) string
	body  func(c store.Change) object
	when  func(c store.Change) bool
}

func apiOf(n *Notifier, _ store.Change) string { return "nova-api:" + n.cfg.Host }

func serviceItself(_ *Notifier, c store.Change) string {
	h := subject[compute.Host](c)
	return h.Binary + ":" + h.Name
}

// subject is the noun of a change: as it is now or, when it was removed, as it was.
func subject[T any](c store.Change) *T {
	if v, ok := c.Now.(*T); ok && v != nil {
		return v
	}
	v, _ := c.Before.(*T)
	return v
}

// former is the noun as it was or, when it was made, as it is now.
func former[T any](c store.Change) *T {
	if v, ok := c.Before.(*T); ok && v != nil {
		return v
	}
	return subject[T](c)
}

// nouns is the table of what changes of the other nouns tell. Both events of a pair are written by the transaction that makes the change: the first with the noun
// as it was.
func nouns() map[store.What][]noun {
	pair := func(event string, before, after func(store.Change) object, when func(store.Change) bool) []noun {
		return []noun{{event + ".start", apiOf, before, when}, {event + ".end", apiOf, after, when}}
	}
	aggregates := func(event string) []noun { return pair(event, formerAggregate, newAggregate, nil) }
	flavors := func(event string) []noun {
		return []noun{{event, apiOf, func(c store.Change) object { return flavor(subject[compute.Flavor](c), orNone(c.Projects)) }, nil}}
	}
	groups := func(event string) []noun {
		return []noun{{event, apiOf, func(c store.Change) object { return group(subject[compute.ServerGroup](c)) }, nil}}
	}
	services := func(event string) []noun {
		return []noun{{event, serviceItself, func(c store.Change) object { return service(subject[compute.Host](c)) }, nil}}
	}
	cached := func(event string) []noun {
		return []noun{{event, apiOf, newAggregate, nil}}
	}
	return map[store.What][]noun{
		store.AggregateCreated: pair("aggregate.create", unbornAggregate, newAggregate, nil), store.AggregateDeleted: aggregates("aggregate.delete"),
		store.AggregateRenamed: aggregates("aggregate.update_prop"), store.AggregateMetadata: aggregates("aggregate.update_metadata"),
		store.AggregateHostIn: aggregates("aggregate.add_host"), store.AggregateHostOut: aggregates("aggregate.remove_host"),
		store.CacheBegan: cached("aggregate.cache_images.start"), store.CacheEnded: cached("aggregate.cache_images.end"),
		store.CacheHost:     {{"aggregate.cache_images.progress", func(n *Notifier, _ store.Change) string { return "nova-conductor:" + n.cfg.Host }, progress, nil}},
		store.FlavorCreated: flavors("flavor.create"), store.FlavorChanged: flavors("flavor.update"), store.FlavorDeleted: flavors("flavor.delete"),
		store.KeyPairCreated: append(pair("keypair.create", emptyKey, wholeKey, generated), pair("keypair.import", unreadKey, wholeKey, imported)...),
		store.KeyPairDeleted: pair("keypair.delete", wholeKey, wholeKey, nil),
		store.GroupCreated:   groups("server_group.create"), store.GroupDeleted: groups("server_group.delete"), store.GroupMember: groups("server_group.add_member"),
		store.LibvirtLost:    {{"libvirt.connect.error", troubled, trouble, nil}},
		store.HostReported:   {{"metrics.update", serviceItself, metrics, measured}},
		store.ServiceCreated: services("service.create"), store.ServiceChanged: services("service.update"), store.ServiceDeleted: services("service.delete"),
	}
}

func troubled(_ *Notifier, c store.Change) string {
	return "nova-compute:" + subject[store.Trouble](c).Host
}

func trouble(c store.Change) object {
	t := subject[store.Trouble](c)
	why := fault.Wrap(errors.New(t.Cause), fault.Unavailable, "The libvirt of host %s does not answer its agent.", t.Host).WithCode("libvirt-error")
	return made("LibvirtErrorPayload", map[string]any{"ip": t.IP, "reason": exception(why, "info")})
}

// report is what of a host's description is told of.
type report struct {
	Hostname string             `json:"hostname"`
	IP       string             `json:"host_ip"`
	Metrics  map[string]float64 `json:"metrics"`
}

func reported(c store.Change) (h *compute.Host, r report) {
	h = subject[compute.Host](c)
	if json.Unmarshal(h.Info, &r) != nil { // services that are no compute hosts describe nothing
		return h, report{}
	}
	return h, r
}

func measured(c store.Change) bool {
	_, r := reported(c)
	return len(r.Metrics) > 0
}

// metrics makes the MetricsPayload. Shares, which are parts of one here, are whole percents there.
func metrics(c store.Change) object {
	h, r := reported(c)
	list := []object{}
	for _, name := range slices.Sorted(maps.Keys(r.Metrics)) {
		v := r.Metrics[name]
		if strings.HasSuffix(name, ".percent") {
			v *= 100
		}
		list = append(list, made("MetricPayload", map[string]any{"name": name, "value": int64(math.Round(v)), "numa_membw_values": nil, "timestamp": stamp(h.LastSeen),
			"source": "kilonova"}))
	}
	return made("MetricsPayload", map[string]any{"host": h.Name, "host_ip": r.IP, "nodename": r.Hostname, "metrics": list})
}

func newAggregate(c store.Change) object    { return aggregate(subject[compute.Aggregate](c)) }
func formerAggregate(c store.Change) object { return aggregate(former[compute.Aggregate](c)) }

// unbornAggregate is an aggregate before it has a number.
func unbornAggregate(c store.Change) object {
	o := newAggregate(c)
	o.Data["id"], o.Data["hosts"] = nil, nil
	return o
}

func progress(c store.Change) object {
	p := subject[store.Caching](c)
	return made("AggregateCachePayload", map[string]any{"id": p.Aggregate.ID, "uuid": p.Aggregate.UUID, "name": p.Aggregate.Name, "host": p.Host, "images_cached": orNone(p.Cached),
		"images_failed": orNone(p.Failed), "index": p.Index, "total": p.Total})
}

func generated(c store.Change) bool { return subject[compute.KeyPair](c).Generated }
func imported(c store.Change) bool  { return !generated(c) }

func wholeKey(c store.Change) object { return keypair(subject[compute.KeyPair](c)) }

// emptyKey is a key pair before its key was made.
func emptyKey(c store.Change) object {
	k := *subject[compute.KeyPair](c)
	k.Fingerprint, k.PublicKey = "", ""
	return keypair(&k)
}

// unreadKey is a given key before its fingerprint was taken.
func unreadKey(c store.Change) object {
	k := *subject[compute.KeyPair](c)
	k.Fingerprint = ""
	return keypair(&k)
}
