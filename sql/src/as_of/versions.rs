//! Tables of a query that are read as of a moment of their own.
//!
//! A moment in the syntax tree is a constant expression. Before the query is planned, each is evaluated, its state is
//! fetched, its table is looked up there, and what the planner meets is the seq: then nothing is left to wait for.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow_schema::{DataType, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::common::{DFSchema, Result as DfResult, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionState;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::Statement as SqlStatement;
use datafusion::sql::planner::object_name_to_table_reference;
use datafusion::sql::sqlparser::ast::{
    self, ExprWithAlias, ObjectName, TableFactor, TableVersion, Visit, VisitMut, Visitor, VisitorMut,
};
use tandem_types::{DEFAULT_CATALOG, Error, Result, Seq, TableName};

use super::AsOf;
use crate::catalog::{SYSTEM_SCHEMA, catalog_list};
use crate::changes::with_changes;
use crate::engine::Engine;
use crate::error::IntoTandem;
use crate::runtime::on;

/// Tables of the schema `system` that show what is now and nothing else.
const PRESENT_ONLY: [&str; 3] = ["queries", "nodes", "gc"];

/// What planning needs in order to read the past; an extension of the session's configuration.
#[derive(Debug)]
pub(crate) struct PastReads {
    pub(crate) engine: Engine,
    /// The whole statement reads a state of the past.
    pub(crate) all: bool,
}

/// A table that a query names, and the moment behind its name.
struct Reference {
    name: ObjectName,
    version: Option<TableVersion>,
}

/// Whether a table of the statement is read as of a moment of its own.
pub(crate) fn is_versioned(statement: &SqlStatement) -> bool {
    references(statement).iter().any(|reference| reference.version.is_some())
}

/// What the statement is to be planned with: `state` itself, or one that knows the tables of other moments, which the
/// statement names by their seqs then.
pub(crate) async fn with_versions<'a>(
    state: &'a SessionState,
    statement: &mut SqlStatement,
) -> Result<Cow<'a, SessionState>> {
    let references = references(statement);
    let Some(reads) = state.config().get_extension::<PastReads>() else {
        return Err(Error::internal("a statement is planned without knowing of the past"));
    };
    let mut moments: HashMap<String, u64> = HashMap::new();
    let mut tables = HashMap::new();
    for Reference { name, version } in references {
        if version.is_none() && !reads.all {
            continue;
        }
        let default = state.config_options().catalog.default_schema.clone();
        let table = object_name_to_table_reference(name.clone(), true).tandem()?;
        let table = table.resolve(DEFAULT_CATALOG, &default);
        if *table.schema == *SYSTEM_SCHEMA && PRESENT_ONLY.contains(&&*table.table) {
            return Err(Error::unsupported(format!(
                "{} shows what is now, and cannot be read as of a moment of the past",
                table.table
            )));
        }
        let Some(version) = version else { continue };
        let at = moment(state, &version)?;
        let database = Arc::clone(reads.engine.database());
        let past = on(reads.engine.io(), async move { database.state_as_of(at, None).await }).await??;
        let seq = past.seq();
        moments.insert(version.to_string(), seq.0);
        let schema = catalog_list(&reads.engine, &past, None)
            .catalog(&table.catalog)
            .and_then(|catalog| catalog.schema(&table.schema));
        let provider = match schema {
            Some(schema) => schema.table(&table.table).await.tandem()?,
            None => None,
        };
        let provider = provider.ok_or_else(|| {
            let name = TableName::new(&*table.schema, &*table.table);
            Error::not_found(format!("table {name} did not exist at seq {seq}"))
        })?;
        tables.insert((name.to_string(), seq), provider);
    }
    if tables.is_empty() {
        return with_changes(Cow::Borrowed(state), statement).await;
    }
    if let Some(statement) = inner_mut(statement) {
        // It never breaks off.
        let _ = statement.visit(&mut Pin(&moments));
    }
    let mut state = state.clone();
    state.register_relation_planner(Arc::new(PastTables(tables))).tandem()?;
    with_changes(Cow::Owned(state), statement).await
}

/// What a moment's expression says.
fn moment(state: &SessionState, version: &TableVersion) -> Result<AsOf> {
    let wrong = |e: Error| e.context("AS OF");
    match version {
        TableVersion::VersionAsOf(ast::Expr::Value(value)) => match &value.value {
            ast::Value::Number(digits, _) => match digits.parse() {
                Ok(seq) => Ok(AsOf::Seq(Seq(seq))),
                Err(_) => Err(wrong(Error::invalid(format!("{digits} is no seq")))),
            },
            other => Err(wrong(Error::invalid(format!("{other} is no seq")))),
        },
        TableVersion::ForSystemTimeAsOf(ast::Expr::Value(value)) => match &value.value {
            ast::Value::SingleQuotedString(text) => AsOf::parse(text).map_err(wrong),
            other => Err(wrong(Error::invalid(format!("{other} is no time")))),
        },
        TableVersion::ForSystemTimeAsOf(expression) => {
            constant_time(state, expression).map(AsOf::Time).map_err(wrong)
        }
        other => Err(Error::unsupported(format!("{other} is not supported"))),
    }
}

