//! Three replicas, one seller, a crowd of calls on an access token that is over: one of them spends the refresh token.

use std::time::Duration;

use chrono::TimeDelta;
use marketplace_connector::domain::clock::{Clock as _, SystemClock};
use marketplace_connector::domain::random::Random;
use marketplace_connector::sandbox::OldAccessToken;
use tokio::task::JoinSet;

use crate::fleet::{Fleet, seller_id};
use crate::provider::{Fate, Provider};
use crate::support::API_KEY;
use crate::support::postgres::Cluster;

const CALLS: usize = 150;

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_on_an_expired_token_at_three_replicas_makes_one_token_call() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let life = Duration::from_hours(6);
    let provider = Provider::start(1, 3, life, OldAccessToken::Dies, 0, Random::seeded(1)).await;
    // The calls renew it, not the worker.
    let settings = [("REFRESH_POLL_INTERVAL", "1h")];
    let fleet = Fleet::start(Some(cluster), &provider, 3, &settings).await;
    let over_at = SystemClock.now() + TimeDelta::seconds(1);
    fleet.import_with(&provider, 0, |_| over_at).await;
    tokio::time::sleep((over_at - SystemClock.now()).to_std().unwrap_or_default()).await;

    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let address = fleet.replicas[number % fleet.replicas.len()].door().address;
        let url = format!("{address}proxy/{}/v1/identification_types", seller_id(0));
        let call = client.get(url).bearer_auth(API_KEY).send();
        calls.spawn(async move { call.await.unwrap().status().as_u16() });
    }
    assert_eq!(calls.join_all().await, [200; CALLS]);
    let fates: Vec<_> = provider.ledger().into_iter().map(|spend| spend.fate).collect();
    assert_eq!(fates, [Fate::Granted { sent: true }]);
}
