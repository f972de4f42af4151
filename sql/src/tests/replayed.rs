//! Random histories against rows in plain memory: whatever was compacted when, a query sees what they come to.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampNanosecondArray};
use proptest::prelude::*;
use tandem_fold::literal_of;
use tandem_format::{BinaryOp, Expr};
use tandem_manifest::MutateDraft;

use super::Fixture;

const HOSTS: [&str; 3] = ["x", "y", "z"];

/// 2024-01-01 in nanoseconds, and the distance of the times that rows have.
const START: i64 = 1_704_067_200_000_000_000;
const STEP: i64 = 6 * 3600 * 1_000_000_000;
const TIMES: i64 = 10;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    time: i64,
    host: usize,
    a: Option<i64>,
    b: Option<i64>,
    c: Option<String>,
}

/// Of mutations and of queries.
#[derive(Clone, Debug)]
enum Test {
    AIs(i64),
    ALess(i64),
    BIs(i64),
    BNull,
    Host(usize),
    Between(i64, i64),
    CIs(i64),
    Both(Box<Test>, Box<Test>),
    Either(Box<Test>, Box<Test>),
}

#[derive(Clone, Debug)]
enum Change {
    Delete,
    SetA(Option<i64>),
    AddToA(i64),
    BToA,
    SetC(i64),
}

#[derive(Clone, Debug)]
enum Step {
    Insert(Vec<Row>),
    Mutate(Test, Change),
    Compact(Vec<i64>),
    Fold(Vec<i64>, usize),
    WidenA,
    DropB,
    Ask(Option<Test>),
}

fn c(value: i64) -> String {
    format!("text{value}")
}

