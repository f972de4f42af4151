//! What a part of a commit does to a table with a key.
//!
//! Rows that are appended meet the rows of their keys. Both are in memory, for some partitions at a time; all other rows
//! from before pass by.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::not;
use arrow_schema::DataType;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use futures::StreamExt;
use tandem_fold::{KeySet, KeyedFold};
use tandem_manifest::TailSection;
use tandem_types::{ColumnId, Error, Partition, Result, Seq};

use super::net::{Net, picked, within};
use super::out::{Out, Stop};
use super::pairs::Difference;
use super::ranges::Ranges;
use super::told::{Op, bytes};
use crate::error::IntoTandem;
use crate::scan::Shape;

/// Appended rows whose partitions are gone through together.
const ROWS_AT_ONCE: u64 = 500_000;

/// Some partitions, and what is appended to them.
#[derive(Debug, Default)]
struct Group {
    partitions: BTreeSet<Partition>,
    /// Their rows from before are gone.
    removed: bool,
    rows: u64,
}

/// Appended rows, and those from before of their keys.
struct Held {
    /// Of [`Shape::ids`], and their places.
    key: Vec<ColumnId>,
    places: Vec<usize>,
    keys: KeySet,
    /// In log order.
    parts: Vec<(Arc<TailSection>, Vec<RecordBatch>)>,
    before: Vec<RecordBatch>,
    memory: MemoryReservation,
}

impl Net<'_> {
    pub(super) async fn tell_keyed(&self, out: &mut Out) -> std::result::Result<(), Stop> {
        let removed = self.removed();
        let (sections, mutations) = (self.sections(), self.mutations());
        let shape = Shape::new(&self.told.table(self.before, self.after), &mutations).await?;
        let appended: BTreeSet<Partition> =
            sections.iter().flat_map(|section| section.live.iter().copied()).collect();

        let only_removed: BTreeSet<Partition> = removed.difference(&appended).copied().collect();
        let times = Ranges::of_partitions(self.before, &only_removed);
        if !times.is_empty() {
            self.tell_removed(&times, out).await?;
        }
        for group in groups(&sections, &removed) {
            self.tell_group(&shape, &sections, &group, out).await?;
        }
        if !mutations.is_empty() {
            let others = Ranges::of_partitions(self.before, &appended.union(&removed).copied().collect());
            let times = Ranges::of_hulls(mutations.iter().map(|m| m.mutation.time)).and(&others.not());
            self.tell_mutated(&shape, &times, out).await?;
        }
        Ok(())
    }

    async fn tell_group(
        &self,
        shape: &Shape,
        sections: &[Arc<TailSection>],
        group: &Group,
        out: &mut Out,
    ) -> std::result::Result<(), Stop> {
        let mut held = self.hold(shape, sections, group).await?;
        let partitions = Ranges::of_partitions(self.before, &group.partitions);
        let times = if group.removed || !self.key_has_time() {
            partitions
        } else {
            let appended = held.parts.iter().map(|(section, _)| section.section.time);
            let mutated = self.mutations();
            let mutated = mutated.iter().map(|m| m.mutation.time);
            Ranges::of_hulls(appended).or(&Ranges::of_hulls(mutated)).and(&partitions)
        };
        let mutated = if shape.mutations().is_empty() { None } else { Some(self.mutated(shape)?) };
        let mut rows = self.told.read(shape.table(), &times).await?;
        while let Some(batch) = rows.next().await {
            let batch = within(shape, &times, batch.tandem()?)?;
            let rest = held.set_aside(batch)?;
            if group.removed {
                out.rows(self.teller.all(Op::Delete, &rest)?).await?;
            } else if let Some(mutated) = &mutated
                && let Some(told) = mutated.tell(&rest, self.told.images, self.teller)?
            {
                out.rows(told).await?;
            }
        }
        let after = self.fold(shape, &held, group).await?;
        let difference = Difference {
            before: &held.before,
            after: &after,
            key: &held.places,
            columns: self.told.columns.columns.len(),
        };
        for batch in difference.tell(self.told.images, self.teller)? {
            out.rows(batch).await?;
        }
        Ok(())
    }

    fn key_has_time(&self) -> bool {
        self.before.timestamp().is_some_and(|column| self.before.primary_key().contains(&column.id))
    }

    /// Loads what is appended to the partitions of a group.
    async fn hold(&self, shape: &Shape, sections: &[Arc<TailSection>], group: &Group) -> Result<Held> {
        let key = self.before.primary_key().to_vec();
        let places: Vec<usize> =
            key.iter().filter_map(|id| shape.ids().iter().position(|known| known == id)).collect();
        let fields = shape.schema().fields();
        let types: Vec<DataType> =
            places.iter().filter_map(|at| fields.get(*at)).map(|field| field.data_type().clone()).collect();
        let context = self.told.state().task_ctx();
        let name = format!("changes[{}]", self.before.name());
        let mut held = Held {
            keys: KeySet::new(&types)?,
            key,
            places,
            parts: Vec::new(),
            before: Vec::new(),
            memory: MemoryConsumer::new(name).register(context.memory_pool()),
        };
        for section in sections {
            let partitions: Vec<Partition> =
                section.live.iter().copied().filter(|p| group.partitions.contains(p)).collect();
            if partitions.is_empty() {
                continue;
            }
            let stored = shape.load(section).await?;
            let mut rows = Vec::with_capacity(stored.batches.len());
            for batch in &stored.batches {
                let batch = shape.project(section, &partitions, batch)?;
                if batch.num_rows() > 0 {
                    held.keys.insert(&held.key_of(&batch))?;
                    held.memory.try_grow(bytes(&batch)).tandem()?;
                    rows.push(batch);
                }
            }
            held.parts.push((Arc::clone(section), rows));
        }
        held.memory.try_grow(held.keys.memory()).tandem()?;
        Ok(held)
    }

    /// What the keys that are held come to.
    async fn fold(&self, shape: &Shape, held: &Held, group: &Group) -> Result<Vec<RecordBatch>> {
        let schema = Arc::clone(shape.schema());
        let mut fold = KeyedFold::new(shape.ids().to_vec(), schema, &held.key, shape.timestamp())?;
        let folding = held.memory.new_empty();
        if !group.removed {
            let before = Seq(self.seq().0.saturating_sub(1));
            for batch in &held.before {
                fold.base(batch.clone(), before)?;
            }
        }
        let mut mutations = shape.mutations().iter().peekable();
        for (section, batches) in &held.parts {
            while let Some(mutation) = mutations.next_if(|m| !m.key().follows(&section.key)) {
                fold.mutation(mutation)?;
            }
            for batch in batches {
                fold.section(&section.section.on_duplicate, batch.clone())?;
                folding.try_resize(fold.memory()).tandem()?;
                tokio::task::yield_now().await;
            }
        }
        for mutation in mutations {
            fold.mutation(mutation)?;
        }
        fold.finish()
    }
}

