//! One operation on a state: checks first, then the change. The only code that changes a manifest's tables.
//!
//! The checks here decide what a log means, on every node and whatever its version: they are part of the format and
//! stay as they are. What a *version* of the program supports (options, settings, types) is asked by rebase instead:
//! a node that met an option of a later version here would make void what its neighbours apply.

mod closed;
mod history;
mod mutate;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_schema::DataType;
use tandem_format::{
    FileName, Lease, NewTable, ObjectName, OnDuplicate, Op, PendingMutation, Primary, Replace, Section,
    SectionKey, TableState, encode_file_entry, encode_mutation_entry, encode_part_entry,
    encode_section_entry, encode_table_entry,
};
use tandem_types::{
    Column, ColumnId, DEFAULT_SCHEMA, Epoch, Error, Partition, PartitionUnit, Result, SchemaId, Seq, TableId,
    TableName, check_name, widens_to,
};

use self::closed::{check_closed, closed_hulls};
use crate::digest::{Entry, entry_hash};
use crate::rejected::{read_only, rejected_table};
use crate::state::{Manifest, PartitionOrd, RemovedObject};
use crate::table::{FileState, Table, TailSection};

/// Where a transaction stands in the log, and how many sections of it were applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    pub seq: Seq,
    pub transaction: u32,
    pub sections: u32,
    /// Mutations applied so far.
    pub mutations: u32,
    /// Rows appended so far.
    pub rows: u64,
}

impl Position {
    pub fn new(seq: Seq, transaction: u32) -> Self {
        Self { seq, transaction, sections: 0, mutations: 0, rows: 0 }
    }
}

impl Manifest {
    /// Applies one operation, or leaves the caller with a half-changed draft to throw away.
    pub(crate) fn apply_op(&mut self, at: &mut Position, op: &Op) -> Result<()> {
        match op {
            Op::CreateSchema { name } => self.create_schema(name),
            Op::DropSchema { name } => self.drop_schema(name),
            Op::CreateTable(new) => self.create_table(at.seq, new),
            Op::DropTable { table } => self.drop_table(at.seq, *table),
            Op::RenameTable { table, to } => self.rename_table(at.seq, *table, to),
            Op::AddColumn { table, column } => self.add_column(at.seq, *table, column),
            Op::DropColumn { table, column } => self.drop_column(at.seq, *table, *column),
            Op::RenameColumn { table, column, to } => self.rename_column(at.seq, *table, *column, to),
            Op::WidenColumn { table, column, to } => self.change_column(at.seq, *table, *column, |c| {
                if !widens_to(&c.data_type, to) {
                    return Err(Error::schema_conflict(format!(
                        "column {:?} is {}, which does not widen losslessly to {to}",
                        c.name, c.data_type
                    )));
                }
                c.data_type = to.clone();
                Ok(())
            }),
            Op::DropNotNull { table, column } => self.change_column(at.seq, *table, *column, |c| {
                c.nullable = true;
                Ok(())
            }),
            Op::SetOptions { table, options } => self.set_options(at.seq, *table, options),
            Op::SetSettings { settings } => self.set_settings(settings),
            Op::Truncate { table } => self.truncate(at.seq, *table),
            Op::Append { table, sections } => self.append(at, *table, sections),
            Op::Replace(replace) => self.replace(at.seq, replace),
            Op::Checkpoint { seq, root_hash } => self.record_checkpoint(*seq, *root_hash),
            Op::Promote { epoch, primary } => self.promote(*epoch, primary.as_ref()),
            Op::Lease { holder, address, term } => {
                self.take_lease(Lease { holder: holder.clone(), address: address.clone(), term: *term })
            }
            Op::Mutate(mutation) => self.mutate(at, mutation),
            Op::DropPartitions { table, partitions } => self.drop_partitions(at.seq, *table, partitions),
            Op::RestoreTable(image) => self.restore_table(at.seq, image),
            Op::Horizon { horizon, history_start } => self.raise_horizon(*horizon, *history_start),
            Op::Pin(pin) => self.pin(pin),
            Op::Unpin { id } => match self.remove_pin(id) {
                true => Ok(()),
                false => Err(Error::not_found(format!("nothing is pinned under {id:?}"))),
            },
        }
    }

