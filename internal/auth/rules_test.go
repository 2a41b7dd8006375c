package auth_test

import (
	"testing"

	"kilonova/internal/auth"
)

func TestAccessRules(t *testing.T) {
	for _, c := range []struct {
		rule, path string
		want       bool
	}{
		{"/v2.1/servers", "/v2.1/servers", true},
		{"/v2.1/servers", "/v2.1/servers/x", false},
		{"/v2.1/servers", "/v2x1/servers", false},
		{"/v2.1/servers", "/compute/v2.1/servers", false},
		{"/v2.1/servers/*", "/v2.1/servers/x", true},
		{"/v2.1/servers/*", "/v2.1/servers/x/action", false},
		{"/v2.1/servers/*", "/v2.1/servers/", false},
		{"/v2.1/servers/{server_id}/action", "/v2.1/servers/x/action", true},
		{"/v2.1/servers/{server_id}/action", "/v2.1/servers/x/y/action", false},
		{"/v2.1/servers/**", "/v2.1/servers/x/os-interface/y", true},
		{"/v2.1/servers/**", "/v2.1/servers/../flavors", false},
		{"/v2.1/servers/**", "/v2.1/servers/x//y", false},
		{"**", "/anything/at/all", true},
		{"/a/***", "/a/b/c", true},
		{"/a/{open", "/a/{open", true},
		{"/a/{open", "/a/b", false},
		{"", "/", false},
	} {
		caller := auth.Caller{AccessRules: []auth.AccessRule{{Service: "compute", Method: "GET", Path: c.rule}}}
		if got := caller.May("compute", "GET", c.path); got != c.want {
			t.Errorf("%q lets %q through: %t, want %t", c.rule, c.path, got, c.want)
		}
		if caller.May("compute", "POST", c.path) || caller.May("image", "GET", c.path) {
			t.Errorf("%q holds for another method or service", c.rule)
		}
	}
	if free := (&auth.Caller{}); !free.May("compute", "DELETE", "/v2.1/servers/x") {
		t.Error("a caller without rules is held back")
	}
	if bound := (&auth.Caller{AccessRules: []auth.AccessRule{}}); bound.May("compute", "GET", "/v2.1/servers") {
		t.Error("a caller with no rule at all may do something")
	}
	prefixed := auth.Caller{AccessRules: []auth.AccessRule{{Service: "compute", Method: "GET", Path: "/v2.1/servers"}}}
	if !prefixed.May("compute", "GET", "/compute/v2.1/servers", "/v2.1/servers") {
		t.Error("the path without the prefix does not count")
	}
}
