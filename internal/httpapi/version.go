package httpapi

import (
	"fmt"
	"strconv"
	"strings"

	"kilonova/internal/fault"
)

// Version is a microversion.
type Version struct{ Major, Minor int }

// ParseVersion reads "2.79". Leading zeros, signs and blanks are refused.
func ParseVersion(s string) (Version, error) {
	a, b, ok := strings.Cut(s, ".")
	major, e1 := strconv.Atoi(a)
	minor, e2 := strconv.Atoi(b)
	v := Version{major, minor}
	if !ok || e1 != nil || e2 != nil || major < 1 || minor < 0 || v.String() != s {
		return Version{}, fault.New(fault.Invalid, "API Version String %s is of invalid format. Must be of format MajorNum.MinorNum.", s)
	}
	return v, nil
}

// parseLoose reads any two whole numbers with a dot between them, as placement does: "0.5" and "01.2" are versions, if unsupported ones.
// newest is the example that the error gives.
func parseLoose(s string, newest Version) (Version, error) {
	a, b, ok := strings.Cut(s, ".")
	major, e1 := strconv.Atoi(strings.TrimSpace(a))
	minor, e2 := strconv.Atoi(strings.TrimSpace(b))
	if !ok || e1 != nil || e2 != nil {
		return Version{}, fault.New(fault.Invalid, "invalid version string: %s. It must be two numbers with a dot between them, such as %s, or latest.", s, newest)
	}
	return Version{major, minor}, nil
}

// V is Version{2, minor}: compute's only major.
func V(minor int) Version { return Version{2, minor} }

func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// IsZero tells whether v is unset.
func (v Version) IsZero() bool { return v == Version{} }

// AtLeast tells whether v >= o.
func (v Version) AtLeast(o Version) bool {
	return v.Major > o.Major || v.Major == o.Major && v.Minor >= o.Minor
}

// In tells whether v lies in [since, until]; a zero end is open.
func (v Version) In(since, until Version) bool {
	return (since.IsZero() || v.AtLeast(since)) && (until.IsZero() || until.AtLeast(v))
}

// Microversions says how a service negotiates.
type Microversions struct {
	Type     string // in the OpenStack-API-Version header: "compute", "placement", "volume"
	Legacy   string // older header that carries the bare version; may be ""
	Min, Max Version
	Default  Version // without a header
	Loose    bool    // any two numbers are a version ("0.5": 406); otherwise only what Version.String writes is ("0.5": 400)
	Vary     string  // value of the Vary header; "": the names of the version headers
}
