package api

import (
	"strconv"
	"strings"

	"github.com/google/go-cmp/cmp"
)

// use is how a published body is sent or answered here.
type use struct {
	first, last int // versions whose shape it has
	// build makes the things that the body names, in a cloud of its own.
	build  func(c *cloud)
	method string
	path   string
	body   any  // what is sent with it, when the sample is an answer
	sent   bool // the sample is the request
	status int  // of the answer; 200 when zero
	// check looks, after the answer, whether what a request asked for is there.
	check func(c *cloud, sent any)
	// alike is why this cloud cannot have the values of the sample: then keys and types are compared.
	alike string
	// amend puts what the service demands in the place of what it cannot take, with the reason.
	amend  func(doc any)
	reason string
}

const (
	sampleParent = "542df8ed-9be2-49b9-b4db-6d3183ff8ec8"
	sampleDisk   = "a99bad54-a275-4c4f-a8a3-ac00d57e5c64"
	sampleHost1  = "35791f28-fb45-4717-9ea9-435b3ef7c3b3"
	sampleHost2  = "915ef8ed-9b91-4e38-8802-2e4224ad54cd"
	sampleNIC    = "f5120cad-67d9-4f20-9210-3092a79a28cf"
)

// provider makes a provider, under a parent if one is named.
func (c *cloud) provider(uuid, name, parent string) {
	c.t.Helper()
	body := o{"name": name, "uuid": uuid}
	if parent != "" {
		body["parent_provider_uuid"] = parent
	}
	c.must(200, "POST", "/resource_providers", body)
}

func (c *cloud) generation(uuid string) int {
	c.t.Helper()
	return int(c.must(200, "GET", "/resource_providers/"+uuid, nil).body["generation"].(float64))
}

func (c *cloud) stock(uuid string, inventories o) {
	c.t.Helper()
	c.must(200, "PUT", "/resource_providers/"+uuid+"/inventories", o{"resource_provider_generation": c.generation(uuid), "inventories": inventories})
}

func (c *cloud) trait(uuid string, traits ...string) {
	c.t.Helper()
	for _, n := range traits {
		if strings.HasPrefix(n, "CUSTOM_") {
			if a := c.do("PUT", "/traits/"+n, nil); a.status != 201 && a.status != 204 {
				c.t.Fatalf("trait %s: %d %s", n, a.status, a.text)
			}
		}
	}
	if uuid != "" {
		c.must(200, "PUT", "/resource_providers/"+uuid+"/traits", o{"resource_provider_generation": c.generation(uuid), "traits": traits})
	}
}

func (c *cloud) member(uuid string, aggregates ...string) {
	c.t.Helper()
	c.must(200, "PUT", "/resource_providers/"+uuid+"/aggregates", o{"resource_provider_generation": c.generation(uuid), "aggregates": aggregates})
}

// reach changes a provider until it has the generation that a sample knows.
func (c *cloud) reach(uuid string, generation int) {
	c.t.Helper()
	for g := c.generation(uuid); g < generation; g = c.generation(uuid) {
		inventories := c.must(200, "GET", "/resource_providers/"+uuid+"/inventories", nil).body["inventories"]
		c.must(200, "PUT", "/resource_providers/"+uuid+"/inventories", o{"resource_provider_generation": g, "inventories": inventories})
	}
	if g := c.generation(uuid); g != generation {
		c.t.Fatalf("the generation of %s is %d, the sample wants %d", uuid, g, generation)
	}
}

// consume gives a consumer its allocations.
func (c *cloud) consume(consumer, project, user, kind string, allocations o) {
	c.t.Helper()
	c.must(204, "PUT", "/allocations/"+consumer, o{"allocations": allocations, "project_id": project, "user_id": user, "consumer_generation": nil, "consumer_type": kind})
}

func allocated(resources o) o { return o{"resources": resources} }

