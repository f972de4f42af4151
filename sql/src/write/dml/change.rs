//! One run of a statement: whether it can be logged as it is, and what it does to the rows that are there.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::Expr;
use datafusion::scalar::ScalarValue;
use tandem_manifest::{MutateDraft, Step};
use tandem_types::{Error, ErrorKind, Result, TableName};

use super::analyse::{Analysed, simplified};
use super::check::{Check, computes};
use super::evaluate::{Lookup, count_rows, lookup};
use super::hull::{Hull, hull, is_empty};
use super::subquery::resolve;
use super::translate::translator;
use super::{PlannedDml, View, clock};
use crate::error::IntoTandem;

/// What is to be committed.
pub(super) enum Change {
    /// Every row goes.
    Truncate,
    Logged {
        draft: MutateDraft,
        time: Option<Hull>,
    },
    LookUp {
        lookup: Lookup,
        delete: bool,
    },
}

impl Change {
    /// Whether the log works out which rows it acts on with numbers.
    fn selects_by_arithmetic(&self) -> bool {
        match self {
            Self::Logged { draft: MutateDraft::Delete { predicate }, .. }
            | Self::Logged { draft: MutateDraft::Update { predicate, .. }, .. } => computes(predicate),
            _ => false,
        }
    }

    /// Its step, unless rows go with it.
    pub(super) fn step_without_rows(&self, planned: &PlannedDml) -> Option<Step> {
        match self {
            Self::Truncate => Some(Step::Truncate { name: planned.name.clone() }),
            Self::Logged { draft, time } => Some(Step::Mutate(planned.intent(draft.clone(), *time))),
            Self::LookUp { .. } => None,
        }
    }
}

/// What one run does.
pub(super) struct WorkedOut {
    pub(super) change: Option<Change>,
    /// Tables on whose state it rests.
    pub(super) reads: Vec<TableName>,
    pub(super) rows: u64,
    /// Whether it acts on as many rows whenever it is committed, as long as the target stays the same.
    pub(super) countable: bool,
}

/// Works out one run of a statement.
pub(super) async fn work_out(mut analysed: Analysed, view: &View) -> Result<WorkedOut> {
    let mut predicate = analysed.predicate;
    predicate = resolve(predicate, view).await?;
    analysed.predicate = predicate;
    let mut assignments = Vec::with_capacity(analysed.assignments.len());
    for (column, value) in analysed.assignments {
        assignments.push((column, resolve(value, view).await?));
    }
    analysed.assignments = assignments;

    let predicate = simplified(&analysed.predicate, &analysed.from, &view.state)?;
    let timestamp = analysed.table.timestamp();
    let time = timestamp.and_then(|timestamp| hull(&predicate, timestamp));
    let reads = analysed.reads.clone();
    if is_never(&predicate) || time.is_some_and(is_empty) {
        return Ok(WorkedOut { change: None, reads, rows: 0, countable: true });
    }
    if let Some(change) = logged(&analysed, &predicate, time, view)? {
        let check = match &change {
            Change::Logged { draft, .. } => Check::of(&analysed, draft, view)?,
            _ => None,
        };
        let rows = match count_rows(&analysed, check.as_ref(), view).await {
            Ok(rows) => rows,
            Err(error) => return Err(blamed(&analysed, view, error).await),
        };
        // Which rows a predicate with arithmetic meets is the log's to say: the count that was asked here wraps around
        // where the log has null.
        let countable = !looks_at_clock(&predicate)? && !change.selects_by_arithmetic();
        return Ok(WorkedOut { change: Some(change), reads, rows, countable });
    }
    let found = match lookup(&analysed, view).await {
        Ok(found) => found,
        Err(error) => return Err(blamed(&analysed, view, error).await),
    };
    let mut reads = reads;
    let target = analysed.table.name();
    if !reads.contains(target) {
        reads.push(target.clone());
    }
    let rows = found.as_ref().map_or(0, |found| found.rows);
    let delete = analysed.assignments.is_empty();
    let change = found.map(|lookup| Change::LookUp { lookup, delete });
    Ok(WorkedOut { change, reads, rows, countable: true })
}

/// The statement in the log's own language, if it has a form there.
fn logged(analysed: &Analysed, predicate: &Expr, time: Option<Hull>, view: &View) -> Result<Option<Change>> {
    if analysed.joined {
        return Ok(None);
    }
    let translator = translator(&analysed.table, analysed.qualifier.as_ref());
    let Some(logged) = translator.predicate(predicate) else { return Ok(None) };
    if analysed.assignments.is_empty() {
        if matches!(predicate, Expr::Literal(ScalarValue::Boolean(Some(true)), _)) {
            return Ok(Some(Change::Truncate));
        }
        return Ok(Some(Change::Logged { draft: MutateDraft::Delete { predicate: logged }, time }));
    }
    let mut assignments = Vec::with_capacity(analysed.assignments.len());
    for (column, value) in &analysed.assignments {
        let value = simplified(value, &analysed.from, &view.state)
            .map_err(|e| e.context(format!("update {}: column {:?}", analysed.table.name(), column.name)))?;
        if !column.nullable && matches!(&value, Expr::Literal(value, _) if value.is_null()) {
            return Err(Error::invalid(format!(
                "update {}: column {:?} must not be null",
                analysed.table.name(),
                column.name
            )));
        }
        let Some(value) = translator.value(&value, column) else { return Ok(None) };
        assignments.push((column.id, value));
    }
    Ok(Some(Change::Logged { draft: MutateDraft::Update { predicate: logged, assignments }, time }))
}

fn is_never(predicate: &Expr) -> bool {
    matches!(predicate, Expr::Literal(ScalarValue::Boolean(Some(false) | None) | ScalarValue::Null, _))
}

fn looks_at_clock(predicate: &Expr) -> Result<bool> {
    let mut found = false;
    let visit = |expr: &Expr| {
        found |= matches!(expr, Expr::Column(column) if clock::type_of(column).is_some());
        Ok(TreeNodeRecursion::Continue)
    };
    predicate.apply(visit).tandem()?;
    Ok(found)
}

/// Names the column whose new value was wrong: DataFusion's errors do not.
async fn blamed(analysed: &Analysed, view: &View, error: Error) -> Error {
    let name = analysed.table.name();
    if analysed.assignments.is_empty() {
        return error.context(format!("delete from {name}"));
    }
    if error.kind() == ErrorKind::InvalidInput && !error.message().starts_with("column ") {
        let alone = Analysed { assignments: Vec::new(), ..analysed.clone() };
        if count_rows(&alone, None, view).await.is_ok() {
            for (column, value) in &analysed.assignments {
                let one = Analysed { assignments: vec![(column.clone(), value.clone())], ..analysed.clone() };
                if count_rows(&one, None, view).await.is_err() {
                    return error.context(format!("update {name}: column {:?}", column.name));
                }
            }
        }
    }
    error.context(format!("update {name}"))
}
