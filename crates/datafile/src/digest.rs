//! A digest of rows that does not depend on their order, their batches or their Arrow encodings.
//!
//! Each row hashes to the sum, over its values that are not null, of hash(column id, logical value); the
//! digest is the number of rows and the 128-bit sum of the rows' finished hashes. It guards against our
//! own mistakes and against bits that flip, not against somebody who looks for collisions.
//!
//! One logical value in several encodings hashes alike: integers by value whatever their width, floats by
//! their value as float64, strings and binaries by their bytes, dictionaries as their values. Decimals
//! count by their unscaled value: compare them at one scale, that is after the casts.

use arrow::array::{
    Array, ArrayAccessor, ArrayIter, AsArray, PrimitiveArray, RecordBatch, downcast_dictionary_array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    ArrowDictionaryKeyType, ArrowNativeType, IntervalDayTime, IntervalMonthDayNano, i256,
};
use arrow::row::{RowConverter, SortField};
use arrow_schema::DataType;
use tandem_types::{ColumnId, Error, Result};

use crate::keys::BytesOf;

const K0: u64 = 0x9e37_79b9_7f4a_7c15;
const K1: u64 = 0xd6e8_feb8_6659_fd93;
const K2: u64 = 0xa076_1d64_78bd_642f;
const K3: u64 = 0xe703_7ed1_a0b4_28db;

/// See the module: equal for equal multisets of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RowDigest {
    /// How many rows were added.
    pub rows: u64,
    /// The sum of the rows' hashes.
    pub sum: u128,
}

impl RowDigest {
    /// Adds the rows of a batch; `ids` are the ids of its columns, in order.
    pub fn add(&mut self, batch: &RecordBatch, ids: &[ColumnId]) -> Result<()> {
        if ids.len() != batch.num_columns() {
            return Err(Error::internal(format!(
                "a batch has {} columns and {} column ids",
                batch.num_columns(),
                ids.len()
            )));
        }
        let mut hashes = vec![0u64; batch.num_rows()];
        for (column, id) in batch.columns().iter().zip(ids) {
            add_column(column.as_ref(), seed(*id), &mut hashes)?;
        }
        self.rows += hashes.len() as u64;
        for hash in hashes {
            let high = u128::from(fold(hash ^ K2, K3 | 1));
            let low = u128::from(fold(hash.rotate_left(32) ^ K3, K2 | 1));
            self.sum = self.sum.wrapping_add(high << 64 | low);
        }
        Ok(())
    }

