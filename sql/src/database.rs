//! The seam to the running engine: what SQL needs of it, and nothing more.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::ObjectStore;
use tandem_datafile::FooterCache;
use tandem_format::{CommitHeader, Section};
use tandem_manifest::{Manifest, OnConflict, SchemaPolicy, SectionDraft, Step, TableSpec, TailSection};
use tandem_types::{Epoch, Error, Result, Seq, TableId, TableName};
use tokio::sync::{Notify, watch};

use crate::as_of::AsOf;
use crate::collected::{CollectRequest, Collected, StoredObject};
use crate::options::{Ack, ReadOptions, WriteOptions};

/// A running database, as SQL sees it.
#[async_trait]
pub trait Database: Debug + Send + Sync + 'static {
    /// The newest applied state. A query pins one and reads all its tables from it.
    fn snapshot(&self) -> Arc<Manifest>;

    /// Returns once [`snapshot`](Self::snapshot) is what the read demands.
    ///
    /// # Errors
    ///
    /// `Behind`, naming the seq wanted and the seq applied, if it is not within the time allowed.
    async fn settle(&self, read: &ReadOptions) -> Result<()>;

    /// A state of the past; where it is not reached yet, once it is. A time is reached when a commit at or past it is
    /// applied: until then one that is not later may still come.
    ///
    /// # Errors
    ///
    /// `HistoryGone`, naming the earliest state that is kept, if it is older than that; `Behind`, naming the newest applied
    /// one, if it does not come within the deadline (`None`: [`READ_DEADLINE`](crate::READ_DEADLINE)).
    async fn state_as_of(&self, at: AsOf, deadline: Option<Duration>) -> Result<Arc<Manifest>> {
        let _ = (at, deadline);
        Err(no_history())
    }

    /// The last commit applied here whose commit time is not later than `time`, in microseconds since 1970; 0 if all that
    /// are kept are later.
    async fn seq_at(&self, time: i64) -> Result<Seq> {
        let _ = time;
        Err(no_history())
    }

    /// The state after the first `transactions` of a commit that was applied: good for reading tables, and nothing else.
    ///
    /// # Errors
    ///
    /// As [`state_as_of`](Self::state_as_of) of the seq before.
    async fn state_within(&self, seq: Seq, transactions: usize) -> Result<Arc<Manifest>> {
        let _ = (seq, transactions);
        Err(no_history())
    }

    /// Changes whenever a commit was applied; `None` where nobody can tell.
    fn watch(&self) -> Option<watch::Receiver<Arc<Manifest>>> {
        None
    }

    /// The newest drop of a table of that name, and what was there right before.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is none in the history that is kept.
    async fn before_drop(&self, name: &TableName) -> Result<Dropped> {
        let _ = name;
        Err(no_history())
    }

    /// Commits the steps as one transaction and returns once it is durable, applied here, and acknowledged as the
    /// options ask. `base` is the seq of the snapshot that the statement was formed on.
    ///
    /// # Errors
    ///
    /// `TokenReused` if the token stands for another write. `QuorumTimeout`, with the commit's seq, if it was
    /// committed and too few nodes said in time that they applied it.
    async fn submit(&self, base: Seq, steps: Vec<Step>, options: WriteOptions) -> Result<Receipt>;

    /// Whether writes are taken here.
    ///
    /// # Errors
    ///
    /// `NotWriter`, naming who takes them.
    fn check_writes(&self) -> Result<()> {
        Ok(())
    }

    /// Encodes what a mutation looks up; a large table is uploaded, and so is a small one where its transaction holds `held`
    /// bytes of rows already and there is no room left in its commit.
    async fn stage_lookup(
        &self,
        schema: SchemaRef,
        rows: Vec<RecordBatch>,
        held: u64,
    ) -> Result<StagedSection> {
        let _ = (schema, rows, held);
        Err(Error::unsupported("this database takes no rows to look up"))
    }

    /// Encodes the rows of an append that is one statement of a transaction; its options play no part. `base` is what the
    /// transaction began on, `view` the same with its earlier statements, `held` as for
    /// [`stage_lookup`](Self::stage_lookup).
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append), as far as they need no commit.
    async fn stage_append(
        &self,
        request: AppendRequest,
        base: Arc<Manifest>,
        view: Arc<Manifest>,
        held: u64,
        rows: RowStream,
    ) -> Result<StagedAppend> {
        let _ = (request, base, view, held, rows);
        Err(no_transactions())
    }

    /// The rows of a section that a transaction uploaded and that is in no commit yet.
    async fn uncommitted_rows(&self, section: &Section) -> Result<Arc<SectionRows>> {
        let _ = section;
        Err(no_transactions())
    }

    /// As [`submit`](Self::submit), of steps that carry sections: `sections` are theirs, in order.
    ///
    /// # Errors
    ///
    /// As of `submit`; `Serialization` if a precondition does not hold, or if the sections were staged too long ago.
    async fn submit_staged(
        &self,
        base: Seq,
        steps: Vec<Step>,
        sections: Vec<StagedSection>,
        options: WriteOptions,
    ) -> Result<Receipt> {
        if sections.is_empty() {
            return self.submit(base, steps, options).await;
        }
        Err(Error::unsupported("this database takes no rows to look up"))
    }

    /// As [`submit_staged`](Self::submit_staged), of what a client without tokens sent: where all tables that it appends to
    /// have a `dedup_window`, a write of the same digest within the shortest of them is the same write. A token in the
    /// options comes first.
    async fn submit_content(
        &self,
        base: Seq,
        steps: Vec<Step>,
        sections: Vec<StagedSection>,
        options: WriteOptions,
        digest: Vec<u8>,
    ) -> Result<Receipt> {
        let _ = digest;
        self.submit_staged(base, steps, sections, options).await
    }

    /// What the write under this token answered, if the state applied here knows it: then there is no need to do the work
    /// again. `None`, too, without a token.
    ///
    /// # Errors
    ///
    /// As [`submit`](Self::submit).
    async fn repeated(&self, options: &WriteOptions) -> Result<Option<Receipt>>;

    /// Appends a stream of rows as one transaction: nothing is visible before its end, and nothing at all
    /// if it fails. Memory is bounded whatever the stream's length.
    ///
    /// # Errors
    ///
    /// As [`submit`](Self::submit), and whatever the stream yields.
    async fn append(&self, request: AppendRequest, rows: RowStream) -> Result<Receipt>;

    /// The rows of a tail section, all partitions of it, with the section's own field order and types;
    /// cached. Errors name the object.
    async fn tail_rows(&self, table: TableId, section: &TailSection) -> Result<Arc<SectionRows>>;

    /// Headers of the commits `from..=to`, at most `limit` of them, in order, each with the bytes of rows that ride
    /// in it.
    async fn read_log(&self, from: Seq, to: Seq, limit: usize) -> Result<Vec<(CommitHeader, u64)>>;

    /// Returns when everything committed to the table before the call is compacted.
    async fn optimize(&self, table: &TableName) -> Result<Receipt>;

    /// Writes a checkpoint of the present state and returns its seq.
    async fn checkpoint(&self) -> Result<Seq>;

    /// Makes a node the primary, and returns once it is.
    ///
    /// # Errors
    ///
    /// `InvalidInput` where every node takes writes, or where the node cannot be the primary; `NotFound` if nobody has
    /// heard of it; `Serialization` if the role moved meanwhile; `Unavailable` if the present primary or the next cannot be
    /// reached.
    async fn promote(&self, promotion: Promotion) -> Result<Promoted> {
        let _ = promotion;
        Err(Error::unsupported("this database has no nodes that could be promoted"))
    }

    /// Deletes what nothing needs any more, or says what that would be.
    async fn collect(&self, request: CollectRequest) -> Result<Collected> {
        let _ = request;
        Err(no_collector())
    }

    /// What is in the store, and what holds each object there, for `system.gc`.
    async fn stored_objects(&self) -> Result<Vec<StoredObject>> {
        Err(no_collector())
    }

    /// A better reason why the rows of a snapshot are damaged or missing, if there is one: `HistoryGone` where history has
    /// passed it.
    async fn explain_damage(&self, snapshot: Seq, error: Error) -> Error {
        let _ = snapshot;
        error
    }

    /// Data files, by the paths that the layout gives them.
    fn objects(&self) -> Arc<dyn ObjectStore>;

    /// Footers of data files, shared by all queries.
    fn footers(&self) -> Arc<FooterCache>;

    /// Settings of this node only, for `system.settings`.
    fn node_settings(&self) -> Vec<NodeSetting>;

    /// The nodes of the database as far as this one has heard of them, itself included, for `system.nodes`.
    fn nodes(&self) -> Vec<NodeRow>;
}

