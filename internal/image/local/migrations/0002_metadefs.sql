CREATE TABLE image_metadef_namespaces (
  id {{serial}},
  namespace VARCHAR(80) NOT NULL,
  display_name VARCHAR(80) NOT NULL,
  description {{text}} NOT NULL,
  visibility VARCHAR(16) NOT NULL,
  protected SMALLINT NOT NULL,
  owner VARCHAR(255) NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX image_metadef_namespaces_name ON image_metadef_namespaces (namespace);

-- kind is object, property, tag or association (of a resource type); doc is the document without name and times.
CREATE TABLE image_metadef_items (
  namespace_id BIGINT NOT NULL,
  kind VARCHAR(16) NOT NULL,
  name VARCHAR(80) NOT NULL,
  doc {{text}} NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  PRIMARY KEY (namespace_id, kind, name)
);
CREATE INDEX image_metadef_items_name ON image_metadef_items (kind, name);

CREATE TABLE image_metadef_resource_types (
  name VARCHAR(80) NOT NULL PRIMARY KEY,
  protected SMALLINT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL
);
INSERT INTO image_metadef_resource_types (name, protected, created_at, updated_at) VALUES
  ('OS::Cinder::Volume', 1, 1735689600000000, 1735689600000000),
  ('OS::Glance::Image', 1, 1735689600000000, 1735689600000000),
  ('OS::Nova::Aggregate', 1, 1735689600000000, 1735689600000000),
  ('OS::Nova::Flavor', 1, 1735689600000000, 1735689600000000),
  ('OS::Nova::Server', 1, 1735689600000000, 1735689600000000);
