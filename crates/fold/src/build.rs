//! Settling the types of an expression: what it cannot mean is refused here, not at its first row.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, TimestampMicrosecondArray, new_empty_array, new_null_array};
use arrow::compute::{can_cast_types, cast, filter, is_not_null};
use arrow::datatypes::DataType;
use tandem_format::{BinaryOp, Expr, Literal, MAX_EXPR_DEPTH};
use tandem_segment::guard::guarded;
use tandem_types::{ColumnId, Error, Result};

use crate::broken;
use crate::common::{common, is_bytes, is_text, plain};
use crate::kernel::{Kernel, Value, attempt};
use crate::key_table::KeyTable;
use crate::literal::literal_array;
use crate::node::{Kind, List, Node, Rows, arithmetic, compare, concat_strings, matches, negative};

/// The type of an expression's values; dictionaries count as their values.
///
/// # Errors
///
/// Those of [`crate::bind`]: the expression cannot be evaluated whatever the rows.
pub fn type_of(expr: &Expr) -> Result<DataType> {
    Ok(build(expr, 0)?.data_type)
}

/// The expression with its types settled. `now` is the commit's time in microseconds since 1970.
pub(crate) fn build(expr: &Expr, now: i64) -> Result<Node> {
    let depth = expr.depth();
    if depth > MAX_EXPR_DEPTH {
        return Err(Error::unsupported(format!(
            "an expression nests {depth} deep, {MAX_EXPR_DEPTH} levels are allowed"
        )));
    }
    guarded("settling the types of an expression", || Builder { now }.build(expr))
}

/// A condition: true, false or null.
pub(crate) fn build_predicate(expr: &Expr, now: i64) -> Result<Node> {
    boolean(build(expr, now)?, "a predicate")
}

struct Builder {
    now: i64,
}

impl Builder {
    fn build(&self, expr: &Expr) -> Result<Node> {
        let node = match expr {
            Expr::Column { column, data_type } => {
                Node { kind: Kind::Column(*column), data_type: plain(data_type) }
            }
            Expr::Literal(literal) => constant(one_value(literal)?),
            Expr::Now => {
                let now = TimestampMicrosecondArray::from(vec![self.now]).with_timezone("UTC");
                constant(Arc::new(now))
            }
            Expr::Binary { op, left, right } => binary(*op, self.build(left)?, self.build(right)?)?,
            Expr::Not(of) => {
                let of = boolean(self.build(of)?, "the operand of NOT")?;
                Node { kind: Kind::Not(Box::new(of)), data_type: DataType::Boolean }
            }
            Expr::IsNull(of) => {
                Node { kind: Kind::IsNull(Box::new(self.build(of)?)), data_type: DataType::Boolean }
            }
            Expr::Negate(of) => self.negate(of)?,
            Expr::InList { of, list, negated } => self.in_list(of, list, *negated)?,
            Expr::Cast { of, to } => cast_to(self.build(of)?, &plain(to))?,
            Expr::Case { branches, otherwise } => self.case(branches, otherwise.as_deref())?,
            Expr::Like { of, pattern, negated, ignore_case } => {
                let (of, pattern) = meet(self.build(of)?, self.build(pattern)?, "LIKE")?;
                let operands = [empty(&of), empty(&pattern)];
                check(&|o| matches(o, *negated, *ignore_case), &operands)?;
                let (of, pattern) = (Box::new(of), Box::new(pattern));
                let kind = Kind::Like { of, pattern, negated: *negated, ignore_case: *ignore_case };
                Node { kind, data_type: DataType::Boolean }
            }
        };
        settled(node)
    }

    fn negate(&self, of: &Expr) -> Result<Node> {
        let of = self.build(of)?;
        if of.data_type == DataType::Null {
            return Ok(of);
        }
        let data_type = check(&negative, &[empty(&of)])?;
        Ok(Node { kind: Kind::Negate(Box::new(of)), data_type })
    }

