//! One running engine: a store, its log, a writer, queries and upkeep, put together.
//!
//! ```text
//!  Node::open:  probe store ─▶ open log ─▶ recover state ─▶ start writer ─▶ start upkeep ─▶ SQL engine
//! ```
//!
//! What this crate promises:
//!
//! - [`Node::open`] returns a node that serves, or an error that says what is wrong with the store.
//! - Upkeep (compaction, checkpoints) never blocks writers or readers, runs one job at a time, and a job that fails is
//!   tried again later without harm.
//! - [`Node::shutdown`] ends upkeep; what was acknowledged needs no shutdown to survive.
//!
//! It refuses to know wires, flags and files of configuration.

mod config;
mod database;
mod status;
mod tail;
mod upkeep;

use std::sync::Arc;

use tandem_datafile::FooterCache;
use tandem_env::{Env, probe};
use tandem_log::{Log, Recovered};
use tandem_manifest::Manifest;
use tandem_sql::Engine;
use tandem_types::{Error, Result};
use tandem_writer::Writer;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

pub use config::NodeConfig;

use tail::TailReader;
use upkeep::Upkeep;

/// A running node. Dropping it ends upkeep.
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    engine: Engine,
    upkeep: JoinHandle<()>,
    replayed: u64,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub env: Env,
    pub log: Log,
    pub writer: Writer,
    pub tail: TailReader,
    pub footers: Arc<FooterCache>,
    pub config: NodeConfig,
    /// Held while a compaction or a checkpoint runs: one at a time bounds their memory.
    pub upkeep: Mutex<Upkeep>,
}

impl Node {
    /// Opens the database in the environment's store, creating it if there is none.
    pub async fn open(env: Env, config: NodeConfig) -> Result<Self> {
        probe(&env.store, &*env.chance).await?;
        let log = Log::open(env.clone()).await?;
        let Recovered { manifest, checkpoint, replayed, replayed_bytes } = log.recover().await?;
        tracing::info!(seq = %manifest.seq(), replayed, "recovered");
        let writer = Writer::start(log.clone(), manifest, config.writer.clone());
        let footers = Arc::new(FooterCache::new(config.footer_cache_bytes));
        let upkeep = Upkeep::new(checkpoint, replayed_bytes);
        let engine_config = config.engine.clone();
        let tail = TailReader { log: log.clone(), writer: writer.clone() };
        let shared = Arc::new(Shared { env, log, writer, tail, footers, config, upkeep: Mutex::new(upkeep) });
        let engine = Engine::new(shared.clone(), engine_config)?;
        let upkeep = tokio::spawn(upkeep::run(shared.clone()));
        Ok(Self { shared, engine, upkeep, replayed })
    }

    /// Runs SQL.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The newest applied state.
    pub fn state(&self) -> Arc<Manifest> {
        self.shared.writer.state()
    }

    /// Commits that were applied after the last checkpoint when the node was opened.
    pub fn replayed(&self) -> u64 {
        self.replayed
    }

    /// Why the node cannot write any more, if so.
    pub fn failure(&self) -> Option<Error> {
        self.shared.failure()
    }

    /// What `tandem status` shows, as JSON; computed at each call.
    pub fn status(&self) -> Arc<dyn Fn() -> serde_json::Value + Send + Sync> {
        let shared = self.shared.clone();
        Arc::new(move || status::status(&shared))
    }

    /// Sets the gauges that are computed when somebody looks.
    pub fn observe(&self) -> Arc<dyn Fn() + Send + Sync> {
        let shared = self.shared.clone();
        Arc::new(move || status::observe(&shared))
    }

    /// Why the node cannot write any more, asked again at each call.
    pub fn health(&self) -> Arc<dyn Fn() -> Option<String> + Send + Sync> {
        let shared = self.shared.clone();
        Arc::new(move || shared.failure().map(|e| e.to_string()))
    }

    /// Ends upkeep after the job that runs now.
    pub async fn shutdown(self) {
        // Whoever holds the lock is finished; a job that has not begun never does.
        let _job = self.shared.upkeep.lock().await;
        self.upkeep.abort();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.upkeep.abort();
    }
}

impl Shared {
    fn failure(&self) -> Option<Error> {
        let stopped = self.writer.stopped();
        match stopped {
            None if !self.writer.is_running() => {
                Some(Error::internal("the commit task has ended unexpectedly: restart the node"))
            }
            stopped => stopped,
        }
    }
}
