//! What an open transaction has collected: its statements' steps, the state with them applied, and what must hold when they
//! are committed. Nothing here waits for anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tandem_manifest::{AppendTarget, Intent, Manifest, MutateTarget, Rejection, SchemaPolicy, Step, Table};
use tandem_types::{Error, Result, TableId, TableName};

use super::own::OWN;
use crate::as_of::AsOf;
use crate::database::{SectionRows, StagedSection};

/// The statements of a transaction, and the states before and after them.
#[derive(Debug)]
pub(crate) struct Work {
    /// What the transaction sees of others.
    pub(crate) base: Arc<Manifest>,
    /// The same, with its own statements.
    pub(crate) view: Arc<Manifest>,
    /// The moment of the past that was asked for, if `base` is not the present.
    pub(crate) past: Option<AsOf>,
    statements: Vec<Statement>,
    savepoints: Vec<Savepoint>,
    /// Tables of `base` that queries read.
    reads: BTreeMap<TableId, TableName>,
    /// The number of the next statement; never used twice, so that the rows of one that was rolled back are nobody else's.
    next: u32,
}

/// What a statement comes to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Collected {
    pub(crate) steps: Vec<Step>,
    /// Those of the steps, in order.
    pub(crate) sections: Vec<StagedSection>,
    /// Tables on whose rows it rests: they must be what they were.
    pub(crate) unchanged: Vec<(TableId, TableName)>,
    /// What it was: a transaction under a token is told by all of them.
    pub(crate) digest: Vec<u8>,
}

/// A statement that can be added, and what follows.
pub(crate) struct Previewed {
    statement: Statement,
    after: Manifest,
}

#[derive(Debug)]
struct Statement {
    what: Collected,
    number: u32,
    effects: Effects,
}

/// What a statement does to tables, by the ids that they have in the view after it.
#[derive(Clone, Debug, Default)]
struct Effects {
    /// Rows come or change.
    rows: BTreeSet<TableId>,
    /// Mutations are bound to ids of columns.
    mutated: BTreeSet<TableId>,
    /// Changed by their names.
    named: BTreeSet<TableId>,
    /// Created unless they are there.
    lenient: BTreeMap<TableId, TableName>,
}

#[derive(Debug)]
struct Savepoint {
    name: String,
    statements: usize,
    view: Arc<Manifest>,
}

impl Previewed {
    pub(crate) fn number(&self) -> u32 {
        self.statement.number
    }

    /// Of each section the rows, if they are in memory, and their encoded length.
    pub(crate) fn sections(&self) -> impl Iterator<Item = (Option<Arc<SectionRows>>, u64)> {
        self.statement.what.sections.iter().map(|section| (section.rows.clone(), section.draft.len))
    }
}

impl Work {
    pub(crate) fn new(base: Arc<Manifest>, past: Option<AsOf>) -> Self {
        let view = Arc::clone(&base);
        let (statements, savepoints, reads) = Default::default();
        Self { base, view, past, statements, savepoints, reads, next: OWN }
    }

    /// Whether something is to be committed.
    pub(crate) fn has_written(&self) -> bool {
        !self.statements.is_empty()
    }

    pub(crate) fn statements(&self) -> usize {
        self.statements.len()
    }

    /// Encoded bytes that will ride in the commit.
    pub(crate) fn inline_bytes(&self) -> u64 {
        let sections = self.statements.iter().flat_map(|s| &s.what.sections);
        sections.filter(|s| s.draft.segment.is_none()).map(|s| s.draft.len).sum()
    }

    /// Notes that queries read tables.
    pub(crate) fn note_reads(&mut self, names: impl IntoIterator<Item = TableName>) {
        for name in names {
            // What is the transaction's own, or no table of the database, is as it is whatever others do.
            if let Some(table) = self.view.table_named(&name)
                && let Some(table) = self.base.table(table.id())
            {
                self.reads.insert(table.id(), table.name().clone());
            }
        }
    }

    /// The state after one more statement; nothing is changed yet.
    ///
    /// # Errors
    ///
    /// Why the statement cannot be.
    pub(crate) fn preview(&self, mut what: Collected, now: i64) -> Result<Previewed> {
        let at = self.base.seq().next();
        for step in &mut what.steps {
            self.bind_to_new(step);
        }
        let steps = what.steps.clone();
        // What the transaction itself did before has been there before.
        let intent = Intent { token: None, digest: Vec::new(), epoch: None, base: at, steps };
        let after = self.view.preview_at(&intent, at, self.next, now);
        let after = after.map_err(|rejection| match rejection {
            Rejection::Refused(error) | Rejection::Recast(error) => error,
        })?;
        let effects = self.effects(&what.steps, &after);
        Ok(Previewed { statement: Statement { what, number: self.next, effects }, after })
    }

    /// Adds a statement that was previewed.
    pub(crate) fn add(&mut self, previewed: Previewed) {
        self.next = self.next.saturating_add(1);
        self.view = Arc::new(previewed.after);
        self.statements.push(previewed.statement);
    }

    /// A table that the transaction created has another id when it is committed.
    fn bind_to_new(&self, step: &mut Step) {
        if let Step::Mutate(mutate) = step
            && let MutateTarget::Existing(id) = mutate.target
            && self.base.table(id).is_none()
        {
            mutate.target = MutateTarget::New;
        }
    }

