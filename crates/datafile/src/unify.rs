//! One dictionary for a column that came in many batches.
//!
//! Arrow's `concat` puts the dictionaries one behind the other, so that a value has as many keys as there
//! are batches: sorting, hashing and writing then meet strings where they could meet small numbers.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, PrimitiveArray};
use arrow::compute::{concat, interleave};
use arrow::datatypes::Int32Type;
use arrow_schema::ArrowError;

use crate::keys::Distinct;
use crate::repeated::{is_bytes, value_bytes};

/// Puts arrays of one type one behind the other; dictionaries of strings become one without duplicates.
pub(crate) fn concat_unified(arrays: &[&dyn Array]) -> Result<ArrayRef, ArrowError> {
    let dictionaries: Option<Vec<&DictionaryArray<Int32Type>>> =
        arrays.iter().map(|a| a.as_dictionary_opt::<Int32Type>()).collect();
    match dictionaries {
        Some(dictionaries) if dictionaries.iter().all(|d| is_bytes(d.values().data_type())) => {
            unify(&dictionaries)
        }
        _ => concat(arrays),
    }
}

fn unify(dictionaries: &[&DictionaryArray<Int32Type>]) -> Result<ArrayRef, ArrowError> {
    let mut distinct = Distinct::default();
    // Where each distinct value was met first: (dictionary, index).
    let mut origins: Vec<(usize, usize)> = Vec::new();
    let mut known: Option<(&ArrayRef, Vec<Option<i32>>)> = None;
    let mut keys: Vec<Option<i32>> = Vec::with_capacity(dictionaries.iter().map(|d| d.len()).sum());
    for (index, dictionary) in dictionaries.iter().enumerate() {
        let values = dictionary.values();
        let numbers = match known.take() {
            Some((same, numbers)) if Arc::ptr_eq(same, values) => numbers,
            _ => (0..values.len())
                .map(|at| {
                    let number = distinct.number(value_bytes(values.as_ref(), at)?);
                    if number as usize == origins.len() {
                        origins.push((index, at));
                    }
                    i32::try_from(number).ok()
                })
                .collect(),
        };
        keys.extend(dictionary.keys_iter().map(|key| numbers.get(key?).copied().flatten()));
        known = Some((values, numbers));
    }
    if origins.len() > i32::MAX as usize {
        return Err(ArrowError::DictionaryKeyOverflowError);
    }
    let values: Vec<&dyn Array> = dictionaries.iter().map(|d| d.values().as_ref()).collect();
    let values = interleave(&values, &origins)?;
    let keys = PrimitiveArray::<Int32Type>::from_iter(keys);
    Ok(Arc::new(DictionaryArray::try_new(keys, values)?))
}

#[cfg(test)]
mod tests {
    use arrow::compute::cast;

    use super::*;

    #[test]
    fn one_dictionary_without_duplicates_says_the_same() {
        let a: DictionaryArray<Int32Type> = [Some("x"), None, Some("y"), Some("x")].into_iter().collect();
        let b: DictionaryArray<Int32Type> = [Some("y"), Some("z")].into_iter().collect();
        let c = b.slice(1, 1);
        let arrays: [&dyn Array; 4] = [&a, &b, &c, &a];
        let one = concat_unified(&arrays).unwrap();
        let plain = arrow_schema::DataType::Utf8;
        assert_eq!(
            cast(&one, &plain).unwrap().as_ref(),
            cast(&concat(&arrays).unwrap(), &plain).unwrap().as_ref()
        );
        assert_eq!(one.as_any_dictionary().values().len(), 3);
    }
}
