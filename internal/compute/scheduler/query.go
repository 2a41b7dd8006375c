package scheduler

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"kilonova/internal/fault"
	"kilonova/internal/placement"
)

// Cloud is what request filters know of the cloud.
type Cloud struct {
	Aggregates []*Aggregate
	// Provider gives the uuid of the root provider of a host (and node, unless ""); "" when it is unknown or when the host has several nodes.
	Provider func(host, node string) string
}

// builder is a placement query on its way.
type builder struct {
	cfg   *Config
	req   *Request
	cloud *Cloud

	group     placement.Group // the unsuffixed one
	suffixed  map[string]*placement.Group
	policy    string
	required  map[string]bool // traits of the root
	forbidden map[string]bool
}

// Queries gives the questions that placement is asked: the request's own and, for pinned servers, a second one that finds hosts which offer
// only VCPU; their candidates are merged. It fails with fault.Invalid when flavor and image contradict each other, and with NoValidHost's
// kind when a request filter finds that no host can do.
func Queries(c *Config, r *Request, cloud *Cloud) ([]placement.Query, error) {
	b := &builder{cfg: c, req: r, cloud: cloud, group: placement.Group{Resources: placement.Resources{}}, suffixed: map[string]*placement.Group{},
		required: map[string]bool{}, forbidden: map[string]bool{}}
	if err := b.flavor(); err != nil {
		return nil, err
	}
	for _, f := range requestFilters() {
		if err := f.apply(b); err != nil {
			return nil, err
		}
	}
	q, err := b.query()
	if err != nil {
		return nil, err
	}
	out := []placement.Query{q}
	if pinned := q.Groups[0].Resources["PCPU"]; pinned > 0 && !c.DisableFallbackPCPUQuery && r.Spec("resources:PCPU") == "" {
		second := q
		second.Groups = slices.Clone(q.Groups)
		second.Groups[0].Resources = maps.Clone(q.Groups[0].Resources)
		delete(second.Groups[0].Resources, "PCPU")
		second.Groups[0].Resources["VCPU"] += pinned
		second.Groups[0].Required = slices.DeleteFunc(slices.Clone(q.Groups[0].Required), func(t []string) bool { return t[0] == "HW_CPU_HYPERTHREADING" })
		second.Groups[0].Forbidden = slices.DeleteFunc(slices.Clone(q.Groups[0].Forbidden), func(t string) bool { return t == "HW_CPU_HYPERTHREADING" })
		out = append(out, second)
	}
	return out, nil
}

