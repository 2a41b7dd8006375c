package conductor_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/compute/agent"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/fake"
	"kilonova/internal/id"
	"kilonova/internal/placement"
)

// fleet starts hosts that report together.
func (c *cloud) fleet(n int, size fake.Config) []string {
	c.t.Helper()
	names, hosts := make([]string, n), make([]agent.Host, n)
	for i := range names {
		names[i] = fmt.Sprintf("f%d", i)
	}
	size.DB = c.hyper
	for i, d := range fake.NewHosts(size, names...) {
		hosts[i] = agent.Host{Name: names[i], NodeID: id.UUID(), Driver: d}
		c.nodes[names[i]] = hosts[i].NodeID
	}
	f, err := agent.NewFleet(agent.Config{Bus: c.bus, DB: c.hyper, Report: 200 * time.Millisecond, Look: 400 * time.Millisecond}, hosts)
	c.must(err)
	up := make(chan struct{})
	c.background(func(ctx context.Context) error { return f.Run(ctx, func() { close(up) }) })
	<-up
	return names
}

// Hosts that come together are what hosts that come one by one are: recorded, in placement, and of use.
func TestHostsThatReportTogether(t *testing.T) {
	c := newCloud(t, options{})
	names := c.fleet(250, fake.Config{VCPUs: 4, MemoryMB: 4096, DiskGB: 100})
	c.host("alone", fake.Config{VCPUs: 4, MemoryMB: 4096, DiskGB: 100})
	all, err := c.store.Hosts(c.ctx, c.store.DB)
	c.must(err)
	if len(all) != len(names)+1 {
		t.Fatalf("%d hosts are on record", len(all))
	}
	ps, err := c.place.Providers(c.ctx, c.nodes["f17"], c.nodes["alone"])
	c.must(err)
	var like []placement.Provider
	for _, p := range ps {
		like = append(like, placement.Provider{Inventory: p.Inventory, Traits: p.Traits, Generation: p.Generation})
	}
	a, err := json.Marshal(like[0])
	c.must(err)
	b, err := json.Marshal(like[1])
	c.must(err)
	if string(a) != string(b) {
		t.Fatalf("the providers differ:\n%s\n%s", a, b)
	}
	var ids []string
	for range 20 {
		s := c.record(nil)
		c.create(s, compute.CreateInput{})
		ids = append(ids, s.ID)
	}
	for _, s := range ids {
		c.eventually(s+" is ACTIVE", func() bool {
			v, err := c.store.Server(c.ctx, c.db, s)
			return err == nil && v.VMState == compute.VMActive && v.TaskState == ""
		})
	}
	// A guest that ends by itself is noticed by the question of what is whose.
	v, err := c.store.Server(c.ctx, c.db, ids[0])
	c.must(err)
	c.must(fake.New(fake.Config{DB: c.hyper, Host: v.Host}).Die(c.ctx, v.ID))
	c.eventually("the stopped guest is on record", func() bool {
		v, err := c.store.Server(c.ctx, c.db, ids[0])
		return err == nil && v.VMState == compute.VMStopped
	})
}

// Of hosts that report together one that falls silent goes down, alone, and comes back.
func TestSilenceOfOneOfMany(t *testing.T) {
	c := newCloud(t, options{})
	msg := command.HostReports{Start: id.Secret(8), Kinds: []command.HostKind{{Info: virt.HostInfo{HypervisorType: "fake", VCPUs: 4, MemoryMB: 4096, DiskGB: 100}, Traits: []string{"COMPUTE_NODE"}}}}
	for i := range 20 {
		msg.Hosts = append(msg.Hosts, command.KindReport{Host: fmt.Sprintf("f%d", i), NodeID: id.UUID(), Kind: 1})
	}
	send := func(m command.HostReports) command.ReportsReply {
		b, err := json.Marshal(m)
		c.must(err)
		out, err := c.bus.Call(context.WithoutCancel(c.ctx), command.ReportsSubject, b)
		c.must(err)
		var r command.ReportsReply
		c.must(json.Unmarshal(out, &r))
		return r
	}
	bare := command.HostReports{Start: msg.Start}
	for _, h := range msg.Hosts {
		h.Kind = 0
		bare.Hosts = append(bare.Hosts, h)
	}
	if r := send(bare); len(r.Failed) != len(bare.Hosts) {
		t.Fatalf("%d heartbeats of hosts that nobody knows were refused, of %d", len(r.Failed), len(bare.Hosts))
	}
	if r := send(msg); len(r.Failed)+len(r.Refused) != 0 {
		t.Fatalf("%+v", r)
	}
	var silent atomic.Bool
	silent.Store(true)
	c.background(func(ctx context.Context) error {
		for ctx.Err() == nil {
			m := bare
			if silent.Load() {
				m.Hosts = bare.Hosts[1:]
			}
			send(m)
			time.Sleep(50 * time.Millisecond)
		}
		return nil
	})
	down := func() (n int) {
		for _, h := range bare.Hosts {
			if c.con.Down(c.ctx, h.Host) {
				n++
			}
		}
		return n
	}
	c.must(c.con.Silent(c.ctx, "f0", time.Hour))
	c.eventually("f0 is down, and no other", func() bool { return c.con.Down(c.ctx, "f0") && down() == 1 })
	silent.Store(false)
	c.eventually("all are up", func() bool { return down() == 0 })
	// Another process takes a name of many, and only that one.
	other := msg
	other.Start, other.Hosts = id.Secret(8), msg.Hosts[5:6]
	if r := send(other); len(r.Refused) != 0 {
		t.Fatalf("%+v", r)
	}
	if r := send(bare); len(r.Refused) != 1 || r.Refused["f5"] == "" {
		t.Fatalf("%+v", r)
	}
}
