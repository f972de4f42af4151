//! Line protocol: the write routes of the QuestDB and InfluxDB families.
//!
//! A body is parsed as it comes and handed to the store in batches, so that what a request holds does not grow with it.
//! All of its lines are one transaction: none is committed before the last one was read.

mod answer;
mod body;
mod identity;
mod request;
mod room;
mod write;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::routing::{get, post};
use tandem_env::Clock;
use tandem_lines::{Catalog, Diverted, TableBatch};
use tandem_manifest::SchemaPolicy;
use tandem_types::{PartitionUnit, Result, Seq};

use request::Family;
use room::Room;

pub(crate) use request::parameters;

/// Where lines go.
pub trait LineStore: Send + Sync {
    /// A transaction on the newest state that is known here.
    ///
    /// # Errors
    ///
    /// `NotWriter` if this node takes no writes; `InvalidInput` or `Unsupported` if the options are wrong.
    fn begin(&self, options: LineOptions) -> Result<Box<dyn LineTransaction>>;

    /// Whether this node takes writes.
    ///
    /// # Errors
    ///
    /// `NotWriter`, naming who does.
    fn check_writes(&self) -> Result<()>;
}

/// How one request is to be written: its `tandem-…` headers, and what its address says of tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineOptions {
    /// `tandem-token`: what was written under it before is not written again.
    pub token: Option<String>,
    /// `tandem-ack`, as it came.
    pub ack: Option<String>,
    /// `tandem-ack-timeout`.
    pub ack_timeout: Option<Duration>,
    /// `tandem-schema`; without it tables and columns are made as lines name them, unless the database or a table says
    /// otherwise.
    pub schema: Option<SchemaPolicy>,
    pub new_tables: NewTables,
    /// What the client calls itself, for people.
    pub client: String,
}

/// What a request says of the tables that it makes; of the rest, the database does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTables {
    /// Whether tags and timestamp are the primary key, rows of which merge.
    pub keys: Option<bool>,
    pub partition_by: Option<PartitionUnit>,
    /// Table options, with values that they can have.
    pub options: Vec<(String, String)>,
}

/// The rows of one request on their way. Dropped, nothing of it is written.
#[async_trait]
pub trait LineTransaction: Send {
    /// The tables of the state that it is formed on.
    fn catalog(&self) -> Arc<dyn Catalog>;

    /// Takes rows.
    ///
    /// # Errors
    ///
    /// `SchemaConflict` or `InvalidInput` if they cannot go into their table; else as of the store.
    async fn stage(&mut self, rows: TableBatch) -> Result<()>;

    /// Takes lines that are kept aside because of a value that does not go into its column: their
    /// [rules](Catalog::rules) say so.
    ///
    /// # Errors
    ///
    /// As of the store.
    async fn divert(&mut self, lines: Vec<Diverted>) -> Result<()>;

    /// Makes sure that lines which do not fit these tables do not fit them as they are now, either.
    ///
    /// # Errors
    ///
    /// `Serialization` if one of them has changed; as of the store.
    async fn confirm(&self, tables: &BTreeSet<String>) -> Result<()>;

    /// Whether [`commit`](Self::commit) wants a digest of what the client sent.
    fn wants_digest(&self) -> bool;

    /// Commits all rows taken. `digest` is of what the client sent: another one under the same token is another write, and
    /// without a token, on tables that ask for it, the same one soon after is the same write. `None`: it was not wanted, or
    /// nothing of the kind may be concluded from it.
    ///
    /// # Errors
    ///
    /// As of a write. `Serialization` if tables changed meanwhile so that the lines have to be read again.
    async fn commit(self: Box<Self>, digest: Option<Vec<u8>>) -> Result<LineReceipt>;
}

/// What a commit answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineReceipt {
    pub seq: Seq,
    /// Its token had been committed before.
    pub duplicate: bool,
    /// The level that was reached, as `tandem-acked` says it.
    pub acked: String,
}

/// What the routes share.
struct Service {
    store: Arc<dyn LineStore>,
    clock: Arc<dyn Clock>,
    room: Room,
    /// Why the process cannot go on, if so.
    failure: Arc<dyn Fn() -> Option<String> + Send + Sync>,
}

/// The routes of both families.
pub(crate) fn routes(
    store: Arc<dyn LineStore>,
    clock: Arc<dyn Clock>,
    failure: Arc<dyn Fn() -> Option<String> + Send + Sync>,
) -> Router {
    let service = Arc::new(Service { store, clock, room: Room::default(), failure });
    let write = |family: Option<Family>| post(move |state, request| write::write(state, family, request));
    Router::new()
        .route("/write", write(None))
        .route("/api/v2/write", write(Some(Family::InfluxV2)))
        .route("/api/v3/write_lp", write(Some(Family::InfluxV3)))
        .route("/settings", get(identity::settings))
        .route("/ping", get(identity::ping))
        .route("/health", get(identity::health))
        .with_state(service)
}
