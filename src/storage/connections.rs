//! Connections: reading them, opening their access token, ending them. How they come to be is in `authorizations`, how
//! their tokens are renewed in `refreshes`.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::types::Json;

use super::audit::insert_audit;
use super::dispatch::{Tx, postgres_statements, read, statements, within};
use super::events::insert_event;
use super::{Store, StoreError};
use crate::domain::connection::{Connection, Status, StatusReason, TokenSet};
use crate::domain::event::{Actor, AuditAction, EventType, NewAudit, NewEvent};
use crate::domain::ids::{ApplicationId, ConnectionId, SellerId, UserId};
use crate::domain::random::Random;
use crate::domain::secret::{AccessToken, RefreshToken};
use crate::vault::{DataKey, Place, Vault};

/// The columns of a [`ConnectionRow`], as a literal that statements are put together from.
macro_rules! connection_columns {
    () => {
        "id, application, seller_id, user_id, client_id, status, status_reason, generation, data_key, access_token, refresh_token, \
         scopes, public_key, live_mode, obtained_at, access_token_expires_at, refresh_due_at, last_refreshed_at, refresh_failures, \
         first_rejected_at, outcome_unknown, expiry_marks_told, lease_owner, lease_until, connected_at, updated_at, metadata"
    };
}
pub(super) use connection_columns;

statements! {
    FIND_CONNECTION = concat!("SELECT ", connection_columns!(), " FROM connections WHERE application = $1 AND seller_id = $2");
    FIND_CONNECTION_BY_ID = concat!("SELECT ", connection_columns!(), " FROM connections WHERE id = $1");
    FIND_CONNECTION_BY_USER = concat!("SELECT ", connection_columns!(),
        " FROM connections WHERE application = $1 AND user_id = $2 AND status <> 'revoked'");
    FIND_GENERATION = "SELECT generation, status FROM connections WHERE id = $1";
    LIST_CONNECTIONS = concat!("SELECT ", connection_columns!(), " FROM connections \
        WHERE (CAST($1 AS TEXT) IS NULL OR application = $1) AND (CAST($2 AS TEXT) IS NULL OR status = $2) \
        AND (CAST($3 AS TEXT) IS NULL OR seller_id LIKE $3 ESCAPE '!' OR CAST(user_id AS TEXT) LIKE $3 ESCAPE '!') \
        AND ((access_token_expires_at < $4 AND status <> 'revoked') OR $4 IS NULL) \
        AND (seller_id, application) > (COALESCE(CAST($5 AS TEXT), ''), COALESCE(CAST($6 AS TEXT), '')) \
        ORDER BY seller_id, application LIMIT $7");
    COUNT_BY_STATUS = "SELECT status, COUNT(*) FROM connections WHERE (CAST($1 AS TEXT) IS NULL OR application = $1) GROUP BY status";
    EARLIEST_EXPIRY = "SELECT access_token_expires_at FROM connections \
        WHERE (CAST($1 AS TEXT) IS NULL OR application = $1) AND status <> 'revoked' ORDER BY access_token_expires_at LIMIT 1";
    COUNT_FAILING = "SELECT COUNT(*) FROM connections \
        WHERE (CAST($1 AS TEXT) IS NULL OR application = $1) AND status = 'active' AND refresh_failures > 0";
    INSERT_CONNECTION = "INSERT INTO connections (id, application, seller_id, user_id, client_id, status, generation, scopes, obtained_at, \
        access_token_expires_at, refresh_failures, outcome_unknown, expiry_marks_told, connected_at, updated_at, metadata) \
        VALUES ($1, $2, $3, $4, $5, 'active', 0, '', $6, $6, 0, $7, 0, $6, $6, $8)";
    UPDATE_CONNECTION = "UPDATE connections SET user_id = $3, client_id = $4, status = $5, status_reason = $6, generation = $7, \
        scopes = $8, public_key = $9, live_mode = $10, obtained_at = $11, access_token_expires_at = $12, refresh_due_at = $13, \
        last_refreshed_at = $14, refresh_failures = $15, first_rejected_at = $16, outcome_unknown = $17, expiry_marks_told = $18, \
        connected_at = $19, updated_at = $20, lease_owner = NULL, lease_until = NULL, \
        access_token = CASE WHEN $21 THEN access_token ELSE NULL END, refresh_token = CASE WHEN $22 THEN refresh_token ELSE NULL END, \
        data_key = CASE WHEN $23 THEN NULL ELSE data_key END, data_key_id = CASE WHEN $23 THEN NULL ELSE data_key_id END \
        WHERE id = $1 AND generation = $2";
    UPDATE_ACCESS_TOKEN = "UPDATE connections SET access_token = $2 WHERE id = $1";
    UPDATE_REFRESH_TOKEN = "UPDATE connections SET refresh_token = $2 WHERE id = $1";
    UPDATE_DATA_KEY = "UPDATE connections SET data_key = $2, data_key_id = $3, refresh_token = NULL WHERE id = $1";
    UPDATE_METADATA = "UPDATE connections SET metadata = $2, updated_at = $3 WHERE id = $1";
}

