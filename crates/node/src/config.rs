//! Settings of one node: plain data.

use std::time::Duration;

use tandem_client::ConnectOptions;
use tandem_compact::Policy;
use tandem_sql::EngineConfig;
use tandem_writer::WriterConfig;

/// What a node may use and when its upkeep acts.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// What others see of it, and the name of its heartbeat: letters, digits, `.`, `_` and `-`. No two nodes share one.
    pub node_id: String,
    /// Whether it follows the log and never writes.
    pub replica: bool,
    /// Whom it follows.
    pub upstream: Upstream,
    /// Where other nodes and redirected clients reach it. Without one it is alone: it tells nobody of itself and follows
    /// nobody.
    pub advertise: Option<String>,
    /// How it connects to other nodes: what it shows to them, and by what it knows them.
    pub connect: ConnectOptions,
    /// How often it says that it is there, in the store, and looks who else does; by default as often as the store makes
    /// reasonable.
    pub heartbeat: Option<Duration>,
    pub writer: WriterConfig,
    pub engine: EngineConfig,
    pub policy: Policy,
    /// Whether this node compacts and checkpoints by itself. A replica never does.
    pub upkeep: bool,
    /// How often upkeep looks for work when nothing is written.
    pub upkeep_interval: Duration,
    /// Rows wait in the tail for this long at most before they go to data files.
    pub tail_age: Duration,
    /// Footers of data files kept in memory.
    pub footer_cache_bytes: usize,
}

/// Whom a node follows, beside the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Upstream {
    /// Writers that it finds by their heartbeats: a writer follows all of them, a replica one.
    #[default]
    Found,
    /// The first of these addresses that answers.
    Addresses(Vec<String>),
    /// Nobody: the store is polled, and no node is ever called.
    Store,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            node_id: "node".to_owned(),
            replica: false,
            upstream: Upstream::default(),
            advertise: None,
            connect: ConnectOptions::default(),
            heartbeat: None,
            writer: WriterConfig::default(),
            engine: EngineConfig::default(),
            policy: Policy::default(),
            upkeep: true,
            upkeep_interval: Duration::from_secs(1),
            tail_age: Duration::from_secs(300),
            footer_cache_bytes: 64 << 20,
        }
    }
}
