package api_test

import (
	"fmt"
	"strings"
	"testing"

	"kilonova/internal/compute/api"
	"kilonova/internal/compute/api/apitest"
	"kilonova/internal/id"
)

// TestForeignServersCannotBeToldFromMissingOnes asks every route about a server twice as a member of another project: with the id of a
// server that exists, and with one that does not. Status and sentence must be the same, or the tenant learns which ids exist.
func TestForeignServersCannotBeToldFromMissingOnes(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	asked := map[int]int{}
	for _, key := range api.Keys() {
		f := strings.Fields(key)
		method, path := f[0], f[1]
		if !strings.HasPrefix(path, "/servers/{") {
			continue
		}
		variable := "{server_id}"
		if strings.HasPrefix(path, "/servers/{id}") {
			variable = "{id}"
		}
		minor := api.SinceOf(key)
		body := api.BodyFor(t, key, minor)
		sub := map[string]string{"metadata": "a", "tags": "t", "ips": "private", "os-interface": c.port, "migrations": fmt.Sprint(c.number), "os-instance-actions": c.request}
		ask := func(server string) (int, string) {
			p := strings.Replace(path, variable, server, 1)
			for collection, value := range sub {
				p = strings.Replace(p, "/"+collection+"/{id}", "/"+collection+"/"+value, 1)
			}
			p = strings.ReplaceAll(p, "{id}", "5f3c6b5e-0d5c-4d6a-9a56-0b9b1f6f2f10")
			r := apitest.Call(c.h, "member@other", method, "/v2.1"+p, body, minor)
			return r.Code, strings.ReplaceAll(r.Body.String(), server, "ID")
		}
		code, text := ask(c.server)
		none, absent := ask(id.UUID())
		if code != none || text != absent {
			t.Errorf("%s at 2.%d: a foreign server answers %d %s, a missing one %d %s", key, minor, code, text, none, absent)
		}
		if code < 400 {
			t.Errorf("%s at 2.%d: a foreign server answers %d", key, minor, code)
		}
		asked[code]++
	}
	t.Logf("answers by status: %v", asked)
	if asked[404] < 50 {
		t.Errorf("only %d routes came as far as to look for the server", asked[404])
	}
}
