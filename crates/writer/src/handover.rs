//! Transactions that another node commits for this one.
//!
//! Plain racing for the log's next number caps a cluster at about one commit per round trip to the store, whoever makes it.
//! So a node whose commits keep losing hands whole groups of prepared transactions to a *deputy*: the sequencer, which
//! commits those of all nodes together. The same door serves a former primary, which hands what it has not answered yet to
//! the present one, and a replica that forwards writes.
//!
//! A hand-over makes a node faster and never wrong: its answer may be lost, late, or false about anything but a refusal.
//!
//! # Why nothing is lost, doubled, reordered or falsely rejected
//!
//! Let *T* be a transaction of node *A*, handed to node *S*.
//!
//! **One at a time.** A's commit task hands one group over, and does nothing else until its members are answered: it has
//! at most one group with S. S puts the group into its queue as one bundle, which is committed whole, in its order, or not
//! at all. So a stream's batches keep their order at S, and a batch is never committed while an earlier one of its
//! stream was left out for want of an answer.
//!
//! **Success** is answered from A's own state: S's word only says how far to read. A looks T's token up in a state that has
//! applied the seq that S named; what is not there was not committed, whatever S says, and T goes on as if nothing had been
//! heard. (A success without a commit, `IF NOT EXISTS`, leaves no trace: there S is believed, as it is in refusals.)
//!
//! **Refusals, recasts and successes without a commit** that S gives back are decided by a state that S has shown to be the
//! log's head after T arrived, as for its own clients, and S keeps no copy of T: T was delivered once, which is what a
//! [`Deputy`] promises, and was answered. So T is not committed later, and the answer is true. The answer bears S's seq, and A
//! passes it on when it has read so far: rows are prepared anew on a state that knows why.
//!
//! **An answer that is lost** (or late, or garbled) leaves T *in doubt*: S may commit it now, in an hour, or never. A races
//! by itself at once, under the same token:
//!
//! - A commits T, or finds it committed: success, at whatever seq the log shows. S's copy finds the token taken, so that T is
//!   there once.
//! - A finds that T cannot be committed, or that there is nothing to do: that is true of the head, but S may see a later
//!   head of which it is not. If the token is of A's own counter, A adds a *barrier* to the commit: a transaction that does
//!   nothing, under a higher counter with `low` at that counter. It is committed on the very state that shows T absent; from
//!   then on T's token is settled on every node, and T is refused for ever. Then A answers. If the barrier's commit loses its
//!   race, all is decided again.
//! - A client's token cannot be barred, for the client may send it again with right; nor can content that is its own token.
//!   The answer is "outcome unknown", which is what it is, and the client's token settles it. The same where the barrier is
//!   not committed, and on a node that may not commit. A token that was *used* (reused, expired) has decided for all nodes,
//!   and is answered.
//!
//! A transaction in doubt is never handed over a second time by a node that can race: one unanswered copy is enough. A node
//! that cannot race (a replica, a former primary) tries again, and then believes only successes.
//!
//! **`low`.** A token carries as `low` the first counter of its group, and a group is numbered after the one before it was
//! answered, hand-overs included. So no token in doubt is below a `low` that is not its barrier's, while it is tried. If a
//! group ends in "unknown", the next one's `low` bars what S still holds of it, for counted tokens.
//!
//! **Late copies.** S may sleep for a day and commit T then. A counted token is settled or known by then, or its producer
//! forgotten and its base below the floor: expired. A client's token without a base would be taken for a new one once it is
//! forgotten; so the copy that is handed over gets A's applied seq as its base. Content is its own token within a window only; so
//! the copy bears the log's age at the hand-over, and S refuses it when the log has aged by more than the window since: until
//! then, A's own commit of it counts as equal.
//!
//! **Epochs.** S commits in the epoch in which S writes, on the very state that says so, and refuses where it does not. A
//! group that S does not take because it is no writer was not committed: A is free with it.
//!
//! **`base` and S's state.** S may be behind A. What it commits it commits on the head, and what it refuses it refuses at the
//! head: both are at or after everything that A has applied. Bases are compared with seqs of the log, never with what a node
//! has applied. Segments that T names were stored before T was handed over, and belong to no node.
//!
//! **Rows for A's readers** go to the cache when the commit that brings T is applied, before its state is published, if
//! the stored sections are byte for byte those that A prepared.

mod check;
pub mod wire;

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::future::BoxFuture;
use tandem_format::TransactionToken;
use tandem_manifest::{Intent, Manifest};
use tandem_types::{Error, ErrorKind, Result, Seq, WriterId};
use tokio::sync::{oneshot, watch};

use crate::queue::{Answer, Request};
use crate::{Committed, Shared, Writer};

pub(crate) use wire::can_be_handed;

/// A way to another node that commits for this one.
pub trait Deputy: Send + Sync + Debug {
    /// Has the transactions committed there, in this order; an answer for each. They are delivered once at most. An error
    /// says that nobody knows what became of any of them. The future may be dropped.
    fn submit(&self, handed: Vec<Handed>) -> BoxFuture<'static, Result<Vec<HandedAnswer>>>;
}

