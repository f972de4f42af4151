//! Random tables through random changes and jobs: no query's answer changes.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, DictionaryArray, Float64Array, Int32Array, ListArray,
    RecordBatch, StringViewArray, TimestampMicrosecondArray,
};
use arrow::compute::SortOptions;
use arrow::datatypes::{Int16Type, Int64Type};
use arrow::row::{RowConverter, SortField};
use arrow_schema::{DataType, Field, TimeUnit};
use tandem_env::Chance;
use tandem_env::sim::SimChance;
use tandem_manifest::{Change, ColumnSpec, Step, TableSpec};
use tandem_types::PartitionUnit;

use crate::kit::{ALL, Db, name, ticks};
use tandem_compact::Urgency;

const DAY: i64 = 86_400_000_000;

struct Random(SimChance);

impl Random {
    fn below(&self, n: usize) -> usize {
        usize::try_from(self.0.below(n as u64)).unwrap()
    }

    fn null(&self) -> bool {
        self.below(5) == 0
    }

    fn optional<T>(&self, rows: usize, make: impl Fn(&Self) -> T) -> Vec<Option<T>> {
        (0..rows).map(|_| (!self.null()).then(|| make(self))).collect()
    }
}

/// What a column may be called at first, and its type.
fn kinds() -> Vec<(&'static str, DataType)> {
    vec![
        ("i", DataType::Int32),
        ("f", DataType::Float64),
        ("s", DataType::Dictionary(Box::new(DataType::Int16), Box::new(DataType::Utf8))),
        ("v", DataType::Utf8View),
        ("l", DataType::List(Arc::new(Field::new("item", DataType::Int64, true)))),
        ("d", DataType::Decimal128(20, 3)),
        ("b", DataType::Boolean),
    ]
}

/// Rows of a column of one of [`kinds`], as it was first declared.
fn column(kind: &str, rows: usize, random: &Random) -> ArrayRef {
    match kind {
        "i" => Arc::new(Int32Array::from(random.optional(rows, |r| r.below(1 << 20) as i32 - (1 << 19)))),
        "f" => Arc::new(Float64Array::from(random.optional(rows, |r| match r.below(9) {
            0 => f64::NAN,
            1 => -0.0,
            n => r.below(1000) as f64 / n as f64,
        }))),
        "s" => {
            let words = random.optional(rows, |r| format!("tag-{}", r.below(7)));
            Arc::new(words.iter().map(Option::as_deref).collect::<DictionaryArray<Int16Type>>())
        }
        "v" => {
            Arc::new(StringViewArray::from_iter(random.optional(rows, |r| {
                "longer than twelve bytes ".repeat(r.below(3)) + &r.below(9).to_string()
            })))
        }
        "l" => Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(random.optional(rows, |r| {
            (0..r.below(4)).map(|_| (!r.null()).then(|| r.below(99) as i64)).collect::<Vec<_>>()
        }))),
        "d" => {
            let values = Decimal128Array::from(random.optional(rows, |r| r.0.next_u64() as i64 as i128 / 7));
            Arc::new(values.with_precision_and_scale(20, 3).unwrap())
        }
        _ => Arc::new(BooleanArray::from(random.optional(rows, |r| r.below(2) == 0))),
    }
}

