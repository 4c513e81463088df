-- What was called, by the hour, and which payments went out a moment ago.

CREATE TABLE usage_hourly (
    application               TEXT NOT NULL,
    -- Id of the connection; `@self` for the application's own account.
    connection_id             TEXT NOT NULL,
    hour                      TEXT NOT NULL,
    calls                     INTEGER NOT NULL,
    failures                  INTEGER NOT NULL,
    provider_ms               INTEGER NOT NULL,
    approvals                 INTEGER NOT NULL,
    declines_data_entry       INTEGER NOT NULL,
    declines_issuer           INTEGER NOT NULL,
    declines_fraud_prevention INTEGER NOT NULL,
    declines_other            INTEGER NOT NULL,
    PRIMARY KEY (application, connection_id, hour)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_hourly_hour ON usage_hourly (application, hour);

CREATE TABLE recent_payments (
    connection_id        TEXT NOT NULL,
    -- SHA-256 of amount, payer and reference or items.
    fingerprint          BLOB NOT NULL,
    -- SHA-256 of the idempotency key that it was sent with.
    idempotency_key_hash BLOB NOT NULL,
    sent_at              TEXT NOT NULL,
    PRIMARY KEY (connection_id, fingerprint)
) STRICT, WITHOUT ROWID;

CREATE INDEX recent_payments_sent ON recent_payments (sent_at);
