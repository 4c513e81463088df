//! How a token is refreshed (DESIGN.md section 7). One way for all who want it: the worker that renews what is due, a
//! call that finds its token expired, the 401 path, and whoever asks by hand.
//!
//! Guarantees: in one process, callers of the same connection share one flight; across replicas, the lease in the row lets
//! one through and the others use what it brought. The flight is a task of its own, so a caller that hangs up drops no
//! answer. The attempt is committed and the rescue file on disk before the token is sent; the new tokens are committed
//! before anybody gets them; a failure is never written over a newer generation.
//!
//! Does not decide by itself that a seller must reconnect on one refusal: see [`verdict`].

mod breaker;
mod flight;
mod rescued;
mod restored;
#[cfg(test)]
mod scenarios;
mod suspension;
mod verdict;
mod worker;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::config::RefreshSettings;
use crate::domain::clock::Clock;
use crate::domain::connection::{Connection, Trigger};
use crate::domain::ids::ConnectionId;
use crate::domain::random::Random;
use crate::mercadopago::application::Applications;
use crate::mercadopago::token_endpoint::TokenEndpoint;
use crate::replica::Replica;
use crate::rescue::RescueDir;
use crate::storage::{OpenConnection, Store, StoreError};

pub use restored::Restored;
pub use worker::Step;

use breaker::Breakers;

/// Why a refresh brought no usable token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    /// There is no such connection.
    #[error("there is no such connection")]
    Absent,
    /// The connection was ended.
    #[error("the connection is revoked; the seller has to connect again")]
    Revoked,
    /// Only the seller can mend it.
    #[error("the seller has to connect again: {reason}")]
    ReconnectRequired {
        /// What makes it so.
        reason: &'static str,
    },
    /// Not for now; later it may.
    #[error("the access token cannot be renewed for now: {reason}")]
    TokenUnavailable {
        /// When it makes sense to ask again.
        retry_after: Option<Duration>,
        /// What keeps it from being renewed.
        reason: &'static str,
    },
    /// The store does not answer; nothing was spent.
    #[error("the store is not available")]
    StoreUnavailable,
}

impl From<StoreError> for RefreshError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store failed during a refresh");
        Self::StoreUnavailable
    }
}

/// What a refresh brings: the connection with its new access token.
pub type Outcome = Result<OpenConnection, RefreshError>;
type Flights = Mutex<HashMap<ConnectionId, watch::Receiver<Option<Outcome>>>>;

/// Renews token sets. Clones share everything.
#[derive(Debug, Clone)]
pub struct Refresher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    endpoint: TokenEndpoint,
    applications: Applications,
    rescue: RescueDir,
    settings: RefreshSettings,
    clock: Arc<dyn Clock>,
    random: Random,
    replica: Replica,
    tracker: TaskTracker,
    flights: Flights,
    breakers: Breakers,
}

/// What a [`Refresher`] is made of.
#[derive(Debug)]
pub struct RefresherParts {
    /// Where connections and attempts lie.
    pub store: Store,
    /// The token endpoint.
    pub endpoint: TokenEndpoint,
    /// The configured applications.
    pub applications: Applications,
    /// The folder of rescue files.
    pub rescue: RescueDir,
    /// Due times, lease, concurrency.
    pub settings: RefreshSettings,
    /// Now.
    pub clock: Arc<dyn Clock>,
    /// Ids and jitter.
    pub random: Random,
    /// This process.
    pub replica: Replica,
    /// Holds the flights; shutdown waits for it.
    pub tracker: TaskTracker,
}

impl Refresher {
    /// Puts the parts together.
    pub fn new(parts: RefresherParts) -> Self {
        let RefresherParts {
            store,
            endpoint,
            applications,
            rescue,
            settings,
            clock,
            random,
            replica,
            tracker,
        } = parts;
        Self(Arc::new(Inner {
            store,
            endpoint,
            applications,
            rescue,
            settings,
            clock,
            random,
            replica,
            tracker,
            flights: Mutex::default(),
            breakers: Breakers::default(),
        }))
    }

