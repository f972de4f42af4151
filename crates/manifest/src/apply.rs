//! The state after the next commit.

use tandem_format::{CommitHeader, HeaderHash, Primary, Transaction, TransactionToken};
use tandem_types::{Epoch, Error, Result, Seq};

use crate::ops::Position;
use crate::state::Manifest;
use crate::tokens::{Done, TokenAnswer};

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
        next.age = self.age_after(header.raw_clock);
        for section in header.sections() {
            next.logged.rows = next.logged.rows.saturating_add(section.rows);
            next.logged.bytes = next.logged.bytes.saturating_add(section.len);
        }
        let mut outcomes = Vec::with_capacity(header.transactions.len());
        for (index, transaction) in header.transactions.iter().enumerate() {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            let (state, outcome) = next.apply_transaction(index, transaction);
            next = state;
            outcomes.push(outcome);
        }
        Ok(Applied { manifest: next, outcomes })
    }

    /// The log's age after a commit by this clock. It begins at the first commit's clock: begun at 1970, a young log
    /// would age by the longest step with every commit, and windows of time would mean nothing for months.
    pub(crate) fn age_after(&self, raw_clock: i64) -> i64 {
        if self.seq == Seq(0) {
            return raw_clock.max(0);
        }
        self.age.saturating_add(raw_clock.saturating_sub(self.age).clamp(0, MAX_AGE_STEP))
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
        if let Some(outcome) = self.decided(transaction) {
            return (self.clone(), outcome);
        }
        let mut draft = self.clone();
        let mut at = Position::new(self.seq, index);
        for op in &transaction.ops {
            if let Err(error) = draft.apply_op(&mut at, op) {
                return (self.clone(), Outcome::Void(error));
            }
        }
        if let Some(token) = &transaction.token {
            let (place, rows) = ((self.seq, index), at.rows);
            let done = Done { place, rows, digest: &transaction.digest, age: self.age };
            let delta = draft.tokens.commit(token, &done, self.kept_tokens());
            draft.add_hash(delta);
        }
        (draft, Outcome::Applied { rows: at.rows })
    }

    /// The seq and the rows of the write that was committed under this token, if one was; an error if the token is
    /// another write's, or too old. Of these answers only `None` may become another one as the log goes on.
    pub fn committed(&self, token: &TransactionToken, digest: &[u8]) -> Result<Option<(Seq, u64)>> {
        use tandem_types::ErrorKind::{TokenExpired, TokenReused};
        let (kind, why) = match self.token_answer(token, digest) {
            TokenAnswer::Fresh => return Ok(None),
            TokenAnswer::Committed { seq, rows } => return Ok(Some((seq, rows))),
            TokenAnswer::Reused { seq } => {
                (TokenReused, format!("the token was used for another write, committed at {seq}"))
            }
            TokenAnswer::Settled => {
                (TokenReused, "the token was settled: its producer promised not to send it again".to_owned())
            }
            TokenAnswer::Expired => {
                (TokenExpired, "the token is too old: whether its write was committed is unknown".to_owned())
            }
        };
        Err(Error::new(kind, why))
    }

    /// What is decided of a transaction before its operations are looked at.
    fn decided(&self, transaction: &Transaction) -> Option<Outcome> {
        let known = transaction.token.as_ref().map(|token| self.committed(token, &transaction.digest));
        match known {
            Some(Ok(Some((seq, rows)))) => return Some(Outcome::Duplicate { seq, rows }),
            Some(Err(error)) => return Some(Outcome::Void(error)),
            Some(Ok(None)) | None => {}
        }
        let admit = || transaction.token.as_ref().map_or(Ok(()), |token| self.tokens.admit(token));
        self.check_epoch(transaction.epoch).and_then(|()| admit()).err().map(Outcome::Void)
    }

    /// Refuses what somebody sent who was the primary once, or believed in one who was. Upkeep has no epoch.
    pub(crate) fn check_epoch(&self, epoch: Option<Epoch>) -> Result<()> {
        match epoch {
            Some(epoch) if self.is_single_primary() && epoch != self.epoch => {
                Err(self.name_primary(Error::not_writer, &format!("epoch {epoch} is over")))
            }
            _ => Ok(()),
        }
    }

    /// The epoch in which what clients send to this node is committed on top of this state. `None` is a node that cannot
    /// be promoted. An address is part of who a node is: a process that was started anew under an old name elsewhere is
    /// promoted anew.
    ///
    /// # Errors
    ///
    /// `NotWriter`, naming the primary, if that is another node.
    pub fn write_epoch(&self, node: Option<&Primary>) -> Result<Epoch> {
        if !self.is_single_primary() || node.is_some_and(|node| self.primary() == Some(node)) {
            return Ok(self.epoch);
        }
        Err(self.name_primary(Error::not_writer, "this node takes no writes"))
    }

    /// An error that names the present primary.
    pub(crate) fn name_primary(&self, error: fn(String) -> Error, what: &str) -> Error {
        match &self.primary {
            Some(p) => error(format!(
                "{what}: node {} at {} is the primary in epoch {}",
                p.node_id, p.address, self.epoch
            ))
            .with_writer(&p.address),
            None => error(format!("{what}: epoch {} has no primary", self.epoch)),
        }
    }
}
