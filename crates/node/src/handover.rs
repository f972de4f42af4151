//! Whom this node hands its transactions to, and when it offers to commit for the others.
//!
//! | this node | hands over to |
//! |---|---|
//! | writes, and its commits keep losing | the *sequencer*: who holds the newest lease |
//! | is the sequencer itself, and its commits keep losing | the writer that it loses to |
//! | was the primary, and another is | that one |
//! | is a replica that forwards writes | the writers that it knows, the first that answers |
//! | anything else | nobody |
//!
//! The lease is a record in the log that names a node and where it is reached. It is advice: nobody checks it, it never
//! ends, and the next term takes its place. A node whose commits keep losing takes the next term if there is none, or if
//! its holder did not answer twice. The holder does nothing for it but go on committing, for others as for itself; if a
//! writer that never loses, and so never asks for anybody, leaves it no turn, it gives the next term to that one.
//!
//! What may go wrong here costs time: the writer waits for an answer for a bounded time, then races by itself, and leaves
//! who did not answer alone for a while; see [`tandem_writer::handover`].

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tandem_client::handover::{Bundle, SubmitFailure, submit};
use tandem_client::{Client, ConnectOptions};
use tandem_manifest::{Manifest, Step};
use tandem_types::{DatabaseId, Error, ErrorKind, Result};
use tandem_writer::handover::wire;
use tandem_writer::{Deputy, Handed, HandedAnswer, Role, WriteToken};
use tokio::sync::Notify;

use crate::Shared;

/// A holder of the lease that did not answer so often in a row is replaced.
const FAILURES_MAX: u32 = 2;

/// How often all of this is looked at without news.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Nodes that want the lease at the same moment wait for a random time up to this one, and look again.
const JITTER: Duration = Duration::from_millis(200);

/// Runs until it is aborted.
pub(crate) async fn run(shared: Arc<Shared>) {
    let (clock, chance) = (shared.env.clock.clone(), shared.env.chance.clone());
    let mut states = shared.writer.watch();
    let mut roles = shared.writer.watch_role();
    let mut contention = shared.writer.watch_contention();
    let mut deputy: Option<Arc<Remote>> = None;
    // Somebody sees to it from now on.
    shared.writer.set_deputy(None);
    loop {
        let state = states.borrow_and_update().clone();
        let role = roles.borrow_and_update().clone();
        let contended = *contention.borrow_and_update();
        let stronger = shared.stronger(&role, &state).filter(|_| contended);
        let wanted = match &stronger {
            Some((_, address)) => Some(address.clone()),
            None => shared.whom_to_ask(&role, &state),
        };
        if wanted.as_deref() != deputy.as_ref().map(|d| d.url.as_str()) {
            tracing::info!(
                to = wanted.as_deref().unwrap_or("nobody"),
                "transactions are handed over, if at all"
            );
            deputy = wanted.map(|url| Arc::new(Remote::new(&shared, url)));
            shared.writer.set_deputy(deputy.clone().map(|d| d as Arc<dyn Deputy>));
        }
        let failed = deputy.as_ref().is_some_and(|d| d.failures.load(Ordering::Relaxed) >= FAILURES_MAX);
        if contended && shared.wants_lease(&role, &state, failed) {
            let jitter = chance.below(u64::try_from(JITTER.as_micros()).unwrap_or(u64::MAX));
            clock.sleep(Duration::from_micros(jitter)).await;
            if shared.writer.state().lease() == state.lease() {
                let address = shared.config.advertise.clone().unwrap_or_default();
                shared.give_lease(&state, shared.config.node_id.clone(), address).await;
            }
            continue;
        }
        if let Some((holder, address)) = stronger {
            shared.give_lease(&state, holder, address).await;
        }
        let failure = deputy.as_ref().map(|d| d.failed.clone()).unwrap_or_default();
        let known = (state.lease().cloned(), state.epoch());
        let other = async {
            states
                .wait_for(|state| (state.lease(), state.epoch()) != (known.0.as_ref(), known.1))
                .await
                .is_ok()
        };
        tokio::select! {
            still = other => if !still { return },
            changed = roles.changed() => if changed.is_err() { return },
            changed = contention.changed() => if changed.is_err() { return },
            () = failure.notified() => {}
            () = clock.sleep(LOOK_INTERVAL) => {}
        }
    }
}

/// Commits for another node.
pub(crate) fn serve(shared: Arc<Shared>, bundle: Bundle) -> BoxFuture<'static, Result<Bytes>> {
    async move {
        if bundle.database != shared.log.database() {
            return Err(Error::invalid(format!(
                "transactions of database {} were handed over, this is {}",
                bundle.database,
                shared.log.database()
            )));
        }
        let handed = wire::decode_handed(&bundle.transactions, bundle.sections)?;
        let answers = shared.writer.submit_handed(handed).await?;
        Ok(wire::encode_answers(&answers))
    }
    .boxed()
}

impl Shared {
    fn whom_to_ask(&self, role: &Role, state: &Manifest) -> Option<String> {
        match role {
            Role::Replica { writer } if !self.config.replica || self.config.forward_writes => writer.clone(),
            Role::Replica { .. } => None,
            // Nobody else writes, or those who do find out for themselves.
            Role::Writer if state.is_single_primary() => None,
            Role::Writer => {
                let lease = state.lease().filter(|lease| lease.holder != self.config.node_id)?;
                (!lease.address.is_empty()).then(|| lease.address.clone())
            }
        }
    }

