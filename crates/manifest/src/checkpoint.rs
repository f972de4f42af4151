//! A manifest as a checkpoint, and back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tandem_format::{
    CheckpointRoot, CommittedToken, FileName, ObjectName, PartEntry, PartRef, Section, SectionKey,
    encode_part_entry,
};
use tandem_types::{DatabaseId, Error, Result, TableId};

use crate::digest::{Entry, entry_hash};
use crate::ops;
use crate::state::{Logged, Manifest, PartitionOrd, RemovedObject};
use crate::table::{FileState, Table, TailSection};
use crate::tokens::{Committed, Producer};

/// A part is closed before it grows past this many bytes.
pub const PART_BYTES: usize = 1 << 20;

/// A part is closed behind every entry whose hash has this many zero bits, so that a change in the middle of a long
/// list changes one part and not all that follow.
const CUT_BITS: u32 = 11;

/// The entries of a checkpoint, cut into parts.
pub type CheckpointParts = Vec<Vec<PartEntry>>;

impl Manifest {
    /// What the parts of a checkpoint of this state hold. Equal states give equal parts.
    pub fn checkpoint_parts(&self) -> CheckpointParts {
        let mut cutter = Cutter::default();
        // Files, which stay, apart from the tail, which every commit changes. Tables are not kept apart: a database of
        // many small ones would have as many parts.
        for table in self.tables.values() {
            for state in table.files.values() {
                let (created, file) = (state.created, state.file.clone());
                cutter.push(PartEntry::File { table: table.id(), created, file });
            }
        }
        cutter.cut();
        for table in self.tables.values() {
            for tail in table.tail.values() {
                let (section, live) = (tail.section.clone(), tail.live.clone());
                cutter.push(PartEntry::Tail { table: table.id(), key: tail.key, section, live });
            }
        }
        cutter.cut();
        for table in self.tables.values() {
            for pending in table.mutations.values() {
                cutter
                    .push(PartEntry::Mutation { table: table.id(), pending: Box::new((**pending).clone()) });
            }
        }
        cutter.cut();
        for ((seq, object), bytes) in &self.removed {
            cutter.push(object.entry(*seq, *bytes));
        }
        cutter.cut();
        for (id, producer) in &self.tokens.producers {
            let committed: Vec<CommittedToken> = producer
                .committed
                .iter()
                .map(|(counter, c)| CommittedToken {
                    counter: *counter,
                    seq: c.seq,
                    rows: c.rows,
                    digest: c.digest.clone(),
                })
                .collect();
            let Producer { low, last_seq, since, .. } = *producer;
            cutter.push(PartEntry::Producer { producer: *id, low, last_seq, since, committed });
        }
        cutter.cut();
        // By age: what is added and forgotten changes the parts at the two ends.
        for ((seq, transaction), token) in self.tokens.foreign.iter() {
            cutter.push(PartEntry::Foreign { seq, transaction, token });
        }
        cutter.cut();
        cutter.parts
    }

    /// The root over parts that were written as `parts`.
    pub fn checkpoint_root(&self, parts: Vec<PartRef>) -> CheckpointRoot {
        CheckpointRoot {
            seq: self.seq,
            database: self.database,
            header_hash: self.header_hash,
            commit_time: self.commit_time,
            age: self.age,
            epoch: self.epoch,
            next_table: self.next_table,
            token_floor: self.tokens.floor,
            recorded: self.checkpoint,
            digest: self.digest(),
            primary: self.primary().cloned(),
            lease: self.lease().cloned(),
            logged_rows: self.logged.rows,
            logged_bytes: self.logged.bytes,
            horizon: self.horizon,
            history_start: self.history_start,
            brought_back: self.brought_back,
            pins: self.pins().cloned().collect(),
            schemas: self.schemas.keys().cloned().collect(),
            settings: self.settings.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            tables: self.tables.values().map(|t| (*t.state).clone()).collect(),
            parts,
        }
    }

    /// The same tables as another database, `database`, that goes on from here by itself. Its sections that rode in commits lie
    /// where `moved` says, for it has none of the log up to here. It has no past, nothing holds that back, and every node
    /// may write to it.
    ///
    /// # Errors
    ///
    /// `Internal` if a section that rode in a commit was not moved.
    pub fn forked(&self, database: DatabaseId, moved: &BTreeMap<SectionKey, ObjectName>) -> Result<Self> {
        self.forked_without(database, moved, &Lost::default())
    }

