package api_test

import (
	"fmt"
	"strings"
	"testing"

	"kilonova/internal/compute/api/apitest"
	"kilonova/internal/id"
)

const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBtQZuvL9JHB0CaQ8Q7lIfXPZ5RKvMG4Nn4y4q1YlGqk x"

// write is a changing request whose answer has a body.
type write struct {
	key  string
	path func(c *cloudOf, minor int) string
	body func(c *cloudOf, minor int) string
}

// fixed is a path or body that does not depend on the version.
func fixed(s string) func(*cloudOf, int) string { return func(*cloudOf, int) string { return s } }

func ofServer(suffix string) func(*cloudOf, int) string {
	return func(c *cloudOf, _ int) string { return "/servers/" + c.server + suffix }
}

func ofFlavor(suffix string) func(*cloudOf, int) string {
	return func(c *cloudOf, _ int) string { return "/flavors/" + c.flavor + suffix }
}

// by chooses by version: the first whose last minor is not below the version.
func by(minor int, choices map[int]string) string {
	for last := minor; last <= 104; last++ {
		if s, ok := choices[last]; ok {
			return s
		}
	}
	return ""
}

func writes() []write {
	named := func(format string) func(*cloudOf, int) string {
		return func(*cloudOf, int) string { return fmt.Sprintf(format, id.Hex()) }
	}
	return []write{
		{"POST /flavors", fixed("/flavors"), named(`{"flavor":{"name":%q,"ram":64,"vcpus":1,"disk":1}}`)},
		{"PUT /flavors/{id}", ofFlavor(""), fixed(`{"flavor":{"description":"d"}}`)},
		{"POST /flavors/{flavor_id}/os-extra_specs", ofFlavor("/os-extra_specs"), fixed(`{"extra_specs":{"hw:mem_page_size":"any"}}`)},
		{"PUT /flavors/{flavor_id}/os-extra_specs/{id}", ofFlavor("/os-extra_specs/hw:mem_page_size"), fixed(`{"hw:mem_page_size":"large"}`)},
		{"POST /os-keypairs", fixed("/os-keypairs"), named(`{"keypair":{"name":%q,"public_key":"` + publicKey + `"}}`)},
		{"POST /os-server-groups", fixed("/os-server-groups"), func(_ *cloudOf, minor int) string {
			return by(minor, map[int]string{63: `{"server_group":{"name":"x","policies":["affinity"]}}`, 104: `{"server_group":{"name":"x","policy":"affinity"}}`})
		}},
		{"POST /os-aggregates", fixed("/os-aggregates"), named(`{"aggregate":{"name":%q}}`)},
		{"PUT /os-aggregates/{id}", fixed("/os-aggregates/1"), named(`{"aggregate":{"name":%q}}`)},
		{"POST /os-aggregates/{id}/action set_metadata", fixed("/os-aggregates/1/action"), fixed(`{"set_metadata":{"metadata":{"a":"b"}}}`)},
		{"PUT /os-quota-sets/{id}", fixed("/os-quota-sets/" + apitest.Project), fixed(`{"quota_set":{"cores":-1,"server_groups":-1,"key_pairs":-1}}`)},
		{"PUT /os-quota-class-sets/{id}", fixed("/os-quota-class-sets/default"), fixed(`{"quota_class_set":{"cores":-1,"server_groups":-1,"key_pairs":-1}}`)},
		{"PUT /os-services/{id}", func(c *cloudOf, minor int) string {
			return "/os-services/" + by(minor, map[int]string{52: "enable", 104: c.host})
		},
			func(_ *cloudOf, minor int) string {
				return by(minor, map[int]string{52: `{"host":"c1","binary":"nova-compute"}`, 104: `{"status":"enabled"}`})
			}},
		{"PUT /servers/{id}", ofServer(""), named(`{"server":{"name":%q}}`)},
		{"POST /servers/{server_id}/metadata", ofServer("/metadata"), fixed(`{"metadata":{"c":"d"}}`)},
		{"PUT /servers/{server_id}/metadata", ofServer("/metadata"), fixed(`{"metadata":{"e":"f"}}`)},
		{"PUT /servers/{server_id}/metadata/{id}", ofServer("/metadata/e"), fixed(`{"meta":{"e":"g"}}`)},
		{"PUT /servers/{server_id}/tags", ofServer("/tags"), fixed(`{"tags":["a","b"]}`)},
		{"POST /servers/{id}/action lock", ofServer("/action"), fixed(`{"lock":null}`)},
		{"POST /servers/{id}/action unlock", ofServer("/action"), fixed(`{"unlock":null}`)},
		{"POST /servers/{id}/action os-getConsoleOutput", ofServer("/action"), fixed(`{"os-getConsoleOutput":{}}`)},
		{"POST /os-server-external-events", fixed("/os-server-external-events"), func(c *cloudOf, _ int) string {
			return fmt.Sprintf(`{"events":[{"name":"network-changed","server_uuid":%q}]}`, c.server)
		}},
		{"POST /servers", fixed("/servers"), func(c *cloudOf, minor int) string {
			networks := by(minor, map[int]string{36: "", 104: `,"networks":"none"`})
			return fmt.Sprintf(`{"server":{"name":"n","imageRef":%q,"flavorRef":%q%s}}`, c.image, c.flavor, networks)
		}},
	}
}

// TestAnswersOfWrites compares the answers of changing requests with the description at each version.
func TestAnswersOfWrites(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	for path, body := range map[string]string{"/os-aggregates": `{"aggregate":{"name":"first"}}`,
		"/flavors/" + c.flavor + "/os-extra_specs": `{"extra_specs":{"hw:mem_page_size":"small"}}`} {
		if r := apitest.Call(c.h, "admin", "POST", "/v2.1"+path, body, 1); r.Code != 200 {
			t.Fatal(r.Code, r.Body)
		}
	}
	if r := apitest.Call(c.h, "admin", "PUT", "/v2.1/os-quota-sets/"+apitest.Project, `{"quota_set":{"instances":-1,"cores":-1,"ram":-1,"server_groups":-1,"key_pairs":-1,"metadata_items":-1}}`, 1); r.Code != 200 {
		t.Fatal(r.Code, r.Body)
	}
	var answers apitest.Answers
	seen := 0
	for _, w := range writes() {
		method := strings.Fields(w.key)[0]
		for minor := 1; minor <= 104; minor++ {
			r := apitest.Call(c.h, "admin", method, "/v2.1"+w.path(c, minor), w.body(c, minor), minor)
			if r.Code == 404 && strings.Contains(r.Body.String(), `"The resource could not be found."`) {
				continue // not in this version
			}
			if r.Code >= 300 {
				t.Errorf("%s at 2.%d: %d %s", w.key, minor, r.Code, r.Body)
				break
			}
			seen++
			if r.Body.Len() == 0 {
				continue
			}
			if err := answers.Judge(w.key, minor, r.Body.Bytes()); err != nil {
				t.Errorf("%s at 2.%d: %v in %.1200s", w.key, minor, err, r.Body)
				break
			}
		}
	}
	t.Logf("%d answers", seen)
	if seen < 1800 {
		t.Errorf("only %d answers were seen", seen)
	}
}
