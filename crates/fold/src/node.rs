//! Expressions whose types are settled, and their evaluation.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, new_null_array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::kernels::boolean::{and_kleene, is_null, not, or_kleene};
use arrow::compute::kernels::cmp;
use arrow::compute::kernels::comparison::{ilike, like, nilike, nlike};
use arrow::compute::kernels::concat_elements::concat_elements_dyn;
use arrow::compute::kernels::nullif::nullif;
use arrow::compute::kernels::numeric;
use arrow::compute::kernels::zip::zip;
use arrow::compute::{CastOptions, cast_with_options, prep_null_mask_filter};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use tandem_format::BinaryOp;
use tandem_types::{ColumnId, Error, Result};

use crate::broken;
use crate::kernel::{Value, run};
use crate::key_table::KeyTable;

/// The rows that an expression is evaluated over.
pub(crate) trait Rows {
    fn len(&self) -> usize;
    /// A column's values, in any type that casts to the one the expression wants.
    fn column(&self, id: ColumnId) -> Result<ArrayRef>;
}

/// An expression with the type of its values, which is plain: no dictionary.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) data_type: DataType,
}

/// What [`tandem_format::Expr`] says, with casts put in where types differ.
#[derive(Debug)]
pub(crate) enum Kind {
    Column(ColumnId),
    /// One value.
    Literal(ArrayRef),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    /// Operands of one type.
    Compare(BinaryOp, Box<Node>, Box<Node>),
    Arithmetic(BinaryOp, Box<Node>, Box<Node>),
    Concat(Box<Node>, Box<Node>),
    Not(Box<Node>),
    IsNull(Box<Node>),
    Negate(Box<Node>),
    InList {
        of: Box<Node>,
        list: Arc<List>,
        negated: bool,
    },
    Cast(Box<Node>),
    Case {
        branches: Vec<(Node, Node)>,
        otherwise: Option<Box<Node>>,
    },
    Like {
        of: Box<Node>,
        pattern: Box<Node>,
        negated: bool,
        ignore_case: bool,
    },
}

/// The list of an `IN`.
#[derive(Debug)]
pub(crate) struct List {
    /// Without nulls.
    pub(crate) values: ArrayRef,
    pub(crate) has_null: bool,
    pub(crate) table: KeyTable,
}

impl Node {
    /// Whether its value is the same for all rows.
    pub(crate) fn is_literal(&self) -> bool {
        matches!(self.kind, Kind::Literal(_))
    }

    /// Its value for each row, or for all.
    pub(crate) fn evaluate(&self, rows: &dyn Rows) -> Result<Value> {
        let count = rows.len();
        match &self.kind {
            Kind::Column(id) => {
                let value = Value::Rows(rows.column(*id)?);
                cast_value(value, count, &self.data_type)
            }
            Kind::Literal(value) => Ok(Value::One(value.clone())),
            Kind::And(left, right) => logic(left.evaluate(rows)?, right.evaluate(rows)?, count, and_kleene),
            Kind::Or(left, right) => logic(left.evaluate(rows)?, right.evaluate(rows)?, count, or_kleene),
            Kind::Compare(op, left, right) => {
                let operands = [left.evaluate(rows)?, right.evaluate(rows)?];
                run(&|o| compare(*op, o), &operands, count, &self.data_type)
            }
            Kind::Arithmetic(op, left, right) => {
                let operands = [left.evaluate(rows)?, right.evaluate(rows)?];
                arithmetic_rows(*op, operands, count, &self.data_type)
            }
            Kind::Concat(left, right) => {
                // The kernel knows no single values.
                let spread = |value: Value| value.spread(count).map(Value::Rows);
                let operands = [spread(left.evaluate(rows)?)?, spread(right.evaluate(rows)?)?];
                run(&concat_strings, &operands, count, &self.data_type)
            }
            Kind::Not(of) => run(&negation, &[of.evaluate(rows)?], count, &self.data_type),
            Kind::IsNull(of) => {
                run(&|o| Ok(Arc::new(is_null(one(o)?)?)), &[of.evaluate(rows)?], count, &self.data_type)
            }
            Kind::Negate(of) => run(&negative, &[of.evaluate(rows)?], count, &self.data_type),
            Kind::InList { of, list, negated } => in_list(&of.evaluate(rows)?, list, *negated),
            Kind::Cast(of) => cast_value(of.evaluate(rows)?, count, &self.data_type),
            Kind::Case { branches, otherwise } => self.case(branches, otherwise.as_deref(), rows),
            Kind::Like { of, pattern, negated, ignore_case } => {
                let operands = [of.evaluate(rows)?, pattern.evaluate(rows)?];
                run(&|o| matches(o, *negated, *ignore_case), &operands, count, &self.data_type)
            }
        }
    }

