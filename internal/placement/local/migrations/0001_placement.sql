-- Resource providers. version grows with every change of the row or of anything that belongs to it; changed is when (microseconds).
CREATE TABLE placement_providers (
  uuid VARCHAR(36) NOT NULL PRIMARY KEY,
  name VARCHAR(200) NOT NULL,
  parent VARCHAR(36) NOT NULL,
  root VARCHAR(36) NOT NULL,
  generation BIGINT NOT NULL,
  version BIGINT NOT NULL,
  changed BIGINT NOT NULL
);
CREATE UNIQUE INDEX placement_providers_name ON placement_providers (name);
CREATE INDEX placement_providers_parent ON placement_providers (parent);
CREATE INDEX placement_providers_changed ON placement_providers (changed);
-- Providers that are gone, for the snapshots of other processes.
CREATE TABLE placement_gone (
  uuid VARCHAR(36) NOT NULL PRIMARY KEY,
  changed BIGINT NOT NULL
);
CREATE INDEX placement_gone_changed ON placement_gone (changed);
-- What a provider has. used is the sum of its allocations of the class; capacity is floor((total - reserved) x ratio).
CREATE TABLE placement_inventories (
  provider VARCHAR(36) NOT NULL,
  class VARCHAR(255) NOT NULL,
  total BIGINT NOT NULL,
  reserved BIGINT NOT NULL,
  min_unit BIGINT NOT NULL,
  max_unit BIGINT NOT NULL,
  step_size BIGINT NOT NULL,
  ratio DOUBLE PRECISION NOT NULL,
  capacity BIGINT NOT NULL,
  used BIGINT NOT NULL,
  PRIMARY KEY (provider, class)
){{clustered}};
CREATE INDEX placement_inventories_class ON placement_inventories (class);
CREATE TABLE placement_provider_traits (
  provider VARCHAR(36) NOT NULL,
  trait VARCHAR(255) NOT NULL,
  PRIMARY KEY (provider, trait)
);
CREATE INDEX placement_provider_traits_trait ON placement_provider_traits (trait);
CREATE TABLE placement_provider_aggregates (
  provider VARCHAR(36) NOT NULL,
  aggregate VARCHAR(36) NOT NULL,
  PRIMARY KEY (provider, aggregate)
);
-- Names that operators made; the standard ones are in the program.
CREATE TABLE placement_classes (
  name VARCHAR(255) NOT NULL PRIMARY KEY,
  created BIGINT NOT NULL
);
CREATE TABLE placement_traits (
  name VARCHAR(255) NOT NULL PRIMARY KEY,
  created BIGINT NOT NULL
);
CREATE TABLE placement_consumers (
  uuid VARCHAR(36) NOT NULL PRIMARY KEY,
  project_id VARCHAR(255) NOT NULL,
  user_id VARCHAR(255) NOT NULL,
  type VARCHAR(255) NOT NULL,
  generation BIGINT NOT NULL
){{clustered}};
CREATE INDEX placement_consumers_owner ON placement_consumers (project_id, user_id);
CREATE TABLE placement_allocations (
  consumer VARCHAR(36) NOT NULL,
  provider VARCHAR(36) NOT NULL,
  class VARCHAR(255) NOT NULL,
  amount BIGINT NOT NULL,
  PRIMARY KEY (consumer, provider, class)
){{clustered}};
CREATE INDEX placement_allocations_provider ON placement_allocations (provider, class);
