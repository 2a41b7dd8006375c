package dataplane

import (
	"net"
	"net/netip"
)

// linkLocal is the IPv6 address that an interface with the MAC gives itself (RFC 4291); "" for what is no MAC.
func linkLocal(mac string) string {
	m, err := net.ParseMAC(mac)
	if err != nil || len(m) != 6 {
		return ""
	}
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]}).String()
}

// macOf is the inverse of linkLocal, for any address made from a MAC; nil for others.
func macOf(a netip.Addr) net.HardwareAddr {
	b := a.As16()
	if b[11] != 0xff || b[12] != 0xfe {
		return nil
	}
	return net.HardwareAddr{b[8] ^ 2, b[9], b[10], b[13], b[14], b[15]}
}
