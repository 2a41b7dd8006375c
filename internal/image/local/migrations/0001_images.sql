-- doc holds tags, properties and locations together, so that lists read one table; image_tags and image_properties are the
-- same facts in the form that filters need.
CREATE TABLE image_images (
  id VARCHAR(36) NOT NULL PRIMARY KEY,
  name VARCHAR(255) NOT NULL,
  status VARCHAR(32) NOT NULL,
  visibility VARCHAR(16) NOT NULL,
  owner VARCHAR(255) NOT NULL,
  disk_format VARCHAR(32) NOT NULL,
  container_format VARCHAR(32) NOT NULL,
  checksum VARCHAR(64) NOT NULL,
  hash_algo VARCHAR(32) NOT NULL,
  hash_value VARCHAR(128) NOT NULL,
  size BIGINT NOT NULL,
  virtual_size BIGINT NOT NULL,
  min_disk BIGINT NOT NULL,
  min_ram BIGINT NOT NULL,
  protected SMALLINT NOT NULL,
  hidden SMALLINT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  node VARCHAR(64) NOT NULL,
  token VARCHAR(64) NOT NULL,
  staged VARCHAR(128) NOT NULL,
  staged_size BIGINT NOT NULL,
  doc {{text}} NOT NULL
);
CREATE INDEX image_images_created ON image_images (created_at, id);
CREATE INDEX image_images_owner ON image_images (owner, created_at, id);
CREATE INDEX image_images_name ON image_images (name);
CREATE INDEX image_images_status ON image_images (status);

CREATE TABLE image_tags (
  image_id VARCHAR(36) NOT NULL,
  tag VARCHAR(255) NOT NULL,
  PRIMARY KEY (image_id, tag)
);
CREATE INDEX image_tags_tag ON image_tags (tag);

CREATE TABLE image_properties (
  image_id VARCHAR(36) NOT NULL,
  name VARCHAR(255) NOT NULL,
  value {{text}} NOT NULL,
  PRIMARY KEY (image_id, name)
);

CREATE TABLE image_members (
  image_id VARCHAR(36) NOT NULL,
  member VARCHAR(255) NOT NULL,
  status VARCHAR(16) NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  PRIMARY KEY (image_id, member)
);
CREATE INDEX image_members_member ON image_members (member, status);

CREATE TABLE image_tasks (
  id VARCHAR(36) NOT NULL PRIMARY KEY,
  type VARCHAR(32) NOT NULL,
  status VARCHAR(32) NOT NULL,
  owner VARCHAR(255) NOT NULL,
  user_id VARCHAR(64) NOT NULL,
  request_id VARCHAR(64) NOT NULL,
  image_id VARCHAR(36) NOT NULL,
  node VARCHAR(64) NOT NULL,
  input {{text}} NOT NULL,
  result {{text}} NOT NULL,
  message {{text}} NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL
);
CREATE INDEX image_tasks_image ON image_tasks (image_id, created_at);
CREATE INDEX image_tasks_owner ON image_tasks (owner, created_at, id);
CREATE INDEX image_tasks_status ON image_tasks (status, node);
CREATE INDEX image_tasks_expires ON image_tasks (expires_at);

-- The directories of image files that this database knows. Files of a directory that it does not know are nobody's to sweep.
CREATE TABLE image_directories (
  node VARCHAR(64) NOT NULL PRIMARY KEY,
  created_at BIGINT NOT NULL
);
