//! Running Arrow's kernels so that a row that fails is null and its neighbours are not.

use arrow::array::{Array, ArrayRef, Datum, UInt32Array, new_null_array};
use arrow::compute::{concat, take};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use tandem_segment::guard::guarded;
use tandem_types::{Error, Result};

use crate::broken;

/// What an expression is for a batch: a value per row, or one for all rows.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Rows(ArrayRef),
    One(ArrayRef),
}

impl Value {
    pub(crate) fn array(&self) -> &ArrayRef {
        match self {
            Self::Rows(array) | Self::One(array) => array,
        }
    }

    /// A value per row.
    pub(crate) fn spread(&self, rows: usize) -> Result<ArrayRef> {
        match self {
            Self::Rows(array) => Ok(array.clone()),
            Self::One(array) if rows == 1 => Ok(array.clone()),
            Self::One(array) => take(array, &UInt32Array::from_value(0, rows), None).map_err(broken),
        }
    }

    fn slice(&self, start: usize, rows: usize) -> Self {
        match self {
            Self::Rows(array) => Self::Rows(array.slice(start, rows)),
            Self::One(array) => Self::One(array.clone()),
        }
    }
}

impl Datum for Value {
    fn get(&self) -> (&dyn Array, bool) {
        match self {
            Self::Rows(array) => (array.as_ref(), false),
            Self::One(array) => (array.as_ref(), true),
        }
    }
}

/// A computation over its operands, which are of one length or one value for all.
pub(crate) type Kernel<'a> = &'a dyn Fn(&[Value]) -> Result<ArrayRef, ArrowError>;

/// Runs a kernel over `rows` rows; rows for which it fails, and only they, are null of type `to`. The error of a kernel
/// says nothing of where it failed, so the rows are halved until it does: a batch with few failures stays vectorised.
pub(crate) fn run(kernel: Kernel<'_>, operands: &[Value], rows: usize, to: &DataType) -> Result<Value> {
    if operands.iter().all(|o| matches!(o, Value::One(_))) {
        return Ok(Value::One(attempt(kernel, operands).unwrap_or_else(|_| new_null_array(to, 1))));
    }
    if let Ok(whole) = attempt(kernel, operands) {
        return Ok(Value::Rows(whole));
    }
    let mut parts = Vec::new();
    halve(kernel, operands, rows, to, &mut parts);
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    Ok(Value::Rows(concat(&parts).map_err(broken)?))
}

/// `operands` are known to fail.
fn halve(kernel: Kernel<'_>, operands: &[Value], rows: usize, to: &DataType, parts: &mut Vec<ArrayRef>) {
    if rows <= 1 {
        parts.push(new_null_array(to, rows));
        return;
    }
    let middle = rows / 2;
    for (start, rows) in [(0, middle), (middle, rows - middle)] {
        let half: Vec<Value> = operands.iter().map(|o| o.slice(start, rows)).collect();
        match attempt(kernel, &half) {
            Ok(array) => parts.push(array),
            Err(_) => halve(kernel, &half, rows, to, parts),
        }
    }
}

/// Runs a kernel once. A panic in it is a failure like others: no row may stop a table from being read.
pub(crate) fn attempt(kernel: Kernel<'_>, operands: &[Value]) -> Result<ArrayRef> {
    guarded("evaluating an expression", || kernel(operands).map_err(|e| Error::invalid(e.to_string())))
}
