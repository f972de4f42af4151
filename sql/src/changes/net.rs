//! What a part of a commit does to a table that is there before and after it.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use datafusion::common::TableReference;
use datafusion::datasource::provider_as_source;
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;
use tandem_fold::Bound;
use tandem_format::PendingMutation;
use tandem_manifest::{Table, TailSection};
use tandem_types::{Column, Error, Partition, Result, Seq, TableSchema};

use super::cut::Part;
use super::out::{Out, Stop};
use super::pairs::Mutated;
use super::ranges::Ranges;
use super::request::Images;
use super::source::Source;
use super::told::{Op, Teller, slices};
use crate::error::IntoTandem;
use crate::running::physical_plan;
use crate::scan::{ScanContext, Shape, SnapshotTable};

/// What a table of that name is called in plans: nobody sees it.
const RELATION: &str = "t";

/// What is the same for all commits of a stream.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) source: Source,
    pub(super) context: Arc<ScanContext>,
    /// Columns that are told, of all states.
    pub(super) columns: Arc<TableSchema>,
    pub(super) images: Images,
}

impl Told {
    /// A table of some state in the columns that are told, with the types that these have in another.
    pub(super) fn table(&self, table: &Table, types: &Table) -> SnapshotTable {
        let column = |column: &Column| match types.schema().column(column.id) {
            Some(Column { data_type, nullable, .. }) => {
                Column { data_type: data_type.clone(), nullable: *nullable, ..column.clone() }
            }
            None => Column { nullable: true, ..column.clone() },
        };
        let columns = TableSchema { columns: self.columns.columns.iter().map(column).collect() };
        let table = SnapshotTable::new(Arc::clone(&self.context), table.clone());
        table.in_columns(Arc::new(columns))
    }

    /// What queries need to run.
    pub(super) fn state(&self) -> SessionState {
        self.source.engine.state(&self.source.newest(), tandem_types::DEFAULT_SCHEMA)
    }

    /// The rows of a table in some times, and perhaps others.
    pub(super) async fn read(
        &self,
        table: &SnapshotTable,
        times: &Ranges,
    ) -> Result<SendableRecordBatchStream> {
        let state = self.state();
        let relation = TableReference::bare(RELATION);
        let timestamp = table.timestamp().filter(|_| !times.is_all());
        let filter = timestamp.and_then(|c| times.filter(&relation, &c.name, &c.data_type));
        let source = provider_as_source(Arc::new(table.clone()));
        let mut plan = LogicalPlanBuilder::scan(relation, source, None).tandem()?;
        if let Some(filter) = filter {
            plan = plan.filter(filter).tandem()?;
        }
        let plan = plan.build().tandem()?;
        let physical = physical_plan(&state, &plan, self.source.engine.config().planning_limit).await?;
        execute_stream(physical, state.task_ctx()).tandem()
    }
}

/// A part of a commit, between two states of the table.
pub(super) struct Net<'a> {
    pub(super) told: &'a Told,
    pub(super) teller: &'a Teller,
    pub(super) before: &'a Table,
    pub(super) after: &'a Table,
    pub(super) part: &'a Part,
}

