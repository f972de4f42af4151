//! One table's state: its definition, its data files and its tail.

use std::sync::Arc;

use arrow_schema::DataType;
use imbl::OrdMap;
use tandem_format::{
    DataFile, FileName, MutationKey, OnDuplicate, PendingMutation, Section, SectionKey, TableDef, TableImage,
    TableState,
};
use tandem_types::{
    Column, ColumnId, Error, Partition, PartitionUnit, Result, SchemaId, Seq, TableId, TableName, TableSchema,
};

use crate::ops::table_hash;

/// A table as of some seq. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Table {
    pub(crate) state: Arc<TableState>,
    /// The state's share of the digest: encoding a schema costs more than most commits change.
    pub(crate) hash: u128,
    pub(crate) files: OrdMap<FileName, Arc<FileState>>,
    pub(crate) tail: OrdMap<SectionKey, Arc<TailSection>>,
    pub(crate) mutations: OrdMap<MutationKey, Arc<PendingMutation>>,
    pub(crate) totals: Totals,
}

/// Sums over files and tail, kept up to date so that nobody has to walk them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub file_rows: u64,
    pub file_bytes: u64,
    pub tail_rows: u64,
    pub tail_bytes: u64,
}

impl Totals {
    /// Refuses what cannot be counted, so that nothing that is taken away later can be more than there is.
    pub fn add_file(&mut self, file: &DataFile) -> Result<()> {
        self.file_rows = sum(self.file_rows, file.rows)?;
        self.file_bytes = sum(self.file_bytes, file.size)?;
        self.check()
    }

    pub fn add_tail(&mut self, tail: &TailSection) -> Result<()> {
        self.tail_rows = sum(self.tail_rows, tail.live_rows())?;
        self.tail_bytes = sum(self.tail_bytes, tail.live_bytes())?;
        self.check()
    }

    pub fn remove_file(&mut self, file: &DataFile) {
        self.file_rows = self.file_rows.saturating_sub(file.rows);
        self.file_bytes = self.file_bytes.saturating_sub(file.size);
    }

    pub fn remove_tail(&mut self, tail: &TailSection) {
        self.tail_rows = self.tail_rows.saturating_sub(tail.live_rows());
        self.tail_bytes = self.tail_bytes.saturating_sub(tail.live_bytes());
    }

    fn check(self) -> Result<()> {
        sum(self.file_rows, self.tail_rows)?;
        sum(self.file_bytes, self.tail_bytes).map(|_| ())
    }
}

/// Whether rows within a range of designated timestamps may be among those that a mutation acts on.
fn may_touch(mutation: &PendingMutation, time: Option<(i64, i64)>) -> bool {
    overlap(mutation.mutation.time, time)
}

/// Whether two ranges of designated timestamps have one in common; an unknown one may be any.
pub(crate) fn overlap(a: Option<(i64, i64)>, b: Option<(i64, i64)>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.0 <= b.1 && b.0 <= a.1,
        _ => true,
    }
}

fn sum(a: u64, b: u64) -> Result<u64> {
    a.checked_add(b).ok_or_else(|| Error::invalid("a table has more rows or bytes than can be counted"))
}

/// A data file and the seq of the commit that added it.
#[derive(Clone, Debug, PartialEq)]
pub struct FileState {
    pub file: DataFile,
    pub created: Seq,
}

/// A section of the tail: which of its partitions are not in data files yet.
#[derive(Clone, Debug, PartialEq)]
pub struct TailSection {
    pub key: SectionKey,
    pub section: Section,
    /// Ascending, never empty.
    pub live: Vec<Partition>,
}

impl TailSection {
    /// The rows of the partitions that are still in the tail.
    pub fn live_rows(&self) -> u64 {
        if self.is_whole() {
            return self.section.rows;
        }
        let live = self.section.partitions.iter().filter(|(p, _)| self.live.binary_search(p).is_ok());
        live.map(|(_, rows)| *rows).fold(0, u64::saturating_add)
    }

    /// Whether all of its rows are still in the tail.
    pub fn is_whole(&self) -> bool {
        self.live.len() == self.section.partitions.len()
    }

    /// Its size as far as it is still in the tail, in proportion to the rows.
    pub fn live_bytes(&self) -> u64 {
        match self.section.rows {
            0 => 0,
            rows => {
                let share = u128::from(self.section.len) * u128::from(self.live_rows()) / u128::from(rows);
                u64::try_from(share).unwrap_or(self.section.len)
            }
        }
    }
}

impl Table {
    /// Without data.
    pub(crate) fn new(state: TableState) -> Self {
        Self {
            hash: table_hash(&state),
            state: Arc::new(state),
            files: OrdMap::new(),
            tail: OrdMap::new(),
            mutations: OrdMap::new(),
            totals: Totals::default(),
        }
    }

    pub fn id(&self) -> TableId {
        self.state.table
    }

    pub fn name(&self) -> &TableName {
        &self.state.name
    }

    pub fn def(&self) -> &TableDef {
        &self.state.def
    }

