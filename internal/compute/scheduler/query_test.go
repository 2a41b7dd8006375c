package scheduler_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"kilonova/internal/compute"
	"kilonova/internal/compute/scheduler"
	"kilonova/internal/fault"
	"kilonova/internal/placement"
)

func flavor(kv ...string) compute.Flavor {
	f := compute.Flavor{Name: "m1.medium", VCPUs: 4, RAMMB: 4096, RootGB: 40, EphemeralGB: 10, SwapMB: 1500, ExtraSpecs: map[string]string{}}
	for i := 0; i < len(kv); i += 2 {
		f.ExtraSpecs[kv[i]] = kv[i+1]
	}
	return f
}

func props(kv ...string) scheduler.Image {
	i := scheduler.Image{ID: "img", DiskFormat: "qcow2", Props: map[string]string{}}
	for k := 0; k < len(kv); k += 2 {
		i.Props[kv[k]] = kv[k+1]
	}
	return i
}

// plainly is the query of a flavor without extras, edited.
func plainly(edit func(q *placement.Query)) placement.Query {
	q := placement.Query{Groups: []placement.Group{{Resources: placement.Resources{"VCPU": 4, "MEMORY_MB": 4096, "DISK_GB": 52}}},
		RootForbidden: []string{"COMPUTE_STATUS_DISABLED"}, Limit: 1000}
	if edit != nil {
		edit(&q)
	}
	return q
}

func root(traits ...string) func(*placement.Query) {
	return func(q *placement.Query) { q.RootRequired = traits }
}

func needs(traits ...string) func(*placement.Query) {
	return func(q *placement.Query) {
		for _, t := range traits {
			q.Groups[0].Required = append(q.Groups[0].Required, []string{t})
		}
	}
}

