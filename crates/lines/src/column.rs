//! The values of a column, gathered row by row.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, Decimal128Array, Decimal256Array,
    Float64Array, Int64Array, NullBufferBuilder, PrimitiveArray, UInt64Array,
};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Float64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, i256,
};
use arrow::error::ArrowError;

use crate::array::Arrays;
use crate::decimal::rescaled;
use crate::error::{Refusal, Types};
use crate::number::Number;
use crate::scan::{unescape, unescape_string};
use crate::tags::{Tags, Texts};
use crate::value::Value;

/// Digits before and behind the point of a decimal column that a line makes.
const NEW_DECIMAL: (u8, i8) = (38, 18);

/// What a line may do to a column.
#[derive(Debug)]
pub(crate) struct Column {
    pub name: String,
    /// The name as lines write it.
    pub raw: Box<[u8]>,
    /// The column that followed it in the last line.
    pub next: usize,
    /// Whether lines may name it among their tags.
    pub may_be_tag: bool,
    /// In the table, if it is there.
    known: Option<DataType>,
    /// Whether it stays as narrow as it is.
    narrow: bool,
    values: Values,
    /// Rows up to the last one with a value.
    len: usize,
    /// Behind its last row, none is null: most columns have no nulls, and then nothing is noted for a row.
    nulls: NullBufferBuilder,
    /// Rows that have a value.
    filled: usize,
}

#[derive(Debug)]
enum Values {
    Tags(Box<Tags>),
    Texts(Texts),
    Ints(Vec<i64>),
    UInts(Vec<u64>),
    Floats(Vec<f64>),
    Bools(BooleanBufferBuilder),
    Times(Vec<i64>, TimeUnit, Option<Arc<str>>),
    Decimals {
        values: Vec<i256>,
        precision: u8,
        scale: i8,
        wide: bool,
    },
    Arrays(Arrays),
    /// The table's column is of a type that lines have no values of.
    Foreign,
}

impl Column {
    /// For a first value of a column that the table has, or has not. If it is `fixed`, values do not widen it.
    pub fn new(
        name: String,
        raw: Box<[u8]>,
        known: Option<DataType>,
        may_be_tag: bool,
        fixed: bool,
        first: &Value<'_>,
    ) -> Self {
        let narrow = fixed && known.as_ref().is_some_and(is_narrow);
        let values = match &known {
            Some(data_type) => Values::of_type(data_type, first),
            None => Values::of_value(first),
        };
        Self {
            name,
            raw,
            next: 0,
            may_be_tag,
            known,
            narrow,
            values,
            len: 0,
            nulls: NullBufferBuilder::new(0),
            filled: 0,
        }
    }

