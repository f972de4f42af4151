//! Reading rows that UPDATEs and DELETEs have not been folded into.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use tandem_fold::literal_of;
use tandem_format::{BinaryOp, Expr};
use tandem_manifest::MutateDraft;

use super::Fixture;
use super::database::Looked;

impl Fixture {
    /// A column of a table, as a mutation reads it.
    fn col(&self, table: &str, name: &str) -> Expr {
        let column = self.database.column(table, name);
        Expr::Column { column: column.id, data_type: column.data_type }
    }

    fn delete(&self, table: &str, predicate: Expr) {
        self.database.mutate(table, MutateDraft::Delete { predicate }, None).unwrap();
    }

    fn update(&self, table: &str, predicate: Expr, assignments: Vec<(&str, Expr)>) {
        let assignments =
            assignments.into_iter().map(|(name, value)| (self.database.column(table, name).id, value));
        let draft = MutateDraft::Update { predicate, assignments: assignments.collect() };
        self.database.mutate(table, draft, None).unwrap();
    }
}

fn constant(array: impl arrow::array::Array + 'static) -> Expr {
    Expr::Literal(literal_of(&(Arc::new(array) as ArrayRef)).unwrap())
}

fn number(value: i64) -> Expr {
    constant(Int64Array::from(vec![value]))
}

fn text(value: &str) -> Expr {
    constant(StringArray::from(vec![value]))
}

fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
    Expr::Binary { op, left: Box::new(left), right: Box::new(right) }
}

fn eq(left: Expr, right: Expr) -> Expr {
    binary(BinaryOp::Eq, left, right)
}

/// Where rows lie when a mutation comes, and when the question is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lie {
    Tail,
    Files,
    FoldedSince,
}

const LIES: [Lie; 3] = [Lie::Tail, Lie::Files, Lie::FoldedSince];

/// Two days of three rows each: `(ts, host, n, v)`.
async fn filled(lie: Lie) -> Fixture {
    let f = Fixture::new();
    f.run("CREATE TABLE t (ts TIMESTAMP, host TEXT, n BIGINT, v BIGINT) PARTITION BY DAY").await;
    for day in 1..=2 {
        let rows = (1..=3).map(|n| {
            let id = (day - 1) * 3 + n;
            format!("('2024-01-0{day}T0{n}:00:00', 'h{n}', {id}, {})", id * 10)
        });
        f.run(&format!("INSERT INTO t VALUES {}", rows.collect::<Vec<_>>().join(", "))).await;
    }
    if lie == Lie::Files {
        f.database.compact("t", &[]).await;
    }
    f
}

async fn settle(f: &Fixture, lie: Lie) {
    if lie == Lie::FoldedSince {
        f.database.fold("t", &[], false, 1).await;
        assert_eq!(f.database.pending("t"), 0);
    }
}

#[tokio::test]
async fn mutations_act_on_the_rows_before_them_and_on_no_others() {
    for lie in LIES {
        let f = filled(lie).await;
        f.delete("t", eq(f.col("t", "n"), number(2)));
        f.run("INSERT INTO t VALUES ('2024-01-01T05:00:00', 'late', 2, 20)").await;
        let more = binary(BinaryOp::Add, f.col("t", "v"), number(1));
        f.update("t", eq(f.col("t", "host"), text("h3")), vec![("v", more)]);
        f.run("INSERT INTO t VALUES ('2024-01-03', 'h3', 7, 70)").await;
        settle(&f, lie).await;
        let all = "SELECT n, host, v FROM t ORDER BY n, host";
        assert_eq!(
            f.ask(all).await,
            "1 h1 10\n2 late 20\n3 h3 31\n4 h1 40\n5 h2 50\n6 h3 61\n7 h3 70",
            "{lie:?}"
        );
        assert_eq!(f.ask("SELECT count(*) FROM t").await, "7");
        assert_eq!(
            f.ask("SELECT count(*), min(ts) FROM t WHERE ts >= '2024-01-02'").await,
            "4 2024-01-02T01:00:00"
        );
        assert_eq!(f.ask("SELECT sum(v) FROM t WHERE host = 'h3'").await, "162");
    }
}

#[tokio::test]
async fn one_mutation_sees_what_another_one_did() {
    for lie in LIES {
        let f = filled(lie).await;
        let doubled = binary(BinaryOp::Multiply, f.col("t", "n"), number(10));
        f.update(
            "t",
            binary(BinaryOp::LtEq, f.col("t", "n"), number(3)),
            vec![("n", doubled), ("v", f.col("t", "n"))],
        );
        f.delete("t", binary(BinaryOp::Gt, f.col("t", "n"), number(25)));
        f.update("t", eq(f.col("t", "v"), number(2)), vec![("host", text("changed"))]);
        settle(&f, lie).await;
        assert_eq!(
            f.ask("SELECT n, host, v FROM t ORDER BY n").await,
            "4 h1 40\n5 h2 50\n6 h3 60\n10 h1 1\n20 changed 2",
            "{lie:?}"
        );
        // A column that only decides is read too, and not shown.
        assert_eq!(f.ask("SELECT host FROM t ORDER BY host").await, "changed\nh1\nh1\nh2\nh3");
    }
}

