//! The answer to a statement: rows to stream, or what was written.

use std::fmt;

use arrow::array::RecordBatch;
use arrow_schema::SchemaRef;
use futures::stream::{BoxStream, StreamExt};
use serde::Deserialize;
use tandem_types::Result;

/// What a DDL or DML statement did. It ran exactly once, before this was known.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Written {
    /// The commit that holds it.
    pub seq: u64,
    /// Rows inserted, updated or deleted; absent for statements that do not count rows.
    #[serde(default)]
    pub rows: Option<i64>,
}

/// The answer to one statement.
pub struct QueryResult {
    schema: SchemaRef,
    written: Option<Written>,
    batches: BoxStream<'static, Result<RecordBatch>>,
}

impl fmt::Debug for QueryResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryResult")
            .field("schema", &self.schema)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

impl QueryResult {
    pub fn new(
        schema: SchemaRef,
        written: Option<Written>,
        batches: BoxStream<'static, Result<RecordBatch>>,
    ) -> Self {
        Self { schema, written, batches }
    }

    /// The columns; none for a statement that returns no rows.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Set if the statement was a write.
    pub fn written(&self) -> Option<&Written> {
        self.written.as_ref()
    }

    /// The next batch. Dropping the result cancels the query.
    pub async fn next_batch(&mut self) -> Option<Result<RecordBatch>> {
        self.batches.next().await
    }

    /// The batches as a stream.
    pub fn into_stream(self) -> BoxStream<'static, Result<RecordBatch>> {
        self.batches
    }

    /// All batches in memory: for answers known to be small.
    pub async fn collect(mut self) -> Result<Vec<RecordBatch>> {
        let mut all = Vec::new();
        while let Some(batch) = self.next_batch().await {
            all.push(batch?);
        }
        Ok(all)
    }
}
