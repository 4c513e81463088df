-- What was called, by the hour, and which payments went out a moment ago.

CREATE TABLE usage_hourly (
    application               TEXT COLLATE "C" NOT NULL,
    -- Id of the connection; `@self` for the application's own account.
    connection_id             TEXT COLLATE "C" NOT NULL,
    hour                      TIMESTAMPTZ NOT NULL,
    calls                     BIGINT NOT NULL,
    failures                  BIGINT NOT NULL,
    provider_ms               BIGINT NOT NULL,
    approvals                 BIGINT NOT NULL,
    declines_data_entry       BIGINT NOT NULL,
    declines_issuer           BIGINT NOT NULL,
    declines_fraud_prevention BIGINT NOT NULL,
    declines_other            BIGINT NOT NULL,
    PRIMARY KEY (application, connection_id, hour)
);

CREATE INDEX usage_hourly_hour ON usage_hourly (application, hour);

CREATE TABLE recent_payments (
    connection_id        TEXT COLLATE "C" NOT NULL,
    -- SHA-256 of amount, payer and reference or items.
    fingerprint          BYTEA NOT NULL,
    -- SHA-256 of the idempotency key that it was sent with.
    idempotency_key_hash BYTEA NOT NULL,
    sent_at              TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (connection_id, fingerprint)
);

CREATE INDEX recent_payments_sent ON recent_payments (sent_at);
