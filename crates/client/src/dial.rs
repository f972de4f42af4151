//! Connecting to one address, once.
//!
//! The library's channels connect again by themselves. Here they must not: a session belongs to its connection, and what
//! was set in it would be lost without a word. So a channel's second attempt to connect fails, its caller sees the loss,
//! and [`links`](crate::links) makes a new channel and a new session.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tandem_access::ClientTls;
use tandem_types::{Error, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::address::Address;
use crate::status::deepest;

/// Ports of addresses that name none.
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A server that is silent this long, while it owes an answer, is asked whether it is still there …
const PING_AFTER: Duration = Duration::from_secs(5);
/// … and taken for gone when it does not say so within this. A stopped process keeps its connections open.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Flow-control windows: large enough that a batch of 4 MiB does not wait for a round trip.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Connects to a server; the channel is of no use any more once its connection is lost.
pub(crate) async fn dial(address: &Address, tls: Option<&ClientTls>) -> Result<Channel> {
    let tls = match (address.tls, tls) {
        (false, _) => None,
        (true, Some(tls)) => Some(tls.clone()),
        (true, None) => Some(ClientTls::of_machine()?),
    };
    let uri = |scheme: &str| -> Result<Uri> {
        let text = format!("{scheme}://{}", address.authority);
        text.parse().map_err(|e| Error::invalid(format!("the address {:?} is not valid: {e}", address.url)))
    };
    let origin = uri(if address.tls { "https" } else { "http" })?;
    let endpoint = Endpoint::from(uri("http")?)
        .origin(origin)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let port = address.port().unwrap_or(if address.tls { HTTPS_PORT } else { HTTP_PORT });
    let once = Once { tls, host: address.host().to_owned(), port, used: false };
    endpoint
        .connect_with_connector(once)
        .await
        .map_err(|e| Error::unavailable(format!("{}: {}", address.url, deepest(&e))))
}

/// What a channel says when it is used after its connection was lost: the call was not sent.
#[derive(Debug)]
pub(crate) struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection was closed")
    }
}

impl std::error::Error for Closed {}

/// Connects at the first call, and at no other.
struct Once {
    tls: Option<ClientTls>,
    host: String,
    port: u16,
    used: bool,
}

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

impl Service<Uri> for Once {
    type Response = TokioIo<Box<dyn Wire>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        if std::mem::replace(&mut self.used, true) {
            return Box::pin(async { Err(io::Error::new(io::ErrorKind::NotConnected, Closed)) });
        }
        let (tls, host, port) = (self.tls.clone(), self.host.clone(), self.port);
        Box::pin(async move {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            // Only latency suffers without it.
            let _ = stream.set_nodelay(true);
            let wire: Box<dyn Wire> = match tls {
                Some(tls) => Box::new(tls.connect(&host, stream).await?),
                None => Box::new(stream),
            };
            Ok(TokioIo::new(wire))
        })
    }
}
