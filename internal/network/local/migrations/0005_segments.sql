-- Segments of networks that have, or once had, several; another network has one segment, which follows from the network itself.
CREATE TABLE network_parts (
  id VARCHAR(36) PRIMARY KEY, network_id VARCHAR(36) NOT NULL, name VARCHAR(255) NOT NULL, doc {{text}} NOT NULL
);
CREATE INDEX network_parts_network ON network_parts (network_id);
-- The physical networks that hosts are joined to.
CREATE TABLE network_host_physicals (
  host VARCHAR(255) NOT NULL, physical_network VARCHAR(64) NOT NULL, PRIMARY KEY (host, physical_network)
);
CREATE INDEX network_host_physicals_name ON network_host_physicals (physical_network);
ALTER TABLE network_subnets ADD COLUMN segment_id VARCHAR(36) NOT NULL DEFAULT '';
CREATE INDEX network_subnets_segment ON network_subnets (segment_id);
