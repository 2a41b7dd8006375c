CREATE TABLE operations (
  id VARCHAR(36) NOT NULL PRIMARY KEY,
  kind VARCHAR(64) NOT NULL,
  object_type VARCHAR(32) NOT NULL,
  object VARCHAR(64) NOT NULL,
  holds VARCHAR(64) NULL,
  action VARCHAR(64) NOT NULL,
  project VARCHAR(64) NOT NULL,
  user_id VARCHAR(64) NOT NULL,
  request_id VARCHAR(64) NOT NULL,
  state VARCHAR(16) NOT NULL,
  task_state VARCHAR(64) NOT NULL,
  position BIGINT NOT NULL,
  undo_to BIGINT NOT NULL,
  round BIGINT NOT NULL,
  epoch BIGINT NOT NULL,
  owner VARCHAR(128) NOT NULL,
  lease_until BIGINT NOT NULL,
  due BIGINT NOT NULL,
  supersedes VARCHAR(36) NOT NULL,
  input {{text}} NOT NULL,
  vars {{text}} NOT NULL,
  cause {{text}} NOT NULL,
  public_cause {{text}} NOT NULL,
  accepted BIGINT NOT NULL,
  updated BIGINT NOT NULL,
  finished BIGINT NOT NULL
);
CREATE UNIQUE INDEX operations_holds ON operations (holds);
CREATE INDEX operations_object ON operations (object, accepted);
CREATE INDEX operations_state ON operations (state, lease_until);
CREATE INDEX operations_owner ON operations (owner, state);
CREATE INDEX operations_finished ON operations (finished);
CREATE TABLE operation_steps (
  id {{serial}},
  operation VARCHAR(36) NOT NULL,
  name VARCHAR(64) NOT NULL,
  event VARCHAR(96) NOT NULL,
  is_undo SMALLINT NOT NULL,
  attempt BIGINT NOT NULL,
  epoch BIGINT NOT NULL,
  host VARCHAR(255) NOT NULL,
  started BIGINT NOT NULL,
  finished BIGINT NOT NULL,
  succeeded SMALLINT NOT NULL,
  error {{text}} NOT NULL,
  public {{text}} NOT NULL
);
CREATE INDEX operation_steps_operation ON operation_steps (operation, finished);
