//! Settings of one node: plain data.

use std::time::Duration;

use tandem_compact::Policy;
use tandem_sql::EngineConfig;
use tandem_writer::WriterConfig;

/// What a node may use and when its upkeep acts.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// What others see of it; for people.
    pub node_id: String,
    pub writer: WriterConfig,
    pub engine: EngineConfig,
    pub policy: Policy,
    /// Whether this node compacts and checkpoints by itself.
    pub upkeep: bool,
    /// How often upkeep looks for work when nothing is written.
    pub upkeep_interval: Duration,
    /// Rows wait in the tail for this long at most before they go to data files.
    pub tail_age: Duration,
    /// Footers of data files kept in memory.
    pub footer_cache_bytes: usize,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            node_id: "node".to_owned(),
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