func TestQueries(t *testing.T) {
	zones := []*scheduler.Aggregate{
		{UUID: "z1b", Metadata: map[string]string{"availability_zone": "z1"}}, {UUID: "z1a", Metadata: map[string]string{"availability_zone": "z1"}},
		{UUID: "z2", Metadata: map[string]string{"availability_zone": "z2"}},
		{UUID: "own", Metadata: map[string]string{"filter_tenant_id7": "p"}}, {UUID: "gold", Metadata: map[string]string{"trait:CUSTOM_GOLD": "required"}},
	}
	on := func(f func(*scheduler.Config)) func(*scheduler.Config) { return f }
	cases := []struct {
		name   string
		config func(*scheduler.Config)
		req    scheduler.Request
		want   []placement.Query
	}{
		{"plain", nil, scheduler.Request{Flavor: flavor()}, []placement.Query{plainly(nil)}},
		{"volume-backed", nil, scheduler.Request{Flavor: flavor(), FromVolume: true}, []placement.Query{plainly(func(q *placement.Query) { q.Groups[0].Resources["DISK_GB"] = 12 })}},
		{"no disk at all", nil, scheduler.Request{Flavor: compute.Flavor{VCPUs: 1, RAMMB: 64}}, []placement.Query{plainly(func(q *placement.Query) {
			q.Groups[0].Resources = placement.Resources{"VCPU": 1, "MEMORY_MB": 64}
		})}},
		{"override and remove", nil, scheduler.Request{Flavor: flavor("resources:VCPU", "0", "resources:CUSTOM_BAREMETAL", "1", "resources:DISK_GB", "0", "resources:MEMORY_MB", "0")},
			[]placement.Query{plainly(func(q *placement.Query) { q.Groups[0].Resources = placement.Resources{"CUSTOM_BAREMETAL": 1} })}},
		{"traits of flavor and image", nil, scheduler.Request{Flavor: flavor("trait:HW_A", "required", "trait:HW_B", "forbidden"), Image: props("trait:HW_C", "required", "trait:HW_A", "required")},
			[]placement.Query{plainly(func(q *placement.Query) { needs("HW_A", "HW_C")(q); q.Groups[0].Forbidden = []string{"HW_B"} })}},
		{"numbered groups", nil, scheduler.Request{Flavor: flavor("resources1:VGPU", "1", "trait1:CUSTOM_X", "required", "resources_N:SRIOV_NET_VF", "2", "group_policy", "isolate")},
			[]placement.Query{plainly(func(q *placement.Query) {
				q.Groups = append(q.Groups, placement.Group{Suffix: "1", Resources: placement.Resources{"VGPU": 1}, Required: [][]string{{"CUSTOM_X"}}},
					placement.Group{Suffix: "_N", Resources: placement.Resources{"SRIOV_NET_VF": 2}})
				q.GroupPolicy = "isolate"
			})}},
		{"everything in numbered groups", nil, scheduler.Request{Flavor: flavor("resources1:VCPU", "2", "resources1:MEMORY_MB", "2048", "resources2:VCPU", "2", "resources2:MEMORY_MB", "2048",
			"group_policy", "isolate")},
			[]placement.Query{plainly(func(q *placement.Query) {
				half := placement.Resources{"VCPU": 2, "MEMORY_MB": 2048}
				q.Groups = []placement.Group{{Resources: placement.Resources{"DISK_GB": 52}}, {Suffix: "1", Resources: half}, {Suffix: "2", Resources: half}}
				q.GroupPolicy = "isolate"
			})}},
		{"TPM without a model", nil, scheduler.Request{Flavor: flavor(), Image: props("hw_tpm_version", "1.2")},
			[]placement.Query{plainly(func(q *placement.Query) {
				needs("COMPUTE_SECURITY_TPM_1_2", "COMPUTE_SECURITY_TPM_TIS")(q)
				root("COMPUTE_SECURITY_TPM_SECRET_SECURITY_USER")(q)
			})}},
		{"zone", nil, scheduler.Request{Flavor: flavor(), Zone: "z1"}, []placement.Query{plainly(func(q *placement.Query) { q.Groups[0].MemberOf = [][]string{{"z1a", "z1b"}} })}},
		{"default zone", nil, scheduler.Request{Flavor: flavor(), Zone: "nova"}, []placement.Query{plainly(func(q *placement.Query) { q.Groups[0].NotMemberOf = []string{"z1a", "z1b", "z2"} })}},
		{"tenant and zone", on(func(c *scheduler.Config) { c.LimitTenantsToPlacementAggregate = true }), scheduler.Request{Flavor: flavor(), ProjectID: "p", Zone: "z2"},
			[]placement.Query{plainly(func(q *placement.Query) { q.Groups[0].MemberOf = [][]string{{"own"}, {"z2"}} })}},
		{"tenant without aggregate", on(func(c *scheduler.Config) { c.LimitTenantsToPlacementAggregate = true }), scheduler.Request{Flavor: flavor(), ProjectID: "q"},
			[]placement.Query{plainly(nil)}},
		{"image type", on(func(c *scheduler.Config) { c.QueryPlacementForImageTypeSupport = true }), scheduler.Request{Flavor: flavor(), Image: props()},
			[]placement.Query{plainly(root("COMPUTE_IMAGE_TYPE_QCOW2"))}},
		{"isolated aggregates", on(func(c *scheduler.Config) { c.EnableIsolatedAggregateFiltering = true }), scheduler.Request{Flavor: flavor()},
			[]placement.Query{plainly(func(q *placement.Query) { q.Groups[0].NotMemberOf = []string{"gold"} })}},
		{"isolated aggregate asked for", on(func(c *scheduler.Config) { c.EnableIsolatedAggregateFiltering = true }), scheduler.Request{Flavor: flavor("trait:CUSTOM_GOLD", "required")},
			[]placement.Query{plainly(needs("CUSTOM_GOLD"))}},
		{"image metadata", on(func(c *scheduler.Config) { c.ImageMetadataPrefilter = true }),
			scheduler.Request{Flavor: flavor(), Image: props("hw_disk_bus", "virtio", "hw_vif_model", "spapr-vlan", "hw_architecture", "x86_64")},
			[]placement.Query{plainly(root("COMPUTE_NET_VIF_MODEL_SPAPR_VLAN", "COMPUTE_STORAGE_BUS_VIRTIO", "HW_ARCH_X86_64"))}},
		{"accelerators", nil, scheduler.Request{Flavor: flavor("accel:device_profile", "x")}, []placement.Query{plainly(root("COMPUTE_ACCELERATORS"))}},
		{"packed virtqueues", nil, scheduler.Request{Flavor: flavor(), Image: props("hw_virtio_packed_ring", "true")}, []placement.Query{plainly(root("COMPUTE_NET_VIRTIO_PACKED"))}},
		{"routed networks", on(func(c *scheduler.Config) { c.QueryPlacementForRoutedNetworkAggregate = true }),
			scheduler.Request{Flavor: flavor(), Ports: []scheduler.Port{{Aggregates: []string{"s1", "s2"}, Segments: true}, {}}},
			[]placement.Query{plainly(func(q *placement.Query) { q.Groups[0].MemberOf = [][]string{{"s1", "s2"}} })}},
		{"remote-managed port", nil, scheduler.Request{Flavor: flavor(), Ports: []scheduler.Port{{VNICType: "remote-managed"}}}, []placement.Query{plainly(root("COMPUTE_REMOTE_MANAGED_PORTS"))}},
		{"ephemeral encryption", nil, scheduler.Request{Flavor: flavor("hw:ephemeral_encryption", "true", "hw:ephemeral_encryption_format", "luks")},
			[]placement.Query{plainly(root("COMPUTE_EPHEMERAL_ENCRYPTION", "COMPUTE_EPHEMERAL_ENCRYPTION_LUKS"))}},
		{"virtio sound", nil, scheduler.Request{Flavor: flavor("hw:sound_model", "virtio")}, []placement.Query{plainly(root("COMPUTE_SOUND_MODEL_VIRTIO"))}},
		{"TPM", nil, scheduler.Request{Flavor: flavor("hw:tpm_version", "2.0", "hw:tpm_model", "tpm-crb", "hw:tpm_secret_security", "host")},
			[]placement.Query{plainly(func(q *placement.Query) {
				needs("COMPUTE_SECURITY_TPM_2_0", "COMPUTE_SECURITY_TPM_CRB")(q)
				root("COMPUTE_SECURITY_TPM_SECRET_SECURITY_HOST")(q)
			})}},
		{"owner", on(func(c *scheduler.Config) { c.OwnerTraitFromAllComputes = true }), scheduler.Request{Flavor: flavor()}, []placement.Query{plainly(root("OWNER_NOVA"))}},
		{"memory encryption", nil, scheduler.Request{Flavor: flavor("hw:mem_encryption", "yes", "hw:mem_encryption_model", "amd-sev-es")},
			[]placement.Query{plainly(func(q *placement.Query) {
				q.Groups[0].Resources["MEM_ENCRYPTION_CONTEXT"] = 1
				needs("HW_CPU_X86_AMD_SEV_ES")(q)
			})}},
		{"persistent memory", nil, scheduler.Request{Flavor: flavor("hw:pmem", "6GB,6GB,x")},
			[]placement.Query{plainly(func(q *placement.Query) {
				q.Groups[0].Resources["CUSTOM_PMEM_NAMESPACE_6GB"], q.Groups[0].Resources["CUSTOM_PMEM_NAMESPACE_X"] = 2, 1
			})}},
		{"secure boot, socket affinity, address width, stateless firmware", nil,
			scheduler.Request{Flavor: flavor("os:secure_boot", "required", "hw:pci_numa_affinity_policy", "socket", "hw:maxphysaddr_mode", "emulate"), Image: props("hw_firmware_stateless", "true")},
			[]placement.Query{plainly(needs("COMPUTE_SECURITY_UEFI_SECURE_BOOT", "COMPUTE_SOCKET_PCI_NUMA_AFFINITY", "COMPUTE_ADDRESS_SPACE_EMULATED", "COMPUTE_SECURITY_STATELESS_FIRMWARE"))}},
		{"pinned", nil, scheduler.Request{Flavor: flavor("hw:cpu_policy", "dedicated", "hw:emulator_threads_policy", "isolate", "hw:cpu_thread_policy", "require")},
			[]placement.Query{
				plainly(func(q *placement.Query) {
					q.Groups[0].Resources = placement.Resources{"PCPU": 5, "MEMORY_MB": 4096, "DISK_GB": 52}
					needs("HW_CPU_HYPERTHREADING")(q)
				}),
				plainly(func(q *placement.Query) { q.Groups[0].Resources["VCPU"] = 5 })}},
		{"pinned without the second query", on(func(c *scheduler.Config) { c.DisableFallbackPCPUQuery = true }), scheduler.Request{Flavor: flavor("hw:cpu_policy", "dedicated", "hw:cpu_thread_policy", "isolate")},
			[]placement.Query{plainly(func(q *placement.Query) {
				q.Groups[0].Resources = placement.Resources{"PCPU": 4, "MEMORY_MB": 4096, "DISK_GB": 52}
				q.Groups[0].Forbidden = []string{"HW_CPU_HYPERTHREADING"}
			})}},
		{"mixed", on(func(c *scheduler.Config) { c.DisableFallbackPCPUQuery = true }), scheduler.Request{Flavor: flavor("hw:cpu_policy", "mixed", "hw:cpu_dedicated_mask", "^0-1")},
			[]placement.Query{plainly(func(q *placement.Query) { q.Groups[0].Resources["VCPU"], q.Groups[0].Resources["PCPU"] = 2, 2 })}},
		{"requested host", nil, scheduler.Request{Flavor: flavor(), Host: "h1"}, []placement.Query{plainly(func(q *placement.Query) { q.Groups[0].InTree = "rp-h1" })}},
		{"forced host with several nodes", nil, scheduler.Request{Flavor: flavor(), ForceHost: "many"}, []placement.Query{plainly(func(q *placement.Query) { q.Limit = 0 })}},
		{"hint that needs all hosts", nil, scheduler.Request{Flavor: flavor(), Hints: map[string]any{"same_host": "x"}}, []placement.Query{plainly(func(q *placement.Query) { q.Limit = 0 })}},
		{"groups of ports", nil, scheduler.Request{Flavor: flavor(), Groups: []placement.Group{{Suffix: "port1", Resources: placement.Resources{"NET_BW_EGR_KILOBIT_PER_SEC": 1}},
			{Suffix: "port2", Resources: placement.Resources{"NET_BW_EGR_KILOBIT_PER_SEC": 1}}}, SameSubtree: [][]string{{"port1", "port2"}}},
			[]placement.Query{plainly(func(q *placement.Query) {
				q.Groups = append(q.Groups, placement.Group{Suffix: "port1", Resources: placement.Resources{"NET_BW_EGR_KILOBIT_PER_SEC": 1}},
					placement.Group{Suffix: "port2", Resources: placement.Resources{"NET_BW_EGR_KILOBIT_PER_SEC": 1}})
				q.GroupPolicy, q.SameSubtree = "none", [][]string{{"port1", "port2"}}
			})}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			cfg := scheduler.Defaults()
			if c.config != nil {
				c.config(&cfg)
			}
			provider := func(host, _ string) string {
				if host == "many" {
					return ""
				}
				return "rp-" + host
			}
			got, err := scheduler.Queries(&cfg, &c.req, &scheduler.Cloud{Aggregates: zones, Provider: provider})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got, cmpopts.EquateEmpty()); d != "" {
				t.Fatalf("queries (-want +got):\n%s", d)
			}
		})
	}
}

