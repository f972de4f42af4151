//! Flight and Flight SQL service: translation only.
//!
//! What this crate promises:
//!
//! - A statement that changes something runs exactly once, when its `FlightInfo` is asked for or its DoPut arrives, never
//!   in DoGet: clients do not wait for rows they do not need.
//! - The schema in a `FlightInfo`, in GetSchema, in a prepared statement and in the stream is the same one.
//! - What a header asks of a write or a read is done or refused, never left out: a token commits once, a level of
//!   acknowledgement is reached or the answer names the commit, a state that is demanded is seen.
//! - A ticket needs neither the session nor the prepared statement it came from, until it expires.
//! - Bytes of a client are checked before they are decoded; a request that fails, or panics, fails alone.
//! - Errors become gRPC codes in one table, and their sentences reach the client as they are.
//!
//! Words: a *ticket* stands for a planned query, or for a statement that already ran; a *handle* is the random text in
//! a ticket or the name of a prepared statement; a *session* is what a cookie, a bearer or a connection leads to.
//!
//! What it refuses to know: how a statement is planned, what a write may do, how anything is stored. It asks the
//! [`Engine`] and the database behind it, and translates the answers.

mod actions;
mod append;
mod auth;
mod catalog;
mod changes;
mod connection;
mod declared;
mod decode;
mod encode;
mod errors;
mod exchange;
mod expiring;
mod headers;
mod info;
mod ingest;
mod json_ticket;
mod messages;
mod prepared;
mod put;
mod query;
mod service;
mod sessions;
mod sql_info;
mod state;
mod transaction;
mod type_info;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use futures::future::{Either, select};
use tandem_access::{Access, Incoming};
use tandem_client::handover::SubmitService;
use tandem_client::tail::TailService;
use tandem_env::{Clock, SystemChance, SystemClock};
use tandem_sql::Engine;
use tandem_types::{Error, Result};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;

use crate::connection::{ConnectionId, accept};
use crate::service::Service;
use crate::state::State;

/// Bounds of the service.
#[derive(Clone, Debug)]
pub struct FlightConfig {
    /// Bytes of one message from a client.
    pub max_message_bytes: usize,
    /// How long a ticket lives after its last use.
    pub ticket_ttl: Duration,
    pub max_tickets: usize,
    /// How long a prepared statement lives after its last use.
    pub statement_idle: Duration,
    pub max_statements: usize,
    /// How long a session lives after its last request.
    pub session_idle: Duration,
    pub max_sessions: usize,
    /// Bytes of parameters bound to one statement.
    pub max_bound_bytes: usize,
    /// Transactions of one plain DoPut that are on their way at a time, and the bytes of their rows.
    pub put_batches_in_flight: usize,
    pub put_bytes_in_flight: usize,
    /// How long requests may go on after shutdown was asked for.
    pub drain: Duration,
    /// Whom it serves, and over which wire.
    pub access: Access,
}

impl Default for FlightConfig {
    fn default() -> Self {
        Self {
            max_message_bytes: 64 << 20,
            ticket_ttl: Duration::from_secs(600),
            max_tickets: 10_000,
            statement_idle: Duration::from_secs(3600),
            max_statements: 10_000,
            session_idle: Duration::from_secs(24 * 3600),
            max_sessions: 10_000,
            max_bound_bytes: 256 << 20,
            put_batches_in_flight: 64,
            put_bytes_in_flight: 32 << 20,
            drain: Duration::from_secs(10),
            access: Access::default(),
        }
    }
}

/// The node that serves.
#[derive(Clone)]
pub struct NodeInfo {
    /// For the response header `tandem-node`.
    pub node_id: String,
    /// What the action `tandem.Status` answers.
    pub status: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// What the node does for its followers; `None`: it cannot be followed.
    pub tail: Option<TailService>,
    /// How it commits for other nodes; `None`: it does not.
    pub submit: Option<SubmitService>,
}

impl fmt::Debug for NodeInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeInfo").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

/// Streams of one connection at a time.
const MAX_STREAMS: u32 = 1024;
/// Bytes of a request's headers.
const MAX_HEADER_BYTES: u32 = 64 << 10;
/// Bytes that a client may send ahead, on one stream and on all of its connection.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Batches are megabytes: with HTTP/2's usual frames of 16 KiB each is pieced together from a hundred.
const FRAME: u32 = 1 << 20;
/// A connection whose client does not answer a ping is closed.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How often what has expired is dropped although nobody asks.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Serves until `shutdown` resolves, then lets running requests finish for as long as the configuration allows.
///
/// # Errors
///
/// `Unavailable` if the listener cannot be served, `InvalidInput` if its certificate cannot be used.
pub async fn serve(
    listener: TcpListener,
    engine: Engine,
    node: NodeInfo,
    config: FlightConfig,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (max_message_bytes, drain, access) = (config.max_message_bytes, config.drain, config.access.clone());
    let incoming = Incoming::new(listener, access.tls.as_ref(), &["h2"], clock.clone())?;
    let state = Arc::new(State::new(engine, node, config, clock.clone(), Arc::new(SystemChance)));
    let service = FlightServiceServer::new(Service(state.clone()))
        .max_decoding_message_size(max_message_bytes)
        .max_encoding_message_size(usize::MAX)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd);

    let closed = state.clone();
    let on_close = Arc::new(move |id: ConnectionId| closed.sessions.connection_closed(id));
    let (stopping, stopped) = oneshot::channel::<()>();
    let endless = state.clone();
    let server = Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(auth::layer(access, clock.clone()))
        .add_service(service)
        .serve_with_incoming_shutdown(accept(incoming, on_close), async move {
            shutdown.await;
            endless.stopping.send_replace(true);
            // Nobody listens when the server has ended by itself.
            let _ = stopping.send(());
        });
    let deadline = async {
        // An error means that the server is gone, and with it this future.
        let _ = stopped.await;
        clock.sleep(drain).await;
    };
    let sweeping = async {
        loop {
            clock.sleep(SWEEP_INTERVAL).await;
            state.sweep();
        }
    };
    let (server, deadline, sweeping) =
        (std::pin::pin!(server), std::pin::pin!(deadline), std::pin::pin!(sweeping));
    match select(server, select(deadline, sweeping)).await {
        Either::Left((served, _)) => {
            served.map_err(|e| Error::unavailable(format!("the Flight service failed: {e}")))
        }
        Either::Right(_) => {
            tracing::warn!(
                ?drain,
                "Flight requests are still running after the time to finish; leaving them"
            );
            Ok(())
        }
    }
}
