-- VXLAN identifiers in use: each belongs to one network.
CREATE TABLE network_segments (
  vni BIGINT PRIMARY KEY, network_id VARCHAR(36) NOT NULL
);
CREATE INDEX network_bindings_host ON network_bindings (host);
