use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{FutureExt, TryStreamExt};
use object_store::{GetRange, ObjectStoreExt};
use tandem_types::ErrorKind;

use super::disk::link_if_absent;
use super::sync::{Breakage, Syncs};
use super::*;
use crate::{CreateOutcome, Store, SystemChance, SystemClock};

fn open(root: &std::path::Path) -> (LocalStore, Store) {
    let local = LocalStore::open(root, Arc::new(SystemClock), Arc::new(SystemChance)).unwrap();
    (local.clone(), Store::local(local, Arc::new(SystemClock), Arc::new(SystemChance)))
}

fn body(text: &'static str) -> Vec<Bytes> {
    vec![Bytes::from_static(text.as_bytes())]
}

fn temporaries(root: &std::path::Path) -> usize {
    std::fs::read_dir(root.join(".tmp")).map_or(0, Iterator::count)
}

#[tokio::test]
async fn after_a_failed_sync_the_handle_refuses_everything() {
    for (breakage, stored) in [(Breakage::File, false), (Breakage::Directory, true)] {
        let dir = tempfile::tempdir().unwrap();
        let (local, store) = open(dir.path());
        assert_eq!(store.create("log/1", body("one")).await, CreateOutcome::Created);
        *local.disk.syncs.break_next.lock().unwrap() = Some(breakage);
        assert!(matches!(store.create("log/2", body("two")).await, CreateOutcome::Unknown(_)));

        for path in ["log/2", "log/3"] {
            let CreateOutcome::Unknown(why) = store.create(path, body("x")).await else {
                panic!("{breakage:?}: created after a failed sync");
            };
            assert!(why.contains("a sync of") && why.contains("restart"), "{why}");
        }
        // Nor does it resolve anything: what is read may be gone after a crash.
        assert_eq!(store.get("log/1").await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(store.get_range("log/1", 0..1).await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(store.list_dir("log").await.is_err());
        assert!(store.seen_is_durable("log").await.is_err());
        assert!(store.create_data("wal/1", body("x")).await.is_err());
        assert!(local.list(None).try_collect::<Vec<_>>().await.is_err());

        let (_, restarted) = open(dir.path());
        assert_eq!(restarted.get("log/2").await.unwrap().is_some(), stored, "{breakage:?}");
        assert_eq!(temporaries(dir.path()), 0);
    }
}

#[tokio::test]
async fn a_failed_sync_of_what_was_seen_refuses_too() {
    let dir = tempfile::tempdir().unwrap();
    let (_, writer) = open(dir.path());
    writer.create("log/1", body("one")).await;
    let (local, reader) = open(dir.path());
    reader.seen_is_durable("log").await.unwrap();
    assert!(local.disk.syncs.dir_syncs.load(Ordering::Relaxed) >= 2, "the directory and those above it");
    *local.disk.syncs.break_next.lock().unwrap() = Some(Breakage::Directory);
    assert!(reader.seen_is_durable("log").await.is_err());
    assert!(reader.get("log/1").await.is_err());
}

#[test]
fn syncs_of_one_directory_share_their_turns() {
    const THREADS: u64 = 32;
    let dir = tempfile::tempdir().unwrap();
    let syncs = Syncs::default();
    let barrier = std::sync::Barrier::new(32);
    std::thread::scope(|scope| {
        for name in 0..THREADS {
            let (syncs, barrier, dir) = (&syncs, &barrier, dir.path());
            scope.spawn(move || {
                std::fs::write(dir.join(name.to_string()), "x").unwrap();
                barrier.wait();
                syncs.dir(dir).unwrap();
            });
        }
    });
    let done = syncs.dir_syncs.load(Ordering::Relaxed);
    assert!((1..THREADS).contains(&done), "{done} syncs for {THREADS}");
}

#[tokio::test]
async fn temporary_files_are_nobodys_objects() {
    let dir = tempfile::tempdir().unwrap();
    let (local, store) = open(dir.path());
    let mut upload = local.put_multipart(&"data/1".into()).await.unwrap();
    upload.put_part("part".into()).await.unwrap();
    assert_eq!(temporaries(dir.path()), 1);
    assert!(local.list(None).try_collect::<Vec<_>>().await.unwrap().is_empty());
    assert!(local.list_with_delimiter(None).await.unwrap().common_prefixes.is_empty());
    assert!(matches!(store.create(".tmp/x", body("x")).await, CreateOutcome::Unknown(_)));
    assert!(store.list_dir(".tmp").await.is_err());
    drop(upload);
    assert_eq!(temporaries(dir.path()), 0, "a dropped upload removes its file");

    // Left over by a dead process, old and new.
    for (name, age) in [("old", 3700), ("new", 3500)] {
        let file = std::fs::File::create(dir.path().join(".tmp").join(name)).unwrap();
        let now = u64::try_from(SystemClock.now_micros()).unwrap();
        let then = Duration::from_micros(now) - Duration::from_secs(age);
        file.set_modified(std::time::SystemTime::UNIX_EPOCH + then).unwrap();
    }
    open(dir.path());
    assert!(!dir.path().join(".tmp/old").exists() && dir.path().join(".tmp/new").exists());
}

#[tokio::test]
async fn an_upload_in_parts_creates_and_never_overwrites() {
    let dir = tempfile::tempdir().unwrap();
    let (local, store) = open(dir.path());
    let path = Path::from("data/7/x");
    for (round, expected) in [(0, true), (1, false)] {
        let mut upload = local.put_multipart(&path).await.unwrap();
        // The second part is written first.
        let (a, b) = (upload.put_part("ab".into()), upload.put_part("cd".into()));
        b.await.unwrap();
        if round == 1 {
            let early = upload.complete().await.unwrap_err();
            assert!(early.to_string().contains("2 of 4 bytes"), "{early}");
        }
        a.await.unwrap();
        let done = upload.complete().await;
        assert_eq!(done.is_ok(), expected, "{done:?}");
    }
    assert_eq!(store.get("data/7/x").await.unwrap().unwrap(), "abcd");

    let mut aborted = local.put_multipart(&"data/7/y".into()).await.unwrap();
    aborted.put_part("z".into()).await.unwrap();
    aborted.abort().await.unwrap();
    assert!(aborted.put_part("z".into()).await.is_err());
    assert_eq!(store.get("data/7/y").await.unwrap(), None);
    assert_eq!(temporaries(dir.path()), 0);
}

#[tokio::test]
async fn a_dropped_create_leaves_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (_, store) = open(dir.path());
    for n in 0..20 {
        let path = format!("log/{n}");
        // Polled once, then dropped: the blocking part is on its way or not begun.
        let body = vec![Bytes::from(vec![7; 300_000]); 3];
        assert!(store.create(&path, body).now_or_never().is_none());
        match store.get(&path).await.unwrap() {
            None => {}
            Some(bytes) => assert!(bytes.len() == 900_000 && bytes.iter().all(|b| *b == 7)),
        }
    }
}

#[tokio::test]
async fn a_directory_that_was_taken_away_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a/b");
    let (_, store) = open(&root);
    assert_eq!(store.create("log/1", body("x")).await, CreateOutcome::Created);
    std::fs::remove_dir_all(root.join("log")).unwrap();
    assert!(matches!(store.create("log/1", body("x")).await, CreateOutcome::Unknown(_)));
    assert_eq!(store.create("log/1", body("x")).await, CreateOutcome::Created);
    std::fs::remove_dir_all(dir.path().join("a")).unwrap();
    assert_eq!(store.create("log/1", body("x")).await, CreateOutcome::Created);
}

