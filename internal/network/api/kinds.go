package api

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"kilonova/internal/id"
	"kilonova/internal/network"
)

// kind verifies a decoded JSON value and gives it as a Go value, or says what is wrong with it.
type kind func(v any) (got any, problem string)

// show is a value as it appears in sentences.
func show(v any) string {
	switch x := v.(type) {
	case nil:
		return "None"
	case string:
		return x
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

// text takes strings of at most n characters.
func text(n int) kind {
	return func(v any) (any, string) {
		s, ok := v.(string)
		if !ok {
			return nil, fmt.Sprintf("'%s' is not a valid string.", show(v))
		}
		if len([]rune(s)) > n {
			return nil, fmt.Sprintf("'%s' exceeds maximum length of %d.", s, n)
		}
		return s, ""
	}
}

// filled is text that is not blank.
func filled(n int) kind {
	inner := text(n)
	return func(v any) (any, string) {
		if s, ok := v.(string); ok && strings.TrimSpace(s) == "" {
			return nil, fmt.Sprintf("'%s' Blank strings are not permitted.", s)
		}
		return inner(v)
	}
}

// null lets a kind be null too; it then gives nil.
func null(k kind) kind {
	return func(v any) (any, string) {
		if v == nil {
			return nil, ""
		}
		return k(v)
	}
}

func boolean(v any) (any, string) {
	switch x := v.(type) {
	case bool:
		return x, ""
	case string:
		switch strings.ToLower(x) {
		case "true", "1", "yes", "on":
			return true, ""
		case "false", "0", "no", "off":
			return false, ""
		}
	case json.Number:
		if x == "0" || x == "1" {
			return x == "1", ""
		}
	}
	return nil, fmt.Sprintf("'%s' cannot be converted to boolean.", show(v))
}

// number takes integers, also as strings, from least to most.
func number(least, most int) kind {
	return func(v any) (any, string) {
		var n int
		var err error
		switch x := v.(type) {
		case json.Number:
			n, err = strconv.Atoi(string(x))
		case string:
			n, err = strconv.Atoi(x)
		default:
			err = strconv.ErrSyntax
		}
		if err != nil {
			return nil, fmt.Sprintf("'%s' is not an integer.", show(v))
		}
		if n < least {
			return nil, fmt.Sprintf("'%d' is too small - must be at least '%d'.", n, least)
		}
		if n > most {
			return nil, fmt.Sprintf("'%d' is too large - must be no larger than '%d'.", n, most)
		}
		return n, ""
	}
}

func oneOf(values ...string) kind {
	return func(v any) (any, string) {
		for _, w := range values {
			if v == w {
				return w, ""
			}
		}
		return nil, fmt.Sprintf("'%s' is not in ['%s'].", show(v), strings.Join(values, "', '"))
	}
}

func uuid(v any) (any, string) {
	if s, ok := v.(string); ok && id.IsUUID(s) {
		return s, ""
	}
	return nil, fmt.Sprintf("'%s' is not a valid UUID.", show(v))
}

func address(v any) (any, string) {
	s, _ := v.(string)
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return nil, fmt.Sprintf("'%s' is not a valid IP address.", show(v))
	}
	return a.String(), ""
}

func prefix(v any) (any, string) {
	s, _ := v.(string)
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return nil, fmt.Sprintf("'%s' is not a valid IP subnet.", show(v))
	}
	return p.String(), ""
}

func macAddress(v any) (any, string) {
	s, _ := v.(string)
	m, err := net.ParseMAC(s)
	if err != nil || len(m) != 6 || m.String() == "00:00:00:00:00:00" || m.String() == "ff:ff:ff:ff:ff:ff" {
		return nil, fmt.Sprintf("'%s' is not a valid MAC address.", show(v))
	}
	return m.String(), ""
}

func object(v any) (any, string) {
	m, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Sprintf("'%s' is not a dictionary.", show(v))
	}
	return m, ""
}

// texts takes lists of what k takes, without duplicates; null is an empty list.
func texts(k kind) kind {
	return func(v any) (any, string) {
		out := []string{}
		if v == nil {
			return out, ""
		}
		if s, ok := v.(string); ok { // clients that pass a single value
			v = []any{s}
		}
		list, ok := v.([]any)
		if !ok {
			return nil, fmt.Sprintf("'%s' is not a list.", show(v))
		}
		for _, e := range list {
			got, problem := k(e)
			if problem != "" {
				return nil, problem
			}
			s, _ := got.(string)
			for _, had := range out {
				if had == s {
					return nil, fmt.Sprintf("Duplicate items in the list: '%s'.", s)
				}
			}
			out = append(out, s)
		}
		return out, ""
	}
}

// records takes lists of dictionaries whose values have the given kinds and turns each with make; null is an empty list.
func records[T any](fields map[string]kind, needed []string, make func(m input) T) kind {
	return func(v any) (any, string) {
		out := []T{}
		if v == nil {
			return out, ""
		}
		list, ok := v.([]any)
		if !ok {
			return nil, fmt.Sprintf("'%s' is not a list.", show(v))
		}
		for _, e := range list {
			m, ok := e.(map[string]any)
			if !ok {
				return nil, fmt.Sprintf("'%s' is not a dictionary.", show(e))
			}
			in, problem := record(m, fields, needed)
			if problem != "" {
				return nil, problem
			}
			out = append(out, make(in))
		}
		return out, ""
	}
}

func record(m map[string]any, fields map[string]kind, needed []string) (input, string) {
	in := input{}
	for k, v := range m {
		check := fields[k]
		if check == nil {
			return nil, fmt.Sprintf("Unexpected keys supplied: %s.", k)
		}
		got, problem := check(v)
		if problem != "" {
			return nil, problem
		}
		in[k] = got
	}
	for _, k := range needed {
		if !in.has(k) {
			return nil, fmt.Sprintf("Expected keys not found: %s.", k)
		}
	}
	return in, ""
}

// The lists of records that the resources share.

func fixedIPs(v any) (any, string) {
	return records(map[string]kind{"subnet_id": uuid, "ip_address": address}, nil,
		func(m input) network.FixedIP {
			return network.FixedIP{SubnetID: m.str("subnet_id"), Address: m.str("ip_address")}
		})(v)
}

func routeList(v any) (any, string) {
	return records(map[string]kind{"destination": prefix, "nexthop": address}, []string{"destination", "nexthop"},
		func(m input) network.Route {
			return network.Route{Destination: m.str("destination"), NextHop: m.str("nexthop")}
		})(v)
}

func poolList(v any) (any, string) {
	return records(map[string]kind{"start": address, "end": address}, []string{"start", "end"},
		func(m input) network.Pool { return network.Pool{Start: m.str("start"), End: m.str("end")} })(v)
}

func pairList(v any) (any, string) {
	return records(map[string]kind{"ip_address": addressOrPrefix, "mac_address": macAddress}, []string{"ip_address"},
		func(m input) network.AddressPair {
			return network.AddressPair{IP: m.str("ip_address"), MAC: m.str("mac_address")}
		})(v)
}

func addressOrPrefix(v any) (any, string) {
	if got, problem := address(v); problem == "" {
		return got, ""
	}
	return prefix(v)
}

func dhcpOptions(v any) (any, string) {
	return records(map[string]kind{"opt_name": filled(64), "opt_value": null(filled(255)), "ip_version": number(4, 6)}, []string{"opt_name"},
		func(m input) network.DHCPOption {
			o := network.DHCPOption{Name: m.str("opt_name"), Value: m.str("opt_value"), Version: 4}
			if n := m.num("ip_version"); n != nil {
				o.Version = *n
			}
			return o
		})(v)
}
