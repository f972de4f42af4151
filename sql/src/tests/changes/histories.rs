//! Random histories: whoever is told of all commits has what the table has.

use std::fmt::Write;

use proptest::prelude::*;

use super::super::Fixture;
use super::{Replica, lines};

#[derive(Clone, Debug)]
enum Step {
    /// Hour, host, a, b; and what becomes of rows whose key is taken.
    Insert(Vec<(u8, u8, Option<i8>, Option<i8>)>, u8),
    Update(u8, i8),
    Delete(u8, i8),
    Truncate,
    DropPartition(u8),
    Compact(Option<u8>),
    Policy(u8),
    Restore(u8),
    AddColumn,
    DropColumn,
    /// The last few commits were one, if they can have been.
    Merge(u8),
}

const DAYS: u8 = 3;
const HOURS: u8 = 3 * DAYS;

fn step() -> impl Strategy<Value = Step> {
    let row = (0..HOURS, 0..2u8, proptest::option::of(0..4i8), proptest::option::of(0..4i8));
    prop_oneof![
        8 => (proptest::collection::vec(row, 1..6), 0..5u8).prop_map(|(rows, policy)| Step::Insert(rows, policy)),
        3 => (0..8u8, 0..4i8).prop_map(|(kind, value)| Step::Update(kind, value)),
        2 => (0..4u8, 0..4i8).prop_map(|(kind, value)| Step::Delete(kind, value)),
        1 => Just(Step::Truncate),
        1 => (0..DAYS).prop_map(Step::DropPartition),
        3 => proptest::option::of(0..DAYS).prop_map(Step::Compact),
        1 => (0..3u8).prop_map(Step::Policy),
        1 => any::<u8>().prop_map(Step::Restore),
        1 => Just(Step::AddColumn),
        1 => Just(Step::DropColumn),
        3 => (2..5u8).prop_map(Step::Merge),
    ]
}

fn time(hour: u8) -> String {
    format!("2024-01-0{}T{:02}:00:00", 1 + hour / 3, hour % 3)
}

fn value(value: Option<i8>) -> String {
    value.map_or_else(|| "NULL".to_owned(), |value| value.to_string())
}

impl Step {
    fn sql(&self, keyed: bool, seq: u64) -> Option<String> {
        Some(match self {
            Self::Insert(rows, policy) => {
                let mut sql = "INSERT INTO t (ts, host, a, b) VALUES ".to_owned();
                for (i, (hour, host, a, b)) in rows.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    let _ =
                        write!(sql, "{comma}('{}', 'h{host}', {}, {})", time(*hour), value(*a), value(*b));
                }
                if keyed {
                    sql += match policy {
                        0 => " ON CONFLICT (ts, host) DO NOTHING",
                        1 => " ON CONFLICT (ts, host) DO UPDATE SET a = excluded.a",
                        _ => "",
                    };
                }
                sql
            }
            Self::Update(kind, value) => match kind {
                0 => format!("UPDATE t SET a = {value}"),
                1 => format!("UPDATE t SET a = a + 1 WHERE b = {value}"),
                2 => "UPDATE t SET a = b, b = a WHERE host = 'h1'".to_owned(),
                3 => format!("UPDATE t SET b = NULL WHERE a = {value}"),
                4 => format!("UPDATE t SET a = (SELECT max(b) FROM t) WHERE b = {value}"),
                _ => format!("UPDATE t SET b = {value} WHERE ts >= TIMESTAMP '{}'", time(kind % HOURS)),
            },
            Self::Delete(kind, value) => match kind {
                0 => format!("DELETE FROM t WHERE a = {value}"),
                1 => format!("DELETE FROM t WHERE ts < TIMESTAMP '{}' AND b = {value}", time(4)),
                2 => "DELETE FROM t WHERE a = (SELECT min(a) FROM t)".to_owned(),
                _ => "DELETE FROM t WHERE host = 'h0' AND a IS NULL".to_owned(),
            },
            Self::Truncate => "TRUNCATE TABLE t".to_owned(),
            Self::DropPartition(day) => format!("ALTER TABLE t DROP PARTITION '2024-01-0{}'", day + 1),
            Self::Policy(policy) if keyed => {
                let policy = ["replace", "ignore", "merge"][usize::from(*policy)];
                format!("ALTER TABLE t SET (on_duplicate = '{policy}')")
            }
            Self::Restore(to) => format!("RESTORE TABLE t TO SEQ {}", 1 + u64::from(*to) % seq),
            Self::AddColumn => "ALTER TABLE t ADD COLUMN c BIGINT".to_owned(),
            Self::DropColumn => "ALTER TABLE t DROP COLUMN c".to_owned(),
            Self::Policy(_) | Self::Compact(_) | Self::Merge(_) => return None,
        })
    }
}

