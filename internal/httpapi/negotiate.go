package httpapi

import (
	"net/http"
	"strings"

	"kilonova/internal/fault"
)

const versionHeader = "OpenStack-API-Version"

// negotiate sets req.Version from the headers. An error leaves the default version in force for the error's own form.
func (s *Service) negotiate(req *Request) error {
	m := s.Versions
	if m == nil || !s.negotiates(req) {
		if m != nil {
			req.Version = m.Min
		}
		return nil
	}
	req.Version = m.Default
	asked := m.asked(req.HTTP.Header)
	switch asked {
	case "":
		return nil
	case "latest":
		req.Version = m.Max
		return nil
	}
	v, err := m.parse(asked)
	if err != nil {
		return err
	}
	if !v.In(m.Min, m.Max) {
		return fault.New(fault.NotAcceptable, "Version %s is not supported by the API. Minimum is %s and maximum is %s.", v, m.Min, m.Max)
	}
	req.Version = v
	return nil
}

func (m *Microversions) parse(s string) (Version, error) {
	if m.Loose {
		return parseLoose(s, m.Max)
	}
	return ParseVersion(s)
}

// negotiates tells whether a request has a microversion: not below a legacy root, nor beside the entries of a service that has some
// (the list of versions).
func (s *Service) negotiates(req *Request) bool {
	return !req.Legacy && (len(s.ProjectSegment) == 0 || req.Root != "")
}

// asked gives the version that the headers name for this service, "" when none does.
func (m *Microversions) asked(h http.Header) string {
	for _, line := range h.Values(versionHeader) {
		for part := range strings.SplitSeq(line, ",") {
			f := strings.Fields(part)
			if len(f) > 0 && strings.EqualFold(f[0], m.Type) {
				return strings.Join(f[1:], " ")
			}
		}
	}
	if m.Legacy != "" {
		return strings.TrimSpace(h.Get(m.Legacy))
	}
	return ""
}

// announce writes the version headers of an answer.
func (s *Service) announce(req *Request, h http.Header) {
	m := s.Versions
	if m == nil || !s.negotiates(req) {
		return
	}
	v := req.Version.String()
	h.Set(versionHeader, m.Type+" "+v)
	if m.Legacy != "" {
		h.Set(m.Legacy, v)
	}
	switch {
	case m.Vary != "":
		h.Add("Vary", m.Vary)
	case m.Legacy != "":
		h.Add("Vary", versionHeader+", "+m.Legacy)
	default:
		h.Add("Vary", versionHeader)
	}
}
