package api

import (
	"kilonova/internal/clock"
	"kilonova/internal/network"
	"kilonova/internal/network/local"
)

// parts are the segments: the parts of networks that hosts are joined to; only administrators see them.
func parts(a *API) *resource {
	return &resource{api: a, name: "segment", plural: "segments", path: "segments", kind: "Segment",
		attrs: []attr{
			{name: "network_id", when: required, kind: uuid},
			{name: "network_type", when: required, kind: filled(32)},
			{name: "physical_network", when: post, kind: null(text(64))},
			{name: "segmentation_id", when: post, kind: null(number(0, 1<<24))},
			{name: "name", when: both, kind: null(text(255))},
			{name: "description", when: both, kind: null(text(255))},
			{name: "project_id", when: post, kind: text(255)}},
		list: a.segmentDocs,
		create: func(_ *call, c *local.Change, in input) (string, error) {
			s := &network.Segment{NetworkID: in.str("network_id"), Type: in.str("network_type"), Physical: in.str("physical_network"), SegmentationID: in.num("segmentation_id"),
				Name: in.str("name"), Standard: network.Standard{Description: in.str("description")}}
			err := c.CreateSegment(s)
			return s.ID, err
		},
		update: func(_ *call, c *local.Change, id string, in input) error {
			return c.UpdateSegment(id, func(s *network.Segment) {
				in.set("name", &s.Name)
				in.set("description", &s.Description)
			})
		},
		remove: func(_ *call, c *local.Change, id string) error { return c.DeleteSegment(id) }}
}

// segmentDocs lists all segments; whoever asks for some takes them from these.
func (a *API) segmentDocs(q *call, _ local.Filter) ([]doc, error) {
	if !q.Allowed("get_segment", q.Own()) { // for others there are none
		return nil, nil
	}
	all, err := a.svc.Segments(q.Context(), local.Filter{})
	if err != nil {
		return nil, err
	}
	docs := make([]doc, len(all))
	for i := range all {
		docs[i] = segmentDoc(&all[i])
	}
	return docs, nil
}

func segmentDoc(s *network.Segment) doc {
	return doc{"id": s.ID, "network_id": s.NetworkID, "network_type": s.Type, "physical_network": orNull(s.Physical), "segmentation_id": numOrNull(s.SegmentationID),
		"name": orNull(s.Name), "description": s.Description, "revision_number": s.Revision,
		"created_at": s.Created.Format(clock.LayoutZ), "updated_at": s.Updated.Format(clock.LayoutZ)}
}

// partList takes the segments of a new network (extension multi-provider).
func partList(v any) (any, string) {
	fields := map[string]kind{"provider:network_type": filled(32), "provider:physical_network": null(text(64)), "provider:segmentation_id": null(number(0, 1<<24))}
	return records(fields, []string{"provider:network_type"}, func(in input) network.Segment {
		return network.Segment{Type: in.str("provider:network_type"), Physical: in.str("provider:physical_network"), SegmentationID: in.num("provider:segmentation_id")}
	})(v)
}

// setSegments gives a new network its segments, and to a network of one segment the provider attributes alone.
func setSegments(n *network.Network, in input) error {
	list, _ := in["segments"].([]network.Segment)
	if len(list) == 0 {
		return nil
	}
	if in.str("provider:network_type")+in.str("provider:physical_network") != "" || in.num("provider:segmentation_id") != nil {
		return badRequest("Segments and provider values cannot both be set.")
	}
	n.ProviderType, n.ProviderPhysical, n.SegmentationID = list[0].Type, list[0].Physical, list[0].SegmentationID
	if len(list) > 1 {
		n.Segments = list
	}
	return nil
}

// sameProvider refuses other provider attributes for a network whose segments have records: these are changed one by one.
func sameProvider(n *network.Network, in input) error {
	for _, name := range []string{"provider:network_type", "provider:physical_network", "provider:segmentation_id"} {
		if n.Segmented && in.has(name) {
			return badRequest("The provider attributes of network %s cannot be changed: change its segments instead.", n.ID)
		}
	}
	return nil
}

// showSegments puts into a network's document what is so of its segments: several stand in the place of the provider attributes.
func showSegments(d doc, n *network.Network) {
	adjacent := true
	for i := range n.Subnets {
		adjacent = adjacent && n.Subnets[i].SegmentID == ""
	}
	d["l2_adjacency"] = adjacent
	if len(n.Segments) < 2 {
		return
	}
	var parts []doc
	for _, s := range n.Segments {
		parts = append(parts, doc{"provider:network_type": s.Type, "provider:physical_network": orNull(s.Physical), "provider:segmentation_id": numOrNull(s.SegmentationID)})
	}
	for _, name := range []string{"provider:network_type", "provider:physical_network", "provider:segmentation_id"} {
		delete(d, name)
	}
	d["segments"] = parts
}