/// A transaction on its way to another node.
#[derive(Clone, Debug)]
pub struct Handed {
    /// With its token.
    pub intent: Intent,
    /// The bytes of each of its sections that rides in the commit; nothing for one that lies in a segment.
    pub bodies: Vec<Vec<Bytes>>,
    /// The log's age on its node, in microseconds.
    pub age: i64,
}

impl Handed {
    pub(crate) fn of(request: &Request, state: &Manifest) -> Self {
        let mut intent = request.intent.clone();
        if let Some(TransactionToken::Foreign(token)) = &mut intent.token {
            token.base = token.base.or(Some(state.seq()));
        }
        let bodies = request.bodies.iter().map(|body| body.chunks.clone()).collect();
        Self { intent, bodies, age: state.age() }
    }
}

/// What the other node says.
#[derive(Clone, Debug, PartialEq)]
pub enum HandedAnswer {
    Committed(Committed),
    /// Not committed, and will not be. The error's seq is the head that it was decided on.
    Refused(Error),
    /// As `Refused`: its rows are to be prepared anew.
    Recast(Error),
}

impl HandedAnswer {
    /// The commit that the answer is about, or the head that it was decided on.
    pub(crate) fn seq(&self) -> Option<Seq> {
        match self {
            Self::Committed(committed) => Some(committed.seq),
            Self::Refused(error) | Self::Recast(error) => error.seq(),
        }
    }
}

impl Shared {
    /// Whether somebody sees to it that this node has a deputy when there can be one.
    pub(crate) fn deputies_expected(&self) -> bool {
        self.deputies_expected.load(Ordering::Relaxed)
    }

    /// Whether a node that may not commit takes writes all the same, to hand them over.
    pub(crate) fn forwards(&self) -> bool {
        self.config.forward && self.deputies_expected()
    }
}

impl Writer {
    /// Who commits for this node from now on: while its own commits keep losing, or while it may not commit. `None`: nobody
    /// can be asked.
    pub fn set_deputy(&self, deputy: Option<Arc<dyn Deputy>>) {
        self.shared.deputies_expected.store(true, Ordering::Relaxed);
        self.shared.deputy.send_replace(deputy);
    }

    /// Whether commits of this node keep losing to those of others, so that a sequencer is worth having.
    pub fn watch_contention(&self) -> watch::Receiver<bool> {
        self.shared.contended.subscribe()
    }

    /// Which process made the last commit of others that holds clients' writes: who loses loses to it.
    pub fn beaten_by(&self) -> Option<WriterId> {
        let id = self.shared.beaten_by.load(Ordering::Relaxed);
        (id != 0).then_some(WriterId(id))
    }

    /// Commits what another node hands over, all in one commit or none of it; an answer for each, in order. It waits for
    /// room in the queue like everybody's writes.
    ///
    /// # Errors
    ///
    /// `InvalidInput` or `Damaged` if something of it is not what it must be: nothing was committed. Any other error: nobody
    /// knows what became of it.
    pub async fn submit_handed(&self, handed: Vec<Handed>) -> Result<Vec<HandedAnswer>> {
        let state = self.state();
        let writes = self.shared.role.borrow().check_writes();
        if let Err(e) =
            writes.and_then(|()| state.write_epoch(self.shared.config.identity.as_ref()).map(|_| ()))
        {
            let refused = HandedAnswer::Refused(e.with_seq(state.seq()));
            return Ok(vec![refused; handed.len()]);
        }
        if handed.is_empty() {
            return Ok(Vec::new());
        }
        check::check_bundle(&handed, self.shared.config.inline_bytes)?;
        let mut requests = Vec::with_capacity(handed.len());
        let mut answers = Vec::with_capacity(handed.len());
        for handed in handed {
            let (reply, answer) = oneshot::channel();
            requests.push(check::request(handed, reply)?);
            answers.push(answer);
        }
        let gone = || self.stopped().unwrap_or_else(|| Error::unavailable("the node is shutting down"));
        self.admission.send_bundle(requests).await.map_err(|_| gone())?;
        let mut told = Vec::with_capacity(answers.len());
        for answer in answers {
            let answer = answer.await.map_err(|_| Error::outcome_unknown("the node went down"))?;
            let head = self.shared.applied();
            told.push(match answer {
                Ok(Answer::Committed(committed)) => HandedAnswer::Committed(committed),
                Ok(Answer::Refused(error)) => HandedAnswer::Refused(error.with_seq(head)),
                Ok(Answer::Recast(error)) => HandedAnswer::Recast(error.with_seq(head)),
                // It became a replica while the bundle waited, and tried nothing.
                Err(error) if error.kind() == ErrorKind::NotWriter => {
                    HandedAnswer::Refused(error.with_seq(head))
                }
                Err(error) => return Err(error),
            });
        }
        Ok(told)
    }
}
