//! Random mutations of random rows.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use proptest::prelude::*;
use tandem_format::{BinaryOp, Expr, MutationKind, PendingMutation};
use tandem_types::ColumnId;

use super::exprs::{binary, column, int, level, row, show, simple, text, value};
use super::model::{Row, V, array, cast_value, columns, evaluate, text_types, values};
use super::{batch, lookup, micros, pending};
use crate::{Bound, Mutations, bind, columns_needed, columns_read};

/// A mutation, and the rows that it looks up.
#[derive(Clone)]
pub(super) struct Act {
    pub(super) pending: PendingMutation,
    pub(super) rows: Vec<Vec<V>>,
}

impl fmt::Debug for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pending.mutation.kind {
            MutationKind::Delete { predicate } => write!(f, "delete where {}", show(predicate))?,
            MutationKind::Update { predicate, assignments } => {
                write!(f, "update ")?;
                assignments.iter().try_for_each(|(id, expr)| write!(f, "c{id} = {}, ", show(expr)))?;
                write!(f, "where {}", show(predicate))?;
            }
            MutationKind::Lookup { keys, delete, .. } => write!(f, "lookup {keys} {delete} {:?}", self.rows)?,
        }
        write!(f, " in {:?}", self.pending.mutation.time)
    }
}

const LOOKUP: [u32; 4] = [2, 3, 1, 7];

impl Act {
    pub(super) fn bind(&self) -> Arc<Bound> {
        let types: BTreeMap<u32, DataType> = columns().into_iter().map(|(id, t, _)| (id, t)).collect();
        let column = |(at, id): (usize, &u32)| {
            let values: Vec<V> = self.rows.iter().map(|row| row[at].clone()).collect();
            ("c", array(&values, &types[id]), true)
        };
        let width = self.rows.first().map_or(0, Vec::len);
        let found = || batch(LOOKUP.iter().take(width).enumerate().map(column).collect());
        let found = if self.rows.is_empty() { vec![] } else { vec![found()] };
        bind(&self.pending, Some(&found)).unwrap()
    }

    /// What it does to one row; `None`: the row is gone.
    pub(super) fn apply(&self, row: Row) -> Option<Row> {
        let types: BTreeMap<u32, (DataType, bool)> =
            columns().into_iter().map(|(id, t, n)| (id, (t, n))).collect();
        let mut new = row.clone();
        let mut assign = |id: u32, v: V| {
            let (data_type, nullable) = &types[&id];
            let v = cast_value(v, data_type);
            if *nullable || !v.is_null() {
                new.insert(id, v);
            }
        };
        match &self.pending.mutation.kind {
            MutationKind::Delete { predicate } => {
                return (evaluate(predicate, &row) != V::Bool(true)).then_some(row);
            }
            MutationKind::Update { predicate, assignments } => {
                if evaluate(predicate, &row) == V::Bool(true) {
                    assignments.iter().for_each(|(id, expr)| assign(id.0, evaluate(expr, &row)));
                }
            }
            MutationKind::Lookup { keys, delete, .. } => {
                let keys = *keys as usize;
                let key: Vec<V> = LOOKUP[..keys].iter().map(|id| row[id].clone()).collect();
                if let Some(found) = self.rows.iter().rfind(|found| found[..keys] == key) {
                    if *delete {
                        return None;
                    }
                    for (id, v) in LOOKUP.iter().zip(found).skip(keys) {
                        assign(*id, v.clone());
                    }
                }
            }
        }
        Some(new)
    }
}

