//! What happens to a job whose world changed, or whose inputs are damaged.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray, TimestampNanosecondArray};
use arrow_schema::{DataType, TimeUnit};
use futures::FutureExt;
use object_store::ObjectStoreExt;
use tandem_compact::{Job, Output, Policy, next_jobs, run};
use tandem_format::{SectionPart, commit_path, data_path, segment_path};
use tandem_manifest::{Change, ColumnSpec, Step, TableSpec};
use tandem_types::{ErrorKind, PartitionUnit};

use crate::kit::{ALL, Db, load, name, policy};

fn spec(unit: TimeUnit) -> TableSpec {
    let column = |name: &str, data_type| ColumnSpec { name: name.to_owned(), data_type, nullable: true };
    let columns = vec![column("ts", DataType::Timestamp(unit, None)), column("n", DataType::Int64)];
    TableSpec { columns, ..TableSpec::default() }
}

fn rows(from: i64, count: i64) -> RecordBatch {
    let ts = (from..from + count).map(|n| n * 3_600_000_000);
    let ts: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(ts));
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + count));
    RecordBatch::try_from_iter_with_nullable([("ts", ts, true), ("n", n, true)]).unwrap()
}

/// A table whose rows lie in files and in the tail.
async fn filled(section_bytes: usize) -> Db {
    let db = Db::open(section_bytes).await;
    db.create(spec(TimeUnit::Microsecond)).await;
    for n in 0..3 {
        db.append(rows(n * 10, 10)).await;
        if n < 2 {
            let job = db.plan(ALL).unwrap();
            let output = db.run(&job).await.unwrap();
            db.submit(output).await.unwrap();
        }
    }
    db
}

async fn planned(db: &Db) -> Output {
    let job = db.plan(ALL).unwrap();
    db.run(&job).await.unwrap()
}

#[tokio::test]
async fn a_truncate_or_drop_in_between_makes_it_void() {
    let db = filled(1 << 20).await;
    let output = planned(&db).await;
    db.step(Step::Truncate { name: name() }).await.unwrap();
    let seq = db.state().seq();
    let error = db.submit(output.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Serialization, "{error}");
    assert_eq!((db.state().seq(), db.rows().await.len()), (seq, 0), "nothing came back");

    db.append(rows(50, 5)).await;
    let output = planned(&db).await;
    db.step(Step::DropTable { name: name(), if_exists: false }).await.unwrap();
    db.create(spec(TimeUnit::Microsecond)).await;
    let error = db.submit(output).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(db.rows().await.len(), 0, "a table of the same name is another one");
}

#[tokio::test]
async fn of_two_that_do_the_same_one_counts() {
    let db = filled(1 << 20).await;
    let before = db.rows().await;
    let job = db.plan(ALL).unwrap();
    let (one, other) = futures::join!(db.run(&job), db.run(&job));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_ne!(one.replace.outputs[0].name, other.replace.outputs[0].name);
    // In one group or not.
    let (first, second) = futures::join!(db.submit(one.clone()), db.submit(other));
    assert!(first.is_ok());
    assert_eq!(second.unwrap_err().kind(), ErrorKind::Serialization);
    assert_eq!(db.submit(one).await.unwrap_err().kind(), ErrorKind::Serialization);
    assert_eq!(db.rows().await, before);
}

#[tokio::test]
async fn rows_and_columns_that_come_meanwhile_stand() {
    let db = filled(1 << 20).await;
    let output = planned(&db).await;
    db.append(rows(100, 7)).await;
    let column = ColumnSpec { name: "later".to_owned(), data_type: DataType::Utf8, nullable: true };
    let add = Change::AddColumn { column, if_not_exists: false };
    db.step(Step::AlterTable { name: name(), change: add }).await.unwrap();
    let drop = Change::DropColumn { name: "n".to_owned(), if_exists: false };
    db.step(Step::AlterTable { name: name(), change: drop }).await.unwrap();
    let before = db.rows().await;
    db.submit(output).await.unwrap();
    assert_eq!(db.rows().await, before);
    db.compact(ALL).await;
    assert_eq!(db.rows().await, before);
    assert_eq!(before.len(), 37);
}

/// Every object that the table's rows lie in, with a job that reads it and nothing else.
fn objects(db: &Db) -> Vec<(String, Job)> {
    let table = db.table();
    let job = |partition, parts, files| Job {
        table: table.id(),
        partition,
        parts,
        files,
        target_bytes: 1 << 20,
        ..Job::default()
    };
    let tail = table.tail().map(|t| {
        let path = t.section.segment.map_or(commit_path(t.key.seq), |s| segment_path(&s));
        (path, job(t.live[0], vec![SectionPart { section: t.key, partition: t.live[0] }], vec![]))
    });
    let files = table.files().map(|f| {
        let name = f.file.name;
        (data_path(table.id(), PartitionUnit::Day, &name), job(name.partition, vec![], vec![name]))
    });
    tail.chain(files).collect()
}

