//! Databases made out of others, in memory.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::util::pretty::pretty_format_batches;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt};
use tandem_collect::{Collector, Report, Rules};
use tandem_compact::{Inputs, LoadSection, Policy, Source, Urgency, next_jobs, run, table_rows};
use tandem_copy::{copy, detach, fork, open_parents, read_origin};
use tandem_datafile::FooterCache;
use tandem_env::Env;
use tandem_env::sim::{self, Fault, FaultPlan};
use tandem_format::{identity_path, segment_path};
use tandem_log::Log;
use tandem_manifest::{SchemaPolicy, Step};
use tandem_segment::{Limits, decode_section};
use tandem_types::{Error, ErrorKind, Result, Seq, TableName};
use tandem_verify::verify;
use tandem_writer::{Append, WriteToken, Writer, WriterConfig};

struct Db {
    log: Log,
    writer: Writer,
}

fn name() -> TableName {
    TableName::public("t")
}

impl Db {
    async fn open(env: &Env) -> Self {
        let log = Log::open(env.clone()).await.unwrap();
        let state = log.recover().await.unwrap().manifest;
        let config = WriterConfig { section_bytes: 4000, ..WriterConfig::default() };
        let writer = Writer::start(log.clone(), state, config);
        Self { log, writer }
    }

    /// Few rows ride in the commit, many lie in a segment.
    async fn append(&self, from: i64, count: i64) {
        let at: Vec<i64> = (from..from + count).collect();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("ts", Arc::new(TimestampMicrosecondArray::from(at.clone()))),
            ("v", Arc::new(Int64Array::from(at))),
        ];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let append = Append {
            table: name(),
            schema: rows.schema(),
            policy: SchemaPolicy::Create,
            on_conflict: None,
            create: None,
            token: WriteToken::Minted,
            queued: None,
        };
        let rows = futures::stream::iter([Ok::<_, Error>(rows)]).boxed();
        self.writer.append(append, rows).await.unwrap();
    }

    fn loader(&self) -> Arc<LoadSection> {
        let log = self.log.clone();
        Arc::new(move |tail| {
            let log = log.clone();
            async move {
                let section = &tail.section;
                let range = section.offset..section.offset + section.len;
                let bytes = match &section.segment {
                    Some(segment) => log.env().store.get_range(&segment_path(segment), range).await?,
                    None => {
                        let (start, end) = (usize::try_from(range.start), usize::try_from(range.end));
                        log.read_payload(tail.key.seq).await?.0.slice(start.unwrap()..end.unwrap())
                    }
                };
                decode_section(&bytes, Some(section.crc32c), &Limits::default()).map(Arc::new)
            }
            .boxed()
        })
    }

    async fn compact(&self) {
        let manifest = self.writer.state();
        let table = manifest.require(&name()).unwrap().clone();
        let jobs = next_jobs(&table, &Policy::default(), Urgency::Everything(Seq(u64::MAX)));
        let inputs = Inputs {
            env: self.log.env().clone(),
            writer: self.writer.id(),
            manifest,
            footers: Arc::new(FooterCache::new(1 << 20)),
            load: self.loader(),
        };
        let replace = run(&inputs, &jobs).await.unwrap().replace;
        self.writer.submit_upkeep(replace.base, vec![Step::Replace(replace)]).await.unwrap();
    }

    async fn checkpoint(&self) {
        let written = self.log.write_checkpoint(&self.writer.state(), None).await.unwrap();
        let step = written.record();
        self.writer.submit_upkeep(written.seq, vec![step]).await.unwrap();
    }

    /// Commits something for upkeep.
    async fn upkeep(&self, step: Step) {
        self.writer.submit_upkeep(self.writer.state().seq(), vec![step]).await.unwrap();
    }

    /// Keeps no more of the past than it must, and deletes what that sets free.
    async fn collect(&self, store: &sim::FaultStore) -> Report {
        let window = vec![("history_window".to_owned(), Some("1ms".to_owned()))];
        self.upkeep(Step::SetSettings { settings: window }).await;
        let rules = Rules { job: Duration::ZERO, grace: Duration::ZERO };
        let mut collector = Collector::default();
        for _ in 0..2 {
            self.checkpoint().await;
            store.clock().advance(Duration::from_secs(1));
            self.upkeep(Step::SetSettings { settings: vec![("ack".to_owned(), None)] }).await;
        }
        let aim = collector.aim(&self.log, &self.writer.state(), &rules, &[]).await.unwrap();
        if aim.moves {
            self.upkeep(Step::Horizon { horizon: aim.horizon, history_start: aim.history_start }).await;
        }
        collector.collect(&self.log, &self.writer.state(), &rules, &[]).await.unwrap()
    }

    async fn values(&self) -> Result<Vec<String>> {
        let state = self.writer.state();
        let footers = Arc::new(FooterCache::new(1 << 20));
        let source = Source { objects: self.log.env().store.objects(), footers, load: self.loader() };
        let mut lines = Vec::new();
        for batch in table_rows(&source, state.require(&name())?).await? {
            let text = pretty_format_batches(&[batch]).unwrap().to_string();
            lines.extend(text.lines().filter(|l| l.contains("1970")).map(str::to_owned));
        }
        lines.sort_unstable();
        Ok(lines)
    }

    /// Commits a pin to this database's log.
    async fn pin(writer: Writer, pin: tandem_format::Pin) -> Result<()> {
        let base = writer.state().seq();
        writer.submit_upkeep(base, vec![Step::Pin(pin)]).await.map(|_| ())
    }
}

