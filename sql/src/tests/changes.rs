//! What commits did, as rows: told from two states, whatever lies where.

mod every;
mod histories;
mod streams;

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tandem_manifest::Step;
use tandem_types::{ErrorKind, Seq};

use super::Fixture;
use crate::database::Database;
use crate::options::WriteOptions;

/// One line per row, in the order told; the commit's time is left out.
fn lines(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("-");
    let mut lines = Vec::new();
    for batch in batches {
        let schema = batch.schema();
        let columns = batch.columns().iter().zip(schema.fields()).filter(|(_, f)| f.name() != "_commit_time");
        let columns: Vec<_> =
            columns.map(|(column, _)| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            lines.push(columns.iter().map(|column| column.value(row).to_string()).collect());
        }
    }
    lines
}

impl Fixture {
    fn head(&self) -> Seq {
        self.database.snapshot().seq()
    }

    /// `columns… seq op`, one line per row.
    async fn changes(&self, args: &str) -> String {
        let rows = self.rows(&format!("SELECT * FROM system.changes({args})")).await;
        let rows = rows.unwrap_or_else(|e| panic!("{args}: {e}"));
        lines(&rows).iter().map(|line| line.join(" ")).collect::<Vec<_>>().join("\n")
    }
}

/// What somebody has who began with nothing, or with some rows, and did as he was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Replica(BTreeMap<Vec<String>, i64>);

impl Replica {
    fn of(rows: &[Vec<String>]) -> Self {
        let mut replica = Self::default();
        rows.iter().for_each(|row| replica.add(row, 1));
        replica
    }

    fn add(&mut self, row: &[String], count: i64) {
        let rows = self.0.entry(row.to_vec()).or_default();
        *rows += count;
        assert!(*rows >= 0, "a row goes that was not there: {row:?}");
        if *rows == 0 {
            self.0.remove(row);
        }
    }

    /// Of a stream with all images.
    fn told(&mut self, line: &[String]) {
        let (row, told) = line.split_at(line.len() - 2);
        match told[1].as_str() {
            "insert" | "update_after" => self.add(row, 1),
            "delete" | "update_before" => self.add(row, -1),
            "schema" => {}
            other => panic!("{other}"),
        }
    }

    /// Of a stream without images from before, of a table whose first `key` columns are its key.
    fn told_by_key(&mut self, line: &[String], key: usize) {
        let (row, told) = line.split_at(line.len() - 2);
        let known = self.0.keys().find(|known| known[..key] == row[..key]).cloned();
        match (told[1].as_str(), known) {
            ("insert", None) => self.add(row, 1),
            ("update_after", Some(known)) => {
                self.add(&known, -1);
                self.add(row, 1);
            }
            ("delete", Some(known)) => {
                assert_eq!(known, row, "what goes is told as it was");
                self.add(&known, -1);
            }
            ("schema", _) => {}
            (op, known) => panic!("{op} of {row:?}, and there is {known:?}"),
        }
    }
}

