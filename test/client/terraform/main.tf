# What a project on a cloud here is likely to own: its networks, its images and its servers. operator.tf has what its operators own.
# The variables are what the test changes from one apply to the next.

terraform {
  required_providers {
    openstack = {
      source = "terraform-provider-openstack/openstack"
    }
  }
}

provider "openstack" {
  cloud = "demo"
}

provider "openstack" {
  alias = "operator"
  cloud = "admin"
}

variable "image_file" { type = string }
variable "host" { type = string }
variable "public_key" { type = string }
variable "name" {
  type    = string
  default = "web"
}
variable "size" {
  type    = string
  default = "small"
}
variable "image" {
  type    = string
  default = "first"
}
variable "metadata" {
  type    = map(string)
  default = { role = "web", stage = "one" }
}
variable "tags" {
  type    = set(string)
  default = ["blue", "front"]
}
variable "groups" {
  type    = set(string)
  default = ["inside"]
}
variable "power" {
  type    = string
  default = "active"
}
variable "resting" {
  type    = string
  default = "active"
}
variable "open_port" {
  type    = number
  default = 443
}
variable "members" {
  type    = number
  default = 2
}

# Networks.

resource "openstack_networking_network_v2" "inside" {
  name           = "inside"
  description    = "where the servers are"
  admin_state_up = true
  mtu            = 1400
  tags           = var.tags
}

resource "openstack_networking_subnet_v2" "inside" {
  name            = "inside"
  network_id      = openstack_networking_network_v2.inside.id
  cidr            = "10.77.0.0/24"
  gateway_ip      = "10.77.0.254"
  dns_nameservers = ["192.0.2.53", "192.0.2.54"]
  tags            = ["four"]

  allocation_pool {
    start = "10.77.0.10"
    end   = "10.77.0.99"
  }
  allocation_pool {
    start = "10.77.0.150"
    end   = "10.77.0.199"
  }
}

resource "openstack_networking_subnet_route_v2" "far" {
  subnet_id        = openstack_networking_subnet_v2.inside.id
  destination_cidr = "172.31.0.0/16"
  next_hop         = "10.77.0.200"
}

resource "openstack_networking_subnet_v2" "six" {
  name              = "six"
  network_id        = openstack_networking_network_v2.inside.id
  ip_version        = 6
  cidr              = "fd00:0:77::/64"
  ipv6_address_mode = "slaac"
  ipv6_ra_mode      = "slaac"
  depends_on        = [openstack_networking_subnet_v2.inside]
}

resource "openstack_networking_network_v2" "back" {
  name                  = "back"
  port_security_enabled = false
}

resource "openstack_networking_subnetpool_v2" "pool" {
  name              = "pool"
  prefixes          = ["10.90.0.0/16", "10.95.0.0/16"]
  default_prefixlen = 26
  min_prefixlen     = 24
}

resource "openstack_networking_subnet_v2" "back" {
  name          = "back"
  network_id    = openstack_networking_network_v2.back.id
  subnetpool_id = openstack_networking_subnetpool_v2.pool.id
  enable_dhcp   = false
  no_gateway    = true
}

resource "openstack_networking_router_v2" "edge" {
  name                = "edge-${var.name}"
  external_network_id = openstack_networking_network_v2.outside.id
  tags                = ["edge"]
  depends_on          = [openstack_networking_subnet_v2.outside]
}

resource "openstack_networking_router_interface_v2" "edge" {
  router_id = openstack_networking_router_v2.edge.id
  subnet_id = openstack_networking_subnet_v2.inside.id
}

resource "openstack_networking_router_route_v2" "far" {
  router_id        = openstack_networking_router_v2.edge.id
  destination_cidr = "172.31.0.0/16"
  next_hop         = "10.77.0.200"
  depends_on       = [openstack_networking_router_interface_v2.edge]
}

resource "openstack_networking_secgroup_v2" "inside" {
  name        = "inside"
  description = "from its own members only"
  tags        = ["group"]
}

resource "openstack_networking_secgroup_v2" "front" {
  name                 = "front"
  delete_default_rules = true
}

resource "openstack_networking_secgroup_rule_v2" "members" {
  direction         = "ingress"
  ethertype         = "IPv4"
  remote_group_id   = openstack_networking_secgroup_v2.inside.id
  security_group_id = openstack_networking_secgroup_v2.inside.id
}

