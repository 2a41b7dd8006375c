-- Tokens carry the epoch of their user and scope; raising it ends them all, whatever the clocks say.
ALTER TABLE identity_users ADD COLUMN token_epoch BIGINT NOT NULL DEFAULT 0;
ALTER TABLE identity_projects ADD COLUMN token_epoch BIGINT NOT NULL DEFAULT 0;
ALTER TABLE identity_revocations DROP COLUMN issued_before;
ALTER TABLE identity_revocations DROP COLUMN kind;
DELETE FROM identity_trusts WHERE deleted_at > 0;
ALTER TABLE identity_trusts DROP COLUMN deleted_at;
CREATE INDEX identity_groups_by_name ON identity_groups (name);
CREATE INDEX identity_roles_by_name ON identity_roles (name);
CREATE INDEX identity_services_type ON identity_services ("type");
CREATE INDEX identity_endpoints_region ON identity_endpoints (region_id);
CREATE INDEX identity_regions_parent ON identity_regions (parent_region_id);
CREATE INDEX identity_limits_service ON identity_limits (service_id, region_id, resource_name);
