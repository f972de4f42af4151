//! Transactions by the standard's actions, over several connections of one client.

use arrow_flight::Action;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionBeginSavepointResult, ActionEndSavepointRequest, Any,
    CommandStatementIngest, EndTransaction, ProstMessageExt, TableDefinitionOptions, TableExistsOption,
    TableNotExistOption,
};
use bytes::Bytes;
use futures::TryStreamExt;
use prost::Message;
use tonic::Code;
use tonic::transport::Channel;

use crate::kit::{Server, fetch, number, rows, start};

type Client = FlightSqlServiceClient<Channel>;

const COUNT: &str = "SELECT count(*) FROM t";

/// A server with a table `t` of three rows.
async fn started() -> (Server, Client) {
    let server = start().await;
    let mut client = server.client().await;
    client
        .execute_update("CREATE TABLE t (ts TIMESTAMP(6), name TEXT, value DOUBLE)".into(), None)
        .await
        .unwrap();
    assert_eq!(ingest(&mut client, None, 0, 3).await.unwrap(), 3);
    (server, client)
}

async fn ingest(client: &mut Client, id: Option<Bytes>, from: i64, count: i64) -> Result<i64, FlightError> {
    let options = TableDefinitionOptions {
        if_not_exist: TableNotExistOption::Fail.into(),
        if_exists: TableExistsOption::Append.into(),
    };
    let command = CommandStatementIngest {
        table_definition_options: Some(options),
        table: "t".into(),
        transaction_id: id,
        ..CommandStatementIngest::default()
    };
    let batches = futures::stream::iter([Ok(rows(from, count))]);
    client.execute_ingest(command, batches).await
}

async fn count(client: &mut Client, id: &Bytes) -> i64 {
    let info = client.execute(COUNT.into(), Some(id.clone())).await.unwrap();
    let batches = fetch(client, info).await;
    arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(batches[0].column(0)).value(0)
}

