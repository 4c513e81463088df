//! Whose token a call gets: connections with their opened access token, remembered for a moment.
//!
//! A call whose seller is remembered reads nothing from the store; after `CONNECTION_CACHE_TTL` one read by primary key
//! compares generation and status, so a revoke holds within a second on every replica that reaches the store. The token is
//! kept as the header that it becomes, and wiped when the last call with it ends.

use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use foldhash::quality::RandomState;
use http::HeaderValue;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::cache::Cache;
use super::freshness::{Age, Patience};
use super::metrics::{CacheUse, Metrics};
use super::problem::{Outcome, ProxyProblem};
use super::unauthorized::Suspicion;
use super::usage::Meter;
use crate::domain::connection::{Connection, Status, Trigger};
use crate::domain::ids::{ApplicationId, SellerId};
use crate::domain::problem::ProblemCode;
use crate::domain::secret::AccessToken;
use crate::refresh::{self, RefreshError, Refresher};
use crate::storage::{OpenConnection, Store};

/// A connection as it is remembered.
pub(super) struct Known {
    /// The connection.
    pub(super) connection: Connection,
    /// Its access token.
    pub(super) access_token: Option<AccessToken>,
    /// The same as a header.
    authorization: Option<HeaderValue>,
    /// What belongs to the seller rather than to the token set.
    pub(super) seat: Arc<Seat>,
    age: Age,
    /// Held by whoever looks at the row, so that a crowd looks once.
    looking: Mutex<()>,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known")
            .field("connection", &self.connection.id)
            .finish_non_exhaustive()
    }
}

/// What is remembered of a seller across token sets.
#[derive(Debug)]
pub(super) struct Seat {
    /// Counts its calls.
    pub(super) meter: Arc<Meter>,
    /// Calls under way.
    pub(super) in_flight: AtomicUsize,
    /// What its 401s led to.
    pub(super) suspicion: Mutex<Suspicion>,
}

impl Seat {
    fn of(connection: &Connection) -> Self {
        let meter = Meter::new(connection.application.clone(), Some(connection.id.clone()));
        Self {
            meter: Arc::new(meter),
            in_flight: AtomicUsize::new(0),
            suspicion: Mutex::default(),
        }
    }
}

/// A token as the header that authorises a call; its memory is wiped after the last use.
pub(super) fn bearer(token: &AccessToken) -> Option<HeaderValue> {
    let text = Zeroizing::new(format!("Bearer {}", token.expose()).into_bytes());
    let mut header = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).ok()?;
    header.set_sensitive(true);
    Some(header)
}

impl Known {
    /// The header of its access token, alive or not.
    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// The header that authorises a call at `now`, if the token is alive.
    pub(super) fn authorization_at(&self, now: DateTime<Utc>) -> Option<&HeaderValue> {
        self.authorization
            .as_ref()
            .filter(|_| self.connection.has_live_access_token_at(now))
    }
}

/// The remembered connections.
pub(super) struct Sellers {
    cache: Cache<Known>,
    hasher: RandomState,
    store: Store,
    refresher: Refresher,
    patience: Arc<Patience>,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Sellers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sellers")
    }
}

