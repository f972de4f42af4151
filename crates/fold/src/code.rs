//! Values as numbers of 64 bits, equal if and only if the values are.
//!
//! Numbers and times are themselves; strings, and whatever has no 64 bits, are numbered as they come. What a value's
//! number is does not depend on its Arrow encoding, so that a dictionary and plain strings meet.

use arrow::array::{Array, ArrayAccessor, ArrayIter, ArrayRef, AsArray, GenericByteViewArray};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::*;
use arrow::row::{RowConverter, SortField};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use tandem_types::{Error, Result};

use crate::broken;
use crate::common::{is_bytes, is_text, plain};
use crate::hash::{hash_bytes, hash_words, seed};

/// The code of a value that was not met when codes were given out. Numbered values stay far below.
pub(crate) const UNKNOWN: u64 = u64::MAX;

/// Views that are remembered while a column of them is coded: 2 to the power of this, at most.
const VIEW_BITS: u32 = 11;
/// No view: nothing is that long.
const NO_VIEW: u128 = u128::MAX;

/// How values of a type become codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// By their bits, signed ones extended.
    Word,
    /// Strings and binaries: by number.
    Bytes,
    /// All else: the bytes of Arrow's row format, by number.
    Row,
}

fn class(plain: &DataType) -> Class {
    match plain {
        DataType::FixedSizeBinary(_) => Class::Bytes,
        t if is_text(t) || is_bytes(t) => Class::Bytes,
        DataType::Boolean => Class::Word,
        DataType::Interval(IntervalUnit::DayTime | IntervalUnit::MonthDayNano) => Class::Row,
        t if t.is_primitive() && t.primitive_width().is_some_and(|bytes| bytes <= 8) => Class::Word,
        _ => Class::Row,
    }
}

/// Whether equal values of two types have equal codes: the types are equal, encodings of one type, or integers whose
/// extensions to 64 bits agree.
pub(crate) fn agree(a: &DataType, b: &DataType) -> bool {
    use DataType::{Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32};
    let small = |t: &DataType| matches!(t, Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32);
    let (a, b) = (plain(a), plain(b));
    a == b || (is_text(&a) && is_text(&b)) || (is_bytes(&a) && is_bytes(&b)) || (small(&a) && small(&b))
}

/// One code per row. Below a null stands any code.
pub(crate) struct Codes {
    pub(crate) values: Vec<u64>,
    pub(crate) nulls: Option<NullBuffer>,
}

/// Gives out the codes of one column's values.
#[derive(Debug)]
pub(crate) struct Coder {
    data_type: DataType,
    class: Class,
    known: Numbers,
    /// For [`Class::Row`].
    converter: Option<RowConverter>,
}

impl Coder {
    pub(crate) fn new(data_type: &DataType) -> Result<Self> {
        let data_type = plain(data_type);
        let class = class(&data_type);
        let converter = match class {
            Class::Row => Some(RowConverter::new(vec![SortField::new(data_type.clone())]).map_err(|e| {
                Error::unsupported(format!("values of type {data_type} cannot be compared: {e}"))
            })?),
            Class::Word | Class::Bytes => None,
        };
        Ok(Self { data_type, class, known: Numbers::new(), converter })
    }

    /// Whether its codes are the values' own bits: they have an order then, as far as signs agree.
    pub(crate) fn is_word(&self) -> bool {
        self.class == Class::Word
    }

    /// How many values were numbered.
    pub(crate) fn numbered(&self) -> usize {
        self.known.ends.len()
    }

    /// Codes of values; what was not met yet is numbered.
    pub(crate) fn learn(&mut self, array: &ArrayRef) -> Result<Codes> {
        let mut known = std::mem::replace(&mut self.known, Numbers::new());
        let codes = self.codes(array, &mut |bytes| known.number(bytes));
        self.known = known;
        codes
    }

    /// Codes of values; what was not met has one that nothing else has.
    pub(crate) fn find(&self, array: &ArrayRef) -> Result<Codes> {
        self.codes(array, &mut |bytes| self.known.find(bytes))
    }

    pub(crate) fn memory(&self) -> usize {
        self.known.bytes.capacity() + self.known.ends.capacity() * 8 + self.known.table.allocation_size()
    }

    fn codes(&self, array: &ArrayRef, number: &mut dyn FnMut(&[u8]) -> u64) -> Result<Codes> {
        if !agree(array.data_type(), &self.data_type) {
            let (found, expected) = (array.data_type(), &self.data_type);
            return Err(Error::internal(format!(
                "a key of type {found} was compared with keys of {expected}"
            )));
        }
        let nulls = array.logical_nulls().filter(|n| n.null_count() > 0);
        Ok(Codes { values: self.values(array, number)?, nulls })
    }