async fn act<R: ProstMessageExt + Default>(server: &Server, name: &str, body: Any) -> Option<R> {
    let mut client = FlightServiceClient::new(server.channel().await);
    let action = Action { r#type: name.into(), body: body.encode_to_vec().into() };
    let results: Vec<_> = client.do_action(action).await.unwrap().into_inner().try_collect().await.unwrap();
    results.first().map(|result| Any::decode(&*result.body).unwrap().unpack().unwrap().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_named_by_its_id_on_any_connection() {
    let (server, mut first) = started().await;
    let mut second = server.client().await;
    let id = first.begin_transaction().await.unwrap();
    let update = |sql: &str| (sql.to_owned(), Some(id.clone()));
    let (sql, named) = update("INSERT INTO t SELECT ts, name, value + 100 FROM t");
    assert_eq!(first.execute_update(sql, named).await.unwrap(), 3);
    let (sql, named) = update("DELETE FROM t WHERE value = 0");
    assert_eq!(second.execute_update(sql, named).await.unwrap(), 1);
    assert_eq!(ingest(&mut second, Some(id.clone()), 10, 5).await.unwrap(), 5);
    let mut prepared =
        first.prepare("UPDATE t SET name = 'x' WHERE value > 99".into(), Some(id.clone())).await.unwrap();
    assert_eq!(prepared.execute_update().await.unwrap(), 3);
    assert_eq!((count(&mut first, &id).await, count(&mut second, &id).await), (10, 10));
    // Without the id, statements are by themselves.
    assert_eq!((number(&mut first, COUNT).await, number(&mut second, COUNT).await), (3, 3));
    second.end_transaction(id.clone(), EndTransaction::Commit).await.unwrap();
    assert_eq!(number(&mut first, COUNT).await, 10);
    assert_eq!(number(&mut first, "SELECT count(*) FROM t WHERE name = 'x'").await, 3);
    let error = first.execute(COUNT.into(), Some(id.clone())).await.unwrap_err();
    assert!(error.to_string().contains("unknown here"), "{error}");
    assert!(first.end_transaction(id, EndTransaction::Rollback).await.is_err());
    // The statement goes on without the transaction that it was prepared in.
    assert_eq!(prepared.execute_update().await.unwrap(), 3);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ingestion_without_an_id_joins_the_one_open_transaction() {
    let (server, mut client) = started().await;
    let one = client.begin_transaction().await.unwrap();
    assert_eq!(ingest(&mut client, None, 10, 5).await.unwrap(), 5);
    assert_eq!((count(&mut client, &one).await, number(&mut client, COUNT).await), (8, 3));
    let two = client.begin_transaction().await.unwrap();
    let error = ingest(&mut client, None, 10, 5).await.unwrap_err();
    assert!(error.to_string().contains("cannot be told"), "{error}");
    client.end_transaction(two, EndTransaction::Rollback).await.unwrap();
    // Others are not concerned.
    let mut other = server.client().await;
    assert_eq!(ingest(&mut other, None, 20, 1).await.unwrap(), 1);
    assert_eq!(number(&mut other, COUNT).await, 4);
    client.end_transaction(one, EndTransaction::Commit).await.unwrap();
    assert_eq!(number(&mut other, COUNT).await, 9);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn savepoints_are_rolled_back_to_and_released() {
    let (server, mut client) = started().await;
    let id = client.begin_transaction().await.unwrap();
    ingest(&mut client, None, 10, 1).await.unwrap();
    let begin =
        |name: &str| ActionBeginSavepointRequest { transaction_id: id.clone(), name: name.into() }.as_any();
    let outer: ActionBeginSavepointResult = act(&server, "BeginSavepoint", begin("s")).await.unwrap();
    ingest(&mut client, None, 20, 10).await.unwrap();
    let inner: ActionBeginSavepointResult = act(&server, "BeginSavepoint", begin("s")).await.unwrap();
    ingest(&mut client, None, 40, 100).await.unwrap();
    let end = |savepoint: &ActionBeginSavepointResult, action| {
        ActionEndSavepointRequest { savepoint_id: savepoint.savepoint_id.clone(), action }.as_any()
    };
    assert_eq!(count(&mut client, &id).await, 114);
    act::<ActionBeginSavepointResult>(&server, "EndSavepoint", end(&inner, 2)).await;
    assert_eq!(count(&mut client, &id).await, 14);
    act::<ActionBeginSavepointResult>(&server, "EndSavepoint", end(&inner, 1)).await;
    act::<ActionBeginSavepointResult>(&server, "EndSavepoint", end(&outer, 2)).await;
    assert_eq!(count(&mut client, &id).await, 4);
    client.end_transaction(id, EndTransaction::Commit).await.unwrap();
    assert_eq!(number(&mut client, COUNT).await, 4);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_can_be_tried_again() {
    let (server, mut client) = started().await;
    for statement in ["BEGIN ISOLATION LEVEL SERIALIZABLE", "INSERT INTO t (ts, value) SELECT ts, 1 FROM t"] {
        client.execute(statement.into(), None).await.unwrap();
    }
    let mut other = server.client().await;
    ingest(&mut other, None, 10, 1).await.unwrap();
    let error = client.execute("COMMIT".into(), None).await.unwrap_err();
    let FlightError::Tonic(status) = error else { panic!("{error}") };
    assert_eq!(status.code(), Code::Aborted, "{status}");
    assert!(status.message().contains("table t was changed"), "{status}");
    assert!(status.message().ends_with("run the transaction again"), "{status}");
    assert_eq!(status.metadata().get("tandem-error").unwrap(), "serialization");
    assert_eq!(number(&mut client, COUNT).await, 4);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_takes_its_writes_with_it() {
    let (server, mut client) = started().await;
    let mut written = server.client().await;
    let lost = written.begin_transaction().await.unwrap();
    written.execute_update("DELETE FROM t".into(), Some(lost.clone())).await.unwrap();
    drop(written);
    let mut read = server.client().await;
    let kept = read.begin_transaction().await.unwrap();
    assert_eq!(count(&mut read, &kept).await, 3);
    drop(read);
    let said = loop {
        match client.execute(COUNT.into(), Some(lost.clone())).await {
            Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            Err(error) => break error.to_string(),
        }
    };
    assert!(said.contains("its connection was closed"), "{said}");
    client.end_transaction(lost, EndTransaction::Rollback).await.unwrap();
    // One that has lost nothing is there for whoever has its id.
    ingest(&mut client, Some(kept.clone()), 10, 1).await.unwrap();
    client.end_transaction(kept, EndTransaction::Commit).await.unwrap();
    assert_eq!(number(&mut client, COUNT).await, 4);
    server.stop().await;
}
