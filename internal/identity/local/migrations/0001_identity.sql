CREATE TABLE identity_projects (
  id VARCHAR(64) NOT NULL PRIMARY KEY,
  domain_id VARCHAR(64) NOT NULL,
  parent_id VARCHAR(64) NOT NULL,
  name VARCHAR(64) NOT NULL,
  description {{text}} NOT NULL,
  enabled SMALLINT NOT NULL,
  is_domain SMALLINT NOT NULL,
  tags {{text}} NOT NULL,
  "options" {{text}} NOT NULL,
  extra {{text}} NOT NULL
);
CREATE UNIQUE INDEX identity_projects_name ON identity_projects (domain_id, name);
CREATE INDEX identity_projects_by_name ON identity_projects (name);
CREATE INDEX identity_projects_parent ON identity_projects (parent_id);
CREATE TABLE identity_users (
  id VARCHAR(64) NOT NULL PRIMARY KEY,
  domain_id VARCHAR(64) NOT NULL,
  name VARCHAR(255) NOT NULL,
  default_project_id VARCHAR(64) NOT NULL,
  enabled SMALLINT NOT NULL,
  "options" {{text}} NOT NULL,
  extra {{text}} NOT NULL,
  password_hash VARCHAR(255) NOT NULL,
  password_history {{text}} NOT NULL,
  password_set_at BIGINT NOT NULL,
  password_expires_at BIGINT NOT NULL,
  failed_auths BIGINT NOT NULL,
  failed_at BIGINT NOT NULL,
  created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX identity_users_name ON identity_users (domain_id, name);
CREATE INDEX identity_users_by_name ON identity_users (name);
CREATE TABLE identity_groups (
  id VARCHAR(64) NOT NULL PRIMARY KEY,
  domain_id VARCHAR(64) NOT NULL,
  name VARCHAR(64) NOT NULL,
  description {{text}} NOT NULL,
  extra {{text}} NOT NULL
);
CREATE UNIQUE INDEX identity_groups_name ON identity_groups (domain_id, name);
CREATE TABLE identity_members (
  group_id VARCHAR(64) NOT NULL,
  user_id VARCHAR(64) NOT NULL,
  PRIMARY KEY (group_id, user_id)
);
CREATE INDEX identity_members_user ON identity_members (user_id);
CREATE TABLE identity_roles (
  id VARCHAR(64) NOT NULL PRIMARY KEY,
  domain_id VARCHAR(64) NOT NULL,
  name VARCHAR(255) NOT NULL,
  description {{text}} NOT NULL,
  "options" {{text}} NOT NULL,
  extra {{text}} NOT NULL
);
CREATE UNIQUE INDEX identity_roles_name ON identity_roles (domain_id, name);
CREATE TABLE identity_implied (
  prior_id VARCHAR(64) NOT NULL,
  implied_id VARCHAR(64) NOT NULL,
  PRIMARY KEY (prior_id, implied_id)
);
CREATE INDEX identity_implied_by ON identity_implied (implied_id);
CREATE TABLE identity_assignments (
  actor_type VARCHAR(8) NOT NULL,
  actor_id VARCHAR(64) NOT NULL,
  target_type VARCHAR(8) NOT NULL,
  target_id VARCHAR(64) NOT NULL,
  role_id VARCHAR(64) NOT NULL,
  inherited SMALLINT NOT NULL,
  PRIMARY KEY (actor_id, target_id, role_id, inherited, actor_type, target_type)
);
CREATE INDEX identity_assignments_target ON identity_assignments (target_id);
CREATE INDEX identity_assignments_role ON identity_assignments (role_id);
CREATE TABLE identity_regions (
  id VARCHAR(255) NOT NULL PRIMARY KEY,
  description {{text}} NOT NULL,
  parent_region_id VARCHAR(255) NOT NULL,
  extra {{text}} NOT NULL
);
CREATE TABLE identity_services (
  id VARCHAR(64) NOT NULL PRIMARY KEY,
  "type" VARCHAR(255) NOT NULL,
  name VARCHAR(255) NOT NULL,
  description {{text}} NOT NULL,
  enabled SMALLINT NOT NULL,
  extra {{text}} NOT NULL
);
CREATE TABLE identity_endpoints (
  id VARCHAR(64) NOT NULL PRIMARY KEY,
  service_id VARCHAR(64) NOT NULL,
  "interface" VARCHAR(8) NOT NULL,
  region_id VARCHAR(255) NOT NULL,
  url {{text}} NOT NULL,
  enabled SMALLINT NOT NULL,
  extra {{text}} NOT NULL
);
CREATE INDEX identity_endpoints_service ON identity_endpoints (service_id);
CREATE TABLE identity_credentials (
  id VARCHAR(64) NOT NULL PRIMARY KEY,
  user_id VARCHAR(64) NOT NULL,
  project_id VARCHAR(64) NOT NULL,
  "type" VARCHAR(255) NOT NULL,
  "blob" {{text}} NOT NULL
);
CREATE INDEX identity_credentials_user ON identity_credentials (user_id);
CREATE TABLE identity_policies (
  id VARCHAR(64) NOT NULL PRIMARY KEY,
  "type" VARCHAR(255) NOT NULL,
  "blob" {{text}} NOT NULL,
  extra {{text}} NOT NULL
);
CREATE TABLE identity_registered_limits (
  id VARCHAR(64) NOT NULL PRIMARY KEY,
  service_id VARCHAR(64) NOT NULL,
  region_id VARCHAR(64) NOT NULL,
  resource_name VARCHAR(255) NOT NULL,
  default_limit BIGINT NOT NULL,
  description {{text}} NOT NULL
);
CREATE UNIQUE INDEX identity_registered_limits_name ON identity_registered_limits (service_id, region_id, resource_name);
CREATE TABLE identity_limits (
  id VARCHAR(64) NOT NULL PRIMARY KEY,
  project_id VARCHAR(64) NOT NULL,
  domain_id VARCHAR(64) NOT NULL,
  service_id VARCHAR(64) NOT NULL,
  region_id VARCHAR(64) NOT NULL,
  resource_name VARCHAR(255) NOT NULL,
  resource_limit BIGINT NOT NULL,
  description {{text}} NOT NULL
);
CREATE UNIQUE INDEX identity_limits_name ON identity_limits (project_id, domain_id, service_id, region_id, resource_name);
CREATE TABLE identity_access_rules (
  id VARCHAR(64) NOT NULL PRIMARY KEY,
  user_id VARCHAR(64) NOT NULL,
  service VARCHAR(64) NOT NULL,
  method VARCHAR(16) NOT NULL,
  path VARCHAR(128) NOT NULL
);
CREATE UNIQUE INDEX identity_access_rules_user ON identity_access_rules (user_id, service, method, path);
CREATE TABLE identity_app_creds (
  id VARCHAR(64) NOT NULL PRIMARY KEY,
  user_id VARCHAR(64) NOT NULL,
  project_id VARCHAR(64) NOT NULL,
  name VARCHAR(255) NOT NULL,
  description {{text}} NOT NULL,
  secret_hash VARCHAR(255) NOT NULL,
  unrestricted SMALLINT NOT NULL,
  expires_at BIGINT NOT NULL,
  role_ids {{text}} NOT NULL,
  rule_ids {{text}} NOT NULL
);
CREATE UNIQUE INDEX identity_app_creds_name ON identity_app_creds (user_id, name);
CREATE INDEX identity_app_creds_project ON identity_app_creds (project_id);
CREATE TABLE identity_trusts (
  id VARCHAR(64) NOT NULL PRIMARY KEY,
  trustor_user_id VARCHAR(64) NOT NULL,
  trustee_user_id VARCHAR(64) NOT NULL,
  project_id VARCHAR(64) NOT NULL,
  redelegated_trust_id VARCHAR(64) NOT NULL,
  impersonation SMALLINT NOT NULL,
  expires_at BIGINT NOT NULL,
  deleted_at BIGINT NOT NULL,
  remaining_uses BIGINT NOT NULL,
  redelegation_count BIGINT NOT NULL,
  role_ids {{text}} NOT NULL
);
CREATE INDEX identity_trusts_trustor ON identity_trusts (trustor_user_id);
CREATE INDEX identity_trusts_trustee ON identity_trusts (trustee_user_id);
CREATE INDEX identity_trusts_project ON identity_trusts (project_id);
CREATE TABLE identity_consumers (
  id VARCHAR(64) NOT NULL PRIMARY KEY,
  description {{text}} NOT NULL,
  secret VARCHAR(64) NOT NULL,
  extra {{text}} NOT NULL
);
CREATE TABLE identity_endpoint_groups (
  id VARCHAR(64) NOT NULL PRIMARY KEY,
  name VARCHAR(255) NOT NULL,
  description {{text}} NOT NULL,
  filters {{text}} NOT NULL
);
CREATE TABLE identity_project_endpoints (
  project_id VARCHAR(64) NOT NULL,
  kind VARCHAR(8) NOT NULL,
  object_id VARCHAR(64) NOT NULL,
  PRIMARY KEY (project_id, kind, object_id)
);
CREATE INDEX identity_project_endpoints_object ON identity_project_endpoints (object_id);
CREATE TABLE identity_domain_config (
  domain_id VARCHAR(64) NOT NULL,
  section VARCHAR(64) NOT NULL,
  name VARCHAR(64) NOT NULL,
  "value" {{text}} NOT NULL,
  PRIMARY KEY (domain_id, section, name)
);
CREATE TABLE identity_revocations (
  id {{serial}},
  kind VARCHAR(16) NOT NULL,
  object_id VARCHAR(64) NOT NULL,
  issued_before BIGINT NOT NULL,
  revoked_at BIGINT NOT NULL
);
CREATE INDEX identity_revocations_object ON identity_revocations (object_id);
CREATE INDEX identity_revocations_at ON identity_revocations (revoked_at);
CREATE TABLE identity_changes (
  id {{serial}},
  kind VARCHAR(16) NOT NULL,
  object_id VARCHAR(64) NOT NULL,
  changed_at BIGINT NOT NULL
);
CREATE INDEX identity_changes_at ON identity_changes (changed_at);
