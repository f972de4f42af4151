//! Flight SQL, driven with arrow-flight's own client.

use std::sync::Arc;

use crate::kit::{fetch, number, query, start};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow_flight::error::FlightError;
use arrow_flight::sql::{CommandGetTables, SqlInfo};
use tonic::{Code, Status};

fn status(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        other => panic!("no status: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_changes_something_runs_once_when_its_info_is_asked_for() {
    let server = start().await;
    let mut client = server.client().await;
    let created = client.execute("CREATE TABLE t (ts TIMESTAMP, n BIGINT)".to_owned(), None).await.unwrap();
    assert_eq!(created.total_records, -1);
    let insert = "INSERT INTO t VALUES ('2024-01-01T00:00:00', 1), ('2024-01-02T00:00:00', 2)";
    let info = client.execute(insert.to_owned(), None).await.unwrap();
    assert_eq!(info.total_records, 2);
    let said: serde_json::Value = serde_json::from_slice(&info.app_metadata).unwrap();
    assert_eq!((said["rows"].as_u64(), said["exact"].as_bool()), (Some(2), Some(true)));
    assert!(said["seq"].as_u64().unwrap() > 0);
    // Reading its ticket, however often, changes nothing and yields no rows.
    for _ in 0..2 {
        assert!(fetch(&mut client, info.clone()).await.is_empty());
    }
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 2);
    assert_eq!(client.execute_update("INSERT INTO t SELECT * FROM t".to_owned(), None).await.unwrap(), 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_reads_the_snapshot_of_its_planning_again_and_again() {
    let server = start().await;
    let mut client = server.client().await;
    client.execute_update("CREATE TABLE t (n BIGINT)".to_owned(), None).await.unwrap();
    client.execute_update("INSERT INTO t VALUES (1), (2)".to_owned(), None).await.unwrap();
    let mut prepared = client.prepare("SELECT n, repeat('x', 3) AS x FROM t".to_owned(), None).await.unwrap();
    let info = prepared.execute().await.unwrap();
    assert_eq!(prepared.dataset_schema().unwrap(), &info.clone().try_decode_schema().unwrap());
    prepared.close().await.unwrap();
    client.execute_update("INSERT INTO t VALUES (3)".to_owned(), None).await.unwrap();
    let mut other = server.client().await;
    for _ in 0..2 {
        let rows: usize = fetch(&mut other, info.clone()).await.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows, 2);
    }
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_bound_by_position_and_run_once_per_row() {
    let server = start().await;
    let mut client = server.client().await;
    client.execute_update("CREATE TABLE t (n BIGINT, s TEXT)".to_owned(), None).await.unwrap();
    let columns: [(&str, ArrayRef); 2] = [
        ("0", Arc::new(Int64Array::from(vec![Some(1), Some(2), None]))),
        ("1", Arc::new(StringArray::from(vec!["a", "b", "c"]))),
    ];
    let params = RecordBatch::try_from_iter_with_nullable(columns.map(|(n, c)| (n, c, true))).unwrap();
    let mut insert = client.prepare("INSERT INTO t VALUES (?, ?)".to_owned(), None).await.unwrap();
    assert_eq!(insert.parameter_schema().unwrap().fields().len(), 2);
    assert!(insert.dataset_schema().unwrap().fields().is_empty());
    insert.set_parameters(params.clone()).unwrap();
    assert_eq!(insert.execute_update().await.unwrap(), 3);

    let mut select = client.prepare("SELECT s FROM t WHERE n = ?".to_owned(), None).await.unwrap();
    select.set_parameters(params.slice(1, 1).project(&[0]).unwrap()).unwrap();
    let info = select.execute().await.unwrap();
    let batches = fetch(&mut client, info).await;
    let found: Vec<&str> =
        batches.iter().flat_map(|b| b.column(0).as_string::<i32>().iter()).flatten().collect();
    assert_eq!(found, ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_their_code_and_their_sentence() {
    let server = start().await;
    let mut client = server.client().await;
    for (sql, code, said) in [
        ("SELEC 1", Code::InvalidArgument, "SELEC"),
        ("SELECT * FROM nowhere", Code::NotFound, "nowhere"),
        ("SELECT 1; SELECT 2", Code::InvalidArgument, "statement"),
    ] {
        let error = status(client.execute(sql.to_owned(), None).await.unwrap_err());
        assert_eq!(error.code(), code, "{sql}: {error}");
        assert!(error.message().contains(said), "{sql}: {error}");
    }
    let ticket = arrow_flight::sql::TicketStatementQuery { statement_handle: "none".into() };
    let ticket = arrow_flight::Ticket {
        ticket: prost::Message::encode_to_vec(&arrow_flight::sql::ProstMessageExt::as_any(&ticket)).into(),
    };
    let error = status(client.do_get(ticket).await.unwrap_err());
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.message().contains("expired"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_describes_itself() {
    let server = start().await;
    let mut client = server.client().await;
    client.execute_update("CREATE TABLE t (ts TIMESTAMP, n BIGINT NOT NULL)".to_owned(), None).await.unwrap();
    let request = CommandGetTables {
        table_name_filter_pattern: Some("t".to_owned()),
        table_types: vec!["BASE TABLE".to_owned(), "table".to_owned()],
        include_schema: true,
        ..CommandGetTables::default()
    };
    let info = client.get_tables(request).await.unwrap();
    let batches = fetch(&mut client, info).await;
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    let schema = batches[0].column(4).as_binary::<i32>().value(0).to_vec();
    let schema = arrow_schema::Schema::try_from(arrow_flight::IpcMessage(schema.into())).unwrap();
    let selected = client.execute("SELECT * FROM t".to_owned(), None).await.unwrap();
    assert_eq!(schema, selected.try_decode_schema().unwrap());
    assert!(!schema.field(1).is_nullable());

    let info = client.get_sql_info(vec![SqlInfo::FlightSqlServerName]).await.unwrap();
    assert_eq!(fetch(&mut client, info).await[0].num_rows(), 1);
    for info in [
        client.get_catalogs().await.unwrap(),
        client.get_table_types().await.unwrap(),
        client.get_db_schemas(Default::default()).await.unwrap(),
        client.get_primary_keys(Default::default()).await.unwrap(),
        client.get_imported_keys(Default::default()).await.unwrap(),
        client.get_xdbc_type_info(Default::default()).await.unwrap(),
    ] {
        fetch(&mut client, info).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_that_are_listed_exist() {
    let server = start().await;
    let mut client = server.client().await;
    let info = client
        .get_sql_info(vec![
            SqlInfo::SqlNumericFunctions,
            SqlInfo::SqlStringFunctions,
            SqlInfo::SqlSystemFunctions,
            SqlInfo::SqlDatetimeFunctions,
        ])
        .await
        .unwrap();
    let lists = fetch(&mut client, info).await;
    let union = lists[0].column(1).as_union();
    let mut names: Vec<String> = Vec::new();
    for row in 0..union.len() {
        let list = union.value(row);
        names.extend(list.as_list::<i32>().value(0).as_string::<i32>().iter().flatten().map(str::to_owned));
    }
    names.push("no_such_function".to_owned());
    let mut missing = Vec::new();
    for name in names {
        // Any complaint but "no such function" means that there is one.
        let outcome = client.execute(format!("SELECT {name}()"), None).await;
        if outcome.is_err_and(|e| status(e).message().to_lowercase().contains("invalid function")) {
            missing.push(name);
        }
    }
    assert_eq!(missing, ["no_such_function"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_its_connections_own() {
    let server = start().await;
    let mut first = server.client().await;
    first.execute_update("CREATE SCHEMA s".to_owned(), None).await.unwrap();
    first.execute_update("CREATE TABLE s.t (n BIGINT)".to_owned(), None).await.unwrap();
    first.execute_update("SET schema = 's'".to_owned(), None).await.unwrap();
    assert_eq!(number(&mut first, "SELECT count(*) FROM t").await, 0);
    let mut second = server.client().await;
    assert!(second.execute("SELECT count(*) FROM t".to_owned(), None).await.is_err());
    // A bearer that Handshake minted is a session of its own, whatever the connection.
    let channel = server.channel().await;
    let mut third = arrow_flight::sql::client::FlightSqlServiceClient::new(channel.clone());
    third.handshake("user", "password").await.unwrap();
    third.execute_update("SET schema = 's'".to_owned(), None).await.unwrap();
    let mut fourth = server.client().await;
    fourth.set_token(third.token().unwrap().clone());
    assert_eq!(number(&mut fourth, "SELECT count(*) FROM t").await, 0);
    assert_eq!(query(&mut fourth, "SELECT 1").await[0].num_rows(), 1);
}
