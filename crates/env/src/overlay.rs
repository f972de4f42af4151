//! A fork's store: its own objects, and behind them those of the database that it was forked from.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Directories whose objects a fork shares with its parent. Names in them are random and never used twice.
const SHARED: [&str; 2] = ["data/", "wal/"];

/// Reads of shared objects that `own` lacks are answered by `parent`; everything else is `own`'s, so that nothing is ever
/// written to the parent or deleted there.
#[derive(Clone, Debug)]
pub(crate) struct Overlay {
    pub own: Arc<dyn ObjectStore>,
    pub parent: Arc<dyn ObjectStore>,
}

impl Overlay {
    fn is_shared(location: &Path) -> bool {
        SHARED.iter().any(|dir| location.as_ref().starts_with(dir))
    }
}

impl fmt::Display for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} over {}", self.own, self.parent)
    }
}

#[async_trait]
impl ObjectStore for Overlay {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.own.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.own.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match self.own.get_opts(location, options.clone()).await {
            Err(Error::NotFound { .. }) if Self::is_shared(location) => {
                self.parent.get_opts(location, options).await
            }
            answer => answer,
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match self.own.get_ranges(location, ranges).await {
            Err(Error::NotFound { .. }) if Self::is_shared(location) => {
                self.parent.get_ranges(location, ranges).await
            }
            answer => answer,
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.own.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.own.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.own.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.own.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.own.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use object_store::{ObjectStoreExt, PutPayload};

    use super::*;

    #[tokio::test]
    async fn shared_objects_are_found_behind_and_nothing_is_written_there() {
        let own = Arc::new(InMemory::new());
        let parent = Arc::new(InMemory::new());
        let put = |text: &'static str| PutPayload::from_static(text.as_bytes());
        parent.put(&Path::from("data/1/x"), put("theirs")).await.unwrap();
        parent.put(&Path::from("wal/y"), put("theirs")).await.unwrap();
        parent.put(&Path::from("log/1"), put("theirs")).await.unwrap();
        let both = Overlay { own: own.clone(), parent: parent.clone() };
        let read = |path: &'static str| {
            let both = both.clone();
            async move { Ok::<_, Error>(both.get(&Path::from(path)).await?.bytes().await?.to_vec()) }
        };
        assert_eq!(read("data/1/x").await.unwrap(), b"theirs");
        assert_eq!(
            both.get_ranges(&Path::from("wal/y"), std::slice::from_ref(&(1..3))).await.unwrap()[0],
            "he"
        );
        assert!(matches!(read("log/1").await, Err(Error::NotFound { .. })), "logs are not shared");
        both.put(&Path::from("data/1/x"), put("ours")).await.unwrap();
        assert_eq!(read("data/1/x").await.unwrap(), b"ours");
        both.delete(&Path::from("data/1/x")).await.unwrap();
        assert_eq!(read("data/1/x").await.unwrap(), b"theirs");
        assert_eq!(parent.get(&Path::from("data/1/x")).await.unwrap().bytes().await.unwrap(), "theirs");
    }
}
