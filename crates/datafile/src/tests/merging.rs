//! Sorting and merging against the obvious: a stable sort of all rows.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
    UInt32Array,
};
use arrow::compute::SortOptions;
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::row::{RowConverter, SortField};
use arrow_schema::DataType;
use futures::{StreamExt, TryStreamExt, stream};
use proptest::prelude::*;
use tandem_types::{Error, Result};

use super::size::{Chance, cpu_rows};
use crate::{merge_sorted, sort_batches};

type Row = (Option<i8>, Option<String>, Option<i64>);

/// Rows as a batch: an integer, a string in some encoding, a number without direct key, and the row's
/// own number, which shows whether ties kept their order.
fn batch(rows: &[Row], first: u32, text: &DataType) -> RecordBatch {
    let float = |v: i64| if v == 2 { f64::NAN } else { (v as f64 - 3.0) * 0.5 };
    let strings: ArrayRef = Arc::new(rows.iter().map(|r| r.1.as_deref()).collect::<StringArray>());
    let wide = |v: i64| i128::from(v) * 10_i128.pow(25);
    let columns: [(&str, ArrayRef); 5] = [
        ("a", Arc::new(rows.iter().map(|r| r.0.map(i64::from)).collect::<Int64Array>())),
        ("b", cast(&strings, text).unwrap()),
        ("c", Arc::new(rows.iter().map(|r| r.2.map(float)).collect::<Float64Array>())),
        ("d", Arc::new(rows.iter().map(|r| r.2.map(wide)).collect::<Decimal128Array>())),
        ("row", Arc::new((first..first + rows.len() as u32).collect::<UInt32Array>())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(n, a)| (n, a, true))).unwrap()
}

/// The model: one batch, rows compared by Arrow's row format, sorted stably.
fn naive(batches: &[RecordBatch], sort: &[usize]) -> Vec<u32> {
    let Some(first) = batches.first() else { return vec![] };
    let all = concat_batches(&first.schema(), batches).unwrap();
    let options = SortOptions { descending: false, nulls_first: false };
    let columns: Vec<ArrayRef> = sort.iter().map(|i| all.column(*i).clone()).collect();
    let field = |c: &ArrayRef| SortField::new_with_options(c.data_type().clone(), options);
    let rows = RowConverter::new(columns.iter().map(field).collect()).unwrap();
    let rows = rows.convert_columns(&columns).unwrap();
    let mut order: Vec<u32> = (0..all.num_rows() as u32).collect();
    if !sort.is_empty() {
        order.sort_by(|a, b| rows.row(*a as usize).cmp(&rows.row(*b as usize)));
    }
    let sorted = take_record_batch(&all, &UInt32Array::from(order)).unwrap();
    row_numbers(&[sorted])
}

fn row_numbers(batches: &[RecordBatch]) -> Vec<u32> {
    batches
        .iter()
        .flat_map(|b| b.column(b.num_columns() - 1).as_primitive::<arrow::datatypes::UInt32Type>().values())
        .copied()
        .collect()
}

fn merged(inputs: Vec<Vec<RecordBatch>>, sort: &[usize], batch_rows: usize) -> Result<Vec<RecordBatch>> {
    let inputs = inputs.into_iter().map(|b| stream::iter(b.into_iter().map(Ok)).boxed()).collect();
    futures::executor::block_on(merge_sorted(inputs, sort, batch_rows).try_collect())
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let value = (prop::option::of(-2..3i8), prop::option::of("[ab]{0,2}"), prop::option::of(0..6i64));
    prop::collection::vec(value, 0..40)
}

fn text() -> impl Strategy<Value = DataType> {
    let dict = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    prop::sample::select(vec![DataType::Utf8, DataType::Utf8View, dict])
}

