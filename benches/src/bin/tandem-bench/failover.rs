//! What writers notice when the node that they write to is killed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use clap::ValueEnum;
use serde_json::Value;
use tandem_client::Client;
use tandem_types::{Error, Result, parse_duration};
use tokio::task::JoinHandle;

use crate::cluster::{bounded, status, until_all};
use crate::load::{Turns, one_number};
use crate::report::{Report, quantile};
use crate::server::{NodeSpec, Server, ServerArgs};

/// kill -9 of the node that clients write to: the longest gap between acknowledgements, rows lost, rows doubled.
///
/// Three nodes on one store. Clients know all three addresses and write numbered rows, one transaction after another, each
/// under a token, for the whole run; nothing but the client library does anything about a failure. Again and again the
/// node that they use is killed and, a while later, started again at the same address. In multi-primary mode clients just
/// go on at the next address; in single-primary mode the primary is killed, and another node has to take over. At the end
/// every node is asked for all rows.
///
/// Goals: the longest gap below 1 s in multi-primary mode, below 5 s in single-primary mode at defaults; none lost, none
/// doubled.
#[derive(Clone, Debug, clap::Args)]
pub struct FailoverArgs {
    /// One of the two modes only
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Rows of a transaction; each size has its own clients
    #[arg(long, default_value = "1,100", value_delimiter = ',')]
    sizes: Vec<usize>,
    /// Clients of each size
    #[arg(long, default_value_t = 2)]
    clients: usize,
    /// Kills in each mode
    #[arg(long, default_value_t = 5)]
    kills: usize,
    /// Between a kill and the node's next start, and between that and the next kill
    #[arg(long, default_value = "8s", value_parser = parse_duration)]
    pause: Duration,
    /// Silence of a single primary after which another takes over, such as 3s [default: the database's default]
    #[arg(long, value_name = "TIME")]
    failover_after: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    MultiPrimary,
    SinglePrimary,
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Self::MultiPrimary => "multi-primary",
            Self::SinglePrimary => "single-primary",
        }
    }
}

const NODES: usize = 3;
/// Beyond what the pauses take, a kill and all that follows it takes no longer.
const KILL_GIVE_UP: Duration = Duration::from_secs(180);

pub async fn run(args: FailoverArgs, server_args: &ServerArgs) -> Result<Report> {
    let mut report = Report::new("failover");
    report.add("nodes", NODES as f64, "");
    report.add("clients of each size", args.clients as f64, "");
    report.add("kills in each mode", args.kills as f64, "");
    let modes = args.mode.map_or(vec![Mode::MultiPrimary, Mode::SinglePrimary], |mode| vec![mode]);
    let kills = u32::try_from(args.kills).unwrap_or(u32::MAX).saturating_add(1);
    let limit = (KILL_GIVE_UP + args.pause * 2).saturating_mul(kills);
    for mode in modes {
        bounded(limit, mode.name(), measure(&args, mode, server_args, &mut report)).await?;
    }
    Ok(report)
}

async fn measure(
    args: &FailoverArgs,
    mode: Mode,
    server_args: &ServerArgs,
    report: &mut Report,
) -> Result<()> {
    let home = server_args.temporary()?;
    let mut cluster = Cluster::start(server_args, home.path()).await?;
    let first = cluster.nodes.first().ok_or_else(|| Error::internal("there is no node"))?;
    let client = first.server()?.connect().await?;
    client.execute("CREATE TABLE t (client BIGINT, n BIGINT)").await?;
    if mode == Mode::SinglePrimary {
        client.execute("ALTER DATABASE SET (mode = 'single-primary')").await?;
    }
    if let Some(silence) = &args.failover_after {
        client.execute(&format!("ALTER DATABASE SET (failover_after = '{silence}')")).await?;
    }
    cluster.settled(mode).await?;

    let enough = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for rows in &args.sizes {
        for _ in 0..args.clients.max(1) {
            let number = clients.len() as i64;
            let client = Client::connect(&cluster.addresses()).await?;
            let writing = write(client.clone(), number, (*rows).max(1), enough.clone());
            clients.push(Writing { number, rows: (*rows).max(1), client, task: tokio::spawn(writing) });
        }
    }
    let mut kills = Vec::new();
    for _ in 0..args.kills {
        tokio::time::sleep(args.pause).await;
        let used = cluster.used(mode, &clients).await?;
        kills.push(Instant::now());
        cluster.kill(used).await?;
        tokio::time::sleep(args.pause).await;
        cluster.restart(server_args, home.path(), used).await?;
        cluster.settled(mode).await?;
    }
    tokio::time::sleep(args.pause).await;
    enough.store(true, Ordering::Relaxed);

    let mut written = Vec::new();
    for client in clients {
        let acks = client.task.await.map_err(|e| Error::internal(format!("a client failed: {e}")))??;
        written.push(Written { number: client.number, rows: client.rows, acks });
    }
    for rows in &args.sizes {
        let own: Vec<&Written> = written.iter().filter(|w| w.rows == *rows).collect();
        add_gaps(report, &format!("{}, {rows}-row transactions", mode.name()), &own, &kills);
    }
    let (lost, doubled) = cluster.count(&written).await?;
    report.add(
        format!("{}: rows acknowledged", mode.name()),
        written.iter().map(|w| w.total() as f64).sum(),
        "rows",
    );
    report.add(format!("{}: rows lost", mode.name()), lost, "rows");
    report.add(format!("{}: rows doubled", mode.name()), doubled, "rows");
    Ok(())
}