/// A file, a segment, and rows that ride along.
async fn source() -> (Env, Db) {
    let (env, _, db) = source_in_store().await;
    (env, db)
}

async fn source_in_store() -> (Env, Arc<sim::FaultStore>, Db) {
    let (env, store) = sim::env(1);
    let db = Db::open(&env).await;
    db.append(0, 500).await;
    db.compact().await;
    db.append(1000, 500).await;
    db.append(2000, 3).await;
    (env, store, db)
}

async fn count(env: &Env, dir: &str) -> usize {
    env.store.list_below(dir).try_collect::<Vec<_>>().await.unwrap().len()
}

async fn check_intact(env: &Env) {
    let report = verify(env, true, &|_| {}).await.unwrap();
    assert!(report.is_intact(), "{report:?}");
}

#[tokio::test]
async fn a_copy_is_a_database_of_its_own_and_later_runs_bring_what_is_new() {
    let (_, db) = source().await;
    let (to, _) = sim::env(2);
    let made = copy(&db.log, &db.writer.state(), &to, &|_| {}).await.unwrap();
    assert_eq!((made.rows, made.objects_fetched, made.seq), (1003, 2, db.writer.state().seq().0));
    check_intact(&to).await;
    let again = copy(&db.log, &db.writer.state(), &to, &|_| {}).await.unwrap();
    assert_eq!((again.objects_fetched, &again.database), (0, &made.database));

    db.append(3000, 2).await;
    db.compact().await;
    db.append(4000, 1).await;
    let more = copy(&db.log, &db.writer.state(), &to, &|_| {}).await.unwrap();
    assert_eq!((more.rows, more.objects_fetched), (1006, 1));
    let older = db.log.state_at(Seq(made.seq), None).await.unwrap();
    assert_eq!(copy(&db.log, &older, &to, &|_| {}).await.unwrap_err().kind(), ErrorKind::InvalidInput);

    // It goes on by itself: writes, compaction, checkpoints, restarts.
    let own = Db::open(&to).await;
    assert_eq!(own.values().await.unwrap(), db.values().await.unwrap());
    own.append(9000, 2).await;
    own.compact().await;
    own.checkpoint().await;
    own.append(9100, 2).await;
    let reopened = Db::open(&to).await;
    assert_eq!(reopened.values().await.unwrap().len(), 1010);
    assert_eq!(reopened.writer.state().digest(), own.writer.state().digest());
    check_intact(&to).await;
    let refused = copy(&db.log, &db.writer.state(), &to, &|_| {}).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists, "{refused}");
    assert_eq!(db.values().await.unwrap().len(), 1006, "the source knows nothing of it");
}

#[tokio::test]
async fn a_copy_that_was_interrupted_is_no_database_and_goes_on() {
    let (_, db) = source().await;
    let (to, store) = sim::env(3);
    // Nothing that is put from the nth object on arrives: each run comes a little further than the one before.
    let mut runs = 0;
    loop {
        runs += 1;
        assert!(runs < 100, "it comes to an end");
        let mut plan = FaultPlan::none();
        for later in runs..runs + 200 {
            plan = plan.nth(sim::Op::Put, "", later, Fault::FailBefore);
        }
        store.set_plan(plan);
        let done = copy(&db.log, &db.writer.state(), &to, &|_| {}).await;
        store.set_plan(FaultPlan::none());
        if done.is_ok() {
            break;
        }
        assert_eq!(to.store.get(identity_path()).await.unwrap(), None, "run {runs}");
    }
    assert!(runs > 3, "{runs} runs");
    check_intact(&to).await;
    assert_eq!(Db::open(&to).await.values().await.unwrap(), db.values().await.unwrap());
}