    /// Rows up to the last one with a value.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The value of row `row`; rows before it that have none become null.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn push(&mut self, row: usize, value: &Value<'_>, scratch: &mut Vec<u8>) -> Result<(), Box<Refusal>> {
        if matches!(value, Value::Null) {
            return Ok(());
        }
        self.pad(row);
        let fits = !self.narrow || self.known.as_ref().is_none_or(|known| fits(known, value));
        match if fits { self.values.push(value, scratch) } else { Err(Unfit::Value) } {
            Ok(()) => {
                self.count();
                Ok(())
            }
            Err(Unfit::Type) => Err(self.refusal(value, "")),
            Err(Unfit::Value) => Err(self.refusal(value, ", and this one does not fit without loss")),
            Err(Unfit::Text) => {
                Err(Box::new(Refusal { message: "the text is no UTF-8".to_owned(), types: None }))
            }
        }
    }

    /// As [`push`](Self::push), if the column holds such numbers and each row before has a value; else it does nothing.
    #[inline]
    pub fn push_number(&mut self, row: usize, number: Number) -> bool {
        if self.len() != row || self.narrow {
            return false;
        }
        match (&mut self.values, number) {
            (Values::Ints(values), Number::Int(number)) => values.push(number),
            (Values::Floats(values), Number::Float(number)) => values.push(number),
            _ => return false,
        }
        self.count();
        true
    }

    fn count(&mut self) {
        self.len += 1;
        self.filled += 1;
    }

    /// As [`push`](Self::push), of the text that a row before has.
    #[inline]
    pub fn push_key(&mut self, row: usize, key: i32) {
        self.pad(row);
        if let Values::Tags(tags) = &mut self.values {
            tags.push(key);
            self.count();
        }
    }

    /// The key of the last row's text, in a column of tags, if a row before had the same.
    pub fn repeated_key(&self) -> Option<i32> {
        match &self.values {
            Values::Tags(tags) => tags.repeated(),
            _ => None,
        }
    }

    /// Makes room for so many values more, where they are of one size.
    pub fn reserve(&mut self, rows: usize) {
        match &mut self.values {
            Values::Tags(tags) => tags.reserve(rows),
            Values::Ints(values) | Values::Times(values, ..) => values.reserve(rows),
            Values::UInts(values) => values.reserve(rows),
            Values::Floats(values) => values.reserve(rows),
            _ => {}
        }
    }

    fn refusal(&self, value: &Value<'_>, why: &str) -> Box<Refusal> {
        let kind = value.kind();
        let (message, expected) = match &self.known {
            Some(data_type) => {
                (format!("the column is {data_type}, the line has {kind}{why}"), data_type.to_string())
            }
            None => {
                let before = self.values.kind();
                (format!("the lines before have {before} in it, the line has {kind}{why}"), before.to_owned())
            }
        };
        Box::new(Refusal { message, types: Some(Types { expected, got: kind.to_owned() }) })
    }

    /// Makes it as long as that.
    #[inline]
    fn pad(&mut self, rows: usize) {
        if rows > self.len {
            self.append_nulls(rows - self.len);
        }
    }

    fn append_nulls(&mut self, count: usize) {
        self.nulls.append_n_non_nulls(self.len - self.nulls.len());
        self.nulls.append_n_nulls(count);
        self.values.pad(count);
        self.len += count;
    }

    /// Forgets the row at `rows` and what follows.
    pub fn truncate(&mut self, rows: usize) {
        if self.len() > rows {
            // A line has one value of a column at most, and a row that is padded for it was missing before.
            self.filled -= 1;
            self.nulls.truncate(rows);
            self.len = rows;
        }
        self.values.truncate(rows);
    }

    /// The rows so far as an array; `None` if no row has a value. It is empty afterwards.
    pub fn finish(&mut self, rows: usize) -> Result<Option<ArrayRef>, ArrowError> {
        self.pad(rows);
        self.nulls.append_n_non_nulls(self.len - self.nulls.len());
        self.len = 0;
        let nulls = std::mem::replace(&mut self.nulls, NullBufferBuilder::new(0)).build();
        let array = self.values.finish(nulls)?;
        if std::mem::take(&mut self.filled) == 0 {
            return Ok(None);
        }
        match &self.known {
            Some(known) => Ok(Some(narrowed(array, known))),
            None => Ok(Some(array)),
        }
    }
}

/// Whether the numbers of a column of that type are gathered in a wider one.
fn is_narrow(known: &DataType) -> bool {
    known.is_integer() && !matches!(known, DataType::Int64 | DataType::UInt64) || *known == DataType::Float32
}

/// Whether a number goes into a narrow column; what is none is judged elsewhere.
fn fits(known: &DataType, value: &Value<'_>) -> bool {
    let whole = match value {
        Value::Int(number) => i128::from(*number),
        Value::UInt(number) => i128::from(*number),
        Value::Float(number) if *known == DataType::Float32 => return fits_float(*number),
        _ => return true,
    };
    match known {
        DataType::Int8 => i8::try_from(whole).is_ok(),
        DataType::Int16 => i16::try_from(whole).is_ok(),
        DataType::Int32 => i32::try_from(whole).is_ok(),
        DataType::UInt8 => u8::try_from(whole).is_ok(),
        DataType::UInt16 => u16::try_from(whole).is_ok(),
        DataType::UInt32 => u32::try_from(whole).is_ok(),
        DataType::Float32 => exact_float(whole).is_some_and(fits_float),
        _ => true,
    }
}

