//! PostgreSQL stops under load, for longer than what is remembered is used without a look, and comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use marketplace_connector::domain::random::Random;
use marketplace_connector::sandbox::OldAccessToken;

use crate::callers::Callers;
use crate::fleet::{Fleet, seller_id};
use crate::plan::is_long;
use crate::provider::Provider;
use crate::support::API_KEY;
use crate::support::postgres::Cluster;

const SELLERS: usize = 20;
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const TURNS_WITHIN: Duration = Duration::from_secs(30);

/// Waits until every replica says this about itself.
async fn until_readiness_is(fleet: &Fleet, client: &reqwest::Client, wanted: u16) {
    let begun = Instant::now();
    for replica in &fleet.replicas {
        let url = format!("{}readyz", replica.door().address);
        while client.get(&url).send().await.unwrap().status().as_u16() != wanted {
            assert!(begun.elapsed() < TURNS_WITHIN, "/readyz does not say {wanted}");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgresql_is_away_sellers_in_memory_are_served_and_readyz_says_so() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let life = Duration::from_hours(6);
    let provider = Provider::start(SELLERS, 2, life, OldAccessToken::Lives, 0, Random::seeded(1)).await;
    let fleet = Arc::new(Fleet::start(Some(cluster), &provider, 2, &[]).await);
    fleet.import(&provider).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for replica in &fleet.replicas {
        for seller in 0..SELLERS {
            let url = format!(
                "{}proxy/{}/v1/identification_types",
                replica.door().address,
                seller_id(seller)
            );
            let call = client.get(url).bearer_auth(API_KEY);
            assert_eq!(call.send().await.unwrap().status(), 200);
        }
    }

    let (rate, away) = if is_long() {
        (500.0, Duration::from_secs(20))
    } else {
        (60.0, Duration::from_secs(4))
    };
    let callers = Callers::start(&fleet, SELLERS, 8, rate, 1);
    fleet.stop_store();
    let begun = Instant::now();
    until_readiness_is(&fleet, &client, 503).await;
    tokio::time::sleep_until((begun + away).into()).await;
    let stopped = begun.elapsed();
    fleet.resume_store();
    until_readiness_is(&fleet, &client, 200).await;
    let calls = callers.stop().await;
    eprintln!(
        "PostgreSQL away for {} s: {} calls answered, {} failed",
        stopped.as_secs(),
        calls.good,
        calls.failures.len()
    );
    assert!(calls.failures.is_empty(), "{:?}", calls.failures);
    assert!(calls.good > 0);
}
