//! Sort keys as plain numbers: a column becomes one `u64` per row, in the order of its values.
//!
//! Numbers and times map directly, dictionaries through the ranks of their values, and all else through
//! the ranks of its distinct values. Nulls get the largest key.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use arrow::array::{Array, ArrayAccessor, ArrayIter, AsArray};
use arrow::datatypes::{IntervalDayTime, IntervalMonthDayNano, i256};
use arrow::row::{RowConverter, SortField};
use arrow_schema::DataType;
use tandem_types::{Error, Result};

use crate::digest::bytes_code;

/// One number per row; comparing them compares the rows' values, nulls last.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) values: Vec<u64>,
    /// How many low bits of the values can differ from zero.
    pub(crate) bits: u32,
}

impl Keys {
    /// The keys of a column; they compare within this one array only.
    pub(crate) fn of(array: &dyn Array) -> Result<Self> {
        let mut values = ordered(array)?;
        let Some(nulls) = array.logical_nulls().filter(|n| n.null_count() > 0) else {
            let low = values.iter().copied().min().unwrap_or(0);
            let high = values.iter().copied().max().unwrap_or(0);
            values.iter_mut().for_each(|v| *v -= low);
            return Ok(Self { values, bits: u64::BITS - (high - low).leading_zeros() });
        };
        let valid = |values: &[u64]| -> (u64, u64) {
            nulls
                .valid_indices()
                .filter_map(|i| values.get(i))
                .fold((u64::MAX, 0), |(low, high), v| (low.min(*v), high.max(*v)))
        };
        let (mut low, mut high) = valid(&values);
        if low == 0 && high == u64::MAX {
            // No number is left above the values for the nulls: ranks make room.
            values = dense_ranks(&values);
            (low, high) = valid(&values);
        }
        let top = high.saturating_sub(low).saturating_add(1);
        for (value, valid) in values.iter_mut().zip(nulls.iter()) {
            *value = if valid { *value - low } else { top };
        }
        Ok(Self { values, bits: u64::BITS - top.leading_zeros() })
    }
}

/// A number in the order of the values, where 64 bits can hold it.
trait Ordered {
    fn ordered(self) -> Option<u64>;
}

const SIGN: u64 = 1 << 63;

/// The total order of IEEE 754, which Arrow's kernels use too.
fn float(bits: u64) -> u64 {
    if bits & SIGN == 0 { bits ^ SIGN } else { !bits }
}

macro_rules! ordered {
    ($($t:ty => |$v:pat_param| $key:expr),* $(,)?) => {
        $(impl Ordered for $t { fn ordered(self) -> Option<u64> { let $v = self; $key } })*
    };
}

ordered! {
    i8 => |v| Some(i64::from(v) as u64 ^ SIGN),
    i16 => |v| Some(i64::from(v) as u64 ^ SIGN),
    i32 => |v| Some(i64::from(v) as u64 ^ SIGN),
    i64 => |v| Some(v as u64 ^ SIGN),
    u8 => |v| Some(u64::from(v)),
    u16 => |v| Some(u64::from(v)),
    u32 => |v| Some(u64::from(v)),
    u64 => |v| Some(v),
    half::f16 => |v| Some(float(u64::from(v.to_bits()) << 48)),
    f32 => |v| Some(float(u64::from(v.to_bits()) << 32)),
    f64 => |v| Some(float(v.to_bits())),
    i128 => |v| i64::try_from(v).ok().and_then(Ordered::ordered),
    i256 => |v| v.to_i128().and_then(Ordered::ordered),
    IntervalDayTime => |_| None,
    IntervalMonthDayNano => |_| None,
}

/// A number per value in the order of the values; that of a null means nothing.
fn ordered(array: &dyn Array) -> Result<Vec<u64>> {
    if let Some(dictionary) = array.as_any_dictionary_opt() {
        if dictionary.values().is_empty() {
            return Ok(vec![0; array.len()]);
        }
        let ranks = ordered(dictionary.values().as_ref())?;
        let rank = |key: usize| ranks.get(key).copied().unwrap_or(0);
        return Ok(dictionary.normalized_keys().into_iter().map(rank).collect());
    }
    let numbers = arrow::downcast_primitive_array!(
        array => array.values().iter().map(|v| v.ordered()).collect(),
        DataType::Null => Some(vec![0; array.len()]),
        DataType::Boolean => Some(array.as_boolean().values().iter().map(u64::from).collect()),
        DataType::Utf8 => Some(ranks_of_bytes(array.as_string::<i32>())),
        DataType::LargeUtf8 => Some(ranks_of_bytes(array.as_string::<i64>())),
        DataType::Utf8View => Some(ranks_of_bytes(array.as_string_view())),
        DataType::Binary => Some(ranks_of_bytes(array.as_binary::<i32>())),
        DataType::LargeBinary => Some(ranks_of_bytes(array.as_binary::<i64>())),
        DataType::BinaryView => Some(ranks_of_bytes(array.as_binary_view())),
        DataType::FixedSizeBinary(_) => Some(ranks_of_bytes(array.as_fixed_size_binary())),
        _ => None
    );
    match numbers {
        Some(numbers) => Ok(numbers),
        None => ranks_of_rows(array),
    }
}