    /// Adds all rows that `other` saw.
    pub fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// Multiplies to 128 bits and folds the halves: every bit of the inputs reaches the result.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

fn seed(id: ColumnId) -> u64 {
    fold(u64::from(id.0).wrapping_add(K0), K1) | 1
}

/// The hash of one value, given its code, in a column.
fn value_hash(code: u64, seed: u64) -> u64 {
    fold(code.wrapping_add(seed), K0 ^ seed.rotate_left(17))
}

pub(crate) fn bytes_code(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut code = fold(bytes.len() as u64 ^ K2, K1);
    for word in words {
        code = fold(code ^ u64::from_le_bytes(*word), K3);
    }
    let mut last = [0u8; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    fold(code ^ u64::from_le_bytes(last), K2)
}

/// A number that stands for a primitive value, the same for all widths of it.
trait Code {
    fn code(self) -> u64;
}

macro_rules! codes {
    ($($t:ty => |$v:ident| $code:expr),* $(,)?) => {
        $(impl Code for $t { fn code(self) -> u64 { let $v = self; $code } })*
    };
}

codes! {
    i8 => |v| i64::from(v) as u64,
    i16 => |v| i64::from(v) as u64,
    i32 => |v| i64::from(v) as u64,
    i64 => |v| v as u64,
    u8 => |v| u64::from(v),
    u16 => |v| u64::from(v),
    u32 => |v| u64::from(v),
    u64 => |v| v,
    half::f16 => |v| v.to_f64().to_bits(),
    f32 => |v| f64::from(v).to_bits(),
    f64 => |v| v.to_bits(),
    i128 => |v| match i64::try_from(v) {
        Ok(small) => small as u64,
        Err(_) => bytes_code(&v.to_le_bytes()),
    },
    i256 => |v| match v.to_i128() {
        Some(small) => small.code(),
        None => bytes_code(&v.to_le_bytes()),
    },
    IntervalDayTime => |v| bytes_code(&[v.days.to_le_bytes(), v.milliseconds.to_le_bytes()].concat()),
    IntervalMonthDayNano => |v| bytes_code(
        &[v.months.to_le_bytes().as_slice(), &v.days.to_le_bytes(), &v.nanoseconds.to_le_bytes()].concat()
    ),
}

/// Adds the hash of each value of `array` to its row's.
fn add_column(array: &dyn Array, seed: u64, hashes: &mut [u64]) -> Result<()> {
    downcast_dictionary_array!(
        array => return add_dictionary(array.keys(), array.values().as_ref(), seed, hashes),
        _ => {}
    );
    let nulls = array.logical_nulls().filter(|n| n.null_count() > 0);
    // Numbers go straight from their buffer into the hashes.
    arrow::downcast_primitive_array!(
        array => add_codes(array.values().iter().map(|v| v.code()), nulls.as_ref(), seed, hashes),
        _ => add_codes(codes(array)?.into_iter(), nulls.as_ref(), seed, hashes)
    );
    Ok(())
}

fn add_codes(codes: impl Iterator<Item = u64>, nulls: Option<&NullBuffer>, seed: u64, hashes: &mut [u64]) {
    match nulls {
        None => hashes.iter_mut().zip(codes).for_each(|(h, c)| *h = h.wrapping_add(value_hash(c, seed))),
        Some(nulls) => hashes.iter_mut().zip(codes).zip(nulls.iter()).for_each(|((h, c), valid)| {
            *h = h.wrapping_add(if valid { value_hash(c, seed) } else { 0 });
        }),
    }
}

/// Each distinct value is hashed once: tags cost a look into a small table per row.
fn add_dictionary<K>(
    keys: &PrimitiveArray<K>,
    values: &dyn Array,
    seed: u64,
    hashes: &mut [u64],
) -> Result<()>
where
    K: ArrowDictionaryKeyType,
{
    let mut by_key: Vec<u64> = codes(values)?.into_iter().map(|c| value_hash(c, seed)).collect();
    if let Some(nulls) = values.logical_nulls() {
        by_key.iter_mut().zip(nulls.iter()).filter(|(_, valid)| !valid).for_each(|(h, _)| *h = 0);
    }
    // Below a null may stand any key.
    let hash_of = |key: &K::Native| by_key.get(key.as_usize()).copied().unwrap_or(0);
    let rows = hashes.iter_mut().zip(keys.values());
    match keys.nulls().filter(|n| n.null_count() > 0) {
        None => rows.for_each(|(hash, key)| *hash = hash.wrapping_add(hash_of(key))),
        Some(nulls) => rows.zip(nulls.iter()).filter(|(_, valid)| *valid).for_each(|((hash, key), _)| {
            *hash = hash.wrapping_add(hash_of(key));
        }),
    }
    Ok(())
}

/// The code of each value; that of a null means nothing.
fn codes(array: &dyn Array) -> Result<Vec<u64>> {
    Ok(arrow::downcast_primitive_array!(
        array => array.values().iter().map(|v| v.code()).collect(),
        DataType::Null => vec![0; array.len()],
        DataType::Boolean => array.as_boolean().values().iter().map(u64::from).collect(),
        DataType::Utf8 => of_bytes(array.as_string::<i32>()),
        DataType::LargeUtf8 => of_bytes(array.as_string::<i64>()),
        DataType::Utf8View => of_bytes(array.as_string_view()),
        DataType::Binary => of_bytes(array.as_binary::<i32>()),
        DataType::LargeBinary => of_bytes(array.as_binary::<i64>()),
        DataType::BinaryView => of_bytes(array.as_binary_view()),
        DataType::FixedSizeBinary(_) => of_bytes(array.as_fixed_size_binary()),
        _ => return nested_codes(array),
    ))
}

fn of_bytes<'a, A>(array: A) -> Vec<u64>
where
    A: ArrayAccessor,
    A::Item: BytesOf<'a>,
{
    // Sorted data repeat their values: comparing is cheaper than hashing.
    let mut last: (&[u8], u64) = (&[], bytes_code(&[]));
    let code = |value: Option<A::Item>| {
        let Some(bytes) = value.map(BytesOf::bytes) else { return 0 };
        if bytes != last.0 {
            last = (bytes, bytes_code(bytes));
        }
        last.1
    };
    ArrayIter::new(array).map(code).collect()
}

/// Lists, structs and maps: through the row format, which knows values and no encodings.
fn nested_codes(array: &dyn Array) -> Result<Vec<u64>> {
    let failed = |e| Error::unsupported(format!("values of type {} have no digest: {e}", array.data_type()));
    let converter = RowConverter::new(vec![SortField::new(array.data_type().clone())]).map_err(failed)?;
    let rows = converter.convert_columns(&[array.slice(0, array.len())]).map_err(failed)?;
    Ok(rows.iter().map(|row| bytes_code(row.as_ref())).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::UInt32Array;
    use arrow::array::{ArrayRef, Int32Array, Int64Array, StringArray, new_null_array};
    use arrow::compute::{cast, take};
    use proptest::prelude::*;

    use super::*;

    const IDS: [ColumnId; 2] = [ColumnId(1), ColumnId(2)];

    fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().enumerate().map(|(i, c)| (format!("c{i}"), c, true)),
        )
        .unwrap()
    }

    fn digest(batch: &RecordBatch, ids: &[ColumnId]) -> RowDigest {
        let mut digest = RowDigest::default();
        digest.add(batch, ids).unwrap();
        digest
    }

    #[test]
    fn the_digest_is_frozen() {
        let b = batch(vec![
            Arc::new(Int32Array::from(vec![Some(1), None])),
            Arc::new(StringArray::from(vec![Some("tandem"), Some("")])),
        ]);
        let d = digest(&b, &IDS);
        assert_eq!((d.rows, format!("{:032x}", d.sum)), (2, GOLDEN.to_owned()));
    }

    const GOLDEN: &str = "88a5d79bf096cc0a487501c438dc0c1a";

    #[test]
    fn swapping_values_between_rows_or_columns_is_seen() {
        let ab = |a: [i64; 2], b: [i64; 2]| {
            digest(
                &batch(vec![Arc::new(Int64Array::from(a.to_vec())), Arc::new(Int64Array::from(b.to_vec()))]),
                &IDS,
            )
        };
        let d = ab([1, 2], [3, 4]);
        assert_eq!(d, ab([2, 1], [4, 3]));
        assert_ne!(d, ab([1, 2], [4, 3]));
        assert_ne!(d, ab([3, 2], [1, 4]));
        assert_ne!(d, ab([1, 1], [3, 3]));
    }

    proptest! {
        #[test]
        fn order_split_and_encoding_do_not_matter(
            rows in prop::collection::vec((any::<Option<i32>>(), prop::option::of("[a-c]{0,12}")), 1..60),
            cut in any::<prop::sample::Index>(),
            shuffle in any::<u64>(),
        ) {
            let ints: ArrayRef = Arc::new(rows.iter().map(|r| r.0).collect::<Int32Array>());
            let text: ArrayRef = Arc::new(rows.iter().map(|r| r.1.as_deref()).collect::<StringArray>());
            let plain = digest(&batch(vec![ints.clone(), text.clone()]), &IDS);

            let mut order: Vec<u32> = (0..rows.len() as u32).collect();
            order.sort_by_key(|i| fold(u64::from(*i) ^ shuffle, K0));
            let order = UInt32Array::from(order);
            let dict = DataType::Dictionary(Box::new(DataType::Int16), Box::new(DataType::LargeUtf8));
            let other = batch(vec![
                cast(&take(&text, &order, None).unwrap(), &dict).unwrap(),
                cast(&take(&ints, &order, None).unwrap(), &DataType::Int64).unwrap(),
                new_null_array(&DataType::Float64, rows.len()),
            ]);
            let ids = [IDS[1], IDS[0], ColumnId(9)];
            let at = cut.index(rows.len() + 1);
            let mut split = digest(&other.slice(0, at), &ids);
            split.merge(&digest(&other.slice(at, rows.len() - at), &ids));
            prop_assert_eq!(plain, split);

            let views = batch(vec![ints, cast(&text, &DataType::Utf8View).unwrap()]);
            prop_assert_eq!(plain, digest(&views, &IDS));
        }
    }
}
