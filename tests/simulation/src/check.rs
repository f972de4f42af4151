//! The judge: what nodes show and what clients are told, held against the truth.

use tandem_format::{CommitHeader, Op};
use tandem_manifest::{Intent, Manifest, Rebased, Rejection, Step, rebase};
use tandem_types::{ErrorKind, Result, Seq};
use tandem_writer::Committed;

use crate::client::Write;
use crate::world::World;

/// One attempt at a write, from its client's call on.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub node: usize,
    /// The head when its client called.
    pub invoked: Seq,
    pub base: Seq,
    pub steps: Vec<Step>,
}

/// What the rules say to an intent on some state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    NoOp,
    Refused(ErrorKind),
}

impl World {
    /// A state that a node shows.
    pub fn check_state(&self, node: usize, state: &Manifest, how: &str) {
        let truth = self.truth();
        let Some(right) = truth.state(state.seq()) else {
            // Before the first commit there is nothing to compare with.
            if state.seq() > truth.head() {
                let text = format!("node {node} {how} {}, the log ends at {}", state.seq(), truth.head());
                drop(truth);
                self.blame("I4", text);
            }
            return;
        };
        if right.header_hash() != state.header_hash() || right.digest() != state.digest() {
            drop(truth);
            self.blame(
                "I5",
                format!("node {node} {how} {}, and its state there is another one", state.seq()),
            );
        }
    }

    /// Whether those who wrote a commit were allowed to.
    pub fn check_epochs(&self, before: &Manifest, header: &CommitHeader) {
        let changes = |op: &Op| matches!(op, Op::Promote { .. } | Op::SetSettings { .. });
        if !before.is_single_primary() || header.transactions.iter().flat_map(|t| &t.ops).any(changes) {
            return;
        }
        let upkeep = |op: &Op| {
            use Op::{Checkpoint, Horizon, Lease, Replace, RestoreTable};
            matches!(op, Replace(_) | Checkpoint { .. } | Lease { .. } | Horizon { .. } | RestoreTable(_))
        };
        for transaction in header.transactions.iter().filter(|t| !t.ops.iter().all(upkeep)) {
            let writer = self.node_of(header.writer);
            let primary = before.primary().map(|p| p.node_id.clone());
            // Who writes is what counts; the epoch is how others can tell.
            if transaction.epoch.is_some_and(|epoch| epoch != before.epoch()) || writer != primary {
                self.blame(
                    "I15",
                    format!(
                        "commit {} of node {writer:?} is of epoch {:?}, and the primary is {primary:?} in {}",
                        header.seq,
                        transaction.epoch,
                        before.epoch()
                    ),
                );
            }
        }
    }

    /// What a client is told, at the moment in which its node says so.
    pub fn check_answer(&self, write: &Write, attempt: &Attempt, applied: Seq, answer: &Result<Committed>) {
        match answer {
            Ok(committed) => self.check_ack(write, attempt, applied, committed),
            Err(e) if is_definite(e.kind()) => self.check_refusal(write, attempt, e.kind(), &e.to_string()),
            Err(e)
                if e.kind() == ErrorKind::NotWriter && write.is_sent_once() && self.is_committed(write) =>
            {
                self.blame("I8", format!("write {} was sent elsewhere, and is committed: {e}", write.number));
            }
            Err(_) => {}
        }
    }

    /// A client has heard that its one attempt is refused, and sends it no more.
    pub fn note_refusal(&self, write: &Write) {
        if write.is_sent_once() {
            let mut truth = self.truth();
            truth.naive.refused_writes.insert(write.number);
            truth.naive.refused_tokens.extend(write.token_text());
        }
    }

    fn is_committed(&self, write: &Write) -> bool {
        let truth = self.truth();
        let by_token = write.token_text().is_some_and(|text| truth.naive.token(&text).is_some());
        truth.naive.write(write.number).is_some() || by_token
    }

