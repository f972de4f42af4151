//! What the node is: decided by how it was started, by the log, and, for whom to name, by its peers.
//!
//! | the log says | this node is | it |
//! |---|---|---|
//! | anything | started as a replica | follows; names those who write |
//! | `multi-primary` | started as a writer | writes |
//! | `single-primary`, and it was promoted last | the *primary* | writes |
//! | `single-primary`, and another was | a *standby* | follows; names the primary; may take over |
//!
//! Nobody becomes or stays the primary by anything but the log: [`Manifest::write_epoch`] is asked anew, with the newest
//! state, for each attempt at a commit, and the state after the commit, on every node, voids what carries an epoch that was
//! over. A node that is cut off from the store, or was frozen, may take itself for the primary as long as it likes: it
//! commits nothing by it. The role that is kept here is for all that may lag a little: what the node refuses at its
//! door, whom it names, whether it does upkeep, whom it follows, and what it says of itself.
//!
//! **What becomes of a write that waits on a primary while another is promoted?**
//!
//! - An orderly promotion waits in the same queue: what came before it is committed before it, and acknowledged.
//! - What came after it, and, where somebody else made the promotion, everything that waits, is *fenced*: no state takes
//!   it any more in its old epoch. It goes to the new primary under its token, by this node's hand where there is a way
//!   to it (`handover`), else by its client's, which is answered `not-writer` with the new primary's address. Neither
//!   way has any of it been written before.
//! - What was being created in the store at that moment is settled by reading the log, as ever: it is the commit before
//!   the promotion, and is acknowledged, or the place is the promotion's, and it is fenced. Where the store says
//!   neither, the client hears `outcome-unknown`, and the same token on the new primary settles it.

use std::sync::Arc;

use tandem_format::Primary;
use tandem_manifest::{Manifest, Mode, Step};
use tandem_types::{Error, ErrorKind, Result, Seq};
use tandem_writer::{Committed, Role, WriteToken};

use crate::Shared;

/// What a node is called in lists.
pub(crate) const PRIMARY: &str = "primary";
pub(crate) const REPLICA: &str = "replica";
pub(crate) const STANDBY: &str = "standby";
pub(crate) const WRITER: &str = "writer";

/// Follows the log's word until it is aborted.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut states = shared.writer.watch();
    let mut decided = None;
    loop {
        let state = states.borrow_and_update().clone();
        let word = (state.mode(), state.epoch());
        if decided != Some(word) {
            decided = Some(word);
            shared.decide_role();
            // Others hear of it with the next heartbeat, which comes earlier now.
            shared.peers.look.notify_one();
        }
        if states.changed().await.is_err() {
            return;
        }
    }
}

impl Shared {
    /// As whom a promotion names this node; `None`: it never writes, or nobody could be sent to it.
    pub(crate) fn identity(&self) -> Option<&Primary> {
        self.config.writer.identity.as_ref()
    }