#[tokio::test]
async fn what_a_file_says_of_an_assigned_column_prunes_nothing() {
    let f = filled(Lie::Files).await;
    f.update("t", eq(f.col("t", "n"), number(2)), vec![("v", number(1000))]);
    assert_eq!(f.ask("SELECT n FROM t WHERE v = 1000").await, "2");
    assert_eq!(f.ask("SELECT n FROM t WHERE v = 20").await, "");
    assert_eq!(f.ask("SELECT max(v) FROM t").await, "1000");
    assert_eq!(f.ask("SELECT n FROM t ORDER BY v DESC LIMIT 1").await, "2");
    // Of a column that is left alone it may: no row group is left to read.
    let of_host = f.ask("EXPLAIN ANALYZE SELECT v FROM t WHERE host = 'zzz'").await;
    assert!(of_host.contains("row_groups_pruned_statistics=2 total → 0 matched"), "{of_host}");
    let of_v = f.ask("EXPLAIN ANALYZE SELECT n FROM t WHERE v = 123456").await;
    assert!(of_v.contains("row_groups_pruned_statistics=2 total → 2 matched"), "{of_v}");
}

#[tokio::test]
async fn only_what_has_something_to_go_through_is_folded() {
    let f = filled(Lie::Files).await;
    let day = |f: &Fixture, day: i64| {
        let start = (19_722 + day) * 86_400_000_000_000;
        let draft = MutateDraft::Delete { predicate: eq(f.col("t", "n"), number(day * 3)) };
        f.database.mutate("t", draft, Some((start, start + 86_399_999_999_999))).unwrap();
    };
    assert!(!f.ask("EXPLAIN SELECT * FROM t").await.contains("FoldExec"));
    day(&f, 1);
    let plan = f.ask("EXPLAIN SELECT n FROM t").await;
    assert!(
        plan.contains("FoldExec: table=t, files=1, mutations=1") && plan.contains("file_groups={1 group"),
        "{plan}"
    );
    let other = f.ask("EXPLAIN SELECT n FROM t WHERE ts >= '2024-01-02'").await;
    assert!(!other.contains("FoldExec"), "{other}");
    day(&f, 2);
    let plan = f.ask("EXPLAIN SELECT n FROM t").await;
    assert!(plan.contains("files=2, mutations=2") && !plan.contains("file_groups"), "{plan}");
    assert_eq!(f.ask("SELECT n FROM t ORDER BY n").await, "1\n2\n4\n5");
    f.database.fold("t", &["2024-01-01"], false, 1).await;
    let plan = f.ask("EXPLAIN SELECT n FROM t").await;
    assert!(plan.contains("files=1, mutations=1"), "{plan}");
    assert_eq!(f.ask("SELECT n FROM t ORDER BY n").await, "1\n2\n4\n5");
    assert_eq!(f.ask("SELECT n FROM t WHERE ts < '2024-01-02' ORDER BY ts DESC LIMIT 1").await, "2");
}

#[tokio::test]
async fn counts_are_counted_and_limits_met() {
    for lie in LIES {
        let f = filled(lie).await;
        f.delete("t", binary(BinaryOp::LtEq, f.col("t", "n"), number(4)));
        settle(&f, lie).await;
        assert_eq!(f.ask("SELECT count(*) FROM t").await, "2", "{lie:?}");
        assert_eq!(f.ask("SELECT count(*) FROM (SELECT * FROM t LIMIT 2)").await, "2");
        assert_eq!(f.ask("SELECT count(*) FROM (SELECT n FROM t WHERE v > 0 LIMIT 1)").await, "1");
        assert_eq!(f.ask("SELECT min(ts), max(ts) FROM t").await, "2024-01-02T02:00:00 2024-01-02T03:00:00");
        f.delete("t", constant(arrow::array::BooleanArray::from(vec![true])));
        assert_eq!(f.ask("SELECT count(*) FROM t").await, "0");
        assert_eq!(f.ask("SELECT n FROM t LIMIT 1").await, "");
    }
}

