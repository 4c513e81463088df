//! A bounded map in memory that is looked up on every call: by a hash that the caller made, without allocating and with one
//! short lock.
//!
//! What is thrown out when it is full is what was not asked for since it was last looked over (the CLOCK algorithm); what
//! is thrown out is dropped, and secrets are wiped with it. Two keys with one hash displace each other: the caller compares
//! what it gets with what it asked for.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 16;

/// The map.
#[derive(Debug)]
pub(super) struct Cache<V> {
    shards: [Mutex<Shard<V>>; SHARDS],
    capacity: usize,
}

#[derive(Debug)]
struct Shard<V> {
    map: HashMap<u64, Slot<V>, BuildHasherDefault<Ready>>,
    /// Every hash of the map, and some that are gone, in the order in which they are looked over.
    order: VecDeque<u64>,
}

#[derive(Debug)]
struct Slot<V> {
    value: Arc<V>,
    asked_for: AtomicBool,
}

/// Takes a hash for what it is.
#[derive(Debug, Default)]
struct Ready(u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl<V> Cache<V> {
    /// A map of at most `capacity` values (rounded up to a multiple of the number of its parts).
    pub(super) fn new(capacity: usize) -> Self {
        let shard = || {
            Mutex::new(Shard {
                map: HashMap::default(),
                order: VecDeque::new(),
            })
        };
        Self {
            shards: std::array::from_fn(|_| shard()),
            capacity: capacity.div_ceil(SHARDS).max(1),
        }
    }

    /// The value under a hash.
    pub(super) fn get(&self, hash: u64) -> Option<Arc<V>> {
        let shard = self.shard(hash);
        let slot = shard.map.get(&hash)?;
        if !slot.asked_for.load(Ordering::Relaxed) {
            slot.asked_for.store(true, Ordering::Relaxed);
        }
        Some(slot.value.clone())
    }

    /// Puts a value under a hash, in the place of what was there.
    pub(super) fn insert(&self, hash: u64, value: Arc<V>) {
        let mut shard = self.shard(hash);
        let slot = Slot {
            value,
            asked_for: AtomicBool::new(false),
        };
        if shard.map.insert(hash, slot).is_none() {
            shard.order.push_back(hash);
        }
        while shard.map.len() > self.capacity || shard.order.len() > 2 * self.capacity {
            let Some(oldest) = shard.order.pop_front() else {
                break;
            };
            match shard.map.get(&oldest) {
                Some(slot) if slot.asked_for.swap(false, Ordering::Relaxed) => shard.order.push_back(oldest),
                _ => drop(shard.map.remove(&oldest)),
            }
        }
    }

    /// Takes the value under a hash out.
    pub(super) fn remove(&self, hash: u64) {
        self.shard(hash).map.remove(&hash);
    }

    /// Takes out every value that is not worth keeping.
    pub(super) fn retain(&self, mut keep: impl FnMut(&V) -> bool) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            let Shard { map, order } = &mut *shard;
            map.retain(|_, slot| keep(&slot.value));
            order.retain(|hash| map.contains_key(hash));
        }
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).map.len()).sum()
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard<V>> {
        // The high bits: the map itself uses the low ones.
        lock(&self.shards[usize::try_from(hash >> 60).unwrap_or_default() % SHARDS])
    }
}

fn lock<V>(shard: &Mutex<Shard<V>>) -> MutexGuard<'_, Shard<V>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[test]
    fn it_never_holds_more_than_its_capacity_and_keeps_what_is_asked_for() {
        let cache = Cache::new(160);
        for n in 0..10_000 {
            cache.insert(hash(n), Arc::new(n));
            assert_eq!(
                cache.get(hash(0)).as_deref(),
                Some(&0),
                "asked for before each insertion"
            );
        }
        assert!(cache.len() <= 160, "{}", cache.len());
        assert!(cache.get(hash(1)).is_none());
        assert_eq!(cache.get(hash(9_999)).as_deref(), Some(&9_999));
    }

    #[test]
    fn what_is_thrown_out_is_dropped() {
        let cache = Cache::new(16);
        let value = Arc::new(1);
        cache.insert(hash(1), value.clone());
        assert_eq!(Arc::strong_count(&value), 2);
        for _ in 0..1_000 {
            cache.insert(hash(1), value.clone());
        }
        assert_eq!(Arc::strong_count(&value), 2);
        cache.remove(hash(1));
        cache.insert(hash(1), value.clone());
        cache.retain(|_| false);
        assert_eq!((cache.len(), Arc::strong_count(&value)), (0, 1));
    }
}
