-- What Mercado Pago told us, and whom we tell: notifications, event endpoints, deliveries and their attempts.

-- A seller's notifications keep coming after a revoke (refunds of old payments, for one).
CREATE INDEX connections_account ON connections (application, user_id, updated_at);

CREATE TABLE notifications (
    id TEXT COLLATE "C" PRIMARY KEY,
    application TEXT COLLATE "C" NOT NULL,
    -- SHA-256 over what is equal for repetitions of one notification.
    dedupe_key BYTEA NOT NULL,
    topic TEXT COLLATE "C" NOT NULL,
    action TEXT COLLATE "C",
    resource_id TEXT COLLATE "C",
    user_id BIGINT,
    seller_id TEXT COLLATE "C",
    outcome TEXT COLLATE "C" NOT NULL,
    event_id TEXT COLLATE "C",
    -- As it came.
    body TEXT NOT NULL,
    received_at TIMESTAMPTZ NOT NULL,
    UNIQUE (application, dedupe_key)
);

CREATE INDEX notifications_received ON notifications (application, received_at);

CREATE TABLE event_endpoints (
    id TEXT COLLATE "C" PRIMARY KEY,
    application TEXT COLLATE "C" NOT NULL,
    url TEXT COLLATE "C" NOT NULL,
    -- Space-separated; null for all.
    event_types TEXT COLLATE "C",
    description TEXT COLLATE "C",
    -- Wrapped by an operator's key; seals the two secrets.
    data_key BYTEA NOT NULL,
    data_key_id TEXT COLLATE "C" NOT NULL,
    secret BYTEA NOT NULL,
    previous_secret BYTEA,
    previous_secret_until TIMESTAMPTZ,
    disabled_at TIMESTAMPTZ,
    disabled_reason TEXT COLLATE "C",
    failing_since TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);

CREATE INDEX event_endpoints_application ON event_endpoints (application, id);
CREATE INDEX event_endpoints_data_key ON event_endpoints (data_key_id);

CREATE TABLE deliveries (
    id TEXT COLLATE "C" PRIMARY KEY,
    application TEXT COLLATE "C" NOT NULL,
    endpoint_id TEXT COLLATE "C" NOT NULL REFERENCES event_endpoints (id) ON DELETE CASCADE,
    event_id TEXT COLLATE "C" NOT NULL REFERENCES events (id) ON DELETE CASCADE,
    event_type TEXT COLLATE "C" NOT NULL,
    status TEXT COLLATE "C" NOT NULL CHECK (status IN ('pending', 'delivered', 'dead')),
    attempts BIGINT NOT NULL,
    -- Attempts since it was last put in line: the place in the schedule.
    tries BIGINT NOT NULL,
    -- While an attempt is under way: the end of its lease.
    next_attempt_at TIMESTAMPTZ,
    claim TEXT COLLATE "C",
    created_at TIMESTAMPTZ NOT NULL,
    finished_at TIMESTAMPTZ,
    last_status BIGINT,
    last_error TEXT COLLATE "C"
);

CREATE INDEX deliveries_due ON deliveries (endpoint_id, next_attempt_at) WHERE status = 'pending';
CREATE INDEX deliveries_open ON deliveries (status, created_at) WHERE status <> 'delivered';
CREATE INDEX deliveries_event ON deliveries (event_id);
CREATE INDEX deliveries_application ON deliveries (application, id);
CREATE INDEX deliveries_endpoint ON deliveries (endpoint_id, status, id);

CREATE TABLE delivery_attempts (
    delivery_id TEXT COLLATE "C" NOT NULL REFERENCES deliveries (id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    started_at TIMESTAMPTZ NOT NULL,
    duration_ms BIGINT NOT NULL,
    http_status BIGINT,
    error TEXT COLLATE "C",
    -- The beginning of what the endpoint answered when it did not confirm.
    answer TEXT COLLATE "C",
    PRIMARY KEY (delivery_id, number)
);
