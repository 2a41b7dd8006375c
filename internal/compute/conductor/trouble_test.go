package conductor_test

import (
	"context"
	"testing"

	"kilonova/internal/compute/command"
	"kilonova/internal/compute/store"
	"kilonova/internal/compute/virt"
	"kilonova/internal/db"
	"kilonova/internal/id"
)

// listener keeps what the store tells of libvirt.
type listener struct{ heard []store.Trouble }

func (l *listener) Wants(what store.What) bool { return what == store.LibvirtLost }

func (l *listener) Changed(_ context.Context, _ *db.Tx, c store.Change) error {
	l.heard = append(l.heard, *c.Now.(*store.Trouble))
	return nil
}

// TestLostLibvirtIsTold: an agent whose libvirt does not answer still reports, and says so.
func TestLostLibvirtIsTold(t *testing.T) {
	c := newCloud(t, options{})
	l := &listener{}
	c.store.Watch(l)
	for _, kind := range []string{"QEMU", "fake"} {
		rep := command.HostReport{Host: kind, NodeID: id.UUID(), Start: "1", Info: &virt.HostInfo{Hostname: kind, HypervisorType: kind, HostIP: "10.0.0.7", VCPUs: 1, MemoryMB: 1024, DiskGB: 1}}
		ask[command.RegisterReply](c, command.RegisterSubject, rep)
		rep.Info = nil
		ask[command.RegisterReply](c, command.RegisterSubject, rep)
		rep.Trouble = "no socket"
		ask[command.RegisterReply](c, command.RegisterSubject, rep)
	}
	if len(l.heard) != 1 || l.heard[0] != (store.Trouble{Host: "QEMU", IP: "10.0.0.7", Cause: "no socket"}) {
		t.Errorf("%+v", l.heard)
	}
}
