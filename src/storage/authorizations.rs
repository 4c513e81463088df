//! How a connection comes to be: connect links, authorization requests, and the one transaction that admits a seller
//! (DESIGN.md section 6).
//!
//! Guarantees that a `state` is consumed once, whatever comes in parallel; that link tokens, states and browser ids lie
//! here only as hashes and the PKCE verifier sealed, until it is handed out; and that the identity rules are decided in the
//! transaction that writes the connection.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::types::Json;

use super::audit::insert_audit;
use super::connections::{
    find_row_by_user_within, find_row_within, insert_connection, update_connection, update_data_key,
    update_metadata, update_tokens,
};
use super::dispatch::{Tx, read, statements, within};
use super::events::insert_event;
use super::{Store, StoreError};
use crate::domain::connection::{Connection, OnAccountChange, Status, TokenSet};
use crate::domain::event::{Actor, AuditAction, EventType, NewAudit, NewEvent};
use crate::domain::ids::{ApplicationId, AuthorizationRequestId, ConnectLinkId, ConnectionId, SellerId};
use crate::domain::schedule::RefreshSchedule;
use crate::domain::secret::CodeVerifier;
use crate::vault::{DataKey, Place};

statements! {
    INSERT_LINK = "INSERT INTO connect_links (id, application, token_hash, seller_id, return_url, locale, metadata, on_account_change, \
        created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    FIND_LINK = "SELECT id, application, seller_id, return_url, locale, metadata, on_account_change, created_at, expires_at, used_at \
        FROM connect_links WHERE token_hash = $1";
    FIND_LINK_BY_ID = "SELECT id, application, seller_id, return_url, locale, metadata, on_account_change, created_at, expires_at, used_at \
        FROM connect_links WHERE id = $1";
    USE_LINK = "UPDATE connect_links SET used_at = $2 WHERE id = $1 AND used_at IS NULL";
    INSERT_REQUEST = "INSERT INTO authorization_requests (id, link_id, application, state_hash, browser_hash, data_key, data_key_id, \
        code_verifier, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    FIND_REQUEST = "SELECT id, link_id, application, data_key, code_verifier FROM authorization_requests \
        WHERE state_hash = $1 AND browser_hash = $2 AND consumed_at IS NULL AND expires_at > $3";
    CONSUME_REQUEST = "UPDATE authorization_requests SET consumed_at = $2, code_verifier = NULL WHERE id = $1 AND consumed_at IS NULL";
    FIND_CONSUMED = "SELECT id, link_id, application, data_key, code_verifier FROM authorization_requests \
        WHERE id = $1 AND consumed_at IS NOT NULL";
    DELETE_REQUEST = "DELETE FROM authorization_requests WHERE id = $1";
    PURGE_REQUESTS = "DELETE FROM authorization_requests WHERE id IN \
        (SELECT id FROM authorization_requests WHERE expires_at < $1 LIMIT $2)";
    PURGE_LINKS = "DELETE FROM connect_links WHERE id IN (SELECT id FROM connect_links WHERE expires_at < $1 LIMIT $2)";
}

/// How often the identity rules are looked at when somebody else was faster: each time at least one other got through.
const ADMIT_TRIES: u32 = 5;

/// A connect link to be written. Its token is stored as a hash only.
#[derive(Debug, Clone)]
pub struct NewConnectLink {
    /// The link.
    pub link: ConnectLink,
    /// SHA-256 of the token in the URL.
    pub token_hash: [u8; 32],
}

/// A short-lived URL that the platform creates and the seller opens.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectLink {
    /// Our id.
    pub id: ConnectLinkId,
    /// The application that the seller will be connected to.
    pub application: ApplicationId,
    /// The seller.
    pub seller_id: SellerId,
    /// Where the seller goes afterwards; checked when the link was made.
    pub return_url: Option<String>,
    /// Language of the pages.
    pub locale: Option<String>,
    /// The platform's data, for the connection.
    pub metadata: Option<Value>,
    /// What happens when the seller comes back with another account.
    pub on_account_change: OnAccountChange,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
    /// When a seller connected with it.
    pub used_at: Option<DateTime<Utc>>,
}