/// A mutation at seq 1; its time, where it has one, covers what its predicate selects.
pub(super) fn act() -> impl Strategy<Value = Act> {
    let level = level(2);
    let predicate = (level.boolean.clone(), prop::option::of((0i64..40, 0i64..12)));
    let predicate = predicate.prop_map(|(expr, range)| match range {
        None => (expr, None),
        Some((first, more)) => {
            let at = |op, t| binary(op, column(6, micros()), value(V::Int(t), &micros()));
            let range = binary(BinaryOp::And, at(BinaryOp::GtEq, first), at(BinaryOp::LtEq, first + more));
            (binary(BinaryOp::And, range, expr), Some((first, first + more)))
        }
    });
    let assignments = prop::collection::vec(
        prop_oneof![
            level.int.clone().prop_map(|e| (1, e)),
            level.int.clone().prop_map(|e| (2, e)),
            level.text.clone().prop_map(|e| (3, e)),
            level.float.clone().prop_map(|e| (4, e)),
            level.boolean.clone().prop_map(|e| (5, e)),
            level.int.clone().prop_map(|e| (7, e)),
        ],
        1..4,
    );
    // Each column once.
    let assignments = assignments.prop_map(|all: Vec<(u32, Expr)>| {
        let each: BTreeMap<u32, Expr> = all.into_iter().collect();
        each.into_iter().map(|(id, expr)| (ColumnId(id), expr)).collect::<Vec<_>>()
    });
    let small = (-5i64..5).prop_map(V::Int);
    let looked_up = (int(), text(), int(), small).prop_map(|(a, b, c, d)| vec![a, b, c, d]);
    let expressions = |kind, time| Act { pending: pending(1, kind, time), rows: vec![] };
    prop_oneof![
        3 => predicate.clone().prop_map(move |(p, time)| expressions(super::delete(p), time)),
        5 => (predicate, assignments).prop_map(move |((predicate, time), assignments)| {
            expressions(MutationKind::Update { predicate, assignments }, time)
        }),
        3 => (prop::collection::vec(looked_up, 0..6), any::<bool>(), 1u32..3).prop_map(|(rows, delete, keys)| {
            let rows: Vec<Vec<V>> =
                if delete { rows.into_iter().map(|row| row[..keys as usize].to_vec()).collect() } else { rows };
            let columns = if delete { &LOOKUP[..keys as usize] } else { &LOOKUP };
            Act { pending: pending(1, lookup(columns, keys, delete), None), rows }
        }),
    ]
}

/// Rows as a batch of some of the columns, column 3 as `text`.
pub(super) fn to_batch(rows: &[Row], ids: &[u32], text: &DataType) -> RecordBatch {
    let fields = columns().into_iter().filter(|(id, ..)| ids.contains(id)).map(|(id, data_type, null)| {
        let values: Vec<V> = rows.iter().map(|row| row[&id].clone()).collect();
        let data_type = if id == 3 { text.clone() } else { data_type };
        ("c", array(&values, &data_type), null)
    });
    batch(fields.collect())
}

pub(super) fn to_rows(batch: &RecordBatch, ids: &[u32]) -> Vec<Row> {
    let columns: Vec<Vec<V>> = batch.columns().iter().map(values).collect();
    (0..batch.num_rows())
        .map(|row| ids.iter().zip(&columns).map(|(id, column)| (*id, column[row].clone())).collect())
        .collect()
}