// query puts the parts together.
func (b *builder) query() (placement.Query, error) {
	r := b.req
	for class, n := range b.group.Resources {
		if n <= 0 {
			delete(b.group.Resources, class)
		}
	}
	q := placement.Query{GroupPolicy: b.policy, RootRequired: slices.Sorted(maps.Keys(b.required)), RootForbidden: slices.Sorted(maps.Keys(b.forbidden)),
		SameSubtree: r.SameSubtree, Limit: b.cfg.MaxPlacementResults}
	for _, t := range q.RootRequired {
		if b.forbidden[t] {
			return q, fault.New(fault.Invalid, "The trait %s is both required and forbidden by the flavor, the image or a request filter.", t)
		}
	}
	if r.Hints["group"] != nil || r.Hints["same_host"] != nil || r.Hints["different_host"] != nil || r.Group != nil {
		q.Limit = 0
	}
	if host, node := first(r.ForceHost, r.Host), first(r.ForceNode, r.Node); host != "" || node != "" {
		uuid := ""
		if b.cloud.Provider != nil {
			uuid = b.cloud.Provider(host, node)
		}
		if uuid != "" {
			b.group.InTree = uuid
		} else {
			q.Limit = 0
		}
	}
	q.Groups = append(q.Groups, b.group)
	for _, s := range slices.Sorted(maps.Keys(b.suffixed)) {
		g := b.suffixed[s]
		for class, n := range g.Resources {
			if n <= 0 {
				delete(g.Resources, class)
			}
		}
		q.Groups = append(q.Groups, *g)
	}
	q.Groups = append(append(q.Groups, r.Groups...), r.deviceGroups()...)
	if len(q.Groups) > 2 && q.GroupPolicy == "" {
		q.GroupPolicy = "none"
	}
	return q, nil
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// flavor reads the flavor and the image into groups. What extra specs name in any group, even as 0, replaces the flavor's own vCPUs, memory or disk.
func (b *builder) flavor() error {
	r, res := b.req, b.group.Resources
	for _, key := range slices.Sorted(maps.Keys(r.Flavor.ExtraSpecs)) {
		if err := b.extra(key, r.Flavor.ExtraSpecs[key]); err != nil {
			return err
		}
	}
	if !b.named("VCPU") && !b.named("PCPU") {
		if err := b.cpus(); err != nil {
			return err
		}
	}
	if !b.named("MEMORY_MB") {
		res["MEMORY_MB"] = r.Flavor.RAMMB
	}
	if !b.named("DISK_GB") {
		res["DISK_GB"] = r.DiskGB()
	}
	for _, key := range slices.Sorted(maps.Keys(r.Image.Props)) {
		if t, ok := strings.CutPrefix(key, "trait:"); ok && r.Image.Props[key] == "required" {
			addTrait(&b.group, t)
		}
	}
	return b.abilities()
}

// named tells whether the flavor's extra specs ask for a class in some group.
func (b *builder) named(class string) bool {
	if _, ok := b.group.Resources[class]; ok {
		return true
	}
	for _, g := range b.suffixed {
		if _, ok := g.Resources[class]; ok {
			return true
		}
	}
	return false
}

// extra reads resourcesS:CLASS, traitS:NAME and group_policy.
func (b *builder) extra(key, value string) error {
	if key == "group_policy" {
		if value != "none" && value != "isolate" {
			return fault.New(fault.Invalid, "The flavor's group_policy must be none or isolate, not %s.", value)
		}
		b.policy = value
		return nil
	}
	scope, name, ok := strings.Cut(key, ":")
	if !ok {
		return nil
	}
	if suffix, ok := strings.CutPrefix(scope, "resources"); ok {
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < 0 {
			return fault.New(fault.Invalid, "The flavor's extra spec %s must be a number that is not negative.", key)
		}
		g, err := b.at(suffix, key)
		if err != nil {
			return err
		}
		g.Resources[name] = n
	}
	if suffix, ok := strings.CutPrefix(scope, "trait"); ok {
		g, err := b.at(suffix, key)
		if err != nil {
			return err
		}
		switch value {
		case "required":
			addTrait(g, name)
		case "forbidden":
			if !slices.Contains(g.Forbidden, name) {
				g.Forbidden = append(g.Forbidden, name)
			}
		default:
			return fault.New(fault.Invalid, "The flavor's extra spec %s must be required or forbidden.", key)
		}
	}
	return nil
}

func addTrait(g *placement.Group, t string) {
	for _, choice := range g.Required {
		if len(choice) == 1 && choice[0] == t {
			return
		}
	}
	g.Required = append(g.Required, []string{t})
}

func (b *builder) at(suffix, key string) (*placement.Group, error) {
	if suffix == "" {
		return &b.group, nil
	}
	if !placement.IsSuffix(suffix) {
		return nil, fault.New(fault.Invalid, "The flavor's extra spec %s has a bad suffix: it is 1 to 64 of a-z, A-Z, 0-9, _ and -.", key)
	}
	g := b.suffixed[suffix]
	if g == nil {
		g = &placement.Group{Suffix: suffix, Resources: placement.Resources{}}
		b.suffixed[suffix] = g
	}
	return g, nil
}

// cpus splits the vCPUs into VCPU and PCPU by the CPU policy.
func (b *builder) cpus() error {
	r, res := b.req, b.group.Resources
	p, err := cpuPolicyOf(r)
	if err != nil {
		return err
	}
	pinned := p.pinned
	res["VCPU"] = int64(r.Flavor.VCPUs - len(pinned))
	if len(pinned) == 0 {
		return nil
	}
	res["PCPU"] = int64(len(pinned))
	if p.isolate {
		res["PCPU"]++
	}
	switch p.threads {
	case "require":
		addTrait(&b.group, "HW_CPU_HYPERTHREADING")
	case "isolate":
		if !slices.Contains(b.group.Forbidden, "HW_CPU_HYPERTHREADING") {
			b.group.Forbidden = append(b.group.Forbidden, "HW_CPU_HYPERTHREADING")
		}
	}
	return nil
}

// abilities adds what particular features need of the host.
func (b *builder) abilities() error {
	r := b.req
	if on, _ := r.FlavorOrImage("mem_encryption"); True(on) {
		model, _ := r.FlavorOrImage("mem_encryption_model")
		trait := map[string]string{"": "HW_CPU_X86_AMD_SEV", "amd-sev": "HW_CPU_X86_AMD_SEV", "amd-sev-es": "HW_CPU_X86_AMD_SEV_ES", "amd-sev-snp": "HW_CPU_X86_AMD_SEV_SNP"}[model]
		if trait == "" {
			return fault.New(fault.Invalid, "The memory encryption model %s is none of amd-sev, amd-sev-es, amd-sev-snp.", model)
		}
		b.group.Resources["MEM_ENCRYPTION_CONTEXT"] = 1
		addTrait(&b.group, trait)
	}
	for label := range strings.SplitSeq(r.Spec("hw:pmem"), ",") {
		if label = strings.TrimSpace(label); label != "" {
			b.group.Resources[placement.CustomName("PMEM_NAMESPACE_"+label)]++
		}
	}
	if version, model := b.tpm(); version != "" {
		addTrait(&b.group, "COMPUTE_SECURITY_TPM_"+strings.ReplaceAll(version, ".", "_"))
		if model == "" {
			model = "tpm-tis"
		}
		addTrait(&b.group, "COMPUTE_SECURITY_TPM_"+strings.ToUpper(strings.TrimPrefix(model, "tpm-")))
	}
	if r.Spec("os:secure_boot") == "required" || r.Prop("os_secure_boot") == "required" {
		addTrait(&b.group, "COMPUTE_SECURITY_UEFI_SECURE_BOOT")
	}
	if affinity, _ := r.FlavorOrImage("pci_numa_affinity_policy"); affinity == "socket" {
		addTrait(&b.group, "COMPUTE_SOCKET_PCI_NUMA_AFFINITY")
	}
	switch mode, _ := r.FlavorOrImage("maxphysaddr_mode"); mode {
	case "passthrough":
		addTrait(&b.group, "COMPUTE_ADDRESS_SPACE_PASSTHROUGH")
	case "emulate":
		addTrait(&b.group, "COMPUTE_ADDRESS_SPACE_EMULATED")
	}
	if True(r.Prop("hw_firmware_stateless")) {
		addTrait(&b.group, "COMPUTE_SECURITY_STATELESS_FIRMWARE")
	}
	return nil
}

// tpm gives what is asked of an emulated TPM; the version alone asks for one.
func (b *builder) tpm() (version, model string) {
	version, _ = b.req.FlavorOrImage("tpm_version")
	model, _ = b.req.FlavorOrImage("tpm_model")
	return version, model
}
