-- The outbox, the audit log, and who may come in: API keys, admins and their sessions.

CREATE TABLE events (
    id          TEXT PRIMARY KEY,
    application TEXT NOT NULL,
    seller_id   TEXT,
    event_type  TEXT NOT NULL,
    created_at  TEXT NOT NULL,
    data        TEXT NOT NULL
) STRICT;

CREATE INDEX events_created ON events (application, created_at, id);
CREATE INDEX events_seller ON events (application, seller_id, created_at);

CREATE TABLE audit_log (
    id           TEXT PRIMARY KEY,
    at           TEXT NOT NULL,
    application  TEXT,
    actor_kind   TEXT NOT NULL,
    actor_id     TEXT,
    address      TEXT,
    request_id   TEXT,
    action       TEXT NOT NULL,
    target       TEXT,
    detail       TEXT NOT NULL,
    -- Filled afterwards by the one worker that chains the rows (DESIGN.md section 10).
    chain_number INTEGER UNIQUE,
    chain_mac    BLOB,
    chain_key_id TEXT
) STRICT;

CREATE INDEX audit_log_at ON audit_log (at, id);
CREATE INDEX audit_log_target ON audit_log (application, target, at);
CREATE INDEX audit_log_unchained ON audit_log (id) WHERE chain_number IS NULL;

CREATE TABLE api_keys (
    id           TEXT PRIMARY KEY,
    application  TEXT NOT NULL,
    name         TEXT NOT NULL,
    secret_hash  BLOB NOT NULL UNIQUE,
    scopes       TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    expires_at   TEXT,
    revoked_at   TEXT,
    last_used_at TEXT
) STRICT;

CREATE INDEX api_keys_application ON api_keys (application, created_at, id);

CREATE TABLE admins (
    id            TEXT PRIMARY KEY,
    email         TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    role          TEXT NOT NULL CHECK (role IN ('owner', 'operator', 'viewer')),
    created_at    TEXT NOT NULL,
    updated_at    TEXT NOT NULL
) STRICT;

CREATE TABLE admin_sessions (
    token_hash   BLOB PRIMARY KEY,
    admin_id     TEXT NOT NULL REFERENCES admins (id) ON DELETE CASCADE,
    created_at   TEXT NOT NULL,
    last_seen_at TEXT NOT NULL,
    expires_at   TEXT NOT NULL
) STRICT;

CREATE INDEX admin_sessions_expires ON admin_sessions (expires_at);
CREATE INDEX admin_sessions_admin ON admin_sessions (admin_id);

-- Failed sign-ins per account and per address; the bucket is a hash, so that no mistyped password or address lies here.
CREATE TABLE sign_in_failures (
    bucket       BLOB PRIMARY KEY,
    window_start TEXT NOT NULL,
    failures     INTEGER NOT NULL
) STRICT;
