//! How long planning takes on a table of very many data files: nothing of them is opened, so they need not exist.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tandem_datafile::FooterCache;
use tandem_format::CommitHeader;
use tandem_manifest::{Manifest, Step, TailSection};
use tandem_sql::{
    AppendRequest, Database, Engine, EngineConfig, NodeRow, NodeSetting, ReadOptions, Receipt, RowStream,
    SectionRows, WriteOptions,
};
use tandem_types::{Error, Result, Seq, TableId, TableName};

use crate::report::{Report, quantile};
use crate::synthetic::Shape;

#[derive(Clone, Debug, clap::Args)]
pub struct PlanArgs {
    /// Data files of the table
    #[arg(long, default_value_t = 100_000)]
    files: usize,
    /// Days that they lie in
    #[arg(long, default_value_t = 1_000)]
    partitions: usize,
    /// Runs of every query; the median counts
    #[arg(long, default_value_t = 11)]
    runs: usize,
}

const QUERIES: [(&str, &str); 4] = [
    ("one day of them", "SELECT sum(v) FROM t WHERE ts >= '1970-03-01' AND ts < '1970-03-02'"),
    ("a tenth of the time", "SELECT host, avg(v) FROM t WHERE ts < '1970-04-10' GROUP BY host"),
    ("all of them", "SELECT host, sum(v) FROM t GROUP BY host"),
    ("the newest rows", "SELECT * FROM t ORDER BY ts DESC LIMIT 10"),
];

pub async fn run(args: PlanArgs) -> Result<Report> {
    let mut report = Report::new("plan");
    let shape = Shape { commits: 0, files: args.files, days: args.partitions, tokens: false };
    let manifest = Arc::new(shape.make()?.state);
    let engine = Engine::new(Arc::new(Still { manifest }), EngineConfig::default())?;
    let session = engine.session("bench");
    report.add("files", args.files as f64, "");
    for (name, sql) in QUERIES {
        let mut times = Vec::with_capacity(args.runs);
        for _ in 0..args.runs.max(1) {
            let start = Instant::now();
            let planned = session.prepare(sql).await?.plan(None).await?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
            drop(planned);
        }
        report.add(format!("{name}: from text to physical plan, median"), quantile(&mut times, 0.5), "ms");
    }
    Ok(report)
}

/// A database that stands still and has nothing behind its state.
#[derive(Debug)]
struct Still {
    manifest: Arc<Manifest>,
}

fn still<T>() -> Result<T> {
    Err(Error::unsupported("nothing can be done with a database that was made up for planning"))
}

#[async_trait]
impl Database for Still {
    fn snapshot(&self) -> Arc<Manifest> {
        self.manifest.clone()
    }

    async fn submit(&self, _base: Seq, _steps: Vec<Step>, _options: WriteOptions) -> Result<Receipt> {
        still()
    }

    async fn settle(&self, _read: &ReadOptions) -> Result<()> {
        Ok(())
    }

    async fn repeated(&self, _options: &WriteOptions) -> Result<Option<Receipt>> {
        Ok(None)
    }

    fn nodes(&self) -> Vec<NodeRow> {
        Vec::new()
    }

    async fn append(&self, _request: AppendRequest, _rows: RowStream) -> Result<Receipt> {
        still()
    }

    async fn tail_rows(&self, _table: TableId, _section: &TailSection) -> Result<Arc<SectionRows>> {
        still()
    }

    async fn read_log(&self, _from: Seq, _to: Seq, _limit: usize) -> Result<Vec<(CommitHeader, u64)>> {
        still()
    }

    async fn optimize(&self, _table: &TableName) -> Result<Receipt> {
        still()
    }

    async fn checkpoint(&self) -> Result<Seq> {
        still()
    }

    fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::new(InMemory::new())
    }

    fn footers(&self) -> Arc<FooterCache> {
        Arc::new(FooterCache::new(1 << 20))
    }

    fn node_settings(&self) -> Vec<NodeSetting> {
        Vec::new()
    }
}
