//! Everything goes wrong at once: replicas are killed, PostgreSQL crashes, the token endpoint hangs, fails and loses answers,
//! while calls go on. Then it is counted who was lost, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use marketplace_connector::domain::random::Random;
use marketplace_connector::sandbox::OldAccessToken;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::callers::{Callers, Calls};
use crate::fleet::{Fleet, seller_id, seller_number};
use crate::judge::{Judge, LastAnswer, Spending};
use crate::plan::Plan;
use crate::provider::{Provider, Weather};
use crate::receiver::Receiver;
use crate::support::API_KEY;
use crate::support::postgres::Cluster;

/// How long the sellers' fate may take to show once nothing is disturbed any more.
const SETTLED_WITHIN: Duration = Duration::from_mins(3);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    Postgres,
    Sqlite,
}

/// The settings of every replica: all that takes minutes in the field takes seconds here.
const SETTINGS: &[(&str, &str)] = &[
    // A line per call would say nothing here.
    (
        "RUST_LOG",
        "info,marketplace_connector::proxy::record=warn,marketplace_connector::http::edge=warn",
    ),
    ("REFRESH_POLL_INTERVAL", "300ms"),
    ("REFRESH_LEASE", "6s"),
    ("TOKEN_ENDPOINT_TIMEOUT", "2s"),
    ("REFRESH_RATE", "200/s"),
    ("REFRESH_CONCURRENCY", "32"),
    ("EVENT_ENDPOINTS_ALLOW_PRIVATE", "true"),
    ("EVENT_RETRY_SCHEDULE", "1s,1s,2s,5s,10s,30s"),
];

/// So many sellers are renewed by hand at the same time.
const AT_ONCE: usize = 16;

/// An operator, who asks the first replica.
#[derive(Clone)]
struct Operator {
    fleet: Arc<Fleet>,
    client: reqwest::Client,
}

impl Operator {
    fn new(fleet: &Arc<Fleet>) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(45))
            .build()
            .unwrap();
        Self {
            fleet: Arc::clone(fleet),
            client,
        }
    }

    async fn ask(&self, method: http::Method, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}{path}", self.fleet.replicas[0].door().address);
        let mut request = self.client.request(method, url).bearer_auth(API_KEY);
        if !body.is_null() {
            request = request.json(body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or(Value::Null))
    }

    /// Renews every seller by hand, as soon as that is possible, or finds that the seller has to connect again. Those.
    async fn settle(&self, sellers: usize) -> BTreeSet<usize> {
        let begun = Instant::now();
        let mut open: BTreeSet<usize> = (0..sellers).collect();
        let mut flagged = BTreeSet::new();
        loop {
            for seller in self.list("reconnect_required").await {
                if open.remove(&seller) {
                    flagged.insert(seller);
                }
            }
            let mut asked = JoinSet::new();
            for number in 0..AT_ONCE {
                let sellers: Vec<_> = open.iter().copied().skip(number).step_by(AT_ONCE).collect();
                let operator = self.clone();
                asked.spawn(async move { operator.renew(sellers).await });
            }
            while let Some(renewed) = asked.join_next().await {
                for seller in renewed.unwrap() {
                    open.remove(&seller);
                }
            }
            if open.is_empty() {
                return flagged;
            }
            assert!(
                begun.elapsed() < SETTLED_WITHIN,
                "neither renewed nor flagged: {:?}",
                open.iter().map(|seller| seller_id(*seller)).collect::<Vec<_>>()
            );
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Renews these by hand; those who were.
    async fn renew(self, sellers: Vec<usize>) -> Vec<usize> {
        let mut renewed = Vec::new();
        for seller in sellers {
            let shown = format!("v1/connections/{}", seller_id(seller));
            let path = format!("{shown}/refresh");
            // One that failed before is being found out about; by hand, a token that is known to be dead is spent again.
            let (_, connection) = self.ask(http::Method::GET, &shown, &Value::Null).await;
            if connection["status"] != "active" || connection["refresh_failures"] != 0 {
                continue;
            }
            match self.ask(http::Method::POST, &path, &Value::Null).await {
                (200, _) => renewed.push(seller),
                (409 | 503, _) => {}
                other => panic!("{}: {other:?}", seller_id(seller)),
            }
        }
        renewed
    }

    /// The sellers of a status.
    async fn list(&self, status: &str) -> Vec<usize> {
        let mut found = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("v1/connections?limit=200&status={status}{cursor}");
            let (status, page) = self.ask(http::Method::GET, &path, &Value::Null).await;
            assert_eq!(status, 200, "{page}");
            let sellers = page["data"].as_array().unwrap().iter();
            found.extend(sellers.map(|row| seller_number(row["seller_id"].as_str().unwrap()).unwrap()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return found,
            }
        }
    }
}

/// What disturbs the run, each by a chance of its own, so that the same seed plans the same disturbances.
fn disturb(plan: &Plan, fleet: &Arc<Fleet>, provider: &Arc<Provider>, until: Instant) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for number in 0..fleet.replicas.len() {
        let (fleet, chance) = (Arc::clone(fleet), plan.chance(100 + number as u64));
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(between(&chance, 0.5, 5.0)).await;
                if Instant::now() >= until {
                    return;
                }
                fleet.kill_and_start(number, between(&chance, 0.0, 1.5)).await;
            }
        });
    }
    if fleet.cluster.is_some() {
        let (fleet, chance) = (Arc::clone(fleet), plan.chance(200));
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(between(&chance, 2.0, 8.0)).await;
                if Instant::now() >= until {
                    return;
                }
                fleet.restart_store(between(&chance, 0.0, 2.0)).await;
            }
        });
    }
    let (provider, chance) = (Arc::clone(provider), plan.chance(300));
    tasks.spawn(async move {
        let mut weather = 0;
        while Instant::now() < until {
            // Any but the one that was.
            weather = (weather
                + [1, 2, 3][usize::from(chance.unit() > 0.33) + usize::from(chance.unit() > 0.5)])
                % 4;
            provider.set_weather(WEATHERS[weather]);
            tokio::time::sleep(between(&chance, 0.5, 2.5)).await;
        }
        provider.set_weather(Weather::Calm);
    });
    tasks
}

