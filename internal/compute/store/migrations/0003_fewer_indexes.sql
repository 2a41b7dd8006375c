-- Every index is written by every server that is made. Those that go served queries that others serve as well; those that are made anew hold only the rows that
-- are looked for by them, where the database can do that.
DROP INDEX compute_servers_created{{on compute_servers}};
DROP INDEX compute_servers_group{{on compute_servers}};
DROP INDEX compute_servers_reservation{{on compute_servers}};
DROP INDEX compute_servers_project_changed{{on compute_servers}};
DROP INDEX compute_servers_project_terminated{{on compute_servers}};
DROP INDEX compute_servers_flavor{{on compute_servers}};
DROP INDEX compute_servers_host{{on compute_servers}};
CREATE INDEX compute_servers_host ON compute_servers (host, deleted){{where host > ''}};
DROP INDEX compute_servers_terminated{{on compute_servers}};
CREATE INDEX compute_servers_terminated ON compute_servers (terminated_at){{where terminated_at > 0}};
DROP INDEX compute_servers_purge{{on compute_servers}};
CREATE INDEX compute_servers_purge ON compute_servers (deleted_at){{where deleted = 1}};
