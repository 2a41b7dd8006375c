package conductor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/compute/flow"
	"kilonova/internal/compute/scheduler"
	"kilonova/internal/fault"
)

// ExplainHosts tells what placement, each filter and each weigher say today of every host (or of the one named) for a server: why it would go there, or not.
func (c *Conductor) ExplainHosts(ctx context.Context, server, only string) (string, error) {
	s, err := c.cfg.Store.Server(ctx, c.cfg.DB, server)
	if err != nil {
		return "", err
	}
	w := flow.Want{Server: s, Flavor: s.Flavor, ImageProps: s.ImageProps}
	if s.PinnedZone != nil {
		w.Zone = *s.PinnedZone
	}
	return c.explain(ctx, w, "server "+s.ID, only)
}

// ExplainWant is ExplainHosts for a server that does not exist: where it would go, and why not elsewhere. Nothing is claimed.
func (c *Conductor) ExplainWant(ctx context.Context, w flow.Want, only string) (string, error) {
	return c.explain(ctx, w, "a new server", only)
}

func (c *Conductor) explain(ctx context.Context, w flow.Want, whose, only string) (string, error) {
	req, err := c.request(ctx, w)
	if err != nil {
		return "", err
	}
	req.Explain = true
	if err := c.hosts.load(ctx); err != nil {
		return "", err
	}
	if only != "" && !slices.Contains(c.hosts.names(), only) {
		return "", fault.New(fault.NotFound, "Compute host %s could not be found.", only)
	}
	var b strings.Builder
	known, err := c.knownServers(ctx, req)
	if err != nil {
		return "", err
	}
	plan, err := c.look(ctx, req)
	var refused *fault.Error
	switch {
	case errors.As(err, &refused) && refused.Code == flow.CodeNoValidHost: // a request filter: no host was asked about
		fmt.Fprintf(&b, "Placement and filters for %s with flavor %s: %s\n", whose, w.Flavor.Name, refused.Text)
		plan = &scheduler.Plan{Explanation: &scheduler.Explanation{}}
	case err != nil:
		return "", err
	default:
		fmt.Fprintf(&b, "Placement and filters for %s with flavor %s: %s\n", whose, w.Flavor.Name, plan.Explanation.Text())
	}
	if len(plan.Hosts) > 0 {
		fmt.Fprintf(&b, "It would go to %s.\n", plan.Hosts[0].Host.Host)
	} else {
		b.WriteString("It would find no host.\n")
	}
	ranked, states := map[string]int{}, map[string]*scheduler.HostState{}
	var among []*scheduler.HostState
	for i, r := range plan.Hosts {
		ranked[r.Host.Host], states[r.Host.Host] = i+1, r.Host
		among = append(among, r.Host)
	}
	for _, name := range c.hosts.names() {
		if only != "" && name != only {
			continue
		}
		st := states[name]
		if st == nil {
			h, ok := c.hosts.get(name)
			if !ok {
				continue
			}
			st = c.hosts.state(&h, nil)
			tellServers([]*scheduler.HostState{st}, known)
		}
		if err := c.explainHost(&b, req, st, ranked[name], among, slices.Contains(plan.Explanation.OfferedHosts, name)); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

// look is plan without a word to placement: it only asks.
func (c *Conductor) look(ctx context.Context, req *scheduler.Request) (*scheduler.Plan, error) {
	cloud, _ := c.hosts.cloud()
	return c.ask(ctx, req, cloud, math.MaxInt)
}

func (c *Conductor) explainHost(b *strings.Builder, req *scheduler.Request, st *scheduler.HostState, rank int, among []*scheduler.HostState, offered bool) error {
	if rank > 0 {
		fmt.Fprintf(b, "\n%s: number %d of %d\n", st.Host, rank, len(among))
	} else {
		fmt.Fprintf(b, "\n%s: no\n", st.Host)
	}
	if !offered && rank == 0 {
		fmt.Fprintf(b, "  %-34s does not offer it\n", "placement")
	} else {
		fmt.Fprintf(b, "  %-34s offers it\n", "placement")
	}
	verdicts, err := c.planner.Verdicts(req, st)
	if err != nil {
		return err
	}
	for _, v := range verdicts {
		switch {
		case v.Pass:
			fmt.Fprintf(b, "  %-34s passes\n", v.Constraint)
		case v.Why != "":
			fmt.Fprintf(b, "  %-34s refuses: %s\n", v.Constraint, v.Why)
		default:
			fmt.Fprintf(b, "  %-34s refuses\n", v.Constraint)
		}
	}
	if rank == 0 {
		return nil
	}
	sum := 0.0
	for _, w := range c.planner.Weights(req, st, among) {
		part := w.Normalised*w.Multiplier + 0 // 0 and not -0
		sum += part
		fmt.Fprintf(b, "  %-34s %s, scaled %.3f x %s = %.3f\n", w.Weigher, plain(w.Raw), w.Normalised, plain(w.Multiplier), part)
	}
	fmt.Fprintf(b, "  %-34s %.3f\n", "weight", sum)
	return nil
}

// plain writes a number without an exponent.
func plain(x float64) string { return strconv.FormatFloat(x, 'f', -1, 64) }

// WantOf is what a server that does not exist yet would need.
func WantOf(project string, f compute.Flavor, imageID string, props map[string]string, hints map[string]any) flow.Want {
	s := &compute.Server{ID: "00000000-0000-4000-8000-000000000000", ProjectID: project, Flavor: f, ImageID: imageID, ImageProps: props, Hints: hints}
	if g, ok := hints["group"].(string); ok {
		s.GroupID = g
	}
	return flow.Want{Server: s, Flavor: f, ImageProps: props}
}
