//! The database's objects: create, read, list. Outcomes are facts; nothing is guessed.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tandem_types::{Error, Result};

use crate::meter::Metered;
use crate::overlay::Overlay;
use crate::retry::{answered, describe, is_final, public_error, publicly, says_exists, wait};
use crate::{Chance, Clock, LocalStore, Mutant};

/// Above this, an object goes up in parts: a single request must finish within the client's
/// request time-out, which a large body on a slow line would miss each time.
const ONE_PUT_BYTES_MAX: usize = 64 << 20;
/// The size of a part; every part but the last has it.
const PART_BYTES: usize = 16 << 20;
const CREATE_DATA_ATTEMPTS: u32 = 8;
/// No new attempt is made after this: each may already take the library's three minutes.
const CREATE_DATA_TIME_MAX: Duration = Duration::from_secs(300);

/// What a create of a log object came to, as far as its one answer tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateOutcome {
    /// Stored by this request, and durable.
    Created,
    /// The store says that something is there. Not to be trusted: it may be this very request's
    /// object, and S3's 409 says so with nothing there. Read it back.
    Exists,
    /// Stored, not stored, or stored later; with the reason. Read it back.
    Unknown(String),
}

/// An object, as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub path: String,
    pub bytes: u64,
    /// When it was stored, by the store's clock, in microseconds since 1970.
    pub modified: i64,
}

/// One database's objects in one object store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    url: String,
    log: Arc<dyn ObjectStore>,
    data: Arc<dyn ObjectStore>,
    local: Option<LocalStore>,
    /// Whether a create costs a round trip over a network.
    remote: bool,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
    #[cfg(feature = "sim")]
    mutant: std::sync::OnceLock<Mutant>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("url", &self.inner.url).finish_non_exhaustive()
    }
}

impl Store {
    /// A store in this process or on this machine: one handle serves as log and data handle.
    pub fn in_process(
        url: impl Into<String>,
        objects: Arc<dyn ObjectStore>,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
    ) -> Self {
        let objects: Arc<dyn ObjectStore> = Arc::new(Metered(objects));
        Self::new(url.into(), objects.clone(), objects, None, false, clock, chance)
    }

    /// A store over a network. `log` must send each request once, without retries of its own.
    pub fn remote(
        url: impl Into<String>,
        log: Arc<dyn ObjectStore>,
        data: Arc<dyn ObjectStore>,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
    ) -> Self {
        let (log, data) = (Arc::new(Metered(log)), Arc::new(Metered(data)));
        Self::new(url.into(), log, data, None, true, clock, chance)
    }

    /// A database in a local directory.
    pub fn local(local: LocalStore, clock: Arc<dyn Clock>, chance: Arc<dyn Chance>) -> Self {
        let objects: Arc<dyn ObjectStore> = Arc::new(Metered(Arc::new(local.clone())));
        Self::new(local.to_string(), objects.clone(), objects, Some(local), false, clock, chance)
    }

