//! Values of parameters, in text or binary, as Arrow arrays of one row.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, ListArray, RecordBatch, StringArray,
    Time64MicrosecondArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::concat;
use arrow::datatypes::IntervalMonthDayNano;
use arrow_schema::{DataType, Field, Schema};
use bytes::{Buf, Bytes};
use tandem_types::{Error, Result};

use crate::encode::{EPOCH_DAYS, EPOCH_MICROS, numeric_text};
use crate::message::Format;
use crate::types::{by_oid, item_of, oid};

/// Digits that a decimal of 128 bits holds.
const DECIMAL_DIGITS: usize = 38;

/// The parameters of one run of a statement; `types` are those that were told to the client or by it.
///
/// # Errors
///
/// `InvalidInput`, naming the parameter, if their number or a value does not fit.
pub(crate) fn parameters(
    types: &[u32],
    formats: &[Format],
    values: &[Option<Bytes>],
) -> Result<Option<RecordBatch>> {
    if types.len() != values.len() {
        return Err(Error::invalid(format!(
            "the statement has {} parameters, and {} were bound",
            types.len(),
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
            let value = match value {
                None => return Ok(new_null_array(&DataType::Utf8, 1)),
                Some(bytes) => one(*oid, Format::at(formats, at), bytes.clone()),
            };
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

fn one(oid: u32, format: Format, bytes: Bytes) -> Result<ArrayRef> {
    if let Some(item) = item_of(oid) {
        return match format {
            Format::Text => text_list(item.oid, utf8(&bytes)?),
            Format::Binary => binary_list(bytes),
        };
    }
    match format {
        Format::Text => text(oid, utf8(&bytes)?),
        Format::Binary => binary(oid, bytes),
    }
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    let text = std::str::from_utf8(bytes);
    text.map_err(|_| Error::invalid("text that is not UTF-8; client_encoding is UTF8 here"))
}

/// Text becomes a value only where its form is PostgreSQL's own; all else the engine reads as the type that the statement
/// needs, which it knows better.
fn text(oid: u32, text: &str) -> Result<ArrayRef> {
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
        oid::FLOAT4 | oid::FLOAT8 => {
            Arc::new(Float64Array::from(vec![trimmed.parse::<f64>().map_err(|_| wrong())?]))
        }
        oid::NUMERIC => numeric(trimmed).ok_or_else(wrong)?,
        oid::BYTEA => Arc::new(BinaryArray::from(vec![bytea(text).ok_or_else(wrong)?.as_slice()])),
        _ => Arc::new(StringArray::from(vec![text])),
    })
}

fn numeric(text: &str) -> Option<ArrayRef> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = format!("{whole}{fraction}");
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let significant = digits.trim_start_matches('0').len().max(fraction.len());
    if !plain || significant > DECIMAL_DIGITS {
        // An exponent, NaN, or more digits than a decimal holds.
        return text.parse::<f64>().ok().map(|number| Arc::new(Float64Array::from(vec![number])) as ArrayRef);
    }
    let magnitude = digits.parse::<i128>().ok()?;
    let value = if text.starts_with('-') { -magnitude } else { magnitude };
    let scale = i8::try_from(fraction.len()).ok()?;
    let array = Decimal128Array::from(vec![value]).with_precision_and_scale(38, scale).ok()?;
    Some(Arc::new(array))
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

fn binary(oid: u32, bytes: Bytes) -> Result<ArrayRef> {
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
            numeric(&text).ok_or_else(|| Error::invalid(format!("{text:?} is no numeric")))?
        }
        oid::BYTEA => Arc::new(BinaryArray::from(vec![&bytes[..]])),
        oid::DATE => {
            let days = sized(4)?.get_i32().checked_add(EPOCH_DAYS).ok_or_else(out_of_range)?;
            Arc::new(Date32Array::from(vec![days]))
        }
        oid::TIME => Arc::new(Time64MicrosecondArray::from(vec![sized(8)?.get_i64()])),
        oid::TIMESTAMP | oid::TIMESTAMPTZ => {
            let micros = sized(8)?.get_i64().checked_add(EPOCH_MICROS).ok_or_else(out_of_range)?;
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

/// `{a,"b c",NULL}`, of one dimension.
fn text_list(item: u32, list: &str) -> Result<ArrayRef> {
    let wrong =
        || Error::invalid(format!("{list:?} is no array of one dimension: it looks like {{1,2,NULL}}"));
    let inner = list.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or_else(wrong)?;
    let mut items = Vec::new();
    let mut letters = inner.chars().peekable();
    while letters.peek().is_some() {
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        let mut value = String::new();
        let quoted = letters.next_if_eq(&'"').is_some();
        let mut closed = !quoted;
        while let Some(letter) = letters.next_if(|letter| quoted || *letter != ',') {
            match letter {
                '\\' => value.push(letters.next().ok_or_else(wrong)?),
                '"' if quoted => {
                    closed = true;
                    break;
                }
                '{' | '}' | '"' if !quoted => return Err(wrong()),
                other => value.push(other),
            }
        }
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        let more = letters.next_if_eq(&',').is_some();
        if !closed || (!more && letters.peek().is_some()) || (more && letters.peek().is_none()) {
            return Err(wrong());
        }
        let is_null = !quoted && value.trim().eq_ignore_ascii_case("null");
        items.push(if is_null {
            None
        } else {
            Some(text(item, if quoted { &value } else { value.trim() })?)
        });
    }
    collect(items)
}

fn binary_list(mut bytes: Bytes) -> Result<ArrayRef> {
    let short = || Error::invalid("an array ends too early");
    let word = |bytes: &mut Bytes| {
        if bytes.len() < 4 { Err(short()) } else { Ok(bytes.get_i32()) }
    };
    let (dimensions, _has_nulls, item) = (word(&mut bytes)?, word(&mut bytes)?, word(&mut bytes)?);
    if dimensions == 0 {
        return collect(Vec::new());
    }
    if dimensions != 1 {
        return Err(Error::unsupported(format!(
            "an array of {dimensions} dimensions; one is understood here"
        )));
    }
    let (count, _first) = (word(&mut bytes)?, word(&mut bytes)?);
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(match usize::try_from(word(&mut bytes)?) {
            Err(_) => None,
            Ok(length) if bytes.len() < length => return Err(short()),
            Ok(length) => Some(binary(item.cast_unsigned(), bytes.split_to(length))?),
        });
    }
    collect(items)
}

/// A list of one row of these items.
fn collect(items: Vec<Option<ArrayRef>>) -> Result<ArrayRef> {
    let failed = |e| Error::invalid(format!("the items of an array do not go together: {e}"));
    let item = items.iter().flatten().next().map_or(DataType::Utf8, |item| item.data_type().clone());
    let null = new_null_array(&item, 1);
    let all: Vec<&dyn Array> = items.iter().map(|item| item.as_ref().unwrap_or(&null).as_ref()).collect();
    let values = if all.is_empty() { new_null_array(&item, 0) } else { concat(&all).map_err(failed)? };
    let offsets = OffsetBuffer::from_lengths([values.len()]);
    let field = Arc::new(Field::new_list_field(item, true));
    Ok(Arc::new(ListArray::try_new(field, offsets, values, None).map_err(failed)?))
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::util::display::array_value_to_string;
    use proptest::prelude::*;

    use super::*;

    fn shown(oid: u32, format: Format, bytes: &'static [u8]) -> String {
        let value = one(oid, format, Bytes::from_static(bytes)).unwrap();
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
        let strings = one(1009, Format::Text, Bytes::from_static(br#"{a,"b \"c",null,"null",""}"#)).unwrap();
        let strings = strings.as_list::<i32>().value(0);
        let strings: Vec<Option<&str>> = strings.as_string::<i32>().iter().collect();
        assert_eq!(strings, [Some("a"), Some("b \"c"), None, Some("null"), Some("")]);
    }

    #[test]
    fn what_does_not_fit_is_an_error_that_names_the_parameter() {
        let value = |bytes: &'static [u8]| Some(Bytes::from_static(bytes));
        let error = parameters(&[oid::TEXT, oid::INT4], &[], &[None, value(b"x")]).unwrap_err();
        assert!(
            error.message().starts_with("parameter $2") && error.message().contains("integer"),
            "{error}"
        );
        assert!(parameters(&[oid::TEXT], &[], &[]).is_err());
        assert_eq!(parameters(&[], &[], &[]), Ok(None));
        for (oid, format, bytes) in [
            (oid::BOOL, Format::Text, &b"perhaps"[..]),
            (oid::INT4, Format::Binary, b"\0"),
            (oid::BYTEA, Format::Text, b"\\xf"),
            (oid::DATE, Format::Binary, b"\x7f\xff\xff\xff"),
            (oid::TEXT, Format::Text, b"\xff"),
            (1007, Format::Text, b"{1"),
            (1007, Format::Text, b"{{1},{2}}"),
            (1007, Format::Text, b"{1,}"),
            (1007, Format::Binary, b"\0\0\0\x01\0\0\0\0\0\0\0\x17\0\xff\xff\xff\0\0\0\x01"),
            (600, Format::Binary, b"point"),
        ] {
            assert!(one(oid, format, Bytes::from_static(bytes)).is_err(), "{oid} {bytes:?}");
        }
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
            let _ = one(if list { known.array } else { known.oid }, format, bytes.into());
        }
    }
}
