//! One statement, from its text to what it does.

mod within;

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use datafusion::execution::SessionState;
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, col, lit};
use datafusion::sql::parser::Statement as SqlStatement;
use tandem_manifest::{Manifest, Step};
use tandem_types::{Error, ErrorKind, Result, Seq, TableName};

use crate::as_of::{PastReads, is_versioned, with_versions};
use crate::database::Receipt;
use crate::digest::statement_digest;
use crate::error::IntoTandem;
use crate::options::{Ack, ReadOptions, WriteOptions};
use crate::params::{Parameters, row_values};
use crate::restore::{RestorePlan, drop_partitions};
use crate::running::{Planned, PlannedQuery, physical_plan};
use crate::session::Session;
use crate::similar;
use crate::statement::{Control, Dml, Restore, Show, Statement, parse};
use crate::transaction::{Seen, tables_read};
use crate::wire::wire_schema;
use crate::write::{CreateAs, Insert, dml};
use within::not_within;

const PLANNING: &str = "planning the statement";

/// A query runs once per row of parameters; more rows than this are a mistake.
const QUERY_ROWS_MAX: usize = 10_000;

/// One statement whose parameters and result are known. Clones share it.
#[derive(Clone)]
pub struct Prepared {
    session: Arc<Session>,
    sql: Arc<str>,
    kind: Arc<Kind>,
    parameters: Parameters,
    schema: SchemaRef,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("sql", &self.sql).finish_non_exhaustive()
    }
}

enum Kind {
    Query(Query),
    /// The value of a session option, or of all of them.
    Setting(Option<String>),
    Insert(Insert),
    Dml(Arc<Dml>),
    CreateAs(CreateAs),
    Steps(Vec<Step>),
    Restore(Restore),
    /// What a restore would change.
    RestorePlan(Restore),
    DropPartitions {
        table: TableName,
        labels: Vec<String>,
    },
    Optimize(TableName),
    Checkpoint,
    Cancel(String),
    Set {
        name: String,
        value: Option<String>,
    },
    Transaction(Control),
}

struct Query {
    source: Source,
    /// Good as long as the snapshot is still the newest; `None`: it was of a transaction.
    planned: Option<(Seq, LogicalPlan)>,
    /// Whether a table in it is read as of a moment of its own: what that means may depend on the clock.
    versioned: bool,
}

/// What a query is made of.
enum Source {
    Statement(Box<SqlStatement>),
    Show(Show),
}

impl Source {
    async fn plan(&self, state: &SessionState, snapshot: &Manifest) -> Result<LogicalPlan> {
        let statement = match self {
            Self::Statement(statement) => statement.as_ref().clone(),
            Self::Show(show) => *show.query(snapshot)?,
        };
        query_plan(state, statement).await
    }
}

/// What a statement that is no query did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpdateResult {
    /// Its commit; for a statement that committed nothing, the state it saw.
    pub seq: Seq,
    /// Rows written, changed or deleted; `None` for statements that do none of that, and where nobody knows any more.
    pub rows: Option<u64>,
    /// Whether `rows` is a fact, and no estimate.
    pub exact: bool,
    /// The write had been committed before under its token: seq and rows are those of the first time.
    pub duplicate: bool,
    /// The level at which it was acknowledged.
    pub acked: Ack,
}

impl UpdateResult {
    /// Of a statement that committed nothing.
    pub(crate) fn nothing(seq: Seq, rows: Option<u64>) -> Self {
        Self { seq, rows, exact: true, duplicate: false, acked: Ack::Store }
    }

    /// Of one that commits, and writes no rows to be counted.
    pub(crate) fn uncounted(receipt: Receipt) -> Self {
        Self { rows: None, ..receipt.into() }
    }
}

impl From<Receipt> for UpdateResult {
    fn from(receipt: Receipt) -> Self {
        let Receipt { seq, rows, duplicate, acked } = receipt;
        Self { seq, rows: Some(rows), exact: true, duplicate, acked }
    }
}