resource "openstack_networking_secgroup_rule_v2" "tcp" {
  direction         = "ingress"
  ethertype         = "IPv4"
  protocol          = "tcp"
  port_range_min    = var.open_port
  port_range_max    = var.open_port
  remote_ip_prefix  = "0.0.0.0/0"
  description       = "what the world may reach"
  security_group_id = openstack_networking_secgroup_v2.front.id
}

resource "openstack_networking_secgroup_rule_v2" "ping" {
  direction         = "ingress"
  ethertype         = "IPv6"
  protocol          = "ipv6-icmp"
  port_range_min    = 128
  port_range_max    = 0
  remote_ip_prefix  = "::/0"
  security_group_id = openstack_networking_secgroup_v2.front.id
}

resource "openstack_networking_secgroup_rule_v2" "number" {
  direction         = "egress"
  ethertype         = "IPv4"
  protocol          = "112"
  security_group_id = openstack_networking_secgroup_v2.front.id
}

resource "openstack_networking_port_v2" "address" {
  name                  = "address"
  network_id            = openstack_networking_network_v2.inside.id
  description           = "the service's own address"
  admin_state_up        = true
  security_group_ids    = [openstack_networking_secgroup_v2.inside.id, openstack_networking_secgroup_v2.front.id]
  tags                  = ["kept"]
  port_security_enabled = true

  fixed_ip {
    subnet_id  = openstack_networking_subnet_v2.inside.id
    ip_address = "10.77.0.20"
  }
  allowed_address_pairs {
    ip_address = "10.77.0.250"
  }
  allowed_address_pairs {
    ip_address  = "10.78.0.0/24"
    mac_address = "fa:16:3e:00:00:77"
  }
  extra_dhcp_option {
    name  = "server-ip-address"
    value = "192.0.2.67"
  }
}

resource "openstack_networking_port_v2" "spare" {
  name               = "spare"
  network_id         = openstack_networking_network_v2.inside.id
  no_security_groups = true
  fixed_ip {
    subnet_id = openstack_networking_subnet_v2.inside.id
  }
}

resource "openstack_networking_floatingip_v2" "front" {
  pool        = openstack_networking_network_v2.outside.name
  description = "the address of the front"
  tags        = ["front"]
  depends_on  = [openstack_networking_subnet_v2.outside]
}

resource "openstack_networking_floatingip_associate_v2" "front" {
  floating_ip = openstack_networking_floatingip_v2.front.address
  port_id     = openstack_networking_port_v2.address.id
  depends_on  = [openstack_networking_router_interface_v2.edge]
}

# Images and keys.

resource "openstack_images_image_v2" "own" {
  for_each         = toset(["first", "second"])
  name             = "own-${each.key}"
  container_format = "bare"
  disk_format      = "raw"
  local_file_path  = var.image_file
  min_disk_gb      = 1
  min_ram_mb       = 64
  tags             = ["own", each.key]
  properties = {
    os_distro             = "debian"
    hw_rng_model          = "virtio"
    hw_disk_bus           = "virtio"
    "made:by:${var.name}" = each.key
  }
}

resource "openstack_compute_keypair_v2" "made" {
  name = "made"
}

resource "openstack_compute_keypair_v2" "given" {
  name       = "given"
  public_key = var.public_key
}

# Servers.

resource "openstack_compute_servergroup_v2" "apart" {
  name     = "apart"
  policies = ["anti-affinity"]
}

resource "openstack_compute_servergroup_v2" "softly" {
  name     = "softly"
  policies = ["soft-anti-affinity"]
}

resource "openstack_compute_instance_v2" "web" {
  count           = var.members
  name            = "${var.name}-${count.index}"
  image_id        = openstack_images_image_v2.own[var.image].id
  flavor_name     = var.size == "small" ? openstack_compute_flavor_v2.small.name : openstack_compute_flavor_v2.large.name
  key_pair        = openstack_compute_keypair_v2.given.name
  security_groups = var.groups
  user_data       = "#cloud-config\nhostname: web-${count.index}\n"
  config_drive    = true
  metadata        = var.metadata
  tags            = var.tags
  power_state     = var.power

  network {
    uuid = openstack_networking_network_v2.inside.id
  }
  scheduler_hints {
    group = openstack_compute_servergroup_v2.apart.id
  }
  depends_on = [openstack_networking_subnet_v2.inside, openstack_networking_subnet_v2.six, openstack_networking_secgroup_v2.inside, openstack_networking_secgroup_v2.front]
}