    /// As [`Manifest::forked`], without what is lost. Sections of segments may be moved, too.
    ///
    /// # Errors
    ///
    /// As [`Manifest::forked`].
    pub fn forked_without(
        &self,
        database: DatabaseId,
        moved: &BTreeMap<SectionKey, ObjectName>,
        lost: &Lost,
    ) -> Result<Self> {
        let mut root = self.checkpoint_root(Vec::new());
        root.database = database;
        (root.horizon, root.history_start) = (self.seq, self.seq);
        root.recorded = None;
        root.pins.clear();
        root.primary = None;
        root.lease = None;
        root.settings.retain(|(key, _)| key != "mode");
        let mut forked = Self::of_root(&root);
        for mut entry in self.checkpoint_parts().into_iter().flatten() {
            let carried = match &mut entry {
                PartEntry::RemovedFile { .. } | PartEntry::RemovedSegment { .. } => continue,
                PartEntry::File { table, file, .. } if lost.files.contains(&(*table, file.name)) => continue,
                PartEntry::Tail { key, section, .. } => Some((*key, section)),
                PartEntry::Mutation { pending, .. } => {
                    let key = pending.key.as_section();
                    pending.mutation.section_mut().map(|section| (key, section))
                }
                _ => None,
            };
            if let Some((key, section)) = carried {
                match moved.get(&key) {
                    _ if lost.sections.contains(&key) => continue,
                    Some(segment) => (section.segment, section.offset) = (Some(*segment), 0),
                    None if section.segment.is_some() => {}
                    None => return Err(Error::internal("a section was left behind in the log")),
                }
            }
            forked.load(entry)?;
        }
        Ok(forked)
    }

    /// The sections that ride in commits, of tails and of mutations.
    pub fn inline_sections(&self) -> Vec<(SectionKey, Section)> {
        self.sections_in(None)
    }

    /// The sections, of tails and of mutations, that lie in a segment; without one, those that ride in commits.
    pub fn sections_in(&self, segment: Option<ObjectName>) -> Vec<(SectionKey, Section)> {
        let of_table = |table: &Table| {
            let tail = table.tail.values().map(|t| (t.key, t.section.clone()));
            let looked_up = table
                .mutations
                .values()
                .filter_map(|m| Some((m.key.as_section(), m.mutation.section()?.clone())));
            tail.chain(looked_up).collect::<Vec<_>>()
        };
        let sections = self.tables.values().flat_map(of_table);
        sections.filter(|(_, section)| section.segment == segment).collect()
    }

    /// The state that a checkpoint holds. The digest is computed anew from what was read and must be the stored one.
    pub fn from_checkpoint(
        root: &CheckpointRoot,
        parts: impl IntoIterator<Item = Result<Vec<PartEntry>>>,
    ) -> Result<Self> {
        let mut manifest = Self::of_root(root);
        for part in parts {
            for entry in part? {
                manifest.load(entry)?;
            }
        }
        if manifest.digest() != root.digest {
            return Err(Error::damaged(format!(
                "the checkpoint at {} does not hold the state that its root promises",
                root.seq
            )));
        }
        Ok(manifest)
    }

    /// What is left of the state that a checkpoint held when some of its parts are lost: nobody's state, for whoever has
    /// nothing better. What they held is not there, deletions that were pending among it.
    pub fn from_rest_of_checkpoint(
        root: &CheckpointRoot,
        parts: impl IntoIterator<Item = Vec<PartEntry>>,
    ) -> Result<Self> {
        let mut manifest = Self::of_root(root);
        for entry in parts.into_iter().flatten() {
            manifest.load(entry)?;
        }
        Ok(manifest)
    }

