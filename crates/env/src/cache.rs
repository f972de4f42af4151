//! Parts of stored objects on the local disk, so that what was read once need not be fetched again.
//!
//! Promises
//! - What comes out is what went in under that name and range, or nothing: every piece is checked by a checksum that
//!   stands apart from it. Damage is dropped and reported, and the caller reads the store.
//! - The files stay within the size that was asked for; what was used longest ago gives way.
//! - It survives restarts, though not the order of use. After a crash some pieces may be gone; none is wrong.
//! - No trouble with the disk fails a read: at worst nothing is cached.
//! - Two processes never share a directory: the second is refused.
//!
//! Words
//! - *piece*: at most [`PIECE_BYTES`] of one object, cached and dropped as one.
//! - *slot*: the place of a piece in the file `blocks`; the file `index` says what is in each.
//!
//! Objects never change, so that nothing here is ever out of date.

mod files;
mod slots;

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tandem_types::{Error, Result};

use files::Files;
use slots::{Key, Place, Slots};

/// A piece is this long, or shorter. The blocks of data files are as long.
pub const PIECE_BYTES: u64 = 64 << 10;

/// Less is not worth its files.
const BYTES_MIN: u64 = 1 << 20;

/// A cache in a directory. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct DiskCache {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    files: Files,
    slots: Mutex<Slots>,
    bytes_max: u64,
    /// Whether a failed write was reported.
    reported: AtomicBool,
}