/// Ranks without gaps.
fn dense_ranks(values: &[u64]) -> Vec<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    values.iter().map(|v| sorted.partition_point(|s| s < v) as u64).collect()
}

fn ranks_of_bytes<'a, A>(array: A) -> Vec<u64>
where
    A: ArrayAccessor,
    A::Item: BytesOf<'a>,
{
    let mut distinct = Distinct::default();
    // Sorted and bursty data repeat their values: most rows need no look into the table.
    let mut last: Option<(&'a [u8], u32)> = None;
    let numbers: Vec<u32> = ArrayIter::new(array)
        .map(|value| {
            let Some(bytes) = value.map(BytesOf::bytes) else { return 0 };
            match last {
                Some((seen, number)) if seen == bytes => number,
                _ => {
                    let number = distinct.number(bytes);
                    last = Some((bytes, number));
                    number
                }
            }
        })
        .collect();
    let ranks = distinct.ranks();
    numbers.into_iter().map(|n| ranks.get(n as usize).copied().unwrap_or(0)).collect()
}

/// Strings and binaries as bytes that live as long as their array.
pub(crate) trait BytesOf<'a> {
    fn bytes(self) -> &'a [u8];
}

impl<'a> BytesOf<'a> for &'a str {
    fn bytes(self) -> &'a [u8] {
        self.as_bytes()
    }
}

impl<'a> BytesOf<'a> for &'a [u8] {
    fn bytes(self) -> &'a [u8] {
        self
    }
}

/// Whatever has no direct number: decimals beyond 64 bits, lists, structs.
fn ranks_of_rows(array: &dyn Array) -> Result<Vec<u64>> {
    let failed =
        |e| Error::unsupported(format!("values of type {} cannot be sorted: {e}", array.data_type()));
    let converter = RowConverter::new(vec![SortField::new(array.data_type().clone())]).map_err(failed)?;
    let rows = converter.convert_columns(&[array.slice(0, array.len())]).map_err(failed)?;
    let mut distinct = Distinct::default();
    let numbers: Vec<u32> = rows.iter().map(|row| distinct.number(row.data())).collect();
    let ranks = distinct.ranks();
    Ok(numbers.into_iter().map(|n| ranks.get(n as usize).copied().unwrap_or(0)).collect())
}

/// The distinct values met so far, numbered in the order of their first appearance.
#[derive(Default)]
pub(crate) struct Distinct<'a> {
    numbers: HashMap<&'a [u8], u32, BuildHasherDefault<FoldHasher>>,
    values: Vec<&'a [u8]>,
}

impl<'a> Distinct<'a> {
    pub(crate) fn number(&mut self, value: &'a [u8]) -> u32 {
        *self.numbers.entry(value).or_insert_with(|| {
            self.values.push(value);
            self.values.len() as u32 - 1
        })
    }

    /// The rank of each number.
    fn ranks(self) -> Vec<u64> {
        let mut order: Vec<u32> = (0..self.values.len() as u32).collect();
        order.sort_unstable_by_key(|n| self.values.get(*n as usize));
        let mut ranks = vec![0; order.len()];
        for (rank, number) in order.into_iter().enumerate() {
            if let Some(slot) = ranks.get_mut(number as usize) {
                *slot = rank as u64;
            }
        }
        ranks
    }
}

/// Hashes byte strings quickly; its tables are never iterated over.
#[derive(Default)]
pub(crate) struct FoldHasher(u64);

impl Hasher for FoldHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = self.0.rotate_left(5) ^ bytes_code(bytes);
    }

    fn write_usize(&mut self, _: usize) {
        // The length that precedes a slice: `bytes_code` takes it in already.
    }
}