#[tokio::test]
async fn a_damaged_source_is_found_and_not_copied() {
    let (env, db) = source().await;
    let listed: Vec<_> = env.store.list_below("data").try_collect().await.unwrap();
    let bytes = env.store.get(&listed[0].path).await.unwrap().unwrap();
    let mut other = bytes.to_vec();
    other[100] ^= 1;
    env.store.put_overwrite(&listed[0].path, Bytes::from(other)).await.unwrap();
    let (to, _) = sim::env(4);
    let error = copy(&db.log, &db.writer.state(), &to, &|_| {}).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Damaged && error.message().contains(&listed[0].path), "{error}");
    assert_eq!(to.store.get(identity_path()).await.unwrap(), None);
}

#[tokio::test]
async fn a_fork_shares_and_both_go_on_apart() {
    let (env, db) = source().await;
    let (own, _) = sim::env(5);
    let state = db.writer.state();
    let made = fork(&db.log, &state, &own, |pin| Db::pin(db.writer.clone(), pin)).await.unwrap();
    assert_eq!((made.rows, count(&own, "data").await), (1003, 0));
    let pins: Vec<_> = db.writer.state().pins().cloned().collect();
    assert_eq!((pins.len(), pins[0].seq), (1, state.seq()));
    // All stores of this kind have one URL.
    let parent = env.clone();
    let open = move |_: &str| Ok(parent.clone());
    let both = open_parents(own.clone(), &open).await.unwrap();
    let forked = Db::open(&both).await;
    assert_eq!(forked.values().await.unwrap(), db.values().await.unwrap());
    forked.append(9000, 5).await;
    forked.compact().await;
    db.append(7000, 1).await;
    db.compact().await;
    assert_eq!((forked.values().await.unwrap().len(), db.values().await.unwrap().len()), (1008, 1004));
    assert!(copy(&db.log, &db.writer.state(), &own, &|_| {}).await.is_err(), "a fork is no place for a copy");

    forked.append(9500, 500).await;
    let (origin, detached) = detach(&forked.log, &forked.writer.state(), &own, &|_| {}).await.unwrap();
    assert_eq!(origin.shared.as_deref(), Some(env.store.url()));
    assert!(detached.objects_fetched > 0);
    assert_eq!(read_origin(&own.store).await.unwrap().unwrap().shared, None);
    let alone = Db::open(&own).await;
    assert_eq!(alone.values().await.unwrap().len(), 1508);
    check_intact(&own).await;
}

#[tokio::test]
async fn another_database_is_never_written_into() {
    let (_, db) = source().await;
    let (other, second) = source().await;
    let refused = copy(&db.log, &db.writer.state(), &other, &|_| {}).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists, "{refused}");
    assert_eq!(second.values().await.unwrap().len(), 1003);
    assert!(read_origin(&other.store).await.unwrap().is_none());
}

#[tokio::test]
async fn what_a_fork_needs_is_kept_until_it_is_detached() {
    let (env, store, db) = source_in_store().await;
    let (own, own_store) = sim::env(6);
    let state = db.writer.state();
    fork(&db.log, &state, &own, |pin| Db::pin(db.writer.clone(), pin)).await.unwrap();
    let expected = db.values().await.unwrap();
    // The parent goes on, until nothing of what the fork began with is its own any more.
    db.append(7000, 1).await;
    db.compact().await;
    db.upkeep(Step::DropTable { name: name(), if_exists: false }).await;
    let held = db.collect(&store).await;
    assert_eq!(held.history_start, state.seq(), "{held:?}");
    assert!(held.held_by.as_deref().is_some_and(|by| by.contains("fork-")), "{held:?}");
    let parent = env.clone();
    let open = move |_: &str| Ok(parent.clone());
    let both = open_parents(own.clone(), &open).await.unwrap();
    let forked = Db::open(&both).await;
    assert_eq!(forked.values().await.unwrap(), expected);

    // The fork collects what is its own, and nothing of its parent's.
    let theirs = count(&env, "data").await + count(&env, "wal").await;
    forked.append(9000, 5).await;
    forked.compact().await;
    let gone = forked.collect(&own_store).await;
    assert!(gone.deleted.objects > 0 && gone.failed.is_none(), "{gone:?}");
    assert_eq!(count(&env, "data").await + count(&env, "wal").await, theirs);
    assert_eq!(forked.values().await.unwrap().len(), 1008);

    let (origin, _) = detach(&forked.log, &forked.writer.state(), &own, &|_| {}).await.unwrap();
    db.upkeep(Step::Unpin { id: origin.pin() }).await;
    db.collect(&store).await;
    assert_eq!(count(&env, "data").await + count(&env, "wal").await, 0, "nothing is held any more");
    assert_eq!(Db::open(&own).await.values().await.unwrap().len(), 1008);
    check_intact(&own).await;
}

