//! Predicates taken apart: the part that a hash table answers, and the rest.

use arrow::array::{Array, ArrayRef};
use arrow::compute::{CastOptions, cast_with_options, concat, filter, is_not_null};
use arrow::datatypes::DataType;
use tandem_format::BinaryOp;
use tandem_types::{ColumnId, Result};

use crate::broken;
use crate::code::agree;
use crate::node::{Kind, Node};
use crate::zone::Zone;

/// A predicate as conditions that must all be true.
#[derive(Debug)]
pub(crate) struct Selection {
    pub(crate) handle: Option<Handle>,
    /// The conditions that the handle does not stand for; all of them without one.
    pub(crate) rest: Vec<Conjunct>,
    /// It is true nowhere outside them.
    pub(crate) zones: Vec<Zone>,
}

/// A condition that is true exactly where a column has one of some values.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) column: ColumnId,
    /// Without nulls, of the column's plain type as the statement saw it; maybe some twice.
    pub(crate) values: ArrayRef,
    /// The same as an expression, for rows where the values cannot be looked up.
    pub(crate) node: Conjunct,
}

/// A condition, and the columns that it reads, ascending.
#[derive(Debug)]
pub(crate) struct Conjunct {
    pub(crate) node: Node,
    pub(crate) reads: Vec<ColumnId>,
}

impl Selection {
    pub(crate) fn new(predicate: Node) -> Result<Self> {
        let mut nodes = Vec::new();
        flatten(predicate, &mut nodes);
        let mut best: Option<(usize, ColumnId, ArrayRef)> = None;
        for (at, node) in nodes.iter().enumerate() {
            if let Some((column, values)) = listed(node)?
                && best.as_ref().is_none_or(|(_, _, fewest)| values.len() < fewest.len())
            {
                best = Some((at, column, values));
            }
        }
        let zones = nodes.iter().filter_map(Zone::of).collect();
        let conjunct = |node: Node| Conjunct { reads: columns_of(&node), node };
        let handle = best.map(|(at, column, values)| {
            let node = conjunct(nodes.remove(at));
            Handle { column, values, node }
        });
        Ok(Self { handle, rest: nodes.into_iter().map(conjunct).collect(), zones })
    }
}

fn flatten(node: Node, into: &mut Vec<Node>) {
    match node.kind {
        Kind::And(left, right) => {
            flatten(*left, into);
            flatten(*right, into);
        }
        kind => into.push(Node { kind, data_type: node.data_type }),
    }
}

/// The columns that an expression reads, ascending.
pub(crate) fn columns_of(node: &Node) -> Vec<ColumnId> {
    let mut found = Vec::new();
    visit(node, &mut |id| found.push(id));
    found.sort_unstable();
    found.dedup();
    found
}

fn visit(node: &Node, found: &mut dyn FnMut(ColumnId)) {
    match &node.kind {
        Kind::Column(id) => found(*id),
        Kind::Literal(_) => {}
        Kind::And(a, b)
        | Kind::Or(a, b)
        | Kind::Compare(_, a, b)
        | Kind::Arithmetic(_, a, b)
        | Kind::Concat(a, b)
        | Kind::Like { of: a, pattern: b, .. } => {
            visit(a, found);
            visit(b, found);
        }
        Kind::Not(a) | Kind::IsNull(a) | Kind::Negate(a) | Kind::Cast(a) | Kind::InList { of: a, .. } => {
            visit(a, found);
        }
        Kind::Case { branches, otherwise } => {
            for (when, then) in branches {
                visit(when, found);
                visit(then, found);
            }
            if let Some(otherwise) = otherwise {
                visit(otherwise, found);
            }
        }
    }
}

/// The column and the values with one of which it is true, if the condition is of that kind.
fn listed(node: &Node) -> Result<Option<(ColumnId, ArrayRef)>> {
    match &node.kind {
        Kind::Compare(BinaryOp::Eq | BinaryOp::IsNotDistinctFrom, a, b) => {
            let (of, value) = match (&a.kind, &b.kind) {
                (_, Kind::Literal(value)) => (a, value),
                (Kind::Literal(value), _) => (b, value),
                _ => return Ok(None),
            };
            // That a null is not distinct from null is no matter of equality.
            if value.logical_null_count() > 0 && !matches!(node.kind, Kind::Compare(BinaryOp::Eq, ..)) {
                return Ok(None);
            }
            column_values(of, value)
        }
        Kind::InList { of, list, negated: false } => column_values(of, &list.values),
        Kind::Or(a, b) => {
            let (Some((column, left)), Some((other, right))) = (listed(a)?, listed(b)?) else {
                return Ok(None);
            };
            if column != other || left.data_type() != right.data_type() {
                return Ok(None);
            }
            Ok(Some((column, concat(&[left.as_ref(), right.as_ref()]).map_err(broken)?)))
        }
        _ => Ok(None),
    }
}

/// The values, nulls left out, as the type of the column that `of` is, be it under a cast that keeps what is equal and
/// what is not: between integers, where what does not fit becomes null, and between encodings.
fn column_values(of: &Node, values: &ArrayRef) -> Result<Option<(ColumnId, ArrayRef)>> {
    let (column, data_type) = match &of.kind {
        Kind::Column(column) => (*column, &of.data_type),
        Kind::Cast(inner) => match &inner.kind {
            Kind::Column(column) if keeps_equality(&inner.data_type, &of.data_type) => {
                (*column, &inner.data_type)
            }
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let values = cast_with_options(values, data_type, &options).map_err(broken)?;
    let valid = is_not_null(&values).map_err(broken)?;
    Ok(Some((column, filter(&values, &valid).map_err(broken)?)))
}

fn keeps_equality(from: &DataType, to: &DataType) -> bool {
    agree(from, to) || (from.is_integer() && to.is_integer())
}
