//! `system.log`: a row per commit, read from the store a run at a time.

use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, arrow_datafusion_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::stream;
use tandem_format::{CommitHeader, MutationKind, Op, Transaction};
use tandem_types::{Seq, TableId};
use tokio::runtime::Handle;

use super::log_bounds;
use super::table::{Type, bools, schema_of, text, times, u64s};
use crate::database::Database;
use crate::error::to_datafusion;
use crate::runtime::on;

/// Commits that are read before rows are handed on.
const RUN: usize = 256;

/// The log up to a seq.
#[derive(Debug)]
pub(super) struct LogTable {
    database: Arc<dyn Database>,
    schema: SchemaRef,
    head: Seq,
    io: Handle,
}

impl LogTable {
    pub(super) fn new(database: Arc<dyn Database>, head: Seq, io: Handle) -> Self {
        use Type::{Bool, Text, Time, U64};
        let schema = schema_of(&[
            ("seq", U64),
            ("commit_id", Text),
            ("writer_id", Text),
            ("epoch", U64),
            ("commit_time", Time),
            ("kind", Text),
            ("transactions", U64),
            ("tables", U64),
            ("rows", U64),
            ("bytes", U64),
            ("inline", Bool),
        ]);
        Self { database, schema, head, io }
    }

    /// The last commit that is not later than a time.
    async fn seq_at(&self, time: i64) -> Result<Seq> {
        let database = Arc::clone(&self.database);
        let search = async move { database.seq_at(time).await };
        on(&self.io, search).await.and_then(|found| found).map_err(to_datafusion)
    }
}

#[async_trait]
impl TableProvider for LogTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(filters
            .iter()
            .map(|filter| match log_bounds::seqs(filter).is_some() || log_bounds::times(filter).is_some() {
                true => TableProviderFilterPushDown::Inexact,
                false => TableProviderFilterPushDown::Unsupported,
            })
            .collect())
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut range = 1..=self.head.0;
        for filter in filters.iter().filter_map(log_bounds::seqs) {
            range = *range.start().max(filter.start())..=*range.end().min(filter.end());
        }
        for times in filters.iter().filter_map(log_bounds::times) {
            // A search of a few requests stands for reading the whole log.
            let first = match times.start().checked_sub(1) {
                Some(before) => self.seq_at(before).await?.next(),
                None => Seq(0),
            };
            let last = if *times.end() == i64::MAX { self.head } else { self.seq_at(*times.end()).await? };
            range = first.0.max(*range.start())..=last.0.min(*range.end());
        }
        let part = LogStream {
            database: Arc::clone(&self.database),
            schema: Arc::clone(&self.schema),
            range,
            limit,
            io: self.io.clone(),
        };
        let exec = StreamingTableExec::try_new(
            Arc::clone(&self.schema),
            vec![Arc::new(part)],
            projection,
            [],
            false,
            limit,
        )?;
        Ok(Arc::new(exec))
    }
}

#[derive(Debug)]
struct LogStream {
    database: Arc<dyn Database>,
    schema: SchemaRef,
    range: RangeInclusive<u64>,
    limit: Option<usize>,
    /// The runtime that owns the store's connections: the query threads cannot wait for sockets.
    io: Handle,
}

impl PartitionStream for LogStream {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _ctx: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (database, schema, io) = (Arc::clone(&self.database), Arc::clone(&self.schema), self.io.clone());
        let run = self.limit.map_or(RUN, |limit| limit.clamp(1, RUN));
        let end = *self.range.end();
        let runs = stream::try_unfold(*self.range.start(), move |from| {
            let (database, schema, io) = (Arc::clone(&database), Arc::clone(&schema), io.clone());
            async move {
                if from > end {
                    return Ok(None);
                }
                let read = async move { database.read_log(Seq(from), Seq(end), run).await };
                let commits = on(&io, read).await.and_then(|read| read).map_err(to_datafusion)?;
                // Nothing more: the rest is not there yet, or not there any more.
                let Some(last) = commits.last().map(|(header, _)| header.seq.0) else { return Ok(None) };
                Ok(Some((batch(&schema, &commits)?, last.saturating_add(1))))
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), runs))
    }
}

