//! What all sessions share: threads, memory, functions, the way to the database.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use datafusion::common::Result as DfResult;
use datafusion::execution::SessionState;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool, TrackConsumersPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::planner::{RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::prelude::SessionConfig;
use datafusion::sql::sqlparser::ast::TableFactor;
use tandem_env::{Clock, SystemClock};
use tandem_manifest::Manifest;
use tandem_types::{DEFAULT_CATALOG, DEFAULT_SCHEMA, Error, Result};
use tokio::runtime::Handle;

use crate::as_of::PastReads;
use crate::catalog::catalog_list;
use crate::changes::ChangesOf;
use crate::database::Database;
use crate::error::to_datafusion;
use crate::io::IoStore;
use crate::queries::QueryRegistry;
use crate::runtime::QueryRuntime;
use crate::scan::BoundCache;
use crate::session::Session;
use crate::statement::StatementLimits;
use crate::transaction::{OwnRows, Transactions};

/// How often idle transactions are looked for.
const SWEEP_MIN: Duration = Duration::from_millis(50);
const SWEEP_MAX: Duration = Duration::from_secs(10);

/// What an engine may use.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Bytes that all running queries together may hold in sorts, joins and aggregates; beyond it they spill.
    pub memory_limit: usize,
    /// Threads, and streams per query.
    pub target_partitions: usize,
    /// Where spilled data goes; `None`: the system's directory for temporary files.
    pub spill_dir: Option<PathBuf>,
    /// Bytes that all running queries together may spill.
    pub max_spill: u64,
    /// What a statement may be.
    pub limits: StatementLimits,
    /// How long the planning of one statement may take.
    pub planning_limit: Duration,
    /// How long a transaction that has written may be idle before it is rolled back.
    pub transaction_idle: Duration,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            memory_limit: 256 << 20,
            target_partitions: std::thread::available_parallelism().map_or(2, NonZeroUsize::get),
            spill_dir: None,
            max_spill: 16 << 30,
            limits: StatementLimits::default(),
            planning_limit: Duration::from_secs(30),
            transaction_idle: Duration::from_secs(300),
        }
    }
}

/// Runs SQL over a database. Clones share everything.
#[derive(Clone, Debug)]
pub struct Engine {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    database: Arc<dyn Database>,
    config: EngineConfig,
    runtime: QueryRuntime,
    queries: Arc<QueryRegistry>,
    io: Handle,
    objects: Arc<IoStore>,
    /// Mutations that queries decoded.
    bounds: Arc<BoundCache>,
    transactions: Transactions,
    /// Functions, rules, settings; cloned for every statement.
    template: SessionState,
}

impl Engine {
    /// Starts the query threads.
    ///
    /// # Errors
    ///
    /// `Internal` if it is not called within the runtime that does the database's I/O, or if threads or the
    /// spill directory cannot be had.
    pub fn new(database: Arc<dyn Database>, config: EngineConfig) -> Result<Self> {
        let io = Handle::try_current()
            .map_err(|e| Error::internal(format!("an engine needs a runtime for its I/O: {e}")))?;
        let queries = Arc::new(QueryRegistry::default());
        let objects = Arc::new(IoStore::new(database.objects(), io.clone()));
        let runtime = QueryRuntime::new(config.target_partitions)?;
        let template = template(&config)?;
        let bounds = Arc::default();
        let transactions = Transactions::default();
        let shared =
            Shared { database, config, runtime, queries, io, objects, bounds, transactions, template };
        let this = Self { shared: Arc::new(shared) };
        this.sweep_transactions();
        Ok(this)
    }

    /// Ends what clients have left behind, for as long as the engine is there.
    fn sweep_transactions(&self) {
        let every = (self.config().transaction_idle / 4).clamp(SWEEP_MIN, SWEEP_MAX);
        let shared = Arc::downgrade(&self.shared);
        self.shared.io.spawn(async move {
            loop {
                SystemClock.sleep(every).await;
                let Some(shared) = shared.upgrade() else { return };
                shared.transactions.sweep();
            }
        });
    }

    /// A new session with default options. `id` is what `system.queries` shows.
    pub fn session(&self, id: &str) -> Arc<Session> {
        Arc::new(Session::new(self.clone(), id))
    }

    pub fn database(&self) -> &Arc<dyn Database> {
        &self.shared.database
    }

