CREATE TABLE fake_guests (
  host VARCHAR(255) NOT NULL,
  id VARCHAR(36) NOT NULL,
  name VARCHAR(64) NOT NULL,
  power BIGINT NOT NULL,
  incoming SMALLINT NOT NULL,
  doc {{text}} NOT NULL,
  PRIMARY KEY (host, id)
);
