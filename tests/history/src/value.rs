//! Values of rows, and their way into Arrow arrays and out of them.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, PrimitiveArray, StringArray,
};
use arrow::datatypes::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_schema::{DataType, TimeUnit};
use tandem_types::{Error, Result};

/// A value. Which type it has stands beside it: a timestamp is the integer of its ticks.
#[derive(Clone, Debug)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i128),
    /// Of 32 bits as well: every one of those is one of 64.
    Float(f64),
    Text(String),
}

impl Value {
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Int(_) => 2,
            Self::Float(_) => 3,
            Self::Text(_) => 4,
        }
    }
}

/// The order in which values of one type compare; null is the first, and equal to itself. Floats by their total order.
impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b),
            (Self::Text(a), Self::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            _ => self.kind().cmp(&other.kind()),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

/// As SQL says it, types left out.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Bool(b) => write!(f, "{b}"),
            Self::Int(i) => write!(f, "{i}"),
            Self::Float(x) => write!(f, "{x:?}"),
            Self::Text(s) => write!(f, "'{}'", s.replace('\'', "''")),
        }
    }
}

/// The value in one row of an array.
pub fn value_at(array: &dyn Array, row: usize) -> Result<Value> {
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    fn int<T: ArrowPrimitiveType>(array: &dyn Array, row: usize) -> Value
    where
        T::Native: Into<i128>,
    {
        Value::Int(array.as_primitive::<T>().value(row).into())
    }
    Ok(match array.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        DataType::Int8 => int::<Int8Type>(array, row),
        DataType::Int16 => int::<Int16Type>(array, row),
        DataType::Int32 => int::<Int32Type>(array, row),
        DataType::Int64 => int::<Int64Type>(array, row),
        DataType::UInt8 => int::<UInt8Type>(array, row),
        DataType::UInt16 => int::<UInt16Type>(array, row),
        DataType::UInt32 => int::<UInt32Type>(array, row),
        DataType::UInt64 => int::<UInt64Type>(array, row),
        DataType::Float32 => Value::Float(f64::from(array.as_primitive::<Float32Type>().value(row))),
        DataType::Float64 => Value::Float(array.as_primitive::<Float64Type>().value(row)),
        DataType::Timestamp(TimeUnit::Second, _) => int::<TimestampSecondType>(array, row),
        DataType::Timestamp(TimeUnit::Millisecond, _) => int::<TimestampMillisecondType>(array, row),
        DataType::Timestamp(TimeUnit::Microsecond, _) => int::<TimestampMicrosecondType>(array, row),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => int::<TimestampNanosecondType>(array, row),
        DataType::Utf8 => Value::Text(array.as_string::<i32>().value(row).to_owned()),
        DataType::LargeUtf8 => Value::Text(array.as_string::<i64>().value(row).to_owned()),
        DataType::Utf8View => Value::Text(array.as_string_view().value(row).to_owned()),
        other => return Err(Error::unsupported(format!("values of type {other}"))),
    })
}

/// An array of values, each of which must be one of `data_type`.
pub fn array_of(data_type: &DataType, values: &[Value]) -> Result<ArrayRef> {
    fn ints<T: ArrowPrimitiveType>(data_type: &DataType, values: &[Value]) -> Result<ArrayRef>
    where
        T::Native: TryFrom<i128>,
    {
        let array: PrimitiveArray<T> = values
            .iter()
            .map(|v| match v {
                Value::Null => Ok(None),
                Value::Int(i) => T::Native::try_from(*i).map(Some).map_err(|_| mismatch(data_type, v)),
                other => Err(mismatch(data_type, other)),
            })
            .collect::<Result<_>>()?;
        Ok(Arc::new(array.with_data_type(data_type.clone())))
    }
    let floats = || -> Result<Vec<Option<f64>>> {
        let float = |v: &Value| match v {
            Value::Null => Ok(None),
            Value::Float(x) => Ok(Some(*x)),
            other => Err(mismatch(data_type, other)),
        };
        values.iter().map(float).collect()
    };
    Ok(match data_type {
        DataType::Boolean => {
            let bool = |v: &Value| match v {
                Value::Null => Ok(None),
                Value::Bool(b) => Ok(Some(*b)),
                other => Err(mismatch(data_type, other)),
            };
            Arc::new(values.iter().map(bool).collect::<Result<BooleanArray>>()?)
        }
        DataType::Int8 => ints::<Int8Type>(data_type, values)?,
        DataType::Int16 => ints::<Int16Type>(data_type, values)?,
        DataType::Int32 => ints::<Int32Type>(data_type, values)?,
        DataType::Int64 => ints::<Int64Type>(data_type, values)?,
        DataType::UInt8 => ints::<UInt8Type>(data_type, values)?,
        DataType::UInt16 => ints::<UInt16Type>(data_type, values)?,
        DataType::UInt32 => ints::<UInt32Type>(data_type, values)?,
        DataType::UInt64 => ints::<UInt64Type>(data_type, values)?,
        DataType::Timestamp(TimeUnit::Second, _) => ints::<TimestampSecondType>(data_type, values)?,
        DataType::Timestamp(TimeUnit::Millisecond, _) => ints::<TimestampMillisecondType>(data_type, values)?,
        DataType::Timestamp(TimeUnit::Microsecond, _) => ints::<TimestampMicrosecondType>(data_type, values)?,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => ints::<TimestampNanosecondType>(data_type, values)?,
        DataType::Float32 => {
            Arc::new(floats()?.into_iter().map(|x| x.map(|x| x as f32)).collect::<Float32Array>())
        }
        DataType::Float64 => Arc::new(floats()?.into_iter().collect::<Float64Array>()),
        DataType::Utf8 => {
            let text = |v: &Value| match v {
                Value::Null => Ok(None),
                Value::Text(s) => Ok(Some(s.clone())),
                other => Err(mismatch(data_type, other)),
            };
            Arc::new(values.iter().map(text).collect::<Result<StringArray>>()?)
        }
        other => return Err(Error::unsupported(format!("values of type {other}"))),
    })
}

fn mismatch(data_type: &DataType, value: &Value) -> Error {
    Error::invalid(format!("{value} is no {data_type}"))
}