#[tokio::test]
async fn a_table_without_a_key() {
    let f = Fixture::new();
    f.run("CREATE TABLE t (ts TIMESTAMP, a BIGINT, b TEXT)").await;
    f.run("INSERT INTO t VALUES ('2024-01-01', 1, 'x'), ('2024-01-02', 2, 'y')").await;
    f.run("INSERT INTO t VALUES ('2024-01-02', 2, 'y')").await;
    for compact in [false, true] {
        if compact {
            f.database.compact("t", &[]).await;
        }
        assert_eq!(
            f.changes("'t', 1").await,
            "2024-01-01T00:00:00 1 x 2 insert\n2024-01-02T00:00:00 2 y 2 insert\n2024-01-02T00:00:00 2 y 3 insert"
        );
        assert_eq!(f.changes("'t', 3, NULL").await, "2024-01-02T00:00:00 2 y 3 insert");
    }
    let updated = f.run("UPDATE t SET a = a + 10, b = 'z' WHERE ts = TIMESTAMP '2024-01-01'").await.seq;
    let nothing = f.run("UPDATE t SET a = 2 WHERE a = 2").await.seq;
    let deleted = f.run("DELETE FROM t WHERE a = 2").await.seq;
    for _ in 0..2 {
        assert_eq!(
            f.changes(&format!("'t', {updated}, NULL, 'both'")).await,
            format!(
                "2024-01-01T00:00:00 1 x {updated} update_before\n2024-01-01T00:00:00 11 z {updated} update_after\n\
                 2024-01-02T00:00:00 2 y {deleted} delete\n2024-01-02T00:00:00 2 y {deleted} delete"
            )
        );
        assert_eq!(
            f.changes(&format!("'t', {updated}, {nothing}")).await,
            format!("2024-01-01T00:00:00 11 z {updated} update_after")
        );
        assert_eq!(
            f.changes(&format!("'public.t', {updated}, {deleted}, 'none'")).await,
            format!("- - - {updated} update_after\n- - - {nothing} update_after\n- - - {deleted} delete")
        );
        f.database.compact("t", &[]).await;
    }
    assert_eq!(f.changes(&format!("'t', {}", deleted.next())).await, "", "a compaction changes nothing");
    assert_eq!(
        f.ask("SELECT _op, count(*) FROM system.changes('t', 1) GROUP BY 1 ORDER BY 1").await,
        "delete 2\ninsert 3\nupdate_after 1"
    );
    assert_eq!(
        f.ask("SELECT c.a FROM system.changes('t', 1) AS c WHERE _seq = 2 ORDER BY a DESC LIMIT 1").await,
        "2"
    );
    assert_eq!(
        f.ask(
            "SELECT x.a, y.a FROM system.changes('t', 2, 2) x JOIN system.changes('t', 3, 3) y ON x.b = y.b"
        )
        .await,
        "2 2"
    );
    assert_eq!(
        f.ask("SELECT DISTINCT _commit_time FROM system.changes('t', 2, 2)").await,
        "1970-01-01T00:00:00.000002"
    );
}

#[tokio::test]
async fn rows_of_equal_keys_are_told_as_what_became_of_them() {
    for (policy, first, second) in
        [("replace", "1 - 10", "1 2 -"), ("ignore", "1 1 -", ""), ("merge", "1 1 10", "1 2 10")]
    {
        let f = Fixture::new();
        f.run(&format!(
            "CREATE TABLE t (k BIGINT PRIMARY KEY, a BIGINT, b BIGINT) WITH (on_duplicate = '{policy}')"
        ))
        .await;
        let one = f.run("INSERT INTO t VALUES (1, 1, NULL), (1, NULL, 10), (2, 5, 5)").await.seq;
        let told = f.changes("'t', 1").await;
        assert_eq!(told, format!("{first} {one} insert\n2 5 5 {one} insert"), "{policy}");
        let two = f.run("INSERT INTO t VALUES (1, 2, NULL)").await.seq;
        let (both, after) = match second {
            "" => (String::new(), String::new()),
            second => (
                format!("{first} {two} update_before\n{second} {two} update_after"),
                format!("{second} {two} update_after"),
            ),
        };
        for _ in 0..2 {
            assert_eq!(f.changes(&format!("'t', {two}, NULL, 'both'")).await, both, "{policy}");
            assert_eq!(f.changes(&format!("'t', {two}, {two}, 'after'")).await, after, "{policy}");
            assert_eq!(f.changes(&format!("'t', {two}, {two}, 'none'")).await, format!("1 2 - {two} insert"));
            f.database.compact("t", &[]).await;
        }
        let gone = f.run("DELETE FROM t WHERE k = 2").await.seq;
        assert_eq!(f.changes(&format!("'t', {gone}")).await, format!("2 5 5 {gone} delete"));
        let back = f.run("INSERT INTO t VALUES (2, 6, 6)").await.seq;
        assert_eq!(f.changes(&format!("'t', {back}")).await, format!("2 6 6 {back} insert"));
    }
}

