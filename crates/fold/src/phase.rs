//! Mutations whose predicates are answered at once, over one state of the rows.

use std::sync::Arc;

use arrow::array::ArrayRef;
use tandem_types::Result;

use crate::bound::{Action, Bound};
use crate::frame::Frame;
use crate::key_table::KeyTable;
use crate::scan::{SPARSE, narrow, scan};
use crate::selection::{Conjunct, Handle};
use crate::shared::Found;
use crate::zone::{Spans, Zone};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Phase {
    /// In the order of the log.
    pub(crate) clauses: Vec<Clause>,
    pub(crate) indexes: Vec<Index>,
    /// Clauses that no index selects for.
    pub(crate) scans: Vec<usize>,
}

/// One mutation of a phase.
#[derive(Debug)]
pub(crate) struct Clause {
    pub(crate) bound: Arc<Bound>,
    pub(crate) effect: Effect,
    /// Fields, with the ranges outside which it selects nothing.
    pub(crate) zones: Vec<(usize, Zone)>,
    /// Whether its handle is looked up for all phases at once.
    pub(crate) shared: bool,
}

/// What it does to the rows that it selects.
#[derive(Debug)]
pub(crate) enum Effect {
    Delete,
    /// Fields to assign: (field, which assignment of the update).
    Assign(Vec<(usize, usize)>),
    /// Fields to assign: (field, values by looked-up row, of the field's type).
    Copy(Vec<(usize, ArrayRef)>),
}

/// A hash table that selects rows for some clauses.
#[derive(Debug)]
pub(crate) struct Index {
    /// Field positions of the key.
    pub(crate) fields: Vec<usize>,
    pub(crate) table: Arc<KeyTable>,
    pub(crate) entries: Entries,
    /// The clauses, ascending.
    pub(crate) clauses: Vec<usize>,
}

/// What the keys of an index stand for.
#[derive(Debug)]
pub(crate) enum Entries {
    /// All for one lookup: number of the key → looked-up row.
    Lookup { clause: usize, rows: Arc<Vec<u32>> },
    /// Hits (clause, looked-up row) of the key with a number: from `starts[number]` to `starts[number + 1]`.
    Shared { starts: Vec<u32>, hits: Vec<(u32, u32)> },
}

impl Index {
    /// Calls `found(row, number of the key)` for the rows that have one of its keys, in order.
    pub(crate) fn probe(&self, frame: Frame<'_>, mut found: impl FnMut(u32, u32)) -> Result<()> {
        let column = |field: &usize| frame.columns.get(*field).cloned();
        let key: Vec<ArrayRef> = self.fields.iter().filter_map(column).collect();
        self.table.probe(&key, |row, number| found(row as u32, number))
    }
}

impl Entries {
    /// Calls `hit(clause, looked-up row)` for all that a key stands for.
    pub(crate) fn each(&self, number: u32, mut hit: impl FnMut(usize, u32)) {
        match self {
            Self::Lookup { clause, rows } => {
                if let Some(row) = rows.get(number as usize) {
                    hit(*clause, *row);
                }
            }
            Self::Shared { starts, hits } => {
                let at = number as usize;
                let (Some(start), Some(end)) = (starts.get(at), starts.get(at + 1)) else { return };
                for (clause, row) in hits.get(*start as usize..*end as usize).unwrap_or(&[]) {
                    hit(*clause as usize, *row);
                }
            }
        }
    }
}

/// The rows that a clause acts on.
#[derive(Debug)]
pub(crate) enum Hits {
    All,
    /// Ascending.
    Rows(Vec<u32>),
    /// Ascending, with the looked-up row of each.
    LookedUp(Vec<u32>, Vec<u32>),
}

impl Clause {
    fn is_lookup(&self) -> bool {
        matches!(self.bound.action, Action::Lookup(_))
    }

    /// Whether it may select a row of a batch.
    fn is_active(&self, time: Option<(i64, i64)>, spans: &Spans<'_>) -> bool {
        let meets = |(field, zone): &(usize, Zone)| spans.of(*field).is_none_or(|span| zone.overlaps(span));
        overlaps(self.bound.time(), time) && self.zones.iter().all(meets)
    }

    /// The part of its predicate that a hash table can answer, if there is one.
    pub(crate) fn handle(&self) -> Option<&Handle> {
        match &self.bound.action {
            Action::Delete(selection) | Action::Update { selection, .. } => selection.handle.as_ref(),
            Action::Lookup(_) => None,
        }
    }

