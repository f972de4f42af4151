//! Tokens that clients made up: kept for a while, the oldest forgotten first.
//!
//! There may be millions, so texts and digests are kept as hashes, and a commit pays for the tokens that it brings:
//! each finds its place in a tree and makes room by forgetting a few.

use imbl::OrdMap;
use tandem_format::CommittedForeign;
use tandem_types::Seq;

use crate::digest::{Entry, entry_hash};

/// More of them are never kept, whatever the settings say.
pub const MAX_FOREIGN: usize = 10_000_000;

/// A token that comes makes at most so many go, so that no commit pays for a setting that was lowered.
const FORGET_AT_ONCE: usize = 4;

/// What stays: tokens younger than the window, and this many in any case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    /// Microseconds of the log's age.
    pub window: i64,
    pub count: usize,
}

/// The place of the transaction that committed a token: its commit, and its number there.
pub(crate) type Place = (Seq, u32);

/// Committed tokens by key, and by age.
#[derive(Clone, Debug, Default)]
pub(crate) struct ForeignTokens {
    by_key: OrdMap<u128, Place>,
    by_place: OrdMap<Place, CommittedForeign>,
}

/// What stands for a token's text.
pub(crate) fn text_key(text: &str) -> u128 {
    entry_hash(Entry::TokenText, &[text.as_bytes()])
}

/// What stands for the digest of a transaction that is its own token.
pub(crate) fn content_key(digest: &[u8]) -> u128 {
    entry_hash(Entry::TokenContent, &[digest])
}

/// What stands for a transaction's digest beside its token.
pub(crate) fn digest_key(digest: &[u8]) -> u128 {
    entry_hash(Entry::TokenDigest, &[digest])
}

impl ForeignTokens {
    pub fn get(&self, key: u128) -> Option<(Place, CommittedForeign)> {
        let place = *self.by_key.get(&key)?;
        self.by_place.get(&place).map(|token| (place, *token))
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// By age, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (Place, CommittedForeign)> {
        self.by_place.iter().map(|(place, token)| (*place, *token))
    }

    /// Notes a token, in place of the one that its key had; returns by how much the manifest's digest grows.
    pub fn insert(&mut self, place: Place, token: CommittedForeign) -> u128 {
        let mut delta = hash(place, &token);
        if let Some(old_place) = self.by_key.insert(token.key, place)
            && let Some(old) = self.by_place.remove(&old_place)
        {
            delta = delta.wrapping_sub(hash(old_place, &old));
        }
        self.by_place.insert(place, token);
        delta
    }

    /// Forgets some of what need not be kept at this age of the log; returns the newest seq that was forgotten and by
    /// how much the manifest's digest grows.
    pub fn forget(&mut self, keep: Keep, age: i64) -> (Seq, u128) {
        let (mut newest, mut delta) = (Seq(0), 0u128);
        for _ in 0..FORGET_AT_ONCE {
            let Some((place, token)) = self.by_place.get_min().copied() else { break };
            let old = age.saturating_sub(token.age) >= keep.window;
            if self.len() <= keep.count.min(MAX_FOREIGN) || !(old || self.len() > MAX_FOREIGN) {
                break;
            }
            delta = delta.wrapping_sub(hash(place, &token));
            self.by_key.remove(&token.key);
            self.by_place.remove(&place);
            newest = place.0;
        }
        (newest, delta)
    }
}

fn hash((seq, transaction): Place, token: &CommittedForeign) -> u128 {
    let place = [seq.0, u64::from(transaction), token.rows, token.age.cast_unsigned()];
    let place = place.map(u64::to_be_bytes).concat();
    entry_hash(Entry::Foreign, &[&token.key.to_be_bytes(), &token.digest.to_be_bytes(), &place])
}
