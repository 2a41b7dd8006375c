CREATE TABLE compute_servers (
  number {{serial}},
  id VARCHAR(36) NOT NULL,
  rev BIGINT NOT NULL,
  deleted SMALLINT NOT NULL,
  project_id VARCHAR(64) NOT NULL,
  user_id VARCHAR(64) NOT NULL,
  name VARCHAR(255) NOT NULL,
  description {{text}},
  hostname VARCHAR(255) NOT NULL,
  reservation_id VARCHAR(64) NOT NULL,
  launch_index BIGINT NOT NULL,
  vm_state VARCHAR(32) NOT NULL,
  power_state BIGINT NOT NULL,
  progress BIGINT NOT NULL,
  host VARCHAR(255) NOT NULL,
  node VARCHAR(255) NOT NULL,
  zone VARCHAR(255) NOT NULL,
  image_id VARCHAR(64) NOT NULL,
  kernel_id VARCHAR(64) NOT NULL,
  ramdisk_id VARCHAR(64) NOT NULL,
  root_device VARCHAR(64) NOT NULL,
  key_name VARCHAR(255) NOT NULL,
  config_drive SMALLINT NOT NULL,
  disk_config VARCHAR(8) NOT NULL,
  access_ipv4 VARCHAR(64) NOT NULL,
  access_ipv6 VARCHAR(64) NOT NULL,
  locked_by VARCHAR(16) NOT NULL,
  group_id VARCHAR(36) NOT NULL,
  flavor_row BIGINT NOT NULL,
  flavor_id VARCHAR(255) NOT NULL,
  vcpus BIGINT NOT NULL,
  ram_mb BIGINT NOT NULL,
  disk_gb BIGINT NOT NULL,
  addresses {{text}} NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  launched_at BIGINT NOT NULL,
  terminated_at BIGINT NOT NULL,
  deleted_at BIGINT NOT NULL,
  doc {{text}} NOT NULL
);
CREATE UNIQUE INDEX compute_servers_id ON compute_servers (id);
CREATE INDEX compute_servers_project ON compute_servers (project_id, deleted, created_at, number);
CREATE INDEX compute_servers_all ON compute_servers (deleted, created_at, number);
CREATE INDEX compute_servers_created ON compute_servers (created_at, number);
CREATE INDEX compute_servers_host ON compute_servers (host, deleted);
CREATE INDEX compute_servers_group ON compute_servers (group_id);
CREATE INDEX compute_servers_reservation ON compute_servers (reservation_id);
CREATE INDEX compute_servers_changed ON compute_servers (updated_at);
CREATE INDEX compute_servers_project_changed ON compute_servers (project_id, updated_at);
CREATE INDEX compute_servers_terminated ON compute_servers (terminated_at);
CREATE INDEX compute_servers_project_terminated ON compute_servers (project_id, terminated_at);
CREATE INDEX compute_servers_purge ON compute_servers (deleted, deleted_at);
CREATE INDEX compute_servers_flavor ON compute_servers (flavor_row, deleted);

CREATE TABLE compute_server_tags (
  server_id VARCHAR(36) NOT NULL,
  tag VARCHAR(80) NOT NULL,
  PRIMARY KEY (server_id, tag)
);
CREATE INDEX compute_server_tags_tag ON compute_server_tags (tag, server_id);

CREATE TABLE compute_server_metadata (
  server_id VARCHAR(36) NOT NULL,
  name VARCHAR(255) NOT NULL,
  value VARCHAR(255) NOT NULL,
  PRIMARY KEY (server_id, name)
);
CREATE INDEX compute_server_metadata_name ON compute_server_metadata (name, server_id);

CREATE TABLE compute_services (
  number {{serial}},
  id VARCHAR(36) NOT NULL,
  host VARCHAR(255) NOT NULL,
  service_binary VARCHAR(64) NOT NULL,
  disabled SMALLINT NOT NULL,
  disabled_reason VARCHAR(255) NOT NULL,
  forced_down SMALLINT NOT NULL,
  last_seen BIGINT NOT NULL,
  version BIGINT NOT NULL,
  node_id VARCHAR(36) NOT NULL,
  node_name VARCHAR(255) NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  info {{text}} NOT NULL
);
CREATE UNIQUE INDEX compute_services_id ON compute_services (id);
CREATE UNIQUE INDEX compute_services_host ON compute_services (host, service_binary);
CREATE INDEX compute_services_binary ON compute_services (service_binary, host);
CREATE INDEX compute_services_node ON compute_services (node_id);

