//! Plain DoPut: every batch is a transaction of its own, acknowledged once durable.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow_flight::PutResult;
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;
use tandem_types::{Error, Result};
use tokio::sync::Semaphore;

use crate::split::{MESSAGE_BYTES_MAX, split_batch};
use crate::upload::Upload;

/// One acknowledged batch of a put.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PutAck {
    /// The batch's number as sent, from 0. Large batches are cut before they are sent, so a source's
    /// batch may have several numbers.
    pub batch: u64,
    /// The commit that holds the batch.
    pub seq: u64,
    /// Rows committed.
    pub rows: u64,
    /// Whether an earlier request with the same token had already committed it.
    pub duplicate: bool,
}

/// A put under way: a stream of acknowledgements, in the order of the batches.
///
/// Only a bounded number of batches is unacknowledged at any time, so a caller who stops reading stops
/// the sending. Dropping it cancels the call.
pub struct PutSession {
    upload: Upload,
    window: Arc<Semaphore>,
}

impl PutSession {
    pub(crate) fn new(upload: Upload, window: Arc<Semaphore>) -> Self {
        Self { upload, window }
    }

    /// Reads all acknowledgements; returns the rows committed.
    pub async fn finish(mut self) -> Result<u64> {
        let mut rows = 0;
        while let Some(ack) = self.next().await {
            rows += ack?.rows;
        }
        Ok(rows)
    }

    fn ack(&self, result: &PutResult) -> Result<PutAck> {
        let ack: PutAck = serde_json::from_slice(&result.app_metadata)
            .map_err(|e| Error::internal(format!("the server's acknowledgement is not readable: {e}")))?;
        self.window.add_permits(1);
        Ok(ack)
    }
}

impl Stream for PutSession {
    type Item = Result<PutAck>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.upload.answers.poll_next_unpin(cx).map(|answer| {
            answer.map(|result| match result {
                Ok(result) => self.ack(&result),
                Err(status) => Err(self.upload.source_error.explain(&status)),
            })
        })
    }
}

/// Cuts batches to message size.
pub(crate) fn in_messages<S>(batches: S) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static
where
    S: Stream<Item = Result<RecordBatch>> + Send + 'static,
{
    batches.flat_map(|batch| {
        let pieces = match batch {
            Ok(batch) => split_batch(&batch, MESSAGE_BYTES_MAX).into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        stream::iter(pieces)
    })
}

/// Lets a batch pass only when fewer than the window's are unacknowledged.
pub(crate) fn gated<S>(
    batches: S,
    window: Arc<Semaphore>,
) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static
where
    S: Stream<Item = Result<RecordBatch>> + Send + 'static,
{
    batches.then(move |batch| {
        let window = window.clone();
        async move {
            let permit = window
                .acquire_owned()
                .await
                .map_err(|_| Error::internal("the window of a put was closed while it ran"))?;
            // The acknowledgement gives it back.
            permit.forget();
            batch
        }
    })
}
