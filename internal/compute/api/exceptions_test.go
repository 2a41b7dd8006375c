package api_test

// sampleExceptions are the published bodies that have no match here, each with what it is of ("request", "answer" or "both") and the reason. A
// key is the name of a sample, or that of a route when none of its samples of that kind has a match. An exception that is not needed fails
// the test. Samples of routes that are gone need none: the tests see that those routes answer 410.
var sampleExceptions = map[string]string{
	"servers/v2.69/servers-list-resp.json":          "answer: a cell is down; here are no cells, so no server is known by half",
	"servers/v2.69/servers-details-resp.json":       "answer: a cell is down",
	"servers/v2.69/server-get-resp.json":            "answer: a cell is down",
	"servers/v2.71/server-get-down-cell-resp.json":  "answer: a cell is down",
	"os-services/v2.69/services-list-get-resp.json": "answer: a cell is down",

	"servers/v2.90/server-create-req.json":                "request: it has personality, which ended with 2.56, and no networks, which 2.37 demands",
	"servers/v2.94/server-create-req.json":                "request: it has personality, which ended with 2.56, and no networks, which 2.37 demands",
	"os-server-external-events/event-create-req.json":     "request: it has an event name that never existed",
	"os-keypairs/v2.92/keypairs-post-req.json":            "request: it has no public_key, which 2.92 demands",
	"os-remote-consoles/v2.6/create-rdp-console-req.json": "request: no driver here has RDP consoles",

	"GET /os-baremetal-nodes":      "answer: there is no bare metal service",
	"GET /os-baremetal-nodes/{id}": "answer: there is no bare metal service",
	"GET /os-hosts/{id}/reboot":    "answer: no driver switches whole hosts",
	"GET /os-hosts/{id}/shutdown":  "answer: no driver switches whole hosts",
	"GET /os-hosts/{id}/startup":   "answer: no driver switches whole hosts",

	"GET /os-volumes":                                     "answer: there is no volume service",
	"GET /os-volumes/detail":                              "answer: there is no volume service",
	"GET /os-volumes/{id}":                                "answer: there is no volume service",
	"POST /os-volumes":                                    "both: there is no volume service",
	"GET /os-snapshots":                                   "answer: there is no volume service",
	"GET /os-snapshots/detail":                            "answer: there is no volume service",
	"GET /os-snapshots/{id}":                              "answer: there is no volume service",
	"POST /os-snapshots":                                  "both: there is no volume service",
	"POST /os-assisted-volume-snapshots":                  "both: there is no volume service",
	"POST /servers/{server_id}/os-volume_attachments":     "both: there is no volume service",
	"PUT /servers/{server_id}/os-volume_attachments/{id}": "request: there is no volume service",
	"servers/v2.32/server-create-req.json":                "request: its server boots from a volume",
	"servers/v2.42/server-create-req.json":                "request: its server boots from a volume",
	"servers/v2.67/server-create-req.json":                "request: its server boots from a volume",

	"GET /servers/{server_id}/shares":      "answer: there is no shared file system service",
	"GET /servers/{server_id}/shares/{id}": "answer: there is no shared file system service",
	"POST /servers/{server_id}/shares":     "both: there is no shared file system service",
}
