//! Several servers on one store.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tandem_client::Client;
use tandem_types::{Error, Result};

use crate::server::{NodeSpec, Server, ServerArgs};

/// What servers do by themselves, such as finding each other, they have done by then.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// How a follower hears of commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hearing {
    /// The node that it follows pushes them.
    Flight,
    /// It looks into the store.
    Polling,
}

impl Hearing {
    pub const ALL: [Self; 2] = [Self::Flight, Self::Polling];

    /// As figures name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flight => "over Flight",
            Self::Polling => "by polling",
        }
    }
}

/// A writer on an empty or existing store of `home`.
pub async fn writer(args: &ServerArgs, home: &Path) -> Result<Server> {
    Server::start_node(args, home, &NodeSpec::new("writer", &["--node-id", "writer"])).await
}

/// An empty follower of that writer.
pub async fn follower(args: &ServerArgs, home: &Path, writer: &Server, hearing: Hearing) -> Result<Server> {
    let upstream = match hearing {
        Hearing::Flight => writer.url(),
        Hearing::Polling => "store".to_owned(),
    };
    let options = ["--node-id", "follower", "--role", "replica", "--follow", &upstream];
    Server::start_node(args, home, &NodeSpec::new("follower", &options)).await
}

/// What a node says of itself; with a client that demands a seq, once the node has applied it.
pub async fn status(client: &Client) -> Result<Value> {
    let answers = client.action("tandem.Status", "").await?;
    let text = answers.first().ok_or_else(|| Error::internal("tandem.Status answered nothing"))?;
    serde_json::from_slice(text).map_err(|e| Error::internal(format!("tandem.Status is not readable: {e}")))
}

/// A number of [`status`].
pub async fn status_number(client: &Client, key: &str) -> Result<u64> {
    let missing = || Error::internal(format!("tandem.Status does not say {key:?}"));
    status(client).await?.get(key).and_then(Value::as_u64).ok_or_else(missing)
}

/// Waits until each of the servers says so of itself.
pub async fn until_all(servers: &[&Server], what: &str, said: impl Fn(&Value) -> bool) -> Result<()> {
    let started = Instant::now();
    loop {
        let mut all = true;
        for server in servers {
            all &= said(&status(&server.connect().await?).await?);
        }
        if all {
            return Ok(());
        }
        if started.elapsed() > SETTLED_WITHIN {
            return Err(Error::unavailable(format!("not within {SETTLED_WITHIN:?}: {what}")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A part of a measurement, given up when it takes too long.
pub async fn bounded<T>(limit: Duration, what: &str, part: impl Future<Output = Result<T>>) -> Result<T> {
    let given_up = |_| Error::unavailable(format!("{what} took longer than {limit:?}, given up"));
    tokio::time::timeout(limit, part).await.map_err(given_up)?
}
