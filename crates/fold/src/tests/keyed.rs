//! Random histories of a keyed table.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use proptest::prelude::*;
use tandem_format::{MutationKey, OnDuplicate};
use tandem_types::{ColumnId, ErrorKind, Seq};

use super::exprs::row;
use super::model::{Row, V, text_types};
use super::mutate::{Act, act, to_batch, to_rows};
use super::{batch, bound, delete};
use crate::KeyedFold;

const ALL: [u32; 7] = [1, 2, 3, 4, 5, 6, 7];

#[derive(Clone, Debug)]
enum Event {
    Section(OnDuplicate, Vec<Row>),
    Mutation(Box<Act>),
}

fn event() -> impl Strategy<Value = Event> {
    let policy = prop_oneof![
        Just(OnDuplicate::Replace),
        Just(OnDuplicate::Ignore),
        Just(OnDuplicate::Merge),
        prop::sample::subsequence(vec![1u32, 2, 3, 4, 5, 7], 0..4)
            .prop_map(|ids| OnDuplicate::Update(ids.into_iter().map(ColumnId).collect())),
    ];
    prop_oneof![
        2 => (policy, prop::collection::vec(keyed_row(), 0..12)).prop_map(|(p, rows)| Event::Section(p, rows)),
        1 => act().prop_map(|act| Event::Mutation(Box::new(act))),
    ]
}

/// A row that can have a key of columns 6 and 3: few times, no null.
fn keyed_row() -> impl Strategy<Value = Row> {
    row().prop_map(|mut row| {
        if row[&3].is_null() {
            row.insert(3, V::Text("n".into()));
        }
        if let V::Int(time) = row[&6] {
            row.insert(6, V::Int(time % 9));
        }
        row
    })
}

/// What there is of each key, in the order in which the keys came; with the seq up to which mutations leave it alone.
#[derive(Default)]
struct Model {
    rows: Vec<(Vec<V>, Slot)>,
}

type Slot = Option<(Row, u64)>;

impl Model {
    fn slot(&mut self, key: Vec<V>) -> &mut Slot {
        let at = self.rows.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
            self.rows.push((key, None));
            self.rows.len() - 1
        });
        &mut self.rows[at].1
    }

    fn put(&mut self, key: Vec<V>, policy: &OnDuplicate, new: Row) {
        let slot = self.slot(key);
        let row = match slot.take() {
            None => new,
            Some((old, _)) => old
                .into_iter()
                .map(|(id, old)| {
                    let taken = match policy {
                        OnDuplicate::Replace => true,
                        OnDuplicate::Ignore => false,
                        OnDuplicate::Merge => !new[&id].is_null(),
                        OnDuplicate::Update(ids) => ids.contains(&ColumnId(id)),
                        OnDuplicate::Keep => unreachable!("no test keeps rows of equal key"),
                    };
                    (id, if taken { new[&id].clone() } else { old })
                })
                .collect(),
        };
        *slot = Some((row, 0));
    }

    fn mutate(&mut self, seq: u64, act: &Act) {
        for (_, slot) in &mut self.rows {
            *slot = match slot.take() {
                Some((row, after)) if after < seq => act.apply(row).map(|row| (row, after)),
                other => other,
            };
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn rows_of_one_key_fold_as_the_log_orders_them(
        base in prop::collection::vec((keyed_row(), prop::sample::select(vec![0u64, 2, 5, 9])), 0..20),
        events in prop::collection::vec(event(), 0..8),
        by_text in any::<bool>(),
        text in 0usize..3,
    ) {
        let key = if by_text { vec![6, 3] } else { vec![6] };
        let key_of = |row: &Row| -> Vec<V> { key.iter().map(|id| row[id].clone()).collect() };
        let ids = ALL.map(ColumnId).to_vec();
        let key_ids: Vec<ColumnId> = key.iter().map(|id| ColumnId(*id)).collect();
        let text = &text_types()[text];
        let schema = to_batch(&[], &ALL, text).schema();
        let mut fold = KeyedFold::new(ids, schema, &key_ids, Some(ColumnId(6))).unwrap();
        let mut model = Model::default();

        for after in [9, 0, 2, 5] {
            let mut file: Vec<Row> = Vec::new();
            for (row, _) in base.iter().filter(|(_, a)| *a == after) {
                let slot = model.slot(key_of(row));
                if slot.is_none() {
                    *slot = Some((row.clone(), after));
                    file.push(row.clone());
                }
            }
            fold.base(to_batch(&file, &ALL, text), Seq(after)).unwrap();
        }
        for (seq, event) in (1..).zip(events) {
            match event {
                Event::Section(policy, rows) => {
                    fold.section(&policy, to_batch(&rows, &ALL, text)).unwrap();
                    rows.into_iter().for_each(|row| model.put(key_of(&row), &policy, row));
                }
                Event::Mutation(mut act) => {
                    if by_text && act.pending.mutation.assigned().contains(&ColumnId(3)) {
                        continue;
                    }
                    act.pending.key.seq = Seq(seq);
                    fold.mutation(&act.bind()).unwrap();
                    model.mutate(seq, &act);
                }
            }
        }
        let expected: Vec<Row> = model.rows.into_iter().filter_map(|(_, slot)| Some(slot?.0)).collect();
        let found: Vec<Row> = fold.finish().unwrap().iter().flat_map(|b| to_rows(b, &ALL)).collect();
        // A key that came again after its row was deleted keeps its first place.
        prop_assert_eq!(found, expected);
    }
}

fn two_columns(keys: &[Option<i64>], texts: &[&str]) -> RecordBatch {
    let keys: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
    let texts: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
    batch(vec![("k", keys, true), ("t", texts, true)])
}

fn fold() -> KeyedFold {
    let schema = two_columns(&[], &[]).schema();
    KeyedFold::new(vec![ColumnId(1), ColumnId(2)], schema, &[ColumnId(1)], None).unwrap()
}

#[test]
fn many_rows_come_out_in_several_batches() {
    let rows = 20_000i64;
    let mut fold = fold();
    let keys: Vec<Option<i64>> = (0..rows).map(Some).collect();
    fold.base(two_columns(&keys, &vec!["old"; keys.len()]), Seq(0)).unwrap();
    let odd: Vec<Option<i64>> = (0..rows).filter(|k| k % 2 == 1).map(Some).collect();
    fold.section(&OnDuplicate::Replace, two_columns(&odd, &vec!["new"; odd.len()])).unwrap();
    assert!(fold.memory() > 8 * keys.len());
    let batches = fold.finish().unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [8192, 8192, 3616]);
    let texts: Vec<Row> = batches.iter().flat_map(|b| to_rows(b, &[1, 2])).collect();
    for (at, row) in texts.iter().enumerate() {
        assert_eq!(row[&1], V::Int(at as i64));
        assert_eq!(row[&2], V::Text(if at % 2 == 1 { "new" } else { "old" }.into()));
    }
}

