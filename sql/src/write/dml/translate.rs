//! From what DataFusion made of an expression to what the log keeps.
//!
//! Only what looks at one row, at constants and at the commit's time has a form there, and only if all nodes compute it
//! alike for ever. Everything else is not translated, and the statement is evaluated instead.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, new_null_array};
use arrow::compute::cast;
use arrow_schema::DataType;
use datafusion::common::{Column as ColumnName, TableReference};
use datafusion::logical_expr::expr::{Between, Case, InList, Like, ScalarFunction};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::scalar::ScalarValue;
use tandem_fold::{literal_of, type_of};
use tandem_format::{BinaryOp, Expr as Logged, Literal};
use tandem_manifest::Table;
use tandem_types::{Column, TableSchema};

use super::clock;
use crate::scan::query_type;
use crate::wire::wire_type;

/// What an expression's columns mean.
#[derive(Clone, Copy)]
pub(super) struct Translator<'a> {
    pub(super) schema: &'a TableSchema,
    /// What the target's columns are qualified with.
    pub(super) qualifier: Option<&'a TableReference>,
}

/// The type in which the log speaks of a column: without views and dictionaries.
pub(super) fn logged_type(column: &Column) -> DataType {
    wire_type(&query_type(&column.data_type))
}

impl Translator<'_> {
    /// A predicate in the log's language, if it has a form there.
    pub(super) fn predicate(&self, expr: &Expr) -> Option<Logged> {
        let logged = self.translate(expr)?;
        let logged = match type_of(&logged).ok()? {
            DataType::Boolean => logged,
            DataType::Null => Logged::Literal(literal(&new_null_array(&DataType::Boolean, 1))?),
            _ => return None,
        };
        checked(logged)
    }

    /// A value to assign in the log's language, if it has a form there: of the column's type, and never null where the
    /// column takes none, now and after whatever becomes of the column.
    pub(super) fn value(&self, expr: &Expr, column: &Column) -> Option<Logged> {
        let to = logged_type(column);
        let value = self.translate(expr)?;
        let value = match &value {
            Logged::Literal(_) if type_of(&value).ok()? == to => value,
            Logged::Cast { to: already, .. } if *already == to => value,
            _ => Logged::Cast { of: Box::new(value), to: to.clone() },
        };
        if column.nullable || matches!(value, Logged::Literal(_)) {
            return checked(value);
        }
        let old = Logged::Column { column: column.id, data_type: to };
        let is_null = Logged::IsNull(Box::new(value.clone()));
        checked(Logged::Case { branches: vec![(is_null, old)], otherwise: Some(Box::new(value)) })
    }

    fn translate(&self, expr: &Expr) -> Option<Logged> {
        let boxed = |e: &Expr| self.translate(e).map(Box::new);
        Some(match expr {
            Expr::Alias(alias) => self.translate(&alias.expr)?,
            Expr::Column(column) => self.column(column)?,
            Expr::Literal(value, _) => Logged::Literal(literal(&value.to_array().ok()?)?),
            Expr::BinaryExpr(binary) => self.binary(binary)?,
            Expr::Not(of) => Logged::Not(boxed(of)?),
            Expr::IsNull(of) | Expr::IsUnknown(of) => Logged::IsNull(boxed(of)?),
            Expr::IsNotNull(of) | Expr::IsNotUnknown(of) => Logged::Not(Box::new(Logged::IsNull(boxed(of)?))),
            Expr::IsTrue(of) => self.is(of, true, BinaryOp::IsNotDistinctFrom)?,
            Expr::IsFalse(of) => self.is(of, false, BinaryOp::IsNotDistinctFrom)?,
            Expr::IsNotTrue(of) => self.is(of, true, BinaryOp::IsDistinctFrom)?,
            Expr::IsNotFalse(of) => self.is(of, false, BinaryOp::IsDistinctFrom)?,
            Expr::Negative(of) => Logged::Negate(boxed(of)?),
            Expr::Between(Between { expr, negated, low, high }) => {
                let of = self.translate(expr)?;
                let low = binary(BinaryOp::GtEq, of.clone(), self.translate(low)?);
                let within = binary(BinaryOp::And, low, binary(BinaryOp::LtEq, of, self.translate(high)?));
                negate(*negated, within)
            }
            Expr::Case(case) => self.case(case)?,
            Expr::Cast(cast) => {
                Logged::Cast { of: boxed(&cast.expr)?, to: wire_type(cast.field.data_type()) }
            }
            Expr::TryCast(cast) => {
                Logged::Cast { of: boxed(&cast.expr)?, to: wire_type(cast.field.data_type()) }
            }
            Expr::Like(Like { negated, expr, pattern, escape_char: None | Some('\\'), case_insensitive }) => {
                Logged::Like {
                    of: boxed(expr)?,
                    pattern: boxed(pattern)?,
                    negated: *negated,
                    ignore_case: *case_insensitive,
                }
            }
            Expr::InList(list) => self.in_list(list)?,
            Expr::ScalarFunction(function) => self.function(function)?,
            _ => return None,
        })
    }

    fn column(&self, column: &ColumnName) -> Option<Logged> {
        if let Some(to) = clock::type_of(column) {
            return Some(Logged::Cast { of: Box::new(Logged::Now), to });
        }
        if let (Some(one), Some(other)) = (&column.relation, self.qualifier)
            && !one.resolved_eq(other)
        {
            return None;
        }
        let column = self.schema.by_name(&column.name)?;
        Some(Logged::Column { column: column.id, data_type: logged_type(column) })
    }

    fn binary(&self, BinaryExpr { left, op, right }: &BinaryExpr) -> Option<Logged> {
        let op = match op {
            Operator::And => return self.chain(left, right, Operator::And, BinaryOp::And),
            Operator::Or => return self.chain(left, right, Operator::Or, BinaryOp::Or),
            Operator::Eq => BinaryOp::Eq,
            Operator::NotEq => BinaryOp::NotEq,
            Operator::Lt => BinaryOp::Lt,
            Operator::LtEq => BinaryOp::LtEq,
            Operator::Gt => BinaryOp::Gt,
            Operator::GtEq => BinaryOp::GtEq,
            Operator::IsDistinctFrom => BinaryOp::IsDistinctFrom,
            Operator::IsNotDistinctFrom => BinaryOp::IsNotDistinctFrom,
            Operator::Plus => BinaryOp::Add,
            Operator::Minus => BinaryOp::Subtract,
            Operator::Multiply => BinaryOp::Multiply,
            Operator::Divide => BinaryOp::Divide,
            Operator::Modulo => BinaryOp::Modulo,
            Operator::StringConcat => BinaryOp::Concat,
            _ => return None,
        };
        Some(binary(op, self.translate(left)?, self.translate(right)?))
    }

    /// A chain of one operator, as deep as it must be and no deeper.
    fn chain(&self, left: &Expr, right: &Expr, of: Operator, op: BinaryOp) -> Option<Logged> {
        let mut operands = Vec::new();
        let mut open = vec![right, left];
        while let Some(expr) = open.pop() {
            match expr {
                Expr::BinaryExpr(BinaryExpr { left, op, right }) if *op == of => {
                    open.extend([right.as_ref(), left])
                }
                operand => operands.push(self.translate(operand)?),
            }
        }
        balanced(op, operands)
    }

    fn is(&self, of: &Expr, value: bool, op: BinaryOp) -> Option<Logged> {
        let value: ArrayRef = Arc::new(BooleanArray::from(vec![value]));
        Some(binary(op, self.translate(of)?, Logged::Literal(literal(&value)?)))
    }

    fn case(&self, Case { expr, when_then_expr, else_expr }: &Case) -> Option<Logged> {
        let of = match expr {
            Some(expr) => Some(self.translate(expr)?),
            None => None,
        };
        let branch = |(when, then): &(Box<Expr>, Box<Expr>)| {
            let when = self.translate(when)?;
            let when = match &of {
                Some(of) => binary(BinaryOp::Eq, of.clone(), when),
                None => when,
            };
            Some((when, self.translate(then)?))
        };
        let otherwise = match else_expr {
            Some(expr) => Some(Box::new(self.translate(expr)?)),
            None => None,
        };
        Some(Logged::Case { branches: when_then_expr.iter().map(branch).collect::<Option<_>>()?, otherwise })
    }

    fn in_list(&self, InList { expr, list, negated }: &InList) -> Option<Logged> {
        let of = self.translate(expr)?;
        let (mut values, mut others, mut has_null) = (Vec::new(), Vec::new(), false);
        for item in list {
            match item {
                Expr::Literal(value, _) if value.is_null() => has_null = true,
                Expr::Literal(value, _) => values.push(value.clone()),
                other => others.push(binary(BinaryOp::Eq, of.clone(), self.translate(other)?)),
            }
        }
        // What is in no list is that for nulls too.
        if values.is_empty() && others.is_empty() && !has_null {
            let value: ArrayRef = Arc::new(BooleanArray::from(vec![*negated]));
            return Some(Logged::Literal(literal(&value)?));
        }
        let mut found = others;
        if !values.is_empty() {
            let values = literal(&ScalarValue::iter_to_array(values).ok()?)?;
            found.insert(0, Logged::InList { of: Box::new(of), list: values, negated: false });
        }
        if has_null {
            found.push(Logged::Literal(literal(&new_null_array(&DataType::Boolean, 1))?));
        }
        Some(negate(*negated, balanced(BinaryOp::Or, found)?))
    }

    /// Functions that are only other words for `CASE`.
    fn function(&self, ScalarFunction { func, args }: &ScalarFunction) -> Option<Logged> {
        let mut args: Vec<Logged> = args.iter().map(|arg| self.translate(arg)).collect::<Option<_>>()?;
        match func.name() {
            "coalesce" | "nvl" => {
                let last = args.pop()?;
                let is_there = |arg: Logged| {
                    let is_null = Logged::IsNull(Box::new(arg.clone()));
                    (Logged::Not(Box::new(is_null)), arg)
                };
                let branches: Vec<_> = args.into_iter().map(is_there).collect();
                if branches.is_empty() {
                    return Some(last);
                }
                Some(Logged::Case { branches, otherwise: Some(Box::new(last)) })
            }
            "nullif" => {
                let [one, other] = <[Logged; 2]>::try_from(args).ok()?;
                let null = literal(&new_null_array(&type_of(&one).ok()?, 1))?;
                let branches = vec![(binary(BinaryOp::Eq, one.clone(), other), Logged::Literal(null))];
                Some(Logged::Case { branches, otherwise: Some(Box::new(one)) })
            }
            _ => None,
        }
    }
}