fn add_gaps(report: &mut Report, name: &str, written: &[&Written], kills: &[Instant]) {
    let transactions: usize = written.iter().map(|w| w.acks.len()).sum();
    report.add(format!("{name}: acknowledged"), transactions as f64, "");
    let longest = |from: Option<Instant>, to: Option<Instant>| {
        written.iter().map(|w| w.longest_gap(from, to)).max().unwrap_or_default().as_secs_f64() * 1e3
    };
    report.add(
        format!("{name}: longest gap before the first kill"),
        longest(None, kills.first().copied()),
        "ms",
    );
    let ends = kills.iter().skip(1).copied().map(Some).chain([None]);
    let mut gaps: Vec<f64> = kills.iter().zip(ends).map(|(kill, end)| longest(Some(*kill), end)).collect();
    report.add(format!("{name}: longest gap after a kill, median"), quantile(&mut gaps, 0.5), "ms");
    report.add(format!("{name}: longest gap after a kill, longest"), quantile(&mut gaps, 1.0), "ms");
}

/// The nodes on one store.
struct Cluster {
    nodes: Vec<Node>,
}

struct Node {
    spec: NodeSpec,
    /// `None` while it is dead.
    server: Option<Server>,
}

impl Node {
    fn server(&self) -> Result<&Server> {
        self.server.as_ref().ok_or_else(|| Error::unavailable(format!("{} is dead", self.spec.name)))
    }
}

impl Cluster {
    async fn start(args: &ServerArgs, home: &Path) -> Result<Self> {
        let mut nodes = Vec::new();
        for number in 0..NODES {
            let name = format!("n{number}");
            let mut spec = NodeSpec::new(&name, &["--node-id", &name]);
            let server = Server::start_node(args, home, &spec).await?;
            // Where clients will look for it again.
            spec.flight = server.flight().to_owned();
            nodes.push(Node { spec, server: Some(server) });
        }
        Ok(Self { nodes })
    }

    /// As a client is given them.
    fn addresses(&self) -> String {
        let urls: Vec<String> = self.nodes.iter().map(|node| url_of(&node.spec)).collect();
        urls.join(",")
    }

    fn living(&self) -> Vec<&Server> {
        self.nodes.iter().filter_map(|node| node.server.as_ref()).collect()
    }

    /// Waits until all nodes know of each other, and, where there is to be a primary, of it.
    async fn settled(&self, mode: Mode) -> Result<()> {
        until_all(&self.living(), "the nodes know each other", |status| {
            let peers = status.get("peers").and_then(Value::as_array).map_or(0, Vec::len);
            let is = |key: &str, value: &str| status.get(key).and_then(Value::as_str) == Some(value);
            let role = mode == Mode::MultiPrimary || is("role", "primary") || is("role", "standby");
            is("mode", mode.name()) && role && peers + 1 >= NODES
        })
        .await
    }

    /// The node that is to be killed: the primary, or the one that most clients write to.
    async fn used(&self, mode: Mode, clients: &[Writing]) -> Result<usize> {
        if mode == Mode::SinglePrimary {
            let living = self.living();
            let asked = living.first().ok_or_else(|| Error::unavailable("no node is alive"))?;
            let status = status(&asked.connect().await?).await?;
            let name = status.pointer("/primary/node_id").and_then(Value::as_str);
            let place = self.nodes.iter().position(|node| Some(node.spec.name.as_str()) == name);
            return place.ok_or_else(|| Error::unavailable("nobody says who is the primary"));
        }
        let users = |node: &Node| clients.iter().filter(|c| c.client.url() == url_of(&node.spec)).count();
        let most = self.nodes.iter().enumerate().max_by_key(|(_, node)| users(node));
        most.map(|(place, _)| place).ok_or_else(|| Error::internal("there is no node"))
    }

