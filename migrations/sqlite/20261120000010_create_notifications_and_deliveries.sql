-- What Mercado Pago told us, and whom we tell: notifications, event endpoints, deliveries and their attempts.

-- A seller's notifications keep coming after a revoke (refunds of old payments, for one).
CREATE INDEX connections_account ON connections (application, user_id, updated_at);

CREATE TABLE notifications (
    id          TEXT PRIMARY KEY,
    application TEXT NOT NULL,
    -- SHA-256 over what is equal for repetitions of one notification.
    dedupe_key  BLOB NOT NULL,
    topic       TEXT NOT NULL,
    action      TEXT,
    resource_id TEXT,
    user_id     INTEGER,
    seller_id   TEXT,
    outcome     TEXT NOT NULL,
    event_id    TEXT,
    -- As it came.
    body        TEXT NOT NULL,
    received_at TEXT NOT NULL,
    UNIQUE (application, dedupe_key)
) STRICT;

CREATE INDEX notifications_received ON notifications (application, received_at);

CREATE TABLE event_endpoints (
    id                    TEXT PRIMARY KEY,
    application           TEXT NOT NULL,
    url                   TEXT NOT NULL,
    -- Space-separated; null for all.
    event_types           TEXT,
    description           TEXT,
    -- Wrapped by an operator's key; seals the two secrets.
    data_key              BLOB NOT NULL,
    data_key_id           TEXT NOT NULL,
    secret                BLOB NOT NULL,
    previous_secret       BLOB,
    previous_secret_until TEXT,
    disabled_at           TEXT,
    disabled_reason       TEXT,
    failing_since         TEXT,
    created_at            TEXT NOT NULL,
    updated_at            TEXT NOT NULL
) STRICT;

CREATE INDEX event_endpoints_application ON event_endpoints (application, id);
CREATE INDEX event_endpoints_data_key ON event_endpoints (data_key_id);

CREATE TABLE deliveries (
    id              TEXT PRIMARY KEY,
    application     TEXT NOT NULL,
    endpoint_id     TEXT NOT NULL REFERENCES event_endpoints (id) ON DELETE CASCADE,
    event_id        TEXT NOT NULL REFERENCES events (id) ON DELETE CASCADE,
    event_type      TEXT NOT NULL,
    status          TEXT NOT NULL CHECK (status IN ('pending', 'delivered', 'dead')),
    attempts        INTEGER NOT NULL,
    -- Attempts since it was last put in line: the place in the schedule.
    tries           INTEGER NOT NULL,
    -- While an attempt is under way: the end of its lease.
    next_attempt_at TEXT,
    claim           TEXT,
    created_at      TEXT NOT NULL,
    finished_at     TEXT,
    last_status     INTEGER,
    last_error      TEXT
) STRICT;

CREATE INDEX deliveries_due ON deliveries (endpoint_id, next_attempt_at) WHERE status = 'pending';
CREATE INDEX deliveries_open ON deliveries (status, created_at) WHERE status <> 'delivered';
CREATE INDEX deliveries_event ON deliveries (event_id);
CREATE INDEX deliveries_application ON deliveries (application, id);
CREATE INDEX deliveries_endpoint ON deliveries (endpoint_id, status, id);

CREATE TABLE delivery_attempts (
    delivery_id TEXT NOT NULL REFERENCES deliveries (id) ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    started_at  TEXT NOT NULL,
    duration_ms INTEGER NOT NULL,
    http_status INTEGER,
    error       TEXT,
    -- The beginning of what the endpoint answered when it did not confirm.
    answer      TEXT,
    PRIMARY KEY (delivery_id, number)
) STRICT;
