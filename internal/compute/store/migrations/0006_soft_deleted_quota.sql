-- Servers that are soft deleted do not count against quotas any more.
UPDATE compute_quota_usage SET
  instances = instances - (SELECT COUNT(*) FROM compute_servers s WHERE s.deleted = 0 AND s.vm_state = 'soft-delete' AND s.project_id = compute_quota_usage.project_id AND (compute_quota_usage.user_id = '' OR s.user_id = compute_quota_usage.user_id)),
  cores = cores - COALESCE((SELECT SUM(s.vcpus) FROM compute_servers s WHERE s.deleted = 0 AND s.vm_state = 'soft-delete' AND s.project_id = compute_quota_usage.project_id AND (compute_quota_usage.user_id = '' OR s.user_id = compute_quota_usage.user_id)), 0),
  ram = ram - COALESCE((SELECT SUM(s.ram_mb) FROM compute_servers s WHERE s.deleted = 0 AND s.vm_state = 'soft-delete' AND s.project_id = compute_quota_usage.project_id AND (compute_quota_usage.user_id = '' OR s.user_id = compute_quota_usage.user_id)), 0);