fn fits_float(number: f64) -> bool {
    f64::from(number as f32).to_bits() == number.to_bits()
}

/// In the table's narrower type, if all values fit: else the table's column widens.
fn narrowed(array: ArrayRef, known: &DataType) -> ArrayRef {
    let numbers = array.data_type().is_integer() && known.is_integer();
    if array.data_type() == known || !(numbers || *known == DataType::Float32) {
        return array;
    }
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    match cast_with_options(&array, known, &exact) {
        Ok(narrow) if numbers || is_same(&array, &narrow) => narrow,
        _ => array,
    }
}

fn is_same(array: &ArrayRef, narrow: &ArrayRef) -> bool {
    let Ok(back) = cast_with_options(narrow, &DataType::Float64, &CastOptions::default()) else {
        return false;
    };
    let (Some(a), Some(b)) =
        (array.as_primitive_opt::<Float64Type>(), back.as_primitive_opt::<Float64Type>())
    else {
        return false;
    };
    a.iter().zip(b.iter()).all(|(a, b)| a.map(f64::to_bits) == b.map(f64::to_bits))
}

/// Why a value does not go into a column.
enum Unfit {
    Type,
    Value,
    Text,
}

impl Values {
    fn of_value(value: &Value<'_>) -> Self {
        match value {
            Value::Tag { .. } => Self::Tags(Box::default()),
            Value::Text { .. } => Self::Texts(Texts::default()),
            Value::Int(_) => Self::Ints(Vec::new()),
            Value::UInt(_) => Self::UInts(Vec::new()),
            Value::Float(_) => Self::Floats(Vec::new()),
            Value::Bool(_) => Self::Bools(BooleanBufferBuilder::new(0)),
            Value::Time(_, unit) => Self::Times(Vec::new(), *unit, None),
            Value::Decimal { .. } => {
                let (precision, scale) = NEW_DECIMAL;
                Self::Decimals { values: Vec::new(), precision, scale, wide: false }
            }
            Value::Array(raw) => Self::Arrays(Arrays::new(raw.dimensions())),
            Value::Null => Self::Foreign,
        }
    }