    /// From the last branch to the first: what an earlier one selects covers what later ones gave.
    fn case(&self, branches: &[(Node, Node)], otherwise: Option<&Node>, rows: &dyn Rows) -> Result<Value> {
        let mut value = match otherwise {
            Some(node) => node.evaluate(rows)?,
            None => Value::One(new_null_array(&self.data_type, 1)),
        };
        for (when, then) in branches.iter().rev() {
            let when = when.evaluate(rows)?;
            let Some(selected) = when.array().as_boolean_opt() else {
                return Err(Error::internal("a condition is not boolean"));
            };
            if let Value::One(_) = when {
                if selected.iter().next().flatten() == Some(true) {
                    value = then.evaluate(rows)?;
                }
                continue;
            }
            if !selected.has_true() {
                continue;
            }
            let then = then.evaluate(rows)?;
            // Of two single values the kernel damages the second, if it is a short string in a view.
            let others = Value::Rows(value.spread(rows.len())?);
            value = Value::Rows(zip(selected, &then, &others).map_err(broken)?);
        }
        Ok(value)
    }
}

/// The one operand.
fn one(operands: &[Value]) -> Result<&ArrayRef, ArrowError> {
    match operands {
        [value] => Ok(value.array()),
        _ => Err(ArrowError::InvalidArgumentError("one operand is expected".into())),
    }
}

/// Both operands.
fn two(operands: &[Value]) -> Result<(&Value, &Value), ArrowError> {
    match operands {
        [left, right] => Ok((left, right)),
        _ => Err(ArrowError::InvalidArgumentError("two operands are expected".into())),
    }
}

/// Casts to a plain type; what does not fit is null.
pub(crate) fn cast_value(value: Value, rows: usize, to: &DataType) -> Result<Value> {
    if value.array().data_type() == to {
        return Ok(value);
    }
    let options = CastOptions { safe: true, ..CastOptions::default() };
    run(&|o| cast_with_options(one(o)?, to, &options), &[value], rows, to)
}

type Logic = fn(&BooleanArray, &BooleanArray) -> Result<BooleanArray, ArrowError>;

fn logic(left: Value, right: Value, rows: usize, op: Logic) -> Result<Value> {
    let combine = |left: &ArrayRef, right: &ArrayRef| -> Result<ArrayRef> {
        let (Some(left), Some(right)) = (left.as_boolean_opt(), right.as_boolean_opt()) else {
            return Err(Error::internal("an operand of AND or OR is not boolean"));
        };
        Ok(Arc::new(op(left, right).map_err(broken)?))
    };
    match (&left, &right) {
        (Value::One(a), Value::One(b)) => Ok(Value::One(combine(a, b)?)),
        _ => Ok(Value::Rows(combine(&left.spread(rows)?, &right.spread(rows)?)?)),
    }
}

pub(crate) fn compare(op: BinaryOp, operands: &[Value]) -> Result<ArrayRef, ArrowError> {
    let (left, right) = two(operands)?;
    Ok(Arc::new(match op {
        BinaryOp::Eq => cmp::eq(left, right)?,
        BinaryOp::NotEq => cmp::neq(left, right)?,
        BinaryOp::Lt => cmp::lt(left, right)?,
        BinaryOp::LtEq => cmp::lt_eq(left, right)?,
        BinaryOp::Gt => cmp::gt(left, right)?,
        BinaryOp::GtEq => cmp::gt_eq(left, right)?,
        BinaryOp::IsDistinctFrom => cmp::distinct(left, right)?,
        BinaryOp::IsNotDistinctFrom => cmp::not_distinct(left, right)?,
        other => return Err(ArrowError::InvalidArgumentError(format!("{other:?} compares nothing"))),
    }))
}