    fn create_schema(&mut self, name: &str) -> Result<()> {
        check_name("schema", name)?;
        if is_reserved_schema(name) || self.schemas.contains_key(name) {
            return Err(Error::already_exists(format!("schema {name:?} exists")));
        }
        self.schemas.insert(name.to_owned(), ());
        self.add_hash(entry_hash(Entry::Schema, &[name.as_bytes()]));
        Ok(())
    }

    fn drop_schema(&mut self, name: &str) -> Result<()> {
        if name == DEFAULT_SCHEMA {
            return Err(Error::invalid(format!("schema {name:?} cannot be dropped")));
        }
        if let Some(table) = self.names.keys().find(|t| t.schema == name) {
            return Err(Error::invalid(format!("schema {name:?} still holds tables, among them {table}")));
        }
        if self.schemas.remove(name).is_none() {
            return Err(Error::not_found(format!("schema {name:?} does not exist")));
        }
        self.sub_hash(entry_hash(Entry::Schema, &[name.as_bytes()]));
        Ok(())
    }

    fn create_table(&mut self, at: Seq, new: &NewTable) -> Result<()> {
        self.check_new_name(&new.name)?;
        if new.table != self.next_table {
            return Err(Error::invalid(format!("table id {} is not the next one", new.table)));
        }
        check_def(new)?;
        let next_column = new.def.schema.columns.iter().map(|c| c.id).max().unwrap_or_default().next();
        let state = TableState {
            table: new.table,
            name: new.name.clone(),
            def: new.def.clone(),
            schema_id: SchemaId(1),
            next_column,
            created: at,
            changed: at,
            column_added: vec![at; new.def.schema.columns.len()],
            renamed: SchemaId(0),
            restored: Seq(0),
        };
        self.next_table = self.next_table.next();
        self.names.insert(new.name.clone(), new.table);
        let table = Table::new(state);
        self.add_hash(table.hash);
        self.tables.insert(new.table, table);
        Ok(())
    }

    pub(super) fn check_new_name(&self, name: &TableName) -> Result<()> {
        check_name("table", &name.table)?;
        // The database's own table has no schema that could be dropped.
        if *name != rejected_table() {
            if is_reserved_schema(&name.schema) {
                return Err(read_only(&name.schema));
            }
            if !self.schemas.contains_key(&name.schema) {
                return Err(Error::not_found(format!("schema {:?} does not exist", name.schema)));
            }
        }
        if self.names.contains_key(name) {
            return Err(Error::already_exists(format!("table {name} exists")));
        }
        Ok(())
    }

    fn drop_table(&mut self, at: Seq, id: TableId) -> Result<()> {
        self.truncate(at, id)?;
        let table = self.tables.remove(&id).ok_or_else(|| gone(id))?;
        self.names.remove(table.name());
        self.sub_hash(table.hash);
        Ok(())
    }

    fn rename_table(&mut self, at: Seq, id: TableId, to: &TableName) -> Result<()> {
        self.check_new_name(to)?;
        let old = self.tables.get(&id).ok_or_else(|| gone(id))?.name().clone();
        self.names.remove(&old);
        self.names.insert(to.clone(), id);
        self.change_table(at, id, |state| {
            state.name = to.clone();
            Ok(())
        })
    }

    fn add_column(&mut self, at: Seq, id: TableId, column: &Column) -> Result<()> {
        check_name("column", &column.name)?;
        if !column.nullable {
            return Err(Error::invalid(format!(
                "column {:?} cannot be added as NOT NULL: older rows read it as null",
                column.name
            )));
        }
        self.change_schema(at, id, |state| {
            if state.next_column == ColumnId(u32::MAX) {
                return Err(Error::unsupported(format!("table {} has no column ids left", state.name)));
            }
            if column.id != state.next_column {
                return Err(Error::invalid(format!("column id {} is not the next one", column.id)));
            }
            if state.def.schema.by_name(&column.name).is_some() {
                return Err(Error::already_exists(format!(
                    "column {:?} of table {} exists",
                    column.name, state.name
                )));
            }
            state.next_column = state.next_column.next();
            state.def.schema.columns.push(column.clone());
            state.column_added.push(at);
            Ok(())
        })
    }