fn no_transactions() -> Error {
    Error::unsupported("this database takes no transactions of several statements")
}

fn no_collector() -> Error {
    Error::unsupported("this database deletes nothing")
}

fn no_history() -> Error {
    Error::unsupported("this database keeps no history")
}

/// Rows that were encoded for a step, and have no place in the log yet.
#[derive(Clone, Debug)]
pub struct StagedSection {
    /// What the step says of them.
    pub draft: SectionDraft,
    /// Their bytes; only the database that made it knows what that is.
    pub held: Arc<dyn Any + Send + Sync>,
    /// For reading them before they are committed; `None`: they were uploaded.
    pub rows: Option<Arc<SectionRows>>,
}

/// An append that was encoded, and has no place in the log yet.
#[derive(Clone, Debug)]
pub struct StagedAppend {
    pub steps: Vec<Step>,
    /// Those of the steps, in order.
    pub sections: Vec<StagedSection>,
}

/// A stream of rows on their way into a table.
pub type RowStream = BoxStream<'static, Result<RecordBatch>>;

/// Where an append goes and what it may do on the way.
#[derive(Clone, Debug)]
pub struct AppendRequest {
    pub table: TableName,
    /// Of every batch in the stream; columns are matched by name.
    pub schema: SchemaRef,
    pub policy: SchemaPolicy,
    /// Creates the table in the same transaction.
    pub create: Option<CreateTable>,
    /// What becomes of rows whose key is taken, on a table with a key; `None`: as the table's `on_duplicate` says.
    pub on_conflict: Option<OnConflict>,
    /// Told once the transaction has its place in the queue: who wants its appends in order waits for it before the next.
    pub queued: Option<Arc<Notify>>,
    pub options: WriteOptions,
}