#[tokio::test]
async fn objects_are_read_in_pieces_ranges_and_under_conditions() {
    let dir = tempfile::tempdir().unwrap();
    let (local, _) = open(dir.path());
    let path = Path::from("data/large");
    let bytes: Vec<u8> = (0..20_000_000u32).map(|i| (i % 251) as u8).collect();
    let put = local.put(&path, bytes.clone().into()).await.unwrap();
    let result = local.get(&path).await.unwrap();
    assert_eq!(result.meta.e_tag, put.e_tag);
    let pieces: Vec<Bytes> = result.into_stream().try_collect().await.unwrap();
    assert!(pieces.len() > 1 && pieces.concat() == bytes);

    let get = |range| local.get_opts(&path, GetOptions::new().with_range(Some(range)));
    assert_eq!(get(GetRange::Suffix(5)).await.unwrap().bytes().await.unwrap(), bytes[19_999_995..]);
    assert_eq!(get(GetRange::Offset(19_999_990)).await.unwrap().range, 19_999_990..20_000_000);
    assert!(get(GetRange::Offset(20_000_000)).await.is_err());
    let ranges = local.get_ranges(&path, &[10..12, 0..3, 19_999_999..20_000_009]).await.unwrap();
    assert_eq!(ranges, [&bytes[10..12], &bytes[..3], &bytes[19_999_999..]]);

    let stale = GetOptions::new().with_if_match(Some("other"));
    assert!(matches!(local.get_opts(&path, stale).await, Err(Error::Precondition { .. })));
    assert!(
        matches!(local.head(&"data".into()).await, Err(Error::NotFound { .. })),
        "a directory is no object"
    );
}

#[tokio::test]
async fn overwriting_and_copying_replace_whole_objects() {
    let dir = tempfile::tempdir().unwrap();
    let (local, store) = open(dir.path());
    let (from, to) = (Path::from("nodes/a.json"), Path::from("nodes/b.json"));
    for version in ["1", "two"] {
        local.put(&from, version.into()).await.unwrap();
        local.copy(&from, &to).await.unwrap();
        assert_eq!(store.get("nodes/b.json").await.unwrap().unwrap(), version);
    }
    assert!(matches!(local.copy_if_not_exists(&from, &to).await, Err(Error::AlreadyExists { .. })));
    local.rename(&from, &Path::from("nodes/c.json")).await.unwrap();
    assert_eq!(store.list_dir("nodes").await.unwrap(), ["b.json", "c.json"]);
    let update = PutMode::Update(object_store::UpdateVersion { e_tag: None, version: None });
    let refused = local.put_opts(&to, "x".into(), update.into()).await;
    assert!(matches!(refused, Err(Error::NotImplemented { .. })));
}

#[test]
fn linking_is_if_absent_too() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, target] = ["a", "b", "target"].map(|name| dir.path().join(name));
    std::fs::write(&a, "a").unwrap();
    std::fs::write(&b, "b").unwrap();
    link_if_absent(&a, &target).unwrap();
    assert_eq!(link_if_absent(&b, &target).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(&target).unwrap(), b"a");
    assert!(!a.exists() && b.exists());
}

#[test]
fn a_file_is_no_store_directory() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    std::fs::write(&file, "x").unwrap();
    let opened = LocalStore::open(&file, Arc::new(SystemClock), Arc::new(SystemChance));
    let error = opened.unwrap_err();
    assert!(
        error.kind() == ErrorKind::InvalidInput && error.message().contains("not a directory"),
        "{error}"
    );
}