    fn drop_column(&mut self, at: Seq, id: TableId, column: ColumnId) -> Result<()> {
        self.change_schema(at, id, |state| {
            let position = state.def.schema.position(column).ok_or_else(|| column_gone(state, column))?;
            let name = state.def.schema.columns[position].name.clone();
            if state.def.timestamp == Some(column) {
                return Err(Error::invalid(format!(
                    "column {name:?} is the designated timestamp of table {} and cannot be dropped",
                    state.name
                )));
            }
            if state.def.primary_key.contains(&column) {
                return Err(Error::invalid(format!(
                    "column {name:?} is in the primary key of table {} and cannot be dropped",
                    state.name
                )));
            }
            if state.def.order_by.contains(&column) {
                return Err(Error::invalid(format!(
                    "column {name:?} is in the sort key of table {} and cannot be dropped",
                    state.name
                )));
            }
            if state.def.schema.columns.len() == 1 {
                return Err(Error::invalid(format!(
                    "column {name:?} is the only one of table {}",
                    state.name
                )));
            }
            state.def.schema.columns.remove(position);
            state.column_added.remove(position);
            Ok(())
        })
    }

    fn rename_column(&mut self, at: Seq, id: TableId, column: ColumnId, to: &str) -> Result<()> {
        check_name("column", to)?;
        let table = self.tables.get(&id).ok_or_else(|| gone(id))?;
        if table.schema().by_name(to).is_some_and(|c| c.id != column) {
            return Err(Error::already_exists(format!("column {to:?} of table {} exists", table.name())));
        }
        self.change_column(at, id, column, |c| {
            c.name = to.to_owned();
            Ok(())
        })?;
        self.change_table(at, id, |state| {
            state.renamed = state.schema_id;
            Ok(())
        })
    }

    fn change_column(
        &mut self,
        at: Seq,
        id: TableId,
        column: ColumnId,
        change: impl FnOnce(&mut Column) -> Result<()>,
    ) -> Result<()> {
        self.change_schema(at, id, |state| {
            let position = state.def.schema.position(column).ok_or_else(|| column_gone(state, column))?;
            let old = state.def.schema.columns[position].clone();
            let new = &mut state.def.schema.columns[position];
            change(new)?;
            if state.def.primary_key.contains(&column) && new.nullable {
                return Err(Error::invalid(format!(
                    "column {:?} is in the primary key of table {} and never null",
                    old.name, state.name
                )));
            }
            if state.def.timestamp == Some(column) && (new.data_type != old.data_type || new.nullable) {
                return Err(Error::invalid(format!(
                    "column {:?} is the designated timestamp of table {}: its type stays and it is never null",
                    old.name, state.name
                )));
            }
            Ok(())
        })
    }

    fn set_options(&mut self, at: Seq, id: TableId, options: &[(String, Option<String>)]) -> Result<()> {
        for (key, _) in options {
            check_name("table option", key)?;
        }
        self.change_table(at, id, |state| {
            for (key, value) in options {
                state.def.options.retain(|(k, _)| k != key);
                if let Some(value) = value {
                    state.def.options.push((key.clone(), value.clone()));
                }
            }
            state.def.options.sort();
            Ok(())
        })
    }

    fn set_settings(&mut self, settings: &[(String, Option<String>)]) -> Result<()> {
        for (key, value) in settings {
            check_name("database setting", key)?;
            let hash = |value: &str| entry_hash(Entry::Setting, &[key.as_bytes(), value.as_bytes()]);
            if let Some(old) = self.settings.remove(key) {
                self.sub_hash(hash(&old));
            }
            if let Some(value) = value {
                self.settings.insert(key.clone(), value.clone());
                self.add_hash(hash(value));
            }
        }
        Ok(())
    }

    pub(super) fn truncate(&mut self, at: Seq, id: TableId) -> Result<()> {
        let table = self.tables.get(&id).ok_or_else(|| gone(id))?;
        let files: Vec<FileName> = table.files.keys().copied().collect();
        let sections: Vec<SectionKey> = table.tail.keys().copied().collect();
        let mut table = table.clone();
        for name in files {
            self.remove_file(at, &mut table, &name)?;
        }
        for key in sections {
            self.remove_section(at, &mut table, &key)?;
        }
        self.retire_mutations(at, &mut table);
        self.tables.insert(id, table);
        self.touch_table(at, id)
    }

