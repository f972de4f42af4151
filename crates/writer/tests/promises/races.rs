//! Rows that were prepared for a table that another node changed meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{Float64Type, Int64Type, TimestampNanosecondType};
use arrow_schema::{DataType, TimeUnit};
use tandem_manifest::{Change, SchemaPolicy, Step};
use tandem_types::{ErrorKind, Partition, PartitionUnit, TableName};

use crate::appends::{rows, table};
use crate::rows::{batch, sections, ts_type};
use crate::sim::{Node, run, store};

/// Two nodes; the second has not heard yet of what the first does last.
fn two<T>(work: impl AsyncFnOnce(Node, Node) -> T) -> T {
    let store = store();
    run(&store, async {
        let (a, b) = (Node::open(&store, 1).await, Node::open(&store, 2).await);
        work(a, b).await
    })
}

fn alter(name: &str, change: Change) -> Step {
    Step::AlterTable { name: TableName::public(name), change }
}

fn rename(from: &str, to: &str) -> Step {
    alter("t", Change::RenameColumn { name: from.to_owned(), to: to.to_owned() })
}

fn numbers(name: &str, values: Vec<i64>) -> RecordBatch {
    let ts: ArrayRef = Arc::new(TimestampMillisecondArray::from_iter_values(0..values.len() as i64));
    rows(&[("ts", ts), (name, Arc::new(Int64Array::from(values)))])
}

#[test]
fn a_name_that_changed_hands_casts_the_rows_again() {
    two(async |a, b| {
        let columns = [("ts", ts_type()), ("x", DataType::Int64), ("f", DataType::Float64)];
        a.submit(table("t", &columns)).await.unwrap();
        b.catch_up_with(&a).await;
        a.submit(rename("x", "old")).await.unwrap();
        a.submit(rename("f", "x")).await.unwrap();
        // Some in segments, some riding along.
        let answer =
            b.append("t", SchemaPolicy::Strict, vec![numbers("x", (0..700).collect())]).await.unwrap();
        assert_eq!(answer.rows, 700);
        let read = sections(&b.log, &b.writer.state(), "t").await;
        let values: Vec<f64> = read
            .iter()
            .flat_map(|(_, _, r)| r.column(1).as_primitive::<Float64Type>().values().to_vec())
            .collect();
        assert_eq!(values, (0..700).map(f64::from).collect::<Vec<_>>());
        assert!(read.len() > 1);

        a.catch_up_with(&b).await;
        a.submit(rename("x", "f")).await.unwrap();
        let error = b.append("t", SchemaPolicy::Strict, vec![numbers("x", vec![1])]).await.unwrap_err();
        assert!(error.message().contains("\"x\""), "{error}");
    });
}

#[test]
fn a_value_that_does_not_fit_any_more_is_refused_whole() {
    two(async |a, b| {
        let columns = [("ts", ts_type()), ("x", DataType::Int64), ("f", DataType::Float64)];
        a.submit(table("t", &columns)).await.unwrap();
        b.catch_up_with(&a).await;
        a.submit(rename("x", "old")).await.unwrap();
        a.submit(rename("f", "x")).await.unwrap();
        let mut values: Vec<i64> = (0..700).collect();
        values[650] = (1 << 53) + 1;
        let error = b.append("t", SchemaPolicy::Strict, vec![numbers("x", values)]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SchemaConflict, "{error}");
        assert!(error.message().contains("9007199254740993"), "{error}");
        assert_eq!(b.writer.state().require(&TableName::public("t")).unwrap().rows(), 0);
    });
}