// plenty is an inventory from which every sample can take.
func plenty() o {
	return o{"VCPU": o{"total": 100}, "MEMORY_MB": o{"total": 100000}, "DISK_GB": o{"total": 10000}}
}

// uses says of every sample how it is sent or answered.
func uses() map[string]use {
	rp := "/resource_providers/" + hostA
	aggregates := []string{"42896e0d-205d-4fe3-bd1e-100924931787", "5e08ea53-c4c6-448e-9334-ac4953de3cfa"}
	out := map[string]use{}

	host := func(generation int) func(*cloud) {
		return func(c *cloud) { c.provider(hostA, "a", ""); c.reach(hostA, generation) }
	}
	grouped := func(generation int) func(*cloud) {
		return func(c *cloud) { c.provider(hostA, "a", ""); c.member(hostA, aggregates...); c.reach(hostA, generation) }
	}
	isMember := func(c *cloud, _ any) {
		got := c.must(200, "GET", rp+"/aggregates", nil).body["aggregates"]
		if d := cmp.Diff(normal(any([]any{aggregates[0], aggregates[1]})), normal(got)); d != "" {
			c.t.Errorf("aggregates (-sent +there):\n%s", d)
		}
	}
	out["aggregates/get-aggregates"] = use{first: 1, last: 18, build: grouped(8), method: "GET", path: rp + "/aggregates"}
	out["aggregates/get-aggregates-1.19"] = use{last: newest, build: grouped(8), method: "GET", path: rp + "/aggregates"}
	out["aggregates/update-aggregates-request"] = use{first: 1, last: 18, build: host(0), method: "PUT", path: rp + "/aggregates", sent: true, check: isMember}
	out["aggregates/update-aggregates-request-1.19"] = use{last: newest, build: host(9), method: "PUT", path: rp + "/aggregates", sent: true, check: isMember}
	out["aggregates/update-aggregates"] = use{first: 1, last: 18, build: host(0), method: "PUT", path: rp + "/aggregates", body: aggregates}
	out["aggregates/update-aggregates-1.19"] = use{last: newest, build: host(8), method: "PUT", path: rp + "/aggregates", body: o{"aggregates": aggregates, "resource_provider_generation": 8}}

	inventory := o{"DISK_GB": o{"total": 35, "max_unit": 35}, "MEMORY_MB": o{"allocation_ratio": 1.5, "total": 5825, "max_unit": 5825, "reserved": 512}, "VCPU": o{"allocation_ratio": 16.0, "total": 4, "max_unit": 4}}
	stocked := func(generation int) func(*cloud) {
		return func(c *cloud) { c.provider(hostA, "a", ""); c.stock(hostA, inventory); c.reach(hostA, generation) }
	}
	out["inventories/get-inventories"] = use{last: newest, build: stocked(7), method: "GET", path: rp + "/inventories"}
	out["inventories/get-inventory"] = use{last: newest, build: stocked(9), method: "GET", path: rp + "/inventories/VCPU"}
	out["inventories/update-inventories-request"] = use{last: newest, build: host(1), method: "PUT", path: rp + "/inventories", sent: true,
		check: func(c *cloud, sent any) {
			got := c.must(200, "GET", rp+"/inventories", nil).body
			if dig(got, "inventories", "MEMORY_MB", "step_size") != 4.0 || dig(got, "inventories", "VCPU", "reserved") != 2.0 {
				c.t.Errorf("inventories: %v", got)
			}
		}}
	out["inventories/update-inventories"] = use{last: newest, build: host(1), method: "PUT", path: rp + "/inventories", body: o{"resource_provider_generation": 1,
		"inventories": o{"MEMORY_MB": o{"allocation_ratio": 2.0, "max_unit": 16, "step_size": 4, "total": 128}, "VCPU": o{"allocation_ratio": 10.0, "reserved": 2, "total": 64}}}}
	out["inventories/update-inventory-request"] = use{last: newest, build: stocked(7), method: "PUT", path: rp + "/inventories/VCPU", sent: true,
		check: func(c *cloud, _ any) {
			if got := c.must(200, "GET", rp+"/inventories/VCPU", nil).body; got["total"] != 50.0 {
				c.t.Errorf("inventory: %v", got)
			}
		}}
	out["inventories/update-inventory"] = use{last: newest, build: stocked(7), method: "PUT", path: rp + "/inventories/VCPU", body: o{"resource_provider_generation": 7, "total": 50}}

	custom := func(c *cloud) { c.must(201, "PUT", "/resource_classes/CUSTOM_FPGA", nil) }
	isClass := func(name string) func(*cloud, any) {
		return func(c *cloud, _ any) { c.must(200, "GET", "/resource_classes/"+name, nil) }
	}
	out["resource_classes/get-resource_classes"] = use{first: 2, last: newest, method: "GET", path: "/resource_classes", alike: "the list has grown since the sample was written"}
	out["resource_classes/get-resource_class"] = use{first: 2, last: newest, build: custom, method: "GET", path: "/resource_classes/CUSTOM_FPGA"}
	out["resource_classes/create-resource_classes-request"] = use{first: 2, last: newest, method: "POST", path: "/resource_classes", sent: true, status: 201, check: isClass("CUSTOM_FPGA")}
	out["resource_classes/update-resource_class-request"] = use{first: 2, last: 6, build: custom, method: "PUT", path: "/resource_classes/CUSTOM_FPGA", sent: true, check: isClass("CUSTOM_FPGA_V2")}
	out["resource_classes/update-resource_class"] = use{first: 2, last: 6, build: custom, method: "PUT", path: "/resource_classes/CUSTOM_FPGA", body: o{"name": "CUSTOM_FPGA_V2"}}

	const classes = "CUSTOM_HW_FPGA_CLASS"
	two := []string{classes + "1", classes + "3"}
	known := func(c *cloud) { c.provider(hostA, "a", ""); c.trait("", two...) }
	out["traits/get-traits"] = use{first: 6, last: newest, build: func(c *cloud) { c.trait("", classes+"1", classes+"2", classes+"3") }, method: "GET", path: "/traits?name=startswith:CUSTOM_"}
	out["resource_provider_traits/get-resource_provider-traits"] = use{first: 6, last: newest, build: func(c *cloud) { c.provider(hostA, "a", ""); c.trait(hostA, two...) }, method: "GET", path: rp + "/traits"}
	out["resource_provider_traits/update-resource_provider-traits-request"] = use{first: 6, last: newest, build: known, method: "PUT", path: rp + "/traits", sent: true,
		check: func(c *cloud, sent any) {
			if d := cmp.Diff(normal(dig(sent, "traits")), normal(any(c.must(200, "GET", rp+"/traits", nil).body["traits"]))); d != "" {
				c.t.Errorf("traits (-sent +there):\n%s", d)
			}
		}}
	out["resource_provider_traits/update-resource_provider-traits"] = use{first: 6, last: newest, build: known, method: "PUT", path: rp + "/traits", body: o{"resource_provider_generation": 0, "traits": two}}

	addProviderUses(out)
	addAllocationUses(out)
	addCandidateUses(out)
	out["root/get-root"] = use{last: newest, method: "GET", path: "/", alike: "the sample's newest version is 1.28"}
	return out
}

