//! What was called and how payments ended, as bars and as the same numbers in words: whoever does not see the bars misses
//! nothing.

/// The same over another time.
#[derive(Debug, Clone)]
pub(crate) struct PeriodLink {
    pub(crate) href: String,
    pub(crate) label: &'static str,
    pub(crate) current: bool,
}

/// One bar with what it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bar {
    /// Where it begins, in the chart's own units.
    pub(crate) x: i64,
    /// How high it is, from 0 to 100.
    pub(crate) height: i64,
    /// The part of it that failed.
    pub(crate) failed_height: i64,
    /// When its time began.
    pub(crate) from: String,
    pub(crate) calls: i64,
    pub(crate) failures: i64,
    pub(crate) approvals: i64,
    pub(crate) declines: i64,
}

/// A chart of calls with its sums.
#[derive(Debug, Clone)]
pub(crate) struct Usage {
    /// Id of the heading; another one for each chart of a page.
    pub(crate) id: String,
    pub(crate) heading: String,
    pub(crate) periods: Vec<PeriodLink>,
    /// The chart in a sentence.
    pub(crate) summary: String,
    pub(crate) width: i64,
    pub(crate) bars: Vec<Bar>,
    /// What is counted, and how many.
    pub(crate) sums: Vec<(&'static str, String)>,
}

impl Usage {
    /// Whether there is anything to show.
    pub(crate) fn is_empty(&self) -> bool {
        self.bars.iter().all(|bar| bar.calls == 0)
    }
}
