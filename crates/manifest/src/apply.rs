//! The state after the next commit.

use tandem_format::{CommitHeader, HeaderHash, Transaction};
use tandem_types::{Error, Result, Seq};

use crate::ops::Position;
use crate::state::Manifest;
use crate::tokens::TokenAnswer;

/// At most this far does one commit move the log's own age: ten minutes, in microseconds.
const MAX_AGE_STEP: i64 = 600_000_000;

/// Why a node must stop before a commit: the log is damaged, foreign, or not one history.
pub type Stop = Error;

/// A state, and what became of each transaction of the commit that led to it.
#[derive(Clone, Debug)]
pub struct Applied {
    pub manifest: Manifest,
    pub outcomes: Vec<Outcome>,
}

/// What became of one transaction of a commit.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// In force; so many rows were appended.
    Applied { rows: u64 },
    /// Its token had been committed before: nothing happened now.
    Duplicate { seq: Seq, rows: u64 },
    /// Its checks failed: nothing happened, on any node.
    Void(Error),
}

impl Manifest {
    /// Applies the commit at the next seq. Total: a bad transaction is void, and only a commit that cannot
    /// be part of this history stops the node.
    pub fn apply(&self, header: &CommitHeader, hash: HeaderHash) -> Result<Applied, Stop> {
        self.check_chain(header)?;
        let mut next = self.clone();
        next.seq = header.seq;
        next.header_hash = hash;
        next.commit_time = header.commit_time;
        next.age = next.age.saturating_add(header.raw_clock.saturating_sub(next.age).clamp(0, MAX_AGE_STEP));
        let mut outcomes = Vec::with_capacity(header.transactions.len());
        for (index, transaction) in header.transactions.iter().enumerate() {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            let (state, outcome) = next.apply_transaction(index, transaction);
            next = state;
            outcomes.push(outcome);
        }
        Ok(Applied { manifest: next, outcomes })
    }

    fn check_chain(&self, header: &CommitHeader) -> Result<(), Stop> {
        if header.database != self.database {
            return Err(Error::damaged(format!(
                "commit {} belongs to database {}, this is {}",
                header.seq, header.database, self.database
            )));
        }
        if header.seq != self.seq.next() {
            return Err(Error::damaged(format!("commit {} follows commit {}", header.seq, self.seq)));
        }
        if header.previous != self.header_hash {
            return Err(Error::damaged(format!(
                "commit {} was not made on the commit {} that is here: the log has two histories",
                header.seq, self.seq
            )));
        }
        if header.commit_time <= self.commit_time {
            return Err(Error::damaged(format!("the time of commit {} does not grow", header.seq)));
        }
        Ok(())
    }

    /// The state after one transaction of the commit that `self` is at; `self` is left as it is.
    pub(crate) fn apply_transaction(&self, index: u32, transaction: &Transaction) -> (Manifest, Outcome) {
        if let Some(outcome) = self.known_token(transaction) {
            return (self.clone(), outcome);
        }
        if let Some(Err(error)) = transaction.token.as_ref().map(|token| self.tokens.admit(token)) {
            return (self.clone(), Outcome::Void(error));
        }
        let mut draft = self.clone();
        let mut at = Position::new(self.seq, index);
        for op in &transaction.ops {
            if let Err(error) = draft.apply_op(&mut at, op) {
                return (self.clone(), Outcome::Void(error));
            }
        }
        if let Some(token) = &transaction.token {
            let delta = draft.tokens.commit(token, self.seq, at.rows, &transaction.digest);
            draft.add_hash(delta);
        }
        (draft, Outcome::Applied { rows: at.rows })
    }

    fn known_token(&self, transaction: &Transaction) -> Option<Outcome> {
        let token = transaction.token.as_ref()?;
        match self.tokens.answer(token) {
            TokenAnswer::Fresh => None,
            answer => Some(token_outcome(answer, &transaction.digest)),
        }
    }
}

/// What a token that is not fresh means for a transaction with this content digest.
pub(crate) fn token_outcome(answer: TokenAnswer, digest: &[u8]) -> Outcome {
    use tandem_types::ErrorKind::{TokenExpired, TokenReused};
    match answer {
        TokenAnswer::Committed { seq, rows, digest: committed } if committed == digest => {
            Outcome::Duplicate { seq, rows }
        }
        TokenAnswer::Committed { seq, .. } => Outcome::Void(Error::new(
            TokenReused,
            format!("the token was used for another write, committed at {seq}"),
        )),
        TokenAnswer::Settled => Outcome::Void(Error::new(
            TokenReused,
            "the token was settled: its producer promised not to send it again",
        )),
        TokenAnswer::Expired | TokenAnswer::Fresh => Outcome::Void(Error::new(
            TokenExpired,
            "the token is too old: whether its write was committed is unknown",
        )),
    }
}