func addProviderUses(out map[string]use) {
	const (
		pool, share, shared, root = "3b4005be-d64b-456f-ba36-0ffd02718868", "7d2590ae-fb85-4080-9306-058b4c915e3f", "33f26ae0-dbf2-485b-a24a-244d8280e29f", "d0b381e9-8761-42de-8e6c-bba99a96d5f5"
		listed                    = "99c09379-6e52-4ef8-9a95-b9ce6f68452e"
	)
	parent := func(c *cloud) { c.provider(sampleParent, "parent", "") }
	under := func(c *cloud) {
		c.provider(root, "pony1", "")
		c.provider(sampleParent, "parent", root)
		c.provider(shared, "share", "")
	}
	out["resource_providers/get-resource_provider"] = use{first: 14, last: newest, build: func(c *cloud) { parent(c); c.provider(pool, "Ceph Storage Pool", sampleParent) }, method: "GET", path: "/resource_providers/" + pool}
	out["resource_providers/get-resource_providers"] = use{first: 14, last: newest, method: "GET", path: "/resource_providers", alike: "the sample leaves out the parent that it names",
		build: func(c *cloud) {
			parent(c)
			c.provider(listed, "vgr.localdomain", sampleParent)
			c.provider(root, "pony1", "")
		}}
	// From 1.20 on the same request has an answer with a body: the next entry.
	out["resource_providers/create-resource_providers-request"] = use{first: 14, last: 19, build: parent, method: "POST", path: "/resource_providers", sent: true, status: 201,
		check: func(c *cloud, _ any) {
			if got := c.must(200, "GET", "/resource_providers/"+share, nil).body; got["name"] != "NFS Share" || got["parent_provider_uuid"] != sampleParent {
				c.t.Errorf("provider: %v", got)
			}
		}}
	out["resource_providers/create-resource_provider"] = use{first: 20, last: newest, build: parent, method: "POST", path: "/resource_providers",
		body: o{"name": "NFS Share", "uuid": share, "parent_provider_uuid": sampleParent}}
	out["resource_providers/update-resource_provider-request"] = use{first: 14, last: newest, build: under, method: "PUT", path: "/resource_providers/" + shared, sent: true,
		check: func(c *cloud, _ any) {
			if got := c.must(200, "GET", "/resource_providers/"+shared, nil).body; got["name"] != "Shared storage" || got["root_provider_uuid"] != root {
				c.t.Errorf("provider: %v", got)
			}
		}}
	out["resource_providers/update-resource_provider"] = use{first: 14, last: newest, build: under, method: "PUT", path: "/resource_providers/" + shared,
		body: o{"name": "Shared storage", "parent_provider_uuid": sampleParent}}
}

