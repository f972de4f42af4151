//! Sets of keys against a list of rows.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Decimal128Array, FixedSizeBinaryArray, Float64Array, Int64Array, StringArray,
};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use proptest::prelude::*;
use tandem_types::ErrorKind;

use super::exprs::{int, text};
use super::model::{V, array, text_types};
use crate::KeySet;

/// Each type that goes its own way: words, bytes in three encodings, rows.
fn key_types() -> Vec<DataType> {
    let list = DataType::new_list(DataType::Int64, true);
    let mut types =
        vec![DataType::Int64, DataType::Decimal128(20, 0), DataType::Int8, DataType::BinaryView, list];
    types.extend(text_types());
    types
}

fn key_array(values: &[V], data_type: &DataType) -> ArrayRef {
    let is_text = !data_type.is_numeric() && !data_type.is_nested();
    let texts: Vec<V> = values
        .iter()
        .map(|v| match v {
            V::Int(v) if is_text => V::Text(v.to_string()),
            V::Int(v) => V::Int(v % 100),
            other => other.clone(),
        })
        .collect();
    let base = if is_text { DataType::Utf8 } else { DataType::Int64 };
    cast(&array(&texts, &base), data_type).unwrap()
}

proptest! {
    #[test]
    fn a_set_contains_what_was_put_in(
        put in prop::collection::vec((int(), int()), 0..30),
        asked in prop::collection::vec((int(), int()), 0..30),
        first in prop::sample::select(key_types()),
        second in prop::sample::select(key_types()),
        both in any::<bool>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let small = |v: &V| if let V::Int(v) = v { V::Int(v % 100) } else { V::Null };
        // In text no remainder is taken: the values themselves decide there.
        let is_number = |t: &DataType| t.is_numeric() || t.is_nested();
        let own = |v: &V, t: &DataType| if is_number(t) { small(v) } else { v.clone() };
        let key = |(a, b): &(V, V)| (own(a, &first), if both { own(b, &second) } else { V::Null });
        let arrays = |rows: &[(V, V)]| -> Vec<ArrayRef> {
            let a = key_array(&rows.iter().map(|(a, _)| a.clone()).collect::<Vec<_>>(), &first);
            let b = key_array(&rows.iter().map(|(_, b)| b.clone()).collect::<Vec<_>>(), &second);
            if both { vec![a, b] } else { vec![a] }
        };
        let types = if both { vec![first.clone(), second.clone()] } else { vec![first.clone()] };
        let mut set = KeySet::new(&types).unwrap();
        let (some, others) = put.split_at(cut.index(put.len() + 1));
        set.insert(&arrays(some)).unwrap();
        set.insert(&arrays(others)).unwrap();

        let mut distinct: Vec<(V, V)> = Vec::new();
        put.iter().map(key).for_each(|k| if !distinct.contains(&k) { distinct.push(k) });
        prop_assert_eq!(set.len(), distinct.len());
        prop_assert_eq!(set.is_empty(), put.is_empty());
        let found = set.contains(&arrays(&asked)).unwrap();
        prop_assert_eq!(found.null_count(), 0);
        let expected: Vec<bool> = asked.iter().map(|k| distinct.contains(&key(k))).collect();
        prop_assert_eq!(found.values().iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn text_is_one_type_in_every_encoding(
        put in prop::collection::vec(text(), 0..20),
        asked in prop::collection::vec(text(), 0..20),
        from in 0usize..3,
        to in 0usize..3,
    ) {
        let types = text_types();
        let mut set = KeySet::new(&types[from..=from]).unwrap();
        set.insert(&[array(&put, &types[to])]).unwrap();
        let found = set.contains(&[array(&asked, &types[from])]).unwrap();
        let expected: Vec<bool> = asked.iter().map(|v| put.contains(v)).collect();
        prop_assert_eq!(found.values().iter().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_slice_of_a_large_dictionary_is_looked_up_by_its_own_values() {
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..1000).map(|i| format!("t{i}"))));
    let tags = cast(&texts, &super::dictionary()).unwrap();
    let mut set = KeySet::new(&[super::dictionary()]).unwrap();
    set.insert(&[tags.slice(10, 2)]).unwrap();
    assert_eq!(set.len(), 2);
    let found = set.contains(&[tags.slice(9, 4)]).unwrap();
    assert_eq!(found.values().iter().collect::<Vec<_>>(), [false, true, true, false]);
    assert_eq!(set.contains(&[tags]).unwrap().true_count(), 2);
}

#[test]
fn floats_are_keys_by_their_bits_and_wide_values_by_all_of_theirs() {
    let contains = |put: ArrayRef, asked: ArrayRef| {
        let mut set = KeySet::new(&[put.data_type().clone()]).unwrap();
        set.insert(&[put]).unwrap();
        set.contains(&[asked]).unwrap().values().iter().collect::<Vec<_>>()
    };
    let floats = |values: Vec<f64>| Arc::new(Float64Array::from(values)) as ArrayRef;
    assert_eq!(contains(floats(vec![0.0, f64::NAN]), floats(vec![-0.0, 0.0, f64::NAN])), [false, true, true]);
    let wide = |values: Vec<i128>| {
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(38, 2).unwrap()) as ArrayRef
    };
    assert_eq!(contains(wide(vec![1 << 70]), wide(vec![(1 << 70) + 1, 1 << 70])), [false, true]);
    let fixed = |values: Vec<&[u8]>| {
        Arc::new(FixedSizeBinaryArray::try_from_iter(values.iter()).unwrap()) as ArrayRef
    };
    assert_eq!(contains(fixed(vec![b"abc"]), fixed(vec![b"abd", b"abc"])), [false, true]);
}

#[test]
fn keys_of_other_types_or_number_are_refused() {
    let mut set = KeySet::new(&[DataType::Int64]).unwrap();
    let ints: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["1"]));
    assert_eq!(set.insert(&[texts]).unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(set.insert(&[ints.clone(), ints.clone()]).unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(set.contains(&[]).unwrap_err().kind(), ErrorKind::Internal);
    set.insert(std::slice::from_ref(&ints)).unwrap();
    assert_eq!(set.len(), 1);
}
