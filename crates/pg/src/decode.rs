//! Values of parameters, in text or binary, as Arrow arrays of one row.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, RecordBatch, StringArray,
    Time64MicrosecondArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{IntervalMonthDayNano, i256};
use arrow_schema::{DataType, Field, IntervalUnit, Schema, TimeUnit};
use bytes::{Buf, Bytes};
use tandem_types::{Error, Result};

use crate::encode::{EPOCH_DAYS, EPOCH_MICROS, numeric_text};
use crate::lists::{binary_list, text_list};
use crate::message::Format;
use crate::suit::{Use, suited, with_seconds};
use crate::types::{by_oid, item_of, oid};

/// Digits that decimals of 128 and of 256 bits hold.
const DECIMAL_DIGITS: usize = 38;
const LONG_DECIMAL_DIGITS: usize = 76;
/// Exponents beyond it are for floating-point numbers.
const EXPONENT_MAX: i32 = 400;
/// Of a day.
const DAY_MICROS: i64 = 86_400_000_000;

/// What a statement needs of its parameters, where the engine told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs<'a> {
    pub schema: &'a Schema,
    pub for_what: Use,
}

/// The parameters of one run of a statement; `types` are those that were told to the client or by it.
///
/// # Errors
///
/// `InvalidInput`, naming the parameter, if their number or a value does not fit.
pub(crate) fn parameters(
    types: &[u32],
    formats: &[Format],
    values: &[Option<Bytes>],
    needs: Option<Needs<'_>>,
) -> Result<Option<RecordBatch>> {
    if types.len() != values.len() {
        return Err(Error::invalid(format!(
            "the statement has {} parameters, and {} were bound",
            types.len(),
            values.len()
        )));
    }
    if formats.len() > 1 && formats.len() != values.len() {
        return Err(Error::invalid(format!(
            "{} formats were told for {} parameters: it is one for all, or one for each",
            formats.len(),
            values.len()
        )));
    }
    if values.is_empty() {
        return Ok(None);
    }
    let columns: Vec<ArrayRef> = types
        .iter()
        .zip(values)
        .enumerate()
        .map(|(at, (oid, value))| {
            let needed = needs.and_then(|needs| needs.schema.fields().get(at)).map(|field| field.data_type());
            let value = match value {
                // Of the type itself: no text without a value becomes a list of one item without a value.
                None => return Ok(new_null_array(needed.unwrap_or(&DataType::Utf8), 1)),
                Some(bytes) => one(*oid, Format::at(formats, at), bytes.clone(), needed),
            };
            let value = value.and_then(|value| match (needs, needed) {
                (Some(needs), Some(needed)) => suited(value, needed, needs.for_what),
                _ => Ok(value),
            });
            value.map_err(|e| e.context(format!("parameter ${}", at + 1)))
        })
        .collect::<Result<_>>()?;
    let fields = columns.iter().enumerate();
    let fields =
        fields.map(|(at, array)| Field::new(format!("${}", at + 1), array.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let batch = RecordBatch::try_new(schema, columns);
    batch.map(Some).map_err(|e| Error::internal(format!("parameters cannot be bound: {e}")))
}

/// Parameters without values, of the types that were told, where they are of use: where the engine knows none, so that it takes
/// them for text, and the client knows another. What the result is like follows from them.
pub(crate) fn typed_nulls(types: &[u32], needed: &Schema) -> Option<RecordBatch> {
    let mut of_use = false;
    let fields = types.iter().zip(needed.fields()).map(|(oid, field)| {
        let told = type_told(*oid).filter(|_| *field.data_type() == DataType::Utf8);
        of_use |= told.is_some();
        Field::new(field.name(), told.unwrap_or_else(|| field.data_type().clone()), true)
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let columns = schema.fields().iter().map(|field| new_null_array(field.data_type(), 1)).collect();
    RecordBatch::try_new(schema, columns).ok().filter(|_| of_use)
}

/// The type of a parameter whose type only the client tells. Numerics are missing: their digits are told by values alone.
fn type_told(oid: u32) -> Option<DataType> {
    if let Some(item) = item_of(oid) {
        return type_told(item.oid).map(|item| DataType::List(Arc::new(Field::new_list_field(item, true))));
    }
    let micros = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    Some(match oid {
        oid::BOOL => DataType::Boolean,
        oid::INT2 => DataType::Int16,
        oid::INT4 => DataType::Int32,
        oid::INT8 | oid::OID => DataType::Int64,
        oid::FLOAT4 => DataType::Float32,
        oid::FLOAT8 => DataType::Float64,
        oid::BYTEA => DataType::Binary,
        oid::DATE => DataType::Date32,
        oid::TIME => DataType::Time64(TimeUnit::Microsecond),
        oid::TIMESTAMP => micros(None),
        oid::TIMESTAMPTZ => micros(Some("+00:00")),
        oid::INTERVAL => DataType::Interval(IntervalUnit::MonthDayNano),
        _ => return None,
    })
}

fn one(oid: u32, format: Format, bytes: Bytes, needed: Option<&DataType>) -> Result<ArrayRef> {
    if let Some(item) = item_of(oid) {
        let needed = match needed {
            Some(DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _)) => {
                Some(item.data_type())
            }
            _ => None,
        };
        return match format {
            Format::Text => text_list(utf8(&bytes)?, |value| text(item.oid, value, needed)),
            Format::Binary => binary_list(bytes, |oid, value| binary(oid, value, needed)),
        };
    }
    match format {
        Format::Text => text(oid, utf8(&bytes)?, needed),
        Format::Binary => binary(oid, bytes, needed),
    }
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    let text = std::str::from_utf8(bytes);
    text.map_err(|_| Error::invalid("text that is not UTF-8; client_encoding is UTF8 here"))
}

/// Text becomes a value only where its form is PostgreSQL's own; all else the engine reads as the type that the statement
/// needs, which it knows better.
pub(crate) fn text(oid: u32, text: &str, needed: Option<&DataType>) -> Result<ArrayRef> {
    let wrong = || {
        let name = by_oid(oid).map_or("value", |known| known.long_name);
        Error::invalid(format!("{text:?} is no {name}"))
    };
    let trimmed = text.trim();
    Ok(match oid {
        oid::BOOL => match trimmed.to_ascii_lowercase().as_str() {
            "t" | "true" | "y" | "yes" | "on" | "1" => Arc::new(BooleanArray::from(vec![true])),
            "f" | "false" | "n" | "no" | "off" | "0" => Arc::new(BooleanArray::from(vec![false])),
            _ => return Err(wrong()),
        },
        oid::INT2 | oid::INT4 | oid::INT8 | oid::OID => {
            Arc::new(Int64Array::from(vec![trimmed.parse::<i64>().map_err(|_| wrong())?]))
        }
        oid::FLOAT4 | oid::FLOAT8 => Arc::new(Float64Array::from(vec![float(trimmed).ok_or_else(wrong)?])),
        oid::NUMERIC => numeric(trimmed, needed).ok_or_else(wrong)?,
        oid::BYTEA => Arc::new(BinaryArray::from(vec![bytea(text).ok_or_else(wrong)?.as_slice()])),
        oid::TIMESTAMP | oid::TIMESTAMPTZ => Arc::new(StringArray::from(vec![with_seconds(text).as_ref()])),
        _ => Arc::new(StringArray::from(vec![text])),
    })
}

/// A floating-point number; infinite only if it says so.
pub(crate) fn float(text: &str) -> Option<f64> {
    let number = text.parse::<f64>().ok()?;
    let said = || text.trim_start_matches(['-', '+']).starts_with(['i', 'I']);
    (number.is_finite() || number.is_nan() || said()).then_some(number)
}

/// A decimal of as many digits as the text has, unless a floating-point number is needed or nothing else can hold it.
fn numeric(text: &str, needed: Option<&DataType>) -> Option<ArrayRef> {
    let is_float = matches!(needed, Some(DataType::Float16 | DataType::Float32 | DataType::Float64));
    match decimal(text).filter(|_| !is_float) {
        Some(array) => Some(array),
        // Rounded, it would be another number than was sent.
        None if needed.is_some_and(DataType::is_decimal) && text.contains(|c: char| c.is_ascii_digit()) => {
            None
        }
        None => Some(Arc::new(Float64Array::from(vec![float(text)?]))),
    }
}

fn decimal(text: &str) -> Option<ArrayRef> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) || exponent.abs() > EXPONENT_MAX
    {
        return None;
    }
    let scale = i32::try_from(fraction.len()).ok()? - exponent;
    for _ in scale..0 {
        digits.push('0');
    }
    let scale = scale.max(0);
    let digits = digits.trim_start_matches('0');
    let sign = if text.starts_with('-') { "-" } else { "" };
    let value = format!("{sign}{}", if digits.is_empty() { "0" } else { digits });
    let significant = digits.len().max(usize::try_from(scale).ok()?);
    let scale = i8::try_from(scale).ok()?;
    if significant <= DECIMAL_DIGITS {
        let array = Decimal128Array::from(vec![value.parse::<i128>().ok()?]);
        return Some(Arc::new(array.with_precision_and_scale(38, scale).ok()?));
    }
    if significant <= LONG_DECIMAL_DIGITS {
        let array = Decimal256Array::from(vec![i256::from_string(&value)?]);
        return Some(Arc::new(array.with_precision_and_scale(76, scale).ok()?));
    }
    None
}

/// Bytes in hexadecimal after `\x`, or with octal escapes.
pub(crate) fn bytea(text: &str) -> Option<Vec<u8>> {
    if let Some(digits) = text.strip_prefix("\\x") {
        let digits = digits.as_bytes();
        let pairs = digits.chunks(2).map(|pair| match pair {
            [_, _] => std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()),
            _ => None,
        });
        return pairs.collect();
    }
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = match (first, after) {
            (b'\\', [b'\\', after @ ..]) => {
                bytes.push(b'\\');
                after
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                after
            }
            (b'\\', _) => return None,
            (other, after) => {
                bytes.push(*other);
                after
            }
        };
    }
    Some(bytes)
}