    fn effects(&self, steps: &[Step], after: &Manifest) -> Effects {
        let mut effects = Effects::default();
        let before = |name: &TableName| self.view.table_named(name).map(Table::id);
        let now = |name: &TableName| after.table_named(name).map(Table::id).or_else(|| before(name));
        for step in steps {
            match step {
                Step::CreateTable { name, if_not_exists: true, .. } if before(name).is_none() => {
                    effects.lenient.extend(now(name).map(|id| (id, name.clone())));
                }
                Step::DropTable { name, .. }
                | Step::RenameTable { name, .. }
                | Step::AlterTable { name, .. }
                | Step::DropPartitions { name, .. } => effects.named.extend(before(name)),
                Step::Truncate { name } => {
                    effects.named.extend(before(name));
                    effects.rows.extend(before(name));
                }
                Step::Append(append) => {
                    if append.policy == SchemaPolicy::Create && before(&append.name).is_none() {
                        effects.lenient.extend(now(&append.name).map(|id| (id, append.name.clone())));
                    }
                    effects.rows.extend(match append.target {
                        AppendTarget::Existing { table, .. } => Some(table),
                        AppendTarget::New(_) => now(&append.name),
                    });
                }
                Step::Mutate(mutate) => {
                    let id = match mutate.target {
                        MutateTarget::Existing(id) => Some(id),
                        MutateTarget::New => now(&mutate.name),
                    };
                    effects.rows.extend(id);
                    effects.mutated.extend(id);
                }
                _ => {}
            }
        }
        effects
    }

    /// Marks the place.
    pub(crate) fn savepoint(&mut self, name: String) {
        let (statements, view) = (self.statements.len(), Arc::clone(&self.view));
        self.savepoints.push(Savepoint { name, statements, view });
    }

    /// Undoes the statements after the newest mark of that name, which stays; the first number that is free again.
    pub(crate) fn rollback_to(&mut self, name: &str) -> Result<u32> {
        let at = self.find(name)?;
        self.savepoints.truncate(at + 1);
        let Some(savepoint) = self.savepoints.last() else { return Ok(self.next) };
        self.view = Arc::clone(&savepoint.view);
        let gone = self.statements.split_off(savepoint.statements.min(self.statements.len()));
        Ok(gone.first().map_or(self.next, |statement| statement.number))
    }

    /// Forgets the newest mark of that name, and those after it.
    pub(crate) fn release(&mut self, name: &str) -> Result<()> {
        let at = self.find(name)?;
        self.savepoints.truncate(at);
        Ok(())
    }

    fn find(&self, name: &str) -> Result<usize> {
        let found = self.savepoints.iter().rposition(|savepoint| savepoint.name == name);
        found.ok_or_else(|| Error::not_found(format!("there is no savepoint {name:?} in the transaction")))
    }

    /// What the statements are told by, all together.
    pub(crate) fn digest(&self) -> Vec<u8> {
        let mut hasher = Sha256::new();
        hasher.update(b"transaction");
        for statement in &self.statements {
            hasher.update((statement.what.digest.len() as u64).to_le_bytes());
            hasher.update(&statement.what.digest);
        }
        hasher.finalize().to_vec()
    }

    /// All steps in order, behind what must hold for them, and their sections.
    pub(crate) fn into_steps(self, serializable: bool) -> (Vec<Step>, Vec<StagedSection>) {
        let mut steps = self.preconditions(serializable);
        let mut sections = Vec::new();
        for statement in self.statements {
            steps.extend(statement.what.steps);
            sections.extend(statement.what.sections);
        }
        (steps, sections)
    }

    fn preconditions(&self, serializable: bool) -> Vec<Step> {
        let (mut unchanged, mut named) = (BTreeMap::new(), BTreeMap::new());
        let mut new = BTreeSet::new();
        let base = |id: &TableId| self.base.table(*id);
        let all = |of: fn(&Effects) -> &BTreeSet<TableId>| {
            self.statements.iter().flat_map(move |s| of(&s.effects)).copied().collect::<BTreeSet<_>>()
        };
        let (rows, mutated, changed) = (all(|e| &e.rows), all(|e| &e.mutated), all(|e| &e.named));
        let read = self.statements.iter().flat_map(|s| s.what.unchanged.iter().map(|(id, _)| id));
        for table in read.filter_map(base) {
            unchanged.insert(table.id(), table.name());
        }
        if serializable {
            let touched = rows.iter().chain(&changed).chain(self.reads.keys());
            for table in touched.filter_map(base) {
                unchanged.insert(table.id(), table.name());
            }
        }
        // A name means the table that it meant when the statement was made.
        for table in changed.iter().filter_map(base) {
            named.insert(table.id(), None);
        }
        // Columns that the transaction adds, or renames, have the ids of its view only if nobody else did so meanwhile.
        for table in rows.iter().filter_map(base) {
            let after = self.view.table(table.id());
            if after.is_some_and(|after| after.schema_id() != table.schema_id()) {
                named.insert(table.id(), Some(table.schema_id()));
            }
        }
        // A table that may be somebody else's by then has other columns.
        for (id, name) in self.statements.iter().flat_map(|s| &s.effects.lenient) {
            if serializable || mutated.contains(id) {
                new.insert(name.clone());
            }
        }
        let since = self.base.seq();
        let unchanged =
            unchanged.into_iter().map(|(table, name)| Step::Unchanged { table, name: name.clone(), since });
        let named = named.into_iter().filter_map(|(id, schema)| {
            let name = self.base.table(id)?.name().clone();
            Some(Step::Bound { name, table: Some(id), schema })
        });
        let new = new.into_iter().map(|name| Step::Bound { name, table: None, schema: None });
        unchanged.chain(named).chain(new).collect()
    }
}