/// Microseconds since 1970 of an expression without columns; `now()` is when the statement began.
fn constant_time(state: &SessionState, expression: &ast::Expr) -> Result<i64> {
    let unknown =
        || Error::invalid(format!("{expression} is no constant time: say TIMESTAMP '2024-05-01T12:00:00Z'"));
    let schema = DFSchema::empty();
    let parsed = ExprWithAlias { expr: expression.clone(), alias: None };
    let parsed = state.create_logical_expr_from_sql_expr(parsed, &schema).tandem()?;
    let context = SimplifyContext::builder()
        .with_config_options(Arc::clone(state.config_options()))
        .with_query_execution_start_time(state.execution_props().query_execution_start_time)
        .build();
    let simplifier = ExprSimplifier::new(context);
    let simplified = simplifier.coerce(parsed, &schema).and_then(|e| simplifier.simplify(e)).tandem()?;
    let Expr::Literal(value, _) = simplified else { return Err(unknown()) };
    let is_time = matches!(value.data_type(), DataType::Timestamp(..) | DataType::Date32 | DataType::Date64);
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
    match value.cast_to(&utc) {
        Ok(ScalarValue::TimestampMicrosecond(Some(micros), _)) if is_time => Ok(micros),
        _ => Err(unknown()),
    }
}

/// The tables that a statement names.
fn references(statement: &SqlStatement) -> Vec<Reference> {
    struct Collect(Vec<Reference>);
    impl Visitor for Collect {
        type Break = ();
        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            if let TableFactor::Table { name, version, args: None, .. } = factor {
                self.0.push(Reference { name: name.clone(), version: version.clone() });
            }
            ControlFlow::Continue(())
        }
    }
    let mut found = Collect(Vec::new());
    if let Some(statement) = inner(statement) {
        // It never breaks off.
        let _ = statement.visit(&mut found);
    }
    found.0
}

fn inner(statement: &SqlStatement) -> Option<&ast::Statement> {
    match statement {
        SqlStatement::Statement(statement) => Some(statement),
        SqlStatement::Explain(explain) => inner(&explain.statement),
        _ => None,
    }
}

fn inner_mut(statement: &mut SqlStatement) -> Option<&mut ast::Statement> {
    match statement {
        SqlStatement::Statement(statement) => Some(statement),
        SqlStatement::Explain(explain) => inner_mut(&mut explain.statement),
        _ => None,
    }
}

/// Puts seqs in the place of moments.
struct Pin<'a>(&'a HashMap<String, u64>);

impl VisitorMut for Pin<'_> {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { version: Some(version), .. } = factor
            && let Some(seq) = self.0.get(&version.to_string())
        {
            let number = ast::Value::Number(seq.to_string(), false);
            *version = TableVersion::VersionAsOf(ast::Expr::Value(number.with_empty_span()));
        }
        ControlFlow::Continue(())
    }
}

/// Plans the tables of other moments.
#[derive(Debug)]
struct PastTables(HashMap<(String, Seq), Arc<dyn TableProvider>>);

impl RelationPlanner for PastTables {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DfResult<RelationPlanning> {
        let (name, alias, seq) = match relation {
            TableFactor::Table {
                name,
                alias,
                args: None,
                version: Some(TableVersion::VersionAsOf(ast::Expr::Value(ref seq))),
                ..
            } => (name, alias, seq.to_string()),
            other => return Ok(RelationPlanning::Original(Box::new(other))),
        };
        let seq = seq.parse().map(Seq).unwrap_or_default();
        let Some(provider) = self.0.get(&(name.to_string(), seq)) else {
            return Err(crate::error::to_datafusion(Error::internal(format!(
                "table {name} as of seq {seq} was not looked up"
            ))));
        };
        let table = context.object_name_to_table_reference(name)?;
        // Scans are told apart by their names alone: two moments of one table would be taken for one subquery.
        let scanned = TableReference::bare(format!("{table} as of {seq}"));
        let plan = LogicalPlanBuilder::scan(scanned, provider_as_source(Arc::clone(provider)), None)?
            .alias(table)?
            .build()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}