    fn append(&mut self, at: &mut Position, id: TableId, sections: &[Section]) -> Result<()> {
        let mut table = self.tables.get(&id).ok_or_else(|| gone(id))?.clone();
        for section in sections {
            check_section(&table, section)?;
            let key = SectionKey { seq: at.seq, transaction: at.transaction, section: at.sections };
            let live: Vec<Partition> = section.partitions.iter().map(|(p, _)| *p).collect();
            let tail = TailSection { key, section: section.clone(), live };
            self.add_hash(tail_hash(id, &tail));
            table.totals.add_tail(&tail)?;
            self.retain_segment(at.seq, section.segment)?;
            table.tail.insert(key, Arc::new(tail));
            at.sections = at.sections.checked_add(1).ok_or_else(too_much)?;
            at.rows = at.rows.checked_add(section.rows).ok_or_else(too_much)?;
        }
        self.tables.insert(id, table);
        self.touch_table(at.seq, id)
    }

    fn replace(&mut self, at: Seq, replace: &Replace) -> Result<()> {
        let table_before = self.tables.get(&replace.table).ok_or_else(|| gone(replace.table))?.clone();
        let mut table = table_before.clone();
        if replace.base >= at || (replace.files.is_empty() && replace.parts.is_empty()) {
            return Err(Error::invalid(
                "a replacement has no inputs, or was made of a later state than this",
            ));
        }
        if replace.base < table.state.restored {
            return Err(Error::serialization(format!(
                "table {} was restored at {} and is not what was compacted",
                table.name(),
                table.state.restored
            )));
        }
        for name in &replace.files {
            self.remove_file(at, &mut table, name)?;
        }
        // A section is cut once, however many of its partitions go.
        let mut parts: BTreeMap<SectionKey, BTreeSet<Partition>> = BTreeMap::new();
        for part in &replace.parts {
            if !parts.entry(part.section).or_default().insert(part.partition) {
                return Err(rows_gone());
            }
        }
        let closed = closed_hulls(&table_before, replace)?;
        for (key, gone) in &parts {
            self.remove_parts(at, &mut table, key, gone)?;
        }
        check_closed(&table, replace, &closed)?;
        let folds = table.is_keyed() || table.has_mutations();
        for file in &replace.outputs {
            let object = file.name.object;
            if table.files.contains_key(&file.name) || object.base > replace.base {
                return Err(Error::invalid(format!("data file {object} cannot be added")));
            }
            self.check_horizon(object)?;
            if folds && file.folded_through != replace.base {
                return Err(Error::invalid(format!(
                    "data file {object} is not folded through {}",
                    replace.base
                )));
            }
            self.add_hash(file_hash(replace.table, at, file));
            table.totals.add_file(file)?;
            table.files.insert(file.name, Arc::new(FileState { file: file.clone(), created: at }));
        }
        self.retire_mutations(at, &mut table);
        self.tables.insert(replace.table, table);
        Ok(())
    }

    fn record_checkpoint(&mut self, seq: Seq, root_hash: [u8; 32]) -> Result<()> {
        // A commit that records a checkpoint of itself would have to hold its own hash.
        // Before the horizon, the parts that it shares with an older one may be gone.
        let late = seq < self.horizon || self.checkpoint.is_some_and(|(newest, _)| newest >= seq);
        if seq == Seq(0) || seq >= self.seq || late {
            return Err(Error::invalid(format!("a checkpoint at {seq} cannot be recorded any more")));
        }
        self.checkpoint = Some((seq, root_hash));
        Ok(())
    }

    fn promote(&mut self, epoch: Epoch, primary: Option<&Primary>) -> Result<()> {
        if epoch != self.epoch.next() || epoch == self.epoch {
            let what = format!("the promotion to epoch {epoch} comes too late");
            return Err(self.name_primary(Error::serialization, &what));
        }
        self.set_primary(primary.cloned());
        self.epoch = epoch;
        Ok(())
    }