    /// What the node is called, on this state.
    pub(crate) fn role_name(&self, state: &Manifest) -> &'static str {
        match state.mode() {
            _ if self.config.replica => REPLICA,
            Mode::MultiPrimary => WRITER,
            Mode::SinglePrimary if self.is_primary(state) => PRIMARY,
            Mode::SinglePrimary => STANDBY,
        }
    }

    /// Whether this node is the one that writes.
    pub(crate) fn is_primary(&self, state: &Manifest) -> bool {
        state.is_single_primary() && self.identity().is_some() && self.identity() == state.primary()
    }

    /// Brings the role in line with the newest state.
    pub(crate) fn decide_role(&self) {
        let state = self.writer.state();
        let writers = || {
            let writers = self.peers.writers(self.env.clock.monotonic());
            (!writers.is_empty()).then(|| writers.join(","))
        };
        let primary = || {
            let address = state.primary().map(|primary| primary.address.clone());
            address.filter(|address| !address.is_empty())
        };
        let role = match self.role_name(&state) {
            PRIMARY | WRITER => Role::Writer,
            _ if state.is_single_primary() => Role::Replica { writer: primary() },
            _ => Role::Replica { writer: writers() },
        };
        let before = self.writer.role();
        if before == role {
            return;
        }
        if before.is_replica() != role.is_replica() {
            let primary = state.primary().map(|p| p.node_id.as_str()).unwrap_or_default();
            tracing::info!(
                role = self.role_name(&state), epoch = %state.epoch(), primary, "the role of this node has changed"
            );
        }
        self.writer.set_role(role);
    }

    /// The steps of a change of mode with the promotion that belongs to it: the node that runs it becomes the primary, or
    /// nobody is any more.
    pub(crate) fn with_promotion(&self, steps: &[Step], state: &Manifest) -> Result<Option<Vec<Step>>> {
        let Some(mode) = mode_set_by(steps) else { return Ok(None) };
        self.writer.role().check_writes()?;
        if mode == state.mode() && (mode == Mode::MultiPrimary || state.primary().is_some()) {
            return Ok(None);
        }
        let primary = match mode {
            Mode::MultiPrimary => None,
            Mode::SinglePrimary => Some(self.identity().cloned().ok_or_else(|| self.no_primary())?),
        };
        let promotion = Step::Promote { epoch: state.epoch().next(), primary };
        Ok(Some([steps, &[promotion]].concat()))
    }

    /// Why this node cannot be the primary.
    pub(crate) fn no_primary(&self) -> Error {
        let node_id = &self.config.node_id;
        Error::invalid(match self.config.replica {
            true => format!(
                "node {node_id} was started as a replica and never takes writes: promote a node that was started \
                 without --role replica and --follow"
            ),
            false => format!(
                "node {node_id} cannot be the primary: others do not know where to reach it; start it with \
                 --advertise URL, or name another node"
            ),
        })
    }

    /// Once, before anybody is served: the mode that was asked for, and the primary's new address if it is this node
    /// that was started anew.
    pub(crate) async fn begin(&self) -> Result<()> {
        if let Some(mode) = self.config.mode {
            self.found_in(mode).await?;
        }
        let state = self.writer.state();
        let moved = |me: &&Primary| {
            let before = state.primary().filter(|_| state.is_single_primary());
            before.is_some_and(|before| before.node_id == me.node_id && before.address != me.address)
        };
        if let Some(me) = self.identity().filter(moved) {
            let promotion = Step::Promote { epoch: state.epoch().next(), primary: Some(me.clone()) };
            match self.writer.submit_upkeep(state.seq(), vec![promotion]).await {
                Ok(_) => tracing::info!(address = %me.address, "the primary is back, at another address"),
                // Somebody took over meanwhile; or fail-over will see to it.
                Err(error) => tracing::info!(%error, "this node was the primary before it was started anew"),
            }
        }
        self.decide_role();
        Ok(())
    }

    /// The database is in this mode: an empty one is founded in it.
    async fn found_in(&self, mode: Mode) -> Result<()> {
        let mut state = self.writer.state();
        if state.seq() == Seq(0) && !self.config.replica {
            let primary = match mode {
                Mode::MultiPrimary => None,
                Mode::SinglePrimary => Some(self.identity().cloned().ok_or_else(|| self.no_primary())?),
            };
            let setting = ("mode".to_owned(), Some(mode.name().to_owned()));
            // An epoch begins in either mode, so that of two founders one comes too late.
            let steps = vec![
                Step::SetSettings { settings: vec![setting] },
                Step::Promote { epoch: state.epoch().next(), primary },
            ];
            match self.writer.submit_upkeep(state.seq(), steps).await {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Serialization => {}
                Err(error) => return Err(error),
            }
            state = self.writer.state();
        }
        if state.mode() == mode || state.seq() == Seq(0) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "--mode {mode}: this database is in mode {}, and --mode only chooses that of a new one: leave it out, or run \
             ALTER DATABASE SET (mode = '{mode}')",
            state.mode()
        )))
    }

    /// Commits a change of the database's settings, and the promotion that belongs to it; on the newest state if it moved
    /// meanwhile.
    pub(crate) async fn submit_steps(
        &self,
        base: Seq,
        steps: Vec<Step>,
        token: WriteToken,
    ) -> Result<Committed> {
        const TRIES: u32 = 3;
        let mut tries = 0;
        loop {
            let Some(with_promotion) = self.with_promotion(&steps, &self.writer.state())? else {
                return self.writer.submit(base, steps, token).await;
            };
            tries += 1;
            match self.writer.submit(base, with_promotion, token.clone()).await {
                Err(error) if error.kind() == ErrorKind::Serialization && tries < TRIES => {}
                done => {
                    self.decide_role();
                    return done;
                }
            }
        }
    }
}

/// The mode that the steps set, if they set one. What is no mode is refused where all settings are checked.
fn mode_set_by(steps: &[Step]) -> Option<Mode> {
    let settings = steps.iter().filter_map(|step| match step {
        Step::SetSettings { settings } => Some(settings),
        _ => None,
    });
    let (_, value) = settings.flatten().rfind(|(name, _)| name == "mode")?;
    value.as_deref().map_or(Some(Mode::default()), Mode::parse)
}

#[cfg(test)]
mod tests;
