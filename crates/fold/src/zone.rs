//! Ranges outside which a predicate is true nowhere, and the ranges that batches have.

use std::cell::OnceCell;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, IntervalUnit};
use tandem_format::BinaryOp;
use tandem_types::{ColumnId, widens_to};

use crate::code::words;
use crate::common::plain;
use crate::node::{Kind, Node};

/// A predicate is true only where a column lies from `low` to `high`, both included.
#[derive(Clone, Debug)]
pub(crate) struct Zone {
    pub(crate) column: ColumnId,
    /// The column's, as the statement saw it.
    pub(crate) data_type: DataType,
    low: i64,
    high: i64,
}

impl Zone {
    /// The range of a condition, if it is a comparison of a column with a constant, or a list.
    pub(crate) fn of(node: &Node) -> Option<Self> {
        let (of, low, high) = match &node.kind {
            Kind::Compare(op, a, b) => match (&a.kind, &b.kind) {
                (_, Kind::Literal(value)) => within(a, *op, value)?,
                (Kind::Literal(value), _) => within(b, mirrored(*op), value)?,
                _ => return None,
            },
            Kind::InList { of, list, negated: false } => {
                let (low, high) = span(&list.values)?;
                (of.as_ref(), low, high)
            }
            _ => return None,
        };
        let (column, data_type) = match &of.kind {
            Kind::Column(column) => (*column, &of.data_type),
            // Among integers widening keeps the keys as they are.
            Kind::Cast(inner) => match &inner.kind {
                Kind::Column(column) if comparable(&inner.data_type, &of.data_type) => {
                    (*column, &inner.data_type)
                }
                _ => return None,
            },
            _ => return None,
        };
        Some(Self { column, data_type: data_type.clone(), low, high })
    }

    pub(crate) fn overlaps(&self, span: (i64, i64)) -> bool {
        self.low <= span.1 && span.0 <= self.high
    }
}

/// Whether keys of values of a column, whose type was `from`, can be compared with those of type `to`.
pub(crate) fn comparable(from: &DataType, to: &DataType) -> bool {
    let (from, to) = (plain(from), plain(to));
    from == to || (from.is_integer() && to.is_integer() && to != DataType::UInt64 && widens_to(&from, &to))
}

fn within<'a>(of: &'a Node, op: BinaryOp, value: &ArrayRef) -> Option<(&'a Node, i64, i64)> {
    if value.logical_null_count() > 0 {
        return None;
    }
    let (key, _) = span(value)?;
    match op {
        BinaryOp::Eq => Some((of, key, key)),
        BinaryOp::Lt | BinaryOp::LtEq => Some((of, i64::MIN, key)),
        BinaryOp::Gt | BinaryOp::GtEq => Some((of, key, i64::MAX)),
        _ => None,
    }
}

/// The operator with its sides swapped.
fn mirrored(op: BinaryOp) -> BinaryOp {
    match op {
        BinaryOp::Lt => BinaryOp::Gt,
        BinaryOp::LtEq => BinaryOp::GtEq,
        BinaryOp::Gt => BinaryOp::Lt,
        BinaryOp::GtEq => BinaryOp::LtEq,
        other => other,
    }
}

/// The ranges of a batch's fields, each found when it is first asked for.
pub(crate) struct Spans<'a> {
    columns: &'a [ArrayRef],
    found: Vec<OnceCell<Option<(i64, i64)>>>,
}

impl<'a> Spans<'a> {
    pub(crate) fn new(columns: &'a [ArrayRef]) -> Self {
        Self { columns, found: columns.iter().map(|_| OnceCell::new()).collect() }
    }

    /// From the least to the greatest key, or a little more; `None` if that is not known.
    pub(crate) fn of(&self, field: usize) -> Option<(i64, i64)> {
        *self.found.get(field)?.get_or_init(|| span(self.columns.get(field)?))
    }
}

/// The least and the greatest key of an array's values. Below nulls may lie anything, which makes the range no smaller.
fn span(array: &ArrayRef) -> Option<(i64, i64)> {
    use DataType::{Boolean, Float16, Float32, Float64, UInt64};
    let key: fn(u64) -> i64 = match array.data_type() {
        Float16 => |word| ordered((word as i64) << 48),
        Float32 => |word| ordered((word as i64) << 32),
        Float64 => |word| ordered(word as i64),
        UInt64 => |word| (word ^ (1 << 63)) as i64,
        Boolean | DataType::Interval(IntervalUnit::YearMonth) => return None,
        _ => |word| word as i64,
    };
    let words = words(array.as_ref()).ok()?;
    let first = key(*words.first()?);
    Some(words.iter().fold((first, first), |(low, high), word| (low.min(key(*word)), high.max(key(*word)))))
}

/// The total order of IEEE 754.
fn ordered(bits: i64) -> i64 {
    bits ^ ((bits >> 63) & i64::MAX)
}
