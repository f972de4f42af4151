//! One thread, one clock, any number of nodes.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use futures::StreamExt;
use tandem_env::sim::{FaultStore, SimClock, join};
use tandem_env::{Clock, Env};
use tandem_log::Log;
use tandem_manifest::{SchemaPolicy, Step};
use tandem_types::{Error, Result, TableName};
use tandem_writer::{Append, Committed, CreateTable, WriteToken, Writer, WriterConfig};

/// How far the clock moves at once.
const TICK: Duration = Duration::from_millis(10);

/// How often every task may run between two ticks.
const ROUNDS: usize = 6;

/// An empty store whose clock moves only in [`run`].
pub fn store() -> Arc<FaultStore> {
    Arc::new(FaultStore::new(Arc::new(SimClock::manual())))
}

/// Runs to the end on a runtime of its own, time going by.
pub fn run<T>(store: &Arc<FaultStore>, work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let clock = store.clock();
    runtime.block_on(async move {
        let ticker = tokio::spawn(async move {
            loop {
                for _ in 0..ROUNDS {
                    tokio::task::yield_now().await;
                }
                clock.advance(TICK);
            }
        });
        let done = work.await;
        ticker.abort();
        done
    })
}

/// Small bounds, so that small inputs reach all of them.
pub fn config() -> WriterConfig {
    WriterConfig {
        inline_bytes: 8 << 10,
        section_bytes: 4 << 10,
        queue_bytes: 64 << 10,
        poll: Duration::from_millis(200),
        ..WriterConfig::default()
    }
}

pub struct Node {
    pub env: Env,
    pub log: Log,
    pub writer: Writer,
}

impl Node {
    pub async fn try_open(store: &Arc<FaultStore>, seed: u64, config: WriterConfig) -> Result<Self> {
        Self::in_env(join(store, seed), config).await
    }

    /// On a machine whose clock is not that of the others.
    pub async fn open_by(
        store: &Arc<FaultStore>,
        seed: u64,
        clock: impl FnOnce(Arc<dyn Clock>) -> Arc<dyn Clock>,
    ) -> Self {
        let mut env = join(store, seed);
        env.clock = clock(env.clock);
        Self::in_env(env, config()).await.unwrap()
    }

    async fn in_env(env: Env, config: WriterConfig) -> Result<Self> {
        let log = Log::open(env.clone()).await?;
        let state = log.recover_within(&config.limit, env.clock.now_micros()).await?.manifest;
        let writer = Writer::start(log.clone(), state, config);
        Ok(Self { env, log, writer })
    }

    pub async fn open(store: &Arc<FaultStore>, seed: u64) -> Self {
        Self::open_with(store, seed, config()).await
    }

    /// As often as the store's moods ask for.
    pub async fn open_with(store: &Arc<FaultStore>, seed: u64, config: WriterConfig) -> Self {
        for _ in 0..50 {
            match Self::try_open(store, seed, config.clone()).await {
                Ok(node) => return node,
                Err(e) => assert_eq!(e.kind(), tandem_types::ErrorKind::Unavailable, "seed {seed}: {e}"),
            }
        }
        panic!("seed {seed}: the node does not open");
    }

    pub async fn submit(&self, step: Step) -> Result<Committed> {
        self.writer.submit(self.writer.state().seq(), vec![step], WriteToken::Minted).await
    }

    pub async fn append(
        &self,
        table: &str,
        policy: SchemaPolicy,
        batches: Vec<RecordBatch>,
    ) -> Result<Committed> {
        self.append_to(table, policy, None, batches).await
    }

    pub async fn append_to(
        &self,
        table: &str,
        policy: SchemaPolicy,
        create: Option<CreateTable>,
        batches: Vec<RecordBatch>,
    ) -> Result<Committed> {
        self.append_under(WriteToken::Minted, table, policy, create, batches).await
    }

    pub async fn append_under(
        &self,
        token: WriteToken,
        table: &str,
        policy: SchemaPolicy,
        create: Option<CreateTable>,
        batches: Vec<RecordBatch>,
    ) -> Result<Committed> {
        let schema = batches[0].schema();
        let append = Append {
            table: TableName::public(table),
            schema,
            policy,
            on_conflict: None,
            create,
            token,
            queued: None,
        };
        let rows = futures::stream::iter(batches.into_iter().map(Ok::<_, Error>)).boxed();
        self.writer.append(append, rows).await
    }

    /// Waits until the node applied what `other` did.
    pub async fn catch_up_with(&self, other: &Node) {
        let goal = other.writer.state().seq();
        let mut states = self.writer.watch();
        states.wait_for(|state| state.seq() >= goal).await.unwrap();
    }
}
