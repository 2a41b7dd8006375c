package config

import "time"

// Config holds every option. The tags are the registry: section and option names as in the file, the default, and the help that `kilonova config sample` prints.
type Config struct {
	Default struct {
		StateDir  string `opt:"state_dir" default:"state" help:"Directory for the database, images, keys, guests and logs. Made with mode 0700."`
		LogLevel  string `opt:"log_level" default:"info" help:"debug, info, warn or error."`
		LogFormat string `opt:"log_format" default:"text" help:"text or json."`
		Region    string `opt:"region" default:"RegionOne" help:"Name of the region in the catalog."`
	} `section:"DEFAULT"`
	API struct {
		Listen    string   `opt:"listen" default:"127.0.0.1:8774" help:"HOST:PORT of all REST services of this process."`
		PublicURL string   `opt:"public_url" default:"" help:"URL under which clients reach the services, without a path; empty: http(s)://LISTEN."`
		TLSCert   string   `opt:"tls_cert" default:"" help:"Certificate file (PEM); with tls_key, the services speak HTTPS."`
		TLSKey    string   `opt:"tls_key" default:"" help:"Key file (PEM) of tls_cert."`
		Extra     []string `opt:"separate" default:"" help:"Services with a listener of their own: compute=HOST:PORT,image=HOST:PORT. They answer on the common one as well."`
		Identity  string   `opt:"identity_url" default:"" help:"URL of a Keystone that validates tokens; empty: the built-in identity service on the same database."`
		MaxLimit  int      `opt:"max_limit" default:"1000" help:"Largest page of a list."`
		Pprof     bool     `opt:"pprof" default:"false" help:"Serve profiles under /debug/pprof/ to callers on loopback."`
	} `section:"api"`
	CORS struct {
		Origins     []string `opt:"allowed_origin" default:"" help:"Origins (https://dashboard.example.com, no slash at the end; *: any) whose web pages may use the REST services from a browser; empty: none."`
		Credentials bool     `opt:"allow_credentials" default:"true" help:"Such pages may send cookies and the like; not those that only * allows."`
		Expose      []string `opt:"expose_headers" default:"X-Auth-Token,X-Subject-Token,X-Service-Token,X-Openstack-Request-Id,X-OpenStack-Nova-API-Version,OpenStack-API-Version,Location" help:"Headers of answers that such pages may read."`
		MaxAge      int      `opt:"max_age" default:"3600" help:"Seconds that a browser may remember what is allowed."`
		Methods     []string `opt:"allow_methods" default:"GET,HEAD,POST,PUT,PATCH,DELETE" help:"Methods that such pages may use."`
		Headers     []string `opt:"allow_headers" default:"X-Auth-Token,X-Subject-Token,X-Service-Token,X-Openstack-Request-Id,X-OpenStack-Nova-API-Version,OpenStack-API-Version,X-Roles,X-User-Id,X-Tenant-Id,X-Project-Id,X-Identity-Status" help:"Headers that such pages may send."`
	} `section:"cors"`
	Database struct {
		Connection string `opt:"connection" default:"" secret:"yes" help:"sqlite:///PATH, postgres://USER:PASSWORD@HOST/NAME or mysql://USER:PASSWORD@HOST:PORT/NAME; empty: SQLite in the state directory."`
	} `section:"database"`
	Bus struct {
		URL    string `opt:"url" default:"" help:"NATS servers to join (nats://HOST:4222,…); empty: a server inside this process."`
		Listen string `opt:"listen" default:"" help:"HOST:PORT at which the embedded server takes other processes; empty: none."`
		Token  string `opt:"token" default:"" secret:"yes" help:"Shared secret of all processes on the bus; empty: the one in STATE/secrets/bus_token, made at the first start."`
	} `section:"bus"`
	Identity struct {
		BcryptCost  int           `opt:"bcrypt_cost" default:"12" help:"Cost of password hashes, 4 to 31."`
		TokenTTL    time.Duration `opt:"token_ttl" default:"1h" help:"Life of a token."`
		KeyRotation time.Duration `opt:"key_rotation_interval" default:"0" help:"How often the keys of tokens are rotated; 0: when you do it (kilonova key rotate). Where hosts have copies of the keys, leave it at 0."`
		Username    string        `opt:"service_username" default:"kilonova" help:"User as which roles speak to identity, image and placement services in other processes; it needs the roles admin and service on the project service."`
		Password    string        `opt:"service_password" default:"" secret:"yes" help:"Password of the user kilonova, as which roles on other hosts speak to the image service; empty: the one in STATE/secrets/service_password."`
		CacheTTL    time.Duration `opt:"cache_ttl" default:"60s" help:"How long a verified token is believed at most; revocations count at once."`
	} `section:"identity"`
	Image struct {
		Dir        string   `opt:"dir" default:"" help:"Directory of the file store; empty: STATE/images."`
		MaxSize    int64    `opt:"max_size" default:"1099511627776" help:"Bytes of one image at most."`
		MaxVirtual int64    `opt:"max_virtual_size" default:"17592186044416" help:"Bytes of the disk that an image describes at most."`
		URL        string   `opt:"url" default:"" help:"URL of the image service for roles that have no access to its store; empty: the built-in one."`
		WebNets    []string `opt:"web_download_networks" default:"" help:"Networks (CIDR) that web-download may read from although they are loopback or private."`
		WebPorts   []string `opt:"web_download_ports" default:"80,443" help:"Ports that web-download may read from."`
		Stores     []string `opt:"further_stores" default:"" help:"File stores beside the default one, which is named file: NAME=DIRECTORY,…"`
		Locations  bool     `opt:"show_multiple_locations" default:"false" help:"Let clients see and set where the data of images lies; web addresses then become the read-only store http."`
	} `section:"image"`
	Network struct {
		MTU       int      `opt:"default_mtu" default:"1500" help:"MTU of networks that do not name one: that of the wires between hosts. Networks of type vxlan get 50 less."`
		DNSDomain string   `opt:"dns_domain" default:"openstacklocal" help:"Domain of ports whose network has none."`
		DNS       []string `opt:"dns_servers" default:"" help:"Name servers given to guests whose subnet names none; empty: those of this host that are not on loopback."`
		DataPlane bool     `opt:"data_plane" default:"true" help:"Build bridges, DHCP, metadata and firewall on hosts with real guests."`
		Type      string   `opt:"tenant_network_types" default:"vxlan" help:"Type of networks that do not name one: vxlan (hosts with local_ip carry them to each other) or local (each host has its own)."`
		VLANs     []string `opt:"vlan_ranges" default:"" help:"Ranges (PHYSICAL_NETWORK:FIRST:LAST,…) of the VLANs of networks of type vlan that name none."`
		VNIs      []string `opt:"vni_ranges" default:"1:16777215" help:"Ranges (FIRST:LAST) of the VXLAN identifiers of such networks."`
		LocalIP   string   `opt:"local_ip" default:"" help:"Address of this host at which the VXLAN tunnels of networks end (UDP port 4789), on a network that only hosts reach; empty: [compute] my_ip. With neither, networks do not leave the host."`
		Physical  []string `opt:"physical_interface_mappings" default:"" help:"Interfaces that join flat and vlan networks to physical ones: PHYSICAL_NETWORK:INTERFACE,… They tell which segments of routed networks the host is joined to."`
		Outside   string   `opt:"public_interface" default:"" help:"Interface of this host that gets floating addresses; empty: that of the default route."`
	} `section:"network"`
	Placement struct {
		URL       string `opt:"url" default:"" help:"URL of a Placement to use; empty: the built-in one on the same database."`
		Randomize bool   `opt:"randomize_allocation_candidates" default:"false" help:"Give candidates in random order."`
		Max       int    `opt:"max_allocation_candidates" default:"-1" help:"Candidates that one request may bring about; -1: any number. Many providers of one class below each host make very many."`
		Strategy  string `opt:"allocation_candidates_generation_strategy" default:"depth-first" help:"depth-first: all candidates of a host before those of the next. breadth-first: one of each host in turn, so that a limit leaves some of each."`
		Project   string `opt:"incomplete_consumer_project_id" default:"00000000-0000-0000-0000-000000000000" help:"Project of consumers whose callers, before microversion 1.8, name none."`
		User      string `opt:"incomplete_consumer_user_id" default:"00000000-0000-0000-0000-000000000000" help:"Their user."`
	} `section:"placement"`
	Compute struct {
		Driver           string        `opt:"driver" default:"libvirt" help:"libvirt or fake."`
		Host             string        `opt:"host" default:"" help:"Name of this host; empty: the system's host name."`
		FakeHosts        int           `opt:"fake_hosts" default:"1" help:"Hosts that this process plays with the fake driver. More than one are named HOST-1, HOST-2, …"`
		FakeVCPUs        int           `opt:"fake_vcpus" default:"0" help:"CPUs of a host of the fake driver; 0: 1000."`
		FakeMemoryMB     int64         `opt:"fake_memory_mb" default:"0" help:"Its memory; 0: 8,000,000 MB."`
		FakeDiskGB       int64         `opt:"fake_disk_gb" default:"0" help:"Its disk; 0: 600,000 GB."`
		FakeNUMANodes    int           `opt:"fake_numa_nodes" default:"0" help:"NUMA nodes over which its CPUs, memory, pages and devices are spread; 0: it reports none. cpu_dedicated_set and cpu_shared_set count for it."`
		FakeThreads      int           `opt:"fake_cpu_threads" default:"1" help:"Threads of each of its cores."`
		FakePages        []string      `opt:"fake_huge_pages" default:"" help:"Large pages of the whole host, KIBIBYTES:NUMBER: 2048:1024,1048576:8."`
		FakeDevices      string        `opt:"fake_pci_devices" default:"" help:"PCI devices that it plays: a JSON object or a list of them with vendor_id, product_id, count, type, address, parent, node, tags."`
		FakePhysical     []string      `opt:"fake_physical_networks" default:"" help:"Physical networks that its hosts are joined to, one each, dealt out in turn: with a,b the first host has a, the second b, the third a."`
		FakeDB           string        `opt:"fake_hypervisor" default:"" help:"Database of the fake hypervisor; agents that shall migrate guests to each other share one. Empty: STATE/fake.db."`
		Dir              string        `opt:"instances_path" default:"" help:"Directory of guests' disks and the image cache; empty: STATE/instances."`
		VirtType         string        `opt:"virt_type" default:"" help:"kvm or qemu; empty: kvm where it works."`
		LibvirtSocket    string        `opt:"libvirt_socket" default:"" help:"Socket of libvirtd; empty: the system's when it answers, else one that Kilonova starts itself under STATE/libvirt."`
		MyIP             string        `opt:"my_ip" default:"" help:"Address under which other hosts reach this one, on a trusted network; with it guests can be moved here while they run (libvirtd then listens there on port 16509 without authentication). Empty: they cannot."`
		VNCListen        string        `opt:"vnc_listen" default:"127.0.0.1" help:"Address at which the VNC and serial consoles of guests listen; console proxies on other hosts need one that they reach."`
		CPURatio         float64       `opt:"cpu_allocation_ratio" default:"0" help:"Virtual CPUs given out per CPU of this host; 0: as the inventory in placement says, which operators may change there and which begins with initial_cpu_allocation_ratio."`
		RAMRatio         float64       `opt:"ram_allocation_ratio" default:"0" help:"Memory given out per byte; 0: as for CPUs."`
		DiskRatio        float64       `opt:"disk_allocation_ratio" default:"0" help:"Disk given out per byte; 0: as for CPUs."`
		InitialCPURatio  float64       `opt:"initial_cpu_allocation_ratio" default:"4.0" help:"Virtual CPUs given out per CPU of a host that is new in placement."`
		InitialRAMRatio  float64       `opt:"initial_ram_allocation_ratio" default:"1.0" help:"Memory given out per byte of such a host."`
		InitialDiskRatio float64       `opt:"initial_disk_allocation_ratio" default:"1.0" help:"Disk given out per byte of such a host."`
		ProviderConfig   string        `opt:"provider_config_location" default:"" help:"Directory of YAML files with custom inventories and traits that this host's resource providers have besides; empty: STATE/provider_config."`
		HiddenImages     []string      `opt:"image_type_exclude_list" default:"" help:"Disk formats that this host does not advertise although it can use them: with [scheduler] query_placement_for_image_type_support it gets no servers of such images."`
		ReservedMemoryMB int64         `opt:"reserved_host_memory_mb" default:"512" help:"Memory kept for the host."`
		ReservedDiskMB   int64         `opt:"reserved_host_disk_mb" default:"0" help:"Disk kept for the host."`
		ReservedCPUs     int64         `opt:"reserved_host_cpus" default:"0" help:"CPUs kept for the host. Not together with cpu_dedicated_set."`
		DedicatedCPUs    string        `opt:"cpu_dedicated_set" default:"" help:"CPUs to which virtual CPUs of servers with the policy dedicated or mixed are pinned, as 4-12,^8,15. They are the inventory PCPU."`
		SharedCPUs       string        `opt:"cpu_shared_set" default:"" help:"CPUs on which the virtual CPUs of other servers float; they are the inventory VCPU. Empty: all, or none when cpu_dedicated_set is given."`
		ReservedPages    string        `opt:"reserved_huge_pages" default:"" help:"Memory pages that servers may not have, as node:0,size:2048,count:64; several separated by semicolons."`
		CPUMode          string        `opt:"cpu_mode" default:"" help:"CPU of guests: none, host-model, host-passthrough, maximum or custom; empty: host-model under kvm, else none."`
		CPUModel         string        `opt:"cpu_model" default:"" help:"Model of the cpu_mode custom, as libvirt names it."`
		MachineType      string        `opt:"hw_machine_type" default:"pc" help:"Machine type of guests whose image asks for none: pc, q35 or a versioned name of these."`
		DiskCache        string        `opt:"disk_cachemode" default:"" help:"Cache mode of disks that are files: none, writeback, writethrough, directsync or unsafe; empty: none where the file system can do direct I/O, else writeback."`
		PCIePorts        int           `opt:"num_pcie_ports" default:"16" help:"Places for devices that guests of the machine type q35 have, 1 to 28."`
		RNGDevice        string        `opt:"rng_dev_path" default:"/dev/urandom" help:"Where guests' random numbers come from."`
		MemoryStats      time.Duration `opt:"mem_stats_period" default:"10s" help:"How often guests tell what memory they use; 0: they do not."`
		SerialPorts      string        `opt:"serial_port_range" default:"10000:19999" help:"Ports of serial consoles on the host, as FIRST:LAST."`
		MigrationSpeed   int64         `opt:"live_migration_bandwidth" default:"0" help:"MiB a second that a live migration may take; 0: any number."`
		MaxBuilds        int           `opt:"max_concurrent_builds" default:"10" help:"Guests that the libvirt driver makes at once; 0: any number."`
		ImageAge         time.Duration `opt:"remove_unused_original_minimum_age" default:"24h" help:"How long an image that no guest uses stays in a host's cache."`
		ReportInterval   time.Duration `opt:"report_interval" default:"10s" help:"Time between heartbeats of an agent."`
		ServiceDownTime  time.Duration `opt:"service_down_time" default:"60s" help:"Silence after which a service is down."`
		ShutdownTimeout  time.Duration `opt:"shutdown_timeout" default:"60s" help:"Time a guest has to shut down by itself."`
		Monitors         []string      `opt:"compute_monitors" default:"" help:"Metrics that this host measures for MetricsFilter and MetricsWeigher: cpu.virt_driver; empty: none."`
		DefaultZone      string        `opt:"default_availability_zone" default:"nova" help:"Zone of hosts in no aggregate with a zone."`
		ScheduleZone     string        `opt:"default_schedule_zone" default:"" help:"Zone of servers that ask for none; empty: any."`
		ReclaimInterval  time.Duration `opt:"reclaim_instance_interval" default:"0" help:"Time that a deleted server can be restored; 0: deletes are final."`
		ShelvedOffload   time.Duration `opt:"shelved_offload_time" default:"0" help:"Time until a shelved server leaves its host; negative: never."`
		ResizeSameHost   bool          `opt:"allow_resize_to_same_host" default:"true" help:"A resize may stay on the host."`
		ResizeConfirm    time.Duration `opt:"resize_confirm_window" default:"0" help:"Resizes are confirmed after this time; 0: by users only."`
		DHCPDomain       string        `opt:"dhcp_domain" default:"novalocal" help:"Domain of host names in metadata."`
		ResumeGuests     bool          `opt:"resume_guests_state_on_host_boot" default:"true" help:"Start guests again that ran when their host went down."`
		Workers          int           `opt:"conductor_workers" default:"512" help:"Operations carried out at once by one conductor."`
	} `section:"compute"`
	PCI struct {
		Alias             string `opt:"alias" default:"" help:"Names under which flavors ask for PCI devices: a JSON object or a list of them with name, vendor_id, product_id, device_type (type-PCI, type-PF, type-VF), numa_policy (legacy, preferred, required, socket), resource_class, traits, live_migratable."`
		DeviceSpec        string `opt:"device_spec" default:"" help:"PCI devices of this host that servers may have: a JSON object or a list of them with vendor_id, product_id, address or devname, and tags: physical_network, trusted, remote_managed, managed, live_migratable, resource_class, traits."`
		ReportInPlacement bool   `opt:"report_in_placement" default:"false" help:"Placement is told of this host's PCI devices, but not of those with a physical_network. Once on it cannot be switched off."`
	} `section:"pci"`
	Devices struct {
		MDEVTypes string `opt:"enabled_mdev_types" default:"" help:"Parts that this host makes of its devices, virtual GPUs for one: a JSON object or a list of them with name (nvidia-35), device_addresses, max_instances of each device, mdev_class (VGPU or CUSTOM_...)."`
	} `section:"devices"`
	Placing struct {
		MaxAttempts     int  `opt:"max_attempts" default:"3" help:"Hosts tried for one build or move."`
		MigrateRetries  int  `opt:"migrate_max_retries" default:"-1" help:"Further hosts tried for a live migration without a named destination when one cannot take the guest; -1: all that there are."`
		MaxResults      int  `opt:"max_placement_results" default:"1000" help:"Allocation candidates asked of placement at most; requests that depend on other servers or name a host of several nodes ask for all."`
		TenantAggregate bool `opt:"limit_tenants_to_placement_aggregate" default:"false" help:"Only hosts of aggregates whose metadata filter_tenant_id names the project, if there are any."`
		TenantRequired  bool `opt:"placement_aggregate_required_for_tenants" default:"false" help:"With limit_tenants_to_placement_aggregate: projects that no aggregate names find no host."`
		ImageType       bool `opt:"query_placement_for_image_type_support" default:"false" help:"Only hosts that say they can use the image's disk format."`
		Routed          bool `opt:"query_placement_for_routed_network_aggregates" default:"false" help:"Servers on routed networks go only to hosts that are joined to a segment of these, and when they move to hosts of the segment of their addresses."`
		Isolated        bool `opt:"enable_isolated_aggregate_filtering" default:"false" help:"Aggregates with trait:NAME=required take only servers that ask for those traits."`
		ImageMetadata   bool `opt:"image_metadata_prefilter" default:"false" help:"Properties of the image that need devices of the host become required traits."`
	} `section:"scheduler"`
	Notifications struct {
		Format       string        `opt:"notification_format" default:"none" help:"versioned: tell of what happens by versioned notifications, on the bus and by transport_url. none: do not."`
		Topics       []string      `opt:"versioned_notifications_topics" default:"versioned_notifications" help:"Topics under which each notification is published."`
		StateChange  string        `opt:"notify_on_state_change" default:"" help:"vm_state or vm_and_task_state: send instance.update when these change. Empty: for tags only."`
		BlockDevices bool          `opt:"bdms_in_notifications" default:"false" help:"Put the volumes of a server into all of its notifications."`
		Level        string        `opt:"default_level" default:"INFO" help:"Priority of notifications that tell of no error: DEBUG, INFO, WARN, ERROR or CRITICAL."`
		Transport    string        `opt:"transport_url" default:"" secret:"yes" help:"RabbitMQ that gets the notifications as well: rabbit://USER:PASSWORD@HOST:PORT/VHOST, several hosts with commas between, ?ssl=1 over TLS. Empty: none."`
		Exchange     string        `opt:"control_exchange" default:"nova" help:"Topic exchange of the notifications on RabbitMQ."`
		Durable      bool          `opt:"amqp_durable_queues" default:"false" help:"Exchange and queues survive a restart of RabbitMQ; the same as their other users have it."`
		Retention    time.Duration `opt:"retention" default:"24h" help:"How long a notification is kept for a RabbitMQ that does not answer."`
		Audit        bool          `opt:"instance_usage_audit" default:"false" help:"Send instance.exists for each server at the end of each period."`
		AuditPeriod  string        `opt:"instance_usage_audit_period" default:"month" help:"hour, day, month or year; with @ and a number the minute, hour, day or month at which it begins."`
	} `section:"notifications"`
	Scheduler struct {
		Filters          []string `opt:"enabled_filters" default:"" help:"Host filters in order; empty: ComputeFilter,ComputeCapabilitiesFilter,ImagePropertiesFilter,ServerGroupAntiAffinityFilter,ServerGroupAffinityFilter."`
		Weighers         []string `opt:"weight_classes" default:"" help:"Host weighers; empty: all."`
		SubsetSize       int      `opt:"host_subset_size" default:"1" help:"One of this many best hosts is taken at random."`
		Shuffle          bool     `opt:"shuffle_best_same_weighed_hosts" default:"false" help:"Hosts of the same best weight are put in random order."`
		TrackServers     bool     `opt:"track_instance_changes" default:"true" help:"Filters and weighers that need it see the servers of each host."`
		MaxIOOps         int      `opt:"max_io_ops_per_host" default:"8" help:"IoOpsFilter: builds, moves, snapshots and rescues on a host at most."`
		MaxInstances     int      `opt:"max_instances_per_host" default:"50" help:"NumInstancesFilter: servers on a host at most."`
		IsolatedImages   []string `opt:"isolated_images" default:"" help:"IsolatedHostsFilter: images that run on isolated hosts only."`
		IsolatedHosts    []string `opt:"isolated_hosts" default:"" help:"IsolatedHostsFilter: the isolated hosts."`
		RestrictIsolated bool     `opt:"restrict_isolated_hosts_to_isolated_images" default:"true" help:"IsolatedHostsFilter: isolated hosts run nothing else."`
		ImageNamespace   string   `opt:"aggregate_image_properties_isolation_namespace" default:"" help:"AggregateImagePropertiesIsolation: only metadata whose key begins with this are compared."`
		ImageSeparator   string   `opt:"aggregate_image_properties_isolation_separator" default:"." help:"What stands between that beginning and the rest of the key."`
		Architecture     string   `opt:"image_properties_default_architecture" default:"" help:"ImagePropertiesFilter: architecture of images that name none; empty: any."`
		RAMWeight        float64  `opt:"ram_weight_multiplier" default:"1.0" help:"Weight of free memory."`
		CPUWeight        float64  `opt:"cpu_weight_multiplier" default:"1.0" help:"Weight of free CPUs."`
		DiskWeight       float64  `opt:"disk_weight_multiplier" default:"1.0" help:"Weight of free disk."`
		IOWeight         float64  `opt:"io_ops_weight_multiplier" default:"-1.0" help:"Weight of builds, moves and snapshots going on."`
		InstancesWeight  float64  `opt:"num_instances_weight_multiplier" default:"0.0" help:"Weight of the number of servers; negative spreads, positive packs."`
		PCIWeight        float64  `opt:"pci_weight_multiplier" default:"1.0" help:"Weight of having few free PCI devices; not negative."`
		PCIInPlacement   bool     `opt:"pci_in_placement" default:"false" help:"Devices that flavors ask for by alias are chosen by placement, on hosts that report theirs there ([pci] report_in_placement); each alias needs a resource_class, or vendor_id and product_id."`
		AffinityWeight   float64  `opt:"soft_affinity_weight_multiplier" default:"1.0" help:"Weight of members of the server's soft-affinity group."`
		AntiWeight       float64  `opt:"soft_anti_affinity_weight_multiplier" default:"1.0" help:"Weight of having no members of the server's soft-anti-affinity group."`
		FailureWeight    float64  `opt:"build_failure_weight_multiplier" default:"1000000.0" help:"What a failed build counts against a host until one succeeds."`
		CrossCellWeight  float64  `opt:"cross_cell_move_weight_multiplier" default:"1000000.0" help:"Weight of staying in the cell when a server moves."`
		VersionWeight    float64  `opt:"hypervisor_version_weight_multiplier" default:"1.0" help:"Weight of newer hypervisors."`
		ImageWeight      float64  `opt:"image_props_weight_multiplier" default:"0.0" help:"Weight of servers on the host whose images have the same properties; positive packs them, negative spreads them."`
		ImageSetting     []string `opt:"image_props_weight_setting" default:"" help:"Properties that count for it, with their weights: os_distro=2,hw_machine_type=0; empty: all, with 1."`
	} `section:"filter_scheduler"`
	Metrics struct {
		Weight      float64  `opt:"weight_multiplier" default:"1.0" help:"Weight of the metrics that hosts report."`
		Setting     []string `opt:"weight_setting" default:"" help:"Metrics that count, with their ratios: cpu.percent=-1.0; empty: none."`
		Required    bool     `opt:"required" default:"true" help:"Hosts that lack a metric of weight_setting count as having nothing of it (MetricsFilter refuses them); false: they get weight_of_unavailable."`
		Unavailable float64  `opt:"weight_of_unavailable" default:"-10000.0" help:"Weight of hosts that lack a metric, unless required."`
	} `section:"metrics"`
	Workarounds struct {
		NoFallbackPCPU bool `opt:"disable_fallback_pcpu_query" default:"false" help:"Servers with pinned CPUs are not placed on hosts that offer VCPU only."`
	} `section:"workarounds"`
	Quota struct {
		Instances          int64 `opt:"instances" default:"10" help:"Servers of a project; -1: any number."`
		Cores              int64 `opt:"cores" default:"20" help:"Virtual CPUs of a project."`
		RAM                int64 `opt:"ram" default:"51200" help:"Memory of a project in MB."`
		MetadataItems      int64 `opt:"metadata_items" default:"128" help:"Metadata entries of a server."`
		KeyPairs           int64 `opt:"key_pairs" default:"100" help:"Key pairs of a user."`
		ServerGroups       int64 `opt:"server_groups" default:"10" help:"Server groups of a project."`
		ServerGroupMembers int64 `opt:"server_group_members" default:"10" help:"Servers in a group."`
		InjectedFiles      int64 `opt:"injected_files" default:"5" help:"Files of a create request before 2.57."`
		InjectedBytes      int64 `opt:"injected_file_content_bytes" default:"10240" help:"Bytes of such a file."`
		InjectedPath       int64 `opt:"injected_file_path_length" default:"255" help:"Bytes of its path."`
	} `section:"quota"`
	Console struct {
		TokenTTL  time.Duration `opt:"token_ttl" default:"10m" help:"Life of a console token; it opens one console once."`
		NoVNC     string        `opt:"novnc_path" default:"/usr/share/novnc" help:"Directory of the noVNC library."`
		SPICE     bool          `opt:"spice" default:"false" help:"Guests also have SPICE screens, and the console type spice-html5 is offered; agents and the compute API need the same."`
		SPICEPath string        `opt:"spice_html5_path" default:"/usr/share/spice-html5" help:"Directory of the spice-html5 library."`
		URL       string        `opt:"base_url" default:"" help:"URL under which browsers reach the console proxy; empty: /console at the REST services' URL."`
	} `section:"console"`
	Metadata struct {
		VendorData     string        `opt:"vendordata_jsonfile_path" default:"" help:"JSON file served as vendor_data.json."`
		Vendors        []string      `opt:"vendordata_providers" default:"StaticJSON" help:"Where vendor data come from: StaticJSON (the file), DynamicJSON (the targets)."`
		VendorTargets  []string      `opt:"vendordata_dynamic_targets" default:"" help:"Web services that are asked about each server, NAME@URL; what they answer stands under their names in vendor_data2.json. With DynamicJSON only."`
		VendorConnect  time.Duration `opt:"vendordata_dynamic_connect_timeout" default:"5s" help:"How long the connection to a target may take, in seconds."`
		VendorRead     time.Duration `opt:"vendordata_dynamic_read_timeout" default:"5s" help:"How long the answer of a target may take, in seconds."`
		VendorMustHave bool          `opt:"vendordata_dynamic_failure_fatal" default:"false" help:"A server without the answer of a target is not built; otherwise the answer counts as {}."`
	} `section:"metadata"`

	origins map[string]Origin
}