fn keys() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..4usize, 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn sorting_is_a_stable_sort(parts in prop::collection::vec(rows(), 1..12), text in text(), sort in keys()) {
        let mut first = 0;
        let batches: Vec<RecordBatch> = parts.iter().map(|rows| {
            first += rows.len() as u32;
            batch(rows, first - rows.len() as u32, &text)
        }).collect();
        let expected = naive(&batches, &sort);
        let sorted = sort_batches(batches, &sort).unwrap();
        prop_assert_eq!(row_numbers(&sorted), expected);
    }

    #[test]
    fn merging_is_a_stable_sort(
        parts in prop::collection::vec((rows(), 1..20usize), 0..6),
        text in text(),
        sort in keys(),
        batch_rows in 1..50usize,
    ) {
        let mut first = 0;
        let mut flat = Vec::new();
        let mut inputs = Vec::new();
        for (rows, pieces) in &parts {
            let whole = sort_batches(vec![batch(rows, first, &text)], &sort).unwrap().remove(0);
            first += rows.len() as u32;
            let cut = |start: usize| whole.slice(start, (*pieces).min(whole.num_rows() - start));
            inputs.push((0..whole.num_rows()).step_by(*pieces).map(cut).collect::<Vec<_>>());
            flat.push(whole);
        }
        let expected = naive(&flat, &sort);
        let merged = merged(inputs, &sort, batch_rows).unwrap();
        prop_assert!(parts.len() == 1 || merged.iter().all(|b| b.num_rows() <= batch_rows && b.num_rows() > 0));
        prop_assert_eq!(row_numbers(&merged), expected);
    }
}

#[test]
fn long_sorts_take_the_radix_path_and_extremes_keep_their_order() {
    let mut chance = Chance(1);
    let extremes = [i64::MIN, -1, 0, 1, i64::MAX];
    let values: Vec<Option<i64>> = (0..5_000)
        .map(|_| match chance.next() % 7 {
            0 => None,
            1 => Some(extremes[(chance.next() % 5) as usize]),
            _ => Some(chance.next() as i64 >> (chance.next() % 60)),
        })
        .collect();
    for with_nulls in [true, false] {
        let a: Int64Array =
            values.iter().map(|v| if with_nulls { *v } else { Some(v.unwrap_or(7)) }).collect();
        let batch = RecordBatch::try_from_iter_with_nullable([
            ("a", Arc::new(a) as ArrayRef, true),
            ("row", Arc::new(UInt32Array::from_iter_values(0..5_000)) as ArrayRef, true),
        ])
        .unwrap();
        let halves = vec![batch.slice(0, 1_234), batch.slice(1_234, 5_000 - 1_234)];
        assert_eq!(row_numbers(&sort_batches(halves, &[0]).unwrap()), naive(&[batch], &[0]));
    }
}

#[test]
fn sorted_batches_come_back_as_they_are_and_dictionaries_stay() {
    let rows = cpu_rows(3, 500);
    let sorted = sort_batches(rows.clone(), &[0, 10]).unwrap();
    assert_eq!(sorted, rows);
    let reversed: Vec<RecordBatch> = rows.iter().rev().cloned().collect();
    let sorted = sort_batches(reversed, &[0, 10]).unwrap();
    assert_eq!(sorted.len(), 1);
    assert_eq!(sorted[0].column(0).data_type(), rows[0].column(0).data_type());
    assert_eq!(sorted[0], concat_batches(&rows[0].schema(), &rows).unwrap());
}

#[test]
fn long_runs_go_out_in_slices_and_errors_pass() {
    let rows: Vec<Row> = (0..100i8).flat_map(|a| vec![(Some(a), None, None); 90]).collect();
    let whole = batch(&rows, 0, &DataType::Utf8);
    let (low, high) = (whole.slice(0, 3_960), whole.slice(3_960, 5_040));
    let out = merged(vec![vec![high.clone()], vec![low]], &[0], 2_000).unwrap();
    assert_eq!(concat_batches(&whole.schema(), &out).unwrap(), whole);
    assert!(out.iter().all(|b| b.num_rows() <= 2_000));

    let broken = stream::iter(vec![Ok(high), Err(Error::unavailable("gone"))]).boxed();
    let other = stream::iter(vec![Ok(whole.slice(0, 10))]).boxed();
    let result: Result<Vec<RecordBatch>> =
        futures::executor::block_on(merge_sorted(vec![broken, other], &[0], 100).try_collect());
    assert_eq!(result.unwrap_err().message(), "gone");
}
