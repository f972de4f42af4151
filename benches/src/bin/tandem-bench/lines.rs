//! What a million rows of line protocol cost: in the parser alone, over HTTP, and beside the same rows over Flight.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use tandem_benches::cpu::create_table;
use tandem_benches::lines::{TABLE, lines};
use tandem_lines::{Catalog, KnownTable, Parser, Settings};
use tandem_types::{Error, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Workload;
use crate::load::{expect_rows, make, put};
use crate::process::{cpu_seconds, thread_cpu_seconds, written_bytes};
use crate::report::Report;
use crate::server::{Server, ServerArgs};

/// Bytes that a server is handed at a time, about.
const PIECE_BYTES: usize = 64 << 10;

#[derive(Clone, Debug, clap::Args)]
pub struct LinesArgs {
    #[command(flatten)]
    workload: LineWorkload,
    /// Connections, each with one request at a time
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Seconds of a processor that the parser alone is given, for each of its figures
    #[arg(long, default_value_t = 3.0)]
    parser_seconds: f64,
}

/// Fewer rows than elsewhere: as text they take three times the memory.
#[derive(Clone, Copy, Debug, clap::Args)]
struct LineWorkload {
    /// Of the generator
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Series
    #[arg(long, default_value_t = 1_000)]
    hosts: usize,
    /// In all
    #[arg(long, default_value_t = 2_000_000)]
    rows: usize,
    /// Of a request
    #[arg(long, default_value_t = 10_000)]
    batch_rows: usize,
}

pub async fn run(args: LinesArgs, server_args: &ServerArgs) -> Result<Report> {
    let LineWorkload { seed, hosts, rows, batch_rows } = args.workload;
    let workload = Workload { seed, hosts, rows, batch_rows };
    let mut report = Report::new("lines");
    report.add("rows", rows as f64, "rows");
    report.add("rows of a request", batch_rows as f64, "rows");
    report.add("connections", args.connections as f64, "");
    parser_alone(&mut report, workload, args.parser_seconds)?;

    let batches = make(seed, hosts, rows, batch_rows)?;
    let bodies = bodies(&batches)?;
    let bytes: usize = bodies.iter().map(Vec::len).sum();
    report.add("bytes of a line", bytes as f64 / rows as f64, "B");
    let by_lines = over_http(&mut report, server_args, bodies, rows, args.connections).await?;
    let by_flight = over_flight(&mut report, server_args, &batches, rows, args.connections).await?;
    report.add("server CPU, lines against Flight", by_lines / by_flight, "x");
    Ok(report)
}

fn bodies(batches: &[RecordBatch]) -> Result<Vec<Vec<u8>>> {
    let made = batches.iter().map(lines).collect::<std::result::Result<_, _>>();
    made.map_err(|e| Error::internal(format!("the workload: {e}")))
}

/// One thread that parses requests again and again: with the usual series, and with none that comes twice.
fn parser_alone(report: &mut Report, workload: Workload, seconds: f64) -> Result<()> {
    let Workload { seed, hosts, batch_rows, .. } = workload;
    let kinds = [("parser alone", hosts), ("parser alone, each series once in a request", batch_rows)];
    for (name, hosts) in kinds {
        // As many as do not stay in the processor's caches.
        let bodies = bodies(&make(seed, hosts, 10 * batch_rows, batch_rows)?)?;
        let measured = std::thread::spawn(move || parse(&bodies, seconds)).join();
        let (bytes, lines, took) = measured.map_err(|_| Error::internal("the parser's thread failed"))??;
        report.add(name, bytes as f64 / took / 1e6, "MB/s of CPU");
        report.add(format!("{name}: lines"), lines as f64 / took, "lines/s of CPU");
        report.add(format!("{name}: CPU"), took / lines as f64 * 1e6, "s/Mrow");
    }
    Ok(())
}

/// Bytes and lines that were parsed, and the seconds of CPU that it took.
fn parse(bodies: &[Vec<u8>], seconds: f64) -> Result<(usize, u64, f64)> {
    let (mut bytes, mut lines) = (0, 0);
    let before = thread_cpu_seconds()?;
    loop {
        for body in bodies {
            let settings = Settings { body_bytes: Some(body.len() as u64), ..Settings::default() };
            let mut parser = Parser::new(settings, Arc::new(Nothing));
            for piece in body.chunks(PIECE_BYTES) {
                parser.feed(piece)?;
            }
            parser.finish()?;
            let rows: usize = parser.take().iter().map(|batch| batch.batch.num_rows()).sum();
            if parser.failed() > 0 || rows as u64 != parser.rows() {
                return Err(Error::internal(format!("lines were refused: {:?}", parser.errors())));
            }
            bytes += body.len();
            lines += parser.rows();
        }
        let took = thread_cpu_seconds()? - before;
        if took >= seconds {
            return Ok((bytes, lines, took));
        }
    }
}

/// No table exists.
struct Nothing;

impl Catalog for Nothing {
    fn table(&self, _: &str) -> Option<KnownTable> {
        None
    }
}

/// The server's seconds of CPU for a million rows.
async fn over_http(
    report: &mut Report,
    server_args: &ServerArgs,
    bodies: Vec<Vec<u8>>,
    rows: usize,
    connections: usize,
) -> Result<f64> {
    let home = server_args.temporary()?;
    let server = Server::start(server_args, home.path()).await?;
    let millions = rows as f64 / 1e6;
    let bytes: usize = bodies.iter().map(Vec::len).sum();
    let bodies = Arc::new(bodies);
    let connections = connections.max(1);
    let own = std::process::id();

    let puts_before = puts(&server).await?;
    let (cpu_before, own_before) = (server.cpu()?, cpu_seconds(own)?);
    let written_before = written_bytes(server.pid())?;
    let started = Instant::now();
    let mut senders = Vec::new();
    for first in 0..connections {
        let (bodies, address) = (bodies.clone(), server.http().to_owned());
        senders.push(tokio::spawn(async move {
            let mut connection = Connection::open(&address).await?;
            for body in bodies.iter().skip(first).step_by(connections) {
                connection.write(body).await?;
            }
            Ok::<(), Error>(())
        }));
    }
    for sender in senders {
        sender.await.map_err(|e| Error::internal(format!("a connection failed: {e}")))??;
    }
    let took = started.elapsed().as_secs_f64();
    let cpu = (server.cpu()? - cpu_before) / millions;
    let own_cpu = (cpu_seconds(own)? - own_before) / millions;
    let written = written_bytes(server.pid())? - written_before;
    let compacted = server.counter("tandem_compacted_rows_total").await?;
    let puts = puts(&server).await? - puts_before;
    expect_rows(&server.connect().await?, TABLE, rows).await?;

    report.add("HTTP: acknowledged", rows as f64 / took, "rows/s");
    report.add("HTTP: acknowledged, text", bytes as f64 / took / 1e6, "MB/s");
    report.add("HTTP: server CPU until acknowledged", cpu, "s/Mrow");
    report.add("HTTP: rows compacted meanwhile", compacted, "rows");
    report.add("HTTP: sender CPU", own_cpu, "s/Mrow");
    report.add("HTTP: store requests: PUT", puts / millions, "1/Mrow");
    report.add("HTTP: written", written as f64 / rows as f64, "B/row");
    Ok(cpu)
}

/// Objects that the server has made.
async fn puts(server: &Server) -> Result<f64> {
    let requests = server.store_requests().await?;
    Ok(["create", "put"].iter().filter_map(|op| requests.get(*op)).sum())
}

/// The same rows as record batches.
async fn over_flight(
    report: &mut Report,
    server_args: &ServerArgs,
    batches: &[RecordBatch],
    rows: usize,
    connections: usize,
) -> Result<f64> {
    let home = server_args.temporary()?;
    let server = Server::start(server_args, home.path()).await?;
    server.connect().await?.execute(&create_table(TABLE, "day")).await?;
    let millions = rows as f64 / 1e6;
    let cpu_before = server.cpu()?;
    let started = Instant::now();
    put(&server, TABLE, batches, connections, 1).await?;
    let took = started.elapsed().as_secs_f64();
    let cpu = (server.cpu()? - cpu_before) / millions;
    let compacted = server.counter("tandem_compacted_rows_total").await?;
    report.add("Flight: acknowledged", rows as f64 / took, "rows/s");
    report.add("Flight: server CPU until acknowledged", cpu, "s/Mrow");
    report.add("Flight: rows compacted meanwhile", compacted, "rows");
    Ok(cpu)
}

/// A client of its own, which costs as little as one can.
struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await.map_err(|e| broken(&e))?;
        stream.set_nodelay(true).map_err(|e| broken(&e))?;
        Ok(Self { stream, answer: Vec::new() })
    }

    /// Returns when the lines are durable.
    async fn write(&mut self, body: &[u8]) -> Result<()> {
        let head = format!("POST /write HTTP/1.1\r\nHost: bench\r\nContent-Length: {}\r\n\r\n", body.len());
        self.stream.write_all(head.as_bytes()).await.map_err(|e| broken(&e))?;
        self.stream.write_all(body).await.map_err(|e| broken(&e))?;
        self.answer.clear();
        // Success has no body.
        while !self.answer.ends_with(b"\r\n\r\n") {
            let read = self.stream.read_buf(&mut self.answer).await.map_err(|e| broken(&e))?;
            if read == 0 {
                return Err(Error::unavailable("the server closed the connection"));
            }
            if self.answer.len() >= 12 && !self.answer.starts_with(b"HTTP/1.1 204") {
                let answer = String::from_utf8_lossy(&self.answer);
                return Err(Error::unavailable(format!("the server answered: {answer}")));
            }
        }
        Ok(())
    }
}

fn broken(error: &std::io::Error) -> Error {
    Error::unavailable(format!("the connection to the server: {error}"))
}
