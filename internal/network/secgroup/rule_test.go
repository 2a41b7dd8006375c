package secgroup_test

import (
	"errors"
	"testing"

	"kilonova/internal/fault"
	"kilonova/internal/network"
	"kilonova/internal/network/secgroup"
)

func n(v int) *int { return &v }

func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		rule network.GroupRule
		code string
	}{
		{network.GroupRule{}, ""},
		{network.GroupRule{EtherType: "ipv6", Protocol: "ICMPv6"}, ""},
		{network.GroupRule{Protocol: "tcp", PortMin: n(1), PortMax: n(65535), RemoteIP: "10.1.2.3"}, ""},
		{network.GroupRule{Protocol: "any"}, ""},
		{network.GroupRule{Protocol: "any", PortMin: n(1), PortMax: n(1)}, "SecurityGroupProtocolRequiredWithPorts"},
		{network.GroupRule{Protocol: "icmp", PortMin: n(8), PortMax: n(0)}, ""},
		{network.GroupRule{Protocol: "icmpv6"}, "SecurityGroupEthertypeConflictWithProtocol"},
		{network.GroupRule{Protocol: "tcp", PortMin: n(0), PortMax: n(5)}, "SecurityGroupInvalidPortValue"},
		{network.GroupRule{Protocol: "-1"}, "SecurityGroupRuleInvalidProtocol"},
		{network.GroupRule{RemoteIP: "nonsense"}, "InvalidInput"},
	} {
		r := tc.rule
		err := secgroup.Check(&r)
		var e *fault.Error
		if tc.code == "" && err != nil || tc.code != "" && (!errors.As(err, &e) || e.Code != tc.code) {
			t.Errorf("%+v: %v, want %q", tc.rule, err, tc.code)
		}
	}
}

func TestSignatureKnowsTheSameRule(t *testing.T) {
	sig := func(proto, remote string) string {
		r := network.Rule{GroupRule: network.GroupRule{Direction: "ingress", Protocol: proto, RemoteIP: remote}}
		if err := secgroup.Check(&r.GroupRule); err != nil {
			t.Fatal(err)
		}
		return secgroup.Signature(&r)
	}
	if sig("tcp", "10.0.0.7/8") != sig("6", "10.0.0.0/8") || sig("tcp", "10.0.0.7") != sig("TCP", "10.0.0.7/32") {
		t.Error("the same rule has two signatures")
	}
	if sig("tcp", "") == sig("udp", "") || sig("", "10.0.0.0/8") == sig("", "10.0.0.0/9") {
		t.Error("different rules have one signature")
	}
}