    fn check_ack(&self, write: &Write, attempt: &Attempt, applied: Seq, committed: &Committed) {
        let what =
            || format!("write {} was acknowledged by node {} as {committed:?}", write.number, attempt.node);
        if applied < committed.seq {
            self.blame("I6", format!("{}, which stands at {applied}", what()));
        }
        let (head, found, token) = {
            let truth = self.truth();
            let token = write.token_text().and_then(|text| truth.naive.token(&text));
            (truth.head(), truth.naive.write(write.number), token)
        };
        if committed.seq > head {
            self.blame("I1", format!("{}, and the log ends at {head}", what()));
            return;
        }
        if write.rows > 0 && found != Some((committed.seq, committed.rows)) {
            self.blame("I1", format!("{}, and the log has it at {found:?}", what()));
        }
        // Where nodes hand over to each other, a node that asks again hears of its own first try.
        if committed.duplicate && write.is_sent_once() && !self.plan.handover {
            self.blame("I2", format!("{}, and was sent once", what()));
        }
        let repeated = self.plan.handover && !write.is_sent_once();
        if !committed.duplicate && committed.seq <= attempt.invoked && write.rows > 0 && !repeated {
            self.blame("I7", format!("{}, and was sent after {}", what(), attempt.invoked));
        }
        if write.rows == 0 && write.token_text().is_some() {
            match token {
                Some(seq) if seq == committed.seq => {}
                // A success without a commit leaves no trace: an earlier attempt may still find something to do.
                Some(_) if !write.is_sent_once() && self.was_right(attempt, Answer::NoOp) => {}
                Some(seq) => self.blame("I2", format!("{}, and the log has its token at {seq}", what())),
                None if self.was_right(attempt, Answer::NoOp) => {}
                None => self.blame("I1", format!("{}, and the log has nothing of it", what())),
            }
        }
    }

    fn check_refusal(&self, write: &Write, attempt: &Attempt, kind: ErrorKind, why: &str) {
        let what = || format!("write {} was refused by node {}: {why}", write.number, attempt.node);
        if matches!(kind, ErrorKind::TokenReused | ErrorKind::TokenExpired) {
            self.blame("I2", what());
            return;
        }
        if write.is_sent_once() && self.is_committed(write) {
            self.blame("I8", format!("{}, and it is committed", what()));
        }
        if !self.was_right(attempt, Answer::Refused(kind)) {
            let head = self.head();
            let text = format!("{}, and from {} to {head} it was never so", what(), attempt.invoked);
            self.blame("I7", text);
        }
    }

    /// Whether the rules give this answer on some state since the call.
    fn was_right(&self, attempt: &Attempt, answer: Answer) -> bool {
        let (base, steps) = (attempt.base, attempt.steps.clone());
        let intent = Intent { token: None, digest: Vec::new(), epoch: None, base, steps };
        let truth = self.truth();
        let head = truth.head();
        let says = |state: &Manifest| match rebase(&intent, state, state.seq().next(), 0) {
            Ok(Rebased::NoOp) => answer == Answer::NoOp,
            Ok(_) => false,
            Err(Rejection::Refused(e) | Rejection::Recast(e)) => answer == Answer::Refused(e.kind()),
        };
        let seqs = || (attempt.invoked.0..=head.0).map(Seq);
        if head == Seq(0) || seqs().filter_map(|seq| truth.state(seq)).any(says) {
            return true;
        }
        // Or between two transactions of one commit.
        seqs().any(|seq| {
            let (Some(state), Some(next)) = (truth.state(seq), truth.commit(seq.next())) else {
                return false;
            };
            (1..next.commit.header.transactions.len()).any(|first| {
                let mut header = next.commit.header.clone();
                header.transactions.truncate(first);
                state.apply(&header, next.commit.hash).is_ok_and(|applied| says(&applied.manifest))
            })
        })
    }
}

/// Whether an error says that nothing was, or will be, committed of this attempt.
pub fn is_definite(kind: ErrorKind) -> bool {
    use ErrorKind::{
        AlreadyExists, InvalidInput, NotFound, SchemaConflict, Serialization, TokenExpired, TokenReused,
    };
    matches!(
        kind,
        AlreadyExists | InvalidInput | NotFound | SchemaConflict | Serialization | TokenExpired | TokenReused
    )
}
