//! Rows that change: random tables with and without a key through appends, UPDATEs, DELETEs, schema changes and jobs,
//! beside a model that holds rows in a list.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_schema::{DataType, TimeUnit};
use tandem_compact::{Job, Policy, Urgency, next_jobs, run};
use tandem_env::Chance;
use tandem_env::sim::SimChance;
use tandem_fold::literal_of;
use tandem_format::{BinaryOp, Expr, PendingMutation};
use tandem_manifest::{Change, ColumnSpec, MutateDraft, MutateIntent, MutateTarget, Step, TableSpec};
use tandem_types::{ColumnId, ErrorKind};

use crate::kit::{ALL, Db, name, policy};

const HOUR: i64 = 3_600_000_000;

/// A row: time, key, and three columns that statements change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    ts: i64,
    k: i64,
    v: Option<i64>,
    s: Option<String>,
    /// Of a column that is added and dropped again.
    extra: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    None,
    Replace,
    Ignore,
    Merge,
}

/// The table as a list of rows, changed one statement at a time.
#[derive(Default)]
struct Model {
    rows: Vec<Row>,
    has_extra: bool,
}

impl Model {
    fn append(&mut self, key: Key, new: Row) {
        let old = self.rows.iter_mut().find(|row| key != Key::None && (row.ts, row.k) == (new.ts, new.k));
        match (old, key) {
            (Some(old), Key::Replace) => *old = new,
            (Some(old), Key::Merge) => {
                old.v = new.v.or(old.v);
                old.s = new.s.or(old.s.take());
                old.extra = new.extra.or(old.extra);
            }
            (Some(_), _) => {}
            (None, _) => self.rows.push(new),
        }
    }

    fn in_words(&self) -> Vec<String> {
        let number = |n: Option<i64>| n.map_or("null".to_owned(), |n| format!("{:?}", n.to_string()));
        let line = |row: &Row| {
            let time = TimestampMicrosecondArray::from_value(row.ts, 1);
            let time = arrow::util::display::array_value_to_string(&time, 0).unwrap();
            let s = row.s.as_ref().map_or("null".to_owned(), |s| format!("{s:?}"));
            let mut line = format!("{time:?},{},{},{s}", number(Some(row.k)), number(row.v));
            if self.has_extra {
                line = format!("{line},{}", number(row.extra));
            }
            line
        };
        let mut lines: Vec<String> = self.rows.iter().map(line).collect();
        lines.sort_unstable();
        lines
    }
}

fn column(id: u32, data_type: DataType) -> Box<Expr> {
    Box::new(Expr::Column { column: ColumnId(id), data_type })
}

fn number(value: i64) -> Box<Expr> {
    let array: ArrayRef = Arc::new(Int64Array::from_value(value, 1));
    Box::new(Expr::Literal(literal_of(&array).unwrap()))
}

fn text(value: &str) -> Expr {
    let array: ArrayRef = Arc::new(StringArray::from(vec![value]));
    Expr::Literal(literal_of(&array).unwrap())
}

fn binary(op: BinaryOp, left: Box<Expr>, right: Box<Expr>) -> Expr {
    Expr::Binary { op, left, right }
}

/// One run of one random table.
struct Play {
    db: Db,
    key: Key,
    chance: SimChance,
    model: Model,
    columns: BTreeMap<&'static str, u32>,
    /// What compactions had to do.
    met: BTreeSet<&'static str>,
}

const SEEDS: u64 = 24;
const STEPS: usize = 30;

/// What the histories of one test run must bring about, or they test too little.
const TO_MEET: [&str; 8] = [
    "rows late for files",
    "files and mutations",
    "rows in shares",
    "cuts by time",
    "no output",
    "a merge of files",
    "sort columns assigned",
    "a second compactor",
];

impl Play {
    fn below(&self, n: u64) -> i64 {
        i64::try_from(self.chance.below(n)).unwrap()
    }

