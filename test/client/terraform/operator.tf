# What the operators own: flavors, hosts, the network outside, and who may do what.

resource "openstack_compute_flavor_v2" "small" {
  provider  = openstack.operator
  name      = "tf.small"
  flavor_id = "tf-small"
  ram       = 256
  vcpus     = 1
  disk      = 2
  ephemeral = 2
  swap      = 64
  is_public = true
  extra_specs = {
    "hw_rng:allowed"  = "true"
    "quota:cpu_quota" = "10000"
  }
}

resource "openstack_compute_flavor_v2" "large" {
  provider    = openstack.operator
  name        = "tf.large"
  description = "twice as much"
  ram         = 512
  vcpus       = 2
  disk        = 2
  ephemeral   = 2
  swap        = 64
  is_public   = true
}

resource "openstack_compute_flavor_v2" "private" {
  provider     = openstack.operator
  name         = "tf.private"
  ram          = 256
  vcpus        = 1
  disk         = 2
  rx_tx_factor = 1.5
  is_public    = false
}

resource "openstack_compute_flavor_access_v2" "team" {
  provider  = openstack.operator
  tenant_id = openstack_identity_project_v3.team.id
  flavor_id = openstack_compute_flavor_v2.private.id
}

resource "openstack_compute_aggregate_v2" "zone" {
  provider = openstack.operator
  name     = "corner-${var.name}"
  zone     = "corner"
  hosts    = [var.host]
  metadata = { disks = var.size }
}

resource "openstack_networking_network_v2" "outside" {
  provider = openstack.operator
  name     = "outside"
  external = true
}

resource "openstack_networking_subnet_v2" "outside" {
  provider    = openstack.operator
  name        = "outside"
  network_id  = openstack_networking_network_v2.outside.id
  cidr        = "198.51.100.0/24"
  enable_dhcp = false
}

resource "openstack_networking_addressscope_v2" "wide" {
  provider   = openstack.operator
  name       = "wide"
  ip_version = 4
  shared     = true
}

resource "openstack_networking_rbac_policy_v2" "share" {
  provider      = openstack.operator
  action        = "access_as_shared"
  object_id     = openstack_networking_network_v2.outside.id
  object_type   = "network"
  target_tenant = openstack_identity_project_v3.team.id
}

resource "openstack_identity_project_v3" "team" {
  provider    = openstack.operator
  name        = "team-${var.name}"
  description = "those who try things"
  tags        = ["try"]
}

resource "openstack_identity_user_v3" "ann" {
  provider                              = openstack.operator
  name                                  = "ann"
  description                           = "writes the configuration"
  default_project_id                    = openstack_identity_project_v3.team.id
  password                              = "secret-${var.name}"
  ignore_change_password_upon_first_use = true
  multi_factor_auth_enabled             = true
  multi_factor_auth_rule {
    rule = ["password", "totp"]
  }
  multi_factor_auth_rule {
    rule = ["password"]
  }
  extra = { email = "ann@example.org" }
}

resource "openstack_identity_group_v3" "team" {
  provider    = openstack.operator
  name        = "team"
  description = "all of the team"
}

resource "openstack_identity_user_membership_v3" "ann" {
  provider = openstack.operator
  user_id  = openstack_identity_user_v3.ann.id
  group_id = openstack_identity_group_v3.team.id
}

resource "openstack_identity_role_v3" "keeper" {
  provider = openstack.operator
  name     = "keeper"
}

resource "openstack_identity_role_assignment_v3" "ann" {
  provider   = openstack.operator
  user_id    = openstack_identity_user_v3.ann.id
  project_id = openstack_identity_project_v3.team.id
  role_id    = openstack_identity_role_v3.keeper.id
}

resource "openstack_identity_inherit_role_assignment_v3" "team" {
  provider   = openstack.operator
  group_id   = openstack_identity_group_v3.team.id
  project_id = openstack_identity_project_v3.team.id
  role_id    = openstack_identity_role_v3.keeper.id
}

resource "openstack_identity_service_v3" "wiki" {
  provider    = openstack.operator
  name        = "wiki"
  type        = "wiki"
  description = "what is known"
}

resource "openstack_identity_endpoint_v3" "wiki" {
  provider        = openstack.operator
  name            = "wiki"
  service_id      = openstack_identity_service_v3.wiki.id
  endpoint_region = "RegionOne"
  interface       = "public"
  url             = "http://192.0.2.80/wiki"
}

resource "openstack_compute_quotaset_v2" "team" {
  provider             = openstack.operator
  project_id           = openstack_identity_project_v3.team.id
  key_pairs            = 7
  ram                  = 2048
  cores                = var.members * 4
  instances            = 9
  server_groups        = 3
  server_group_members = 5
  metadata_items       = 77
}

resource "openstack_networking_quota_v2" "team" {
  provider            = openstack.operator
  project_id          = openstack_identity_project_v3.team.id
  floatingip          = 3
  network             = 4
  port                = 50
  rbac_policy         = -1
  router              = 2
  security_group      = 6
  security_group_rule = 60
  subnet              = 5
  subnetpool          = 2
}
