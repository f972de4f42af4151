//! Following others: their commits arrive here within milliseconds, instead of with the next look into the store.
//!
//! Writers follow every other writer, each for its own commits; a replica follows one node for all of them, and so does a
//! node that may write but is not the one that does now. A replica that is kept behind on purpose is told only how long
//! the log is. Whatever goes wrong here costs speed only: a node that hears nothing polls the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{Stream, StreamExt, unfold};
use tandem_client::tail::{self, Follow, HEAD_INTERVAL, Progress, Push, Scope};
use tandem_client::{Client, ConnectOptions};
use tandem_env::within;
use tandem_log::StoredCommit;
use tandem_types::{Error, ErrorKind, Result};

use crate::config::Upstream;
use crate::followers::ITSELF;
use crate::{AbortOnDrop, Shared};

/// How long an upstream may take to answer, and to say the next thing.
const CONNECT_FOR: Duration = Duration::from_secs(3);
const SILENCE_MAX: Duration = HEAD_INTERVAL.saturating_mul(3);

/// Waits between attempts; they double.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(3);

/// An upstream of another database, or of another history, is not asked again so soon.
const RETRY_FOREIGN: Duration = Duration::from_secs(30);

/// Progress is told at least this often.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Runs until it is aborted, as the present role asks for.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut roles = shared.writer.watch_role();
    loop {
        let replica = roles.borrow_and_update().is_replica();
        // Dropped with what it follows, once the node becomes something else.
        let following = follow_as(shared.clone(), replica);
        tokio::select! {
            () = following => return,
            changed = async { roles.wait_for(|role| role.is_replica() != replica).await.is_ok() } => {
                if !changed {
                    return;
                }
            }
        }
    }
}

async fn follow_as(shared: Arc<Shared>, replica: bool) {
    match (&shared.config.upstream, replica) {
        (Upstream::Store, _) => std::future::pending().await,
        (Upstream::Addresses(addresses), _) => {
            let addresses = addresses.clone();
            follow_one_of(shared, move |_| addresses.clone()).await;
        }
        (Upstream::Found, true) => {
            follow_one_of(shared, Shared::writers_to_follow).await;
        }
        (Upstream::Found, false) => follow_all_writers(shared).await,
    }
}

/// Follows the first of the candidates that answers, and the next when it goes away.
async fn follow_one_of(shared: Arc<Shared>, candidates: impl Fn(&Shared) -> Vec<String>) {
    let clock = shared.env.clock.clone();
    let mut changes = shared.peers.changes.subscribe();
    let mut wait = RETRY_MIN;
    loop {
        changes.mark_unchanged();
        let mut least = Duration::MAX;
        for address in candidates(&shared) {
            let started = clock.monotonic();
            let error = shared.follow(&address, Scope::All).await;
            if clock.monotonic() - started > SILENCE_MAX {
                wait = RETRY_MIN;
            }
            least = least.min(if is_final(&error) { RETRY_FOREIGN } else { wait });
            shared.ended(&address, &error);
        }
        // Nobody to follow: that will be a change.
        let wait_now = if least == Duration::MAX { RETRY_MAX } else { least };
        // Whoever comes back is tried at once.
        let changed = within(&*clock, wait_now, changes.changed()).await;
        wait = if changed.is_some() { RETRY_MIN } else { (wait * 2).min(RETRY_MAX) };
    }
}

