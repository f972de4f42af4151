//! What a key costs, and what pending mutations cost, beside the same rows without: a node in this process, so that
//! nothing but writing, compacting and reading is measured, and without upkeep, so that everything stays where it is.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use futures::{StreamExt, TryStreamExt, stream};
use tandem_benches::cpu::create_table;
use tandem_env::Env;
use tandem_node::{Node, NodeConfig};
use tandem_sql::{AppendRequest, Session, WriteOptions};
use tandem_types::{Error, Result, TableName};

use crate::Workload;
use crate::load::make;
use crate::process::cpu_seconds;
use crate::report::{Report, quantile};
use crate::scan::QUERIES;
use crate::server::ServerArgs;

/// For queries: the whole table in the tail is no more than this.
const QUERY_MEMORY: usize = 8 << 30;

/// Transactions in flight.
const IN_FLIGHT: usize = 4;

/// A batch has this many rows; duplicates are taken from a batch so far back: as of a client that sends again.
const RECENT: usize = 1;

#[derive(Clone, Debug, clap::Args)]
pub struct KeyedArgs {
    #[command(flatten)]
    workload: Workload,
    /// Of the rows of a batch, in percent, so many repeat keys of earlier ones
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1, 10, 50])]
    duplicates: Vec<usize>,
    /// UPDATEs and DELETEs that wait
    #[arg(long, default_value_t = 100)]
    mutations: usize,
    /// Runs of every query; the median counts
    #[arg(long, default_value_t = 5)]
    runs: usize,
}

pub async fn run(args: KeyedArgs, server_args: &ServerArgs) -> Result<Report> {
    let mut report = Report::new("keyed");
    let Workload { seed, hosts, rows, batch_rows } = args.workload;
    report.add("rows sent to each table", rows as f64, "rows");
    let batches = make(seed, hosts, rows, batch_rows)?;
    for percent in &args.duplicates {
        let kinds: &[bool] = if *percent == 0 { &[false] } else { &[false, true] };
        for late in kinds {
            let bench = Bench::open(server_args, &args).await?;
            bench.duplicates(&mut report, &batches, *percent, *late).await?;
        }
    }
    let bench = Bench::open(server_args, &args).await?;
    bench.mutations(&mut report, &batches).await?;
    Ok(report)
}

/// The batches with some rows of each replaced by rows of an earlier one, and how many keys there are in all.
fn repeated(batches: &[RecordBatch], percent: usize, late: bool) -> Result<(Vec<RecordBatch>, usize)> {
    let mut made = Vec::with_capacity(batches.len());
    let mut keys = 0;
    for (n, batch) in batches.iter().enumerate() {
        let again = if n == 0 { 0 } else { batch.num_rows() * percent / 100 };
        let own = batch.num_rows() - again;
        keys += own;
        // Any number that wanders over all that came before.
        let from =
            if late { (n.wrapping_mul(2_654_435_761) >> 7) % n.max(1) } else { n.saturating_sub(RECENT) };
        let Some(earlier) = batches.get(from.min(n.saturating_sub(1))).filter(|_| again > 0) else {
            made.push(batch.clone());
            continue;
        };
        // Of rows that were sent themselves: the first ones of a batch.
        let again = earlier.slice(0, again.min(earlier.num_rows()));
        let both = concat_batches(&batch.schema(), [&batch.slice(0, own), &again]);
        made.push(both.map_err(|e| Error::internal(format!("the workload: {e}")))?);
    }
    Ok((made, keys))
}

/// A node of its own, on a directory of its own.
struct Bench {
    session: Arc<Session>,
    node: Node,
    runs: usize,
    mutations: usize,
    hosts: usize,
    /// How often each host reports.
    ticks: usize,
    // Removed with the value, and last.
    _home: tempfile::TempDir,
}

/// What something took.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    wall: f64,
    cpu: f64,
}

