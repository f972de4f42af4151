//! A database with one writer, and a naive reader of all its rows.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::display::array_value_to_string;
use futures::{FutureExt, StreamExt, TryStreamExt};
use tandem_compact::{Inputs, Job, Output, Policy, Source, Urgency, next_jobs, run, table_rows};
use tandem_datafile::{FooterCache, cast_to_schema, read_batches};
use tandem_env::Env;
use tandem_env::sim::{self, FaultStore};
use tandem_format::{data_path, segment_path};
use tandem_log::Log;
use tandem_manifest::{Manifest, SchemaPolicy, Step, Table, TableSpec, TailSection};
use tandem_segment::{DecodedSection, Limits, decode_section};
use tandem_types::{ColumnId, Error, Result, Seq, TableName};
use tandem_writer::{Append, Committed, CreateTable, WriteToken, Writer, WriterConfig};

pub struct Db {
    pub env: Env,
    pub store: Arc<FaultStore>,
    pub log: Log,
    pub writer: Writer,
}

pub fn name() -> TableName {
    TableName::public("t")
}

pub const ALL: Urgency = Urgency::Everything(Seq(u64::MAX));

/// Thresholds that small inputs reach.
pub fn policy() -> Policy {
    Policy {
        tail_rows: 200,
        tail_bytes: 20_000,
        tail_sections: 6,
        fan_in: 3,
        job_bytes: 30_000,
        full_rows: u64::MAX,
        ..Policy::default()
    }
}

/// A section's rows, from the store.
pub async fn load(log: &Log, tail: &TailSection) -> Result<Arc<DecodedSection>> {
    let section = &tail.section;
    let range = section.offset..section.offset + section.len;
    let bytes = match &section.segment {
        Some(segment) => log.env().store.get_range(&segment_path(segment), range).await?,
        None => log.read_payload(tail.key.seq).await?.0.slice(range.start as usize..range.end as usize),
    };
    decode_section(&bytes, Some(section.crc32c), &Limits::default()).map(Arc::new)
}

impl Db {
    /// `section_bytes` decides whether rows ride along or lie in segments.
    pub async fn open(section_bytes: usize) -> Self {
        let (env, store) = sim::env(1);
        let log = Log::open(env.clone()).await.unwrap();
        let state = log.recover().await.unwrap().manifest;
        let config = WriterConfig { section_bytes, ..WriterConfig::default() };
        let writer = Writer::start(log.clone(), state, config);
        Self { env, store, log, writer }
    }

    pub async fn create(&self, spec: TableSpec) {
        self.step(Step::CreateTable { name: name(), spec, if_not_exists: false, replace: false })
            .await
            .unwrap();
    }

    pub async fn step(&self, step: Step) -> Result<Committed> {
        self.writer.submit(self.state().seq(), vec![step], WriteToken::Minted).await
    }

    pub async fn append(&self, rows: RecordBatch) -> Committed {
        let append = Append {
            table: name(),
            schema: rows.schema(),
            policy: SchemaPolicy::Strict,
            on_conflict: None,
            create: None::<CreateTable>,
            token: WriteToken::Minted,
            queued: None,
        };
        let rows = futures::stream::iter([Ok::<_, Error>(rows)]).boxed();
        self.writer.append(append, rows).await.unwrap()
    }

    pub fn state(&self) -> Arc<Manifest> {
        self.writer.state()
    }

    pub fn table(&self) -> Table {
        self.state().require(&name()).unwrap().clone()
    }

    pub fn inputs(&self) -> Inputs {
        let log = self.log.clone();
        Inputs {
            env: self.env.clone(),
            writer: self.writer.id(),
            manifest: self.state(),
            footers: Arc::new(FooterCache::new(1 << 20)),
            load: Arc::new(move |tail| {
                let log = log.clone();
                async move { load(&log, &tail).await }.boxed()
            }),
        }
    }

    /// Every row that a query sees, in words, sorted; read as compaction reads its inputs.
    pub async fn seen(&self) -> Vec<String> {
        let inputs = self.inputs();
        let source = Source {
            objects: self.env.store.objects(),
            footers: inputs.footers.clone(),
            load: inputs.load.clone(),
        };
        let mut rows = Vec::new();
        for batch in table_rows(&source, &self.table()).await.unwrap() {
            in_words(&batch, &mut rows);
        }
        rows.sort_unstable();
        rows
    }

