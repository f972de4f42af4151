//! `UPDATE` and `DELETE`: what they change is worked out on a snapshot and committed as records of the log.
//!
//! - What looks at one row, at constants and at the commit's time is logged as it is, and acts on exactly the rows at
//!   positions before it. Subqueries that do not depend on the row are evaluated first and are constants then.
//! - Everything else is evaluated here, to a table of what to look up and what to put in its place, under the
//!   precondition that the tables read are unchanged. If they are not, it is evaluated again, a few times.
//! - Rows are counted on the snapshot. The count is exact if the target is the same when the statement is committed,
//!   which is tried first; else it is an estimate, and says so.
//! - A value that does not fit its column is an error as far as it can be known: for the rows that are there.

mod analyse;
mod change;
mod check;
mod clock;
mod commit;
mod evaluate;
mod hull;
mod subquery;
mod translate;

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::execution::SessionState;
use std::time::Duration;
use tandem_manifest::{Intent, Manifest, MutateDraft, MutateIntent, MutateTarget, Rejection, Step};
use tandem_types::{Error, Result, Seq, TableId, TableName};

use crate::database::{Database, StagedSection};
use crate::error::IntoTandem;
use crate::params::{Parameters, row_values};
use crate::session::Session;
use crate::similar;
use crate::statement::Dml;
use change::Change;
pub(crate) use commit::{run, run_within};
use evaluate::Lookup;

/// Memory that one statement's values to look up may take.
const LOOKUP_BYTES_MAX: usize = 256 << 20;

/// Rows of parameters that one statement takes: each is a record of its own in the log.
const PARAMETER_ROWS_MAX: usize = 10_000;

/// What a statement sees.
pub(crate) struct View {
    session: Arc<Session>,
    pub(crate) snapshot: Arc<Manifest>,
    pub(crate) state: SessionState,
    planning_limit: Duration,
    memory_limit: usize,
}

impl View {
    pub(crate) fn new(session: &Arc<Session>, snapshot: Arc<Manifest>) -> Result<Self> {
        let state = session.state(&snapshot)?;
        let config = session.engine().config();
        Ok(Self {
            session: Arc::clone(session),
            snapshot,
            state,
            planning_limit: config.planning_limit,
            memory_limit: config.memory_limit.min(LOOKUP_BYTES_MAX),
        })
    }

    /// The same after a step that carries no rows.
    fn after(&self, step: Step) -> Result<Self> {
        let now = &self.snapshot;
        let steps = vec![step];
        let intent = Intent { token: None, digest: Vec::new(), epoch: None, base: now.seq(), steps };
        match now.preview(&intent, now.commit_time() + 1) {
            Ok(next) => Self::new(&self.session, Arc::new(next)),
            Err(Rejection::Refused(error) | Rejection::Recast(error)) => Err(error),
        }
    }
}

/// What a statement of DML comes to.
pub(crate) struct PlannedDml {
    /// The state that it was worked out on.
    pub(crate) base: Seq,
    pub(crate) table: TableId,
    pub(crate) name: TableName,
    /// Tables that must be at its commit what they were at `base`.
    pub(crate) unchanged: Vec<(TableId, TableName)>,
    /// None: it does nothing, whatever anybody commits before it.
    changes: Vec<Change>,
    statement: Arc<str>,
    /// Rows that it acts on at `base`.
    pub(crate) rows: u64,
    /// Whether they are the rows that it acts on wherever the table is what it was at `base`.
    pub(crate) countable: bool,
}

/// What a statement wants bound; refuses what does not fit the table.
pub(crate) async fn parameters(dml: &Dml, session: &Session, snapshot: &Arc<Manifest>) -> Result<Parameters> {
    let state = session.state(snapshot)?;
    Parameters::of(&analyse::plan(dml, &state, snapshot).await?)
}

