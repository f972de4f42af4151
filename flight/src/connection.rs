//! Connections, each with an id of its own, so that a session ends with its connection and is not
//! inherited by the next client from the same port.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::stream::{Stream, unfold};
use tandem_access::{Incoming, Wire};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::Connected;

/// Connections open at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;

/// A connection's number since the process started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionId(u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is to be done when a connection has ended.
pub(crate) type OnClose = Arc<dyn Fn(ConnectionId) + Send + Sync>;

/// An accepted connection.
pub(crate) struct Connection {
    stream: Wire,
    id: ConnectionId,
    on_close: OnClose,
    _permit: Option<OwnedSemaphorePermit>,
}

/// Accepts connections for ever.
pub(crate) fn accept(incoming: Incoming, on_close: OnClose) -> impl Stream<Item = io::Result<Connection>> {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let next_id = AtomicU64::new(1);
    unfold((incoming, next_id), move |(mut incoming, next_id)| {
        let (slots, on_close) = (slots.clone(), on_close.clone());
        async move {
            let permit = slots.acquire_owned().await.ok();
            let (stream, _) = incoming.accept().await;
            let id = ConnectionId(next_id.fetch_add(1, Ordering::Relaxed));
            Some((Ok(Connection { stream, id, on_close, _permit: permit }), (incoming, next_id)))
        }
    })
}

impl Drop for Connection {
    fn drop(&mut self) {
        (self.on_close)(self.id);
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionId;

    fn connect_info(&self) -> ConnectionId {
        self.id
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