#[tokio::test]
async fn rows_that_go_without_a_predicate_are_told_too() {
    for key in ["", " PRIMARY KEY (ts)"] {
        let f = Fixture::new();
        f.run(&format!("CREATE TABLE t (ts TIMESTAMP, a BIGINT) PARTITION BY DAY{key}")).await;
        f.run("INSERT INTO t VALUES ('2024-01-01', 1), ('2024-01-02', 2), ('2024-01-03', 3)").await;
        f.database.compact("t", &["2024-01-02"]).await;
        let full = f.head();
        let dropped = f.run("ALTER TABLE t DROP PARTITION '2024-01-02'").await.seq;
        assert_eq!(
            f.changes(&format!("'t', {dropped}")).await,
            format!("2024-01-02T00:00:00 2 {dropped} delete")
        );
        assert_eq!(
            f.changes(&format!("'t', {dropped}, NULL, 'none'")).await,
            format!("- - {dropped} delete")
        );
        let truncated = f.run("TRUNCATE TABLE t").await.seq;
        let mut told =
            lines(&f.rows(&format!("SELECT * FROM system.changes('t', {truncated})")).await.unwrap());
        told.sort();
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(told[1][1..], ["3".to_owned(), truncated.to_string(), "delete".to_owned()]);
        let empty = f.head();
        f.run("INSERT INTO t VALUES ('2024-01-01', 9)").await;
        let restored = f.run(&format!("RESTORE TABLE t TO SEQ {full}")).await.seq;
        let mut replica = Replica::default();
        lines(
            &f.rows(&format!("SELECT * FROM system.changes('t', {}, NULL, 'both')", empty.next()))
                .await
                .unwrap(),
        )
        .iter()
        .for_each(|line| replica.told(line));
        let now = lines(&f.rows("SELECT * FROM t").await.unwrap());
        assert_eq!(replica, Replica::of(&now));
        assert!(
            f.changes(&format!("'t', {restored}, NULL, 'none'"))
                .await
                .starts_with(&format!("- - {restored} delete\n"))
        );
    }
}

#[tokio::test]
async fn columns_are_those_after_the_last_commit() {
    let f = Fixture::new();
    f.run("CREATE TABLE t (a INT, b TEXT)").await;
    f.run("INSERT INTO t VALUES (1, 'x')").await;
    let added = f.run("ALTER TABLE t ADD COLUMN c BIGINT").await.seq;
    f.run("INSERT INTO t VALUES (2, 'y', 7)").await;
    assert_eq!(
        f.changes("'t', 1").await,
        format!("1 x - 2 insert\n- - - {added} schema\n2 y 7 {} insert", added.next())
    );
    assert_eq!(f.changes("'t', 1, 2").await, "1 x 2 insert");
    let dropped = f.run("ALTER TABLE t DROP COLUMN b").await.seq;
    f.run("ALTER TABLE t RENAME COLUMN a TO z").await;
    f.run("UPDATE t SET c = 8 WHERE z = 1").await;
    assert_eq!(f.changes("'t', 2, 2").await, "1 x 2 insert");
    let told = f
        .rows("SELECT z, c, _op FROM system.changes('t', 2, NULL, 'both') WHERE _op <> 'schema'")
        .await
        .unwrap();
    let told: Vec<String> = lines(&told).iter().map(|line| line.join(" ")).collect();
    assert_eq!(told, ["1 - insert", "2 7 insert", "1 - update_before", "1 8 update_after"]);
    f.run("ALTER TABLE t RENAME TO u").await;
    assert_eq!(f.changes("'u', 2, 2").await, "1 x 2 insert", "by its name of today");
    assert_eq!(f.changes("'t', 2, 2").await, "1 x 2 insert", "and by the name that it had");
    let gone = f.run("DROP TABLE u").await.seq;
    assert!(f.changes(&format!("'t', {dropped}")).await.ends_with(&format!("{gone} schema")));
    let back = f.run("UNDROP TABLE u").await.seq;
    let again = f.rows(&format!("SELECT z, c, _seq, _op FROM system.changes('u', {gone})")).await.unwrap();
    let mut again: Vec<String> = lines(&again).iter().map(|line| line.join(" ")).collect();
    again.sort();
    assert_eq!(again, [format!("1 8 {back} insert"), format!("2 7 {back} insert")]);
}