    pub(crate) fn set_primary(&mut self, primary: Option<Primary>) {
        let hash = |p: &Primary| entry_hash(Entry::Primary, &[p.node_id.as_bytes(), p.address.as_bytes()]);
        let grown = primary.as_ref().map_or(0, hash);
        let shrunk = self.primary.as_deref().map_or(0, hash);
        self.digest = self.digest.wrapping_add(grown).wrapping_sub(shrunk);
        self.primary = primary.map(Arc::new);
    }

    fn take_lease(&mut self, lease: Lease) -> Result<()> {
        let held = self.lease.as_ref().map_or(0, |lease| lease.term);
        if held.checked_add(1) != Some(lease.term) {
            return Err(Error::serialization(format!(
                "lease {} cannot be taken: the newest is {held}",
                lease.term
            )));
        }
        self.set_lease(Some(lease));
        Ok(())
    }

    pub(crate) fn set_lease(&mut self, lease: Option<Lease>) {
        let hash = |l: &Lease| {
            let term = l.term.to_be_bytes();
            entry_hash(Entry::Lease, &[l.holder.as_bytes(), l.address.as_bytes(), &term])
        };
        let grown = lease.as_ref().map_or(0, hash);
        let shrunk = self.lease.as_deref().map_or(0, hash);
        self.digest = self.digest.wrapping_add(grown).wrapping_sub(shrunk);
        self.lease = lease.map(Arc::new);
    }

    pub(super) fn remove_file(&mut self, at: Seq, table: &mut Table, name: &FileName) -> Result<()> {
        let old = table
            .files
            .remove(name)
            .ok_or_else(|| Error::serialization(format!("data file {} is gone", name.object)))?;
        self.sub_hash(file_hash(table.id(), old.created, &old.file));
        table.totals.remove_file(&old.file);
        let object = RemovedObject::File {
            table: table.id(),
            partition_by: PartitionOrd(table.partition_by()),
            file: *name,
        };
        self.note_removed(at, object, old.file.size);
        Ok(())
    }

    pub(super) fn remove_parts(
        &mut self,
        at: Seq,
        table: &mut Table,
        key: &SectionKey,
        gone: &BTreeSet<Partition>,
    ) -> Result<()> {
        let old = table.tail.get(key).cloned().ok_or_else(rows_gone)?;
        let live: Vec<Partition> = old.live.iter().copied().filter(|p| !gone.contains(p)).collect();
        if live.len() + gone.len() != old.live.len() {
            return Err(rows_gone());
        }
        self.take_section(table, &old);
        if live.is_empty() {
            self.release_segment(at, old.section.segment);
            return Ok(());
        }
        let rest = TailSection { live, ..(*old).clone() };
        self.add_hash(tail_hash(table.id(), &rest));
        table.totals.add_tail(&rest)?;
        table.tail.insert(*key, Arc::new(rest));
        Ok(())
    }

    pub(super) fn remove_section(&mut self, at: Seq, table: &mut Table, key: &SectionKey) -> Result<()> {
        let missing = || Error::internal("a section of the tail vanished");
        let old = table.tail.get(key).cloned().ok_or_else(missing)?;
        self.take_section(table, &old);
        self.release_segment(at, old.section.segment);
        Ok(())
    }

    fn take_section(&mut self, table: &mut Table, old: &TailSection) {
        table.tail.remove(&old.key);
        self.sub_hash(tail_hash(table.id(), old));
        table.totals.remove_tail(old);
    }

    pub(super) fn retain_segment(&mut self, at: Seq, segment: Option<ObjectName>) -> Result<()> {
        let Some(segment) = segment else { return Ok(()) };
        if !self.segments.contains_key(&segment) {
            self.check_horizon(segment)?;
        }
        self.count_segment(Some(segment));
        // Emptied and named again by the same commit: then it was never gone.
        let object = RemovedObject::Segment(segment);
        if self.removed.remove(&(at, object.clone())).is_some() {
            self.sub_hash(removed_hash(at, &object, 0));
        }
        Ok(())
    }

    pub(crate) fn count_segment(&mut self, segment: Option<ObjectName>) {
        let Some(segment) = segment else { return };
        let count = self.segments.get(&segment).copied().unwrap_or(0);
        self.segments.insert(segment, count.saturating_add(1));
    }

