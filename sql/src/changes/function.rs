//! `system.changes('table', from_seq, to_seq, images)` in a query.
//!
//! What it names is looked up before the query is planned, because that may mean to wait; what the planner meets is a table.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow_schema::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result as DfResult, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, TableType};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::Statement as SqlStatement;
use datafusion::sql::planner::object_name_to_table_reference;
use datafusion::sql::sqlparser::ast::{
    self, ExprWithAlias, FunctionArg, FunctionArgExpr, ObjectName, TableFactor, Visit, Visitor,
};
use futures::{StreamExt, TryStreamExt};
use tandem_manifest::Manifest;
use tandem_types::{DEFAULT_CATALOG, Error, Result, Seq, TableName};

use super::request::{ChangesRequest, Images, Subject};
use super::source::Source;
use super::stream::start;
use super::walk::{Columns, Walk};
use crate::catalog::SYSTEM_SCHEMA;
use crate::engine::Engine;
use crate::error::{IntoTandem, to_datafusion};

const NAME: &str = "changes";

/// What planning needs in order to tell changes; an extension of the session's configuration.
#[derive(Debug)]
pub(crate) struct ChangesOf {
    pub(crate) engine: Engine,
    /// The state that the query reads; `None`: it has rows of an open transaction, which no commit has.
    pub(crate) snapshot: Option<Arc<Manifest>>,
}

/// A call in the statement.
struct Call {
    /// As it is written.
    text: String,
    args: Vec<FunctionArg>,
}

/// What the statement is to be planned with: `state` itself, or one that knows the changes that the statement asks for.
pub(crate) async fn with_changes<'a>(
    state: Cow<'a, SessionState>,
    statement: &SqlStatement,
) -> Result<Cow<'a, SessionState>> {
    let calls = calls(&state, statement);
    if calls.is_empty() {
        return Ok(state);
    }
    let Some(of) = state.config().get_extension::<ChangesOf>() else {
        return Err(Error::internal("a statement is planned without knowing of changes"));
    };
    let Some(snapshot) = &of.snapshot else {
        return Err(Error::unsupported(format!(
            "{SYSTEM_SCHEMA}.{NAME} tells of commits, and cannot be asked in a transaction that has written"
        )));
    };
    let mut tables: HashMap<String, Arc<dyn TableProvider>> = HashMap::new();
    for call in calls {
        let request =
            request(&state, &call, snapshot).map_err(|e| e.context(format!("{SYSTEM_SCHEMA}.{NAME}")))?;
        let table = ChangesTable::find(&of.engine, snapshot, request).await?;
        tables.insert(call.text, Arc::new(table));
    }
    let mut state = state.into_owned();
    state.register_relation_planner(Arc::new(Calls(tables))).tandem()?;
    Ok(Cow::Owned(state))
}

/// Whether a name means the function.
fn is_changes(name: &ObjectName, default_schema: &str) -> bool {
    object_name_to_table_reference(name.clone(), true).is_ok_and(|name| {
        let name = name.resolve(DEFAULT_CATALOG, default_schema);
        *name.catalog == *DEFAULT_CATALOG && *name.schema == *SYSTEM_SCHEMA && *name.table == *NAME
    })
}

fn calls(state: &SessionState, statement: &SqlStatement) -> Vec<Call> {
    struct Collect<'a>(Vec<Call>, &'a str);
    impl Visitor for Collect<'_> {
        type Break = ();
        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            if let TableFactor::Table { name, args: Some(args), .. } = factor
                && is_changes(name, self.1)
            {
                self.0.push(Call { text: text(name, &args.args), args: args.args.clone() });
            }
            ControlFlow::Continue(())
        }
    }
    fn inner(statement: &SqlStatement) -> Option<&ast::Statement> {
        match statement {
            SqlStatement::Statement(statement) => Some(statement),
            SqlStatement::Explain(explain) => inner(&explain.statement),
            _ => None,
        }
    }
    let mut found = Collect(Vec::new(), &state.config_options().catalog.default_schema);
    if let Some(statement) = inner(statement) {
        // It never breaks off.
        let _ = statement.visit(&mut found);
    }
    found.0
}

fn text(name: &ObjectName, args: &[FunctionArg]) -> String {
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    format!("{name}({})", args.join(", "))
}