#[tokio::test]
async fn a_damaged_input_is_an_error_and_nothing_is_committed() {
    for section_bytes in [64, 1 << 20] {
        let db = filled(section_bytes).await;
        let seq = db.state().seq();
        let objects = objects(&db);
        let kind = if section_bytes == 64 { "wal/" } else { "log/" };
        assert!(objects.iter().any(|(path, _)| path.starts_with(kind)));
        assert!(objects.iter().any(|(path, _)| path.starts_with("data/")));
        for (path, job) in objects {
            let at = object_store::path::Path::from(path.as_str());
            let good = db.store.get(&at).await.unwrap().bytes().await.unwrap();
            let expected = db.run(&job).await.unwrap().rows;
            let mut harmless = 0;
            for byte in (0..good.len()).step_by(good.len() / 60 + 1) {
                let mut bad = good.to_vec();
                bad[byte] ^= 4;
                db.store.put(&at, bad.into()).await.unwrap();
                match db.run(&job).await {
                    // What pads a commit.
                    Ok(output) => {
                        harmless += 1;
                        assert_eq!(output.rows, expected, "{path}, byte {byte}");
                    }
                    Err(e) => assert_eq!(e.kind(), ErrorKind::Damaged, "{path}, byte {byte}: {e}"),
                }
            }
            assert!(harmless == 0 || (path.starts_with("log/") && harmless < 20), "{path}: {harmless}");
            db.env.store.delete(&path).await.unwrap();
            let gone = db.run(&job).await.unwrap_err();
            assert_eq!(gone.kind(), ErrorKind::Damaged, "{gone}");
            assert!(gone.message().contains(&path), "{gone}");
            db.store.put(&at, good.into()).await.unwrap();
        }
        assert_eq!(db.state().seq(), seq);
        db.compact(ALL).await;
        assert_eq!(db.rows().await.len(), 30);
    }
}

#[tokio::test]
async fn rows_that_get_lost_on_the_way_are_missed() {
    let db = filled(1 << 20).await;
    let tail = db.table().tail().next().unwrap().clone();
    assert_eq!(tail.live.len(), 2, "a section that spans two days");
    let log = db.log.clone();
    let mut inputs = db.inputs();
    inputs.load = Arc::new(move |tail| {
        let log = log.clone();
        async move {
            let mut rows = (*load(&log, &tail).await?).clone();
            rows.batches[0] = rows.batches[0].slice(1, rows.batches[0].num_rows() - 1);
            Ok(Arc::new(rows))
        }
        .boxed()
    });
    let of = |partition| Job {
        table: db.table().id(),
        partition,
        parts: vec![SectionPart { section: tail.key, partition }],
        files: vec![],
        target_bytes: 1 << 20,
        ..Job::default()
    };
    // The first row is of the first day.
    let error = run(&inputs, &[of(tail.live[0])]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert!(error.message().contains("table t"), "{error}");
    assert!(run(&inputs, &[of(tail.live[1])]).await.is_ok());
    // A day whose rows are in files already is not compacted twice.
    let output = db.run(&of(tail.live[0])).await.unwrap();
    db.submit(output).await.unwrap();
    assert_eq!(db.run(&of(tail.live[0])).await.unwrap_err().kind(), ErrorKind::Serialization);
}

#[tokio::test]
async fn rows_at_the_ends_of_time_are_kept() {
    let db = Db::open(1 << 20).await;
    db.create(spec(TimeUnit::Nanosecond)).await;
    let ts = vec![i64::MAX, 0, i64::MIN, -1, i64::MAX - 1, i64::MIN + 1];
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ts.len() as i64));
    let ts: ArrayRef = Arc::new(TimestampNanosecondArray::from(ts));
    db.append(RecordBatch::try_from_iter_with_nullable([("ts", ts, true), ("n", n, true)]).unwrap()).await;
    let before = db.rows().await;
    assert_eq!(before.len(), 6);
    assert_eq!(db.compact(ALL).await, 1, "all partitions in one commit");
    assert_eq!(db.rows().await, before);
    assert_eq!(db.table().tail_sections(), 0);
}

#[tokio::test]
async fn one_commit_takes_many_partitions_and_reads_their_section_once() {
    let db = Db::open(1 << 20).await;
    db.create(spec(TimeUnit::Microsecond)).await;
    // Forty days in one section, and some of them in another.
    db.append(rows(0, 24 * 40)).await;
    db.append(rows(24 * 5, 24 * 5)).await;
    let before = db.rows().await;
    let loads = Arc::new(AtomicUsize::new(0));
    let (log, counter) = (db.log.clone(), loads.clone());
    let mut inputs = db.inputs();
    inputs.load = Arc::new(move |tail| {
        counter.fetch_add(1, Ordering::Relaxed);
        let log = log.clone();
        async move { load(&log, &tail).await }.boxed()
    });
    let policy = Policy { job_bytes: 1 << 20, ..policy() };
    let jobs = next_jobs(&db.table(), &policy, ALL);
    assert_eq!(jobs.len(), 40);
    let output = run(&inputs, &jobs).await.unwrap();
    assert_eq!((output.rows, output.replace.outputs.len()), (24 * 45, 40));
    assert_eq!(loads.load(Ordering::Relaxed), 2);
    db.submit(output).await.unwrap();
    assert_eq!((db.table().tail_rows(), db.rows().await), (0, before));
}