    fn in_list(&self, of: &Expr, list: &Literal, negated: bool) -> Result<Node> {
        let of = self.build(of)?;
        let values = unpacked(literal_array(list)?)?;
        let to = common(&of.data_type, values.data_type())
            .ok_or_else(|| no_common("IN", &of.data_type, values.data_type()))?;
        let of = cast_to(of, &to)?;
        let has_null = values.logical_null_count() > 0;
        // What does not fit the common type equals nothing, as if it were not there.
        let values = cast(&values, &to).map_err(|e| Error::unsupported(e.to_string()))?;
        let values = filter(&values, &is_not_null(&values).map_err(broken)?).map_err(broken)?;
        let mut table = KeyTable::new(std::slice::from_ref(&to), false)?;
        table.learn(std::slice::from_ref(&values))?;
        table.finish();
        let list = Arc::new(List { values, has_null, table });
        Ok(Node { kind: Kind::InList { of: Box::new(of), list, negated }, data_type: DataType::Boolean })
    }

    fn case(&self, branches: &[(Expr, Expr)], otherwise: Option<&Expr>) -> Result<Node> {
        let mut whens = Vec::with_capacity(branches.len());
        let mut thens = Vec::with_capacity(branches.len());
        for (when, then) in branches {
            whens.push(boolean(self.build(when)?, "a condition of CASE")?);
            thens.push(self.build(then)?);
        }
        let otherwise = otherwise.map(|o| self.build(o)).transpose()?;
        let mut to = DataType::Null;
        for node in thens.iter().chain(&otherwise) {
            to = common(&to, &node.data_type).ok_or_else(|| no_common("CASE", &to, &node.data_type))?;
        }
        let thens = thens.into_iter().map(|then| cast_to(then, &to)).collect::<Result<Vec<_>>>()?;
        let otherwise = otherwise.map(|node| cast_to(node, &to)).transpose()?.map(Box::new);
        let branches = whens.into_iter().zip(thens).collect();
        Ok(Node { kind: Kind::Case { branches, otherwise }, data_type: to })
    }
}

fn one_value(literal: &Literal) -> Result<ArrayRef> {
    let array = literal_array(literal)?;
    if array.len() != 1 {
        return Err(Error::damaged(format!("a constant has {} values instead of one", array.len())));
    }
    unpacked(array)
}

fn unpacked(array: ArrayRef) -> Result<ArrayRef> {
    cast(&array, &plain(array.data_type())).map_err(|e| Error::unsupported(e.to_string()))
}

fn constant(value: ArrayRef) -> Node {
    let data_type = value.data_type().clone();
    Node { kind: Kind::Literal(value), data_type }
}

fn binary(op: BinaryOp, left: Node, right: Node) -> Result<Node> {
    use BinaryOp::{
        Add, And, Concat, Divide, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, Modulo,
        Multiply, NotEq, Or, Subtract,
    };
    match op {
        And | Or => {
            let left = Box::new(boolean(left, "an operand of AND or OR")?);
            let right = Box::new(boolean(right, "an operand of AND or OR")?);
            let kind = if op == And { Kind::And(left, right) } else { Kind::Or(left, right) };
            Ok(Node { kind, data_type: DataType::Boolean })
        }
        Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom => {
            let (left, right) = meet(left, right, "a comparison")?;
            check(&|o| compare(op, o), &[empty(&left), empty(&right)])?;
            let kind = Kind::Compare(op, Box::new(left), Box::new(right));
            Ok(Node { kind, data_type: DataType::Boolean })
        }
        Add | Subtract | Multiply | Divide | Modulo => {
            let kernel = |o: &[Value]| arithmetic(op, o);
            // Some operators take two types: a time and an interval, decimals of other scales.
            if let Ok(result) = attempt(&kernel, &[empty(&left), empty(&right)]) {
                let data_type = result.data_type().clone();
                return Ok(Node { kind: Kind::Arithmetic(op, Box::new(left), Box::new(right)), data_type });
            }
            let (left, right) = meet(left, right, "arithmetic")?;
            if left.data_type == DataType::Null {
                return Ok(left);
            }
            let data_type = check(&kernel, &[empty(&left), empty(&right)])?;
            Ok(Node { kind: Kind::Arithmetic(op, Box::new(left), Box::new(right)), data_type })
        }
        Concat => {
            let stringy =
                |t: &DataType| is_text(t) || is_bytes(t) || matches!(t, DataType::FixedSizeBinary(_));
            let text =
                |node: Node| if stringy(&node.data_type) { Ok(node) } else { cast_to(node, &DataType::Utf8) };
            let (left, right) = meet(text(left)?, text(right)?, "||")?;
            let data_type = check(&concat_strings, &[empty(&left), empty(&right)])?;
            Ok(Node { kind: Kind::Concat(Box::new(left), Box::new(right)), data_type })
        }
    }
}

