//! Nodes of one database in this process, whose connections can be cut and whose answers can be planned.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::sql::{Any, Command, DoPutUpdateResult};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::{Client, ConnectOptions, LinkEvent};

/// What a node does with the next request or batch instead of what is asked.
#[derive(Clone, Debug)]
pub enum Act {
    AsAsked,
    /// Breaks the connection.
    Die,
    /// Carries it out, and breaks the connection instead of answering.
    DoAndDie,
    /// Answers this error's name and writer, and does nothing.
    Refuse(&'static str, Option<String>),
}

/// What all nodes see.
#[derive(Debug, Default)]
pub struct Database {
    /// Token and rows of each commit, in order.
    pub commits: Vec<(String, u64)>,
    /// Ingests that the server saw broken.
    pub broken: usize,
}

impl Database {
    fn commit(&mut self, token: &str, rows: u64) -> (u64, u64, bool) {
        if let Some(place) = self.commits.iter().position(|(known, _)| known == token) {
            return (place as u64 + 1, self.commits[place].1, true);
        }
        self.commits.push((token.to_owned(), rows));
        (self.commits.len() as u64, rows, false)
    }
}

/// A statement, and the `tandem-min-seq` and `tandem-token` that came with it.
type Asked = (String, Option<String>, Option<String>);

/// A node: a service, and a door before it that can be slammed.
#[derive(Clone)]
pub struct Node {
    pub url: String,
    pub database: Arc<Mutex<Database>>,
    pub plan: Arc<Mutex<VecDeque<Act>>>,
    /// For DoGet.
    pub reads: Arc<Mutex<VecDeque<Act>>>,
    /// Statements, in order.
    pub asked: Arc<Mutex<Vec<Asked>>>,
    connections: Arc<Mutex<JoinSet<()>>>,
    listening: Arc<Mutex<JoinSet<()>>>,
}

pub fn numbers(rows: i64) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    RecordBatch::try_from_iter([("n", column)]).unwrap()
}

impl Node {
    pub async fn start(database: &Arc<Mutex<Database>>) -> Self {
        let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = Self {
            url: format!("grpc://{}", door.local_addr().unwrap()),
            database: database.clone(),
            plan: Arc::default(),
            reads: Arc::default(),
            asked: Arc::default(),
            connections: Arc::default(),
            listening: Arc::default(),
        };
        let behind = inner.local_addr().unwrap();
        let service = FlightServiceServer::new(node.clone()).max_decoding_message_size(64 << 20);
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(inner)));
        let connections = node.connections.clone();
        node.listening.lock().unwrap().spawn(async move {
            loop {
                let (mut outer, _) = door.accept().await.unwrap();
                connections.lock().unwrap().spawn(async move {
                    let mut inner = TcpStream::connect(behind).await.unwrap();
                    tokio::io::copy_bidirectional(&mut outer, &mut inner).await.ok();
                });
            }
        });
        node
    }

    /// Plans what is to happen to the next requests or batches.
    pub fn plan(&self, acts: impl IntoIterator<Item = Act>) {
        self.plan.lock().unwrap().extend(acts);
    }

    /// Breaks all connections.
    pub fn cut(&self) {
        self.connections.lock().unwrap().abort_all();
    }

    /// Breaks all connections and takes no new ones.
    pub fn close(&self) {
        self.listen_no_more();
        self.cut();
    }

    /// Takes no new connections.
    pub fn listen_no_more(&self) {
        self.listening.lock().unwrap().abort_all();
    }

    async fn die(&self) -> Status {
        self.cut();
        std::future::pending().await
    }

    /// Does what is planned with one write.
    async fn write(&self, token: &str, rows: u64) -> Result<(u64, u64, bool), Status> {
        let act = self.plan.lock().unwrap().pop_front().unwrap_or(Act::AsAsked);
        match act {
            Act::AsAsked => Ok(self.database.lock().unwrap().commit(token, rows)),
            Act::Die => Err(self.die().await),
            Act::DoAndDie => {
                self.database.lock().unwrap().commit(token, rows);
                Err(self.die().await)
            }
            Act::Refuse(name, writer) => Err(refusal(name, writer)),
        }
    }

    async fn ingest(self, token: String, mut rows: FlightDataDecoder) -> Result<PutResult, Status> {
        let mut count = 0;
        loop {
            match rows.try_next().await {
                Ok(Some(data)) => {
                    if let DecodedPayload::RecordBatch(batch) = data.payload {
                        count += batch.num_rows() as u64;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    self.database.lock().unwrap().broken += 1;
                    return Err(error.into());
                }
            }
        }
        let (_, rows, _) = self.write(&token, count).await?;
        let record_count = rows as i64;
        Ok(PutResult { app_metadata: DoPutUpdateResult { record_count }.encode_to_vec().into() })
    }
}

