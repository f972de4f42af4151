//! Requests on their way to the commit task, bounded in bytes.

use std::sync::Arc;

use bytes::Bytes;
use tandem_manifest::Intent;
use tandem_segment::DecodedSection;
use tandem_types::{Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::Committed;

/// Costs of a request beside its sections, so that a flood of empty ones is bounded too.
const REQUEST_BYTES: usize = 4 << 10;

/// One transaction that waits.
#[derive(Debug)]
pub(crate) struct Request {
    pub intent: Intent,
    /// One per section of the intent's appends, in order.
    pub bodies: Vec<SectionBody>,
    /// The commit task mints a token for it.
    pub minted: bool,
    /// Handed over by another node; then the log's age when it was. It is committed here or not at all.
    pub handed: Option<i64>,
    pub reply: oneshot::Sender<Result<Answer>>,
}

/// A section's bytes, and its rows for readers here.
#[derive(Clone, Debug)]
pub(crate) struct SectionBody {
    /// Empty if the section lies in a segment.
    pub chunks: Vec<Bytes>,
    pub rows: Option<Arc<DecodedSection>>,
}

/// What became of a request. The outer `Result` says that nobody knows, or that the node stopped.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Committed(Committed),
    Refused(Error),
    /// Prepare the rows again on the newest state.
    Recast(Error),
}

impl Request {
    /// Bytes that ride in the commit.
    pub fn inline_bytes(&self) -> u64 {
        self.bodies.iter().flat_map(|body| &body.chunks).map(|chunk| chunk.len() as u64).sum()
    }
}

/// A request with the share of the queue that it holds until it is answered.
pub(crate) struct Admitted {
    pub request: Request,
    /// Of the first of a bundle: the share of all of them.
    pub _share: Option<OwnedSemaphorePermit>,
}

/// Requests that are committed together or not at all, in this order; most are alone.
pub(crate) struct Bundle(pub Vec<Admitted>);

impl Bundle {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Bytes that ride in the commit.
    pub fn inline_bytes(&self) -> u64 {
        self.0.iter().map(|admitted| admitted.request.inline_bytes()).sum()
    }
}

/// The sending end.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    bytes: Arc<Semaphore>,
    capacity: usize,
    queue: mpsc::UnboundedSender<Bundle>,
}

impl Admission {
    pub fn new(capacity: usize) -> (Self, mpsc::UnboundedReceiver<Bundle>) {
        let capacity = capacity.clamp(REQUEST_BYTES, u32::MAX as usize >> 3);
        // The semaphore bounds what the channel holds.
        let (queue, requests) = mpsc::unbounded_channel();
        (Self { bytes: Arc::new(Semaphore::new(capacity)), capacity, queue }, requests)
    }

    pub fn is_open(&self) -> bool {
        !self.queue.is_closed()
    }

    /// Waits for room. An error means that nobody takes requests any more.
    pub async fn send(&self, request: Request) -> Result<(), Closed> {
        self.send_bundle(vec![request]).await
    }

    /// As [`Admission::send`], for requests that belong together.
    pub async fn send_bundle(&self, requests: Vec<Request>) -> Result<(), Closed> {
        let cost = requests.iter().fold(0usize, |sum, request| {
            let inline = usize::try_from(request.inline_bytes()).unwrap_or(usize::MAX);
            sum.saturating_add(inline).saturating_add(REQUEST_BYTES)
        });
        let cost = u32::try_from(cost.min(self.capacity)).map_err(|_| Closed)?;
        let mut share = Some(self.bytes.clone().acquire_many_owned(cost).await.map_err(|_| Closed)?);
        let admitted = requests.into_iter().map(|request| Admitted { request, _share: share.take() });
        self.queue.send(Bundle(admitted.collect())).map_err(|_| Closed)
    }
}

/// The commit task has ended.
#[derive(Debug)]
pub(crate) struct Closed;
