-- Every resource is a document; the columns beside it are those that queries and constraints need.
CREATE TABLE network_networks (
  id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(64) NOT NULL, name VARCHAR(255) NOT NULL, external SMALLINT NOT NULL, doc {{text}} NOT NULL
);
CREATE INDEX network_networks_project ON network_networks (project_id);
CREATE INDEX network_networks_name ON network_networks (name);
CREATE INDEX network_networks_external ON network_networks (external);
CREATE TABLE network_subnets (
  id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(64) NOT NULL, name VARCHAR(255) NOT NULL, network_id VARCHAR(36) NOT NULL,
  subnetpool_id VARCHAR(36) NOT NULL, doc {{text}} NOT NULL
);
CREATE INDEX network_subnets_project ON network_subnets (project_id);
CREATE INDEX network_subnets_network ON network_subnets (network_id);
CREATE INDEX network_subnets_pool ON network_subnets (subnetpool_id);
CREATE TABLE network_ports (
  id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(64) NOT NULL, name VARCHAR(255) NOT NULL, network_id VARCHAR(36) NOT NULL,
  mac_address VARCHAR(17) NOT NULL, device_id VARCHAR(255) NOT NULL, device_owner VARCHAR(255) NOT NULL, host VARCHAR(255) NOT NULL,
  status VARCHAR(16) NOT NULL, doc {{text}} NOT NULL
);
CREATE UNIQUE INDEX network_ports_mac ON network_ports (network_id, mac_address);
CREATE INDEX network_ports_project ON network_ports (project_id);
CREATE INDEX network_ports_device ON network_ports (device_id);
CREATE INDEX network_ports_host ON network_ports (host, network_id);
CREATE INDEX network_ports_network_host ON network_ports (network_id, host);
CREATE INDEX network_ports_name ON network_ports (name);
CREATE TABLE network_groups (
  id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(64) NOT NULL, name VARCHAR(255) NOT NULL, doc {{text}} NOT NULL
);
CREATE INDEX network_groups_project ON network_groups (project_id, name);
CREATE TABLE network_default_groups (
  project_id VARCHAR(64) PRIMARY KEY, group_id VARCHAR(36) NOT NULL
);
CREATE TABLE network_rules (
  id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(64) NOT NULL, group_id VARCHAR(36) NOT NULL, remote_group_id VARCHAR(36) NOT NULL,
  sig VARCHAR(200) NOT NULL, doc {{text}} NOT NULL
);
CREATE UNIQUE INDEX network_rules_sig ON network_rules (group_id, sig);
CREATE INDEX network_rules_project ON network_rules (project_id);
CREATE INDEX network_rules_remote ON network_rules (remote_group_id);
CREATE TABLE network_routers (
  id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(64) NOT NULL, name VARCHAR(255) NOT NULL, doc {{text}} NOT NULL
);
CREATE INDEX network_routers_project ON network_routers (project_id);
CREATE TABLE network_floatingips (
  id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(64) NOT NULL, network_id VARCHAR(36) NOT NULL, address VARCHAR(45) NOT NULL,
  port_id VARCHAR(36) NOT NULL, router_id VARCHAR(36) NOT NULL, doc {{text}} NOT NULL
);
CREATE UNIQUE INDEX network_floatingips_address ON network_floatingips (network_id, address);
CREATE INDEX network_floatingips_project ON network_floatingips (project_id);
CREATE INDEX network_floatingips_port ON network_floatingips (port_id);
CREATE INDEX network_floatingips_router ON network_floatingips (router_id);
CREATE TABLE network_subnetpools (
  id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(64) NOT NULL, name VARCHAR(255) NOT NULL, shared SMALLINT NOT NULL, doc {{text}} NOT NULL
);
CREATE INDEX network_subnetpools_project ON network_subnetpools (project_id);
CREATE TABLE network_scopes (
  id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(64) NOT NULL, name VARCHAR(255) NOT NULL, shared SMALLINT NOT NULL, doc {{text}} NOT NULL
);
CREATE INDEX network_scopes_project ON network_scopes (project_id);
CREATE TABLE network_rbac (
  id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(64) NOT NULL, object_type VARCHAR(32) NOT NULL, object_id VARCHAR(36) NOT NULL,
  target VARCHAR(64) NOT NULL, action VARCHAR(32) NOT NULL, doc {{text}} NOT NULL
);
CREATE UNIQUE INDEX network_rbac_entry ON network_rbac (object_id, action, target);
CREATE INDEX network_rbac_target ON network_rbac (target, object_type);
CREATE INDEX network_rbac_project ON network_rbac (project_id);
