//! Who may come in: the platform's API keys, the console's admins, their sessions and the count of failed sign-ins.
//!
//! Secrets lie here as hashes only: API keys and session tokens are 256 random bits, so a plain SHA-256 is enough and costs
//! nothing per call; passwords come in already hashed (Argon2id).

use chrono::{DateTime, Duration, Utc};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::audit::insert_audit;
use super::dispatch::{read, statements, within, write};
use super::{Store, StoreError};
use crate::domain::connection::text_enum;
use crate::domain::event::{Actor, AuditAction, NewAudit};
use crate::domain::ids::{AdminId, ApiKeyId, ApplicationId};
use crate::domain::scope::Scopes;
use crate::domain::secret::{ApiKeySecret, SessionToken};

statements! {
    INSERT_API_KEY = "INSERT INTO api_keys (id, application, name, secret_hash, scopes, created_at, expires_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    FIND_API_KEY = "SELECT id, application, name, secret_hash, scopes, created_at, expires_at, revoked_at, last_used_at \
        FROM api_keys WHERE secret_hash = $1";
    LIST_API_KEYS = "SELECT id, application, name, secret_hash, scopes, created_at, expires_at, revoked_at, last_used_at \
        FROM api_keys WHERE (CAST($1 AS TEXT) IS NULL OR application = $1) ORDER BY created_at, id";
    REVOKE_API_KEY = "UPDATE api_keys SET revoked_at = $3 WHERE id = $1 AND (CAST($2 AS TEXT) IS NULL OR application = $2) AND revoked_at IS NULL";
    TOUCH_API_KEY = "UPDATE api_keys SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)";
    INSERT_ADMIN = "INSERT INTO admins (id, email, password_hash, role, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $5)";
    FIND_ADMIN = "SELECT id, email, password_hash, role, created_at FROM admins WHERE email = $1";
    LIST_ADMINS = "SELECT id, email, password_hash, role, created_at FROM admins ORDER BY email";
    DELETE_ADMIN = "DELETE FROM admins WHERE email = $1";
    UPDATE_PASSWORD = "UPDATE admins SET password_hash = $2, updated_at = $3 WHERE email = $1";
    DELETE_SESSIONS_OF_ADMIN = "DELETE FROM admin_sessions WHERE admin_id IN (SELECT id FROM admins WHERE email = $1)";
    INSERT_SESSION = "INSERT INTO admin_sessions (token_hash, admin_id, created_at, last_seen_at, expires_at) VALUES ($1, $2, $3, $3, $4)";
    FIND_SESSION = "SELECT a.id, a.email, a.password_hash, a.role, a.created_at, s.last_seen_at, s.expires_at FROM admin_sessions s \
        JOIN admins a ON a.id = s.admin_id WHERE s.token_hash = $1 AND s.expires_at > $2 AND s.last_seen_at > $3";
    TOUCH_SESSION = "UPDATE admin_sessions SET last_seen_at = $2 WHERE token_hash = $1 AND last_seen_at < $2";
    DELETE_SESSION = "DELETE FROM admin_sessions WHERE token_hash = $1";
    PURGE_SESSIONS = "DELETE FROM admin_sessions WHERE expires_at < $1";
    COUNT_FAILURES = "SELECT failures FROM sign_in_failures WHERE bucket = $1 AND window_start > $2";
    ADD_FAILURE = "INSERT INTO sign_in_failures (bucket, window_start, failures) VALUES ($1, $2, 1) ON CONFLICT (bucket) DO UPDATE SET \
        failures = CASE WHEN sign_in_failures.window_start > $3 THEN sign_in_failures.failures + 1 ELSE 1 END, \
        window_start = CASE WHEN sign_in_failures.window_start > $3 THEN sign_in_failures.window_start ELSE excluded.window_start END";
    FORGET_FAILURES = "DELETE FROM sign_in_failures WHERE bucket = $1";
}

/// A platform's API key, without its secret.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiKey {
    /// Our id.
    pub id: ApiKeyId,
    /// The application that it is bound to.
    pub application: ApplicationId,
    /// What its owner calls it.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was last seen, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
}

impl ApiKey {
    /// Whether it opens anything at `now`.
    pub fn is_valid_at(&self, now: DateTime<Utc>) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// An API key to be written.
#[derive(Debug)]
pub struct NewApiKey<'a> {
    /// The key.
    pub key: ApiKey,
    /// Its secret, of which the hash is stored.
    pub secret: &'a ApiKeySecret,
}

text_enum! {
    /// What an admin may do in the console; each includes the ones below it.
    Role {
        /// Everything, API keys and the team included.
        Owner = "owner",
        /// Connections and links too.
        Operator = "operator",
        /// Look only.
        Viewer = "viewer",
    }
}

