//! Values as clients send them, made fit for the types that statements need, or refused.
//!
//! The engine casts a parameter to the type that the statement needs. Where that would make another value of it, a client of
//! PostgreSQL's expects something else: `n < 7.5` is no `n < 7`.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Float32Type, Float64Type};
use arrow_schema::DataType;
use tandem_types::{Error, Result};

use crate::decode::{float, text};
use crate::lists::text_lists;
use crate::types::{by_oid, oid_of};

/// What becomes of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// It is stored: a decimal is rounded to its column's digits, and of a moment a date column takes the day.
    Stored,
    /// It may be compared.
    Compared,
}

/// The values, in a form that the engine reads as `needed`.
///
/// # Errors
///
/// `InvalidInput` for a value that would become another one.
pub(crate) fn suited(array: ArrayRef, needed: &DataType, what_for: Use) -> Result<ArrayRef> {
    use DataType as T;
    match (array.data_type(), needed) {
        (T::Null | T::List(_), T::List(_) | T::LargeList(_) | T::FixedSizeList(..)) => Ok(array),
        // The engine would make a list of one item of it.
        (T::Utf8, T::List(item) | T::LargeList(item) | T::FixedSizeList(item, _)) => {
            let (oid, needed) = (oid_of(item.data_type()), Some(item.data_type()));
            text_lists(array.as_string(), |value| text(oid, value, needed))
        }
        (from, T::List(_) | T::LargeList(_) | T::FixedSizeList(..)) => {
            Err(Error::invalid(format!("a value of type {} is no array", shown(from))))
        }
        (T::Utf8, T::Timestamp(..)) => {
            let texts = array.as_string::<i32>().iter();
            Ok(Arc::new(texts.map(|text| text.map(with_seconds)).collect::<StringArray>()))
        }
        (T::Utf8, T::Date32 | T::Date64) if what_for == Use::Compared => {
            match array.as_string::<i32>().iter().flatten().find(|text| has_time_of_day(text)) {
                Some(text) => Err(Error::invalid(format!(
                    "{text:?} is no day, and the statement compares days: write CAST($n AS TIMESTAMP)"
                ))),
                None => Ok(array),
            }
        }
        (T::Utf8, T::Float32 | T::Float64) => {
            let limit = if *needed == T::Float32 { f64::from(f32::MAX) } else { f64::MAX };
            for text in array.as_string::<i32>().iter().flatten() {
                // What is no number at all, the engine says.
                let number = text.trim().parse::<f64>().unwrap_or(0.0);
                if float(text.trim()).is_none() && number.is_infinite() || beyond(number, limit) {
                    return Err(Error::invalid(format!("{text:?} is out of range")));
                }
            }
            Ok(array)
        }
        (T::Float64, T::Float32) => {
            let mut numbers = array.as_primitive::<Float64Type>().iter().flatten();
            match numbers.find(|number| beyond(*number, f64::from(f32::MAX))) {
                Some(number) => Err(Error::invalid(format!("{number:e} is out of the range of real"))),
                None => Ok(array),
            }
        }
        (from, to) if (from.is_floating() || from.is_decimal()) && to.is_integer() => {
            unchanged(array, needed)
        }
        (T::Decimal128(..) | T::Decimal256(..), to) if to.is_decimal() && what_for == Use::Compared => {
            unchanged(array, needed)
        }
        (T::Timestamp(..), T::Date32 | T::Date64) if what_for == Use::Compared => unchanged(array, needed),
        _ => Ok(array),
    }
}

/// Whether a moment is another one than the beginning of its day.
fn has_time_of_day(text: &str) -> bool {
    let time = text.trim().split_once([' ', 'T', 't']).map_or("", |(_, time)| time);
    time.contains(|c: char| matches!(c, '1'..='9'))
}

fn beyond(number: f64, limit: f64) -> bool {
    number.is_finite() && number.abs() > limit
}

/// The array, if all its values are the same in the other type.
fn unchanged(array: ArrayRef, needed: &DataType) -> Result<ArrayRef> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let Ok(there) = cast_with_options(&array, needed, &strict) else {
        // The engine says why.
        return Ok(array);
    };
    let back = cast_with_options(&there, array.data_type(), &strict);
    if back.is_ok_and(|back| same(&back, &array)) {
        return Ok(array);
    }
    Err(Error::invalid(format!(
        "a value of type {} would be another one as {}, which the statement needs: cast it there, as in CAST($1 AS DOUBLE), or \
         send one that fits",
        shown(array.data_type()),
        shown(needed)
    )))
}

/// A type as people write it.
fn shown(data_type: &DataType) -> String {
    let name = by_oid(oid_of(data_type)).map_or("value", |known| known.long_name);
    match data_type {
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            format!("{name}({precision},{scale})")
        }
        _ => name.to_owned(),
    }
}

