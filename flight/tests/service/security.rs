//! Who is let in, method by method and path by path.

use std::sync::Arc;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, CommandStatementQuery,
    CommandStatementUpdate, ProstMessageExt,
};
use arrow_flight::utils::batches_to_flight_data;
use arrow_flight::{Action, Criteria, Empty, FlightData, FlightDescriptor, HandshakeRequest, Ticket};
use futures::{TryStreamExt, stream};
use prost::Message;
use tandem_access::{Access, Tokens};
use tandem_flight::FlightConfig;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::kit::{Server, number, rows, start, start_with};

const READER: &str = "reader-token-0123456789";
const WRITER: &str = "writer-token-0123456789";

async fn guarded() -> Server {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens");
    std::fs::write(&path, format!("read {READER} dashboards\nwrite {WRITER} loader\n")).unwrap();
    let tokens = Some(Arc::new(Tokens::read(&path).unwrap()));
    let server = start_with(FlightConfig { access: Access { tokens, tls: None }, ..FlightConfig::default() });
    let server = server.await;
    let mut writer = server.client().await;
    writer.set_token(WRITER.to_owned());
    let create = "CREATE TABLE t (ts TIMESTAMP, name TEXT, value DOUBLE)";
    writer.execute_update(create.to_owned(), None).await.unwrap();
    server
}

fn request<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        let value: MetadataValue<_> = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

fn query(sql: &str) -> FlightDescriptor {
    let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
    FlightDescriptor::new_cmd(command.as_any().encode_to_vec())
}

fn update(sql: &str) -> FlightData {
    let command = CommandStatementUpdate { query: sql.to_owned(), transaction_id: None };
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    FlightData { flight_descriptor: Some(descriptor), ..FlightData::default() }
}

fn append() -> Vec<FlightData> {
    let batch = rows(0, 3);
    let mut messages = batches_to_flight_data(&batch.schema(), vec![batch]).unwrap();
    messages[0].flight_descriptor = Some(FlightDescriptor::new_path(vec!["t".to_owned()]));
    messages
}

fn path(parts: &[&str]) -> FlightData {
    let descriptor = FlightDescriptor::new_path(parts.iter().map(|p| (*p).to_owned()).collect());
    FlightData { flight_descriptor: Some(descriptor), ..FlightData::default() }
}

/// The code of a streaming call, wherever in it the error comes.
async fn outcome<T>(answer: Result<tonic::Response<tonic::Streaming<T>>, Status>) -> Code {
    let status = match answer {
        Ok(stream) => stream.into_inner().try_for_each(|_| async { Ok(()) }).await,
        Err(status) => Err(status),
    };
    status.err().map_or(Code::Ok, |status| status.code())
}

fn code<T>(answer: Result<T, Status>) -> Code {
    answer.err().map_or(Code::Ok, |status| status.code())
}

/// All that can be asked of Flight, with the answer for a token that may read. One that may write is never refused.
const CALLS: &[(&str, Code)] = &[
    ("Handshake", Code::Ok),
    ("ListFlights", Code::Ok),
    ("GetFlightInfo query", Code::Ok),
    ("GetFlightInfo insert", Code::PermissionDenied),
    ("GetFlightInfo create", Code::PermissionDenied),
    ("GetFlightInfo set", Code::Ok),
    ("GetFlightInfo optimize", Code::PermissionDenied),
    ("GetFlightInfo checkpoint", Code::PermissionDenied),
    ("GetFlightInfo cancel", Code::PermissionDenied),
    ("GetFlightInfo path", Code::Ok),
    ("PollFlightInfo query", Code::Ok),
    ("PollFlightInfo insert", Code::PermissionDenied),
    ("GetSchema", Code::Ok),
    ("DoGet", Code::Ok),
    ("DoPut rows", Code::PermissionDenied),
    ("DoPut insert", Code::PermissionDenied),
    ("DoPut set", Code::Ok),
    ("DoExchange submit", Code::PermissionDenied),
    ("DoExchange nothing", Code::InvalidArgument),
    ("DoAction tandem.Status", Code::Ok),
    ("DoAction tandem.Compact", Code::PermissionDenied),
    ("DoAction tandem.Checkpoint", Code::PermissionDenied),
    ("DoAction tandem.Promote", Code::PermissionDenied),
    ("DoAction nonsense", Code::PermissionDenied),
    ("ListActions", Code::Ok),
];