/// Follows every other writer that is there.
async fn follow_all_writers(shared: Arc<Shared>) {
    let clock = shared.env.clock.clone();
    let mut changes = shared.peers.changes.subscribe();
    let mut feeds: BTreeMap<String, AbortOnDrop> = BTreeMap::new();
    let mut told = BTreeSet::new();
    loop {
        changes.mark_unchanged();
        shared.tell_of_others_here(&mut told);
        let live = shared.peers.live(clock.monotonic());
        let writers = live.into_iter().filter(|h| h.is_writer()).filter_map(|h| h.address);
        let wanted: BTreeSet<String> = writers.filter(|address| !shared.is_here(address)).collect();
        // Dropping one ends it.
        feeds.retain(|address, _| wanted.contains(address));
        for address in wanted {
            let shared = shared.clone();
            feeds
                .entry(address.clone())
                .or_insert_with(|| AbortOnDrop(tokio::spawn(keep_following(shared, address))));
        }
        // Also without a change: nobody tells of those that fell silent.
        let _ = within(&*clock, SILENCE_MAX, changes.changed()).await;
    }
}

async fn keep_following(shared: Arc<Shared>, address: String) {
    let clock = shared.env.clock.clone();
    let mut wait = RETRY_MIN;
    loop {
        let started = clock.monotonic();
        let error = shared.follow(&address, Scope::Own).await;
        shared.ended(&address, &error);
        if clock.monotonic() - started > SILENCE_MAX {
            wait = RETRY_MIN;
        }
        clock.sleep(if is_final(&error) { RETRY_FOREIGN } else { wait }).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// Whether the next attempt will hardly do better.
fn is_final(error: &Error) -> bool {
    !matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::Cancelled | ErrorKind::DeadlineExceeded | ErrorKind::Overloaded
    )
}

impl Shared {
    /// Each replica begins with another one, so that they share the work; where only one node writes, with that.
    fn writers_to_follow(&self) -> Vec<String> {
        let mut writers = self.peers.writers(self.env.clock.monotonic());
        writers.retain(|address| !self.is_here(address));
        if let Some(place) = self.writer.id().0.checked_rem(writers.len() as u64) {
            writers.rotate_left(usize::try_from(place).unwrap_or(0));
        }
        let state = self.writer.state();
        let primary =
            state.primary().filter(|p| state.is_single_primary() && p.node_id != self.config.node_id);
        if let Some(address) = primary.map(|p| p.address.clone()).filter(|address| !address.is_empty()) {
            writers.retain(|other| *other != address);
            writers.insert(0, address);
        }
        writers
    }

    /// Tells that a node is not followed any more, and why.
    fn ended(&self, address: &str, error: &Error) {
        let is_found = matches!(self.config.upstream, Upstream::Found);
        if is_found && error.message().contains(ITSELF) {
            // What is left of a process that was killed, and reached at other names than this one.
            tracing::debug!(%address, "an old heartbeat leads here");
        } else if is_final(error) {
            tracing::warn!(%address, %error, "this node is not to be followed; reading the store instead");
        } else {
            tracing::info!(%address, %error, "not followed any more");
        }
    }

    /// Warns of nodes that live and say that they are where this one is, once of each: neither can follow the other.
    fn tell_of_others_here(&self, told: &mut BTreeSet<String>) {
        let Some(address) = &self.config.advertise else { return };
        for node_id in self.peers.also_at(address, self.env.clock.monotonic()) {
            if !told.contains(&node_id) {
                tracing::warn!(%node_id, %address, "another node advertises this node's address: give each its own");
                told.insert(node_id);
            }
        }
    }

    /// Whether an address is this node's own. A process that was killed left its heartbeat behind: the next one at its place,
    /// under another name, finds itself there.
    fn is_here(&self, address: &str) -> bool {
        self.config.advertise.as_deref() == Some(address)
    }

    /// Whether pushed commits would come too early, or too late.
    fn is_kept_behind(&self) -> bool {
        let ended = self.writer.standing().is_some_and(|standing| standing.ended);
        ended || !self.config.writer.limit.delay.is_zero()
    }

    /// Follows one node until that ends, and says why.
    async fn follow(self: &Arc<Self>, address: &str, scope: Scope) -> Error {
        match self.try_follow(address, scope).await {
            Ok(()) => Error::unavailable("the node ended the stream"),
            Err(error) => error,
        }
    }

    async fn try_follow(self: &Arc<Self>, address: &str, scope: Scope) -> Result<()> {
        let clock = &*self.env.clock;
        let scope = if self.is_kept_behind() { Scope::Heads } else { scope };
        let silent = || Error::unavailable("the node says nothing");
        let connecting = async {
            // Who tries again, and whom, is decided here.
            let options = ConnectOptions { retry_for: Duration::ZERO, ..self.config.connect.clone() };
            let client = Client::connect_with(address, options).await?;
            let state = self.writer.state();
            let follow = Follow {
                database: self.log.database(),
                applied: state.seq(),
                header_hash: state.header_hash(),
                node_id: self.config.node_id.clone(),
                incarnation: self.writer.id(),
                address: self.config.advertise.clone(),
                replica: self.writer.role().is_replica(),
                scope,
            };
            tail::follow(&client, &follow, progress(self.clone())).await
        };
        let mut pushes = within(clock, CONNECT_FOR, connecting).await.ok_or_else(silent)??;
        // It counts once it speaks.
        let mut feed = None;
        loop {
            let push = within(clock, SILENCE_MAX, pushes.next()).await.ok_or_else(silent)?;
            let Some(push) = push else { return Ok(()) };
            let push = push?;
            let feed = feed.get_or_insert_with(|| {
                tracing::info!(%address, ?scope, "following");
                self.writer.feed()
            });
            match push {
                Push::Head(seq) => {
                    feed.check()?;
                    self.writer.heard_of(seq);
                }
                Push::Commit { seq, object, whole } => {
                    let stored = StoredCommit::decode(&object, whole)
                        .map_err(|e| e.context(format!("commit {seq}")))?;
                    feed.offer(stored).await.map_err(|e| match e.kind() {
                        // Beyond the limit of this node: it comes back for the heads alone.
                        ErrorKind::Unsupported => Error::unavailable(e.message()),
                        _ => e,
                    })?;
                }
            }
        }
    }
}

/// What this node, and those that follow it, have applied: at each change, and at intervals.
fn progress(shared: Arc<Shared>) -> impl Stream<Item = Progress> + Send + 'static {
    let states = shared.writer.watch();
    let downstream = shared.downstream.changes.subscribe();
    unfold((shared, states, downstream, true), |(shared, mut states, mut downstream, first)| async move {
        if !first {
            tokio::select! {
                changed = states.changed() => changed.ok()?,
                _ = downstream.changed() => {}
                () = shared.env.clock.sleep(REPORT_INTERVAL) => {}
            }
        }
        downstream.mark_unchanged();
        let own = (shared.writer.id(), states.borrow_and_update().seq());
        let mut applied = vec![own];
        applied.extend(shared.downstream.all());
        Some((Progress { applied }, (shared, states, downstream, false)))
    })
}

#[cfg(test)]
mod tests {
    use tandem_env::Env;

    use crate::peers::Heartbeat;
    use crate::{Node, NodeConfig};

    #[tokio::test]
    async fn what_a_killed_process_left_at_this_address_is_nobody_to_follow() {
        let env = Env::open("memory://", &[]).unwrap();
        let here = "grpc://127.0.0.1:9";
        let config = NodeConfig {
            node_id: "new".to_owned(),
            advertise: Some(here.to_owned()),
            ..NodeConfig::default()
        };
        let node = Node::open(env, config).await.unwrap();
        let shared = &node.shared;
        let now = shared.env.clock.monotonic();
        for (node_id, address) in [("old", here), ("other", "grpc://127.0.0.1:10")] {
            let heartbeat = Heartbeat {
                node_id: node_id.to_owned(),
                address: Some(address.to_owned()),
                role: "writer".to_owned(),
                ..Heartbeat::default()
            };
            shared.peers.found(heartbeat, now);
        }
        assert_eq!(shared.peers.writers(now).len(), 2);
        assert_eq!(shared.writers_to_follow(), ["grpc://127.0.0.1:10"]);
        node.shutdown().await;
    }
}