    fn of_type(data_type: &DataType, first: &Value<'_>) -> Self {
        match data_type {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => match first {
                Value::Tag { .. } => Self::Tags(Box::default()),
                _ => Self::Texts(Texts::default()),
            },
            DataType::Dictionary(_, value) => match **value {
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Tags(Box::default()),
                _ => Self::Foreign,
            },
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Self::Ints(Vec::new()),
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
                Self::UInts(Vec::new())
            }
            DataType::Float32 | DataType::Float64 => Self::Floats(Vec::new()),
            DataType::Boolean => Self::Bools(BooleanBufferBuilder::new(0)),
            DataType::Timestamp(unit, zone) => Self::Times(Vec::new(), *unit, zone.clone()),
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale) => {
                Self::Decimals { values: Vec::new(), precision: *precision, scale: *scale, wide: false }
            }
            DataType::Decimal256(precision, scale) => {
                Self::Decimals { values: Vec::new(), precision: *precision, scale: *scale, wide: true }
            }
            other => Arrays::of_type(other).map_or(Self::Foreign, Self::Arrays),
        }
    }

    /// What it holds, for people.
    fn kind(&self) -> &'static str {
        match self {
            Self::Tags(_) => "tags",
            Self::Texts(_) => "strings",
            Self::Ints(_) => "integers",
            Self::UInts(_) => "unsigned integers",
            Self::Floats(_) => "floats",
            Self::Bools(_) => "booleans",
            Self::Times(..) => "timestamps",
            Self::Decimals { .. } => "decimals",
            Self::Arrays(_) => "arrays of other dimensions",
            Self::Foreign => "values of another type",
        }
    }

    fn push(&mut self, value: &Value<'_>, scratch: &mut Vec<u8>) -> Result<(), Unfit> {
        match (self, value) {
            (Self::Ints(values), Value::Int(value)) => values.push(*value),
            (Self::Ints(values), Value::UInt(value)) => {
                values.push(i64::try_from(*value).map_err(|_| Unfit::Value)?);
            }
            (Self::UInts(values), Value::UInt(value)) => values.push(*value),
            (Self::UInts(values), Value::Int(value)) => {
                values.push(u64::try_from(*value).map_err(|_| Unfit::Value)?);
            }
            (Self::Floats(values), Value::Float(value)) => values.push(*value),
            (Self::Floats(values), Value::Int(value)) => {
                values.push(exact_float(i128::from(*value)).ok_or(Unfit::Value)?);
            }
            (Self::Floats(values), Value::UInt(value)) => {
                values.push(exact_float(i128::from(*value)).ok_or(Unfit::Value)?);
            }
            (Self::Tags(tags), Value::Tag { .. } | Value::Text { .. }) => {
                let text = plain(value, scratch);
                let key = match tags.find(text) {
                    Some(key) => key,
                    None => tags.insert(checked(text)?),
                };
                tags.push(key);
            }
            (Self::Texts(texts), Value::Tag { .. } | Value::Text { .. }) => {
                texts.push(checked(plain(value, scratch))?);
            }
            (Self::Bools(values), Value::Bool(value)) => values.append(*value),
            (Self::Times(values, unit, _), Value::Time(ticks, from)) => {
                values.push(ticks_in(*ticks, *from, *unit).ok_or(Unfit::Value)?);
            }
            (Self::Decimals { values, precision, scale, .. }, Value::Decimal { unscaled, scale: from }) => {
                values.push(rescaled(*unscaled, *from, *scale, *precision).ok_or(Unfit::Value)?);
            }
            (Self::Decimals { values, precision, scale, .. }, Value::Int(value)) => {
                let unscaled = i256::from_i128(i128::from(*value));
                values.push(rescaled(unscaled, 0, *scale, *precision).ok_or(Unfit::Value)?);
            }
            (Self::Arrays(arrays), Value::Array(raw)) => {
                if !arrays.push(raw) {
                    return Err(Unfit::Type);
                }
            }
            _ => return Err(Unfit::Type),
        }
        Ok(())
    }

    fn pad(&mut self, count: usize) {
        match self {
            Self::Tags(tags) => tags.push_nulls(count),
            Self::Texts(texts) => (0..count).for_each(|_| texts.push(b"")),
            Self::Ints(values) | Self::Times(values, _, _) => values.resize(values.len() + count, 0),
            Self::UInts(values) => values.resize(values.len() + count, 0),
            Self::Floats(values) => values.resize(values.len() + count, 0.0),
            Self::Bools(values) => values.append_n(count, false),
            Self::Decimals { values, .. } => values.resize(values.len() + count, i256::ZERO),
            Self::Arrays(arrays) => (0..count).for_each(|_| arrays.push_nothing()),
            Self::Foreign => {}
        }
    }

    fn truncate(&mut self, rows: usize) {
        match self {
            Self::Tags(tags) => tags.truncate(rows),
            Self::Texts(texts) => texts.truncate(rows.min(texts.len())),
            Self::Ints(values) | Self::Times(values, _, _) => values.truncate(rows),
            Self::UInts(values) => values.truncate(rows),
            Self::Floats(values) => values.truncate(rows),
            Self::Bools(values) => values.truncate(rows),
            Self::Decimals { values, .. } => values.truncate(rows),
            Self::Arrays(arrays) => arrays.truncate(rows),
            Self::Foreign => {}
        }
    }

    fn finish(&mut self, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Self::Tags(tags) => return tags.finish(nulls),
            Self::Texts(texts) => Arc::new(texts.finish(nulls)?),
            Self::Ints(values) => Arc::new(Int64Array::try_new(taken(values), nulls)?),
            Self::UInts(values) => Arc::new(UInt64Array::try_new(taken(values), nulls)?),
            Self::Floats(values) => Arc::new(Float64Array::try_new(taken(values), nulls)?),
            Self::Bools(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Self::Times(values, unit, zone) => times(taken(values), nulls, *unit, zone.clone())?,
            Self::Decimals { values, precision, scale, wide } => {
                let values = std::mem::take(values);
                if *wide {
                    let array = Decimal256Array::try_new(ScalarBuffer::from(values), nulls)?;
                    return Ok(Arc::new(array.with_precision_and_scale(*precision, *scale)?));
                }
                // They have at most 38 digits: [`rescaled`] saw to it.
                let values: Vec<i128> = values.into_iter().map(i256::as_i128).collect();
                let array = Decimal128Array::try_new(ScalarBuffer::from(values), nulls)?;
                Arc::new(array.with_precision_and_scale(*precision, *scale)?)
            }
            Self::Arrays(arrays) => return arrays.finish(nulls),
            Self::Foreign => Arc::new(arrow::array::NullArray::new(0)),
        })
    }
}

