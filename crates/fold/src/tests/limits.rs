//! What is refused, and that bytes of strangers end in an error.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array};
use arrow::compute::concat;
use arrow::datatypes::DataType;
use proptest::prelude::*;
use tandem_format::{BinaryOp, Expr, Literal, MAX_EXPR_DEPTH, MutationKind};
use tandem_types::{ColumnId, ErrorKind};

use super::exprs::{binary, column, value};
use super::model::{V, array};
use super::{batch, delete, dictionary, lookup, pending};
use crate::{Mutations, bind, literal_array, literal_of, mutate, type_of};

fn is_true() -> Expr {
    value(V::Bool(true), &DataType::Boolean)
}

#[test]
fn literals_are_read_back() {
    let texts = array(&[V::Text("a".into()), V::Null, V::Text("a".into())], &DataType::Utf8);
    let literal = literal_of(&texts).unwrap();
    assert_eq!(literal_array(&literal).unwrap().as_ref(), texts.as_ref());
    // Neither slices nor encodings show.
    let twice = concat(&[texts.as_ref(), texts.as_ref()]).unwrap();
    assert_eq!(literal_of(&twice.slice(3, 3)).unwrap(), literal);
    let tags = arrow::compute::cast(&texts, &dictionary()).unwrap();
    assert_eq!(literal_of(&tags).unwrap(), literal);
    let none = literal_of(&texts.slice(0, 0)).unwrap();
    assert_eq!(literal_array(&none).unwrap().len(), 0);
}

proptest! {
    #[test]
    fn damaged_literals_are_errors_or_values(at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut ipc = literal_of(&array(&[V::Text("ab".into()), V::Null], &DataType::Utf8)).unwrap().ipc;
        let at = at.index(ipc.len());
        ipc[at] = with;
        let _ = literal_array(&Literal { ipc: ipc.clone() });
        ipc.truncate(cut.index(ipc.len()));
        let list = Literal { ipc: ipc.clone() };
        let of = Box::new(column(1, DataType::Utf8));
        let found = bind(&pending(1, delete(Expr::InList { of, list, negated: false }), None), None);
        if let Err(e) = found {
            prop_assert!(matches!(e.kind(), ErrorKind::Damaged | ErrorKind::Unsupported), "{}", e);
        }
    }
}

#[test]
fn a_literal_of_an_expression_has_one_value() {
    for values in [vec![], vec![V::Int(1), V::Int(2)]] {
        let expr = Expr::Literal(super::model::literal(&values, &DataType::Int64));
        assert_eq!(type_of(&expr).unwrap_err().kind(), ErrorKind::Damaged);
    }
    let error =
        bind(&pending(7, delete(Expr::Literal(Literal { ipc: vec![1, 2, 3] })), None), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.message().starts_with("the mutation at seq 7: "), "{error}");
}

#[test]
fn deep_expressions_are_refused() {
    let nested = |depth: usize| (1..depth).fold(is_true(), |expr, _| Expr::Not(Box::new(expr)));
    assert_eq!(type_of(&nested(MAX_EXPR_DEPTH)).unwrap(), DataType::Boolean);
    assert_eq!(type_of(&nested(MAX_EXPR_DEPTH + 1)).unwrap_err().kind(), ErrorKind::Unsupported);

    // As deep as it may be, over rows.
    let column_1 = || column(1, DataType::Int64);
    let sum = (1..MAX_EXPR_DEPTH - 1).fold(column_1(), |sum, _| binary(BinaryOp::Add, sum, column_1()));
    let predicate = binary(BinaryOp::Eq, sum, value(V::Int(199), &DataType::Int64));
    let rows = batch(vec![("c", array(&[V::Int(1), V::Int(2)], &DataType::Int64), true)]);
    let bound = super::bound(delete(predicate));
    assert_eq!(mutate(&[ColumnId(1)], rows, &[bound]).unwrap().num_rows(), 1);
}

