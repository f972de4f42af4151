//! The queries that run now and those that ran lately, and the way to stop one.
//!
//! A query is in the registry from [`QueryRegistry::start`] until its [`QueryGuard`] goes. Stopping it is a
//! request: whoever drives the query waits on [`QueryGuard::cancelled`] beside its work.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tandem_env::{Clock, SystemClock};
use tandem_types::{Error, Result, Seq};
use tokio::sync::watch;

/// Finished queries that stay listed.
const KEPT: usize = 100;
/// Bytes of a statement's text that stay listed; `INSERT`s can be megabytes.
const STATEMENT_BYTES: usize = 4096;

/// All queries of one engine.
#[derive(Debug)]
pub struct QueryRegistry {
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    minted: u64,
    running: BTreeMap<String, Arc<Entry>>,
    /// Oldest first.
    finished: VecDeque<QueryStatus>,
}

#[derive(Debug)]
struct Entry {
    info: QueryInfo,
    id: String,
    /// Microseconds since 1970.
    started: i64,
    since: Duration,
    rows: AtomicU64,
    bytes: AtomicU64,
    cancel: watch::Sender<bool>,
}

/// What is known of a query when it starts.
#[derive(Clone, Debug, Default)]
pub struct QueryInfo {
    /// Absent: the registry mints one.
    pub id: Option<String>,
    pub session: String,
    pub user: Option<String>,
    pub statement: String,
    pub snapshot: Option<Seq>,
}

/// How far a query has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryState {
    Running,
    /// All rows were handed out.
    Finished,
    Failed,
    /// By `CANCEL QUERY`, or because its client went away.
    Cancelled,
}

impl QueryState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A query as `system.queries` shows it.
#[derive(Clone, Debug)]
pub struct QueryStatus {
    pub id: String,
    pub session: String,
    pub user: Option<String>,
    /// Cut after the first few thousand bytes.
    pub statement: String,
    pub state: QueryState,
    /// Microseconds since 1970.
    pub started: i64,
    pub snapshot: Option<Seq>,
    /// Handed out so far.
    pub rows: u64,
    pub bytes: u64,
    pub elapsed: Duration,
}

impl Default for QueryRegistry {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

impl QueryRegistry {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, inner: Mutex::default() }
    }

    /// Lists a query as running until the guard is dropped.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if a query of that id runs.
    pub fn start(self: &Arc<Self>, mut info: QueryInfo) -> Result<QueryGuard> {
        truncate(&mut info.statement);
        let mut inner = self.lock();
        let id = match info.id.take() {
            Some(id) => id,
            None => loop {
                inner.minted += 1;
                let id = format!("q{}", inner.minted);
                if !inner.running.contains_key(&id) {
                    break id;
                }
            },
        };
        if inner.running.contains_key(&id) {
            return Err(Error::already_exists(format!("a query with id {id:?} is running")));
        }
        let entry = Arc::new(Entry {
            info,
            id: id.clone(),
            started: self.clock.now_micros(),
            since: self.clock.monotonic(),
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            cancel: watch::Sender::new(false),
        });
        inner.running.insert(id, Arc::clone(&entry));
        drop(inner);
        Ok(QueryGuard { registry: Arc::clone(self), entry, state: QueryState::Cancelled })
    }

    /// Asks a running query to stop; whether there was one of that id.
    pub fn cancel(&self, id: &str) -> bool {
        let entry = self.lock().running.get(id).cloned();
        entry.is_some_and(|entry| {
            entry.cancel.send_replace(true);
            true
        })
    }

    /// Running queries by id, then finished ones, oldest first.
    pub fn list(&self) -> Vec<QueryStatus> {
        let now = self.clock.monotonic();
        let inner = self.lock();
        let running = inner.running.values().map(|entry| entry.status(now, QueryState::Running));
        running.chain(inner.finished.iter().cloned()).collect()
    }

    /// The oldest state that a running query reads.
    pub fn oldest_snapshot(&self) -> Option<Seq> {
        self.lock().running.values().filter_map(|entry| entry.info.snapshot).min()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing that runs under the lock can leave it half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn status(&self, now: Duration, state: QueryState) -> QueryStatus {
        QueryStatus {
            id: self.id.clone(),
            session: self.info.session.clone(),
            user: self.info.user.clone(),
            statement: self.info.statement.clone(),
            state,
            started: self.started,
            snapshot: self.info.snapshot,
            rows: self.rows.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            elapsed: now.saturating_sub(self.since),
        }
    }
}

