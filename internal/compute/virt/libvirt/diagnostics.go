package libvirt

import (
	"context"
	"fmt"
	"strings"

	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/libvirt/definition"
	"kilonova/internal/compute/virt/libvirt/rpc"
)

// stats are a domain's counters by libvirt's name.
type stats map[string]any

func (s stats) number(name string) *int64 {
	var n int64
	switch v := s[name].(type) {
	case uint64:
		n = int64(v)
	case int64:
		n = v
	case uint32:
		n = int64(v)
	case int32:
		n = int64(v)
	default:
		return nil
	}
	return &n
}

func (s stats) count(name string) int {
	if n := s.number(name); n != nil {
		return int(*n)
	}
	return 0
}

func (s stats) text(name string) string {
	t, _ := s[name].(string)
	return t
}

// Diagnostics gives counters, in the form that is the same for all hypervisors and in libvirt's own.
func (d *Driver) Diagnostics(ctx context.Context, guest string) (*virt.Diagnostics, error) {
	f, err := d.must(ctx, guest)
	if err != nil {
		return nil, err
	}
	if !f.active() {
		return nil, conflict("diagnosed", f.power)
	}
	live, err := d.definition(ctx, f.dom, 0)
	if err != nil {
		return nil, err
	}
	const groups = 1 | 2 | 4 | 8 | 16 | 32
	all, err := d.rpc.AllStats(ctx, []rpc.Domain{f.dom}, groups)
	if err != nil {
		return nil, err
	}
	s := stats{}
	for _, one := range all {
		for _, p := range one.Params {
			s[p.Name] = p.Value
		}
	}
	out := &virt.Diagnostics{State: map[virt.PowerState]string{virt.Running: "running", virt.Paused: "paused"}[f.power], Driver: "libvirt",
		Hypervisor: d.caps.virtType, HypervisorOS: "linux", ConfigDrive: exists(d.path(guest, configDisk)), Legacy: map[string]any{}}
	if kib := s.number("balloon.maximum"); kib != nil {
		out.Legacy["memory"] = *kib
		mib := *kib / 1024
		out.MemoryMaxMB = &mib
	}
	if kib, free := s.number("balloon.available"), s.number("balloon.unused"); kib != nil && free != nil {
		used := (*kib - *free) / 1024
		out.MemoryUsedMB = &used
	}
	for key, v := range s {
		if name, ok := strings.CutPrefix(key, "balloon."); ok && name != "maximum" {
			out.Legacy["memory-"+strings.Map(func(r rune) rune { return map[bool]rune{true: '_', false: r}[r == '-'] }, name)] = v
		}
	}
	for i := range f.old.VCPU.N {
		c := virt.CPUDiag{ID: i, Time: s.number(fmt.Sprintf("vcpu.%d.time", i))}
		out.CPUs = append(out.CPUs, c)
		if c.Time != nil {
			out.Legacy[fmt.Sprintf("cpu%d_time", i)] = *c.Time
		}
	}
	d.diagnoseNICs(out, s, live)
	diagnoseDisks(out, s)
	return out, nil
}

func (d *Driver) diagnoseNICs(out *virt.Diagnostics, s stats, live *definition.Domain) {
	mac := map[string]string{}
	for _, i := range live.Devices.Interfaces {
		if i.Target != nil {
			mac[i.Target.Dev] = i.MAC.Address
		}
	}
	for i := range s.count("net.count") {
		at := fmt.Sprintf("net.%d.", i)
		name := s.text(at + "name")
		// libvirt counts as the guest does: what the host's side sends, the guest receives.
		n := virt.NICDiag{MAC: mac[name], RxOctets: s.number(at + "rx.bytes"), RxPackets: s.number(at + "rx.pkts"), RxErrors: s.number(at + "rx.errs"),
			RxDrop: s.number(at + "rx.drop"), TxOctets: s.number(at + "tx.bytes"), TxPackets: s.number(at + "tx.pkts"),
			TxErrors: s.number(at + "tx.errs"), TxDrop: s.number(at + "tx.drop")}
		out.NICs = append(out.NICs, n)
		for suffix, v := range map[string]*int64{"rx": n.RxOctets, "rx_packets": n.RxPackets, "rx_errors": n.RxErrors, "rx_drop": n.RxDrop,
			"tx": n.TxOctets, "tx_packets": n.TxPackets, "tx_errors": n.TxErrors, "tx_drop": n.TxDrop} {
			if v != nil {
				out.Legacy[name+"_"+suffix] = *v
			}
		}
	}
}

func diagnoseDisks(out *virt.Diagnostics, s stats) {
	for i := range s.count("block.count") {
		at := fmt.Sprintf("block.%d.", i)
		name := s.text(at + "name")
		k := virt.DiskDiag{ReadBytes: s.number(at + "rd.bytes"), ReadRequests: s.number(at + "rd.reqs"), WriteBytes: s.number(at + "wr.bytes"),
			WriteRequests: s.number(at + "wr.reqs"), Errors: s.number(at + "errors")}
		out.Disks = append(out.Disks, k)
		for suffix, v := range map[string]*int64{"read": k.ReadBytes, "read_req": k.ReadRequests, "write": k.WriteBytes, "write_req": k.WriteRequests} {
			if v != nil {
				out.Legacy[name+"_"+suffix] = *v
			}
		}
		if k.Errors != nil {
			out.Legacy[name+"_errors"] = *k.Errors
		} else {
			out.Legacy[name+"_errors"] = int64(-1)
		}
	}
}