/// A table to be created together with its first rows.
#[derive(Clone, Debug)]
pub struct CreateTable {
    pub spec: TableSpec,
    /// Leave an existing table as it is and append to it.
    pub if_not_exists: bool,
    /// Drop an existing table first.
    pub replace: bool,
}

/// A table that was dropped.
#[derive(Clone, Debug)]
pub struct Dropped {
    /// The commit that dropped it.
    pub seq: Seq,
    pub table: TableId,
    /// The state that the drop found: it has the table.
    pub before: Arc<Manifest>,
}

/// What a commit answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Where it is in the log; for a statement that had nothing to do, the state it found.
    pub seq: Seq,
    /// Rows written.
    pub rows: u64,
    /// Its token had been committed before: seq and rows are those of the first time.
    pub duplicate: bool,
    /// The level that was reached.
    pub acked: Ack,
}

/// Whom to promote, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Promotion {
    /// `None`: the node that is asked.
    pub node_id: Option<String>,
    /// Without a word to the present primary, which may be gone.
    pub force: bool,
    /// Only while this is the present epoch.
    pub epoch: Option<Epoch>,
}

/// Who is the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promoted {
    pub node_id: String,
    /// Where clients reach it.
    pub address: String,
    pub epoch: Epoch,
    /// The commit that made it so, or the newest one if it was so already.
    pub seq: Seq,
    /// Whether anything changed.
    pub changed: bool,
}

/// The decoded rows of a section.
pub type SectionRows = tandem_segment::DecodedSection;

/// A row of `system.settings`.
#[derive(Clone, Debug)]
pub struct NodeSetting {
    pub name: &'static str,
    pub value: String,
    pub default: String,
    pub description: &'static str,
}

/// A row of `system.nodes`. What is not known is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeRow {
    pub node_id: String,
    /// Where others reach it.
    pub address: Option<String>,
    /// `writer` where every node writes; else `primary`, or `standby` for one that can be promoted; `replica`.
    pub role: String,
    pub epoch: u64,
    pub applied_seq: Seq,
    /// How far it is behind the newest commit known here.
    pub lag_commits: Option<u64>,
    pub lag_rows: Option<u64>,
    pub lag_bytes: Option<u64>,
    pub lag_seconds: Option<f64>,
    pub version: String,
    /// Microseconds since 1970.
    pub last_heartbeat: Option<i64>,
}
