//! Rows as maps of values, and expressions computed one row at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, NullArray, StringArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use tandem_format::{BinaryOp, Expr, Literal};

use super::{dictionary, micros};
use crate::{literal_array, literal_of};

/// A value; times are integers.
#[derive(Clone, Debug)]
pub(super) enum V {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

use V::{Bool, Float, Int, Null, Text};

impl PartialEq for V {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Null, Null) => true,
            (Bool(a), Bool(b)) => a == b,
            (Int(a), Int(b)) => a == b,
            (Float(a), Float(b)) => a.to_bits() == b.to_bits(),
            (Text(a), Text(b)) => a == b,
            _ => false,
        }
    }
}

impl V {
    pub(super) fn is_null(&self) -> bool {
        *self == Null
    }
}

/// Values by column id.
pub(super) type Row = BTreeMap<u32, V>;

/// The columns of the tests' table: id, type, whether it may be null.
pub(super) fn columns() -> Vec<(u32, DataType, bool)> {
    vec![
        (1, DataType::Int64, true),
        (2, DataType::Int64, true),
        (3, DataType::Utf8, true),
        (4, DataType::Float64, true),
        (5, DataType::Boolean, true),
        (6, micros(), false),
        (7, DataType::Int32, false),
    ]
}

/// The ways in which Arrow may hold column 3.
pub(super) fn text_types() -> [DataType; 3] {
    [DataType::Utf8, dictionary(), DataType::Utf8View]
}

pub(super) fn array(values: &[V], to: &DataType) -> ArrayRef {
    let int = |v: &V| if let Int(v) = v { Some(*v) } else { None };
    let plain: ArrayRef = match to {
        DataType::Null => Arc::new(NullArray::new(values.len())),
        DataType::Boolean => {
            let bool = |v: &V| if let Bool(v) = v { Some(*v) } else { None };
            Arc::new(values.iter().map(bool).collect::<BooleanArray>())
        }
        DataType::Float64 => {
            let float = |v: &V| if let Float(v) = v { Some(*v) } else { None };
            Arc::new(values.iter().map(float).collect::<Float64Array>())
        }
        DataType::Int32 | DataType::Int64 | DataType::Timestamp(..) => {
            Arc::new(values.iter().map(int).collect::<Int64Array>())
        }
        _ => {
            let text = |v: &V| if let Text(v) = v { Some(v.clone()) } else { None };
            Arc::new(values.iter().map(text).collect::<StringArray>())
        }
    };
    cast(&plain, to).unwrap()
}

pub(super) fn values(array: &ArrayRef) -> Vec<V> {
    fn each<T>(values: impl Iterator<Item = Option<T>>, to: impl Fn(T) -> V) -> Vec<V> {
        values.map(|v| v.map_or(Null, &to)).collect()
    }
    let as_type = |t: &DataType| cast(array, t).unwrap();
    match array.data_type() {
        DataType::Null => vec![Null; array.len()],
        DataType::Boolean => each(array.as_boolean().iter(), Bool),
        DataType::Float64 | DataType::Float32 => {
            each(as_type(&DataType::Float64).as_primitive::<Float64Type>().iter(), Float)
        }
        t if t.is_integer() || matches!(t, DataType::Timestamp(..)) => {
            each(as_type(&DataType::Int64).as_primitive::<Int64Type>().iter(), Int)
        }
        _ => each(as_type(&DataType::Utf8).as_string::<i32>().iter(), |v| Text(v.to_owned())),
    }
}

pub(super) fn literal(values: &[V], of: &DataType) -> Literal {
    literal_of(&array(values, of)).unwrap()
}

