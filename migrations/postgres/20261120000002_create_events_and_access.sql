-- The outbox, the audit log, and who may come in: API keys, admins and their sessions.

CREATE TABLE events (
    id          TEXT COLLATE "C" PRIMARY KEY,
    application TEXT COLLATE "C" NOT NULL,
    seller_id   TEXT COLLATE "C",
    event_type  TEXT COLLATE "C" NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    data        JSONB NOT NULL
);

CREATE INDEX events_created ON events (application, created_at, id);
CREATE INDEX events_seller ON events (application, seller_id, created_at);

CREATE TABLE audit_log (
    id           TEXT COLLATE "C" PRIMARY KEY,
    at TIMESTAMPTZ NOT NULL,
    application  TEXT COLLATE "C",
    actor_kind   TEXT COLLATE "C" NOT NULL,
    actor_id     TEXT COLLATE "C",
    address      TEXT COLLATE "C",
    request_id   TEXT COLLATE "C",
    action       TEXT COLLATE "C" NOT NULL,
    target       TEXT COLLATE "C",
    detail       JSONB NOT NULL,
    -- Filled afterwards by the one worker that chains the rows (DESIGN.md section 10).
    chain_number BIGINT UNIQUE,
    chain_mac    BYTEA,
    chain_key_id TEXT COLLATE "C"
);

CREATE INDEX audit_log_at ON audit_log (at, id);
CREATE INDEX audit_log_target ON audit_log (application, target, at);
CREATE INDEX audit_log_unchained ON audit_log (id) WHERE chain_number IS NULL;

CREATE TABLE api_keys (
    id           TEXT COLLATE "C" PRIMARY KEY,
    application  TEXT COLLATE "C" NOT NULL,
    name         TEXT COLLATE "C" NOT NULL,
    secret_hash  BYTEA NOT NULL UNIQUE,
    scopes       TEXT COLLATE "C" NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ,
    revoked_at TIMESTAMPTZ,
    last_used_at TIMESTAMPTZ
);

CREATE INDEX api_keys_application ON api_keys (application, created_at, id);

CREATE TABLE admins (
    id            TEXT COLLATE "C" PRIMARY KEY,
    email         TEXT COLLATE "C" NOT NULL UNIQUE,
    password_hash TEXT COLLATE "C" NOT NULL,
    role          TEXT COLLATE "C" NOT NULL CHECK (role IN ('owner', 'operator', 'viewer')),
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE admin_sessions (
    token_hash   BYTEA PRIMARY KEY,
    admin_id     TEXT COLLATE "C" NOT NULL REFERENCES admins (id) ON DELETE CASCADE,
    created_at TIMESTAMPTZ NOT NULL,
    last_seen_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
);

CREATE INDEX admin_sessions_expires ON admin_sessions (expires_at);
CREATE INDEX admin_sessions_admin ON admin_sessions (admin_id);

-- Failed sign-ins per account and per address; the bucket is a hash, so that no mistyped password or address lies here.
CREATE TABLE sign_in_failures (
    bucket       BYTEA PRIMARY KEY,
    window_start TIMESTAMPTZ NOT NULL,
    failures     BIGINT NOT NULL
);
