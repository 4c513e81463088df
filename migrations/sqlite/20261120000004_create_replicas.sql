-- Who serves with which keys and which clock, and who holds the work that one replica does for all.

CREATE TABLE replicas (
    id            TEXT PRIMARY KEY,
    started_at    TEXT NOT NULL,
    -- By the database's clock, as far as the replica knows it.
    seen_at       TEXT NOT NULL,
    -- Space-separated, the active key first.
    key_ids       TEXT NOT NULL,
    clock_skew_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE leases (
    name        TEXT PRIMARY KEY,
    owner       TEXT NOT NULL,
    lease_until TEXT NOT NULL
) STRICT;

-- Re-wrapping goes through the rows of one key in order.
CREATE INDEX connections_by_data_key ON connections (data_key_id, id) WHERE data_key_id IS NOT NULL;
DROP INDEX connections_data_key;
CREATE INDEX authorization_requests_by_data_key ON authorization_requests (data_key_id, id) WHERE data_key_id IS NOT NULL;