impl Net<'_> {
    pub(super) fn seq(&self) -> Seq {
        self.teller.seq
    }

    fn is_mine(&self, seq: Seq, transaction: u32) -> bool {
        let transaction = usize::try_from(transaction).unwrap_or(usize::MAX);
        seq == self.seq() && self.part.transactions.contains(&transaction)
    }

    /// What it appends and does not take away again.
    pub(super) fn sections(&self) -> Vec<Arc<TailSection>> {
        let tail = self.after.tail();
        tail.filter(|section| self.is_mine(section.key.seq, section.key.transaction)).cloned().collect()
    }

    /// The UPDATEs and DELETEs in it that have something to act on.
    pub(super) fn mutations(&self) -> Vec<Arc<PendingMutation>> {
        let mutations = self.after.mutations();
        mutations.filter(|m| self.is_mine(m.key.seq, m.key.transaction)).cloned().collect()
    }

    /// Partitions whose rows from before are gone without a mutation.
    pub(super) fn removed(&self) -> BTreeSet<Partition> {
        if !self.part.removes {
            return BTreeSet::new();
        }
        let files = self.before.files().filter(|file| self.after.file(&file.file.name).is_none());
        let files = files.map(|file| file.file.name.partition);
        let parts = self.before.tail().flat_map(|section| {
            let left = self.after.tail_section(&section.key);
            let is_left = move |p: &Partition| left.is_some_and(|left| left.live.binary_search(p).is_ok());
            section.live.iter().copied().filter(move |partition| !is_left(partition))
        });
        files.chain(parts).collect()
    }

    /// Tells it.
    pub(super) async fn tell(&self, out: &mut Out) -> std::result::Result<(), Stop> {
        if self.told.images == Images::None {
            return self.tell_appended(out).await;
        }
        if self.before.is_keyed() {
            return self.tell_keyed(out).await;
        }
        let removed = Ranges::of_partitions(self.before, &self.removed());
        if !removed.is_empty() {
            self.tell_removed(&removed, out).await?;
        }
        let mutations = self.mutations();
        let shape = Shape::new(&self.told.table(self.before, self.after), &mutations).await?;
        if !mutations.is_empty() {
            let times = Ranges::of_hulls(mutations.iter().map(|m| m.mutation.time)).and(&removed.not());
            self.tell_mutated(&shape, &times, out).await?;
        }
        self.tell_sections(&shape, out).await
    }

    /// Every row from before in these times is gone.
    pub(super) async fn tell_removed(&self, times: &Ranges, out: &mut Out) -> std::result::Result<(), Stop> {
        let table = self.told.table(self.before, self.after);
        let shape = Shape::new(&table, &[]).await?;
        let mut rows = self.told.read(&table, times).await?;
        while let Some(batch) = rows.next().await {
            let batch = within(&shape, times, batch.tandem()?)?;
            out.rows(self.teller.all(Op::Delete, &batch)?).await?;
        }
        Ok(())
    }

    /// What the mutations make of rows from before in these times.
    pub(super) async fn tell_mutated(
        &self,
        shape: &Shape,
        times: &Ranges,
        out: &mut Out,
    ) -> std::result::Result<(), Stop> {
        if times.is_empty() {
            return Ok(());
        }
        let mutated = self.mutated(shape)?;
        let mut rows = self.told.read(shape.table(), times).await?;
        while let Some(batch) = rows.next().await {
            let batch = within(shape, times, batch.tandem()?)?;
            if let Some(told) = mutated.tell(&batch, self.told.images, self.teller)? {
                out.rows(told).await?;
            }
        }
        Ok(())
    }

    pub(super) fn mutated(&self, shape: &Shape) -> Result<Mutated> {
        let columns = self.told.columns.columns.len();
        Mutated::new(shape.ids(), shape.schema(), columns, shape.timestamp(), shape.mutations())
    }

    /// The rows that it appends to a table without a key, after the mutations that follow them.
    async fn tell_sections(&self, shape: &Shape, out: &mut Out) -> std::result::Result<(), Stop> {
        for section in self.sections() {
            let follow = |m: &&Arc<Bound>| m.key().follows(&section.key);
            let mutations: Vec<Arc<Bound>> = shape.mutations().iter().filter(follow).cloned().collect();
            let mutations = if mutations.is_empty() { None } else { Some(shape.ready(&mutations)?) };
            let stored = shape.load(&section).await?;
            for slice in stored.batches.iter().flat_map(slices) {
                let mut rows = shape.project(&section, &section.live, &slice)?;
                if let Some(mutations) = &mutations {
                    rows = mutations.apply(rows)?;
                }
                out.rows(self.teller.all(Op::Insert, &rows)?).await?;
            }
        }
        Ok(())
    }

    /// Rows as they were appended, and that there was something else.
    async fn tell_appended(&self, out: &mut Out) -> std::result::Result<(), Stop> {
        if !self.removed().is_empty() {
            out.rows(self.teller.marker(Op::Delete)?).await?;
        }
        for pending in self.mutations() {
            let deletes = pending.mutation.assigned().is_empty();
            let op = if deletes { Op::Delete } else { Op::UpdateAfter };
            out.rows(self.teller.marker(op)?).await?;
        }
        let shape = Shape::new(&self.told.table(self.after, self.after), &[]).await?;
        self.tell_sections(&shape, out).await
    }
}

/// The rows in these times.
pub(super) fn within(shape: &Shape, times: &Ranges, batch: RecordBatch) -> Result<RecordBatch> {
    let timestamp = shape.timestamp().and_then(|id| shape.ids().iter().position(|known| *known == id));
    let mask = times.mask(timestamp.and_then(|at| batch.columns().get(at)))?;
    match mask {
        Some(mask) => picked(&batch, &mask),
        None => Ok(batch),
    }
}

pub(super) fn picked(batch: &RecordBatch, mask: &BooleanArray) -> Result<RecordBatch> {
    filter_record_batch(batch, mask).map_err(|e| Error::internal(format!("rows cannot be picked: {e}")))
}