    /// The first of the jobs that are due.
    pub fn plan(&self, urgency: Urgency) -> Option<Job> {
        next_jobs(&self.table(), &policy(), urgency).into_iter().next()
    }

    pub async fn run(&self, job: &Job) -> Result<Output> {
        run(&self.inputs(), std::slice::from_ref(job)).await
    }

    pub async fn submit(&self, output: Output) -> Result<Committed> {
        self.writer.submit_upkeep(output.replace.base, vec![Step::Replace(output.replace)]).await
    }

    /// Runs jobs until none is left; how many commits that took.
    pub async fn compact(&self, urgency: Urgency) -> usize {
        let mut commits = 0;
        loop {
            let jobs = next_jobs(&self.table(), &policy(), urgency);
            if jobs.is_empty() {
                return commits;
            }
            let output = run(&self.inputs(), &jobs).await.unwrap();
            self.submit(output).await.unwrap();
            commits += 1;
            assert!(commits < 500, "compaction does not come to an end");
        }
    }

    /// Batches of each file, as the table declares its columns now.
    pub async fn files(&self) -> Vec<(tandem_format::DataFile, Vec<RecordBatch>)> {
        let table = self.table();
        let mut files = Vec::new();
        for state in table.files() {
            let file = state.file.clone();
            let path = data_path(table.id(), table.partition_by(), &file.name);
            let objects = self.env.store.objects();
            let cache = FooterCache::new(1 << 20);
            let reader = cache.reader(objects, &path, file.size, file.body_end, file.tail_crc32c);
            let read = read_batches(reader, None, 1000).await.unwrap();
            let ids: Vec<ColumnId> = read.schema.columns.iter().map(|c| c.id).collect();
            let batches: Vec<RecordBatch> = read.stream.try_collect().await.unwrap();
            let cast = |b: RecordBatch| cast_to_schema(&b, &ids, table.schema()).unwrap();
            files.push((file, batches.into_iter().map(cast).collect()));
        }
        files
    }

    /// Every row that a query sees, in words, sorted.
    pub async fn rows(&self) -> Vec<String> {
        let table = self.table();
        let mut rows = Vec::new();
        for (_, batches) in self.files().await {
            batches.iter().for_each(|batch| in_words(batch, &mut rows));
        }
        for tail in table.tail() {
            let decoded = load(&self.log, tail).await.unwrap();
            for batch in &decoded.batches {
                let batch = cast_to_schema(batch, &tail.section.columns, table.schema()).unwrap();
                let unit = table.partition_by();
                let live: Vec<bool> = match table.timestamp() {
                    None => vec![true; batch.num_rows()],
                    Some(column) => {
                        let position = table.schema().position(column.id).unwrap();
                        let ticks = ticks(&batch, position);
                        let arrow_schema::DataType::Timestamp(tick, _) = column.data_type else { panic!() };
                        ticks.iter().map(|t| tail.live.contains(&unit.partition(*t, tick))).collect()
                    }
                };
                let live = arrow::array::BooleanArray::from(live);
                in_words(&arrow::compute::filter_record_batch(&batch, &live).unwrap(), &mut rows);
            }
        }
        rows.sort_unstable();
        rows
    }
}

pub fn ticks(batch: &RecordBatch, position: usize) -> Vec<i64> {
    use arrow::array::AsArray;
    let cast = arrow::compute::cast(batch.column(position), &arrow_schema::DataType::Int64).unwrap();
    cast.as_primitive::<arrow::datatypes::Int64Type>().values().to_vec()
}

fn in_words(batch: &RecordBatch, rows: &mut Vec<String>) {
    for row in 0..batch.num_rows() {
        let value = |column: &arrow::array::ArrayRef| match column.is_null(row) {
            true => "null".to_owned(),
            false => format!("{:?}", array_value_to_string(column, row).unwrap()),
        };
        rows.push(batch.columns().iter().map(value).collect::<Vec<_>>().join(","));
    }
}