fn refusal(name: &'static str, writer: Option<String>) -> Status {
    let mut status = match name {
        "outcome-unknown" => Status::unknown("nobody knows"),
        "schema-conflict" => Status::invalid_argument("column x of t is bigint, got text"),
        _ => Status::unavailable("not now"),
    };
    status.metadata_mut().insert("tandem-error", name.parse().unwrap());
    if let Some(writer) = writer {
        status.metadata_mut().insert("tandem-writer", writer.parse().unwrap());
    }
    status
}

fn header(metadata: &MetadataMap, name: &str) -> Option<String> {
    metadata.get(name).map(|v| v.to_str().unwrap().to_owned())
}

type Out<T> = Result<Response<BoxStream<'static, Result<T, Status>>>, Status>;

#[tonic::async_trait]
impl FlightService for Node {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;

    /// `SELECT …` has three rows, `SET …` does nothing, all else writes two rows.
    async fn get_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let token = header(request.metadata(), "tandem-token");
        let min_seq = header(request.metadata(), "tandem-min-seq");
        let any = Any::decode(request.into_inner().cmd).unwrap();
        let Command::CommandStatementQuery(command) = Command::try_from(any).unwrap() else {
            return Err(Status::invalid_argument("not a query"));
        };
        self.asked.lock().unwrap().push((command.query.clone(), min_seq, token.clone()));
        if command.query.starts_with("SET") || command.query.starts_with("RESET") {
            return Ok(Response::new(FlightInfo::new().with_app_metadata("{\"seq\":0}")));
        }
        if command.query.starts_with("SELECT") {
            let info = FlightInfo::new().try_with_schema(&numbers(0).schema()).unwrap();
            let ticket = FlightEndpoint::new().with_ticket(Ticket::new("3"));
            return Ok(Response::new(info.with_endpoint(ticket).with_app_metadata("{\"snapshot_seq\":5}")));
        }
        let (seq, rows, duplicate) = self.write(&token.unwrap(), 2).await?;
        let info = FlightInfo::new().with_app_metadata(format!("{{\"seq\":{seq},\"rows\":{rows}}}"));
        let mut response = Response::new(info);
        if duplicate {
            response.metadata_mut().insert("tandem-duplicate", "true".parse().unwrap());
        }
        response.metadata_mut().insert("tandem-acked", "store".parse().unwrap());
        Ok(response)
    }

    async fn do_get(&self, _: Request<Ticket>) -> Out<FlightData> {
        let act = self.reads.lock().unwrap().pop_front().unwrap_or(Act::AsAsked);
        let node = self.clone();
        let last = match act {
            Act::Die => return Err(self.die().await),
            Act::Refuse(name, writer) => return Err(refusal(name, writer)),
            Act::AsAsked => stream::empty().boxed(),
            Act::DoAndDie => stream::once(async move {
                // The rows before are to arrive.
                tokio::time::sleep(Duration::from_millis(100)).await;
                Err(node.die().await.into())
            })
            .boxed(),
        };
        let batches = stream::iter([Ok(numbers(3))]).chain(last);
        Ok(Response::new(FlightDataEncoderBuilder::new().build(batches).map_err(Status::from).boxed()))
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Out<PutResult> {
        let token = header(request.metadata(), "tandem-token");
        let mut messages = request.into_inner();
        let first = messages.message().await?.unwrap();
        let descriptor = first.flight_descriptor.clone().unwrap();
        let messages = stream::iter([Ok(first)]).chain(messages).map_err(Into::into);
        if !descriptor.path.is_empty() {
            assert_eq!(token, None, "each batch has its own");
            let node = self.clone();
            let data = FlightDataDecoder::new(messages);
            let acks = stream::try_unfold((node, data, 0), |(node, mut data, number)| async move {
                loop {
                    let Some(next) = data.try_next().await? else { return Ok(None) };
                    let DecodedPayload::RecordBatch(batch) = &next.payload else { continue };
                    let said: serde_json::Value = serde_json::from_slice(&next.app_metadata()).unwrap();
                    let token = said["token"].as_str().unwrap();
                    let (seq, rows, duplicate) = node.write(token, batch.num_rows() as u64).await?;
                    let ack = serde_json::json!({"batch": number, "seq": seq, "rows": rows, "duplicate": duplicate});
                    let ack = PutResult { app_metadata: ack.to_string().into() };
                    return Ok::<_, Status>(Some((ack, (node, data, number + 1))));
                }
            });
            return Ok(Response::new(acks.boxed()));
        }
        let any = Any::decode(descriptor.cmd).unwrap();
        assert!(matches!(Command::try_from(any).unwrap(), Command::CommandStatementIngest(_)));
        let token = token.unwrap();
        // As the server does: answered when it is done, with what is to be said beside the count in front.
        let before = self.database.lock().unwrap().commits.iter().any(|(known, _)| *known == token);
        let result = self.clone().ingest(token.clone(), FlightDataDecoder::new(messages)).await?;
        let mut response = Response::new(stream::iter([Ok(result)]).boxed());
        let place = self.database.lock().unwrap().commits.iter().position(|(known, _)| *known == token);
        response.metadata_mut().insert("tandem-seq", (place.unwrap() as u64 + 1).into());
        if before {
            response.metadata_mut().insert("tandem-duplicate", "true".parse().unwrap());
        }
        Ok(response)
    }

    async fn do_action(&self, request: Request<Action>) -> Out<arrow_flight::Result> {
        let name = request.into_inner().r#type;
        self.write(&name, 0).await?;
        Ok(Response::new(stream::iter([Ok(arrow_flight::Result { body: name.into() })]).boxed()))
    }

    async fn handshake(&self, _: Request<Streaming<HandshakeRequest>>) -> Out<HandshakeResponse> {
        Err(Status::unimplemented("handshake"))
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Out<FlightInfo> {
        Err(Status::unimplemented("list_flights"))
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        Err(Status::unimplemented("poll_flight_info"))
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        Err(Status::unimplemented("get_schema"))
    }

    async fn list_actions(&self, _: Request<Empty>) -> Out<ActionType> {
        Err(Status::unimplemented("list_actions"))
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Out<FlightData> {
        Err(Status::unimplemented("do_exchange"))
    }
}

/// Two nodes of one database, a client of both, and what happened to its connection.
pub struct Pair {
    pub a: Node,
    pub b: Node,
    pub database: Arc<Mutex<Database>>,
    pub client: Client,
    pub events: Arc<Mutex<Vec<LinkEvent>>>,
}

pub async fn pair() -> Pair {
    pair_for(Duration::from_secs(20), |a, b| format!("{a},{b}")).await
}

/// As [`pair`], with a bound to the tries and with the addresses that `urls` makes of the nodes'.
pub async fn pair_for(retry_for: Duration, urls: impl Fn(&str, &str) -> String) -> Pair {
    let database = Arc::default();
    let (a, b) = (Node::start(&database).await, Node::start(&database).await);
    let events: Arc<Mutex<Vec<LinkEvent>>> = Arc::default();
    let heard = events.clone();
    let on_event = Arc::new(move |event: &LinkEvent| heard.lock().unwrap().push(event.clone()));
    let options = ConnectOptions { retry_for, on_event: Some(on_event), ..ConnectOptions::default() };
    let client = Client::connect_with(&urls(&a.url, &b.url), options).await.unwrap();
    assert_eq!(client.url(), a.url);
    // A connection that is only in the listener's queue goes with the listener.
    while a.connections.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Pair { a, b, database, client, events }
}

impl Pair {
    pub fn rows(&self) -> Vec<u64> {
        self.database.lock().unwrap().commits.iter().map(|(_, rows)| *rows).collect()
    }
}
