CREATE TABLE compute_notifications (
  id {{serial}},
  message_id VARCHAR(36) NOT NULL,
  event_type VARCHAR(96) NOT NULL,
  priority VARCHAR(16) NOT NULL,
  body {{text}} NOT NULL,
  created_at BIGINT NOT NULL
);
CREATE TABLE compute_notification_tasks (
  name VARCHAR(32) NOT NULL PRIMARY KEY,
  owner VARCHAR(128) NOT NULL,
  lease_until BIGINT NOT NULL,
  done BIGINT NOT NULL,
  position BIGINT NOT NULL
);
INSERT INTO compute_notification_tasks (name, owner, lease_until, done, position) VALUES ('publish', '', 0, 0, 0);
INSERT INTO compute_notification_tasks (name, owner, lease_until, done, position) VALUES ('audit', '', 0, 0, 0);
