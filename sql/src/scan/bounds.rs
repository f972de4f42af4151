//! Mutations made ready to run: decoded once, shared by all queries.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use tandem_fold::{Bound, bind};
use tandem_format::{Expr, MutationKind, PendingMutation, Section, SectionKey};
use tandem_manifest::TailSection;
use tandem_types::{Result, TableId};

use super::ScanContext;
use crate::database::SectionRows;
use crate::runtime::on;
use crate::transaction::is_own;

/// What decoded mutations may take, in bytes, roughly.
const BYTES_MAX: usize = 64 << 20;

/// A lookup's rows in hash tables take about so many times their encoded size.
const LOOKUP_GROWTH: u64 = 6;

/// Keeps decoded mutations; the least recently used go first.
#[derive(Debug, Default)]
pub(crate) struct BoundCache {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Grows by one per use; orders entries by their last one.
    clock: u64,
    bytes: usize,
    /// By the address of the mutation, which the entry keeps alive: the same place in the log holds another one in a
    /// transaction that is not committed yet.
    entries: HashMap<usize, Entry>,
    by_use: BTreeMap<u64, usize>,
}

#[derive(Debug)]
struct Entry {
    pending: Arc<PendingMutation>,
    bound: Arc<Bound>,
    used: u64,
    bytes: usize,
}

impl BoundCache {
    fn get(&self, pending: &Arc<PendingMutation>) -> Option<Arc<Bound>> {
        let mut state = self.state();
        state.clock += 1;
        let used = state.clock;
        let address = address(pending);
        let entry = state.entries.get_mut(&address)?;
        let before = std::mem::replace(&mut entry.used, used);
        let bound = Arc::clone(&entry.bound);
        state.by_use.remove(&before);
        state.by_use.insert(used, address);
        Some(bound)
    }

    fn insert(&self, pending: &Arc<PendingMutation>, bound: &Arc<Bound>) {
        let mut state = self.state();
        let address = address(pending);
        // Two queries may have decoded it at once.
        if state.entries.contains_key(&address) {
            return;
        }
        state.clock += 1;
        let (used, bytes) = (state.clock, memory(pending));
        let entry = Entry { pending: Arc::clone(pending), bound: Arc::clone(bound), used, bytes };
        state.entries.insert(address, entry);
        state.by_use.insert(used, address);
        state.bytes += bytes;
        while state.bytes > BYTES_MAX
            && state.entries.len() > 1
            && let Some((_, oldest)) = state.by_use.pop_first()
        {
            if let Some(entry) = state.entries.remove(&oldest) {
                debug_assert_eq!(self::address(&entry.pending), oldest);
                state.bytes -= entry.bytes;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held; if something did, the entries are still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn address(pending: &Arc<PendingMutation>) -> usize {
    Arc::as_ptr(pending).addr()
}

/// About what a decoded mutation takes, in bytes.
fn memory(pending: &PendingMutation) -> usize {
    let constants = |expr: &Expr| {
        let (mut bytes, mut open) = (0, vec![expr]);
        while let Some(expr) = open.pop() {
            bytes += match expr {
                Expr::Literal(literal) | Expr::InList { list: literal, .. } => literal.ipc.len(),
                _ => 64,
            };
            open.extend(expr.children());
        }
        bytes
    };
    let kind = match &pending.mutation.kind {
        MutationKind::Delete { predicate } => constants(predicate),
        MutationKind::Update { predicate, assignments } => {
            constants(predicate) + assignments.iter().map(|(_, value)| constants(value)).sum::<usize>()
        }
        MutationKind::Lookup { section, .. } => {
            usize::try_from(section.len.saturating_mul(LOOKUP_GROWTH)).unwrap_or(usize::MAX / 2)
        }
    };
    kind.saturating_add(1024)
}

impl ScanContext {
    /// A mutation, decoded; what it looks up is loaded like rows of the tail.
    pub(super) async fn bound(&self, pending: &Arc<PendingMutation>) -> Result<Arc<Bound>> {
        if let Some(bound) = self.bounds.get(pending) {
            return Ok(bound);
        }
        let bound = match pending.mutation.section() {
            None => bind(pending, None)?,
            Some(section) => bind(pending, Some(&self.lookup(pending, section).await?))?,
        };
        self.bounds.insert(pending, &bound);
        Ok(bound)
    }

    async fn lookup(&self, pending: &PendingMutation, section: &Section) -> Result<Vec<RecordBatch>> {
        let key = pending.key;
        let section = TailSection {
            key: SectionKey { seq: key.seq, transaction: key.transaction, section: key.section },
            section: section.clone(),
            live: section.partitions.iter().map(|(partition, _)| *partition).collect(),
        };
        let rows = self.tail_rows(pending.mutation.table, &Arc::new(section)).await?;
        Ok(rows.batches.clone())
    }

    /// The rows of a section: of the log, or of the open transaction.
    pub(super) async fn tail_rows(
        &self,
        table: TableId,
        section: &Arc<TailSection>,
    ) -> Result<Arc<SectionRows>> {
        let own = is_own(section);
        if own && let Some(rows) = self.own.as_ref().and_then(|own| own.get(section.key)) {
            return Ok(rows);
        }
        let (database, section) = (Arc::clone(&self.database), Arc::clone(section));
        let load = async move {
            match own {
                true => database.uncommitted_rows(&section.section).await,
                false => database.tail_rows(table, &section).await,
            }
        };
        on(&self.io, load).await?
    }
}