async fn play(keyed: bool, steps: &[Step], cut: u8) {
    let f = Fixture::new();
    let key = if keyed { " PRIMARY KEY (ts, host)" } else { "" };
    f.run(&format!("CREATE TABLE t (ts TIMESTAMP, host TEXT, a BIGINT, b BIGINT) PARTITION BY DAY{key}"))
        .await;
    let mut listing = String::new();
    // Commits since one that cannot be told together with others.
    let mut alone = f.head().0;
    for step in steps {
        let before = f.head().0;
        match step {
            Step::Compact(day) => {
                let label = day.map(|day| format!("2024-01-0{}", day + 1));
                let labels: Vec<&str> = label.iter().map(String::as_str).collect();
                f.database.compact("t", &labels).await;
            }
            Step::Merge(count) => {
                let count = usize::from(*count).min((before - alone) as usize);
                if count > 1 {
                    f.database.in_one_commit(&(0..count).collect::<Vec<_>>());
                    alone = f.head().0;
                    let _ = writeln!(listing, "  the last {count} in one commit;");
                }
                continue;
            }
            step => {
                let Some(sql) = step.sql(keyed, before) else { continue };
                // Some are refused, such as a column that is there.
                if f.try_run(&sql).await.is_err() {
                    continue;
                }
                let _ = writeln!(listing, "  {} {sql};", f.head());
            }
        }
        if f.head().0 > before
            && !matches!(step, Step::Insert(..) | Step::Update(0..=3 | 5.., _) | Step::Delete(0..=1 | 3.., _) | Step::Truncate | Step::DropPartition(_))
        {
            alone = f.head().0;
        }
    }
    let head = f.head().0;
    let from = 1 + u64::from(cut) % head;
    let state = async |seq: u64| {
        lines(&f.rows(&format!("SELECT * FROM t VERSION AS OF {seq}")).await.unwrap_or_default())
    };
    for to in [head, from.max(head / 2)] {
        let after = Replica::of(&state(to).await);
        let told = |from: u64, images: &'static str| {
            let f = &f;
            async move {
                let sql = format!("SELECT * FROM system.changes('t', {from}, {to}, '{images}')");
                lines(&f.rows(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e}")))
            }
        };
        let mut replica = Replica::default();
        told(1, "both").await.iter().for_each(|line| replica.told(line));
        assert_eq!(replica, after, "from the first commit to {to}\n{listing}");
        if keyed {
            let mut replica = Replica::default();
            told(1, "after").await.iter().for_each(|line| replica.told_by_key(line, 2));
            assert_eq!(replica, after, "by key, from the first commit to {to}\n{listing}");
        }
        // The columns of the first state are those of the last, where they did not change.
        let columns = |seq: u64| {
            let f = &f;
            async move { f.plan(&format!("SELECT * FROM t VERSION AS OF {seq}")).await.unwrap().schema() }
        };
        if from > 1 && columns(from - 1).await == columns(to).await && !listing.contains("COLUMN") {
            let mut replica = Replica::of(&state(from - 1).await);
            told(from, "both").await.iter().for_each(|line| replica.told(line));
            assert_eq!(replica, after, "from {from} to {to}\n{listing}");
        }
    }
}

fn run(keyed: bool, steps: &[Step], cut: u8) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(play(keyed, steps, cut));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn of_a_table_without_a_key(steps in proptest::collection::vec(step(), 1..14), cut in any::<u8>()) {
        run(false, &steps, cut);
    }

    #[test]
    fn of_a_table_with_a_key(steps in proptest::collection::vec(step(), 1..14), cut in any::<u8>()) {
        run(true, &steps, cut);
    }
}
