-- Connections, what leads to them (links, authorization requests) and what is done with them (refresh attempts).
-- Sealed columns hold ciphertexts of the vault; `data_key` is wrapped by the operator's key `data_key_id`.

CREATE TABLE vault_canaries (
    key_id     TEXT COLLATE "C" PRIMARY KEY,
    sealed     BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE connections (
    id                      TEXT COLLATE "C" PRIMARY KEY,
    application             TEXT COLLATE "C" NOT NULL,
    seller_id               TEXT COLLATE "C" NOT NULL,
    user_id                 BIGINT NOT NULL,
    client_id               TEXT COLLATE "C" NOT NULL,
    status                  TEXT COLLATE "C" NOT NULL CHECK (status IN ('active', 'reconnect_required', 'revoked')),
    status_reason           TEXT COLLATE "C",
    generation              BIGINT NOT NULL,
    data_key                BYTEA,
    data_key_id             TEXT COLLATE "C",
    access_token            BYTEA,
    refresh_token           BYTEA,
    scopes                  TEXT COLLATE "C" NOT NULL,
    public_key              TEXT COLLATE "C",
    live_mode               BOOLEAN,
    obtained_at TIMESTAMPTZ NOT NULL,
    access_token_expires_at TIMESTAMPTZ NOT NULL,
    refresh_due_at TIMESTAMPTZ,
    last_refreshed_at TIMESTAMPTZ,
    refresh_failures        BIGINT NOT NULL,
    first_rejected_at TIMESTAMPTZ,
    outcome_unknown         BOOLEAN NOT NULL,
    expiry_marks_told       BIGINT NOT NULL,
    lease_owner             TEXT COLLATE "C",
    lease_until TIMESTAMPTZ,
    connected_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    metadata                JSONB NOT NULL,
    UNIQUE (application, seller_id),
    -- Revoking destroys the data key and with it everything that it sealed.
    CHECK (status <> 'revoked' OR (data_key IS NULL AND access_token IS NULL AND refresh_token IS NULL))
);

-- One Mercado Pago account serves one seller of an application.
CREATE UNIQUE INDEX connections_user ON connections (application, user_id) WHERE status <> 'revoked';
-- The refresh worker's cost follows what is due.
CREATE INDEX connections_due ON connections (application, refresh_due_at) WHERE refresh_due_at IS NOT NULL;
CREATE INDEX connections_expiring ON connections (application, access_token_expires_at) WHERE status <> 'revoked';
CREATE INDEX connections_data_key ON connections (data_key_id) WHERE data_key_id IS NOT NULL;

CREATE TABLE connect_links (
    id                TEXT COLLATE "C" PRIMARY KEY,
    application       TEXT COLLATE "C" NOT NULL,
    token_hash        BYTEA NOT NULL UNIQUE,
    seller_id         TEXT COLLATE "C" NOT NULL,
    return_url        TEXT COLLATE "C",
    locale            TEXT COLLATE "C",
    metadata          JSONB,
    on_account_change TEXT COLLATE "C" NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    used_at TIMESTAMPTZ
);

CREATE INDEX connect_links_expires ON connect_links (expires_at);

CREATE TABLE authorization_requests (
    id            TEXT COLLATE "C" PRIMARY KEY,
    link_id       TEXT COLLATE "C" NOT NULL REFERENCES connect_links (id) ON DELETE CASCADE,
    application   TEXT COLLATE "C" NOT NULL,
    state_hash    BYTEA NOT NULL UNIQUE,
    browser_hash  BYTEA NOT NULL,
    data_key      BYTEA,
    data_key_id   TEXT COLLATE "C",
    code_verifier BYTEA,
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    consumed_at TIMESTAMPTZ
);

CREATE INDEX authorization_requests_expires ON authorization_requests (expires_at);

CREATE TABLE refresh_attempts (
    id            TEXT COLLATE "C" PRIMARY KEY,
    connection_id TEXT COLLATE "C" NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
    application   TEXT COLLATE "C" NOT NULL,
    generation    BIGINT NOT NULL,
    trigger_kind  TEXT COLLATE "C" NOT NULL,
    after_unknown BOOLEAN NOT NULL,
    owner         TEXT COLLATE "C" NOT NULL,
    started_at TIMESTAMPTZ NOT NULL,
    finished_at TIMESTAMPTZ,
    outcome       TEXT COLLATE "C",
    http_status   BIGINT,
    error         TEXT COLLATE "C"
);

CREATE INDEX refresh_attempts_connection ON refresh_attempts (connection_id, started_at);
CREATE INDEX refresh_attempts_finished ON refresh_attempts (application, finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX refresh_attempts_open ON refresh_attempts (connection_id) WHERE finished_at IS NULL;

-- What refreshing an application found out about the application itself, not about a seller.
CREATE TABLE application_states (
    application      TEXT COLLATE "C" PRIMARY KEY,
    suspended_reason TEXT COLLATE "C",
    suspended_at TIMESTAMPTZ,
    probe_at TIMESTAMPTZ,
    resumed_at TIMESTAMPTZ
);
