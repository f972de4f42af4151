//! What one append makes of its rows.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray, TimestampNanosecondArray,
};
use arrow::datatypes::{
    Float64Type, Int32Type, Int64Type, TimestampMillisecondType, TimestampNanosecondType,
};
use arrow_schema::DataType;
use futures::StreamExt;
use tandem_manifest::{ColumnSpec, SchemaPolicy, Step, TableSpec};
use tandem_types::{Error, ErrorKind, TableName};
use tandem_writer::{Append, CreateTable, WriteToken};

use crate::rows::{batch, batch_with, part, read_all, sections, spec};
use crate::sim::{Node, run, store};

pub fn table(name: &str, columns: &[(&str, DataType)]) -> Step {
    let column = |(name, data_type): &(&str, DataType)| ColumnSpec {
        name: (*name).to_owned(),
        data_type: data_type.clone(),
        nullable: true,
    };
    let spec = TableSpec { columns: columns.iter().map(column).collect(), ..TableSpec::default() };
    Step::CreateTable { name: TableName::public(name), spec, if_not_exists: false, replace: false }
}

pub fn rows(columns: &[(&str, ArrayRef)]) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.iter().map(|(n, c)| (*n, c.clone(), true))).unwrap()
}

fn alone<T>(work: impl AsyncFnOnce(Node) -> T) -> T {
    let store = store();
    run(&store, async { work(Node::open(&store, 1).await).await })
}

#[test]
fn an_unknown_column_is_refused_by_name_or_added() {
    alone(async |node| {
        node.append("t", SchemaPolicy::Create, vec![batch(1, 2)]).await.unwrap();
        let before = node.writer.state();
        let wide = || vec![batch_with(2, 2, "more")];
        let error = node.append("t", SchemaPolicy::Strict, wide()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.message().contains("table t") && error.message().contains("\"more\""), "{error}");
        assert_eq!(node.writer.state().seq(), before.seq(), "nothing was written");
        let error = node.append("none", SchemaPolicy::Add, wide()).await.unwrap_err();
        assert!(error.message().contains("table none does not exist"), "{error}");

        node.append("t", SchemaPolicy::Add, wide()).await.unwrap();
        let state = node.writer.state();
        assert!(state.require(&TableName::public("t")).unwrap().schema().by_name("more").is_some());
    });
}

#[test]
fn null_in_the_designated_timestamp_is_refused_by_name() {
    alone(async |node| {
        node.submit(table("t", &[("when", crate::rows::ts_type()), ("n", DataType::Int64)])).await.unwrap();
        let with = |when: Vec<Option<i64>>| {
            let n: ArrayRef = Arc::new(Int64Array::from(vec![1; when.len()]));
            rows(&[("when", Arc::new(TimestampMillisecondArray::from(when))), ("n", n)])
        };
        let error =
            node.append("t", SchemaPolicy::Strict, vec![with(vec![Some(5), None])]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.message().contains("\"when\"") && error.message().contains("table t"), "{error}");
        let lacking = rows(&[("n", Arc::new(Int64Array::from(vec![1])))]);
        let error = node.append("t", SchemaPolicy::Create, vec![lacking]).await.unwrap_err();
        assert!(error.message().contains("\"when\"") && error.message().contains("table t"), "{error}");
        assert_eq!(node.writer.state().require(&TableName::public("t")).unwrap().rows(), 0);
        node.append("t", SchemaPolicy::Strict, vec![with(vec![Some(5)])]).await.unwrap();
    });
}

