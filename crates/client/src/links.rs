//! The connection in use, and which address comes next when it is lost.
//!
//! All clones of a client share it. A *link* is one connection and its session; each has a generation, so that the same
//! loss, seen by several calls at once, is acted on once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow_flight::FlightDescriptor;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};
use prost::Message;
use tandem_access::ClientTls;
use tandem_types::{Error, Result};
use tonic::Request;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;

use crate::address::Address;
use crate::dial::dial;
use crate::statement::Setting;
use crate::status::error_from_status;

/// A writer that nodes named is remembered, but not any number of them.
const ADDRESSES_MAX: usize = 64;

/// What happens to a client's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// The server of `url` is left, for what it said or because it cannot be reached any more; calls are tried again.
    Left { url: String, why: String },
    /// Calls go to `url` now. Its session is a new one, with the old one's settings.
    Entered { url: String },
}

/// Told of events, from any thread.
pub type OnLinkEvent = Arc<dyn Fn(&LinkEvent) + Send + Sync>;

/// One connection and its session.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) channel: Channel,
    pub(crate) url: Arc<str>,
    pub(crate) generation: u64,
}

pub(crate) struct Links {
    tls: Option<ClientTls>,
    on_event: Option<OnLinkEvent>,
    state: Mutex<State>,
    /// Held by whoever connects: one is enough.
    connecting: tokio::sync::Mutex<()>,
}

struct State {
    addresses: Vec<Address>,
    /// Where the next search begins.
    next: usize,
    link: Option<Link>,
    generation: u64,
    /// Statements that bring a new session to where the old one was, by the option they set.
    settings: BTreeMap<String, (u64, String)>,
    settings_made: u64,
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Links")
            .field("addresses", &state.addresses)
            .field("link", &state.link)
            .finish_non_exhaustive()
    }
}

impl Links {
    pub(crate) fn new(urls: &str, tls: Option<ClientTls>, on_event: Option<OnLinkEvent>) -> Result<Self> {
        let state = State {
            addresses: Address::parse_all(urls)?,
            next: 0,
            link: None,
            generation: 0,
            settings: BTreeMap::new(),
            settings_made: 0,
        };
        Ok(Self { tls, on_event, state: Mutex::new(state), connecting: tokio::sync::Mutex::default() })
    }

    /// The link in use, if it is not known to be lost.
    pub(crate) fn present(&self) -> Option<Link> {
        self.state().link.clone()
    }

    /// The addresses known.
    pub(crate) fn count(&self) -> usize {
        self.state().addresses.len()
    }

    /// The link in use, or a new one to the first address that answers, each tried once.
    ///
    /// # Errors
    ///
    /// `Unavailable` with what each address said.
    pub(crate) async fn link(&self, headers: &MetadataMap) -> Result<Link> {
        if let Some(link) = self.present() {
            return Ok(link);
        }
        let _connecting = self.connecting.lock().await;
        if let Some(link) = self.present() {
            return Ok(link);
        }
        let mut failures = Vec::new();
        for (place, address) in self.in_turn() {
            match self.enter(&address, headers).await {
                Ok(channel) => return Ok(self.entered(place, &address, channel)),
                // Who is turned away at one door is better told so than led to the next.
                Err(error) if error.kind() != tandem_types::ErrorKind::Unavailable => return Err(error),
                Err(error) => failures.push(error.message().to_owned()),
            }
        }
        Err(Error::unavailable(format!("cannot reach a server at {}", failures.join("; "))))
    }

    /// Connects and makes the session what the last one was.
    async fn enter(&self, address: &Address, headers: &MetadataMap) -> Result<Channel> {
        let channel = dial(address, self.tls.as_ref()).await?;
        let mut settings: Vec<(u64, String)> = self.state().settings.values().cloned().collect();
        // In the order in which they were made: one may rest on another.
        settings.sort();
        for (_, sql) in settings {
            let command = CommandStatementQuery { query: sql.clone(), transaction_id: None };
            let mut request = Request::new(FlightDescriptor::new_cmd(command.as_any().encode_to_vec()));
            *request.metadata_mut() = headers.clone();
            FlightServiceClient::new(channel.clone()).get_flight_info(request).await.map_err(|status| {
                let error = error_from_status(&status);
                // Another address may do better, for one that is behind does not know a new schema yet.
                Error::unavailable(format!("{}: cannot repeat {sql:?}: {error}", address.url))
            })?;
        }
        Ok(channel)
    }

    fn in_turn(&self) -> Vec<(usize, Address)> {
        let state = self.state();
        let all = state.addresses.iter().cloned().enumerate();
        let (before, from): (Vec<_>, Vec<_>) = all.partition(|(place, _)| *place < state.next);
        from.into_iter().chain(before).collect()
    }

    fn entered(&self, place: usize, address: &Address, channel: Channel) -> Link {
        let mut state = self.state();
        let is_first = state.generation == 0;
        state.generation += 1;
        state.next = place;
        let link = Link { channel, url: address.url.as_str().into(), generation: state.generation };
        state.link = Some(link.clone());
        drop(state);
        if !is_first {
            self.tell(&LinkEvent::Entered { url: address.url.clone() });
        }
        link
    }

    /// Leaves a link, for the next address.
    pub(crate) fn leave(&self, link: &Link, why: &Error) {
        let mut state = self.state();
        if state.link.as_ref().is_none_or(|l| l.generation != link.generation) {
            return;
        }
        state.link = None;
        state.next = (state.next + 1) % state.addresses.len().max(1);
        drop(state);
        self.tell(&LinkEvent::Left { url: link.url.to_string(), why: why.message().to_owned() });
    }

    /// Leaves a link, for the first of the writers' addresses, which are remembered.
    pub(crate) fn leave_for(&self, link: &Link, writers: &str, why: &Error) {
        let mut state = self.state();
        if state.link.as_ref().is_none_or(|l| l.generation != link.generation) {
            return;
        }
        // Most wanted last, so that `next` ends at the first. A name that is no address is the server's mistake.
        let named = Address::parse_all(writers).unwrap_or_default();
        let mut next = None;
        for address in named.into_iter().rev() {
            let known = state.addresses.iter().position(|a| a.is_same(&address));
            let here = known == Some(state.next);
            let place = known.unwrap_or(state.addresses.len());
            if known.is_none() {
                if state.addresses.len() >= ADDRESSES_MAX {
                    continue;
                }
                state.addresses.push(address);
            }
            // A node that names itself and refuses is no better asked again at once.
            if !here {
                next = Some(place);
            }
        }
        state.link = None;
        state.next = next.unwrap_or((state.next + 1) % state.addresses.len().max(1));
        drop(state);
        self.tell(&LinkEvent::Left { url: link.url.to_string(), why: why.message().to_owned() });
    }

    /// Notes a setting of the session, to be made again in the next one.
    pub(crate) fn remember(&self, setting: Setting, sql: &str) {
        let mut state = self.state();
        match setting {
            Setting::Set(name, _) => {
                state.settings_made += 1;
                let made = state.settings_made;
                state.settings.insert(name, (made, sql.to_owned()));
            }
            Setting::Reset(name) => {
                state.settings.remove(&name);
            }
        }
    }

    fn tell(&self, event: &LinkEvent) {
        if let Some(on_event) = &self.on_event {
            on_event(event);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
