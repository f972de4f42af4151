//! Columns are bound by id, in files and in the tail alike.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, DictionaryArray, RecordBatch};
use arrow::datatypes::Int8Type;
use futures::StreamExt;
use tandem_manifest::{ColumnSpec, SchemaPolicy, TableSpec};
use tandem_types::TableName;

use super::Fixture;
use crate::database::{AppendRequest, CreateTable, Database};

/// Runs the same statements with the rows in the tail, and again with the rows in files.
async fn both(statements: &[&str], question: &str, answer: &str) {
    for compact in [false, true] {
        let f = Fixture::new();
        f.run("CREATE TABLE t (ts TIMESTAMP, a INT, b TEXT)").await;
        f.run("INSERT INTO t VALUES ('2024-01-01', 1, 'x'), ('2024-01-02', 2, 'y')").await;
        for statement in statements {
            if compact {
                f.database.compact("t", &[]).await;
            }
            f.run(statement).await;
        }
        assert_eq!(f.ask(question).await, answer, "compact: {compact}, {statements:?}");
    }
}

#[tokio::test]
async fn a_renamed_column_keeps_its_values() {
    both(&["ALTER TABLE t RENAME COLUMN b TO c"], "SELECT a, c FROM t WHERE c = 'y'", "2 y").await;
    both(
        &[
            "ALTER TABLE t RENAME COLUMN b TO tmp, RENAME COLUMN a TO b",
            "ALTER TABLE t RENAME COLUMN tmp TO a",
        ],
        "SELECT a, b FROM t WHERE b > 1",
        "y 2",
    )
    .await;
}

#[tokio::test]
async fn a_column_added_again_does_not_get_the_old_ones_values() {
    let again = ["ALTER TABLE t DROP COLUMN b", "ALTER TABLE t ADD COLUMN b TEXT"];
    both(&again, "SELECT count(*), count(b) FROM t", "2 0").await;
    both(&again, "SELECT count(*) FROM t WHERE b = 'x'", "0").await;
    let other_type = ["ALTER TABLE t DROP COLUMN b", "ALTER TABLE t ADD COLUMN b BIGINT"];
    both(&other_type, "SELECT a, b IS NULL FROM t ORDER BY a", "1 true\n2 true").await;
    let taken = ["ALTER TABLE t DROP COLUMN b", "ALTER TABLE t RENAME COLUMN a TO b"];
    both(&taken, "SELECT b FROM t ORDER BY b", "1\n2").await;
}

#[tokio::test]
async fn an_added_column_is_null_in_older_rows() {
    both(
        &["ALTER TABLE t ADD COLUMN c DOUBLE", "INSERT INTO t VALUES ('2024-01-03', 3, 'z', 0.5)"],
        "SELECT a, coalesce(c, -1) FROM t ORDER BY a",
        "1 -1.0\n2 -1.0\n3 0.5",
    )
    .await;
}

#[tokio::test]
async fn a_widened_column_reads_old_and_new_values() {
    both(
        &["ALTER TABLE t ALTER COLUMN a TYPE BIGINT", "INSERT INTO t VALUES ('2024-01-03', 5000000000, 'z')"],
        "SELECT a FROM t WHERE a >= 2 ORDER BY a",
        "2\n5000000000",
    )
    .await;
}

#[tokio::test]
async fn all_of_it_together() {
    both(
        &[
            "ALTER TABLE t RENAME COLUMN a TO c",
            "ALTER TABLE t ALTER COLUMN c TYPE BIGINT",
            "ALTER TABLE t ADD COLUMN a TEXT",
            "INSERT INTO t (ts, a, c) VALUES ('2024-01-03', 'new', 3)",
            "ALTER TABLE t DROP COLUMN b",
        ],
        "SELECT c, coalesce(a, '-') FROM t ORDER BY c",
        "1 -\n2 -\n3 new",
    )
    .await;
}

/// Makes a table `t` of these columns, through the door that Flight uses.
async fn appended(columns: Vec<(&str, ArrayRef)>) -> Fixture {
    let f = Fixture::new();
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    let columns = batch.schema_ref().fields().iter().map(|f| ColumnSpec {
        name: f.name().clone(),
        data_type: f.data_type().clone(),
        nullable: true,
    });
    let spec = TableSpec { columns: columns.collect(), ..TableSpec::default() };
    let request = AppendRequest {
        table: TableName::public("t"),
        schema: batch.schema(),
        policy: SchemaPolicy::Create,
        create: Some(CreateTable { spec, if_not_exists: false, replace: false }),
        on_conflict: None,
        queued: None,
        options: crate::options::WriteOptions::default(),
    };
    f.database.append(request, futures::stream::iter([Ok(batch)]).boxed()).await.unwrap();
    f
}

#[tokio::test]
async fn dictionaries_are_plain_strings_in_queries_and_on_the_wire() {
    let tags: DictionaryArray<Int8Type> = [Some("a"), None, Some("b"), Some("a")].into_iter().collect();
    let f = appended(vec![("tag", Arc::new(tags))]).await;
    for _ in 0..2 {
        let batches = f.rows("SELECT tag FROM t WHERE tag = 'a'").await.unwrap();
        assert_eq!(batches[0].schema().field(0).data_type().to_string(), "Utf8");
        assert_eq!(super::table(&batches), "a\na");
        let grouped = "SELECT coalesce(tag, '-') AS k, count(*) FROM t GROUP BY tag ORDER BY k";
        assert_eq!(f.ask(grouped).await, "- 1\na 2\nb 1");
        f.database.compact("t", &[]).await;
    }
    f.run("INSERT INTO t VALUES ('c')").await;
    assert_eq!(f.ask("SELECT max(tag), count(*) FROM t").await, "c 5");
}

#[tokio::test]
async fn a_name_that_went_from_bytes_to_text_reads_neither_as_the_other() {
    let f = appended(vec![("x", Arc::new(BinaryArray::from(vec![&b"\xff\xfe"[..]])) as ArrayRef)]).await;
    f.database.compact("t", &[]).await;
    f.run("ALTER TABLE t RENAME COLUMN x TO raw").await;
    f.run("ALTER TABLE t ADD COLUMN x TEXT").await;
    assert_eq!(f.ask("SELECT raw, x IS NULL FROM t").await, "fffe true");
}
