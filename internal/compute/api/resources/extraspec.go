package resources

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
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
	natural  = specRule{integer: true}
	positive = specRule{integer: true, min: 1}
)

// knownSpecs are the extra specs of the namespaces that are judged; a key is an expression that the whole name must match.
var knownSpecs = map[string]specRule{
	`accel:device_profile`:              anything,
	`aggregate_instance_extra_specs:.+`: anything,
	`capabilities:.+`:                   anything,
	`group_policy`:                      {of: []string{"isolate", "none"}},
	`hide_hypervisor_id`:                yesNo,
	`hw:boot_menu`:                      yesNo,
	`hw:cpu_(sockets|cores|threads|max_sockets|max_cores|max_threads)`: positive,
	`hw:cpu_policy`:                              {of: []string{"dedicated", "shared", "mixed"}},
	`hw:cpu_thread_policy`:                       {of: []string{"prefer", "isolate", "require"}},
	`hw:cpu_dedicated_mask`:                      {like: `\^?\d+((-\d+)?(,\^?\d+(-\d+)?)?)*`},
	`hw:cpu_realtime`:                            yesNo,
	`hw:cpu_realtime_mask`:                       {like: `\^?\d+((-\d+)?(,\^?\d+(-\d+)?)?)*`},
	`hw:emulator_threads_policy`:                 {of: []string{"isolate", "share"}},
	`hw:hide_hypervisor_id`:                      yesNo,
	`hw:input_bus`:                               {of: []string{"usb", "virtio"}},
	`hw:locked_memory`:                           yesNo,
	`hw:live_migration_.+`:                       anything,
	`hw:maxphysaddr_mode`:                        {of: []string{"emulate", "passthrough"}},
	`hw:maxphysaddr_bits`:                        natural,
	`hw:mem_encryption`:                          yesNo,
	`hw:mem_encryption_model`:                    {of: []string{"amd-sev", "amd-sev-es"}},
	`hw:mem_page_size`:                           {like: `(large|small|any|\d+([kKMGT]i?)?(b|bit|B)?)`},
	`hw:numa_nodes`:                              positive,
	`hw:numa_cpus\.\d+`:                          {like: `\d+((-\d+)?(,\d+(-\d+)?)?)*`},
	`hw:numa_mem\.\d+`:                           positive,
	`hw:pci_numa_affinity_policy`:                {of: []string{"required", "preferred", "legacy", "socket"}},
	`hw:pmem`:                                    anything,
	`hw:pmu`:                                     yesNo,
	`hw:serial_port_count`:                       natural,
	`hw:sound_model`:                             {of: []string{"sb16", "es1370", "pcspk", "ac97", "ich6", "ich9", "usb", "virtio"}},
	`hw:tpm_model`:                               {of: []string{"tpm-tis", "tpm-crb"}},
	`hw:tpm_version`:                             {of: []string{"1.2", "2.0"}},
	`hw:tpm_secret_security`:                     {of: []string{"user", "host", "deployment"}},
	`hw:usb_model`:                               anything,
	`hw:redirected_usb_ports`:                    {integer: true, max: 15},
	`hw:vif_multiqueue_enabled`:                  yesNo,
	`hw:viommu_model`:                            {of: []string{"auto", "intel", "smmuv3", "virtio"}},
	`hw:virtio_packed_ring`:                      yesNo,
	`hw:watchdog_action`:                         {of: []string{"none", "pause", "poweroff", "reset", "disabled"}},
	`hw:firmware_stateless`:                      yesNo,
	`hw_rng:allowed`:                             yesNo,
	`hw_rng:rate_bytes`:                          natural,
	`hw_rng:rate_period`:                         natural,
	`hw_video:ram_max_mb`:                        natural,
	`os:secure_boot`:                             {of: []string{"disabled", "required"}},
	`os:monitors`:                                natural,
	`pci_passthrough:alias`:                      {like: `[^:]+:[1-9]\d*(,[^:]+:[1-9]\d*)*`},
	`powervm:.+`:                                 anything,
	`quota:cpu_shares`:                           natural,
	`quota:cpu_shares_level`:                     {of: []string{"custom", "high", "normal", "low"}},
	`quota:cpu_(period|quota|limit|reservation)`: specRule{integer: true, min: -1},
	`quota:(disk_io|memory|vif)_(limit|reservation|shares_share)`:       natural,
	`quota:(disk_io|memory|vif)_shares_level`:                           {of: []string{"custom", "high", "normal", "low"}},
	`quota:disk_(read|write|total)_(bytes|iops)_sec(_max|_max_length)?`: natural,
	`quota:vif_(inbound|outbound)_(average|burst|peak)`:                 natural,
	`resources[a-zA-Z0-9_-]{0,64}:(CUSTOM_)?[A-Z0-9_]+`:                 natural,
	`trait[a-zA-Z0-9_-]{0,64}:[A-Z0-9_]+`:                               {of: []string{"required", "forbidden"}},
	`vmware:.+`:                                                         anything,
}

// judgedNamespaces are the namespaces in which an unknown key is a mistake.
var judgedNamespaces = []string{"accel", "hw", "hw_rng", "hw_video", "os", "pci_passthrough", "quota", "resources", "trait"}

// checkSpec judges one extra spec (from 2.86): a value of a known key, and the key itself in the namespaces that are known as a whole.
func checkSpec(key, value string) error {
	for pattern, rule := range knownSpecs {
		if !regexp.MustCompile("^(?:" + pattern + ")$").MatchString(key) {
			continue
		}
		if !rule.ok(value) {
			return fault.New(fault.Invalid, "Validation failed; '%s' is not a valid value of the extra spec '%s'.", value, key)
		}
		return nil
	}
	ns, _, has := strings.Cut(key, ":")
	if has && slices.Contains(judgedNamespaces, ns) {
		return fault.New(fault.Invalid, "Validation failed; extra spec '%s' does not appear to be a valid extra spec.", key)
	}
	return nil
}
