//! UPDATEs and DELETEs: taken into the state, and out of it once all rows have been through them.

use std::collections::BTreeSet;
use std::sync::Arc;

use tandem_format::{FileName, Mutation, MutationKey, MutationKind, PendingMutation, Section, SectionKey};
use tandem_types::{ColumnId, Error, Partition, Result, Seq, TableId};

use super::{Position, column_gone, gone, mutation_hash, too_much};
use crate::state::Manifest;
use crate::table::Table;

impl Manifest {
    pub(super) fn mutate(&mut self, at: &mut Position, mutation: &Mutation) -> Result<()> {
        let id = mutation.table;
        let mut table = self.tables.get(&id).ok_or_else(|| gone(id))?.clone();
        check_mutation(&table, mutation)?;
        let key = MutationKey {
            seq: at.seq,
            transaction: at.transaction,
            section: at.sections,
            ordinal: at.mutations,
        };
        let pending = PendingMutation { key, commit_time: self.commit_time, mutation: mutation.clone() };
        at.mutations = at.mutations.checked_add(1).ok_or_else(too_much)?;
        if let Some(section) = mutation.section() {
            at.sections = at.sections.checked_add(1).ok_or_else(too_much)?;
            self.retain_segment(at.seq, section.segment)?;
        }
        self.add_hash(mutation_hash(id, &pending));
        table.mutations.insert(key, Arc::new(pending));
        // It may have nothing to act on.
        self.retire_mutations(at.seq, &mut table);
        self.tables.insert(id, table);
        self.touch_table(at.seq, id)
    }

    pub(super) fn drop_partitions(&mut self, at: Seq, id: TableId, partitions: &[Partition]) -> Result<()> {
        let mut table = self.tables.get(&id).ok_or_else(|| gone(id))?.clone();
        let dropped: BTreeSet<Partition> = partitions.iter().copied().collect();
        let files: Vec<FileName> =
            table.files.keys().filter(|name| dropped.contains(&name.partition)).copied().collect();
        for name in files {
            self.remove_file(at, &mut table, &name)?;
        }
        let cut = |live: &[Partition]| -> BTreeSet<Partition> {
            live.iter().copied().filter(|p| dropped.contains(p)).collect()
        };
        let parts: Vec<(SectionKey, BTreeSet<Partition>)> = table
            .tail
            .values()
            .map(|tail| (tail.key, cut(&tail.live)))
            .filter(|(_, gone)| !gone.is_empty())
            .collect();
        for (key, gone) in &parts {
            self.remove_parts(at, &mut table, key, gone)?;
        }
        self.retire_mutations(at, &mut table);
        self.tables.insert(id, table);
        self.touch_table(at, id)
    }

    /// Forgets the mutations that no row is left to go through.
    pub(super) fn retire_mutations(&mut self, at: Seq, table: &mut Table) {
        if table.mutations.is_empty() {
            return;
        }
        let is_pending = |pending: &PendingMutation| {
            let time = pending.mutation.time;
            let touched = |range| crate::table::overlap(time, range);
            table.files.values().any(|f| pending.key.seq > f.file.folded_through && touched(f.file.time))
                || table
                    .tail
                    .values()
                    .take_while(|t| pending.key.follows(&t.key))
                    .any(|t| touched(t.section.time))
        };
        let done: Vec<Arc<PendingMutation>> =
            table.mutations.values().filter(|m| !is_pending(m)).cloned().collect();
        for pending in done {
            table.mutations.remove(&pending.key);
            self.sub_hash(mutation_hash(table.id(), &pending));
            self.release_segment(at, pending.mutation.section().and_then(|s| s.segment));
        }
    }
}

fn check_mutation(table: &Table, mutation: &Mutation) -> Result<()> {
    let read: Vec<ColumnId> = match &mutation.kind {
        MutationKind::Delete { predicate } => predicate.columns().into_iter().map(|(id, _)| id).collect(),
        MutationKind::Update { predicate, assignments } => {
            let values = assignments.iter().flat_map(|(_, value)| value.columns());
            predicate.columns().into_iter().chain(values).map(|(id, _)| id).collect()
        }
        MutationKind::Lookup { keys, section, .. } => {
            check_lookup(table, mutation, *keys, section)?;
            section.columns.clone()
        }
    };
    let assigned = mutation.assigned();
    if let Some(id) = read.iter().chain(&assigned).find(|id| table.schema().column(**id).is_none()) {
        return Err(column_gone(&table.state, *id));
    }
    for (position, id) in assigned.iter().enumerate() {
        let name = table.schema().column(*id).map_or("", |c| c.name.as_str());
        if table.def().timestamp == Some(*id) || table.primary_key().contains(id) {
            return Err(Error::invalid(format!(
                "column {name:?} of table {} is its designated timestamp or in its primary key and cannot be updated: \
                 delete the row and insert another",
                table.name()
            )));
        }
        if assigned[..position].contains(id) {
            return Err(Error::invalid(format!(
                "column {name:?} of table {} is assigned twice",
                table.name()
            )));
        }
    }
    Ok(())
}

fn check_lookup(table: &Table, mutation: &Mutation, keys: u32, section: &Section) -> Result<()> {
    let wrong = |what: &str| Err(Error::invalid(format!("a mutation of table {} {what}", table.name())));
    let MutationKind::Lookup { delete, .. } = mutation.kind else { return Ok(()) };
    let (keys, fields) = (keys as usize, section.columns.len());
    if keys == 0 || keys > fields || section.rows == 0 || delete != (keys == fields) {
        return wrong("looks up nothing, or assigns nothing");
    }
    let looked_up: BTreeSet<ColumnId> = section.columns.iter().take(keys).copied().collect();
    if looked_up.len() != keys || section.null_counts.len() != fields {
        return wrong("looks up a column twice, or does not count the nulls of each");
    }
    Ok(())
}