    fn new(
        url: String,
        log: Arc<dyn ObjectStore>,
        data: Arc<dyn ObjectStore>,
        local: Option<LocalStore>,
        remote: bool,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
    ) -> Self {
        let inner = Inner {
            url,
            log,
            data,
            local,
            remote,
            clock,
            chance,
            #[cfg(feature = "sim")]
            mutant: std::sync::OnceLock::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// This store with another behind it: data files and segments that are not here are read there. Nothing is written
    /// there, and nothing deleted.
    #[must_use]
    pub fn over(&self, parent: &Self) -> Self {
        let over = |own: &Arc<dyn ObjectStore>, parent: &Arc<dyn ObjectStore>| -> Arc<dyn ObjectStore> {
            Arc::new(Overlay { own: own.clone(), parent: parent.clone() })
        };
        let Inner { url, local, remote, clock, chance, .. } = &*self.inner;
        let log = over(&self.inner.log, &parent.inner.log);
        let data = over(&self.inner.data, &parent.inner.data);
        Self::new(url.clone(), log, data, local.clone(), *remote, clock.clone(), chance.clone())
    }

    /// Creates the object if nothing has its name: one request, put-if-absent, never repeated
    /// here. Dropping the future leaves the object whole or absent.
    pub async fn create(&self, path: &str, payload: Vec<Bytes>) -> CreateOutcome {
        match self.try_create(path, PutPayload::from_iter(payload)).await {
            Ok(()) => CreateOutcome::Created,
            Err(error) if says_exists(&error) => CreateOutcome::Exists,
            Err(error) => CreateOutcome::Unknown(describe(&error)),
        }
    }

    /// Writes an object in place of what has its name, one request. For advice alone, such as heartbeats: whatever
    /// counts is created, once.
    pub async fn put_overwrite(&self, path: &str, payload: Bytes) -> Result<()> {
        let location = self.location(path)?;
        let put = self.inner.log.put_opts(&location, payload.into(), PutMode::Overwrite.into()).await;
        put.map(|_| ()).map_err(|error| public_error("cannot store", path, self.url(), &error))
    }

    /// [`Store::create`] with the store's own error, for who must tell its kinds apart.
    pub(crate) async fn try_create(&self, path: &str, payload: PutPayload) -> object_store::Result<()> {
        let path = Path::parse(path)?;
        self.inner.log.put_opts(&path, payload, create_options()).await.map(|_| ())
    }

    /// Stores an object whose name no other object ever has. Repeated until it is there, with
    /// exactly these bytes, or until that is hopeless. An object left by a call that failed is
    /// harmless: nothing names it.
    pub async fn create_data(&self, path: &str, payload: Vec<Bytes>) -> Result<()> {
        let location = self.location(path)?;
        let payload = PutPayload::from_iter(payload);
        let give_up = self.inner.clock.monotonic() + CREATE_DATA_TIME_MAX;
        let mut attempt = 1;
        loop {
            let Err(error) = self.put_data(&location, payload.clone()).await else {
                return Ok(());
            };
            let over = attempt >= CREATE_DATA_ATTEMPTS || self.inner.clock.monotonic() >= give_up;
            if is_final(&error) || (over && !says_exists(&error)) {
                return Err(public_error("cannot store", path, self.url(), &error));
            }
            if says_exists(&error) {
                match self.same_bytes(&location, &payload).await? {
                    Some(true) => {
                        // Somebody else's sync may still be under way: seeing is not durable.
                        return self.seen_is_durable(parent_of(path)).await;
                    }
                    Some(false) => {
                        let message = format!("{path} in {} exists with other bytes than ours", self.url());
                        return Err(Error::already_exists(message));
                    }
                    None if over => {
                        return Err(public_error("cannot store", path, self.url(), &error));
                    }
                    None => {}
                }
            }
            self.inner.clock.sleep(wait(&*self.inner.chance, attempt)).await;
            attempt += 1;
        }
    }

    async fn put_data(&self, path: &Path, payload: PutPayload) -> object_store::Result<()> {
        let data = &self.inner.data;
        if !self.inner.remote || payload.content_length() <= ONE_PUT_BYTES_MAX {
            return data.put_opts(path, payload, create_options()).await.map(|_| ());
        }
        // Without a condition: the name is unique, so there is nothing to overwrite but an
        // earlier attempt's same bytes.
        let mut upload = data.put_multipart(path).await?;
        let parts = parts(payload, PART_BYTES);
        let sent = futures::stream::iter(parts.into_iter().map(|part| upload.put_part(part)))
            .buffer_unordered(4)
            .fold(Ok(()), async |all: object_store::Result<()>, one| all.and(one))
            .await;
        match sent {
            Ok(()) => upload.complete().await.map(|_| ()),
            Err(error) => {
                // Best effort: parts that stay behind are the bucket's lifecycle rule's to remove.
                if let Err(abort) = upload.abort().await {
                    tracing::debug!(%path, error = %describe(&abort), "could not abort an upload");
                }
                Err(error)
            }
        }
    }

    /// Whether the object holds exactly `payload`; `None` if there is no object.
    async fn same_bytes(&self, path: &Path, payload: &PutPayload) -> Result<Option<bool>> {
        let compare = || async {
            let stored = match self.inner.log.get(path).await {
                Ok(stored) => stored,
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            if stored.meta.size != payload.content_length() as u64 {
                return Ok(Some(false));
            }
            let mut ours = payload.iter().flat_map(|chunk| chunk.iter().copied());
            let mut stream = stored.into_stream();
            while let Some(chunk) = stream.next().await {
                if !chunk?.iter().all(|byte| ours.next() == Some(*byte)) {
                    return Ok(Some(false));
                }
            }
            Ok(Some(ours.next().is_none()))
        };
        let answer = answered(&*self.inner.clock, &*self.inner.chance, compare).await;
        publicly(answer, "cannot read back", path.as_ref(), self.url())
    }

    /// The whole object; `None` if there is none. Repeats itself a bounded number of times.
    pub async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        let location = self.location(path)?;
        let read = || async { self.inner.log.get(&location).await?.bytes().await };
        match answered(&*self.inner.clock, &*self.inner.chance, read).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(public_error("cannot read", path, self.url(), &error)),
        }
    }

    /// The object's first bytes, `limit` at most; `None` if there is none. Repeats itself as
    /// [`Store::get`] does.
    pub async fn get_prefix(&self, path: &str, limit: u64) -> Result<Option<Bytes>> {
        let location = self.location(path)?;
        let range = Some(object_store::GetRange::Bounded(0..limit));
        let options = || object_store::GetOptions { range: range.clone(), ..Default::default() };
        let read = || async {
            match self.inner.log.get_opts(&location, options()).await {
                Ok(found) => found.bytes().await,
                // An empty object has no first byte, and stores have no common error for that.
                Err(error) if !is_final(&error) => match self.inner.log.head(&location).await?.size {
                    0 => Ok(Bytes::new()),
                    _ => Err(error),
                },
                Err(error) => Err(error),
            }
        };
        match answered(&*self.inner.clock, &*self.inner.chance, read).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(public_error("cannot read", path, self.url(), &error)),
        }
    }