async fn call(channel: &Channel, name: &str, token: Option<&str>) -> Code {
    let mut client = FlightServiceClient::new(channel.clone());
    let (method, rest) = name.split_once(' ').unwrap_or((name, ""));
    let sql = match rest {
        "query" => "SELECT 1",
        "insert" => "INSERT INTO t VALUES ('2024-05-01T00:00:00', 'x', 1.5)",
        "create" => "CREATE TABLE IF NOT EXISTS t (ts TIMESTAMP)",
        "set" => "SET tandem.schema = 'strict'",
        "optimize" => "OPTIMIZE TABLE t",
        "checkpoint" => "CHECKPOINT",
        "cancel" => "CANCEL QUERY 'nobody'",
        _ => "",
    };
    match method {
        "Handshake" => {
            let messages = stream::iter([HandshakeRequest::default()]);
            outcome(client.handshake(request(messages, token)).await).await
        }
        "ListFlights" => outcome(client.list_flights(request(Criteria::default(), token)).await).await,
        "GetFlightInfo" if rest == "path" => {
            let table = FlightDescriptor::new_path(vec!["t".to_owned()]);
            code(client.get_flight_info(request(table, token)).await)
        }
        "GetFlightInfo" => code(client.get_flight_info(request(query(sql), token)).await),
        "PollFlightInfo" => code(client.poll_flight_info(request(query(sql), token)).await),
        "GetSchema" => code(client.get_schema(request(query("SELECT 1"), token)).await),
        "DoGet" => {
            let ticket = Ticket { ticket: r#"{"sql":"SELECT 1"}"#.into() };
            outcome(client.do_get(request(ticket, token)).await).await
        }
        "DoPut" if rest == "rows" => {
            outcome(client.do_put(request(stream::iter(append()), token)).await).await
        }
        "DoPut" => outcome(client.do_put(request(stream::iter([update(sql)]), token)).await).await,
        "DoExchange" if rest == "nothing" => {
            outcome(client.do_exchange(request(stream::empty(), token)).await).await
        }
        "DoExchange" => {
            let messages = stream::iter([path(&["_tandem", "v1", rest])]);
            outcome(client.do_exchange(request(messages, token)).await).await
        }
        "DoAction" => {
            let body = if rest == "tandem.Compact" { r#"{"table":"t"}"# } else { "" };
            let action = Action { r#type: rest.to_owned(), body: body.into() };
            outcome(client.do_action(request(action, token)).await).await
        }
        "ListActions" => outcome(client.list_actions(request(Empty {}, token)).await).await,
        other => panic!("no such call: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_needs_its_right() {
    let server = guarded().await;
    let channel = server.channel().await;
    let mut methods: Vec<_> = CALLS.iter().filter_map(|(name, _)| name.split(' ').next()).collect();
    methods.dedup();
    assert_eq!(methods.len(), 10, "Flight has ten methods");
    for (name, reader) in CALLS {
        for wrong in [None, Some("wrong-token-0123456789"), Some("None"), Some("")] {
            assert_eq!(call(&channel, name, wrong).await, Code::Unauthenticated, "{name} with {wrong:?}");
        }
        assert_eq!(call(&channel, name, Some(READER)).await, *reader, "{name} by a reader");
    }
    for action in ["tandem.Status", "tandem.Compact", "tandem.Checkpoint"] {
        assert!(CALLS.iter().any(|(name, _)| *name == format!("DoAction {action}")));
    }
    for (name, _) in CALLS {
        let code = call(&channel, name, Some(WRITER)).await;
        assert!(!matches!(code, Code::Unauthenticated | Code::PermissionDenied), "{name}: {code:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_stands_before_paths_that_do_not_exist() {
    let server = guarded().await;
    let channel = server.channel().await;
    let paths = [
        "/arrow.flight.protocol.FlightService/NoSuchMethod",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.health.v1.Health/Check",
        "/",
    ];
    for path in paths {
        for (token, wanted) in [(None, Code::Unauthenticated), (Some(READER), Code::Unimplemented)] {
            let mut client = tonic::client::Grpc::new(channel.clone());
            client.ready().await.unwrap();
            let codec = tonic_prost::ProstCodec::<Empty, Empty>::default();
            let answer = client.unary(request(Empty {}, token), path.parse().unwrap(), codec).await;
            assert_eq!(code(answer), wanted, "{path} with {token:?}");
        }
    }
}

fn status(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_gives_a_bearer_with_the_right_of_the_password() {
    let server = guarded().await;
    let mut client: FlightSqlServiceClient<Channel> = server.client().await;
    let refused = client.handshake("anybody", "wrong-token-0123456789").await.unwrap_err();
    assert!(status(refused).contains("--auth-token"), "what to do is said");

    client.handshake("anybody", READER).await.unwrap();
    let bearer = client.token().unwrap().clone();
    assert!(!bearer.contains(READER));
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 0);
    let refused = client
        .execute_update("INSERT INTO t VALUES ('2024-05-01T00:00:00', 'x', 1.5)".into(), None)
        .await
        .unwrap_err();
    assert!(status(refused).contains("dashboards"), "whose token it is is said");

    // The bearer leads to its session, from another connection as well.
    client.execute_update("SET tandem.schema = 'add'".into(), None).await.unwrap();
    let mut again = server.client().await;
    again.set_token(bearer);
    let info = again.execute("SHOW tandem.schema".into(), None).await.unwrap();
    let batches = crate::kit::fetch(&mut again, info).await;
    let shown = arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string();
    assert!(shown.contains(" add "), "{shown}");

    let mut writer = server.client().await;
    writer.handshake("anybody", WRITER).await.unwrap();
    writer
        .execute_update("INSERT INTO t VALUES ('2024-05-01T00:00:00', 'x', 1.5)".into(), None)
        .await
        .unwrap();
    assert_eq!(number(&mut writer, "SELECT count(*) FROM t").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_prepared_by_a_writer_does_not_write_for_a_reader() {
    let server = guarded().await;
    let channel = server.channel().await;
    let mut reader = FlightSqlServiceClient::new(channel.clone());
    reader.set_token(READER.to_owned());
    let mut by_reader =
        reader.prepare("INSERT INTO t VALUES ('2024-05-01T00:00:00', 'x', 1.5)".into(), None).await.unwrap();
    let refused = by_reader.execute_update().await.unwrap_err();
    assert!(status(refused).contains("may only read"));

    // A handle that leaked: the right is the caller's, not the statement's.
    let mut raw = FlightServiceClient::new(channel);
    let query = "INSERT INTO t VALUES ('2024-05-01T00:00:00', 'x', 1.5)".to_owned();
    let create = ActionCreatePreparedStatementRequest { query, transaction_id: None };
    let body = create.as_any().encode_to_vec().into();
    let action = Action { r#type: "CreatePreparedStatement".to_owned(), body };
    let mut results = raw.do_action(request(action, Some(WRITER))).await.unwrap().into_inner();
    let any = Any::decode(results.message().await.unwrap().unwrap().body).unwrap();
    let handle = ActionCreatePreparedStatementResult::decode(any.value).unwrap().prepared_statement_handle;
    let command = arrow_flight::sql::CommandPreparedStatementUpdate { prepared_statement_handle: handle };
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let message = FlightData { flight_descriptor: Some(descriptor), ..FlightData::default() };
    let answer = raw.do_put(request(stream::iter([message]), Some(READER))).await;
    assert_eq!(outcome(answer).await, Code::PermissionDenied);
    assert_eq!(number(&mut reader, "SELECT count(*) FROM t").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tokens_anybody_is_let_in_whatever_is_shown() {
    let server = start().await;
    let mut client = server.client().await;
    assert_eq!(number(&mut client, "SELECT 1").await, 1);
    client.set_token("None".to_owned());
    assert_eq!(number(&mut client, "SELECT 1").await, 1);
    client.handshake("", "").await.unwrap();
    assert_eq!(number(&mut client, "SELECT 1").await, 1);
}