    async fn kill(&mut self, place: usize) -> Result<()> {
        match self.nodes.get_mut(place).and_then(|node| node.server.take()) {
            Some(server) => server.kill().await,
            None => Err(Error::internal("a dead node was to be killed")),
        }
    }

    async fn restart(&mut self, args: &ServerArgs, home: &Path, place: usize) -> Result<()> {
        if let Some(node) = self.nodes.get_mut(place) {
            node.server = Some(Server::start_node(args, home, &node.spec).await?);
        }
        Ok(())
    }

    /// Rows that were acknowledged and are not there, and rows that are there more than once, on the node where it is
    /// worst.
    async fn count(&self, written: &[Written]) -> Result<(f64, f64)> {
        let newest = written.iter().flat_map(|w| &w.acks).map(|ack| ack.seq).max().unwrap_or_default();
        let (mut lost, mut doubled) = (0.0, 0.0);
        for server in self.living() {
            let client = server.connect().await?.with_min_seq(newest)?;
            let (mut lost_here, mut doubled_here) = (0.0, 0.0);
            for own in written {
                let (of, total) = (format!("FROM t WHERE client = {}", own.number), own.total());
                let rows = one_number(&client, &format!("SELECT count(*) {of}")).await?;
                let distinct = one_number(&client, &format!("SELECT count(DISTINCT n) {of}")).await?;
                let sent = format!("SELECT count(DISTINCT n) {of} AND n >= 0 AND n < {total}");
                doubled_here += rows - distinct;
                lost_here += total as f64 - one_number(&client, &sent).await?;
            }
            lost = f64::max(lost, lost_here);
            doubled = f64::max(doubled, doubled_here);
        }
        Ok((lost, doubled))
    }
}

fn url_of(spec: &NodeSpec) -> String {
    format!("grpc://{}", spec.flight)
}

/// A client at work.
struct Writing {
    number: i64,
    rows: usize,
    client: Client,
    task: JoinHandle<Result<Vec<Ack>>>,
}

/// What a client has done: transactions of `rows` rows, numbered from 0.
struct Written {
    number: i64,
    rows: usize,
    acks: Vec<Ack>,
}

struct Ack {
    at: Instant,
    seq: u64,
}

impl Written {
    fn total(&self) -> usize {
        self.acks.len() * self.rows
    }

    /// The longest time between two acknowledgements that ends within the span.
    fn longest_gap(&self, from: Option<Instant>, to: Option<Instant>) -> Duration {
        let pairs = self.acks.iter().zip(self.acks.iter().skip(1));
        let own = pairs.filter(|(_, after)| {
            from.is_none_or(|from| after.at > from) && to.is_none_or(|to| after.at <= to)
        });
        own.map(|(before, after)| after.at.duration_since(before.at)).max().unwrap_or_default()
    }
}

async fn write(client: Client, number: i64, rows: usize, enough: Arc<AtomicBool>) -> Result<Vec<Ack>> {
    let mut turns = Turns::open(&client, "t", schema()).await?;
    let mut acks = Vec::new();
    while !enough.load(Ordering::Relaxed) {
        let first = (acks.len() * rows) as i64;
        let ack = turns.write(batch(number, first, rows)?).await?;
        acks.push(Ack { at: Instant::now(), seq: ack.seq });
    }
    turns.finish().await?;
    Ok(acks)
}

fn schema() -> SchemaRef {
    let column = |name: &str| Field::new(name, DataType::Int64, true);
    Arc::new(Schema::new(vec![column("client"), column("n")]))
}

fn batch(number: i64, first: i64, rows: usize) -> Result<RecordBatch> {
    let numbers = Int64Array::from_iter_values(first..first + rows as i64);
    let columns: [Arc<dyn arrow::array::Array>; 2] =
        [Arc::new(Int64Array::from(vec![number; rows])), Arc::new(numbers)];
    RecordBatch::try_new(schema(), columns.into()).map_err(|e| Error::internal(format!("the rows: {e}")))
}
