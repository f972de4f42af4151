//! Decoded rows of the tail, so that what was just written is read without asking the store.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tandem_format::SectionKey;
use tandem_segment::DecodedSection;
use tandem_types::TableId;

/// Costs of an entry beside its rows.
const ENTRY_BYTES: usize = 512;

/// A cache bounded in bytes; what was touched longest ago goes first. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct TailCache {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    capacity: usize,
    bytes: usize,
    clock: u64,
    entries: HashMap<(TableId, SectionKey), Entry>,
    by_age: BTreeMap<u64, (TableId, SectionKey)>,
}

#[derive(Debug)]
struct Entry {
    rows: Arc<DecodedSection>,
    bytes: usize,
    touched: u64,
}

impl TailCache {
    pub fn new(capacity: usize) -> Self {
        let inner = Inner { capacity, bytes: 0, clock: 0, entries: HashMap::new(), by_age: BTreeMap::new() };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic between two steps leaves a cache that may hold less than it counts: harmless.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, table: TableId, key: SectionKey) -> Option<Arc<DecodedSection>> {
        let mut inner = self.lock();
        inner.clock += 1;
        let now = inner.clock;
        let entry = inner.entries.get_mut(&(table, key))?;
        let before = std::mem::replace(&mut entry.touched, now);
        let rows = entry.rows.clone();
        inner.by_age.remove(&before);
        inner.by_age.insert(now, (table, key));
        Some(rows)
    }

    /// Keeps the rows, at the cost of others; rows larger than the whole cache are not kept.
    ///
    /// `encoded` is the section's length: its columns share the one allocation that they were received in, so that adding
    /// up what each column holds on to would count it once per column.
    pub fn insert(&self, table: TableId, key: SectionKey, rows: Arc<DecodedSection>, encoded: u64) {
        let bytes = usize::try_from(encoded).unwrap_or(usize::MAX).saturating_add(ENTRY_BYTES);
        let mut inner = self.lock();
        if bytes > inner.capacity {
            return;
        }
        inner.remove((table, key));
        while inner.bytes + bytes > inner.capacity {
            let Some((_, oldest)) = inner.by_age.pop_first() else { break };
            inner.remove(oldest);
        }
        inner.clock += 1;
        let touched = inner.clock;
        inner.bytes += bytes;
        inner.by_age.insert(touched, (table, key));
        inner.entries.insert((table, key), Entry { rows, bytes, touched });
    }

    /// Drops rows that nobody will ask for any more.
    pub fn remove(&self, table: TableId, key: SectionKey) {
        self.lock().remove((table, key));
    }

    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }
}

impl Inner {
    fn remove(&mut self, key: (TableId, SectionKey)) {
        if let Some(entry) = self.entries.remove(&key) {
            self.bytes -= entry.bytes;
            self.by_age.remove(&entry.touched);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, RecordBatch};
    use tandem_types::Seq;

    fn rows() -> Arc<DecodedSection> {
        let column: arrow::array::ArrayRef = Arc::new(Int64Array::from(vec![1; 1000]));
        let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
        Arc::new(DecodedSection { schema: batch.schema(), batches: vec![batch] })
    }

    #[test]
    fn what_was_touched_longest_ago_goes_first_and_bytes_stay_within_bounds() {
        let cache = TailCache::new(30_000);
        let key = |n| SectionKey { seq: Seq(n), transaction: 0, section: 0 };
        for n in 1..=3 {
            cache.insert(TableId(1), key(n), rows(), 8_000);
        }
        assert!(cache.get(TableId(1), key(1)).is_some());
        cache.insert(TableId(1), key(4), rows(), 8_000);
        assert!(cache.get(TableId(1), key(2)).is_none(), "touched longest ago");
        assert!(cache.get(TableId(1), key(1)).is_some());
        assert!(cache.bytes() <= 30_000);
        for n in 1..=4 {
            cache.remove(TableId(1), key(n));
        }
        assert_eq!(cache.bytes(), 0);
    }
}
