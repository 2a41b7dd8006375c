CREATE TABLE compute_host_claims (
  consumer VARCHAR(36) PRIMARY KEY,
  server_id VARCHAR(36) NOT NULL,
  host VARCHAR(255) NOT NULL,
  doc {{text}} NOT NULL
);
CREATE INDEX compute_host_claims_host ON compute_host_claims (host, consumer);
CREATE INDEX compute_host_claims_server ON compute_host_claims (server_id);
