//! The language of mutations, one value at a time: written from its definition, without a kernel.

use std::cell::Cell;
use std::cmp::Ordering;

use arrow_schema::{DataType, TimeUnit};
use bytes::Bytes;
use tandem_format::{BinaryOp, Expr, Literal};
use tandem_segment::{Limits, decode_section};
use tandem_types::{ColumnId, Error, Result, ticks_per_second};

use crate::value::{Value, value_at};

#[cfg(test)]
mod tests;

/// The row that an expression looks at.
pub trait Row {
    /// The column's type in the table now and its value; `None`: the table has no such column.
    fn column(&self, id: ColumnId) -> Option<(DataType, Value)>;
    /// The time of the commit, microseconds since 1970.
    fn now(&self) -> i64;
}

/// The type of an expression and its value; what cannot be computed is null.
pub fn eval(expr: &Expr, row: &dyn Row) -> Result<(DataType, Value)> {
    Ok(match expr {
        Expr::Column { column, data_type } => {
            let (has, value) = row
                .column(*column)
                .ok_or_else(|| Error::internal(format!("an expression reads the unknown column {column}")))?;
            (data_type.clone(), cast(value, &has, data_type)?)
        }
        Expr::Literal(literal) => {
            let (data_type, mut values) = constants(literal)?;
            match (values.pop(), values.is_empty()) {
                (Some(value), true) => (data_type, value),
                _ => return Err(Error::invalid("a literal that is not one value")),
            }
        }
        Expr::Now => {
            let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
            (utc, Value::Int(row.now().into()))
        }
        Expr::Binary { op, left, right } => {
            let (left, right) = (eval(left, row)?, eval(right, row)?);
            binary(*op, left, right)?
        }
        Expr::Not(of) => match eval(of, row)?.1 {
            Value::Bool(b) => boolean(!b),
            Value::Null => (DataType::Boolean, Value::Null),
            other => return Err(Error::invalid(format!("NOT {other}"))),
        },
        Expr::IsNull(of) => boolean(eval(of, row)?.1.is_null()),
        Expr::Negate(of) => {
            let (data_type, value) = eval(of, row)?;
            let value = match value {
                Value::Int(i) => fit(-i, &data_type),
                Value::Float(x) => Value::Float(-x),
                other => other,
            };
            (data_type, value)
        }
        Expr::InList { of, list, negated } => {
            let (_, value) = eval(of, row)?;
            let (_, list) = constants(list)?;
            let found = list.contains(&value);
            match value.is_null() || (!found && list.iter().any(Value::is_null)) {
                true => (DataType::Boolean, Value::Null),
                false => boolean(found != *negated),
            }
        }
        Expr::Cast { of, to } => {
            let (from, value) = eval(of, row)?;
            (to.clone(), cast(value, &from, to)?)
        }
        Expr::Case { branches, otherwise } => {
            let mut data_type = None;
            let mut chosen = None;
            for (when, then) in branches {
                let (of, value) = eval(then, row)?;
                data_type.get_or_insert(of);
                if chosen.is_none() && eval(when, row)?.1 == Value::Bool(true) {
                    chosen = Some(value);
                }
            }
            if let Some(otherwise) = otherwise {
                let (of, value) = eval(otherwise, row)?;
                data_type.get_or_insert(of);
                chosen.get_or_insert(value);
            }
            (data_type.unwrap_or(DataType::Null), chosen.unwrap_or(Value::Null))
        }
        Expr::Like { of, pattern, negated, ignore_case } => match (eval(of, row)?.1, eval(pattern, row)?.1) {
            (Value::Text(text), Value::Text(pattern)) => {
                let fold = |s: String| if *ignore_case { s.to_lowercase() } else { s };
                let text: Vec<char> = fold(text).chars().collect();
                let pattern: Vec<char> = fold(pattern).chars().collect();
                boolean(like(&text, &pattern) != *negated)
            }
            _ => (DataType::Boolean, Value::Null),
        },
    })
}

fn boolean(b: bool) -> (DataType, Value) {
    (DataType::Boolean, Value::Bool(b))
}

/// The type and the values of a literal.
pub fn constants(literal: &Literal) -> Result<(DataType, Vec<Value>)> {
    let decoded = decode_section(&Bytes::from(literal.ipc.clone()), None, &Limits::default())?;
    let field =
        decoded.schema.fields().first().ok_or_else(|| Error::invalid("a literal without a column"))?;
    let mut values = Vec::new();
    for batch in &decoded.batches {
        for row in 0..batch.num_rows() {
            values.push(value_at(batch.column(0), row)?);
        }
    }
    Ok((field.data_type().clone(), values))
}