    /// Whether this node should offer to commit for all.
    fn wants_lease(&self, role: &Role, state: &Manifest, failed: bool) -> bool {
        let Some(address) = &self.config.advertise else { return false };
        if *role != Role::Writer || state.is_single_primary() {
            return false;
        }
        match state.lease() {
            None => true,
            // Started anew elsewhere: nobody finds it there.
            Some(lease) if lease.holder == self.config.node_id => lease.address != *address,
            Some(lease) => failed || lease.address.is_empty(),
        }
    }

    /// Where this node is the sequencer, the writer that it loses to: its node id and address.
    fn stronger(&self, role: &Role, state: &Manifest) -> Option<(String, String)> {
        let held = state.lease().is_some_and(|lease| lease.holder == self.config.node_id);
        if *role != Role::Writer || state.is_single_primary() || !held {
            return None;
        }
        let winner = self.writer.beaten_by()?.to_string();
        let live = self.peers.live(self.env.clock.monotonic());
        let winner = live.into_iter().find(|peer| peer.incarnation == winner && peer.is_writer())?;
        winner.address.map(|address| (winner.node_id, address))
    }

    /// Makes a node the sequencer.
    async fn give_lease(&self, state: &Manifest, holder: String, address: String) {
        let term = state.lease().map_or(0, |lease| lease.term).saturating_add(1);
        let step = Step::Lease { holder: holder.clone(), address, term };
        // Under a token, so that it can be handed over itself.
        match self.writer.submit(state.seq(), vec![step], WriteToken::Minted).await {
            Ok(taken) => {
                tracing::info!(node_id = %holder, seq = %taken.seq, "it commits for those whose commits keep losing");
            }
            // Somebody else was quicker.
            Err(e) if e.kind() == ErrorKind::Serialization => {}
            Err(e) => {
                tracing::warn!(error = %e, "the sequencer's lease cannot be given now");
                self.env.clock.sleep(LOOK_INTERVAL).await;
            }
        }
    }
}

/// The way to another node.
#[derive(Debug)]
struct Remote {
    url: String,
    options: ConnectOptions,
    database: DatabaseId,
    /// `None`: to be connected.
    client: Arc<Mutex<Option<Client>>>,
    /// Hand-overs in a row that were not answered or not taken.
    failures: Arc<AtomicU32>,
    failed: Arc<Notify>,
}

impl Remote {
    fn new(shared: &Shared, url: String) -> Self {
        Self {
            url,
            // What is not answered is not sent again from here.
            options: ConnectOptions { retry_for: Duration::ZERO, ..shared.config.connect.clone() },
            database: shared.log.database(),
            client: Arc::default(),
            failures: Arc::default(),
            failed: Arc::default(),
        }
    }
}

/// One hand-over: failed, unless it is said to have been answered. The writer drops it when it has waited long enough.
struct Turn {
    client: Arc<Mutex<Option<Client>>>,
    failures: Arc<AtomicU32>,
    failed: Arc<Notify>,
    answered: bool,
}

impl Turn {
    fn client(&self) -> Option<Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn was_answered(&mut self) {
        self.answered = true;
    }

    fn keep(&self, client: Option<Client>) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.answered {
            self.failures.store(0, Ordering::Relaxed);
        } else {
            // A connection that brings no answers is not used again.
            self.keep(None);
            self.failures.fetch_add(1, Ordering::Relaxed);
            self.failed.notify_one();
        }
    }
}

impl Deputy for Remote {
    fn submit(&self, handed: Vec<Handed>) -> BoxFuture<'static, Result<Vec<HandedAnswer>>> {
        let (client, failures, failed) = (self.client.clone(), self.failures.clone(), self.failed.clone());
        let mut turn = Turn { client, failures, failed, answered: false };
        let (url, options, database) = (self.url.clone(), self.options.clone(), self.database);
        async move {
            let count = handed.len();
            // In an answer's place: nothing has been sent, or nothing was taken.
            let not_taken = |why: &Error| {
                let error = Error::not_writer(format!("{url} does not commit for this node: {why}"));
                Ok(vec![HandedAnswer::Refused(error); count])
            };
            let (transactions, sections) = match wire::encode_handed(&handed) {
                Ok(encoded) => encoded,
                Err(e) => return not_taken(&e),
            };
            drop(handed);
            let client = match turn.client() {
                Some(client) => client,
                None => match Client::connect_with(&url, options).await {
                    Ok(client) => client,
                    Err(e) => return not_taken(&e),
                },
            };
            turn.keep(Some(client.clone()));
            let answers = match submit(&client, &Bundle { database, transactions, sections }).await {
                Ok(answers) => wire::decode_answers(&answers)?,
                Err(SubmitFailure::NotTaken(e)) => {
                    tracing::info!(to = %url, error = %e, "transactions were not taken");
                    return not_taken(&e);
                }
                Err(SubmitFailure::Unknown(e)) => return Err(e),
            };
            let turned_away = |answer: &HandedAnswer| {
                matches!(answer, HandedAnswer::Refused(e) if e.kind() == ErrorKind::NotWriter)
            };
            if !answers.iter().any(turned_away) {
                turn.was_answered();
            }
            Ok(answers)
        }
        .boxed()
    }
}