impl Test {
    fn holds(&self, row: &Row) -> Option<bool> {
        match self {
            Self::AIs(v) => row.a.map(|a| a == *v),
            Self::ALess(v) => row.a.map(|a| a < *v),
            Self::BIs(v) => row.b.map(|b| b == *v),
            Self::BNull => Some(row.b.is_none()),
            Self::Host(host) => Some(row.host == *host),
            Self::Between(from, to) => Some(*from <= row.time && row.time <= *to),
            Self::CIs(v) => row.c.as_ref().map(|text| *text == c(*v)),
            Self::Both(l, r) => match (l.holds(row), r.holds(row)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Self::Either(l, r) => match (l.holds(row), r.holds(row)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
        }
    }

    fn sql(&self) -> String {
        match self {
            Self::AIs(v) => format!("a = {v}"),
            Self::ALess(v) => format!("a < {v}"),
            Self::BIs(v) => format!("b = {v}"),
            Self::BNull => "b IS NULL".to_owned(),
            Self::Host(host) => format!("host = '{}'", HOSTS[*host]),
            Self::Between(from, to) => format!("ts BETWEEN {} AND {}", time(*from), time(*to)),
            Self::CIs(v) => format!("c = '{}'", c(*v)),
            Self::Both(l, r) => format!("({} AND {})", l.sql(), r.sql()),
            Self::Either(l, r) => format!("({} OR {})", l.sql(), r.sql()),
        }
    }

    fn expr(&self, f: &Fixture) -> Expr {
        let compare = |name: &str, op, value: ArrayRef| {
            let value = Expr::Literal(literal_of(&value).unwrap());
            Expr::Binary { op, left: Box::new(column(f, name)), right: Box::new(value) }
        };
        let number = |v: &i64| Arc::new(Int64Array::from(vec![*v])) as ArrayRef;
        let text = |v: &str| Arc::new(StringArray::from(vec![v])) as ArrayRef;
        let ticks = |t: &i64| Arc::new(TimestampNanosecondArray::from(vec![START + t * STEP])) as ArrayRef;
        let binary = |op, l: Expr, r: Expr| Expr::Binary { op, left: Box::new(l), right: Box::new(r) };
        match self {
            Self::AIs(v) => compare("a", BinaryOp::Eq, number(v)),
            Self::ALess(v) => compare("a", BinaryOp::Lt, number(v)),
            Self::BIs(v) => compare("b", BinaryOp::Eq, number(v)),
            Self::BNull => Expr::IsNull(Box::new(column(f, "b"))),
            Self::Host(host) => compare("host", BinaryOp::Eq, text(HOSTS[*host])),
            Self::Between(from, to) => binary(
                BinaryOp::And,
                compare("ts", BinaryOp::GtEq, ticks(from)),
                compare("ts", BinaryOp::LtEq, ticks(to)),
            ),
            Self::CIs(v) => compare("c", BinaryOp::Eq, text(&c(*v))),
            Self::Both(l, r) => binary(BinaryOp::And, l.expr(f), r.expr(f)),
            Self::Either(l, r) => binary(BinaryOp::Or, l.expr(f), r.expr(f)),
        }
    }

    /// The times outside which it is never true.
    fn hull(&self) -> Option<(i64, i64)> {
        match self {
            Self::Between(from, to) => Some((START + from * STEP, START + to * STEP)),
            Self::Both(l, r) => l.hull().or(r.hull()),
            _ => None,
        }
    }

    fn reads_b(&self) -> bool {
        match self {
            Self::BIs(_) | Self::BNull => true,
            Self::Both(l, r) | Self::Either(l, r) => l.reads_b() || r.reads_b(),
            _ => false,
        }
    }
}

fn column(f: &Fixture, name: &str) -> Expr {
    let column = f.database.column("t", name);
    Expr::Column { column: column.id, data_type: column.data_type }
}

fn time(n: i64) -> String {
    let hours = n * STEP / 3_600_000_000_000;
    format!("TIMESTAMP '2024-01-{:02}T{:02}:00:00'", 1 + hours / 24, hours % 24)
}

impl Change {
    fn apply(&self, row: &mut Row) {
        match self {
            Self::Delete => {}
            Self::SetA(value) => row.a = *value,
            Self::AddToA(by) => row.a = row.a.map(|a| a + by),
            Self::BToA => row.a = row.b,
            Self::SetC(value) => row.c = Some(c(*value)),
        }
    }

    fn draft(&self, f: &Fixture, predicate: Expr) -> MutateDraft {
        let id = |name| f.database.column("t", name).id;
        let number = |v: Option<i64>| {
            Expr::Literal(literal_of(&(Arc::new(Int64Array::from(vec![v])) as ArrayRef)).unwrap())
        };
        let as_a =
            |value: Expr| Expr::Cast { of: Box::new(value), to: f.database.column("t", "a").data_type };
        let (name, value) = match self {
            Self::Delete => return MutateDraft::Delete { predicate },
            Self::SetA(value) => ("a", as_a(number(*value))),
            Self::AddToA(by) => {
                let (left, right) = (Box::new(column(f, "a")), Box::new(number(Some(*by))));
                ("a", as_a(Expr::Binary { op: BinaryOp::Add, left, right }))
            }
            Self::BToA => ("a", as_a(column(f, "b"))),
            Self::SetC(value) => {
                let text = Arc::new(StringArray::from(vec![c(*value)])) as ArrayRef;
                ("c", Expr::Literal(literal_of(&text).unwrap()))
            }
        };
        MutateDraft::Update { predicate, assignments: vec![(id(name), value)] }
    }
}

/// The table as a list, or by key.
struct Model {
    on_duplicate: Option<&'static str>,
    rows: Vec<Row>,
}

impl Model {
    fn insert(&mut self, row: Row) {
        let known = match self.on_duplicate {
            None => None,
            Some(_) => self.rows.iter_mut().find(|r| (r.time, r.host) == (row.time, row.host)),
        };
        match (known, self.on_duplicate) {
            (None, _) => self.rows.push(row),
            (Some(_), Some("ignore")) => {}
            (Some(known), Some("merge")) => {
                known.a = row.a.or(known.a);
                known.b = row.b.or(known.b);
                known.c = row.c.or(known.c.take());
            }
            (Some(known), _) => *known = row,
        }
    }

    fn mutate(&mut self, test: &Test, change: &Change) {
        if matches!(change, Change::Delete) {
            self.rows.retain(|row| test.holds(row) != Some(true));
            return;
        }
        for row in self.rows.iter_mut().filter(|row| test.holds(row) == Some(true)) {
            change.apply(row);
        }
    }

    fn answer(&self, test: Option<&Test>, with_b: bool) -> String {
        let chosen = self.rows.iter().filter(|row| test.is_none_or(|t| t.holds(row) == Some(true)));
        let mut chosen: Vec<Row> =
            chosen.map(|row| Row { b: row.b.filter(|_| with_b), ..row.clone() }).collect();
        chosen.sort();
        let number = |v: Option<i64>| v.map_or("-".to_owned(), |v| v.to_string());
        let mut text = String::new();
        for row in chosen {
            let b = if with_b { format!(" {}", number(row.b)) } else { String::new() };
            let c = row.c.unwrap_or("-".to_owned());
            writeln!(text, "{} {} {}{b} {c}", row.time, HOSTS[row.host], number(row.a)).unwrap();
        }
        text.trim_end().to_owned()
    }
}

async fn replay(on_duplicate: Option<&'static str>, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let f = Fixture::new();
    let key = match on_duplicate {
        None => String::new(),
        Some(policy) => format!("PRIMARY KEY (ts, host) WITH (on_duplicate = '{policy}')"),
    };
    f.run(&format!(
        "CREATE TABLE t (ts TIMESTAMP, host TEXT, a INT, c TEXT, b BIGINT) PARTITION BY DAY {key}"
    ))
    .await;
    let mut model = Model { on_duplicate, rows: Vec::new() };
    let mut has_b = true;
    let done = steps.len();
    for (n, step) in steps.into_iter().chain([Step::Ask(None)]).enumerate() {
        let ask = match &step {
            Step::Insert(rows) => {
                for row in rows {
                    model.insert(Row { b: row.b.filter(|_| has_b), ..row.clone() });
                }
                f.run(&insert(rows, has_b)).await;
                None
            }
            Step::Mutate(test, change) if has_b || !(test.reads_b() || matches!(change, Change::BToA)) => {
                let draft = change.draft(&f, test.expr(&f));
                f.database.mutate("t", draft, test.hull()).unwrap();
                model.mutate(test, change);
                None
            }
            Step::Compact(days) => {
                f.database.compact("t", &labels(days)).await;
                None
            }
            Step::Fold(days, pieces) => {
                f.database.fold("t", &labels(days), false, *pieces).await;
                None
            }
            Step::WidenA => {
                f.run("ALTER TABLE t ALTER COLUMN a TYPE BIGINT").await;
                None
            }
            Step::DropB if has_b => {
                f.run("ALTER TABLE t DROP COLUMN b").await;
                has_b = false;
                None
            }
            Step::Ask(test) if has_b || !test.as_ref().is_some_and(Test::reads_b) => Some(test.as_ref()),
            _ => None,
        };
        let Some(test) = ask else { continue };
        let condition = test.map_or("true".to_owned(), Test::sql);
        let time = format!("(ts::BIGINT - {START}) / {STEP}");
        let b = if has_b { ", coalesce(b::TEXT, '-') AS b_text" } else { "" };
        let by_b = if has_b { ", b NULLS FIRST" } else { "" };
        let rows = format!(
            "SELECT {time} AS time, host, coalesce(a::TEXT, '-') AS a_text{b}, coalesce(c, '-') AS c_text FROM t \
             WHERE {condition} ORDER BY time, host, a NULLS FIRST{by_b}, c NULLS FIRST"
        );
        let expected = model.answer(test, has_b);
        prop_assert_eq!(f.ask(&rows).await, expected.clone(), "step {} of {}: {}", n, done, condition);
        let count = expected.lines().count();
        let counted = f.ask(&format!("SELECT count(*) FROM t WHERE {condition}")).await;
        prop_assert_eq!(counted, count.to_string(), "{}", condition);
        let some = f.ask(&format!("SELECT count(*) FROM (SELECT c FROM t WHERE {condition} LIMIT 3)")).await;
        prop_assert_eq!(some, count.min(3).to_string(), "{}", condition);
        let newest = f.ask(&format!("SELECT {time} FROM t WHERE {condition} ORDER BY ts DESC LIMIT 1")).await;
        let last = expected.lines().last().and_then(|line| line.split(' ').next()).unwrap_or_default();
        prop_assert_eq!(newest, last, "{}", condition);
    }
    Ok(())
}

fn labels(days: &[i64]) -> Vec<&'static str> {
    let all = ["2024-01-01", "2024-01-02", "2024-01-03"];
    days.iter().filter_map(|day| all.get(usize::try_from(*day).unwrap())).copied().collect()
}

fn insert(rows: &[Row], with_b: bool) -> String {
    let number = |v: Option<i64>| v.map_or("NULL".to_owned(), |v| v.to_string());
    let values: Vec<String> = rows
        .iter()
        .map(|row| {
            let b = if with_b { format!(", {}", number(row.b)) } else { String::new() };
            let c = row.c.as_ref().map_or("NULL".to_owned(), |c| format!("'{c}'"));
            format!("({}, '{}', {}, {c}{b})", time(row.time), HOSTS[row.host], number(row.a))
        })
        .collect();
    let b = if with_b { ", b" } else { "" };
    format!("INSERT INTO t (ts, host, a, c{b}) VALUES {}", values.join(", "))
}

fn small() -> impl Strategy<Value = i64> {
    0i64..5
}

fn row() -> impl Strategy<Value = Row> {
    let value = || proptest::option::weighted(0.8, small());
    (0..TIMES, 0..HOSTS.len(), value(), value(), value()).prop_map(|(time, host, a, b, text)| Row {
        time,
        host,
        a,
        b,
        c: text.map(c),
    })
}

fn test() -> impl Strategy<Value = Test> {
    let leaf = prop_oneof![
        small().prop_map(Test::AIs),
        small().prop_map(Test::ALess),
        small().prop_map(Test::BIs),
        Just(Test::BNull),
        (0..HOSTS.len()).prop_map(Test::Host),
        (0..TIMES, 0..4i64).prop_map(|(from, length)| Test::Between(from, from + length)),
        small().prop_map(Test::CIs),
    ];
    leaf.prop_recursive(2, 4, 2, |inner| {
        let pair = (inner.clone(), inner).prop_map(|(l, r)| (Box::new(l), Box::new(r)));
        prop_oneof![
            pair.clone().prop_map(|(l, r)| Test::Both(l, r)),
            pair.prop_map(|(l, r)| Test::Either(l, r)),
        ]
    })
}

fn step() -> impl Strategy<Value = Step> {
    let change = prop_oneof![
        2 => Just(Change::Delete),
        1 => proptest::option::of(small()).prop_map(Change::SetA),
        1 => (1i64..3).prop_map(Change::AddToA),
        1 => Just(Change::BToA),
        1 => small().prop_map(Change::SetC),
    ];
    let days = || prop::collection::vec(0i64..3, 0..3);
    prop_oneof![
        6 => prop::collection::vec(row(), 1..8).prop_map(Step::Insert),
        5 => (test(), change).prop_map(|(test, change)| Step::Mutate(test, change)),
        2 => days().prop_map(Step::Compact),
        1 => (days(), 1usize..3).prop_map(|(days, pieces)| Step::Fold(days, pieces)),
        1 => Just(Step::WidenA),
        1 => Just(Step::DropB),
        4 => proptest::option::of(test()).prop_map(Step::Ask),
    ]
}

fn policy() -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![
        2 => Just(None),
        2 => Just(Some("replace")),
        1 => Just(Some("ignore")),
        1 => Just(Some("merge")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn random_histories(on_duplicate in policy(), steps in prop::collection::vec(step(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(replay(on_duplicate, steps))?;
    }
}
