package ipam

import (
	"net/netip"

	"go4.org/netipx"
)

// Set begins a set with stored prefixes.
func Set(prefixes []string) *netipx.IPSetBuilder {
	b := &netipx.IPSetBuilder{}
	for _, text := range prefixes {
		if p, err := netip.ParsePrefix(text); err == nil {
			b.AddPrefix(p)
		}
	}
	return b
}

// Whole is the finished set of stored prefixes.
func Whole(prefixes []string) *netipx.IPSet {
	s, err := Set(prefixes).IPSet()
	if err != nil {
		return &netipx.IPSet{}
	}
	return s
}

// Texts are the fewest prefixes that make up a set.
func Texts(s *netipx.IPSet) []string {
	var out []string
	for _, p := range s.Prefixes() {
		out = append(out, p.String())
	}
	return out
}

// Overlap tells whether two lists of prefixes have an address in common.
func Overlap(a, b []string) bool { return Whole(a).Overlaps(Whole(b)) }