#[test]
fn values_are_cast_where_every_one_fits() {
    alone(async |node| {
        let ns = DataType::Timestamp(arrow_schema::TimeUnit::Nanosecond, None);
        let columns = [("ts", ns), ("f", DataType::Float64), ("i", DataType::Int32)];
        node.submit(table("t", &columns)).await.unwrap();
        let send = |ms: i64, f: ArrayRef, i: i64| {
            let ts: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![ms, ms]));
            rows(&[("ts", ts), ("f", f), ("i", Arc::new(Int64Array::from(vec![Some(i), None])))])
        };
        let whole = |n: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![n, 7])) };
        node.append("t", SchemaPolicy::Strict, vec![send(1_500, whole(1 << 53), 3)]).await.unwrap();
        let read = sections(&node.log, &node.writer.state(), "t").await;
        let (_, names, stored) = &read[0];
        assert_eq!(names, &["ts", "f", "i"]);
        assert_eq!(stored.column(0).as_primitive::<TimestampNanosecondType>().value(0), 1_500_000_000);
        assert_eq!(stored.column(1).as_primitive::<Float64Type>().value(0), 9_007_199_254_740_992.0);
        assert_eq!(stored.column(2).as_primitive::<Int32Type>().iter().collect::<Vec<_>>(), [Some(3), None]);
        let state = node.writer.state();
        let section = &state.require(&TableName::public("t")).unwrap().tail().next().unwrap().section;
        assert_eq!(section.time, Some((1_500_000_000, 1_500_000_000)), "in the column's own ticks");

        let inexact = [
            (send(1, whole((1 << 53) + 1), 3), "\"f\"", "9007199254740993"),
            (send(1, whole(1), 1 << 40), "\"i\"", "1099511627776"),
            (send(1 << 60, whole(1), 3), "\"ts\"", "fits"),
            (send(1, Arc::new(StringArray::from(vec!["a", "b"])), 3), "\"f\"", "Utf8"),
        ];
        for (batch, column, value) in inexact {
            for policy in [SchemaPolicy::Strict, SchemaPolicy::Add] {
                if policy == SchemaPolicy::Add && column == "\"i\"" {
                    continue; // the column widens instead
                }
                let error = node.append("t", policy, vec![batch.clone()]).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::SchemaConflict, "{error}");
                let all = [column, "table t", value];
                assert!(all.iter().all(|part| error.message().contains(part)), "{all:?}: {error}");
            }
        }
        assert_eq!(node.writer.state().require(&TableName::public("t")).unwrap().rows(), 2);
    });
}

#[test]
fn a_fraction_does_not_become_an_integer() {
    alone(async |node| {
        node.submit(table("t", &[("n", DataType::Int64)])).await.unwrap();
        let send = |f: f64| vec![rows(&[("n", Arc::new(Float64Array::from(vec![f])))])];
        node.append("t", SchemaPolicy::Strict, send(3.0)).await.unwrap();
        for f in [0.5, f64::NAN, f64::INFINITY, 1e19] {
            let error = node.append("t", SchemaPolicy::Strict, send(f)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::SchemaConflict, "{f}: {error}");
        }
        let read = sections(&node.log, &node.writer.state(), "t").await;
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].2.column(0).as_primitive::<Int64Type>().value(0), 3);
    });
}

#[test]
fn a_large_batch_is_cut_into_sections_and_stays_one_transaction() {
    alone(async |node| {
        let limit = crate::sim::config().section_bytes as u64;
        let committed = node.append("t", SchemaPolicy::Create, vec![batch(1, 2_000)]).await.unwrap();
        let state = node.writer.state();
        let tail: Vec<_> = state.require(&TableName::public("t")).unwrap().tail().collect();
        assert!(tail.len() > 7, "{}", tail.len());
        for section in &tail {
            assert_eq!(section.key.seq, committed.seq);
            // A section's message headers come on top.
            assert!(section.section.len < limit * 2 + 2048, "{}", section.section.len);
        }
        let found = read_all(&node.log, &state).await;
        assert_eq!(found[&1].rows.len(), 2_000);
        assert!(found[&1].rows.values().all(|n| *n == 1));
        // Many small batches gather into few sections.
        let small = (0..100).map(|n| part(2, n, 1)).collect();
        node.append("s", SchemaPolicy::Create, small).await.unwrap();
        assert!(node.writer.state().require(&TableName::public("s")).unwrap().tail_sections() <= 2);
    });
}

#[test]
fn an_empty_stream_creates_its_table_and_a_broken_one_nothing() {
    alone(async |node| {
        let create = |replace| Some(CreateTable { spec: spec(), if_not_exists: false, replace });
        let empty = batch(1, 1).slice(0, 0);
        let made =
            node.append_to("t", SchemaPolicy::Strict, create(false), vec![empty.clone()]).await.unwrap();
        assert_eq!(made.rows, 0);
        assert_eq!(node.writer.state().require(&TableName::public("t")).unwrap().schema().columns.len(), 3);
        let again = node.append_to("t", SchemaPolicy::Strict, create(false), vec![batch(1, 1)]).await;
        assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);

        let schema = empty.schema();
        let append = Append {
            table: TableName::public("b"),
            schema,
            policy: SchemaPolicy::Create,
            on_conflict: None,
            create: create(false),
            token: WriteToken::Minted,
            queued: None,
        };
        let mut items: Vec<_> = (0..20).map(|n| Ok(part(1, n * 100, 100))).collect();
        items.push(Err(Error::invalid("the client's stream broke")));
        let before = node.writer.state().seq();
        let error = node.writer.append(append, futures::stream::iter(items).boxed()).await.unwrap_err();
        assert!(error.message().contains("broke"));
        assert_eq!(node.writer.state().seq(), before);
        assert!(node.writer.state().table_named(&TableName::public("b")).is_none());
    });
}

