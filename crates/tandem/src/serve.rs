//! `tandem serve`: a node on a store, with its listeners.

mod failover;
mod lines;
mod listen;
mod options;
mod roles;
mod security;
mod stopping;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tandem_env::{Chance, Env, SystemChance, SystemClock, within};
use tandem_flight::{FlightConfig, NodeInfo};
use tandem_http::{Metrics, Probes};
use tandem_node::{Node, NodeConfig};
use tandem_pg::PgConfig;
use tandem_types::{Error, ErrorKind, Result};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use options::{ServeArgs, key_value};

use lines::Lines;
use listen::{Bound, bind};
use options::Options;
use security::{Security, SecurityArgs};
use stopping::Stopping;

/// Runs a node until it is told to stop by SIGTERM or SIGINT.
pub async fn run(args: ServeArgs) -> Result<()> {
    let options = args.resolve()?;
    start_logging();
    // Before anything is counted.
    let metrics = tandem_http::install_metrics()?;
    let security = options.security.open()?;
    // Before the store is touched: a taken port is found out at once.
    let flight = bind("--flight", &options.flight, &security)
        .await?
        .ok_or_else(|| Error::invalid("--flight off: a node without its Flight listener serves nobody"))?;
    let http = bind("--http", &options.http, &security).await?;
    let pg = bind_pg(options.pg.as_deref(), &security).await?;

    let node = open(&options, &flight, &security).await?;
    let serving = start(&node, Listeners { flight, http, pg }, metrics, &options, &security).await?;
    announce(&node, &serving, &options, &security)?;
    wait_for_signal().await?;

    println!("stopping: finishing what is running (again to stop at once)");
    let stopping = Stopping::begin()?;
    let stop = async {
        stopping.waits_for("a standby that takes over as the primary");
        node.hand_on().await;
        node.dismiss_followers();
        serving.stop(&stopping).await?;
        stopping.waits_for("upkeep and the last heartbeat");
        node.shutdown().await;
        stopping.waits_for("threads that compute, or read or write files");
        Ok(())
    };
    tokio::select! {
        stopped = stop => stopped,
        second = wait_for_signal() => second,
    }
}

/// The listeners of a node that serves.
struct Listeners {
    flight: Bound,
    http: Option<Bound>,
    pg: Option<Bound>,
}

/// Where PostgreSQL's clients look for it: a second node on the machine does without, unless it is told an address.
const PG_ADDRESS: &str = "127.0.0.1:8812";

async fn bind_pg(address: Option<&str>, security: &Security) -> Result<Option<Bound>> {
    if let Some(address) = address {
        return bind("--pg", address, security).await;
    }
    match bind("--pg", PG_ADDRESS, security).await {
        Err(error) if error.kind() == ErrorKind::Unavailable => {
            tracing::warn!(%error, "no listener for PostgreSQL's clients; --pg 127.0.0.1:0 picks a free port, --pg off none");
            Ok(None)
        }
        bound => bound,
    }
}

/// The store; of a fork, with the stores behind it that it shares objects with.
async fn open_store(url: &str, options: Vec<(String, String)>) -> Result<Env> {
    let own = Env::open(url, &options)?;
    tandem_copy::open_parents(own, &move |url: &str| Env::open(url, &options)).await
}

/// Opens the node that the options describe.
async fn open(options: &Options, flight: &Bound, security: &Security) -> Result<Node> {
    let env = open_store(&options.store, options.store_options.clone()).await?;
    let mut config = options.node.clone();
    if config.advertise.is_none() {
        config.advertise = roles::reached_at(security.flight_scheme(), flight.address);
    }
    config.connect = security.peers.clone();
    Node::open(env, config).await
}

/// A node with a Flight listener on a free loopback port, for commands that were given a store instead of a server.
pub struct Private {
    pub url: String,
    node: Node,
    stop: watch::Sender<bool>,
    service: tokio::task::JoinHandle<Result<()>>,
}