/// An authorization request to be written.
#[derive(Debug)]
pub struct NewAuthorizationRequest<'a> {
    /// Our id.
    pub id: &'a AuthorizationRequestId,
    /// The link that it was begun from.
    pub link: &'a ConnectLink,
    /// SHA-256 of `state`.
    pub state_hash: [u8; 32],
    /// SHA-256 of the browser id in the cookie.
    pub browser_hash: [u8; 32],
    /// PKCE verifier.
    pub verifier: &'a CodeVerifier,
    /// Now.
    pub now: DateTime<Utc>,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

/// An authorization request whose `state` came back: its one exchange may be made.
#[derive(Debug)]
pub struct ConsumedAuthorization {
    /// Our id.
    pub id: AuthorizationRequestId,
    /// The link that it was begun from.
    pub link: ConnectLink,
    /// The data key that the connection will get; seals the rescue file.
    pub data_key: DataKey,
    /// PKCE verifier; only for whoever consumed it.
    pub verifier: Option<CodeVerifier>,
}

/// A token set that wants to become a connection.
#[derive(Debug)]
pub struct NewConnect<'a> {
    /// The application.
    pub application: &'a ApplicationId,
    /// The application's `client_id`.
    pub client_id: &'a str,
    /// The integrator's own public key, for the event.
    pub application_public_key: Option<&'a str>,
    /// The seller.
    pub seller_id: &'a SellerId,
    /// The tokens.
    pub tokens: &'a TokenSet,
    /// The data key that seals them from now on.
    pub data_key: &'a DataKey,
    /// The platform's data; none leaves what is there.
    pub metadata: Option<&'a Value>,
    /// The consent that brought the tokens; none for an import.
    pub consent: Option<(&'a ConsumedAuthorization, OnAccountChange)>,
    /// When they are renewed.
    pub schedule: &'a RefreshSchedule,
    /// Who did it.
    pub actor: Actor,
    /// Now.
    pub now: DateTime<Utc>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Admission {
    /// The seller is connected.
    Connected(Box<Connection>),
    /// The seller is connected with another Mercado Pago account, and the link does not say `replace`.
    AccountMismatch,
    /// The Mercado Pago account serves another seller of the application.
    AccountInUse,
    /// An import met a seller that is connected already.
    SellerConnected,
    /// This consent was completed before (by another try of its rescue file).
    AlreadyCompleted,
}

#[derive(sqlx::FromRow)]
struct LinkRow {
    id: String,
    application: String,
    seller_id: String,
    return_url: Option<String>,
    locale: Option<String>,
    #[sqlx(json(nullable))]
    metadata: Option<Value>,
    on_account_change: String,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    used_at: Option<DateTime<Utc>>,
}

impl LinkRow {
    fn link(self) -> Result<ConnectLink, StoreError> {
        let corrupt = |column| StoreError::Corrupt {
            table: "connect_links",
            column,
            row: self.id.clone(),
        };
        Ok(ConnectLink {
            id: self.id.parse().map_err(|_| corrupt("id"))?,
            application: self.application.parse().map_err(|_| corrupt("application"))?,
            seller_id: self.seller_id.parse().map_err(|_| corrupt("seller_id"))?,
            return_url: self.return_url.clone(),
            locale: self.locale.clone(),
            metadata: self.metadata.clone(),
            on_account_change: self
                .on_account_change
                .parse()
                .map_err(|_| corrupt("on_account_change"))?,
            created_at: self.created_at,
            expires_at: self.expires_at,
            used_at: self.used_at,
        })
    }
}

#[derive(sqlx::FromRow)]
struct RequestRow {
    id: String,
    link_id: String,
    application: String,
    data_key: Option<Vec<u8>>,
    code_verifier: Option<Vec<u8>>,
}

fn place<'a>(row: &'a str, column: &'a str, application: &'a ApplicationId) -> Place<'a> {
    Place {
        table: "authorization_requests",
        row,
        column,
        application,
    }
}