/// What a call asks for.
fn request(state: &SessionState, call: &Call, snapshot: &Manifest) -> Result<ChangesRequest> {
    let wrong = || {
        Error::invalid(
            "it takes a table's name, the first seq, and if wanted the last seq and the images: ('t', 1, 9, 'both')",
        )
    };
    let args: Vec<ScalarValue> = call.args.iter().map(|arg| constant(state, arg)).collect::<Result<_>>()?;
    let (table, from, to, images) = match args.as_slice() {
        [table, from] => (table, from, None, None),
        [table, from, to] => (table, from, Some(to), None),
        [table, from, to, images] => (table, from, Some(to), Some(images)),
        _ => return Err(wrong()),
    };
    let table = text_of(table).ok_or_else(wrong)?;
    let name = TableReference::parse_str(&table)
        .resolve(DEFAULT_CATALOG, &state.config_options().catalog.default_schema);
    let seq = |value: &ScalarValue| match value.cast_to(&DataType::UInt64) {
        _ if !value.data_type().is_integer() => Err(wrong()),
        Ok(ScalarValue::UInt64(Some(seq))) => Ok(Seq(seq)),
        _ => Err(Error::invalid(format!("{value} is no seq"))),
    };
    let here = snapshot.seq();
    let to = match to.filter(|to| !to.is_null()) {
        Some(to) => seq(to)?,
        None => here,
    };
    if to > here {
        let message = format!("seq {to} is asked for, and the query reads the state at seq {here}");
        return Err(Error::behind(message).with_seq(here));
    }
    let images = match images {
        Some(images) => Images::parse(&text_of(images).ok_or_else(wrong)?)?,
        None => Images::default(),
    };
    let table = TableName::new(&*name.schema, &*name.table);
    Ok(ChangesRequest { table, from: seq(from)?, to: Some(to), images })
}

fn text_of(value: &ScalarValue) -> Option<String> {
    value.try_as_str().flatten().map(str::to_owned)
}

/// The value of an argument without columns.
fn constant(state: &SessionState, arg: &FunctionArg) -> Result<ScalarValue> {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) = arg else {
        return Err(Error::invalid(format!("{arg} is no constant")));
    };
    let unknown = || Error::invalid(format!("{expression} is no constant"));
    let schema = DFSchema::empty();
    let parsed = ExprWithAlias { expr: expression.clone(), alias: None };
    let parsed = state.create_logical_expr_from_sql_expr(parsed, &schema).tandem()?;
    let context = SimplifyContext::builder().with_config_options(Arc::clone(state.config_options())).build();
    let simplifier = ExprSimplifier::new(context);
    let simplified = simplifier.coerce(parsed, &schema).and_then(|e| simplifier.simplify(e)).tandem()?;
    match simplified {
        Expr::Literal(value, _) => Ok(value),
        _ => Err(unknown()),
    }
}

/// Plans the calls.
#[derive(Debug)]
struct Calls(HashMap<String, Arc<dyn TableProvider>>);

impl RelationPlanner for Calls {
    fn plan_relation(
        &self,
        relation: TableFactor,
        _context: &mut dyn RelationPlannerContext,
    ) -> DfResult<RelationPlanning> {
        let known = match &relation {
            TableFactor::Table { name, alias, args: Some(args), .. } => {
                let text = text(name, &args.args);
                self.0.get(&text).map(|table| (text, Arc::clone(table), alias.clone()))
            }
            _ => None,
        };
        let Some((text, table, alias)) = known else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        // Scans are told apart by their names alone.
        let plan = LogicalPlanBuilder::scan(TableReference::bare(text), provider_as_source(table), None)?
            .alias(NAME)?
            .build()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

/// The changes of a table between two commits.
#[derive(Debug)]
struct ChangesTable {
    stream: Arc<Changes>,
}

#[derive(Debug)]
struct Changes {
    engine: Engine,
    subject: Subject,
    request: ChangesRequest,
    schema: SchemaRef,
}

impl ChangesTable {
    async fn find(engine: &Engine, snapshot: &Arc<Manifest>, request: ChangesRequest) -> Result<Self> {
        let source = Source { engine: engine.clone() };
        let subject = Subject::find(&source, &request, snapshot).await?;
        // All are told in the columns of the last.
        let to = request.to.unwrap_or(snapshot.seq());
        let last = if to >= snapshot.seq() { Arc::clone(snapshot) } else { source.state(to).await? };
        let subject = subject.in_columns_of(&last);
        let walk = Walk::new(&source, subject.clone(), &request, Columns::Stay)?;
        let schema = walk.schema;
        let changes = Changes { engine: engine.clone(), subject, request, schema };
        Ok(Self { stream: Arc::new(changes) })
    }
}

#[async_trait]
impl TableProvider for ChangesTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.stream.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let stream = Arc::clone(&self.stream) as Arc<dyn PartitionStream>;
        let exec = StreamingTableExec::try_new(self.schema(), vec![stream], projection, [], false, limit)?;
        Ok(Arc::new(exec))
    }
}

impl PartitionStream for Changes {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _ctx: Arc<TaskContext>) -> SendableRecordBatchStream {
        let source = Source { engine: self.engine.clone() };
        let walk = Walk::new(&source, self.subject.clone(), &self.request, Columns::Stay);
        let rows = match walk {
            Ok(walk) => start(&self.engine, walk, None).map_ok(|batch| batch.rows).boxed(),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        };
        let rows = rows.map_err(to_datafusion);
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}
