-- Who serves with which keys and which clock, and who holds the work that one replica does for all.

CREATE TABLE replicas (
    id            TEXT COLLATE "C" PRIMARY KEY,
    started_at    TIMESTAMPTZ NOT NULL,
    -- By the database's clock, as far as the replica knows it.
    seen_at       TIMESTAMPTZ NOT NULL,
    -- Space-separated, the active key first.
    key_ids       TEXT COLLATE "C" NOT NULL,
    clock_skew_ms BIGINT NOT NULL
);

CREATE TABLE leases (
    name        TEXT COLLATE "C" PRIMARY KEY,
    owner       TEXT COLLATE "C" NOT NULL,
    lease_until TIMESTAMPTZ NOT NULL
);

-- Re-wrapping goes through the rows of one key in order.
CREATE INDEX connections_by_data_key ON connections (data_key_id, id) WHERE data_key_id IS NOT NULL;
DROP INDEX connections_data_key;
CREATE INDEX authorization_requests_by_data_key ON authorization_requests (data_key_id, id) WHERE data_key_id IS NOT NULL;
