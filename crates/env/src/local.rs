//! Our own store in a local directory. object_store's syncs nothing: after a power cut it leaves
//! acknowledged objects missing, or empty under their final names.
//!
//! An object is written to `.tmp/<random>`, synced, renamed to its name only if that is free, and
//! its directory is synced; only then is it acknowledged. Directories are synced too, up to the
//! first that was there before. Names never show half an object, whatever dies when. Several
//! processes may use one directory.

mod disk;
mod files;
mod sync;
mod upload;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use self::disk::{Disk, Publish};
use self::upload::LocalUpload;
use crate::{Chance, Clock};

/// A database's directory as an object store whose creates are durable. Clones share the handle,
/// and with it the refusal after a failed sync.
#[derive(Clone, Debug)]
pub struct LocalStore {
    disk: Arc<Disk>,
}

impl LocalStore {
    /// The store in `root`, which is made by the first write. Removes temporary files of
    /// processes that died, told by their age of more than an hour.
    pub fn open(
        root: impl Into<PathBuf>,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
    ) -> tandem_types::Result<Self> {
        let root = root.into();
        let invalid = |why: &dyn fmt::Display| {
            tandem_types::Error::invalid(format!("store directory {}: {why}", root.display()))
        };
        let absolute = std::path::absolute(&root).map_err(|error| invalid(&error))?;
        if absolute.exists() && !absolute.is_dir() {
            return Err(invalid(&"is not a directory"));
        }
        let disk = Disk::new(absolute, chance);
        disk.sweep(clock.now_micros());
        Ok(Self { disk: Arc::new(disk) })
    }

    /// Syncs `dir` and the directories above it, unless there is no such directory.
    pub(crate) async fn sync_seen(&self, dir: &Path) -> Result<()> {
        let dir = dir.clone();
        self.blocking(move |disk| disk.sync_seen(&dir)).await
    }

    /// Runs file I/O where it may block. Once begun it runs to its end, also when the caller has
    /// gone: a dropped future never stops between two of its steps.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Disk>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let disk = self.disk.clone();
        tokio::task::spawn_blocking(move || {
            disk.check()?;
            work(&disk)
        })
        .await?
    }
}

impl fmt::Display for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.disk.root().display().fmt(f)
    }
}

#[async_trait]
impl ObjectStore for LocalStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let publish = match opts.mode {
            PutMode::Create => Publish::IfAbsent,
            PutMode::Overwrite => Publish::Replace,
            PutMode::Update(_) => return Err(not_implemented("put with PutMode::Update")),
        };
        if !opts.attributes.is_empty() {
            return Err(not_implemented("put with attributes"));
        }
        let location = location.clone();
        self.blocking(move |disk| disk.put(&location, &payload, publish)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        if !opts.attributes.is_empty() {
            return Err(not_implemented("put with attributes"));
        }
        let location = location.clone();
        let begun = self.blocking(move |disk| LocalUpload::begin(disk, location)).await?;
        Ok(Box::new(begun))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        // Most of what a node asks for is not there: the next commit, the next floor. To be told so by a directory that
        // is in memory costs less than the way to another thread and back.
        self.disk.check()?;
        self.disk.refuse_absent(location)?;
        let location = location.clone();
        self.blocking(move |disk| disk.get(&location, &options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[std::ops::Range<u64>]) -> Result<Vec<Bytes>> {
        let (location, ranges) = (location.clone(), ranges.to_vec());
        self.blocking(move |disk| disk.get_ranges(&location, &ranges)).await
    }

    /// Absent objects are deleted without an error, as on S3. Not synced: a deletion that a
    /// crash undoes is done again by who ordered it.
    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .map(move |location| {
                let store = store.clone();
                async move {
                    let location = location?;
                    store.blocking(move |disk| disk.delete(&location).map(|()| location)).await
                }
            })
            .buffered(8)
            .boxed()
    }

    /// Sorted by name.
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned().unwrap_or_default());
        async move {
            match store.blocking(move |disk| disk.walk(&prefix)).await {
                Ok(found) => stream::iter(found.into_iter().map(Ok)).left_stream(),
                Err(error) => stream::iter([Err(error)]).right_stream(),
            }
        }
        .flatten_stream()
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.cloned().unwrap_or_default();
        self.blocking(move |disk| disk.children(&prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let publish = match options.mode {
            CopyMode::Create => Publish::IfAbsent,
            CopyMode::Overwrite => Publish::Replace,
        };
        let (from, to) = (from.clone(), to.clone());
        self.blocking(move |disk| disk.copy(&from, &to, publish)).await
    }
}

fn not_implemented(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: "the local store".to_owned() }
}

#[cfg(test)]
mod tests;
