//! How long planning takes on a table of very many data files: nothing of them is opened, so they need not exist.

use std::sync::Arc;
use std::time::Instant;

use arrow_schema::{DataType, TimeUnit};
use async_trait::async_trait;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tandem_datafile::FooterCache;
use tandem_format::{
    CommitHeader, DataFile, FileName, ObjectName, Replace, SectionKey, SectionPart, encode_header,
};
use tandem_manifest::{
    AppendIntent, AppendTarget, ColumnSpec, Intent, Manifest, Rebased, SchemaPolicy, SectionDraft, Step,
    TableSpec, TailSection, rebase,
};
use tandem_sql::{
    AppendRequest, Database, Engine, EngineConfig, NodeRow, NodeSetting, ReadOptions, Receipt, RowStream,
    SectionRows, WriteOptions,
};
use tandem_types::{
    CommitId, DatabaseId, Error, Partition, PartitionUnit, Result, Seq, TableId, TableName, WriterId,
};

use crate::report::{Report, quantile};

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

const DAY_MICROS: i64 = 86_400_000_000;

pub async fn run(args: PlanArgs) -> Result<Report> {
    let mut report = Report::new("plan");
    let manifest = Arc::new(manifest(args.files, args.partitions.max(1))?);
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

/// A state whose table has `files` files, made as every state is: by commits.
fn manifest(files: usize, partitions: usize) -> Result<Manifest> {
    let column = |name: &str, data_type| ColumnSpec { name: name.to_owned(), data_type, nullable: true };
    let columns = vec![
        column("ts", DataType::Timestamp(TimeUnit::Microsecond, None)),
        column("host", DataType::Utf8),
        column("v", DataType::Float64),
    ];
    let name = TableName::public("t");
    let spec = TableSpec {
        columns: columns.clone(),
        partition_by: Some(PartitionUnit::Day),
        ..TableSpec::default()
    };
    let empty = Manifest::empty(DatabaseId(1));
    let create = Step::CreateTable { name: name.clone(), spec, if_not_exists: false, replace: false };
    let created = commit(&empty, create)?;
    let table = created.require(&name)?;
    let days = (0..partitions).map(|day| Partition(day as i64));
    let section = SectionDraft {
        segment: None,
        offset: 0,
        len: 64,
        crc32c: 0,
        rows: partitions as u64,
        time: Some((0, partitions as i64 * DAY_MICROS - 1)),
        partitions: days.clone().map(|day| (day, 1)).collect(),
        null_counts: vec![0; columns.len()],
    };
    let append = AppendIntent {
        name,
        target: AppendTarget::Existing { table: table.id(), schema_id: table.schema_id() },
        policy: SchemaPolicy::Strict,
        fields: columns,
        sections: vec![section],
    };
    let filled = commit(&created, Step::Append(append))?;
    let base = filled.seq();
    let per_day = files.div_ceil(partitions);
    let slice = DAY_MICROS / per_day.max(1) as i64;
    let file = |n: usize| {
        let (day, place) = ((n % partitions) as i64, (n / partitions) as i64);
        let start = day * DAY_MICROS + place * slice;
        DataFile {
            name: FileName {
                partition: Partition(day),
                object: ObjectName { base, writer: WriterId(1), random: n as u64 },
            },
            rows: 1_000_000,
            size: 5 << 20,
            body_end: 5 << 20,
            tail_crc32c: 0,
            time: Some((start, start + slice - 1)),
            folded_through: base,
            level: 0,
        }
    };
    let key = SectionKey { seq: base, transaction: 0, section: 0 };
    let replace = Replace {
        table: TableId(1),
        base,
        files: Vec::new(),
        parts: days.map(|partition| SectionPart { section: key, partition }).collect(),
        outputs: (0..files).map(file).collect(),
    };
    commit(&filled, Step::Replace(replace))
}

fn commit(state: &Manifest, step: Step) -> Result<Manifest> {
    let intent =
        Intent { token: None, digest: Vec::new(), epoch: None, base: state.seq(), steps: vec![step] };
    let seq = state.seq().next();
    let Ok(Rebased::Commit { transaction, .. }) = rebase(&intent, state, seq, 0) else {
        return Err(Error::internal("a step of the bench was not taken"));
    };
    let header = CommitHeader {
        seq,
        commit_id: CommitId(seq.0.into()),
        writer: WriterId(1),
        database: state.database(),
        previous: state.header_hash(),
        commit_time: state.commit_time() + 1,
        raw_clock: 0,
        transactions: vec![transaction],
    };
    let hash = encode_header(&header)?.hash;
    Ok(state.apply(&header, hash)?.manifest)
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