#[tokio::test]
async fn a_copy_that_takes_longer_than_the_past_is_kept_says_so() {
    let (_, store, db) = source_in_store().await;
    let state = db.writer.state();
    db.append(7000, 1).await;
    db.compact().await;
    db.collect(&store).await;
    let (to, _) = sim::env(7);
    let gone = copy(&db.log, &state, &to, &|_| {}).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::HistoryGone, "{gone}");
    assert_eq!(to.store.get(identity_path()).await.unwrap(), None);
    copy(&db.log, &db.writer.state(), &to, &|_| {}).await.unwrap();
    check_intact(&to).await;
    let (fork_to, _) = sim::env(8);
    let gone = fork(&db.log, &state, &fork_to, |pin| Db::pin(db.writer.clone(), pin)).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::HistoryGone, "{gone}");
}

/// What is fetched for a copy that is moved on bears old names: to a node that is started on the copy meanwhile it looks
/// like what nobody needs.
#[tokio::test]
async fn a_copy_that_is_moved_on_is_not_collected_under_way() {
    let (_, db) = source().await;
    let (to, _) = sim::env(9);
    copy(&db.log, &db.writer.state(), &to, &|_| {}).await.unwrap();
    db.append(3000, 500).await;
    db.compact().await;
    // As far as its objects, no further.
    let meanwhile = Db::open(&to).await;
    let rules = Rules { job: Duration::ZERO, grace: Duration::ZERO };
    for path in ["data", "wal"] {
        let objects: Vec<_> = db.log.env().store.list_below(path).try_collect().await.unwrap();
        for object in objects {
            let bytes = db.log.env().store.get(&object.path).await.unwrap().unwrap();
            // What is there already is the same.
            let _ = to.store.create_data(&object.path, vec![bytes]).await;
        }
    }
    let objects = count(&to, "data").await + count(&to, "wal").await;
    let done = Collector::default().collect(&meanwhile.log, &meanwhile.writer.state(), &rules, &[]).await;
    assert_eq!(done.unwrap().deleted.objects, 0);
    assert_eq!(count(&to, "data").await + count(&to, "wal").await, objects);
    let moved = copy(&db.log, &db.writer.state(), &to, &|_| {}).await.unwrap();
    assert_eq!(moved.objects_fetched, 0);
    check_intact(&to).await;
}

#[tokio::test]
async fn a_copy_that_is_written_to_while_it_is_moved_on_stays_what_it_is() {
    let (_, db) = source().await;
    let (to, store) = sim::env(10);
    let made = copy(&db.log, &db.writer.state(), &to, &|_| {}).await.unwrap();
    db.append(3000, 500).await;
    let own = Db::open(&to).await;
    // What it fetches takes a second.
    store.set_plan(FaultPlan::none().nth(sim::Op::Put, "wal/", 1, Fault::Delay(Duration::from_secs(1))));
    let (begun, wait) = tokio::sync::oneshot::channel();
    let begun = std::sync::Mutex::new(Some(begun));
    let told = |_| {
        if let Some(begun) = begun.lock().unwrap().take() {
            begun.send(()).unwrap();
        }
    };
    let state = db.writer.state();
    let moving = std::pin::pin!(copy(&db.log, &state, &to, &told));
    // Right when the copy has begun.
    let moving = match futures::future::select(wait, moving).await {
        futures::future::Either::Left((_, moving)) => moving,
        futures::future::Either::Right(_) => panic!("it was not told"),
    };
    own.append(9000, 2).await;
    store.clock().advance(Duration::from_secs(2));
    let moved = moving.await;
    let refused = moved.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists, "{refused}");
    let again = Db::open(&to).await;
    assert_eq!(again.values().await.unwrap().len() as u64, made.rows + 2);
}
