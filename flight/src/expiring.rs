//! A map whose entries go away by themselves: bounded in number, and in the time since their last use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tandem_env::Clock;

/// Values by random key. When it is full, those used least recently go first.
#[derive(Debug)]
pub(crate) struct Expiring<V> {
    clock: Arc<dyn Clock>,
    lifetime: Duration,
    capacity: usize,
    entries: Mutex<HashMap<String, Entry<V>>>,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    used: Duration,
}

impl<V: Clone> Expiring<V> {
    /// Entries live `lifetime` after their last use, `capacity` of them at most.
    pub fn new(clock: Arc<dyn Clock>, lifetime: Duration, capacity: usize) -> Self {
        Self { clock, lifetime, capacity: capacity.max(1), entries: Mutex::default() }
    }

    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    pub fn insert(&self, key: impl Into<String>, value: V) {
        let now = self.clock.monotonic();
        let mut dropped = Vec::new();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= self.capacity {
            dropped = make_room(&mut entries, now.saturating_sub(self.lifetime), self.capacity);
        }
        dropped.extend(entries.insert(key.into(), Entry { value, used: now }));
        // Values are dropped without the lock: dropping one may run a lot of code.
        drop(entries);
    }

    /// The value, whose time starts anew.
    pub fn get(&self, key: &str) -> Option<V> {
        let now = self.clock.monotonic();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get_mut(key)?;
        if now.saturating_sub(entry.used) > self.lifetime {
            let expired = entries.remove(key);
            drop(entries);
            drop(expired);
            return None;
        }
        entry.used = now;
        Some(entry.value.clone())
    }

    pub fn remove(&self, key: &str) -> Option<V> {
        let entry = self.entries.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        entry.map(|e| e.value)
    }

    pub fn remove_where(&self, gone: impl Fn(&V) -> bool) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let removed = take(&mut entries, |entry| gone(&entry.value));
        drop(entries);
        drop(removed);
    }

    /// Drops what has expired.
    pub fn sweep(&self) {
        let before = self.clock.monotonic().saturating_sub(self.lifetime);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let expired = take(&mut entries, |e| e.used < before);
        drop(entries);
        drop(expired);
    }
}

/// Removes what is older than `before`; if that is nothing, the oldest eighth, so that a full map is not walked
/// at each insert.
fn make_room<V>(entries: &mut HashMap<String, Entry<V>>, before: Duration, capacity: usize) -> Vec<Entry<V>> {
    let expired = take(entries, |e| e.used < before);
    if !expired.is_empty() {
        return expired;
    }
    let mut ages: Vec<Duration> = entries.values().map(|e| e.used).collect();
    let (_, cut, _) = ages.select_nth_unstable((capacity / 8).min(entries.len().saturating_sub(1)));
    let cut = *cut;
    take(entries, |e| e.used <= cut)
}

fn take<V>(entries: &mut HashMap<String, Entry<V>>, gone: impl Fn(&Entry<V>) -> bool) -> Vec<Entry<V>> {
    entries.extract_if(|_, e| gone(e)).map(|(_, e)| e).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures::FutureExt;
    use futures::future::BoxFuture;

    use super::*;

    #[derive(Debug, Default)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn now_micros(&self) -> i64 {
            0
        }
        fn monotonic(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }
        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            futures::future::ready(()).boxed()
        }
    }

    #[test]
    fn use_keeps_an_entry_and_time_takes_it() {
        let clock = Arc::new(Hand::default());
        let map = Expiring::new(clock.clone(), Duration::from_secs(10), 4);
        map.insert("a", 1);
        map.insert("b", 2);
        clock.0.store(8, Ordering::Relaxed);
        assert_eq!(map.get("a"), Some(1));
        clock.0.store(15, Ordering::Relaxed);
        assert_eq!((map.get("a"), map.get("b")), (Some(1), None));
        assert_eq!(map.remove("a"), Some(1));
        assert_eq!(map.get("a"), None);
    }

    #[test]
    fn a_full_map_gives_up_what_was_used_longest_ago() {
        let clock = Arc::new(Hand::default());
        let map = Expiring::new(clock.clone(), Duration::from_secs(1000), 3);
        for (at, key) in ["a", "b", "c", "d"].into_iter().enumerate() {
            clock.0.store(at as u64, Ordering::Relaxed);
            map.insert(key, at);
        }
        assert_eq!(
            [map.get("a"), map.get("b"), map.get("c"), map.get("d")],
            [None, Some(1), Some(2), Some(3)]
        );
        clock.0.store(5000, Ordering::Relaxed);
        map.sweep();
        assert!(map.entries.lock().unwrap().is_empty());
    }
}