impl Prepared {
    pub(crate) async fn new(session: Arc<Session>, sql: &str, read: &ReadOptions) -> Result<Self> {
        let engine = session.engine().clone();
        let text: Arc<str> = sql.into();
        if let Some(transaction) = session.transaction() {
            return Self::new_within(session, text, transaction, read).await;
        }
        let limit = engine.config().planning_limit;
        let what = PLANNING;
        let seen = engine.database().snapshot().seq();
        // Waiting is done between the two steps, on no thread of the queries and on no account of the planning; a
        // statement that reads nothing, such as the SET that takes an option back, does not wait.
        let parse = || {
            let (session, text) = (Arc::clone(&session), Arc::clone(&text));
            async move { one_statement(&session, &text) }
        };
        let analysed = if read.demands_more_than(seen) || read.as_of.is_some() {
            let statement = engine.runtime().run_within(limit, what, parse()).await?;
            if writes(&statement) {
                session.check_present(read)?;
            }
            let snapshot = match reads(&statement) {
                true => session.state_for(read).await?,
                false => engine.database().snapshot(),
            };
            let pinned = Pinned { past: read.as_of.is_some(), ..Pinned::of(snapshot) };
            let work = {
                let session = Arc::clone(&session);
                Box::pin(async move { analyse(&session, statement, pinned).await })
            };
            engine.runtime().run_within(limit, what, work).await?
        } else {
            let analysis = || {
                let (session, parsing) = (Arc::clone(&session), parse());
                // Large, and on its way to another thread it would be on this one's stack several times.
                Box::pin(async move {
                    let statement = parsing.await?;
                    let pinned = Pinned::of(session.engine().database().snapshot());
                    analyse(&session, statement, pinned).await
                })
            };
            match engine.runtime().run_within(limit, what, analysis()).await {
                // What is not known here may have been created on another node a moment ago.
                Err(unknown)
                    if unknown.kind() == ErrorKind::NotFound && session.has_news_since(seen).await =>
                {
                    engine.runtime().run_within(limit, what, analysis()).await?
                }
                analysed => analysed?,
            }
        };
        let (kind, parameters, schema) = analysed;
        Ok(Self { session, sql: text, kind: Arc::new(kind), parameters, schema })
    }

    /// The same statement, for another session.
    pub fn of_session(&self, session: Arc<Session>) -> Self {
        Self { session, ..self.clone() }
    }

    /// Whether it yields rows, by [`plan`](Self::plan); all else runs in [`update`](Self::update).
    pub fn is_query(&self) -> bool {
        matches!(*self.kind, Kind::Query(_) | Kind::Setting(_) | Kind::RestorePlan(_))
    }

    /// Whether it concerns nothing and nobody but its own session: it reads, or sets an option.
    pub fn only_for_its_session(&self) -> bool {
        matches!(
            *self.kind,
            Kind::Query(_)
                | Kind::Setting(_)
                | Kind::RestorePlan(_)
                | Kind::Set { .. }
                | Kind::Transaction(_)
        )
    }

    /// The text it was made of.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The wire schema of its rows; empty for what is no query.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Its parameters: fields `$1`, `$2`, … with wire types.
    pub fn parameters(&self) -> SchemaRef {
        self.parameters.schema()
    }

    /// As [`plan_with`](Self::plan_with), reading as the session's options say.
    ///
    /// # Errors
    ///
    /// The same.
    pub async fn plan(&self, params: Option<RecordBatch>) -> Result<PlannedQuery> {
        self.plan_with(params, &self.session.read_options(None, None, None)).await
    }

    /// Binds a query to the newest snapshot, which is what the read demands, and to parameters: columns by position,
    /// one run per row.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it is no query, or if the parameters do not fit; `Behind` if the state does not come in time.
    pub async fn plan_with(&self, params: Option<RecordBatch>, read: &ReadOptions) -> Result<PlannedQuery> {
        if !self.is_query() {
            return Err(Error::invalid("the statement yields no rows: it is no query"));
        }
        let bound = self.parameters.bind(params)?;
        let engine = self.session.engine();
        let transaction = self.session.transaction();
        let mut in_use = None;
        let pinned = match (self.kind.as_ref(), &transaction) {
            (Kind::Query(_), Some(transaction)) => {
                in_use = Some(transaction.enter()?);
                Pinned::within(transaction.seen(&self.session, read).await?)
            }
            (Kind::Query(_), None) => {
                Pinned { past: read.as_of.is_some(), ..Pinned::of(self.session.committed_state(read).await?) }
            }
            (Kind::RestorePlan(_), Some(_)) => return Err(not_within("EXPLAIN RESTORE")),
            _ => Pinned::of(engine.database().snapshot()),
        };
        let shown = match self.kind.as_ref() {
            Kind::RestorePlan(restore) => {
                Some(Box::pin(RestorePlan::new(engine.database().as_ref(), restore, read)).await?.query()?)
            }
            _ => None,
        };
        let this = self.clone();
        let work = Box::pin(async move { this.plan_bound(bound, pinned, shown).await });
        let limit = engine.config().planning_limit;
        let planned = engine.runtime().run_within(limit, "planning the query", work).await;
        drop(in_use);
        planned
    }