CREATE TABLE compute_aggregates (
  id {{serial}},
  uuid VARCHAR(36) NOT NULL,
  name VARCHAR(255) NOT NULL,
  metadata {{text}} NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX compute_aggregates_name ON compute_aggregates (name);

CREATE TABLE compute_aggregate_hosts (
  host VARCHAR(255) NOT NULL,
  aggregate_id BIGINT NOT NULL,
  PRIMARY KEY (host, aggregate_id)
);
CREATE INDEX compute_aggregate_hosts_aggregate ON compute_aggregate_hosts (aggregate_id);

CREATE TABLE compute_groups (
  number {{serial}},
  id VARCHAR(36) NOT NULL,
  name VARCHAR(255) NOT NULL,
  project_id VARCHAR(64) NOT NULL,
  user_id VARCHAR(64) NOT NULL,
  policy VARCHAR(32) NOT NULL,
  max_per_host BIGINT NOT NULL
);
CREATE UNIQUE INDEX compute_groups_id ON compute_groups (id);
CREATE INDEX compute_groups_project ON compute_groups (project_id, number);

CREATE TABLE compute_group_members (
  group_id VARCHAR(36) NOT NULL,
  server_id VARCHAR(36) NOT NULL,
  user_id VARCHAR(64) NOT NULL,
  PRIMARY KEY (group_id, server_id)
);
CREATE INDEX compute_group_members_server ON compute_group_members (server_id);

CREATE TABLE compute_flavors (
  id {{serial}},
  flavor_id VARCHAR(255) NOT NULL,
  name VARCHAR(255) NOT NULL,
  vcpus BIGINT NOT NULL,
  ram_mb BIGINT NOT NULL,
  root_gb BIGINT NOT NULL,
  ephemeral_gb BIGINT NOT NULL,
  swap_mb BIGINT NOT NULL,
  rxtx DOUBLE PRECISION NOT NULL,
  is_public SMALLINT NOT NULL,
  disabled SMALLINT NOT NULL,
  description {{text}},
  extra_specs {{text}} NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX compute_flavors_flavor_id ON compute_flavors (flavor_id);
CREATE UNIQUE INDEX compute_flavors_name ON compute_flavors (name);

CREATE TABLE compute_flavor_access (
  flavor_row BIGINT NOT NULL,
  project_id VARCHAR(255) NOT NULL,
  PRIMARY KEY (flavor_row, project_id)
);
CREATE INDEX compute_flavor_access_project ON compute_flavor_access (project_id);

CREATE TABLE compute_keypairs (
  id {{serial}},
  user_id VARCHAR(64) NOT NULL,
  name VARCHAR(255) NOT NULL,
  type VARCHAR(8) NOT NULL,
  public_key {{text}} NOT NULL,
  fingerprint VARCHAR(255) NOT NULL,
  created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX compute_keypairs_name ON compute_keypairs (user_id, name);

CREATE TABLE compute_migrations (
  id {{serial}},
  uuid VARCHAR(36) NOT NULL,
  server_id VARCHAR(36) NOT NULL,
  type VARCHAR(32) NOT NULL,
  status VARCHAR(32) NOT NULL,
  source_host VARCHAR(255) NOT NULL,
  source_node VARCHAR(255) NOT NULL,
  dest_host VARCHAR(255) NOT NULL,
  dest_node VARCHAR(255) NOT NULL,
  dest_ip VARCHAR(64) NOT NULL,
  old_flavor BIGINT NOT NULL,
  new_flavor BIGINT NOT NULL,
  project_id VARCHAR(64) NOT NULL,
  user_id VARCHAR(64) NOT NULL,
  memory_total BIGINT NOT NULL,
  memory_processed BIGINT NOT NULL,
  memory_remaining BIGINT NOT NULL,
  disk_total BIGINT NOT NULL,
  disk_processed BIGINT NOT NULL,
  disk_remaining BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX compute_migrations_uuid ON compute_migrations (uuid);
CREATE INDEX compute_migrations_server ON compute_migrations (server_id, id);
CREATE INDEX compute_migrations_created ON compute_migrations (created_at, id);
CREATE INDEX compute_migrations_project ON compute_migrations (project_id, created_at, id);
CREATE INDEX compute_migrations_source ON compute_migrations (source_host, status);
CREATE INDEX compute_migrations_dest ON compute_migrations (dest_host, status);

CREATE TABLE compute_quota_limits (
  scope VARCHAR(8) NOT NULL,
  project_id VARCHAR(255) NOT NULL,
  user_id VARCHAR(64) NOT NULL,
  resource VARCHAR(64) NOT NULL,
  hard_limit BIGINT NOT NULL,
  PRIMARY KEY (scope, project_id, user_id, resource)
);

CREATE TABLE compute_quota_usage (
  project_id VARCHAR(64) NOT NULL,
  user_id VARCHAR(64) NOT NULL,
  instances BIGINT NOT NULL,
  cores BIGINT NOT NULL,
  ram BIGINT NOT NULL,
  server_groups BIGINT NOT NULL,
  key_pairs BIGINT NOT NULL,
  PRIMARY KEY (project_id, user_id)
);

CREATE TABLE compute_console_tokens (
  token_hash VARCHAR(64) PRIMARY KEY,
  server_id VARCHAR(36) NOT NULL,
  kind VARCHAR(32) NOT NULL,
  host VARCHAR(255) NOT NULL,
  port BIGINT NOT NULL,
  path VARCHAR(255) NOT NULL,
  agent VARCHAR(255) NOT NULL,
  access_url VARCHAR(1024) NOT NULL,
  used SMALLINT NOT NULL,
  expires_at BIGINT NOT NULL
);
CREATE INDEX compute_console_tokens_server ON compute_console_tokens (server_id);
CREATE INDEX compute_console_tokens_expires ON compute_console_tokens (expires_at);
