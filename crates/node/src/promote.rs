//! Making a node the primary because somebody says so.
//!
//! *Orderly*: the present primary makes the commit that ends its own epoch, behind everything that waits in its queue, once
//! the next one answers and has nearly caught up. Whoever else is asked passes the request on to it.
//! *By force*: any node makes the commit, and the primary finds out when it next looks at the log. It commits nothing after
//! that; what it acknowledged before is in the log, and the next primary has it.

use std::time::Duration;

use serde_json::{Value, json};
use tandem_client::{Client, ConnectOptions};
use tandem_env::within;
use tandem_format::Primary;
use tandem_manifest::{Manifest, Step};
use tandem_sql::{Database, Promoted, Promotion, ReadOptions};
use tandem_types::{Epoch, Error, ErrorKind, Result, Seq};

use crate::Shared;

/// How long the next primary may take to answer, …
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// … and, in order, to have applied what is committed by now.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(15);

/// How long a promotion that was passed on may take in all.
const PASSED_ON_WITHIN: Duration = Duration::from_secs(40);

/// How long a node that ends may take for it: less than a supervisor's patience.
const HAND_ON_WITHIN: Duration = Duration::from_secs(5);

/// How often the next primary is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(50);

impl Shared {
    /// See [`Database::promote`].
    pub(crate) async fn promote_as_asked(&self, promotion: Promotion) -> Result<Promoted> {
        self.writer.catch_up_now().await?;
        let state = self.writer.state();
        if !state.is_single_primary() {
            return Err(Error::invalid(
                "the database is in mode multi-primary: all writers write, and there is nobody to promote; ALTER \
                 DATABASE SET (mode = 'single-primary') makes the node that runs it the primary",
            ));
        }
        if promotion.epoch.is_some_and(|epoch| epoch != state.epoch()) {
            let now = state.primary().map_or("nobody", |p| p.node_id.as_str());
            return Err(Error::serialization(format!(
                "the role has moved meanwhile: {now} is the primary, in epoch {}",
                state.epoch()
            )));
        }
        let next = self.next_primary(promotion.node_id.as_deref()).await?;
        if state.primary() == Some(&next) {
            return Ok(promoted(next, state.epoch(), state.seq(), false));
        }
        if promotion.force || state.primary().is_none() {
            self.ask(&next, ANSWER_WITHIN).await.map_err(|e| e.context(unheard(&next)))?;
            let how = if promotion.force { "forced" } else { "first" };
            return self.commit_promotion(&state, next, how).await;
        }
        if self.is_primary(&state) {
            return self.hand_over_to(&state, next).await;
        }
        self.pass_on(&state, next).await
    }