/// Works out what a statement does, once for each row of parameters, each seeing what the ones before it did. To be run on
/// the query threads.
pub(crate) async fn plan_dml(
    dml: &Dml,
    statement: &Arc<str>,
    bound: Option<RecordBatch>,
    mut view: View,
) -> Result<PlannedDml> {
    let table = similar::require(&view.snapshot, &dml.table)?;
    let mut planned = PlannedDml {
        base: view.snapshot.seq(),
        table: table.id(),
        name: dml.table.clone(),
        unchanged: Vec::new(),
        changes: Vec::new(),
        statement: Arc::clone(statement),
        rows: 0,
        countable: true,
    };
    let runs = bound.as_ref().map_or(1, RecordBatch::num_rows);
    if runs > PARAMETER_ROWS_MAX {
        return Err(Error::invalid(format!(
            "a statement that changes rows takes at most {PARAMETER_ROWS_MAX} rows of parameters, not {runs}: INSERT … ON \
             CONFLICT takes any number"
        )));
    }
    for run in 0..runs {
        let plan = analyse::plan(dml, &view.state, &view.snapshot).await?;
        let plan = match &bound {
            Some(rows) => plan.with_param_values(row_values(rows, run)?).tandem()?,
            None => plan,
        };
        let analysed = analyse::analyse(dml, plan, &view.state, &view.snapshot)?;
        let worked_out = change::work_out(analysed, &view).await?;
        for name in worked_out.reads {
            // What is no table of the database has no state to be compared.
            if let Some(table) = view.snapshot.table_named(&name)
                && !planned.unchanged.iter().any(|(id, _)| *id == table.id())
            {
                planned.unchanged.push((table.id(), name));
            }
        }
        planned.rows += worked_out.rows;
        planned.countable &= worked_out.countable;
        let Some(change) = worked_out.change else { continue };
        if run + 1 < runs {
            let Some(step) = change.step_without_rows(&planned) else {
                return Err(Error::unsupported(
                    "a statement that has to be evaluated by a query (for a join, a function, or a subquery on the row) takes \
                     one row of parameters at a time",
                ));
            };
            view = view.after(step)?;
        }
        planned.changes.push(change);
    }
    Ok(planned)
}

impl PlannedDml {
    /// Preconditions of the statement, and of `also` where it is not among them: to stand before all other steps.
    pub(crate) fn preconditions(&self, also: Option<&(TableId, TableName)>) -> Vec<Step> {
        let more = also.filter(|(id, _)| !self.unchanged.iter().any(|(known, _)| known == id));
        let all = self.unchanged.iter().chain(more);
        all.map(|(table, name)| Step::Unchanged { table: *table, name: name.clone(), since: self.base })
            .collect()
    }

    /// The steps, and the sections that they carry, uploaded if they are large.
    /// `held` is what their transaction holds already, in bytes.
    pub(crate) async fn steps(
        &self,
        database: &dyn Database,
        held: u64,
    ) -> Result<(Vec<Step>, Vec<StagedSection>)> {
        let (mut steps, mut sections) = (Vec::new(), Vec::new());
        for change in &self.changes {
            if let Some(step) = change.step_without_rows(self) {
                steps.push(step);
                continue;
            }
            let Change::LookUp { lookup, delete } = change else { continue };
            let Lookup { columns, keys, tuples, time, .. } = lookup;
            let staged = database.stage_lookup(tuples.schema(), vec![tuples.clone()], held).await?;
            let (columns, section) = (columns.clone(), staged.draft.clone());
            let draft = MutateDraft::Lookup { columns, keys: *keys, delete: *delete, section };
            steps.push(Step::Mutate(self.intent(draft, *time)));
            sections.push(staged);
        }
        Ok((steps, sections))
    }

    fn intent(&self, draft: MutateDraft, time: Option<(i64, i64)>) -> MutateIntent {
        MutateIntent {
            name: self.name.clone(),
            target: MutateTarget::Existing(self.table),
            draft,
            time,
            statement: self.statement.to_string(),
        }
    }
}