resource "openstack_compute_instance_v2" "service" {
  name              = "service"
  image_name        = openstack_images_image_v2.own["first"].name
  flavor_id         = openstack_compute_flavor_v2.small.id
  availability_zone = openstack_compute_aggregate_v2.zone.zone
  key_pair          = openstack_compute_keypair_v2.made.name
  admin_pass        = "once-only"

  block_device {
    uuid                  = openstack_images_image_v2.own["first"].id
    source_type           = "image"
    destination_type      = "local"
    boot_index            = 0
    delete_on_termination = true
  }
  block_device {
    source_type           = "blank"
    destination_type      = "local"
    volume_size           = 1
    boot_index            = -1
    guest_format          = "ext4"
    delete_on_termination = true
  }
  network {
    port           = openstack_networking_port_v2.address.id
    access_network = true
  }
  network {
    name = openstack_networking_network_v2.back.name
  }
  depends_on = [openstack_networking_subnet_v2.back]
}

resource "openstack_compute_instance_v2" "alone" {
  name                = "alone"
  image_id            = openstack_images_image_v2.own["first"].id
  flavor_id           = openstack_compute_flavor_v2.small.id
  network_mode        = "none"
  power_state         = var.resting
  stop_before_destroy = true

  scheduler_hints {
    group          = openstack_compute_servergroup_v2.softly.id
    different_host = [openstack_compute_instance_v2.service.id]
  }
  lifecycle {
    ignore_changes = [network] # the port that is attached below
  }
}

resource "openstack_compute_interface_attach_v2" "spare" {
  instance_id = openstack_compute_instance_v2.alone.id
  port_id     = openstack_networking_port_v2.spare.id
}

resource "openstack_identity_application_credential_v3" "robot" {
  name        = "robot"
  description = "for the robot"
  roles       = ["member", "reader"]
  expires_at  = "2099-02-13T12:12:12Z"

  access_rules {
    path    = "/v2.1/servers"
    service = "compute"
    method  = "GET"
  }
}

# What can be looked up.

data "openstack_compute_instance_v2" "service" {
  id = openstack_compute_instance_v2.service.id
}

data "openstack_images_image_v2" "first" {
  name        = openstack_images_image_v2.own["first"].name
  most_recent = true
  properties  = { os_distro = "debian" }
}

data "openstack_compute_flavor_v2" "small" {
  name = openstack_compute_flavor_v2.small.name
}

data "openstack_compute_keypair_v2" "given" {
  name = openstack_compute_keypair_v2.given.name
}

data "openstack_networking_network_v2" "inside" {
  name = openstack_networking_network_v2.inside.name
  tags = ["blue"]
}

data "openstack_networking_port_ids_v2" "kept" {
  network_id = openstack_networking_network_v2.inside.id
  tags       = ["kept"]
  depends_on = [openstack_networking_port_v2.address]
}

data "openstack_compute_availability_zones_v2" "all" {
  depends_on = [openstack_compute_aggregate_v2.zone]
}

data "openstack_identity_auth_scope_v3" "me" {
  name = "me"
}

output "ids" {
  value = openstack_compute_instance_v2.web[*].id
}

output "seen" {
  value = {
    address  = openstack_compute_instance_v2.service.access_ip_v4
    looked   = data.openstack_compute_instance_v2.service.name
    floating = openstack_networking_floatingip_associate_v2.front.fixed_ip
    image    = data.openstack_images_image_v2.first.id == openstack_images_image_v2.own["first"].id
    flavor   = data.openstack_compute_flavor_v2.small.extra_specs["hw_rng:allowed"]
    key      = data.openstack_compute_keypair_v2.given.fingerprint == openstack_compute_keypair_v2.given.fingerprint
    network  = data.openstack_networking_network_v2.inside.id == openstack_networking_network_v2.inside.id
    ports    = length(data.openstack_networking_port_ids_v2.kept.ids)
    zones    = contains(data.openstack_compute_availability_zones_v2.all.names, "corner")
    project  = data.openstack_identity_auth_scope_v3.me.project_name
    names    = openstack_compute_instance_v2.web[*].name
    images   = openstack_compute_instance_v2.web[*].image_name
    flavors  = openstack_compute_instance_v2.web[*].flavor_name
    states   = openstack_compute_instance_v2.web[*].power_state
    sixes    = [for s in openstack_compute_instance_v2.web : s.network[0].fixed_ip_v6 != ""]
  }
}
