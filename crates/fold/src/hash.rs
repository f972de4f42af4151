//! Hashing of words and bytes, for tables in memory. No hash leaves this process.

use std::hash::{BuildHasher, Hasher, RandomState};

const K0: u64 = 0x9e37_79b9_7f4a_7c15;
const K1: u64 = 0xd6e8_feb8_6659_fd93;

/// A seed of its own for each table: who writes rows cannot know which of them collide. What a table answers does
/// not depend on it.
pub(crate) fn seed() -> u64 {
    RandomState::new().build_hasher().finish() | 1
}

/// Multiplies to 128 bits and folds the halves: every bit of the inputs reaches the result.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

#[inline]
pub(crate) fn hash_words(words: &[u64], seed: u64) -> u64 {
    words.iter().fold(seed, |hash, word| fold(hash ^ word, K0))
}

#[inline]
pub(crate) fn hash_bytes(bytes: &[u8], seed: u64) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut hash = fold(bytes.len() as u64 ^ seed, K1);
    for word in words {
        hash = fold(hash ^ u64::from_le_bytes(*word), K0);
    }
    let mut last = [0u8; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    fold(hash ^ u64::from_le_bytes(last), K1)
}
