//! What a run is judged by: the provider's ledger, the absences of processes and database, and what callers were answered.
//! Knows nothing of how the connector works, only what it promises.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use marketplace_connector::sandbox::OldAccessToken;

use crate::callers::Failure;
use crate::fleet::{Absence, Fleet, Replica};
use crate::provider::{Fate, Provider, Spend};

/// A process that lives so long after an answer was sent to it has it in the database, unless that is away.
const COMMITTED_WITHIN: Duration = Duration::from_secs(5);
/// So soon after the database is back everybody uses it again (`STORE_RETRY_LONGEST` of a refresh, and a margin).
const STORE_USED_WITHIN: Duration = Duration::from_secs(7);
/// A look at the row is no older than this (`CONNECTION_CACHE_TTL`, and a margin).
const CACHE_TTL: Duration = Duration::from_secs(2);
/// How long a replica serves from its memory while the database is away (`CONNECTION_CACHE_STALE`, less a margin).
const CACHE_STALE: Duration = Duration::from_secs(25);

/// After an unknown outcome a token rests for this part of its life.
const REST_PART_OF_LIFE: u32 = 10;

/// An access token as the provider sees it.
#[derive(Debug, Clone, Copy)]
struct Token {
    /// Since when the connector had it for certain; none if it never did.
    ours_from: Option<Instant>,
    good_until: Instant,
}

/// How far the last answer that a seller's refresh token brought has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastAnswer {
    /// No answer, or one that reached a process which lived on.
    Reached,
    /// It reached a process that was killed, and was on its disk by then.
    OnDisk,
    /// It was sent to a process that was killed before it was on its disk.
    DiedWithTheProcess,
    /// It was lost on the wire.
    Lost,
}

/// All that is known after a run.
pub(crate) struct Judge<'a> {
    provider: &'a Provider,
    /// Of each seller, oldest first.
    ledger: Vec<Vec<Spend>>,
    begun: Instant,
    absences: Vec<Vec<Absence>>,
    store_away: Vec<Absence>,
    /// Seller and number of the grant (from 1) whose answer was on a killed process's disk.
    on_disk: Vec<(usize, usize)>,
}

/// What is wrong with how refresh tokens were spent.
#[derive(Debug, Default)]
pub(crate) struct Spending {
    pub(crate) refreshes: usize,
    /// Presented again although nothing was unknown, at the same time, or too soon.
    pub(crate) twice: Vec<String>,
    /// Presented again, as it must be, after an attempt whose outcome nobody could know.
    pub(crate) deliberate: usize,
}

impl<'a> Judge<'a> {
    pub(crate) async fn new(provider: &'a Provider, fleet: &Fleet, begun: Instant) -> Self {
        let sellers = fleet.sellers_by_connection().await;
        let rescued = fleet.replicas.iter().flat_map(Replica::rescued);
        let on_disk = rescued.filter_map(|(connection, generation)| {
            Some((*sellers.get(&connection)?, usize::try_from(generation).ok()?))
        });
        let mut ledger = vec![Vec::new(); provider.sellers.len()];
        for spend in provider.ledger() {
            ledger[spend.seller].push(spend);
        }
        Self {
            provider,
            ledger,
            begun,
            absences: fleet.replicas.iter().map(Replica::away).collect(),
            on_disk: on_disk.collect(),
            store_away: fleet.store_away(),
        }
    }

    fn spends_of(&self, seller: usize) -> impl Iterator<Item = &Spend> {
        self.ledger[seller].iter()
    }

    /// When the process that an answer was sent to at `at` was killed, if that was so soon that it may not have been
    /// committed.
    fn killed_after(&self, replica: usize, at: Instant) -> Option<Absence> {
        let absences = self.absences[replica].iter();
        let mut soon = absences.filter(|absence| absence.touches(at, at + COMMITTED_WITHIN));
        soon.next().copied()
    }

    fn store_away_during(&self, from: Instant, until: Instant) -> Option<Absence> {
        let mut away = self.store_away.iter();
        away.rfind(|absence| absence.touches(from, until)).copied()
    }

    /// When the database was in use again after what kept a commit at `at` from being made.
    fn committed_by(&self, at: Instant) -> Option<Instant> {
        let mut at = at;
        while let Some(absence) = self.store_away_during(at, at + Duration::from_secs(1)) {
            at = absence.until? + STORE_USED_WITHIN;
        }
        Some(at)
    }

    /// The access tokens of a seller, oldest first.
    fn tokens_of(&self, seller: usize) -> Vec<Token> {
        let mut tokens = vec![Token {
            ours_from: Some(self.begun),
            good_until: self.provider.sellers[seller].at + self.provider.life,
        }];
        let last = self.last_granted_at(seller);
        for spend in self.spends_of(seller) {
            let (Fate::Granted { sent }, Some(at)) = (&spend.fate, spend.granted_at) else {
                continue;
            };
            if self.provider.old_access_token == OldAccessToken::Dies
                && let Some(before) = tokens.last_mut()
            {
                before.good_until = before.good_until.min(at);
            }
            let reached = match self.killed_after(spend.replica, at) {
                None => Some(at),
                // Nobody knows whether the process had it, unless it left it on its disk or it was used since.
                Some(_) if last == Some(at) && !self.on_disk.contains(&(seller, tokens.len())) => None,
                Some(killed) => killed.until,
            };
            tokens.push(Token {
                ours_from: reached.filter(|_| *sent).and_then(|at| self.committed_by(at)),
                good_until: at + self.provider.life,
            });
        }
        tokens
    }

