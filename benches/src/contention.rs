//! Many writers of one log, in simulated time: how many transactions a second, and how long each takes, where all race and
//! where one commits for all.
//!
//! The nodes are real ones as far as commits go: group commit, races, feeds from each to each, hand-overs and their
//! fall-backs. The store answers each request after a fixed time, messages between nodes take one millisecond. Time is
//! the simulation's: it says what the protocol costs in round trips, not what a machine can do.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch};
use async_trait::async_trait;
use futures::future::{BoxFuture, join_all};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use tandem_env::sim::{SimChance, SimClock};
use tandem_env::{Clock, Env, Store};
use tandem_log::{Log, StoredCommit};
use tandem_manifest::SchemaPolicy;
use tandem_types::{Error, Result, Seq, TableName};
use tandem_writer::{Append, Deputy, Handed, HandedAnswer, WriteToken, Writer, WriterConfig};

/// One way between two nodes.
const HALF_HOP: Duration = Duration::from_micros(500);

/// How finely time goes by, and how often every task may run in between.
const TICK: Duration = Duration::from_micros(250);
const ROUNDS: usize = 8;

/// Before anything counts the writers find out about each other: so long, and so many requests to the store.
const WARM_UP: Duration = Duration::from_secs(1);
const WARM_UP_REQUESTS: u32 = 50;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub writers: usize,
    /// Of each writer, each of whom waits for his answer before he writes again.
    pub clients: usize,
    /// Of each request to the store.
    pub latency: Duration,
    /// Whether one writer commits for those whose commits keep losing.
    pub sequencer: bool,
    /// How long, of simulated time.
    pub time: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub transactions: u64,
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
    /// Objects that were created, and tried to be.
    pub puts_per_transaction: f64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        write!(
            f,
            "{:8.1} /s  p50 {:7.1} ms  p99 {:7.1} ms  {:6.3} PUT",
            self.per_second,
            ms(self.p50),
            ms(self.p99),
            self.puts_per_transaction
        )
    }
}

/// Runs it, on a thread of its own making.
///
/// # Errors
///
/// If a write fails, which none may.
pub fn measure(setup: Setup) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|e| Error::internal(format!("no runtime: {e}")))?;
    let clock = Arc::new(SimClock::manual());
    runtime.block_on(async {
        let ticker = clock.clone();
        let ticking = tokio::spawn(async move {
            loop {
                for _ in 0..ROUNDS {
                    tokio::task::yield_now().await;
                }
                ticker.advance(TICK);
            }
        });
        let outcome = play(setup, clock).await;
        ticking.abort();
        outcome
    })
}

async fn play(setup: Setup, clock: Arc<SimClock>) -> Result<Outcome> {
    let store = Arc::new(SlowStore {
        objects: InMemory::new(),
        clock: clock.clone(),
        latency: setup.latency,
        puts: AtomicU64::new(0),
    });
    let mut writers = Vec::with_capacity(setup.writers);
    for seed in 1..=setup.writers as u64 {
        let chance = Arc::new(SimChance::new(seed));
        let objects = Store::in_process("sim://", store.clone(), clock.clone(), chance.clone());
        let log = Log::open(Env { clock: clock.clone(), chance, store: objects }).await?;
        let state = log.recover().await?.manifest;
        writers.push(Writer::start(log, state, WriterConfig::default()));
    }
    let first = writers.first().ok_or_else(|| Error::invalid("at least one writer"))?;
    write(first, 0).await?;
    let followers: Vec<_> = writers.iter().map(|writer| writer.recent().follow()).collect();
    let relays: Vec<_> =
        (0..writers.len()).map(|from| tokio::spawn(relay(writers.clone(), from, clock.clone()))).collect();
    let electing = setup.sequencer.then(|| tokio::spawn(elect(writers.clone(), clock.clone())));
    let warm_up = WARM_UP + setup.latency * WARM_UP_REQUESTS;
    let begin = clock.monotonic() + warm_up;
    let counted = begin..begin + setup.time;
    let times = Arc::new(Mutex::new(Vec::new()));
    let clients = writers.iter().flat_map(|writer| std::iter::repeat_n(writer, setup.clients));
    let clients = clients.zip(1..).map(|(writer, number)| {
        client(writer.clone(), number, clock.clone(), counted.clone(), times.clone())
    });
    let counting = async {
        clock.sleep(warm_up).await;
        let before = store.puts.load(Ordering::Relaxed);
        clock.sleep(setup.time).await;
        store.puts.load(Ordering::Relaxed) - before
    };
    let (done, puts) = futures::join!(join_all(clients), counting);
    done.into_iter().collect::<Result<()>>()?;
    relays.iter().chain(&electing).for_each(|task| task.abort());
    drop(followers);
    let mut times = std::mem::take(&mut *times.lock().unwrap_or_else(PoisonError::into_inner));
    times.sort_unstable();
    let quantile = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
    let transactions = times.len() as u64;
    Ok(Outcome {
        transactions,
        per_second: transactions as f64 / setup.time.as_secs_f64(),
        p50: quantile(50),
        p99: quantile(99),
        puts_per_transaction: puts as f64 / transactions.max(1) as f64,
    })
}

