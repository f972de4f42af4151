//! SQL over a database in memory: statements in, rows out.

mod as_of;
mod binding;
mod changes;
mod database;
mod dml;
mod keyed;
mod keys;
mod mutated;
mod options;
mod queries;
mod replayed;
mod statements;
mod system;
mod transactions;
mod writes;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use tandem_types::{Error, Result};

use crate::prepared::UpdateResult;
use crate::running::PlannedQuery;
use crate::session::Session;
use crate::{Engine, EngineConfig};
use database::TestDatabase;

/// A database and a session on it.
struct Fixture {
    database: Arc<TestDatabase>,
    session: Arc<Session>,
}

impl Fixture {
    fn new() -> Self {
        Self::with(EngineConfig { target_partitions: 2, ..EngineConfig::default() })
    }

    fn with(config: EngineConfig) -> Self {
        let database = Arc::new(TestDatabase::default());
        let engine = Engine::new(Arc::clone(&database) as Arc<dyn crate::Database>, config).unwrap();
        Self { database, session: engine.session("test") }
    }

    async fn plan(&self, sql: &str) -> Result<PlannedQuery> {
        self.session.prepare(sql).await?.plan(None).await
    }

    async fn rows(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        run(&self.plan(sql).await?).await
    }

    /// The answer as text: one line per row, values separated by a blank.
    async fn ask(&self, sql: &str) -> String {
        match self.rows(sql).await {
            Ok(batches) => table(&batches),
            Err(error) => format!("{:?}: {error}", error.kind()),
        }
    }

    async fn try_run(&self, sql: &str) -> Result<UpdateResult> {
        self.session.prepare(sql).await?.update(None).await
    }

    async fn run(&self, sql: &str) -> UpdateResult {
        self.try_run(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    async fn refused(&self, sql: &str) -> Error {
        let result = async {
            let prepared = self.session.prepare(sql).await?;
            if prepared.is_query() {
                run(&prepared.plan(None).await?).await.map(|_| ())
            } else {
                prepared.update(None).await.map(|_| ())
            }
        };
        result.await.expect_err(sql)
    }
}

async fn run(planned: &PlannedQuery) -> Result<Vec<RecordBatch>> {
    let running = planned.start(None).await?;
    let batches: Vec<RecordBatch> = running.stream.try_collect().await?;
    for batch in &batches {
        assert_eq!(batch.schema(), planned.schema(), "every batch keeps to the schema that was announced");
    }
    Ok(batches)
}

fn table(batches: &[RecordBatch]) -> String {
    let text = pretty_format_batches(batches).unwrap().to_string();
    let rows = text.lines().filter(|line| line.starts_with('|')).skip(1);
    let cells =
        |line: &str| line.split('|').map(str::trim).filter(|c| !c.is_empty()).collect::<Vec<_>>().join(" ");
    rows.map(cells).collect::<Vec<_>>().join("\n")
}
