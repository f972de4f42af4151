//! What a statement means: its plan, with types that match and parameters bound.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_schema::Field;
use datafusion::common::TableReference;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Cast, Expr, Filter, LogicalPlan, LogicalPlanBuilder, Projection};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::parser::Statement as SqlStatement;
use datafusion::sql::sqlparser::ast;
use tandem_manifest::{Manifest, Table};
use tandem_types::{Column, ColumnId, DEFAULT_CATALOG, Error, Result, TableName};

use super::clock;
use crate::error::IntoTandem;
use crate::prepared::query_plan;
use crate::scan::query_type;
use crate::similar;
use crate::statement::Dml;

/// An `UPDATE` or `DELETE` of which everything is known but the rows.
#[derive(Clone)]
pub(super) struct Analysed {
    pub(super) table: Table,
    /// What the target's columns are qualified with.
    pub(super) qualifier: Option<TableReference>,
    /// The target, and what is joined to it.
    pub(super) from: Arc<LogicalPlan>,
    pub(super) predicate: Expr,
    /// In the types in which queries see the columns.
    pub(super) assignments: Vec<(Column, Expr)>,
    pub(super) joined: bool,
    /// Tables that are read beside the target; the target too, where a subquery or a join reads it.
    pub(super) reads: Vec<TableName>,
}

/// The query of a statement's new values, its placeholders typed but not bound.
pub(super) async fn plan(dml: &Dml, state: &SessionState, snapshot: &Manifest) -> Result<LogicalPlan> {
    let table = similar::require(snapshot, &dml.table)?;
    let columns = assigned(dml, table)?;
    let statement = SqlStatement::Statement(Box::new(ast::Statement::Query(dml.query.clone())));
    let (values, predicate, from) = parts(query_plan(state, statement).await?)?;
    let values = if columns.is_empty() {
        values
    } else {
        let typed = values.into_iter().zip(&columns).enumerate();
        typed.map(|(i, (value, column))| as_column(value.unalias(), column).alias(i.to_string())).collect()
    };
    let plan = LogicalPlanBuilder::from(from.as_ref().clone()).filter(predicate);
    plan.and_then(|plan| plan.project(values)).and_then(LogicalPlanBuilder::build).tandem()
}

/// Takes a plan of [`plan`] apart, its placeholders bound by now.
pub(super) fn analyse(
    dml: &Dml,
    plan: LogicalPlan,
    state: &SessionState,
    snapshot: &Manifest,
) -> Result<Analysed> {
    let table = snapshot.require(&dml.table)?.clone();
    let columns = assigned(dml, &table)?;
    let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {}).tandem()?;
    let reads = other_reads(&plan, state, &dml.table)?;
    let (values, predicate, from) = parts(plan)?;
    let qualifier = qualifier(&from);
    let assignments = columns.into_iter().zip(values.into_iter().map(Expr::unalias)).collect();
    Ok(Analysed { table, qualifier, from, predicate, assignments, joined: dml.joined, reads })
}

/// The columns that a statement assigns, which must be such as can be.
fn assigned(dml: &Dml, table: &Table) -> Result<Vec<Column>> {
    let name = &dml.table;
    let column = |column: &String| {
        let Some(found) = table.schema().by_name(column) else {
            return Err(Error::not_found(format!("table {name} has no column {column:?}")));
        };
        if table.def().timestamp == Some(found.id) {
            return Err(Error::unsupported(format!(
                "column {column:?} is the designated timestamp of table {name} and cannot be updated: delete the row and \
                 insert another"
            )));
        }
        if table.primary_key().contains(&found.id) {
            return Err(Error::unsupported(format!(
                "column {column:?} is in the primary key of table {name} and cannot be updated: delete the row and insert \
                 another"
            )));
        }
        Ok(found.clone())
    };
    dml.assigned.iter().flatten().map(column).collect()
}

/// Values, predicate and tables of a plan that is nothing else.
fn parts(plan: LogicalPlan) -> Result<(Vec<Expr>, Expr, Arc<LogicalPlan>)> {
    let refused = || {
        Error::invalid(
            "aggregates, window functions and unnest have no place in SET and WHERE but in a subquery: they look at more \
             than one row",
        )
    };
    let LogicalPlan::Projection(Projection { expr, input, .. }) = plan else { return Err(refused()) };
    let LogicalPlan::Filter(Filter { predicate, input, .. }) = input.as_ref() else { return Err(refused()) };
    for expr in expr.iter().chain([predicate]) {
        let many_rows = |expr: &Expr| {
            matches!(
                expr,
                Expr::AggregateFunction(_) | Expr::WindowFunction(_) | Expr::GroupingSet(_) | Expr::Unnest(_)
            )
        };
        if expr.exists(|e| Ok(many_rows(e))).tandem()? {
            return Err(refused());
        }
    }
    Ok((expr, predicate.clone(), Arc::clone(input)))
}

