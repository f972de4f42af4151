//! Rows of a result as `DataRow` messages.

mod binary;
mod text;

use std::borrow::Cow;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::json::writer::{EncoderOptions, make_encoder};
use arrow_schema::{DataType, FieldRef, TimeUnit};
use bytes::{BufMut, BytesMut};
use tandem_types::{Error, Result};

use crate::message::{Format, Output};
use crate::types::{oid, oid_of};

pub(crate) use binary::{EPOCH_DAYS, EPOCH_MICROS, numeric_text};
pub(crate) use text::{copy_csv, copy_text};

/// The rows of one batch, ready to be written one by one.
pub(crate) struct Rows {
    columns: Vec<Column>,
}

struct Column {
    array: ArrayRef,
    kind: Kind,
    format: Format,
    /// Of the items, where it is a list.
    item: u32,
}

/// How the values of an array are to be read. Each array is cast beforehand, so that there are few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Bool,
    Int16,
    Int32,
    Int64,
    /// As text already, of digits.
    Numeric,
    Float32,
    Float64,
    Text,
    Json,
    Bytes,
    /// Days since 1970.
    Date,
    /// Microseconds since midnight.
    Time,
    /// Microseconds since 1970.
    Timestamp,
    TimestampTz,
    Interval,
    List,
}

impl Rows {
    /// # Errors
    ///
    /// `InvalidInput` if a value cannot be told in PostgreSQL's types, such as a moment that its microseconds cannot hold.
    pub fn new(batch: &RecordBatch, formats: &[Format]) -> Result<Self> {
        let schema = batch.schema();
        let columns = batch.columns().iter().zip(schema.fields()).enumerate();
        let columns = columns.map(|(at, (array, field))| Column::new(array, field, Format::at(formats, at)));
        Ok(Self { columns: columns.collect::<Result<_>>()? })
    }

    /// Writes row `row` as a message.
    pub fn write(&self, row: usize, output: &mut Output) -> Result<()> {
        output.message(b'D', |out| {
            out.put_u16(u16::try_from(self.columns.len()).unwrap_or(u16::MAX));
            self.columns.iter().try_for_each(|column| column.write(row, out))
        })
    }

    /// The text of each value of a row; `None` is null.
    pub fn texts(&self, row: usize) -> Result<Vec<Option<String>>> {
        let texts = self.columns.iter().map(|column| {
            if column.is_null(row) {
                return Ok(None);
            }
            let mut out = BytesMut::new();
            column.value(row, &mut out)?;
            Ok(Some(String::from_utf8_lossy(&out).into_owned()))
        });
        texts.collect()
    }
}

impl Column {
    fn new(array: &ArrayRef, field: &FieldRef, format: Format) -> Result<Self> {
        let item = match array.data_type() {
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                oid_of(item.data_type())
            }
            _ => 0,
        };
        let (kind, array) = readable(array, field)?;
        Ok(Self { array, kind, format, item })
    }

    fn is_null(&self, row: usize) -> bool {
        self.kind == Kind::Null || self.array.is_null(row)
    }

    fn write(&self, row: usize, out: &mut BytesMut) -> Result<()> {
        if self.is_null(row) {
            out.put_i32(-1);
            return Ok(());
        }
        counted(out, |out| self.value(row, out))
    }

    fn value(&self, row: usize, out: &mut BytesMut) -> Result<()> {
        match (self.kind, self.format) {
            (Kind::List, Format::Text) => list_text(&self.array, row, out),
            (Kind::List, Format::Binary) => list_binary(&self.array, row, self.item, out),
            (kind, Format::Text) => {
                text::value(self.array.as_ref(), kind, row, out);
                Ok(())
            }
            (kind, Format::Binary) => binary::value(self.array.as_ref(), kind, row, out),
        }
    }
}

