//! One running engine: a store, its log, a writer, queries, upkeep and company, put together.
//!
//! ```text
//!  Node::open:  probe store ─▶ open log ─▶ recover state ─▶ start writer ─▶ start upkeep ─▶ SQL engine
//!                                                              ▲
//!  company:     heartbeats ─▶ peers ─▶ following ──(feeds)─────┘ ─▶ followers
//! ```
//!
//! What this crate promises:
//!
//! - [`Node::open`] returns a node that serves, or an error that says what is wrong with the store.
//! - Upkeep (compaction, checkpoints, expiry) never blocks writers or readers, runs as many jobs at a time as it may, and a
//!   job that fails is tried again later without harm.
//! - Other nodes make a node faster, never wrong: without them it reads the store. It finds them, and loses them, by
//!   itself.
//! - A replica commits nothing, and says who does.
//! - Where one node at a time writes, the log says which; when that one falls silent another takes over, and it commits
//!   nothing after that.
//! - [`Node::shutdown`] ends upkeep and company, soon; what was acknowledged needs no shutdown to survive.
//!
//! Words: an *upstream* pushes commits, a *follower* gets them; a *feed* is one upstream's pushes. A *heartbeat* is what a
//! node says of itself in the store.
//!
//! It refuses to know wires, flags and files of configuration.

mod acks;
mod alerts;
mod collect;
mod config;
mod database;
mod failover;
mod followers;
mod following;
mod handover;
mod heartbeat;
mod history;
mod peers;
mod prefetch;
mod promote;
mod roles;
mod status;
mod tail;
mod upkeep;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tandem_client::handover::SubmitService;
use tandem_client::tail::TailService;
use tandem_collect::Collector;
use tandem_datafile::FooterCache;
use tandem_env::{DiskCache, Env, probe, within};
use tandem_format::{Primary, identity_path};
use tandem_log::{Log, Recovered};
use tandem_manifest::Manifest;
use tandem_sql::{Engine, QueryRegistry};
use tandem_types::{Error, Result};
use tandem_writer::{Role, Writer};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

pub use acks::Progress;
pub use config::{FAILOVER_PRIORITY, NodeConfig, Prefetch, Upstream};
pub use tandem_collect::Rules as CollectRules;
pub use tandem_log::{ApplyLimit, Until};
pub use tandem_manifest::Mode;
pub use tandem_writer::WriterConfig;

use followers::Downstream;
use history::History;
use peers::Peers;
use tail::{TailReader, Turns};
use upkeep::Upkeep;

/// How long the last heartbeat may take to go away.
const SILENT_WITHIN: Duration = Duration::from_secs(2);

/// How long a job of upkeep may take to be left: it is left where it next waits for something.
const LEFT_WITHIN: Duration = Duration::from_secs(2);

/// A running node. Dropping it ends upkeep and company.
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    engine: Engine,
    tasks: Vec<AbortOnDrop>,
    heartbeat: Option<AbortOnDrop>,
    replayed: u64,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub env: Env,
    pub log: Log,
    pub writer: Writer,
    pub tail: TailReader,
    /// States of the past.
    pub history: History,
    pub footers: Arc<FooterCache>,
    /// Parts of data files and segments.
    pub disk: Option<DiskCache>,
    pub config: NodeConfig,
    /// Who else has applied what.
    pub progress: Progress,
    pub peers: Peers,
    pub downstream: Downstream,
    /// Whether followers are to be sent away.
    pub ending: watch::Sender<bool>,
    /// Whether jobs of upkeep are to be left as they are.
    pub closing: watch::Sender<bool>,
    /// Held while something is deleted, or looked through for that.
    pub collector: Mutex<Collector>,
    /// The queries that run here; known once there are any.
    pub queries: OnceLock<Arc<QueryRegistry>>,
    /// Held while compactions or a checkpoint run: so many at a time bound their memory.
    pub upkeep: Mutex<Upkeep>,
}