fn batch(schema: &SchemaRef, commits: &[(CommitHeader, u64)]) -> Result<RecordBatch> {
    let all = || commits.iter().map(|(header, _)| header);
    let count = |n: usize| Some(n as u64);
    let columns = vec![
        u64s(all().map(|h| Some(h.seq.0))),
        text(all().map(|h| Some(h.commit_id.to_string()))),
        text(all().map(|h| Some(h.writer.to_string()))),
        u64s(all().map(|h| h.transactions.iter().filter_map(|t| t.epoch).max().map(|epoch| epoch.0))),
        times(all().map(|h| Some(h.commit_time))),
        text(all().map(|h| Some(kinds(h)))),
        u64s(all().map(|h| count(h.transactions.len()))),
        u64s(all().map(|h| count(tables(h)))),
        u64s(all().map(|h| Some(rows(h)))),
        u64s(commits.iter().map(|(header, size)| Some(size.saturating_add(uploaded(header))))),
        bools(all().map(|h| Some(uploaded(h) == 0))),
    ];
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(|e| arrow_datafusion_err!(e))
}

fn ops(header: &CommitHeader) -> impl Iterator<Item = &Op> {
    header.transactions.iter().flat_map(|t: &Transaction| &t.ops)
}

/// What the commit's transactions do, each kind once, in their order. A transaction without an operation
/// is there for its token.
fn kinds(header: &CommitHeader) -> String {
    let mut kinds: Vec<&str> = Vec::new();
    for kind in ops(header).map(kind) {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds.join(",")
}

fn kind(op: &Op) -> &'static str {
    match op {
        Op::CreateSchema { .. } => "create schema",
        Op::DropSchema { .. } => "drop schema",
        Op::CreateTable(_) => "create table",
        Op::DropTable { .. } => "drop table",
        Op::RenameTable { .. }
        | Op::AddColumn { .. }
        | Op::DropColumn { .. }
        | Op::RenameColumn { .. }
        | Op::WidenColumn { .. }
        | Op::DropNotNull { .. }
        | Op::SetOptions { .. } => "alter table",
        Op::SetSettings { .. } => "alter database",
        Op::Truncate { .. } => "truncate",
        Op::Append { .. } => "insert",
        Op::Replace(_) => "compaction",
        Op::Checkpoint { .. } => "checkpoint",
        Op::Promote { .. } => "promotion",
        Op::Lease { .. } => "lease",
        Op::Mutate(mutation) => match mutation.kind {
            MutationKind::Delete { .. } | MutationKind::Lookup { delete: true, .. } => "delete",
            MutationKind::Update { .. } | MutationKind::Lookup { delete: false, .. } => "update",
        },
        Op::DropPartitions { .. } => "drop partition",
        Op::RestoreTable(_) => "restore table",
        Op::Horizon { .. } => "horizon",
        Op::Pin(_) => "pin",
        Op::Unpin { .. } => "unpin",
    }
}

/// How many tables the commit touches.
fn tables(header: &CommitHeader) -> usize {
    let mut tables: Vec<TableId> = ops(header).filter_map(Op::table).collect();
    tables.sort_unstable();
    tables.dedup();
    tables.len()
}

/// Rows that the commit appends. A void transaction's are among them: the log says what was asked.
fn rows(header: &CommitHeader) -> u64 {
    let appended = ops(header).filter(|op| matches!(op, Op::Append { .. }));
    appended.flat_map(Op::sections).map(|section| section.rows).sum()
}

/// Bytes of sections outside the commit object.
fn uploaded(header: &CommitHeader) -> u64 {
    header.sections().filter(|section| section.segment.is_some()).map(|section| section.len).sum()
}
