//! Accepting connections, with TLS or without.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tandem_env::{Clock, within};
use tandem_types::Result;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::tls::ServerTls;

/// Between two attempts to accept when the machine has run out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A client that has not finished its TLS handshake by then is no client.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Handshakes that go on at a time; more clients wait to be accepted.
const MAX_HANDSHAKES: usize = 256;

/// A listener whose connections are ready to be read, decrypted where that is needed.
#[derive(Debug)]
pub struct Incoming {
    listener: TcpListener,
    clock: Arc<dyn Clock>,
    acceptor: Option<Acceptor>,
    handshakes: JoinSet<Option<(Wire, SocketAddr)>>,
}

#[derive(Clone)]
struct Acceptor(TlsAcceptor);

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}

/// TLS for protocols whose clients ask for it on a connection that begins in the clear.
#[derive(Clone, Debug)]
pub struct TlsUpgrade(Acceptor);

impl TlsUpgrade {
    /// `protocols` are offered by TLS, such as `postgresql`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the certificate cannot be used.
    pub fn new(tls: &ServerTls, protocols: &[&str]) -> Result<Self> {
        Ok(Self(Acceptor(tls.acceptor(protocols)?)))
    }

    /// Waits for the client's handshake for as long as the caller does.
    ///
    /// # Errors
    ///
    /// What rustls says against the client.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<Wire> {
        let Self(Acceptor(acceptor)) = self;
        Ok(Wire::Tls(Box::new(acceptor.accept(stream).await?)))
    }
}

/// What happened first.
enum Event {
    Accepted(io::Result<(TcpStream, SocketAddr)>),
    Shaken(Option<(Wire, SocketAddr)>),
}

impl Incoming {
    /// `protocols` are offered by TLS, such as `h2`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the certificate cannot be used.
    pub fn new(
        listener: TcpListener,
        tls: Option<&ServerTls>,
        protocols: &[&str],
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let acceptor = tls.map(|tls| tls.acceptor(protocols)).transpose()?.map(Acceptor);
        Ok(Self { listener, clock, acceptor, handshakes: JoinSet::new() })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection. One that cannot be accepted is no reason to stop. Nothing is lost if this is dropped.
    pub async fn accept(&mut self) -> (Wire, SocketAddr) {
        loop {
            let event = tokio::select! {
                accepted = self.listener.accept(), if self.handshakes.len() < MAX_HANDSHAKES => {
                    Event::Accepted(accepted)
                }
                Some(shaken) = self.handshakes.join_next() => Event::Shaken(shaken.ok().flatten()),
            };
            match event {
                Event::Accepted(Ok((stream, peer))) => {
                    // Only latency suffers without it.
                    let _ = stream.set_nodelay(true);
                    match &self.acceptor {
                        None => return (Wire::Plain(stream), peer),
                        Some(Acceptor(acceptor)) => {
                            let (acceptor, clock) = (acceptor.clone(), self.clock.clone());
                            self.handshakes.spawn(shake(acceptor, clock, stream, peer));
                        }
                    }
                }
                Event::Accepted(Err(error)) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    self.clock.sleep(ACCEPT_PAUSE).await;
                }
                Event::Shaken(Some(ready)) => return ready,
                Event::Shaken(None) => {}
            }
        }
    }
}

async fn shake(
    acceptor: TlsAcceptor,
    clock: Arc<dyn Clock>,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<(Wire, SocketAddr)> {
    match within(clock.as_ref(), HANDSHAKE_TIME, acceptor.accept(stream)).await {
        Some(Ok(stream)) => Some((Wire::Tls(Box::new(stream)), peer)),
        // Scanners and plain clients: nothing that an operator has to act on.
        Some(Err(error)) => {
            tracing::debug!(%peer, %error, "a TLS handshake failed");
            None
        }
        None => {
            tracing::debug!(%peer, "a TLS handshake took too long");
            None
        }
    }
}

/// A connection, ready to be read.
#[derive(Debug)]
pub enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