func addAllocationUses(out map[string]use) {
	const (
		disk, host    = "92637880-2d79-43c6-afab-d860886c6391", "ba8e1ef8-7fa3-41a4-9bb4-d7cb2019899b"
		project, user = "7e67cbf7-7c38-4a32-b85b-0739c690991a", "067f691e-725a-451a-83e2-5c3d13e1dffc"
		rp            = "/resource_providers/" + hostA
	)
	stocked := func(c *cloud, uuids ...string) {
		for _, u := range uuids {
			c.provider(u, u, "")
			c.stock(u, plenty())
		}
	}
	// A write of an allocation raises the generation of its provider: one less before.
	taken := func(c *cloud) {
		stocked(c, disk, host)
		c.reach(disk, 1)
		c.reach(host, 7)
		c.consume(server, project, user, "INSTANCE", o{disk: allocated(o{"DISK_GB": 5}), host: allocated(o{"MEMORY_MB": 512, "VCPU": 2})})
	}
	consumer := "/allocations/" + server
	out["allocations/get-allocations"] = use{first: 12, last: 27, build: taken, method: "GET", path: consumer}
	out["allocations/get-allocations-1.28"] = use{last: 37, build: taken, method: "GET", path: consumer}
	out["allocations/get-allocations-1.38"] = use{last: newest, build: taken, method: "GET", path: consumer}

	// The request samples of a consumer's generation 1 replace what it had.
	const old, second = "4e061c03-611e-4caa-bf26-999dcff4284e", "89873422-1373-46e5-b467-f0c5e6acf08f"
	has := func(consumer string) func(*cloud, any) {
		return func(c *cloud, sent any) {
			want := o{}
			if list, ok := dig(sent, "allocations").([]any); ok {
				for _, e := range list {
					want[dig(e, "resource_provider", "uuid").(string)] = dig(e, "resources")
				}
			} else {
				for provider, e := range dig(sent, "allocations").(map[string]any) {
					want[provider] = dig(e, "resources")
				}
			}
			got := o{}
			for provider, e := range c.must(200, "GET", "/allocations/"+consumer, nil).body["allocations"].(map[string]any) {
				got[provider] = dig(e, "resources")
			}
			if d := cmp.Diff(want, got); d != "" {
				c.t.Errorf("allocations of %s (-sent +there):\n%s", consumer, d)
			}
		}
	}
	before := func(c *cloud) {
		stocked(c, old, second)
		c.consume(server, "p", "u", "INSTANCE", o{second: allocated(o{"VCPU": 7})})
	}
	out["allocations/update-allocations-request"] = use{first: 8, last: 11, build: func(c *cloud) { stocked(c, "844ac34d-620e-474c-833c-4c9921251353", disk) }, method: "PUT", path: consumer, sent: true, status: 204, check: has(server)}
	out["allocations/update-allocations-request-1.12"] = use{last: 27, build: before, method: "PUT", path: consumer, sent: true, status: 204, check: has(server)}
	out["allocations/update-allocations-request-1.28"] = use{last: 37, build: before, method: "PUT", path: consumer, sent: true, status: 204, check: has(server)}
	out["allocations/update-allocations-request-1.38"] = use{last: newest, build: before, method: "PUT", path: consumer, sent: true, status: 204, check: has(server)}

	const a, b, gone = "30328d13-e299-4a93-a102-61e4ccabe474", "48c1d40f-45d8-4947-8d46-52b4e1326df8", "71921e4e-1629-4c5b-bf8d-338d915d2ef3"
	managed := func(c *cloud) {
		const provider = "e10927c4-8bc9-465d-ac60-d2f79f7e4a00"
		stocked(c, provider)
		for consumer, kind := range map[string]string{a: "INSTANCE", b: "INSTANCE", gone: "MIGRATION"} {
			c.consume(consumer, "p", "u", kind, o{provider: allocated(o{"VCPU": 1})})
		}
	}
	all := func(c *cloud, sent any) {
		for _, consumer := range []string{a, b, gone} {
			has(consumer)(c, dig(sent, consumer))
		}
	}
	out["allocations/manage-allocations-request"] = use{first: 13, last: 27, build: managed, method: "POST", path: "/allocations", sent: true, status: 204, check: all}
	out["allocations/manage-allocations-request-1.28"] = use{last: 37, build: managed, method: "POST", path: "/allocations", sent: true, status: 204, check: all}
	out["allocations/manage-allocations-request-1.38"] = use{last: newest, build: managed, method: "POST", path: "/allocations", sent: true, status: 204, check: all}

	const compute, storage = "c4ddddbb-01ee-4814-85c9-f57a962c22ba", "a7466641-cd72-499b-b6c9-c208eacecb3d"
	consumers := []string{"9ae60315-80c2-48a0-a168-ca4f27c307e1", "4a6444e5-10d6-43f6-9a0b-8acce9309ac9", "e10e7ca0-2ac5-4c98-bad9-51c95b1930ed"}
	reshaped := func(c *cloud) {
		stocked(c, compute, storage)
		for _, consumer := range consumers {
			c.consume(consumer, "p", "u", "INSTANCE", o{compute: allocated(o{"VCPU": 1})})
		}
		c.reach(storage, 5)
	}
	reshape := use{last: 37, build: reshaped, method: "POST", path: "/reshaper", sent: true, status: 204,
		reason: "a generation is an integer; the sample has null where the compute node's provider would be new, but a provider is made before it is reshaped",
		amend:  func(doc any) { dig(doc, "inventories", compute).(map[string]any)["resource_provider_generation"] = 4 },
		check: func(c *cloud, sent any) {
			for _, consumer := range consumers {
				has(consumer)(c, dig(sent, "allocations", consumer))
			}
			if got := c.must(200, "GET", "/resource_providers/"+storage+"/inventories", nil).body; dig(got, "inventories", "DISK_GB", "step_size") != 10.0 || dig(got, "inventories", "VCPU") != nil {
				c.t.Errorf("inventories of the storage: %v", got)
			}
		}}
	out["reshaper/post-reshaper-1.30"] = reshape
	reshape.last = newest
	out["reshaper/post-reshaper-1.38"] = reshape

	const c1, c2, c3 = "56785a3f-6f1c-4fec-af0b-0faf075b1fcb", "9afd5aeb-d6b9-4dea-a588-1e6327a91834", "9d16a611-e7f9-4ef3-be26-c61ed01ecefb"
	out["resource_provider_allocations/get-resource_provider_allocations"] = use{last: 27, method: "GET", path: rp + "/allocations", build: func(c *cloud) {
		c.provider(hostA, "a", "")
		c.stock(hostA, plenty())
		c.reach(hostA, 9)
		c.consume(c1, "p", "u", "INSTANCE", o{hostA: allocated(o{"MEMORY_MB": 256, "VCPU": 1})})
		c.consume(c2, "p", "u", "INSTANCE", o{hostA: allocated(o{"MEMORY_MB": 512, "VCPU": 2})})
		c.consume(c3, "p", "u", "INSTANCE", o{hostA: allocated(o{"MEMORY_MB": 1024, "VCPU": 1})})
	}}
	all3 := o{"DISK_GB": 1, "MEMORY_MB": 512, "VCPU": 1}
	out["resource_provider_usages/get-resource_provider_usages"] = use{last: newest, method: "GET", path: rp + "/usages", alike: "the first change gives the inventory, so a provider in use has a generation of two at least",
		build: func(c *cloud) {
			c.provider(hostA, "a", "")
			c.stock(hostA, plenty())
			c.consume(server, "p", "u", "INSTANCE", o{hostA: allocated(all3)})
		}}
	out["usages/get-usages"] = use{first: 9, last: 37, method: "GET", path: "/usages?project_id=p", build: func(c *cloud) {
		stocked(c, hostA)
		c.consume(server, "p", "u", "INSTANCE", o{hostA: allocated(o{"DISK_GB": 5, "MEMORY_MB": 512, "VCPU": 2})})
	}}
	out["usages/get-usages-1.38"] = use{last: newest, method: "GET", path: "/usages?project_id=p", build: func(c *cloud) {
		stocked(c, hostA)
		whole := o{"DISK_GB": 5, "MEMORY_MB": 512, "VCPU": 2}
		for i, e := range []struct {
			kind      string
			resources o
		}{{"INSTANCE", o{"DISK_GB": 1, "MEMORY_MB": 128, "VCPU": 1}}, {"INSTANCE", o{"DISK_GB": 1, "MEMORY_MB": 128, "VCPU": 1}}, {"INSTANCE", o{"DISK_GB": 1, "MEMORY_MB": 128}},
			{"INSTANCE", o{"DISK_GB": 1, "MEMORY_MB": 64}}, {"INSTANCE", o{"DISK_GB": 1, "MEMORY_MB": 64}},
			{"MIGRATION", o{"DISK_GB": 2, "MEMORY_MB": 256, "VCPU": 1}}, {"MIGRATION", o{"DISK_GB": 3, "MEMORY_MB": 256, "VCPU": 1}}} {
			c.consume(server[:35]+strconv.Itoa(i), "p", "u", e.kind, o{hostA: allocated(e.resources)})
		}
		// A consumer that was made before consumers had types is of type unknown.
		c.at(37).must(204, "PUT", "/allocations/"+other, o{"allocations": o{hostA: allocated(whole)}, "project_id": "p", "user_id": "u", "consumer_generation": nil})
	}}
}

