//! Values of columns as lines write them.

use arrow::datatypes::{TimeUnit, i256};

use crate::array;
use crate::decimal;
use crate::error::{Step, Stop};
use crate::number::{Number, short_number};
use crate::scan::{NUMBER, plain_end, skip_return, string_end};

/// What stands behind the `=` of a binary value.
const BINARY_DOUBLE: u8 = 0x10;
const BINARY_ARRAY: u8 = 0x0E;
const BINARY_DECIMAL: u8 = 0x17;

/// A value, its bytes still in the buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    /// Not unescaped, if `escaped`.
    Tag {
        raw: &'a [u8],
        escaped: bool,
    },
    Text {
        raw: &'a [u8],
        escaped: bool,
    },
    Int(i64),
    UInt(u64),
    Float(f64),
    Bool(bool),
    Time(i64, TimeUnit),
    Decimal {
        unscaled: i256,
        scale: u8,
    },
    Array(array::Raw<'a>),
    /// The binary forms have one.
    Null,
}

impl Value<'_> {
    /// What it is, for people.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tag { .. } => "a tag",
            Self::Text { .. } => "a string",
            Self::Int(_) => "an integer",
            Self::UInt(_) => "an unsigned integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a boolean",
            Self::Time(..) => "a timestamp",
            Self::Decimal { .. } => "a decimal",
            Self::Array(_) => "an array",
            Self::Null => "null",
        }
    }
}

/// The value at `at`, and where it ends.
pub(crate) fn value(buf: &[u8], at: usize) -> Step<(Value<'_>, usize)> {
    match buf.get(at).ok_or(Stop::Open)? {
        b'"' => {
            let (end, escaped) = string_end(buf, at + 1)?;
            let raw = buf.get(at + 1..end).unwrap_or_default();
            Ok((Value::Text { raw, escaped }, end + 1))
        }
        b'=' => binary(buf, at + 1),
        b'-' | b'0'..=b'9' => match short_number(buf, at) {
            Some((Number::Int(number), end)) => Ok((Value::Int(number), end)),
            Some((Number::Float(number), end)) => Ok((Value::Float(number), end)),
            None => scalar(buf, at),
        },
        _ => scalar(buf, at),
    }
}

fn scalar(buf: &[u8], at: usize) -> Step<(Value<'_>, usize)> {
    let mut end = plain_end(buf, at, NUMBER)?;
    if end > at && skip_return(buf, end - 1) == end {
        end -= 1;
    }
    let token = buf.get(at..end).unwrap_or_default();
    let text = std::str::from_utf8(token).map_err(|_| Stop::malformed(at, "the value is no UTF-8 text"))?;
    parse_scalar(text).map(|value| (value, end)).map_err(|why| Stop::malformed(at, why))
}

fn parse_scalar(text: &str) -> Result<Value<'static>, String> {
    match text {
        "t" | "T" | "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "f" | "F" | "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        "" => return Err("the value is missing".to_owned()),
        _ => {}
    }
    let wrong = |what: &str| format!("{} is no {what}", shown(text));
    let digits = |number: &str| number.bytes().all(|b| b.is_ascii_digit() || b == b'-' || b == b'+');
    let (number, suffix) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    match suffix {
        "i" if digits(number) => number.parse().map(Value::Int).map_err(|_| wrong("integer of 64 bits")),
        "u" if digits(number) => {
            number.parse().map(Value::UInt).map_err(|_| wrong("unsigned integer of 64 bits"))
        }
        "t" | "n" if digits(number) => {
            let unit = if suffix == "t" { TimeUnit::Microsecond } else { TimeUnit::Nanosecond };
            number.parse().map(|ticks| Value::Time(ticks, unit)).map_err(|_| wrong("timestamp of 64 bits"))
        }
        "d" => decimal::parse(number).ok_or_else(|| wrong("decimal")),
        _ if !text.starts_with(['-', '+', '.', 'N', 'n', 'I', 'i'])
            && !text.starts_with(|c: char| c.is_ascii_digit()) =>
        {
            Err(format!("{} is no value: strings stand in quotes", shown(text)))
        }
        _ => match text.parse::<f64>() {
            // Written in digits, it is no infinity.
            Ok(number) if number.is_infinite() && text.contains(|c: char| c.is_ascii_digit()) => {
                Err(format!("{} is beyond what a double holds", shown(text)))
            }
            Ok(number) => Ok(Value::Float(number)),
            Err(_) => Err(wrong("number")),
        },
    }
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(40) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
    }
}

fn binary(buf: &[u8], at: usize) -> Step<(Value<'_>, usize)> {
    let body = at + 1;
    match *buf.get(at).ok_or(Stop::Open)? {
        BINARY_DOUBLE => {
            let bytes = buf.get(body..).and_then(|rest| rest.first_chunk::<8>()).ok_or(Stop::Open)?;
            Ok((Value::Float(f64::from_le_bytes(*bytes)), body + 8))
        }
        BINARY_ARRAY => {
            let (raw, end) = array::read(buf, body)?;
            Ok((raw.map_or(Value::Null, Value::Array), end))
        }
        BINARY_DECIMAL => {
            let [scale, length] =
                *buf.get(body..).and_then(|rest| rest.first_chunk::<2>()).ok_or(Stop::Open)?;
            let (from, to) = (body + 2, body + 2 + usize::from(length));
            if length > 32 || scale > 76 {
                return Err(Stop::malformed(
                    body,
                    format!("a decimal of {length} bytes and scale {scale}: at most 32 and 76 are possible"),
                ));
            }
            let bytes = buf.get(from..to).ok_or(Stop::Open)?;
            Ok((decimal::from_bytes(bytes, scale), to))
        }
        other => Err(Stop::malformed(at, format!("binary values of type {other:#04x} are not known"))),
    }
}