postgres_statements! {
    // Nobody changes the row until the transaction ends.
    FIND_CONNECTION_LOCKED = concat!("SELECT ", connection_columns!(),
        " FROM connections WHERE application = $1 AND seller_id = $2 FOR NO KEY UPDATE");
}

/// A row as it lies there, ciphertexts included.
#[derive(sqlx::FromRow)]
pub(super) struct ConnectionRow {
    id: String,
    application: String,
    seller_id: String,
    user_id: i64,
    client_id: String,
    status: String,
    status_reason: Option<String>,
    generation: i64,
    data_key: Option<Vec<u8>>,
    access_token: Option<Vec<u8>>,
    refresh_token: Option<Vec<u8>>,
    scopes: String,
    public_key: Option<String>,
    live_mode: Option<bool>,
    obtained_at: DateTime<Utc>,
    access_token_expires_at: DateTime<Utc>,
    refresh_due_at: Option<DateTime<Utc>>,
    last_refreshed_at: Option<DateTime<Utc>>,
    refresh_failures: i64,
    first_rejected_at: Option<DateTime<Utc>>,
    outcome_unknown: bool,
    expiry_marks_told: i64,
    pub(super) lease_owner: Option<String>,
    pub(super) lease_until: Option<DateTime<Utc>>,
    connected_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    #[sqlx(json)]
    metadata: Value,
}

impl ConnectionRow {
    pub(super) fn connection(&self) -> Result<Connection, StoreError> {
        let corrupt = |column| StoreError::Corrupt {
            table: "connections",
            column,
            row: self.id.clone(),
        };
        let reason = self.status_reason.as_deref().map(str::parse).transpose();
        Ok(Connection {
            id: self.id.parse().map_err(|_| corrupt("id"))?,
            application: self.application.parse().map_err(|_| corrupt("application"))?,
            seller_id: self.seller_id.parse().map_err(|_| corrupt("seller_id"))?,
            user_id: UserId(self.user_id),
            client_id: self.client_id.clone(),
            status: self.status.parse().map_err(|_| corrupt("status"))?,
            status_reason: reason.map_err(|_| corrupt("status_reason"))?,
            generation: self.generation,
            scopes: self.scopes.split_whitespace().map(str::to_owned).collect(),
            public_key: self.public_key.clone(),
            live_mode: self.live_mode,
            has_access_token: self.access_token.is_some(),
            has_refresh_token: self.refresh_token.is_some(),
            obtained_at: self.obtained_at,
            access_token_expires_at: self.access_token_expires_at,
            refresh_due_at: self.refresh_due_at,
            last_refreshed_at: self.last_refreshed_at,
            refresh_failures: self.refresh_failures,
            first_rejected_at: self.first_rejected_at,
            outcome_unknown: self.outcome_unknown,
            expiry_marks_told: self.expiry_marks_told,
            connected_at: self.connected_at,
            updated_at: self.updated_at,
            metadata: self.metadata.clone(),
        })
    }

    /// The connection's data key; none when it is revoked.
    pub(super) fn data_key(
        &self,
        vault: &Vault,
        application: &ApplicationId,
    ) -> Result<Option<DataKey>, StoreError> {
        let open = |wrapped: &Vec<u8>| vault.unwrap(wrapped, place(&self.id, "data_key", application));
        self.data_key
            .as_ref()
            .map(open)
            .transpose()
            .map_err(|source| self.sealed("data_key", source))
    }