    pub fn schema(&self) -> &TableSchema {
        &self.state.def.schema
    }

    pub fn schema_id(&self) -> SchemaId {
        self.state.schema_id
    }

    pub fn partition_by(&self) -> PartitionUnit {
        self.state.def.partition_by
    }

    /// The designated timestamp.
    pub fn timestamp(&self) -> Option<&Column> {
        self.state.def.timestamp.and_then(|id| self.schema().column(id))
    }

    pub fn order_by(&self) -> &[ColumnId] {
        &self.state.def.order_by
    }

    /// Rows that are equal in these columns are one row; empty: the table has no key.
    pub fn primary_key(&self) -> &[ColumnId] {
        &self.state.def.primary_key
    }

    pub fn is_keyed(&self) -> bool {
        !self.primary_key().is_empty()
    }

    /// What rows do to earlier ones of equal key where their INSERT does not say.
    pub fn on_duplicate(&self) -> OnDuplicate {
        match (self.is_keyed(), self.option("on_duplicate")) {
            (false, _) => OnDuplicate::Keep,
            (true, Some("ignore")) => OnDuplicate::Ignore,
            (true, Some("merge")) => OnDuplicate::Merge,
            (true, _) => OnDuplicate::Replace,
        }
    }

    /// UPDATEs and DELETEs that not all rows have been through, in log order.
    pub fn mutations(&self) -> impl DoubleEndedIterator<Item = &Arc<PendingMutation>> {
        self.mutations.values()
    }

    pub fn has_mutations(&self) -> bool {
        !self.mutations.is_empty()
    }

    /// The pending mutations that act on rows of a data file, in log order.
    pub fn mutations_of_file<'a>(
        &'a self,
        file: &'a DataFile,
    ) -> impl Iterator<Item = &'a Arc<PendingMutation>> {
        self.mutations().filter(|m| m.key.seq > file.folded_through && may_touch(m, file.time))
    }

    /// The pending mutations that act on rows of a section, in log order.
    pub fn mutations_of_section<'a>(
        &'a self,
        tail: &'a TailSection,
    ) -> impl Iterator<Item = &'a Arc<PendingMutation>> {
        self.mutations().filter(|m| m.key.follows(&tail.key) && may_touch(m, tail.section.time))
    }

    /// First and last designated timestamp that rows of one partition of a section can have; `None`: any.
    pub fn part_time(&self, tail: &TailSection, partition: Partition) -> Option<(i64, i64)> {
        let (first, last) = tail.section.time?;
        let DataType::Timestamp(unit, _) = self.timestamp()?.data_type else { return None };
        if self.partition_by() == PartitionUnit::None || tail.section.partitions.len() == 1 {
            return Some((first, last));
        }
        let range = self.partition_by().range(partition, unit);
        let end = if range.end == i64::MAX { i64::MAX } else { range.end.saturating_sub(1) };
        Some((first.max(range.start), last.min(end)))
    }

    /// What makes the table this again.
    pub fn image(&self, as_of: Seq) -> TableImage {
        TableImage {
            as_of,
            state: (*self.state).clone(),
            files: self.files.values().map(|f| (f.created, f.file.clone())).collect(),
            tail: self.tail.values().map(|t| (t.key, t.section.clone(), t.live.clone())).collect(),
            mutations: self.mutations.values().map(|m| (**m).clone()).collect(),
        }
    }

    pub fn option(&self, key: &str) -> Option<&str> {
        self.state.def.options.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    pub fn created(&self) -> Seq {
        self.state.created
    }

    /// The last commit that changed what queries see.
    pub fn changed(&self) -> Seq {
        self.state.changed
    }

    /// Files by partition.
    pub fn files(&self) -> impl Iterator<Item = &Arc<FileState>> {
        self.files.values()
    }

    pub fn file(&self, name: &FileName) -> Option<&Arc<FileState>> {
        self.files.get(name)
    }

    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// Tail sections in log order.
    pub fn tail(&self) -> impl Iterator<Item = &Arc<TailSection>> {
        self.tail.values()
    }

    pub fn tail_section(&self, key: &SectionKey) -> Option<&Arc<TailSection>> {
        self.tail.get(key)
    }

    pub fn tail_sections(&self) -> usize {
        self.tail.len()
    }

    pub fn rows(&self) -> u64 {
        self.totals.file_rows + self.totals.tail_rows
    }

    pub fn tail_rows(&self) -> u64 {
        self.totals.tail_rows
    }

    /// Bytes of data files.
    pub fn file_bytes(&self) -> u64 {
        self.totals.file_bytes
    }

    /// Bytes of the tail, as encoded.
    pub fn tail_bytes(&self) -> u64 {
        self.totals.tail_bytes
    }

    /// First and last designated timestamp over files and tail, in the column's ticks.
    pub fn time_range(&self) -> Option<(i64, i64)> {
        let files = self.files.values().filter_map(|f| f.file.time);
        let tail = self.tail.values().filter_map(|s| s.section.time);
        files.chain(tail).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }
}