/// A value in the type in which queries see the column.
fn as_column(value: Expr, column: &Column) -> Expr {
    let to = query_type(&column.data_type);
    match value {
        // A parameter is bound in the column's type, and an error names it.
        Expr::Placeholder(Placeholder { id, field: None }) => {
            Expr::Placeholder(Placeholder::new_with_field(id, Some(Arc::new(Field::new("", to, true)))))
        }
        value => Expr::Cast(Cast::new(Box::new(value), to)),
    }
}

/// What the first table's columns are qualified with.
fn qualifier(from: &LogicalPlan) -> Option<TableReference> {
    match from {
        LogicalPlan::Join(join) => qualifier(&join.left),
        other => other.schema().iter().next().and_then(|(qualifier, _)| qualifier.cloned()),
    }
}

/// The target alone.
pub(super) fn target_scan(from: &Arc<LogicalPlan>) -> &Arc<LogicalPlan> {
    match from.as_ref() {
        LogicalPlan::Join(join) => target_scan(&join.left),
        _ => from,
    }
}

/// All tables that a plan reads, but for the one scan of the target that is what the statement acts on.
fn other_reads(plan: &LogicalPlan, state: &SessionState, target: &TableName) -> Result<Vec<TableName>> {
    let default_schema = &state.config_options().catalog.default_schema;
    let mut found: Vec<TableName> = Vec::new();
    let mut acted_on = false;
    let visit = |node: &LogicalPlan| {
        if let LogicalPlan::TableScan(scan) = node {
            let name = scan.table_name.clone().resolve(DEFAULT_CATALOG, default_schema);
            let name = TableName::new(name.schema.as_ref(), name.table.as_ref());
            if name == *target && !acted_on {
                acted_on = true;
            } else if !found.contains(&name) {
                found.push(name);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    };
    plan.apply_with_subqueries(visit).tandem()?;
    found.sort();
    Ok(found)
}

/// An expression of the statement made as simple as can be; functions of the present time become columns of the clock.
pub(super) fn simplified(expr: &Expr, from: &LogicalPlan, state: &SessionState) -> Result<Expr> {
    let schema = clock::with_clock(from.schema()).tandem()?;
    let context = SimplifyContext::builder()
        .with_schema(Arc::new(schema))
        .with_config_options(Arc::clone(state.config_options()))
        .build();
    let stopped = clock::stop(expr.clone()).tandem()?.data;
    ExprSimplifier::new(context).simplify(stopped).tandem()
}

impl Analysed {
    /// All expressions of the statement.
    pub(super) fn exprs(&self) -> impl Iterator<Item = &Expr> {
        self.assignments.iter().map(|(_, value)| value).chain([&self.predicate])
    }

    /// The query of these columns over the rows that the statement acts on.
    pub(super) fn select(&self, columns: Vec<Expr>) -> Result<LogicalPlan> {
        let rows = LogicalPlanBuilder::from(self.from.as_ref().clone()).filter(self.predicate.clone());
        rows.and_then(|rows| rows.project(columns)).and_then(LogicalPlanBuilder::build).tandem()
    }

    /// A column of the target in an expression.
    pub(super) fn column(&self, column: &Column) -> Expr {
        Expr::Column(datafusion::common::Column::new(self.qualifier.clone(), &column.name))
    }

    /// The target's columns that the statement looks at, in the table's order.
    pub(super) fn columns_read(&self) -> Result<Vec<Column>> {
        let mut names = HashSet::new();
        let mut note = |expr: &Expr| {
            expr.apply(|expr| {
                if let Expr::Column(column) | Expr::OuterReferenceColumn(_, column) = expr
                    && column.relation == self.qualifier
                {
                    names.insert(column.name.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        };
        for expr in self.exprs() {
            note(expr).tandem()?;
        }
        // What a join or a subquery looks at of the row, it may say anywhere within.
        let everything = self.select(self.assignments.iter().map(|(_, value)| value.clone()).collect())?;
        everything
            .apply_with_subqueries(|node| {
                node.apply_expressions(|expr| {
                    expr.apply(|expr| {
                        if let Expr::OuterReferenceColumn(_, column) = expr {
                            names.insert(column.name.clone());
                        }
                        Ok(TreeNodeRecursion::Continue)
                    })
                })
            })
            .tandem()?;
        let columns = self.table.schema().columns.iter();
        Ok(columns.filter(|column| names.contains(&column.name)).cloned().collect())
    }

    /// Whether something in it gives another answer every time.
    pub(super) fn is_volatile(&self) -> Result<bool> {
        let mut volatile = self.exprs().any(Expr::is_volatile);
        let plan = self.select(self.assignments.iter().map(|(_, value)| value.clone()).collect())?;
        plan.apply_with_subqueries(|node| {
            node.apply_expressions(|expr| {
                volatile |= expr.is_volatile();
                Ok(TreeNodeRecursion::Continue)
            })
        })
        .tandem()?;
        Ok(volatile)
    }

    /// Ids of the columns that it assigns.
    pub(super) fn assigned(&self) -> impl Iterator<Item = ColumnId> {
        self.assignments.iter().map(|(column, _)| column.id)
    }
}
