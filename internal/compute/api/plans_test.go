package api_test

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"kilonova/internal/compute/api"
	"kilonova/internal/compute/api/apitest"
)

// small are the tables that stay small, or are read whole on purpose: their scans are allowed.
var small = map[string]string{
	"compute_services":        "one row for each host and service",
	"compute_aggregates":      "made by operators",
	"compute_aggregate_hosts": "made by operators",
	"compute_flavors":         "made by operators",
}

// whole are the statements that read a whole table because that is what they are for.
var whole = map[string]string{
	"SELECT doc FROM network_networks":     "an administrator lists the networks of everybody",
	"SELECT doc FROM network_groups":       "an administrator lists the security groups of everybody",
	"SELECT staged, doc FROM image_images": "at start, to find data that no image has",
}

var scanned = regexp.MustCompile(`^SCAN (\w+)$`)

// TestEveryQueryUsesAnIndex asks every route that reads, and many that write, and then looks at the plan of every statement that was prepared on the way, of compute and of the
// services that it asks: a table that grows with the cloud is never read whole.
func TestEveryQueryUsesAnIndex(t *testing.T) {
	c := newCloud(t)
	c.prepare(t)
	for _, key := range api.Keys() {
		f := api.FactsOf(t, key)
		for _, minor := range f.Borders {
			a := asked{c, t, minor, "admin"}
			method, path, body, ok := a.request(key)
			if !ok {
				t.Fatalf("%s at 2.%d: nothing tells how to ask it", key, minor)
			}
			apitest.Call(c.h, "admin", method, "/v2.1"+path, body, minor)
		}
	}
	// Every parameter of every list, for a project and for all.
	asks := 0
	for _, key := range api.Keys() {
		if !strings.HasPrefix(key, "GET ") {
			continue
		}
		borders := api.FactsOf(t, key).Borders
		for _, minor := range slices.Compact([]int{borders[0], borders[len(borders)-1]}) {
			a := asked{c, t, minor, "admin"}
			_, path, _, _ := a.request(key)
			for _, name := range api.QueryNames(t, key, minor) {
				for _, value := range []string{"1", "2026-01-02T03:04:05Z", c.server, "active", "name"} {
					for _, more := range []url.Values{{}, {"all_tenants": {"1"}}, {"limit": {"2"}}, {"all_tenants": {"1"}, "deleted": {"True"}}} {
						q := url.Values{name: {value}}
						for k, v := range more {
							q[k] = v
						}
						for _, token := range []string{"admin", "member"} {
							if r := apitest.Call(c.h, token, "GET", "/v2.1"+path+"?"+q.Encode(), "", minor); r.Code == 200 {
								asks++
							}
						}
					}
				}
			}
		}
	}
	t.Logf("%d lists with parameters", asks)
	if asks < 3000 {
		t.Errorf("only %d lists with parameters", asks)
	}
	for _, q := range []string{"?all_tenants=1", "?all_tenants=1&name=x", "?status=ACTIVE", "?all_tenants=1&host=h", "?changes-since=2020-01-01T00:00:00Z", "?all_tenants=1&changes-since=2020-01-01T00:00:00Z", "?tags=a,b",
		"?all_tenants=1&not-tags=a", "?all_tenants=1&sort_key=display_name", "?ip=10.", "?all_tenants=1&deleted=true", "?locked=true", "?all_tenants=1&limit=1&marker=" + c.server} {
		if r := apitest.Call(c.h, "admin", "GET", "/v2.1/servers/detail"+q, "", 90); r.Code != 200 {
			t.Errorf("%s: %d %s", q, r.Code, r.Body)
		}
	}
	d := c.store.DB
	statements, err := d.Prepared(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	looked := 0
	for _, s := range statements {
		switch verb, _, _ := strings.Cut(s, " "); verb {
		case "SELECT", "UPDATE", "DELETE":
		default:
			continue
		}
		looked++
		args := make([]any, strings.Count(s, "?"))
		rows, err := d.Query(t.Context(), "EXPLAIN QUERY PLAN "+s, args...)
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		aliases := aliasesOf(s)
		for rows.Next() {
			var id, parent, unused int
			var line string
			if err := rows.Scan(&id, &parent, &unused, &line); err != nil {
				t.Fatal(err)
			}
			if m := scanned.FindStringSubmatch(line); m != nil {
				table := m[1]
				if of := aliases[table]; of != "" {
					table = of
				}
				if strings.Contains(s, "FROM "+table+" ORDER BY number LIMIT ?") || strings.Contains(s, "OFFSET ?) "+table+" ") {
					continue // a page in the order of the key, or what was made of it
				}
				if small[table] == "" && whole[s] == "" {
					t.Errorf("%s reads the whole table %s", s, table)
				}
			}
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("the plans of %d statements", looked)
	if looked < 150 {
		t.Errorf("only %d statements were looked at", looked)
	}
}

var named = regexp.MustCompile(`(?:FROM|JOIN) (\w+) (\w+)`)

// aliasesOf gives the tables by the names that a statement gives them.
func aliasesOf(s string) map[string]string {
	out := map[string]string{}
	for _, m := range named.FindAllStringSubmatch(s, -1) {
		out[m[2]] = m[1]
	}
	return out
}
