CREATE INDEX network_default_groups_group ON network_default_groups (group_id);