fn binary(
    op: BinaryOp,
    (data_type, left): (DataType, Value),
    (_, right): (DataType, Value),
) -> Result<(DataType, Value)> {
    use BinaryOp as Op;
    let distinct = left != right;
    match op {
        Op::IsDistinctFrom => return Ok(boolean(distinct)),
        Op::IsNotDistinctFrom => return Ok(boolean(!distinct)),
        Op::And | Op::Or => return logic(op == Op::And, &left, &right),
        _ => {}
    }
    let compared = matches!(op, Op::Eq | Op::NotEq | Op::Lt | Op::LtEq | Op::Gt | Op::GtEq);
    if left.is_null() || right.is_null() {
        return Ok((if compared { DataType::Boolean } else { data_type }, Value::Null));
    }
    if compared {
        let order = left.cmp(&right);
        return Ok(boolean(match op {
            Op::Eq => order == Ordering::Equal,
            Op::NotEq => order != Ordering::Equal,
            Op::Lt => order == Ordering::Less,
            Op::LtEq => order != Ordering::Greater,
            Op::Gt => order == Ordering::Greater,
            _ => order != Ordering::Less,
        }));
    }
    let value = match (left, right) {
        (Value::Text(a), Value::Text(b)) if op == Op::Concat => Value::Text(a + &b),
        (Value::Int(a), Value::Int(b)) => match op {
            Op::Add => fit(a + b, &data_type),
            Op::Subtract => fit(a - b, &data_type),
            Op::Multiply => a.checked_mul(b).map_or(Value::Null, |c| fit(c, &data_type)),
            Op::Divide | Op::Modulo if b == 0 => Value::Null,
            Op::Divide => fit(a / b, &data_type),
            Op::Modulo => Value::Int(a % b),
            _ => return Err(Error::invalid(format!("{op:?} of integers"))),
        },
        (Value::Float(a), Value::Float(b)) => {
            let value = match op {
                Op::Add => a + b,
                Op::Subtract => a - b,
                Op::Multiply => a * b,
                Op::Divide => a / b,
                Op::Modulo => a % b,
                _ => return Err(Error::invalid(format!("{op:?} of floats"))),
            };
            // One operation in 64 bits, rounded, is the operation in 32.
            Value::Float(if data_type == DataType::Float32 { f64::from(value as f32) } else { value })
        }
        (a, b) => return Err(Error::invalid(format!("{a} {op:?} {b}"))),
    };
    Ok((data_type, value))
}

/// AND and OR of three values: what decides, decides whatever the other side is.
fn logic(and: bool, left: &Value, right: &Value) -> Result<(DataType, Value)> {
    let decides = Value::Bool(!and);
    let of_booleans = |v: &Value| matches!(v, Value::Bool(_) | Value::Null);
    if !of_booleans(left) || !of_booleans(right) {
        return Err(Error::invalid(format!("AND or OR of {left} and {right}")));
    }
    let value = if *left == decides || *right == decides {
        decides
    } else if left.is_null() || right.is_null() {
        Value::Null
    } else {
        Value::Bool(and)
    };
    Ok((DataType::Boolean, value))
}

/// The first and the last integer of a type.
fn bounds(data_type: &DataType) -> Option<(i128, i128)> {
    Some(match data_type {
        DataType::Int8 => (i8::MIN.into(), i8::MAX.into()),
        DataType::Int16 => (i16::MIN.into(), i16::MAX.into()),
        DataType::Int32 => (i32::MIN.into(), i32::MAX.into()),
        DataType::Int64 | DataType::Timestamp(_, _) => (i64::MIN.into(), i64::MAX.into()),
        DataType::UInt8 => (0, u8::MAX.into()),
        DataType::UInt16 => (0, u16::MAX.into()),
        DataType::UInt32 => (0, u32::MAX.into()),
        DataType::UInt64 => (0, u64::MAX.into()),
        _ => return None,
    })
}

fn fit(i: i128, data_type: &DataType) -> Value {
    match bounds(data_type) {
        Some((first, last)) if first <= i && i <= last => Value::Int(i),
        _ => {
            OVERFLOWED.set(true);
            Value::Null
        }
    }
}

thread_local! {
    static OVERFLOWED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a whole number did not fit its type in what this thread evaluated since it asked last. A query wraps such a
/// number around, the log makes it null: which of the two a statement means is not settled by its words.
pub fn has_overflowed() -> bool {
    OVERFLOWED.take()
}

/// A value of another type; null where it has none there.
pub fn cast(value: Value, from: &DataType, to: &DataType) -> Result<Value> {
    use DataType::{Boolean, Float32, Float64, Timestamp};
    if from == to {
        return Ok(value);
    }
    let text = |t: &DataType| matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    Ok(match (value, to) {
        (Value::Null, _) => Value::Null,
        (Value::Int(ticks), Timestamp(unit, _)) => match from {
            Timestamp(had, _) => {
                let (had, wanted) = (ticks_per_second(*had), ticks_per_second(*unit));
                fit(ticks * i128::from(wanted) / i128::from(had), to)
            }
            _ => fit(ticks, to),
        },
        (Value::Int(i), Boolean) => Value::Bool(i != 0),
        (Value::Int(i), Float32) => Value::Float(f64::from(i as f32)),
        (Value::Int(i), Float64) => Value::Float(i as f64),
        (Value::Int(i), t) if bounds(t).is_some() => fit(i, to),
        (Value::Int(i), t) if text(t) && !matches!(from, Timestamp(_, _)) => Value::Text(i.to_string()),
        (Value::Float(x), Float32) => Value::Float(f64::from(x as f32)),
        (Value::Float(x), Float64) => Value::Float(x),
        (Value::Float(x), t) if bounds(t).is_some() => match x.is_finite() && x.abs() < 1e30 {
            true => fit(x.trunc() as i128, to),
            false => Value::Null,
        },
        (Value::Bool(b), t) if bounds(t).is_some() => Value::Int(b.into()),
        (Value::Bool(b), t) if text(t) => Value::Text(b.to_string()),
        (Value::Text(s), t) if text(t) => Value::Text(s),
        (Value::Text(s), t) if bounds(t).is_some() => s.parse().map_or(Value::Null, |i| fit(i, to)),
        (value, to) => return Err(Error::unsupported(format!("a cast of {value} from {from} to {to}"))),
    })
}

/// `%`: any run of characters; `_`: any one; `\`: the next one as it is.
fn like(text: &[char], pattern: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['%', rest @ ..] => (0..=text.len()).any(|from| like(&text[from..], rest)),
        ['_', rest @ ..] => !text.is_empty() && like(&text[1..], rest),
        ['\\', c, rest @ ..] | [c, rest @ ..] => text.first() == Some(c) && like(&text[1..], rest),
    }
}