/// What an expression is for one row.
pub(super) fn evaluate(expr: &Expr, row: &Row) -> V {
    match expr {
        Expr::Column { column, .. } => row[&column.0].clone(),
        Expr::Literal(literal) => values(&literal_array(literal).unwrap()).remove(0),
        Expr::Now => Int(super::NOW),
        Expr::Binary { op, left, right } => binary(*op, evaluate(left, row), evaluate(right, row)),
        Expr::Not(of) => not(evaluate(of, row)),
        Expr::IsNull(of) => Bool(evaluate(of, row).is_null()),
        Expr::Negate(of) => match evaluate(of, row) {
            Int(v) => v.checked_neg().map_or(Null, Int),
            Float(v) => Float(-v),
            _ => Null,
        },
        Expr::InList { of, list, negated } => {
            let list = values(&literal_array(list).unwrap());
            let of = evaluate(of, row);
            let found = match &of {
                _ if list.is_empty() => Bool(false),
                Null => Null,
                of if list.contains(of) => Bool(true),
                _ if list.contains(&Null) => Null,
                _ => Bool(false),
            };
            if *negated { not(found) } else { found }
        }
        Expr::Cast { of, to } => cast_value(evaluate(of, row), to),
        Expr::Case { branches, otherwise } => {
            let branch = branches.iter().find(|(when, _)| evaluate(when, row) == Bool(true));
            match (branch, otherwise) {
                (Some((_, then)), _) => evaluate(then, row),
                (None, Some(otherwise)) => evaluate(otherwise, row),
                (None, None) => Null,
            }
        }
        Expr::Like { of, pattern, negated, ignore_case } => {
            let (Text(mut of), Text(mut pattern)) = (evaluate(of, row), evaluate(pattern, row)) else {
                return Null;
            };
            if *ignore_case {
                (of, pattern) = (of.to_lowercase(), pattern.to_lowercase());
            }
            let of: Vec<char> = of.chars().collect();
            let pattern: Vec<char> = pattern.chars().collect();
            Bool(like(&of, &pattern) != *negated)
        }
    }
}

fn not(value: V) -> V {
    if let Bool(v) = value { Bool(!v) } else { Null }
}

pub(super) fn cast_value(value: V, to: &DataType) -> V {
    match (value, to) {
        (Int(v), DataType::Int32) => i32::try_from(v).map_or(Null, |v| Int(v.into())),
        (Int(v), DataType::Float64) => Float(v as f64),
        (Int(v), DataType::Utf8) => Text(v.to_string()),
        (Float(v), DataType::Int64) => {
            let whole = v.trunc();
            let fits = (-(2f64.powi(63))..2f64.powi(63)).contains(&whole);
            if fits { Int(whole as i64) } else { Null }
        }
        (Text(v), DataType::Int64) => v.parse().map_or(Null, Int),
        (value, _) => value,
    }
}

fn like(of: &[char], pattern: &[char]) -> bool {
    match pattern {
        [] => of.is_empty(),
        ['%', rest @ ..] => (0..=of.len()).any(|skip| like(&of[skip..], rest)),
        ['_', rest @ ..] => !of.is_empty() && like(&of[1..], rest),
        [c, rest @ ..] => of.first() == Some(c) && like(&of[1..], rest),
    }
}

fn binary(op: BinaryOp, left: V, right: V) -> V {
    use BinaryOp::*;
    match op {
        And => match (&left, &right) {
            (Bool(false), _) | (_, Bool(false)) => Bool(false),
            (Bool(true), Bool(true)) => Bool(true),
            _ => Null,
        },
        Or => not(binary(And, not(left), not(right))),
        IsDistinctFrom => Bool(left != right),
        IsNotDistinctFrom => Bool(left == right),
        _ if left.is_null() || right.is_null() => Null,
        Eq => Bool(left == right),
        NotEq => Bool(left != right),
        Lt => Bool(order(&left, &right).is_lt()),
        LtEq => Bool(order(&left, &right).is_le()),
        Gt => Bool(order(&left, &right).is_gt()),
        GtEq => Bool(order(&left, &right).is_ge()),
        Concat => match (left, right) {
            (Text(a), Text(b)) => Text(a + &b),
            _ => Null,
        },
        Add | Subtract | Multiply | Divide | Modulo => match (left, right) {
            (Int(a), Int(b)) => {
                let result = match op {
                    Add => a.checked_add(b),
                    Subtract => a.checked_sub(b),
                    Multiply => a.checked_mul(b),
                    Divide => a.checked_div(b),
                    // The remainder of the least integer by -1 is 0, as Arrow has it.
                    _ if b == -1 => Some(0),
                    _ => a.checked_rem(b),
                };
                result.map_or(Null, Int)
            }
            (Float(a), Float(b)) => Float(match op {
                Add => a + b,
                Subtract => a - b,
                Multiply => a * b,
                Divide => a / b,
                _ => a % b,
            }),
            _ => Null,
        },
    }
}

fn order(left: &V, right: &V) -> std::cmp::Ordering {
    match (left, right) {
        (Bool(a), Bool(b)) => a.cmp(b),
        (Int(a), Int(b)) => a.cmp(b),
        (Float(a), Float(b)) => a.total_cmp(b),
        (Text(a), Text(b)) => a.cmp(b),
        _ => panic!("{left:?} and {right:?} are not compared"),
    }
}
