//! A system table whose rows are made when it is scanned.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array,
    UInt64Array,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, arrow_datafusion_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::stream;
use tandem_manifest::Manifest;

use super::rows;
use crate::database::Database;
use crate::queries::QueryRegistry;

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tables,
    Partitions,
    Files,
    Sections,
    Mutations,
    Settings,
    Queries,
    Nodes,
    Leases,
    Forks,
}

/// What a table's rows are made of.
#[derive(Clone, Debug)]
pub(super) struct SystemTable {
    pub kind: Kind,
    pub schema: SchemaRef,
    pub database: Arc<dyn Database>,
    pub queries: Arc<QueryRegistry>,
    pub snapshot: Arc<Manifest>,
}

/// The types that system tables are made of.
#[derive(Clone, Copy)]
pub(super) enum Type {
    Text,
    U32,
    U64,
    F64,
    Bool,
    /// Microseconds, without a zone.
    Time,
}

impl Type {
    fn arrow(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::U32 => DataType::UInt32,
            Self::U64 => DataType::UInt64,
            Self::F64 => DataType::Float64,
            Self::Bool => DataType::Boolean,
            Self::Time => DataType::Timestamp(TimeUnit::Microsecond, None),
        }
    }
}

pub(super) fn schema_of(columns: &[(&str, Type)]) -> SchemaRef {
    // All nullable: what cannot be told now may be told by a later version, or the other way round.
    let fields: Vec<Field> = columns.iter().map(|(name, t)| Field::new(*name, t.arrow(), true)).collect();
    Arc::new(Schema::new(fields))
}

impl Kind {
    pub(super) const ALL: [Self; 10] = [
        Self::Tables,
        Self::Partitions,
        Self::Files,
        Self::Sections,
        Self::Mutations,
        Self::Settings,
        Self::Queries,
        Self::Nodes,
        Self::Leases,
        Self::Forks,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tables => "tables",
            Self::Partitions => "partitions",
            Self::Files => "files",
            Self::Sections => "sections",
            Self::Mutations => "mutations",
            Self::Settings => "settings",
            Self::Queries => "queries",
            Self::Nodes => "nodes",
            Self::Leases => "leases",
            Self::Forks => "forks",
        }
    }

    pub(super) fn schema(self) -> SchemaRef {
        use Type::{F64, Text, Time, U32, U64};
        schema_of(match self {
            Self::Tables => &[
                ("table_id", U64),
                ("schema_name", Text),
                ("table_name", Text),
                ("timestamp_column", Text),
                ("partition_by", Text),
                ("order_by", Text),
                ("primary_key", Text),
                ("options", Text),
                ("rows", U64),
                ("bytes", U64),
                ("files", U64),
                ("tail_rows", U64),
                ("min_time", Time),
                ("max_time", Time),
                ("created_seq", U64),
                ("schema_id", U32),
            ],
            Self::Partitions => &[
                ("table_id", U64),
                ("table_name", Text),
                ("partition", Text),
                ("rows", U64),
                ("bytes", U64),
                ("files", U64),
                ("tail_rows", U64),
                ("min_time", Time),
                ("max_time", Time),
            ],
            Self::Files => &[
                ("table_id", U64),
                ("table_name", Text),
                ("partition", Text),
                ("path", Text),
                ("rows", U64),
                ("bytes", U64),
                ("min_time", Time),
                ("max_time", Time),
                ("level", U32),
                ("created_seq", U64),
                ("folded_through", U64),
            ],
            Self::Sections => &[
                ("seq", U64),
                ("transaction", U32),
                ("table_id", U64),
                ("table_name", Text),
                ("rows", U64),
                ("bytes", U64),
                ("min_time", Time),
                ("max_time", Time),
                ("object", Text),
                ("offset", U64),
            ],
            Self::Mutations => &[
                ("seq", U64),
                ("table_name", Text),
                ("kind", Text),
                ("statement", Text),
                ("pending_files", U64),
            ],
            Self::Settings => {
                &[("name", Text), ("value", Text), ("default", Text), ("scope", Text), ("description", Text)]
            }
            Self::Queries => &[
                ("query_id", Text),
                ("session_id", Text),
                ("node_id", Text),
                ("user", Text),
                ("statement", Text),
                ("state", Text),
                ("started", Time),
                ("snapshot_seq", U64),
                ("rows", U64),
                ("bytes", U64),
                ("elapsed_ms", U64),
                ("memory_bytes", U64),
            ],
            Self::Leases => &[("holder", Text), ("seq", U64), ("expires", Time), ("reason", Text)],
            Self::Forks => &[("fork_id", Text), ("store", Text), ("as_of_seq", U64), ("created_seq", U64)],
            Self::Nodes => &[
                ("node_id", Text),
                ("address", Text),
                ("role", Text),
                ("epoch", U64),
                ("applied_seq", U64),
                ("lag_commits", U64),
                ("lag_rows", U64),
                ("lag_bytes", U64),
                ("lag_seconds", F64),
                ("version", Text),
                ("last_heartbeat", Time),
            ],
        })
    }
}

impl SystemTable {
    fn columns(&self) -> Vec<ArrayRef> {
        match self.kind {
            Kind::Tables => rows::tables(&self.snapshot),
            Kind::Partitions => rows::partitions(&self.snapshot),
            Kind::Files => rows::files(&self.snapshot),
            Kind::Sections => rows::sections(&self.snapshot),
            Kind::Mutations => rows::mutations(&self.snapshot),
            Kind::Settings => rows::settings(&self.snapshot, &self.database.node_settings()),
            Kind::Nodes => rows::nodes(&self.database.nodes()),
            Kind::Leases => rows::leases(&self.snapshot),
            Kind::Forks => rows::forks(&self.snapshot),
            Kind::Queries => rows::queries(&self.queries.list(), &self.database.node_settings()),
        }
    }
}

#[async_trait]
impl TableProvider for SystemTable {
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
        let schema = Arc::clone(&self.schema);
        let exec =
            StreamingTableExec::try_new(schema, vec![Arc::new(self.clone())], projection, [], false, limit)?;
        Ok(Arc::new(exec))
    }
}

/// Rows are made when the query runs, so that it finds itself among the queries.
impl PartitionStream for SystemTable {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _ctx: Arc<TaskContext>) -> SendableRecordBatchStream {
        let table = self.clone();
        let rows = async move {
            RecordBatch::try_new(Arc::clone(&table.schema), table.columns())
                .map_err(|e| arrow_datafusion_err!(e))
        };
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream::once(rows)))
    }
}

pub(super) fn text<T: AsRef<str>>(values: impl Iterator<Item = Option<T>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

pub(super) fn u64s(values: impl Iterator<Item = Option<u64>>) -> ArrayRef {
    Arc::new(values.collect::<UInt64Array>())
}

pub(super) fn u32s(values: impl Iterator<Item = Option<u32>>) -> ArrayRef {
    Arc::new(values.collect::<UInt32Array>())
}

pub(super) fn f64s(values: impl Iterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(values.collect::<Float64Array>())
}

pub(super) fn bools(values: impl Iterator<Item = Option<bool>>) -> ArrayRef {
    Arc::new(values.collect::<BooleanArray>())
}

/// Microseconds since 1970.
pub(super) fn times(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<TimestampMicrosecondArray>())
}
