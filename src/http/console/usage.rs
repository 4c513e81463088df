//! Calls, approvals and declines of an application or a connection, added up for a chart (DESIGN.md section 10).

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};

use super::{Query, address};
use crate::domain::ids::{ApplicationId, ConnectionId};
use crate::http::AppState;
use crate::http::pages::absolute;
use crate::http::pages::usage::{Bar, PeriodLink, Usage};
use crate::storage::{StoreError, UsageSums};

/// Units from one bar to the next.
const STEP: i64 = 10;
/// Units that the highest bar is high.
const HIGHEST: i64 = 100;

/// Over how long calls are added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Period {
    Day,
    Week,
    Month,
}

impl Period {
    const ALL: [Self; 3] = [Self::Day, Self::Week, Self::Month];

    /// As the address says it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Day => "24h",
            Self::Week => "7d",
            Self::Month => "30d",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Day => "24 hours",
            Self::Week => "7 days",
            Self::Month => "30 days",
        }
    }

    /// How many bars, and how many hours each stands for.
    fn bars(self) -> (i64, i64) {
        match self {
            Self::Day => (24, 1),
            Self::Week => (28, 6),
            Self::Month => (30, 24),
        }
    }

    fn of(query: &Query) -> Self {
        let asked = |period: &Self| period.as_str() == query.text("usage");
        Self::ALL.into_iter().find(asked).unwrap_or(Self::Day)
    }
}

/// What a chart is about.
pub(super) struct Subject<'a> {
    pub(super) heading: String,
    pub(super) application: &'a ApplicationId,
    /// One connection of it; none for all, and the application's own account.
    pub(super) connection: Option<&'a ConnectionId>,
    /// The page that it stands on.
    pub(super) path: &'a str,
}

/// The chart of what was called, over the time that the page's query asks for.
pub(super) async fn usage(
    state: &AppState,
    subject: Subject<'_>,
    query: &Query,
    now: DateTime<Utc>,
) -> Result<Usage, StoreError> {
    let period = Period::of(query);
    let (count, hours) = period.bars();
    let hour = now.duration_trunc(TimeDelta::hours(1)).unwrap_or(now);
    let begin = hour + TimeDelta::hours(1 - count * hours);
    let rows = state
        .store
        .list_usage(Some(subject.application), subject.connection, begin)
        .await?;
    let mut sums = UsageSums::default();
    let mut bars: Vec<_> = (0..count)
        .map(|index| (begin + TimeDelta::hours(index * hours), UsageSums::default()))
        .collect();
    for row in rows {
        sums += row.sums;
        let index = (row.hour - begin).num_hours() / hours;
        if let Some((_, bar)) = usize::try_from(index).ok().and_then(|index| bars.get_mut(index)) {
            *bar += row.sums;
        }
    }
    let most = bars.iter().map(|(_, sums)| sums.calls).max().unwrap_or(0).max(1);
    let bars = bars.into_iter().zip(0..).map(|((from, sums), index)| Bar {
        x: index * STEP,
        height: sums.calls * HIGHEST / most,
        failed_height: sums.failures * HIGHEST / most,
        from: absolute(from),
        calls: sums.calls,
        failures: sums.failures,
        approvals: sums.approvals,
        declines: sums.declines(),
    });
    let periods = Period::ALL.into_iter().map(|one| PeriodLink {
        href: address(subject.path, &[("usage", one.as_str())]),
        label: one.label(),
        current: one == period,
    });
    Ok(Usage {
        id: format!("usage-{}", subject.application),
        summary: format!(
            "{}, the last {}: {} calls, {} failed",
            subject.heading,
            period.label(),
            sums.calls,
            sums.failures
        ),
        heading: subject.heading,
        periods: periods.collect(),
        width: count * STEP,
        bars: bars.collect(),
        sums: words(&sums),
    })
}

fn words(sums: &UsageSums) -> Vec<(&'static str, String)> {
    let declines = sums.declines();
    let rate = (sums.approvals * 1_000).checked_div(sums.approvals + declines);
    vec![
        ("Calls", sums.calls.to_string()),
        ("Failed", sums.failures.to_string()),
        ("Payments approved", sums.approvals.to_string()),
        ("Payments declined", declines.to_string()),
        (
            "Approval rate",
            rate.map_or_else(|| "–".to_owned(), |rate| format!("{}.{} %", rate / 10, rate % 10)),
        ),
        ("Declined: data entry", sums.declines_data_entry.to_string()),
        ("Declined: issuer", sums.declines_issuer.to_string()),
        (
            "Declined: fraud prevention",
            sums.declines_fraud_prevention.to_string(),
        ),
        ("Declined: other", sums.declines_other.to_string()),
    ]
}
