//! Each object of a small database is lost in turn, and what is made of the rest holds exactly the rows that it did not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt};
use tandem_collect::{Collector, Rules};
use tandem_compact::{Inputs, LoadSection, Policy, Source, Urgency, next_jobs, run, table_rows};
use tandem_copy::{Repaired, copy, repair};
use tandem_datafile::FooterCache;
use tandem_env::Env;
use tandem_env::sim::{self, Fault, FaultPlan};
use tandem_format::{commit_path, data_path, decode_commit, identity_path, root_path, segment_path};
use tandem_log::Log;
use tandem_manifest::{Manifest, SchemaPolicy, Step, TailSection};
use tandem_segment::{Limits, decode_section};
use tandem_types::{Error, ErrorKind, Result, Seq, TableName};
use tandem_verify::verify;
use tandem_writer::{Append, WriteToken, Writer, WriterConfig};

const DAY: i64 = 86_400_000_000;

struct Db {
    env: Env,
    store: Arc<sim::FaultStore>,
    log: Log,
    writer: Writer,
}

fn name() -> TableName {
    TableName::public("t")
}

async fn section(log: &Log, tail: &TailSection) -> Result<Arc<tandem_segment::DecodedSection>> {
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

fn loader(log: &Log) -> Arc<LoadSection> {
    let log = log.clone();
    Arc::new(move |tail| {
        let log = log.clone();
        async move { section(&log, &tail).await }.boxed()
    })
}

fn values_of(batches: &[RecordBatch]) -> BTreeSet<i64> {
    let column = |batch: &RecordBatch| batch.column_by_name("v").unwrap().as_primitive::<Int64Type>().clone();
    batches.iter().flat_map(|batch| column(batch).values().to_vec()).collect()
}

/// All rows of a database, as whoever opens it finds them.
async fn values(env: &Env) -> BTreeSet<i64> {
    let log = Log::open(env.clone()).await.unwrap();
    let state = log.recover().await.unwrap().manifest;
    let footers = Arc::new(FooterCache::new(1 << 20));
    let source = Source { objects: env.store.objects(), footers, load: loader(&log) };
    values_of(&table_rows(&source, state.require(&name()).unwrap()).await.unwrap())
}

impl Db {
    async fn open(seed: u64) -> Self {
        let (env, store) = sim::env(seed);
        let log = Log::open(env.clone()).await.unwrap();
        let state = log.recover().await.unwrap().manifest;
        let config = WriterConfig { section_bytes: 3000, ..WriterConfig::default() };
        let writer = Writer::start(log.clone(), state, config);
        Self { env, store, log, writer }
    }

    /// A hundred values to a day. Few rows ride in the commit, many lie in a segment, in several sections.
    async fn append(&self, from: i64, count: i64) {
        let values: Vec<i64> = (from..from + count).collect();
        let times = values.iter().map(|v| v / 100 * DAY + v % 100).collect::<Vec<_>>();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("ts", Arc::new(TimestampMicrosecondArray::from(times))),
            ("v", Arc::new(Int64Array::from(values))),
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
        let pieces: Vec<_> = (0..rows.num_rows()).step_by(200).collect();
        let pieces = pieces.into_iter().map(move |at| rows.slice(at, 200.min(rows.num_rows() - at)));
        let rows = futures::stream::iter(pieces.map(Ok::<_, Error>)).boxed();
        self.writer.append(append, rows).await.unwrap();
        self.store.clock().advance(Duration::from_secs(1));
    }

    async fn upkeep(&self, step: Step) {
        self.writer.submit_upkeep(self.writer.state().seq(), vec![step]).await.unwrap();
    }

    async fn compact(&self) {
        let manifest = self.writer.state();
        let table = manifest.require(&name()).unwrap().clone();
        let jobs = next_jobs(&table, &Policy::default(), Urgency::Everything(Seq(u64::MAX)));
        let inputs = Inputs {
            env: self.env.clone(),
            writer: self.writer.id(),
            manifest,
            footers: Arc::new(FooterCache::new(1 << 20)),
            load: loader(&self.log),
        };
        let replace = run(&inputs, &jobs).await.unwrap().replace;
        self.upkeep(Step::Replace(replace)).await;
    }

    async fn checkpoint(&self) -> Seq {
        let written = self.log.write_checkpoint(&self.writer.state(), None).await.unwrap();
        self.upkeep(written.record()).await;
        written.seq
    }

    /// Two checkpoints, and the log behind them trimmed.
    async fn trim(&self) {
        let window = vec![("history_window".to_owned(), Some("1ms".to_owned()))];
        self.upkeep(Step::SetSettings { settings: window }).await;
        let rules = Rules { job: Duration::ZERO, grace: Duration::ZERO };
        let mut collector = Collector::default();
        for _ in 0..3 {
            self.checkpoint().await;
            self.store.clock().advance(Duration::from_secs(1));
            self.upkeep(Step::SetSettings { settings: vec![("ack".to_owned(), None)] }).await;
        }
        let aim = collector.aim(&self.log, &self.writer.state(), &rules, &[]).await.unwrap();
        self.upkeep(Step::Horizon { horizon: aim.horizon, history_start: aim.history_start }).await;
        let report = collector.collect(&self.log, &self.writer.state(), &rules, &[]).await.unwrap();
        assert!(report.floor > Seq(0), "{report:?}");
    }

    async fn objects(&self) -> BTreeMap<String, Bytes> {
        let mut objects = BTreeMap::new();
        let mut paths = vec![identity_path().to_owned()];
        for dir in ["log", "checkpoint", "wal", "data"] {
            let listed: Vec<_> = self.env.store.list_below(dir).try_collect().await.unwrap();
            paths.extend(listed.into_iter().map(|o| o.path));
        }
        for path in paths {
            let bytes = self.env.store.get(&path).await.unwrap().unwrap();
            objects.insert(path, bytes);
        }
        objects
    }

    /// Which values lie where: by path, and by byte within it where not the whole object is one thing.
    async fn places(&self) -> Vec<(String, Option<usize>, BTreeSet<i64>)> {
        let state = self.writer.state();
        let table = state.require(&name()).unwrap();
        let mut places = Vec::new();
        let mut in_tail = BTreeSet::new();
        for tail in table.tail() {
            let found = values_of(&section(&self.log, tail).await.unwrap().batches);
            in_tail.extend(found.clone());
            let middle = usize::try_from(tail.section.offset + tail.section.len / 2).unwrap();
            let place = match &tail.section.segment {
                Some(segment) => (segment_path(segment), middle),
                None => {
                    let path = commit_path(tail.key.seq);
                    let object = self.env.store.get(&path).await.unwrap().unwrap();
                    let front = object.len() - decode_commit(&object).unwrap().payload.len();
                    (path, front + middle)
                }
            };
            places.push((place.0, Some(place.1), found));
        }
        let all = values(&self.env).await;
        for file in table.files() {
            let day = file.file.name.partition.0;
            let of_day = |v: &i64| v / 100 == day && !in_tail.contains(v);
            let path = data_path(table.id(), table.partition_by(), &file.file.name);
            places.push((path, None, all.iter().copied().filter(of_day).collect()));
        }
        places
    }
}

/// Files of three days, segments of several sections, rows that ride along, before and after the newest checkpoint.
async fn build(trimmed: bool) -> (Db, Seq) {
    let db = Db::open(1).await;
    db.append(0, 3).await;
    db.append(100, 150).await;
    db.compact().await;
    db.append(300, 500).await;
    db.append(1000, 4).await;
    match trimmed {
        true => db.trim().await,
        false => drop(db.checkpoint().await),
    }
    db.append(1100, 3).await;
    let newest = db.checkpoint().await;
    db.append(2000, 500).await;
    db.append(3000, 2).await;
    db.append(3100, 1).await;
    (db, newest)
}

async fn repaired(db: &Db) -> (Env, Repaired) {
    let before = db.objects_as_they_are().await;
    let told = repair(&db.env, None, &|_| {}).await.unwrap();
    let (to, _) = sim::env(77);
    let done = repair(&db.env, Some(&to), &|_| {}).await.unwrap();
    assert_eq!((&told.lost, &told.lost_commits), (&done.lost, &done.lost_commits));
    assert_eq!((told.kept.rows, told.kept.seq), (done.kept.rows, done.kept.seq));
    assert_eq!(db.objects_as_they_are().await, before, "the damaged one is not touched");
    let report = verify(&to, true, &|_| {}).await.unwrap();
    assert!(report.is_intact() && report.unnamed_objects == 0, "{report:?}");
    assert_eq!(report.rows_read, done.kept.rows);
    (to, done)
}

impl Db {
    async fn objects_as_they_are(&self) -> BTreeMap<String, u64> {
        let mut sizes = BTreeMap::new();
        for dir in ["log", "checkpoint", "wal", "data"] {
            let listed: Vec<_> = self.env.store.list_below(dir).try_collect().await.unwrap();
            sizes.extend(listed.into_iter().map(|o| (o.path, o.bytes)));
        }
        sizes
    }

    /// The values that are there without the commits from a seq on. Nothing is compacted at the end of the log.
    async fn before(&self, seq: Seq) -> BTreeSet<i64> {
        let past: Manifest = self.log.state_at(Seq(seq.0 - 1), None).await.unwrap();
        let footers = Arc::new(FooterCache::new(1 << 20));
        let source = Source { objects: self.env.store.objects(), footers, load: loader(&self.log) };
        values_of(&table_rows(&source, past.require(&name()).unwrap()).await.unwrap())
    }
}

async fn every_object_in_turn(trimmed: bool) {
    let (db, newest) = build(trimmed).await;
    let all = values(&db.env).await;
    assert_eq!(all.len(), 3 + 150 + 500 + 4 + 3 + 500 + 2 + 1);
    let (whole, report) = repaired(&db).await;
    assert!(report.is_whole() && report.rows_lost() == 0, "{report:?}");
    assert_eq!(values(&whole).await, all);
    let (objects, places) = (db.objects().await, db.places().await);
    let in_segments = places.iter().filter(|(path, ..)| path.starts_with("wal/")).count();
    assert!(in_segments > 3, "several sections: {in_segments}");
    for dir in ["log/0", "checkpoint/0", "checkpoint/part/", "wal/", "data/", identity_path()] {
        assert!(objects.keys().any(|path| path.starts_with(dir)), "{dir} takes part");
    }
    assert_eq!(trimmed, objects.keys().any(|path| path.starts_with("log/floor/")));
    let (mut costly, mut shared) = (0, 0);
    for (path, bytes) in &objects {
        let seq = path.strip_prefix("log/").and_then(tandem_format::parse_commit_name);
        let expected: BTreeSet<i64> = match seq {
            Some(seq) if seq > newest => db.before(seq).await,
            _ => {
                let lost = places.iter().filter(|(place, ..)| place == path).flat_map(|(.., values)| values);
                let lost: BTreeSet<i64> = lost.copied().collect();
                all.difference(&lost).copied().collect()
            }
        };
        for missing in [true, false] {
            match missing {
                true => db.env.store.delete(path).await.unwrap(),
                // Its front: magic, and the beginning of its header.
                false => {
                    let mut changed = bytes.to_vec();
                    changed[..24].fill(0x55);
                    db.env.store.put_overwrite(path, changed.into()).await.unwrap();
                }
            }
            // A segment whose front is damaged has lost the section that lies there.
            let front: BTreeSet<i64> = match path.starts_with("wal/") && !missing {
                true => {
                    let sections = places.iter().filter(|(place, ..)| place == path);
                    let (.., first) = sections.min_by_key(|(_, at, _)| *at).unwrap();
                    all.difference(first).copied().collect()
                }
                false => expected.clone(),
            };
            let (to, report) = repaired(&db).await;
            let context = format!("{path}, missing: {missing}: {report:?}");
            if path.starts_with("checkpoint/part/") && report.lost.iter().any(|lost| lost.object == *path) {
                // All checkpoints shared it. Better than nothing.
                assert!(trimmed && values(&to).await.is_subset(&all), "{context}");
                shared += 1;
                db.env.store.put_overwrite(path, bytes.clone()).await.unwrap();
                continue;
            }
            assert_eq!(values(&to).await, front, "{context}");
            // Nobody knows what an unreadable commit held, nor that the last one was there.
            let head = seq == Some(db.writer.state().seq());
            if seq.is_none_or(|seq| seq <= newest) {
                assert_eq!(report.rows_lost(), (all.len() - front.len()) as u64, "{context}");
            } else if !(head && missing) {
                let lost = report.lost_commits.as_ref().unwrap();
                assert_eq!((lost.first, lost.last), (seq.unwrap().0, db.writer.state().seq().0), "{context}");
                assert_eq!(lost.unreadable, 1, "{context}");
            }
            let needed = front != all || seq.is_none() && !is_old(path, newest, &db);
            let named = report.lost.iter().any(|lost| lost.object == *path) || report.lost_commits.is_some();
            assert!(!needed || named || head || path.starts_with("checkpoint/part/"), "{context}");
            for cost in report.lost.iter().flat_map(|lost| &lost.costs) {
                assert!(
                    cost.table.ends_with('t') && cost.from <= cost.to && cost.from.is_some(),
                    "{context}"
                );
            }
            costly += u64::from(front != all);
            db.env.store.put_overwrite(path, bytes.clone()).await.unwrap();
        }
    }
    assert!(costly > 16 && trimmed == (shared > 0), "{costly} {shared}");
    for (path, at, lost) in places.iter().filter_map(|(path, at, lost)| Some((path, (*at)?, lost))) {
        let mut changed = objects[path].to_vec();
        changed[at] ^= 0x10;
        db.env.store.put_overwrite(path, changed.into()).await.unwrap();
        let (to, report) = repaired(&db).await;
        assert_eq!(values(&to).await, all.difference(lost).copied().collect(), "{path} at {at}: {report:?}");
        assert_eq!(report.rows_lost(), lost.len() as u64);
        assert_eq!((report.lost.len(), &report.lost_commits), (1, &None));
        db.env.store.put_overwrite(path, objects[path].clone()).await.unwrap();
    }
    assert_eq!(values(&db.env).await, all);
}

/// Whether the way to the newest state does not lead over it.
fn is_old(path: &str, newest: Seq, db: &Db) -> bool {
    let root = db.writer.state().checkpoint().map(|(seq, _)| seq);
    assert_eq!(root, Some(newest));
    path.starts_with("checkpoint/0") && path != root_path(newest) || path.starts_with("log/floor/")
}

#[tokio::test]
async fn what_an_object_did_not_hold_is_there_without_it() {
    every_object_in_turn(false).await;
}

#[tokio::test]
async fn also_where_the_log_was_trimmed() {
    every_object_in_turn(true).await;
}

#[tokio::test]
async fn much_may_be_lost_at_once() {
    let (db, newest) = build(false).await;
    let all = values(&db.env).await;
    let objects = db.objects().await;
    // All checkpoints: the log is there from its beginning. And one commit of its end.
    for path in objects.keys().filter(|path| path.starts_with("checkpoint/")) {
        db.env.store.delete(path).await.unwrap();
    }
    let (to, report) = repaired(&db).await;
    assert_eq!(values(&to).await, all);
    assert_eq!(report.rows_lost(), 0);
    let lost = Seq(db.writer.state().seq().0 - 1);
    let expected = db.before(lost).await;
    db.env.store.delete(&commit_path(lost)).await.unwrap();
    let (to, report) = repaired(&db).await;
    assert_eq!(values(&to).await, expected);
    let commits = report.lost_commits.unwrap();
    assert!(commits.why.contains(&commit_path(lost)), "{commits:?}");
    assert_eq!((commits.first, commits.last, commits.unreadable), (lost.0, lost.0 + 1, 1));
    assert_eq!((commits.costs[0].rows, commits.costs[0].table.as_str()), (1, "t"));
    // The beginning of the log: then there is no way to any state.
    db.env.store.delete(&commit_path(Seq(1))).await.unwrap();
    let nothing = repair(&db.env, None, &|_| {}).await.unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::Damaged, "{nothing}");
    // Unless by a checkpoint, although the commit that records it is gone, too.
    for (path, bytes) in objects.iter().filter(|(path, _)| path.starts_with("checkpoint/")) {
        db.env.store.put_overwrite(path, bytes.clone()).await.unwrap();
    }
    let state = db.log.state_at(newest.next(), None).await.unwrap();
    assert_eq!(state.checkpoint().map(|(seq, _)| seq), Some(newest));
    let expected = db.before(newest.next()).await;
    let older: Vec<_> =
        objects.keys().filter(|p| p.starts_with("checkpoint/0") && **p != root_path(newest)).collect();
    for path in older {
        db.env.store.delete(path).await.unwrap();
    }
    db.env.store.delete(&commit_path(newest.next())).await.unwrap();
    let (to, report) = repaired(&db).await;
    assert_eq!(values(&to).await, expected);
    assert!(report.lost.iter().any(|lost| lost.object == root_path(newest)), "{report:?}");
}

