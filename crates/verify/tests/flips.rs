//! A small database in memory, and every byte of it changed in turn.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::util::pretty::pretty_format_batches;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt};
use tandem_compact::{Inputs, Policy, Source, Urgency, next_jobs, run, table_rows};
use tandem_datafile::FooterCache;
use tandem_env::{Env, sim};
use tandem_format::{identity_path, segment_path};
use tandem_log::Log;
use tandem_manifest::{Manifest, SchemaPolicy, Step, TailSection};
use tandem_segment::{DecodedSection, Limits, decode_section};
use tandem_types::{Error, ErrorKind, Result, Seq, TableName};
use tandem_verify::{Report, verify};
use tandem_writer::{Append, CreateTable, WriteToken, Writer, WriterConfig};

fn name() -> TableName {
    TableName::public("t")
}

fn rows(from: i64, count: i64) -> RecordBatch {
    let at: Vec<i64> = (from..from + count).collect();
    let words: Vec<String> = at.iter().map(|i| format!("host-{}", i % 3)).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("ts", Arc::new(TimestampMicrosecondArray::from(at.clone()))),
        ("host", Arc::new(StringArray::from(words))),
        ("v", Arc::new(Int64Array::from(at))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

async fn append(writer: &Writer, rows: RecordBatch) {
    let existing = writer.state().table_named(&name()).is_some();
    let append = Append {
        table: name(),
        schema: rows.schema(),
        policy: if existing { SchemaPolicy::Strict } else { SchemaPolicy::Create },
        on_conflict: None,
        create: None::<CreateTable>,
        token: WriteToken::Minted,
        queued: None,
    };
    writer.append(append, futures::stream::iter([Ok::<_, Error>(rows)]).boxed()).await.unwrap();
}

async fn load(log: &Log, tail: &TailSection) -> Result<Arc<DecodedSection>> {
    let section = &tail.section;
    let range = section.offset..section.offset + section.len;
    let bytes = match &section.segment {
        Some(segment) => log.env().store.get_range(&segment_path(segment), range).await?,
        None => {
            let payload = log.read_payload(tail.key.seq).await?.0;
            let cut = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            if payload.len() < cut.end {
                return Err(Error::damaged("the payload is cut"));
            }
            payload.slice(cut)
        }
    };
    decode_section(&bytes, Some(section.crc32c), &Limits::default()).map(Arc::new)
}

fn loader(log: &Log) -> Arc<tandem_compact::LoadSection> {
    let log = log.clone();
    Arc::new(move |tail| {
        let log = log.clone();
        async move { load(&log, &tail).await }.boxed()
    })
}

/// A file, a segment, rows that ride along, a recorded checkpoint with parts, and commits after it.
async fn build(env: &Env) {
    let log = Log::open(env.clone()).await.unwrap();
    let state = log.recover().await.unwrap().manifest;
    let small = WriterConfig { section_bytes: 200, ..WriterConfig::default() };
    let writer = Writer::start(log.clone(), state, small);
    append(&writer, rows(0, 4)).await;
    let manifest = writer.state();
    let table = manifest.require(&name()).unwrap().clone();
    let jobs = next_jobs(&table, &Policy::default(), Urgency::Everything(Seq(u64::MAX)));
    let inputs = Inputs {
        env: env.clone(),
        writer: writer.id(),
        manifest: manifest.clone(),
        footers: Arc::new(FooterCache::new(1 << 20)),
        load: loader(&log),
    };
    let replace = run(&inputs, &jobs).await.unwrap().replace;
    writer.submit_upkeep(replace.base, vec![Step::Replace(replace)]).await.unwrap();
    let written = log.write_checkpoint(&writer.state(), None).await.unwrap();
    let step = written.record();
    writer.submit_upkeep(written.seq, vec![step]).await.unwrap();
    append(&writer, rows(2_000_000, 12)).await;
    append(&writer, rows(3_000_000, 2)).await;
}

/// What a node reads, or why it cannot.
async fn read(env: &Env) -> Result<String> {
    let log = Log::open(env.clone()).await?;
    let manifest: Manifest = log.recover().await?.manifest;
    let table = manifest.require(&name())?;
    let footers = Arc::new(FooterCache::new(1 << 20));
    let source = Source { objects: env.store.objects(), footers, load: loader(&log) };
    let batches = table_rows(&source, table).await?;
    let mut lines: Vec<String> = Vec::new();
    for batch in batches {
        let text = pretty_format_batches(&[batch]).unwrap().to_string();
        lines.extend(text.lines().filter(|l| l.contains("host-")).map(str::to_owned));
    }
    lines.sort_unstable();
    Ok(lines.join("\n"))
}

async fn objects(env: &Env) -> Vec<(String, Bytes)> {
    let mut found = vec![identity_path().to_owned()];
    for dir in ["log", "checkpoint", "wal", "data"] {
        let listed: Vec<_> = env.store.list_below(dir).try_collect().await.unwrap();
        found.extend(listed.into_iter().map(|o| o.path));
    }
    let mut objects = Vec::new();
    for path in found {
        let bytes = env.store.get(&path).await.unwrap().unwrap();
        objects.push((path, bytes));
    }
    objects
}

async fn walk(env: &Env, full: bool) -> Report {
    verify(env, full, &|_| {}).await.unwrap()
}

/// Two tests, so that two processors share the work.
#[tokio::test]
async fn any_even_byte_that_changes_is_found_and_yields_no_wrong_rows() {
    flip_every_second_byte(0).await;
}

#[tokio::test]
async fn any_odd_byte_that_changes_is_found_and_yields_no_wrong_rows() {
    flip_every_second_byte(1).await;
}

async fn flip_every_second_byte(first: usize) {
    let (env, _) = sim::env(1);
    build(&env).await;
    let expected = read(&env).await.unwrap();
    assert_eq!(expected.lines().count(), 18);
    let intact = walk(&env, true).await;
    assert!(intact.is_intact() && intact.rows_read == 18 && intact.unnamed_objects == 0, "{intact:?}");
    let objects = objects(&env).await;
    for dir in ["log/", "checkpoint/0", "checkpoint/part/", "wal/", "data/"] {
        assert!(objects.iter().any(|(path, _)| path.starts_with(dir)), "{dir} takes part");
    }
    let total: usize = objects.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(total <= 32 << 10, "{total} bytes");
    for (path, bytes) in &objects {
        for at in (first..bytes.len()).step_by(2) {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1 << (at / 2 % 8);
            env.store.put_overwrite(path, changed.into()).await.unwrap();
            let report = walk(&env, true).await;
            assert!(report.problems.iter().any(|p| p.object == *path), "{path}, byte {at}: {report:?}");
            if let Ok(rows) = read(&env).await {
                assert_eq!(rows, expected, "{path}, byte {at}");
            }
        }
        env.store.put_overwrite(path, bytes.clone()).await.unwrap();
    }
    assert!(walk(&env, true).await.is_intact());
}

#[tokio::test]
async fn what_is_missing_or_cut_is_named_with_the_rows_that_it_costs() {
    let (env, _) = sim::env(2);
    build(&env).await;
    let mut lost = 0;
    for (path, bytes) in objects(&env).await {
        for full in [false, true] {
            env.store.delete(&path).await.unwrap();
            let report = walk(&env, full).await;
            let named = report.problems.iter().any(|p| p.object == path);
            // A log that ends earlier is a log.
            let head = path.ends_with("5.commit");
            assert!(named || head, "{path} is missing: {report:?}");
            lost = lost.max(report.rows_lost());
            env.store.put_overwrite(&path, bytes.slice(..bytes.len() - 1)).await.unwrap();
            let report = walk(&env, full).await;
            let named = report.problems.iter().any(|p| p.object == path);
            // A node reads commits from the newest checkpoint on only; so does a quick look.
            assert!(named || !full && path.starts_with("log/"), "{path} is cut: {report:?}");
            env.store.put_overwrite(&path, bytes.clone()).await.unwrap();
        }
    }
    assert_eq!(lost, 12, "the segment's rows are the most that one object holds");
    env.store.put_overwrite("wal/stray", Bytes::from_static(b"nobody's")).await.unwrap();
    let report = walk(&env, true).await;
    assert!(report.is_intact());
    assert_eq!((report.unnamed_objects, report.unnamed_bytes), (1, 8));
}

#[tokio::test]
async fn an_empty_prefix_is_no_database_and_stays_one() {
    let (env, _) = sim::env(3);
    let error = verify(&env, true, &|_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(env.store.get(identity_path()).await.unwrap(), None);
}