impl Private {
    /// `store_options` are of the form `K=V`.
    pub async fn start(store: &str, store_options: &[String]) -> Result<Self> {
        let store_options: Vec<_> =
            store_options.iter().map(|text| options::key_value(text)).collect::<Result<_>>()?;
        let env = open_store(store, store_options).await?;
        let node = Node::open(env, NodeConfig::default()).await?;
        let bound = bind("--store", "127.0.0.1:0", &SecurityArgs::default().open()?).await?;
        let Bound { listener, address } = bound.ok_or_else(|| Error::internal("no loopback address"))?;
        let (stop, stopped) = watch::channel(false);
        let service = tokio::spawn(tandem_flight::serve(
            listener,
            node.engine().clone(),
            NodeInfo { node_id: "private".to_owned(), status: node.status(), tail: None, submit: None },
            FlightConfig::default(),
            until(stopped),
        ));
        Ok(Self { url: format!("grpc://{address}"), node, stop, service })
    }

    pub async fn stop(self) {
        let _ = self.stop.send(true);
        // The command's own connection is the only client there was.
        let _ = self.service.await;
        self.node.shutdown().await;
    }
}

/// HTTP requests may go on for this long once those over Flight have ended.
const HTTP_WITHIN: Duration = Duration::from_secs(2);

/// The services of a running node.
struct Serving {
    flight: SocketAddr,
    http: Option<SocketAddr>,
    pg: Option<SocketAddr>,
    ready: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    flight_service: JoinHandle<Result<()>>,
    http_service: Option<JoinHandle<Result<()>>>,
    pg_service: Option<JoinHandle<Result<()>>>,
}

