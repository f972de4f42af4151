//! The past: tables brought back from it, and how far it reaches.

use std::collections::BTreeSet;
use std::sync::Arc;

use tandem_format::{PendingMutation, Pin, TableImage};
use tandem_types::{Error, Result, Seq, TableId, check_name};

use super::{file_hash, mutation_hash, removed_hash, tail_hash};
use crate::state::{Manifest, PartitionOrd, RemovedObject};
use crate::table::{FileState, Table, TailSection};

/// Pins at a time, at most: each is a record in every state.
const MAX_PINS: usize = 4096;

impl Manifest {
    pub(super) fn restore_table(&mut self, at: Seq, image: &TableImage) -> Result<()> {
        let id = image.state.table;
        if image.as_of >= at || id >= self.next_table {
            return Err(Error::invalid(format!("table {} was never what it is to become", image.state.name)));
        }
        self.check_kept(image.as_of)?;
        let mut state = image.state.clone();
        if let Some(present) = self.tables.get(&id).map(|table| Arc::clone(&table.state)) {
            // Ids are never used again for something else.
            state.schema_id = state.schema_id.max(present.schema_id);
            state.next_column = state.next_column.max(present.next_column);
            self.drop_table(at, id)?;
        }
        self.check_new_name(&state.name)?;
        // Rows that were prepared for what the table has been meanwhile are bound anew.
        state.schema_id = state.schema_id.next();
        state.renamed = state.schema_id;
        state.changed = at;
        state.restored = at;
        self.names.insert(state.name.clone(), id);
        let mut table = Table::new(state);
        self.add_hash(table.hash);
        self.bring_back_data(at, id, &mut table, image)?;
        self.note_brought_back(at, image);
        self.tables.insert(id, table);
        self.forget_removed(id, image);
        Ok(())
    }

    fn bring_back_data(&mut self, at: Seq, id: TableId, table: &mut Table, image: &TableImage) -> Result<()> {
        for (created, file) in &image.files {
            table.totals.add_file(file)?;
            let state = FileState { file: file.clone(), created: *created };
            if table.files.insert(file.name, Arc::new(state)).is_some() {
                return Err(Error::invalid(format!("data file {} is named twice", file.name.object)));
            }
            self.add_hash(file_hash(id, *created, file));
        }
        for (key, section, live) in &image.tail {
            let tail = TailSection { key: *key, section: section.clone(), live: live.clone() };
            if key.seq > image.as_of || live.is_empty() {
                return Err(Error::invalid("a section of a restored table is not of its past"));
            }
            table.totals.add_tail(&tail)?;
            self.add_hash(tail_hash(id, &tail));
            self.bring_back_segment(at, section.segment);
            if table.tail.insert(*key, Arc::new(tail)).is_some() {
                return Err(Error::invalid("a section of a restored table is named twice"));
            }
        }
        for pending in &image.mutations {
            self.add_hash(mutation_hash(id, pending));
            self.bring_back_segment(at, pending.mutation.section().and_then(|s| s.segment));
            if table.mutations.insert(pending.key, Arc::new(pending.clone())).is_some() {
                return Err(Error::invalid("a mutation of a restored table is named twice"));
            }
        }
        Ok(())
    }

    /// Objects of kept snapshots are there, however old: the horizon is for those that were never named.
    fn bring_back_segment(&mut self, _at: Seq, segment: Option<tandem_format::ObjectName>) {
        self.count_segment(segment);
    }

    /// Rows that lie in commits are not listed as removed: what a restore names of them, and a compaction takes again, nobody
    /// would know of.
    fn note_brought_back(&mut self, at: Seq, image: &TableImage) {
        let tail =
            image.tail.iter().filter(|(_, section, _)| section.segment.is_none()).map(|(key, ..)| key.seq);
        let inline = |m: &&PendingMutation| m.mutation.section().is_some_and(|s| s.segment.is_none());
        let looked_up = image.mutations.iter().filter(inline).map(|m| m.key.seq);
        if let Some(lowest) = tail.chain(looked_up).min() {
            let before = self.brought_back.map_or(lowest, |(from, _)| from);
            self.brought_back = Some((lowest.min(before), at));
        }
    }

    /// What is live again is not listed as removed.
    fn forget_removed(&mut self, id: TableId, image: &TableImage) {
        let files: BTreeSet<RemovedObject> = image
            .files
            .iter()
            .map(|(_, file)| RemovedObject::File {
                table: id,
                partition_by: PartitionOrd(image.state.def.partition_by),
                file: file.name,
            })
            .collect();
        let is_back = |object: &RemovedObject| match object {
            RemovedObject::File { .. } => files.contains(object),
            RemovedObject::Segment(segment) => self.segments.contains_key(segment),
        };
        let back: Vec<_> = self
            .removed
            .iter()
            .filter(|((_, o), _)| is_back(o))
            .map(|(k, bytes)| (k.clone(), *bytes))
            .collect();
        for ((seq, object), bytes) in back {
            self.sub_hash(removed_hash(seq, &object, bytes));
            self.removed.remove(&(seq, object));
        }
    }

    pub(super) fn raise_horizon(&mut self, horizon: Seq, history_start: Seq) -> Result<()> {
        let grows = horizon >= self.horizon && history_start >= self.history_start;
        let moves = horizon > self.horizon || history_start > self.history_start;
        if !grows || !moves || horizon >= self.seq || history_start >= self.seq {
            return Err(Error::serialization(format!(
                "history cannot be cut at {history_start} with horizon {horizon}: it is at {} with {}",
                self.history_start, self.horizon
            )));
        }
        if let Some(pin) = self.pins().find(|pin| !self.is_expired(pin) && pin.seq < history_start) {
            return Err(Error::serialization(format!(
                "history before {history_start} is kept from {} on by {:?}: {}",
                pin.seq, pin.id, pin.reason
            )));
        }
        self.horizon = horizon;
        self.history_start = history_start;
        self.brought_back = self.brought_back.filter(|(_, at)| *at >= history_start);
        let expired: Vec<String> =
            self.pins().filter(|pin| self.is_expired(pin)).map(|pin| pin.id.clone()).collect();
        for id in expired {
            self.remove_pin(&id);
        }
        let passed: Vec<_> = self
            .removed
            .iter()
            .take_while(|((removed, _), _)| *removed <= history_start)
            .map(|(key, bytes)| (key.clone(), *bytes))
            .collect();
        for ((seq, object), bytes) in passed {
            self.sub_hash(removed_hash(seq, &object, bytes));
            self.removed.remove(&(seq, object));
        }
        Ok(())
    }

    pub(super) fn pin(&mut self, pin: &Pin) -> Result<()> {
        check_name("pin", &pin.id)?;
        self.check_kept(pin.seq)?;
        if pin.seq > self.seq {
            return Err(Error::invalid(format!("a pin at {} lies in the future", pin.seq)));
        }
        if self.pins.len() >= MAX_PINS && !self.pins.contains_key(&pin.id) {
            return Err(Error::invalid(format!("{MAX_PINS} pins hold history back, no more are allowed")));
        }
        self.set_pin(pin.clone());
        Ok(())
    }

    /// Refuses a seq whose snapshot is not kept any more.
    pub fn check_kept(&self, seq: Seq) -> Result<()> {
        if seq < self.history_start {
            return Err(Error::new(
                tandem_types::ErrorKind::HistoryGone,
                format!("the state at {seq} is gone: history begins at {}", self.history_start),
            ));
        }
        Ok(())
    }
}