#[test]
fn what_does_not_belong_into_a_fold_is_refused() {
    let kind = |result: tandem_types::Result<()>| result.unwrap_err().kind();
    let null = two_columns(&[Some(1), None], &["a", "b"]);
    assert_eq!(kind(fold().base(null.clone(), Seq(0))), ErrorKind::Damaged);
    assert_eq!(kind(fold().section(&OnDuplicate::Replace, null)), ErrorKind::Damaged);

    let one = two_columns(&[Some(1)], &["a"]);
    assert_eq!(kind(fold().section(&OnDuplicate::Keep, one.clone())), ErrorKind::Internal);
    let mut late = fold();
    late.mutation(&bound(delete(super::exprs::value(V::Bool(true), &DataType::Boolean)))).unwrap();
    assert_eq!(kind(late.base(one.clone(), Seq(0))), ErrorKind::Internal);
    let narrow = one.project(&[0]).unwrap();
    assert_eq!(kind(fold().base(narrow, Seq(0))), ErrorKind::Internal);

    let no_key = KeyedFold::new(vec![ColumnId(1), ColumnId(2)], one.schema(), &[ColumnId(9)], None);
    assert_eq!(no_key.unwrap_err().kind(), ErrorKind::Internal);
}

#[test]
fn mutations_of_one_commit_stay_in_order() {
    let mut fold = fold();
    fold.base(two_columns(&[Some(1), Some(2)], &["a", "b"]), Seq(3)).unwrap();
    let assign = |ordinal, from: &str, to: &str| {
        let text = |t: &str| super::exprs::value(V::Text(t.into()), &DataType::Utf8);
        let column = super::exprs::column(2, DataType::Utf8);
        let predicate = super::exprs::binary(tandem_format::BinaryOp::Eq, column, text(from));
        let assignments = vec![(ColumnId(2), text(to))];
        let mut pending =
            super::pending(4, tandem_format::MutationKind::Update { predicate, assignments }, None);
        pending.key = MutationKey { seq: Seq(4), transaction: 0, section: 0, ordinal };
        crate::bind(&pending, None).unwrap()
    };
    fold.mutation(&assign(0, "a", "b")).unwrap();
    fold.mutation(&assign(1, "b", "c")).unwrap();
    let batches = fold.finish().unwrap();
    let texts = &batches[0].column(1);
    assert_eq!(texts.len(), 2);
    assert_eq!(super::model::values(texts), [V::Text("c".into()), V::Text("c".into())]);
}