    /// Exactly these bytes of an object that must be there: an absent or too short one is an
    /// error of kind `Damaged` that names it.
    pub async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        let location = self.location(path)?;
        if range.start >= range.end {
            return Ok(Bytes::new());
        }
        let read = || async {
            match self.inner.log.get_range(&location, range.clone()).await {
                Err(error) if !is_final(&error) => {
                    // Stores have no common error for a range beyond the end.
                    let meta = self.inner.log.head(&location).await?;
                    if meta.size < range.end { Ok(Err(meta.size)) } else { Err(error) }
                }
                answer => answer.map(Ok),
            }
        };
        let want = range.end - range.start;
        let short = |length| {
            let Range { start, end } = range;
            let url = self.url();
            Error::damaged(format!("{path} in {url} has {length} bytes, but {start}..{end} are needed"))
        };
        match answered(&*self.inner.clock, &*self.inner.chance, read).await {
            Ok(Ok(bytes)) if bytes.len() as u64 == want => Ok(bytes),
            Ok(Ok(bytes)) => Err(short(range.start + bytes.len() as u64)),
            Ok(Err(size)) => Err(short(size)),
            Err(object_store::Error::NotFound { .. }) => {
                Err(Error::damaged(format!("{path} is missing in {}", self.url())))
            }
            Err(error) => Err(public_error("cannot read", path, self.url(), &error)),
        }
    }

    /// The names (last parts) of the objects directly in `dir`, sorted. Costs the whole
    /// directory: for the start of a process, not for finding the head of a log.
    pub async fn list_dir(&self, dir: &str) -> Result<Vec<String>> {
        let location = self.location(dir)?;
        let list = || async { self.inner.log.list_with_delimiter(Some(&location)).await };
        let answer = answered(&*self.inner.clock, &*self.inner.chance, list).await;
        let objects = publicly(answer, "cannot list", dir, self.url())?.objects;
        let mut names: Vec<String> =
            objects.iter().filter_map(|meta| meta.location.filename().map(str::to_owned)).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Removes an object; an absent one is fine.
    pub async fn delete(&self, path: &str) -> Result<()> {
        let location = self.location(path)?;
        match self.inner.data.delete(&location).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(public_error("cannot delete", path, self.url(), &error)),
        }
    }

    /// Removes objects, in bulk where the store can; absent ones are fine. How many are gone, and the first error, if any:
    /// what could not be removed stays for another time.
    pub async fn delete_all(&self, paths: Vec<String>) -> (u64, Option<Error>) {
        let (mut gone, mut failed) = (0, None);
        let locations: Vec<_> = paths.iter().map(|path| Path::parse(path).map_err(Into::into)).collect();
        let mut answers = self.inner.data.delete_stream(futures::stream::iter(locations).boxed());
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => gone += 1,
                Err(error) => {
                    let public = || public_error("cannot delete", "an object", self.url(), &error);
                    failed = failed.or_else(|| Some(public()));
                }
            }
        }
        (gone, failed)
    }

    /// All objects below `dir`, in any order. Costs a request for every thousand or so.
    pub fn list_below(&self, dir: &str) -> BoxStream<'static, Result<Listed>> {
        let location = match self.location(dir) {
            Ok(location) => location,
            Err(error) => return futures::stream::once(async { Err(error) }).boxed(),
        };
        let (dir, url) = (dir.to_owned(), self.url().to_owned());
        self.inner
            .data
            .list(Some(&location))
            .map(move |found| match found {
                Ok(meta) => Ok(Listed {
                    path: meta.location.to_string(),
                    bytes: meta.size,
                    modified: meta.last_modified.timestamp_micros(),
                }),
                Err(error) => Err(public_error("cannot list", &dir, &url, &error)),
            })
            .boxed()
    }

    /// The store's own clock, in microseconds since 1970: the time that it gives to an object made now, which is put at
    /// `path` for that and taken away again. As coarse as the store's clock.
    pub async fn now_by_store(&self, path: &str) -> Result<i64> {
        self.put_overwrite(path, Bytes::from_static(b"what is the time?\n")).await?;
        let location = self.location(path)?;
        let look = || async { self.inner.log.head(&location).await };
        let answer = answered(&*self.inner.clock, &*self.inner.chance, look).await;
        if let Err(error) = self.delete(path).await {
            tracing::debug!(path, %error, "could not take an object away");
        }
        publicly(answer, "cannot look at", path, self.url()).map(|meta| meta.last_modified.timestamp_micros())
    }

    /// Makes what was seen in `dir` durable. A local directory shows an object before its
    /// creator has synced the directory; whoever acts on one it did not create asks this first.
    pub async fn seen_is_durable(&self, dir: &str) -> Result<()> {
        let Some(local) = &self.inner.local else {
            return Ok(());
        };
        let location = self.location(dir)?;
        publicly(local.sync_seen(&location).await, "cannot sync", dir, self.url())
    }

    /// The data handle, its paths relative to the database: for readers that speak object_store.
    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        self.inner.data.clone()
    }

    /// Where the database is, for messages. Holds no secrets.
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// Whether this is a directory of this machine.
    pub fn is_local(&self) -> bool {
        self.inner.local.is_some()
    }

    pub(crate) fn is_remote(&self) -> bool {
        self.inner.remote
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.inner.clock
    }

    /// From now on whoever works with this handle, or a clone of it, makes this mistake.
    #[cfg(feature = "sim")]
    pub fn spoil(&self, mutant: Mutant) {
        // Whoever was spoilt once stays so.
        let _ = self.inner.mutant.set(mutant);
    }

    #[cfg(feature = "sim")]
    pub(crate) fn mutant(&self, mutant: Mutant) -> bool {
        self.inner.mutant.get() == Some(&mutant)
    }

    #[cfg(not(feature = "sim"))]
    #[expect(clippy::unused_self, reason = "a handle outside of a simulation cannot be spoilt")]
    pub(crate) const fn mutant(&self, _: Mutant) -> bool {
        false
    }

    fn location(&self, path: &str) -> Result<Path> {
        Path::parse(path).map_err(|error| Error::internal(format!("{path:?} is no object path: {error}")))
    }
}

