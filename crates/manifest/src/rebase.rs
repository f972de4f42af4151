//! From what somebody wants to what is committed, on top of a given state.
//!
//! The table of DESIGN section 4 is decided here. A writer calls this again whenever somebody else's commit
//! came first, so that the answer always rests on the newest state.

mod append;
mod change;
mod create;

use tandem_format::{NewTable, Op, Transaction};
use tandem_types::{Column, Error, Result, Seq, TableName, check_data_type, widens_to};

use crate::apply::Outcome;
use crate::intent::{Change, Intent, Step};
use crate::ops::{Position, is_reserved_schema};
use crate::rejected::{read_only, rejected_spec};
use crate::settings::{check_setting, check_table_option};
use crate::state::Manifest;
use crate::table::Table;

/// Columns of one table, at most.
const MAX_COLUMNS: usize = 4096;

/// The URL under which a node is reached, at most.
const MAX_ADDRESS_BYTES: usize = 2048;

/// What an intent becomes.
#[derive(Clone, Debug)]
pub enum Rebased {
    /// To be committed. `state` is what the next intent of the same group is rebased on.
    Commit { transaction: Transaction, state: Box<Manifest> },
    /// A success that changes nothing, such as `CREATE TABLE IF NOT EXISTS` of an existing table.
    NoOp,
    /// Committed before, under the same token.
    Duplicate { seq: Seq, rows: u64 },
}

/// Why an intent is not committed.
#[derive(Clone, Debug, PartialEq)]
pub enum Rejection {
    /// It cannot be, and its client is told why.
    Refused(Error),
    /// The table changed since its rows were prepared: prepare them again on a newer state, same token.
    Recast(Error),
}

impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// Binds an intent to `state`, as transaction number `index` of the commit that follows it.
///
/// `state` is the manifest at the previous seq, with the transactions of this commit up to `index` applied.
/// An append's sections keep the offsets that their drafts have; the writer sets them when it lays out the payload.
pub fn rebase(intent: &Intent, state: &Manifest, at: Seq, index: u32) -> Result<Rebased, Rejection> {
    if let Some(token) = &intent.token
        && let Some((seq, rows)) = state.committed(token, &intent.digest)?
    {
        return Ok(Rebased::Duplicate { seq, rows });
    }
    // What was committed before the epoch ended is a success all the same; the rest is for the next primary.
    state.check_epoch(intent.epoch)?;
    let mut draft = Draft::new(state, at, index);
    for step in &intent.steps {
        draft.step(intent.base, step)?;
    }
    if draft.ops.is_empty() {
        return Ok(Rebased::NoOp);
    }
    let transaction = Transaction {
        token: intent.token.clone(),
        digest: intent.digest.clone(),
        epoch: intent.epoch,
        ops: draft.ops,
    };
    // Through the same door as every other node: what is handed on is what they will have.
    let mut numbered = state.clone();
    numbered.seq = at;
    match numbered.apply_transaction(index, &transaction) {
        (after, Outcome::Applied { .. }) => Ok(Rebased::Commit { transaction, state: Box::new(after) }),
        (_, Outcome::Duplicate { seq, rows }) => Ok(Rebased::Duplicate { seq, rows }),
        (_, Outcome::Void(error)) => Err(Rejection::Refused(error)),
    }
}

/// A transaction in the making: the operations so far, and the state with them applied.
struct Draft {
    state: Manifest,
    at: Position,
    ops: Vec<Op>,
}

impl Draft {
    fn new(state: &Manifest, at: Seq, index: u32) -> Self {
        let mut state = state.clone();
        state.seq = at;
        Self { state, at: Position::new(at, index), ops: Vec::new() }
    }

    fn push(&mut self, op: Op) -> Result<()> {
        check_supported(&self.state, &op)?;
        self.state.apply_op(&mut self.at, &op)?;
        self.ops.push(op);
        Ok(())
    }

