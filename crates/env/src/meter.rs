//! Counts every request that leaves for the store, by operation and outcome.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::retry::says_exists;

const REQUESTS: &str = "tandem_store_requests_total";

/// A store that counts what passes through it in `tandem_store_requests_total{op,outcome}`.
/// Parts of a multipart upload count as one `put`, when it is begun.
#[derive(Clone, Debug)]
pub(crate) struct Metered(pub Arc<dyn ObjectStore>);

fn count<T>(op: &'static str, answer: Result<T>) -> Result<T> {
    let outcome = match &answer {
        Ok(_) => "ok",
        Err(Error::NotFound { .. }) => "absent",
        Err(error) if says_exists(error) => "exists",
        Err(_) => "error",
    };
    metrics::counter!(REQUESTS, "op" => op, "outcome" => outcome).increment(1);
    answer
}

impl fmt::Display for Metered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Metered {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let op = if opts.mode == PutMode::Create { "create" } else { "put" };
        count(op, self.0.put_opts(location, payload, opts).await)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        count("put", self.0.put_multipart_opts(location, opts).await)
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let op = match (options.head, &options.range) {
            (true, _) => "head",
            (false, Some(_)) => "range",
            (false, None) => "get",
        };
        count(op, self.0.get_opts(location, options).await)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        count("range", self.0.get_ranges(location, ranges).await)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations).map(|deleted| count("delete", deleted)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        // One count for the walk: how many pages it takes is the library's affair.
        metrics::counter!(REQUESTS, "op" => "list", "outcome" => "ok").increment(1);
        self.0.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        metrics::counter!(REQUESTS, "op" => "list", "outcome" => "ok").increment(1);
        self.0.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        count("list", self.0.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        count("copy", self.0.copy_opts(from, to, options).await)
    }
}
