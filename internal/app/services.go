package app

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"kilonova/internal/auth"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/store"
	"kilonova/internal/config"
	"kilonova/internal/identity"
	identityapi "kilonova/internal/identity/api"
	identitylocal "kilonova/internal/identity/local"
	"kilonova/internal/image"
	imageapi "kilonova/internal/image/api"
	imagelocal "kilonova/internal/image/local"
	imagestore "kilonova/internal/image/store"
	"kilonova/internal/network"
	networkapi "kilonova/internal/network/api"
	networklocal "kilonova/internal/network/local"
	"kilonova/internal/network/segments"
	"kilonova/internal/operation"
	"kilonova/internal/placement"
	placementapi "kilonova/internal/placement/api"
	"kilonova/internal/placement/candidate"
	placementlocal "kilonova/internal/placement/local"
	"kilonova/internal/policy"
)

// parts is what the roles of this process share.
type parts struct {
	auth      auth.Authenticator
	projects  identity.Directory
	images    image.Service
	network   network.Service
	placement placement.Service
	store     *store.Store
	engine    *operation.Engine
	agents    *command.Client
}

// enforcer makes the policy of a service of its default rules and the operator's file STATE/policy/NAME.yaml (or .json), when that is there.
func (a *App) enforcer(name string, rules []policy.Rule) (*policy.Enforcer, error) {
	overrides, err := policyOverrides(filepath.Join(a.cfg.Default.StateDir, "policy"), name)
	if err != nil {
		return nil, err
	}
	e, err := policy.New(rules, overrides)
	if err != nil {
		return nil, fmt.Errorf("policy of %s: %w", name, err)
	}
	return e, nil
}

func (a *App) startIdentity(ctx context.Context) error {
	if a.cfg.API.Identity != "" && !a.has(Identity) {
		return a.remoteIdentity()
	}
	s, err := identitylocal.New(ctx, identitylocal.Config{DB: a.db, KeyDir: keyDir(a.cfg),
		BcryptCost: a.cfg.Identity.BcryptCost, TokenTTL: a.cfg.Identity.TokenTTL, CacheTTL: a.cfg.Identity.CacheTTL})
	if err != nil {
		return err
	}
	a.parts.auth, a.parts.projects = s, s
	if !a.has(Identity) {
		return nil
	}
	if err := a.bootstrap(ctx, s); err != nil {
		return err
	}
	if a.cfg.Identity.KeyRotation > 0 {
		a.background("rotation of the token keys", a.rotateKeys)
	}
	e, err := a.enforcer("identity", identityapi.Rules())
	if err != nil {
		return err
	}
	api, err := identityapi.New(s, e)
	if err != nil {
		return err
	}
	return a.web.mount("identity", api)
}

// bootstrap makes the users, roles and catalog of a new cloud, and moves the catalog when the URL has changed.
func (a *App) bootstrap(ctx context.Context, s *identitylocal.Service) error {
	password := map[string]string{}
	for _, n := range []string{"admin_password", "demo_password", "service_password"} {
		p, err := a.secrets.get(n)
		if err != nil {
			return err
		}
		password[n] = p
	}
	if p := a.cfg.Identity.Password; p != "" {
		password["service_password"] = p
	}
	users := identitylocal.StandardUsers(password["admin_password"], password["demo_password"])
	users = append(users, identitylocal.BootstrapUser{Name: a.cfg.Identity.Username, Password: password["service_password"], Project: "service", Roles: []string{"admin", "service"},
		Generated: a.cfg.Identity.Password == ""})
	url := a.URL()
	return s.Bootstrap(ctx, identitylocal.BootstrapConfig{Region: a.cfg.Default.Region, Users: users, Endpoints: []identitylocal.BootstrapEndpoint{
		{Type: "identity", Name: "keystone", Public: url + "/identity/v3"},
		{Type: "compute", Name: "nova", Public: url + "/compute/v2.1"},
		{Type: "image", Name: "glance", Public: url + "/image"},
		{Type: "network", Name: "neutron", Public: url + "/network"},
		{Type: "placement", Name: "placement", Public: url + "/placement"},
	}})
}

func (a *App) startImage(ctx context.Context) error {
	if a.cfg.Image.URL != "" && !a.has(Image) {
		return a.remoteImages()
	}
	if a.db == nil {
		return fmt.Errorf("this role has no database: set [image] url to the image service")
	}
	dir := a.cfg.Image.Dir
	if dir == "" {
		dir = filepath.Join(a.cfg.Default.StateDir, "images")
	}
	guard, err := a.webGuard()
	if err != nil {
		return err
	}
	stores, err := a.furtherStores()
	if err != nil {
		return err
	}
	s, err := imagelocal.New(ctx, imagelocal.Config{DB: a.db, Dir: dir, MaxSize: a.cfg.Image.MaxSize, MaxVirtual: a.cfg.Image.MaxVirtual, Web: guard, Stores: stores,
		Locations: a.cfg.Image.Locations})
	if err != nil {
		return err
	}
	a.onStop("image", func(context.Context) error { return s.Close() })
	a.parts.images = s
	if !a.has(Image) {
		return nil
	}
	e, err := a.enforcer("image", imageapi.DefaultRules())
	if err != nil {
		return err
	}
	api, err := imageapi.New(imageapi.Config{Images: s, Auth: a.parts.auth, Policy: e})
	if err != nil {
		return err
	}
	return a.web.mount("image", api)
}