    async fn begin(seed: u64) -> Self {
        let chance = SimChance::new(seed);
        let key = [Key::None, Key::Replace, Key::Ignore, Key::Merge][chance.below(4) as usize];
        let option = match key {
            Key::None => None,
            Key::Replace => Some("replace"),
            Key::Ignore => Some("ignore"),
            Key::Merge => Some("merge"),
        };
        let spec =
            |name: &str, data_type, nullable| ColumnSpec { name: name.to_owned(), data_type, nullable };
        let names = |names: &[&str]| Some(names.iter().map(|n| (*n).to_owned()).collect());
        let timestamp = DataType::Timestamp(TimeUnit::Microsecond, None);
        let order_by = [names(&["ts"]), names(&["k", "ts"]), names(&["v", "ts"])];
        let spec = TableSpec {
            columns: vec![
                spec("ts", timestamp, false),
                spec("k", DataType::Int64, false),
                spec("v", DataType::Int64, true),
                spec("s", DataType::Utf8, true),
            ],
            order_by: order_by[chance.below(3) as usize].clone(),
            primary_key: option.and_then(|_| names(&["ts", "k"])),
            options: option.map(|o| ("on_duplicate".to_owned(), o.to_owned())).into_iter().collect(),
            ..TableSpec::default()
        };
        let db = Db::open(if seed.is_multiple_of(2) { 600 } else { 1 << 20 }).await;
        db.create(spec).await;
        let ids = |db: &Db, name: &str| db.table().schema().by_name(name).unwrap().id.0;
        let columns = ["ts", "k", "v", "s"].map(|name| (name, ids(&db, name))).into_iter().collect();
        Self { db, key, chance, model: Model::default(), columns, met: BTreeSet::new() }
    }