/// Bytes after their count.
fn counted(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut) -> Result<()>) -> Result<()> {
    let start = out.len();
    out.put_i32(0);
    write(out)?;
    let length = i32::try_from(out.len() - start - 4)
        .map_err(|_| Error::overloaded("a value has more than 2 GiB: read it over Flight"))?;
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

/// The array in one of the few types that are written, and which that is.
fn readable(array: &ArrayRef, field: &FieldRef) -> Result<(Kind, ArrayRef)> {
    use DataType as T;
    let micros = |zone: &Option<std::sync::Arc<str>>| T::Timestamp(TimeUnit::Microsecond, zone.clone());
    let (kind, to) = match array.data_type() {
        T::Null => return Ok((Kind::Null, array.clone())),
        T::Boolean => (Kind::Bool, T::Boolean),
        T::Int8 | T::Int16 | T::UInt8 => (Kind::Int16, T::Int16),
        T::Int32 | T::UInt16 => (Kind::Int32, T::Int32),
        T::Int64 | T::UInt32 => (Kind::Int64, T::Int64),
        T::UInt64 | T::Decimal32(..) | T::Decimal64(..) | T::Decimal128(..) | T::Decimal256(..) => {
            (Kind::Numeric, T::Utf8)
        }
        T::Float16 | T::Float32 => (Kind::Float32, T::Float32),
        T::Float64 => (Kind::Float64, T::Float64),
        T::Utf8 | T::LargeUtf8 | T::Utf8View => (Kind::Text, T::LargeUtf8),
        T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => (Kind::Bytes, T::LargeBinary),
        T::Date32 | T::Date64 => (Kind::Date, T::Date32),
        T::Time32(_) | T::Time64(_) => (Kind::Time, T::Time64(TimeUnit::Microsecond)),
        T::Timestamp(_, None) => (Kind::Timestamp, micros(&None)),
        T::Timestamp(_, zone) => (Kind::TimestampTz, micros(zone)),
        T::Duration(_) | T::Interval(_) => {
            (Kind::Interval, T::Interval(arrow_schema::IntervalUnit::MonthDayNano))
        }
        T::List(_) | T::LargeList(_) | T::FixedSizeList(..) if oid_of(array.data_type()) != oid::JSON => {
            return Ok((Kind::List, array.clone()));
        }
        T::Dictionary(_, value) => return readable(&cast_to(array, value, field)?, field),
        T::RunEndEncoded(_, values) => return readable(&cast_to(array, values.data_type(), field)?, field),
        _ => return Ok((Kind::Json, json(array, field)?)),
    };
    Ok((kind, cast_to(array, &to, field)?))
}

fn cast_to(array: &ArrayRef, to: &DataType, field: &FieldRef) -> Result<ArrayRef> {
    if array.data_type() == to {
        return Ok(array.clone());
    }
    // A value that does not fit is an error, not a null.
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, to, &strict).map_err(|e| {
        let from = array.data_type();
        Error::invalid(format!(
            "column {:?} of type {from} cannot be told in PostgreSQL's types: {e}",
            field.name()
        ))
    })
}

/// Structs, maps and what is within them, as JSON text.
fn json(array: &ArrayRef, field: &FieldRef) -> Result<ArrayRef> {
    let failed = |e| Error::invalid(format!("column {:?} cannot be told as JSON: {e}", field.name()));
    let options = EncoderOptions::default();
    let mut encoder = make_encoder(field, array.as_ref(), &options).map_err(failed)?;
    let texts = (0..array.len()).map(|row| {
        if array.is_null(row) {
            return None;
        }
        let mut text = Vec::new();
        encoder.encode(row, &mut text);
        Some(String::from_utf8_lossy(&text).into_owned())
    });
    Ok(std::sync::Arc::new(texts.collect::<arrow::array::LargeStringArray>()))
}

/// The items of a list's row.
fn items(array: &ArrayRef, row: usize) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::List(_) => Ok(array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => Ok(array.as_list::<i64>().value(row)),
        DataType::FixedSizeList(..) => Ok(array.as_fixed_size_list().value(row)),
        other => Err(Error::internal(format!("a column of type {other} was taken for a list"))),
    }
}

fn item_field(array: &ArrayRef) -> Result<FieldRef> {
    match array.data_type() {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            Ok(item.clone())
        }
        other => Err(Error::internal(format!("a column of type {other} was taken for a list"))),
    }
}

fn list_text(array: &ArrayRef, row: usize, out: &mut BytesMut) -> Result<()> {
    let (kind, values) = readable(&items(array, row)?, &item_field(array)?)?;
    out.put_u8(b'{');
    let mut item = BytesMut::new();
    for at in 0..values.len() {
        if at > 0 {
            out.put_u8(b',');
        }
        if kind == Kind::Null || values.is_null(at) {
            out.put_slice(b"NULL");
            continue;
        }
        item.clear();
        text::value(values.as_ref(), kind, at, &mut item);
        out.put_slice(&quoted_item(&item));
    }
    out.put_u8(b'}');
    Ok(())
}

/// An item of an array's text; quoted where it would not be read back as itself.
fn quoted_item(item: &[u8]) -> Cow<'_, [u8]> {
    let special = |byte: &u8| matches!(byte, b'{' | b'}' | b',' | b'"' | b'\\') || byte.is_ascii_whitespace();
    if !item.is_empty() && !item.iter().any(special) && !item.eq_ignore_ascii_case(b"null") {
        return Cow::Borrowed(item);
    }
    let mut quoted = vec![b'"'];
    for byte in item {
        if matches!(byte, b'"' | b'\\') {
            quoted.push(b'\\');
        }
        quoted.push(*byte);
    }
    quoted.push(b'"');
    Cow::Owned(quoted)
}

fn list_binary(array: &ArrayRef, row: usize, item: u32, out: &mut BytesMut) -> Result<()> {
    let (kind, values) = readable(&items(array, row)?, &item_field(array)?)?;
    let count = i32::try_from(values.len()).map_err(|_| Error::overloaded("a list has too many items"))?;
    let is_null = |at: usize| kind == Kind::Null || values.is_null(at);
    // An array without items has no dimensions.
    out.put_i32(i32::from(count > 0));
    out.put_i32(i32::from((0..values.len()).any(is_null)));
    out.put_u32(item);
    if count > 0 {
        out.put_i32(count);
        out.put_i32(1);
    }
    for at in 0..values.len() {
        if is_null(at) {
            out.put_i32(-1);
        } else {
            counted(out, |out| binary::value(values.as_ref(), kind, at, out))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
