//! The worker's step: renew what is due, warn of what ends soon. It takes no input; what is due is in the store, so a
//! crash, a second replica and a missed wake-up need no code of their own. Tests call the step and move the clock.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Refresher;
use crate::domain::connection::{EXPIRY_MARKS, Trigger};
use crate::domain::event::EventType;
use crate::domain::ids::ConnectionId;
use crate::mercadopago::application::Application;
use crate::storage::StoreError;

/// So many due connections of an application are taken in one step.
const DUE_AT_ONCE: u32 = 200;
/// So many warnings are told in one step.
const WARNINGS_AT_ONCE: u32 = 200;
/// A refresh that is overdue for so long counts as failing (its application may be suspended).
const OVERDUE_AFTER: TimeDelta = TimeDelta::hours(1);
/// The first warning comes so long before the end.
const FIRST_MARK: TimeDelta = TimeDelta::days(30);

/// What a worker's step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// So many pieces of work; there may be more.
    Worked(usize),
    /// There was nothing to do.
    Idle,
}

impl Refresher {
    /// Renews what is due, of all applications, with the configured concurrency and rate. Nothing while this replica's clock
    /// is wrong: what is due, and whose lease is over, is a question of time.
    pub async fn step(&self) -> Result<Step, StoreError> {
        if self.0.replica.excessive_skew().is_some() {
            return Ok(Step::Idle);
        }
        let mut worked = 0;
        for app in self.0.applications.iter() {
            worked += self.renew_due(app).await?;
            worked += self.warn(app).await?;
        }
        Ok(if worked == 0 {
            Step::Idle
        } else {
            Step::Worked(worked)
        })
    }

    async fn renew_due(&self, app: &Application) -> Result<usize, StoreError> {
        let inner = &self.0;
        let now = inner.clock.now();
        if inner.breakers.open_until(&app.id, now).is_some() {
            return Ok(0);
        }
        let state = inner.store.application_state(&app.id).await?;
        let probing = state.suspended_at.is_some();
        let limit = if !probing {
            DUE_AT_ONCE
        } else if inner
            .store
            .take_probe(&app.id, now, now + super::suspension::PROBE_EVERY)
            .await?
        {
            1
        } else {
            return Ok(0);
        };
        let due = inner.store.list_due(&app.id, now, limit).await?;
        let count = due.len();
        self.renew(app, due, probing).await?;
        Ok(count)
    }

    /// Renews these. Stops where one of them shows that the application itself is refused, unless it is being probed.
    async fn renew(
        &self,
        app: &Application,
        due: Vec<ConnectionId>,
        probing: bool,
    ) -> Result<(), StoreError> {
        let permits = Arc::new(Semaphore::new(self.0.settings.concurrency));
        let mut pace =
            tokio::time::interval(Duration::from_secs_f64(1.0 / self.0.settings.rate.per_second()));
        let mut tasks = JoinSet::new();
        for id in due {
            pace.tick().await;
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                break;
            };
            if !probing
                && self
                    .0
                    .store
                    .application_state(&app.id)
                    .await?
                    .suspended_at
                    .is_some()
            {
                break;
            }
            let refresher = self.clone();
            tasks.spawn(async move {
                let _permit = permit;
                match refresher.refresh(&id, None, Trigger::Schedule).await {
                    Ok(_) => {}
                    Err(error) => tracing::debug!(connection = %id, %error, "a due refresh brought nothing"),
                }
            });
        }
        while tasks.join_next().await.is_some() {}
        Ok(())
    }

    /// Tells `connection.expiring` for connections that are not renewed, at each mark once.
    async fn warn(&self, app: &Application) -> Result<usize, StoreError> {
        let inner = &self.0;
        let now = inner.clock.now();
        let marks = i64::try_from(EXPIRY_MARKS.len()).unwrap_or(i64::MAX);
        let ending = inner
            .store
            .list_to_warn(
                &app.id,
                now,
                now + FIRST_MARK,
                marks,
                now - OVERDUE_AFTER,
                WARNINGS_AT_ONCE,
            )
            .await?;
        let mut told = 0;
        for connection in ending {
            let passed = connection.expiry_marks_passed_at(now);
            if passed > connection.expiry_marks_told {
                let event = inner.event(EventType::Expiring, app, &connection);
                if inner
                    .store
                    .store_expiry_warning(&connection, passed, &event)
                    .await?
                {
                    told += 1;
                }
            }
        }
        Ok(told)
    }
}
