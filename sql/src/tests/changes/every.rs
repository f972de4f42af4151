//! All tables in one stream.

use std::collections::BTreeMap;

use futures::StreamExt;
use tandem_manifest::Step;
use tandem_types::{ErrorKind, Seq};

use super::super::Fixture;
use super::lines;
use crate::changes::{EveryRequest, Images, RunningChanges};
use crate::database::Database;
use crate::options::WriteOptions;

fn request(from: u64, to: u64, images: Images) -> EveryRequest {
    EveryRequest { from: Seq(from), to: Some(Seq(to)), images }
}

/// `table row seq op` of each row, and where the stream went on last.
async fn all(mut changes: RunningChanges) -> (Vec<Vec<String>>, Seq) {
    let (mut rows, mut next) = (Vec::new(), Seq(0));
    while let Some(batch) = changes.stream.next().await {
        let batch = batch.unwrap();
        assert_eq!(batch.rows.schema(), changes.schema);
        assert!(batch.next_seq >= next);
        next = batch.next_seq;
        rows.extend(lines(&[batch.rows]));
    }
    (rows, next)
}

async fn told(f: &Fixture, from: u64, images: Images) -> Vec<String> {
    let head = f.head();
    let (rows, next) = all(f.session.changes_of_all(request(from, head.0, images)).await.unwrap()).await;
    assert_eq!(next, head.next());
    rows.iter().map(|row| row.join(" ")).collect()
}

#[tokio::test]
async fn rows_of_all_tables_in_the_order_of_commits() {
    let f = Fixture::new();
    f.run("CREATE TABLE t (a BIGINT, b TEXT)").await;
    f.run("CREATE TABLE k (ts TIMESTAMP, x DOUBLE, PRIMARY KEY (ts))").await;
    f.run("INSERT INTO t VALUES (1, 'line\nbreak'), (2, NULL)").await;
    f.run("INSERT INTO k VALUES ('2024-01-01', 0.5)").await;
    f.run("INSERT INTO t VALUES (3, '\"')").await;
    f.run("INSERT INTO k VALUES ('2024-01-01', 1.5)").await;
    f.run("UPDATE t SET b = 'z' WHERE a = 2").await;
    f.run("ALTER TABLE t RENAME TO u").await;
    f.run("ALTER TABLE u ADD COLUMN c BOOLEAN").await;
    f.run("INSERT INTO u VALUES (4, 'x', true)").await;
    f.run("DROP TABLE u").await;
    let expected = [
        r#"t - 1 schema"#,
        r#"k - 2 schema"#,
        r#"t {"a":1,"b":"line\nbreak"} 3 insert"#,
        r#"t {"a":2,"b":null} 3 insert"#,
        r#"k {"ts":"2024-01-01T00:00:00","x":0.5} 4 insert"#,
        r#"t {"a":3,"b":"\""} 5 insert"#,
        r#"k {"ts":"2024-01-01T00:00:00","x":0.5} 6 update_before"#,
        r#"k {"ts":"2024-01-01T00:00:00","x":1.5} 6 update_after"#,
        r#"t {"a":2,"b":null} 7 update_before"#,
        r#"t {"a":2,"b":"z"} 7 update_after"#,
        r#"u - 8 schema"#,
        r#"u - 9 schema"#,
        r#"u {"a":4,"b":"x","c":true} 10 insert"#,
        r#"u - 11 schema"#,
    ];
    assert_eq!(told(&f, 1, Images::Both).await, expected);
    // From anywhere, and without images.
    assert_eq!(told(&f, 6, Images::Both).await, expected[6..]);
    let bare = told(&f, 6, Images::None).await;
    assert_eq!(
        bare[..2],
        [r#"k {"ts":"2024-01-01T00:00:00","x":1.5} 6 insert"#.to_owned(), "t - 7 update_after".to_owned()]
    );
    // A name that the stream has itself is none of its business here.
    f.run("CREATE TABLE odd (_seq BIGINT, _op TEXT)").await;
    f.run("INSERT INTO odd VALUES (7, 'mine')").await;
    assert_eq!(told(&f, 13, Images::After).await, [r#"odd {"_seq":7,"_op":"mine"} 13 insert"#]);
}

/// Each table's share is what its own stream tells, however commits are compacted and mixed.
#[tokio::test]
async fn a_tables_share_is_its_own_stream() {
    let f = Fixture::new();
    f.run("CREATE TABLE t (ts TIMESTAMP, a BIGINT)").await;
    f.run("CREATE TABLE k (ts TIMESTAMP, a BIGINT, PRIMARY KEY (ts)) WITH (on_duplicate = 'merge')").await;
    for day in 1..=9 {
        f.run(&format!("INSERT INTO t VALUES ('2024-01-0{day}', {day}), ('2024-01-01', {day})")).await;
        f.run(&format!("INSERT INTO k VALUES ('2024-01-0{day}', {day}), ('2024-01-01', {day})")).await;
        match day {
            3 => f.database.compact("t", &[]).await,
            5 => f.database.compact("k", &[]).await,
            6 => drop(f.run("DELETE FROM t WHERE a = 2").await),
            7 => drop(f.run("UPDATE k SET a = a + 1 WHERE a > 3").await),
            _ => {}
        }
    }
    let head = f.head();
    for images in [Images::None, Images::After, Images::Both] {
        let mut shares: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut last = Seq(0);
        let running = f.session.changes_of_all(request(1, head.0, images)).await.unwrap();
        for row in all(running).await.0 {
            let [table, _, seq, op] = row.as_slice() else { panic!("{row:?}") };
            let seq = Seq(seq.parse().unwrap());
            assert!(seq >= last, "{row:?} after {last}");
            last = seq;
            shares.entry(table.clone()).or_default().push(format!("{seq} {op}"));
        }
        let name = format!("{images:?}").to_lowercase();
        for table in ["t", "k"] {
            let of = format!("SELECT * FROM system.changes('{table}', 1, {head}, '{name}')");
            let own = lines(&f.rows(&of).await.unwrap());
            let mut own: Vec<String> = own.iter().map(|row| row[row.len() - 2..].join(" ")).collect();
            let mut share = shares.remove(table).unwrap();
            // Beside it, that there is a table from now on.
            let created = share.iter().position(|line| line.ends_with("schema")).unwrap();
            share.remove(created);
            own.sort_unstable();
            share.sort_unstable();
            assert_eq!(share, own, "{table} {images:?}");
        }
    }
}

#[tokio::test]
async fn a_beginning_that_is_gone_is_refused() {
    let f = Fixture::new();
    f.run("CREATE TABLE t (a BIGINT)").await;
    f.run("INSERT INTO t VALUES (1)").await;
    let cut = Step::Horizon { horizon: Seq(1), history_start: Seq(1) };
    f.database.submit(f.head(), vec![cut], WriteOptions::default()).await.unwrap();
    let gone = f.session.changes_of_all(request(1, 2, Images::After)).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::HistoryGone);
    assert_eq!(told(&f, 2, Images::After).await, [r#"t {"a":1} 2 insert"#]);
}
