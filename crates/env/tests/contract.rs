//! What every store promises, asked of each kind that needs no network.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::join_all;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use proptest::prelude::*;
use tandem_env::{CreateOutcome, Store, SystemChance, SystemClock, open_store, sim};
use tandem_types::ErrorKind;

/// The stores, by name; the directory lives as long as the guard.
fn stores() -> (tempfile::TempDir, Vec<(&'static str, Store)>) {
    let dir = tempfile::tempdir().unwrap();
    let open = |url: &str| open_store(url, &[], Arc::new(SystemClock), Arc::new(SystemChance)).unwrap();
    let memory = Arc::new(InMemory::new());
    let remote =
        Store::remote("two handles", memory.clone(), memory, Arc::new(SystemClock), Arc::new(SystemChance));
    let stores = vec![
        ("local", open(dir.path().join("a/b").to_str().unwrap())),
        ("memory", open("memory://x/some/prefix")),
        ("remote", remote),
        ("simulated", sim::env(1).0.store),
    ];
    (dir, stores)
}

fn body(text: &str) -> Vec<Bytes> {
    vec![Bytes::copy_from_slice(text.as_bytes())]
}

#[tokio::test]
async fn the_first_create_wins_and_stays() {
    let (_dir, stores) = stores();
    for (name, store) in &stores {
        let chunks = vec!["on".into(), Bytes::new(), "e".into()];
        assert_eq!(store.get("log/1").await.unwrap(), None, "{name}");
        assert_eq!(store.create("log/1", chunks).await, CreateOutcome::Created, "{name}");
        assert_eq!(store.create("log/1", body("two")).await, CreateOutcome::Exists, "{name}");
        assert_eq!(store.get("log/1").await.unwrap().unwrap(), "one", "{name}");
        store.seen_is_durable("log").await.unwrap();
        store.seen_is_durable("nowhere").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_race_has_one_winner() {
    let (_dir, stores) = stores();
    for (name, store) in &stores {
        for round in 0..8 {
            let path = format!("race/{round}");
            let writers = (0..16).map(|writer| {
                let (store, path) = (store.clone(), path.clone());
                tokio::spawn(async move { store.create(&path, body(&writer.to_string())).await })
            });
            let outcomes: Vec<_> = join_all(writers).await.into_iter().map(Result::unwrap).collect();
            let won: Vec<usize> =
                (0..16).filter(|writer| outcomes[*writer] == CreateOutcome::Created).collect();
            assert_eq!(won.len(), 1, "{name}: {outcomes:?}");
            assert!(outcomes.iter().all(|o| !matches!(o, CreateOutcome::Unknown(_))), "{name}: {outcomes:?}");
            assert_eq!(store.get(&path).await.unwrap().unwrap(), won[0].to_string(), "{name}");
        }
    }
}

#[tokio::test]
async fn ranges_are_exact_or_the_object_is_damaged() {
    let (_dir, stores) = stores();
    for (name, store) in &stores {
        store.create_data("wal/s", vec!["0123".into(), "456789".into()]).await.unwrap();
        assert_eq!(store.get_range("wal/s", 2..6).await.unwrap(), "2345", "{name}");
        assert_eq!(store.get_range("wal/s", 0..10).await.unwrap(), "0123456789", "{name}");
        assert_eq!(store.get_range("wal/s", 3..3).await.unwrap(), "", "{name}");
        for (path, range) in [("wal/s", 8..11), ("wal/s", 10..12), ("wal/s", 90..91), ("wal/t", 0..1)] {
            let error = store.get_range(path, range.clone()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{name} {range:?}: {error}");
            assert!(error.message().contains(path), "{name}: {error}");
        }
    }
}

#[tokio::test]
async fn a_directory_lists_its_own_objects_sorted() {
    let (_dir, stores) = stores();
    for (name, store) in &stores {
        for path in ["log/3", "log/10", "log/1", "log/floor/7", "logs/9", "top"] {
            assert_eq!(store.create(path, body(path)).await, CreateOutcome::Created, "{name}");
        }
        assert_eq!(store.list_dir("log").await.unwrap(), ["1", "10", "3"], "{name}");
        assert_eq!(store.list_dir("").await.unwrap(), ["top"], "{name}");
        assert_eq!(store.list_dir("absent").await.unwrap(), [""; 0], "{name}");

        let all: Vec<_> = store.objects().list(None).try_collect().await.unwrap();
        let mut all: Vec<String> = all.into_iter().map(|meta| meta.location.to_string()).collect();
        all.sort();
        assert_eq!(all, ["log/1", "log/10", "log/3", "log/floor/7", "logs/9", "top"], "{name}");
    }
}

#[tokio::test]
async fn data_is_stored_once_and_a_second_time_only_as_itself() {
    let (_dir, stores) = stores();
    for (name, store) in &stores {
        for _ in 0..2 {
            store.create_data("data/1/x", vec!["a".into(), "bc".into()]).await.unwrap();
        }
        store.create_data("data/1/x", body("abc")).await.unwrap();
        for other in ["abd", "ab", "abcd"] {
            let error = store.create_data("data/1/x", body(other)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{name}: {error}");
        }
        let read = store.objects().get(&Path::from("data/1/x")).await.unwrap().bytes().await.unwrap();
        assert_eq!(read, "abc", "{name}");
        store.delete("data/1/x").await.unwrap();
        store.delete("data/1/x").await.unwrap();
        assert_eq!(store.get("data/1/x").await.unwrap(), None, "{name}");
    }
}

#[tokio::test]
async fn a_large_object_goes_up_in_parts_where_there_is_a_network() {
    let (_dir, stores) = stores();
    let chunk = Bytes::from((0..(9 << 20)).map(|i: u32| (i % 251) as u8).collect::<Vec<_>>());
    let payload = vec![chunk.clone(); 8];
    for (name, store) in stores.iter().filter(|(name, _)| ["remote", "local"].contains(name)) {
        store.create_data("data/large", payload.clone()).await.unwrap();
        let read = store.get("data/large").await.unwrap().unwrap();
        assert_eq!(read.len(), 8 * chunk.len(), "{name}");
        assert!(read.chunks(chunk.len()).all(|part| part == chunk), "{name}");
    }
}

#[tokio::test]
async fn what_is_no_path_is_refused_and_nothing_leaves_the_root() {
    let (dir, stores) = stores();
    std::fs::write(dir.path().join("a-secret"), "s").unwrap();
    for (name, store) in &stores {
        for path in ["../../a-secret", "log/../../../a-secret", "log//1", "log/\u{0}"] {
            assert!(store.get(path).await.is_err(), "{name} {path:?}");
            assert!(matches!(store.create(path, body("x")).await, CreateOutcome::Unknown(_)), "{name}");
        }
        let encoded = store.objects().get(&Path::from("../../a-secret")).await;
        assert!(matches!(encoded, Err(object_store::Error::NotFound { .. })), "{name}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Create(u8, Vec<u8>),
    Get(u8),
    Range(u8, u64, u64),
    List,
    Delete(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..4u8;
    let step = prop_oneof![
        3 => (key.clone(), prop::collection::vec(any::<u8>(), 0..9)).prop_map(|(k, v)| Step::Create(k, v)),
        2 => key.clone().prop_map(Step::Get),
        2 => (key.clone(), 0..10u64, 0..10u64).prop_map(|(k, a, b)| Step::Range(k, a, b)),
        1 => Just(Step::List),
        1 => key.prop_map(Step::Delete),
    ];
    prop::collection::vec(step, 1..12)
}

async fn follow(store: &Store, steps: &[Step]) {
    let path = |key: &u8| format!("d/{key}");
    let mut model: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Create(key, value) => {
                let outcome = store.create(&path(key), vec![value.clone().into()]).await;
                let created = !model.contains_key(key);
                assert_eq!(outcome == CreateOutcome::Created, created, "{outcome:?}");
                model.entry(*key).or_insert_with(|| value.clone());
            }
            Step::Get(key) => {
                let read = store.get(&path(key)).await.unwrap();
                assert_eq!(read.as_deref(), model.get(key).map(Vec::as_slice));
            }
            Step::Range(key, a, b) => {
                let expected = match model.get(key) {
                    _ if a >= b => Some(&[][..]),
                    Some(value) => value.get(*a as usize..*b as usize),
                    None => None,
                };
                assert_eq!(store.get_range(&path(key), *a..*b).await.ok().as_deref(), expected);
            }
            Step::List => {
                let expected: Vec<String> = model.keys().map(u8::to_string).collect();
                assert_eq!(store.list_dir("d").await.unwrap(), expected);
            }
            Step::Delete(key) => {
                store.delete(&path(key)).await.unwrap();
                model.remove(key);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn every_store_is_a_map(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_dir, stores) = stores();
            for (_, store) in &stores {
                follow(store, &steps).await;
            }
        });
    }
}
