//! The client itself: where to connect and what goes with every call.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_client::FlightServiceClient;
use bytes::Bytes;
use futures::TryStreamExt;
use tandem_access::ClientTls;
use tandem_env::{SystemChance, SystemClock};
use tandem_types::{Error, ErrorKind, Result};
use tonic::Request;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::Channel;

use crate::links::{Link, Links, OnLinkEvent};
use crate::retry::Outside;
use crate::shared::Shared;
use crate::status::Failure;

/// The largest message that is accepted from a server.
const RECEIVE_BYTES_MAX: usize = 256 << 20;
/// Unacknowledged batches of a put.
const WINDOW_BATCHES: usize = 16;
/// Bytes of an ingest that are kept so that it can be sent again.
const REPLAY_BYTES: usize = 64 << 20;
/// How long a call is tried again unless told otherwise.
pub const RETRY_FOR: Duration = Duration::from_secs(30);
const TOKEN_BYTES_MAX: usize = 128;

pub(crate) const TOKEN_HEADER: &str = "tandem-token";
const MIN_SEQ_HEADER: &str = "tandem-min-seq";
const AUTHORIZATION: &str = "authorization";

/// The actions that may be carried out twice: they report, or do upkeep that is waste when done again, never damage.
const REPEATABLE_ACTIONS: [&str; 4] =
    ["tandem.Status", "tandem.Compact", "tandem.Checkpoint", "tandem.Collect"];

/// How to connect.
#[derive(Clone)]
pub struct ConnectOptions {
    /// Whom to believe at `grpc+tls://` addresses; `None`: whom the machine believes.
    pub tls: Option<ClientTls>,
    /// The access token to show to the server.
    pub access_token: Option<String>,
    /// How long after its first failure a call is tried again, at all addresses in turn. Zero: never. A call that is
    /// answered late is not bounded by it.
    pub retry_for: Duration,
    /// Told when the connection changes.
    pub on_event: Option<OnLinkEvent>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self { tls: None, access_token: None, retry_for: RETRY_FOR, on_event: None }
    }
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("tls", &self.tls)
            .field("access_token", &self.access_token.as_ref().map(|_| "…"))
            .field("retry_for", &self.retry_for)
            .finish_non_exhaustive()
    }
}

/// A connection to one of several servers of a database. Clones share it, and with it the session.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    pub(crate) headers: MetadataMap,
    pub(crate) window: usize,
    pub(crate) replay_bytes: usize,
}

impl Client {
    /// Connects to the first address of `URL[,URL…]` that can be reached.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if one of them is no address, `Unavailable` if none can be reached now.
    pub async fn connect(urls: &str) -> Result<Self> {
        Self::connect_with(urls, ConnectOptions::default()).await
    }

    /// As [`connect`](Self::connect), with options.
    ///
    /// # Errors
    ///
    /// The same.
    pub async fn connect_with(urls: &str, options: ConnectOptions) -> Result<Self> {
        let ConnectOptions { tls, access_token, retry_for, on_event } = options;
        let mut headers = MetadataMap::new();
        if let Some(token) = access_token {
            headers.insert(AUTHORIZATION, authorization(&token)?);
        }
        let links = Links::new(urls, tls, on_event)?;
        let outside = Outside { clock: Arc::new(SystemClock), chance: Arc::new(SystemChance), retry_for };
        let shared = Arc::new(Shared::new(links, outside));
        let client = Self { shared, headers, window: WINDOW_BATCHES, replay_bytes: REPLAY_BYTES };
        client.shared.links.link(&client.headers).await?;
        Ok(client)
    }

    /// The address in use; empty while there is none.
    pub fn url(&self) -> String {
        self.shared.links.present().map_or_else(String::new, |link| link.url.to_string())
    }

    /// Sends a header with every call, such as `tandem-schema: add`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it cannot be sent.
    pub fn with_header(mut self, key: &str, value: &str) -> Result<Self> {
        let key = AsciiMetadataKey::from_bytes(key.as_bytes())
            .map_err(|_| Error::invalid(format!("{key:?} is not a valid header name")))?;
        let value = AsciiMetadataValue::try_from(value)
            .map_err(|_| Error::invalid(format!("header {key:?} has a value that cannot be sent")))?;
        self.headers.insert(key, value);
        Ok(self)
    }