impl Bench {
    async fn open(server_args: &ServerArgs, args: &KeyedArgs) -> Result<Self> {
        let home = server_args.temporary()?;
        let path = home.path().join("store");
        let url = path.to_str().ok_or_else(|| Error::internal("a directory's name is no text"))?;
        let env = Env::open(url, &[])?;
        // What no upkeep has compacted is folded in memory, all at once.
        let mut config = NodeConfig { upkeep: false, ..NodeConfig::default() };
        config.engine.memory_limit = QUERY_MEMORY;
        let node = Node::open(env, config).await?;
        let session = node.engine().session("bench");
        let Workload { hosts, rows, .. } = args.workload;
        Ok(Self {
            session,
            node,
            runs: args.runs.max(1),
            mutations: args.mutations,
            hosts: hosts.max(1),
            ticks: rows / hosts.max(1),
            _home: home,
        })
    }

    async fn execute(&self, sql: &str) -> Result<()> {
        self.session.prepare(sql).await?.update(None).await.map(|_| ())
    }

    async fn rows(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let planned = self.session.prepare(sql).await?.plan(None).await?;
        planned.start(None).await?.stream.try_collect().await
    }

    async fn timed<T>(&self, work: impl Future<Output = Result<T>>) -> Result<(T, Cost)> {
        let own = std::process::id();
        let (started, before) = (Instant::now(), cpu_seconds(own)?);
        let done = work.await?;
        let cost = Cost { wall: started.elapsed().as_secs_f64(), cpu: cpu_seconds(own)? - before };
        Ok((done, cost))
    }

    async fn ingest(&self, table: &str, batches: &[RecordBatch]) -> Result<Cost> {
        let database = self.node.engine().database();
        let writes = stream::iter(batches.iter().cloned()).map(|batch| async move {
            let request = AppendRequest {
                table: TableName::public(table),
                schema: batch.schema(),
                policy: Default::default(),
                on_conflict: None,
                create: None,
                queued: None,
                options: WriteOptions::default(),
            };
            database.append(request, stream::iter([Ok(batch)]).boxed()).await.map(|_| ())
        });
        Ok(self.timed(writes.buffered(IN_FLIGHT).try_collect::<Vec<()>>()).await?.1)
    }

    /// The same rows into a table with a key and into one without.
    async fn duplicates(
        &self,
        report: &mut Report,
        batches: &[RecordBatch],
        percent: usize,
        late: bool,
    ) -> Result<()> {
        let (batches, keys) = repeated(batches, percent, late)?;
        let name = match (percent, late) {
            (0, _) => "0 %".to_owned(),
            (_, false) => format!("{percent} % sent again at once"),
            (_, true) => format!("{percent} % sent again late"),
        };
        self.execute(&create_table("plain", "DAY")).await?;
        self.execute(&format!("{} PRIMARY KEY (hostname, ts)", create_table("keyed", "DAY"))).await?;
        let plain = self.ingest("plain", &batches).await?;
        let keyed = self.ingest("keyed", &batches).await?;
        compare(report, &format!("{name}: ingest"), plain, keyed);
        self.expect("keyed", keys).await?;
        self.queries(report, &format!("{name}, all in the tail")).await?;

        let (_, plain) = self.timed(self.execute("OPTIMIZE TABLE plain")).await?;
        let (_, keyed) = self.timed(self.execute("OPTIMIZE TABLE keyed")).await?;
        compare(report, &format!("{name}: OPTIMIZE"), plain, keyed);
        self.expect("keyed", keys).await?;
        self.queries(report, &format!("{name}, compacted")).await?;
        if percent > 0 {
            // Once more what was sent last: files with a tail over their end.
            let last = batches.get(batches.len() - batches.len().div_ceil(20)..).unwrap_or_default();
            self.ingest("plain", last).await?;
            self.ingest("keyed", last).await?;
            self.expect("keyed", keys).await?;
            self.queries(report, &format!("{name}, compacted, the last 5 % again")).await?;
        }
        Ok(())
    }

