//! Rows whose time is over: partitions older than their table's `ttl` go, whole.
//!
//! Which ones those are, the log decides when the transaction takes its place in it. Here it is only decided whether to
//! ask. What would take more than half of a table's partitions at once is left to somebody who looks at it first:
//! `OPTIMIZE TABLE` drops them, `ALTER TABLE … SET (ttl = …)` keeps them.

use tandem_manifest::{Manifest, Step, Table};
use tandem_types::{Partition, Result, TableId};

use super::Upkeep;
use crate::Shared;

/// What is over of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expired {
    pub partitions: Vec<Partition>,
    /// Of how many.
    pub of: usize,
}

impl Expired {
    pub fn of(state: &Manifest, table: &Table) -> Self {
        // Looking through all data is only for tables that have asked for it.
        if table.option("ttl").is_none() {
            return Self::default();
        }
        Self { partitions: state.expired_partitions(table.id()), of: tandem_compact::partitions(table).len() }
    }

    /// Whether it is so much that a person decides.
    pub fn is_suspicious(&self) -> bool {
        self.partitions.len() * 2 > self.of
    }
}

impl Shared {
    /// Drops what is over of one table, if any of them has something; whether one had.
    pub(super) async fn expire_next(&self, upkeep: &mut Upkeep, state: &Manifest) -> Result<bool> {
        for table in state.tables() {
            let expired = Expired::of(state, table);
            if !expired.is_suspicious() {
                upkeep.warned.remove(&table.id());
            } else if upkeep.warned.insert(table.id()) {
                tracing::warn!(
                    table = %table.name(), partitions = expired.partitions.len(), of = expired.of,
                    "the table's ttl is over for more than half of its partitions, which may be a mistake: \
                     OPTIMIZE TABLE drops them, another ttl keeps them"
                );
            }
            if !expired.partitions.is_empty() && !expired.is_suspicious() {
                self.expire(state, table, expired).await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Drops what is over of a table, however much that is.
    pub(super) async fn expire_all(&self, state: &Manifest, table: TableId) -> Result<()> {
        let Some(table) = state.table(table) else { return Ok(()) };
        let expired = Expired::of(state, table);
        if expired.partitions.is_empty() {
            return Ok(());
        }
        self.expire(state, table, expired).await
    }

    async fn expire(&self, state: &Manifest, table: &Table, expired: Expired) -> Result<()> {
        let count = expired.partitions.len();
        let step = Step::Expire { table: table.id(), partitions: expired.partitions };
        self.writer.submit_upkeep(state.seq(), vec![step]).await?;
        self.forget_sections(table);
        metrics::counter!("tandem_expired_partitions_total").increment(count as u64);
        tracing::info!(table = %table.name(), partitions = count, of = expired.of, "dropped what its ttl is over for");
        Ok(())
    }
}

#[cfg(test)]
mod tests;
