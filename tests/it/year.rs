//! A year in which sellers, imported in one day, are kept connected by the worker alone, hour by hour, against a provider
//! whose refresh tokens work once: nobody's token ends, nobody is lost (the first promise of DESIGN.md section 1).
//!
//! That a million of them make no peak is computed in `src/domain/schedule.rs`; here everything else takes part.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use chrono::{DateTime, TimeDelta};
use marketplace_connector::domain::clock::Clock as _;
use serde_json::{Value, json};

use crate::support::app::TestApp;
use crate::support::{CLIENT_ID, CLIENT_SECRET};

/// How many sellers, unless `SELLERS_FOR_A_YEAR` says otherwise.
const SELLERS: usize = 100;
/// From so many sellers on, the worker looks every hour, else every day.
const MANY: usize = 2_000;
const AT_A_TIME: usize = 8;

/// A seller's consent straight at the provider, as another installation had got it: the members of its answer.
async fn consented(app: &TestApp, client: &reqwest::Client, account: u64) -> Value {
    let redirect_uri = format!("{}/oauth/callback", app.origin());
    let authorization = format!(
        "{}/authorization?response_type=code&client_id={CLIENT_ID}&redirect_uri={redirect_uri}",
        app.provider_origin()
    );
    let callback = app
        .sandbox
        .consent(&authorization, &account.to_string(), true)
        .unwrap();
    let code = crate::support::http::parameter(&callback, "code");
    let exchange = json!({
        "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "grant_type": "authorization_code",
        "code": code, "redirect_uri": redirect_uri,
    });
    let url = format!("{}/oauth/token", app.provider_origin());
    let answer = client.post(url).json(&exchange).send().await.unwrap();
    answer.json().await.unwrap()
}

async fn import(app: &TestApp, client: &reqwest::Client, account: u64) {
    let tokens = consented(app, client, account).await;
    let seller = json!({
        "seller_id": format!("seller-{account}"), "user_id": account, "verify": false,
        "access_token": tokens["access_token"], "refresh_token": tokens["refresh_token"],
        "expires_in": tokens["expires_in"],
    });
    app.platform().post("/v1/connections", seller).await.expect(201);
}

/// Every connection as the API shows it.
async fn connections(app: &TestApp, filter: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = app
            .platform()
            .get(&format!("/v1/connections?limit=200{filter}{cursor}"))
            .await;
        let page = page.expect(200).json();
        all.extend(page["data"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sellers_imported_in_one_day_are_all_there_after_a_year() {
    let sellers = std::env::var("SELLERS_FOR_A_YEAR")
        .ok()
        .map_or(SELLERS, |text| text.parse().unwrap());
    let app = TestApp::with_provider(
        |settings| {
            settings.insert("REFRESH_RATE", "100000/s".to_owned());
        },
        |sandbox| sandbox.require_pkce = false,
    )
    .await;
    let app = Arc::new(app);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/_sandbox/sellers", app.provider_origin());
    let wanted = json!({ "site_id": "MLA", "count": sellers });
    let accounts = client.post(url).json(&wanted).send().await.unwrap();
    let accounts: Vec<Value> = accounts.json().await.unwrap();
    let accounts: Arc<Vec<u64>> = Arc::new(
        accounts
            .iter()
            .map(|one| one["user_id"].as_u64().unwrap())
            .collect(),
    );
    assert_eq!(accounts.len(), sellers);

    let begun = Instant::now();
    let day = TimeDelta::days(1);
    for quarter in accounts.chunks(sellers.div_ceil(4)) {
        let next = Arc::new(AtomicUsize::new(0));
        let importers: Vec<_> = (0..AT_A_TIME)
            .map(|_| {
                let (app, client, next, quarter) =
                    (app.clone(), client.clone(), next.clone(), quarter.to_vec());
                tokio::spawn(async move {
                    while let Some(account) = quarter.get(next.fetch_add(1, Ordering::Relaxed)) {
                        import(&app, &client, *account).await;
                    }
                })
            })
            .collect();
        for importer in importers {
            importer.await.unwrap();
        }
        app.advance(day / 4);
    }
    let imported = begun.elapsed();

    let begun = Instant::now();
    let step = if sellers < MANY { day } else { TimeDelta::hours(1) };
    let mut by_step = Vec::new();
    let mut expired = 0;
    let end = app.clock.now() + TimeDelta::days(365);
    while app.clock.now() < end {
        app.advance(step);
        let now = app.clock.now();
        let is_new_day = now.timestamp() % 86_400 < step.num_seconds();
        if is_new_day {
            let over = now.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
            expired += connections(&app, &format!("&expiring_before={over}")).await.len();
        }
        let before = app.refreshes();
        app.refresh_what_is_due().await;
        by_step.push(app.refreshes() - before);
    }
    let passed = begun.elapsed();

    let now = app.clock.now();
    let all = connections(&app, "").await;
    let is_kept = |connection: &&Value| {
        let ends = connection["access_token_expires_at"].as_str().unwrap_or_default();
        let ends = DateTime::parse_from_rfc3339(ends).unwrap();
        connection["status"] == "active"
            && connection["refresh_failures"] == 0
            && ends - now.fixed_offset() > TimeDelta::days(60)
    };
    let lost = sellers - all.iter().filter(is_kept).count();
    let total: u64 = by_step.iter().sum();
    let database: u64 = std::fs::read_dir(app.rescue_dir().parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap())
        .filter(std::fs::Metadata::is_file)
        .map(|file| file.len())
        .sum();
    #[expect(clippy::cast_precision_loss, reason = "figures to read")]
    {
        let mean = total as f64 / by_step.len() as f64;
        eprintln!(
            "{sellers} sellers imported in {imported:.0?}, a year in {passed:.0?}: {total} refreshes ({:.0} a second), every {} h {mean:.1} \
             on average and {} at most; expired {expired}, lost {lost}; database {:.1} MiB",
            total as f64 / passed.as_secs_f64(),
            step.num_hours(),
            by_step.iter().max().unwrap(),
            database as f64 / f64::from(1 << 20),
        );
    }
    assert_eq!((all.len(), expired, lost), (sellers, 0, 0));
    // Three or four in a year, each of them with a token that works once.
    assert!(total >= 3 * sellers as u64, "{total}");
    for account in accounts.iter().step_by(sellers.div_ceil(50)) {
        let me = app
            .proxied_get(&format!("seller-{account}"), "/users/me")
            .await
            .expect(200);
        assert_eq!(me.json()["id"], *account);
    }
}