    async fn append(&mut self) {
        let count = 1 + self.below(40);
        // Mostly the newest hour, sometimes any of three days.
        let newest = self.model.rows.iter().map(|row| row.ts).max().unwrap_or(0);
        let late = self.below(3) == 0;
        let rows: Vec<Row> = (0..count)
            .map(|_| Row {
                ts: match late {
                    true => self.below(72) * HOUR,
                    false => newest + self.below(5) * HOUR / 4,
                },
                k: self.below(4),
                v: (self.below(4) != 0).then(|| self.below(10)),
                s: (self.below(4) != 0).then(|| format!("s{}", self.below(5))),
                extra: (self.model.has_extra && self.below(2) == 0).then(|| self.below(10)),
            })
            .collect();
        let ts: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.ts)));
        let k: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.k)));
        let v: ArrayRef = Arc::new(rows.iter().map(|r| r.v).collect::<Int64Array>());
        let s: ArrayRef = Arc::new(rows.iter().map(|r| r.s.as_deref()).collect::<StringArray>());
        let mut columns = vec![("ts", ts, false), ("k", k, false), ("v", v, true), ("s", s, true)];
        if self.model.has_extra {
            let extra: ArrayRef = Arc::new(rows.iter().map(|r| r.extra).collect::<Int64Array>());
            columns.push(("extra", extra, true));
        }
        self.db.append(RecordBatch::try_from_iter_with_nullable(columns).unwrap()).await;
        rows.into_iter().for_each(|row| self.model.append(self.key, row));
    }

    fn column(&self, name: &str) -> Box<Expr> {
        let data_type = match name {
            "s" => DataType::Utf8,
            "ts" => DataType::Timestamp(TimeUnit::Microsecond, None),
            _ => DataType::Int64,
        };
        column(self.columns[name], data_type)
    }

    async fn mutate(&self, draft: MutateDraft, time: Option<(i64, i64)>) {
        let step = Step::Mutate(MutateIntent {
            name: name(),
            target: MutateTarget::Existing(self.db.table().id()),
            draft,
            time,
            statement: "statement".to_owned(),
        });
        self.db.step(step).await.unwrap();
    }

    async fn delete(&mut self) {
        let k = self.below(4);
        let v = self.below(10);
        let first = self.below(60) * HOUR;
        let last = first + self.below(12) * HOUR;
        let by_key = binary(BinaryOp::Eq, self.column("k"), number(k));
        let (predicate, time) = match self.below(3) {
            0 => {
                // null = 3 is not true.
                self.model.rows.retain(|row| !(row.k == k && row.v == Some(v)));
                let by_value = binary(BinaryOp::Eq, self.column("v"), number(v));
                (binary(BinaryOp::And, Box::new(by_key), Box::new(by_value)), None)
            }
            1 => {
                self.model.rows.retain(|row| !(first <= row.ts && row.ts <= last));
                let ticks = |t: i64| {
                    let array: ArrayRef = Arc::new(TimestampMicrosecondArray::from_value(t, 1));
                    Box::new(Expr::Literal(literal_of(&array).unwrap()))
                };
                let from = binary(BinaryOp::GtEq, self.column("ts"), ticks(first));
                let to = binary(BinaryOp::LtEq, self.column("ts"), ticks(last));
                (binary(BinaryOp::And, Box::new(from), Box::new(to)), Some((first, last)))
            }
            _ => {
                self.model.rows.retain(|row| !(row.k == k && row.v.is_none()));
                let empty = Expr::IsNull(self.column("v"));
                (binary(BinaryOp::And, Box::new(by_key), Box::new(empty)), None)
            }
        };
        self.mutate(MutateDraft::Delete { predicate }, time).await;
    }

    async fn update(&mut self) {
        let k = self.below(4);
        let by_key = binary(BinaryOp::Eq, self.column("k"), number(k));
        let rows = self.model.rows.iter_mut().filter(|row| row.k == k);
        let (v, s) = (ColumnId(self.columns["v"]), ColumnId(self.columns["s"]));
        let assignments = match self.chance.below(4) {
            0 => {
                rows.for_each(|row| row.v = row.v.map(|v| v + 1));
                vec![(v, binary(BinaryOp::Add, self.column("v"), number(1)))]
            }
            1 => {
                rows.for_each(|row| row.s = Some("updated".to_owned()));
                vec![(s, text("updated"))]
            }
            // Both at once: v is read as it was.
            2 => {
                rows.for_each(|row| {
                    row.s = row.v.is_none().then(|| "was null".to_owned()).or(row.s.take());
                    row.v = Some(0);
                });
                let otherwise = Some(self.column("s"));
                let branches = vec![(Expr::IsNull(self.column("v")), text("was null"))];
                vec![(s, Expr::Case { branches, otherwise }), (v, *number(0))]
            }
            _ if self.model.has_extra => {
                rows.for_each(|row| {
                    row.v = row.extra;
                    row.extra = row.extra.map(|e| e - 1);
                });
                let extra = ColumnId(self.columns["extra"]);
                let less = binary(BinaryOp::Subtract, self.column("extra"), number(1));
                vec![(v, *self.column("extra")), (extra, less)]
            }
            _ => return,
        };
        self.mutate(MutateDraft::Update { predicate: by_key, assignments }, None).await;
    }

    /// Adds a column, or drops it: mutations that read it are still to be folded.
    async fn alter(&mut self) {
        let change = match self.model.has_extra {
            true => Change::DropColumn { name: "extra".to_owned(), if_exists: false },
            false => {
                let column =
                    ColumnSpec { name: "extra".to_owned(), data_type: DataType::Int64, nullable: true };
                Change::AddColumn { column, if_not_exists: false }
            }
        };
        self.db.step(Step::AlterTable { name: name(), change }).await.unwrap();
        self.model.has_extra = !self.model.has_extra;
        self.model.rows.iter_mut().for_each(|row| row.extra = None);
        if self.model.has_extra {
            let id = self.db.table().schema().by_name("extra").unwrap().id.0;
            self.columns.insert("extra", id);
        }
    }

    /// What is due, with changes between plan and commit now and then. The answer is the same before and after.
    async fn compact(&mut self, context: &str) {
        // Small enough that tails are read in shares and files are left waiting.
        let policy = Policy {
            tail_rows: 60,
            tail_sections: 3,
            mutations: 2,
            full_rows: if self.below(2) == 0 { 20 } else { 1 << 18 },
            job_bytes: if self.below(2) == 0 { 3_000 } else { 1 << 20 },
            fold_bytes: if self.below(2) == 0 { 5_000 } else { 1 << 20 },
            ..policy()
        };
        let head = self.db.state().seq();
        let urgency = match self.below(4) {
            0 => Urgency::Everything(head),
            1 => Urgency::Waited { tail: head, fold: tandem_types::Seq(head.0 / 2) },
            _ => Urgency::Usual,
        };
        let jobs = next_jobs(&self.db.table(), &policy, urgency);
        if jobs.is_empty() {
            return;
        }
        let output =
            run(&self.db.inputs(), &jobs).await.unwrap_or_else(|e| panic!("{context}: {e}\n{jobs:?}"));
        let twice = match self.below(4) {
            0 => Some(run(&self.db.inputs(), &jobs).await.unwrap()),
            _ => None,
        };
        self.note(&jobs, output.replace.outputs.is_empty(), twice.is_some());
        match self.below(4) {
            0 => self.delete().await,
            1 => self.append().await,
            _ => {}
        }
        self.db.submit(output).await.unwrap_or_else(|e| panic!("{context}: {e}\n{jobs:?}"));
        if let Some(twice) = twice {
            let error = self.db.submit(twice).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Serialization, "{context}: {error}");
        }
        assert_eq!(self.db.seen().await, self.model.in_words(), "{context}: {jobs:?}");
    }

    fn note(&mut self, jobs: &[Job], is_empty: bool, is_second: bool) {
        let table = self.db.table();
        let acting = |job: &Job| -> Vec<Arc<PendingMutation>> {
            let files = job.files.iter().filter_map(|name| table.file(name)).map(|state| &state.file);
            files.flat_map(|file| table.mutations_of_file(file)).cloned().collect()
        };
        let mut meet = |what, happened: bool| {
            assert!(TO_MEET.contains(&what));
            if happened {
                self.met.insert(what);
            }
        };
        for job in jobs {
            let mutations = acting(job);
            meet("rows late for files", !job.files.is_empty() && !job.parts.is_empty());
            meet("files and mutations", !mutations.is_empty());
            meet("rows in shares", job.slices > 1);
            meet("cuts by time", !job.cuts.is_empty());
            meet("a merge of files", job.parts.is_empty() && mutations.is_empty());
            let sorts = |m: &Arc<PendingMutation>| {
                m.mutation.assigned().iter().any(|id| table.order_by().contains(id))
            };
            meet("sort columns assigned", mutations.iter().any(sorts));
        }
        meet("no output", is_empty);
        meet("a second compactor", is_second);
    }

    /// Files are what they say, and no key is in two of them.
    async fn check_files(&self, context: &str) {
        crate::random::check_files(&self.db, context).await;
        let mut keys = Vec::new();
        for (_, batches) in self.db.files().await {
            for batch in batches {
                let ts = crate::kit::ticks(&batch, 0);
                keys.extend(ts.into_iter().zip(crate::kit::ticks(&batch, 1)));
            }
        }
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert!(self.key == Key::None || keys.len() == all, "{context}: a key is in two files");
    }
}

