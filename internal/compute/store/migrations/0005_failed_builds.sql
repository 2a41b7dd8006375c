ALTER TABLE compute_services ADD COLUMN failed_builds BIGINT NOT NULL DEFAULT 0;