    fn step(&mut self, base: Seq, step: &Step) -> Result<(), Rejection> {
        match step {
            Step::CreateSchema { name, if_not_exists } => {
                if !(*if_not_exists && (self.state.has_schema(name) || is_reserved_schema(name))) {
                    self.push(Op::CreateSchema { name: name.clone() })?;
                }
            }
            Step::DropSchema { name, if_exists } => {
                if self.state.has_schema(name) || !if_exists {
                    self.push(Op::DropSchema { name: name.clone() })?;
                }
            }
            Step::CreateTable { name, spec, if_not_exists, replace } => {
                self.create_table(name, spec, *if_not_exists, *replace)?;
            }
            Step::DropTable { name, if_exists } => match self.state.table_named(name) {
                None if *if_exists => {}
                _ => {
                    let table = self.state.require(name)?.id();
                    self.push(Op::DropTable { table })?;
                }
            },
            Step::RenameTable { name, to } => {
                let table = self.state.require(name)?.id();
                self.push(Op::RenameTable { table, to: to.clone() })?;
            }
            Step::AlterTable { name, change } => self.alter(base, name, change)?,
            Step::SetSettings { settings } => self.push(Op::SetSettings { settings: settings.clone() })?,
            Step::Truncate { name } => {
                let table = self.state.require(name)?.id();
                self.push(Op::Truncate { table })?;
            }
            Step::Append(append) => self.append(append)?,
            Step::Replace(replace) => self.push(Op::Replace(replace.clone()))?,
            // Another node was quicker: what was wanted is there.
            Step::Checkpoint { seq, .. }
                if self.state.checkpoint.is_some_and(|(newest, _)| newest >= *seq) => {}
            // Whoever collects follows the chain of what each checkpoint goes on from: one that is not on it loses its parts,
            // and so would the next one, which shares them.
            Step::Checkpoint { seq, after, .. } if self.state.checkpoint != *after => {
                return Err(Rejection::Refused(Error::serialization(format!(
                    "another checkpoint was recorded while the one at {seq} was written"
                ))));
            }
            Step::Checkpoint { seq, root_hash, .. } => {
                self.push(Op::Checkpoint { seq: *seq, root_hash: *root_hash })?;
            }
            Step::Promote { epoch, primary } => {
                self.push(Op::Promote { epoch: *epoch, primary: primary.clone() })?;
            }
            Step::Lease { holder, address, term } => {
                self.push(Op::Lease { holder: holder.clone(), address: address.clone(), term: *term })?
            }
            Step::Mutate(mutate) => self.mutate(mutate)?,
            Step::Unchanged { table, name, since } => self.check_unchanged(*table, name, *since)?,
            Step::Bound { name, table, schema } => self.check_bound(name, *table, *schema)?,
            Step::DropPartitions { name, partitions } => {
                let table = self.state.require(name)?.id();
                self.push(Op::DropPartitions { table, partitions: partitions.clone() })?;
            }
            Step::Expire { table, partitions } => self.expire(*table, partitions)?,
            Step::RestoreTable { image, name } => {
                let mut image = image.clone();
                if let Some(name) = name {
                    image.state.name = name.clone();
                }
                self.push(Op::RestoreTable(image))?;
            }
            Step::Horizon { horizon, history_start } => {
                self.push(Op::Horizon { horizon: *horizon, history_start: *history_start })?;
            }
            Step::Pin(pin) => self.push(Op::Pin(pin.clone()))?,
            Step::Unpin { id } if self.state.pins().all(|pin| pin.id != *id) => {}
            Step::Unpin { id } => self.push(Op::Unpin { id: id.clone() })?,
        }
        Ok(())
    }

    fn create_table(
        &mut self,
        name: &TableName,
        spec: &crate::TableSpec,
        if_not_exists: bool,
        replace: bool,
    ) -> Result<()> {
        if let Some(existing) = self.state.table_named(name).map(Table::id) {
            if if_not_exists {
                return Ok(());
            }
            if replace {
                self.push(Op::DropTable { table: existing })?;
            }
        }
        let def = spec.resolve(name)?;
        self.push(Op::CreateTable(NewTable { table: self.state.next_table, name: name.clone(), def }))
    }

    fn alter(&mut self, base: Seq, name: &TableName, change: &Change) -> Result<()> {
        let table = self.state.require(name)?.clone();
        let id = table.id();
        let op = match change {
            Change::AddColumn { column, if_not_exists } => {
                if let Some(existing) = table.schema().by_name(&column.name) {
                    return self.add_existing(base, &table, existing, column, *if_not_exists);
                }
                Op::AddColumn {
                    table: id,
                    column: Column {
                        id: table.state.next_column,
                        name: column.name.clone(),
                        data_type: column.data_type.clone(),
                        nullable: column.nullable,
                    },
                }
            }
            Change::DropColumn { name: column, if_exists } => match table.schema().by_name(column) {
                None if *if_exists => return Ok(()),
                _ => Op::DropColumn { table: id, column: require_column(&table, column)?.id },
            },
            Change::RenameColumn { name: column, to } => {
                Op::RenameColumn { table: id, column: require_column(&table, column)?.id, to: to.clone() }
            }
            Change::WidenColumn { name: column, to } => {
                let column = require_column(&table, column)?;
                if column.data_type == *to {
                    return Ok(());
                }
                if !widens_to(&column.data_type, to) {
                    return Err(conflict(&table, &column.name, &column.data_type, to));
                }
                Op::WidenColumn { table: id, column: column.id, to: to.clone() }
            }
            Change::DropNotNull { name: column } => {
                Op::DropNotNull { table: id, column: require_column(&table, column)?.id }
            }
            Change::SetOptions { options } => Op::SetOptions { table: id, options: options.clone() },
        };
        self.push(op)
    }