    pub fn config(&self) -> &EngineConfig {
        &self.shared.config
    }

    /// The queries that run now.
    pub fn queries(&self) -> &QueryRegistry {
        &self.shared.queries
    }

    /// Cancels a running query; whether there was one of that id.
    pub fn cancel(&self, query_id: &str) -> bool {
        self.shared.queries.cancel(query_id)
    }

    /// The same, to be kept.
    pub fn registry(&self) -> &Arc<QueryRegistry> {
        &self.shared.queries
    }

    pub(crate) fn runtime(&self) -> &QueryRuntime {
        &self.shared.runtime
    }

    /// The runtime that does the database's I/O.
    pub(crate) fn io(&self) -> &Handle {
        &self.shared.io
    }

    /// Data files, for query threads.
    pub(crate) fn objects(&self) -> &Arc<IoStore> {
        &self.shared.objects
    }

    pub(crate) fn bounds(&self) -> &Arc<BoundCache> {
        &self.shared.bounds
    }

    pub(crate) fn transactions(&self) -> &Transactions {
        &self.shared.transactions
    }

    /// The memory that all queries share.
    pub(crate) fn memory_pool(&self) -> Arc<dyn MemoryPool> {
        Arc::clone(&self.shared.template.runtime_env().memory_pool)
    }

    /// What DataFusion needs to plan and run one statement on a snapshot.
    pub(crate) fn state(&self, snapshot: &Arc<Manifest>, default_schema: &str) -> SessionState {
        self.state_within(snapshot, default_schema, None)
    }

    /// The same, on the view of a transaction that has written these rows.
    pub(crate) fn state_within(
        &self,
        snapshot: &Arc<Manifest>,
        default_schema: &str,
        own: Option<Arc<OwnRows>>,
    ) -> SessionState {
        let mut state = self.shared.template.clone();
        default_schema.clone_into(&mut state.config_mut().options_mut().catalog.default_schema);
        state.config_mut().set_extension(Arc::new(PastReads { engine: self.clone(), all: false }));
        let committed = own.is_none().then(|| Arc::clone(snapshot));
        let changes = ChangesOf { engine: self.clone(), snapshot: committed };
        state.config_mut().set_extension(Arc::new(changes));
        state.register_catalog_list(catalog_list(self, snapshot, own));
        state.mark_start_execution();
        state
    }
}

fn template(config: &EngineConfig) -> Result<SessionState> {
    let mode = match &config.spill_dir {
        Some(dir) => DiskManagerMode::Directories(vec![dir.clone()]),
        None => DiskManagerMode::OsTmpDirectory,
    };
    let disk = DiskManagerBuilder::default().with_mode(mode).with_max_temp_directory_size(config.max_spill);
    let pool = TrackConsumersPool::new(FairSpillPool::new(config.memory_limit), NonZeroUsize::MIN);
    let env = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .with_disk_manager_builder(disk)
        .build_arc()
        .map_err(|e| Error::internal(format!("the spill directory cannot be used: {e}")))?;

    let mut session = SessionConfig::new()
        .with_default_catalog_and_schema(DEFAULT_CATALOG, DEFAULT_SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true)
        .with_target_partitions(config.target_partitions.max(1));
    let options = session.options_mut();
    options.optimizer.enable_window_topn = true;
    // What SQL calls TEXT is a view in a query anyway.
    options.sql_parser.map_string_types_to_utf8view = true;

    Ok(SessionStateBuilder::new()
        .with_config(session)
        .with_runtime_env(env)
        .with_default_features()
        .with_relation_planners(vec![Arc::new(RefuseUnplanned)])
        .build())
}

/// Refuses what DataFusion would read over in silence.
#[derive(Debug)]
struct RefuseUnplanned;

impl RelationPlanner for RefuseUnplanned {
    fn plan_relation(
        &self,
        relation: TableFactor,
        _context: &mut dyn RelationPlannerContext,
    ) -> DfResult<RelationPlanning> {
        if let TableFactor::Table { name, version, sample, .. } = &relation {
            if version.is_some() {
                let message = format!("table {name} cannot be read as of another moment here");
                return Err(to_datafusion(Error::unsupported(message)));
            }
            if sample.is_some() {
                return Err(to_datafusion(Error::unsupported("TABLESAMPLE is not supported")));
            }
        }
        Ok(RelationPlanning::Original(Box::new(relation)))
    }
}