impl DiskCache {
    /// Opens the cache in `dir`, which is created if it is not there, with what an earlier process left in it.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the directory cannot be used, another process uses it, or it is to hold less than 1 MiB.
    pub fn open(dir: &Path, bytes_max: u64) -> Result<Self> {
        if bytes_max < BYTES_MIN {
            return Err(Error::invalid(format!("a cache of {bytes_max} bytes on disk: it must have 1 MiB")));
        }
        let count = Files::slots_within(bytes_max);
        let failed = |what: &str, e: &dyn std::fmt::Display| {
            Error::invalid(format!("the cache directory {}: {what}: {e}", dir.display()))
        };
        let files = Files::open(dir, count).map_err(|e| failed("it cannot be used", &e))?;
        let Some(files) = files else {
            return Err(failed("it is in use", &"another process has it, and each needs one of its own"));
        };
        let found = files.load(count).map_err(|e| failed("its index cannot be read", &e))?;
        let slots = Slots::new(count, found);
        let (dir, pieces) = (dir.display(), slots.len());
        tracing::info!(%dir, pieces, bytes_max, "the cache on disk is open");
        let shared = Shared { files, slots: Mutex::new(slots), bytes_max, reported: AtomicBool::new(false) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Pieces of an object, where they are here.
    pub async fn get(&self, path: &str, pieces: &[Range<u64>]) -> Vec<Option<Bytes>> {
        let keys: Vec<Key> = pieces.iter().map(|piece| key(path, piece)).collect();
        let (shared, name, count) = (self.shared.clone(), path.to_owned(), keys.len());
        let read = move || keys.iter().map(|key| shared.read(&name, key)).collect();
        let found: Vec<Option<Bytes>> =
            tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| vec![None; count]);
        let hits = found.iter().flatten().count();
        metrics::counter!("tandem_cache_hits_total").increment(hits as u64);
        metrics::counter!("tandem_cache_misses_total").increment((count - hits) as u64);
        found
    }

    /// Keeps pieces of an object; the longest unused ones give way. Returns once they are written.
    pub async fn put(&self, path: &str, pieces: Vec<(Range<u64>, Bytes)>) {
        let keyed = pieces.into_iter().filter(|(piece, bytes)| {
            // A piece of another length than its range is no piece.
            piece.end.checked_sub(piece.start) == Some(bytes.len() as u64)
                && bytes.len() as u64 <= PIECE_BYTES
        });
        let keyed: Vec<(Key, Bytes)> = keyed.map(|(piece, bytes)| (key(path, &piece), bytes)).collect();
        let shared = self.shared.clone();
        // Without a runtime that can wait for the disk, nothing is kept.
        let _ = tokio::task::spawn_blocking(move || {
            for (key, bytes) in keyed {
                shared.write(key, &bytes);
            }
        })
        .await;
    }

    /// Whether a piece is here, as far as the index says.
    pub fn has(&self, path: &str, piece: &Range<u64>) -> bool {
        self.shared.slots().find(&key(path, piece)).is_some()
    }

    /// Drops pieces that whoever read them found wrong.
    pub fn drop_damaged(&self, path: &str, pieces: &[Range<u64>]) {
        for piece in pieces {
            let key = key(path, piece);
            let place = self.shared.slots().find(&key);
            if let Some(place) = place {
                self.shared.damaged(path, &key, place);
            }
        }
    }

    /// A longer part of an object, where all of its pieces are here.
    pub async fn get_whole(&self, path: &str, range: Range<u64>) -> Option<Bytes> {
        let pieces: Vec<Range<u64>> = cut(range).collect();
        if !pieces.iter().all(|piece| self.has(path, piece)) {
            return None;
        }
        let found: Option<Vec<Bytes>> = self.get(path, &pieces).await.into_iter().collect();
        Some(match <[Bytes; 1]>::try_from(found?) {
            Ok([one]) => one,
            Err(many) => join(&many),
        })
    }

    /// Keeps a longer part of an object.
    pub async fn put_whole(&self, path: &str, range: Range<u64>, bytes: &Bytes) {
        if range.end.checked_sub(range.start) != Some(bytes.len() as u64) {
            return;
        }
        let part = |piece: Range<u64>| {
            let from = usize::try_from(piece.start - range.start).unwrap_or(usize::MAX);
            let to = usize::try_from(piece.end - range.start).unwrap_or(usize::MAX);
            (piece, bytes.slice(from..to))
        };
        self.put(path, cut(range.clone()).map(part).collect()).await;
    }

    /// As [`drop_damaged`](Self::drop_damaged), of a longer part.
    pub fn drop_whole(&self, path: &str, range: Range<u64>) {
        self.drop_damaged(path, &cut(range).collect::<Vec<_>>());
    }

    /// Bytes of the pieces that are here.
    pub fn bytes(&self) -> u64 {
        self.shared.slots().bytes()
    }

    /// Bytes that the directory may have.
    pub fn bytes_max(&self) -> u64 {
        self.shared.bytes_max
    }
}

/// A range as pieces, from its start on.
pub fn cut(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    let starts = (range.start..end).step_by(usize::try_from(PIECE_BYTES).unwrap_or(usize::MAX));
    starts.map(move |start| start..(start + PIECE_BYTES).min(end))
}

fn join(parts: &[Bytes]) -> Bytes {
    let mut joined = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    for part in parts {
        joined.extend_from_slice(part);
    }
    joined.freeze()
}

fn key(path: &str, piece: &Range<u64>) -> Key {
    let mut hash = Sha256::new();
    hash.update(piece.start.to_le_bytes());
    hash.update(piece.end.to_le_bytes());
    hash.update(path.as_bytes());
    let mut key = Key::default();
    key.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
    key
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        // A panic between two steps leaves a slot that nothing uses.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, path: &str, key: &Key) -> Option<Bytes> {
        let place = self.slots().touch(key)?;
        let read = self.files.read(&place);
        let good = read.as_ref().ok().filter(|bytes| files::checksum(key, bytes) == place.crc);
        if let Some(bytes) = good {
            return Some(bytes.clone());
        }
        self.damaged(path, key, place);
        None
    }

    /// What was read at a place was wrong; unless it gave way meanwhile, that is damage.
    fn damaged(&self, path: &str, key: &Key, place: Place) {
        if !self.slots().remove(key, place) {
            return;
        }
        tracing::warn!(%path, "a cached piece is damaged on disk: it is dropped and read again from the store");
        metrics::counter!("tandem_cache_damaged_total").increment(1);
        let cleared = self.files.clear(place.slot);
        self.slots().free(place.slot);
        self.report(cleared);
    }

    fn write(&self, key: Key, bytes: &Bytes) {
        let crc = files::checksum(&key, bytes);
        let slot = self.slots().take(&key);
        let Some(slot) = slot else { return };
        let place = Place { slot, len: u32::try_from(bytes.len()).unwrap_or(u32::MAX), crc };
        let written = self.files.write(&key, &place, bytes);
        let mut slots = self.slots();
        if written.is_ok() {
            slots.insert(key, place);
        } else {
            slots.free(slot);
        }
        drop(slots);
        self.report(written);
    }

    /// Says once that the disk gives trouble.
    fn report(&self, done: std::io::Result<()>) {
        let Err(error) = done else { return };
        metrics::counter!("tandem_cache_errors_total").increment(1);
        if !self.reported.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "the cache cannot write to its disk: reads go to the store");
        }
    }
}

#[cfg(test)]
mod tests;
