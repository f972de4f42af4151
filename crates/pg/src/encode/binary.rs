//! Values in PostgreSQL's binary formats.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    Date32Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use bytes::{BufMut, BytesMut};
use tandem_types::{Error, Result};

use super::Kind;

/// Between 1970, where our time begins, and 2000, where PostgreSQL's does.
pub(crate) const EPOCH_DAYS: i32 = 10_957;
pub(crate) const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Writes a value that is not null. The array is of the type that goes with `kind`.
pub(super) fn value(array: &dyn Array, kind: Kind, row: usize, out: &mut BytesMut) -> Result<()> {
    match kind {
        Kind::Null | Kind::List => {}
        Kind::Bool => out.put_u8(u8::from(array.as_boolean().value(row))),
        Kind::Int16 => out.put_i16(array.as_primitive::<Int16Type>().value(row)),
        Kind::Int32 => out.put_i32(array.as_primitive::<Int32Type>().value(row)),
        Kind::Int64 => out.put_i64(array.as_primitive::<Int64Type>().value(row)),
        Kind::Numeric => numeric(array.as_string::<i32>().value(row), out)?,
        Kind::Float32 => out.put_f32(array.as_primitive::<Float32Type>().value(row)),
        Kind::Float64 => out.put_f64(array.as_primitive::<Float64Type>().value(row)),
        Kind::Text | Kind::Json => out.put_slice(array.as_string::<i64>().value(row).as_bytes()),
        Kind::Bytes => out.put_slice(array.as_binary::<i64>().value(row)),
        Kind::Date => {
            let days = array.as_primitive::<Date32Type>().value(row);
            out.put_i32(days.checked_sub(EPOCH_DAYS).ok_or_else(out_of_range)?);
        }
        Kind::Time => out.put_i64(array.as_primitive::<Time64MicrosecondType>().value(row)),
        Kind::Timestamp | Kind::TimestampTz => {
            let micros = array.as_primitive::<TimestampMicrosecondType>().value(row);
            out.put_i64(micros.checked_sub(EPOCH_MICROS).ok_or_else(out_of_range)?);
        }
        Kind::Interval => {
            let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            out.put_i64(value.nanoseconds.div_euclid(1000));
            out.put_i32(value.days);
            out.put_i32(value.months);
        }
    }
    Ok(())
}

fn out_of_range() -> Error {
    Error::invalid("a date or time is out of the range of PostgreSQL's types")
}

/// Digits to the base of 10,000, those before the point first.
fn numeric(text: &str, out: &mut BytesMut) -> Result<()> {
    let (sign, digits) = text.strip_prefix('-').map_or((0_u16, text), |rest| (0x4000, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('0');
    let padded_whole = format!("{whole:0>width$}", width = whole.len().div_ceil(4) * 4);
    let padded_fraction = format!("{fraction:0<width$}", width = fraction.len().div_ceil(4) * 4);
    let all = padded_whole + &padded_fraction;
    let mut groups = Vec::with_capacity(all.len() / 4);
    for group in all.as_bytes().chunks(4) {
        let group = std::str::from_utf8(group).ok().and_then(|group| group.parse::<i16>().ok());
        groups.push(group.ok_or_else(|| Error::internal(format!("{text:?} is no number")))?);
    }
    let mut weight = i16::try_from(whole.len().div_ceil(4)).unwrap_or(i16::MAX) - 1;
    let leading = groups.iter().take_while(|group| **group == 0).count();
    weight = weight.saturating_sub(i16::try_from(leading).unwrap_or(i16::MAX));
    groups.drain(..leading);
    while groups.last() == Some(&0) {
        groups.pop();
    }
    if groups.is_empty() {
        weight = 0;
    }
    out.put_i16(i16::try_from(groups.len()).map_err(|_| out_of_range())?);
    out.put_i16(weight);
    out.put_u16(if groups.is_empty() { 0 } else { sign });
    out.put_u16(u16::try_from(fraction.len()).map_err(|_| out_of_range())?);
    groups.iter().for_each(|group| out.put_i16(*group));
    Ok(())
}

/// The text of a binary number; the way back.
///
/// # Errors
///
/// `InvalidInput` for bytes that are none.
pub(crate) fn numeric_text(bytes: &[u8]) -> Result<String> {
    let wrong = || Error::invalid("bytes that are no numeric");
    let mut words = bytes.chunks(2).map(|pair| <[u8; 2]>::try_from(pair).map(i16::from_be_bytes));
    let mut word = || words.next().and_then(|word| word.ok()).ok_or_else(wrong);
    let (count, weight, sign, scale) = (word()?, word()?, word()?.cast_unsigned(), word()?);
    let sign = match sign {
        0 => "",
        0x4000 => "-",
        0xC000 => return Ok("NaN".to_owned()),
        0xD000 => return Ok("Infinity".to_owned()),
        0xF000 => return Ok("-Infinity".to_owned()),
        _ => return Err(wrong()),
    };
    let mut groups = Vec::new();
    for _ in 0..count {
        groups.push(word().ok().filter(|group| (0..10_000).contains(group)).ok_or_else(wrong)?);
    }
    let scale = usize::try_from(scale).ok().filter(|scale| *scale < 2000).ok_or_else(wrong)?;
    let group = |at: i32| usize::try_from(at).ok().and_then(|at| groups.get(at)).copied().unwrap_or(0);
    let mut whole = String::new();
    for at in 0..=i32::from(weight) {
        whole.push_str(&format!("{:04}", group(at)));
    }
    let whole = whole.trim_start_matches('0');
    let mut fraction = String::new();
    let mut at = i32::from(weight) + 1;
    while fraction.len() < scale {
        fraction.push_str(&format!("{:04}", group(at)));
        at += 1;
    }
    fraction.truncate(scale);
    let whole = if whole.is_empty() { "0" } else { whole };
    Ok(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round(text: &str) -> String {
        let mut out = BytesMut::new();
        numeric(text, &mut out).unwrap();
        numeric_text(&out).unwrap()
    }

    #[test]
    fn numbers_are_cut_into_groups_of_four_digits() {
        let mut out = BytesMut::new();
        numeric("12345.678", &mut out).unwrap();
        assert_eq!(&out[..], [0, 3, 0, 1, 0, 0, 0, 3, 0, 1, 9, 41, 26, 124]);
        for text in ["0", "0.00", "1", "-1.5", "10000", "0.0001", "0.00000001", "18446744073709551615"] {
            assert_eq!(round(text), text);
        }
        assert!(numeric_text(b"\0\x01").is_err() && numeric_text(&[0, 1, 0, 0, 0, 0, 0, 0]).is_err());
    }

    proptest! {
        #[test]
        fn numbers_come_back_as_they_were(number: i128, scale in 0_usize..20) {
            let digits = format!("{:0>width$}", number.unsigned_abs(), width = scale + 1);
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            let sign = if number < 0 { "-" } else { "" };
            let text = if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") };
            prop_assert_eq!(round(&text), text);
        }

        #[test]
        fn any_bytes_are_a_number_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = numeric_text(&bytes);
        }
    }
}