    async fn plan_bound(
        &self,
        bound: Option<RecordBatch>,
        pinned: Pinned,
        shown: Option<LogicalPlan>,
    ) -> Result<PlannedQuery> {
        let engine = self.session.engine().clone();
        let state = pinned.state(&self.session)?;
        let Pinned { snapshot, seq, within, .. } = pinned;
        let known = |query: &Query| match &query.planned {
            Some((at, plan)) if *at == seq && !within && !query.versioned => Some(plan.clone()),
            _ => None,
        };
        let plan = match self.kind.as_ref() {
            Kind::Query(query) => match known(query) {
                Some(plan) => plan,
                None => query.source.plan(&state, &snapshot).await?,
            },
            Kind::Setting(name) => setting_plan(&self.session, name.as_deref())?,
            _ => shown.ok_or_else(|| Error::internal("a statement that is no query was planned"))?,
        };
        let plans = match &bound {
            None => vec![plan],
            Some(rows) if rows.num_rows() == 0 || rows.num_rows() > QUERY_ROWS_MAX => {
                return Err(Error::invalid(format!(
                    "a query takes between 1 and {QUERY_ROWS_MAX} rows of parameters, not {}",
                    rows.num_rows()
                )));
            }
            Some(rows) => (0..rows.num_rows())
                .map(|row| plan.clone().with_param_values(row_values(rows, row)?).tandem())
                .collect::<Result<_>>()?,
        };
        let Some(plan) = plans.first() else {
            return Err(Error::internal("a query without plans"));
        };
        if let (Kind::Query(_), Some(transaction)) = (self.kind.as_ref(), self.session.transaction()) {
            transaction.note_query(tables_read(plan, &self.session.default_schema())?);
        }
        let schema = result_schema(&state, plan);
        let first = Some(physical_plan(&state, plan, engine.config().planning_limit).await?);
        let planned = Planned {
            session_id: self.session.id().to_owned(),
            sql: Arc::clone(&self.sql),
            snapshot: seq,
            engine,
            schema,
            state,
            plans,
            first,
        };
        Ok(planned.into())
    }

    /// As [`update_with`](Self::update_with), with nothing but the session's options.
    ///
    /// # Errors
    ///
    /// The same.
    pub async fn update(&self, params: Option<RecordBatch>) -> Result<UpdateResult> {
        let read = self.session.read_options(None, None, None);
        self.update_with(params, WriteOptions::default(), &read).await
    }

    /// Runs a statement that is no query, exactly once; one that inserts, once for each row of parameters,
    /// all in one transaction. What the request does not say of its write, the session's options say; the digest of its
    /// token is made here.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it is a query or the parameters do not fit; all that the database answers.
    pub async fn update_with(
        &self,
        params: Option<RecordBatch>,
        request: WriteOptions,
        read: &ReadOptions,
    ) -> Result<UpdateResult> {
        let bound = self.parameters.bind(params)?;
        let session = &self.session;
        let database = session.engine().database();
        let now = || database.snapshot().seq();
        let transaction = session.transaction();
        if transaction.is_some()
            && let Some(what) = self.alone()
        {
            return Err(not_within(what));
        }
        let done = match self.kind.as_ref() {
            Kind::Query(_) | Kind::Setting(_) | Kind::RestorePlan(_) => {
                return Err(Error::invalid("the statement is a query: it changes nothing"));
            }
            Kind::Checkpoint => return Ok(UpdateResult::nothing(database.checkpoint().await?, None)),
            Kind::Cancel(id) => {
                if !session.engine().cancel(id) {
                    return Err(Error::not_found(format!("query {id:?} does not run")));
                }
                return Ok(UpdateResult::nothing(now(), None));
            }
            Kind::Set { name, value } => {
                session.set_option(name, value.as_deref())?;
                return Ok(UpdateResult::nothing(now(), None));
            }
            Kind::Transaction(control) => {
                return Box::pin(session.control(control, request, read)).await;
            }
            Kind::Optimize(table) => UpdateResult::uncounted(database.optimize(table).await?),
            Kind::Insert(_)
            | Kind::Dml(_)
            | Kind::CreateAs(_)
            | Kind::Steps(_)
            | Kind::Restore(_)
            | Kind::DropPartitions { .. } => match transaction {
                Some(transaction) => return self.write_within(&transaction, bound, read).await,
                None => self.write(bound, request, read).await?,
            },
        };
        session.wrote(done.seq);
        Ok(done)
    }

