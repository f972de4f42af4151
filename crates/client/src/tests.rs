//! The client against a server in this process that counts what it is sent.
#![expect(clippy::disallowed_methods, reason = "real connections need real time")]

mod failover;
mod kit;

use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::sql::{Any, Command, DoPutUpdateResult};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use prost::Message;
use tandem_types::{Error, ErrorKind, Result};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{Client, IngestMode, PutAck};

/// What became of an ingest as the server saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ingested {
    Whole(u64),
    Broken,
}

/// Notes an ingest when its call is over; broken unless told otherwise, for a reset call is just dropped.
struct Note {
    ingests: Arc<Mutex<Vec<Ingested>>>,
    ended: Arc<Notify>,
    outcome: Ingested,
}

impl Drop for Note {
    fn drop(&mut self) {
        self.ingests.lock().unwrap().push(self.outcome);
        self.ended.notify_one();
    }
}

#[derive(Clone, Default)]
struct Fake {
    ingests: Arc<Mutex<Vec<Ingested>>>,
    headers: Arc<Mutex<Vec<String>>>,
    /// Told of each batch of an ingest.
    reading: Arc<Notify>,
    /// Told of each ingest that is over.
    ended: Arc<Notify>,
}

fn numbers(rows: i64) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    RecordBatch::try_from_iter([("n", column)]).unwrap()
}

type Out<T> = std::result::Result<Response<BoxStream<'static, Result<T, Status>>>, Status>;

impl Fake {
    async fn ingest(
        self,
        messages: BoxStream<'static, Result<FlightData, Status>>,
    ) -> Result<PutResult, Status> {
        let mut note =
            Note { ingests: self.ingests.clone(), ended: self.ended.clone(), outcome: Ingested::Broken };
        let mut batches = FlightRecordBatchStream::new_from_flight_data(messages.map_err(Into::into));
        let mut rows = 0;
        while let Some(batch) = batches.try_next().await? {
            rows += batch.num_rows() as u64;
            self.reading.notify_one();
        }
        note.outcome = Ingested::Whole(rows);
        let result = DoPutUpdateResult { record_count: rows as i64 };
        Ok(PutResult { app_metadata: result.encode_to_vec().into() })
    }
}

#[tonic::async_trait]
impl FlightService for Fake {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;