#[tokio::test]
async fn columns_that_are_gone_still_decide() {
    for lie in [Lie::Tail, Lie::Files] {
        let f = filled(lie).await;
        f.update("t", eq(f.col("t", "host"), text("h2")), vec![("v", number(-1))]);
        f.delete("t", eq(f.col("t", "v"), number(-1)));
        f.delete("t", eq(f.col("t", "host"), text("h3")));
        f.run("ALTER TABLE t DROP COLUMN v").await;
        f.run("ALTER TABLE t DROP COLUMN host").await;
        f.run("ALTER TABLE t ADD COLUMN host BIGINT").await;
        f.run("INSERT INTO t VALUES ('2024-01-03', 7, 1)").await;
        for _ in 0..2 {
            assert_eq!(
                f.ask("SELECT n, host IS NULL FROM t ORDER BY n").await,
                "1 true\n4 true\n7 false",
                "{lie:?}"
            );
            assert_eq!(f.ask("SELECT count(*) FROM t WHERE host = 1").await, "1");
            f.database.fold("t", &[], false, 1).await;
        }
    }
}

#[tokio::test]
async fn renamed_and_widened_columns_are_still_the_same() {
    for lie in [Lie::Tail, Lie::Files] {
        let f = Fixture::new();
        f.run("CREATE TABLE t (ts TIMESTAMP, a INT, b TEXT)").await;
        f.run("INSERT INTO t VALUES ('2024-01-01', 1, 'x'), ('2024-01-02', 2, 'y')").await;
        if lie == Lie::Files {
            f.database.compact("t", &[]).await;
        }
        f.update("t", eq(f.col("t", "b"), text("x")), vec![("a", constant(Int32Array::from(vec![7])))]);
        f.run("ALTER TABLE t RENAME COLUMN a TO c").await;
        f.run("ALTER TABLE t ALTER COLUMN c TYPE BIGINT").await;
        f.run("ALTER TABLE t ADD COLUMN a TEXT").await;
        f.run("INSERT INTO t (ts, c, b) VALUES ('2024-01-03', 5000000000, 'x')").await;
        for _ in 0..2 {
            assert_eq!(
                f.ask("SELECT c, a IS NULL FROM t ORDER BY ts").await,
                "7 true\n2 true\n5000000000 true"
            );
            assert_eq!(f.ask("SELECT b FROM t WHERE c = 7").await, "x");
            f.database.fold("t", &[], false, 1).await;
        }
    }
}

#[tokio::test]
async fn looked_up_rows_are_found_by_their_keys_nulls_included() {
    for lie in LIES {
        let f = filled(lie).await;
        f.run("INSERT INTO t VALUES ('2024-01-01T09:00:00', NULL, 9, 90)").await;
        let id = |name: &str| f.database.column("t", name).id;
        let hosts: ArrayRef = Arc::new(StringArray::from(vec![Some("h1"), None]));
        let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(-1), None]));
        let rows = RecordBatch::try_from_iter([("host", hosts), ("v", values)]).unwrap();
        let looked = Looked { columns: vec![id("host"), id("v")], keys: 1, rows };
        f.database.mutate_by_lookup("t", looked).unwrap();
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![3, 6]));
        let rows = RecordBatch::try_from_iter([("n", keys)]).unwrap();
        f.database.mutate_by_lookup("t", Looked { columns: vec![id("n")], keys: 1, rows }).unwrap();
        f.run("INSERT INTO t VALUES ('2024-01-02T09:00:00', 'h1', 10, 100)").await;
        settle(&f, lie).await;
        let loads = f.database.loads();
        for _ in 0..2 {
            assert_eq!(
                f.ask("SELECT n, coalesce(v, 0) FROM t ORDER BY n").await,
                "1 -1\n2 20\n4 -1\n5 50\n9 0\n10 100",
                "{lie:?}"
            );
        }
        if lie == Lie::Files {
            assert_eq!(f.database.loads() - loads, 2 + 2 * 2, "what is looked up is loaded once");
        }
    }
}

#[tokio::test]
async fn an_error_in_a_row_that_was_deleted_is_nobodys() {
    for lie in LIES {
        let f = filled(lie).await;
        f.run("INSERT INTO t VALUES ('2024-01-01T09:00:00', 'zero', 0, 0)").await;
        if lie == Lie::Files {
            f.database.compact("t", &[]).await;
        }
        f.delete("t", eq(f.col("t", "n"), number(0)));
        settle(&f, lie).await;
        assert_eq!(f.ask("SELECT n FROM t WHERE 60 / n > 20 ORDER BY n").await, "1\n2", "{lie:?}");
    }
}

#[tokio::test]
async fn very_many_files_are_planned_without_opening_one() {
    let f = Fixture::new();
    f.run("CREATE TABLE t (ts TIMESTAMP, v BIGINT) PARTITION BY HOUR").await;
    f.run("INSERT INTO t VALUES ('1970-01-01', 1)").await;
    f.database.pretend_files("t", 20_000);
    f.delete("t", eq(f.col("t", "v"), number(1)));
    let plan = f.ask("EXPLAIN SELECT sum(v) FROM t").await;
    assert!(plan.contains("files=20000, mutations=1"), "{plan}");
    let plan = f.ask("EXPLAIN SELECT v FROM t WHERE ts < '1970-01-01T02:00:00'").await;
    assert!(plan.contains("files=2, mutations=1"), "{plan}");
}
