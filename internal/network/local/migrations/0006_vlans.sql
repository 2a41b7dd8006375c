-- VLANs of physical networks in use, each by one network; VLAN 0 is the physical network as it is.
CREATE TABLE network_vlans (
  physical_network VARCHAR(64) NOT NULL, vlan INTEGER NOT NULL, network_id VARCHAR(36) NOT NULL, PRIMARY KEY (physical_network, vlan)
);
CREATE INDEX network_vlans_network ON network_vlans (network_id);