impl Store {
    /// Writes a connect link, audited.
    pub async fn create_connect_link(&self, new: &NewConnectLink, actor: Actor) -> Result<(), StoreError> {
        let link = &new.link;
        let mut tx = self.database.begin().await?;
        within!(&mut tx, |c| sqlx::query(INSERT_LINK)
            .bind(link.id.as_str())
            .bind(link.application.as_str())
            .bind(new.token_hash.as_slice())
            .bind(link.seller_id.as_str())
            .bind(&link.return_url)
            .bind(&link.locale)
            .bind(link.metadata.as_ref().map(Json))
            .bind(link.on_account_change.as_str())
            .bind(link.created_at)
            .bind(link.expires_at)
            .execute(c)
            .await
            .map(drop))?;
        let audit = NewAudit {
            actor,
            action: AuditAction::ConnectLinkCreated,
            application: Some(link.application.clone()),
            target: Some(link.seller_id.to_string()),
            at: link.created_at,
            detail: serde_json::json!({ "id": link.id, "expires_at": link.expires_at }),
        };
        insert_audit(&mut tx, &audit, &self.random).await?;
        tx.commit().await
    }

    /// The connect link whose token has this hash, in whatever state.
    pub async fn find_connect_link(&self, token_hash: [u8; 32]) -> Result<Option<ConnectLink>, StoreError> {
        let row: Option<LinkRow> = read!(&self.database, |c| sqlx::query_as(FIND_LINK)
            .bind(token_hash.as_slice())
            .fetch_optional(c)
            .await)?;
        row.map(LinkRow::link).transpose()
    }

    /// Writes an authorization request, its verifier sealed with a new data key.
    pub async fn create_authorization_request(
        &self,
        new: &NewAuthorizationRequest<'_>,
    ) -> Result<(), StoreError> {
        let application = &new.link.application;
        let data_key = DataKey::generate();
        let wrapped = self
            .vault
            .wrap(&data_key, place(new.id.as_str(), "data_key", application));
        let verifier = data_key.seal(
            new.verifier.expose().as_bytes(),
            place(new.id.as_str(), "code_verifier", application),
        );
        let mut tx = self.database.begin().await?;
        within!(&mut tx, |c| sqlx::query(INSERT_REQUEST)
            .bind(new.id.as_str())
            .bind(new.link.id.as_str())
            .bind(application.as_str())
            .bind(new.state_hash.as_slice())
            .bind(new.browser_hash.as_slice())
            .bind(wrapped)
            .bind(self.vault.keyring().active_id().as_str())
            .bind(verifier)
            .bind(new.now)
            .bind(new.expires_at)
            .execute(c)
            .await
            .map(drop))?;
        tx.commit().await
    }

    /// Consumes the authorization request of a `state`, if it is unexpired and was begun in this browser. Of any number of
    /// parallel callers one gets it; another browser does not consume it.
    pub async fn consume_authorization_request(
        &self,
        state_hash: [u8; 32],
        browser_hash: [u8; 32],
        now: DateTime<Utc>,
    ) -> Result<Option<ConsumedAuthorization>, StoreError> {
        let mut tx = self.database.begin().await?;
        let row: Option<RequestRow> = within!(&mut tx, |c| sqlx::query_as(FIND_REQUEST)
            .bind(state_hash.as_slice())
            .bind(browser_hash.as_slice())
            .bind(now)
            .fetch_optional(c)
            .await)?;
        let Some(row) = row else {
            tx.rollback().await?;
            return Ok(None);
        };
        let consumed = within!(&mut tx, |c| sqlx::query(CONSUME_REQUEST)
            .bind(&row.id)
            .bind(now)
            .execute(c)
            .await
            .map(|done| done.rows_affected()))?;
        if consumed != 1 {
            tx.rollback().await?;
            return Ok(None);
        }
        let authorization = self.open_request(&mut tx, row).await?;
        tx.commit().await?;
        Ok(authorization)
    }

    /// The authorization request behind an exchange's rescue file, while it is not completed.
    pub async fn find_consumed_authorization(
        &self,
        id: &AuthorizationRequestId,
    ) -> Result<Option<ConsumedAuthorization>, StoreError> {
        let mut tx = self.database.begin().await?;
        let row: Option<RequestRow> = within!(&mut tx, |c| sqlx::query_as(FIND_CONSUMED)
            .bind(id.as_str())
            .fetch_optional(c)
            .await)?;
        match row {
            Some(row) => self.open_request(&mut tx, row).await,
            None => Ok(None),
        }
    }