    /// The conditions that an index does not answer.
    fn rest(&self) -> Vec<&Conjunct> {
        match &self.bound.action {
            Action::Delete(selection) | Action::Update { selection, .. } => selection.rest.iter().collect(),
            Action::Lookup(_) => Vec::new(),
        }
    }

    /// All conditions.
    fn conjuncts(&self) -> Vec<&Conjunct> {
        self.handle().map(|handle| &handle.node).into_iter().chain(self.rest()).collect()
    }
}

impl Phase {
    /// The rows that each clause acts on, in the order of the log; clauses that act on none are left out. Those whose time
    /// lies outside `span`, the batch's first and last timestamp, are not looked at, nor those whose zones the batch misses.
    /// `found`: what shared look-ups select.
    pub(crate) fn select(
        &self,
        frame: Frame<'_>,
        span: Option<(i64, i64)>,
        found: Found,
    ) -> Result<Vec<(&Clause, Hits)>> {
        let spans = Spans::new(frame.columns);
        let active: Vec<bool> = self.clauses.iter().map(|c| !c.shared && c.is_active(span, &spans)).collect();
        let is_active = |clause: usize| active.get(clause).copied().unwrap_or(false);
        let mut looked_up: Vec<Option<Hits>> = Vec::new();
        looked_up.resize_with(self.clauses.len(), || None);
        for (clause, rows) in found {
            // To find the batch's ranges costs more than to look at a few rows.
            let few = rows.len() < frame.rows / SPARSE;
            let is_active = |c: &Clause| {
                if few { overlaps(c.bound.time(), span) } else { c.is_active(span, &spans) }
            };
            if self.clauses.get(clause).is_some_and(is_active)
                && let Some(into) = looked_up.get_mut(clause)
            {
                *into = Some(Hits::Rows(rows));
            }
        }
        for index in &self.indexes {
            if index.clauses.iter().any(|clause| is_active(*clause)) {
                self.look_up(index, frame, &active, &mut looked_up)?;
            }
        }
        let mut found = Vec::new();
        for (at, (clause, hits)) in self.clauses.iter().zip(looked_up).enumerate() {
            let hits = match hits {
                Some(Hits::Rows(rows)) => Hits::Rows(narrow(frame, &clause.rest(), rows)?),
                Some(hits) => hits,
                None if is_active(at) && self.scans.binary_search(&at).is_ok() => {
                    scan(frame, &clause.conjuncts())?.map_or(Hits::All, Hits::Rows)
                }
                None => continue,
            };
            if !matches!(&hits, Hits::Rows(rows) | Hits::LookedUp(rows, _) if rows.is_empty()) {
                found.push((clause, hits));
            }
        }
        Ok(found)
    }

    /// What an index finds for its clauses.
    fn look_up(
        &self,
        index: &Index,
        frame: Frame<'_>,
        active: &[bool],
        into: &mut [Option<Hits>],
    ) -> Result<()> {
        let mut counts = vec![0usize; self.clauses.len()];
        let mut matches: Vec<(u32, u32)> = Vec::new();
        index.probe(frame, |row, number| {
            matches.push((row, number));
            index.entries.each(number, |clause, _| {
                if let Some(count) = counts.get_mut(clause) {
                    *count += 1;
                }
            });
        })?;
        for (clause, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            if let (Some(true), Some(into)) = (active.get(clause), into.get_mut(clause)) {
                let is_lookup = self.clauses.get(clause).is_some_and(Clause::is_lookup);
                let rows = Vec::with_capacity(count);
                let hits = if is_lookup {
                    Hits::LookedUp(rows, Vec::with_capacity(count))
                } else {
                    Hits::Rows(rows)
                };
                *into = Some(hits);
            }
        }
        for (row, number) in matches {
            index.entries.each(number, |clause, from| match into.get_mut(clause) {
                Some(Some(Hits::Rows(rows))) => rows.push(row),
                Some(Some(Hits::LookedUp(rows, looked_up))) => {
                    rows.push(row);
                    looked_up.push(from);
                }
                _ => {}
            });
        }
        Ok(())
    }
}

fn overlaps(time: Option<(i64, i64)>, span: Option<(i64, i64)>) -> bool {
    match (time, span) {
        (Some((first, last)), Some((least, greatest))) => first <= greatest && least <= last,
        _ => true,
    }
}
