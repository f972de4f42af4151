//! What all connections share, and how they are accepted.

use std::sync::Arc;
use std::time::Duration;

use tandem_access::{Access, TlsUpgrade};
use tandem_env::{Chance, Clock, SystemChance, SystemClock, within};
use tandem_sql::Engine;
use tandem_types::{Error, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::cancel::Cancels;
use crate::catalog::Catalog;
use crate::connection::Connection;
use crate::errors::Failure;
use crate::startup::{self, Client};

/// Limits of the service.
#[derive(Clone, Debug)]
pub struct PgConfig {
    /// Largest message of a client.
    pub max_message_bytes: usize,
    /// Bytes of rows that one `COPY … FROM STDIN` may send: they are held until they are committed.
    pub max_copy_bytes: usize,
    pub max_connections: usize,
    /// Connections whose clients have not shown yet who they are.
    pub max_starting: usize,
    /// How long a client may take to do so.
    pub startup_time: Duration,
    /// Prepared statements and portals of one connection: of each kind so many, and so many bytes of texts and of values.
    pub max_statements: usize,
    pub max_statements_bytes: usize,
    /// How long statements may go on after shutdown was asked for.
    pub drain: Duration,
    /// Whom it serves, and over which wire.
    pub access: Access,
}

impl Default for PgConfig {
    fn default() -> Self {
        Self {
            max_message_bytes: 64 << 20,
            max_copy_bytes: 256 << 20,
            max_connections: 1_000,
            max_starting: 100,
            startup_time: Duration::from_secs(30),
            max_statements: 1_000,
            max_statements_bytes: 128 << 20,
            drain: Duration::from_secs(10),
            access: Access::default(),
        }
    }
}

/// Between two attempts to accept when the machine has run out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What all connections share.
pub(crate) struct Server {
    pub engine: Engine,
    pub config: PgConfig,
    pub access: Access,
    pub tls: Option<TlsUpgrade>,
    pub cancels: Arc<Cancels>,
    pub catalog: Catalog,
    pub clock: Arc<dyn Clock>,
    pub chance: Arc<dyn Chance>,
    pub stopping: watch::Sender<bool>,
    connections: Arc<Semaphore>,
    starting: Arc<Semaphore>,
}

impl Server {
    pub fn new(engine: Engine, config: PgConfig) -> Result<Self> {
        let access = config.access.clone();
        let tls = access.tls.as_ref().map(|tls| TlsUpgrade::new(tls, &["postgresql"])).transpose()?;
        let chance: Arc<dyn Chance> = Arc::new(SystemChance);
        Ok(Self {
            catalog: Catalog::new()?,
            cancels: Arc::new(Cancels::new(chance.clone())),
            clock: Arc::new(SystemClock),
            stopping: watch::Sender::new(false),
            connections: Arc::new(Semaphore::new(config.max_connections)),
            starting: Arc::new(Semaphore::new(config.max_starting)),
            engine,
            config,
            access,
            tls,
            chance,
        })
    }

    /// From the first byte of a connection to its last.
    async fn converse(self: Arc<Self>, stream: TcpStream, starting: OwnedSemaphorePermit) {
        // Only latency suffers without it.
        let _ = stream.set_nodelay(true);
        let begun =
            within(self.clock.as_ref(), self.config.startup_time, startup::begin(&self, stream)).await;
        drop(starting);
        let Some(Ok(Client { mut wire, grant, parameters, ahead })) = begun else { return };
        let Ok(_connection) = self.connections.clone().try_acquire_owned() else {
            let message =
                format!("{} clients are connected, and more are not served", self.config.max_connections);
            startup::refuse(&mut wire, Failure::new("53300", Error::overloaded(message))).await;
            return;
        };
        Box::pin(Connection::new(self, wire, grant, ahead).run(parameters)).await;
    }
}

/// Serves until `shutdown` resolves, then lets running statements finish for as long as the configuration allows.
///
/// # Errors
///
/// `InvalidInput` if the certificate cannot be used, `Internal` if threads cannot be had.
pub async fn serve(
    listener: TcpListener,
    engine: Engine,
    config: PgConfig,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    let server = Arc::new(Server::new(engine, config)?);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match server.starting.clone().try_acquire_owned() {
                    Ok(permit) => {
                        connections.spawn(server.clone().converse(stream, permit));
                    }
                    Err(_) => tracing::debug!(%peer, "too many PostgreSQL clients are starting: one is turned away"),
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    server.clock.sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next() => report(ended),
        }
    }
    drop(listener);
    server.stopping.send_replace(true);
    let drained = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if within(server.clock.as_ref(), server.config.drain, drained).await.is_none() {
        tracing::warn!("PostgreSQL statements are still running after the time to finish; leaving them");
    }
    Ok(())
}

/// A connection that panics ends alone.
fn report(ended: std::result::Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a PostgreSQL connection failed by a fault of the server");
    }
}