/// By their values: zero is zero with any sign.
fn same(a: &ArrayRef, b: &ArrayRef) -> bool {
    match (a.data_type(), b.data_type()) {
        (DataType::Float64, DataType::Float64) => {
            a.as_primitive::<Float64Type>().iter().eq(b.as_primitive::<Float64Type>().iter())
        }
        (DataType::Float32, DataType::Float32) => {
            a.as_primitive::<Float32Type>().iter().eq(b.as_primitive::<Float32Type>().iter())
        }
        _ => a.as_ref() == b.as_ref(),
    }
}

/// A moment with its seconds, which PostgreSQL lets out: `2024-01-01 10:00`. All else stays as it is.
pub(crate) fn with_seconds(text: &str) -> Cow<'_, str> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let found = || {
        let text = text.trim();
        let (date, time) = text.split_once([' ', 'T', 't'])?;
        if date.is_empty() || !date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
            return None;
        }
        let time = time.trim_start();
        let (hours, rest) = time.split_at_checked(digits(time))?;
        let rest = rest.strip_prefix(':')?;
        let (minutes, rest) = rest.split_at_checked(digits(rest))?;
        let fits = (1..=2).contains(&hours.len()) && minutes.len() == 2 && !rest.starts_with([':', '.', ',']);
        fits.then(|| format!("{date} {hours:0>2}:{minutes}:00{rest}"))
    };
    found().map_or(Cow::Borrowed(text), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, Float64Array, TimestampMicrosecondArray};
    use arrow_schema::TimeUnit;

    use super::*;

    #[test]
    fn moments_may_go_without_seconds() {
        for (text, whole) in [
            ("2024-01-01 10:00", "2024-01-01 10:00:00"),
            ("2024-01-01T9:05Z", "2024-01-01 09:05:00Z"),
            (" 2024-01-01  10:00+02 ", "2024-01-01 10:00:00+02"),
            ("2024-01-01 10:00 -05:00", "2024-01-01 10:00:00 -05:00"),
            ("2024-01-01 10:00:01.5", "2024-01-01 10:00:01.5"),
            ("2024-01-01", "2024-01-01"),
            ("10:00", "10:00"),
            ("now", "now"),
            ("2024-01-01 10:0", "2024-01-01 10:0"),
            ("2024-01-01 ü:00", "2024-01-01 ü:00"),
            ("", ""),
        ] {
            assert_eq!(with_seconds(text), whole);
        }
    }

    #[test]
    fn no_value_becomes_another_one() {
        let floats = |number: f64| Arc::new(Float64Array::from(vec![number])) as ArrayRef;
        let decimal = || {
            let array = Decimal128Array::from(vec![12_345]).with_precision_and_scale(38, 3).unwrap();
            Arc::new(array) as ArrayRef
        };
        let moment = |micros: i64| Arc::new(TimestampMicrosecondArray::from(vec![micros])) as ArrayRef;
        let texts = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
        for (array, needed, what_for) in [
            (floats(7.5), DataType::Int64, Use::Compared),
            (floats(7.5), DataType::Int64, Use::Stored),
            (decimal(), DataType::Int32, Use::Stored),
            (decimal(), DataType::Decimal128(10, 2), Use::Compared),
            (moment(1), DataType::Date32, Use::Compared),
            (floats(1e200), DataType::Float32, Use::Stored),
            (texts("2024-01-01 10:00:00"), DataType::Date32, Use::Compared),
            (texts("1e400"), DataType::Float64, Use::Stored),
            (texts("-1e39"), DataType::Float32, Use::Stored),
        ] {
            assert!(suited(array.clone(), &needed, what_for).is_err(), "{array:?} as {needed}");
        }
        for (array, needed, what_for) in [
            (floats(7.0), DataType::Int64, Use::Compared),
            (floats(-0.0), DataType::Int64, Use::Compared),
            (floats(0.1), DataType::Float32, Use::Compared),
            (floats(f64::INFINITY), DataType::Float32, Use::Stored),
            (decimal(), DataType::Decimal128(10, 2), Use::Stored),
            (decimal(), DataType::Decimal128(20, 10), Use::Compared),
            (moment(1), DataType::Date32, Use::Stored),
            (moment(86_400_000_000), DataType::Date32, Use::Compared),
            (moment(1), DataType::Timestamp(TimeUnit::Nanosecond, None), Use::Compared),
            (texts("2024-01-01 00:00:00"), DataType::Date32, Use::Compared),
            (texts("2024-01-01 10:00:00"), DataType::Date32, Use::Stored),
            (texts("-Infinity"), DataType::Float64, Use::Stored),
            (texts("NaN"), DataType::Float32, Use::Stored),
        ] {
            assert!(suited(array.clone(), &needed, what_for).is_ok(), "{array:?} as {needed}");
        }
    }
}
