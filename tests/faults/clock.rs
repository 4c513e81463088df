//! A replica whose clock is wrong: for it every lease is over and everything is due, or nothing is. The service runs in this
//! process, because the clock of another one cannot be set.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use marketplace_connector::app::{App, Listeners, Migrate, Seams};
use marketplace_connector::config::Config;
use marketplace_connector::domain::clock::{Clock as _, OffsetClock, SystemClock};
use marketplace_connector::domain::random::Random;
use marketplace_connector::sandbox::OldAccessToken;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::fleet::{Fleet, seller_id};
use crate::provider::{Provider, Weather};
use crate::support::API_KEY;
use crate::support::postgres::Cluster;

/// Begins a replica beside the fleet, with a clock that is off; where it listens.
async fn wrong_replica(
    fleet: &Fleet,
    provider: &Provider,
    off: TimeDelta,
    stop: &CancellationToken,
) -> String {
    let mut settings = fleet.replicas[0].service.lock().await.settings.clone();
    let folder = tempfile::tempdir().unwrap();
    settings.insert("RESCUE_DIR", folder.path().display().to_string());
    settings.insert("MERCADOPAGO_API_URL", provider.origin(1).to_owned());
    settings.insert("REFRESH_POLL_INTERVAL", "50ms".to_owned());
    let config = Config::from_source(&|name| settings.get(name).cloned()).unwrap();
    let clock = OffsetClock::new(Arc::new(SystemClock));
    clock.advance(off);
    let seams = Seams {
        clock: Arc::new(clock),
        random: Random::system(),
    };
    let app = App::build(config, seams, Migrate::First).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let stop = stop.clone();
    tokio::spawn(async move {
        app.serve(Listeners::one(listener), stop).await.unwrap();
        drop(folder);
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_clock_is_an_hour_off_takes_nothing_and_says_why() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let life = Duration::from_hours(6);
    let provider = Provider::start(2, 2, life, OldAccessToken::Dies, 0, Random::seeded(1)).await;
    // It would see a lease of a minute as long over, or everything due as not due yet.
    let settings = [("REFRESH_POLL_INTERVAL", "200ms")];
    let fleet = Fleet::start(Some(cluster), &provider, 1, &settings).await;
    provider.set_weather(Weather::Hanging);
    let over_at = SystemClock.now() + TimeDelta::seconds(1);
    fleet.import_with(&provider, 0, |_| over_at).await;
    // The right replica holds both, and waits for the provider.
    crate::support::process::until("both attempts", || (provider.ledger().len() == 2).then_some(())).await;

    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let stop = CancellationToken::new();
    for hours in [1, -1] {
        let address = wrong_replica(&fleet, &provider, TimeDelta::hours(hours), &stop).await;
        let ready: Value = client
            .get(format!("{address}/readyz"))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let detail = ready["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("clock"), "{ready}");
        // Its worker looks twenty times a second, and a call by hand gets no further.
        for _ in 0..5 {
            let url = format!("{address}/v1/connections/{}/refresh", seller_id(0));
            let answer = client.post(url).bearer_auth(API_KEY).send().await.unwrap();
            assert_eq!(answer.status(), 503);
            let problem: Value = answer.json().await.unwrap();
            assert!(problem["detail"].as_str().unwrap().contains("clock"), "{problem}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    assert!(provider.ledger().iter().all(|spend| spend.replica == 0));
    stop.cancel();
}