#[tokio::test]
async fn what_cannot_be_told_is_refused() {
    let f = Fixture::new();
    f.run("CREATE TABLE t (a BIGINT)").await;
    f.run("CREATE TABLE odd (a BIGINT, _op TEXT)").await;
    f.run("INSERT INTO t VALUES (1)").await;
    for (args, kind, said) in [
        ("'nothing', 1", ErrorKind::NotFound, "table nothing does not exist"),
        ("'t', 1, 99", ErrorKind::Behind, "seq 99 is asked for"),
        ("'t', -1", ErrorKind::InvalidInput, "no seq"),
        ("'t', 1, 2, 'all'", ErrorKind::InvalidInput, "none, after or both"),
        ("'t'", ErrorKind::InvalidInput, "it takes"),
        ("1, 't'", ErrorKind::InvalidInput, "it takes"),
        ("'t', 1, 2, 'none', 5", ErrorKind::InvalidInput, "it takes"),
        ("'t', 'x'", ErrorKind::InvalidInput, "it takes"),
        ("'odd', 1", ErrorKind::Unsupported, "\"_op\""),
    ] {
        let error = f.refused(&format!("SELECT * FROM system.changes({args})")).await;
        assert_eq!(error.kind(), kind, "{args}: {error}");
        assert!(error.message().contains(said), "{args}: {error}");
    }
    assert_eq!(f.changes("'t', 3 + 0, tandem_last_seq()").await, "1 3 insert");
    assert_eq!(f.changes("'t', 4").await, "");
    assert!(f.ask("EXPLAIN SELECT a FROM system.changes('t', 1)").await.contains("StreamingTable"));
    f.run("INSERT INTO t SELECT a + 1 FROM system.changes('t', 3, 3)").await;
    assert_eq!(f.ask("SELECT max(a) FROM t").await, "2");
    let cut = Step::Horizon { horizon: Seq(2), history_start: Seq(2) };
    f.database.submit(f.head(), vec![cut], WriteOptions::default()).await.unwrap();
    let error = f.refused("SELECT * FROM system.changes('t', 2)").await;
    assert_eq!(error.kind(), ErrorKind::HistoryGone);
    assert!(error.message().contains("the first that can be is 3"), "{error}");
    assert_eq!(f.changes("'t', 3, 3").await, "1 3 insert");
}

/// A commit of several transactions is told as what it came to, and a compaction among them makes no difference.
#[tokio::test]
async fn transactions_of_one_commit() {
    for (policy, on) in [("", ""), (" PRIMARY KEY (ts)", " WITH (on_duplicate = 'merge')")] {
        let f = Fixture::new();
        f.run(&format!("CREATE TABLE t (ts TIMESTAMP, a BIGINT, b BIGINT) PARTITION BY DAY{policy}{on}"))
            .await;
        f.run("INSERT INTO t VALUES ('2024-01-01', 1, 1), ('2024-01-02', 2, 2)").await;
        f.run("UPDATE t SET a = 7 WHERE b = 1").await;
        let before = f.head();
        f.database.compact("t", &[]).await;
        f.run("INSERT INTO t VALUES ('2024-01-01', NULL, 5), ('2024-01-03', 3, 3)").await;
        f.run("UPDATE t SET a = a + 1 WHERE b >= 2").await;
        f.run("DELETE FROM t WHERE b = 3").await;
        f.run("INSERT INTO t VALUES ('2024-01-03', 4, 4)").await;
        // The compaction comes third.
        f.database.in_one_commit(&[1, 2, 0, 3, 4]);
        let commit = before.next();
        assert_eq!(f.head(), commit);
        let told =
            f.rows(&format!("SELECT * FROM system.changes('t', {commit}, NULL, 'both')")).await.unwrap();
        let then = lines(&f.rows(&format!("SELECT * FROM t VERSION AS OF {before}")).await.unwrap());
        let mut replica = Replica::of(&then);
        lines(&told).iter().for_each(|line| replica.told(line));
        assert_eq!(replica, Replica::of(&lines(&f.rows("SELECT * FROM t").await.unwrap())));
        assert!(lines(&told).iter().all(|line| line[3] == commit.to_string()));
    }
}
