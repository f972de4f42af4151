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
    let hash = bytes.len() as u64 ^ seed;
    // What is left over after whole words is read together with bytes before it: no loop over single bytes.
    let Some(last) = bytes.last_chunk::<8>() else {
        return fold(hash ^ short(bytes), K0);
    };
    let (words, _) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(hash, |hash, word| fold(hash ^ u64::from_le_bytes(*word), K0));
    fold(hash ^ u64::from_le_bytes(*last), K1)
}

/// Up to seven bytes as a number; with their length it tells them apart.
fn short(bytes: &[u8]) -> u64 {
    match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>(), bytes) {
        (Some(first), Some(last), _) => {
            u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last))
        }
        (_, _, few) => few.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}