    /// Everything but what the parts hold.
    fn of_root(root: &CheckpointRoot) -> Self {
        let mut manifest = Self::empty(root.database);
        manifest.seq = root.seq;
        manifest.header_hash = root.header_hash;
        manifest.commit_time = root.commit_time;
        manifest.age = root.age;
        manifest.epoch = root.epoch;
        manifest.next_table = root.next_table;
        manifest.tokens.floor = root.token_floor;
        manifest.checkpoint = root.recorded;
        manifest.set_primary(root.primary.clone());
        manifest.set_lease(root.lease.clone());
        manifest.horizon = root.horizon;
        manifest.history_start = root.history_start;
        manifest.brought_back = root.brought_back;
        for pin in &root.pins {
            manifest.set_pin(pin.clone());
        }
        manifest.logged = Logged { rows: root.logged_rows, bytes: root.logged_bytes };
        for name in &root.schemas {
            if manifest.schemas.insert(name.clone(), ()).is_none() {
                manifest.add_hash(entry_hash(Entry::Schema, &[name.as_bytes()]));
            }
        }
        for (key, value) in &root.settings {
            manifest.settings.insert(key.clone(), value.clone());
            manifest.add_hash(entry_hash(Entry::Setting, &[key.as_bytes(), value.as_bytes()]));
        }
        for state in &root.tables {
            let table = Table::new(state.clone());
            manifest.add_hash(table.hash);
            manifest.names.insert(state.name.clone(), state.table);
            manifest.tables.insert(state.table, table);
        }
        manifest
    }

    fn load(&mut self, entry: PartEntry) -> Result<()> {
        match entry {
            PartEntry::File { table: id, created, file } => {
                self.add_hash(ops::file_hash(id, created, &file));
                let table = self.tables.get_mut(&id).ok_or_else(orphan)?;
                table.totals.add_file(&file).map_err(damaged)?;
                table.files.insert(file.name, Arc::new(FileState { file, created }));
            }
            PartEntry::Tail { table: id, key, section, live } => {
                let tail = TailSection { key, section, live };
                self.add_hash(ops::tail_hash(id, &tail));
                self.count_segment(tail.section.segment);
                let table = self.tables.get_mut(&id).ok_or_else(orphan)?;
                table.totals.add_tail(&tail).map_err(damaged)?;
                table.tail.insert(key, Arc::new(tail));
            }
            PartEntry::Mutation { table: id, pending } => {
                self.add_hash(ops::mutation_hash(id, &pending));
                self.count_segment(pending.mutation.section().and_then(|s| s.segment));
                let table = self.tables.get_mut(&id).ok_or_else(orphan)?;
                table.mutations.insert(pending.key, Arc::from(pending));
            }
            PartEntry::RemovedFile { removed, table, partition_by, file, size } => {
                let partition_by = PartitionOrd(partition_by);
                self.note_removed(removed, RemovedObject::File { table, partition_by, file }, size);
            }
            PartEntry::RemovedSegment { removed, segment } => {
                self.note_removed(removed, RemovedObject::Segment(segment), 0);
            }
            PartEntry::Producer { producer: id, low, last_seq, since, committed } => {
                let committed: imbl::OrdMap<u64, Committed> = committed
                    .into_iter()
                    .map(|c| (c.counter, Committed { seq: c.seq, rows: c.rows, digest: c.digest }))
                    .collect();
                let producer = Producer { low, last_seq, since, committed };
                self.add_hash(producer.hash_with_tokens(id));
                self.tokens.producers.insert(id, producer);
            }
            PartEntry::Foreign { seq, transaction, token } => {
                let delta = self.tokens.foreign.insert((seq, transaction), token);
                self.add_hash(delta);
            }
        }
        Ok(())
    }
}

/// Data of a state that cannot be had any more.
#[derive(Clone, Debug, Default)]
pub struct Lost {
    pub files: BTreeSet<(TableId, FileName)>,
    /// Of tails, and of mutations: those are lost with what they look up.
    pub sections: BTreeSet<SectionKey>,
}

fn damaged(error: Error) -> Error {
    Error::damaged(format!("the checkpoint makes no sense: {error}"))
}

fn orphan() -> Error {
    Error::damaged("the checkpoint has data of a table that it does not have")
}

#[derive(Default)]
struct Cutter {
    parts: CheckpointParts,
    open: Vec<PartEntry>,
    bytes: usize,
}

impl Cutter {
    fn push(&mut self, entry: PartEntry) {
        let encoded = encode_part_entry(&entry);
        // Tag and length of the entry in the part, and the part's own frame.
        let size = encoded.len() + 8;
        if self.bytes + size > PART_BYTES - 128 {
            self.cut();
        }
        self.open.push(entry);
        self.bytes += size;
        if entry_hash(Entry::Cut, &[&encoded]).trailing_zeros() >= CUT_BITS {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.bytes = 0;
        if !self.open.is_empty() {
            self.parts.push(std::mem::take(&mut self.open));
        }
    }
}
