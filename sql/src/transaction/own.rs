//! Rows that a transaction wrote and has not committed, for its own queries.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use tandem_format::SectionKey;
use tandem_manifest::TailSection;
use tandem_types::{Error, Result};

use crate::database::SectionRows;

/// Statements of an open transaction are numbered from here on, where no commit has transactions: their sections are taken
/// for nobody else's.
pub(crate) const OWN: u32 = 1 << 31;

/// What a section and the step around it take beside the rows.
const OVERHEAD: usize = 2 << 10;

/// Sections of one transaction that are in memory, and the memory that they take of what all queries share. Queries that
/// run hold it, so that it may outlive the transaction.
#[derive(Debug)]
pub(crate) struct OwnRows {
    sections: Mutex<HashMap<(u32, u32), Held>>,
    reservation: MemoryReservation,
}

#[derive(Debug)]
struct Held {
    rows: Option<Arc<SectionRows>>,
    bytes: usize,
}

/// Whether a section is of an open transaction.
pub(crate) fn is_own(section: &TailSection) -> bool {
    section.key.transaction >= OWN
}

impl OwnRows {
    pub(crate) fn new(pool: &Arc<dyn MemoryPool>) -> Self {
        let reservation = MemoryConsumer::new("open transaction").register(pool);
        Self { sections: Mutex::default(), reservation }
    }

    /// Keeps what statement number `index` holds: of each of its sections the rows, if they are in memory, and their
    /// encoded length.
    ///
    /// # Errors
    ///
    /// `Overloaded` if there is no memory left for it.
    pub(crate) fn keep(
        &self,
        index: u32,
        sections: impl Iterator<Item = (Option<Arc<SectionRows>>, u64)>,
    ) -> Result<()> {
        let mut kept = Vec::new();
        let mut total = OVERHEAD;
        for (section, (rows, len)) in (0..).zip(sections) {
            // The encoded form for the commit, and the rows for readers.
            let len = usize::try_from(len).unwrap_or(usize::MAX / 4);
            let bytes = if rows.is_some() { len.saturating_mul(2) } else { 0 }.saturating_add(OVERHEAD);
            total = total.saturating_add(bytes);
            kept.push(((index, section), Held { rows, bytes }));
        }
        self.reservation.try_grow(total).map_err(|_| {
            Error::overloaded(format!(
                "there is no memory for {total} bytes more of an open transaction, beside {} that it holds and what \
                 others take: commit, or roll back what is not needed",
                self.reservation.size()
            ))
        })?;
        self.lock().extend(kept);
        Ok(())
    }

    /// Forgets the statements from number `index` on.
    pub(crate) fn forget_from(&self, index: u32) {
        let mut sections = self.lock();
        let gone = sections.extract_if(|(of, _), _| *of >= index);
        let mut bytes = 0;
        let mut statements = std::collections::BTreeSet::new();
        for ((of, _), held) in gone {
            bytes += held.bytes;
            statements.insert(of);
        }
        // What the statements themselves took stays counted for those that had no sections: it is little.
        let bytes = bytes.saturating_add(statements.len().saturating_mul(OVERHEAD));
        self.reservation.shrink(bytes.min(self.reservation.size()));
    }

    /// The rows of a section that is in memory.
    pub(crate) fn get(&self, key: SectionKey) -> Option<Arc<SectionRows>> {
        self.lock().get(&(key.transaction, key.section)).and_then(|held| held.rows.clone())
    }

    /// Bytes of the memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.reservation.size()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(u32, u32), Held>> {
        // Nothing under the lock leaves it half changed.
        self.sections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
