package api

import (
	"kilonova/internal/clock"
	"kilonova/internal/network"
)

// standard adds what every resource shows.
func standard(d doc, project string, s *network.Standard) doc {
	tags := s.Tags
	if tags == nil {
		tags = []string{}
	}
	d["project_id"], d["tenant_id"] = project, project
	d["description"], d["tags"], d["revision_number"] = s.Description, tags, s.Revision
	d["created_at"], d["updated_at"] = s.Created.Format(clock.LayoutZ), s.Updated.Format(clock.LayoutZ)
	return d
}

// orNull is a text that is null when it is empty.
func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func numOrNull(n *int) any {
	if n == nil {
		return nil
	}
	return *n
}

// list is a list that is never null.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

// The attributes that almost every resource has.

func nameAttr() attr        { return attr{name: "name", when: both, kind: text(255), def: ""} }
func descriptionAttr() attr { return attr{name: "description", when: both, kind: text(255), def: ""} }
func adminStateAttr() attr {
	return attr{name: "admin_state_up", when: both, kind: boolean, def: true}
}
func projectAttr() attr { return attr{name: "project_id", when: post, kind: text(255)} }
func hintsAttr() attr {
	return attr{name: "availability_zone_hints", when: post, kind: texts(filled(255))}
}
