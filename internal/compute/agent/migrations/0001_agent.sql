CREATE TABLE agent_servers (
  host VARCHAR(255) NOT NULL,
  server VARCHAR(36) NOT NULL,
  epoch BIGINT NOT NULL,
  spec {{text}} NOT NULL,
  metadata {{text}} NOT NULL,
  gone BIGINT NOT NULL,
  PRIMARY KEY (host, server)
);
CREATE TABLE agent_commands (
  host VARCHAR(255) NOT NULL,
  server VARCHAR(36) NOT NULL,
  command VARCHAR(255) NOT NULL,
  epoch BIGINT NOT NULL,
  verb VARCHAR(32) NOT NULL,
  done SMALLINT NOT NULL,
  result {{text}} NOT NULL,
  updated BIGINT NOT NULL,
  PRIMARY KEY (host, server, command)
){{clustered}};
CREATE INDEX agent_commands_updated ON agent_commands (updated)
