//! Tokens, acknowledgement and demands of reads, as headers and answers on the wire.

use arrow::array::RecordBatch;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{
    CommandStatementIngest, CommandStatementQuery, CommandStatementUpdate, DoPutUpdateResult,
    ProstMessageExt, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use arrow_flight::{FlightData, FlightDescriptor, PutResult, Ticket};
use futures::TryStreamExt;
use prost::Message;
use serde_json::Value;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::kit::{Server, number, rows, start};

type Raw = FlightServiceClient<Channel>;
type Headers<'a> = &'a [(&'static str, &'a str)];

fn with<T>(body: T, headers: Headers<'_>) -> Request<T> {
    let mut request = Request::new(body);
    for (name, value) in headers {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    request
}

fn header<'a>(metadata: &'a MetadataMap, name: &str) -> Option<&'a str> {
    metadata.get(name).map(|value| value.to_str().unwrap())
}

async fn raw(server: &Server) -> Raw {
    FlightServiceClient::new(server.channel().await)
}

/// A DoPut of a command, with rows or without; its answers, and the headers that came before them.
async fn put(
    client: &mut Raw,
    descriptor: FlightDescriptor,
    batches: Vec<RecordBatch>,
    headers: Headers<'_>,
) -> Result<(MetadataMap, Vec<PutResult>), Status> {
    let messages: Vec<FlightData> = if batches.is_empty() {
        vec![FlightData { flight_descriptor: Some(descriptor), ..FlightData::default() }]
    } else {
        FlightDataEncoderBuilder::new()
            .with_flight_descriptor(Some(descriptor))
            .build(futures::stream::iter(batches.into_iter().map(Ok::<_, FlightError>)))
            .try_collect()
            .await
            .unwrap()
    };
    let response: Response<_> = client.do_put(with(futures::stream::iter(messages), headers)).await?;
    let (metadata, answers, _) = response.into_parts();
    Ok((metadata, answers.try_collect().await?))
}

async fn update(client: &mut Raw, sql: &str, headers: Headers<'_>) -> Result<(MetadataMap, i64), Status> {
    let command = CommandStatementUpdate { query: sql.to_owned(), transaction_id: None };
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let (metadata, answers) = put(client, descriptor, vec![], headers).await?;
    let result = DoPutUpdateResult::decode(answers[0].app_metadata.clone()).unwrap();
    Ok((metadata, result.record_count))
}

