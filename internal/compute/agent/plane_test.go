package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"

	"kilonova/internal/compute/agent"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/virt"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/network"
)

// brokenPlane fails as it is told.
type brokenPlane struct {
	mu  sync.Mutex
	err error
}

func (p *brokenPlane) Apply(context.Context, *network.HostState) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *brokenPlane) Wired() (map[string]bool, error) { return nil, nil }

func (p *brokenPlane) fail(errs ...error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = errors.Join(errs...)
}

// A server is hindered only by what is wrong with its own networks or with the host as a whole, and its fault says what to do.
func TestPlugFailsForItsOwnNetworksOnly(t *testing.T) {
	plane := &brokenPlane{}
	r := newRig(t)
	r.plane = plane
	state := network.HostState{Host: "h1", Ports: []network.HostPort{{ID: "port-a", NetworkID: "a"}, {ID: "port-b", NetworkID: "b"}}}
	for subject, answer := range map[string]any{command.HostNetworkSubject: state, command.TunnelSubject: nil, command.PortStatusSubject: nil} {
		if _, err := r.bus.Serve(subject, "conductor", func(context.Context, string, []byte) ([]byte, error) { return json.Marshal(answer) }); err != nil {
			t.Fatal(err)
		}
	}
	r.agent("h1")
	const mended = "The log of the host's agent says why. It tries again every few seconds: ask again when the cause is mended."
	part := func(net string, err error) error { return &network.PartError{NetworkID: net, Err: err} }
	cause := errors.New("no such device")
	mapping := fault.New(fault.Conflict, "Name an interface.")
	for _, c := range []struct {
		name string
		errs []error
		want map[string]string // by port; none: it works
	}{
		{"all is well", nil, nil},
		{"one network", []error{part("a", cause)}, map[string]string{"port-a": "The network of port port-a could not be made on host h1. " + mended}},
		{"told what to do", []error{part("b", mapping)}, map[string]string{"port-b": "The network of port port-b could not be made on host h1. Name an interface."}},
		{"no network in particular", []error{part("", cause), part("elsewhere", cause)}, nil},
		{"the host", []error{part("a", cause), cause}, map[string]string{"port-a": "The networks of host h1 could not be brought up to date. " + mended,
			"port-b": "The networks of host h1 could not be brought up to date. " + mended}},
		{"mended", nil, nil},
	} {
		plane.fail(c.errs...)
		for port, net := range map[string]string{"port-a": "a", "port-b": "b"} {
			args := spawnOf(id.UUID())
			args.Spec.VIFs = []network.VIF{{PortID: port, NetworkID: net, MAC: "fa:16:3e:00:00:01"}}
			err := r.do("h1", command.Command{Operation: id.UUID(), Step: "build", Attempt: 1, Epoch: 1, Server: args.Spec.ID, Verb: command.Spawn}, args)
			var f *fault.Error
			switch want := c.want[port]; {
			case want == "" && err == nil:
				if r.power("h1", args.Spec.ID) != virt.Running {
					t.Errorf("%s: the guest on %s does not run", c.name, port)
				}
			case want == "" || !errors.As(err, &f) || f.Kind != fault.Internal || f.Public() != want || strings.Contains(f.Public(), cause.Error()):
				t.Errorf("%s: a guest on %s: %v, want %q", c.name, port, err, want)
			}
		}
	}
}

var _ agent.Plane = (*brokenPlane)(nil)