    /// Makes writes under this token instead of one that the client makes up; batch `i` of a put under `TOKEN#i`. A
    /// token commits one write: take a client with another token for the next.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the token is empty, longer than 128 bytes, or not ASCII.
    pub fn with_token(self, token: &str) -> Result<Self> {
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
            return Err(Error::invalid(format!(
                "a token has 1 to {TOKEN_BYTES_MAX} bytes, this one has {}",
                token.len()
            )));
        }
        self.with_header(TOKEN_HEADER, token)
    }

    /// Makes reads wait until the node has applied this commit.
    ///
    /// # Errors
    ///
    /// None that can happen; the header is a number.
    pub fn with_min_seq(self, seq: u64) -> Result<Self> {
        self.with_header(MIN_SEQ_HEADER, &seq.to_string())
    }

    /// Bounds the unacknowledged batches of a [`Client::put`]; at least 1.
    #[must_use]
    pub fn with_window(mut self, batches: usize) -> Self {
        self.window = batches.max(1);
        self
    }

    /// Bounds the bytes of a [`Client::ingest`] that are kept in memory so that it can be sent again.
    #[must_use]
    pub fn with_replay_bytes(mut self, bytes: usize) -> Self {
        self.replay_bytes = bytes;
        self
    }

    /// Runs a named action, such as `tandem.Status`; returns the bodies of its results. One that must not be carried out
    /// twice is tried again only if it was not sent.
    ///
    /// # Errors
    ///
    /// What the server answers, or `Unavailable`.
    pub async fn action(&self, name: &str, body: impl Into<Bytes>) -> Result<Vec<Bytes>> {
        let body = body.into();
        let mut retry = self.shared.retry();
        loop {
            let link = retry.link(&self.headers).await?;
            match self.act(&link, name, body.clone()).await {
                Ok(answers) => return Ok(answers),
                Err(failure) if failure.lost && !REPEATABLE_ACTIONS.contains(&name) => {
                    self.shared.links.leave(&link, &failure.error);
                    return Err(failure.error.context(format!("{name} may have been carried out or not")));
                }
                Err(failure) => retry.failed(&link, failure)?,
            }
        }
    }

    async fn act(&self, link: &Link, name: &str, body: Bytes) -> Result<Vec<Bytes>, Failure> {
        let action = arrow_flight::Action { r#type: name.to_owned(), body };
        let answers = service_of(link).do_action(self.request(action)).await?.into_inner();
        Ok(answers.map_ok(|r| r.body).try_collect().await?)
    }

    /// The service at the address in use, for calls that are not tried again here.
    pub(crate) async fn service(&self) -> Result<FlightServiceClient<Channel>> {
        Ok(service_of(&self.shared.links.link(&self.headers).await?))
    }

    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.headers.clone();
        request
    }

    /// The headers of a write: these, and its token.
    pub(crate) fn write_headers(&self, token: &str) -> Result<MetadataMap> {
        let mut headers = self.headers.clone();
        let value = AsciiMetadataValue::try_from(token)
            .map_err(|_| Error::invalid(format!("the token {token:?} cannot be sent in a header")))?;
        headers.insert(TOKEN_HEADER, value);
        Ok(headers)
    }

    /// The token of a write: what the caller said, else a new one.
    pub(crate) fn token(&self) -> String {
        let said = self.headers.get(TOKEN_HEADER).and_then(|t| t.to_str().ok());
        said.map_or_else(|| self.shared.next_token(), str::to_owned)
    }

    /// Adds what a read over this link has to demand; returns it.
    pub(crate) fn demand(&self, headers: &mut MetadataMap, link: &Link) -> Option<u64> {
        let seq = self.shared.min_seq(link)?;
        let said = headers.get(MIN_SEQ_HEADER).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        let seq = seq.max(said.unwrap_or_default());
        headers.insert(MIN_SEQ_HEADER, AsciiMetadataValue::from(seq));
        Some(seq)
    }
}

fn authorization(token: &str) -> Result<AsciiMetadataValue> {
    let bad = || {
        Error::invalid("the access token has characters that cannot be sent: it is letters, digits and signs")
    };
    let token = token.trim();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(bad());
    }
    let mut value = AsciiMetadataValue::try_from(format!("Bearer {token}")).map_err(|_| bad())?;
    // Kept out of logs, and out of the tables that compress headers.
    value.set_sensitive(true);
    Ok(value)
}

pub(crate) fn service_of(link: &Link) -> FlightServiceClient<Channel> {
    FlightServiceClient::new(link.channel.clone()).max_decoding_message_size(RECEIVE_BYTES_MAX)
}

/// Says of a write's failure what is known of it.
pub(crate) fn of_write(error: Error, maybe_done: bool, token: &str) -> Error {
    match error.kind() {
        _ if !maybe_done => return error,
        // These say what became of the token.
        ErrorKind::TokenReused | ErrorKind::QuorumTimeout => return error,
        // Whoever refuses speaks for its own moment: an earlier try, on a node that cannot answer now, may still be
        // committed in another.
        _ => {}
    }
    Error::outcome_unknown(format!(
        "{}; whether it was committed is not known: the same write under the token {token:?} cannot be committed twice",
        error.message()
    ))
}