    async fn write(
        &self,
        bound: Option<RecordBatch>,
        request: WriteOptions,
        read: &ReadOptions,
    ) -> Result<UpdateResult> {
        let (session, sql) = (&self.session, &self.sql);
        session.check_present(read)?;
        let database = session.engine().database();
        let mut options = session.write_options(request);
        if let Some(token) = &mut options.token {
            token.digest = statement_digest(&session.default_schema(), sql, bound.as_ref())?;
            if let Some(receipt) = database.repeated(&options).await? {
                let counted = matches!(*self.kind, Kind::Insert(_) | Kind::CreateAs(_));
                return Ok(if counted { receipt.into() } else { UpdateResult::uncounted(receipt) });
            }
        }
        // What a statement takes while it runs is large, and would be on the stack of whoever waits for any of them.
        match self.kind.as_ref() {
            Kind::Insert(insert) => {
                session.settle(read).await?;
                Box::pin(insert.run(session, sql, bound, options, None)).await
            }
            Kind::Dml(dml) => {
                session.settle(read).await?;
                Box::pin(dml::run(session, dml, sql, bound, options)).await
            }
            Kind::CreateAs(create) => {
                session.settle(read).await?;
                Box::pin(create.run(session, sql, bound, options, None)).await
            }
            Kind::Steps(steps) => {
                let base = database.snapshot().seq();
                let receipt = database.submit(base, steps.clone(), options).await?;
                Ok(UpdateResult::uncounted(receipt))
            }
            Kind::Restore(restore) => {
                session.settle(read).await?;
                let planning = Box::pin(RestorePlan::new(database.as_ref(), restore, read));
                let RestorePlan { base, steps, .. } = planning.await?;
                if steps.is_empty() {
                    return Ok(UpdateResult::nothing(base, None));
                }
                Ok(UpdateResult::uncounted(database.submit(base, steps, options).await?))
            }
            Kind::DropPartitions { table, labels } => {
                session.settle(read).await?;
                let snapshot = database.snapshot();
                let steps = vec![drop_partitions(&snapshot, table, labels)?];
                Ok(UpdateResult::uncounted(database.submit(snapshot.seq(), steps, options).await?))
            }
            _ => Err(Error::internal("a statement that does not write was to write")),
        }
    }
}

/// The one statement of a text.
fn one_statement(session: &Session, sql: &str) -> Result<Statement> {
    let limits = &session.engine().config().limits;
    let mut statements = parse(sql, &session.default_schema(), limits)?.into_iter();
    match (statements.next(), statements.next()) {
        (Some(statement), None) => Ok(statement),
        (None, _) => Err(Error::invalid("there is no statement in the text")),
        (Some(_), Some(_)) => Err(Error::invalid("one statement at a time: the text has several")),
    }
}

/// Whether what a statement means, or does, depends on the state that it finds.
fn reads(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::Query(_)
            | Statement::Show(_)
            | Statement::Insert { .. }
            | Statement::Dml(_)
            | Statement::CreateTableAs { .. }
    )
}

/// The state that a statement is planned on.
struct Pinned {
    snapshot: Arc<Manifest>,
    /// The newest commit in it.
    seq: Seq,
    /// Somebody asked for a state of the past.
    past: bool,
    /// It is what a transaction sees.
    within: bool,
}

impl Pinned {
    fn of(snapshot: Arc<Manifest>) -> Self {
        Self { seq: snapshot.seq(), snapshot, past: false, within: false }
    }

    fn within(seen: Seen) -> Self {
        Self { seq: seen.base.seq(), snapshot: seen.view, past: seen.past.is_some(), within: true }
    }

    /// What DataFusion needs to plan on it.
    fn state(&self, session: &Session) -> Result<SessionState> {
        let mut state = session.state(&self.snapshot)?;
        if self.past {
            let reads = PastReads { engine: session.engine().clone(), all: true };
            state.config_mut().set_extension(Arc::new(reads));
        }
        Ok(state)
    }
}

/// Whether a statement is for the present alone: it changes the database.
fn writes(statement: &Statement) -> bool {
    !matches!(
        statement,
        Statement::Query(_)
            | Statement::Show(_)
            | Statement::ShowSetting { .. }
            | Statement::Set { .. }
            | Statement::Transaction(_)
            | Statement::CancelQuery { .. }
            | Statement::Optimize { .. }
            | Statement::Checkpoint
    )
}

