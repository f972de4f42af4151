//! Sessions and statements that are neither queries nor inserts.

use tandem_manifest::SchemaPolicy;
use tandem_types::ErrorKind;

use super::Fixture;
use crate::database::Database;

#[tokio::test]
async fn options_are_set_shown_and_reset() {
    let f = Fixture::new();
    f.run("CREATE SCHEMA other").await;
    f.run("CREATE TABLE other.t (v INT)").await;
    f.run("SET schema = 'other'").await;
    assert_eq!(f.ask("SELECT count(*) FROM t").await, "0");
    assert_eq!(f.ask("SHOW schema").await, "schema other");
    f.run("SET tandem.schema = 'add'").await;
    assert_eq!(f.session.schema_policy(), SchemaPolicy::Add);
    f.run("RESET tandem.schema").await;
    assert_eq!(f.session.schema_policy(), SchemaPolicy::Strict);
    for (name, value, kind) in [
        ("schema", "nowhere", ErrorKind::NotFound),
        ("catalog", "other", ErrorKind::NotFound),
        ("tandem.schema", "maybe", ErrorKind::InvalidInput),
        ("tandem.ack", "local", ErrorKind::Unsupported),
        ("tandem.last_seq", "1", ErrorKind::Unsupported),
        ("tandem.nothing", "1", ErrorKind::InvalidInput),
        ("datafusion.execution.batch_size", "1", ErrorKind::InvalidInput),
    ] {
        let error = f.session.set_option(name, Some(value)).unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {error}");
    }
}

#[tokio::test]
async fn a_session_knows_what_it_wrote_last() {
    let f = Fixture::new();
    assert_eq!(f.ask("SELECT tandem_last_seq()").await, "0");
    f.run("CREATE TABLE t (v INT)").await;
    let seq = f.run("INSERT INTO t VALUES (1)").await.seq;
    assert_eq!(f.ask("SELECT tandem_last_seq()").await, seq.to_string());
    assert_eq!(f.session.option("tandem.last_seq").unwrap(), seq.to_string());
    let other = f.session.engine().session("other");
    assert_eq!(other.last_seq().0, 0);
}

#[tokio::test]
async fn questions_about_the_schema_are_queries() {
    let f = Fixture::new();
    f.run("CREATE TABLE t (ts TIMESTAMP, v INT)").await;
    assert!(f.ask("SHOW TABLES").await.contains('t'));
    assert!(f.ask("DESCRIBE t").await.contains("ts"));
    let prepared = f.session.prepare("SHOW TABLES").await.unwrap();
    assert!(prepared.is_query() && !prepared.schema().fields().is_empty());
    f.run("CREATE TABLE u (v INT)").await;
    let planned = prepared.plan(None).await.unwrap();
    assert!(super::table(&super::run(&planned).await.unwrap()).contains('u'), "the newest state answers");
}

#[tokio::test]
async fn queries_and_updates_do_not_mix() {
    let f = Fixture::new();
    let query = f.session.prepare("SELECT 1").await.unwrap();
    assert!(query.update(None).await.is_err());
    let create = f.session.prepare("CREATE TABLE t (v INT)").await.unwrap();
    assert!(create.plan(None).await.is_err());
    assert!(create.schema().fields().is_empty() && create.parameters().fields().is_empty());
    assert_eq!(f.database.snapshot().seq().0, 0, "preparing changes nothing");
    assert_eq!(create.update(None).await.unwrap().rows, None);
    f.run("OPTIMIZE TABLE t").await;
    f.run("CHECKPOINT").await;
    assert!(f.ask("SELECT * FROM system.tables").await.contains('t'));
}