    /// What lies below the horizon may have been deleted before anybody named it.
    fn check_horizon(&self, object: ObjectName) -> Result<()> {
        if object.base < self.horizon {
            return Err(Error::serialization(format!(
                "object {object} was made at {}, before the horizon {}: it has to be made again",
                object.base, self.horizon
            )));
        }
        Ok(())
    }

    pub(super) fn release_segment(&mut self, at: Seq, segment: Option<ObjectName>) {
        let Some(segment) = segment else { return };
        match self.segments.get(&segment).copied() {
            Some(count) if count > 1 => {
                self.segments.insert(segment, count - 1);
            }
            _ => {
                self.segments.remove(&segment);
                self.note_removed(at, RemovedObject::Segment(segment), 0);
            }
        }
    }

    pub(crate) fn note_removed(&mut self, at: Seq, object: RemovedObject, bytes: u64) {
        self.add_hash(removed_hash(at, &object, bytes));
        self.removed.insert((at, object), bytes);
    }

    /// A change that makes a new schema version.
    fn change_schema(
        &mut self,
        at: Seq,
        id: TableId,
        change: impl FnOnce(&mut TableState) -> Result<()>,
    ) -> Result<()> {
        self.change_table(at, id, |state| {
            change(state)?;
            if state.schema_id == SchemaId(u32::MAX) {
                return Err(Error::unsupported(format!("table {} has no schema ids left", state.name)));
            }
            state.schema_id = state.schema_id.next();
            Ok(())
        })
    }

    /// A change of a table's rows: queries see it, and its state but for that stays as it is.
    pub(super) fn touch_table(&mut self, at: Seq, id: TableId) -> Result<()> {
        match self.tables.get(&id) {
            // Most commits touch few tables, often: once is enough.
            Some(table) if table.state.changed == at => Ok(()),
            _ => self.change_table(at, id, |_| Ok(())),
        }
    }

    /// A change that queries can see.
    pub(super) fn change_table(
        &mut self,
        at: Seq,
        id: TableId,
        change: impl FnOnce(&mut TableState) -> Result<()>,
    ) -> Result<()> {
        let mut table = self.tables.get(&id).ok_or_else(|| gone(id))?.clone();
        let mut state = (*table.state).clone();
        change(&mut state)?;
        state.changed = at;
        self.sub_hash(table.hash);
        table.hash = table_hash(&state);
        self.add_hash(table.hash);
        table.state = Arc::new(state);
        self.tables.insert(id, table);
        Ok(())
    }

    pub(crate) fn add_hash(&mut self, hash: u128) {
        self.digest = self.digest.wrapping_add(hash);
    }

    pub(crate) fn sub_hash(&mut self, hash: u128) {
        self.digest = self.digest.wrapping_sub(hash);
    }
}

pub(crate) fn table_hash(state: &TableState) -> u128 {
    entry_hash(Entry::Table, &[&encode_table_entry(state)])
}

pub(crate) fn file_hash(table: TableId, created: Seq, file: &tandem_format::DataFile) -> u128 {
    let place = [table.0.to_be_bytes(), created.0.to_be_bytes()].concat();
    entry_hash(Entry::File, &[&place, &encode_file_entry(file)])
}

pub(crate) fn tail_hash(table: TableId, tail: &TailSection) -> u128 {
    let entry = encode_section_entry(tail.key, &tail.section, &tail.live);
    entry_hash(Entry::Tail, &[&table.0.to_be_bytes(), &entry])
}

pub(crate) fn mutation_hash(table: TableId, pending: &PendingMutation) -> u128 {
    entry_hash(Entry::Mutation, &[&encode_mutation_entry(table, pending)])
}

pub(crate) fn removed_hash(at: Seq, object: &RemovedObject, bytes: u64) -> u128 {
    entry_hash(Entry::Removed, &[&encode_part_entry(&object.entry(at, bytes))])
}

/// Schemas that the database itself fills.
pub(crate) fn is_reserved_schema(name: &str) -> bool {
    matches!(name, "system" | "information_schema")
}

pub(super) fn gone(id: TableId) -> Error {
    Error::not_found(format!("the table with id {id} does not exist any more"))
}

