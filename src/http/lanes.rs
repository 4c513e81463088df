//! The threads that connections are served on: one runtime of its own for each processor core.
//!
//! A proxied call then stays on one thread, from its caller's socket to Mercado Pago's and back: no other thread is woken
//! for it, which on a shared runtime is a noticeable part of what a call costs (DESIGN.md section 15). Guarantees that
//! connections are handed out evenly. Does not move a connection later: one that is busier than others stays where it is.

use std::future::Future;
use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The threads. Clones are the same ones; they end, with what they still serve, when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Lanes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    lanes: Vec<Handle>,
    next: AtomicUsize,
    _stop: DropGuard,
}

impl Lanes {
    /// Starts one thread for each core that this process may use. An error is the system's, which has no thread left.
    pub fn start() -> io::Result<Self> {
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let count = thread::available_parallelism().map_or(1, NonZero::get);
        let lanes = (0..count)
            .map(|index| start_lane(index, stop.clone()))
            .collect::<io::Result<_>>()?;
        Ok(Self(Arc::new(Inner {
            lanes,
            next: AtomicUsize::new(0),
            _stop: guard,
        })))
    }

    /// Runs `work` on the thread whose turn it is.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let turn = self.0.next.fetch_add(1, Ordering::Relaxed);
        if let Some(lane) = self.0.lanes.get(turn % self.0.lanes.len().max(1)) {
            lane.spawn(work);
        }
    }
}

fn start_lane(index: usize, stop: CancellationToken) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new()
        .name(format!("lane-{index}"))
        .spawn(move || runtime.block_on(stop.cancelled()))?;
    Ok(handle)
}