func addCandidateUses(out map[string]use) {
	const (
		memory                             = "30742363-f65e-4012-a60a-43e0bec38f0e"
		node, numa, agent, physnet1, other = "be99627d-e848-44ef-8341-683e2e557c58", "9a9c6b0f-e8d1-4d16-b053-a2bfe8a76757", "ba415f98-1960-4488-b2ed-4518b77eaa60", "92e971c9-777a-48bf-a181-a2ca1105c015", "cefbdf54-05a8-4db4-ad2b-d6729e5a4de8"
		bandwidth                          = "NET_BW_EGR_KILOBIT_PER_SEC"
	)
	out["allocation_candidates/get-allocation_candidates"] = use{first: 10, last: 11, method: "GET", path: "/allocation_candidates?resources=MEMORY_MB:512", alike: "the sample shows classes that were not asked for, which began with 1.27",
		build: func(c *cloud) { c.provider(memory, "a", ""); c.stock(memory, plenty()) }}
	sharing := func(c *cloud, nested bool) {
		c.provider(sampleDisk, "disk", "")
		c.stock(sampleDisk, o{"DISK_GB": o{"total": 1900}})
		c.trait(sampleDisk, "MISC_SHARES_VIA_AGGREGATE")
		c.member(sampleDisk, agg)
		for _, uuid := range []string{sampleHost1, sampleHost2} {
			c.provider(uuid, uuid, "")
			c.stock(uuid, o{"VCPU": o{"total": 24, "allocation_ratio": 16.0}, "MEMORY_MB": o{"total": 131072, "allocation_ratio": 1.5}})
			c.member(uuid, agg)
		}
		c.trait(sampleHost2, "HW_NIC_SRIOV")
		if nested {
			c.trait(sampleHost1, "HW_CPU_X86_SSE2", "HW_CPU_X86_AVX2")
			c.provider(sampleNIC, "nic", sampleHost2)
			c.stock(sampleNIC, o{"SRIOV_NET_VF": o{"total": 8}})
		}
	}
	const shared = "/allocation_candidates?resources=DISK_GB:100,VCPU:1,MEMORY_MB:1024"
	out["allocation_candidates/get-allocation_candidates-1.12"] = use{last: 16, method: "GET", path: shared, build: func(c *cloud) { sharing(c, false) }}
	out["allocation_candidates/get-allocation_candidates-1.17"] = use{last: 28, method: "GET", path: shared, build: func(c *cloud) { sharing(c, false) },
		alike: "the sharing provider of the sample has not the trait by which it shares"}
	out["allocation_candidates/get-allocation_candidates-1.29"] = use{last: 33, method: "GET", path: shared, build: func(c *cloud) { sharing(c, true) }}
	out["allocation_candidates/get-allocation_candidates-1.34"] = use{last: newest, method: "GET",
		path: "/allocation_candidates?resources=VCPU:1&resources_NET1=" + bandwidth + ":10&required_NET1=CUSTOM_PHYSNET1&resources_NET2=" + bandwidth + ":20&required_NET2=CUSTOM_PHYSNET2&group_policy=none",
		build: func(c *cloud) {
			c.provider(node, "node", "")
			c.trait(node, "COMPUTE_VOLUME_MULTI_ATTACH")
			c.provider(numa, "numa", node)
			c.stock(numa, o{"VCPU": o{"total": 4}, "MEMORY_MB": o{"total": 2048}})
			c.trait(numa, "HW_NUMA_ROOT", "CUSTOM_FOO")
			c.provider(agent, "agent", node)
			c.trait(agent, "CUSTOM_VNIC_TYPE_DIRECT")
			c.provider(physnet1, "1", agent)
			c.stock(physnet1, o{bandwidth: o{"total": 10000}})
			c.trait(physnet1, "CUSTOM_PHYSNET1")
			c.provider(other, "2", agent)
			c.stock(other, o{bandwidth: o{"total": 20000}})
			c.trait(other, "CUSTOM_PHYSNET2")
		}}
}
