//! Files come near the size that the table asks for, and merging them ends.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_schema::{DataType, TimeUnit};
use tandem_compact::{Policy, next_jobs, run};
use tandem_env::Chance;
use tandem_env::sim::SimChance;
use tandem_manifest::{ColumnSpec, TableSpec};

use crate::kit::{ALL, Db};

const TARGET: u64 = 1 << 20;

fn spec() -> TableSpec {
    let column = |name: &str, data_type| ColumnSpec { name: name.to_owned(), data_type, nullable: true };
    let columns = vec![
        column("ts", DataType::Timestamp(TimeUnit::Microsecond, None)),
        column("n", DataType::Int64),
        column("s", DataType::Utf8),
    ];
    let options = vec![("target_file_size".to_owned(), TARGET.to_string())];
    TableSpec { columns, options, ..TableSpec::default() }
}

/// Rows of one day; `noise` decides how well they compress.
fn rows(count: usize, noise: u64, chance: &SimChance) -> RecordBatch {
    let ts: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(
        (0..count).map(|_| chance.below(86_400_000_000) as i64),
    ));
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values((0..count).map(|_| chance.below(noise) as i64)));
    let s: ArrayRef = Arc::new(StringArray::from_iter_values(
        (0..count).map(|_| format!("value number {}", chance.below(noise))),
    ));
    RecordBatch::try_from_iter_with_nullable([("ts", ts, true), ("n", n, true), ("s", s, true)]).unwrap()
}

#[tokio::test]
async fn files_come_near_their_target_and_merging_ends() {
    for noise in [3, 40_000, u64::MAX] {
        let db = Db::open(16 << 20).await;
        db.create(spec()).await;
        let chance = SimChance::new(noise);
        for _ in 0..6 {
            db.append(rows(50_000, noise, &chance)).await;
        }
        // Small jobs, so that there is something to merge.
        let policy = Policy { job_bytes: 5 << 20, fan_in: 4, ..Policy::default() };
        let mut jobs = 0;
        loop {
            let todo = next_jobs(&db.table(), &policy, ALL);
            if todo.is_empty() {
                break;
            }
            let inputs: usize = todo.iter().map(|job| job.files.len()).sum();
            let output = run(&db.inputs(), &todo).await.unwrap();
            assert!(
                inputs == 0 || output.replace.outputs.len() < inputs,
                "noise {noise}: {inputs} files became {}",
                output.replace.outputs.len()
            );
            db.submit(output).await.unwrap();
            jobs += 1;
            assert!(jobs < 50, "noise {noise}");
        }
        let table = db.table();
        assert_eq!((table.rows(), table.tail_rows()), (300_000, 0));
        let sizes: Vec<u64> = table.files().map(|f| f.file.size).collect();
        let small = sizes.iter().filter(|size| **size < TARGET / 2).count();
        assert!(small <= 1, "noise {noise}: {sizes:?}");
        assert!(sizes.iter().all(|size| *size < 3 * TARGET), "noise {noise}: {sizes:?}");
    }
}
