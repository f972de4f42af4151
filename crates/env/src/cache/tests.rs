//! What the cache promises, through its door and with its files in the tester's hands.

use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

use super::{DiskCache, PIECE_BYTES, cut};

const MIB: u64 = 1 << 20;

fn open(dir: &TempDir) -> DiskCache {
    DiskCache::open(dir.path(), 2 * MIB).unwrap()
}

/// Bytes that tell which piece they are of.
fn bytes_of(name: &str, range: &Range<u64>) -> Bytes {
    let line = format!("{name} from {} to {}; ", range.start, range.end).into_bytes();
    let length = (range.end - range.start) as usize;
    line.repeat(length / line.len() + 1)[..length].to_vec().into()
}

fn piece(n: u64) -> Range<u64> {
    n * PIECE_BYTES..(n + 1) * PIECE_BYTES
}

async fn put(cache: &DiskCache, name: &str, pieces: impl IntoIterator<Item = u64>) {
    let pieces = pieces.into_iter().map(|n| (piece(n), bytes_of(name, &piece(n))));
    cache.put(name, pieces.collect()).await;
}

/// Which of the first `count` pieces are there; those that are must be right.
async fn present(cache: &DiskCache, name: &str, count: u64) -> Vec<u64> {
    let pieces: Vec<_> = (0..count).map(piece).collect();
    let found = cache.get(name, &pieces).await;
    let check = |(n, bytes): (u64, Option<Bytes>)| {
        let bytes = bytes?;
        assert!(bytes == bytes_of(name, &piece(n)), "piece {n} of {name} is wrong");
        Some(n)
    };
    (0..).zip(found).filter_map(check).collect()
}

fn size(dir: &Path) -> u64 {
    std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

#[tokio::test]
async fn what_was_used_longest_ago_gives_way_and_the_files_stay_within_bounds() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir);
    put(&cache, "a", 0..10).await;
    put(&cache, "b", 0..10).await;
    assert_eq!(present(&cache, "a", 12).await, (0..10).collect::<Vec<_>>());
    // 31 slots: what comes now takes the place of b, which was not read.
    put(&cache, "c", 0..20).await;
    assert_eq!(present(&cache, "a", 10).await.len(), 10);
    assert_eq!(present(&cache, "c", 20).await.len(), 20);
    assert_eq!(present(&cache, "b", 10).await, [9]);
    assert!(cache.bytes() <= 2 * MIB && size(dir.path()) <= 2 * MIB);
    assert!(cache.has("c", &piece(3)) && !cache.has("c", &(0..5)) && !cache.has("d", &piece(3)));
}

#[tokio::test]
async fn it_survives_restarts_and_belongs_to_one_process() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir);
    put(&cache, "a", 0..20).await;
    let error = DiskCache::open(dir.path(), 2 * MIB).unwrap_err();
    assert!(error.message().contains("in use"), "{error}");
    drop(cache);
    let cache = open(&dir);
    assert_eq!(present(&cache, "a", 20).await.len(), 20);
    assert_eq!(cache.bytes(), 20 * PIECE_BYTES);
    drop(cache);
    // Smaller: what does not fit is gone, and the rest is right.
    let cache = DiskCache::open(dir.path(), MIB).unwrap();
    assert_eq!(present(&cache, "a", 20).await.len(), 15);
    assert!(size(dir.path()) <= MIB);
    put(&cache, "b", 0..3).await;
    assert_eq!(present(&cache, "b", 3).await.len(), 3);
    drop(cache);
    assert!(DiskCache::open(dir.path(), MIB - 1).is_err());
    std::fs::write(dir.path().join("index"), b"something else").unwrap();
    assert!(present(&open(&dir), "a", 20).await.is_empty(), "another format is begun anew");
}

