//! What runs beside the requests. A worker takes no input: what is due is in the store (or in the rescue folder), so a
//! crash, a second replica and a missed wake-up need no code of their own. Each is a step and a loop around it.

use std::future::Future;
use std::time::Duration;

use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Retention;
use crate::http::AppState;
use crate::refresh::Step;
use crate::replica::REPORT_INTERVAL;
use crate::rescue::{RescueDir, Subject};
use crate::storage::StoreError;

/// How soon a worker looks again after it found work.
const BUSY_PAUSE: Duration = Duration::from_millis(250);
/// An answer that waits for the store to come back is soon given up by the other replicas, who cannot see it.
const RESCUE_INTERVAL: Duration = Duration::from_secs(5);
const GAUGES_INTERVAL: Duration = Duration::from_secs(15);
/// Histograms are folded so often; between two foldings each observation costs memory.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
const PURGE_INTERVAL: Duration = Duration::from_mins(10);
const CHAIN_INTERVAL: Duration = Duration::from_secs(10);
/// How long a replica that chains the audit log keeps the others from it.
const CHAIN_LEASE: TimeDelta = TimeDelta::seconds(60);
/// So many audit rows are chained in one transaction.
const CHAINED_AT_ONCE: u32 = 500;
/// So many rows are removed in one transaction.
const PURGED_AT_ONCE: u32 = 500;
/// How long an ended link still answers that it is over, instead of being unknown.
const ENDED_LINKS_KEPT: TimeDelta = TimeDelta::days(30);

/// Begins all workers; they end with `stop`, and the tracker holds them.
pub(super) fn spawn(
    tracker: &TaskTracker,
    state: &AppState,
    rescue: &RescueDir,
    poll_interval: Duration,
    retention: Retention,
    after_restore: bool,
    stop: &CancellationToken,
) {
    let owned = || (state.clone(), stop.clone());
    let (app, until) = owned();
    tracker.spawn(async move {
        if after_restore
            && until
                .run_until_cancelled(verify_restored(&app, poll_interval))
                .await
                .is_none()
        {
            return;
        }
        every(poll_interval, until, move || {
            let app = app.clone();
            async move { renew(&app).await }
        })
        .await;
    });
    let (app, until) = owned();
    let folder = rescue.clone();
    tracker.spawn(async move {
        succeed(&folder, &app).await;
        app.endpoints.deliverer().run(until).await;
    });
    let (app, until) = owned();
    let rescue = rescue.clone();
    tracker.spawn(every(RESCUE_INTERVAL, until, move || {
        let (app, rescue) = (app.clone(), rescue.clone());
        async move {
            apply_rescued(&rescue, &app).await;
            Step::Idle
        }
    }));
    let (app, until) = owned();
    tracker.spawn(every(CHAIN_INTERVAL, until, move || {
        let app = app.clone();
        async move { chain_audit(&app).await }
    }));
    let (app, until) = owned();
    tracker.spawn(every(REPORT_INTERVAL, until, move || {
        let app = app.clone();
        async move {
            if let Err(error) = app.replica.report(&app.store, &*app.clock).await {
                tracing::warn!(%error, "this replica could not report that it is alive");
            }
            Step::Idle
        }
    }));
    let (app, until) = owned();
    tracker.spawn(every(PURGE_INTERVAL, until, move || {
        let app = app.clone();
        async move { purge(&app, retention).await }
    }));
    let (app, until) = owned();
    tracker.spawn(every(GAUGES_INTERVAL, until, move || {
        let app = app.clone();
        async move {
            measure(&app).await;
            Step::Idle
        }
    }));
    let (app, until) = owned();
    let flushes = tracker.clone();
    tracker.spawn(every(UPKEEP_INTERVAL, until, move || {
        app.proxy.forget_old();
        app.metrics.run_upkeep();
        let app = app.clone();
        // A task of its own: what was taken to be written must not be dropped with this step.
        let flush = flushes.spawn(async move { flush_usage(&app).await });
        async move {
            let _ = flush.await;
            Step::Idle
        }
    }));
}

/// Steps until `stop`: again at once while there is work, else after `interval`. A step that is interrupted by `stop` is
/// dropped; what must not be dropped runs in tasks of its own.
async fn every<F: Future<Output = Step>>(
    interval: Duration,
    stop: CancellationToken,
    mut work: impl FnMut() -> F,
) {
    loop {
        let Some(done) = stop.run_until_cancelled(work()).await else {
            return;
        };
        let pause = match done {
            Step::Worked(_) => BUSY_PAUSE,
            Step::Idle => interval,
        };
        if stop
            .run_until_cancelled(tokio::time::sleep(pause))
            .await
            .is_none()
        {
            return;
        }
    }
}

/// Looks through a restored backup, once this replica's clock is right: which token is over is a question of time. From the
/// start again where the store fails meanwhile, which spends nothing twice.
async fn verify_restored(app: &AppState, retry: Duration) {
    loop {
        if app.replica.excessive_skew().is_none() {
            match app.refresher.verify_restored(&app.provider).await {
                Ok(_) => return,
                Err(error) => {
                    tracing::error!(%error, "the restored connections could not be looked through; it is tried again");
                }
            }
        }
        tokio::time::sleep(retry).await;
    }
}

async fn renew(app: &AppState) -> Step {
    app.refresher.step().await.unwrap_or_else(|error| {
        tracing::error!(%error, "the worker could not look for due refreshes");
        Step::Idle
    })
}