/// Both nodes in their common type.
fn meet(left: Node, right: Node, what: &str) -> Result<(Node, Node)> {
    let to = common(&left.data_type, &right.data_type)
        .ok_or_else(|| no_common(what, &left.data_type, &right.data_type))?;
    Ok((cast_to(left, &to)?, cast_to(right, &to)?))
}

fn no_common(what: &str, left: &DataType, right: &DataType) -> Error {
    Error::unsupported(format!("{what} of {left} and {right}: the two types have no common one"))
}

/// The node as another type; values that do not fit are null.
pub(crate) fn cast_to(node: Node, to: &DataType) -> Result<Node> {
    if node.data_type == *to {
        return Ok(node);
    }
    if !can_cast_types(&node.data_type, to) {
        return Err(Error::unsupported(format!("{} cannot be cast to {to}", node.data_type)));
    }
    settled(Node { kind: Kind::Cast(Box::new(node)), data_type: to.clone() })
}

fn boolean(node: Node, what: &str) -> Result<Node> {
    match node.data_type {
        DataType::Boolean => Ok(node),
        DataType::Null => cast_to(node, &DataType::Boolean),
        other => Err(Error::unsupported(format!("{what} is of type {other}, not boolean"))),
    }
}

/// No rows of a node's type: what a kernel makes of them shows whether, and to what, it computes.
fn empty(node: &Node) -> Value {
    Value::Rows(new_empty_array(&node.data_type))
}

/// The type that a kernel gives.
fn check(kernel: Kernel<'_>, operands: &[Value]) -> Result<DataType> {
    let result = attempt(kernel, operands).map_err(|e| Error::unsupported(e.message()))?;
    Ok(result.data_type().clone())
}

/// A node that looks at no row is computed now, once.
fn settled(node: Node) -> Result<Node> {
    let constant_operands = match &node.kind {
        Kind::Column(_) | Kind::Literal(_) => false,
        Kind::And(a, b)
        | Kind::Or(a, b)
        | Kind::Compare(_, a, b)
        | Kind::Arithmetic(_, a, b)
        | Kind::Concat(a, b)
        | Kind::Like { of: a, pattern: b, .. } => a.is_literal() && b.is_literal(),
        Kind::Not(a) | Kind::IsNull(a) | Kind::Negate(a) | Kind::Cast(a) | Kind::InList { of: a, .. } => {
            a.is_literal()
        }
        Kind::Case { branches, otherwise } => {
            branches.iter().all(|(when, then)| when.is_literal() && then.is_literal())
                && otherwise.as_deref().is_none_or(Node::is_literal)
        }
    };
    if !constant_operands {
        return Ok(node);
    }
    let value = node.evaluate(&OneRow)?.spread(1)?;
    if value.data_type() != &node.data_type {
        let null = || new_null_array(&node.data_type, 1);
        return Ok(constant(cast(&value, &node.data_type).unwrap_or_else(|_| null())));
    }
    Ok(constant(value))
}

/// One row without columns.
struct OneRow;

impl Rows for OneRow {
    fn len(&self) -> usize {
        1
    }

    fn column(&self, id: ColumnId) -> Result<ArrayRef> {
        Err(Error::internal(format!("a constant expression reads column {id}")))
    }
}