    pub(super) fn access_token(
        &self,
        key: &DataKey,
        application: &ApplicationId,
    ) -> Result<Option<AccessToken>, StoreError> {
        Ok(self
            .open(self.access_token.as_deref(), "access_token", key, application)?
            .map(AccessToken::new))
    }

    pub(super) fn refresh_token(
        &self,
        key: &DataKey,
        application: &ApplicationId,
    ) -> Result<Option<RefreshToken>, StoreError> {
        Ok(self
            .open(self.refresh_token.as_deref(), "refresh_token", key, application)?
            .map(RefreshToken::new))
    }

    fn open(
        &self,
        sealed: Option<&[u8]>,
        column: &'static str,
        key: &DataKey,
        application: &ApplicationId,
    ) -> Result<Option<String>, StoreError> {
        let Some(sealed) = sealed else { return Ok(None) };
        let opened = key
            .open(sealed, place(&self.id, column, application))
            .map_err(|source| self.sealed(column, source))?;
        let text = std::str::from_utf8(&opened);
        let corrupt = |_| StoreError::Corrupt {
            table: "connections",
            column,
            row: self.id.clone(),
        };
        text.map(|text| Some(text.to_owned())).map_err(corrupt)
    }

    fn sealed(&self, column: &'static str, source: crate::vault::VaultError) -> StoreError {
        StoreError::Sealed {
            table: "connections",
            column,
            row: self.id.clone(),
            source,
        }
    }
}

/// Where a connection's ciphertexts belong.
pub(super) fn place<'a>(row: &'a str, column: &'a str, application: &'a ApplicationId) -> Place<'a> {
    Place {
        table: "connections",
        row,
        column,
        application,
    }
}

/// A connection with its access token opened.
#[derive(Debug, Clone)]
pub struct OpenConnection {
    /// The connection.
    pub connection: Connection,
    /// Its access token; none when it is revoked or the token was seen to be dead.
    pub access_token: Option<AccessToken>,
}

/// Which connections to list.
#[derive(Debug, Clone, Default)]
pub struct ConnectionFilter {
    /// Only of this application; none for all.
    pub application: Option<ApplicationId>,
    /// Only in this status.
    pub status: Option<Status>,
    /// Only those whose seller id or user id contains this text.
    pub q: Option<String>,
    /// Only those, not revoked, whose access token ends before this instant.
    pub expiring_before: Option<DateTime<Utc>>,
    /// Only after this seller (and application): the cursor of the page before.
    pub after: Option<(String, String)>,
    /// At most so many.
    pub limit: u32,
}

/// One page of a longer list.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The rows.
    pub data: Vec<T>,
    /// What the next page begins after; none on the last page.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page of at most `limit` rows out of up to one more, which tells that there is a next page.
    pub(super) fn of(mut rows: Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = if more { rows.last().map(cursor) } else { None };
        Self { data: rows, next }
    }
}

/// How the connections stand as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overview {
    /// How many are active.
    pub active: i64,
    /// How many need the seller.
    pub reconnect_required: i64,
    /// How many are ended.
    pub revoked: i64,
    /// How many active ones failed their last refresh.
    pub failing: i64,
    /// When the first access token of all ends.
    pub earliest_expiry: Option<DateTime<Utc>>,
}

impl Store {
    /// The connection of a seller, in whatever status.
    pub async fn find_connection(
        &self,
        application: &ApplicationId,
        seller: &SellerId,
    ) -> Result<Option<Connection>, StoreError> {
        self.find_row(application, seller)
            .await?
            .as_ref()
            .map(ConnectionRow::connection)
            .transpose()
    }

    /// The connection with this id.
    pub async fn find_connection_by_id(&self, id: &ConnectionId) -> Result<Option<Connection>, StoreError> {
        let row: Option<ConnectionRow> = read!(&self.database, |c| sqlx::query_as(FIND_CONNECTION_BY_ID)
            .bind(id.as_str())
            .fetch_optional(c)
            .await)?;
        row.as_ref().map(ConnectionRow::connection).transpose()
    }

    /// The connection of a seller with its access token, for a proxied call: one read by key.
    pub async fn open_connection(
        &self,
        application: &ApplicationId,
        seller: &SellerId,
    ) -> Result<Option<OpenConnection>, StoreError> {
        let row = self.find_row(application, seller).await?;
        row.as_ref().map(|row| self.open_row(row)).transpose()
    }

