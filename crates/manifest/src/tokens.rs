//! Tokens: which transactions were committed already, whoever sends them again.

use imbl::OrdMap;
use tandem_format::{CommittedForeign, MAX_TOKEN_BYTES, ProducerId, Token, TransactionToken};
use tandem_types::{Error, Result, Seq};

use crate::digest::{Entry, entry_hash};
use crate::foreign::{ForeignTokens, Keep, Place, content_key, digest_key, text_key};

/// Producers beyond this number are forgotten, those silent longest first.
pub const MAX_PRODUCERS: usize = 4096;

/// Committed counters that are kept per producer, at most.
pub const MAX_COMMITTED: usize = 1024;

/// What the log knows about a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenAnswer {
    /// Never committed; may be now.
    Fresh,
    /// Committed before, by a transaction of the same digest.
    Committed { seq: Seq, rows: u64 },
    /// Committed before, by a transaction of another digest.
    Reused { seq: Seq },
    /// Below what its producer promised never to send again.
    Settled,
    /// It, or its producer, may have been forgotten: nobody can tell.
    Expired,
}

/// The committed tokens: of producers that count, and of clients that made them up.
#[derive(Clone, Debug, Default)]
pub struct TokenTable {
    pub(crate) producers: OrdMap<ProducerId, Producer>,
    pub(crate) foreign: ForeignTokens,
    /// The highest seq of a token that was forgotten.
    pub(crate) floor: Seq,
}

