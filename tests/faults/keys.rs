//! The encryption key is changed while calls go on, and the command that does it is killed half-way.

use std::sync::Arc;
use std::time::Duration;

use marketplace_connector::domain::random::Random;
use marketplace_connector::sandbox::OldAccessToken;
use serde_json::Value;

use crate::callers::Callers;
use crate::fleet::Fleet;
use crate::plan::is_long;
use crate::provider::Provider;
use crate::support::ENCRYPTION_KEY;
use crate::support::postgres::Cluster;

const NEW_KEY: &str = "k2:c2Vjb25kLWVuY3J5cHRpb24ta2V5LW9mLTMyLWJ5dGU=";
const CALLED: usize = 50;
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Starts every replica again with these keys, one after the other.
async fn roll_out(fleet: &Fleet, keys: &str) {
    for replica in &fleet.replicas {
        replica
            .service
            .lock()
            .await
            .settings
            .insert("ENCRYPTION_KEYS", keys.to_owned());
        replica.stop().await;
        replica.start().await;
    }
}

/// How many rows each key holds, by `keys status`.
async fn held(fleet: &Fleet) -> [i64; 2] {
    let service = fleet.replicas[0].service.lock().await;
    let output = tokio::task::block_in_place(|| service.run(&["keys", "status", "--json"]));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let keys: Value = serde_json::from_slice(&output.stdout).unwrap();
    ["k1", "k2"].map(|id| {
        let mut keys = keys.as_array().unwrap().iter();
        let key = keys.find(|key| key["id"] == id);
        key.map_or(0, |key| key["rows"].as_i64().unwrap())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_under_load_and_a_killed_rotation_is_begun_again() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let (idle, rate) = if is_long() {
        (100_000, 500.0)
    } else {
        (3_000, 60.0)
    };
    let life = Duration::from_hours(6);
    let provider = Provider::start(CALLED, 2, life, OldAccessToken::Lives, 0, Random::seeded(1)).await;
    let fleet = Arc::new(Fleet::start(Some(cluster), &provider, 2, &[]).await);
    fleet
        .import_with(&provider, idle, |granted| granted.expires_at)
        .await;
    roll_out(&fleet, &format!("{ENCRYPTION_KEY},{NEW_KEY}")).await;
    roll_out(&fleet, &format!("{NEW_KEY},{ENCRYPTION_KEY}")).await;
    let all = i64::try_from(CALLED + idle).unwrap();
    assert_eq!(held(&fleet).await, [all, 0]);

    let callers = Callers::start(&fleet, CALLED, 16, rate, 1);
    let mut rotation = fleet.replicas[0]
        .service
        .lock()
        .await
        .command()
        .args(["keys", "rotate"])
        .spawn()
        .unwrap();
    while rotation.try_wait().unwrap().is_none() && held(&fleet).await[1] == 0 {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    rotation.kill().unwrap();
    rotation.wait().unwrap();
    let [old, new] = held(&fleet).await;
    assert!(old > 0 && new > 0, "it was not killed half-way: {old}, {new}");

    let service = fleet.replicas[0].service.lock().await;
    let output = tokio::task::block_in_place(|| service.run(&["keys", "rotate"]));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    drop(service);
    assert_eq!(held(&fleet).await, [0, all]);
    let calls = callers.stop().await;
    eprintln!(
        "keys rotated over {all} connections, killed after {new}: {} calls answered, {} failed",
        calls.good,
        calls.failures.len()
    );
    assert!(calls.failures.is_empty(), "{:?}", calls.failures);
    assert!(calls.good > 0);

    // The old key can go.
    roll_out(&fleet, NEW_KEY).await;
    let callers = Callers::start(&fleet, CALLED, 1, 1_000.0, 2);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let calls = callers.stop().await;
    assert!(
        calls.failures.is_empty() && calls.good > 0,
        "{:?}",
        calls.failures
    );
}
