//! `VALUES` as the source of an `INSERT`: parameters for all rows at once, and whose value was wrong.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column as ColumnName, DFSchema};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Projection, Values};
use tandem_types::Result;

use crate::error::IntoTandem;
use crate::params::row_values;

/// Allows nulls in `VALUES`, which DataFusion gives the table's own schema: what must not be null is checked
/// where an error can name the column.
pub(super) fn with_nulls(plan: &Arc<LogicalPlan>) -> Result<Arc<LogicalPlan>> {
    let LogicalPlan::Values(values) = plan.as_ref() else {
        return Ok(Arc::clone(plan));
    };
    let fields = values.schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true));
    let schema = DFSchema::from_unqualified_fields(fields.collect(), HashMap::new()).tandem()?;
    let values = Values { schema: Arc::new(schema), values: values.values.clone() };
    Ok(Arc::new(LogicalPlan::Values(values)))
}

/// One plan for all rows of parameters where rows of constants are inserted, else one plan for each row.
pub(super) fn bind(plan: LogicalPlan, bound: Option<RecordBatch>) -> Result<Vec<LogicalPlan>> {
    let Some(rows) = bound else {
        return Ok(vec![plan]);
    };
    if rows.num_rows() > 1
        && let Some(all) = values_for_all(&plan, &rows)?
    {
        return Ok(vec![all]);
    }
    (0..rows.num_rows()).map(|row| plan.clone().with_param_values(row_values(&rows, row)?).tandem()).collect()
}

/// Turns `VALUES` with placeholders into a projection of a table of the parameters, if the plan computes
/// each of its rows from one row of the `VALUES`.
fn values_for_all(plan: &LogicalPlan, rows: &RecordBatch) -> Result<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::Values(values) => projected(values, rows).map(Some),
        LogicalPlan::Projection(Projection { expr, input, .. }) => {
            let Some(input) = values_for_all(input, rows)? else {
                return Ok(None);
            };
            let projection = Projection::try_new(expr.clone(), Arc::new(input)).tandem()?;
            Ok(Some(LogicalPlan::Projection(projection)))
        }
        _ => Ok(None),
    }
}

fn projected(values: &Values, rows: &RecordBatch) -> Result<LogicalPlan> {
    const PARAMETERS: &str = "parameters";
    let table = MemTable::try_new(rows.schema(), vec![vec![rows.clone()]]).tandem()?;
    let source = provider_as_source(Arc::new(table));
    let mut union: Option<LogicalPlanBuilder> = None;
    for row in &values.values {
        let scan = LogicalPlanBuilder::scan(PARAMETERS, Arc::clone(&source), None).tandem()?;
        let mut columns = Vec::with_capacity(row.len());
        for (expr, field) in row.iter().zip(values.schema.fields()) {
            let bound = expr.clone().transform(|expr| match expr {
                Expr::Placeholder(Placeholder { id, .. }) => {
                    Ok(Transformed::yes(Expr::Column(ColumnName::new(Some(PARAMETERS), id))))
                }
                other => Ok(Transformed::no(other)),
            });
            let bound = bound.tandem()?.data.cast_to(field.data_type(), scan.schema()).tandem()?;
            columns.push(bound.alias(field.name()));
        }
        let projection = scan.project(columns).tandem()?;
        union = Some(match union {
            Some(before) => before.union(projection.build().tandem()?).tandem()?,
            None => projection,
        });
    }
    match union {
        Some(plan) => plan.build().tandem(),
        None => Ok(LogicalPlan::Values(values.clone())),
    }
}

/// The column of a plan over `VALUES` whose value cannot be computed, if one cannot: DataFusion's errors
/// do not tell.
pub(super) fn faulty_column(state: &SessionState, plan: &LogicalPlan) -> Option<usize> {
    let LogicalPlan::Projection(projection) = plan else { return None };
    let LogicalPlan::Values(values) = projection.input.as_ref() else { return None };
    // One plan for each column: its optimizer computes what is constant, and fails where the INSERT did.
    let fails = |column: usize| {
        let exprs = values.values.iter().enumerate();
        let exprs = exprs.filter_map(|(row, all)| Some(all.get(column)?.clone().alias(row.to_string())));
        let plan = LogicalPlanBuilder::empty(true).project(exprs).and_then(LogicalPlanBuilder::build);
        plan.and_then(|plan| state.optimize(&plan)).is_err()
    };
    let position = (0..values.schema.fields().len()).find(|column| fails(*column))?;
    // The projection may order the columns anew.
    let name = values.schema.field(position).name();
    let takes = |expr: &Expr| expr.column_refs().iter().any(|column| column.name == *name);
    projection.expr.iter().position(takes)
}
