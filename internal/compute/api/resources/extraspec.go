package resources

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/placement"
)

func (a api) flavorOf(r *httpapi.Request) (*compute.Flavor, error) {
	return a.Store.Flavor(r.Context(), a.DB(), r.Path("flavor_id"), visible(r))
}

func (a api) listSpecs(r *httpapi.Request) (*httpapi.Reply, error) {
	f, err := a.flavorOf(r)
	if err != nil {
		return nil, err
	}
	return body(map[string]any{"extra_specs": orEmpty(f.ExtraSpecs)})
}

func (a api) showSpec(r *httpapi.Request) (*httpapi.Reply, error) {
	f, err := a.flavorOf(r)
	if err != nil {
		return nil, err
	}
	v, ok := f.ExtraSpecs[r.Path("id")]
	if !ok {
		return nil, noSpec(f.FlavorID, r.Path("id"))
	}
	return body(map[string]string{r.Path("id"): v})
}

func noSpec(flavor, key string) error {
	return fault.New(fault.NotFound, "Flavor %s has no extra specs with key %s.", flavor, key)
}

func (a api) addSpecs(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Specs map[string]backend.Text `json:"extra_specs"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if err := a.saveSpecs(r, in.Specs); err != nil {
		return nil, err
	}
	return body(map[string]any{"extra_specs": in.Specs})
}

func (a api) setSpec(r *httpapi.Request) (*httpapi.Reply, error) {
	var in map[string]backend.Text
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if _, ok := in[r.Path("id")]; !ok {
		return nil, fault.New(fault.Invalid, "Request body and URI mismatch")
	}
	if err := a.saveSpecs(r, in); err != nil {
		return nil, err
	}
	return body(in)
}

func (a api) saveSpecs(r *httpapi.Request, specs map[string]backend.Text) error {
	if backend.Minor(r) >= 86 {
		for k, v := range specs {
			if err := checkSpec(k, string(v)); err != nil {
				return err
			}
		}
	}
	_, err := a.changeFlavor(r.Context(), r.Path("flavor_id"), func(f *compute.Flavor) error {
		for k, v := range specs {
			f.ExtraSpecs[k] = string(v)
		}
		return nil
	})
	return err
}

func (a api) deleteSpec(r *httpapi.Request) (*httpapi.Reply, error) {
	_, err := a.changeFlavor(r.Context(), r.Path("flavor_id"), func(f *compute.Flavor) error {
		if _, ok := f.ExtraSpecs[r.Path("id")]; !ok {
			return noSpec(f.FlavorID, r.Path("id"))
		}
		delete(f.ExtraSpecs, r.Path("id"))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return empty()
}

// specRule is what a known extra spec may hold.
type specRule struct {
	boolean  bool
	integer  bool
	min, max int64 // of an integer; max 0: none
	of       []string
	like     string
}

func (s specRule) ok(v string) bool {
	switch {
	case s.boolean:
		_, ok := backend.ParseBool(v)
		return ok
	case s.integer:
		n, err := strconv.ParseInt(v, 10, 64)
		return err == nil && n >= s.min && (s.max == 0 || n <= s.max)
	case s.of != nil:
		return slices.Contains(s.of, v)
	case s.like != "":
		return regexp.MustCompile("^(?:" + s.like + ")$").MatchString(v)
	}
	return true
}

var (
	anything = specRule{}
	yesNo    = specRule{boolean: true}
	whole    = specRule{integer: true, min: math.MinInt64}
	natural  = specRule{integer: true}
	positive = specRule{integer: true, min: 1}
	shares   = specRule{of: []string{"custom", "high", "normal", "low"}}
	cpuSet   = specRule{like: `\^?\d+((-\d+)?(,\^?\d+(-\d+)?)?)*`}
	traitUse = specRule{of: []string{"required", "forbidden"}}
)

// knownSpecs are the extra specs that are judged; a key is an expression that the whole name must match. Those of resources, traits and host attributes are in ruleOf. The two
// of physical addresses are the scheduler's, though Nova's own list leaves them out.
var knownSpecs = map[string]specRule{
	`accel:device_profile`:              anything,
	`aggregate_instance_extra_specs:.+`: anything,
	`group_policy`:                      {of: []string{"isolate", "none"}},
	`hide_hypervisor_id`:                yesNo,
	`hw:(boot_menu|cpu_realtime|hide_hypervisor_id|locked_memory|mem_encryption|pmu|vif_multiqueue_enabled|virtio_packed_ring|ephemeral_encryption)`: yesNo,
	`hw:cpu_(sockets|cores|threads|max_sockets|max_cores|max_threads)`:                                                                               positive,
	`hw:cpu_policy`:                    {of: []string{"dedicated", "shared", "mixed"}},
	`hw:cpu_thread_policy`:             {of: []string{"prefer", "isolate", "require"}},
	`hw:cpu_(dedicated|realtime)_mask`: cpuSet,
	`hw:emulator_threads_policy`:       {of: []string{"isolate", "share"}},
	`hw:ephemeral_encryption_format`:   {of: []string{"plain", "luks", "luksv2"}},
	`hw:maxphysaddr_mode`:              {of: []string{"emulate", "passthrough"}},
	`hw:maxphysaddr_bits`:              natural,
	`hw:mem_encryption_model`:          {of: []string{"amd-sev", "amd-sev-es", "amd-sev-snp"}},
	`hw:mem_page_size`:                 {like: `(large|small|any|\d+([kKMGT]i?)?(b|bit|B)?)`},
	`hw:numa_nodes`:                    positive,
	`hw:numa_cpus\.\d+`:                cpuSet,
	`hw:numa_mem\.\d+`:                 positive,
	`hw:pci_numa_affinity_policy`:      {of: []string{"required", "preferred", "legacy", "socket"}},
	`hw:pmem`:                          {like: `([a-zA-Z0-9_]+(,)?)+`},
	`hw:serial_port_count`:             natural,
	`hw:sound_model`:                   {of: []string{"sb16", "es1370", "pcspk", "ac97", "ich6", "ich9", "usb", "virtio"}},
	`hw:tpm_model`:                     {of: []string{"tpm-tis", "tpm-crb"}},
	`hw:tpm_version`:                   {of: []string{"1.2", "2.0"}},
	`hw:tpm_secret_security`:           {of: []string{"user", "host", "deployment"}},
	`hw:usb_model`:                     {of: []string{"none", "nec-xhci", "qemu-xhci"}},
	`hw:redirected_usb_ports`:          {integer: true, max: 15},
	`hw:viommu_model`:                  {of: []string{"auto", "intel", "smmuv3", "virtio"}},
	`hw:watchdog_action`:               {of: []string{"none", "pause", "poweroff", "reset", "disabled"}},
	`hw_rng:allowed`:                   yesNo,
	`hw_rng:rate_(bytes|period)`:       natural,
	`hw_video:ram_max_mb`:              natural,
	`os:secure_boot`:                   {of: []string{"disabled", "required"}},
	`pci_passthrough:alias`:            {like: `[^:]+:\d+(?:\s*,\s*[^:]+:\d+)*`},
	`quota:cpu_(shares|period)`:        natural,
	`quota:cpu_quota`:                  whole,
	`quota:(cpu|memory|disk_io|vif)_(limit|shares_share)`: natural,
	`quota:(cpu|memory|disk_io|vif)_reservation`:          whole,
	`quota:(cpu|memory|disk_io|vif)_shares_level`:         shares,
	`quota:disk_(read|write|total)_(bytes|iops)_sec`:      natural,
	`quota:vif_(inbound|outbound)_(average|burst|peak)`:   natural,
	`vmware:(hw_version|storage_policy)`:                  anything,
}

// plainAttributes are what ComputeCapabilitiesFilter compares of a host, and deepAttributes what it looks into.
const (
	plainAttributes = " id uuid service_id host vcpus memory_mb local_gb vcpus_used memory_mb_used local_gb_used hypervisor_type hypervisor_version hypervisor_hostname free_ram_mb free_disk_gb" +
		" current_workload running_vms disk_available_least host_ip mapped cpu_allocation_ratio ram_allocation_ratio disk_allocation_ratio total_usable_ram_mb total_usable_disk_gb disk_mb_used" +
		" free_disk_mb vcpus_total num_instances num_io_ops failed_builds aggregates cell_uuid updated "
	deepAttributes = " cpu_info metrics stats numa_topology supported_hv_specs pci_device_pools nodename pci_stats supported_instances limits instances "
)

var groupOf = regexp.MustCompile(`^(resources|trait)([a-zA-Z0-9_-]{1,64})?$`)

// ruleOf finds what a key may hold. judged tells whether its namespace is known as a whole, so that a key without a rule is a mistake in it.
func ruleOf(key string) (rule *specRule, judged bool) {
	namespace, name, scoped := strings.Cut(key, ":")
	if m := groupOf.FindStringSubmatch(namespace); scoped && m != nil {
		names, use := placement.StandardClasses, &natural
		if m[1] == "trait" {
			names, use = placement.StandardTraits, &traitUse
		}
		if placement.IsCustom(name) || slices.Contains(names(), name) {
			return use, true
		}
		return nil, true
	}
	if namespace == "capabilities" && scoped {
		attribute, _, _ := strings.Cut(name, ":")
		if strings.Contains(deepAttributes, " "+attribute+" ") || attribute == name && strings.Contains(plainAttributes, " "+name+" ") {
			return &anything, true
		}
		return nil, true
	}
	for pattern, rule := range knownSpecs {
		if regexp.MustCompile("^(?:" + pattern + ")$").MatchString(key) {
			return &rule, true
		}
	}
	switch namespace {
	case "accel", "aggregate_instance_extra_specs", "hw", "hw_rng", "hw_video", "os", "pci_passthrough", "quota", "vmware":
		return nil, scoped
	}
	return nil, false
}

// checkSpec judges one extra spec (from 2.86): a value of a known key, and the key itself in the namespaces that are known as a whole.
func checkSpec(key, value string) error {
	rule, judged := ruleOf(key)
	switch {
	case rule != nil && !rule.ok(value):
		return fault.New(fault.Invalid, "Validation failed; '%s' is not a valid value of the extra spec '%s'.", value, key)
	case rule == nil && judged:
		return fault.New(fault.Invalid, "Validation failed; extra spec '%s' does not appear to be a valid extra spec.", key)
	}
	return nil
}
