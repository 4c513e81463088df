//! The platform: calls for sellers picked by chance, through replicas picked by chance, for as long as a run lasts. A call
//! that meets a dead process is sent again to another, as a load balancer does; what a living one answers counts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::StatusCode;
use marketplace_connector::domain::random::Random;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::fleet::{Fleet, seller_id};
use crate::support::API_KEY;

/// Longer than any answer of the service may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(45);
/// How long a caller rests before it tries the next replica.
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// A call that got no good answer.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) seller: usize,
    pub(crate) from: Instant,
    pub(crate) until: Instant,
    /// Status and `Connector-Error`, or what kept it from being answered.
    pub(crate) answer: String,
    /// When this seller was last served by this process.
    pub(crate) served_at: Option<Instant>,
}

/// What came of the calls.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// Good answers by seller: when the call ended.
    pub(crate) served: HashMap<usize, Vec<Instant>>,
    pub(crate) good: usize,
    /// Calls that met a dead process and were sent again.
    pub(crate) sent_again: usize,
    pub(crate) failures: Vec<Failure>,
    last_good: HashMap<(usize, usize, usize), Instant>,
}

/// Callers that go on until they are told to stop.
pub(crate) struct Callers {
    calls: Arc<Mutex<Calls>>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Callers {
    /// So many, who make so many calls a second together.
    pub(crate) fn start(fleet: &Arc<Fleet>, sellers: usize, count: u32, rate: f64, seed: u64) -> Self {
        let (calls, stop) = (Arc::<Mutex<Calls>>::default(), CancellationToken::new());
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(ANSWERS_WITHIN)
            .build()
            .unwrap();
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let caller = Caller {
                fleet: Arc::clone(fleet),
                calls: Arc::clone(&calls),
                client: client.clone(),
                random: Random::seeded(seed.wrapping_add(u64::from(number))),
            };
            let pace = Duration::from_secs_f64(f64::from(count) / rate);
            let stop = stop.clone();
            tasks.spawn(async move {
                let mut pace = tokio::time::interval(pace);
                pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                while !stop.is_cancelled() {
                    pace.tick().await;
                    caller.call(caller.pick(sellers)).await;
                }
            });
        }
        Self { calls, tasks, stop }
    }

    /// Lets the calls under way end; what came of all.
    pub(crate) async fn stop(mut self) -> Calls {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

struct Caller {
    fleet: Arc<Fleet>,
    calls: Arc<Mutex<Calls>>,
    client: reqwest::Client,
    random: Random,
}

impl Caller {
    fn pick(&self, among: usize) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "numbers of sellers and replicas are small"
        )]
        let picked = (self.random.unit() * among as f64) as usize;
        picked
    }

    async fn call(&self, seller: usize) {
        let mut replica = self.pick(self.fleet.replicas.len());
        loop {
            // Before its address is read: a process that is replaced meanwhile was away.
            let from = Instant::now();
            let door = self.fleet.replicas[replica].door();
            let url = format!(
                "{}proxy/{}/v1/identification_types",
                door.address,
                seller_id(seller)
            );
            let answer = async {
                let response = self.client.get(url).bearer_auth(API_KEY).send().await?;
                let status = response.status();
                let code = response.headers().get("connector-error");
                let code = code.map_or("", |code| code.to_str().unwrap()).to_owned();
                response.bytes().await?;
                Ok::<_, reqwest::Error>((status, code))
            };
            let answer = answer.await;
            let seat = (replica, door.life, seller);
            if self.note(seat, from, answer) {
                return;
            }
            tokio::time::sleep(TRY_AGAIN).await;
            replica = (replica + 1) % self.fleet.replicas.len();
        }
    }

    /// Writes down what came of a call; false if it met a dead process.
    fn note(
        &self,
        seat: (usize, usize, usize),
        from: Instant,
        answer: reqwest::Result<(StatusCode, String)>,
    ) -> bool {
        let until = Instant::now();
        let (replica, _, seller) = seat;
        let absences = self.fleet.replicas[replica].away();
        let mut calls = self.calls.lock().unwrap();
        match answer {
            Ok((status, _)) if status.is_success() => {
                calls.good += 1;
                calls.served.entry(seller).or_default().push(until);
                calls.last_good.insert(seat, until);
            }
            Err(_) if absences.iter().any(|absence| absence.touches(from, until)) => {
                calls.sent_again += 1;
                return false;
            }
            bad => {
                let answer = match bad {
                    Ok((status, code)) => format!("{} {code}", status.as_u16()),
                    Err(error) => format!("no answer: {error:#}"),
                };
                let served_at = calls.last_good.get(&seat).copied();
                calls.failures.push(Failure {
                    seller,
                    from,
                    until,
                    answer,
                    served_at,
                });
            }
        }
        true
    }
}
