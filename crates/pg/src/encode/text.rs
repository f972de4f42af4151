//! Values as text, as PostgreSQL writes them with `DateStyle` ISO and `bytea_output` hex.

use std::fmt::Write;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    Date32Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use bytes::{BufMut, BytesMut};

use super::Kind;

const DAY: i64 = 86_400_000_000;

/// Writes a value that is not null. The array is of the type that goes with `kind`.
pub(super) fn value(array: &dyn Array, kind: Kind, row: usize, out: &mut BytesMut) {
    // Writing into memory does not fail.
    let _ = match kind {
        Kind::Null | Kind::List => Ok(()),
        Kind::Bool => out.write_str(if array.as_boolean().value(row) { "t" } else { "f" }),
        Kind::Int16 => write!(out, "{}", array.as_primitive::<Int16Type>().value(row)),
        Kind::Int32 => write!(out, "{}", array.as_primitive::<Int32Type>().value(row)),
        Kind::Int64 => write!(out, "{}", array.as_primitive::<Int64Type>().value(row)),
        Kind::Numeric => out.write_str(array.as_string::<i32>().value(row)),
        Kind::Float32 => {
            let number = array.as_primitive::<Float32Type>().value(row);
            float(out, f64::from(number), || (format!("{number}"), format!("{number:e}")))
        }
        Kind::Float64 => {
            let number = array.as_primitive::<Float64Type>().value(row);
            float(out, number, || (format!("{number}"), format!("{number:e}")))
        }
        Kind::Text | Kind::Json => out.write_str(array.as_string::<i64>().value(row)),
        Kind::Bytes => {
            let bytes = array.as_binary::<i64>().value(row);
            out.put_slice(b"\\x");
            bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
        }
        Kind::Date => {
            let (text, era) = date(i64::from(array.as_primitive::<Date32Type>().value(row)));
            write!(out, "{text}{era}")
        }
        Kind::Time => time(out, array.as_primitive::<Time64MicrosecondType>().value(row)),
        Kind::Timestamp => timestamp(out, array.as_primitive::<TimestampMicrosecondType>().value(row), ""),
        Kind::TimestampTz => {
            timestamp(out, array.as_primitive::<TimestampMicrosecondType>().value(row), "+00")
        }
        Kind::Interval => {
            let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            interval(out, value.months, value.days, value.nanoseconds.div_euclid(1000))
        }
    };
}

/// The shortest digits that read back as the same number; the exponent where PostgreSQL has one.
fn float(out: &mut BytesMut, number: f64, texts: impl FnOnce() -> (String, String)) -> std::fmt::Result {
    if number.is_nan() {
        return out.write_str("NaN");
    }
    if number.is_infinite() {
        return out.write_str(if number > 0.0 { "Infinity" } else { "-Infinity" });
    }
    let (plain, scientific) = texts();
    if number == 0.0 || (1e-4..1e15).contains(&number.abs()) {
        return out.write_str(&plain);
    }
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
    write!(out, "{digits}e{sign}{exponent:0>2}")
}

fn time(out: &mut BytesMut, micros: i64) -> std::fmt::Result {
    let (seconds, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)?;
    if fraction == 0 {
        return Ok(());
    }
    let digits = format!("{fraction:06}");
    write!(out, ".{}", digits.trim_end_matches('0'))
}

fn timestamp(out: &mut BytesMut, micros: i64, zone: &str) -> std::fmt::Result {
    let (date, era) = date(micros.div_euclid(DAY));
    write!(out, "{date} ")?;
    time(out, micros.rem_euclid(DAY))?;
    write!(out, "{zone}{era}")
}

/// A day of the Gregorian calendar, and the era that follows the time of day.
fn date(days: i64) -> (String, &'static str) {
    let (year, month, day) = civil(days);
    if year > 0 {
        (format!("{year:04}-{month:02}-{day:02}"), "")
    } else {
        (format!("{:04}-{month:02}-{day:02}", 1 - year), " BC")
    }
}

/// Year, month and day of a day since 1970; after Howard Hinnant's `civil_from_days`.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn interval(out: &mut BytesMut, months: i32, days: i32, micros: i64) -> std::fmt::Result {
    let mut parts = Vec::new();
    let mut part = |count: i32, one: &str, many: &str| {
        if count != 0 {
            parts.push(format!("{count} {}", if count == 1 { one } else { many }));
        }
    };
    part(months / 12, "year", "years");
    part(months % 12, "mon", "mons");
    part(days, "day", "days");
    out.write_str(&parts.join(" "))?;
    if micros == 0 && !parts.is_empty() {
        return Ok(());
    }
    let space = if parts.is_empty() { "" } else { " " };
    let sign = if micros < 0 { "-" } else { "" };
    write!(out, "{space}{sign}")?;
    time(out, i64::try_from(micros.unsigned_abs()).unwrap_or(i64::MAX))
}

/// A row for `COPY … TO STDOUT` in text format, with its line end.
pub(crate) fn copy_text(values: &[Option<String>], delimiter: char, null: &str) -> String {
    copy_line(values, delimiter, null, |line, value| {
        for letter in value.chars() {
            match letter {
                '\\' => line.push_str("\\\\"),
                '\n' => line.push_str("\\n"),
                '\r' => line.push_str("\\r"),
                '\t' => line.push_str("\\t"),
                other if other == delimiter => line.extend(['\\', other]),
                other => line.push(other),
            }
        }
    })
}

/// The same in CSV.
pub(crate) fn copy_csv(values: &[Option<String>], delimiter: char, null: &str) -> String {
    copy_line(values, delimiter, null, |line, value| {
        let special = |letter: char| letter == delimiter || matches!(letter, '"' | '\n' | '\r');
        // `\.` alone in a line would be taken for the end of the rows.
        if value == null || value == "\\." || value.contains(special) {
            line.push('"');
            line.push_str(&value.replace('"', "\"\""));
            line.push('"');
        } else {
            line.push_str(value);
        }
    })
}

fn copy_line(
    values: &[Option<String>],
    delimiter: char,
    null: &str,
    mut write: impl FnMut(&mut String, &str),
) -> String {
    let mut line = String::new();
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            line.push(delimiter);
        }
        match value {
            Some(value) => write(&mut line, value),
            None => line.push_str(null),
        }
    }
    line.push('\n');
    line
}