func TestQueriesThatCannotBe(t *testing.T) {
	cases := []struct {
		name   string
		config func(*scheduler.Config)
		req    scheduler.Request
		kind   fault.Kind
		text   string
	}{
		{"zone that no aggregate is", nil, scheduler.Request{Flavor: flavor(), Zone: "nowhere"}, fault.Internal, "nowhere"},
		{"tenant that no aggregate names", func(c *scheduler.Config) {
			c.LimitTenantsToPlacementAggregate, c.PlacementAggregateRequiredForTenants = true, true
		},
			scheduler.Request{Flavor: flavor(), ProjectID: "p"}, fault.Internal, "filter_tenant_id"},
		{"segments without aggregates", func(c *scheduler.Config) { c.QueryPlacementForRoutedNetworkAggregate = true },
			scheduler.Request{Flavor: flavor(), Ports: []scheduler.Port{{Segments: true}}}, fault.Internal, "segments"},
		{"flavor against image", nil, scheduler.Request{Flavor: flavor("hw:cpu_policy", "shared"), Image: props("hw_cpu_policy", "dedicated")}, fault.Invalid, "hw_cpu_policy"},
		{"amount that is no number", nil, scheduler.Request{Flavor: flavor("resources:VGPU", "one")}, fault.Invalid, "resources:VGPU"},
		{"trait neither required nor forbidden", nil, scheduler.Request{Flavor: flavor("trait:X", "maybe")}, fault.Invalid, "trait:X"},
		{"bad suffix", nil, scheduler.Request{Flavor: flavor("resources$:VGPU", "1")}, fault.Invalid, "suffix"},
		{"bad group policy", nil, scheduler.Request{Flavor: flavor("group_policy", "some")}, fault.Invalid, "group_policy"},
		{"bad encryption model", nil, scheduler.Request{Flavor: flavor("hw:mem_encryption", "1", "hw:mem_encryption_model", "rot13")}, fault.Invalid, "rot13"},
		{"bus that no trait knows", func(c *scheduler.Config) { c.ImageMetadataPrefilter = true }, scheduler.Request{Flavor: flavor(), Image: props("hw_disk_bus", "string")}, fault.Invalid, "hw_disk_bus"},
		{"mixed without mask", nil, scheduler.Request{Flavor: flavor("hw:cpu_policy", "mixed")}, fault.Invalid, "hw:cpu_dedicated_mask"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			cfg := scheduler.Defaults()
			if c.config != nil {
				c.config(&cfg)
			}
			_, err := scheduler.Queries(&cfg, &c.req, &scheduler.Cloud{})
			if fault.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.text) {
				t.Fatalf("got %v", err)
			}
		})
	}
}