impl Role {
    /// Whether this role includes `needed`.
    pub fn includes(self, needed: Self) -> bool {
        self <= needed
    }
}

/// A person who signs in to the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Our id.
    pub id: AdminId,
    /// E-mail address, in lower case.
    pub email: String,
    /// What the person may do.
    pub role: Role,
    /// When the account was made.
    pub created_at: DateTime<Utc>,
}

/// An admin to be written; the address is stored in lower case.
#[derive(Debug)]
pub struct NewAdmin<'a> {
    /// The admin.
    pub admin: Admin,
    /// Argon2id hash of the password, in PHC form.
    pub password_hash: &'a str,
}

/// A signed-in admin's session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Who.
    pub admin: Admin,
    /// When a request of the session last came.
    pub last_seen_at: DateTime<Utc>,
    /// When it ends in any case.
    pub expires_at: DateTime<Utc>,
}

/// How many failed sign-ins are counted together.
#[derive(Debug, Clone, Copy)]
pub struct SignInLimit {
    /// Length of the window.
    pub window: Duration,
    /// So many failures are allowed in it.
    pub failures: i64,
}

#[derive(sqlx::FromRow)]
struct ApiKeyRow {
    id: String,
    application: String,
    name: String,
    secret_hash: Vec<u8>,
    scopes: String,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
}

impl ApiKeyRow {
    fn key(self) -> Result<ApiKey, StoreError> {
        let corrupt = |column| StoreError::Corrupt {
            table: "api_keys",
            column,
            row: self.id.clone(),
        };
        Ok(ApiKey {
            id: self.id.parse().map_err(|_| corrupt("id"))?,
            application: self.application.parse().map_err(|_| corrupt("application"))?,
            scopes: self.scopes.parse().map_err(|_| corrupt("scopes"))?,
            name: self.name,
            created_at: self.created_at,
            expires_at: self.expires_at,
            revoked_at: self.revoked_at,
            last_used_at: self.last_used_at,
        })
    }
}

#[derive(sqlx::FromRow)]
struct AdminRow {
    id: String,
    email: String,
    password_hash: String,
    role: String,
    created_at: DateTime<Utc>,
}

impl AdminRow {
    fn admin(self) -> Result<(Admin, String), StoreError> {
        let corrupt = |column| StoreError::Corrupt {
            table: "admins",
            column,
            row: self.id.clone(),
        };
        let admin = Admin {
            id: self.id.parse().map_err(|_| corrupt("id"))?,
            role: self.role.parse().map_err(|_| corrupt("role"))?,
            email: self.email,
            created_at: self.created_at,
        };
        Ok((admin, self.password_hash))
    }
}

fn hash(secret: &str) -> Vec<u8> {
    Sha256::digest(secret.as_bytes()).to_vec()
}

impl Store {
    /// Writes an API key, audited. [`StoreError::Conflict`] when a key with this secret exists, revoked or not.
    pub async fn create_api_key(&self, new: &NewApiKey<'_>, actor: Actor) -> Result<(), StoreError> {
        let key = &new.key;
        let mut tx = self.database.begin().await?;
        within!(&mut tx, |c| sqlx::query(INSERT_API_KEY)
            .bind(key.id.as_str())
            .bind(key.application.as_str())
            .bind(&key.name)
            .bind(hash(new.secret.expose()))
            .bind(key.scopes.to_string())
            .bind(key.created_at)
            .bind(key.expires_at)
            .execute(c)
            .await
            .map(drop))?;
        let audit = NewAudit {
            actor,
            action: AuditAction::ApiKeyCreated,
            application: Some(key.application.clone()),
            target: Some(key.id.to_string()),
            at: key.created_at,
            detail: serde_json::json!({ "name": key.name, "scopes": key.scopes, "expires_at": key.expires_at }),
        };
        insert_audit(&mut tx, &audit, &self.random).await?;
        tx.commit().await
    }

    /// The API key with this secret, valid or not: one read by key.
    pub async fn find_api_key(&self, secret: &ApiKeySecret) -> Result<Option<ApiKey>, StoreError> {
        let hash = hash(secret.expose());
        let row: Option<ApiKeyRow> = read!(&self.database, |c| sqlx::query_as(FIND_API_KEY)
            .bind(&hash)
            .fetch_optional(c)
            .await)?;
        row.filter(|row| row.secret_hash.ct_eq(&hash).into())
            .map(ApiKeyRow::key)
            .transpose()
    }

