//! What a statement that was committed alone must have made of its table, from its words.

use std::sync::Arc;

use tandem_format::{Mutation, MutationKind, OnDuplicate};
use tandem_manifest::Manifest;
use tandem_types::{Error, Result, TableName};

use crate::bind;
use crate::eval::cast;
use crate::interpreter::{PlainTable, Tables};
use crate::statement::{Change, Conflict, Insert, Statement};
use crate::value::Value;

/// What a statement must have done.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The table afterwards.
    pub table: PlainTable,
    /// How many rows an UPDATE or a DELETE acts on.
    pub acts_on: Option<u64>,
}

/// `None`: nothing is said of statements of this kind. `now` is the commit's time.
pub fn expected(
    statement: &Statement,
    state: &Manifest,
    tables: &Tables,
    now: i64,
) -> Result<Option<Expected>> {
    let before = |name: &str| -> Result<PlainTable> {
        let id = state.require(&TableName::public(name))?.id();
        let table = tables.get(&id).map(Arc::as_ref).cloned();
        table.ok_or_else(|| Error::internal(format!("the interpreter has no table {name}")))
    };
    Ok(match statement {
        Statement::Insert(insert) => {
            let mut table = before(&insert.table)?;
            self::insert(&mut table, insert)?;
            Some(Expected { table, acts_on: None })
        }
        Statement::Change(change) => {
            let mut table = before(&change.table)?;
            let known = state.require(&TableName::public(&change.table))?;
            let acts_on = Some(self::change(&mut table, change, known, now)?);
            Some(Expected { table, acts_on })
        }
        Statement::Truncate(name) => {
            let mut table = before(name)?;
            table.rows.clear();
            Some(Expected { table, acts_on: None })
        }
        _ => None,
    })
}

fn insert(table: &mut PlainTable, insert: &Insert) -> Result<()> {
    let policy = table.options.get("on_duplicate").map(String::as_str);
    let on_duplicate = match (&insert.conflict, policy) {
        _ if table.primary_key.is_empty() => OnDuplicate::Keep,
        (Some(Conflict::Nothing), _) | (None, Some("ignore")) => OnDuplicate::Ignore,
        (Some(Conflict::Merge), _) | (None, Some("merge")) => OnDuplicate::Merge,
        (Some(Conflict::Replace), _) | (None, _) => OnDuplicate::Replace,
        (Some(Conflict::Update(names)), _) => OnDuplicate::Update(
            table.columns.iter().filter(|c| names.contains(&c.name)).map(|c| c.id).collect(),
        ),
    };
    for row in insert.batches.iter().flatten() {
        let mut new = vec![Value::Null; table.columns.len()];
        for ((name, data_type), value) in insert.columns.iter().zip(row) {
            let at = table.columns.iter().position(|c| c.name == *name);
            let at = at.ok_or_else(|| Error::internal(format!("rows for the column {name} were taken")))?;
            new[at] = cast(value.clone(), data_type, &table.columns[at].data_type)?;
        }
        table.insert(&on_duplicate, new)?;
    }
    Ok(())
}

/// How many rows it acts on.
fn change(table: &mut PlainTable, change: &Change, known: &tandem_manifest::Table, now: i64) -> Result<u64> {
    let predicate = bind::expr(&change.predicate, known)?;
    let mut rest = table.clone();
    let mutation = |kind| Mutation { table: known.id(), kind, time: None, statement: String::new() };
    rest.mutate(&mutation(MutationKind::Delete { predicate: predicate.clone() }), None, now)?;
    let acts_on = (table.rows.len() - rest.rows.len()) as u64;
    match &change.assignments {
        None => *table = rest,
        Some(assignments) => {
            let assignments = assignments
                .iter()
                .map(|(name, term)| bind::assignment(name, term, known))
                .collect::<Result<_>>()?;
            let kind = MutationKind::Update { predicate, assignments };
            table.mutate(&mutation(kind), None, now)?;
        }
    }
    Ok(acts_on)
}
