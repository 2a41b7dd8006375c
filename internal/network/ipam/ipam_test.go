package ipam_test

import (
	"math/big"
	"net/netip"
	"slices"
	"testing"

	"go4.org/netipx"
	"pgregory.net/rapid"

	"kilonova/internal/network"
	"kilonova/internal/network/ipam"
)

func prefixes(t *rapid.T) netip.Prefix {
	var a netip.Addr
	if rapid.Bool().Draw(t, "six") {
		a = netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "addr")))
		if a.Is4In6() {
			t.Skip("an IPv4 address in disguise")
		}
		return netip.PrefixFrom(a, rapid.IntRange(1, 128).Draw(t, "bits")).Masked()
	}
	a = netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "addr")))
	return netip.PrefixFrom(a, rapid.IntRange(1, 32).Draw(t, "bits")).Masked()
}

// Text order of keys is address order, and a key is its address.
func TestKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := prefixes(t)
		a, b := p.Addr(), netipx.PrefixLastIP(p)
		if got, err := ipam.FromKey(ipam.Key(a)); err != nil || got != a {
			t.Fatalf("%s became %s, %v", a, got, err)
		}
		if a != b && ipam.Key(a) >= ipam.Key(b) {
			t.Fatalf("%s does not sort before %s", a, b)
		}
	})
}

func TestDefaultGateway(t *testing.T) {
	for cidr, want := range map[string]string{"10.0.0.0/24": "10.0.0.1", "10.0.0.32/30": "10.0.0.33", "10.0.0.32/31": "", "10.0.0.32/32": "10.0.0.33", "255.255.255.255/32": "",
		"2001:db8::/64": "2001:db8::1", "2001:db8::8/127": "", "2001:db8::8/128": "2001:db8::9"} {
		if got := ipam.DefaultGateway(netip.MustParsePrefix(cidr)); got != want {
			t.Errorf("the gateway of %s is %q, want %q", cidr, got, want)
		}
	}
}

// The pools that a subnet gets by itself hold every address that a host may have except the gateway, and no other.
func TestDefaultPools(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := prefixes(t)
		gw := ipam.FirstHost(p)
		if !p.Contains(gw) || rapid.Bool().Draw(t, "no gateway") {
			gw = netip.Addr{}
		}
		pools := ipam.DefaultPools(p, gw)
		again, err := ipam.CheckPools(pools, p, gw)
		if err != nil || !slices.Equal(again, pools) {
			t.Fatalf("%v of %s are not taken back: %v", pools, p, err)
		}
		inside := func(a netip.Addr) bool {
			return slices.ContainsFunc(pools, func(q network.Pool) bool {
				return !a.Less(netip.MustParseAddr(q.Start)) && !netip.MustParseAddr(q.End).Less(a)
			})
		}
		for _, a := range []netip.Addr{p.Addr(), p.Addr().Next(), netipx.PrefixLastIP(p), netipx.PrefixLastIP(p).Prev(), netipx.PrefixLastIP(p).Next()} {
			if a.IsValid() && inside(a) != (ipam.ValidHost(p, a) && a != gw) {
				t.Fatalf("%s of %s (gateway %s) in the pools: %v", a, p, gw, inside(a))
			}
		}
		size := new(big.Int).Lsh(big.NewInt(1), uint(p.Addr().BitLen()-p.Bits()))
		if ipam.PoolSize(pools).Cmp(size) > 0 {
			t.Fatalf("pools of %s hold %s addresses", p, ipam.PoolSize(pools))
		}
	})
}

func TestEUI64(t *testing.T) {
	got, err := ipam.EUI64(netip.MustParsePrefix("2001:db8::/64"), "fa:16:3e:00:00:01")
	if err != nil || got.String() != "2001:db8::f816:3eff:fe00:1" {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := ipam.EUI64(netip.MustParsePrefix("2001:db8::/64"), "nonsense"); err == nil {
		t.Error("nonsense is a MAC")
	}
}