    /// The connection with this id, with its access token.
    pub async fn open_connection_by_id(
        &self,
        id: &ConnectionId,
    ) -> Result<Option<OpenConnection>, StoreError> {
        let row: Option<ConnectionRow> = read!(&self.database, |c| sqlx::query_as(FIND_CONNECTION_BY_ID)
            .bind(id.as_str())
            .fetch_optional(c)
            .await)?;
        row.as_ref().map(|row| self.open_row(row)).transpose()
    }

    pub(super) fn open_row(&self, row: &ConnectionRow) -> Result<OpenConnection, StoreError> {
        let connection = row.connection()?;
        let access_token = match row.data_key(&self.vault, &connection.application)? {
            Some(key) => row.access_token(&key, &connection.application)?,
            None => None,
        };
        Ok(OpenConnection {
            connection,
            access_token,
        })
    }

    async fn find_row(
        &self,
        application: &ApplicationId,
        seller: &SellerId,
    ) -> Result<Option<ConnectionRow>, StoreError> {
        Ok(read!(&self.database, |c| sqlx::query_as(FIND_CONNECTION)
            .bind(application.as_str())
            .bind(seller.as_str())
            .fetch_optional(c)
            .await)?)
    }

    /// Generation and status of a connection: whether what is remembered of it still holds.
    pub async fn connection_generation(
        &self,
        id: &ConnectionId,
    ) -> Result<Option<(i64, Status)>, StoreError> {
        let row: Option<(i64, String)> = read!(&self.database, |c| sqlx::query_as(FIND_GENERATION)
            .bind(id.as_str())
            .fetch_optional(c)
            .await)?;
        let Some((generation, status)) = row else {
            return Ok(None);
        };
        let corrupt = |_| StoreError::Corrupt {
            table: "connections",
            column: "status",
            row: id.to_string(),
        };
        Ok(Some((generation, status.parse().map_err(corrupt)?)))
    }

    /// A page of connections by seller id.
    pub async fn list_connections(&self, filter: &ConnectionFilter) -> Result<Page<Connection>, StoreError> {
        let page = self.list_rows(filter).await?;
        let connections = page.data.iter().map(ConnectionRow::connection);
        Ok(Page {
            data: connections.collect::<Result<_, _>>()?,
            next: page.next,
        })
    }

    pub(super) async fn list_rows(
        &self,
        filter: &ConnectionFilter,
    ) -> Result<Page<ConnectionRow>, StoreError> {
        let pattern = filter.q.as_deref().map(contains_pattern);
        let (after_seller, after_application) = match &filter.after {
            Some((seller, application)) => (Some(seller.as_str()), Some(application.as_str())),
            None => (None, None),
        };
        let rows: Vec<ConnectionRow> = read!(&self.database, |c| sqlx::query_as(LIST_CONNECTIONS)
            .bind(filter.application.as_ref().map(ApplicationId::as_str))
            .bind(filter.status.map(Status::as_str))
            .bind(pattern.as_deref())
            .bind(filter.expiring_before)
            .bind(after_seller)
            .bind(after_application)
            .bind(i64::from(filter.limit) + 1)
            .fetch_all(c)
            .await)?;
        Ok(Page::of(rows, filter.limit, |last| {
            format!("{}/{}", last.seller_id, last.application)
        }))
    }

    /// How the connections stand as a whole, of one application or of all.
    pub async fn overview(&self, application: Option<&ApplicationId>) -> Result<Overview, StoreError> {
        let application = application.map(ApplicationId::as_str);
        let counts: Vec<(String, i64)> = read!(&self.database, |c| sqlx::query_as(COUNT_BY_STATUS)
            .bind(application)
            .fetch_all(c)
            .await)?;
        let count = |status: Status| {
            counts
                .iter()
                .find(|(name, _)| name == status.as_str())
                .map_or(0, |(_, n)| *n)
        };
        Ok(Overview {
            active: count(Status::Active),
            reconnect_required: count(Status::ReconnectRequired),
            revoked: count(Status::Revoked),
            failing: read!(&self.database, |c| sqlx::query_scalar(COUNT_FAILING)
                .bind(application)
                .fetch_one(c)
                .await)?,
            earliest_expiry: read!(&self.database, |c| sqlx::query_scalar(EARLIEST_EXPIRY)
                .bind(application)
                .fetch_optional(c)
                .await)?,
        })
    }

