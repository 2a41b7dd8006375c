package api

import (
	"net/http"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

// versionDocument is one version of the API as clients discover it.
type versionDocument struct {
	ID         string      `json:"id"`
	Status     string      `json:"status"`
	Version    string      `json:"version"`
	MinVersion string      `json:"min_version"`
	Updated    string      `json:"updated"`
	Links      []link      `json:"links"`
	MediaTypes []mediaType `json:"media-types,omitempty"`
}

type link struct {
	Rel  string `json:"rel"`
	Type string `json:"type,omitempty"`
	Href string `json:"href"`
}

type mediaType struct {
	Base string `json:"base"`
	Type string `json:"type"`
}

// current is v2.1; root is the service's root URL.
func current(root string) versionDocument {
	return versionDocument{ID: "v2.1", Status: "CURRENT", Version: Newest().String(), MinVersion: httpapi.V(1).String(),
		Updated: "2013-07-23T11:33:21Z", Links: []link{{Rel: "self", Href: root + versionRoot + "/"}}}
}

// legacy is v2.0: no microversions.
func legacy(root string) versionDocument {
	return versionDocument{ID: "v2.0", Status: "DEPRECATED", Updated: "2011-01-21T11:33:21Z",
		Links: []link{{Rel: "self", Href: root + legacyRoot + "/"}}}
}

// whole is the document of a version shown by itself.
func whole(v versionDocument, media string) *httpapi.Reply {
	v.Links = append(v.Links, link{Rel: "describedby", Type: "text/html", Href: "http://docs.openstack.org/"})
	v.MediaTypes = []mediaType{{Base: "application/json", Type: "application/vnd.openstack.compute+json;version=" + media}}
	return httpapi.OK(map[string]any{"version": v})
}

func listVersions(r *httpapi.Request) (*httpapi.Reply, error) {
	return httpapi.OK(map[string]any{"versions": []versionDocument{legacy(r.Base), current(r.Base)}}), nil
}

func showVersion(r *httpapi.Request) (*httpapi.Reply, error) {
	if r.Legacy {
		return whole(legacy(r.Base), "2"), nil
	}
	return whole(current(r.Base), "2.1"), nil
}

func showLegacyVersion(r *httpapi.Request) (*httpapi.Reply, error) {
	return whole(legacy(r.Base), "2"), nil
}

func showNamedVersion(r *httpapi.Request) (*httpapi.Reply, error) {
	switch r.Path("id") {
	case "v2.1":
		return whole(current(r.Base), "2.1"), nil
	case "v2.0":
		return whole(legacy(r.Base), "2"), nil
	}
	return nil, fault.New(fault.NotFound, "There is no version %s.", r.Path("id"))
}

// choice is one entry of the 300 document.
type choice struct {
	ID         string      `json:"id"`
	Status     string      `json:"status"`
	Links      []link      `json:"links"`
	MediaTypes []mediaType `json:"media-types"`
}

// multipleChoices answers a GET outside every version.
func multipleChoices(r *httpapi.Request) (*httpapi.Reply, error) {
	if r.HTTP.Method != http.MethodGet || r.Root != "" {
		return nil, nil //nolint:nilnil // the contract of httpapi.Service.Fallback: the usual 404
	}
	path := r.HTTP.URL.Path
	of := func(id, status, root, media string) choice {
		return choice{ID: id, Status: status, Links: []link{{Rel: "self", Href: r.Base + root + path}},
			MediaTypes: []mediaType{{Base: "application/json", Type: "application/vnd.openstack.compute+json;version=" + media}}}
	}
	return &httpapi.Reply{Status: http.StatusMultipleChoices, Body: map[string]any{"choices": []choice{
		of("v2.0", "SUPPORTED", legacyRoot, "2"), of("v2.1", "CURRENT", versionRoot, "2.1")}}}, nil
}