async fn analyse(
    session: &Arc<Session>,
    statement: Statement,
    pinned: Pinned,
) -> Result<(Kind, Parameters, SchemaRef)> {
    let empty = Arc::new(Schema::empty());
    let plain = |kind| Ok((kind, Parameters::default(), Arc::clone(&empty) as SchemaRef));
    let snapshot = Arc::clone(&pinned.snapshot);
    let source = match statement {
        Statement::Query(statement) => Source::Statement(statement),
        Statement::Show(show) => Source::Show(show),
        Statement::ShowSetting { name } => {
            let plan = setting_plan(session, name.as_deref())?;
            let schema = Arc::new(wire_schema(plan.schema().as_arrow()));
            return Ok((Kind::Setting(name), Parameters::default(), schema));
        }
        Statement::Insert { table, columns, source, conflict } => {
            let insert = Insert { table, columns, source, conflict };
            let parameters = insert.parameters(session, &snapshot).await?;
            return Ok((Kind::Insert(insert), parameters, empty));
        }
        Statement::Dml(dml) => {
            let parameters = dml::parameters(&dml, session, &snapshot).await?;
            return Ok((Kind::Dml(Arc::new(dml)), parameters, empty));
        }
        Statement::CreateTableAs { name, spec, if_not_exists, or_replace, query } => {
            let create = CreateAs { name, spec, if_not_exists, or_replace, query };
            let parameters = create.parameters(session, &snapshot).await?;
            return Ok((Kind::CreateAs(create), parameters, empty));
        }
        Statement::Steps(steps) => return plain(Kind::Steps(steps)),
        Statement::Restore { restore, explain: true } => {
            return Ok((Kind::RestorePlan(restore), Parameters::default(), RestorePlan::schema()));
        }
        Statement::Restore { restore, explain: false } => return plain(Kind::Restore(restore)),
        Statement::DropPartitions { table, labels } => return plain(Kind::DropPartitions { table, labels }),
        Statement::Optimize { table } => return plain(Kind::Optimize(table)),
        Statement::Checkpoint => return plain(Kind::Checkpoint),
        Statement::CancelQuery { id } => return plain(Kind::Cancel(id)),
        Statement::Set { name, value } => return plain(Kind::Set { name, value }),
        Statement::Transaction(control) => return plain(Kind::Transaction(control)),
    };
    let state = pinned.state(session)?;
    let plan = source.plan(&state, &snapshot).await?;
    let parameters = Parameters::of(&plan)?;
    let schema = result_schema(&state, &plan);
    let versioned = matches!(&source, Source::Statement(statement) if is_versioned(statement));
    let planned = (!pinned.within).then_some((pinned.seq, plan));
    Ok((Kind::Query(Query { source, planned, versioned }), parameters, schema))
}

/// How the rows of a plan look on the wire. Types are final only after analysis, which a plan whose
/// parameters are not bound may not survive.
fn result_schema(state: &SessionState, plan: &LogicalPlan) -> SchemaRef {
    let plain = || Arc::new(wire_schema(plan.schema().as_arrow()));
    if matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_)) {
        return plain();
    }
    match state.analyzer().execute_and_check(plan.clone(), state.config_options(), |_, _| {}) {
        Ok(analysed) => Arc::new(wire_schema(analysed.schema().as_arrow())),
        Err(_) => plain(),
    }
}

/// Plans a statement that must only read.
pub(crate) async fn query_plan(state: &SessionState, mut statement: SqlStatement) -> Result<LogicalPlan> {
    let state = with_versions(state, &mut statement).await?;
    let planned = state.statement_to_plan(statement).await.tandem();
    let plan = planned.map_err(|error| similar::of_plan(error, &state))?;
    let reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    reading.verify_plan(&plan).map_err(|e| {
        Error::unsupported(format!("only queries can be explained or planned so: {}", e.strip_backtrace()))
    })?;
    Ok(plan)
}

fn setting_plan(session: &Session, name: Option<&str>) -> Result<LogicalPlan> {
    let settings = match name {
        Some(name) => vec![(name.to_owned(), session.option(name)?)],
        None => session.options(),
    };
    let rows = settings.into_iter().map(|(name, value)| vec![lit(name), lit(value)]).collect();
    let names = [col("column1").alias("name"), col("column2").alias("value")];
    let plan = LogicalPlanBuilder::values(rows).and_then(|values| values.project(names));
    plan.and_then(LogicalPlanBuilder::build).tandem()
}