/// A running query. Dropped without [`QueryGuard::finish`], it counts as cancelled.
#[derive(Debug)]
pub struct QueryGuard {
    registry: Arc<QueryRegistry>,
    entry: Arc<Entry>,
    state: QueryState,
}

impl QueryGuard {
    pub fn id(&self) -> &str {
        &self.entry.id
    }

    /// Counts rows and bytes that were handed out.
    pub fn add(&self, rows: u64, bytes: u64) {
        self.entry.rows.fetch_add(rows, Ordering::Relaxed);
        self.entry.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The state that the query reads, if it reads one.
    pub fn snapshot(&self) -> Option<Seq> {
        self.entry.info.snapshot
    }

    /// Resolves once somebody asked the query to stop, at once if that was before; else never.
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut asked = self.entry.cancel.subscribe();
        async move {
            if asked.wait_for(|asked| *asked).await.is_err() {
                // The query is over: nobody can ask any more.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Says how the query ended.
    pub fn finish(mut self, state: QueryState) {
        self.state = state;
    }
}

impl Drop for QueryGuard {
    fn drop(&mut self) {
        let status = self.entry.status(self.registry.clock.monotonic(), self.state);
        let mut inner = self.registry.lock();
        inner.running.remove(&self.entry.id);
        inner.finished.push_back(status);
        if inner.finished.len() > KEPT {
            inner.finished.pop_front();
        }
    }
}

fn truncate(text: &mut String) {
    if text.len() > STATEMENT_BYTES {
        let end = (0..=STATEMENT_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn info(id: Option<&str>) -> QueryInfo {
        QueryInfo { id: id.map(str::to_owned), statement: "select 1".to_owned(), ..QueryInfo::default() }
    }

    #[tokio::test]
    async fn a_running_query_can_be_asked_to_stop_while_it_is_listed() {
        let registry = Arc::new(QueryRegistry::default());
        let guard = registry.start(info(Some("a"))).unwrap();
        assert!(registry.start(info(Some("a"))).is_err());
        assert!(guard.cancelled().now_or_never().is_none());
        let waiting = guard.cancelled();
        assert!(!registry.cancel("b"));
        assert!(registry.cancel("a"));
        waiting.await;
        guard.cancelled().await;
        drop(guard);
        assert!(!registry.cancel("a"));
        assert_eq!(registry.list()[0].state, QueryState::Cancelled);
    }

    #[test]
    fn finished_queries_stay_listed_and_the_oldest_go_first() {
        let registry = Arc::new(QueryRegistry::default());
        let running = registry.start(info(None)).unwrap();
        for i in 0..KEPT + 5 {
            let guard = registry.start(info(None)).unwrap();
            guard.add(i as u64, 10);
            guard.finish(QueryState::Finished);
        }
        let list = registry.list();
        assert_eq!(list.len(), KEPT + 1);
        assert_eq!((list[0].id.as_str(), list[0].state), (running.id(), QueryState::Running));
        assert_eq!((list[1].rows, list[KEPT].rows), (5, KEPT as u64 + 4));
    }

    #[test]
    fn a_long_statement_is_cut_at_a_character() {
        let registry = Arc::new(QueryRegistry::default());
        let statement = "ä".repeat(STATEMENT_BYTES);
        let _guard = registry.start(QueryInfo { statement, ..QueryInfo::default() }).unwrap();
        let listed = &registry.list()[0].statement;
        assert!(listed.len() <= STATEMENT_BYTES + '…'.len_utf8() && listed.ends_with("ä…"));
    }
}
