CREATE TABLE compute_owed (
  host VARCHAR(255) NOT NULL,
  server_id VARCHAR(36) NOT NULL,
  operation_id VARCHAR(36) NOT NULL,
  epoch BIGINT NOT NULL,
  verb VARCHAR(32) NOT NULL,
  args {{text}} NOT NULL,
  reason VARCHAR(255) NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (host, server_id)
);
CREATE INDEX compute_owed_server ON compute_owed (server_id);
