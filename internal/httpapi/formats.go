package httpapi

import (
	"encoding/base64"
	"errors"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"kilonova/internal/fault"
)

var errFormat = errors.New("wrong format")

var (
	uuidPattern = regexp.MustCompile(`^[0-9a-fA-F]{32}$`)
	fqdnPattern = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*\.?$`)
)

// formats are the string formats of OpenStack's schemas. As JSON Schema wants it, values that are not strings pass.
func formats() []*jsonschema.Format {
	texts := map[string]func(string) bool{
		"uuid":      IsUUIDLike,
		"date-time": func(s string) bool { _, err := ParseTime(s); return err == nil },
		"ipv4":      func(s string) bool { a, err := netip.ParseAddr(s); return err == nil && a.Is4() },
		"ipv6":      func(s string) bool { a, err := netip.ParseAddr(s); return err == nil && a.Is6() && a.Zone() == "" },
		"cidr":      func(s string) bool { _, err := netip.ParsePrefix(s); return err == nil },
		"base64":    isBase64,
		"uri":       isURI,
		"fqdn":      func(s string) bool { return len(s) <= 255 && fqdnPattern.MatchString(s) },
		"name":      IsName,
		"az_name":   func(s string) bool { return IsName(s) && !strings.Contains(s, ":") },
		"name_with_leading_trailing_spaces": func(s string) bool {
			return isPrintable(s) && strings.TrimFunc(s, unicode.IsSpace) != ""
		},
		"az_name_with_leading_trailing_spaces": func(s string) bool {
			return isPrintable(s) && strings.TrimFunc(s, unicode.IsSpace) != "" && !strings.Contains(s, ":")
		},
	}
	list := make([]*jsonschema.Format, 0, len(texts))
	for name, valid := range texts {
		list = append(list, &jsonschema.Format{Name: name, Validate: func(v any) error {
			if s, ok := v.(string); ok && !valid(s) {
				return errFormat
			}
			return nil
		}})
	}
	return list
}

// IsUUIDLike tells whether s is a UUID in any of the spellings that OpenStack takes: with or without dashes, in braces, as URN.
func IsUUIDLike(s string) bool {
	s = strings.NewReplacer("urn:", "", "uuid:", "", "-", "").Replace(strings.ToLower(s))
	return uuidPattern.MatchString(strings.Trim(s, "{}"))
}

// IsName tells whether s is a name: printable characters, no blank at either end. The empty text passes (minLength judges it).
func IsName(s string) bool { return isPrintable(s) && strings.TrimFunc(s, unicode.IsSpace) == s }

// isPrintable tells whether s has letters, marks, numbers, punctuation, symbols and horizontal blanks only.
func isPrintable(s string) bool {
	for _, r := range s {
		if !unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S, unicode.Zs) {
			return false
		}
	}
	return true
}

func isBase64(s string) bool {
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == ' ' || r == '\t' {
			return -1
		}
		return r
	}, s)
	_, err := base64.StdEncoding.DecodeString(s)
	return err == nil
}

func isURI(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Scheme != ""
}

// layouts are the ISO 8601 forms that clients send, without zone.
var layouts = []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02T15", "2006-01-02",
	"20060102T150405", "20060102T1504", "20060102", "2006-01"}

// ParseTime reads an ISO 8601 time as OpenStack does: date alone, blank instead of T, fractions, and no zone (UTC) are all good.
func ParseTime(s string) (time.Time, error) {
	for _, l := range layouts {
		for _, zone := range []string{"", "Z07:00", "Z0700", "Z07"} {
			if zone != "" && !strings.Contains(l, "15") {
				continue
			}
			if t, err := time.Parse(l+zone, s); err == nil {
				return t.UTC(), nil
			}
		}
	}
	return time.Time{}, fault.New(fault.Invalid, "%q is not a time. Write it as 2006-01-02T15:04:05Z.", s)
}