    /// All API keys of an application, or of all, oldest first.
    pub async fn list_api_keys(
        &self,
        application: Option<&ApplicationId>,
    ) -> Result<Vec<ApiKey>, StoreError> {
        let rows: Vec<ApiKeyRow> = read!(&self.database, |c| sqlx::query_as(LIST_API_KEYS)
            .bind(application.map(ApplicationId::as_str))
            .fetch_all(c)
            .await)?;
        rows.into_iter().map(ApiKeyRow::key).collect()
    }

    /// Revokes an API key (of this application, if one is named), audited. False when there is none to revoke.
    pub async fn revoke_api_key(
        &self,
        id: &ApiKeyId,
        application: Option<&ApplicationId>,
        actor: Actor,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let mut tx = self.database.begin().await?;
        let changed = within!(&mut tx, |c| sqlx::query(REVOKE_API_KEY)
            .bind(id.as_str())
            .bind(application.map(ApplicationId::as_str))
            .bind(now)
            .execute(c)
            .await
            .map(|done| done.rows_affected()))?;
        if changed == 1 {
            let audit = NewAudit {
                actor,
                action: AuditAction::ApiKeyRevoked,
                application: application.cloned(),
                target: Some(id.to_string()),
                at: now,
                detail: serde_json::json!({}),
            };
            insert_audit(&mut tx, &audit, &self.random).await?;
            tx.commit().await?;
            self.revocations.add();
        }
        Ok(changed == 1)
    }

    /// Notes that a key was used. Callers do it at most once a minute per key.
    pub async fn touch_api_key(&self, id: &ApiKeyId, now: DateTime<Utc>) -> Result<(), StoreError> {
        write!(&self.database, |c| sqlx::query(TOUCH_API_KEY)
            .bind(id.as_str())
            .bind(now)
            .execute(c)
            .await
            .map(drop))?;
        Ok(())
    }

    /// Writes an admin, audited. [`StoreError::Conflict`] when the address has an account.
    pub async fn create_admin(&self, new: &NewAdmin<'_>, actor: Actor) -> Result<(), StoreError> {
        let admin = &new.admin;
        let email = admin.email.to_lowercase();
        let mut tx = self.database.begin().await?;
        within!(&mut tx, |c| sqlx::query(INSERT_ADMIN)
            .bind(admin.id.as_str())
            .bind(&email)
            .bind(new.password_hash)
            .bind(admin.role.as_str())
            .bind(admin.created_at)
            .execute(c)
            .await
            .map(drop))?;
        let audit = admin_audit(actor, AuditAction::AdminCreated, &email, admin.created_at);
        insert_audit(
            &mut tx,
            &NewAudit {
                detail: serde_json::json!({ "role": admin.role }),
                ..audit
            },
            &self.random,
        )
        .await?;
        tx.commit().await
    }

    /// The admin with this address, and the password's hash.
    pub async fn find_admin(&self, email: &str) -> Result<Option<(Admin, String)>, StoreError> {
        let row: Option<AdminRow> = read!(&self.database, |c| sqlx::query_as(FIND_ADMIN)
            .bind(email.to_lowercase())
            .fetch_optional(c)
            .await)?;
        row.map(AdminRow::admin).transpose()
    }

    /// All admins by address.
    pub async fn list_admins(&self) -> Result<Vec<Admin>, StoreError> {
        let rows: Vec<AdminRow> = read!(&self.database, |c| sqlx::query_as(LIST_ADMINS).fetch_all(c).await)?;
        rows.into_iter()
            .map(|row| row.admin().map(|(admin, _)| admin))
            .collect()
    }

    /// Removes an admin and ends the sessions, audited. False when there is none.
    pub async fn remove_admin(
        &self,
        email: &str,
        actor: Actor,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        self.change_admin(email, None, AuditAction::AdminRemoved, actor, now)
            .await
    }

    /// Sets an admin's password and ends the sessions, audited. False when there is no such admin.
    pub async fn reset_password(
        &self,
        email: &str,
        password_hash: &str,
        actor: Actor,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        self.change_admin(
            email,
            Some(password_hash),
            AuditAction::AdminPasswordReset,
            actor,
            now,
        )
        .await
    }

    async fn change_admin(
        &self,
        email: &str,
        password_hash: Option<&str>,
        action: AuditAction,
        actor: Actor,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let email = email.to_lowercase();
        let mut tx = self.database.begin().await?;
        within!(&mut tx, |c| sqlx::query(DELETE_SESSIONS_OF_ADMIN)
            .bind(&email)
            .execute(c)
            .await
            .map(drop))?;
        let changed = if let Some(hash) = password_hash {
            within!(&mut tx, |c| sqlx::query(UPDATE_PASSWORD)
                .bind(&email)
                .bind(hash)
                .bind(now)
                .execute(c)
                .await
                .map(|done| done.rows_affected()))?
        } else {
            within!(&mut tx, |c| sqlx::query(DELETE_ADMIN)
                .bind(&email)
                .execute(c)
                .await
                .map(|done| done.rows_affected()))?
        };
        if changed == 1 {
            insert_audit(&mut tx, &admin_audit(actor, action, &email, now), &self.random).await?;
            tx.commit().await?;
        }
        Ok(changed == 1)
    }