pub(super) fn column_gone(state: &TableState, column: ColumnId) -> Error {
    Error::not_found(format!("the column with id {column} of table {} does not exist any more", state.name))
}

fn rows_gone() -> Error {
    Error::serialization("rows of the tail that were to be compacted are gone")
}

pub(super) fn too_much() -> Error {
    Error::invalid("a transaction counts more rows or sections than can be counted")
}

fn check_def(new: &NewTable) -> Result<()> {
    let def = &new.def;
    let columns = &def.schema.columns;
    if columns.is_empty() {
        return Err(Error::invalid(format!("table {} has no columns", new.name)));
    }
    for (position, column) in columns.iter().enumerate() {
        check_name("column", &column.name)?;
        let twice = |other: &Column| other.id == column.id || other.name == column.name;
        if columns[..position].iter().any(twice) {
            return Err(Error::invalid(format!("table {} names column {:?} twice", new.name, column.name)));
        }
    }
    let known = |id: &ColumnId| def.schema.column(*id).is_some();
    if !def.timestamp.iter().chain(&def.order_by).all(known) {
        return Err(Error::invalid(format!(
            "the definition of table {} names a column that it lacks",
            new.name
        )));
    }
    let designated = def.timestamp.and_then(|id| def.schema.column(id));
    if designated.is_some_and(|c| c.nullable || !matches!(c.data_type, DataType::Timestamp(_, _))) {
        return Err(Error::invalid(format!(
            "the designated timestamp of table {} must be a timestamp that is never null",
            new.name
        )));
    }
    check_key(new, designated)?;
    if designated.is_none() && def.partition_by != PartitionUnit::None {
        return Err(Error::invalid(format!("table {} has partitions but no designated timestamp", new.name)));
    }
    def.options.iter().try_for_each(|(key, _)| check_name("table option", key))
}

/// Versions of a row must share a partition, and a key that is null equals nothing.
fn check_key(new: &NewTable, designated: Option<&Column>) -> Result<()> {
    let key = &new.def.primary_key;
    for (position, id) in key.iter().enumerate() {
        let wrong = |what: &str| Err(Error::invalid(format!("the primary key of table {} {what}", new.name)));
        match new.def.schema.column(*id) {
            None => return wrong("names a column that the table lacks"),
            Some(_) if key[..position].contains(id) => return wrong("names a column twice"),
            Some(column) if column.nullable => {
                return wrong(&format!("has {:?}, which may be null", column.name));
            }
            Some(_) => {}
        }
    }
    match designated {
        Some(column)
            if !key.is_empty()
                && new.def.partition_by != PartitionUnit::None
                && !key.contains(&column.id) =>
        {
            Err(Error::invalid(format!(
                "the primary key of table {} must contain the designated timestamp {:?}, because the table is \
                 partitioned by it",
                new.name, column.name
            )))
        }
        _ => Ok(()),
    }
}

fn check_section(table: &Table, section: &Section) -> Result<()> {
    if let Some(id) = section.columns.iter().find(|id| table.schema().column(**id).is_none()) {
        return Err(column_gone(&table.state, *id));
    }
    let wrong = |what: &str| Err(Error::invalid(format!("a section for table {} {what}", table.name())));
    let columns: BTreeSet<ColumnId> = section.columns.iter().copied().collect();
    if table.is_keyed() == (section.on_duplicate == OnDuplicate::Keep) {
        return wrong("does not say what becomes of equal keys, or the table has no key");
    }
    if table.primary_key().iter().any(|id| !columns.contains(id)) {
        return wrong("lacks a column of the primary key");
    }
    if columns.len() != section.columns.len() || columns.len() != section.null_counts.len() {
        return wrong("names a column twice, or does not count the nulls of each");
    }
    let counted = section.partitions.iter().try_fold(0u64, |sum, (_, rows)| sum.checked_add(*rows));
    if counted != Some(section.rows) || section.partitions.iter().any(|(_, rows)| *rows == 0) {
        return wrong(&format!("has {} rows, its partitions do not add up to that", section.rows));
    }
    if section.rows == 0 || !section.partitions.is_sorted_by(|(a, _), (b, _)| a < b) {
        return wrong("has no rows, or its partitions are not in ascending order");
    }
    Ok(())
}
