//! `system.producers`: who commits under tokens that count, and how far each has come.
//!
//! The manifest knows all of it but the time of the last commit, which is asked of the log, and only if the query wants it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, arrow_datafusion_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::{StreamExt, TryStreamExt, stream};
use tandem_manifest::{KnownProducer, Manifest};
use tandem_types::Seq;
use tokio::runtime::Handle;

use super::table::{Type, schema_of, text, times, u64s};
use crate::database::Database;
use crate::error::to_datafusion;
use crate::runtime::on;

/// Where `last_time` is among the columns.
const LAST_TIME: usize = 4;

/// Commits that are read at once.
const READS: usize = 16;

/// The producers of a snapshot.
#[derive(Debug)]
pub(super) struct ProducersTable {
    database: Arc<dyn Database>,
    schema: SchemaRef,
    snapshot: Arc<Manifest>,
    io: Handle,
}

impl ProducersTable {
    pub(super) fn new(database: Arc<dyn Database>, snapshot: Arc<Manifest>, io: Handle) -> Self {
        use Type::{Text, Time, U64};
        let schema = schema_of(&[
            ("producer", Text),
            ("low", U64),
            ("last_counter", U64),
            ("last_seq", U64),
            ("last_time", Time),
        ]);
        Self { database, schema, snapshot, io }
    }
}

#[async_trait]
impl TableProvider for ProducersTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let part = ProducersStream {
            database: Arc::clone(&self.database),
            schema: Arc::clone(&self.schema),
            snapshot: Arc::clone(&self.snapshot),
            with_times: projection.is_none_or(|columns| columns.contains(&LAST_TIME)),
            io: self.io.clone(),
        };
        let schema = Arc::clone(&self.schema);
        let exec = StreamingTableExec::try_new(schema, vec![Arc::new(part)], projection, [], false, limit)?;
        Ok(Arc::new(exec))
    }
}

#[derive(Debug)]
struct ProducersStream {
    database: Arc<dyn Database>,
    schema: SchemaRef,
    snapshot: Arc<Manifest>,
    with_times: bool,
    /// The runtime that owns the store's connections.
    io: Handle,
}

impl PartitionStream for ProducersStream {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _ctx: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (database, schema, io) = (Arc::clone(&self.database), Arc::clone(&self.schema), self.io.clone());
        let producers: Vec<KnownProducer> = self.snapshot.tokens().list_producers().collect();
        let with_times = self.with_times;
        let rows = async move {
            let mut seqs: Vec<Seq> = producers.iter().map(|p| p.last_seq).filter(|_| with_times).collect();
            seqs.sort_unstable();
            seqs.dedup();
            let read = async move { commit_times(&database, seqs).await };
            let known = on(&io, read).await.and_then(|read| read).map_err(to_datafusion)?;
            batch(&schema, &producers, &known)
        };
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream::once(rows)))
    }
}

/// When these were committed, as far as the log still has them.
async fn commit_times(
    database: &Arc<dyn Database>,
    seqs: Vec<Seq>,
) -> tandem_types::Result<BTreeMap<Seq, i64>> {
    let reads = stream::iter(seqs).map(|seq| database.read_log(seq, seq, 1)).buffer_unordered(READS);
    let found: Vec<_> = reads.try_collect().await?;
    Ok(found.into_iter().flatten().map(|(header, _)| (header.seq, header.commit_time)).collect())
}

fn batch(schema: &SchemaRef, producers: &[KnownProducer], known: &BTreeMap<Seq, i64>) -> Result<RecordBatch> {
    let all = || producers.iter();
    let columns = vec![
        text(all().map(|p| Some(format!("{:032x}", p.producer.0)))),
        u64s(all().map(|p| Some(p.low))),
        u64s(all().map(|p| p.last_counter)),
        u64s(all().map(|p| Some(p.last_seq.0))),
        times(all().map(|p| known.get(&p.last_seq).copied())),
    ];
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(|e| arrow_datafusion_err!(e))
}
