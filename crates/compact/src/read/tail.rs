//! Rows of the tail: read once, cut by partition.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;
use arrow_schema::{ArrowError, DataType, TimeUnit};
use tandem_format::{OnDuplicate, SectionKey};
use tandem_manifest::{Table, TailSection};
use tandem_types::{Error, Partition, PartitionUnit, Result};

use super::keyed::only_share;
use super::lens::{Lens, View};
use super::{Reader, Selection, Share};

/// The rows of a selection's tail, section by section in log order, seen wide.
#[derive(Default)]
pub(crate) struct TailRows {
    pub sections: Vec<SectionRows>,
}

/// Rows of one partition in a section.
pub(crate) struct SectionRows {
    pub key: SectionKey,
    pub on_duplicate: OnDuplicate,
    pub batches: Vec<RecordBatch>,
}

impl TailRows {
    pub fn rows(&self) -> usize {
        self.sections.iter().flat_map(|section| &section.batches).map(RecordBatch::num_rows).sum()
    }

    /// As the rows are after the mutations that follow them, each section for itself.
    pub fn mutated(self, lens: &Lens) -> Result<Vec<RecordBatch>> {
        let mut rows = Vec::new();
        for section in self.sections {
            let from = lens.following(&section.key);
            for batch in section.batches {
                let batch = lens.narrowed(lens.mutated(batch, from)?)?;
                if batch.num_rows() > 0 {
                    rows.push(batch);
                }
            }
        }
        Ok(rows)
    }
}

impl Reader<'_> {
    /// Reads each section once and cuts it into the partitions of the selections.
    pub async fn tails(&self, selections: &[Selection], share: Share) -> Result<Vec<TailRows>> {
        let mut wanted: BTreeMap<SectionKey, Vec<usize>> = BTreeMap::new();
        for (index, selection) in selections.iter().enumerate() {
            for part in &selection.parts {
                if part.partition != selection.partition {
                    return Err(Error::internal("a job names rows of another partition than its own"));
                }
                wanted.entry(part.section).or_default().push(index);
            }
        }
        let mut tails: Vec<TailRows> = selections.iter().map(|_| TailRows::default()).collect();
        for (key, indices) in wanted {
            let gone = || Error::serialization("rows of the tail are gone");
            let tail = self.table.tail_section(&key).ok_or_else(gone)?;
            let decoded = (self.source.load)((**tail).clone()).await?;
            let seen = |batch| self.lens.seen(View::Wide, batch, &tail.section.columns);
            let batches: Vec<RecordBatch> = decoded.batches.iter().map(seen).collect::<Result<_>>()?;
            for index in indices {
                let (Some(selection), Some(rows)) = (selections.get(index), tails.get_mut(index)) else {
                    continue;
                };
                if !tail.live.contains(&selection.partition) {
                    return Err(gone());
                }
                let mut section =
                    SectionRows { key, on_duplicate: tail.section.on_duplicate.clone(), batches: Vec::new() };
                let mut found = 0;
                for batch in &batches {
                    let batch = only_partition(batch.clone(), self.table, selection.partition, tail)?;
                    found += batch.num_rows() as u64;
                    let batch = only_share(batch, &self.lens, share)?;
                    if batch.num_rows() > 0 {
                        section.batches.push(batch);
                    }
                }
                check_part(self.table, tail, selection.partition, found)?;
                rows.sections.push(section);
            }
        }
        Ok(tails)
    }
}

/// Rows of one partition; a section may span several.
fn only_partition(
    batch: RecordBatch,
    table: &Table,
    partition: Partition,
    tail: &TailSection,
) -> Result<RecordBatch> {
    let Some(timestamp) = table.timestamp() else {
        return Ok(batch);
    };
    if tail.section.partitions.len() == 1 || table.partition_by() == PartitionUnit::None {
        return Ok(batch);
    }
    let position = table.schema().position(timestamp.id).unwrap_or_default();
    let unit = time_unit(&timestamp.data_type)?;
    let by = table.partition_by();
    let range = by.range(partition, unit);
    // An end that the unit cannot express was cut, and beyond the calendar partitions share one range.
    let exact = range.start != i64::MIN && range.end != i64::MAX;
    let belongs = |value: i64| match exact {
        true => range.start <= value && value < range.end,
        false => by.partition(value, unit) == partition,
    };
    let internal = |e: ArrowError| Error::internal(format!("cutting a section by partitions: {e}"));
    let ticks = arrow::compute::cast(batch.column(position), &DataType::Int64).map_err(internal)?;
    let ticks = ticks.as_primitive::<Int64Type>();
    let within: BooleanArray =
        (0..ticks.len()).map(|row| Some(ticks.is_valid(row) && belongs(ticks.value(row)))).collect();
    filter_record_batch(&batch, &within).map_err(internal)
}

/// The log says how many rows of each partition a section has; another number means that rows were lost on the way here.
fn check_part(table: &Table, section: &TailSection, partition: Partition, found: u64) -> Result<()> {
    let listed =
        section.section.partitions.iter().find(|(p, _)| *p == partition).map_or(0, |(_, rows)| *rows);
    if found == listed {
        return Ok(());
    }
    let SectionKey { seq, transaction, section } = section.key;
    Err(Error::damaged(format!(
        "section {section} of transaction {transaction} in commit {seq} has {found} rows of table {} in partition {}, \
         the log says {listed}",
        table.name(),
        table.partition_by().label(partition)
    )))
}

fn time_unit(data_type: &DataType) -> Result<TimeUnit> {
    match data_type {
        DataType::Timestamp(unit, _) => Ok(*unit),
        other => Err(Error::internal(format!("the designated timestamp is {other}"))),
    }
}
