//! Rows on their way in, and out again by hand-written tickets.

use crate::kit::{self, number, rows, start};
use arrow::array::RecordBatch;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use arrow_flight::{Action, Criteria, Empty, FlightData, FlightDescriptor, Ticket};
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

fn path(parts: &[&str]) -> FlightDescriptor {
    FlightDescriptor::new_path(parts.iter().map(|p| (*p).to_owned()).collect())
}

async fn put(
    client: &mut FlightSqlServiceClient<Channel>,
    table: &[&str],
    policy: Option<&'static str>,
    batches: Vec<RecordBatch>,
) -> Result<Vec<Value>, Status> {
    let encoder = FlightDataEncoderBuilder::new()
        .with_schema(batches[0].schema())
        .with_flight_descriptor(Some(path(table)))
        .build(futures::stream::iter(batches.into_iter().map(Ok::<_, FlightError>)));
    let messages: Vec<FlightData> = encoder.try_collect().await.unwrap();
    let mut request = Request::new(futures::stream::iter(messages));
    if let Some(policy) = policy {
        request.metadata_mut().insert("tandem-schema", policy.parse().unwrap());
    }
    let mut answers = client.inner_mut().do_put(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(answer) = answers.message().await? {
        all.push(serde_json::from_slice(&answer.app_metadata).unwrap());
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_batch_of_a_plain_put_is_a_transaction_answered_in_order() {
    let server = start().await;
    let mut client = server.client().await;
    let batches = (0..30).map(|i| rows(i * 10, 10)).collect();
    let answers = put(&mut client, &["t"], Some("create"), batches).await.unwrap();
    assert_eq!(answers.len(), 30);
    for (i, answer) in answers.iter().enumerate() {
        assert_eq!((answer["batch"].as_u64(), answer["rows"].as_u64()), (Some(i as u64), Some(10)));
        assert_eq!(answer["duplicate"], false);
        assert!(answer["seq"].as_u64().unwrap() > 0);
    }
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 300);
    assert_eq!(number(&mut client, "SELECT count(DISTINCT name) FROM t").await, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_cannot_be_says_which_table_or_batch_is_wrong() {
    let server = start().await;
    let mut client = server.client().await;
    let error = put(&mut client, &["nowhere"], None, vec![rows(0, 1)]).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.message().contains("nowhere"), "{error}");
    let error = put(&mut client, &["a", "b", "c"], None, vec![rows(0, 1)]).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    client.execute_update("CREATE TABLE t (ts TIMESTAMP, name BIGINT)".to_owned(), None).await.unwrap();
    let error = put(&mut client, &["t"], None, vec![rows(0, 1)]).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().starts_with("batch 0"), "{error}");
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 0);
    let error = put(&mut client, &["t"], Some("lax"), vec![rows(0, 1)]).await.unwrap_err();
    assert!(error.message().contains("lax") && error.message().contains("strict"), "{error}");
}

async fn ingest(
    client: &mut FlightSqlServiceClient<Channel>,
    missing: TableNotExistOption,
    exists: TableExistsOption,
    batches: Vec<RecordBatch>,
) -> Result<i64, String> {
    let command = CommandStatementIngest {
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: missing as i32,
            if_exists: exists as i32,
        }),
        table: "t".to_owned(),
        ..CommandStatementIngest::default()
    };
    let stream = futures::stream::iter(batches.into_iter().map(Ok));
    client.execute_ingest(command, stream).await.map_err(|e| e.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn ingestion_follows_its_mode() {
    use TableExistsOption as Exists;
    use TableNotExistOption as Missing;
    let server = start().await;
    let mut client = server.client().await;
    let two = || vec![rows(0, 5), rows(5, 5)];
    let error = ingest(&mut client, Missing::Fail, Exists::Append, two()).await.unwrap_err();
    assert!(error.contains("does not exist"), "{error}");
    assert_eq!(ingest(&mut client, Missing::Create, Exists::Fail, two()).await, Ok(10));
    let error = ingest(&mut client, Missing::Create, Exists::Fail, two()).await.unwrap_err();
    assert!(error.contains("exists"), "{error}");
    assert_eq!(ingest(&mut client, Missing::Create, Exists::Append, two()).await, Ok(10));
    assert_eq!(ingest(&mut client, Missing::Fail, Exists::Append, two()).await, Ok(10));
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 30);
    let seq = number(&mut client, "SELECT tandem_last_seq()").await;
    assert_eq!(ingest(&mut client, Missing::Create, Exists::Replace, two()).await, Ok(10));
    assert_eq!(number(&mut client, "SELECT tandem_last_seq()").await, seq + 1, "one transaction");
    assert_eq!(ingest(&mut client, Missing::Fail, Exists::Replace, vec![rows(0, 3)]).await, Ok(3));
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn hand_written_tickets_read() {
    let server = start().await;
    let mut client = server.client().await;
    put(&mut client, &["t"], Some("create"), vec![rows(0, 4)]).await.unwrap();
    for (ticket, columns, count) in [
        (r#"{"table":"t"}"#, 3, 4),
        (r#"{"table":"public.t","columns":["value","ts"]}"#, 2, 4),
        (r#"{"sql":"SELECT name FROM t WHERE value >= $1 AND name <> $2","params":[1,"name 3"]}"#, 1, 1),
    ] {
        let ticket = Ticket { ticket: ticket.into() };
        let batches: Vec<RecordBatch> =
            client.do_get(ticket.clone()).await.unwrap().try_collect().await.unwrap();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), count, "{ticket}");
        assert!(batches.iter().all(|b| b.num_columns() == columns), "{ticket}");
    }
    let write = Ticket { ticket: r#"{"sql":"DROP TABLE t"}"#.into() };
    assert!(client.do_get(write).await.unwrap_err().to_string().contains("only read"));
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn flights_are_the_tables() {
    let server = start().await;
    let mut client = server.client().await;
    put(&mut client, &["t"], Some("create"), vec![rows(0, 4)]).await.unwrap();
    let mut raw = FlightServiceClient::new(server.channel().await);
    let flights: Vec<_> =
        raw.list_flights(Criteria::default()).await.unwrap().into_inner().try_collect().await.unwrap();
    assert_eq!(flights.len(), 1);
    assert_eq!(flights[0].total_records, 4);
    let info = raw.get_flight_info(path(&["t"])).await.unwrap().into_inner();
    assert_eq!((info.total_records, &info.schema), (4, &flights[0].schema));
    let schema = raw.get_schema(path(&["public", "t"])).await.unwrap().into_inner();
    assert_eq!(schema.schema, info.schema);
    for info in [info, flights[0].clone()] {
        let rows: usize = kit::fetch(&mut client, info).await.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows, 4);
    }
    let missing = raw.get_flight_info(path(&["nowhere"])).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let polled = raw.poll_flight_info(path(&["t"])).await.unwrap().into_inner();
    assert!(polled.flight_descriptor.is_none() && polled.info.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_do_what_the_list_says() {
    let server = start().await;
    let mut client = server.client().await;
    put(&mut client, &["t"], Some("create"), vec![rows(0, 4)]).await.unwrap();
    let mut raw = FlightServiceClient::new(server.channel().await);
    let listed: Vec<_> = raw.list_actions(Empty {}).await.unwrap().into_inner().try_collect().await.unwrap();
    assert!(listed.iter().any(|a| a.r#type == "tandem.Compact"));
    for (name, body, key) in [
        ("tandem.Status", "", "seq"),
        ("tandem.Compact", r#"{"table":"t"}"#, "seq"),
        ("tandem.Checkpoint", "", "seq"),
    ] {
        let action = Action { r#type: name.to_owned(), body: body.into() };
        let mut results = raw.do_action(action).await.unwrap().into_inner();
        let result = results.message().await.unwrap().unwrap();
        let json: Value = serde_json::from_slice(&result.body).unwrap();
        assert!(json.get(key).is_some(), "{name}: {json}");
    }
    assert_eq!(number(&mut client, "SELECT count(*) FROM system.files WHERE table_name = 't'").await, 1);
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 4);
    for action in listed {
        // Without a body most are wrong, but none is unknown.
        let name = action.r#type;
        let outcome = raw.do_action(Action { r#type: name.clone(), body: Default::default() }).await;
        assert!(!outcome.is_err_and(|e| e.message().contains("unknown action")), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_decide_and_wrong_ones_are_named() {
    let server = start().await;
    let mut client = server.client().await;
    put(&mut client, &["t"], Some("create"), vec![rows(0, 1000)]).await.unwrap();
    let mut raw = FlightServiceClient::new(server.channel().await);
    let read = |name: &'static str, value: &str| {
        let mut request = Request::new(Ticket { ticket: r#"{"table":"t"}"#.into() });
        request.metadata_mut().insert(name, value.parse().unwrap());
        request
    };
    let mut sizes = Vec::new();
    for compression in ["none", "zstd", "lz4"] {
        let response = raw.do_get(read("tandem-compression", compression)).await.unwrap();
        assert_eq!(response.metadata().get("tandem-node").unwrap(), "n1");
        assert!(response.metadata().get("tandem-snapshot-seq").is_some());
        let messages: Vec<FlightData> = response.into_inner().try_collect().await.unwrap();
        sizes.push(messages.iter().map(|m| m.data_body.len()).sum::<usize>());
    }
    assert!(sizes[1] < sizes[0] && sizes[2] < sizes[0], "{sizes:?}");
    let error = raw.do_get(read("tandem-as-of", "yesterday")).await.unwrap_err();
    assert!(error.message().contains("tandem-as-of") && error.message().contains("yesterday"), "{error}");
    let error = raw.do_get(read("tandem-min-seq", "three")).await.unwrap_err();
    assert!(error.message().contains("tandem-min-seq") && error.message().contains("three"), "{error}");
    let error = raw.do_get(read("tandem-mystery", "3")).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("tandem-mystery"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_its_answers_can_write_all_the_same() {
    let server = start().await;
    let mut client = server.narrow_client().await;
    put(&mut client, &["t"], Some("create"), vec![rows(0, 1)]).await.unwrap();
    let batches: Vec<RecordBatch> = (0..3000).map(|i| rows(i, 1)).collect();
    let encoder = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(path(&["t"])))
        .build(futures::stream::iter(batches.into_iter().map(Ok::<_, FlightError>)));
    let messages: Vec<FlightData> = encoder.try_collect().await.unwrap();
    let (sent, all_sent) = tokio::sync::oneshot::channel();
    let mut sent = Some(sent);
    let total = messages.len();
    let stream = futures::stream::iter(messages).enumerate().map(move |(i, m)| {
        if i + 1 == total {
            let _ = sent.take().map(|s| s.send(()));
        }
        m
    });
    let response = client.inner_mut().do_put(Request::new(stream)).await.unwrap();
    all_sent.await.unwrap();
    let answers: Vec<_> = response.into_inner().try_collect().await.unwrap();
    assert_eq!(answers.len(), 3000);
    assert_eq!(server.node.state().table_named(&tandem_types::TableName::public("t")).unwrap().rows(), 3001);
}
