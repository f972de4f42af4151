//! The log as it grows, pushed from node to node.
//!
//! One DoExchange per upstream. The follower says who it is and what it has applied; the upstream pushes each commit that
//! it has applied itself (so it was created and checked), and in between how long the log is; the follower says what it,
//! and who follows *it*, have applied. It only makes followers faster: the store decides what the log is, and whoever
//! hears nothing here reads there.
//!
//! The values here are what both ends speak of; how they look in messages is [`wire`]'s.

mod wire;

use arrow_flight::FlightData;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tandem_types::{DatabaseId, Error, Result, Seq, WriterId};

use crate::{Client, error_from_status};

/// The path of a DoExchange that follows.
pub const TAIL_PATH: [&str; 3] = ["_tandem", "v1", "tail"];

/// Who follows, and from where on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follow {
    pub database: DatabaseId,
    /// The newest commit that the follower has applied, and the hash of its header.
    pub applied: Seq,
    pub header_hash: [u8; 32],
    pub node_id: String,
    /// Of the follower's process.
    pub incarnation: WriterId,
    /// Where the follower itself can be reached, if it can.
    pub address: Option<String>,
    /// Whether it never writes.
    pub replica: bool,
    pub scope: Scope,
}

/// Which commits are to be pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of them, in order, without a gap.
    All,
    /// Those that the upstream made itself, from now on: writers that follow each other hear of each commit once.
    Own,
    /// None, only how long the log is: for a follower that is kept behind.
    Heads,
}

/// What an upstream says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Push {
    Commit {
        seq: Seq,
        /// The object as it is stored, from its first byte; up to the end of its header, or whole.
        object: Bytes,
        whole: bool,
    },
    /// The newest commit that the upstream has applied. Said at least every [`HEAD_INTERVAL`].
    Head(Seq),
}

/// An upstream that says nothing for longer than a few of these is taken for gone.
pub const HEAD_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);

/// What processes have applied: the follower itself, and those that follow it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub applied: Vec<(WriterId, Seq)>,
}

/// What a service does for a follower: given who it is and what it reports, the pushes.
pub type TailService = std::sync::Arc<
    dyn Fn(Follow, BoxStream<'static, Result<Progress>>) -> Result<BoxStream<'static, Result<Push>>>
        + Send
        + Sync,
>;

/// Begins to follow the node that the client is connected to. `progress` is sent as it comes; the call ends with it.
pub async fn follow(
    client: &Client,
    follow: &Follow,
    progress: impl Stream<Item = Progress> + Send + 'static,
) -> Result<BoxStream<'static, Result<Push>>> {
    let first = follow.to_message();
    let messages =
        futures::stream::once(async move { first }).chain(progress.map(|progress| progress.to_message()));
    let exchange = client.service().await?.do_exchange(client.request(messages)).await;
    let pushed = exchange.map_err(|status| error_from_status(&status))?.into_inner();
    let decoded = pushed.map(|message| match message {
        Ok(message) => Push::from_message(message),
        Err(status) => Err(error_from_status(&status)),
    });
    Ok(decoded.boxed())
}

/// Whether a DoExchange's first message asks to follow.
pub fn asks_to_follow(first: &FlightData) -> bool {
    first.flight_descriptor.as_ref().is_some_and(|d| d.path.iter().eq(TAIL_PATH.iter()))
}

fn garbled(what: &str) -> Error {
    Error::invalid(format!("{what} of a node is not readable: it speaks another version of the protocol"))
}