// webGuard says which addresses the image service may read.
func (a *App) webGuard() (imagestore.Guard, error) {
	g := imagestore.Guard{}
	for _, n := range a.cfg.Image.WebNets {
		net, err := netip.ParsePrefix(n)
		if err != nil {
			return g, fmt.Errorf("[image] web_download_networks: %w", err)
		}
		g.Nets = append(g.Nets, net)
	}
	for _, n := range a.cfg.Image.WebPorts {
		port, err := strconv.ParseUint(n, 10, 16)
		if err != nil {
			return g, fmt.Errorf("[image] web_download_ports: %w", err)
		}
		g.Ports = append(g.Ports, int(port))
	}
	return g, nil
}

// furtherStores opens the image stores beside the default one.
func (a *App) furtherStores() ([]imagestore.Store, error) {
	var out []imagestore.Store
	for _, s := range a.cfg.Image.Stores {
		name, dir, ok := strings.Cut(s, "=")
		if !ok || name == "" || dir == "" || name == "file" || name == "http" || slices.ContainsFunc(out, func(o imagestore.Store) bool { return o.Name() == name }) {
			return nil, fmt.Errorf("[image] further_stores: %q is no NAME=DIRECTORY with a name of its own", s)
		}
		f, err := imagestore.NewFile(name, dir)
		if err != nil {
			return nil, fmt.Errorf("[image] further_stores: %w", err)
		}
		a.onStop("image store "+name, func(context.Context) error { return f.Close() })
		out = append(out, f)
	}
	return out, nil
}

func (a *App) startNetwork(ctx context.Context) error {
	ranges, err := vniRanges(a.cfg.Network.VNIs)
	if err != nil {
		return err
	}
	vlans, err := vlanRanges(a.cfg.Network.VLANs)
	if err != nil {
		return err
	}
	if t := a.cfg.Network.Type; t != networklocal.TypeVXLAN && t != networklocal.TypeLocal {
		return fmt.Errorf("[network] tenant_network_types is %q: only vxlan and local are there", t)
	}
	s, err := networklocal.New(ctx, networklocal.Config{DB: a.db, Bus: a.bus, DefaultMTU: a.cfg.Network.MTU, DNSDomain: a.cfg.Network.DNSDomain,
		TenantType: a.cfg.Network.Type, VNIs: ranges, VLANs: vlans})
	if err != nil {
		return err
	}
	a.onStop("network", func(context.Context) error { return s.Close() })
	a.parts.network = s
	if !a.has(Network) {
		return nil
	}
	e, err := a.enforcer("network", networkapi.Rules())
	if err != nil {
		return err
	}
	return a.web.mount("network", networkapi.New(networkapi.Config{Service: s, Auth: a.parts.auth, Policy: e}))
}

// idRange reads FIRST:LAST, within 1 and most.
func idRange(text string, most int) (r segments.Range, ok bool) {
	first, last, _ := strings.Cut(text, ":")
	var e1, e2 error
	r.First, e1 = strconv.Atoi(first)
	r.Last, e2 = strconv.Atoi(last)
	return r, e1 == nil && e2 == nil && r.First >= 1 && r.First <= r.Last && r.Last <= most
}

// vniRanges reads FIRST:LAST texts.
func vniRanges(texts []string) (out []segments.Range, err error) {
	for _, text := range texts {
		r, ok := idRange(text, segments.MaxVNI)
		if !ok {
			return nil, fmt.Errorf("[network] vni_ranges: %q is not FIRST:LAST within 1:%d", text, segments.MaxVNI)
		}
		out = append(out, r)
	}
	return out, nil
}

// vlanRanges reads PHYSICAL_NETWORK:FIRST:LAST texts.
func vlanRanges(texts []string) (out []segments.VLANs, err error) {
	for _, text := range texts {
		physical, rest, _ := strings.Cut(text, ":")
		r, ok := idRange(rest, segments.MaxVLAN)
		if !ok || physical == "" {
			return nil, fmt.Errorf("[network] vlan_ranges: %q is not PHYSICAL_NETWORK:FIRST:LAST within 1:%d", text, segments.MaxVLAN)
		}
		out = append(out, segments.VLANs{Physical: physical, Range: r})
	}
	return out, nil
}

// placementOptions are the settings of the built-in placement.
func placementOptions(cfg *config.Config) (out placementlocal.Config, err error) {
	p := &cfg.Placement
	out = placementlocal.Config{IncompleteProject: p.Project, IncompleteUser: p.User,
		Search: candidate.Options{Randomize: p.Randomize, Max: max(p.Max, 0), BreadthFirst: p.Strategy == "breadth-first"}}
	if p.Strategy != "breadth-first" && p.Strategy != "depth-first" {
		err = fmt.Errorf("[placement] allocation_candidates_generation_strategy: %q is neither depth-first nor breadth-first", p.Strategy)
	}
	return out, err
}

func (a *App) startPlacement(ctx context.Context) error {
	if a.cfg.Placement.URL != "" && !a.has(Placement) {
		return a.remotePlacement()
	}
	cfg, err := placementOptions(a.cfg)
	if err != nil {
		return err
	}
	cfg.DB = a.db
	s, err := placementlocal.New(ctx, cfg)
	if err != nil {
		return err
	}
	a.parts.placement = s
	a.heap.rests = append(a.heap.rests, s.Rest)
	if !a.has(Placement) {
		return nil
	}
	e, err := a.enforcer("placement", placementapi.Rules())
	if err != nil {
		return err
	}
	api, err := placementapi.New(s, placementapi.Config{Auth: a.parts.auth, Policy: e})
	if err != nil {
		return err
	}
	return a.web.mount("placement", api)
}