/// What the log knows of a producer of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownProducer {
    pub producer: ProducerId,
    /// It promised not to send counters below this one again.
    pub low: u64,
    /// The highest counter that was committed.
    pub last_counter: Option<u64>,
    /// The newest commit with a token of its.
    pub last_seq: Seq,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Producer {
    pub low: u64,
    pub last_seq: Seq,
    /// The token floor when the producer was listed: it may have been listed, and forgotten, before that.
    pub since: Seq,
    pub committed: OrdMap<u64, Committed>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Committed {
    pub seq: Seq,
    pub rows: u64,
    pub digest: Vec<u8>,
}

impl TokenTable {
    /// What is known of a transaction with this token and digest, `age` being the log's age now.
    pub(crate) fn answer(&self, token: &TransactionToken, digest: &[u8], age: i64) -> TokenAnswer {
        match token {
            TransactionToken::Counted(token) => self.answer_counted(token, digest),
            TransactionToken::Foreign(token) => match self.foreign.get(text_key(&token.text)) {
                Some(((seq, _), c)) if c.digest == digest_key(digest) => {
                    TokenAnswer::Committed { seq, rows: c.rows }
                }
                Some(((seq, _), _)) => TokenAnswer::Reused { seq },
                None if token.base.is_some_and(|base| base < self.floor) => TokenAnswer::Expired,
                None => TokenAnswer::Fresh,
            },
            TransactionToken::Content { window } => match self.foreign.get(content_key(digest)) {
                Some(((seq, _), c)) if age.saturating_sub(c.age) <= *window => {
                    TokenAnswer::Committed { seq, rows: c.rows }
                }
                _ => TokenAnswer::Fresh,
            },
        }
    }

    fn answer_counted(&self, token: &Token, digest: &[u8]) -> TokenAnswer {
        let Some(producer) = self.producers.get(&token.producer) else {
            // A producer that is unknown is new, or was forgotten: then its tokens were made before the floor.
            return if token.base < self.floor { TokenAnswer::Expired } else { TokenAnswer::Fresh };
        };
        if token.counter < producer.low {
            return TokenAnswer::Settled;
        }
        match producer.committed.get(&token.counter) {
            Some(c) if c.digest == digest => TokenAnswer::Committed { seq: c.seq, rows: c.rows },
            Some(c) => TokenAnswer::Reused { seq: c.seq },
            None if token.base < producer.since => TokenAnswer::Expired,
            None => TokenAnswer::Fresh,
        }
    }

    /// Producers that the log still knows.
    pub fn producers(&self) -> usize {
        self.producers.len()
    }

    /// The producers that the log still knows, one by one.
    pub fn list_producers(&self) -> impl Iterator<Item = KnownProducer> {
        self.producers.iter().map(|(producer, known)| KnownProducer {
            producer: *producer,
            low: known.low,
            last_counter: known.committed.get_max().map(|(counter, _)| *counter),
            last_seq: known.last_seq,
        })
    }

    /// Tokens of clients that the log still knows.
    pub fn foreign(&self) -> usize {
        self.foreign.len()
    }

    /// The highest seq of a token that was forgotten; what was made before it and is not listed has expired.
    pub fn floor(&self) -> Seq {
        self.floor
    }

    /// What a fresh token must be besides, to be committed.
    pub(crate) fn admit(&self, token: &TransactionToken) -> Result<()> {
        match token {
            TransactionToken::Counted(token) => self.admit_counted(token),
            TransactionToken::Foreign(token) if !(1..=MAX_TOKEN_BYTES).contains(&token.text.len()) => {
                Err(Error::invalid(format!(
                    "a token of {} bytes; it must have from 1 to {MAX_TOKEN_BYTES}",
                    token.text.len()
                )))
            }
            TransactionToken::Foreign(_) | TransactionToken::Content { .. } => Ok(()),
        }
    }

    fn admit_counted(&self, token: &Token) -> Result<()> {
        if token.counter < token.low {
            return Err(Error::invalid(format!(
                "token {} is below {}, which its producer promised not to go below",
                token.counter, token.low
            )));
        }
        let Some(producer) = self.producers.get(&token.producer) else { return Ok(()) };
        let kept = producer.committed.range(token.low..).count();
        if kept >= MAX_COMMITTED {
            return Err(Error::overloaded(format!(
                "{kept} tokens of one producer are committed and not settled: it must raise its low"
            )));
        }
        Ok(())
    }

    /// Notes a committed token; returns by how much the manifest's digest grows.
    pub(crate) fn commit(&mut self, token: &TransactionToken, done: &Done<'_>, keep: Keep) -> u128 {
        let key = match token {
            TransactionToken::Counted(token) => return self.commit_counted(token, done),
            TransactionToken::Foreign(token) => text_key(&token.text),
            TransactionToken::Content { .. } => content_key(done.digest),
        };
        let Done { place, rows, digest, age } = *done;
        let token = CommittedForeign { key, digest: digest_key(digest), rows, age };
        let noted = self.foreign.insert(place, token);
        let (newest, forgotten) = self.foreign.forget(keep, age);
        self.floor = self.floor.max(newest);
        noted.wrapping_add(forgotten)
    }

    fn commit_counted(&mut self, token: &Token, done: &Done<'_>) -> u128 {
        let Done { place: (seq, _), rows, digest, .. } = *done;
        let id = token.producer;
        let old = self.producers.get(&id);
        let mut delta = 0u128.wrapping_sub(old.map_or(0, |p| p.hash(id)));
        let mut producer = old.cloned().unwrap_or_else(|| Producer {
            low: 0,
            last_seq: seq,
            since: self.floor,
            committed: OrdMap::new(),
        });
        producer.low = producer.low.max(token.low);
        producer.last_seq = seq;
        let settled: Vec<u64> =
            producer.committed.range(..producer.low).map(|(counter, _)| *counter).collect();
        for counter in settled {
            if let Some(c) = producer.committed.remove(&counter) {
                delta = delta.wrapping_sub(c.hash(id, counter));
            }
        }
        let committed = Committed { seq, rows, digest: digest.to_vec() };
        delta = delta.wrapping_add(committed.hash(id, token.counter));
        producer.committed.insert(token.counter, committed);
        delta = delta.wrapping_add(producer.hash(id));
        self.producers.insert(id, producer);
        delta.wrapping_add(self.forget())
    }

    fn forget(&mut self) -> u128 {
        let mut delta = 0u128;
        while self.producers.len() > MAX_PRODUCERS {
            let oldest = self.producers.iter().min_by_key(|(id, p)| (p.last_seq, **id));
            let Some((id, producer)) = oldest.map(|(id, p)| (*id, p.clone())) else { break };
            self.floor = self.floor.max(producer.last_seq);
            delta = delta.wrapping_sub(producer.hash_with_tokens(id));
            self.producers.remove(&id);
        }
        delta
    }
}

/// A transaction that was applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done<'a> {
    pub place: Place,
    pub rows: u64,
    pub digest: &'a [u8],
    /// The log's age then.
    pub age: i64,
}

impl Producer {
    /// Of the producer alone; its tokens are entries of their own.
    fn hash(&self, id: ProducerId) -> u128 {
        let counters = [self.low, self.last_seq.0, self.since.0].map(u64::to_be_bytes).concat();
        entry_hash(Entry::Producer, &[&id.0.to_be_bytes(), &counters])
    }

    pub(crate) fn hash_with_tokens(&self, id: ProducerId) -> u128 {
        let tokens = self.committed.iter().map(|(counter, c)| c.hash(id, *counter));
        tokens.fold(self.hash(id), u128::wrapping_add)
    }
}

impl Committed {
    fn hash(&self, id: ProducerId, counter: u64) -> u128 {
        let counters = [counter, self.seq.0, self.rows].map(u64::to_be_bytes).concat();
        entry_hash(Entry::Token, &[&id.0.to_be_bytes(), &counters, &self.digest])
    }
}