    async fn expect(&self, table: &str, rows: usize) -> Result<()> {
        let batches = self.rows(&format!("SELECT ts FROM {table}")).await?;
        let found: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if found != rows {
            return Err(Error::internal(format!("table {table} has {found} rows instead of {rows}")));
        }
        Ok(())
    }

    async fn queries(&self, report: &mut Report, what: &str) -> Result<()> {
        for (name, sql) in QUERIES {
            let (plain, keyed) = self.versus(sql, "plain", "keyed").await?;
            compare(report, &format!("{what}: {name}"), plain, keyed);
        }
        Ok(())
    }

    /// The medians of a query of two tables, asked in turn.
    async fn versus(&self, sql: &str, first: &str, second: &str) -> Result<(Cost, Cost)> {
        let of = |table: &str| sql.replace("FROM cpu", &format!("FROM {table}"));
        let (first, second) = (of(first), of(second));
        let (mut firsts, mut seconds) = (Vec::new(), Vec::new());
        let (mut first_cpu, mut second_cpu) = (0.0, 0.0);
        for run in 0..=self.runs {
            let (_, a) = self.timed(self.rows(&first)).await?;
            let (_, b) = self.timed(self.rows(&second)).await?;
            if run > 0 {
                firsts.push(a.wall);
                seconds.push(b.wall);
                first_cpu += a.cpu;
                second_cpu += b.cpu;
            }
        }
        let cost =
            |times: &mut Vec<f64>, cpu: f64| Cost { wall: quantile(times, 0.5), cpu: cpu / self.runs as f64 };
        Ok((cost(&mut firsts, first_cpu), cost(&mut seconds, second_cpu)))
    }

    /// Compacted rows with mutations that wait, beside the same rows without.
    async fn mutations(&self, report: &mut Report, batches: &[RecordBatch]) -> Result<()> {
        for table in ["plain", "keyed"] {
            self.execute(&create_table(table, "DAY")).await?;
            self.ingest(table, batches).await?;
            self.execute(&format!("OPTIMIZE TABLE {table}")).await?;
        }
        for n in 0..self.mutations {
            // A mutation that acts on no row is not kept: each has a host and, where it names one, a tick of ten seconds.
            let host = format!("hostname = 'host_{}'", n % self.hosts);
            let seconds = self.ticks * n / self.mutations * 10;
            let at = format!("TIMESTAMP '2016-01-01T00:00:00' + INTERVAL '{seconds} seconds'");
            let sql = match n % 4 {
                0 => format!("DELETE FROM keyed WHERE {host} AND ts = {at}"),
                1 => format!("UPDATE keyed SET usage_user = 0 WHERE {host} AND usage_idle > usage_nice"),
                2 => format!("UPDATE keyed SET usage_idle = usage_idle + 1 WHERE ts >= {at} AND {host}"),
                _ => format!("DELETE FROM keyed WHERE {host} AND usage_irq = usage_softirq"),
            };
            self.execute(&sql).await?;
        }
        let waiting = self.rows("SELECT seq FROM system.mutations").await?;
        let waiting: usize = waiting.iter().map(RecordBatch::num_rows).sum();
        if waiting < self.mutations / 2 {
            return Err(Error::internal(format!("only {waiting} mutations wait")));
        }
        self.queries(report, &format!("{waiting} mutations waiting")).await?;
        Ok(())
    }
}

/// Both costs and their ratio.
fn compare(report: &mut Report, what: &str, plain: Cost, other: Cost) {
    report.add(format!("{what}: wall"), other.wall * 1e3, "ms");
    report.add(format!("{what}: wall, ratio"), other.wall / plain.wall.max(1e-9), "");
    report.add(format!("{what}: CPU, ratio"), other.cpu / plain.cpu.max(0.01), "");
}