    /// Renews the token set of a connection, or joins whoever is doing it, and gives the connection with its new access
    /// token. `spent_generation` is the generation that the caller found wanting: if the row has another one by now, that
    /// one is given and nothing is spent.
    ///
    /// Waits as long as it takes; a caller with a deadline drops the future, and the flight goes on.
    pub async fn refresh(
        &self,
        connection: &ConnectionId,
        spent_generation: Option<i64>,
        trigger: Trigger,
    ) -> Outcome {
        let flight = self.join_or_start(connection, spent_generation, trigger);
        landed(flight).await
    }

    /// Waits for whoever is renewing the connection's token set at this moment, in this process or in another one. Spends
    /// nothing; none if nobody is at it.
    pub async fn join(&self, connection: &Connection) -> Option<Outcome> {
        let flights = self.0.flights.lock();
        let flight = flights
            .unwrap_or_else(PoisonError::into_inner)
            .get(&connection.id)
            .cloned();
        if let Some(flight) = flight {
            return Some(landed(flight).await);
        }
        self.0.of_other(connection).await.transpose()
    }

    fn join_or_start(
        &self,
        connection: &ConnectionId,
        spent_generation: Option<i64>,
        trigger: Trigger,
    ) -> watch::Receiver<Option<Outcome>> {
        let mut flights = self.0.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(connection) {
            return flight.clone();
        }
        let (sender, receiver) = watch::channel(None);
        flights.insert(connection.clone(), receiver.clone());
        drop(flights);
        let (inner, connection) = (Arc::clone(&self.0), connection.clone());
        self.0.tracker.spawn(async move {
            let landing = Landing {
                inner: &inner,
                connection: &connection,
            };
            let outcome = inner.fly(&connection, spent_generation, trigger).await;
            drop(landing);
            // Nobody may be waiting any more; what mattered is in the store.
            let _ = sender.send(Some(outcome));
        });
        receiver
    }
}

/// What came of a flight.
async fn landed(mut flight: watch::Receiver<Option<Outcome>>) -> Outcome {
    match flight.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.clone().unwrap_or(Err(RefreshError::StoreUnavailable)),
        // The task ended without an answer: it panicked, which was logged where it happened.
        Err(_) => Err(RefreshError::TokenUnavailable {
            retry_after: None,
            reason: "the refresh broke off; try again",
        }),
    }
}

/// Takes a flight off the list when it ends, by whatever way.
struct Landing<'a> {
    inner: &'a Inner,
    connection: &'a ConnectionId,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.inner
            .flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(self.connection);
    }
}

/// Time from `now` until `until`, as a delay to tell a caller.
fn delay_until(until: DateTime<Utc>, now: DateTime<Utc>) -> Option<Duration> {
    (until - now).max(TimeDelta::zero()).to_std().ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use crate::domain::connection::{RefreshAttempt, TokenSet};
    use crate::domain::ids::{ApplicationId, RefreshAttemptId, UserId};
    use crate::domain::schedule::RefreshSchedule;
    use crate::domain::secret::{AccessToken, RefreshToken};

    use super::*;

    pub(crate) fn tokens(now: DateTime<Utc>) -> TokenSet {
        TokenSet {
            access_token: AccessToken::new("APP_USR-1"),
            refresh_token: Some(RefreshToken::new("TG-1")),
            obtained_at: now,
            expires_at: now + TimeDelta::days(180),
            scopes: vec!["offline_access".to_owned()],
            public_key: None,
            live_mode: Some(true),
            user_id: UserId(7),
        }
    }

    /// An active connection of 180 days from the epoch.
    pub(super) fn connection() -> Connection {
        let now = DateTime::UNIX_EPOCH;
        Connection::connect(
            ConnectionId::new(now, &Random::seeded(1)),
            ApplicationId::default_application(),
            "seller-1".parse().unwrap(),
            "1234567890123456".to_owned(),
            &tokens(now),
            serde_json::json!({}),
            &RefreshSchedule::default(),
        )
    }

    pub(super) fn attempt() -> RefreshAttempt {
        let now = DateTime::UNIX_EPOCH;
        RefreshAttempt {
            id: RefreshAttemptId::new(now, &Random::seeded(2)),
            connection_id: connection().id,
            application: ApplicationId::default_application(),
            generation: 1,
            trigger: Trigger::Schedule,
            after_unknown: false,
            started_at: now,
            finished_at: None,
            outcome: None,
            http_status: None,
            error: None,
        }
    }
}