    fn values(&self, array: &ArrayRef, number: &mut dyn FnMut(&[u8]) -> u64) -> Result<Vec<u64>> {
        if let Some(dictionary) = array.as_any_dictionary_opt() {
            if dictionary.values().len() > array.len() {
                // A slice of something larger: most of the dictionary is not in it.
                let values = cast(array, &plain(array.data_type())).map_err(broken)?;
                return self.values(&values, number);
            }
            if dictionary.values().is_empty() {
                return Ok(vec![UNKNOWN; array.len()]);
            }
            let codes = self.values(dictionary.values(), number)?;
            let code = |key: usize| codes.get(key).copied().unwrap_or(UNKNOWN);
            return Ok(dictionary.normalized_keys().into_iter().map(code).collect());
        }
        match self.class {
            Class::Word => words(array.as_ref()),
            Class::Bytes => bytes(array.as_ref(), number),
            Class::Row => {
                let converter = self.converter.as_ref();
                let converter =
                    converter.ok_or_else(|| Error::internal("a coder of rows has no converter"))?;
                let rows = converter.convert_columns(std::slice::from_ref(array)).map_err(broken)?;
                Ok(rows.iter().map(|row| number(row.data())).collect())
            }
        }
    }
}

fn unexpected(t: &DataType) -> Error {
    Error::internal(format!("values of type {t} have no code"))
}

/// The bits of each value, of types that have at most 64.
pub(crate) fn words(array: &dyn Array) -> Result<Vec<u64>> {
    use DataType::{
        Boolean, Date32, Date64, Decimal32, Decimal64, Duration, Float16, Float32, Float64, Int8, Int16,
        Int32, Int64, Interval, Time32, Time64, Timestamp, UInt8, UInt16, UInt32, UInt64,
    };
    use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
    fn each<T: ArrowPrimitiveType>(array: &dyn Array, word: impl Fn(T::Native) -> u64) -> Vec<u64> {
        array.as_primitive::<T>().values().iter().map(|v| word(*v)).collect()
    }
    fn long<T: ArrowPrimitiveType<Native = i64>>(array: &dyn Array) -> Vec<u64> {
        each::<T>(array, |v| v as u64)
    }
    fn int<T: ArrowPrimitiveType<Native = i32>>(array: &dyn Array) -> Vec<u64> {
        each::<T>(array, |v| i64::from(v) as u64)
    }
    Ok(match array.data_type() {
        Boolean => array.as_boolean().values().iter().map(u64::from).collect(),
        Int8 => each::<Int8Type>(array, |v| i64::from(v) as u64),
        Int16 => each::<Int16Type>(array, |v| i64::from(v) as u64),
        Int32 => int::<Int32Type>(array),
        Int64 => long::<Int64Type>(array),
        UInt8 => each::<UInt8Type>(array, u64::from),
        UInt16 => each::<UInt16Type>(array, u64::from),
        UInt32 => each::<UInt32Type>(array, u64::from),
        UInt64 => each::<UInt64Type>(array, |v| v),
        Float16 => each::<Float16Type>(array, |v| u64::from(v.to_bits())),
        Float32 => each::<Float32Type>(array, |v| u64::from(v.to_bits())),
        Float64 => each::<Float64Type>(array, f64::to_bits),
        Decimal32(..) => int::<Decimal32Type>(array),
        Decimal64(..) => long::<Decimal64Type>(array),
        Date32 => int::<Date32Type>(array),
        Date64 => long::<Date64Type>(array),
        Time32(Second) => int::<Time32SecondType>(array),
        Time32(Millisecond) => int::<Time32MillisecondType>(array),
        Time64(Microsecond) => long::<Time64MicrosecondType>(array),
        Time64(Nanosecond) => long::<Time64NanosecondType>(array),
        Timestamp(Second, _) => long::<TimestampSecondType>(array),
        Timestamp(Millisecond, _) => long::<TimestampMillisecondType>(array),
        Timestamp(Microsecond, _) => long::<TimestampMicrosecondType>(array),
        Timestamp(Nanosecond, _) => long::<TimestampNanosecondType>(array),
        Duration(Second) => long::<DurationSecondType>(array),
        Duration(Millisecond) => long::<DurationMillisecondType>(array),
        Duration(Microsecond) => long::<DurationMicrosecondType>(array),
        Duration(Nanosecond) => long::<DurationNanosecondType>(array),
        Interval(IntervalUnit::YearMonth) => int::<IntervalYearMonthType>(array),
        other => return Err(unexpected(other)),
    })
}

