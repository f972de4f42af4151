//! The type in which two values of different types meet.
//!
//! A rule of the format, like widening: what a logged expression means must never change.

use arrow::datatypes::{DataType, DataType::*, TimeUnit};
use tandem_types::common_supertype;

/// The type of the values themselves: dictionaries are an encoding.
pub(crate) fn plain(t: &DataType) -> DataType {
    match t {
        Dictionary(_, value) => plain(value),
        other => other.clone(),
    }
}

pub(crate) fn is_text(t: &DataType) -> bool {
    matches!(t, Utf8 | LargeUtf8 | Utf8View)
}

pub(crate) fn is_bytes(t: &DataType) -> bool {
    matches!(t, Binary | LargeBinary | BinaryView)
}

/// The type to which both sides of an operator are cast, `None` if they have nothing in common. Both are plain.
pub(crate) fn common(a: &DataType, b: &DataType) -> Option<DataType> {
    if a == b {
        return Some(a.clone());
    }
    match (a, b) {
        (Null, t) | (t, Null) => Some(t.clone()),
        (a, b) if is_text(a) && is_text(b) => Some(match (a, b) {
            (Utf8View, _) | (_, Utf8View) => Utf8View,
            _ => LargeUtf8,
        }),
        (a, b) if is_bytes(a) && is_bytes(b) => Some(match (a, b) {
            (BinaryView, _) | (_, BinaryView) => BinaryView,
            _ => LargeBinary,
        }),
        (FixedSizeBinary(_), b) if is_bytes(b) => Some(b.clone()),
        (a, FixedSizeBinary(_)) if is_bytes(a) => Some(a.clone()),
        (Timestamp(u, zone), Timestamp(v, other)) if zone.is_some() == other.is_some() => {
            Some(Timestamp(finer(*u, *v), zone.clone()))
        }
        (Date32, Date64) | (Date64, Date32) => Some(Date64),
        (Date32 | Date64, Timestamp(u, None)) | (Timestamp(u, None), Date32 | Date64) => {
            Some(Timestamp(*u, None))
        }
        (Duration(u), Duration(v)) => Some(Duration(finer(*u, *v))),
        (Time32(_) | Time64(_), Time32(_) | Time64(_)) => {
            // In the finer unit; nanoseconds and microseconds are the 64-bit ones.
            let unit = |t: &DataType| match t {
                Time32(u) | Time64(u) => *u,
                _ => TimeUnit::Second,
            };
            Some(match finer(unit(a), unit(b)) {
                u @ (TimeUnit::Microsecond | TimeUnit::Nanosecond) => Time64(u),
                u => Time32(u),
            })
        }
        _ => numbers(a, b),
    }
}

/// Numbers: losslessly where a type allows it, else as SQL engines do.
fn numbers(a: &DataType, b: &DataType) -> Option<DataType> {
    if !(a.is_numeric() && b.is_numeric()) {
        return None;
    }
    if let Some(t) = common_supertype(a, b) {
        return Some(t);
    }
    if a.is_floating() || b.is_floating() {
        return Some(Float64);
    }
    let as_decimal = |t: &DataType| match t {
        Int8 | UInt8 => Decimal128(3, 0),
        Int16 | UInt16 => Decimal128(5, 0),
        Int32 | UInt32 => Decimal128(10, 0),
        Int64 | UInt64 => Decimal128(20, 0),
        other => other.clone(),
    };
    common_supertype(&as_decimal(a), &as_decimal(b))
}

fn finer(a: TimeUnit, b: TimeUnit) -> TimeUnit {
    let rank = |u: TimeUnit| match u {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    };
    if rank(a) >= rank(b) { a } else { b }
}