fn taken<T: arrow::datatypes::ArrowNativeType>(values: &mut Vec<T>) -> ScalarBuffer<T> {
    ScalarBuffer::from(std::mem::take(values))
}

/// Ticks of that unit as an array.
pub(crate) fn times(
    ticks: ScalarBuffer<i64>,
    nulls: Option<NullBuffer>,
    unit: TimeUnit,
    zone: Option<Arc<str>>,
) -> Result<ArrayRef, ArrowError> {
    Ok(match unit {
        TimeUnit::Second => {
            Arc::new(PrimitiveArray::<TimestampSecondType>::try_new(ticks, nulls)?.with_timezone_opt(zone))
        }
        TimeUnit::Millisecond => Arc::new(
            PrimitiveArray::<TimestampMillisecondType>::try_new(ticks, nulls)?.with_timezone_opt(zone),
        ),
        TimeUnit::Microsecond => Arc::new(
            PrimitiveArray::<TimestampMicrosecondType>::try_new(ticks, nulls)?.with_timezone_opt(zone),
        ),
        TimeUnit::Nanosecond => Arc::new(
            PrimitiveArray::<TimestampNanosecondType>::try_new(ticks, nulls)?.with_timezone_opt(zone),
        ),
    })
}

/// The text of a tag or string.
fn plain<'a>(value: &Value<'a>, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    match value {
        Value::Tag { raw, escaped: false } | Value::Text { raw, escaped: false } => raw,
        Value::Tag { raw, .. } => {
            scratch.clear();
            unescape(raw, scratch);
            scratch
        }
        Value::Text { raw, .. } => {
            scratch.clear();
            unescape_string(raw, scratch);
            scratch
        }
        _ => b"",
    }
}

fn checked(text: &[u8]) -> Result<&[u8], Unfit> {
    std::str::from_utf8(text).map(str::as_bytes).map_err(|_| Unfit::Text)
}

fn exact_float(number: i128) -> Option<f64> {
    let float = number as f64;
    (float as i128 == number).then_some(float)
}

const fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// A time in another unit, cut to it; `None` if it leaves the range.
pub(crate) fn ticks_in(ticks: i64, from: TimeUnit, to: TimeUnit) -> Option<i64> {
    let (from, to) = (per_second(from), per_second(to));
    match to >= from {
        true => ticks.checked_mul(to / from),
        false => Some(ticks.div_euclid(from / to)),
    }
}
