//! Subqueries that look at nothing of the row: evaluated once, they are constants.

use std::collections::HashSet;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::expr::{Exists, InList, InSubquery};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Subquery, lit};
use datafusion::physical_plan::execute_stream;
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt;
use tandem_types::{Error, Result};

use super::View;
use crate::error::IntoTandem;
use crate::running::physical_plan;

/// Values of an `IN (SELECT …)` that are written into the log; more are looked up.
const LISTED_MAX: usize = 10_000;

/// Replaces subqueries that do not depend on the row by their values, as far as they are not too many.
pub(super) async fn resolve(mut expr: Expr, view: &View) -> Result<Expr> {
    let mut left: HashSet<Expr> = HashSet::new();
    while let Some(found) = first(&expr, &left)? {
        match value(&found, view).await? {
            Some(value) => {
                let replace = |e: Expr| {
                    Ok(if e == found { Transformed::yes(value.clone()) } else { Transformed::no(e) })
                };
                expr = expr.transform_up(replace).tandem()?.data;
            }
            None => {
                left.insert(found);
            }
        }
    }
    Ok(expr)
}

/// A subquery that can be evaluated by itself, innermost first, and is not among those that are to be left.
fn first(expr: &Expr, left: &HashSet<Expr>) -> Result<Option<Expr>> {
    let mut found = None;
    expr.apply(|expr| {
        if let Some(subquery) = subquery(expr)
            && stands_alone(subquery)
            && !left.contains(expr)
        {
            found = Some(expr.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .tandem()?;
    Ok(found)
}

fn subquery(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::ScalarSubquery(subquery) => Some(subquery),
        Expr::Exists(exists) => Some(&exists.subquery),
        Expr::InSubquery(within) => Some(&within.subquery),
        _ => None,
    }
}

fn stands_alone(subquery: &Subquery) -> bool {
    subquery.outer_ref_columns.is_empty() && subquery.subquery.all_out_ref_exprs().is_empty()
}

/// What a subquery comes to; `None` if it is too much for an expression.
async fn value(expr: &Expr, view: &View) -> Result<Option<Expr>> {
    match expr {
        Expr::ScalarSubquery(subquery) => {
            let Some(mut values) = column(&subquery.subquery, 2, view).await? else { return Ok(None) };
            if values.len() > 1 {
                return Err(Error::invalid("a subquery that stands for one value yields several rows"));
            }
            let value = match values.pop() {
                Some(value) => value,
                None => {
                    let schema = subquery.subquery.schema();
                    ScalarValue::try_from(schema.field(0).data_type()).tandem()?
                }
            };
            Ok(Some(lit(value)))
        }
        Expr::Exists(Exists { subquery, negated }) => {
            let some = rows(&subquery.subquery, 1, view).await?;
            Ok(Some(lit((some > 0) != *negated)))
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
            let Some(values) = column(&subquery.subquery, LISTED_MAX + 1, view).await? else {
                return Ok(None);
            };
            let mut known = HashSet::new();
            let list: Vec<Expr> = values.into_iter().filter(|v| known.insert(v.clone())).map(lit).collect();
            if list.len() > LISTED_MAX {
                return Ok(None);
            }
            Ok(Some(Expr::InList(InList::new(expr.clone(), list, *negated))))
        }
        _ => Ok(None),
    }
}

/// The values of a query's one column, at most so many; `None` if there are more than [`LISTED_MAX`].
async fn column(plan: &LogicalPlan, most: usize, view: &View) -> Result<Option<Vec<ScalarValue>>> {
    if plan.schema().fields().len() != 1 {
        return Err(Error::invalid("a subquery that stands for values has one column"));
    }
    let limited = LogicalPlanBuilder::from(plan.clone()).limit(0, Some(most));
    let plan = limited.and_then(LogicalPlanBuilder::build).tandem()?;
    let mut values = Vec::new();
    let mut stream = stream(&plan, view).await?;
    while let Some(batch) = stream.try_next().await.tandem()? {
        for row in 0..batch.num_rows() {
            values.push(ScalarValue::try_from_array(batch.column(0), row).tandem()?);
        }
    }
    Ok((values.len() <= LISTED_MAX).then_some(values))
}

async fn rows(plan: &LogicalPlan, most: usize, view: &View) -> Result<usize> {
    let limited = LogicalPlanBuilder::from(plan.clone()).limit(0, Some(most));
    let plan = limited.and_then(LogicalPlanBuilder::build).tandem()?;
    let mut rows = 0;
    let mut stream = stream(&plan, view).await?;
    while let Some(batch) = stream.try_next().await.tandem()? {
        rows += batch.num_rows();
    }
    Ok(rows)
}

/// Runs a query of the statement's.
pub(super) async fn stream(plan: &LogicalPlan, view: &View) -> Result<SendableRecordBatchStream> {
    let physical = physical_plan(&view.state, plan, view.planning_limit).await?;
    execute_stream(physical, view.state.task_ctx()).tandem()
}