#[test]
fn types_without_a_common_one_are_refused() {
    let int = || column(1, DataType::Int64);
    let text = || column(2, DataType::Utf8);
    let refused = [
        binary(BinaryOp::Eq, int(), text()),
        binary(BinaryOp::Add, text(), text()),
        binary(BinaryOp::And, int(), is_true()),
        binary(BinaryOp::Concat, text(), column(3, DataType::Binary)),
        Expr::Not(Box::new(text())),
        Expr::Negate(Box::new(column(3, DataType::UInt8))),
        Expr::Cast { of: Box::new(column(3, DataType::Boolean)), to: super::micros() },
        Expr::Case { branches: vec![(is_true(), int())], otherwise: Some(Box::new(text())) },
        Expr::Like { of: Box::new(int()), pattern: Box::new(text()), negated: false, ignore_case: false },
        binary(
            BinaryOp::Lt,
            column(3, DataType::new_list(DataType::Int64, true)),
            column(3, DataType::new_list(DataType::Int64, true)),
        ),
        binary(
            BinaryOp::Lt,
            column(6, super::micros()),
            column(7, DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()))),
        ),
    ];
    for expr in refused {
        assert_eq!(type_of(&expr).map_err(|e| e.kind()), Err(ErrorKind::Unsupported), "{expr:?}");
    }
    // A predicate that is no condition.
    let error = bind(&pending(1, delete(int()), None), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn rows_that_do_not_fit_are_refused() {
    let rows = batch(vec![("c", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef, true)]);
    let reads =
        |id| delete(binary(BinaryOp::Lt, column(id, DataType::Int64), value(V::Int(9), &DataType::Int64)));
    let ids = [ColumnId(1)];
    let error = Mutations::new(&ids, &rows.schema(), None, &[super::bound(reads(2))]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    let error = Mutations::new(&[], &rows.schema(), None, &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    let mutations = Mutations::new(&ids, &rows.schema(), None, &[super::bound(reads(1))]).unwrap();
    let none = rows.project(&[]).unwrap();
    assert_eq!(mutations.apply(none).unwrap_err().kind(), ErrorKind::Internal);
}

#[test]
fn lookups_need_their_rows() {
    let missing = bind(&pending(1, lookup(&[1], 1, true), None), None).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Internal);
    let rows = batch(vec![("c", Arc::new(Int64Array::from(vec![1])) as ArrayRef, true)]);
    for (columns, keys) in [(vec![1, 2], 1), (vec![1], 2), (vec![1], 0)] {
        let error = bind(&pending(1, lookup(&columns, keys, true), None), Some(std::slice::from_ref(&rows)))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
    }
    let nothing = bind(&pending(1, lookup(&[1], 1, true), None), Some(&[])).unwrap();
    assert_eq!(mutate(&[ColumnId(1)], rows, &[nothing]).unwrap().num_rows(), 1);
}

#[test]
fn a_batch_that_is_not_touched_is_not_copied() {
    let rows = batch(vec![("c", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef, true)]);
    let eq = binary(BinaryOp::Eq, column(1, DataType::Int64), value(V::Int(7), &DataType::Int64));
    let update = MutationKind::Update {
        predicate: eq.clone(),
        assignments: vec![(ColumnId(1), value(V::Int(8), &DataType::Int64))],
    };
    let mutations = [super::bound(delete(eq)), super::bound(update)];
    let found = mutate(&[ColumnId(1)], rows.clone(), &mutations).unwrap();
    assert!(Arc::ptr_eq(rows.column(0), found.column(0)));
}

#[test]
fn values_that_no_row_of_a_dictionary_has_are_no_keys() {
    let texts: Vec<V> = ["a", "b", "c", "d"].map(|t| V::Text(t.into())).to_vec();
    let tags = arrow::compute::cast(&array(&texts, &DataType::Utf8), &dictionary()).unwrap();
    let rows = batch(vec![("c", array(&texts, &DataType::Utf8), true)]);
    let found = batch(vec![("c", tags.slice(1, 2), true)]);
    let bound = bind(&pending(1, lookup(&[1], 1, true), None), Some(&[found])).unwrap();
    let left = mutate(&[ColumnId(1)], rows, &[bound]).unwrap();
    assert_eq!(super::model::values(left.column(0)), [V::Text("a".into()), V::Text("d".into())]);
}