    /// Whether the connector had a valid access token of the seller at each instant of this time.
    fn had_token(&self, seller: usize, from: Instant, until: Instant) -> bool {
        let tokens = self.tokens_of(seller);
        let mut at = from;
        loop {
            let ours = tokens
                .iter()
                .filter(|token| token.ours_from.is_some_and(|from| from <= at));
            let Some(good_until) = ours.map(|token| token.good_until).filter(|end| *end > at).max() else {
                return false;
            };
            if good_until >= until {
                return true;
            }
            at = good_until;
        }
    }

    /// Whether a call failed that should not have.
    pub(crate) fn is_our_failure(&self, failure: &Failure) -> bool {
        let Failure {
            seller, from, until, ..
        } = *failure;
        if self
            .store_away_during(from.checked_sub(STORE_USED_WITHIN).unwrap_or(from), until)
            .is_none()
        {
            return self.had_token(seller, from, until);
        }
        // Without the database a seller is served whom this process had in its memory, with the token of then.
        failure.served_at.is_some_and(|served_at| {
            // By a call beside this one, the memory was only being filled.
            served_at < from
                && served_at + CACHE_STALE > until
                && self.tokens_of(seller).iter().any(|token| {
                    token.ours_from.is_some_and(|ours| ours + CACHE_TTL < served_at)
                        && token.good_until > until
                })
        })
    }

    /// How far the seller's last answer has come.
    pub(crate) fn last_answer(&self, seller: usize) -> LastAnswer {
        let granted = |spend: &&Spend| matches!(spend.fate, Fate::Granted { .. });
        let count = self.spends_of(seller).filter(granted).count();
        let Some(last) = self.spends_of(seller).filter(granted).last() else {
            return LastAnswer::Reached;
        };
        if last.fate == (Fate::Granted { sent: false }) {
            LastAnswer::Lost
        } else if last
            .granted_at
            .and_then(|at| self.killed_after(last.replica, at))
            .is_none()
        {
            LastAnswer::Reached
        } else if self.on_disk.contains(&(seller, count)) {
            LastAnswer::OnDisk
        } else {
            LastAnswer::DiedWithTheProcess
        }
    }

    /// When the seller's last answer was given.
    pub(crate) fn last_granted_at(&self, seller: usize) -> Option<Instant> {
        self.spends_of(seller).filter_map(|spend| spend.granted_at).last()
    }

    /// Until when the access token works that the seller had before the last answer.
    pub(crate) fn old_token_until(&self, seller: usize) -> Option<Instant> {
        let tokens = self.tokens_of(seller);
        let before = tokens.len().checked_sub(2)?;
        Some(tokens[before].good_until)
    }

    /// How long a token rests after an unknown outcome. The life of one that was handed over began with that.
    fn rest(&self, spend: &Spend) -> Duration {
        let granted = &self.provider.sellers[spend.seller];
        let life = if granted.refresh_token == spend.token {
            (granted.at + self.provider.life) - self.begun
        } else {
            self.provider.life
        };
        // Two clocks measure it.
        life / REST_PART_OF_LIFE * 99 / 100
    }

    /// Every refresh token with all its uses.
    pub(crate) fn spending(&self) -> Spending {
        let mut by_token: HashMap<&str, Vec<&Spend>> = HashMap::new();
        for spend in self.ledger.iter().flatten() {
            by_token.entry(&spend.token).or_default().push(spend);
        }
        let mut spending = Spending {
            refreshes: self
                .ledger
                .iter()
                .flatten()
                .filter(|spend| spend.granted_at.is_some())
                .count(),
            ..Spending::default()
        };
        for uses in by_token.values() {
            for pair in uses.windows(2) {
                let [first, second] = pair else { continue };
                // While it is under way, the next one is at the same time.
                let Some(ended_at) = first.ended_at.filter(|ended_at| *ended_at <= second.asked_at) else {
                    spending
                        .twice
                        .push(format!("at the same time: {first:?}, {second:?}"));
                    continue;
                };
                let told = !matches!(
                    first.fate,
                    Fate::NotCarriedOut { told: false } | Fate::Granted { sent: false }
                );
                match first.fate {
                    Fate::NotCarriedOut { told: true } => {}
                    _ if !told || self.killed_after(first.replica, ended_at).is_some() => {
                        spending.deliberate += 1;
                        if second.asked_at < ended_at + self.rest(first) {
                            spending.twice.push(format!("too soon: {first:?}, {second:?}"));
                        }
                    }
                    _ => spending.twice.push(format!("needlessly: {first:?}, {second:?}")),
                }
            }
        }
        spending
    }
}
