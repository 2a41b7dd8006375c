CREATE TABLE compute_audits (
  end_at BIGINT NOT NULL,
  host VARCHAR(255) NOT NULL,
  servers BIGINT NOT NULL,
  took BIGINT NOT NULL,
  done SMALLINT NOT NULL,
  PRIMARY KEY (end_at, host)
);
