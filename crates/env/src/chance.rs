//! Chance: random numbers for names, ids and waits. Not for secrets.

use std::fmt::Debug;

use rand::Rng;

/// A source of random numbers.
pub trait Chance: Send + Sync + Debug {
    /// 64 random bits.
    fn next_u64(&self) -> u64;

    /// 128 random bits.
    fn next_u128(&self) -> u128 {
        (u128::from(self.next_u64()) << 64) | u128::from(self.next_u64())
    }

    /// A number below `n`, each about equally likely; 0 when `n` is 0.
    fn below(&self, n: u64) -> u64 {
        // The high half of the product: no division, and a bias of at most n / 2^64.
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }
}

/// The process's generator, seeded by the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemChance;

impl Chance for SystemChance {
    #[expect(clippy::disallowed_methods, reason = "this is what the door opens on")]
    fn next_u64(&self) -> u64 {
        rand::rng().next_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_below_their_bound_and_reach_all_of_it() {
        let mut seen = [false; 5];
        for _ in 0..1000 {
            seen[usize::try_from(SystemChance.below(5)).unwrap()] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(SystemChance.below(0), 0);
        assert_ne!(SystemChance.next_u128(), SystemChance.next_u128());
    }
}