#[test]
fn a_widened_column_takes_the_rows_as_they_are() {
    two(async |a, b| {
        a.submit(table("t", &[("ts", ts_type()), ("n", DataType::Int32)])).await.unwrap();
        b.catch_up_with(&a).await;
        let wide = Change::WidenColumn { name: "n".to_owned(), to: DataType::Int64 };
        a.submit(alter("t", wide)).await.unwrap();
        // Prepared for 32 bits, which hold it; and more, which only the wide one holds.
        b.append("t", SchemaPolicy::Strict, vec![numbers("n", vec![1, 2])]).await.unwrap();
        b.append("t", SchemaPolicy::Strict, vec![numbers("n", vec![1 << 40])]).await.unwrap();
        assert_eq!(b.writer.state().require(&TableName::public("t")).unwrap().rows(), 3);
    });
}

#[test]
fn automatic_creation_yields_to_who_came_first() {
    two(async |a, b| {
        let ns = DataType::Timestamp(TimeUnit::Nanosecond, None);
        let Step::CreateTable { name, mut spec, .. } = table("t", &[("ts", ns), ("id", DataType::Int64)])
        else {
            unreachable!()
        };
        spec.partition_by = Some(PartitionUnit::Hour);
        a.submit(Step::CreateTable { name, spec, if_not_exists: false, replace: false }).await.unwrap();
        // Cut by days and in milliseconds at first.
        b.append("t", SchemaPolicy::Create, vec![batch(1, 900)]).await.unwrap();
        let state = b.writer.state();
        let table = state.require(&TableName::public("t")).unwrap();
        assert_eq!(table.schema().columns.len(), 3, "the column that it lacked was added");
        let mut counted: BTreeMap<Partition, u64> = BTreeMap::new();
        for tail in table.tail() {
            for (partition, rows) in &tail.section.partitions {
                *counted.entry(*partition).or_default() += rows;
            }
        }
        let mut expected: BTreeMap<Partition, u64> = BTreeMap::new();
        for (_, _, rows) in sections(&b.log, &state, "t").await {
            for t in rows.column(0).as_primitive::<TimestampNanosecondType>().values() {
                let partition = PartitionUnit::Hour.partition(*t, TimeUnit::Nanosecond);
                *expected.entry(partition).or_default() += 1;
            }
        }
        assert_eq!(counted, expected);
        assert_eq!(expected.values().sum::<u64>(), 900);
    });
}

#[test]
fn one_column_comes_of_two_that_were_added_at_once() {
    two(async |a, b| {
        a.submit(table("t", &[("ts", ts_type())])).await.unwrap();
        b.catch_up_with(&a).await;
        a.append("t", SchemaPolicy::Add, vec![numbers("n", vec![1])]).await.unwrap();
        b.append("t", SchemaPolicy::Add, vec![numbers("n", vec![2])]).await.unwrap();
        let state = b.writer.state();
        assert_eq!(state.require(&TableName::public("t")).unwrap().schema().columns.len(), 2);
        let mut values = Vec::new();
        for (_, names, rows) in sections(&b.log, &state, "t").await {
            assert_eq!(names, ["ts", "n"]);
            values.push(rows.column(1).as_primitive::<Int64Type>().value(0));
        }
        assert_eq!(values, [1, 2]);
    });
}

#[test]
fn a_dropped_table_refuses_and_its_successor_is_not_mistaken_for_it() {
    two(async |a, b| {
        a.append("t", SchemaPolicy::Create, vec![batch(1, 2)]).await.unwrap();
        b.catch_up_with(&a).await;
        let name = TableName::public("t");
        a.submit(Step::DropTable { name: name.clone(), if_exists: false }).await.unwrap();
        let error = b.append("t", SchemaPolicy::Strict, vec![batch(2, 2)]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.message().contains("table t does not exist"), "{error}");

        b.append("t", SchemaPolicy::Create, vec![batch(3, 2)]).await.unwrap();
        a.catch_up_with(&b).await;
        b.submit(Step::RenameTable { name, to: TableName::public("u") }).await.unwrap();
        // Ids bind: the rows follow the table under its new name.
        a.append("t", SchemaPolicy::Strict, vec![batch(4, 2)]).await.unwrap();
        assert_eq!(a.writer.state().require(&TableName::public("u")).unwrap().rows(), 4);
    });
}