async fn play(seed: u64) -> BTreeSet<&'static str> {
    let mut play = Play::begin(seed).await;
    for step in 0..STEPS {
        let context = format!("seed {seed}, step {step}, {:?}", play.key);
        match play.below(12) {
            0..4 => play.append().await,
            4 => play.delete().await,
            5 | 6 => play.update().await,
            7 => play.alter().await,
            _ => {
                play.compact(&context).await;
                play.check_files(&context).await;
            }
        }
        if play.below(3) == 0 {
            assert_eq!(play.db.seen().await, play.model.in_words(), "{context}");
        }
    }
    let context = format!("seed {seed}, at the end, {:?}", play.key);
    play.db.compact(ALL).await;
    assert_eq!(play.db.seen().await, play.model.in_words(), "{context}");
    play.check_files(&context).await;
    let table = play.db.table();
    assert_eq!((table.tail_rows(), table.mutations().count()), (0, 0), "{context}: all is folded");
    assert_eq!(table.rows(), play.model.rows.len() as u64, "{context}");
    let fresh = play.db.log.recover().await.unwrap().manifest;
    assert_eq!(fresh.digest(), play.db.state().digest(), "{context}");
    play.met
}

/// `TANDEM_SIM_SEEDS=n` for more, `TANDEM_SIM_FIRST=seed` to begin elsewhere.
#[test]
fn queries_see_what_the_statements_say() {
    let number =
        |name, default| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok()).unwrap_or(default);
    let first = number("TANDEM_SIM_FIRST", 1);
    let seeds = number("TANDEM_SIM_SEEDS", SEEDS);
    let mut met = BTreeSet::new();
    for seed in first..first + seeds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(play(seed))));
        match played {
            Ok(one) => met.extend(one),
            Err(panic) => {
                eprintln!("failed with TANDEM_SIM_FIRST={seed} TANDEM_SIM_SEEDS=1");
                std::panic::resume_unwind(panic);
            }
        }
    }
    let missing: Vec<_> = TO_MEET.iter().filter(|what| !met.contains(*what)).collect();
    assert!(seeds < SEEDS || missing.is_empty(), "no history met {missing:?}");
}
