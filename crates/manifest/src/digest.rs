//! The manifest's digest: a sum of the hashes of its entries.
//!
//! Adding an entry adds its hash, taking one away subtracts it, so that a digest is kept up to date at
//! the price of what changed and does not depend on the order in which things happened.

use sha2::{Digest, Sha256};

/// What kind of entry is hashed; part of the hash, so that kinds cannot stand for each other.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Entry {
    Table = 1,
    File = 2,
    Tail = 3,
    Schema = 4,
    Setting = 5,
    Producer = 6,
    Removed = 7,
    Token = 8,
    Scalars = 9,
    /// Not an entry: decides where a list is cut into parts.
    Cut = 10,
    Foreign = 11,
    Primary = 12,
    Lease = 13,
    /// Not entries: what stands for a token's text, for a digest that is a token, for a digest beside a token.
    TokenText = 14,
    TokenContent = 15,
    TokenDigest = 16,
    Mutation = 17,
    Pin = 18,
    History = 19,
    BroughtBack = 20,
}

pub(crate) fn entry_hash(kind: Entry, parts: &[&[u8]]) -> u128 {
    let mut hasher = Sha256::new();
    hasher.update([kind as u8]);
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let hash: [u8; 32] = hasher.finalize().into();
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    u128::from_be_bytes(half)
}