    /// Ends a connection: destroys data key and tokens at once, tells it and audits it. Ending an ended one changes nothing.
    pub async fn revoke_connection(
        &self,
        application: &ApplicationId,
        seller: &SellerId,
        reason: StatusReason,
        application_public_key: Option<&str>,
        actor: Actor,
        now: DateTime<Utc>,
    ) -> Result<Option<Connection>, StoreError> {
        let mut tx = self.database.begin().await?;
        let of = (application, seller);
        let public_key = application_public_key;
        let found = revoke_within(&mut tx, &self.random, of, reason, public_key, actor, now).await?;
        tx.commit().await?;
        let Some((connection, ended_now)) = found else {
            return Ok(None);
        };
        if ended_now {
            self.revocations.add();
        }
        Ok(Some(connection))
    }

    /// Replaces a connection's metadata by what `change` makes of it.
    pub async fn change_metadata(
        &self,
        application: &ApplicationId,
        seller: &SellerId,
        change: impl FnOnce(Value) -> Value + Send,
        actor: Actor,
        now: DateTime<Utc>,
    ) -> Result<Option<Connection>, StoreError> {
        let mut tx = self.database.begin().await?;
        let Some(row) = find_row_within(&mut tx, application, seller).await? else {
            return Ok(None);
        };
        let mut connection = row.connection()?;
        connection.metadata = change(connection.metadata);
        connection.updated_at = now;
        update_metadata(&mut tx, &connection).await?;
        let audit = NewAudit {
            actor,
            action: AuditAction::ConnectionMetadataChanged,
            application: Some(application.clone()),
            target: Some(seller.to_string()),
            at: now,
            detail: serde_json::json!({ "metadata": connection.metadata }),
        };
        insert_audit(&mut tx, &audit, &self.random).await?;
        tx.commit().await?;
        Ok(Some(connection))
    }
}

/// Ends a connection, tells it and audits it. Ending an ended one changes nothing. The connection as it stands then, and
/// whether this ended it: then, after the commit, the revoke is to be counted.
pub(super) async fn revoke_within(
    tx: &mut Tx,
    random: &Random,
    (application, seller): (&ApplicationId, &SellerId),
    reason: StatusReason,
    application_public_key: Option<&str>,
    actor: Actor,
    now: DateTime<Utc>,
) -> Result<Option<(Connection, bool)>, StoreError> {
    let Some(row) = find_row_within(tx, application, seller).await? else {
        return Ok(None);
    };
    let current = row.connection()?;
    if current.status == Status::Revoked {
        return Ok(Some((current, false)));
    }
    let generation = current.generation;
    let ended = current.revoked(reason, now);
    if !update_connection(tx, &ended, generation).await? {
        return Err(StoreError::Conflict);
    }
    let view = ended.view_at(now, application_public_key);
    let event = NewEvent::about_connection(EventType::Revoked, application, seller, &view, now, random);
    insert_event(tx, &event).await?;
    let audit = NewAudit {
        actor,
        action: AuditAction::ConnectionRevoked,
        application: Some(application.clone()),
        target: Some(seller.to_string()),
        at: now,
        detail: serde_json::json!({ "status_reason": reason }),
    };
    insert_audit(tx, &audit, random).await?;
    Ok(Some((ended, true)))
}

