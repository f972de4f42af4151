//! The commit's time in expressions: what `now()` and its like are until then.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_schema::{DataType, Field, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result as DfResult, TableReference};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::ScalarFunction;

/// Stands for the clock where a table's name does; no SQL says it.
const CLOCK: &str = "$clock";

/// Functions of nothing but the present time, by the names that DataFusion gives them, and what they return.
const FUNCTIONS: [(&str, DataType); 3] = [
    ("now", DataType::Timestamp(TimeUnit::Nanosecond, None)),
    ("current_date", DataType::Date32),
    ("current_time", DataType::Time64(TimeUnit::Nanosecond)),
];

/// Puts a column of the clock in the place of each function of the present time, so that nobody takes it for a constant.
pub(super) fn stop(expr: Expr) -> DfResult<Transformed<Expr>> {
    expr.transform(|expr| match &expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) if args.is_empty() => {
            let known = FUNCTIONS.iter().find(|(name, _)| *name == func.name());
            Ok(match known {
                Some((name, _)) => Transformed::yes(Expr::Column(Column::new(Some(CLOCK), *name))),
                None => Transformed::no(expr),
            })
        }
        _ => Ok(Transformed::no(expr)),
    })
}

/// The type of a column of the clock; `None` for all other columns.
pub(super) fn type_of(column: &Column) -> Option<DataType> {
    if column.relation.as_ref().is_none_or(|relation| relation.table() != CLOCK) {
        return None;
    }
    FUNCTIONS.iter().find(|(name, _)| *name == column.name).map(|(_, data_type)| data_type.clone())
}

/// A schema, and the clock's columns behind it.
pub(super) fn with_clock(schema: &DFSchema) -> DfResult<DFSchema> {
    let own = schema.iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)));
    let clock = FUNCTIONS.iter().map(|(name, data_type)| {
        (Some(TableReference::bare(CLOCK)), Arc::new(Field::new(*name, data_type.clone(), false)))
    });
    DFSchema::new_with_metadata(own.chain(clock).collect(), HashMap::new())
}