fn create_options() -> PutOptions {
    PutOptions::from(PutMode::Create)
}

fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Cuts a payload into parts of `size` bytes, the last one shorter, without copying.
fn parts(payload: PutPayload, size: usize) -> Vec<PutPayload> {
    let (mut parts, mut part, mut room) = (Vec::new(), Vec::new(), size);
    for mut chunk in payload {
        while !chunk.is_empty() {
            let piece = chunk.split_to(room.min(chunk.len()));
            room -= piece.len();
            part.push(piece);
            if room == 0 {
                parts.push(PutPayload::from_iter(std::mem::take(&mut part)));
                room = size;
            }
        }
    }
    if !part.is_empty() {
        parts.push(PutPayload::from_iter(part));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_cut_at_the_size_whatever_the_chunks() {
        let payload = PutPayload::from_iter(["abcde", "", "f", "ghijklmn"].map(Bytes::from));
        let cut: Vec<Vec<u8>> =
            parts(payload, 4).into_iter().map(|part| part.into_iter().flatten().collect()).collect();
        assert_eq!(cut, [b"abcd".to_vec(), b"efgh".to_vec(), b"ijkl".to_vec(), b"mn".to_vec()]);
        assert!(parts(PutPayload::new(), 4).is_empty());
    }

    #[test]
    fn the_parent_of_a_path_is_its_directory() {
        assert_eq!(parent_of("log/floor/1"), "log/floor");
        assert_eq!(parent_of("tandem.json"), "");
    }
}
