-- Servers are not listed by their metadata: it stands in their documents only.
DROP TABLE compute_server_metadata;
