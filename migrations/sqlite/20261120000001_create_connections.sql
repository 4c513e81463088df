-- Connections, what leads to them (links, authorization requests) and what is done with them (refresh attempts).
-- Sealed columns hold ciphertexts of the vault; `data_key` is wrapped by the operator's key `data_key_id`.

CREATE TABLE vault_canaries (
    key_id     TEXT PRIMARY KEY,
    sealed     BLOB NOT NULL,
    created_at TEXT NOT NULL
) STRICT;

CREATE TABLE connections (
    id                      TEXT PRIMARY KEY,
    application             TEXT NOT NULL,
    seller_id               TEXT NOT NULL,
    user_id                 INTEGER NOT NULL,
    client_id               TEXT NOT NULL,
    status                  TEXT NOT NULL CHECK (status IN ('active', 'reconnect_required', 'revoked')),
    status_reason           TEXT,
    generation              INTEGER NOT NULL,
    data_key                BLOB,
    data_key_id             TEXT,
    access_token            BLOB,
    refresh_token           BLOB,
    scopes                  TEXT NOT NULL,
    public_key              TEXT,
    live_mode               INTEGER CHECK (live_mode IN (0, 1)),
    obtained_at             TEXT NOT NULL,
    access_token_expires_at TEXT NOT NULL,
    refresh_due_at          TEXT,
    last_refreshed_at       TEXT,
    refresh_failures        INTEGER NOT NULL,
    first_rejected_at       TEXT,
    outcome_unknown         INTEGER NOT NULL CHECK (outcome_unknown IN (0, 1)),
    expiry_marks_told       INTEGER NOT NULL,
    lease_owner             TEXT,
    lease_until             TEXT,
    connected_at            TEXT NOT NULL,
    updated_at              TEXT NOT NULL,
    metadata                TEXT NOT NULL,
    UNIQUE (application, seller_id),
    -- Revoking destroys the data key and with it everything that it sealed.
    CHECK (status <> 'revoked' OR (data_key IS NULL AND access_token IS NULL AND refresh_token IS NULL))
) STRICT;

-- One Mercado Pago account serves one seller of an application.
CREATE UNIQUE INDEX connections_user ON connections (application, user_id) WHERE status <> 'revoked';
-- The refresh worker's cost follows what is due.
CREATE INDEX connections_due ON connections (application, refresh_due_at) WHERE refresh_due_at IS NOT NULL;
CREATE INDEX connections_expiring ON connections (application, access_token_expires_at) WHERE status <> 'revoked';
CREATE INDEX connections_data_key ON connections (data_key_id) WHERE data_key_id IS NOT NULL;

CREATE TABLE connect_links (
    id                TEXT PRIMARY KEY,
    application       TEXT NOT NULL,
    token_hash        BLOB NOT NULL UNIQUE,
    seller_id         TEXT NOT NULL,
    return_url        TEXT,
    locale            TEXT,
    metadata          TEXT,
    on_account_change TEXT NOT NULL,
    created_at        TEXT NOT NULL,
    expires_at        TEXT NOT NULL,
    used_at           TEXT
) STRICT;

CREATE INDEX connect_links_expires ON connect_links (expires_at);

CREATE TABLE authorization_requests (
    id            TEXT PRIMARY KEY,
    link_id       TEXT NOT NULL REFERENCES connect_links (id) ON DELETE CASCADE,
    application   TEXT NOT NULL,
    state_hash    BLOB NOT NULL UNIQUE,
    browser_hash  BLOB NOT NULL,
    data_key      BLOB,
    data_key_id   TEXT,
    code_verifier BLOB,
    created_at    TEXT NOT NULL,
    expires_at    TEXT NOT NULL,
    consumed_at   TEXT
) STRICT;

CREATE INDEX authorization_requests_expires ON authorization_requests (expires_at);

CREATE TABLE refresh_attempts (
    id            TEXT PRIMARY KEY,
    connection_id TEXT NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
    application   TEXT NOT NULL,
    generation    INTEGER NOT NULL,
    trigger_kind  TEXT NOT NULL,
    after_unknown INTEGER NOT NULL CHECK (after_unknown IN (0, 1)),
    owner         TEXT NOT NULL,
    started_at    TEXT NOT NULL,
    finished_at   TEXT,
    outcome       TEXT,
    http_status   INTEGER,
    error         TEXT
) STRICT;

CREATE INDEX refresh_attempts_connection ON refresh_attempts (connection_id, started_at);
CREATE INDEX refresh_attempts_finished ON refresh_attempts (application, finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX refresh_attempts_open ON refresh_attempts (connection_id) WHERE finished_at IS NULL;

-- What refreshing an application found out about the application itself, not about a seller.
CREATE TABLE application_states (
    application      TEXT PRIMARY KEY,
    suspended_reason TEXT,
    suspended_at     TEXT,
    probe_at         TEXT,
    resumed_at       TEXT
) STRICT;