impl Sellers {
    /// Remembers at most `capacity` connections.
    pub(super) fn new(
        capacity: usize,
        store: Store,
        refresher: Refresher,
        patience: Arc<Patience>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            cache: Cache::new(capacity),
            hasher: RandomState::default(),
            store,
            refresher,
            patience,
            metrics,
        }
    }

    fn hash(&self, application: &ApplicationId, seller: &SellerId) -> u64 {
        self.hasher.hash_one((application, seller))
    }

    /// The connection of a seller, whatever its status. Absent and another application's are the same.
    pub(super) async fn find(
        &self,
        application: &ApplicationId,
        seller: &SellerId,
        now: DateTime<Utc>,
    ) -> Result<Arc<Known>, ProxyProblem> {
        let hash = self.hash(application, seller);
        let is_asked_for = |known: &Arc<Known>| {
            known.connection.application == *application && known.connection.seller_id == *seller
        };
        match self.cache.get(hash).filter(is_asked_for) {
            Some(known) if self.patience.is_fresh(&known.age, now) => {
                self.metrics.cache(CacheUse::Hit);
                Ok(known)
            }
            Some(known) => Box::pin(self.look_in_turn(&known, now)).await,
            None => Box::pin(self.load(application, seller, now)).await,
        }
    }

    async fn load(
        &self,
        application: &ApplicationId,
        seller: &SellerId,
        now: DateTime<Utc>,
    ) -> Result<Arc<Known>, ProxyProblem> {
        let question = self.store.open_connection(application, seller);
        let asked = self.patience.ask(false, now, question).await?;
        self.metrics.cache(CacheUse::Loaded);
        asked.map_or_else(|| Err(not_found()), |open| Ok(self.remember(open, None, now)))
    }

    /// Of a crowd, one compares with the row, and the others wait for it.
    async fn look_in_turn(&self, known: &Arc<Known>, now: DateTime<Utc>) -> Result<Arc<Known>, ProxyProblem> {
        let looking = known.looking.lock().await;
        if self.patience.is_fresh(&known.age, now) {
            self.metrics.cache(CacheUse::Hit);
            return Ok(known.clone());
        }
        let found = self.look_again(known, now).await;
        drop(looking);
        found
    }

    /// Compares with the row, and reads it again if it changed.
    async fn look_again(&self, known: &Arc<Known>, now: DateTime<Utc>) -> Result<Arc<Known>, ProxyProblem> {
        let connection = &known.connection;
        let asked = self
            .patience
            .ask(true, now, self.store.connection_generation(&connection.id))
            .await;
        match asked {
            Ok(Some((generation, status)))
                if generation == connection.generation && status == connection.status =>
            {
                self.patience.checked(&known.age, now);
                self.metrics.cache(CacheUse::Checked);
                Ok(known.clone())
            }
            Ok(_) => {
                self.metrics.cache(CacheUse::Loaded);
                self.reload(known, now).await
            }
            Err(_) if self.patience.may_serve_stale(&known.age, now) => {
                self.metrics.cache(CacheUse::Stale);
                Ok(known.clone())
            }
            Err(problem) => {
                self.cache
                    .remove(self.hash(&connection.application, &connection.seller_id));
                Err(problem)
            }
        }
    }

    /// Reads the row past the cache.
    pub(super) async fn reload(
        &self,
        known: &Arc<Known>,
        now: DateTime<Utc>,
    ) -> Result<Arc<Known>, ProxyProblem> {
        let connection = &known.connection;
        let question = self
            .store
            .open_connection(&connection.application, &connection.seller_id);
        if let Some(open) = self.patience.ask(false, now, question).await? {
            Ok(self.remember(open, Some(known), now))
        } else {
            self.cache
                .remove(self.hash(&connection.application, &connection.seller_id));
            Err(not_found())
        }
    }

    fn remember(&self, open: OpenConnection, before: Option<&Arc<Known>>, now: DateTime<Utc>) -> Arc<Known> {
        let OpenConnection {
            connection,
            access_token,
        } = open;
        let hash = self.hash(&connection.application, &connection.seller_id);
        let seat = match before {
            Some(before) => before.seat.clone(),
            None => Arc::new(Seat::of(&connection)),
        };
        let authorization = access_token.as_ref().and_then(bearer);
        let age = self.patience.young(now);
        let known = Arc::new(Known {
            connection,
            access_token,
            authorization,
            seat,
            age,
            looking: Mutex::default(),
        });
        self.cache.insert(hash, known.clone());
        known
    }

    /// Makes sure that the connection has an access token which is alive, by a refresh if that is what it takes.
    pub(super) async fn with_live_token(
        &self,
        known: Arc<Known>,
        now: DateTime<Utc>,
        deadline: tokio::time::Instant,
    ) -> Result<Arc<Known>, ProxyProblem> {
        if known.authorization_at(now).is_some() {
            return Ok(known);
        }
        match known.connection.status {
            Status::Revoked => Err(revoked()),
            Status::ReconnectRequired => Err(reconnect_required("Mercado Pago no longer accepts the grant")),
            Status::Active => Box::pin(self.refresh(&known, Trigger::Expired, now, deadline)).await,
        }
    }

    /// Renews the token set. Whoever waits too long goes, and the refresh goes on.
    pub(super) async fn refresh(
        &self,
        known: &Arc<Known>,
        trigger: Trigger,
        now: DateTime<Utc>,
        deadline: tokio::time::Instant,
    ) -> Result<Arc<Known>, ProxyProblem> {
        let connection = &known.connection;
        let refreshing = self
            .refresher
            .refresh(&connection.id, Some(connection.generation), trigger);
        let refreshed = tokio::time::timeout_at(deadline, refreshing).await.map_err(|_| {
            ProxyProblem::new(
                ProblemCode::TokenUnavailable,
                "the seller's token is being renewed; try again soon",
            )
            .outcome(Outcome::NotSent)
        })?;
        self.renewed(known, refreshed, now)
    }

    /// What somebody brings who is renewing the token set at this moment; none if nobody is.
    pub(super) async fn join_refresh(
        &self,
        known: &Arc<Known>,
        now: DateTime<Utc>,
    ) -> Option<Result<Arc<Known>, ProxyProblem>> {
        let joined = self.refresher.join(&known.connection).await?;
        Some(self.renewed(known, joined, now))
    }

    fn renewed(
        &self,
        known: &Arc<Known>,
        refreshed: refresh::Outcome,
        now: DateTime<Utc>,
    ) -> Result<Arc<Known>, ProxyProblem> {
        match refreshed {
            Ok(open) => Ok(self.remember(open, Some(known), now)),
            Err(RefreshError::Absent) => Err(not_found()),
            Err(RefreshError::Revoked) => Err(revoked()),
            Err(RefreshError::ReconnectRequired { reason }) => Err(reconnect_required(reason)),
            Err(RefreshError::TokenUnavailable { retry_after, reason }) => {
                let detail =
                    format!("the seller's access token is over and cannot be renewed for now: {reason}");
                Err(ProxyProblem::new(ProblemCode::TokenUnavailable, detail)
                    .outcome(Outcome::NotSent)
                    .retry_after(retry_after))
            }
            Err(RefreshError::StoreUnavailable) => Err(ProxyProblem::new(
                ProblemCode::StoreUnavailable,
                "the connector's database does not answer; nothing was sent",
            )
            .outcome(Outcome::NotSent)),
        }
    }

    /// Forgets what was not looked at for long: opened tokens are not kept for nothing.
    pub(super) fn forget_old(&self, now: DateTime<Utc>) {
        self.cache.retain(|known| {
            self.patience.may_serve_stale(&known.age, now) || known.seat.in_flight.load(Ordering::Relaxed) > 0
        });
    }

    /// How many connections are remembered.
    pub(super) fn remembered(&self) -> usize {
        self.cache.len()
    }
}

fn not_found() -> ProxyProblem {
    ProxyProblem::new(
        ProblemCode::ConnectionNotFound,
        "no seller of this id is connected to the key's application",
    )
}

/// The connection was ended.
pub(super) fn revoked() -> ProxyProblem {
    ProxyProblem::new(
        ProblemCode::ConnectionRevoked,
        "the connection was revoked; the seller can connect again",
    )
    .outcome(Outcome::NotSent)
}

/// Only the seller can help.
pub(super) fn reconnect_required(reason: &'static str) -> ProxyProblem {
    let detail = format!("the seller has to connect again: {reason}");
    ProxyProblem::new(ProblemCode::ReconnectRequired, detail).outcome(Outcome::NotSent)
}