/// The table as the test knows it: present names, with the kind that each column began as.
struct Known {
    columns: Vec<(String, &'static str)>,
    keys: Vec<&'static str>,
    next: usize,
}

fn spec(columns: &[(String, &'static str)], order_by: Vec<String>) -> TableSpec {
    let of = |kind| kinds().into_iter().find(|(k, _)| *k == kind).unwrap().1;
    let ts = ("ts".to_owned(), DataType::Timestamp(TimeUnit::Microsecond, None));
    let all = std::iter::once(ts).chain(columns.iter().map(|(n, kind)| (n.clone(), of(*kind))));
    let columns = all.map(|(name, data_type)| ColumnSpec { name, data_type, nullable: true }).collect();
    TableSpec { columns, order_by: Some(order_by), ..TableSpec::default() }
}

fn rows(known: &Known, random: &Random) -> RecordBatch {
    let rows = 1 + random.below(120);
    let first = 20_000 * DAY + random.below(6) as i64 * DAY / 2;
    let span = if random.below(3) == 0 { 3 * DAY } else { DAY / 3 };
    let ts = (0..rows).map(|_| first + random.below(span as usize) as i64 / 1000 * 1000);
    let ts: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(ts));
    let mut columns = vec![("ts".to_owned(), ts)];
    for (name, kind) in &known.columns {
        // Rows may lack columns.
        if random.below(6) != 0 {
            columns.push((name.clone(), column(kind, rows, random)));
        }
    }
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
}

fn alter(change: Change) -> Step {
    Step::AlterTable { name: name(), change }
}

async fn change(db: &Db, known: &mut Known, random: &Random) {
    let at = random.below(known.columns.len());
    let (column, kind) = known.columns[at].clone();
    known.next += 1;
    let change = match random.below(4) {
        0 => {
            let (kind, data_type) = kinds().swap_remove(random.below(kinds().len()));
            let column = ColumnSpec { name: format!("{kind}{}", known.next), data_type, nullable: true };
            known.columns.push((column.name.clone(), kind));
            Change::AddColumn { column, if_not_exists: false }
        }
        1 => {
            let to = format!("{kind}{}", known.next);
            known.columns[at].0.clone_from(&to);
            Change::RenameColumn { name: column, to }
        }
        2 if known.columns.len() > 2 && !known.keys.contains(&kind) => {
            known.columns.remove(at);
            Change::DropColumn { name: column, if_exists: false }
        }
        _ => {
            let to = match kind {
                "i" => DataType::Int64,
                "d" => DataType::Decimal128(30, 5),
                "s" | "v" => DataType::LargeUtf8,
                _ => return,
            };
            Change::WidenColumn { name: column, to }
        }
    };
    db.step(alter(change)).await.unwrap();
}

/// Each file is in its partition, sorted, and as its entry says.
pub async fn check_files(db: &Db, context: &str) {
    let table = db.table();
    let sort: Vec<usize> = table.order_by().iter().map(|id| table.schema().position(*id).unwrap()).collect();
    for (file, batches) in db.files().await {
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows as u64, file.rows, "{context}");
        let times: Vec<i64> = batches.iter().flat_map(|b| ticks(b, 0)).collect();
        let range = PartitionUnit::Day.range(file.name.partition, TimeUnit::Microsecond);
        assert!(times.iter().all(|t| range.start <= *t && *t < range.end), "{context}");
        let (min, max) = (times.iter().min().copied(), times.iter().max().copied());
        assert_eq!(file.time, min.zip(max), "{context}");
        if sort.is_empty() {
            continue;
        }
        let options = SortOptions { descending: false, nulls_first: false };
        let field =
            |c: &usize| SortField::new_with_options(table.schema().columns[*c].data_type.clone(), options);
        let converter = RowConverter::new(sort.iter().map(field).collect()).unwrap();
        let mut last: Option<Vec<u8>> = None;
        for batch in &batches {
            let columns: Vec<ArrayRef> = sort.iter().map(|c| batch.column(*c).clone()).collect();
            for row in &converter.convert_columns(&columns).unwrap() {
                let row = row.as_ref().to_vec();
                assert!(last.as_ref() <= Some(&row), "{context}: a file is not sorted");
                last = Some(row);
            }
        }
    }
}

async fn play(seed: u64) {
    let random = Random(SimChance::new(seed));
    let db = Db::open(if seed.is_multiple_of(2) { 2_000 } else { 1 << 20 }).await;
    let choices: [&[&'static str]; 6] = [&["s"], &[], &["i", "v"], &["d"], &["f"], &["b"]];
    let keys = choices[random.below(choices.len())];
    let mut columns: Vec<(String, &'static str)> =
        keys.iter().map(|kind| ((*kind).to_owned(), *kind)).collect();
    for (name, _) in kinds() {
        if !keys.contains(&name) && random.below(2) == 0 {
            columns.push((name.to_owned(), name));
        }
    }
    if columns.is_empty() {
        columns.push(("i".to_owned(), "i"));
    }
    let mut order_by: Vec<String> = keys.iter().map(|k| (*k).to_owned()).collect();
    if random.below(4) != 0 {
        order_by.push("ts".to_owned());
    }
    db.create(spec(&columns, order_by)).await;
    let mut known = Known { columns, keys: keys.to_vec(), next: 0 };
    for step in 0..30 {
        let context = format!("seed {seed}, step {step}");
        match random.below(10) {
            0..5 => {
                let batch = rows(&known, &random);
                db.append(batch).await;
            }
            5 | 6 => {
                change(&db, &mut known, &random).await;
            }
            _ => {
                let urgency = if random.below(3) == 0 { ALL } else { Urgency::Usual };
                let before = db.rows().await;
                let Some(job) = db.plan(urgency) else { continue };
                let output = db.run(&job).await.unwrap_or_else(|e| panic!("{context}: {e}"));
                // Rows that come while it runs are nobody's business.
                assert_eq!(db.rows().await, before, "{context}: nothing shows before the commit");
                db.submit(output).await.unwrap();
                assert_eq!(db.rows().await, before, "{context}: {job:?}");
                check_files(&db, &context).await;
            }
        }
    }
    let before = db.rows().await;
    db.compact(ALL).await;
    let context = format!("seed {seed}, at the end");
    assert_eq!(db.rows().await, before, "{context}");
    check_files(&db, &context).await;
    let table = db.table();
    assert_eq!((table.tail_rows(), table.tail_sections()), (0, 0), "{context}");
    let mut partitions: Vec<_> = table.files().map(|f| f.file.name.partition).collect();
    let files = partitions.len();
    partitions.dedup();
    assert_eq!(partitions.len(), files, "{context}: one small file per partition");
    // A node that starts now sees the same.
    let fresh = db.log.recover().await.unwrap().manifest;
    assert_eq!(fresh.digest(), db.state().digest());
}

/// `TANDEM_SIM_SEEDS=n` for more, `TANDEM_SIM_FIRST=seed` to begin elsewhere.
#[test]
fn compaction_changes_no_answer() {
    let number =
        |name, default| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok()).unwrap_or(default);
    let first = number("TANDEM_SIM_FIRST", 1);
    for seed in first..first + number("TANDEM_SIM_SEEDS", 24) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(play(seed))));
        if let Err(panic) = played {
            eprintln!("failed with TANDEM_SIM_FIRST={seed} TANDEM_SIM_SEEDS=1");
            std::panic::resume_unwind(panic);
        }
    }
}