    async fn open_request(
        &self,
        tx: &mut Tx,
        row: RequestRow,
    ) -> Result<Option<ConsumedAuthorization>, StoreError> {
        let table = "authorization_requests";
        let corrupt = |column| StoreError::Corrupt {
            table,
            column,
            row: row.id.clone(),
        };
        let sealed = |column| {
            let row = row.id.clone();
            move |source| StoreError::Sealed {
                table,
                column,
                row,
                source,
            }
        };
        let application: ApplicationId = row.application.parse().map_err(|_| corrupt("application"))?;
        let Some(wrapped) = &row.data_key else {
            return Ok(None);
        };
        let data_key = self
            .vault
            .unwrap(wrapped, place(&row.id, "data_key", &application))
            .map_err(sealed("data_key"))?;
        let verifier = match &row.code_verifier {
            Some(verifier) => {
                let opened = data_key.open(verifier, place(&row.id, "code_verifier", &application));
                let opened = opened.map_err(sealed("code_verifier"))?;
                let text = std::str::from_utf8(&opened).map_err(|_| corrupt("code_verifier"))?;
                Some(CodeVerifier::new(text))
            }
            None => None,
        };
        let link: Option<LinkRow> = within!(tx, |c| sqlx::query_as(FIND_LINK_BY_ID)
            .bind(&row.link_id)
            .fetch_optional(c)
            .await)?;
        let Some(link) = link else { return Ok(None) };
        Ok(Some(ConsumedAuthorization {
            id: row.id.parse().map_err(|_| corrupt("id"))?,
            link: link.link()?,
            data_key,
            verifier,
        }))
    }

    /// Forgets an authorization request that came to nothing.
    pub async fn discard_authorization_request(&self, id: &AuthorizationRequestId) -> Result<(), StoreError> {
        let mut tx = self.database.begin().await?;
        within!(&mut tx, |c| sqlx::query(DELETE_REQUEST)
            .bind(id.as_str())
            .execute(c)
            .await
            .map(drop))?;
        tx.commit().await
    }

    /// Admits a token set as a seller's connection, or refuses it by the identity rules: connection, sealed tokens, event,
    /// audit row and used link in one transaction.
    ///
    /// On PostgreSQL two new rows for one seller or one account may be written side by side; the unique index lets one
    /// through, and the rules are then looked at again for the other.
    pub async fn admit(&self, new: &NewConnect<'_>) -> Result<Admission, StoreError> {
        for _ in 1..ADMIT_TRIES {
            match self.try_admit(new).await {
                Err(StoreError::Conflict) => {}
                done => return done,
            }
        }
        self.try_admit(new).await
    }

    async fn try_admit(&self, new: &NewConnect<'_>) -> Result<Admission, StoreError> {
        let mut tx = self.database.begin().await?;
        let existing = match find_row_within(&mut tx, new.application, new.seller_id).await? {
            Some(row) => Some(row.connection()?),
            None => None,
        };
        if let Some(holder) = find_row_by_user_within(&mut tx, new.application, new.tokens.user_id).await?
            && holder.connection()?.seller_id != *new.seller_id
        {
            return self.refuse(tx, new, Admission::AccountInUse).await;
        }
        let live = existing
            .as_ref()
            .filter(|connection| connection.status != Status::Revoked);
        if let Some(connection) = live {
            match new.consent {
                None => return self.refuse(tx, new, Admission::SellerConnected).await,
                Some((_, OnAccountChange::Refuse)) if connection.user_id != new.tokens.user_id => {
                    return self.refuse(tx, new, Admission::AccountMismatch).await;
                }
                Some(_) => {}
            }
        }
        let reconnects = live.is_some();
        if let Some((authorization, _)) = new.consent
            && !complete_request(&mut tx, authorization, new.now).await?
        {
            tx.rollback().await?;
            return Ok(Admission::AlreadyCompleted);
        }
        let (mut next, generation) = if let Some(connection) = existing {
            let generation = connection.generation;
            (
                connection.reconnect(new.client_id.to_owned(), new.tokens, new.schedule),
                generation,
            )
        } else {
            let id = ConnectionId::new(new.now, &self.random);
            let (application, seller_id) = (new.application.clone(), new.seller_id.clone());
            let client_id = new.client_id.to_owned();
            let empty = Value::Object(serde_json::Map::new());
            let first = Connection::connect(
                id,
                application,
                seller_id,
                client_id,
                new.tokens,
                empty,
                new.schedule,
            );
            insert_connection(&mut tx, &first).await?;
            (first, 0)
        };
        if !update_connection(&mut tx, &next, generation).await? {
            return Err(StoreError::Conflict);
        }
        if let Some(metadata) = new.metadata {
            next.metadata = metadata.clone();
            update_metadata(&mut tx, &next).await?;
        }
        update_data_key(&mut tx, &self.vault, &next, new.data_key).await?;
        update_tokens(&mut tx, &next, new.tokens, new.data_key).await?;
        self.tell_admission(&mut tx, new, &next, reconnects).await?;
        tx.commit().await?;
        Ok(Admission::Connected(Box::new(next)))
    }

