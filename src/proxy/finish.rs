//! Work that is finished even if nobody waits for it any more: a payment that was sent is followed to its outcome when the
//! caller hangs up (DESIGN.md section 8). Costs one allocation, not a task, while the caller stays.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// A future that goes on as a task of its own when it is dropped unfinished. Shutdown waits for it by the tracker.
pub(super) struct Finish<T: Send + 'static> {
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    tracker: TaskTracker,
}

impl<T: Send + 'static> Finish<T> {
    /// Wraps the work.
    pub(super) fn new(work: impl Future<Output = T> + Send + 'static, tracker: TaskTracker) -> Self {
        Self {
            work: Some(Box::pin(work)),
            tracker,
        }
    }
}

impl<T: Send + 'static> Future for Finish<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let this = self.get_mut();
        // A future is not polled after it was ready.
        let Some(work) = this.work.as_mut() else {
            return Poll::Pending;
        };
        let done = work.as_mut().poll(context);
        if done.is_ready() {
            this.work = None;
        }
        done
    }
}

impl<T: Send + 'static> Drop for Finish<T> {
    fn drop(&mut self) {
        if let (Some(work), Ok(runtime)) = (self.work.take(), Handle::try_current()) {
            self.tracker.spawn_on(async move { drop(work.await) }, &runtime);
        }
    }
}