const ALL: [u32; 7] = [1, 2, 3, 4, 5, 6, 7];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn mutations_do_to_batches_what_they_do_to_each_row(
        rows in prop::collection::vec(row(), 0..50),
        acts in prop::collection::vec(act(), 0..7),
        text in 0usize..3,
        timed in any::<bool>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let expected: Vec<Row> = rows
            .iter()
            .filter_map(|row| acts.iter().try_fold(row.clone(), |row, act| act.apply(row)))
            .collect();
        let ids = ALL.map(ColumnId);
        let bound: Vec<Arc<Bound>> = acts.iter().map(Act::bind).collect();
        let batch = to_batch(&rows, &ALL, &text_types()[text]);
        let timestamp = timed.then_some(ColumnId(6));
        let mutations = Mutations::new(&ids, &batch.schema(), timestamp, &bound).unwrap();
        let whole = mutations.apply(batch.clone()).unwrap();
        prop_assert_eq!(whole.schema(), batch.schema());
        prop_assert_eq!(&to_rows(&whole, &ALL), &expected);

        // In two batches, and by two sets of mutations one after the other: the same.
        let at = cut.index(rows.len() + 1);
        let mut parts = to_rows(&mutations.apply(batch.slice(0, at)).unwrap(), &ALL);
        parts.extend(to_rows(&mutations.apply(batch.slice(at, rows.len() - at)).unwrap(), &ALL));
        prop_assert_eq!(&parts, &expected);
        let (first, second) = bound.split_at(cut.index(bound.len() + 1));
        let halfway = crate::mutate(&ids, batch, first).unwrap();
        prop_assert_eq!(&to_rows(&crate::mutate(&ids, halfway, second).unwrap(), &ALL), &expected);
    }

    #[test]
    fn many_simple_mutations_are_as_one_after_the_other(
        rows in prop::collection::vec(row(), 1..40),
        mutations in prop::collection::vec((simple(), prop::option::of(simple()), prop::option::of(int())), 0..12),
        text in 0usize..3,
    ) {
        let acts: Vec<Act> = mutations
            .into_iter()
            .map(|(one, other, assigned)| {
                let predicate = match other {
                    Some(other) => binary(BinaryOp::And, one, other),
                    None => one,
                };
                let kind = match assigned {
                    None => super::delete(predicate),
                    Some(v) => {
                        let assignments = vec![(ColumnId(1), value(v, &DataType::Int64))];
                        MutationKind::Update { predicate, assignments }
                    }
                };
                Act { pending: pending(1, kind, None), rows: vec![] }
            })
            .collect();
        let expected: Vec<Row> = rows
            .iter()
            .filter_map(|row| acts.iter().try_fold(row.clone(), |row, act| act.apply(row)))
            .collect();
        let bound: Vec<Arc<Bound>> = acts.iter().map(Act::bind).collect();
        let batch = to_batch(&rows, &ALL, &text_types()[text]);
        let found = crate::mutate(&ALL.map(ColumnId), batch, &bound).unwrap();
        prop_assert_eq!(&to_rows(&found, &ALL), &expected);
    }

    #[test]
    fn fewer_columns_are_enough_for_fewer_columns(
        rows in prop::collection::vec(row(), 1..30),
        acts in prop::collection::vec(act(), 0..5),
        wanted in prop::sample::subsequence(ALL.to_vec(), 0..4),
    ) {
        let bound: Vec<Arc<Bound>> = acts.iter().map(Act::bind).collect();
        let expected = rows.iter().filter_map(|row| acts.iter().try_fold(row.clone(), |row, act| act.apply(row)));
        let expected: Vec<Vec<V>> = expected.map(|row| wanted.iter().map(|id| row[id].clone()).collect()).collect();

        let wanted_ids: Vec<ColumnId> = wanted.iter().map(|id| ColumnId(*id)).collect();
        let mut ids = wanted.clone();
        ids.extend(columns_needed(&wanted_ids, &bound).into_iter().map(|(id, _)| id.0));
        ids.sort_unstable();
        let batch = if ids.is_empty() {
            let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.len()));
            RecordBatch::try_new_with_options(Arc::new(arrow::datatypes::Schema::empty()), vec![], &options).unwrap()
        } else {
            to_batch(&rows, &ids, &DataType::Utf8)
        };
        let column_ids: Vec<ColumnId> = ids.iter().map(|id| ColumnId(*id)).collect();
        let found = crate::mutate(&column_ids, batch, &bound).unwrap();
        prop_assert_eq!(found.num_rows(), expected.len());
        let found: Vec<Vec<V>> = to_rows(&found, &ids)
            .into_iter()
            .map(|row| wanted.iter().map(|id| row[id].clone()).collect())
            .collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn what_a_mutation_reads_is_known_before_and_after_it_is_bound(act in act()) {
        let bound = act.bind();
        if act.pending.mutation.section().is_none() || !act.rows.is_empty() {
            let ids: Vec<ColumnId> = bound.reads().iter().map(|(id, _)| *id).collect();
            prop_assert_eq!(ids, columns_read(&act.pending.mutation));
            let assigned = if bound.deletes() { vec![] } else { act.pending.mutation.assigned() };
            prop_assert_eq!(bound.assigned(), assigned);
        }
    }
}
