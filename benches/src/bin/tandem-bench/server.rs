//! A `tandem serve` of our own, on a directory of our own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tandem_client::Client;
use tandem_types::{Error, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::process::cpu_seconds;

/// A node that has work to recover may take long; one that takes longer is stuck.
const READY_WITHIN: Duration = Duration::from_secs(600);

/// What all measurements are told.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerArgs {
    /// The server [default: `tandem` beside this program]
    #[arg(long, value_name = "FILE", global = true)]
    pub binary: Option<PathBuf>,
    /// Where the database is made, and removed afterwards [default: the system's directory for temporary files]
    #[arg(long, value_name = "DIR", global = true)]
    pub dir: Option<PathBuf>,
    /// An option for `tandem serve`, such as --serve-option=--cache-size=512MB; repeat for more
    #[arg(long, value_name = "OPTION", global = true)]
    pub serve_option: Vec<String>,
}

impl ServerArgs {
    /// An empty directory that goes away with the value.
    pub fn temporary(&self) -> Result<tempfile::TempDir> {
        let parent = self.dir.clone().unwrap_or_else(std::env::temp_dir);
        let made = tempfile::Builder::new().prefix("tandem-bench-").tempdir_in(&parent);
        made.map_err(|e| io_error(&parent, &e))
    }

    fn binary(&self) -> Result<PathBuf> {
        if let Some(binary) = &self.binary {
            return Ok(binary.clone());
        }
        let own =
            std::env::current_exe().map_err(|e| Error::internal(format!("where is this program: {e}")))?;
        Ok(own.with_file_name("tandem"))
    }
}

pub fn io_error(path: &Path, error: &std::io::Error) -> Error {
    Error::unavailable(format!("{}: {error}", path.display()))
}

/// One of the servers on a store.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// Of its ready file and its log.
    pub name: String,
    /// Where it listens; port 0: anywhere.
    pub flight: String,
    /// For `tandem serve`, beside those that all servers are given.
    pub options: Vec<String>,
}

impl NodeSpec {
    pub fn new(name: &str, options: &[&str]) -> Self {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Self { name: name.to_owned(), flight: "127.0.0.1:0".to_owned(), options }
    }
}

/// Where the servers of a measurement have their database.
pub fn store_dir(home: &Path) -> PathBuf {
    home.join("store")
}

/// A running server. Dropping it kills it.
pub struct Server {
    child: Child,
    pid: u32,
    flight: String,
    http: String,
    /// From the start of the process until it accepted requests.
    pub ready_after: Duration,
}

impl Server {
    /// Starts one on the store of `home` and waits until it accepts requests.
    pub async fn start(args: &ServerArgs, home: &Path) -> Result<Self> {
        Self::start_node(args, home, &NodeSpec::new("serve", &[])).await
    }

    /// Starts one of several on that store.
    pub async fn start_node(args: &ServerArgs, home: &Path, node: &NodeSpec) -> Result<Self> {
        let ready = home.join(format!("{}.ready.json", node.name));
        // One of an earlier server would answer too early.
        let _ = std::fs::remove_file(&ready);
        let binary = args.binary()?;
        let log_path = home.join(format!("{}.log", node.name));
        let log = std::fs::File::create(&log_path).map_err(|e| io_error(&log_path, &e))?;
        let started = Instant::now();
        let mut child = Command::new(&binary)
            .arg("serve")
            .arg("--store")
            .arg(store_dir(home))
            .args(["--flight", &node.flight, "--http", "127.0.0.1:0", "--ready-file"])
            .arg(&ready)
            .args(&args.serve_option)
            .args(&node.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| io_error(&binary, &e))?;
        let text = loop {
            if let Ok(text) = std::fs::read_to_string(&ready) {
                break text;
            }
            let ended = child.try_wait().map_err(|e| io_error(&binary, &e))?;
            if ended.is_some() || started.elapsed() > READY_WITHIN {
                let log = std::fs::read_to_string(&log_path).unwrap_or_default();
                return Err(Error::unavailable(format!("the server did not become ready: {log}")));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        let ready_after = started.elapsed();
        let json: serde_json::Value = serde_json::from_str(&text)
            .map_err(|e| Error::internal(format!("the ready file is not readable: {e}")))?;
        let address = |key: &str| json.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
        let pid = child.id().ok_or_else(|| Error::unavailable("the server ended at once"))?;
        Ok(Self { child, pid, flight: address("flight"), http: address("http"), ready_after })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where it listens, as `HOST:PORT`.
    pub fn flight(&self) -> &str {
        &self.flight
    }

    /// Where it listens for HTTP, as `HOST:PORT`.
    pub fn http(&self) -> &str {
        &self.http
    }

    pub fn url(&self) -> String {
        format!("grpc://{}", self.flight)
    }

    /// CPU seconds since it started.
    pub fn cpu(&self) -> Result<f64> {
        cpu_seconds(self.pid)
    }

    /// A new connection.
    pub async fn connect(&self) -> Result<Client> {
        Client::connect(&self.url()).await
    }

    /// Kills it at once, as a crash would.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await.map_err(|e| Error::internal(format!("the server cannot be killed: {e}")))
    }

    /// Requests to the store since it started, by operation.
    pub async fn store_requests(&self) -> Result<BTreeMap<String, f64>> {
        let text = self.metrics().await?;
        let mut requests = BTreeMap::new();
        for line in text.lines().filter_map(|l| l.strip_prefix("tandem_store_requests_total{")) {
            let Some((labels, value)) = line.rsplit_once(' ') else { continue };
            let op = labels.split_once("op=\"").and_then(|(_, rest)| rest.split_once('"'));
            if let (Some((op, _)), Ok(value)) = (op, value.parse::<f64>()) {
                *requests.entry(op.to_owned()).or_default() += value;
            }
        }
        Ok(requests)
    }

    /// One number of `/metrics` that has no labels; 0 before it was counted for the first time.
    pub async fn counter(&self, name: &str) -> Result<f64> {
        let text = self.metrics().await?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.and_then(|v| v.trim().parse().ok()).unwrap_or(0.0))
    }

    async fn metrics(&self) -> Result<String> {
        let broken = |e: std::io::Error| Error::unavailable(format!("http://{}/metrics: {e}", self.http));
        let mut connection = TcpStream::connect(&self.http).await.map_err(broken)?;
        // HTTP/1.0: the answer is whole and ends with the connection.
        let request = format!("GET /metrics HTTP/1.0\r\nHost: {}\r\n\r\n", self.http);
        connection.write_all(request.as_bytes()).await.map_err(broken)?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.map_err(broken)?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.contains(" 200 ") => Ok(body.to_owned()),
            _ => Err(Error::unavailable(format!("http://{}/metrics answered: {answer}", self.http))),
        }
    }
}