/// Applies what requests left behind whose process died, or whose answer could not be parsed.
pub(super) async fn apply_rescued(rescue: &RescueDir, app: &AppState) {
    let left = match rescue.list_left().await {
        Ok(left) => left,
        Err(error) => {
            tracing::error!(%error, "the rescue folder cannot be read; check RESCUE_DIR");
            return;
        }
    };
    for file in left {
        let name = file.name();
        let applied = match file.subject() {
            Some(Subject::Exchange { .. }) => {
                app.connect.apply_rescued(file).await.map_err(anyhow::Error::from)
            }
            Some(Subject::Refresh { .. }) => app
                .refresher
                .apply_rescued(file)
                .await
                .map_err(anyhow::Error::from),
            // Its head was never finished, so nothing was sent for it.
            None => {
                file.remove().await;
                Ok(())
            }
        };
        if let Err(error) = applied {
            tracing::error!(
                file = name,
                error = format!("{error:#}"),
                "a rescue file could not be applied; it is tried again"
            );
        }
    }
}

/// Takes the rescue folder over, and with it the deliveries that the process before this one had under way.
async fn succeed(rescue: &RescueDir, app: &AppState) {
    match rescue.take_over(app.replica.id()).await {
        Ok(Some(dead)) => {
            if let Err(error) = app.endpoints.deliverer().succeed(&dead).await {
                tracing::warn!(%error, "what the process before this one had under way waits for its leases to end");
            }
        }
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(%error, "RESCUE_DIR cannot be locked; after a crash leases run to their end");
        }
    }
}

/// Chains new rows of the audit log, if no other replica does.
async fn chain_audit(app: &AppState) -> Step {
    if app.replica.excessive_skew().is_some() {
        return Step::Idle;
    }
    let chained = async {
        let now = app.clock.now();
        let leased = app
            .store
            .take_lease("audit_chain", app.replica.id(), now, now + CHAIN_LEASE)
            .await?;
        if leased {
            app.store.chain_audit(CHAINED_AT_ONCE).await
        } else {
            Ok(0)
        }
    };
    match chained.await {
        Ok(0) => Step::Idle,
        Ok(rows) => Step::Worked(usize::try_from(rows).unwrap_or(usize::MAX)),
        Err(error) => {
            tracing::warn!(%error, "the audit log could not be chained; it is tried again");
            Step::Idle
        }
    }
}

/// Removes what was kept long enough.
async fn purge(app: &AppState, retention: Retention) -> Step {
    let removed = match purged(app, retention).await {
        Ok(removed) => removed,
        Err(error) => {
            tracing::warn!(%error, "what was kept long enough could not be removed");
            0
        }
    };
    if removed == 0 {
        Step::Idle
    } else {
        Step::Worked(usize::try_from(removed).unwrap_or(usize::MAX))
    }
}

async fn purged(app: &AppState, retention: Retention) -> Result<u64, StoreError> {
    let now = app.clock.now();
    app.proxy.forget_payments().await?;
    let mut removed = app.connect.purge(now - ENDED_LINKS_KEPT, PURGED_AT_ONCE).await?;
    for application in app.applications.iter() {
        let id = &application.id;
        removed += app
            .store
            .purge_events(id, now - retention.events, PURGED_AT_ONCE)
            .await?;
        removed += app
            .store
            .purge_notifications(id, now - retention.notifications, PURGED_AT_ONCE)
            .await?;
        removed += app
            .store
            .purge_refresh_attempts(id, now - retention.attempts, PURGED_AT_ONCE)
            .await?;
        removed += app
            .store
            .purge_usage(id, now - retention.usage, PURGED_AT_ONCE)
            .await?;
    }
    Ok(removed)
}

/// Writes down what was called since the last time.
pub(super) async fn flush_usage(app: &AppState) {
    if let Err(error) = app.proxy.flush_usage().await {
        tracing::warn!(%error, "usage could not be written down; it is tried again");
    }
}

/// Sets the gauges that are read from the store.
async fn measure(app: &AppState) {
    measure_connections(app).await;
    match app.store.delivery_backlog().await {
        Ok(backlog) => {
            metrics::gauge!("connector_deliveries", "status" => "pending").set(as_gauge(backlog.pending));
            metrics::gauge!("connector_deliveries", "status" => "dead").set(as_gauge(backlog.dead));
            let waited = backlog
                .oldest
                .map_or(0, |at| (app.clock.now() - at).num_seconds());
            metrics::gauge!("connector_delivery_oldest_pending_seconds").set(as_gauge(waited));
        }
        Err(error) => tracing::warn!(%error, "deliveries could not be counted"),
    }
}

async fn measure_connections(app: &AppState) {
    let overview = match app.store.overview(None).await {
        Ok(overview) => overview,
        Err(error) => {
            tracing::warn!(%error, "connections could not be counted");
            return;
        }
    };
    let by_status = [
        ("active", overview.active),
        ("reconnect_required", overview.reconnect_required),
        ("revoked", overview.revoked),
    ];
    for (status, count) in by_status {
        metrics::gauge!("connector_connections", "status" => status).set(as_gauge(count));
    }
    metrics::gauge!("connector_connections_failing").set(as_gauge(overview.failing));
    if let Some(end) = overview.earliest_expiry {
        let left = (end - app.clock.now()).num_seconds();
        metrics::gauge!("connector_earliest_expiry_seconds").set(as_gauge(left));
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of connections and seconds of a year stay far below 2^53"
)]
fn as_gauge(count: i64) -> f64 {
    count as f64
}