/// A task that ends with its handle.
#[derive(Debug)]
pub(crate) struct AbortOnDrop(pub JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Node {
    /// Opens the database in the environment's store. A writer creates it if there is none; a replica waits for one.
    pub async fn open(env: Env, mut config: NodeConfig) -> Result<Self> {
        peers::check_node_id(&config.node_id)?;
        config.writer.identity = match &config.advertise {
            Some(address) if !config.replica => {
                Some(Primary { node_id: config.node_id.clone(), address: address.clone() })
            }
            _ => None,
        };
        config.writer.forward = config.forward_writes;
        let limit = config.writer.limit;
        if !limit.is_none() && !config.replica {
            return Err(Error::invalid(format!(
                "a node that writes applies everything; one that applies {limit} must be a replica"
            )));
        }
        if config.replica {
            wait_for_database(&env, &config).await?;
        } else {
            probe(&env.store, &*env.chance).await?;
        }
        let disk =
            config.cache_dir.as_deref().map(|dir| DiskCache::open(dir, config.cache_bytes)).transpose()?;
        let log = Log::open(env.clone()).await?;
        let Recovered { manifest, checkpoint, replayed, replayed_bytes } =
            log.recover_within(&limit, log.env().clock.now_micros()).await?;
        tracing::info!(seq = %manifest.seq(), replayed, applies = %limit, "recovered");
        let writer = Writer::start(log.clone(), manifest, config.writer.clone());
        if config.replica {
            writer.set_role(Role::Replica { writer: None });
        }
        let interval = heartbeat::interval(&config, &env.store);
        let engine_config = config.engine.clone();
        let shared = Arc::new(Shared {
            tail: TailReader {
                log: log.clone(),
                writer: writer.clone(),
                disk: disk.clone(),
                turns: Turns::new(),
            },
            history: History::new(log.clone()),
            footers: Arc::new(FooterCache::new(config.footer_cache_bytes).with_disk(disk.clone())),
            disk,
            progress: Progress::new(env.clock.clone()),
            peers: Peers::new(heartbeat::patience(interval)),
            downstream: Downstream::new(),
            ending: watch::channel(false).0,
            closing: watch::channel(false).0,
            collector: Mutex::default(),
            queries: OnceLock::new(),
            upkeep: Mutex::new(Upkeep::new(&config, checkpoint, replayed_bytes)),
            env,
            log,
            writer,
            config,
        });
        shared.begin().await?;
        let engine = Engine::new(shared.clone(), engine_config)?;
        let _ = shared.queries.set(engine.registry().clone());
        let mut tasks = vec![
            AbortOnDrop(tokio::spawn(upkeep::run(shared.clone()))),
            AbortOnDrop(tokio::spawn(collect::run(shared.clone()))),
            AbortOnDrop(tokio::spawn(roles::run(shared.clone()))),
        ];
        if shared.disk.is_some() && shared.config.prefetch != Prefetch::None {
            tasks.push(AbortOnDrop(tokio::spawn(prefetch::run(shared.clone()))));
        }
        let mut heartbeat = None;
        if shared.config.advertise.is_some() {
            heartbeat = Some(AbortOnDrop(tokio::spawn(heartbeat::run(shared.clone(), interval))));
            tasks.push(AbortOnDrop(tokio::spawn(following::run(shared.clone()))));
            tasks.push(AbortOnDrop(tokio::spawn(handover::run(shared.clone()))));
            tasks.push(AbortOnDrop(tokio::spawn(failover::run(shared.clone(), interval))));
        }
        Ok(Self { shared, engine, tasks, heartbeat, replayed })
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

    /// Why the node cannot go on, if so.
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

    /// Why the node cannot go on, asked again at each call.
    pub fn health(&self) -> Arc<dyn Fn() -> Option<String> + Send + Sync> {
        let shared = self.shared.clone();
        Arc::new(move || shared.failure().map(|e| e.to_string()))
    }

    /// What it does for those who follow it.
    pub fn tail(&self) -> TailService {
        let shared = self.shared.clone();
        Arc::new(move |follow, progress| followers::serve(&shared, follow, progress))
    }

    /// How it commits for other nodes.
    pub fn submit(&self) -> SubmitService {
        let shared = self.shared.clone();
        Arc::new(move |bundle| handover::serve(shared.clone(), bundle))
    }

    /// Before the node ends: a primary hands its role on, if somebody can take it. Takes some seconds at most.
    pub async fn hand_on(&self) {
        self.shared.hand_on().await;
    }

    /// Takes leave of the other nodes. Streams of followers end: they would keep a listener open that waits for its
    /// requests.
    pub fn dismiss_followers(&self) {
        self.shared.ending.send_replace(true);
    }

    /// Ends company and upkeep, within some seconds whatever they do. A job that runs is left: a compaction or a checkpoint
    /// that is not recorded harms nobody, and may take minutes.
    pub async fn shutdown(mut self) {
        self.dismiss_followers();
        self.shared.closing.send_replace(true);
        // Whoever holds the lock is finished; a job that has not begun never does.
        let job = within(&*self.shared.env.clock, LEFT_WITHIN, self.shared.upkeep.lock()).await;
        if job.is_none() {
            tracing::warn!("a job of upkeep goes on although the node ends; leaving it");
        }
        self.tasks.clear();
        if let Some(mut heartbeat) = self.heartbeat.take() {
            // A store that does not answer keeps nobody from ending.
            let _ = within(&*self.shared.env.clock, SILENT_WITHIN, &mut heartbeat.0).await;
        }
    }
}

/// A replica creates nothing; whoever starts all nodes at once need not care about the order.
async fn wait_for_database(env: &Env, config: &NodeConfig) -> Result<()> {
    let mut said = false;
    while env.store.get(identity_path()).await?.is_none() {
        if !said {
            tracing::info!(
                store = env.store.url(),
                "no database is here yet: waiting for a writer to create it"
            );
            said = true;
        }
        env.clock.sleep(config.upkeep_interval).await;
    }
    Ok(())
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