    /// Nothing of the seller's changes; the consent is forgotten with its data key.
    async fn refuse(
        &self,
        mut tx: Tx,
        new: &NewConnect<'_>,
        refusal: Admission,
    ) -> Result<Admission, StoreError> {
        if let Some((authorization, _)) = new.consent {
            let id = authorization.id.as_str();
            within!(&mut tx, |c| sqlx::query(DELETE_REQUEST)
                .bind(id)
                .execute(c)
                .await
                .map(drop))?;
        }
        tx.commit().await?;
        Ok(refusal)
    }

    async fn tell_admission(
        &self,
        tx: &mut Tx,
        new: &NewConnect<'_>,
        next: &Connection,
        reconnects: bool,
    ) -> Result<(), StoreError> {
        let event_type = if reconnects {
            EventType::Reconnected
        } else {
            EventType::Connected
        };
        let view = next.view_at(new.now, new.application_public_key);
        let event = NewEvent::about_connection(
            event_type,
            new.application,
            new.seller_id,
            &view,
            new.now,
            &self.random,
        );
        insert_event(tx, &event).await?;
        let action = match (new.consent.is_some(), reconnects) {
            (false, _) => AuditAction::ConnectionImported,
            (true, false) => AuditAction::ConnectionConnected,
            (true, true) => AuditAction::ConnectionReconnected,
        };
        let audit = NewAudit {
            actor: new.actor.clone(),
            action,
            application: Some(new.application.clone()),
            target: Some(new.seller_id.to_string()),
            at: new.now,
            detail: serde_json::json!({ "user_id": next.user_id, "generation": next.generation }),
        };
        insert_audit(tx, &audit, &self.random).await
    }

    /// Removes up to `limit` authorization requests and connect links that ended before `before`. How many went.
    pub async fn purge_authorizations(&self, before: DateTime<Utc>, limit: u32) -> Result<u64, StoreError> {
        let mut tx = self.database.begin().await?;
        let mut removed = 0;
        for statement in [PURGE_REQUESTS, PURGE_LINKS] {
            removed += within!(&mut tx, |c| sqlx::query(statement)
                .bind(before)
                .bind(i64::from(limit))
                .execute(c)
                .await
                .map(|done| done.rows_affected()))?;
        }
        tx.commit().await?;
        Ok(removed)
    }
}

/// Removes the request (its data key goes to the connection) and marks its link as used. False when it is gone already.
async fn complete_request(
    tx: &mut Tx,
    authorization: &ConsumedAuthorization,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let removed = within!(tx, |c| sqlx::query(DELETE_REQUEST)
        .bind(authorization.id.as_str())
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    // A second tab of the same link may have been first: the link stays used, and this consent counts as one more.
    within!(tx, |c| sqlx::query(USE_LINK)
        .bind(authorization.link.id.as_str())
        .bind(now)
        .execute(c)
        .await
        .map(drop))?;
    Ok(removed == 1)
}