fn bytes(array: &dyn Array, number: &mut dyn FnMut(&[u8]) -> u64) -> Result<Vec<u64>> {
    fn each<'a, A, B>(array: A, number: &mut dyn FnMut(&[u8]) -> u64) -> Vec<u64>
    where
        A: ArrayAccessor<Item = &'a B>,
        B: AsRef<[u8]> + ?Sized + 'a,
    {
        // Sorted and bursty data repeat their values: comparing is cheaper than looking up.
        let mut last: Option<(&[u8], u64)> = None;
        let code = |value: Option<&'a B>| {
            let Some(bytes) = value.map(AsRef::as_ref) else { return UNKNOWN };
            match last {
                Some((seen, code)) if seen == bytes => code,
                _ => {
                    let code = number(bytes);
                    last = Some((bytes, code));
                    code
                }
            }
        };
        ArrayIter::new(array).map(code).collect()
    }
    Ok(match array.data_type() {
        DataType::Utf8 => each(array.as_string::<i32>(), number),
        DataType::LargeUtf8 => each(array.as_string::<i64>(), number),
        DataType::Utf8View => views(array.as_string_view(), number),
        DataType::Binary => each(array.as_binary::<i32>(), number),
        DataType::LargeBinary => each(array.as_binary::<i64>(), number),
        DataType::BinaryView => views(array.as_binary_view(), number),
        DataType::FixedSizeBinary(_) => each(array.as_fixed_size_binary(), number),
        other => return Err(unexpected(other)),
    })
}

/// As [`bytes`], of views: equal views of one array stand for equal bytes, and columns that repeat their values repeat their views,
/// since short ones hold the bytes themselves and long ones were mostly read from a dictionary. To compare views is far cheaper
/// than to look bytes up.
fn views<T: ByteViewType>(array: &GenericByteViewArray<T>, number: &mut dyn FnMut(&[u8]) -> u64) -> Vec<u64> {
    let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0);
    let mut met = vec![(NO_VIEW, UNKNOWN); 1 << VIEW_BITS.min(array.len().max(1).ilog2())];
    let places = met.len();
    let code = |(row, view): (usize, &u128)| {
        if nulls.is_some_and(|nulls| nulls.is_null(row)) {
            return UNKNOWN;
        }
        let place = (hash_words(&[*view as u64, (*view >> 64) as u64], 0) as usize) & (places - 1);
        match met.get_mut(place) {
            Some((seen, code)) if seen == view => *code,
            place => {
                let bytes: &[u8] = array.value(row).as_ref();
                let code = number(bytes);
                if let Some(place) = place {
                    *place = (*view, code);
                }
                code
            }
        }
    };
    array.views().iter().enumerate().map(code).collect()
}

/// Byte strings, numbered from 0 in the order in which they came.
#[derive(Debug)]
struct Numbers {
    seed: u64,
    table: HashTable<u32>,
    bytes: Vec<u8>,
    /// Where each ends in `bytes`.
    ends: Vec<usize>,
}

impl Numbers {
    fn new() -> Self {
        Self { seed: seed(), table: HashTable::new(), bytes: Vec::new(), ends: Vec::new() }
    }

    fn get(&self, number: u32) -> &[u8] {
        get(&self.bytes, &self.ends, number)
    }

    fn find(&self, bytes: &[u8]) -> u64 {
        let hash = hash_bytes(bytes, self.seed);
        self.table.find(hash, |n| self.get(*n) == bytes).map_or(UNKNOWN, |n| u64::from(*n))
    }

    fn number(&mut self, bytes: &[u8]) -> u64 {
        let Self { seed, table, bytes: all, ends } = self;
        let next = ends.len() as u64;
        let hash = hash_bytes(bytes, *seed);
        let same = |n: &u32| get(all, ends, *n) == bytes;
        match table.entry(hash, same, |n| hash_bytes(get(all, ends, *n), *seed)) {
            Entry::Occupied(entry) => u64::from(*entry.get()),
            Entry::Vacant(entry) => {
                // Numbers of 32 bits outlast any table: its entries are counted in 32 bits as well.
                let Ok(number) = u32::try_from(next) else { return UNKNOWN };
                entry.insert(number);
                all.extend_from_slice(bytes);
                ends.push(all.len());
                next
            }
        }
    }
}

fn get<'a>(bytes: &'a [u8], ends: &[usize], number: u32) -> &'a [u8] {
    let number = number as usize;
    let start = match number.checked_sub(1) {
        Some(before) => ends.get(before).copied().unwrap_or(0),
        None => 0,
    };
    ends.get(number).and_then(|end| bytes.get(start..*end)).unwrap_or(&[])
}
