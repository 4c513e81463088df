//! Group commit: what ends while somebody writes is written by the next one, all together. A commit costs a sync of the
//! disk (and on SQLite everybody writes in turn), so under load one commit serves many.
//!
//! Guarantees that an item is taken exactly once, and that when [`Group::turn`] has given a caller its turn, the caller's item
//! was taken and written, or is among those that it takes now. If a caller is dropped while it writes, what it had taken is
//! dropped with it.

use std::sync::{Mutex, PoisonError};

/// Most items of one write.
const MOST_AT_ONCE: usize = 128;

/// Items that wait to be written together.
#[derive(Debug)]
pub(super) struct Group<T> {
    waiting: Mutex<Vec<T>>,
    writing: tokio::sync::Mutex<()>,
}

impl<T> Default for Group<T> {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        }
    }
}

impl<T> Group<T> {
    /// Puts an item in line. Whoever does so then asks for its turn, and writes what is there to take.
    pub(super) fn put(&self, item: T) {
        self.lock().push(item);
    }

    /// Waits until nobody else writes.
    pub(super) async fn turn(&self) -> Turn<'_, T> {
        Turn {
            group: self,
            _writing: self.writing.lock().await,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to write, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a, T> {
    group: &'a Group<T>,
    _writing: tokio::sync::MutexGuard<'a, ()>,
}

impl<T> Turn<'_, T> {
    /// Items to write together, the oldest first; none if all are written.
    pub(super) fn take(&mut self) -> Option<Vec<T>> {
        let mut waiting = self.group.lock();
        let count = waiting.len().min(MOST_AT_ONCE);
        (count > 0).then(|| waiting.drain(..count).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn every_item_is_written_once_and_before_its_caller_goes_on() {
        let group = Arc::new(Group::default());
        let written = Arc::new(Mutex::new(Vec::new()));
        let writes = Arc::new(AtomicUsize::new(0));
        let callers: Vec<_> = (0..1_000)
            .map(|number| {
                let (group, written, writes) =
                    (Arc::clone(&group), Arc::clone(&written), Arc::clone(&writes));
                tokio::spawn(async move {
                    group.put(number);
                    let mut turn = group.turn().await;
                    while let Some(items) = turn.take() {
                        assert!(items.len() <= MOST_AT_ONCE);
                        writes.fetch_add(1, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                        written.lock().unwrap().extend(items);
                    }
                    drop(turn);
                    assert!(written.lock().unwrap().contains(&number));
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        let mut all = written.lock().unwrap().clone();
        all.sort_unstable();
        assert_eq!(all, (0..1_000).collect::<Vec<_>>());
        assert!(writes.load(Ordering::Relaxed) <= 1_000);
    }
}