#[test]
fn replace_drops_the_old_rows_in_the_same_commit() {
    alone(async |node| {
        let old = node.append("t", SchemaPolicy::Create, vec![batch(1, 900)]).await.unwrap();
        let create = Some(CreateTable { spec: spec(), if_not_exists: false, replace: true });
        let new = node.append_to("t", SchemaPolicy::Strict, create, vec![batch(2, 900)]).await.unwrap();
        assert_eq!(new.seq, old.seq.next(), "one commit");
        let found = read_all(&node.log, &node.writer.state()).await;
        assert_eq!(found.keys().collect::<Vec<_>>(), [&2]);
        assert_eq!(found[&2].rows.len(), 900);
    });
}

#[test]
fn rows_for_a_declared_table_are_cast_to_its_declaration() {
    alone(async |node| {
        let columns = vec![ColumnSpec { name: "n".to_owned(), data_type: DataType::Int32, nullable: true }];
        let spec = TableSpec { columns, ..TableSpec::default() };
        let create =
            |if_not_exists| CreateTable { spec: spec.clone(), if_not_exists, replace: !if_not_exists };
        let send = |n: i64| vec![rows(&[("n", Arc::new(Int64Array::from(vec![n])))])];
        node.append_to("t", SchemaPolicy::Strict, Some(create(true)), send(5)).await.unwrap();
        node.append_to("t", SchemaPolicy::Strict, Some(create(false)), send(6)).await.unwrap();
        let read = sections(&node.log, &node.writer.state(), "t").await;
        assert_eq!(read[0].2.column(0).as_ref(), &Int32Array::from(vec![6]));
        let error =
            node.append_to("t", SchemaPolicy::Strict, Some(create(false)), send(1 << 40)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SchemaConflict, "{error}");
    });
}

#[test]
fn timestamps_at_the_ends_of_time_have_a_partition() {
    alone(async |node| {
        let ns = DataType::Timestamp(arrow_schema::TimeUnit::Nanosecond, None);
        node.submit(table("t", &[("ts", ns)])).await.unwrap();
        let values = vec![i64::MAX, 0, i64::MIN, -1, i64::MAX - 1];
        let batch = rows(&[("ts", Arc::new(TimestampNanosecondArray::from(values)))]);
        node.append("t", SchemaPolicy::Strict, vec![batch]).await.unwrap();
        let state = node.writer.state();
        let section = &state.require(&TableName::public("t")).unwrap().tail().next().unwrap().section;
        let counts: Vec<u64> = section.partitions.iter().map(|(_, rows)| *rows).collect();
        assert_eq!(counts, [1, 1, 1, 2]);
        assert_eq!(section.time, Some((i64::MIN, i64::MAX)));

        // Years beyond the calendar share a partition at each end, and only those.
        let s = DataType::Timestamp(arrow_schema::TimeUnit::Second, None);
        let Step::CreateTable { name, mut spec, .. } = table("y", &[("ts", s)]) else { unreachable!() };
        spec.partition_by = Some(tandem_types::PartitionUnit::Year);
        node.submit(Step::CreateTable { name, spec, if_not_exists: false, replace: false }).await.unwrap();
        let values = vec![i64::MAX, 0, 1, i64::MAX - 1];
        let batch = rows(&[("ts", Arc::new(arrow::array::TimestampSecondArray::from(values)))]);
        node.append("y", SchemaPolicy::Strict, vec![batch]).await.unwrap();
        let state = node.writer.state();
        let section = &state.require(&TableName::public("y")).unwrap().tail().next().unwrap().section;
        assert_eq!(section.partitions.iter().map(|(_, rows)| *rows).collect::<Vec<_>>(), [2, 2]);
    });
}

#[test]
fn nested_rows_of_a_sliced_batch_are_whole() {
    alone(async |node| {
        let lists = arrow::array::ListArray::from_iter_primitive::<Int64Type, _, _>(
            (0..3_000i64)
                .map(|n| (n % 5 != 0).then(|| (0..n % 4).map(|k| Some(n * 10 + k)).collect::<Vec<_>>())),
        );
        let ts: ArrayRef = Arc::new(
            (0..3_000).map(Some).collect::<arrow::array::PrimitiveArray<TimestampMillisecondType>>(),
        );
        let batch = rows(&[("ts", ts), ("l", Arc::new(lists.clone()))]);
        node.append("t", SchemaPolicy::Create, vec![batch]).await.unwrap();
        let read = sections(&node.log, &node.writer.state(), "t").await;
        assert!(read.len() > 3);
        let parts: Vec<_> = read.iter().map(|(_, _, b)| b.column(1).as_ref()).collect();
        assert_eq!(arrow::compute::concat(&parts).unwrap().as_list::<i32>(), &lists);
    });
}