/// A `LIKE` pattern (escaped with `!`) for texts that contain `text`.
fn contains_pattern(text: &str) -> String {
    let mut pattern = String::from("%");
    for character in text.chars() {
        if matches!(character, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

/// The row of a seller, which nobody else changes until the transaction ends.
pub(super) async fn find_row_within(
    tx: &mut Tx,
    application: &ApplicationId,
    seller: &SellerId,
) -> Result<Option<ConnectionRow>, StoreError> {
    let sql = if tx.is_postgres() {
        FIND_CONNECTION_LOCKED
    } else {
        FIND_CONNECTION
    };
    Ok(within!(tx, |c| sqlx::query_as(sql)
        .bind(application.as_str())
        .bind(seller.as_str())
        .fetch_optional(c)
        .await)?)
}

pub(super) async fn find_row_by_user_within(
    tx: &mut Tx,
    application: &ApplicationId,
    user: UserId,
) -> Result<Option<ConnectionRow>, StoreError> {
    Ok(within!(tx, |c| sqlx::query_as(FIND_CONNECTION_BY_USER)
        .bind(application.as_str())
        .bind(user.0)
        .fetch_optional(c)
        .await)?)
}

/// Puts down the row of a connection that is new; [`update_connection`] then gives it its state.
pub(super) async fn insert_connection(tx: &mut Tx, connection: &Connection) -> Result<(), StoreError> {
    within!(tx, |c| sqlx::query(INSERT_CONNECTION)
        .bind(connection.id.as_str())
        .bind(connection.application.as_str())
        .bind(connection.seller_id.as_str())
        .bind(connection.user_id.0)
        .bind(&connection.client_id)
        .bind(connection.updated_at)
        .bind(false)
        .bind(Json(&connection.metadata))
        .execute(c)
        .await
        .map(drop))?;
    Ok(())
}

/// Writes a connection's state over the row if that is still of `generation`, ends its lease, and drops the ciphertexts
/// that the state says are gone. Metadata is not touched: it changes beside the token set. Whether the row was still of
/// that generation.
pub(super) async fn update_connection(
    tx: &mut Tx,
    next: &Connection,
    generation: i64,
) -> Result<bool, StoreError> {
    let changed = within!(tx, |c| sqlx::query(UPDATE_CONNECTION)
        .bind(next.id.as_str())
        .bind(generation)
        .bind(next.user_id.0)
        .bind(&next.client_id)
        .bind(next.status.as_str())
        .bind(next.status_reason.map(StatusReason::as_str))
        .bind(next.generation)
        .bind(next.scopes.join(" "))
        .bind(&next.public_key)
        .bind(next.live_mode)
        .bind(next.obtained_at)
        .bind(next.access_token_expires_at)
        .bind(next.refresh_due_at)
        .bind(next.last_refreshed_at)
        .bind(next.refresh_failures)
        .bind(next.first_rejected_at)
        .bind(next.outcome_unknown)
        .bind(next.expiry_marks_told)
        .bind(next.connected_at)
        .bind(next.updated_at)
        .bind(next.has_access_token)
        .bind(next.has_refresh_token)
        .bind(next.status == Status::Revoked)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Writes a connection's metadata.
pub(super) async fn update_metadata(tx: &mut Tx, connection: &Connection) -> Result<(), StoreError> {
    within!(tx, |c| sqlx::query(UPDATE_METADATA)
        .bind(connection.id.as_str())
        .bind(Json(&connection.metadata))
        .bind(connection.updated_at)
        .execute(c)
        .await
        .map(drop))?;
    Ok(())
}

/// Seals a token set into a row. Without a refresh token the old one stays.
pub(super) async fn update_tokens(
    tx: &mut Tx,
    connection: &Connection,
    tokens: &TokenSet,
    key: &DataKey,
) -> Result<(), StoreError> {
    let id = connection.id.as_str();
    let seal = |text: &str, column| key.seal(text.as_bytes(), place(id, column, &connection.application));
    let access = seal(tokens.access_token.expose(), "access_token");
    within!(tx, |c| sqlx::query(UPDATE_ACCESS_TOKEN)
        .bind(id)
        .bind(access)
        .execute(c)
        .await
        .map(drop))?;
    if let Some(token) = &tokens.refresh_token {
        let refresh = seal(token.expose(), "refresh_token");
        within!(tx, |c| sqlx::query(UPDATE_REFRESH_TOKEN)
            .bind(id)
            .bind(refresh)
            .execute(c)
            .await
            .map(drop))?;
    }
    Ok(())
}

/// Gives a row a new data key; what the old one sealed is dropped or about to be written anew.
pub(super) async fn update_data_key(
    tx: &mut Tx,
    vault: &Vault,
    connection: &Connection,
    key: &DataKey,
) -> Result<(), StoreError> {
    let id = connection.id.as_str();
    let wrapped = vault.wrap(key, place(id, "data_key", &connection.application));
    within!(tx, |c| sqlx::query(UPDATE_DATA_KEY)
        .bind(id)
        .bind(wrapped)
        .bind(vault.keyring().active_id().as_str())
        .execute(c)
        .await
        .map(drop))?;
    Ok(())
}