#[tokio::test]
async fn longer_parts_are_there_as_a_whole_or_not_at_all() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir);
    let range = 100..100 + 3 * PIECE_BYTES + 5;
    let bytes = bytes_of("s", &range);
    cache.put_whole("s", range.clone(), &bytes).await;
    assert_eq!(cache.get_whole("s", range.clone()).await.unwrap(), bytes);
    assert!(cache.get_whole("s", 100..200).await.is_none());
    cache.drop_damaged("s", &cut(range.clone()).skip(2).take(1).collect::<Vec<_>>());
    assert!(cache.get_whole("s", range.clone()).await.is_none());
    cache.put_whole("s", range.clone(), &bytes).await;
    assert_eq!(cache.get_whole("s", range.clone()).await.unwrap(), bytes);
    cache.drop_whole("s", range.clone());
    assert_eq!(cache.bytes(), 0);
    // What is not of its range's length is not taken.
    cache.put_whole("s", range.clone(), &bytes.slice(1..)).await;
    cache.put("s", vec![(0..9, bytes.slice(0..8)), (0..0, Bytes::new())]).await;
    assert!(cache.get_whole("s", range).await.is_none() && !cache.has("s", &(0..9)));
}

#[tokio::test]
async fn a_disk_that_takes_nothing_costs_nothing_but_the_cache() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("file"), b"").unwrap();
    assert!(DiskCache::open(&dir.path().join("file"), MIB).is_err());
    let cache = open(&dir);
    put(&cache, "a", 0..3).await;
    // Cut behind its back.
    std::fs::File::options()
        .write(true)
        .open(dir.path().join("blocks"))
        .unwrap()
        .set_len(PIECE_BYTES)
        .unwrap();
    assert_eq!(present(&cache, "a", 3).await, [0]);
    put(&cache, "a", 0..3).await;
    assert_eq!(present(&cache, "a", 3).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_who_read_and_write_at_once_never_see_what_is_not_theirs() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir);
    // Four times what there is room for, so that pieces give way while they are read.
    let storm = |seed: u64| {
        let cache = cache.clone();
        async move {
            let mut found = 0;
            for round in 0..40 {
                let name = format!("o{}", (round * 7 + seed * 3) % 8);
                put(&cache, &name, round % 16..round % 16 + 3).await;
                found += present(&cache, &name, 16).await.len();
            }
            found
        }
    };
    let storms: Vec<_> = (0..6).map(|seed| tokio::spawn(storm(seed))).collect();
    let mut found = 0;
    for storm in storms {
        found += storm.await.unwrap();
    }
    assert!(found > 300, "{found}");
    let most = 31 * PIECE_BYTES;
    assert!(cache.bytes() <= most && cache.bytes() > most / 2, "{} of {most}", cache.bytes());
    drop(cache);
    let again = open(&dir);
    let mut there = 0;
    for n in 0..8 {
        there += present(&again, &format!("o{n}"), 19).await.len() as u64;
    }
    assert_eq!(there * PIECE_BYTES, again.bytes(), "no slot is lost, none is damaged");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Bytes of either file that changed, while it runs or between two runs: fewer pieces, never wrong ones.
    #[test]
    fn damage_is_dropped_and_never_read(
        damage in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>(), 1u8..), 1..20),
        restart in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = TempDir::new().unwrap();
            let mut cache = open(&dir);
            put(&cache, "a", 0..12).await;
            for (in_blocks, at, flip) in &damage {
                let path = dir.path().join(if *in_blocks { "blocks" } else { "index" });
                let mut bytes = std::fs::read(&path).unwrap();
                let at = at.index(bytes.len());
                bytes[at] ^= flip;
                std::fs::write(&path, bytes).unwrap();
            }
            if restart {
                drop(cache);
                cache = open(&dir);
            }
            let there = present(&cache, "a", 12).await;
            assert!(restart || there.len() >= 12 - damage.iter().filter(|d| d.0).count().min(12));
            // What is missing can be put again.
            put(&cache, "a", 0..12).await;
            assert_eq!(present(&cache, "a", 12).await.len(), 12);
        });
    }
}