/// Writes until the time is over, and notes how long each write took that ended within it.
async fn client(
    writer: Writer,
    number: i64,
    clock: Arc<SimClock>,
    counted: Range<Duration>,
    times: Arc<Mutex<Vec<Duration>>>,
) -> Result<()> {
    loop {
        let started = clock.monotonic();
        if started >= counted.end {
            return Ok(());
        }
        write(&writer, number).await?;
        let now = clock.monotonic();
        if counted.contains(&now) {
            times.lock().unwrap_or_else(PoisonError::into_inner).push(now - started);
        }
    }
}

async fn write(writer: &Writer, number: i64) -> Result<()> {
    let column: arrow::array::ArrayRef = Arc::new(Int64Array::from(vec![number]));
    let batch = RecordBatch::try_from_iter([("n", column)]).map_err(|e| Error::internal(e.to_string()))?;
    let append = Append {
        table: TableName::public("t"),
        schema: batch.schema(),
        policy: SchemaPolicy::Create,
        on_conflict: None,
        create: None,
        token: WriteToken::Minted,
        queued: None,
    };
    writer.append(append, futures::stream::iter([Ok(batch)]).boxed()).await.map(|_| ())
}

/// Pushes the commits that one writer makes to all others, as nodes that follow each other do.
async fn relay(writers: Vec<Writer>, from: usize, clock: Arc<SimClock>) {
    let Some(own) = writers.get(from) else { return };
    let others = writers.iter().enumerate().filter(|(place, _)| *place != from);
    let feeds: Vec<_> = others.map(|(_, writer)| Arc::new(writer.feed())).collect();
    let mut states = own.watch();
    let mut sent = states.borrow_and_update().seq();
    while states.changed().await.is_ok() {
        let applied = states.borrow_and_update().seq();
        for seq in (sent.0 + 1..=applied.0).map(Seq) {
            let Some(commit) = own.recent().get(seq).filter(|commit| commit.own) else { continue };
            let (object, whole) = commit.object(usize::MAX);
            let Ok(stored) = StoredCommit::decode(&object, whole) else { continue };
            for feed in &feeds {
                let (feed, stored, clock) = (feed.clone(), stored.clone(), clock.clone());
                tokio::spawn(async move {
                    clock.sleep(HALF_HOP).await;
                    // Who does not get it reads the store.
                    let _ = feed.offer(stored).await;
                });
            }
        }
        sent = applied;
    }
}

/// Says who commits for the others: the first, and as often as that one keeps losing, whom it loses to. The lease that
/// nodes agree on by is left out: it costs one commit each time.
async fn elect(writers: Vec<Writer>, clock: Arc<SimClock>) {
    let mut leader = 0;
    loop {
        let Some(leading) = writers.get(leader) else { return };
        leading.set_deputy(None);
        for (_, writer) in writers.iter().enumerate().filter(|(place, _)| *place != leader) {
            writer.set_deputy(Some(Arc::new(Direct { to: leading.clone(), clock: clock.clone() })));
        }
        if leading.watch_contention().wait_for(|contended| *contended).await.is_err() {
            return;
        }
        let winner = leading.beaten_by();
        leader = writers.iter().position(|writer| Some(writer.id()) == winner).unwrap_or(leader);
        clock.sleep(HALF_HOP * 2).await;
    }
}

/// The way to a writer of the same process.
#[derive(Debug)]
struct Direct {
    to: Writer,
    clock: Arc<SimClock>,
}

impl Deputy for Direct {
    fn submit(&self, handed: Vec<Handed>) -> BoxFuture<'static, Result<Vec<HandedAnswer>>> {
        let (to, clock) = (self.to.clone(), self.clock.clone());
        async move {
            clock.sleep(HALF_HOP).await;
            let answers = to.submit_handed(handed).await;
            clock.sleep(HALF_HOP).await;
            answers
        }
        .boxed()
    }
}

/// A store that answers each request after the same time.
#[derive(Debug)]
struct SlowStore {
    objects: InMemory,
    clock: Arc<SimClock>,
    latency: Duration,
    puts: AtomicU64,
}

impl SlowStore {
    /// Half of the time before the store has done it, half after.
    async fn slowly<T>(&self, work: impl Future<Output = T>) -> T {
        self.clock.sleep(self.latency / 2).await;
        let done = work.await;
        self.clock.sleep(self.latency / 2).await;
        done
    }
}

impl fmt::Display for SlowStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a slow store in memory")
    }
}

#[async_trait]
impl ObjectStore for SlowStore {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.puts.fetch_add(1, Ordering::Relaxed);
        self.slowly(self.objects.put_opts(path, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.slowly(self.objects.put_multipart_opts(path, options)).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.slowly(self.objects.get_opts(path, options)).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.objects.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.slowly(self.objects.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.slowly(self.objects.copy_opts(from, to, options)).await
    }
}