    /// Gives the role to the best of the standbys, if this node has it and there is one: writers then wait for a promotion
    /// and not for a silence. Whatever goes wrong, the standbys take over by themselves.
    pub(crate) async fn hand_on(&self) {
        let state = self.writer.state();
        if !self.is_primary(&state) {
            return;
        }
        let Some(next) = self.best_standby() else {
            tracing::info!("there is no standby to take over from this primary");
            return;
        };
        match within(&*self.env.clock, HAND_ON_WITHIN, self.hand_over_to(&state, next)).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => tracing::warn!(%error, "the role of the primary was not handed on"),
            None => tracing::warn!("the role of the primary was not handed on within {HAND_ON_WITHIN:?}"),
        }
    }

    /// Ends this node's own epoch, once the next primary is fit to begin its own.
    async fn hand_over_to(&self, state: &Manifest, next: Primary) -> Result<Promoted> {
        self.wait_for(&next, state.seq(), CATCH_UP_WITHIN).await?;
        let promoted = self.commit_promotion(state, next.clone(), "orderly").await?;
        // Its clients come to it now; that it lets them in at once is worth a moment, and nothing more.
        if let Err(error) = self.wait_for(&next, promoted.seq, ANSWER_WITHIN).await {
            tracing::info!(%error, "the new primary has not said yet that it knows");
        }
        Ok(promoted)
    }

    /// Has the present primary do it.
    async fn pass_on(&self, state: &Manifest, next: Primary) -> Result<Promoted> {
        let Some(primary) = state.primary() else {
            return Err(Error::internal("there is no primary to ask"));
        };
        let body = json!({ "node_id": next.node_id, "epoch": state.epoch().0 }).to_string();
        let asking = async {
            let client = self.call(&primary.address).await?;
            client.action("tandem.Promote", body).await
        };
        let answered = within(&*self.env.clock, PASSED_ON_WITHIN, asking).await.unwrap_or_else(|| {
            Err(Error::unavailable(format!("it has not answered within {PASSED_ON_WITHIN:?}")))
        });
        let answer = answered.map_err(|error| match error.kind() {
            ErrorKind::Unavailable | ErrorKind::OutcomeUnknown | ErrorKind::Cancelled => Error::unavailable(format!(
                "node {} at {}, the primary, cannot be reached to hand over: {error}; if it is gone, promote by force \
                 (--force)",
                primary.node_id, primary.address
            )),
            _ => error,
        })?;
        let answer = answer.first().and_then(|bytes| serde_json::from_slice::<Value>(bytes).ok());
        let number = |name: &str| answer.as_ref().and_then(|a| a.get(name)).and_then(Value::as_u64);
        let (Some(epoch), Some(seq)) = (number("epoch"), number("seq")) else {
            return Err(Error::internal(format!(
                "node {} answered the promotion in an unknown form",
                primary.node_id
            )));
        };
        // Whoever asked this node goes on here.
        let read = ReadOptions { min_seq: Some(Seq(seq)), ..ReadOptions::default() };
        self.settle(&read).await?;
        self.decide_role();
        Ok(promoted(next, Epoch(epoch), Seq(seq), true))
    }

    /// Commits that the node is the primary from now on, if nobody was quicker.
    pub(crate) async fn commit_promotion(
        &self,
        state: &Manifest,
        next: Primary,
        how: &'static str,
    ) -> Result<Promoted> {
        let epoch = state.epoch().next();
        let step = Step::Promote { epoch, primary: Some(next.clone()) };
        let committed = self.writer.submit_upkeep(state.seq(), vec![step]).await?;
        metrics::counter!("tandem_promotions_total", "how" => how).increment(1);
        tracing::info!(node_id = %next.node_id, address = %next.address, %epoch, seq = %committed.seq, how, "promoted");
        self.decide_role();
        Ok(promoted(next, epoch, committed.seq, true))
    }

    /// Who a node is: this one, or one whose heartbeat was found.
    async fn next_primary(&self, node_id: Option<&str>) -> Result<Primary> {
        let node_id = match node_id {
            Some(node_id) if node_id != self.config.node_id => node_id,
            _ => return self.identity().cloned().ok_or_else(|| self.no_primary()),
        };
        if self.peers.find(node_id).is_none() {
            self.look().await?;
        }
        let Some(seen) = self.peers.find(node_id) else {
            let mut known: Vec<String> = self.peers.all().into_iter().map(|s| s.heartbeat.node_id).collect();
            known.push(self.config.node_id.clone());
            known.sort_unstable();
            return Err(Error::not_found(format!(
                "nobody has heard of a node {node_id:?}; known are {}",
                known.join(", ")
            )));
        };
        if seen.heartbeat.role == crate::roles::REPLICA {
            return Err(Error::invalid(format!(
                "node {node_id} was started as a replica and never takes writes: promote a node that was started \
                 without --role replica and --follow"
            )));
        }
        match seen.heartbeat.address {
            Some(address) => Ok(Primary { node_id: node_id.to_owned(), address }),
            None => Err(Error::invalid(format!("node {node_id} does not say where it is reached"))),
        }
    }

    /// Waits until a node has applied everything up to `seq`.
    async fn wait_for(&self, node: &Primary, seq: Seq, wait: Duration) -> Result<()> {
        let clock = &*self.env.clock;
        if Some(node) == self.identity() {
            return Ok(());
        }
        let deadline = clock.monotonic() + wait;
        loop {
            let applied = self.ask(node, ANSWER_WITHIN).await.map_err(|e| e.context(unheard(node)))?;
            if applied >= seq {
                return Ok(());
            }
            if clock.monotonic() > deadline {
                return Err(Error::unavailable(format!(
                    "node {} stands at commit {applied} after {wait:?}, and {seq} is what it must have: let it catch \
                     up, or promote by force (--force)",
                    node.node_id
                )));
            }
            clock.sleep(ASK_EVERY).await;
        }
    }

    /// How far a node is; an error if it does not answer, or another one does.
    pub(crate) async fn ask(&self, node: &Primary, wait: Duration) -> Result<Seq> {
        if Some(node) == self.identity() {
            return Ok(self.writer.state().seq());
        }
        let asking = async { self.call(&node.address).await?.action("tandem.Status", "{}").await };
        status_of(node, within(&*self.env.clock, wait, asking).await)
    }

    /// The same, once the node has found the end of the log in the store: one that cannot is as good as dead.
    pub(crate) async fn ask_at_store(&self, node: &Primary, wait: Duration) -> Result<Seq> {
        let asking = async {
            let client = self.call(&node.address).await?.with_header("tandem-read", "latest")?;
            client.action("tandem.Status", "{}").await
        };
        status_of(node, within(&*self.env.clock, wait, asking).await)
    }

    async fn call(&self, address: &str) -> Result<Client> {
        let options = ConnectOptions { retry_for: Duration::ZERO, ..self.config.connect.clone() };
        Client::connect_with(address, options).await
    }
}

/// The seq in a status, if it is this node's.
fn status_of(node: &Primary, answered: Option<Result<Vec<bytes::Bytes>>>) -> Result<Seq> {
    let silent = || Error::unavailable("it does not answer");
    let answers = answered.ok_or_else(silent)??;
    let status = answers.first().and_then(|bytes| serde_json::from_slice::<Value>(bytes).ok());
    let status = status.ok_or_else(|| Error::unavailable("it says nothing that is understood"))?;
    match (status.get("node_id").and_then(Value::as_str), status.get("seq").and_then(Value::as_u64)) {
        (Some(node_id), Some(seq)) if node_id == node.node_id => Ok(Seq(seq)),
        (other, _) => {
            Err(Error::unavailable(format!("node {:?} answers in its place", other.unwrap_or_default())))
        }
    }
}

fn unheard(node: &Primary) -> String {
    format!("node {} at {} cannot be promoted", node.node_id, node.address)
}

fn promoted(next: Primary, epoch: Epoch, seq: Seq, changed: bool) -> Promoted {
    Promoted { node_id: next.node_id, address: next.address, epoch, seq, changed }
}
