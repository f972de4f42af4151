//! Tokens: which transactions were committed already, whoever sends them again.

use std::fmt::Write;

use imbl::OrdMap;
use tandem_format::{ProducerId, Token};
use tandem_types::Seq;

use crate::digest::{Entry, entry_hash};

/// Producers beyond this number are forgotten, those silent longest first.
pub const MAX_PRODUCERS: usize = 4096;

/// What the log knows about a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenAnswer {
    /// Never committed; may be now.
    Fresh,
    /// Committed before.
    Committed { seq: Seq, rows: u64, digest: Vec<u8> },
    /// Below what its producer promised never to send again.
    Settled,
    /// Its producer was forgotten after the token was made: nobody can tell.
    Expired,
}

/// The committed tokens, by producer.
#[derive(Clone, Debug, Default)]
pub struct TokenTable {
    pub(crate) producers: OrdMap<ProducerId, Producer>,
    /// The highest seq of a token that was forgotten.
    pub(crate) floor: Seq,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Producer {
    pub low: u64,
    pub last_seq: Seq,
    pub committed: OrdMap<u64, Committed>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Committed {
    pub seq: Seq,
    pub rows: u64,
    pub digest: Vec<u8>,
}

impl TokenTable {
    pub fn answer(&self, token: &Token) -> TokenAnswer {
        let Some(producer) = self.producers.get(&token.producer) else {
            // A producer that is unknown is new, or was forgotten: then its tokens were made before the floor.
            return if token.base < self.floor { TokenAnswer::Expired } else { TokenAnswer::Fresh };
        };
        if token.counter < producer.low {
            return TokenAnswer::Settled;
        }
        match producer.committed.get(&token.counter) {
            Some(c) => TokenAnswer::Committed { seq: c.seq, rows: c.rows, digest: c.digest.clone() },
            None => TokenAnswer::Fresh,
        }
    }

    /// Producers that the log still knows.
    pub fn producers(&self) -> usize {
        self.producers.len()
    }

    /// Notes a committed token; returns by how much the manifest's digest grows.
    pub(crate) fn commit(&mut self, token: &Token, seq: Seq, rows: u64, digest: &[u8]) -> u128 {
        let old = self.producers.get(&token.producer);
        let mut delta = 0u128.wrapping_sub(old.map_or(0, |p| p.hash(token.producer)));
        let mut producer =
            old.cloned().unwrap_or(Producer { low: 0, last_seq: seq, committed: OrdMap::new() });
        producer.low = producer.low.max(token.low);
        producer.last_seq = seq;
        producer.committed = producer.committed.range(producer.low..).map(|(k, v)| (*k, v.clone())).collect();
        producer.committed.insert(token.counter, Committed { seq, rows, digest: digest.to_vec() });
        delta = delta.wrapping_add(producer.hash(token.producer));
        self.producers.insert(token.producer, producer);
        delta.wrapping_add(self.forget())
    }

    fn forget(&mut self) -> u128 {
        let mut delta = 0u128;
        while self.producers.len() > MAX_PRODUCERS {
            let oldest = self.producers.iter().min_by_key(|(id, p)| (p.last_seq, **id));
            let Some((id, producer)) = oldest.map(|(id, p)| (*id, p.clone())) else { break };
            self.floor = self.floor.max(producer.last_seq);
            delta = delta.wrapping_sub(producer.hash(id));
            self.producers.remove(&id);
        }
        delta
    }
}

impl Producer {
    pub(crate) fn hash(&self, id: ProducerId) -> u128 {
        let mut text = format!("{} {}", self.low, self.last_seq);
        for (counter, c) in &self.committed {
            // Writing to a String does not fail.
            let _ = write!(text, " {counter}:{}:{}:{:?}", c.seq, c.rows, c.digest);
        }
        entry_hash(Entry::Producer, &[&id.0.to_be_bytes(), text.as_bytes()])
    }
}
