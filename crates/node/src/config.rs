//! Settings of one node: plain data.

use std::path::PathBuf;
use std::time::Duration;

use tandem_client::ConnectOptions;
use tandem_compact::Policy;
use tandem_manifest::Mode;
use tandem_sql::EngineConfig;
use tandem_writer::WriterConfig;

/// The priority of a node that was given none.
pub const FAILOVER_PRIORITY: u8 = 50;

/// What a node may use and when its upkeep acts.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// What others see of it, and the name of its heartbeat: letters, digits, `.`, `_` and `-`. No two nodes share one.
    pub node_id: String,
    /// Whether it follows the log and never writes.
    pub replica: bool,
    /// Whom it follows.
    pub upstream: Upstream,
    /// Whether a write that this node cannot commit is handed to one that can, instead of refused with its address.
    pub forward_writes: bool,
    /// How gladly it takes over from a primary that fell silent, 0 to 100; `None`: never by itself.
    pub failover_priority: Option<u8>,
    /// The mode in which the database is created, and which it must have if it exists.
    pub mode: Option<Mode>,
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
    /// UPDATEs, DELETEs and late rows of keyed tables wait for this long at most before files are rewritten with them.
    pub fold_age: Duration,
    /// Compactions that run at once, at most: each takes memory for itself.
    pub upkeep_jobs: usize,
    /// Whether this node deletes what nothing needs any more. A replica never does.
    pub collect: bool,
    /// How often it looks for that.
    pub collect_interval: Duration,
    /// How careful it is then.
    pub collect_rules: tandem_collect::Rules,
    /// Footers of data files kept in memory.
    pub footer_cache_bytes: usize,
    /// A directory of this node alone, where parts of data files and segments are kept; `None`: nowhere.
    pub cache_dir: Option<PathBuf>,
    /// Bytes of it, at most.
    pub cache_bytes: u64,
    /// What is fetched into it before anybody asks.
    pub prefetch: Prefetch,
}

/// What a node fetches ahead, as far as its cache on disk has room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prefetch {
    /// Nothing: data comes when a query wants it.
    #[default]
    None,
    /// What is written from the node's start on.
    Recent,
    /// Everything, the newest first.
    All,
}

impl Prefetch {
    /// As options name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Recent => "recent",
            Self::All => "all",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::None, Self::Recent, Self::All].into_iter().find(|policy| policy.name() == text)
    }
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
            forward_writes: false,
            failover_priority: Some(FAILOVER_PRIORITY),
            mode: None,
            advertise: None,
            connect: ConnectOptions::default(),
            heartbeat: None,
            writer: WriterConfig::default(),
            engine: EngineConfig::default(),
            policy: Policy::default(),
            upkeep: true,
            upkeep_interval: Duration::from_secs(1),
            tail_age: Duration::from_secs(300),
            fold_age: Duration::from_secs(3600),
            upkeep_jobs: std::thread::available_parallelism().map_or(1, |n| n.get() / 2).max(1),
            collect: true,
            collect_interval: Duration::from_secs(600),
            collect_rules: tandem_collect::Rules::default(),
            footer_cache_bytes: 64 << 20,
            cache_dir: None,
            cache_bytes: 4 << 30,
            prefetch: Prefetch::default(),
        }
    }
}
