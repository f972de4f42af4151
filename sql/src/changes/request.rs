//! What can be asked of a table's changes, and what it is told of.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use tandem_manifest::{Manifest, Table};
use tandem_types::{Error, ErrorKind, Result, Seq, TableId, TableName, TableSchema};

use super::cut::concerns;
use super::source::Source;
use crate::wire::wire_type;

/// How much is told of rows that change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Images {
    /// Rows as they were appended. Of what else a commit did, one row says that there was something, and all its columns are
    /// null.
    None,
    /// Rows that came, rows as they have become, and rows that went.
    #[default]
    After,
    /// Rows that changed as they were before, too.
    Both,
}

impl Images {
    /// `none`, `after` or `both`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "none" => Ok(Self::None),
            "after" => Ok(Self::After),
            "both" => Ok(Self::Both),
            other => Err(Error::invalid(format!("images {other:?} are unknown: say none, after or both"))),
        }
    }
}

/// Which changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangesRequest {
    /// What it is called after the commit `from`, or else what will be.
    pub table: TableName,
    /// The first commit that is told.
    pub from: Seq,
    /// The last one; `None`: for ever.
    pub to: Option<Seq>,
    pub images: Images,
}

/// Which changes of all tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EveryRequest {
    /// The first commit that is told.
    pub from: Seq,
    /// The last one; `None`: for ever.
    pub to: Option<Seq>,
    pub images: Images,
}

/// Columns of the stream after the table's own.
pub(super) const SEQ: &str = "_seq";
pub(super) const OP: &str = "_op";
pub(super) const COMMIT_TIME: &str = "_commit_time";

/// What the stream calls rows of a table with these columns.
pub(super) fn told_schema(name: &TableName, columns: &TableSchema) -> Result<SchemaRef> {
    let own = [SEQ, OP, COMMIT_TIME];
    if let Some(taken) = columns.columns.iter().find(|c| own.contains(&c.name.as_str())) {
        return Err(Error::unsupported(format!(
            "the changes of table {name} cannot be told: it has a column named {:?}, as the stream has",
            taken.name
        )));
    }
    Ok(with_own(table_fields(columns)))
}

/// A table's columns as they are told: a row that tells of a new schema has no values.
pub(super) fn table_fields(columns: &TableSchema) -> impl Iterator<Item = Field> {
    columns.columns.iter().map(|c| Field::new(&c.name, wire_type(&c.data_type), true))
}

/// These, and what the stream says of each row.
pub(super) fn with_own(fields: impl Iterator<Item = Field>) -> SchemaRef {
    let own = [
        Field::new(SEQ, DataType::UInt64, false),
        Field::new(OP, DataType::Utf8, false),
        Field::new(COMMIT_TIME, DataType::Timestamp(TimeUnit::Microsecond, None), false),
    ];
    Arc::new(Schema::new(fields.chain(own).collect::<Vec<_>>()))
}

/// A table whose changes are told, and from where on.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) table: TableId,
    pub(super) name: TableName,
    /// The first commit that can have to do with it.
    pub(super) from: Seq,
    /// Its columns after that commit, or now, if that is yet to come.
    pub(super) columns: Arc<TableSchema>,
    /// Whether rows of equal keys meet.
    pub(super) keyed: bool,
}

/// Commits of the log that are looked through at once for the return of a table.
const SEARCH: usize = 256;

impl Subject {
    /// Finds the table of a request. `newest` is a state that has passed what is asked for, as far as it can.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such table, `HistoryGone` if the first commit cannot be told any more.
    pub(super) async fn find(
        source: &Source,
        request: &ChangesRequest,
        newest: &Arc<Manifest>,
    ) -> Result<Self> {
        let from = request.from.max(Seq(1));
        let start = newest.history_start();
        // The state before it is needed.
        if from <= start && start > Seq(0) {
            return Err(gone(from, start));
        }
        let name = &request.table;
        let state_at = async |seq| match seq < newest.seq() {
            true => source.state(seq).await,
            false => Ok(Arc::clone(newest)),
        };
        let first = state_at(from).await?;
        if let Some(table) = first.table_named(name) {
            return Ok(Self::of(table, name, from));
        }
        let Some(table) = newest.table_named(name) else {
            return Err(Error::not_found(format!(
                "table {name} does not exist, neither at seq {} nor at seq {}",
                first.seq(),
                newest.seq()
            )));
        };
        let id = table.id();
        let found = |from, state: &Manifest| match state.table(id) {
            Some(table) => Ok(Self::of(table, name, from)),
            None => Err(Error::internal(format!("table {name} is not where it should be, at seq {from}"))),
        };
        if first.table(id).is_some() {
            // Under another name.
            return found(from, &first);
        }
        if table.created() > from {
            let at = table.created();
            return found(at, state_at(at).await?.as_ref());
        }
        // It was dropped before, and brought back after.
        let mut next = from;
        while next <= newest.seq() {
            let commits = source.commits(next, newest.seq(), SEARCH).await?;
            for header in commits {
                next = header.seq.next();
                if concerns(&header, id) {
                    let state = state_at(header.seq).await?;
                    if state.table(id).is_some() {
                        return found(header.seq, &state);
                    }
                }
            }
        }
        Err(Error::unavailable(format!("the log does not say when table {name} came back")))
    }

    pub(super) fn of(table: &Table, name: &TableName, from: Seq) -> Self {
        let columns = Arc::new(table.schema().clone());
        Self { table: table.id(), name: name.clone(), from, columns, keyed: table.is_keyed() }
    }

    /// The same with the columns of another state, if it is there.
    pub(super) fn in_columns_of(mut self, state: &Manifest) -> Self {
        if let Some(table) = state.table(self.table) {
            self.columns = Arc::new(table.schema().clone());
        }
        self
    }
}

/// Why a commit cannot be told.
pub(super) fn gone(seq: Seq, start: Seq) -> Error {
    let message = format!(
        "the changes of commit {seq} cannot be told any more: history begins at seq {start}, so that the first that can be is {}",
        start.next()
    );
    Error::new(ErrorKind::HistoryGone, message).with_seq(start)
}