    /// A column that somebody added first: what was meant is there, or can be made so, or cannot.
    fn add_existing(
        &mut self,
        base: Seq,
        table: &Table,
        existing: &Column,
        wanted: &crate::ColumnSpec,
        if_not_exists: bool,
    ) -> Result<()> {
        if if_not_exists {
            return Ok(());
        }
        if !wanted.nullable {
            return Err(Error::invalid(format!(
                "column {:?} cannot be added as NOT NULL: older rows read it as null",
                wanted.name
            )));
        }
        let position = table.schema().position(existing.id).unwrap_or_default();
        let added = table.state.column_added.get(position).copied().unwrap_or_default();
        if added <= base {
            return Err(Error::already_exists(format!(
                "column {:?} of table {} exists",
                existing.name,
                table.name()
            )));
        }
        let Some(to) = tandem_types::common_supertype(&existing.data_type, &wanted.data_type) else {
            return Err(conflict(table, &existing.name, &existing.data_type, &wanted.data_type));
        };
        if to == existing.data_type {
            return Ok(());
        }
        self.push(Op::WidenColumn { table: table.id(), column: existing.id, to })
    }
}

/// What this version of the program can do with an operation. Asked here and not when a commit is applied: versions
/// differ in it, and nodes of all versions must make the same state of a log.
fn check_supported(state: &Manifest, op: &Op) -> Result<()> {
    match op {
        Op::CreateTable(new) => {
            check_own(new)?;
            check_columns(new.def.schema.columns.len())?;
            new.def.schema.columns.iter().try_for_each(|c| check_data_type(&c.name, &c.data_type))?;
            new.def.options.iter().try_for_each(|(key, value)| check_table_option(key, Some(value)))
        }
        // It is made as the database makes it, or not at all.
        Op::RenameTable { to, .. } if is_reserved_schema(&to.schema) => Err(read_only(&to.schema)),
        Op::AddColumn { table, column } => {
            check_columns(state.table(*table).map_or(0, |t| t.schema().columns.len()) + 1)?;
            check_data_type(&column.name, &column.data_type)
        }
        Op::WidenColumn { table, column, to } => {
            let name = state.table(*table).and_then(|t| t.schema().column(*column));
            check_data_type(name.map_or("", |c| &c.name), to)
        }
        Op::SetOptions { table, options } => {
            if state.table(*table).is_some_and(|t| !t.is_keyed())
                && options.iter().any(|(key, value)| key == "on_duplicate" && value.is_some())
            {
                return Err(Error::invalid("on_duplicate needs a primary key, and the table has none"));
            }
            options.iter().try_for_each(|(key, value)| check_table_option(key, value.as_deref()))
        }
        Op::Mutate(mutation) => change::check_mutation(mutation),
        Op::Pin(pin) => change::check_pin(pin),
        Op::SetSettings { settings } => {
            settings.iter().try_for_each(|(key, value)| check_setting(key, value.as_deref()))
        }
        Op::Promote { primary: Some(p), .. } => check_node(&p.node_id, &p.address),
        Op::Lease { holder, address, .. } => check_node(holder, address),
        _ => Ok(()),
    }
}

/// The database's own table is made as it is, whoever asks.
fn check_own(new: &NewTable) -> Result<()> {
    if is_reserved_schema(&new.name.schema) && new.def != rejected_spec().resolve(&new.name)? {
        return Err(read_only(&new.name.schema));
    }
    Ok(())
}

/// Bounds of what a node calls itself, so that the state stays small.
fn check_node(id: &str, address: &str) -> Result<()> {
    tandem_types::check_name("node id", id)?;
    if address.len() > MAX_ADDRESS_BYTES {
        return Err(Error::invalid(format!(
            "the address of node {id} has {} bytes, at most {MAX_ADDRESS_BYTES} are allowed",
            address.len()
        )));
    }
    Ok(())
}

fn check_columns(count: usize) -> Result<()> {
    if count > MAX_COLUMNS {
        return Err(Error::invalid(format!("{count} columns, at most {MAX_COLUMNS} are allowed")));
    }
    Ok(())
}

fn require_column<'a>(table: &'a Table, name: &str) -> Result<&'a Column> {
    table.schema().by_name(name).ok_or_else(|| no_such_column(table, name))
}

fn no_such_column(table: &Table, name: &str) -> Error {
    let known: Vec<&str> = table.schema().columns.iter().take(20).map(|c| c.name.as_str()).collect();
    Error::not_found(format!("table {} has no column {name:?}; it has {}", table.name(), known.join(", ")))
}

/// Names table, column and both types.
fn conflict(
    table: &Table,
    column: &str,
    has: &arrow_schema::DataType,
    sent: &arrow_schema::DataType,
) -> Error {
    Error::schema_conflict(format!(
        "column {column:?} of table {} is {has}, {sent} does not fit without loss",
        table.name()
    ))
}