const WEATHERS: [Weather; 4] = [Weather::Calm, Weather::Lossy, Weather::Hanging, Weather::Failing];

fn between(chance: &Random, least: f64, most: f64) -> Duration {
    Duration::from_secs_f64(least + chance.unit() * (most - least))
}

async fn run(engine: Engine, old_access_token: OldAccessToken) {
    let (cluster, replicas) = match engine {
        Engine::Sqlite => (None, 1),
        Engine::Postgres => match Cluster::start() {
            Some(cluster) => (Some(cluster), 3),
            None => return,
        },
    };
    let plan = Plan::from_environment();
    let name = format!("chaos, {engine:?}, the old access token {old_access_token:?}");
    eprintln!("{name}: {plan}");
    let provider = Provider::start(
        plan.sellers,
        replicas,
        plan.life,
        old_access_token,
        plan.sellers / 4,
        plan.chance(1),
    )
    .await;
    let provider = Arc::new(provider);
    let (receiver, events) = Receiver::start().await;
    let fleet = Fleet::start(cluster, &provider, replicas, SETTINGS).await;
    let fleet = Arc::new(fleet);
    let operator = Operator::new(&fleet);
    let endpoint =
        json!({ "url": events, "event_types": ["connection.reconnect_required", "connection.recovered"] });
    let (status, answer) = operator
        .ask(http::Method::POST, "v1/event-endpoints", &endpoint)
        .await;
    assert_eq!(status, 201, "{answer}");
    fleet.import(&provider).await;
    let begun = Instant::now();

    let callers = Callers::start(&fleet, plan.sellers, 8, plan.calls_per_second, plan.seed);
    let mut disturbances = disturb(&plan, &fleet, &provider, begun + plan.duration);
    while let Some(ended) = disturbances.join_next().await {
        ended.unwrap();
    }
    let calm_from = Instant::now();
    let flagged = operator.settle(plan.sellers).await;

    // Calls go on until the last access token of those who lost theirs is over, which is when they may fail.
    let judge = Judge::new(&provider, &fleet, begun).await;
    let last = flagged
        .iter()
        .filter_map(|seller| judge.old_token_until(*seller))
        .max();
    if let Some(end) = last {
        tokio::time::sleep_until((end + Duration::from_secs(1)).into()).await;
    }
    let told_by = Instant::now() + SETTLED_WITHIN;
    while untold(&flagged, &receiver) > 0 && Instant::now() < told_by {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    // What a killed process left on its disk brings its seller back, however the others took the silence.
    let mut recovered = BTreeSet::new();
    loop {
        let still = operator.list("reconnect_required").await;
        recovered.extend(flagged.iter().filter(|seller| !still.contains(seller)));
        let mut waiting = flagged.difference(&recovered);
        if Instant::now() > told_by || !waiting.any(|seller| judge.last_answer(*seller) == LastAnswer::OnDisk)
        {
            break;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let flagged: BTreeSet<usize> = flagged.difference(&recovered).copied().collect();
    let calls = callers.stop().await;
    let judge = Judge::new(&provider, &fleet, begun).await;
    let figures = Figures::count(
        &judge,
        &calls,
        &flagged,
        plan.sellers,
        untold(&flagged, &receiver),
    );
    let disturbed = (calm_from - begun).as_secs();
    let kills: usize = fleet.replicas.iter().map(|replica| replica.away().len()).sum();
    let crashes = fleet.store_away().len();
    eprintln!(
        "{name}: {disturbed} s, {kills} processes killed, {crashes} crashes of the database, {} flagged and recovered\n{figures}",
        recovered.len()
    );
    figures.check();
}

/// How many of them nobody was told of.
fn untold(flagged: &BTreeSet<usize>, receiver: &Receiver) -> usize {
    let told = |seller: &&usize| receiver.has("connection.reconnect_required", &seller_id(**seller));
    flagged.len() - flagged.iter().filter(told).count()
}

/// What a run came to. Who and what is wrong is named.
struct Figures {
    spending: Spending,
    flagged: usize,
    untold: usize,
    lost_on_the_wire: usize,
    died_with_the_process: usize,
    lost_by_us: Vec<String>,
    unnoticed: Vec<String>,
    good_calls: usize,
    sent_again: usize,
    served_after_the_loss: usize,
    failed_by_us: Vec<String>,
    failed: BTreeMap<String, usize>,
}

impl Figures {
    fn count(
        judge: &Judge<'_>,
        calls: &Calls,
        flagged: &BTreeSet<usize>,
        sellers: usize,
        untold: usize,
    ) -> Self {
        let of = |last: LastAnswer| (0..sellers).filter(move |seller| judge.last_answer(*seller) == last);
        let may_be_lost = |seller: usize| {
            matches!(
                judge.last_answer(seller),
                LastAnswer::Lost | LastAnswer::DiedWithTheProcess
            )
        };
        let lost_by_us = flagged.iter().filter(|seller| !may_be_lost(**seller));
        let unnoticed = of(LastAnswer::Lost).filter(|seller| !flagged.contains(seller));
        let served_after_the_loss = flagged.iter().map(|seller| {
            let lost_at = judge.last_granted_at(*seller);
            let served = calls.served.get(seller).into_iter().flatten();
            served
                .filter(|at| lost_at.is_some_and(|lost_at| **at > lost_at))
                .count()
        });
        let (by_us, others): (Vec<_>, Vec<_>) = calls
            .failures
            .iter()
            .partition(|failure| judge.is_our_failure(failure));
        let mut failed = BTreeMap::new();
        for failure in others {
            *failed.entry(failure.answer.clone()).or_default() += 1;
        }
        Self {
            spending: judge.spending(),
            flagged: flagged.len(),
            untold,
            lost_on_the_wire: of(LastAnswer::Lost).count(),
            died_with_the_process: flagged
                .iter()
                .filter(|seller| judge.last_answer(**seller) == LastAnswer::DiedWithTheProcess)
                .count(),
            lost_by_us: lost_by_us
                .map(|seller| format!("{} {:?}", seller_id(*seller), judge.last_answer(*seller)))
                .collect(),
            unnoticed: unnoticed.map(seller_id).collect(),
            good_calls: calls.good,
            sent_again: calls.sent_again,
            served_after_the_loss: served_after_the_loss.sum(),
            failed_by_us: by_us.iter().map(|failure| format!("{failure:?}")).collect(),
            failed,
        }
    }

    fn check(&self) {
        assert!(
            self.spending.refreshes > 0 && self.good_calls > 0,
            "nothing was played"
        );
        assert!(self.lost_by_us.is_empty(), "sellers are lost");
        assert!(self.spending.twice.is_empty(), "refresh tokens were spent twice");
        assert!(self.unnoticed.is_empty(), "a loss was not noticed");
        assert_eq!(self.untold, 0, "a loss was not told");
        assert!(self.failed_by_us.is_empty(), "calls failed");
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |wrong: &[String]| {
            let named: Vec<_> = wrong.iter().map(|one| format!("\n    {one}")).collect();
            format!("{}{}", wrong.len(), named.concat())
        };
        writeln!(
            f,
            "  sellers whose answer reached a process and who are lost: {}",
            list(&self.lost_by_us)
        )?;
        writeln!(
            f,
            "  sellers whose answer was lost on the wire: {}",
            self.lost_on_the_wire
        )?;
        writeln!(
            f,
            "  sellers whose answer lay in the socket of a process that was killed: {}",
            self.died_with_the_process
        )?;
        writeln!(
            f,
            "  of both, not flagged: {}; flagged: {}, without an event: {}",
            list(&self.unnoticed),
            self.flagged,
            self.untold
        )?;
        writeln!(f, "  refreshes: {}", self.spending.refreshes)?;
        writeln!(f, "  refresh tokens spent twice: {}", list(&self.spending.twice))?;
        writeln!(
            f,
            "  deliberate retries after an unknown outcome: {}",
            self.spending.deliberate
        )?;
        writeln!(
            f,
            "  calls answered: {}, of these with the old access token after the new one was lost: {}",
            self.good_calls, self.served_after_the_loss
        )?;
        writeln!(
            f,
            "  calls that met a dead process and were sent to another: {}",
            self.sent_again
        )?;
        writeln!(
            f,
            "  calls failed while a valid access token existed: {}",
            list(&self.failed_by_us)
        )?;
        write!(
            f,
            "  calls failed without one, or without database and memory: {:?}",
            self.failed
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_lost_on_postgresql_where_the_old_access_token_lives() {
    run(Engine::Postgres, OldAccessToken::Lives).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_lost_on_postgresql_where_the_old_access_token_dies() {
    run(Engine::Postgres, OldAccessToken::Dies).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_lost_on_sqlite_where_the_old_access_token_lives() {
    run(Engine::Sqlite, OldAccessToken::Lives).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_lost_on_sqlite_where_the_old_access_token_dies() {
    run(Engine::Sqlite, OldAccessToken::Dies).await;
}