#[tokio::test]
async fn a_repair_that_breaks_off_goes_on_and_never_writes_into_another_database() {
    let (db, _) = build(false).await;
    let data = db.objects().await.into_keys().find(|path| path.starts_with("data/")).unwrap();
    db.env.store.delete(&data).await.unwrap();
    let (to, store) = sim::env(5);
    let mut runs = 0;
    let report = loop {
        runs += 1;
        assert!(runs < 100, "it comes to an end");
        let mut plan = FaultPlan::none();
        for later in runs..runs + 200 {
            plan = plan.nth(sim::Op::Put, "", later, Fault::FailBefore);
        }
        store.set_plan(plan);
        let done = repair(&db.env, Some(&to), &|_| {}).await;
        store.set_plan(FaultPlan::none());
        match done {
            Ok(report) => break report,
            Err(_) => assert_eq!(to.store.get(identity_path()).await.unwrap(), None, "run {runs}"),
        }
    };
    assert!(runs > 3, "{runs} runs");
    assert_eq!(report.lost.len(), 1);
    assert!(verify(&to, true, &|_| {}).await.unwrap().is_intact());
    let kept = values(&to).await;
    let again = repair(&db.env, Some(&to), &|_| {}).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists, "{again}");
    // Nor where the identity of what is there is lost, and be it the damaged one itself.
    db.env.store.delete(identity_path()).await.unwrap();
    let itself = repair(&db.env, Some(&db.env), &|_| {}).await.unwrap_err();
    assert_eq!(itself.kind(), ErrorKind::AlreadyExists, "{itself}");
    assert_eq!(db.env.store.get("origin.json").await.unwrap(), None);
    let (log, state) = (Log::open(to.clone()).await.unwrap(), Manifest::empty(db.log.database()));
    let other = copy(&log, &state, &db.env, &|_| {}).await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::AlreadyExists, "{other}");
    assert_eq!(values(&to).await, kept);
}