impl Held {
    fn key_of(&self, batch: &RecordBatch) -> Vec<ArrayRef> {
        self.places.iter().filter_map(|at| batch.columns().get(*at)).map(Arc::clone).collect()
    }

    /// Keeps the rows of keys that are appended, and gives back the others.
    fn set_aside(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        let hits = self.keys.contains(&self.key_of(&batch))?;
        if hits.true_count() == 0 {
            return Ok(batch);
        }
        let aside = owned(picked(&batch, &hits)?)?;
        self.memory.try_grow(bytes(&aside)).tandem()?;
        self.before.push(aside);
        let others = not(&hits).map_err(|e| Error::internal(format!("a mask cannot be turned: {e}")))?;
        picked(&batch, &others)
    }
}

/// Cuts the partitions that rows are appended to.
fn groups(sections: &[Arc<TailSection>], removed: &BTreeSet<Partition>) -> Vec<Group> {
    let mut rows: BTreeMap<Partition, u64> = BTreeMap::new();
    for section in sections {
        for (partition, count) in &section.section.partitions {
            if section.live.binary_search(partition).is_ok() {
                let rows = rows.entry(*partition).or_default();
                *rows = rows.saturating_add(*count);
            }
        }
    }
    let mut groups: Vec<Group> = Vec::new();
    for (partition, count) in rows {
        let removed = removed.contains(&partition);
        let fits = |group: &&mut Group| group.removed == removed && group.rows + count <= ROWS_AT_ONCE;
        match groups.last_mut().filter(fits) {
            Some(group) => {
                group.partitions.insert(partition);
                group.rows += count;
            }
            None => groups.push(Group { partitions: BTreeSet::from([partition]), removed, rows: count }),
        }
    }
    groups
}

/// The rows without the buffers of others.
fn owned(batch: RecordBatch) -> Result<RecordBatch> {
    let (schema, columns, rows) = batch.into_parts();
    let columns = columns.into_iter().map(|column| -> ArrayRef {
        if let Some(text) = column.as_string_view_opt() {
            return Arc::new(text.gc());
        }
        match column.as_binary_view_opt() {
            Some(bytes) => Arc::new(bytes.gc()),
            None => column,
        }
    });
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, columns.collect(), &options)
        .map_err(|e| Error::internal(format!("rows cannot be kept: {e}")))
}
