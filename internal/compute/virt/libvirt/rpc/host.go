package rpc

import (
	"bytes"
	"context"
)

// LibVersion gives libvirt's version, 9000000 for 9.0.0.
func (c *Client) LibVersion(ctx context.Context) (v uint64, err error) {
	err = c.call(ctx, procConnectGetLibVersion, nil, &v)
	return v, err
}

// Version gives the hypervisor's version, 7002000 for 7.2.0.
func (c *Client) Version(ctx context.Context) (v uint64, err error) {
	err = c.call(ctx, procConnectGetVersion, nil, &v)
	return v, err
}

// Type gives the driver's name, "QEMU".
func (c *Client) Type(ctx context.Context) (s string, err error) {
	err = c.call(ctx, procConnectGetType, nil, &s)
	return s, err
}

// URI gives the canonical name of the hypervisor.
func (c *Client) URI(ctx context.Context) (s string, err error) {
	err = c.call(ctx, procConnectGetURI, nil, &s)
	return s, err
}

// Hostname gives the host's name as libvirt knows it.
func (c *Client) Hostname(ctx context.Context) (s string, err error) {
	err = c.call(ctx, procConnectGetHostname, nil, &s)
	return s, err
}

// Capabilities gives the host's capabilities as XML.
func (c *Client) Capabilities(ctx context.Context) (xml string, err error) {
	err = c.call(ctx, procConnectGetCapabilities, nil, &xml)
	return xml, err
}

// DomainCapabilities tells what guests of a kind can have, as XML. Empty arguments take the daemon's default.
func (c *Client) DomainCapabilities(ctx context.Context, emulator, arch, machine, virtType string) (xml string, err error) {
	err = c.call(ctx, procDomainCapabilities, []any{opt(emulator), opt(arch), opt(machine), opt(virtType), uint32(0)}, &xml)
	return xml, err
}

// BaselineCPU gives the CPU, as XML, that all given CPUs have in common.
func (c *Client) BaselineCPU(ctx context.Context, cpus []string, flags uint32) (xml string, err error) {
	err = c.call(ctx, procConnectBaselineCPU, []any{cpus, flags}, &xml)
	return xml, err
}

// NodeInfo is the host's size.
type NodeInfo struct {
	Model                                     string
	Memory                                    uint64 // KiB
	CPUs, MHz, Nodes, Sockets, Cores, Threads int32
}

// NodeInfo gives the host's size.
func (c *Client) NodeInfo(ctx context.Context) (n NodeInfo, err error) {
	model := func(d *decoder) { // 32 characters, each in a word of its own
		var name [32]byte
		for i := range name {
			name[i] = byte(d.u32())
		}
		text, _, _ := bytes.Cut(name[:], []byte{0})
		n.Model = string(text)
	}
	err = c.call(ctx, procNodeGetInfo, nil, model, &n.Memory, &n.CPUs, &n.MHz, &n.Nodes, &n.Sockets, &n.Cores, &n.Threads)
	return n, err
}

// NodeMemory gives the host's memory counters ("total", "free", "buffers", "cached") in KiB.
func (c *Client) NodeMemory(ctx context.Context) (map[string]uint64, error) {
	return c.counters(ctx, procNodeGetMemoryStats, func(n int32) []any { return []any{n, int32(-1), uint32(0)} })
}

// counters asks first how many there are, then for them.
func (c *Client) counters(ctx context.Context, p proc, args func(n int32) []any) (map[string]uint64, error) {
	var n int32
	out := map[string]uint64{}
	read := func(d *decoder) {
		for range d.count(12) {
			name := d.string()
			out[name] = d.u64()
		}
	}
	if err := c.call(ctx, p, args(0), read, &n); err != nil || n == 0 {
		return out, err
	}
	return out, c.call(ctx, p, args(n), read, &n)
}

// Stats are counters of one domain.
type Stats struct {
	Domain Domain
	Params []Param
}

// AllStats gives the counters of the domains (of all when none is named) in one call. groups is a set of bits: 1 state, 2 CPU, 4 balloon,
// 8 vCPU, 16 interface, 32 block. Domains that are busy are told with what is known (NOWAIT).
func (c *Client) AllStats(ctx context.Context, doms []Domain, groups uint32) (all []Stats, err error) {
	const nowait = 1 << 29
	err = c.call(ctx, procConnectGetAllStats, []any{doms, groups, uint32(nowait)}, func(d *decoder) {
		all = list(d, 28, func() Stats { return Stats{d.domain(), d.params()} })
	})
	return all, err
}

// DefineSecret makes or replaces a secret.
func (c *Client) DefineSecret(ctx context.Context, xml string) (s Secret, err error) {
	err = c.call(ctx, procSecretDefineXML, []any{xml, uint32(0)}, &s)
	return s, err
}

// SetSecret gives a secret its value.
func (c *Client) SetSecret(ctx context.Context, s Secret, value []byte) error {
	return c.call(ctx, procSecretSetValue, []any{s, value, uint32(0)})
}

// SecretByUUID finds a secret.
func (c *Client) SecretByUUID(ctx context.Context, u UUID) (s Secret, err error) {
	err = c.call(ctx, procSecretLookupByUUID, []any{u}, &s)
	return s, err
}

// UndefineSecret removes a secret.
func (c *Client) UndefineSecret(ctx context.Context, s Secret) error {
	return c.call(ctx, procSecretUndefine, []any{s})
}