pub(crate) fn arithmetic(op: BinaryOp, operands: &[Value]) -> Result<ArrayRef, ArrowError> {
    let (left, right) = two(operands)?;
    match op {
        BinaryOp::Add => numeric::add(left, right),
        BinaryOp::Subtract => numeric::sub(left, right),
        BinaryOp::Multiply => numeric::mul(left, right),
        BinaryOp::Divide => numeric::div(left, right),
        BinaryOp::Modulo => numeric::rem(left, right),
        other => Err(ArrowError::InvalidArgumentError(format!("{other:?} computes nothing"))),
    }
}

/// Divisors that are zero become null first: they are the one failure that may be in every other row.
fn arithmetic_rows(op: BinaryOp, operands: [Value; 2], rows: usize, to: &DataType) -> Result<Value> {
    let kernel = |o: &[Value]| arithmetic(op, o);
    let [_, divisor] = &operands;
    let divides = matches!(op, BinaryOp::Divide | BinaryOp::Modulo);
    if !divides || divisor.array().data_type().is_floating() {
        return run(&kernel, &operands, rows, to);
    }
    let [dividend, divisor] = operands;
    let divisor = match divisor {
        Value::One(array) => Value::One(without_zeros(&array)?),
        Value::Rows(array) => Value::Rows(without_zeros(&array)?),
    };
    run(&kernel, &[dividend, divisor], rows, to)
}

fn without_zeros(divisor: &ArrayRef) -> Result<ArrayRef> {
    let zero = arrow::array::Int8Array::from_value(0, 1);
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let Ok(zero) = cast_with_options(&zero, divisor.data_type(), &options) else {
        return Ok(divisor.clone());
    };
    let zeros = cmp::eq(&divisor.as_ref(), &arrow::array::Scalar::new(zero)).map_err(broken)?;
    if !zeros.has_true() {
        return Ok(divisor.clone());
    }
    nullif(divisor, &zeros).map_err(broken)
}

pub(crate) fn concat_strings(operands: &[Value]) -> Result<ArrayRef, ArrowError> {
    let (left, right) = two(operands)?;
    concat_elements_dyn(left.array(), right.array())
}

pub(crate) fn negative(operands: &[Value]) -> Result<ArrayRef, ArrowError> {
    numeric::neg(one(operands)?.as_ref())
}

fn negation(operands: &[Value]) -> Result<ArrayRef, ArrowError> {
    let operand = one(operands)?;
    let operand = operand
        .as_boolean_opt()
        .ok_or_else(|| ArrowError::InvalidArgumentError("the operand of NOT is not boolean".into()))?;
    Ok(Arc::new(not(operand)?))
}

pub(crate) fn matches(operands: &[Value], negated: bool, ignore_case: bool) -> Result<ArrayRef, ArrowError> {
    let (of, pattern) = two(operands)?;
    Ok(Arc::new(match (negated, ignore_case) {
        (false, false) => like(of, pattern)?,
        (true, false) => nlike(of, pattern)?,
        (false, true) => ilike(of, pattern)?,
        (true, true) => nilike(of, pattern)?,
    }))
}

/// True if found; else null if the value, or anything in the list, is null; else false. Nothing is in an empty list.
fn in_list(of: &Value, list: &List, negated: bool) -> Result<Value> {
    let array = of.array();
    let mut found = vec![false; array.len()];
    list.table.probe(std::slice::from_ref(array), |row, _| {
        if let Some(found) = found.get_mut(row) {
            *found = true;
        }
    })?;
    let found = BooleanBuffer::from(found);
    let nulls = if list.values.is_empty() && !list.has_null {
        None
    } else {
        let valid = array.logical_nulls().filter(|n| n.null_count() > 0);
        match (valid, list.has_null) {
            // A null is not found, so that only found ones are known.
            (_, true) => Some(NullBuffer::new(found.clone())),
            (valid, false) => valid,
        }
    };
    let found = if negated { !&found } else { found };
    let array: ArrayRef = Arc::new(BooleanArray::new(found, nulls));
    Ok(match of {
        Value::Rows(_) => Value::Rows(array),
        Value::One(_) => Value::One(array),
    })
}

/// For each row whether a predicate is true; neither false nor null is.
pub(crate) fn is_true(predicate: &Node, rows: &dyn Rows) -> Result<BooleanBuffer> {
    let value = predicate.evaluate(rows)?.spread(rows.len())?;
    let array = value.as_boolean_opt().ok_or_else(|| Error::internal("a predicate is not boolean"))?;
    Ok(if array.null_count() > 0 {
        prep_null_mask_filter(array).values().clone()
    } else {
        array.values().clone()
    })
}