pub(crate) fn binary(oid: u32, bytes: Bytes, needed: Option<&DataType>) -> Result<ArrayRef> {
    let name = by_oid(oid).map_or("value", |known| known.long_name);
    let length = bytes.len();
    let sized = |size: usize| {
        if length == size {
            return Ok(bytes.clone());
        }
        Err(Error::invalid(format!("{length} bytes are no {name}, which has {size}")))
    };
    let out_of_range = || Error::invalid(format!("a {name} out of range"));
    Ok(match oid {
        oid::BOOL => Arc::new(BooleanArray::from(vec![sized(1)?.get_u8() != 0])),
        oid::INT2 => Arc::new(Int16Array::from(vec![sized(2)?.get_i16()])),
        oid::INT4 => Arc::new(Int32Array::from(vec![sized(4)?.get_i32()])),
        oid::OID => Arc::new(Int64Array::from(vec![i64::from(sized(4)?.get_u32())])),
        oid::INT8 => Arc::new(Int64Array::from(vec![sized(8)?.get_i64()])),
        oid::FLOAT4 => Arc::new(Float32Array::from(vec![sized(4)?.get_f32()])),
        oid::FLOAT8 => Arc::new(Float64Array::from(vec![sized(8)?.get_f64()])),
        oid::NUMERIC => {
            let text = numeric_text(&bytes)?;
            numeric(&text, needed).ok_or_else(|| Error::invalid(format!("{text:?} is no numeric")))?
        }
        oid::BYTEA => Arc::new(BinaryArray::from(vec![&bytes[..]])),
        oid::DATE => {
            // The least number stands for -infinity; the greatest, for infinity, overflows.
            let days = Some(sized(4)?.get_i32())
                .filter(|days| *days != i32::MIN)
                .and_then(|days| days.checked_add(EPOCH_DAYS));
            let days = days.ok_or_else(out_of_range)?;
            Arc::new(Date32Array::from(vec![days]))
        }
        oid::TIME => {
            let micros = Some(sized(8)?.get_i64()).filter(|micros| (0..DAY_MICROS).contains(micros));
            Arc::new(Time64MicrosecondArray::from(vec![micros.ok_or_else(out_of_range)?]))
        }
        oid::TIMESTAMP | oid::TIMESTAMPTZ => {
            // As of dates.
            let micros = Some(sized(8)?.get_i64())
                .filter(|micros| *micros != i64::MIN)
                .and_then(|micros| micros.checked_add(EPOCH_MICROS));
            let micros = micros.ok_or_else(out_of_range)?;
            let array = TimestampMicrosecondArray::from(vec![micros]);
            if oid == oid::TIMESTAMP { Arc::new(array) } else { Arc::new(array.with_timezone("+00:00")) }
        }
        oid::INTERVAL => {
            let mut bytes = sized(16)?;
            let nanos = bytes.get_i64().checked_mul(1000).ok_or_else(out_of_range)?;
            let (days, months) = (bytes.get_i32(), bytes.get_i32());
            let value = IntervalMonthDayNano::new(months, days, nanos);
            Arc::new(IntervalMonthDayNanoArray::from(vec![value]))
        }
        oid::UUID => {
            let hex: Vec<String> = sized(16)?.iter().map(|byte| format!("{byte:02x}")).collect();
            let cut = |from: usize, to: usize| hex.get(from..to).unwrap_or_default().concat();
            let parts = [cut(0, 4), cut(4, 6), cut(6, 8), cut(8, 10), cut(10, 16)];
            Arc::new(StringArray::from(vec![parts.join("-")]))
        }
        oid::JSONB => match bytes.split_first() {
            Some((1, text)) => Arc::new(StringArray::from(vec![utf8(text)?])),
            _ => return Err(Error::invalid("bytes that are no jsonb of version 1")),
        },
        0 | oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::CHAR | oid::JSON | oid::UNKNOWN => {
            Arc::new(StringArray::from(vec![utf8(&bytes)?]))
        }
        other => {
            let what =
                by_oid(other).map_or_else(|| format!("type {other}"), |known| known.long_name.to_owned());
            return Err(Error::unsupported(format!(
                "a value of {what} in binary is not understood here: send it as text"
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::util::display::array_value_to_string;
    use proptest::prelude::*;

    use super::*;

    fn shown(oid: u32, format: Format, bytes: &'static [u8]) -> String {
        let value = one(oid, format, Bytes::from_static(bytes), None).unwrap();
        array_value_to_string(&value, 0).unwrap()
    }

    #[test]
    fn values_are_read_in_both_formats() {
        for (oid, text, binary, shows) in [
            (oid::BOOL, &b"t"[..], &b"\x01"[..], "true"),
            (oid::INT2, b"-7", b"\xff\xf9", "-7"),
            (oid::INT4, b" 7", b"\0\0\0\x07", "7"),
            (oid::INT8, b"7", b"\0\0\0\0\0\0\0\x07", "7"),
            (oid::FLOAT8, b"1.5", b"\x3f\xf8\0\0\0\0\0\0", "1.5"),
            (oid::NUMERIC, b"-12.50", b"\0\x02\0\0\x40\0\0\x02\0\x0c\x13\x88", "-12.50"),
            (oid::BYTEA, b"\\x00ff", b"\x00\xff", "00ff"),
            (oid::TEXT, "grün".as_bytes(), "grün".as_bytes(), "grün"),
            (1016, b"{1,NULL}", b"\0\0\0\x01\0\0\0\x01\0\0\0\x14\0\0\0\x02\0\0\0\x01\0\0\0\x08\0\0\0\0\0\0\0\x01\xff\xff\xff\xff", "[1, ]"),
        ] {
            assert_eq!(shown(oid, Format::Text, text), shows);
            assert_eq!(shown(oid, Format::Binary, binary), shows);
        }
        assert_eq!(shown(oid::TIMESTAMP, Format::Binary, &[0; 8]), "2000-01-01T00:00:00");
        assert_eq!(shown(oid::TIMESTAMPTZ, Format::Binary, &[0; 8]), "2000-01-01T00:00:00Z");
        assert_eq!(shown(oid::DATE, Format::Binary, &[0; 4]), "2000-01-01");
        assert_eq!(shown(oid::TIMESTAMP, Format::Text, b"2024-01-01 00:00:00"), "2024-01-01 00:00:00");
        assert_eq!(shown(oid::BYTEA, Format::Text, b"a\\001\\\\"), "61015c");
        let strings =
            one(1009, Format::Text, Bytes::from_static(br#"{a,"b \"c",null,"null",""}"#), None).unwrap();
        let strings = strings.as_list::<i32>().value(0);
        let strings: Vec<Option<&str>> = strings.as_string::<i32>().iter().collect();
        assert_eq!(strings, [Some("a"), Some("b \"c"), None, Some("null"), Some("")]);
    }

    #[test]
    fn what_does_not_fit_is_an_error_that_names_the_parameter() {
        let value = |bytes: &'static [u8]| Some(Bytes::from_static(bytes));
        let error = parameters(&[oid::TEXT, oid::INT4], &[], &[None, value(b"x")], None).unwrap_err();
        assert!(
            error.message().starts_with("parameter $2") && error.message().contains("integer"),
            "{error}"
        );
        assert!(parameters(&[oid::TEXT], &[], &[], None).is_err());
        assert_eq!(parameters(&[], &[], &[], None), Ok(None));
        for (oid, format, bytes) in [
            (oid::BOOL, Format::Text, &b"perhaps"[..]),
            (oid::INT4, Format::Binary, b"\0"),
            (oid::BYTEA, Format::Text, b"\\xf"),
            (oid::DATE, Format::Binary, b"\x7f\xff\xff\xff"),
            (oid::DATE, Format::Binary, b"\x80\0\0\0"),
            (oid::TIMESTAMP, Format::Binary, b"\x80\0\0\0\0\0\0\0"),
            (oid::TIMESTAMPTZ, Format::Binary, b"\x7f\xff\xff\xff\xff\xff\xff\xff"),
            (oid::TIME, Format::Binary, b"\xff\xff\xff\xff\xff\xff\xff\xff"),
            (oid::TIME, Format::Binary, b"\0\0\0\x14\x1d\xd7\x60\x01"),
            (oid::FLOAT8, Format::Text, b"1e400"),
            (oid::NUMERIC, Format::Text, b"--1"),
            (oid::TEXT, Format::Text, b"\xff"),
            (1007, Format::Text, b"{1"),
            (1007, Format::Text, b"{{1},{2}}"),
            (1007, Format::Text, b"{1,}"),
            (1007, Format::Binary, b"\0\0\0\x01\0\0\0\0\0\0\0\x17\0\xff\xff\xff\0\0\0\x01"),
            (600, Format::Binary, b"point"),
        ] {
            assert!(one(oid, format, Bytes::from_static(bytes), None).is_err(), "{oid} {bytes:?}");
        }
    }

    #[test]
    fn numbers_keep_all_their_digits() {
        for text in [
            "1.5",
            "0.1000000000000000055511151231257827021181583404541015625",
            "-12345678901234567890123456789012345678901234567890.5",
        ] {
            assert_eq!(shown(oid::NUMERIC, Format::Text, text.as_bytes()), text);
        }
        assert_eq!(shown(oid::NUMERIC, Format::Text, b"1E+3"), "1000");
        assert_eq!(shown(oid::NUMERIC, Format::Text, b"-1.5e-3"), "-0.0015");
        assert_eq!(shown(oid::NUMERIC, Format::Text, b"NaN"), "NaN");
        let list = one(1231, Format::Text, Bytes::from_static(b"{1.5,NULL,2.25}"), None).unwrap();
        assert_eq!(array_value_to_string(&list, 0).unwrap(), "[1.50, , 2.25]");
        // More digits than a decimal has are rounded where a floating-point number is needed, and only there.
        let long: &'static [u8] =
            b"0.12345678901234567890123456789012345678901234567890123456789012345678901234567890";
        let needs =
            |needed: &DataType| one(oid::NUMERIC, Format::Text, Bytes::from_static(long), Some(needed));
        assert!(needs(&DataType::Float64).is_ok() && needs(&DataType::Decimal128(38, 10)).is_err());
    }

    #[test]
    fn a_list_is_null_or_a_list() {
        let list = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
        let schema = Schema::new(vec![Field::new("$1", list.clone(), true)]);
        let needs = Some(Needs { schema: &schema, for_what: Use::Stored });
        let of = |oid, value: Option<&'static [u8]>| {
            parameters(&[oid], &[], &[value.map(Bytes::from_static)], needs)
        };
        let null = of(oid::TEXT, None).unwrap().unwrap();
        assert_eq!((null.column(0).data_type(), null.column(0).null_count()), (&list, 1));
        let told_text = of(oid::TEXT, Some(b"{a,b}")).unwrap().unwrap();
        assert_eq!(told_text.column(0).as_list::<i32>().value_length(0), 2);
        assert!(of(oid::INT8, Some(b"1")).is_err());
    }

    #[test]
    fn formats_are_one_for_all_or_one_for_each() {
        let value = || Some(Bytes::from_static(b"1"));
        let types = [oid::INT4, oid::INT4, oid::INT4];
        let two = [Format::Text, Format::Text];
        assert!(parameters(&types, &two, &[value(), value(), value()], None).is_err());
        assert!(parameters(&types, &two[..1], &[value(), value(), value()], None).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_value_or_an_error(
            at in 0..crate::types::TYPES.len(),
            list: bool,
            text: bool,
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let known = crate::types::TYPES[at];
            let format = if text { Format::Text } else { Format::Binary };
            let _ = one(if list { known.array } else { known.oid }, format, bytes.into(), None);
        }
    }
}