impl Serving {
    async fn stop(self, stopping: &Stopping) -> Result<()> {
        self.ready.store(false, Ordering::Release);
        // Services that have ended by themselves do not listen any more; their result tells why.
        let _ = self.stop.send(true);
        let failed = |e| Error::internal(format!("a service failed: {e}"));
        stopping.waits_for("Flight requests");
        // Sets its requests a limit itself.
        self.flight_service.await.map_err(failed)??;
        if let Some(service) = self.pg_service {
            stopping.waits_for("statements of PostgreSQL's clients");
            // The same.
            service.await.map_err(failed)??;
        }
        let Some(mut service) = self.http_service else { return Ok(()) };
        stopping.waits_for("HTTP requests");
        match within(&SystemClock, HTTP_WITHIN, &mut service).await {
            Some(served) => served.map_err(failed)?,
            // A client that sends half a request never ends it.
            None => {
                tracing::warn!("HTTP requests are still running after the time to finish; leaving them");
                service.abort();
                Ok(())
            }
        }
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone: the process is ending.
    let _ = stopped.wait_for(|stop| *stop).await;
}

async fn start(
    node: &Node,
    listeners: Listeners,
    metrics: Metrics,
    options: &Options,
    security: &Security,
) -> Result<Serving> {
    let (stop, stopped) = watch::channel(false);
    let ready = Arc::new(AtomicBool::new(true));
    let Listeners { flight, http, pg } = listeners;
    let address = |bound: &Option<Bound>| bound.as_ref().map(|b| b.address);
    let (flight_address, http_address, pg_address) = (flight.address, address(&http), address(&pg));
    let pg_service = pg.map(|pg| {
        let config = PgConfig { access: security.access.clone(), ..PgConfig::default() };
        tokio::spawn(tandem_pg::serve(pg.listener, node.engine().clone(), config, until(stopped.clone())))
    });
    let http_service = http.map(|http| {
        let probes =
            Probes { metrics, observe: node.observe(), failure: node.health(), ready: ready.clone() };
        let access = security.access.clone();
        let lines = Arc::new(Lines(node.engine().database().clone()));
        tokio::spawn(tandem_http::serve(http.listener, probes, lines, access, until(stopped.clone())))
    });
    let info = NodeInfo {
        node_id: options.node.node_id.clone(),
        status: node.status(),
        tail: Some(node.tail()),
        submit: Some(node.submit()),
    };
    let service = tandem_flight::serve(
        flight.listener,
        node.engine().clone(),
        info,
        FlightConfig { access: security.access.clone(), ..FlightConfig::default() },
        until(stopped),
    );
    let flight_service = tokio::spawn(service);
    Ok(Serving {
        flight: flight_address,
        http: http_address,
        pg: pg_address,
        ready,
        stop,
        flight_service,
        http_service,
        pg_service,
    })
}

/// Tells scripts, by the ready file, and people, what to do next.
fn announce(node: &Node, serving: &Serving, options: &Options, security: &Security) -> Result<()> {
    if let Some(path) = &options.ready_file {
        write_ready_file(path, node, serving, &options.node.node_id)?;
    }
    let state = node.state();
    let rows: u64 = state.tables().map(|t| t.rows()).sum();
    let (tables, seq) = (state.tables().count(), state.seq());
    let (scheme, http_scheme) = (security.flight_scheme(), security.http_scheme());
    let connect = match (scheme, serving.flight.port()) {
        ("grpc", 8815) => String::new(),
        ("grpc", port) => format!(" --connect grpc://127.0.0.1:{port}"),
        // A certificate is for a name, which only its owner knows.
        (_, port) => format!(" --connect {scheme}://NAME:{port}"),
    };
    println!("TandemDB {} is ready", env!("CARGO_PKG_VERSION"));
    println!("  store   {}  ({tables} tables, {rows} rows, at commit {seq})", options.store);
    println!("  flight  {scheme}://{}", serving.flight);
    if let Some(http) = serving.http {
        println!("  http    {http_scheme}://{http}/metrics");
    }
    if let Some(pg) = serving.pg {
        println!("  pg      postgresql://{pg}/tandem");
    }
    println!();
    println!("Try next, in another terminal:");
    println!("  tandem sql{connect}                                      a SQL shell; \\? helps");
    println!(
        "  tandem import FILE.csv --table T --create{connect}       load CSV, Parquet, JSON lines or Arrow"
    );
    let advertised = options.node.advertise.clone();
    let flight = advertised.unwrap_or_else(|| format!("{scheme}://{}", from_here(serving.flight)));
    println!("  python: adbc_driver_flightsql.dbapi.connect(\"{flight}\", autocommit=True)");
    if let Some(pg) = serving.pg.map(from_here) {
        println!("  psql \"host={} port={} dbname=tandem\"", pg.ip(), pg.port());
    }
    println!("Ctrl-C stops the node; what was acknowledged is already safe.");
    std::io::stdout().flush().map_err(|e| Error::unavailable(format!("standard output: {e}")))
}

/// Where a client on this machine reaches a listener: one on all addresses has none of its own.
fn from_here(listens: SocketAddr) -> SocketAddr {
    match listens.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, listens.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, listens.port()).into(),
        _ => listens,
    }
}

/// Written under another name first, so that whoever waits for it never reads half of it.
fn write_ready_file(path: &Path, node: &Node, serving: &Serving, node_id: &str) -> Result<()> {
    let text = serde_json::json!({
        "node_id": node_id,
        "flight": serving.flight.to_string(),
        "http": serving.http.map(|a| a.to_string()),
        "pg": serving.pg.map(|a| a.to_string()),
        "seq": node.state().seq().0,
    });
    let part = path.with_extension("part");
    std::fs::write(&part, format!("{text}\n"))
        .and_then(|()| std::fs::rename(&part, path))
        .map_err(|e| Error::invalid(format!("--ready-file {}: {e}", path.display())))
}

async fn wait_for_signal() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|e| Error::internal(format!("cannot listen for signals: {e}")));
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

/// `RUST_LOG` says how much; by default decisions and warnings.
fn start_logging() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,tandem=info"));
    // Only the first call in a process counts; tests may have made one.
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .try_init();
}

/// A name for a node that was given none.
fn random_node_id() -> String {
    format!("node-{:08x}", SystemChance.next_u64() >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_reached_at_the_loopback_one() {
        let here = |text: &str| from_here(text.parse().unwrap()).to_string();
        assert_eq!(here("0.0.0.0:5"), "127.0.0.1:5");
        assert_eq!(here("[::]:5"), "[::1]:5");
        assert_eq!(here("10.1.2.3:5"), "10.1.2.3:5");
    }
}