/// A statement's target, for its translator.
pub(super) fn translator<'a>(table: &'a Table, qualifier: Option<&'a TableReference>) -> Translator<'a> {
    Translator { schema: table.schema(), qualifier }
}

/// Only what every node can evaluate.
fn checked(expr: Logged) -> Option<Logged> {
    type_of(&expr).ok()?;
    Some(expr)
}

/// A predicate that is true of every row.
pub(super) fn always() -> Option<Logged> {
    let value: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
    literal(&value).map(Logged::Literal)
}

fn binary(op: BinaryOp, left: Logged, right: Logged) -> Logged {
    Logged::Binary { op, left: Box::new(left), right: Box::new(right) }
}

fn negate(negated: bool, expr: Logged) -> Logged {
    if negated { Logged::Not(Box::new(expr)) } else { expr }
}

/// Operands of an associative operator, in order, as a tree of little depth.
fn balanced(op: BinaryOp, mut level: Vec<Logged>) -> Option<Logged> {
    while level.len() > 1 {
        let mut next = Vec::with_capacity(level.len().div_ceil(2));
        let mut pairs = level.into_iter();
        while let Some(left) = pairs.next() {
            next.push(match pairs.next() {
                Some(right) => binary(op, left, right),
                None => left,
            });
        }
        level = next;
    }
    level.pop()
}

/// Constants without views and dictionaries.
fn literal(values: &ArrayRef) -> Option<Literal> {
    let to = wire_type(values.data_type());
    let values = if *values.data_type() == to { values.clone() } else { cast(values, &to).ok()? };
    literal_of(&values).ok()
}
