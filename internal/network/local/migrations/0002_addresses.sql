-- Addresses are fixed-width hexadecimal numbers (8 digits for IPv4, 32 for IPv6): text order is address order.
CREATE TABLE network_addresses (
  network_id VARCHAR(36) NOT NULL, addr VARCHAR(32) NOT NULL, subnet_id VARCHAR(36) NOT NULL, port_id VARCHAR(36) NOT NULL,
  PRIMARY KEY (network_id, addr)
){{clustered}};
CREATE INDEX network_addresses_port ON network_addresses (port_id);
CREATE INDEX network_addresses_subnet ON network_addresses (subnet_id);
CREATE TABLE network_pools (
  subnet_id VARCHAR(36) NOT NULL, ord BIGINT NOT NULL, first_addr VARCHAR(32) NOT NULL, last_addr VARCHAR(32) NOT NULL, next_addr VARCHAR(32) NOT NULL,
  PRIMARY KEY (subnet_id, ord)
){{clustered}};
CREATE TABLE network_released (
  subnet_id VARCHAR(36) NOT NULL, addr VARCHAR(32) NOT NULL, PRIMARY KEY (subnet_id, addr)
){{clustered}};
CREATE TABLE network_port_groups (
  port_id VARCHAR(36) NOT NULL, group_id VARCHAR(36) NOT NULL, PRIMARY KEY (port_id, group_id)
){{clustered}};
CREATE INDEX network_port_groups_group ON network_port_groups (group_id);
CREATE TABLE network_quotas (
  project_id VARCHAR(64) NOT NULL, resource VARCHAR(64) NOT NULL, hard_limit BIGINT NOT NULL, PRIMARY KEY (project_id, resource)
);
CREATE TABLE network_usages (
  project_id VARCHAR(64) NOT NULL, resource VARCHAR(64) NOT NULL, used BIGINT NOT NULL, PRIMARY KEY (project_id, resource)
){{clustered}};
CREATE TABLE network_agents (
  id VARCHAR(36) PRIMARY KEY, host VARCHAR(255) NOT NULL, heartbeat BIGINT NOT NULL, doc {{text}} NOT NULL
);
CREATE TABLE network_bindings (
  port_id VARCHAR(36) NOT NULL, host VARCHAR(255) NOT NULL, status VARCHAR(16) NOT NULL, doc {{text}} NOT NULL, PRIMARY KEY (port_id, host)
);