    /// Begins a session, audited as a sign-in.
    pub async fn create_session(
        &self,
        token: &SessionToken,
        admin: &Admin,
        expires_at: DateTime<Utc>,
        actor: Actor,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut tx = self.database.begin().await?;
        within!(&mut tx, |c| sqlx::query(PURGE_SESSIONS)
            .bind(now)
            .execute(c)
            .await
            .map(drop))?;
        within!(&mut tx, |c| sqlx::query(INSERT_SESSION)
            .bind(hash(token.expose()))
            .bind(admin.id.as_str())
            .bind(now)
            .bind(expires_at)
            .execute(c)
            .await
            .map(drop))?;
        let audit = admin_audit(actor, AuditAction::AdminSignedIn, &admin.email, now);
        insert_audit(&mut tx, &audit, &self.random).await?;
        tx.commit().await
    }

    /// The session of a token, if it has not ended and was last seen within `idle`.
    pub async fn find_session(
        &self,
        token: &SessionToken,
        now: DateTime<Utc>,
        idle: Duration,
    ) -> Result<Option<Session>, StoreError> {
        #[derive(sqlx::FromRow)]
        struct SessionRow {
            #[sqlx(flatten)]
            admin: AdminRow,
            last_seen_at: DateTime<Utc>,
            expires_at: DateTime<Utc>,
        }
        let row: Option<SessionRow> = read!(&self.database, |c| sqlx::query_as(FIND_SESSION)
            .bind(hash(token.expose()))
            .bind(now)
            .bind(now - idle)
            .fetch_optional(c)
            .await)?;
        let Some(row) = row else { return Ok(None) };
        let (admin, _) = row.admin.admin()?;
        Ok(Some(Session {
            admin,
            last_seen_at: row.last_seen_at,
            expires_at: row.expires_at,
        }))
    }

    /// Notes that a session was seen. Callers do it at most once a minute per session.
    pub async fn touch_session(&self, token: &SessionToken, now: DateTime<Utc>) -> Result<(), StoreError> {
        let hash = hash(token.expose());
        write!(&self.database, |c| sqlx::query(TOUCH_SESSION)
            .bind(hash)
            .bind(now)
            .execute(c)
            .await
            .map(drop))?;
        Ok(())
    }

    /// Ends a session, audited as a sign-out of `email`.
    pub async fn end_session(
        &self,
        token: &SessionToken,
        email: &str,
        actor: Actor,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut tx = self.database.begin().await?;
        within!(&mut tx, |c| sqlx::query(DELETE_SESSION)
            .bind(hash(token.expose()))
            .execute(c)
            .await
            .map(drop))?;
        insert_audit(
            &mut tx,
            &admin_audit(actor, AuditAction::AdminSignedOut, email, now),
            &self.random,
        )
        .await?;
        tx.commit().await
    }

    /// Whether `bucket` (an account or an address) has failed to sign in too often lately.
    pub async fn is_sign_in_limited(
        &self,
        bucket: &str,
        limit: SignInLimit,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let failures: Option<i64> = read!(&self.database, |c| sqlx::query_scalar(COUNT_FAILURES)
            .bind(hash(bucket))
            .bind(now - limit.window)
            .fetch_optional(c)
            .await)?;
        Ok(failures.unwrap_or(0) >= limit.failures)
    }

    /// Counts a failed sign-in of `bucket`.
    pub async fn count_sign_in_failure(
        &self,
        bucket: &str,
        limit: SignInLimit,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        write!(&self.database, |c| sqlx::query(ADD_FAILURE)
            .bind(hash(bucket))
            .bind(now)
            .bind(now - limit.window)
            .execute(c)
            .await
            .map(drop))?;
        Ok(())
    }

    /// Forgets the failures of `bucket` after a good sign-in.
    pub async fn forget_sign_in_failures(&self, bucket: &str) -> Result<(), StoreError> {
        write!(&self.database, |c| sqlx::query(FORGET_FAILURES)
            .bind(hash(bucket))
            .execute(c)
            .await
            .map(drop))?;
        Ok(())
    }
}

fn admin_audit(actor: Actor, action: AuditAction, email: &str, now: DateTime<Utc>) -> NewAudit {
    NewAudit {
        actor,
        action,
        application: None,
        target: Some(email.to_owned()),
        at: now,
        detail: serde_json::json!({}),
    }
}