/// A plain DoPut into `t`.
async fn append(
    client: &mut Raw,
    batches: Vec<RecordBatch>,
    headers: Headers<'_>,
) -> Result<Vec<Value>, Status> {
    let descriptor = FlightDescriptor::new_path(vec!["t".to_owned()]);
    let headers = [headers, &[("tandem-schema", "create")]].concat();
    let (_, answers) = put(client, descriptor, batches, &headers).await?;
    Ok(answers.iter().map(|answer| serde_json::from_slice(&answer.app_metadata).unwrap()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_under_a_token_runs_once() {
    let server = start().await;
    let mut client = raw(&server).await;
    let (first, _) =
        update(&mut client, "CREATE TABLE t (n BIGINT)", &[("tandem-token", "make t")]).await.unwrap();
    assert_eq!((header(&first, "tandem-acked"), header(&first, "tandem-duplicate")), (Some("store"), None));
    let seq = header(&first, "tandem-seq").unwrap().to_owned();
    let (again, _) =
        update(&mut client, "CREATE TABLE t (n BIGINT)", &[("tandem-token", "make t")]).await.unwrap();
    assert_eq!(header(&again, "tandem-seq"), Some(seq.as_str()));
    assert_eq!(header(&again, "tandem-duplicate"), Some("true"));

    let insert = "INSERT INTO t VALUES (1), (2)";
    for duplicate in [None, Some("true")] {
        let (metadata, count) = update(&mut client, insert, &[("tandem-token", "job 1")]).await.unwrap();
        assert_eq!((count, header(&metadata, "tandem-duplicate")), (2, duplicate));
    }
    let error =
        update(&mut client, "INSERT INTO t VALUES (3)", &[("tandem-token", "job 1")]).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert_eq!(header(error.metadata(), "tandem-error"), Some("token-reused"));

    // By way of GetFlightInfo, as most clients send statements.
    let command = CommandStatementQuery { query: insert.to_owned(), transaction_id: None };
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let request = with(descriptor, &[("tandem-token", "job 1")]);
    let response = client.get_flight_info(request).await.unwrap();
    assert_eq!(header(response.metadata(), "tandem-duplicate"), Some("true"));
    let info = response.into_inner();
    let metadata: Value = serde_json::from_slice(&info.app_metadata).unwrap();
    assert_eq!((info.total_records, &metadata["duplicate"], &metadata["rows"]), (2, &true.into(), &2.into()));
    assert_eq!(number(&mut server.client().await, "SELECT sum(n) FROM t").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_batch_of_a_put_has_a_token_of_its_own() {
    let server = start().await;
    let mut client = raw(&server).await;
    let batches = || (0..4).map(|i| rows(i * 10, 10)).collect::<Vec<_>>();
    let token: Headers<'_> = &[("tandem-token", "load")];
    // The first try got half way.
    let first = append(&mut client, batches()[..2].to_vec(), token).await.unwrap();
    let again = append(&mut client, batches(), token).await.unwrap();
    let duplicates: Vec<bool> = again.iter().map(|answer| answer["duplicate"].as_bool().unwrap()).collect();
    assert_eq!(duplicates, [true, true, false, false]);
    assert_eq!((&again[0]["seq"], &again[1]["seq"]), (&first[0]["seq"], &first[1]["seq"]));
    assert_eq!(again[1]["rows"], 10);
    // A token with a number is a token like any other.
    let error = append(&mut client, vec![rows(7, 1)], &[("tandem-token", "load#3")]).await;
    assert!(error.is_ok(), "load#3#0 is another one");
    let error = append(&mut client, vec![rows(0, 10), rows(0, 10)], token).await.unwrap_err();
    assert_eq!(header(error.metadata(), "tandem-error"), Some("token-reused"));
    assert!(error.message().starts_with("batch 1"), "{error}");
    assert_eq!(number(&mut server.client().await, "SELECT count(*) FROM t").await, 41);

    // A batch may bring its own.
    let mut messages: Vec<FlightData> = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(FlightDescriptor::new_path(vec!["t".to_owned()])))
        .build(futures::stream::iter([rows(90, 1), rows(91, 1)].map(Ok::<_, FlightError>)))
        .try_collect()
        .await
        .unwrap();
    let last = messages.len() - 1;
    messages[last].app_metadata = r#"{"token":"load#2"}"#.into();
    let mut answers =
        client.do_put(Request::new(futures::stream::iter(messages))).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some());
    let error = answers.message().await.unwrap_err();
    assert_eq!(header(error.metadata(), "tandem-error"), Some("token-reused"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_ingestion_has_one_token_however_it_is_cut() {
    let server = start().await;
    let mut client = raw(&server).await;
    let command = CommandStatementIngest {
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: TableNotExistOption::Create as i32,
            if_exists: TableExistsOption::Fail as i32,
        }),
        table: "t".to_owned(),
        ..CommandStatementIngest::default()
    };
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let token: Headers<'_> = &[("tandem-token", "ingest 1")];
    for (batches, duplicate) in [
        (vec![rows(0, 30), rows(30, 70)], None),
        (vec![rows(0, 100)], Some("true")),
        (vec![rows(0, 99), rows(99, 1)], Some("true")),
    ] {
        let (metadata, answers) = put(&mut client, descriptor.clone(), batches, token).await.unwrap();
        let result = DoPutUpdateResult::decode(answers[0].app_metadata.clone()).unwrap();
        assert_eq!((result.record_count, header(&metadata, "tandem-duplicate")), (100, duplicate));
    }
    let error = put(&mut client, descriptor, vec![rows(1, 100)], token).await.unwrap_err();
    assert_eq!(header(error.metadata(), "tandem-error"), Some("token-reused"));
    assert_eq!(number(&mut server.client().await, "SELECT count(*) FROM t").await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_that_is_missed_names_the_commit() {
    let server = start().await;
    let mut client = raw(&server).await;
    let headers: Headers<'_> = &[("tandem-ack", "quorum(1)"), ("tandem-ack-timeout", "100ms")];
    let error = append(&mut client, vec![rows(0, 5)], headers).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert_eq!(header(error.metadata(), "tandem-error"), Some("quorum-timeout"));
    let seq = server.node.state().seq().to_string();
    assert_eq!(header(error.metadata(), "tandem-seq"), Some(seq.as_str()));
    assert!(error.message().contains("0 of 1"), "{error}");
    assert_eq!(
        number(&mut server.client().await, "SELECT count(*) FROM t").await,
        5,
        "committed all the same"
    );

    // The answer comes before the client gives up.
    let headers: Headers<'_> = &[("tandem-ack", "quorum(1)"), ("grpc-timeout", "1S")];
    let error = update(&mut client, "INSERT INTO t (ts) VALUES (now())", headers).await.unwrap_err();
    assert_eq!(header(error.metadata(), "tandem-error"), Some("quorum-timeout"), "{error}");
    for (name, wrong) in [("tandem-ack", "all"), ("tandem-ack-timeout", "soon"), ("tandem-token", "")] {
        let error = update(&mut client, "CREATE TABLE never (n INT)", &[(name, wrong)]).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{name}");
        assert!(error.message().contains(name) && error.message().contains(wrong), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_of_what_is_not_there_yet_waits_and_then_says_so() {
    let server = start().await;
    let mut client = raw(&server).await;
    append(&mut client, vec![rows(0, 5)], &[]).await.unwrap();
    let seq = server.node.state().seq();
    let read = |min: u64| Ticket { ticket: format!(r#"{{"table":"t","min_seq":{min}}}"#).into() };
    let short: Headers<'_> = &[("grpc-timeout", "300m")];
    let response = client.do_get(with(read(seq.0), short)).await.unwrap();
    assert_eq!(header(response.metadata(), "tandem-snapshot-seq"), Some(seq.to_string().as_str()));
    let error = client.do_get(with(read(seq.0 + 1), short)).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert_eq!(header(error.metadata(), "tandem-error"), Some("behind"), "{error}");
    assert_eq!(header(error.metadata(), "tandem-seq"), Some(seq.to_string().as_str()));
    assert!(error.message().contains(&format!("seq {}", seq.next())), "{error}");

    // It comes while somebody waits for it.
    let wanted = (seq.0 + 1).to_string();
    let waits: Headers<'_> = &[("tandem-min-seq", &wanted), ("grpc-timeout", "30S")];
    let mut other = raw(&server).await;
    let (reading, writing) =
        futures::join!(client.do_get(with(read(0), waits)), append(&mut other, vec![rows(5, 1)], &[]));
    assert_eq!(writing.unwrap().len(), 1);
    let got: Vec<FlightData> = reading.unwrap().into_inner().try_collect().await.unwrap();
    assert!(got.len() > 1);
    let response = client.do_get(with(read(0), &[("tandem-read", "latest")])).await.unwrap();
    assert_eq!(header(response.metadata(), "tandem-snapshot-seq"), Some(wanted.as_str()));

    // A ticket is what it was made of: a later demand is not met in silence by an older state.
    let query = CommandStatementQuery { query: "SELECT * FROM t".to_owned(), transaction_id: None };
    let descriptor = FlightDescriptor::new_cmd(query.as_any().encode_to_vec());
    let info = client.get_flight_info(Request::new(descriptor)).await.unwrap().into_inner();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let error = client.do_get(with(ticket, &[("tandem-min-seq", "99")])).await.unwrap_err();
    assert_eq!(header(error.metadata(), "tandem-error"), Some("behind"), "{error}");
}
