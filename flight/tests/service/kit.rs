//! A node in this process with a Flight port of its own, and a client of it.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{FlightInfo, Ticket};
use futures::TryStreamExt;
use tandem_env::Env;
use tandem_flight::{FlightConfig, NodeInfo, serve};
use tandem_node::{Node, NodeConfig};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

pub struct Server {
    pub uri: String,
    pub node: Node,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<tandem_types::Result<()>>,
    _dir: tempfile::TempDir,
}

pub async fn start() -> Server {
    start_with(FlightConfig::default()).await
}

pub async fn start_with(config: FlightConfig) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::open(dir.path().to_str().unwrap(), &[]).unwrap();
    let node = Node::open(env, NodeConfig { upkeep: false, ..NodeConfig::default() }).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel();
    let info = NodeInfo {
        node_id: "n1".to_owned(),
        status: node.status(),
        tail: Some(node.tail()),
        submit: Some(node.submit()),
    };
    let engine = node.engine().clone();
    let serving = tokio::spawn(serve(listener, engine, info, config, async move {
        let _ = stopped.await;
    }));
    Server { uri, node, stop, serving, _dir: dir }
}

impl Server {
    pub async fn client(&self) -> FlightSqlServiceClient<Channel> {
        FlightSqlServiceClient::new(self.channel().await)
    }

    pub async fn channel(&self) -> Channel {
        Endpoint::from_shared(self.uri.clone()).unwrap().connect().await.unwrap()
    }

    /// A client that takes hardly any answer before it is read.
    pub async fn narrow_client(&self) -> FlightSqlServiceClient<Channel> {
        let endpoint = Endpoint::from_shared(self.uri.clone()).unwrap();
        let endpoint = endpoint.initial_stream_window_size(16_384).initial_connection_window_size(65_535);
        FlightSqlServiceClient::new(endpoint.connect().await.unwrap())
    }

    /// Ends the service as `serve` does at shutdown.
    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.serving.await.unwrap().unwrap();
    }
}

/// Three rows with a timestamp, a text and a number.
pub fn rows(from: i64, count: i64) -> RecordBatch {
    let ts = TimestampMicrosecondArray::from_iter_values((from..from + count).map(|i| i * 1_000_000));
    let name = StringArray::from_iter_values((from..from + count).map(|i| format!("name {i}")));
    let value = Float64Array::from_iter_values((from..from + count).map(|i| i as f64 / 2.0));
    let columns: [(&str, ArrayRef); 3] =
        [("ts", Arc::new(ts)), ("name", Arc::new(name)), ("value", Arc::new(value))];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(n, c)| (n, c, true))).unwrap()
}

pub fn ticket(info: &FlightInfo) -> Ticket {
    assert_eq!(info.endpoint.len(), 1);
    assert!(info.endpoint[0].location.is_empty());
    info.endpoint[0].ticket.clone().unwrap()
}

/// The rows of a result. Its schema must be that of the `FlightInfo`.
pub async fn fetch(client: &mut FlightSqlServiceClient<Channel>, info: FlightInfo) -> Vec<RecordBatch> {
    let declared = info.clone().try_decode_schema().unwrap();
    let ticket = ticket(&info);
    let mut stream = client.do_get(ticket).await.unwrap();
    let mut batches = Vec::new();
    while let Some(batch) = stream.try_next().await.unwrap() {
        batches.push(batch);
    }
    assert_eq!(stream.schema().unwrap().as_ref(), &declared);
    batches
}

/// Runs a query.
pub async fn query(client: &mut FlightSqlServiceClient<Channel>, sql: &str) -> Vec<RecordBatch> {
    let info = client.execute(sql.to_owned(), None).await.unwrap();
    fetch(client, info).await
}

/// The number that a query of one row and column returns.
pub async fn number(client: &mut FlightSqlServiceClient<Channel>, sql: &str) -> i64 {
    let batches = query(client, sql).await;
    let column = batches.iter().find(|b| b.num_rows() > 0).unwrap().column(0).clone();
    arrow::compute::cast(&column, &arrow_schema::DataType::Int64)
        .unwrap()
        .as_any()
        .downcast_ref::<Int64Array>()
        .unwrap()
        .value(0)
}