    async fn get_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> std::result::Result<Response<FlightInfo>, Status> {
        if let Some(value) = request.metadata().get("tandem-schema") {
            self.headers.lock().unwrap().push(value.to_str().unwrap().to_owned());
        }
        let any = Any::decode(request.into_inner().cmd).unwrap();
        let Command::CommandStatementQuery(command) = Command::try_from(any).unwrap() else {
            return Err(Status::invalid_argument("not a query"));
        };
        if command.query == "write" {
            return Ok(Response::new(
                FlightInfo::new().with_app_metadata("{\"seq\":9,\"rows\":2,\"exact\":true}"),
            ));
        }
        if command.query == "bad" {
            let mut status = Status::invalid_argument("column x of t is bigint, got text");
            status.metadata_mut().insert("tandem-error", "schema-conflict".parse().unwrap());
            return Err(status);
        }
        let ticket = |n: &str| FlightEndpoint::new().with_ticket(Ticket::new(n.to_owned()));
        let info = FlightInfo::new().try_with_schema(&numbers(0).schema()).unwrap();
        let info = info.with_endpoint(ticket("3")).with_endpoint(ticket("4"));
        Ok(Response::new(info.with_app_metadata("{\"snapshot_seq\":5}")))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Out<FlightData> {
        let rows = String::from_utf8(request.into_inner().ticket.to_vec()).unwrap().parse().unwrap();
        let batches = stream::iter([Ok(numbers(rows))]);
        Ok(Response::new(FlightDataEncoderBuilder::new().build(batches).map_err(Status::from).boxed()))
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Out<PutResult> {
        let mut messages = request.into_inner();
        let first = messages.message().await?.unwrap();
        let descriptor = first.flight_descriptor.clone().unwrap();
        let messages = stream::iter([Ok(first)]).chain(messages).boxed();
        if !descriptor.path.is_empty() {
            assert_eq!(descriptor.path, ["s", "t"]);
            let batches = FlightRecordBatchStream::new_from_flight_data(messages.map_err(Into::into));
            let acks = batches.enumerate().map(|(i, batch)| {
                let rows = batch?.num_rows();
                let text =
                    format!("{{\"batch\":{i},\"seq\":{},\"rows\":{rows},\"duplicate\":false}}", 10 + i);
                Ok(PutResult { app_metadata: text.into() })
            });
            return Ok(Response::new(acks.boxed()));
        }
        let any = Any::decode(descriptor.cmd).unwrap();
        match Command::try_from(any).unwrap() {
            Command::CommandStatementIngest(command) => {
                assert_eq!((command.table.as_str(), command.schema.as_deref()), ("t", Some("s")));
                Ok(Response::new(stream::once(self.clone().ingest(messages)).boxed()))
            }
            Command::CommandStatementUpdate(command) => {
                let record_count = command.query.parse().unwrap();
                let app_metadata = DoPutUpdateResult { record_count }.encode_to_vec().into();
                Ok(Response::new(stream::iter([Ok(PutResult { app_metadata })]).boxed()))
            }
            _ => Err(Status::unimplemented("command")),
        }
    }

    async fn do_action(&self, request: Request<Action>) -> Out<arrow_flight::Result> {
        let action = request.into_inner();
        let body = [action.r#type.as_bytes(), &action.body].concat();
        Ok(Response::new(stream::iter([Ok(arrow_flight::Result { body: body.into() })]).boxed()))
    }

    async fn handshake(&self, _: Request<Streaming<HandshakeRequest>>) -> Out<HandshakeResponse> {
        Err(Status::unimplemented("handshake"))
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Out<FlightInfo> {
        Err(Status::unimplemented("list_flights"))
    }

    async fn poll_flight_info(
        &self,
        _: Request<FlightDescriptor>,
    ) -> std::result::Result<Response<PollInfo>, Status> {
        Err(Status::unimplemented("poll_flight_info"))
    }

    async fn get_schema(
        &self,
        _: Request<FlightDescriptor>,
    ) -> std::result::Result<Response<SchemaResult>, Status> {
        Err(Status::unimplemented("get_schema"))
    }

    async fn list_actions(&self, _: Request<Empty>) -> Out<ActionType> {
        Err(Status::unimplemented("list_actions"))
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Out<FlightData> {
        Err(Status::unimplemented("do_exchange"))
    }
}

async fn start() -> (Fake, Client) {
    let fake = Fake::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let service = FlightServiceServer::new(fake.clone()).max_decoding_message_size(64 << 20);
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    // The first address is one where nobody listens.
    let client = Client::connect(&format!("grpc://127.0.0.1:1,grpc://127.0.0.1:{port}")).await.unwrap();
    (fake, client)
}

#[tokio::test]
async fn an_unreachable_server_is_named_at_once() {
    let error = Client::connect("grpc://127.0.0.1:1,127.0.0.1:2").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("127.0.0.1:1") && error.message().contains("127.0.0.1:2"), "{error}");
}

#[tokio::test]
async fn queries_read_all_endpoints_and_writes_say_what_they_did() {
    let (fake, client) = start().await;
    let client = client.with_header("tandem-schema", "add").unwrap();
    let result = client.query("select").await.unwrap();
    assert_eq!((result.schema(), result.written()), (numbers(0).schema(), None));
    assert_eq!(result.collect().await.unwrap(), [numbers(3), numbers(4)]);
    assert_eq!(*fake.headers.lock().unwrap(), ["add"]);

    let result = client.query("write").await.unwrap();
    let written = result.written().unwrap();
    assert_eq!((written.seq, written.rows), (9, Some(2)));
    assert_eq!(client.execute("5").await.unwrap().rows, Some(5));
    assert_eq!(client.execute("-1").await.unwrap().rows, None);

    let error = client.query("bad").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SchemaConflict);
    assert_eq!(error.message(), "column x of t is bigint, got text");
    assert_eq!(client.action("tandem.Compact", "{}").await.unwrap(), [Bytes::from("tandem.Compact{}")]);
}

#[tokio::test]
async fn puts_are_acknowledged_batch_by_batch_within_the_window() {
    let (_, client) = start().await;
    let text: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(1 << 20); 10]));
    let large = RecordBatch::try_from_iter([("t", text)]).unwrap();
    let schema = large.schema();
    let batches = stream::iter([large.clone(), large.slice(0, 0), large.slice(0, 1)].map(Ok));
    let session = client.with_window(1).put("s.t", schema, batches).await.unwrap();
    let acks: Vec<PutAck> = session.try_collect().await.unwrap();
    // Ten megabytes take at least three messages; the batch without rows takes none.
    assert!(acks.len() >= 4, "{acks:?}");
    assert_eq!(acks.iter().map(|a| a.rows).sum::<u64>(), 11);
    assert!(acks.iter().enumerate().all(|(i, a)| a.batch == i as u64 && a.seq == 10 + i as u64));
}

#[tokio::test]
async fn an_ingest_is_whole_or_seen_as_broken() {
    let (fake, client) = start().await;
    let schema = numbers(0).schema();
    let whole = stream::iter([Ok(numbers(3)), Ok(numbers(4))]);
    assert_eq!(client.ingest("s.t", IngestMode::Append, schema.clone(), whole).await.unwrap().rows, Some(7));
    let nothing = stream::empty();
    assert_eq!(
        client.ingest("s.t", IngestMode::Create, schema.clone(), nothing).await.unwrap().rows,
        Some(0)
    );

    assert_eq!(*fake.ingests.lock().unwrap(), [Ingested::Whole(7), Ingested::Whole(0)]);

    // A server of its own, so that no notice is left over from the ingests above.
    let (fake, client) = start().await;
    // The failure comes when the server is reading; sooner, and it would hear nothing of the call.
    let reading = fake.reading.clone();
    let failure = async move {
        reading.notified().await;
        Err(Error::invalid("f.csv:4: bad"))
    };
    let broken = stream::iter([Ok(numbers(3))]).chain(stream::once(failure));
    let error = client.ingest("s.t", IngestMode::Append, schema, broken).await.unwrap_err();
    assert_eq!(error.message(), "f.csv:4: bad");
    // The server's side of the broken call ends in its own time.
    fake.ended.notified().await;
    let ingests = fake.ingests.lock().unwrap().clone();
    assert_eq!(ingests, [Ingested::Broken]);
}
